//! Clients that connect, do something small, and leave, many per second.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::support::{DEADLINE, command};

const THREADS: u64 = 4;

/// What a crowd was.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) clients: u64,
    /// From connecting to the last reply.
    pub(crate) slowest: Duration,
}

impl Crowd {
    /// Sends `per_second` clients for as long as `lasting`, each on its own time: one that is late does not hold up the next but for its thread.
    pub(crate) fn run(address: &str, lasting: Duration, per_second: u64) -> Self {
        let number = AtomicU64::new(0);
        let begin = Instant::now();
        let visits = || {
            let mut slowest = Duration::ZERO;
            loop {
                let number = number.fetch_add(1, Ordering::Relaxed);
                let due = Duration::from_secs(1) * u32::try_from(number).unwrap() / u32::try_from(per_second).unwrap();
                if due >= lasting {
                    return slowest;
                }
                std::thread::sleep(due.saturating_sub(begin.elapsed()));
                let came = Instant::now();
                visit(address, number);
                slowest = slowest.max(came.elapsed());
            }
        };
        let slowest = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(visits)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).max()
        });
        Self {
            clients: number.into_inner() - THREADS,
            slowest: slowest.unwrap_or_default(),
        }
    }
}

/// Each kind leaves in another state of its session.
fn visit(address: &str, number: u64) {
    let mut client = Plain::connect(address);
    let key = format!("key:{}", number % 1000);
    match number % 10 {
        0..5 => {
            client.call(&["PING"]);
            client.call(&["GET", &key]);
        }
        5 | 6 => {
            client.call(&["HELLO", "3"]);
            client.call(&["GET", &key]);
        }
        7 => client.send(&["BLPOP", "nothing", "0"]),
        8 => {
            client.call(&["SUBSCRIBE", "channel"]);
        }
        _ => {
            client.call(&["MULTI"]);
            client.call(&["SET", &key, "never"]);
        }
    }
}

/// The least a client can be: one file, no buffer.
#[derive(Debug)]
pub(crate) struct Plain(TcpStream);

impl Plain {
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(stream)
    }

    pub(crate) fn set_and_get(&mut self) {
        self.call(&["SET", "key", "value"]);
        self.call(&["GET", "key"]);
    }

    fn send(&mut self, args: &[&str]) {
        self.0.write_all(&command(args)).unwrap();
    }

    /// All replies asked for here come in one piece.
    fn call(&mut self, args: &[&str]) {
        self.send(args);
        let mut reply = [0; 1024];
        let bytes = self.0.read(&mut reply).unwrap();
        assert!(
            bytes > 0 && reply[0] != b'-',
            "{args:?}: {}",
            reply[..bytes].escape_ascii()
        );
    }
}
