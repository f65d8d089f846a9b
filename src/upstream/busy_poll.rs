//! Looking at the sockets again and again for a moment before a worker sleeps, where that makes those faster who wait for it.
//!
//! A core that has nothing to do halts. On a virtual machine waking it costs the sender some 15 µs of its own time, and who slept as much again:
//! with few clients that is most of what a request takes (`benches`). Looking costs our CPU instead, and what it gains depends on who shares a core
//! with whom, which nobody tells us: kept apart by our being busy, three processes may be slower than on one core. So it is tried: short spells of
//! both ways alternate, and looking stays for a while where so much more went through in the same time. Clients with a rate of their own are not
//! made faster by it, and after a trial all is asleep between their requests as before. Linux (`haltpoll`) and HAProxy (`busy-polling`) know the
//! same, without the trial.

use std::cell::RefCell;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// How long a worker looks before it sleeps: a little more than who was just answered needs for the next request.
const LOOK_MAX: Duration = Duration::from_micros(50);
/// After more than this nobody was waiting for us alone: what went before and behind is not compared.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// One spell of a trial: so much time and so many wakings, pauses aside.
const SPELL: Duration = Duration::from_millis(4);
const SPELL_WAKINGS: u32 = 16;
/// Each way has the same share of a trend.
const SPELLS: [Idle; 8] = [
    Idle::Sleeps,
    Idle::Looks,
    Idle::Looks,
    Idle::Sleeps,
    Idle::Sleeps,
    Idle::Looks,
    Idle::Looks,
    Idle::Sleeps,
];
/// Looking begins where a twentieth more goes through, and stays with half of that: less may be by chance, and is not worth the CPU.
const TO_BEGIN: u128 = 20;
const TO_STAY: u128 = 40;
/// Where more comes at once copying takes the time, and what a trial sees does not last.
const LARGE_BYTES_MIN: u64 = 16 << 10;
/// How long a trial's result stands, twice as long each time that it is the same again.
const STANDS_MIN: Duration = Duration::from_millis(250);
const STANDS_MAX: Duration = Duration::from_secs(4);

/// Whether workers may look before they sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BusyPoll {
    /// Where a trial says that it pays, and the CPU limit lets every worker be busy.
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

/// What was read, and in how much time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Passed {
    bytes: u64,
    time: Duration,
    wakings: u32,
}

impl Passed {
    fn add(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.time += more.time;
        self.wakings += more.wakings;
    }

    /// Whether this is faster by a `share`-th, and small enough for that to last.
    fn is_faster(&self, other: &Self, share: u128) -> bool {
        let rate = |passed: &Self, others_time: Duration| u128::from(passed.bytes) * others_time.as_nanos();
        rate(self, other.time) * share >= rate(other, self.time) * (share + 1)
            && self.bytes / u64::from(self.wakings.max(1)) <= LARGE_BYTES_MIN
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Settled {
        idle: Idle,
        since: Instant,
        stands: Duration,
    },
    Trial {
        spell: usize,
        passed: Passed,
        asleep: Passed,
        looking: Passed,
    },
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
        let last = (Idle::Sleeps, STANDS_MIN);
        Self {
            phase: settled((Idle::Sleeps, Duration::ZERO), now),
            last,
            idle_since: None,
            woke: now,
            read_bytes: 0,
        }
    }

    /// There is nothing to do: whether to look again instead of sleeping.
    fn looks_again(&mut self, now: Instant) -> bool {
        let since = *self.idle_since.get_or_insert(now);
        let idle = match self.phase {
            Phase::Settled { idle, .. } => idle,
            Phase::Trial { spell, .. } => SPELLS[spell],
        };
        idle == Idle::Looks && now.duration_since(since) < LOOK_MAX
    }

    /// Something has been read that was waited for since `since`.
    fn wakes(&mut self, since: Instant, now: Instant) {
        self.idle_since = None;
        let passed = Passed {
            bytes: std::mem::take(&mut self.read_bytes),
            time: now.duration_since(self.woke),
            wakings: 1,
        };
        self.woke = now;
        if now.duration_since(since) < PAUSE_MIN {
            self.passed(passed, now);
        }
    }

    fn passed(&mut self, more: Passed, now: Instant) {
        match &mut self.phase {
            Phase::Settled { since, stands, .. } => {
                if now.duration_since(*since) >= *stands {
                    self.phase = Phase::Trial {
                        spell: 0,
                        passed: Passed::default(),
                        asleep: Passed::default(),
                        looking: Passed::default(),
                    };
                }
            }
            Phase::Trial {
                spell,
                passed,
                asleep,
                looking,
            } => {
                passed.add(more);
                if passed.time < SPELL || passed.wakings < SPELL_WAKINGS {
                    return;
                }
                match SPELLS[*spell] {
                    Idle::Sleeps => asleep.add(*passed),
                    Idle::Looks => looking.add(*passed),
                }
                *passed = Passed::default();
                *spell += 1;
                if *spell == SPELLS.len() {
                    let share = match self.last.0 {
                        Idle::Sleeps => TO_BEGIN,
                        Idle::Looks => TO_STAY,
                    };
                    let idle = if looking.is_faster(asleep, share) {
                        Idle::Looks
                    } else {
                        Idle::Sleeps
                    };
                    let stands = match self.last {
                        (last, stood) if last == idle => (stood * 2).min(STANDS_MAX),
                        _ => STANDS_MIN,
                    };
                    self.last = (idle, stands);
                    self.phase = settled(self.last, now);
                }
            }
        }
    }
}

