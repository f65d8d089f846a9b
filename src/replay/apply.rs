//! Batch after batch of one group, and what their replies mean for the journal.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::batch::{self, Answer, Batch, Exec, Fate, Group, Now, Presence, Terms, Unmet, age_ms, build, text_of_error};
use super::dead_letter::{DeadLetterReason, TOO_OLD, UNREADABLE};
use super::enter::is_out_of_memory;
use super::kept::Pause;
use super::line::trouble_of;
use super::relief::relief;
use super::review::{refused, server};
use super::run::{Course, Place, Run, Stop};
use super::source::{JournalError, ask, send};
use crate::breaker::{ErrorClass, Failure, ReplayEffect, Trouble};
use crate::journal::{DeadLetter, Mark, Record};
use crate::telemetry;
use crate::upstream::clock::{mono_ms, upstream_ms, wall_ms};

/// Guarded records in one batch.
pub(super) const GUARDS_MAX: usize = 256;

/// So long guarded batches may meet nothing but others who touch their keys. Then reads go on meanwhile.
const CONTENDED_MAX: Duration = Duration::from_secs(1);
const CONTENDED: &str = "others keep changing a key that a guarded write (needs_key, create_only) asks about";

/// Of a record that must not be applied twice.
const NOT_DISCARDED: &str = "it may or may not have been applied: its user lost the right to MULTI just then";

