//! Looking at the sockets again and again for a moment before a worker sleeps, where that makes those faster who wait for it.
//!
//! A core that has nothing to do halts. On a virtual machine waking it costs the sender some 15 µs of its own time, and who slept as much again:
//! with few clients that is most of what a request takes (`benches`). Looking costs our CPU instead, and what it gains depends on who shares a core
//! with whom, which nobody tells us: kept apart by our being busy, three processes may be slower than on one core. So it is tried where much goes
//! through: short spells of both ways alternate, and looking stays for a while where clearly more went through in the same time. Clients that ask
//! at a rate of their own are not made faster by it. Linux (`haltpoll`) and HAProxy (`busy-polling`) look likewise, without the trial.

use std::cell::RefCell;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// How long a worker looks before it sleeps: a little more than who was just answered needs for the next request.
const LOOK_MAX: Duration = Duration::from_micros(50);
/// One spell of a trial takes so long. One with fewer wakings, or with a pause that makes it twice as long, does not count: there nobody waits
/// for us alone.
const SPELL: Duration = Duration::from_millis(4);
const SPELL_WAKINGS_MIN: u32 = 32;
/// A trial: so many spells. After as many that do not count it is given up.
const SPELLS: u32 = 16;
/// So much has to be gained, for less is not worth the CPU: of what goes through asleep, and in standard errors of the difference, for less of
/// them may be by chance. It is easier to stay than to begin.
const TO_BEGIN: Gain = Gain {
    share: 0.08,
    errors: 3.0,
};
const TO_STAY: Gain = Gain {
    share: 0.04,
    errors: 1.5,
};
/// Where more bytes come at each waking copying takes the time, and what a trial sees does not last.
const LARGE_BYTES_MIN: f64 = 16384.0;
/// How long a trial's result stands, twice as long each time that it is the same again.
const STANDS_MIN: Duration = Duration::from_millis(250);
const STANDS_MAX: Duration = Duration::from_secs(8);
/// After such a pause others may come than those of whom it was said.
const FORGOTTEN: Duration = Duration::from_secs(1);

/// Whether workers may look before they sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BusyPoll {
    /// Where a trial says that it pays.
    #[default]
    Auto,
    Off,
}

/// What a worker does when it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Idle {
    Sleeps,
    Looks,
}

