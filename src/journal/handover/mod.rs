//! Who may write where: the hand-over between forwarding to the upstream and journaling, as a pure state machine.
//!
//! One generation counter per upstream: odd while journaling, even while forwarding, starting at 1 (the breaker starts
//! OPEN). Only the journal's owner holds a [`Handover`]; workers see the published number and confirm it.
//!
//! The three rules, each needed (the model in `model.rs` finds a lost or overtaken write without it):
//! 1. an append is written only if its session saw the current, journaling generation ([`Handover::admit`]);
//! 2. it is acknowledged only when every worker has confirmed that generation ([`Handover::is_confirmed_by_all`]): a
//!    worker that has not seen the trip could still forward a later write ahead of it;
//! 3. forwarding begins again only when nothing is unreplayed ([`Handover::close`]).

#[cfg(test)]
mod model;

/// The generation that a new upstream starts with: journaling, since no probe has decided yet.
pub const GENERATION_FIRST: u64 = 1;

/// Whether writes of this generation go to the journal (odd) or to the upstream (even).
#[must_use]
pub const fn is_journaling(generation: u64) -> bool {
    generation % 2 == 1
}

/// What became of a request to stop forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trip {
    /// A new journaling generation: publish it and wake the workers.
    Begun { generation: u64 },
    /// Writes were going to the journal already.
    Journaling { generation: u64 },
}

/// What to do with an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Its session saw the current generation: write it.
    Write,
    /// The generation has changed since: write nothing, the session routes again.
    Refuse,
}

/// What became of a request to forward again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The forwarding generation: publish it and wake the workers.
    Closed { generation: u64 },
    /// Records are left to replay.
    NotEmpty { records: u64 },
    /// A worker has not confirmed the trip yet (its old connections are not known to be at rest), or appends of this
    /// generation are not acknowledged yet. Ask again.
    Unsettled,
}

/// The generation and what each worker has confirmed of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Handover {
    generation: u64,
    confirmed: Box<[u64]>,
}

impl Handover {
    /// Journaling under [`GENERATION_FIRST`], confirmed by none of the `workers` yet.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            generation: GENERATION_FIRST,
            confirmed: vec![0; workers].into_boxed_slice(),
        }
    }

    /// The generation to publish.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The upstream is in trouble: writes go to the journal from now on.
    pub const fn trip(&mut self) -> Trip {
        if is_journaling(self.generation) {
            return Trip::Journaling {
                generation: self.generation,
            };
        }
        self.generation += 1;
        Trip::Begun {
            generation: self.generation,
        }
    }

    /// Worker number `worker` writes nothing any more under a generation older than `generation`. Confirmations of
    /// unknown workers and of generations that were never published prove nothing and are ignored.
    pub fn confirm(&mut self, worker: usize, generation: u64) {
        let published = self.generation;
        if let Some(confirmed) = self.confirmed.get_mut(worker)
            && generation <= published
        {
            *confirmed = generation.max(*confirmed);
        }
    }

    /// Whether every worker has confirmed the current generation: only then may its appends be acknowledged.
    #[must_use]
    pub fn is_confirmed_by_all(&self) -> bool {
        self.confirmed.iter().all(|&confirmed| confirmed == self.generation)
    }

    /// Whether an append of a session that saw `generation` may be written now.
    #[must_use]
    pub const fn admit(&self, generation: u64) -> Admission {
        if generation == self.generation && is_journaling(generation) {
            Admission::Write
        } else {
            Admission::Refuse
        }
    }

    /// The backlog is said to be gone; `unreplayed` is how many records the journal still holds for replay,
    /// `unacknowledged` how many appends await their acknowledgement. Closed already is closed again.
    pub fn close(&mut self, unreplayed: u64, unacknowledged: u64) -> Close {
        if !is_journaling(self.generation) {
            return Close::Closed {
                generation: self.generation,
            };
        }
        if unreplayed > 0 {
            return Close::NotEmpty { records: unreplayed };
        }
        if unacknowledged > 0 || !self.is_confirmed_by_all() {
            return Close::Unsettled;
        }
        self.generation += 1;
        Close::Closed {
            generation: self.generation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed_by_all(handover: &mut Handover, workers: usize) {
        for worker in 0..workers {
            handover.confirm(worker, handover.generation());
        }
    }

    #[test]
    fn starts_journaling_and_unconfirmed() {
        let handover = Handover::new(2);
        assert_eq!(handover.generation(), 1);
        assert!(is_journaling(handover.generation()));
        assert!(!handover.is_confirmed_by_all());
    }

    #[test]
    fn closes_only_when_confirmed_and_empty() {
        let mut handover = Handover::new(2);
        assert_eq!(handover.close(0, 0), Close::Unsettled);
        handover.confirm(0, 1);
        assert_eq!(handover.close(0, 0), Close::Unsettled);
        handover.confirm(1, 1);
        assert_eq!(handover.close(3, 0), Close::NotEmpty { records: 3 });
        assert_eq!(handover.close(0, 1), Close::Unsettled);
        assert_eq!(handover.close(0, 0), Close::Closed { generation: 2 });
        assert_eq!(
            handover.close(0, 0),
            Close::Closed { generation: 2 },
            "closing twice changes nothing"
        );
    }

    #[test]
    fn trips_once_per_outage() {
        let mut handover = Handover::new(1);
        assert_eq!(handover.trip(), Trip::Journaling { generation: 1 });
        confirmed_by_all(&mut handover, 1);
        handover.close(0, 0);
        assert_eq!(handover.trip(), Trip::Begun { generation: 3 });
        assert_eq!(handover.trip(), Trip::Journaling { generation: 3 });
    }

    #[test]
    fn admits_the_current_journaling_generation_only() {
        let check = |handover: &Handover, generation, admission| assert_eq!(handover.admit(generation), admission);
        let mut handover = Handover::new(1);
        confirmed_by_all(&mut handover, 1);
        check(&handover, 0, Admission::Refuse);
        check(&handover, 1, Admission::Write);
        check(&handover, 3, Admission::Refuse);
        handover.close(0, 0);
        check(&handover, 1, Admission::Refuse);
        check(&handover, 2, Admission::Refuse);
        handover.trip();
        check(&handover, 1, Admission::Refuse);
        check(&handover, 3, Admission::Write);
    }

    #[test]
    fn confirmations_never_go_backwards_nor_ahead() {
        let mut handover = Handover::new(1);
        handover.confirm(0, 7);
        assert!(!handover.is_confirmed_by_all(), "generation 7 was never published");
        handover.confirm(0, 1);
        handover.confirm(0, 0);
        handover.confirm(9, 1);
        assert!(handover.is_confirmed_by_all());
        handover.close(0, 0);
        assert!(!handover.is_confirmed_by_all());
    }
}
