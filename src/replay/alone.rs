//! Users without the right to MULTI or the marker: their absolute records are replayed one by one, at least once. A relative one waits.

use super::apply::reason;
use super::batch::{Group, age_ms, is_too_old, text_of_error};
use super::enter::Entered;
use super::line::trouble_of;
use super::run::{Run, Stop};
use crate::breaker::{ErrorClass, ReplayEffect};
use crate::outage::effect::EffectKind;
use crate::outage::payload::decode;
use crate::telemetry;

impl Run<'_> {
    /// Replays the first record of the backlog, which is of this group.
    pub(super) async fn alone(&mut self, group: &Group) -> Result<(), Stop> {
        let Some(record) = self.source.records.front().cloned() else {
            return Ok(());
        };
        let Ok(payload) = decode(&record.payload) else {
            return Ok(());
        };
        let done_seq = self.places.get(&group.db).map_or(0, |place| place.done_seq);
        let age_ms = age_ms(&record, self.now());
        if record.seq > done_seq && !self.dead.contains(&record.seq) {
            if is_too_old(&record, age_ms, self.age_max_ms()) {
                self.bury(&record, "too_old", "older than queue.max_age").await?;
            } else if payload.kind() == EffectKind::Relative || payload.is_guarded() {
                let user = String::from_utf8_lossy(&group.identity);
                return Err(Stop::Halt(format!(
                    "user {user:?} has no right to MULTI or the marker, and a write that must not be applied twice waits"
                )));
            } else {
                // A connection of its own: on the connection file, since no marker keeps what is left on it from being applied later.
                self.connect_own(&group.identity).await?;
                if let Entered::NoSuchDatabase(error) = self.select(group).await? {
                    self.bury(&record, "bad_database", &error).await?;
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
                            ReplayEffect::DeadLetter => self.bury(&record, reason(class, &error), &error).await?,
                            ReplayEffect::Done => {}
                        }
                    }
                    telemetry::replayed(&self.replay.shared.target.name, 1);
                }
            }
        }
        self.going();
        self.source.records.pop_front();
        self.ack(record.seq).await
    }
}
