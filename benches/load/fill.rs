//! Sets every key once, so that a GET finds something: on an empty keyspace it is twice as fast.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::failure::Failure;
use crate::requests::{DIGITS, KEY_WORD, value};

/// For redis-benchmark, whose keys are named so.
const OTHER_KEY_WORD: &str = "key:";
const BATCH_BYTES: usize = 64 * 1024;
const REPLY: &[u8; 5] = b"+OK\r\n";

pub(crate) fn fill(address: SocketAddr, keys: u64, value_bytes: usize) -> Result<(), Failure> {
    let doing = Failure::io::<std::io::Error>;
    let mut stream = TcpStream::connect(address).map_err(doing("connecting"))?;
    let mut replies = BufReader::new(stream.try_clone().map_err(doing("connecting"))?);
    let value = value(value_bytes);
    let (mut batch, mut sent) = (Vec::new(), 0);
    let names = (0..keys).flat_map(|key| [KEY_WORD, OTHER_KEY_WORD].map(|word| format!("{word}{key:0DIGITS$}")));
    let mut names = names.peekable();
    while let Some(name) = names.next() {
        batch.extend(format!("*3\r\n$3\r\nSET\r\n${}\r\n{name}\r\n${value_bytes}\r\n", name.len()).bytes());
        batch.extend_from_slice(&value);
        batch.extend(b"\r\n");
        sent += 1;
        if batch.len() < BATCH_BYTES && names.peek().is_some() {
            continue;
        }
        stream.write_all(&batch).map_err(doing("sending"))?;
        batch.clear();
        for _ in 0..std::mem::take(&mut sent) {
            let mut reply = [0; REPLY.len()];
            replies.read_exact(&mut reply).map_err(doing("receiving"))?;
            if &reply != REPLY {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return Err(Failure::WrongReply {
                    got: text(&reply),
                    expected: text(REPLY),
                });
            }
        }
    }
    Ok(())
}
