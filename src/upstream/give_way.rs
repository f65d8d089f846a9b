//! What a worker does between its last requests and its sleep: it lets others on its core run once.
//!
//! Where the upstream shares the core it answers meanwhile, and the worker goes on with the replies instead of being put to sleep and woken for
//! them. Where nobody else is ready to run that costs one short system call; those that compute for long are not given way to again for a while.
//! For one request alone it does not pay: the kernel then keeps apart those who would be quicker on one core.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What others may take that serve us: a Redis that is woken, and what it does with each byte of requests.
const SERVED: Duration = Duration::from_micros(100);
const SERVED_PER_BYTE: Duration = Duration::from_nanos(50);
/// What left earlier than these bytes has been served. One request that is larger comes in pieces, behind which others wait.
const SERVED_BYTES_MAX: u32 = 16 << 10;
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

/// To be called where a worker has nothing more to do.
pub fn before_sleep() {
    WORKER.with(|worker| {
        let bytes = worker.left_bytes.take();
        if bytes > 0 && worker.is_worth_it(bytes) {
            let before = Instant::now();
            if worker.may_yield(before) {
                std::thread::yield_now();
                worker.yielded(bytes, before, Instant::now());
            }
        }
    });
}

impl GiveWay {
    const fn new() -> Self {
        Self {
            pushed: Cell::new(0),
            left_bytes: Cell::new(0),
            paused_until: Cell::new(None),
            late_count: Cell::new(0),
        }
    }

    /// Whether what has left is more than one request alone. Counts anew.
    fn is_worth_it(&self, bytes: usize) -> bool {
        self.pushed.take() > 1 || bytes > SERVED_BYTES_MAX as usize
    }

    fn may_yield(&self, now: Instant) -> bool {
        self.paused_until.get().is_none_or(|until| now >= until)
    }

    fn yielded(&self, bytes: usize, before: Instant, after: Instant) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(SERVED_BYTES_MAX);
        let is_late = after.duration_since(before) > SERVED + SERVED_PER_BYTE * bytes;
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
        for (pushed, bytes, expected) in [
            (0, 30, false),
            (1, 30, false),
            (1, 5000, false),
            (2, 60, true),
            (1, 1 << 20, true),
        ] {
            worker.pushed.set(pushed);
            assert_eq!(worker.is_worth_it(bytes), expected, "{pushed} of {bytes} bytes");
            assert_eq!(worker.pushed.get(), 0);
        }
    }

    #[test]
    fn those_that_compute_for_long_are_not_given_way_to_for_a_while() {
        let worker = GiveWay::new();
        let start = Instant::now();
        assert!(worker.may_yield(start));
        let mut end = start + Duration::from_micros(500);
        worker.yielded(20_000, start, end);
        assert!(worker.may_yield(end), "that many requests take their time");
        worker.yielded(30, start, end);
        assert!(worker.may_yield(end), "once may be by chance");
        for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
            let pause = Duration::from_secs(seconds);
            worker.yielded(30, end - Duration::from_micros(500), end);
            assert!(!worker.may_yield(end + pause - LATE), "{seconds}");
            end += pause;
            assert!(worker.may_yield(end), "{seconds}");
        }
        worker.yielded(1 << 20, end, end + LATE);
        assert!(!worker.may_yield(end + LATE), "whatever left long ago");
        worker.yielded(30, end, end);
        assert!(worker.may_yield(end));
        worker.yielded(30, end, end + LATE);
        worker.yielded(30, end, end + LATE);
        assert!(worker.may_yield(end + LATE + PAUSE), "from the start again");
    }
}
