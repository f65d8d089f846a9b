//! What the parts of a request's path cost: time, and allocations. The whole path is measured by `benches/bench`, its allocations by
//! `tests/allocations.rs`.
//!
//! Only what is public is called here: how a session routes is its own affair.
#![allow(clippy::unwrap_used, reason = "a benchmark may fail by panicking")]

mod command;
mod journal;
mod outage;
mod resp;

use divan::AllocProfiler;
use tideover::resp::request::OwnedRequest;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Milliseconds since 1970, of some day.
const WALL_MS: u64 = 1_790_000_000_000;

fn main() {
    divan::main();
}

/// A request from its words.
fn request(line: &str) -> OwnedRequest {
    let words: Vec<&str> = line.split(' ').collect();
    OwnedRequest::new(&words)
}
