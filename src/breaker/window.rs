//! Successes and failures of the last ten seconds, exactly: ten buckets of one second that expire by themselves.

use std::time::Duration;

const BUCKETS: usize = 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket {
    /// Which second of the clock it counts.
    second: u64,
    successes: u64,
    failures: u64,
}

/// A sliding window over outcomes. A bucket is good for the second it was written in and the nine after it.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    buckets: [Bucket; BUCKETS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) successes: u64,
    pub(super) failures: u64,
}

impl Window {
    pub(super) fn add(&mut self, successes: u64, failures: u64, now: Duration) {
        let second = now.as_secs();
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is below ten")]
        let bucket = &mut self.buckets[(second % BUCKETS as u64) as usize];
        if bucket.second < second {
            *bucket = Bucket {
                second,
                ..Bucket::default()
            };
        }
        // An outcome that is older than the bucket's second is out of the window.
        if bucket.second == second {
            bucket.successes = bucket.successes.saturating_add(successes);
            bucket.failures = bucket.failures.saturating_add(failures);
        }
    }

    pub(super) fn counts(&self, now: Duration) -> Counts {
        let second = now.as_secs();
        let live = self
            .buckets
            .iter()
            .filter(|bucket| bucket.second <= second && second - bucket.second < BUCKETS as u64);
        live.fold(Counts::default(), |sum, bucket| Counts {
            successes: sum.successes.saturating_add(bucket.successes),
            failures: sum.failures.saturating_add(bucket.failures),
        })
    }
}

impl Counts {
    /// Whether at least half of at least twenty outcomes failed.
    pub(super) fn trips(self) -> bool {
        const OUTCOMES_MIN: u64 = 20;
        let outcomes = self.successes.saturating_add(self.failures);
        OUTCOMES_MIN <= outcomes && self.successes <= self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_window_counts_as_a_list_of_all_outcomes_would(
            steps in prop::collection::vec((0_u64..15_000, 0_u64..50, 0_u64..50), 1..60),
        ) {
            let mut window = Window::default();
            let mut all = Vec::new();
            let mut now = Duration::ZERO;
            for (wait_ms, successes, failures) in steps {
                now += Duration::from_millis(wait_ms);
                window.add(successes, failures, now);
                all.push((now.as_secs(), successes, failures));
                let live = all.iter().filter(|(second, ..)| now.as_secs() < second + 10);
                let naive = live.fold(Counts::default(), |sum, (_, successes, failures)| Counts {
                    successes: sum.successes + successes,
                    failures: sum.failures + failures,
                });
                prop_assert_eq!(window.counts(now), naive);
            }
        }
    }

    #[test]
    fn the_rate_needs_twenty_outcomes_and_half_of_them_failed() {
        let check = |successes, failures, expected| {
            assert_eq!(
                Counts { successes, failures }.trips(),
                expected,
                "{successes} {failures}"
            );
        };
        check(0, 0, false);
        check(0, 19, false);
        check(0, 20, true);
        check(10, 10, true);
        check(11, 10, false);
        check(10, 9, false);
    }
}