fn settled((idle, stands): (Idle, Duration), since: Instant) -> Phase {
    Phase::Settled { idle, since, stands }
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
            if let Some(since) = poller.idle_since {
                poller.wakes(since, Instant::now());
            }
            poller.read_bytes += bytes as u64;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);
    const SMALL: u64 = 40;

    /// Clients that ask `sleeps` after a sleep began, or `looks` after a look began, each time `bytes`.
    struct Clients {
        sleeps: Duration,
        looks: Duration,
        bytes: u64,
    }

    fn clients(sleeps_us: u32, looks_us: u32) -> Clients {
        Clients {
            sleeps: MICRO * sleeps_us,
            looks: MICRO * looks_us,
            bytes: SMALL,
        }
    }

    struct World {
        poller: Poller,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                poller: Poller::new(now),
                now,
            }
        }

        /// One request, each served in 10 µs. Returns how long the worker looked before it.
        fn serve(&mut self, clients: &Clients) -> Duration {
            self.now += MICRO * 10;
            let since = self.now;
            let looks = self.poller.looks_again(self.now);
            let asked = since + if looks { clients.looks } else { clients.sleeps };
            let mut looked = Duration::ZERO;
            while looks && self.now < asked && self.poller.looks_again(self.now) {
                self.now += MICRO;
                looked += MICRO;
            }
            self.now = asked;
            self.poller.wakes(since, self.now);
            self.poller.read_bytes += clients.bytes;
            looked
        }

        /// Serves until the trial that is due, or comes next, has ended.
        fn tried(&mut self, clients: &Clients) -> (Idle, Duration) {
            let is_trial = |world: &Self| matches!(world.poller.phase, Phase::Trial { .. });
            while !is_trial(self) {
                self.serve(clients);
            }
            while is_trial(self) {
                self.serve(clients);
            }
            self.poller.last
        }
    }

    #[test]
    fn looking_stays_where_so_much_more_goes_through_that_it_is_worth_the_cpu() {
        for (sleeps_us, looks_us, expected) in [
            (60, 20, Idle::Looks),
            (52, 50, Idle::Sleeps),
            (54, 50, Idle::Looks),
            (40, 40, Idle::Sleeps),
            (20, 60, Idle::Sleeps),
        ] {
            let (idle, _) = World::new().tried(&clients(sleeps_us, looks_us));
            assert_eq!(idle, expected, "{sleeps_us} µs asleep, {looks_us} looking");
        }
    }

    #[test]
    fn less_is_enough_to_stay_than_to_begin() {
        let mut world = World::new();
        assert_eq!(world.tried(&clients(52, 50)).0, Idle::Sleeps);
        assert_eq!(world.tried(&clients(60, 20)).0, Idle::Looks);
        assert_eq!(world.tried(&clients(52, 50)).0, Idle::Looks);
        assert_eq!(world.tried(&clients(51, 50)).0, Idle::Sleeps);
    }

    #[test]
    fn a_result_stands_twice_as_long_each_time_that_it_is_the_same_again() {
        let mut world = World::new();
        let (fast, slow) = (clients(60, 20), clients(20, 60));
        for stands_ms in [250, 500, 1000, 2000, 4000, 4000] {
            assert_eq!(world.tried(&fast), (Idle::Looks, Duration::from_millis(stands_ms)));
        }
        assert_eq!(world.tried(&slow), (Idle::Sleeps, STANDS_MIN));
        assert_eq!(world.tried(&slow), (Idle::Sleeps, STANDS_MIN * 2));
        let ended = world.now;
        world.tried(&slow);
        assert!(world.now - ended >= STANDS_MIN * 2);
    }

    #[test]
    fn a_look_ends_in_sleep_and_begins_anew_only_behind_a_request() {
        let mut world = World::new();
        world.tried(&clients(60, 20));
        let start = world.now;
        assert!(world.poller.looks_again(start));
        assert!(world.poller.looks_again(start + LOOK_MAX - MICRO));
        assert!(!world.poller.looks_again(start + LOOK_MAX));
        assert!(
            !world.poller.looks_again(start + STANDS_MAX),
            "it was woken for something else"
        );
        world.poller.wakes(start, start + STANDS_MAX);
        assert!(world.poller.looks_again(start + STANDS_MAX));
    }

    #[test]
    fn nobody_is_looked_for_who_asks_seldom() {
        let mut world = World::new();
        let seldom = clients(2000, 2000);
        assert!((0..10_000).all(|_| world.serve(&seldom).is_zero()));
    }

    #[test]
    fn pauses_of_the_clients_are_not_compared() {
        let mut world = World::new();
        let (pause, equal) = (clients(50_000, 50_000), clients(40, 40));
        for _ in 0..500 {
            // What falls into one way or the other by chance is ten times what is compared.
            world.serve(&pause);
            (0..20).for_each(|_| _ = world.serve(&equal));
        }
        assert_eq!(world.poller.last.0, Idle::Sleeps);
        assert!(world.poller.last.1 > STANDS_MIN, "several trials came to their end");
    }

    #[test]
    fn what_is_large_is_not_looked_for() {
        let mut world = World::new();
        let mut large = clients(60, 20);
        large.bytes = LARGE_BYTES_MIN + 1;
        assert_eq!(world.tried(&large).0, Idle::Sleeps);
    }
}
