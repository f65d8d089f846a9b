//! What the integration tests share: real servers, the built binary, and a client that sees raw bytes.
//!
//! Everything here waits for a condition with a deadline and panics with what it waited for; nothing sleeps and hopes.
//! Every process is ended by its handle when the test ends, however it ends.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file uses its own part of this module"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

pub mod certificates;
pub mod client;
pub mod load;
pub mod pair;
pub mod port;
pub mod process;
pub mod proxy;
pub mod relay;
pub mod server;
pub mod steps;
pub mod wire;

use std::time::{Duration, Instant};

pub use client::{Client, array, bulk, command, error_text, integer};
pub use port::Port;
pub use proxy::{Settings, Tideover};
pub use relay::{Relay, Verdict};
pub use server::{Durability, RedisServer};
pub use steps::{await_down, check, numbers, push};
pub use wire::{Direction, Wire};

/// How long a test waits for something that must happen; generous, since two cores may be shared by many.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not hold within `deadline`; the message says `what` was awaited.
#[track_caller]
pub fn wait_until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Bytes as a person reads them, cut where they get long.
pub fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 600;
    let cut = &bytes[..bytes.len().min(SHOWN_MAX)];
    let more = if bytes.len() > SHOWN_MAX {
        format!("… ({} bytes)", bytes.len())
    } else {
        String::new()
    };
    format!("{}{more}", cut.escape_ascii())
}

/// A count in a section of INFO.
pub fn info_count(redis: &mut Client, section: &str, name: &str) -> usize {
    let text = String::from_utf8(redis.call(&["INFO", section])).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().parse().unwrap()
}

/// Connections that Redis has accepted so far.
pub fn connects(redis: &mut Client) -> usize {
    info_count(redis, "stats", "total_connections_received")
}

/// Until so many clients block at Redis.
pub fn wait_for_blocked(direct: &mut Client, count: usize, deadline: Duration) {
    wait_until(deadline, &format!("{count} blocked clients"), || {
        info_count(direct, "clients", "blocked_clients") == count
    });
}
