//! Memory that was freed goes back to the system once a storm is over. The C library keeps it: of 10,000 clients that have left, 20 MB and more
//! (`benches/memory`).

use std::time::{Duration, Instant};

use crate::admin::Load;

/// So many fewer clients than there were are worth a look through the heap, which takes some milliseconds.
const CLIENTS_LEFT_MIN: u64 = 256;
/// So are so many records that were replayed.
const RECORDS_REPLAYED_MIN: u64 = 10_000;
/// Not more often than this. What starting took, and learning what the upstream knows, is free by then.
const INTERVAL: Duration = Duration::from_secs(10);

/// The most that there was since memory was given back.
#[derive(Debug)]
pub(super) struct GiveBack {
    peak: Load,
    /// When that was, or the start.
    since: Instant,
    starts: Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Settles,
    Over,
}

/// Whether it is time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Yes,
    No,
}

impl GiveBack {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            peak: Load::default(),
            since: now,
            starts: Start::Settles,
        }
    }

    /// To be called now and then.
    pub(super) fn look(&mut self, load: Load, now: Instant) {
        match self.is_due(load, now) {
            Due::Yes => trim(),
            Due::No => {}
        }
    }

    fn is_due(&mut self, load: Load, now: Instant) -> Due {
        let clients_left = self.peak.clients.saturating_sub(load.clients);
        let is_replayed = load.records == 0 && self.peak.records >= RECORDS_REPLAYED_MIN;
        let is_worth_it = self.starts == Start::Settles || clients_left >= CLIENTS_LEFT_MIN || is_replayed;
        if is_worth_it && now.duration_since(self.since) >= INTERVAL {
            *self = Self {
                peak: load,
                since: now,
                starts: Start::Over,
            };
            return Due::Yes;
        }
        self.peak = Load {
            clients: self.peak.clients.max(load.clients),
            records: self.peak.records.max(load.records),
        };
        Due::No
    }
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "there is no other way to ask the C library for it")]
fn trim() {
    // SAFETY: takes a number, touches free memory only, and may be called from any thread at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other C libraries give it back by themselves, or cannot be asked.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_time_when_many_have_left_or_a_large_backlog_is_gone_and_once_after_the_start() {
        let load = |clients, records| Load { clients, records };
        let start = Instant::now();
        let mut give_back = GiveBack::new(start);
        assert_eq!(give_back.is_due(load(0, 0), start), Due::No);
        let mut now = start + INTERVAL;
        assert_eq!(give_back.is_due(load(10, 0), now), Due::Yes);
        for (seen, expected) in [
            (load(1000, 0), Due::No),
            (load(1000 - CLIENTS_LEFT_MIN + 1, 0), Due::No),
            (load(1000 - CLIENTS_LEFT_MIN, 0), Due::Yes),
            (load(1000 - CLIENTS_LEFT_MIN, 0), Due::No),
            (load(0, RECORDS_REPLAYED_MIN), Due::Yes),
            (load(0, RECORDS_REPLAYED_MIN - 1), Due::No),
            (load(0, 1), Due::No),
            (load(0, 0), Due::Yes),
            (load(0, RECORDS_REPLAYED_MIN - 1), Due::No),
            (load(0, 0), Due::No),
        ] {
            now += INTERVAL;
            assert_eq!(give_back.is_due(seen, now), expected, "{seen:?}");
        }
        for (quarters, clients, expected) in [
            (4, 5000, Due::No),
            (8, 0, Due::Yes),
            (9, 5000, Due::No),
            (10, 0, Due::No),
            (12, 0, Due::Yes),
        ] {
            let at = now + INTERVAL / 4 * quarters;
            assert_eq!(
                give_back.is_due(load(clients, 0), at),
                expected,
                "{quarters}: not so soon"
            );
        }
    }
}
