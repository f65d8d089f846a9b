//! The state machine: CLOSED → OPEN → HALF_OPEN → CLOSED.
//!
//! Two signals trip a CLOSED breaker by count: consecutive failures notice a dead server within a few commands, however little
//! traffic there is; the failure rate over a window notices one that answers now and then. Hard signs and silence trip at once.
//! Only a probe leads out of OPEN, and only an empty backlog out of HALF_OPEN. What arrives late changes nothing: outcomes of
//! commands that were sent before a trip say nothing about the server now.

use std::time::Duration;

use super::Settings;
use super::backoff;
use super::reason::{Failure, HardSign, Reason, Trouble};
use super::window::Window;

/// Where the breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Closed,
    Open,
    HalfOpen,
}

/// What the state means for clients; OPEN is two modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// CLOSED: traffic flows.
    Healthy,
    /// OPEN, waiting for the next probe.
    Down,
    /// OPEN, a probe is under way.
    Probing,
    /// HALF_OPEN: fence and replay.
    CatchingUp,
}

/// A change of state and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: State,
    pub to: State,
    pub reason: Reason,
}

#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one per upstream: in place is simpler than on the heap"
)]
enum Phase {
    Closed {
        window: Window,
        consecutive: u32,
    },
    Open {
        attempt: u32,
        probe: Probe,
    },
    /// `attempt` goes on counting until the breaker is CLOSED: a replay that fails again and again must not be retried in a tight loop.
    HalfOpen {
        attempt: u32,
    },
}

#[derive(Clone, Copy, Debug)]
enum Probe {
    DueAt(Duration),
    UnderWay,
}

/// The breaker of one upstream.
///
/// The caller reports the outcomes of commands in the order they came in (successes may be counted up and reported together, but
/// before the failure that followed them), asks when a probe is due, runs it, and reports how it ended.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: Settings,
    phase: Phase,
    last_trouble: Option<Trouble>,
    decided: Decided,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decided {
    NotYet,
    Yes,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Mode {
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Down => "down",
            Self::Probing => "probing",
            Self::CatchingUp => "catching_up",
        }
    }
}

impl Breaker {
    /// OPEN with a probe due at once: nothing is known of the upstream yet.
    #[must_use]
    pub fn new(settings: Settings, now: Duration) -> Self {
        let phase = Phase::Open {
            attempt: 0,
            probe: Probe::DueAt(now),
        };
        Self {
            settings,
            phase,
            last_trouble: None,
            decided: Decided::NotYet,
        }
    }

    /// `n` commands were answered.
    pub fn successes(&mut self, n: u64, now: Duration) {
        match &mut self.phase {
            Phase::Closed { window, consecutive } if 0 < n => {
                window.add(n, 0, now);
                *consecutive = 0;
            }
            Phase::Closed { .. } | Phase::Open { .. } | Phase::HalfOpen { .. } => {}
        }
    }

    /// One failure: of a connection, however many commands it took along, or of a command.
    ///
    /// Counted while CLOSED only. In HALF_OPEN it may come from a connection that the fence has just killed, so there it takes a
    /// hard sign, silence or a failed replay to go back.
    pub fn failure(&mut self, failure: Failure, now: Duration) -> Option<Transition> {
        let Phase::Closed { window, consecutive } = &mut self.phase else {
            return None;
        };
        self.last_trouble = Some(Trouble::Soft(failure));
        window.add(0, 1, now);
        *consecutive = consecutive.saturating_add(1);
        if self.settings.failure_threshold.get() <= *consecutive {
            self.trip(Reason::ConsecutiveFailures, now)
        } else if window.counts(now).trips() {
            self.trip(Reason::FailureRate, now)
        } else {
            None
        }
    }

    /// A sign that needs no second one.
    pub fn hard(&mut self, sign: HardSign, now: Duration) -> Option<Transition> {
        self.trip_with(Trouble::Hard(sign), Reason::Hard(sign), now)
    }

    /// The oldest unanswered command and a PING on the health connection are both older than `timeouts.command`.
    pub fn silence(&mut self, now: Duration) -> Option<Transition> {
        self.trip_with(Trouble::Silence, Reason::Silence, now)
    }

    /// A probe is about to be sent. Says whether it may: OPEN, its time has come, and no other is under way.
    #[must_use]
    pub fn probe_started(&mut self, now: Duration) -> ProbeStart {
        match &mut self.phase {
            Phase::Open { probe, .. } => match *probe {
                Probe::DueAt(at) if at <= now => {
                    *probe = Probe::UnderWay;
                    ProbeStart::Admitted
                }
                Probe::DueAt(_) | Probe::UnderWay => ProbeStart::Refused,
            },
            Phase::Closed { .. } | Phase::HalfOpen { .. } => ProbeStart::Refused,
        }
    }

