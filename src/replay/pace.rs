//! How fast replay goes: the batch follows what its commands cost the upstream, a token bucket bounds the rate, and an upstream that
//! answers more slowly than it can is left to others for as long again. Pure.
//!
//! Live traffic comes first: a batch takes the server's one thread for some milliseconds at most, one batch is in flight, and where batches
//! take longer than they did (others are at it too: a hundred sidecars, the clients that waited for Redis) there is a rest after each.
//!
//! What a batch takes however small it is (the round trip, the sync of an AOF) must not make it smaller: with 10 ms of that, batches of 8
//! replay 800 records a second, which a busy application outruns for ever. Two batches of different sizes tell the two apart.

use std::num::NonZeroU32;
use std::time::Duration;

const COMMANDS_MIN: usize = 8;
const COMMANDS_START: usize = 128;
const COMMANDS_MAX: usize = 2048;
/// What the commands of a batch may take beyond that.
const COMMANDS_DURATION_AIM: Duration = Duration::from_millis(5);

/// A batch may take so much longer than twice the shortest before there is a rest.
const STRAIN_MIN: Duration = Duration::from_millis(2);
const REST_MAX: Duration = Duration::from_millis(100);
/// Batches are compared with those of about as many commands: by powers of two.
const CLASSES: usize = 13;
/// What was the shortest grows by so much with each batch, so that an upstream that became slower for good is not strained for ever.
const SHORTEST_GROWTH: f64 = 1.01;

#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    commands_max: usize,
    /// What a batch takes that does not depend on its commands.
    fixed: Duration,
    /// Commands of the batch before, and what it took.
    last: Option<(usize, Duration)>,
    /// The shortest that a batch of each class took of late.
    shortest: [Option<Duration>; CLASSES],
    /// Before the next batch.
    rest: Duration,
    /// Records that may be sent; negative after a batch that was larger.
    tokens: f64,
    filled: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            commands_max: COMMANDS_START,
            fixed: Duration::ZERO,
            last: None,
            shortest: [None; CLASSES],
            rest: Duration::ZERO,
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
        self.rest = self.rest_after(commands, duration);
        if let Some(last) = self
            .last
            .replace((commands, duration))
            .filter(|last| last.0 != commands)
        {
            self.fixed = fixed(last, (commands, duration));
        }
        self.fixed = self.fixed.min(duration);
        let cost = duration - self.fixed;
        if cost > COMMANDS_DURATION_AIM && self.commands_max == COMMANDS_MIN {
            // Another size tells whether it is the commands that take so long.
            self.commands_max = 2 * COMMANDS_MIN;
        } else if cost > COMMANDS_DURATION_AIM {
            self.commands_max = (self.commands_max / 2).max(COMMANDS_MIN);
        } else if cost < COMMANDS_DURATION_AIM / 2 && commands >= self.commands_max {
            self.commands_max = (self.commands_max * 2).min(COMMANDS_MAX);
        }
    }

    /// How long the upstream is left to others after such a batch: half of the time at most.
    fn rest_after(&mut self, commands: usize, duration: Duration) -> Duration {
        let class = (usize::BITS - commands.leading_zeros()) as usize;
        let Some(shortest) = self.shortest.get_mut(class.min(CLASSES - 1)) else {
            return Duration::ZERO;
        };
        let known = shortest.map_or(duration, |shortest| shortest.mul_f64(SHORTEST_GROWTH).min(duration));
        *shortest = Some(known);
        duration.saturating_sub(known * 2 + STRAIN_MIN).min(REST_MAX)
    }

    /// Takes `records` off the bucket and says how long to wait before sending them. `now` is since any fixed time.
    pub(super) fn wait(&mut self, records: usize, rate_max: Option<NonZeroU32>, now: Duration) -> Duration {
        let rest = std::mem::take(&mut self.rest);
        let Some(rate_max) = rate_max else {
            return rest;
        };
        let rate = f64::from(rate_max.get());
        let since = now.saturating_sub(self.filled);
        self.filled = now;
        let batch = rate / 10.0;
        // What went at a higher rate is not paid for at this one.
        self.tokens = (self.tokens + since.as_secs_f64() * rate)
            .min(batch)
            .max(-batch.max(1.0));
        let wait = if self.tokens < 0.0 {
            Duration::try_from_secs_f64(-self.tokens / rate).unwrap_or_default()
        } else {
            Duration::ZERO
        };
        self.tokens -= f64::from(u32::try_from(records).unwrap_or(u32::MAX));
        wait.max(rest)
    }
}