impl Idle {
    /// In a trial: each way has the same share of a trend.
    fn of_spell(index: u32) -> Self {
        match index % 4 {
            0 | 3 => Self::Sleeps,
            _ => Self::Looks,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Gain {
    share: f64,
    errors: f64,
}

/// What was read in one spell.
#[derive(Clone, Copy, Debug, Default)]
struct Spell {
    bytes: u64,
    time: Duration,
    wakings: u32,
}

impl Spell {
    fn counts(&self) -> bool {
        self.wakings >= SPELL_WAKINGS_MIN && self.time < SPELL * 2
    }
}

/// Of several spells.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    count: f64,
    /// Of bytes per second.
    sum: f64,
    sum_of_squares: f64,
}

impl Rates {
    fn add(&mut self, spell: &Spell) {
        let rate = spell.bytes as f64 / spell.time.as_secs_f64();
        self.count += 1.0;
        self.sum += rate;
        self.sum_of_squares += rate * rate;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// The square of the mean's standard error.
    fn error_squared(&self) -> f64 {
        (self.sum_of_squares - self.sum * self.mean()).max(0.0) / (self.count - 1.0) / self.count
    }

    /// Welch, "The generalization of 'Student's' problem when several different population variances are involved", 1947.
    fn is_above(&self, other: &Self, gain: Gain) -> bool {
        let difference = self.mean() - other.mean();
        let error = (self.error_squared() + other.error_squared()).sqrt();
        difference >= gain.share * other.mean() && difference >= gain.errors * error
    }
}

#[derive(Debug, Default)]
struct Trial {
    spell: Spell,
    /// Spells that counted, and those that did not.
    counted: u32,
    discarded: u32,
    asleep: Rates,
    looking: Rates,
    bytes: u64,
    wakings: u32,
}

impl Trial {
    /// What it says, once it has ended. `last` is what the one before said.
    fn wakes(&mut self, bytes: u64, time: Duration, last: Idle) -> Option<Idle> {
        self.spell.bytes += bytes;
        self.spell.time += time;
        self.spell.wakings += 1;
        if self.spell.time < SPELL {
            return None;
        }
        let spell = std::mem::take(&mut self.spell);
        if !spell.counts() {
            self.discarded += 1;
            return (self.discarded == SPELLS).then_some(Idle::Sleeps);
        }
        match Idle::of_spell(self.counted) {
            Idle::Sleeps => self.asleep.add(&spell),
            Idle::Looks => self.looking.add(&spell),
        }
        self.bytes += spell.bytes;
        self.wakings += spell.wakings;
        self.counted += 1;
        (self.counted == SPELLS).then(|| self.verdict(last))
    }

    fn verdict(&self, last: Idle) -> Idle {
        let gain = match last {
            Idle::Sleeps => TO_BEGIN,
            Idle::Looks => TO_STAY,
        };
        let is_large = self.bytes as f64 / f64::from(self.wakings) > LARGE_BYTES_MIN;
        if !is_large && self.looking.is_above(&self.asleep, gain) {
            Idle::Looks
        } else {
            Idle::Sleeps
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// The last trial's result stands until then; nobody looks after it, before the next trial does.
    Settled {
        until: Instant,
    },
    Trial(Trial),
}

/// Decides for one worker. Time is an argument.
#[derive(Debug)]
struct Poller {
    phase: Phase,
    /// What the last trial said, and how long that was to stand.
    last: (Idle, Duration),
    /// There is nothing to do since.
    idle_since: Option<Instant>,
    /// The last waking, and what was read since.
    woke: Instant,
    read_bytes: u64,
}

impl Poller {
    fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Settled { until: now },
            last: (Idle::Sleeps, Duration::ZERO),
            idle_since: None,
            woke: now,
            read_bytes: 0,
        }
    }

    /// There is nothing to do: whether to look again instead of sleeping.
    fn looks_again(&mut self, now: Instant) -> bool {
        let since = *self.idle_since.get_or_insert(now);
        let idle = match &self.phase {
            Phase::Settled { until } if now < *until => self.last.0,
            Phase::Settled { .. } => Idle::Sleeps,
            Phase::Trial(trial) => Idle::of_spell(trial.counted),
        };
        idle == Idle::Looks && now.duration_since(since) < LOOK_MAX
    }

    /// So many bytes have been read. The clock is asked where they were waited for.
    fn has_read(&mut self, bytes: u64, now: impl FnOnce() -> Instant) {
        if self.idle_since.is_some() {
            self.wakes(now());
        }
        self.read_bytes += bytes;
    }

    /// Something has been read that was waited for.
    fn wakes(&mut self, now: Instant) {
        self.idle_since = None;
        let bytes = std::mem::take(&mut self.read_bytes);
        let time = now.duration_since(self.woke);
        self.woke = now;
        if time >= FORGOTTEN {
            *self = Self::new(now);
            return;
        }
        match &mut self.phase {
            Phase::Settled { until } if now < *until => {}
            Phase::Settled { .. } => self.phase = Phase::Trial(Trial::default()),
            Phase::Trial(trial) => {
                if let Some(idle) = trial.wakes(bytes, time, self.last.0) {
                    self.settle(idle, now);
                }
            }
        }
    }

    fn settle(&mut self, idle: Idle, now: Instant) {
        let (last, stood) = self.last;
        let stands = if last == idle {
            (stood * 2).clamp(STANDS_MIN, STANDS_MAX)
        } else {
            tracing::debug!(?idle, "a worker with nothing to do");
            STANDS_MIN
        };
        self.last = (idle, stands);
        self.phase = Phase::Settled { until: now + stands };
    }
}

thread_local! {
    /// Of a worker that may look, with what keeps it from sleeping.
    static WORKER: RefCell<Option<(Poller, Waker)>> = const { RefCell::new(None) };
}

/// Lets this worker look before it sleeps. Never ends.
pub async fn look_before_sleep() {
    std::future::poll_fn(|cx| {
        WORKER.with_borrow_mut(|worker| match worker {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => *worker = Some((Poller::new(Instant::now()), cx.waker().clone())),
        });
        Poll::Pending
    })
    .await
}

/// To be called where a worker is about to sleep: one that looks again has a task to run, and does not.
pub fn before_sleep() {
    WORKER.with_borrow_mut(|worker| {
        if let Some((poller, waker)) = worker
            && poller.looks_again(Instant::now())
        {
            waker.wake_by_ref();
        }
    });
}

/// So many bytes have been read on this worker.
#[inline]
pub(super) fn has_read(bytes: usize) {
    WORKER.with_borrow_mut(|worker| {
        if let Some((poller, _)) = worker {
            poller.has_read(bytes as u64, Instant::now);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);
    const SERVED: Duration = Duration::from_micros(10);

    /// When something is read next, and how many bytes: after a worker began to sleep or look, or when it is due.
    struct Next {
        asleep: Duration,
        looking: Duration,
        bytes: u64,
    }

    fn next(asleep_us: u32, looking_us: u32) -> Next {
        Next {
            asleep: MICRO * asleep_us,
            looking: MICRO * looking_us,
            bytes: 40,
        }
    }

    struct World {
        poller: Poller,
        now: Instant,
        looked: Duration,
    }

    impl World {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                poller: Poller::new(now),
                now,
                looked: Duration::ZERO,
            }
        }

        fn serve(&mut self, next: &Next) {
            self.now += SERVED;
            let since = self.now;
            let asked = if self.poller.looks_again(since) {
                self.looked += next.looking.min(LOOK_MAX);
                since + next.looking
            } else {
                since + next.asleep
            };
            self.read(asked, next.bytes);
        }

        fn read(&mut self, at: Instant, bytes: u64) {
            self.now = at;
            self.poller.has_read(bytes, || at);
        }

        /// Serves until the trial that is due, or comes next, has ended.
        fn tried(&mut self, mut next: impl FnMut() -> Next) -> (Idle, Duration) {
            let is_trial = |world: &Self| matches!(world.poller.phase, Phase::Trial(_));
            while !is_trial(self) {
                self.serve(&next());
            }
            while is_trial(self) {
                self.serve(&next());
            }
            self.poller.last
        }

        fn idle(&mut self, asleep_us: u32, looking_us: u32) -> Idle {
            self.tried(|| next(asleep_us, looking_us)).0
        }
    }

    #[test]
    fn looking_stays_where_so_much_more_goes_through_that_it_is_worth_the_cpu() {
        for (asleep_us, looking_us, expected) in [
            (60, 20, Idle::Looks),
            (53, 50, Idle::Sleeps),
            (56, 50, Idle::Looks),
            (40, 40, Idle::Sleeps),
            (20, 60, Idle::Sleeps),
        ] {
            let idle = World::new().idle(asleep_us, looking_us);
            assert_eq!(idle, expected, "{asleep_us} µs asleep, {looking_us} looking");
        }
    }

    #[test]
    fn less_is_enough_to_stay_than_to_begin() {
        let mut world = World::new();
        assert_eq!(world.idle(53, 50), Idle::Sleeps);
        assert_eq!(world.idle(60, 20), Idle::Looks);
        assert_eq!(world.idle(53, 50), Idle::Looks);
        assert_eq!(world.idle(51, 50), Idle::Sleeps);
    }

    #[test]
    fn a_gain_is_seen_through_the_noise_of_a_closed_loop_and_noise_is_no_gain() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut verdicts = |asleep_us: u32, looking_us: u32| {
            let looks = (0..200).filter(|_| {
                let next = || next(asleep_us * random.u32(1..20) / 10, looking_us * random.u32(1..20) / 10);
                World::new().tried(next).0 == Idle::Looks
            });
            looks.count()
        };
        assert!(verdicts(60, 45) > 190);
        assert!(verdicts(50, 50) < 5);
    }

    /// Requests at a rate of their own, at random, each answered by an upstream sooner where the worker looks: nobody is faster for it.
    #[test]
    fn clients_with_a_rate_of_their_own_are_not_looked_for() {
        let mut random = fastrand::Rng::with_seed(7);
        for per_second in [100.0, 1000.0, 5000.0, 10_000.0] {
            let mut world = World::new();
            let (begin, mut due) = (world.now, world.now);
            while world.now - begin < Duration::from_secs(60) {
                due += Duration::from_secs_f64(-random.f64().max(1e-9).ln() / per_second);
                world.now += SERVED;
                if world.poller.looks_again(world.now) {
                    world.looked += due.saturating_duration_since(world.now).min(LOOK_MAX);
                }
                world.read(due.max(world.now), 30);
                world.serve(&next(60, 40));
            }
            let share = world.looked.as_secs_f64() / 60.0;
            assert!(share < 0.04, "{per_second} per second: {share} of the time");
        }
    }

    #[test]
    fn a_result_stands_twice_as_long_each_time_that_it_is_the_same_again() {
        let mut world = World::new();
        for stands_ms in [250, 500, 1000, 2000, 4000, 8000, 8000] {
            let expected = (Idle::Looks, Duration::from_millis(stands_ms));
            assert_eq!(world.tried(|| next(60, 20)), expected);
        }
        assert_eq!(world.tried(|| next(20, 60)), (Idle::Sleeps, STANDS_MIN));
        assert_eq!(world.tried(|| next(20, 60)), (Idle::Sleeps, STANDS_MIN * 2));
        let ended = world.now;
        world.idle(20, 60);
        assert!(world.now - ended >= STANDS_MIN * 2);
    }

    #[test]
    fn a_look_ends_in_sleep_and_begins_anew_only_behind_a_request() {
        let mut world = World::new();
        world.idle(60, 20);
        let start = world.now;
        assert!(world.poller.looks_again(start));
        assert!(world.poller.looks_again(start + LOOK_MAX - MICRO));
        assert!(!world.poller.looks_again(start + LOOK_MAX));
        assert!(
            !world.poller.looks_again(start + LOOK_MAX * 2),
            "it was woken for something else"
        );
        world.poller.wakes(start + LOOK_MAX * 2);
        assert!(world.poller.looks_again(start + LOOK_MAX * 2));
    }

    #[test]
    fn nobody_is_looked_for_behind_the_time_for_which_a_result_stands() {
        let mut world = World::new();
        world.idle(60, 20);
        let slow = next(2000, 2000);
        let end = world.now + STANDS_MIN;
        while world.now < end {
            world.serve(&slow);
        }
        world.looked = Duration::ZERO;
        (0..1000).for_each(|_| world.serve(&slow));
        assert_eq!((world.looked, world.poller.last.0), (Duration::ZERO, Idle::Sleeps));
    }

    #[test]
    fn bursts_are_compared_without_the_pauses_between_them() {
        let mut world = World::new();
        for _ in 0..20 {
            world.serve(&next(50_000, 50_000));
            (0..300).for_each(|_| world.serve(&next(60, 20)));
        }
        assert_eq!(world.poller.last.0, Idle::Looks);
    }

    #[test]
    fn a_verdict_is_forgotten_after_a_pause() {
        let mut world = World::new();
        (0..4).for_each(|_| _ = world.idle(20, 60));
        world.serve(&next(1_000_000, 1_000_000));
        let back = world.now;
        assert_eq!(world.idle(60, 20), Idle::Looks);
        assert!(world.now - back < STANDS_MIN);
    }

    #[test]
    fn what_is_large_is_not_looked_for() {
        let large = || Next {
            bytes: 20_000,
            ..next(60, 20)
        };
        assert_eq!(World::new().tried(large).0, Idle::Sleeps);
    }
}
