//! When requests are due. Pure: time is an argument, in nanoseconds since the begin.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// A closed loop: whoever is free asks.
    WhenAnswered,
    /// An open loop: at these times, whoever is free or not.
    Fixed { starts_per_second: f64 },
}

/// How long requests are sent, and which of them count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) warm_up: Duration,
    pub(crate) counted: Duration,
}

#[derive(Debug)]
pub(crate) struct Schedule {
    pace: Pace,
    end_ns: u64,
    started: u64,
}

impl Schedule {
    pub(crate) fn new(pace: Pace, span: Span) -> Self {
        let end = span.warm_up + span.counted;
        Self {
            pace,
            end_ns: nanoseconds(end),
            started: 0,
        }
    }

    pub(crate) fn is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.end_ns
    }

    /// The intended time of the next start, which may lie before `now_ns`; none when no more are due before the end.
    pub(crate) fn next_ns(&self, now_ns: u64) -> Option<u64> {
        let next_ns = match self.pace {
            Pace::WhenAnswered => now_ns,
            Pace::Fixed { starts_per_second } => (self.started as f64 * 1e9 / starts_per_second) as u64,
        };
        (next_ns < self.end_ns).then_some(next_ns)
    }

    pub(crate) fn start(&mut self) {
        self.started += 1;
    }

    /// Intended times up to the end that nobody was free for, taken off the schedule. None in a closed loop, where nothing is intended.
    pub(crate) fn take_unsent(&mut self) -> Vec<u64> {
        let mut unsent = Vec::new();
        if let Pace::Fixed { .. } = self.pace {
            while let Some(intended_ns) = self.next_ns(self.end_ns) {
                unsent.push(intended_ns);
                self.start();
            }
        }
        unsent
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
