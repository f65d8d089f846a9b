//! What a write becomes in the journal, by the table and by the rule that it matches.

use super::task::Task;
use crate::command::Spec;
use crate::outage::effect::{Effect, Guard};
use crate::outage::not_applied_unseen;
use crate::outage::rules::{Care, Reply, XaddId};
use crate::outage::write::{AcceptedIds, Guarded, Write, WriteContext, guarded, write_with};
use crate::resp::Request;
use crate::upstream::clock::{upstream_ms, wall_ms};

/// What is done with a write; its reply stands in the caller's buffer.
pub(super) enum Written<'a> {
    /// One record.
    One((Effect<'a>, Guard)),
    /// As many records.
    Each(Vec<(Effect<'a>, Guard)>),
    /// Redis's own error for the arguments.
    Error,
    Refused,
}

impl Task {
    /// Decides by the table, with a rule's reply and what it asks for. Exactly one reply is appended to `out`.
    pub(super) fn write_down<'a>(
        &self,
        spec: &'static Spec,
        request: &Request<'a>,
        rule_reply: Option<&Reply>,
        care: Care,
        out: &mut Vec<u8>,
    ) -> Written<'a> {
        let local = &self.session.local;
        let settings = &self.session.settings;
        let upstream_name = &local.shared.target.name;
        let wall_ms = wall_ms();
        let start = out.len();
        let mut shared_ids = match care.xadd_id {
            XaddId::Provisional => None,
            XaddId::Accepted => {
                let offset_ms = local.shared.facts().clock_offset_ms;
                let upstream_ms = u64::try_from(upstream_ms(wall_ms, offset_ms)).unwrap_or_default();
                Some((settings.memory.accepted_ids(), upstream_ms))
            }
        };
        let mut adds = self.session.stream_adds.borrow_mut();
        let mut context = WriteContext {
            protocol: self.state.key.protocol,
            upstream_name,
            wall_ms,
            stream_ids: &mut adds.ids,
            accepted_ids: shared_ids.as_mut().map(|(stream_ids, upstream_ms)| AcceptedIds {
                stream_ids,
                upstream_ms: *upstream_ms,
            }),
        };
        let effect = match write_with(spec, request, rule_reply, &mut context, out) {
            Write::Journal(effect) => effect,
            Write::Error => return Written::Error,
            Write::Refused => return Written::Refused,
        };
        let (generation, db) = (local.generation(), self.state.key.db);
        let is_tainted = |key: &[u8]| settings.memory.is_tainted(generation, db, key);
        match guarded(spec, request, effect, care, wall_ms, is_tainted) {
            Guarded::One(effect, guard) if self.may_be_replayed(effect.kind, guard) => Written::One((effect, guard)),
            Guarded::Each(all)
                if all
                    .iter()
                    .all(|(effect, guard)| self.may_be_replayed(effect.kind, *guard)) =>
            {
                Written::Each(all)
            }
            Guarded::One(..) | Guarded::Each(_) => {
                out.truncate(start);
                self.refuse_without_rights(spec.name, out);
                Written::Refused
            }
            Guarded::Refused => {
                out.truncate(start);
                not_applied_unseen(out, spec.name, upstream_name);
                Written::Refused
            }
        }
    }
}
