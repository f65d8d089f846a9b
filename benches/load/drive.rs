//! Plays a game on a schedule, in one loop.

use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::poll::{Events, Poll};
use crate::schedule::{Pace, Schedule, Span, nanoseconds};
use crate::tally::Tally;

/// How long replies may take to come after the end.
const DRAIN: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Started,
    NobodyIsFree,
}

/// Who plays, and what a turn is. Times are nanoseconds since the begin.
pub(crate) trait Game {
    /// What one start adds to the count.
    fn counted_per_start(&self) -> f64;

    fn poll(&mut self) -> &mut Poll;

    fn start(&mut self, intended_ns: u64) -> Result<Start, Failure>;

    /// The poll has named this connection.
    fn ready(&mut self, token: usize, clock: Clock, tally: &mut Tally) -> Result<(), Failure>;

    /// Starts that are not over.
    fn under_way(&self) -> usize;
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    begin: Instant,
}

impl Clock {
    pub(crate) fn now_ns(self) -> u64 {
        nanoseconds(self.begin.elapsed())
    }
}

pub(crate) fn drive(game: &mut impl Game, pace: Pace, span: Span) -> Result<Tally, Failure> {
    let mut tally = Tally::new(span.warm_up)?;
    let mut schedule = Schedule::new(pace, span);
    let mut events = Events::new();
    let clock = Clock { begin: Instant::now() };
    let last_ns = nanoseconds(span.warm_up + span.counted + DRAIN);
    loop {
        let now_ns = clock.now_ns();
        if schedule.is_over(now_ns) {
            for intended_ns in schedule.take_unsent() {
                tally.unsent(intended_ns, now_ns, game.counted_per_start() as u64);
            }
            if game.under_way() == 0 {
                return Ok(tally);
            }
            if now_ns > last_ns {
                return Err(Failure::Unanswered(game.under_way()));
            }
        } else {
            start_all_due(game, &mut schedule, clock)?;
        }
        game.poll().wait(&mut events)?;
        for token in events.tokens() {
            game.ready(token, clock, &mut tally)?;
        }
    }
}

fn start_all_due(game: &mut impl Game, schedule: &mut Schedule, clock: Clock) -> Result<(), Failure> {
    let now_ns = clock.now_ns();
    while let Some(intended_ns) = schedule.next_ns(now_ns) {
        if intended_ns > now_ns {
            return game.poll().wake_at(intended_ns, now_ns);
        }
        match game.start(intended_ns)? {
            Start::Started => schedule.start(),
            Start::NobodyIsFree => break,
        }
    }
    Ok(())
}
