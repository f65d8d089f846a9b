//! A lane waits a moment before it writes, for what other clients are about to ask.
//!
//! On a core that a client's process and this worker share, each request that arrives makes the kernel run the worker at once, in the middle of
//! what the client was about to send; without a moment's patience everything then goes in batches of one. The moment is whatever time the
//! kernel gives to others that are ready to run on this core (none where nobody is), and one more look at the sockets.

use std::time::{Duration, Instant};

/// A moment shorter than this does no harm, whatever came of it.
const HARMLESS: Duration = Duration::from_millis(1);
/// Others that bring less than a request in this time do not ask: they compute.
const REQUEST_TIME_MAX: Duration = Duration::from_micros(100);
/// How long they are not waited for again.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether to write now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Write,
    /// After others have run, and the sockets have been looked at.
    Gather,
}

/// One lane's patience: each batch waits once at the most.
#[derive(Debug, Default)]
pub(super) struct Gather {
    begun: Option<Moment>,
    paused_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Moment {
    since: Instant,
    pushed: u64,
}

impl Gather {
    /// There is no batch any more.
    pub(super) fn nothing_left(&mut self) {
        self.begun = None;
    }

    /// What to do with a batch that is to be written. `unanswered` requests are on the lane, the batch included; one alone waits for nobody.
    /// `pushed` have been since the lane began.
    pub(super) fn decide(&mut self, unanswered: usize, pushed: u64, now: Instant) -> Decision {
        if let Some(begun) = self.begun.take() {
            let took = now.duration_since(begun.since);
            let brought = u32::try_from(pushed - begun.pushed).unwrap_or(u32::MAX);
            if took > HARMLESS && took > REQUEST_TIME_MAX.saturating_mul(brought) {
                self.paused_until = Some(now + PAUSE);
            }
            return Decision::Write;
        }
        if unanswered < 2 || self.paused_until.is_some_and(|until| now < until) {
            return Decision::Write;
        }
        self.begun = Some(Moment { since: now, pushed });
        Decision::Gather
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_waits_once_and_a_single_request_never() {
        let now = Instant::now();
        let mut gather = Gather::default();
        assert_eq!(gather.decide(1, 1, now), Decision::Write);
        assert_eq!(gather.decide(2, 2, now), Decision::Gather);
        assert_eq!(gather.decide(9, 9, now), Decision::Write);
        assert_eq!(gather.decide(9, 9, now), Decision::Gather);
        gather.nothing_left();
        assert_eq!(gather.decide(9, 9, now + PAUSE), Decision::Gather);
    }

    #[test]
    fn others_that_compute_are_not_waited_for_again_for_a_while() {
        let start = Instant::now();
        let late = start + HARMLESS * 3;
        for (brought, expected) in [(0, Decision::Write), (29, Decision::Write), (30, Decision::Gather)] {
            let mut gather = Gather::default();
            assert_eq!(gather.decide(2, 2, start), Decision::Gather);
            assert_eq!(gather.decide(2, 2 + brought, late), Decision::Write);
            assert_eq!(gather.decide(2, 2 + brought, late + PAUSE / 2), expected, "{brought}");
        }
        let mut gather = Gather::default();
        assert_eq!(gather.decide(2, 2, start), Decision::Gather);
        assert_eq!(gather.decide(2, 2, late), Decision::Write);
        assert_eq!(gather.decide(2, 2, late + PAUSE), Decision::Gather);
    }
}
