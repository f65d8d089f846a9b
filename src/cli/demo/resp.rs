//! A blocking Redis client, as small as the demo needs it: one command, one reply.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any command of the demo may be held.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);
const BULK_BYTES_MAX: usize = 1 << 20;
const ITEMS_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Status(String),
    /// Without its `-`.
    Error(String),
    Integer(i64),
    /// Nothing for the null reply.
    Bulk(Option<String>),
    Array(Vec<Answer>),
}

#[derive(Debug)]
pub(super) struct Connection {
    reader: BufReader<TcpStream>,
    request: Vec<u8>,
}

impl Connection {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, REPLY_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self {
            reader: BufReader::new(stream),
            request: Vec::new(),
        })
    }

    pub(super) fn call(&mut self, arguments: &[&str]) -> io::Result<Answer> {
        self.request.clear();
        crate::resp::write::array(&mut self.request, arguments.len());
        for argument in arguments {
            crate::resp::write::bulk(&mut self.request, argument.as_bytes());
        }
        self.reader.get_mut().write_all(&self.request)?;
        answer(&mut self.reader, DEPTH_MAX)
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn answer(reader: &mut impl BufRead, depth: usize) -> io::Result<Answer> {
    let mut line = String::new();
    reader.take(BULK_BYTES_MAX as u64).read_line(&mut line)?;
    let line = line.strip_suffix("\r\n").ok_or_else(|| wrong("the connection ended"))?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| wrong("an empty line"))?;
    let number = || rest.parse::<i64>().map_err(|_| wrong("not a number"));
    let length = |max: usize| match number()? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= max => Ok(Some(length)),
            Ok(_) | Err(_) => Err(wrong("too long")),
        },
    };
    match kind {
        "+" => Ok(Answer::Status(rest.to_owned())),
        "-" => Ok(Answer::Error(rest.to_owned())),
        ":" => Ok(Answer::Integer(number()?)),
        "$" => match length(BULK_BYTES_MAX)? {
            None => Ok(Answer::Bulk(None)),
            Some(length) => {
                let mut bytes = vec![0; length + 2];
                reader.read_exact(&mut bytes)?;
                bytes.truncate(length);
                let text = String::from_utf8(bytes).map_err(|_| wrong("not text"))?;
                Ok(Answer::Bulk(Some(text)))
            }
        },
        "*" => {
            let Some(depth) = depth.checked_sub(1) else {
                return Err(wrong("nested too deep"));
            };
            let items = length(ITEMS_MAX)?.unwrap_or(0);
            (0..items)
                .map(|_| answer(reader, depth))
                .collect::<io::Result<_>>()
                .map(Answer::Array)
        }
        _ => Err(wrong("not a RESP2 reply")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_whole() {
        let bulk = |text: &str| Answer::Bulk(Some(text.to_owned()));
        for (bytes, expected) in [
            ("+OK\r\n", Answer::Status("OK".to_owned())),
            ("-ERR no\r\n", Answer::Error("ERR no".to_owned())),
            (":-7\r\n", Answer::Integer(-7)),
            ("$-1\r\n", Answer::Bulk(None)),
            ("$4\r\na\r\nb\r\n", bulk("a\r\nb")),
            (
                "*2\r\n*1\r\n$1\r\nx\r\n*0\r\n",
                Answer::Array(vec![Answer::Array(vec![bulk("x")]), Answer::Array(vec![])]),
            ),
        ] {
            assert_eq!(answer(&mut bytes.as_bytes(), DEPTH_MAX).unwrap(), expected, "{bytes:?}");
            for end in 0..bytes.len() {
                assert!(
                    answer(&mut bytes[..end].as_bytes(), DEPTH_MAX).is_err(),
                    "{:?}",
                    &bytes[..end]
                );
            }
        }
    }

    #[test]
    fn no_length_and_no_depth_is_trusted() {
        let deep = "*1\r\n".repeat(100_000);
        for bytes in [
            "$9999999999\r\n",
            "*9999999999\r\n",
            "*-2\r\n",
            "?\r\n",
            "\r\n",
            deep.as_str(),
        ] {
            assert!(
                answer(&mut bytes.as_bytes(), DEPTH_MAX).is_err(),
                "{:?}",
                bytes.get(..20)
            );
        }
    }
}
