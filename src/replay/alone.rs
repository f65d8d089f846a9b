//! Users without the right to MULTI or the marker: their absolute records are replayed one by one, at least once. Relative ones are refused
//! when they come; one that was accepted all the same (the right was withdrawn since) becomes a dead letter, which can be retried.

use super::batch::{Group, age_ms, is_too_old, text_of_error};
use super::dead_letter::{DeadLetterReason, TOO_OLD};
use super::enter::Entered;
use super::line::trouble_of;
use super::run::{Run, Stop};
use crate::breaker::{ErrorClass, ReplayEffect};
use crate::outage::effect::EffectKind;
use crate::outage::payload::decode;

impl Run<'_> {
    /// Replays the first record, which is of this group; otherwise why not, and the record stays the first.
    pub(super) async fn alone(&mut self, group: &Group) -> Result<Entered, Stop> {
        let Some(record) = self.source.records.front().cloned() else {
            return Ok(Entered::Ready);
        };
        let Ok(payload) = decode(&record.payload) else {
            return Ok(Entered::Ready);
        };
        let done_seq = self.done_seq(group);
        let age_ms = age_ms(&record, self.now());
        if record.seq > done_seq && !self.dead.contains(&record.seq) {
            if is_too_old(&record, age_ms, self.age_max_ms()) {
                self.bury(&record, DeadLetterReason::TooOld, TOO_OLD).await?;
            } else if payload.kind() == EffectKind::Relative || payload.is_guarded() {
                let why = "its user has no right to MULTI or the marker, and it must not be applied twice";
                self.bury(&record, DeadLetterReason::NoPermission, why).await?;
            } else {
                // A connection of its own: on the connection file, since no marker keeps what is left on it from being applied later.
                if self.connect_own(&group.identity).await? == Entered::Waits {
                    return Ok(Entered::Waits);
                }
                if let Entered::Refused { reason, error } = self.select(group).await? {
                    self.bury(&record, reason, &error).await?;
                } else {
                    let mut request = Vec::new();
                    payload.render(age_ms, self.now().upstream_ms, &mut request);
                    let replies = self.ask_though_held(group, &request, payload.commands()).await?;
                    self.line(group).has_written = true;
                    for error in replies.iter().filter_map(|reply| text_of_error(reply)) {
                        let class = ErrorClass::of(error.as_bytes());
                        match class.replay_effect() {
                            ReplayEffect::Retry => return Err(Stop::Upstream(trouble_of(class))),
                            ReplayEffect::Stall | ReplayEffect::Halt => return Err(Stop::Halt(error)),
                            ReplayEffect::DeadLetter => {
                                self.bury(&record, DeadLetterReason::of(class, &error), &error).await?
                            }
                            ReplayEffect::Done => {}
                        }
                    }
                }
            }
        }
        self.going();
        self.source.records.pop_front();
        self.ack(record.seq).await?;
        Ok(Entered::Ready)
    }
}
