//! Durations of commands, counted in plain numbers on a worker and published now and then: the hot path touches no atomic.

use std::time::Duration;

use super::metric;

/// Upper bounds, from a quick local round trip to a command held for long.
pub(super) const BUCKETS_SECONDS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

const BUCKETS_NANOS: [u64; BUCKETS_SECONDS.len()] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    count: u32,
    sum_nanos: u64,
}

/// One worker's counts for one upstream since they were last published.
#[derive(Clone, Debug, Default)]
pub struct DurationCounts {
    /// The last one is for what is above every bound.
    buckets: [Bucket; BUCKETS_SECONDS.len() + 1],
}

impl DurationCounts {
    pub fn observe(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = &mut self.buckets[BUCKETS_NANOS.partition_point(|bound| *bound < nanos)];
        bucket.count = bucket.count.saturating_add(1);
        bucket.sum_nanos = bucket.sum_nanos.saturating_add(nanos);
    }

    /// Hands the counts to the recorder and starts over. Each bucket goes as so many times its mean, which keeps the sum right.
    pub fn publish(&mut self, upstream: &str) {
        for (index, bucket) in self
            .buckets
            .iter_mut()
            .enumerate()
            .filter(|(_, bucket)| 0 < bucket.count)
        {
            #[expect(clippy::cast_precision_loss, reason = "a mean is a float")]
            let mean = bucket.sum_nanos as f64 / f64::from(bucket.count) / 1e9;
            let bound = BUCKETS_SECONDS.get(index).copied().unwrap_or(f64::INFINITY);
            metric::command_duration(upstream, mean.min(bound), bucket.count as usize);
            *bucket = Bucket::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists_of_bounds_say_the_same() {
        for (nanos, seconds) in BUCKETS_NANOS.into_iter().zip(BUCKETS_SECONDS) {
            assert_eq!(Duration::from_nanos(nanos), Duration::from_secs_f64(seconds));
        }
    }
}
