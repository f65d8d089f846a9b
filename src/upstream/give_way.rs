//! What a worker does between its last requests and its sleep: it lets others on its core run once.
//!
//! Where the upstream shares the core it answers meanwhile, and the worker goes on with the replies instead of being put to sleep and woken for
//! them. Where nobody else is ready to run that costs one short system call; those that compute for long are not given way to again for a while.
//! For one request alone it does not pay: the kernel then keeps apart those who would be quicker on one core. A message for a subscriber is followed
//! by those for the others, which are then read together instead of one at each waking.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What others may take that serve us: a Redis that is woken, and what it does with each byte of requests.
const SERVED: Duration = Duration::from_micros(100);
const SERVED_PER_BYTE: Duration = Duration::from_nanos(50);
/// What left earlier than these bytes has been served. One request that is larger comes in pieces, behind which others wait.
const SERVED_BYTES_MAX: u32 = 16 << 10;
/// What a Redis may take that writes a message to its subscribers.
const PUBLISHED: Duration = Duration::from_millis(1);
/// After so many wakings in a row for one subscriber each, there are no others for whom to wait.
const ALONE_MAX: u32 = 4;
/// Those that take longer so many times in a row compute.
const LATE_MAX: u32 = 2;
/// How long they are not given way to again, twice as long each time, up to 64 s.
const PAUSE: Duration = Duration::from_secs(1);
const DOUBLINGS_MAX: u32 = 6;

thread_local! {
    static WORKER: GiveWay = const { GiveWay::new() };
}

struct GiveWay {
    /// Requests that were pushed since the last sleep before which something had left.
    pushed: Cell<u32>,
    /// Bytes of requests that have left since the last sleep.
    left_bytes: Cell<usize>,
    /// Subscribers that have been told something since the last sleep.
    told: Cell<u32>,
    /// Wakings in a row, up to now, for one subscriber each.
    alone_count: Cell<u32>,
    paused_until: Cell<Option<Instant>>,
    /// Yields in a row, up to now, that took too long.
    late_count: Cell<u32>,
}

/// A request is to leave on this worker.
#[inline]
pub(super) fn request_pushed() {
    WORKER.with(|worker| worker.pushed.set(worker.pushed.get().saturating_add(1)));
}

/// So many bytes of requests have left on this worker.
#[inline]
pub(super) fn requests_left(bytes: usize) {
    WORKER.with(|worker| worker.left_bytes.set(worker.left_bytes.get() + bytes));
}

/// The upstream has told one more subscriber something.
#[inline]
pub(super) fn told() {
    WORKER.with(|worker| worker.told.set(worker.told.get().saturating_add(1)));
}

/// To be called where a worker has nothing more to do.
pub fn before_sleep() {
    WORKER.with(|worker| {
        let Some(served) = worker.served() else { return };
        let before = Instant::now();
        if worker.may_yield(before) {
            std::thread::yield_now();
            worker.yielded(served, before, Instant::now());
        }
    });
}

impl GiveWay {
    const fn new() -> Self {
        Self {
            pushed: Cell::new(0),
            left_bytes: Cell::new(0),
            told: Cell::new(0),
            alone_count: Cell::new(0),
            paused_until: Cell::new(None),
            late_count: Cell::new(0),
        }
    }

    /// What those may take who serve us now; nothing where it is not worth it. Counts anew.
    fn served(&self) -> Option<Duration> {
        let (pushed, bytes) = (self.pushed.take(), self.left_bytes.take());
        let told = self.told.take();
        match told {
            0 => {}
            1 => self.alone_count.set(self.alone_count.get().saturating_add(1)),
            _ => self.alone_count.set(0),
        }
        if told > 0 && self.alone_count.get() <= ALONE_MAX {
            return Some(PUBLISHED);
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let is_worth_it = bytes > SERVED_BYTES_MAX || bytes > 0 && pushed > 1;
        is_worth_it.then(|| SERVED + SERVED_PER_BYTE * bytes.min(SERVED_BYTES_MAX))
    }

    fn may_yield(&self, now: Instant) -> bool {
        self.paused_until.get().is_none_or(|until| now >= until)
    }

    fn yielded(&self, served: Duration, before: Instant, after: Instant) {
        let is_late = after.duration_since(before) > served;
        let late_count = if is_late {
            self.late_count.get().saturating_add(1)
        } else {
            0
        };
        self.late_count.set(late_count);
        let doublings = late_count.saturating_sub(LATE_MAX).min(DOUBLINGS_MAX);
        let until = after + PAUSE * 2_u32.pow(doublings);
        self.paused_until.set((late_count >= LATE_MAX).then_some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_millis(1);

    #[test]
    fn one_request_alone_is_not_worth_it() {
        let worker = GiveWay::new();
        let micros = |micros| Some(Duration::from_micros(micros));
        for (pushed, bytes, expected) in [
            (0, 30, None),
            (1, 30, None),
            (1, 5000, None),
            (2, 0, None),
            (2, 60, micros(103)),
            (2, 20_000, Some(SERVED + SERVED_PER_BYTE * SERVED_BYTES_MAX)),
            (1, 1 << 20, Some(SERVED + SERVED_PER_BYTE * SERVED_BYTES_MAX)),
        ] {
            worker.pushed.set(pushed);
            worker.left_bytes.set(bytes);
            assert_eq!(worker.served(), expected, "{pushed} of {bytes} bytes");
            assert_eq!(worker.served(), None);
        }
    }

    #[test]
    fn a_message_is_followed_by_those_for_others_where_there_are_others() {
        let worker = GiveWay::new();
        let wakings = |told: &[u32]| {
            let each = told.iter().map(|told| {
                worker.told.set(*told);
                worker.served() == Some(PUBLISHED)
            });
            each.collect::<Vec<_>>()
        };
        assert_eq!(wakings(&[1, 99, 1, 1, 98]), [true; 5]);
        assert_eq!(
            wakings(&[1, 1, 0, 1, 1, 1, 1]),
            [true, true, false, true, true, false, false]
        );
        assert_eq!(wakings(&[2, 1]), [true; 2]);
    }

    #[test]
    fn those_that_compute_for_long_are_not_given_way_to_for_a_while() {
        let worker = GiveWay::new();
        let start = Instant::now();
        assert!(worker.may_yield(start));
        let mut end = start + Duration::from_micros(500);
        worker.yielded(PUBLISHED, start, end);
        assert!(worker.may_yield(end), "so much takes its time");
        worker.yielded(SERVED, start, end);
        assert!(worker.may_yield(end), "once may be by chance");
        for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
            let pause = Duration::from_secs(seconds);
            worker.yielded(SERVED, end - Duration::from_micros(500), end);
            assert!(!worker.may_yield(end + pause - LATE), "{seconds}");
            end += pause;
            assert!(worker.may_yield(end), "{seconds}");
        }
        worker.yielded(SERVED, end, end);
        assert!(worker.may_yield(end));
        worker.yielded(SERVED, end, end + LATE);
        worker.yielded(SERVED, end, end + LATE);
        assert!(worker.may_yield(end + LATE + PAUSE), "from the start again");
    }
}
