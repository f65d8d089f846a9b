//! Free loopback ports that no other test takes, in this process or another.

use std::fs::File;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below Linux's ephemeral range, so that no outgoing connection ever sits on one of them.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A loopback port that belongs to its holder until dropped, whether or not something listens there.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// An advisory lock on a file named after the port keeps parallel test processes apart.
    _lock: File,
}

impl Port {
    /// # Panics
    /// When no port is left.
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let start = u16::try_from(std::process::id().wrapping_mul(61) % u32::from(COUNT)).unwrap();
        let dir = std::env::temp_dir().join("tideover-test-ports");
        std::fs::create_dir_all(&dir).unwrap();
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            let number = FIRST + u16::try_from((u32::from(start) + u32::from(step)) % u32::from(COUNT)).unwrap();
            let Ok(lock) = File::create(dir.join(number.to_string())) else {
                continue;
            };
            // Not by listening: a process that another thread starts at that moment listens on until its exec.
            if lock.try_lock().is_ok() && TcpStream::connect(("127.0.0.1", number)).is_err() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:N`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}