impl Run<'_> {
    fn rate_max(&self) -> Option<NonZeroU32> {
        self.replay.controls.rate().max(self.replay.settings.rate_max)
    }

    pub(super) fn age_max_ms(&self) -> Option<u64> {
        let age_max = self.replay.settings.age_max?;
        Some(u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn now(&self) -> Now {
        let wall_ms = wall_ms();
        Now {
            wall_ms,
            mono_ms: mono_ms(),
            upstream_ms: upstream_ms(wall_ms, self.clock_offset_ms),
            ordinal: self.incarnations.current_ordinal(),
        }
    }

    /// Takes the next batch off what has been read; never waits.
    fn prepare(&mut self, group: &Group) -> Batch {
        // An error comes again where it can be dealt with.
        if self.course == Course::Backlog {
            drop(self.source.top_up());
        }
        let terms = Terms {
            group,
            marker_key: &self.marker_key,
            incarnations: &self.incarnations,
            done_seq: self.done_seq(group),
            dead: &self.dead,
            aside: (self.course == Course::Backlog).then_some(&self.aside),
            age_max_ms: self.age_max_ms(),
            now: self.now(),
            commands_max: self.pace.commands_max(self.rate_max()),
            guards_max: self.guards_max,
        };
        build(&mut self.source.records, &terms)
    }

    /// Batch after batch of one group, as far as it has been read.
    pub(super) async fn stream(&mut self, group: &Group) -> Result<(), Stop> {
        let mut next = Batch::default();
        let streamed = self.batches(group, &mut next).await;
        match streamed {
            Err(Stop::Upstream(_)) => {}
            Ok(()) | Err(Stop::Halt(_)) => self.discard_ahead(group, &mut next).await?,
        }
        streamed
    }

    /// Leaves in `next` what is not in flight.
    async fn batches(&mut self, group: &Group, next: &mut Batch) -> Result<(), Stop> {
        *next = self.prepare(group);
        let mut done = None;
        while let Some(last_seq) = next.last_seq() {
            // Nothing is to wait between a guard's question and the batch's EXEC.
            if !next.request.is_empty() {
                let wait = self
                    .pace
                    .wait(next.records.len(), self.rate_max(), self.started.elapsed());
                if !wait.is_zero() && timeout(wait, self.replay.controls.changed()).await.is_ok() {
                    self.restart();
                    return Ok(());
                }
            }
            self.meet_guards(group, next).await?;
            self.bury_unsent(next).await?;
            if next.request.is_empty() {
                self.ack(last_seq).await?;
                *next = self.prepare(group);
                continue;
            }
            let sent = Instant::now();
            let mut batch = std::mem::take(next);
            let rest = batch.request.get(batch.sent_bytes..).unwrap_or_default();
            self.line(group).send(rest).await?;
            self.line(group).has_written = true;
            // The server works meanwhile.
            drop(done.take());
            *next = self.prepare(group);
            self.send_ahead(group, next);
            let replies = self.replies_though_held(group, batch::replies(batch.commands)).await?;
            self.pace.took(batch.commands, sent.elapsed());
            let answer = batch::parse(&replies, batch.commands).ok_or(Trouble::Soft(Failure::Protocol))?;
            if !answer.is_applied(self.marker_at(batch.marker_seq)) {
                self.discard_ahead(group, next).await?;
            }
            self.judge(group, &mut batch, answer).await?;
            if self.current.is_none() || self.replay.controls.pause() == Pause::Paused {
                self.restart();
                return Ok(());
            }
            done = Some(batch);
        }
        Ok(())
    }

    /// Has the server queue what comes next while it works at what is in flight. It is executed, or discarded, when that is known to be applied.
    fn send_ahead(&mut self, group: &Group, next: &mut Batch) {
        let queued = next.request.get(..next.queued_bytes).unwrap_or_default();
        // At a given rate there is no hurry.
        if queued.is_empty() || self.rate_max().is_some() {
            return;
        }
        next.sent_bytes = self.line(group).send_some(queued);
    }

    /// Nothing is queued afterwards.
    async fn discard_ahead(&mut self, group: &Group, next: &mut Batch) -> Result<(), Stop> {
        let sent_bytes = std::mem::take(&mut next.sent_bytes);
        if sent_bytes == 0 {
            return Ok(());
        }
        let mut rest = next
            .request
            .get(sent_bytes..next.queued_bytes)
            .unwrap_or_default()
            .to_vec();
        batch::command(&mut rest, &[b"DISCARD"]);
        self.line(group).send(&rest).await?;
        let count = batch::replies_to_discarded(next.commands);
        let replies = self.replies_though_held(group, count).await?;
        for record in next.executed_all_the_same(&replies) {
            self.bury(record, DeadLetterReason::NoPermission, NOT_DISCARDED).await?;
        }
        Ok(())
    }

    /// Asks what guarded records want to know, under WATCH until the batch's EXEC, and takes out those that must not be sent.
    async fn meet_guards(&mut self, group: &Group, batch: &mut Batch) -> Result<(), Stop> {
        self.replay.ours.add(group.db, &mut batch.claimed);
        let mut answers = Vec::new();
        if let Some((request, count)) = batch.question() {
            for reply in self.line(group).ask(&request, count).await? {
                answers.push(match text_of_error(&reply) {
                    None if reply == b":1\r\n" => Presence::There,
                    None => Presence::Absent,
                    Some(error) if ErrorClass::of(error.as_bytes()) == ErrorClass::Permission => Presence::NotPermitted,
                    Some(error) => return Err(refused(&error)),
                });
            }
            // Nothing is known of keys that are not watched.
            if answers.remove(0) == Presence::NotPermitted {
                answers.fill(Presence::NotPermitted);
            }
        }
        let (ours, incarnations) = (&self.replay.ours, &self.incarnations);
        batch.settle(&answers, group.db, ours, &self.marker_key, incarnations);
        Ok(())
    }

    /// What the replies to a batch mean. Afterwards `current` is unset where the next batch must not simply follow.
    async fn judge(&mut self, group: &Group, batch: &mut Batch, answer: Answer) -> Result<(), Stop> {
        let errors = match answer.exec {
            Exec::Applied { errors } => errors,
            Exec::Moved => {
                self.current = None;
                if !batch.is_guarded() {
                    return Ok(());
                }
                self.guards_max = (self.guards_max / 4).max(1);
                let since = *self.contended_since.get_or_insert_with(Instant::now);
                if since.elapsed() < CONTENDED_MAX {
                    return Ok(());
                }
                self.contended_since = None;
                return Err(Stop::Halt(CONTENDED.to_owned()));
            }
            Exec::Refused(error) => {
                self.current = None;
                return self.refused_at_queueing(group, batch, &answer.refused, &error).await;
            }
        };
        self.replay.ours.add(group.db, &mut batch.claims);
        self.guards_max = (self.guards_max * 2).min(GUARDS_MAX);
        self.contended_since = None;
        for (place, error) in &errors {
            let class = ErrorClass::of(error.as_bytes());
            if let (Some(record), true) = (batch.record_at(*place), class.replay_effect() != ReplayEffect::Done) {
                let record = record.clone();
                self.bury(&record, DeadLetterReason::of(class, error), error).await?;
            }
        }
        let marker = self.marker_at(batch.marker_seq);
        if answer.marker != Ok(marker) {
            self.current = None;
        }
        let place = Place {
            done_seq: batch.marker_seq,
            marker: Some(marker),
        };
        self.places.insert(group.db, place);
        self.server = server(self.run_id.as_deref(), &answer.info);
        let failed: Vec<usize> = errors.iter().map(|(place, _)| *place).collect();
        telemetry::stream_ids_changed(&self.replay.shared.target.name, batch.ids_changed(&failed));
        self.going();
        match batch.last_seq() {
            Some(last_seq) => self.ack(last_seq).await,
            None => Ok(()),
        }
    }

    /// Nothing of the batch was executed.
    async fn refused_at_queueing(
        &mut self,
        group: &Group,
        batch: &Batch,
        refusals: &[(usize, String)],
        exec_error: &str,
    ) -> Result<(), Stop> {
        if refusals.is_empty() {
            return Err(refused(exec_error));
        }
        if refusals.iter().all(|(_, error)| is_out_of_memory(error)) && self.relieve(group, batch).await? {
            return Ok(());
        }
        let mut stall = None;
        for (place, error) in refusals {
            let class = ErrorClass::of(error.as_bytes());
            let Some(record) = batch.record_at(*place) else {
                // The marker's own SET.
                self.entitled.remove(group);
                stall = Some(refused(error));
                continue;
            };
            match class.replay_effect() {
                ReplayEffect::Retry => return Err(Stop::Upstream(trouble_of(class))),
                ReplayEffect::Stall | ReplayEffect::Halt => stall = Some(Stop::Halt(error.clone())),
                ReplayEffect::DeadLetter | ReplayEffect::Done => {
                    let record = record.clone();
                    self.bury(&record, DeadLetterReason::of(class, error), error).await?;
                }
            }
        }
        stall.map_or(Ok(()), Err)
    }

    /// Replays the first record of a batch that a full server refused, if it only frees memory; `false` where it stays.
    async fn relieve(&mut self, group: &Group, batch: &Batch) -> Result<bool, Stop> {
        let marker = self.places.get(&group.db).and_then(|place| place.marker);
        let Some((record, request)) =
            marker.and_then(|marker| relief(batch, &self.marker_key, marker, &self.incarnations))
        else {
            return Ok(false);
        };
        let reply = self.line(group).ask(&request, 2).await?.pop().unwrap_or_default();
        if reply != b":1\r\n" {
            return Ok(false);
        }
        let place = Place {
            done_seq: record.seq,
            marker: Some(self.marker_at(record.seq)),
        };
        self.places.insert(group.db, place);
        self.ack(record.seq).await?;
        Ok(true)
    }

    async fn bury_unsent(&mut self, batch: &Batch) -> Result<(), Stop> {
        for (record, fate) in &batch.records {
            match fate {
                Fate::Sent { .. } | Fate::Passed => {}
                Fate::TooOld => self.bury(record, DeadLetterReason::TooOld, TOO_OLD).await?,
                Fate::Unreadable => {
                    self.bury(record, DeadLetterReason::Unreadable, UNREADABLE).await?;
                }
                Fate::Unmet(unmet) => {
                    let (reason, error) = match unmet {
                        Unmet::WouldOverwriteUnseen => (
                            DeadLetterReason::WouldOverwriteUnseen,
                            "a read of the key was answered neutrally, and it holds something that this backlog did not put there",
                        ),
                        Unmet::KeyGone => (
                            DeadLetterReason::KeyGone,
                            "the key that it needs does not exist any more",
                        ),
                        Unmet::NotPermitted => (
                            DeadLetterReason::NoPermission,
                            "the user may not ask whether the key exists",
                        ),
                    };
                    self.bury(record, reason, error).await?;
                }
            }
        }
        Ok(())
    }

    /// Keeps a record as a dead letter, durably.
    pub(super) async fn bury(&mut self, record: &Record, reason: DeadLetterReason, error: &str) -> Result<(), Stop> {
        let now = self.now();
        let letter = DeadLetter {
            seq: record.seq,
            // What the monotonic clock knows of its age outlasts this process.
            wall_ms: now.wall_ms.saturating_sub(age_ms(record, now)),
            reason: reason.label().to_owned(),
            error: error.to_owned(),
            payload: record.payload.clone(),
        };
        let owner = &self.replay.owner;
        let is_new = ask(|reply| owner.dead_letter(letter.clone(), reply))
            .await?
            .map_err(|error| Stop::Halt(format!("a dead letter cannot be kept: {error}")))?;
        if is_new {
            telemetry::dead_letters(&self.replay.shared.target.name, reason.label(), 1);
        }
        self.dead.insert(record.seq);
        Ok(())
    }

    /// Keeps the first record as a dead letter and goes on.
    pub(super) async fn bury_front(&mut self, reason: DeadLetterReason, error: &str) -> Result<(), Stop> {
        let Some(record) = self.source.records.front().cloned() else {
            return Ok(());
        };
        self.bury(&record, reason, error).await?;
        self.source.records.pop_front();
        self.ack(record.seq).await
    }

    /// Tells the journal that everything up to `seq` is done. Those that waited are given up by entries.
    pub(super) async fn ack(&mut self, seq: u64) -> Result<(), Stop> {
        if self.course == Course::Waiting {
            return Ok(());
        }
        self.confirmed().await?;
        let mark = Mark {
            run_id: self.server.run_id.clone(),
            replid: self.server.replid.clone(),
            offset: self.server.offset,
        };
        let wall_ms = wall_ms();
        let owner = &self.replay.owner;
        self.confirming = Some(send(|reply| owner.replayed(seq, mark.clone(), wall_ms, reply)).await?);
        self.acked_seq = seq;
        Ok(())
    }

    /// Takes the journal's answer to the last confirmation.
    pub(super) async fn confirmed(&mut self) -> Result<(), Stop> {
        if let Some(receiver) = self.confirming.take() {
            receiver
                .await
                .map_err(|_| JournalError::Ended)?
                .map_err(|error| JournalError::Other(error.to_string()))?;
        }
        Ok(())
    }
}
