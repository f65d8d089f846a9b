//! Plain per-worker numbers: each has one writer (its worker), so that counting costs no locked instruction.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the duration buckets: 2^(i+4) microseconds (16 µs … 8.4 s), the last is open.
pub const DURATION_BUCKETS: usize = 21;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Forwarded,
    Neutral,
    Queued,
    Rejected,
    Local,
    Held,
}

impl Route {
    pub const ALL: [Self; 6] = [
        Self::Forwarded,
        Self::Neutral,
        Self::Queued,
        Self::Rejected,
        Self::Local,
        Self::Held,
    ];

    /// The value of the metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Neutral => "neutral",
            Self::Queued => "queued",
            Self::Rejected => "rejected",
            Self::Local => "local",
            Self::Held => "held",
        }
    }
}

/// The numbers of one worker for one upstream. Written by that worker only; read by the control thread.
#[derive(Debug, Default)]
pub struct WorkerStats {
    routes: [AtomicU64; Route::ALL.len()],
    /// Replies that arrived, of any kind: signs of life.
    pub replies: AtomicU64,
    /// Commands by the time from being sent to being answered.
    pub durations: [AtomicU64; DURATION_BUCKETS],
    pub duration_us_total: AtomicU64,
    pub clients: AtomicU64,
    pub connections: AtomicU64,
    /// Age of the oldest unanswered command that is not a blocking one, when the worker last looked.
    pub oldest_unanswered_ms: AtomicU64,
    pub uncertain_answered: AtomicU64,
    pub uncertain_resent: AtomicU64,
    pub uncertain_journaled: AtomicU64,
    /// Grows with every tick of the worker: one that stands still is stuck.
    pub beats: AtomicU64,
}

/// Adds to a number that only this thread writes.
pub fn add(number: &AtomicU64, n: u64) {
    number.store(number.load(Relaxed).wrapping_add(n), Relaxed);
}

/// Takes from a number that only this thread writes.
pub fn sub(number: &AtomicU64, n: u64) {
    number.store(number.load(Relaxed).saturating_sub(n), Relaxed);
}

impl WorkerStats {
    pub fn routed(&self, route: Route) {
        add(&self.routes[route as usize], 1);
    }

    #[must_use]
    pub fn route_total(&self, route: Route) -> u64 {
        self.routes[route as usize].load(Relaxed)
    }

    /// Counts a reply that took this long.
    pub fn answered(&self, duration_us: u32) {
        add(&self.replies, 1);
        add(&self.duration_us_total, u64::from(duration_us));
        let bucket = (28_u32.saturating_sub((duration_us | 15).leading_zeros())) as usize;
        if let Some(count) = self.durations.get(bucket.min(DURATION_BUCKETS - 1)) {
            add(count, 1);
        }
    }
}

/// The upper bound of a bucket, in seconds; nothing for the open one.
#[must_use]
pub fn bucket_bound_s(bucket: usize) -> Option<f64> {
    (bucket + 1 < DURATION_BUCKETS).then(|| f64::from(1_u32 << (bucket + 4)) / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_below_the_bound_of_its_bucket_and_above_the_one_before() {
        for duration_us in [0, 1, 15, 16, 17, 31, 32, 1000, 65_535, 1 << 23, u32::MAX] {
            let stats = WorkerStats::default();
            stats.answered(duration_us);
            let bucket = stats
                .durations
                .iter()
                .position(|count| count.load(Relaxed) == 1)
                .unwrap();
            let seconds = f64::from(duration_us) / 1e6;
            assert!(
                bucket_bound_s(bucket).is_none_or(|bound| seconds < bound),
                "{duration_us}"
            );
            assert!(
                bucket == 0 || bucket_bound_s(bucket - 1).is_some_and(|bound| seconds >= bound),
                "{duration_us}"
            );
        }
    }
}