    /// The probe failed: the next one after twice the wait, with full jitter (`random_unit` is uniform in 0..1). Never a transition.
    pub fn probe_failed(&mut self, trouble: Trouble, now: Duration, random_unit: f64) -> Option<Transition> {
        if let Phase::Open {
            attempt,
            probe: Probe::UnderWay,
        } = self.phase
        {
            self.last_trouble = Some(trouble);
            self.decided = Decided::Yes;
            self.reopen(attempt.saturating_add(1), now, random_unit);
        }
        None
    }

    /// The probe succeeded: fence and replay may begin.
    pub fn probe_succeeded(&mut self) -> Option<Transition> {
        let Phase::Open {
            attempt,
            probe: Probe::UnderWay,
        } = self.phase
        else {
            return None;
        };
        self.decided = Decided::Yes;
        self.phase = Phase::HalfOpen { attempt };
        Some(Transition {
            from: State::Open,
            to: State::HalfOpen,
            reason: Reason::ProbeSucceeded,
        })
    }

    /// The journal says that nothing is left: traffic flows, with a fresh window and backoff.
    pub fn caught_up(&mut self) -> Option<Transition> {
        let Phase::HalfOpen { .. } = self.phase else {
            return None;
        };
        self.last_trouble = None;
        self.phase = Phase::Closed {
            window: Window::default(),
            consecutive: 0,
        };
        Some(Transition {
            from: State::HalfOpen,
            to: State::Closed,
            reason: Reason::CaughtUp,
        })
    }

    /// Fence or replay could not go on because the upstream failed again.
    pub fn replay_failed(&mut self, trouble: Trouble, now: Duration, random_unit: f64) -> Option<Transition> {
        let Phase::HalfOpen { attempt } = self.phase else {
            return None;
        };
        self.last_trouble = Some(trouble);
        self.reopen(attempt.saturating_add(1), now, random_unit);
        Some(Transition {
            from: State::HalfOpen,
            to: State::Open,
            reason: Reason::ReplayFailed,
        })
    }

    fn reopen(&mut self, attempt: u32, now: Duration, random_unit: f64) {
        let wait = backoff::jittered(backoff::wait(&self.settings, attempt), random_unit);
        self.phase = Phase::Open {
            attempt,
            probe: Probe::DueAt(now.saturating_add(wait)),
        };
    }

    fn trip_with(&mut self, trouble: Trouble, reason: Reason, now: Duration) -> Option<Transition> {
        let transition = self.trip(reason, now)?;
        self.last_trouble = Some(trouble);
        Some(transition)
    }

    /// To OPEN from wherever traffic or replay flows.
    fn trip(&mut self, reason: Reason, now: Duration) -> Option<Transition> {
        let attempt = match self.phase {
            Phase::Closed { .. } => 0,
            Phase::HalfOpen { attempt } => attempt.saturating_add(1),
            Phase::Open { .. } => return None,
        };
        let from = self.state();
        let wait = backoff::wait(&self.settings, attempt);
        self.phase = Phase::Open {
            attempt,
            probe: Probe::DueAt(now.saturating_add(wait)),
        };
        Some(Transition {
            from,
            to: State::Open,
            reason,
        })
    }

    #[must_use]
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.phase {
            Phase::Closed { .. } => Mode::Healthy,
            Phase::Open {
                probe: Probe::DueAt(_), ..
            } => Mode::Down,
            Phase::Open {
                probe: Probe::UnderWay, ..
            } => Mode::Probing,
            Phase::HalfOpen { .. } => Mode::CatchingUp,
        }
    }

    /// When the next probe may start; nothing while one is under way or none is needed.
    #[must_use]
    pub fn next_probe_at(&self) -> Option<Duration> {
        match self.phase {
            Phase::Open {
                probe: Probe::DueAt(at),
                ..
            } => Some(at),
            Phase::Open {
                probe: Probe::UnderWay, ..
            }
            | Phase::Closed { .. }
            | Phase::HalfOpen { .. } => None,
        }
    }

    #[must_use]
    pub fn probe_due(&self, now: Duration) -> bool {
        self.next_probe_at().is_some_and(|at| at <= now)
    }

    /// Whether the first probe has decided either way. Until then commands of connected clients are held.
    #[must_use]
    pub fn has_decided(&self) -> bool {
        self.decided == Decided::Yes
    }

    /// What was wrong last; nothing again once the upstream is healthy.
    #[must_use]
    pub fn last_trouble(&self) -> Option<Trouble> {
        self.last_trouble
    }
}

/// Whether a probe may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeStart {
    Admitted,
    Refused,
}
