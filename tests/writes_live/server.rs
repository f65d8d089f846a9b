//! A redis-server of our own, and raw replies from it.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;

use tideover::resp::Protocol;
use tideover::resp::request::OwnedRequest;

use crate::support::{Durability, RedisServer};
use crate::{Compared, KEYS};

pub(crate) struct Server(RedisServer);

impl Server {
    pub(crate) fn start() -> Self {
        Self(RedisServer::start(Durability::Memory))
    }

    pub(crate) fn connect(&self, protocol: Protocol) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", self.0.port())).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = Connection(BufReader::new(stream));
        if protocol == Protocol::Resp3 {
            connection.command("HELLO 3");
        }
        connection
    }
}

pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn command(&mut self, text: &str) -> Vec<u8> {
        self.raw(OwnedRequest::new(&words(text)).as_request().frame())
    }

    pub(crate) fn raw(&mut self, frame: &[u8]) -> Vec<u8> {
        self.0.get_mut().write_all(frame).unwrap();
        let mut reply = Vec::new();
        self.reply(&mut reply);
        reply
    }

    /// Whether this server has the command.
    pub(crate) fn has(&mut self, name: &str) -> bool {
        let info = self.command(&format!("COMMAND INFO {name}"));
        info.starts_with(b"*1\r\n*1")
    }

    fn reply(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        self.0.read_until(b'\n', out).unwrap();
        let line = String::from_utf8_lossy(&out[start + 1..out.len() - 2]).into_owned();
        match out[start] {
            b'$' | b'=' => {
                if let Ok(len) = line.parse::<usize>() {
                    let mut payload = vec![0; len + 2];
                    self.0.read_exact(&mut payload).unwrap();
                    out.extend(payload);
                }
            }
            kind @ (b'*' | b'~' | b'>' | b'%') => {
                let n = line.parse::<usize>().unwrap_or(0);
                for _ in 0..if kind == b'%' { n * 2 } else { n } {
                    self.reply(out);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn state(&mut self, db: u32, compared: Compared) -> Vec<Vec<u8>> {
        self.command(&format!("SELECT {db}"));
        let commands: &[&str] = match compared {
            Compared::Everything | Compared::State => &["DUMP"],
            Compared::Shape => &["TYPE", "XLEN", "XINFO GROUPS"],
        };
        let pairs = KEYS
            .iter()
            .flat_map(|key| commands.iter().map(move |command| format!("{command} {key}")));
        pairs.map(|command| self.command(&command)).collect()
    }

    pub(crate) fn ttls_ms(&mut self, db: u32) -> Vec<i64> {
        self.command(&format!("SELECT {db}"));
        let replies = KEYS.map(|key| self.command(&format!("PTTL {key}")));
        let text = |reply: Vec<u8>| String::from_utf8(reply).unwrap();
        replies
            .map(|reply| text(reply)[1..].trim_end().parse().unwrap())
            .to_vec()
    }
}

/// `""` is an empty argument.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split(' ').map(|word| word.replace("\"\"", "")).collect()
}
