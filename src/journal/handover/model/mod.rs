//! Exhaustive check of the hand-over: every interleaving of the atomic steps of two workers, their sessions, the owner,
//! the replay and the upstream, with the real [`Handover`] taking the owner's decisions.
//!
//! All writes go to one key. Real time is kept as a set per write: what had been acknowledged when it was issued; a
//! write must not be applied before any of those. As this holds for every order of issue, it holds for "the second
//! session starts after the first one's acknowledgement".

mod steps;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::{Admission, Close, Handover, Trip, is_journaling};

const WORKERS: usize = 2;
const WRITES_MAX: usize = 4;

/// The protocol, or one of the ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Correct,
    AcknowledgesBeforeConfirmed,
    WritesStaleAppends,
    ClosesOverBacklog,
    KeepsUnflushedAtTrip,
    FencesBeforeConfirmed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Violation {
    Overtaken,
    ForwardedOverBacklog,
    Lost,
    AppliedTwice,
    AcknowledgedStale,
    AppliedAfterFence,
    Stuck,
}

/// Up to [`WRITES_MAX`] writes in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct List {
    items: [u8; WRITES_MAX],
    len: u8,
}

/// A quick hash: the check hashes millions of small states, none of them hostile.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl List {
    fn as_slice(&self) -> &[u8] {
        &self.items[..self.len as usize]
    }

    fn push(&mut self, item: u8) {
        self.items[self.len as usize] = item;
        self.len += 1;
    }

    fn pop_first(&mut self) -> Option<u8> {
        let first = *self.as_slice().first()?;
        self.items.copy_within(1.., 0);
        self.items[WRITES_MAX - 1] = 0;
        self.len -= 1;
        Some(first)
    }

    fn contains(&self, item: u8) -> bool {
        self.as_slice().contains(&item)
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    Waiting,
    Issued,
    Gathered,
    Sent,
    Inbox,
    Written,
    Acknowledged,
    Uncertain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Write {
    stage: Stage,
    /// Bit set: the writes that were acknowledged when this one was issued.
    after: u8,
    /// The generation its append carries.
    tag: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Worker {
    seen: u8,
    owes_confirmation: bool,
    /// Between the load of the generation and the flush of the lane.
    in_turn: bool,
    gathered: List,
    in_flight: List,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    handover: Handover,
    workers: [Worker; WORKERS],
    writes: [Write; WRITES_MAX],
    inbox: List,
    written: List,
    journal: List,
    /// The head of the journal is applied, the owner does not know it yet.
    head_applied: bool,
    /// Sent on connections that died: may still be applied until the fence.
    limbo: List,
    fenced: u8,
    applied: List,
}

/// What is explored: which session each write belongs to, and how far the generation may go.
struct Model {
    protocol: Protocol,
    /// Session of each write, ascending; a session runs on worker `session % WORKERS`, one write at a time.
    sessions: Vec<usize>,
    generation_max: u64,
}

#[derive(Default)]
struct Outcome {
    states: usize,
    steps: usize,
    /// The first (so a shortest) trace to each kind of violation.
    violations: BTreeMap<Violation, Vec<Action>>,
}

/// What a step does, with the write or worker and the generation it is about: cheap to keep for millions of steps.
type Action = (&'static str, usize, u64);

type Steps = Vec<(Action, State, Option<Violation>)>;

impl State {
    /// Forwarding, as after an outage: the second half of what a start goes through.
    fn forwarding() -> Self {
        let mut state = Self::starting();
        for (index, worker) in state.workers.iter_mut().enumerate() {
            state.handover.confirm(index, 1);
            worker.seen = 2;
        }
        assert_eq!(state.handover.close(0, 0), Close::Closed { generation: 2 });
        state.fenced = 1;
        state
    }

    fn starting() -> Self {
        let worker = Worker {
            seen: 1,
            owes_confirmation: true,
            in_turn: false,
            gathered: List::default(),
            in_flight: List::default(),
        };
        Self {
            handover: Handover::new(WORKERS),
            workers: [worker; WORKERS],
            writes: [Write {
                stage: Stage::Waiting,
                after: 0,
                tag: 0,
            }; WRITES_MAX],
            inbox: List::default(),
            written: List::default(),
            journal: List::default(),
            head_applied: false,
            limbo: List::default(),
            fenced: 0,
            applied: List::default(),
        }
    }

    fn generation(&self) -> u8 {
        u8::try_from(self.handover.generation()).expect("small")
    }

    fn stage(&mut self, write: u8, stage: Stage) {
        self.writes[write as usize].stage = stage;
    }

    fn acknowledged(&self) -> u8 {
        let bit = |(index, write): (usize, &Write)| u8::from(write.stage == Stage::Acknowledged) << index;
        self.writes.iter().enumerate().map(bit).sum()
    }

    /// The upstream executes `write`.
    fn apply(&mut self, write: u8) -> Option<Violation> {
        if self.applied.contains(write) {
            return Some(Violation::AppliedTwice);
        }
        let after = self.writes[write as usize].after;
        let applied: u8 = self.applied.as_slice().iter().map(|&earlier| 1 << earlier).sum();
        self.applied.push(write);
        (after & !applied != 0).then_some(Violation::Overtaken)
    }

    /// An acknowledged write waits for its replay: nothing may be forwarded now.
    fn has_acknowledged_backlog(&self) -> bool {
        let waits =
            |&write: &u8| self.writes[write as usize].stage == Stage::Acknowledged && !self.applied.contains(write);
        self.journal.as_slice().iter().any(waits)
    }

    /// An acknowledged write is applied or waits in the journal.
    fn lost(&self) -> bool {
        let kept = |write: u8| self.applied.contains(write) || self.journal.contains(write);
        (0..WRITES_MAX)
            .any(|write| self.writes[write].stage == Stage::Acknowledged && !kept(u8::try_from(write).expect("small")))
    }
}

impl Model {
    fn steps(&self, state: &State) -> Steps {
        let mut steps = Steps::new();
        self.sessions_step(state, &mut steps);
        for worker in 0..WORKERS {
            self.worker_steps(state, worker, &mut steps);
        }
        self.upstream_steps(state, &mut steps);
        self.owner_steps(state, &mut steps);
        self.replay_steps(state, &mut steps);
        steps
    }

    /// Everything is settled, replayed and forwarded again.
    fn is_finished(&self, state: &State) -> bool {
        let settled = state.writes[..self.sessions.len()]
            .iter()
            .all(|write| is_settled(write.stage));
        settled && state.journal.is_empty() && !is_journaling(state.handover.generation())
    }

    /// All states that can be reached, or those up to the first violation of a kind that is looked for.
    fn explore(&self, first: State, wanted: Option<Violation>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut known: HashMap<State, usize, BuildHasherDefault<Mixer>> = HashMap::default();
        let mut trace: Vec<(usize, Action)> = vec![(0, ("start", 0, 0))];
        let mut queue = VecDeque::from([(0, first.clone())]);
        known.insert(first, 0);
        while let Some((index, state)) = queue.pop_front() {
            let steps = self.steps(&state);
            if steps.is_empty() && !self.is_finished(&state) {
                outcome
                    .violations
                    .entry(Violation::Stuck)
                    .or_insert_with(|| path(&trace, index));
            }
            for (action, next, violation) in steps {
                outcome.steps += 1;
                let violation = violation.or(next.lost().then_some(Violation::Lost));
                let number = trace.len();
                if !known.contains_key(&next) {
                    trace.push((index, action));
                }
                if let Some(violation) = violation {
                    outcome.violations.entry(violation).or_insert_with(|| {
                        let mut steps = path(&trace, index);
                        steps.push(action);
                        steps
                    });
                    if wanted == Some(violation) {
                        return outcome;
                    }
                }
                let goes_on = matches!(
                    violation,
                    None | Some(Violation::AcknowledgedStale | Violation::ForwardedOverBacklog)
                );
                if trace.len() > number {
                    known.insert(next.clone(), number);
                    if goes_on {
                        queue.push_back((number, next));
                    }
                }
            }
        }
        outcome.states = known.len();
        outcome
    }
}

fn is_settled(stage: Stage) -> bool {
    matches!(stage, Stage::Acknowledged | Stage::Uncertain)
}

fn path(trace: &[(usize, Action)], mut index: usize) -> Vec<Action> {
    let mut steps = Vec::new();
    while index > 0 {
        steps.push(trace[index].1);
        index = trace[index].0;
    }
    steps.reverse();
    steps
}

fn explore(protocol: Protocol, sessions: &[usize], first: State, wanted: Option<Violation>) -> Outcome {
    let model = Model {
        protocol,
        sessions: sessions.to_vec(),
        generation_max: 4,
    };
    let outcome = model.explore(first, wanted);
    println!(
        "{protocol:?}, sessions {sessions:?}: {} states, {} steps",
        outcome.states, outcome.steps
    );
    for (violation, steps) in &outcome.violations {
        println!("  {violation:?}: {steps:?}");
    }
    outcome
}

#[test]
fn no_interleaving_loses_overtakes_or_repeats_a_write() {
    let check = |sessions: &[usize], first| {
        let outcome = explore(Protocol::Correct, sessions, first, None);
        assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
        assert!(outcome.states > 10_000, "the model must not have been cut short");
    };
    check(&[0, 1], State::starting());
    check(&[0, 0, 1], State::forwarding());
}

#[test]
fn each_rule_is_needed() {
    let check = |protocol, expected: Violation| {
        let outcome = explore(protocol, &[0, 1], State::starting(), Some(expected));
        assert!(
            outcome.violations.contains_key(&expected),
            "{protocol:?}: {:?}",
            outcome.violations
        );
    };
    check(Protocol::AcknowledgesBeforeConfirmed, Violation::Overtaken);
    check(Protocol::WritesStaleAppends, Violation::Overtaken);
    check(Protocol::ClosesOverBacklog, Violation::Overtaken);
    check(Protocol::KeepsUnflushedAtTrip, Violation::ForwardedOverBacklog);
    check(Protocol::FencesBeforeConfirmed, Violation::AppliedAfterFence);
}