/// The part of the later of two batches that does not grow with the commands; their numbers differ.
fn fixed(earlier: (usize, Duration), later: (usize, Duration)) -> Duration {
    let (small, large) = if earlier.0 < later.0 {
        (earlier, later)
    } else {
        (later, earlier)
    };
    let difference = large.1.saturating_sub(small.1).as_secs_f64();
    let per_command = difference / (large.0 - small.0) as f64;
    later
        .1
        .saturating_sub(Duration::from_secs_f64(per_command * later.0 as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_went_at_a_higher_rate_is_not_paid_for_at_a_lower_one() {
        let mut pace = Pace::new();
        let now = Duration::from_secs(1);
        for _ in 0..3 {
            pace.wait(40, NonZeroU32::new(400), now);
        }
        let wait = pace.wait(1, NonZeroU32::new(1), now);
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
    }

    /// Commands per batch at which it settles, on an upstream that takes so many microseconds per batch and per command.
    fn settled(batch_us: u64, command_us: u64) -> usize {
        let mut pace = Pace::new();
        for _ in 0..100 {
            let commands = pace.commands_max(None);
            pace.took(commands, Duration::from_micros(batch_us + command_us * commands as u64));
        }
        pace.commands_max(None)
    }

    #[test]
    fn batches_follow_what_their_commands_cost() {
        for (batch_us, command_us, expected) in [
            (100, 1, COMMANDS_MAX),
            (100, 100, 32),
            (100, 600, COMMANDS_MIN),
            (10_000, 600, COMMANDS_MIN),
        ] {
            assert_eq!(settled(batch_us, command_us), expected, "{batch_us} {command_us}");
        }
    }

    #[test]
    fn a_long_way_or_a_slow_disk_does_not_shrink_batches() {
        for (batch_us, command_us, expected) in
            [(10_000, 2, COMMANDS_MAX), (100_000, 2, COMMANDS_MAX), (10_000, 10, 256)]
        {
            assert_eq!(settled(batch_us, command_us), expected, "{batch_us} {command_us}");
        }
        // 2 to 14 ms, whatever the size.
        let mut random = fastrand::Rng::with_seed(1);
        let mut pace = Pace::new();
        let (mut records, mut took) = (0, Duration::ZERO);
        for _ in 0..2000 {
            let commands = pace.commands_max(None);
            let duration = Duration::from_micros(random.u64(2000..14_000) + 5 * commands as u64);
            pace.took(commands, duration);
            records += commands;
            took += duration + pace.wait(commands, None, took);
        }
        let records_per_second = records as f64 / took.as_secs_f64();
        assert!(records_per_second > 10_000.0, "{records_per_second}");
    }

    #[test]
    fn a_batch_that_was_not_full_lets_none_grow() {
        let mut pace = Pace::new();
        pace.took(COMMANDS_START - 1, Duration::from_millis(1));
        assert_eq!(pace.commands_max(None), COMMANDS_START);
    }

    #[test]
    fn an_upstream_that_becomes_slow_is_left_to_others() {
        let mut pace = Pace::new();
        let mut rest = |duration_ms| {
            pace.took(COMMANDS_START, Duration::from_millis(duration_ms));
            pace.wait(COMMANDS_START, None, Duration::ZERO).as_millis()
        };
        assert_eq!([5, 5, 10].map(&mut rest), [0, 0, 0], "as before, about");
        assert_eq!(rest(42), 29);
        assert_eq!(rest(2000), 100, "bounded");
        assert_eq!(rest(5), 0, "and no longer than it lasts");
        for _ in 0..300 {
            rest(42);
        }
        assert_eq!(rest(42), 0, "slow for good: that is how it is");
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
