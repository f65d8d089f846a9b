//! What each part may do next.

use super::*;

impl Model {
    fn worker_of(&self, write: u8) -> usize {
        self.sessions[write as usize] % WORKERS
    }

    pub(super) fn sessions_step(&self, state: &State, steps: &mut Steps) {
        for (index, &session) in self.sessions.iter().enumerate() {
            let write = u8::try_from(index).expect("small");
            let worker = self.worker_of(write);
            let settled =
                index == 0 || self.sessions[index - 1] != session || is_settled(state.writes[index - 1].stage);
            match state.writes[index].stage {
                Stage::Waiting if settled => {
                    let mut next = state.clone();
                    next.writes[index] = Write {
                        stage: Stage::Issued,
                        after: state.acknowledged(),
                        tag: 0,
                    };
                    steps.push((("issue write", index, 0), next, None));
                }
                Stage::Issued => {
                    let mut next = state.clone();
                    let seen = state.workers[worker].seen;
                    if is_journaling(u64::from(seen)) {
                        next.writes[index].stage = Stage::Inbox;
                        next.writes[index].tag = seen;
                        next.inbox.push(write);
                    } else {
                        next.writes[index].stage = Stage::Gathered;
                        next.workers[worker].gathered.push(write);
                    }
                    steps.push((("route write", index, u64::from(seen)), next, None));
                }
                Stage::Waiting
                | Stage::Gathered
                | Stage::Sent
                | Stage::Inbox
                | Stage::Written
                | Stage::Acknowledged
                | Stage::Uncertain => {}
            }
        }
    }

    pub(super) fn worker_steps(&self, state: &State, index: usize, steps: &mut Steps) {
        let worker = &state.workers[index];
        let published = state.generation();
        let has_work = (0..self.sessions.len()).any(|write| {
            self.sessions[write] % WORKERS == index
                && matches!(
                    state.writes[write].stage,
                    Stage::Waiting | Stage::Issued | Stage::Gathered
                )
        });
        if !worker.in_turn && (has_work || worker.seen != published) {
            let mut next = state.clone();
            if worker.seen != published {
                next.workers[index].seen = published;
                next.workers[index].owes_confirmation = true;
                if self.protocol != Protocol::KeepsUnflushedAtTrip {
                    while let Some(write) = next.workers[index].gathered.pop_first() {
                        next.stage(write, Stage::Issued);
                    }
                }
            }
            next.workers[index].in_turn = true;
            steps.push((("load in worker", index, u64::from(published)), next, None));
        }
        if worker.owes_confirmation {
            let mut next = state.clone();
            next.workers[index].owes_confirmation = false;
            next.handover.confirm(index, u64::from(worker.seen));
            steps.push((("confirm of worker", index, u64::from(worker.seen)), next, None));
        }
        if worker.in_turn {
            let mut next = state.clone();
            next.workers[index].in_turn = false;
            while let Some(write) = next.workers[index].gathered.pop_first() {
                next.stage(write, Stage::Sent);
                next.workers[index].in_flight.push(write);
            }
            let sends = !worker.gathered.is_empty();
            let violation = (sends && state.has_acknowledged_backlog()).then_some(Violation::ForwardedOverBacklog);
            steps.push((("flush of worker", index, u64::from(worker.seen)), next, violation));
        }
    }

    pub(super) fn upstream_steps(&self, state: &State, steps: &mut Steps) {
        for index in 0..WORKERS {
            let mut next = state.clone();
            if let Some(write) = next.workers[index].in_flight.pop_first() {
                let violation = next.apply(write);
                next.stage(write, Stage::Acknowledged);
                steps.push((
                    ("upstream applies, replies to write", write as usize, 0),
                    next,
                    violation,
                ));

                let mut next = state.clone();
                while let Some(write) = next.workers[index].in_flight.pop_first() {
                    next.stage(write, Stage::Uncertain);
                    next.limbo.push(write);
                }
                steps.push((("death of the connection of worker", index, 0), next, None));
            }
        }
        let mut next = state.clone();
        if let Some(write) = next.limbo.pop_first() {
            let fenced = state.fenced == state.generation();
            let violation = next.apply(write).or(fenced.then_some(Violation::AppliedAfterFence));
            steps.push((
                ("upstream applies from a dead connection write", write as usize, 0),
                next,
                violation,
            ));
        }
    }

    pub(super) fn owner_steps(&self, state: &State, steps: &mut Steps) {
        let mut next = state.clone();
        if state.handover.generation() + 2 <= self.generation_max
            && let Trip::Begun { generation } = next.handover.trip()
        {
            steps.push((("trip", 0, generation), next, None));
        }
        let mut next = state.clone();
        if let Some(write) = next.inbox.pop_first() {
            let tag = state.writes[write as usize].tag;
            let admission = match self.protocol {
                Protocol::WritesStaleAppends => Admission::Write,
                _ => state.handover.admit(u64::from(tag)),
            };
            match admission {
                Admission::Write => {
                    next.stage(write, Stage::Written);
                    next.journal.push(write);
                    next.written.push(write);
                }
                Admission::Refuse => next.stage(write, Stage::Issued),
            }
            steps.push((("owner takes write", write as usize, u64::from(tag)), next, None));
        }
        let may = self.protocol == Protocol::AcknowledgesBeforeConfirmed || state.handover.is_confirmed_by_all();
        let mut next = state.clone();
        if may && let Some(write) = next.written.pop_first() {
            next.stage(write, Stage::Acknowledged);
            let tag = state.writes[write as usize].tag;
            let is_seen_by_all = state.workers.iter().all(|worker| worker.seen == tag);
            let violation = (tag != state.generation() || !is_seen_by_all).then_some(Violation::AcknowledgedStale);
            steps.push((
                ("owner acknowledges write", write as usize, u64::from(tag)),
                next,
                violation,
            ));
        }
    }

    pub(super) fn replay_steps(&self, state: &State, steps: &mut Steps) {
        let generation = state.generation();
        if !is_journaling(u64::from(generation)) {
            return;
        }
        if state.fenced != generation {
            let at_rest = state.workers.iter().all(|worker| worker.in_flight.is_empty());
            let may = self.protocol == Protocol::FencesBeforeConfirmed || state.handover.is_confirmed_by_all();
            if at_rest && may {
                let mut next = state.clone();
                next.fenced = generation;
                next.limbo = List::default();
                steps.push((("fence", 0, u64::from(generation)), next, None));
            }
            return;
        }
        let mut next = state.clone();
        if state.head_applied {
            next.journal.pop_first();
            next.head_applied = false;
            steps.push((("owner hears of the replayed record", 0, 0), next, None));
        } else if let Some(&write) = state.journal.as_slice().first() {
            next.head_applied = true;
            let violation = next.apply(write);
            steps.push((("replay applies write", write as usize, 0), next, violation));
        }
        let mut next = state.clone();
        let unreplayed = match self.protocol {
            Protocol::ClosesOverBacklog => 0,
            _ => u64::from(state.journal.len),
        };
        if let Close::Closed { generation } = next.handover.close(unreplayed, u64::from(state.written.len)) {
            steps.push((("close", 0, generation), next, None));
        }
    }
}
