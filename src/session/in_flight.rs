//! Writes that a failure caught in flight, where a rule says `in_flight = "journal"`.
//!
//! Their connection has been read to its end without their reply. Only the breaker's opening makes records of them: a single connection that
//! dies while all is well must not make a backlog, which all others would wait for.

use std::time::Instant;

use super::Session;
use super::append::Before;
use super::down::Ruled;
use super::route::Ask;
use super::task::{Routed, Task};
use super::write_down::Written;
use crate::command;
use crate::outage::effect::EffectKind;
use crate::outage::rules::{Care, CaughtInFlight, XaddId};
use crate::resp::Request;
use crate::resp::scan::{Limits, Scan, Scanner};

impl Session {
    /// Whether a rule may journal this write, though it may have been applied.
    pub(super) fn may_journal_caught(&self, request: &[u8]) -> bool {
        let rules = &self.settings.rules;
        if !rules.mind_in_flight() {
            return false;
        }
        let mut scanner = Scanner::default();
        let Ok(Scan::Request { .. }) = scanner.scan(request, &Limits::default()) else {
            return false;
        };
        let request = Request::new(request, scanner.spans());
        let Some(spec) = command::lookup(&request) else {
            return false;
        };
        let mut keys: Vec<&[u8]> = Vec::new();
        command::for_each_key(spec, &request, |key| keys.push(key));
        rules
            .first_match(spec.id, keys.iter().copied())
            .is_some_and(|rule| rule.care.in_flight == CaughtInFlight::Journal)
    }
}

impl Task {
    /// Waits for the breaker's decision, for at most `hold_timeout`: nothing of the session goes before this write meanwhile.
    pub(super) fn caught(&mut self, ask: &Ask<'_>, since: Instant) -> Routed {
        let is_overtaken = self.session.last_write_answered.get() > ask.came_back.map(|(seq, _)| seq);
        if is_overtaken {
            return self.uncertain(ask);
        }
        if self.is_forwarding() {
            let shared = &self.session.local.shared;
            let limit = shared.target.hold_timeout;
            if !shared.answered_after(since) && self.held_until(limit) > tokio::time::Instant::now() {
                self.session.local.await_proof();
                return Routed::Park;
            }
            self.release();
            return self.uncertain(ask);
        }
        if !self.may_append() {
            return Routed::Park;
        }
        let Some(spec) = ask.spec else {
            return self.uncertain(ask);
        };
        let (ruled, care) = self.rule(ask);
        // With the ID that it would get here it is not what Redis may have executed.
        let care = Care {
            xadd_id: XaddId::Provisional,
            ..care
        };
        let rule_reply = match ruled {
            Ruled::Queue(reply) => reply,
            Ruled::AsBuiltIn | Ruled::Neutral(_) | Ruled::Error | Ruled::Hold => None,
        };
        let mut reply = Vec::new();
        match self.write_down(spec, &ask.request, rule_reply.as_ref(), care, &mut reply) {
            Written::One(one) if one.0.kind == EffectKind::Absolute => {
                self.append(ask, &[&[one]], &reply, Before::MayBeApplied { since })
            }
            Written::Each(all) if all.iter().all(|(effect, _)| effect.kind == EffectKind::Absolute) => {
                let records = all.chunks(1).collect::<Vec<_>>();
                self.append(ask, &records, &reply, Before::MayBeApplied { since })
            }
            Written::One(_) | Written::Each(_) | Written::Error | Written::Refused => self.uncertain(ask),
        }
    }

    fn uncertain(&self, ask: &Ask<'_>) -> Routed {
        self.session.answer_uncertain(self.seq(ask), ask.request.frame());
        Routed::Done
    }
}
