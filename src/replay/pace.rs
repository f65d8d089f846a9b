//! How fast replay goes: the batch follows the upstream's latency, a token bucket bounds the rate. Pure.

use std::num::NonZeroU32;
use std::time::Duration;

const COMMANDS_MIN: usize = 8;
const COMMANDS_START: usize = 128;
const COMMANDS_MAX: usize = 512;
const BATCH_DURATION_AIM: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    commands_max: usize,
    /// Records that may be sent; negative after a batch that was larger.
    tokens: f64,
    filled: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            commands_max: COMMANDS_START,
            tokens: 0.0,
            filled: Duration::ZERO,
        }
    }

    /// Commands that the next batch may hold.
    pub(super) fn commands_max(&self, rate_max: Option<NonZeroU32>) -> usize {
        // A tenth of a second's worth, so that a low rate is an even one.
        rate_max.map_or(self.commands_max, |rate| {
            self.commands_max.min((rate.get() / 10).max(1) as usize)
        })
    }

    /// A batch of so many commands took so long.
    pub(super) fn took(&mut self, commands: usize, duration: Duration) {
        if duration > BATCH_DURATION_AIM {
            self.commands_max = (self.commands_max / 2).max(COMMANDS_MIN);
        } else if duration < BATCH_DURATION_AIM / 2 && commands >= self.commands_max {
            self.commands_max = (self.commands_max * 2).min(COMMANDS_MAX);
        }
    }

    /// Takes `records` off the bucket and says how long to wait before sending them. `now` is since any fixed time.
    pub(super) fn wait(&mut self, records: usize, rate_max: Option<NonZeroU32>, now: Duration) -> Duration {
        let Some(rate_max) = rate_max else {
            return Duration::ZERO;
        };
        let rate = f64::from(rate_max.get());
        let since = now.saturating_sub(self.filled);
        self.filled = now;
        self.tokens = (self.tokens + since.as_secs_f64() * rate).min(rate / 10.0);
        let wait = if self.tokens < 0.0 {
            Duration::try_from_secs_f64(-self.tokens / rate).unwrap_or_default()
        } else {
            Duration::ZERO
        };
        self.tokens -= f64::from(u32::try_from(records).unwrap_or(u32::MAX));
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_when_the_upstream_is_slow_and_grow_when_it_is_fast() {
        let mut pace = Pace::new();
        for expected in [64, 32, 16, 8, 8] {
            pace.took(10, Duration::from_millis(6));
            assert_eq!(pace.commands_max(None), expected);
        }
        pace.took(7, Duration::from_millis(1));
        assert_eq!(pace.commands_max(None), 8, "a batch that was not full says nothing");
        for expected in [16, 32, 64, 128, 256, 512, 512] {
            pace.took(512, Duration::from_millis(1));
            assert_eq!(pace.commands_max(None), expected);
        }
        pace.took(512, Duration::from_millis(3));
        assert_eq!(pace.commands_max(None), 512);
    }

    #[test]
    fn the_rate_is_kept_over_a_second() {
        let rate = NonZeroU32::new(1000);
        let mut pace = Pace::new();
        let mut now = Duration::from_secs(5);
        let start = now;
        let mut sent = 0;
        while sent < 3000 {
            let records = pace.commands_max(rate);
            now += pace.wait(records, rate, now);
            sent += records;
        }
        let took = (now - start).as_secs_f64();
        assert!((2.7..=3.1).contains(&took), "{took}");
        assert_eq!(pace.wait(1000, None, now), Duration::ZERO);
    }
}
