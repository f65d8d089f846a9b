//! Malformed and odd input: what a live redis-server answers, and whether it closes, compared with what the scanner says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panicking")]

mod support;

use std::io::{ErrorKind, Read, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tideover::resp::Request;
use tideover::resp::scan::{Limits, Scan, Scanner};

use support::{Durability, RedisServer};

struct Server(RedisServer);

impl Server {
    fn start() -> Self {
        Self(RedisServer::start(Durability::Memory))
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.0.port())).unwrap()
    }

    /// All that the server says to `input` followed by our end of file; what it closes early it has refused.
    fn answer(&self, input: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.0.port())).unwrap();
        // It may close before it has read everything: then the answer is there all the same.
        let _ = stream.write_all(input);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        answer
    }
}

/// What a Redis behind our scanner would say: ECHO and PING are executed here, errors are the scanner's.
fn ours(input: &[u8]) -> Vec<u8> {
    let mut scanner = Scanner::default();
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        let rest = &input[at..];
        let (request, len) = match scanner.scan(rest, &Limits::default()) {
            Ok(Scan::Incomplete) => return out,
            Ok(Scan::Nothing { len }) => {
                at += len;
                continue;
            }
            Ok(Scan::Request { len }) => (Request::new(&rest[..len], scanner.spans()), len),
            Ok(Scan::Inline { len }) => (Request::new(scanner.inline(), scanner.spans()), len),
            Err(error) => {
                error.write(&mut out);
                return out;
            }
        };
        match request.arg(0) {
            b"PING" => out.extend_from_slice(b"+PONG\r\n"),
            b"ECHO" if request.len() == 2 => tideover::resp::write::bulk(&mut out, request.arg(1)),
            b"ECHO" => out.extend_from_slice(b"-ERR wrong number of arguments for 'echo' command\r\n"),
            other => panic!("{} is not in the samples", other.escape_ascii()),
        }
        at += len;
    }
}

/// Behind each of these stands a PING: it is answered unless the input before it waits for more, or was refused.
const SAMPLES: &[&[u8]] = &[
    b"*1000000000\r\n",
    b"*2147483647\r\n",
    b"*2147483648\r\n",
    b"*-5\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*-0\r\n",
    b"*abc\r\n",
    b"*\r\n",
    b"*+1\r\n",
    b"*01\r\n",
    b"* 1\r\n",
    b"*1 \r\n",
    b"*99999999999999999999\r\n",
    b"*-9223372036854775808\r\n",
    b"*-9223372036854775809\r\n",
    b"*1\r\n$-5\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n:5\r\n",
    b"*1\r\n*1\r\n",
    b"*1\r\n\r\n",
    b"*1\r\n\n\r\n",
    b"*1\r\n\xff\r\n",
    b"*1\r\n\0\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*1\r\n$+4\r\nPING\r\n",
    b"*1\r\n$600000000\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$536870912\r\n",
    b"*1\0\r\n$4\r\nPING\r\n",
    b"*1\r\n$4\0\r\nPING\r\n",
    b"*1\r\n$4\r\nPINGxx",
    b"*1\rx$4\rxPINGxx",
    b"*1\nx$4\nxPINGxx",
    b"*2\r\n$4\r\nECHO\r\n$3\r\na\0b\r\n",
    b"\r\n",
    b"\n\n",
    b"   \r\n",
    b"PING\r\r\n",
    b"ECHO \"\\x41\\n\\t\\a\\b\\q\\\\\\\"\"\r\n",
    b"ECHO \"\\xZZ\\x4\"\r\n",
    b"ECHO 'a\\'b\\n'\r\n",
    b"ECHO foo\"bar\"\r\n",
    b"ECHO \"\"\r\n",
    b"ECHO a\rb\r\n",
    b"ECHO a\x0bb\x0cc\r\n",
    b"\x0bECHO \"a\"\x0b\"b\"\r\n",
    b"ECHO \"abc\r\n",
    b"ECHO 'abc\r\n",
    b"ECHO \"a\"b\r\n",
    b"ECHO 'a'b\r\n",
    b"ECHO \"\\\r\n",
    b"ECHO a\0b\r\n",
    b"\0\r\n",
];

#[test]
fn odd_input_is_answered_and_refused_as_by_redis() {
    let server = Server::start();
    for sample in SAMPLES {
        // An odd number of bytes is missing in some, so the PING may complete them: on both sides alike.
        let input = [sample, b"PING\r\n".as_slice()].concat();
        compare(&server, &input);
    }
}

#[test]
fn lines_without_end_are_refused_as_by_redis() {
    let server = Server::start();
    for head in ["a", "\0", "ECHO ", "*", "*1\r\n$", "*1\r\n", "*1\r\n\0"] {
        let input = [head.as_bytes(), &[b'1'; 70_000]].concat();
        compare(&server, &input);
    }
    for bytes in [65_536, 65_537] {
        compare(&server, &vec![b'a'; bytes]);
    }
    let longest = [b"ECHO ".as_slice(), &[b'a'; 65_500], b"\r\n"].concat();
    compare(&server, &longest);
}

/// A refusal is the last thing said: behind it the connection is closed, and the PING not answered.
fn compare(server: &Server, input: &[u8]) {
    let theirs = server.answer(input);
    assert_eq!(
        ours(input).escape_ascii().to_string(),
        theirs.escape_ascii().to_string(),
        "{}",
        input[..input.len().min(80)].escape_ascii()
    );
}

#[test]
fn a_refusal_closes_the_connection_and_waiting_does_not() {
    let server = Server::start();
    for (input, refused) in [
        (b"*abc\r\n".as_slice(), true),
        (b"*1\r\n$-5\r\n", true),
        (b"*1\r\n:5\r\n", true),
        (b"ECHO \"a\r\n", true),
        (b"*1000000000\r\n", false),
        (b"*-5\r\n", false),
        (b"ECHO a\0b\r\n", false),
    ] {
        let mut stream = server.connect();
        stream.write_all(input).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut answer = Vec::new();
        // Without our end of file only the server's can end this; else the timeout does.
        let closed = stream.read_to_end(&mut answer).is_ok();
        assert_eq!(closed, refused, "{}", input.escape_ascii());
        let said = Scanner::default().scan(input, &Limits::default());
        assert_eq!(said.is_err(), refused, "{}", input.escape_ascii());
    }
}
