//! One batch: records of one identity and one database as one MULTI … EXEC with the marker, and what its replies mean. Pure.

mod guards;

use std::collections::{HashSet, VecDeque};

use super::resume::{Marker, marker_value, parse_marker};
use super::waiting::Aside;
use crate::journal::{Incarnations, MONO_MS_RETRIED, Record};
use crate::outage::effect::EffectKind;
use crate::outage::payload::{Payload, decode};
use crate::resp::reply::{Found, Scanner};
use crate::resp::write;

pub(super) use guards::{Ours, Presence, Unmet};
use guards::{Plan, Room};

/// Most bytes of one batch; a single record may be longer.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;

const QUEUED: &[u8] = b"+QUEUED\r\n";

/// Whose records stand in one batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Group {
    /// User name; empty: the URL's credentials.
    pub identity: Vec<u8>,
    pub db: u32,
}

impl Group {
    pub(super) fn of(payload: &Payload<'_>) -> Self {
        Self {
            identity: payload.identity().to_vec(),
            db: payload.db(),
        }
    }

    fn holds(&self, payload: &Payload<'_>) -> bool {
        self.db == payload.db() && self.identity == payload.identity()
    }
}

/// The time, at which a batch is rendered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub wall_ms: u64,
    pub mono_ms: u64,
    pub upstream_ms: i64,
    /// The ordinal of the journal's incarnation: of its records the monotonic time is comparable.
    pub ordinal: u64,
}

/// What decides about each record.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub group: &'a Group,
    pub marker_key: &'a [u8],
    pub incarnations: &'a Incarnations,
    /// Records up to this one are done.
    pub done_seq: u64,
    /// Records that are dead letters already.
    pub dead: &'a HashSet<u64>,
    /// Records that wait for their user; nothing where those are what is replayed.
    pub aside: Option<&'a Aside>,
    pub age_max_ms: Option<u64>,
    pub now: Now,
    pub commands_max: usize,
    /// Guarded records in one batch: fewer where their keys are touched by others all the time.
    pub guards_max: usize,
}

/// What becomes of a record in its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its commands stand at these places.
    Sent {
        first: usize,
        commands: usize,
    },
    /// Done before, or a dead letter.
    Passed,
    TooOld,
    /// Not of this version, or damaged.
    Unreadable,
    /// What it asks for is not so.
    Unmet(Unmet),
}

#[derive(Debug, Default)]
pub(super) struct Batch {
    /// What goes over the wire; empty when no record is sent.
    pub request: Vec<u8>,
    /// So much of it has no effect before the rest, unless MULTI is refused: what stands before the marker's SET, which would say then that the
    /// batches before this one are done. 0 while the request is not complete.
    pub queued_bytes: usize,
    /// So much of that has been sent, while the batch before it was in flight.
    pub sent_bytes: usize,
    pub records: Vec<(Record, Fate)>,
    pub commands: usize,
    /// The marker's new value, where something is sent.
    pub marker_seq: u64,
    /// Entries of streams in it whose clients were told an ID that is not the one they get.
    provisional_ids: usize,
    /// Where there is one, the request is complete only when it is settled.
    plan: Option<Plan>,
    /// Keys that hold what this backlog put there once the batch is applied.
    pub claims: Vec<Vec<u8>>,
    /// Keys that do so already, by records applied before.
    pub claimed: Vec<Vec<u8>>,
}

impl Batch {
    pub(super) fn last_seq(&self) -> Option<u64> {
        self.records.last().map(|(record, _)| record.seq)
    }

    /// Adds `SET marker v; EXEC`, and the marker for the batch after this one.
    fn close(&mut self, marker_key: &[u8], incarnations: &Incarnations) {
        let (out, seq) = (&mut self.request, self.marker_seq);
        let mut value = String::with_capacity(40);
        marker_value(incarnations.name_of(seq), seq, &mut value);
        self.queued_bytes = out.len();
        command(out, &[b"SET", marker_key, value.as_bytes()]);
        command(out, &[b"EXEC"]);
        watch(out, marker_key);
        command(out, &[b"INFO", b"replication"]);
    }

    /// The entries of streams that were applied with another ID than their clients were told, but for those where one of these commands failed.
    pub(super) fn ids_changed(&self, failed: &[usize]) -> u64 {
        if self.provisional_ids == 0 {
            return 0;
        }
        let applied = self.records.iter().filter_map(|(record, fate)| match *fate {
            Fate::Sent { first, commands } if !failed.iter().any(|place| (first..first + commands).contains(place)) => {
                decode(&record.payload).ok()
            }
            Fate::Sent { .. } | Fate::Passed | Fate::TooOld | Fate::Unreadable | Fate::Unmet(_) => None,
        });
        applied.map(|payload| payload.provisional_ids() as u64).sum()
    }

    /// Records that must not be applied again, though the batch was discarded: MULTI was refused, and what followed it was executed.
    pub(super) fn executed_all_the_same(&self, replies_to_discarded: &[u8]) -> Vec<&Record> {
        let mut replies = Frames(replies_to_discarded);
        if replies.next().is_none_or(|begun| begun == b"+OK\r\n") {
            return Vec::new();
        }
        let executed: Vec<bool> = replies.map(|reply| text_of_error(reply).is_none()).collect();
        let is_executed = |fate: Fate| match fate {
            Fate::Sent { first, commands } => executed.iter().skip(first).take(commands).any(|executed| *executed),
            Fate::Passed | Fate::TooOld | Fate::Unreadable | Fate::Unmet(_) => false,
        };
        let is_relative =
            |record: &Record| decode(&record.payload).is_ok_and(|payload| payload.kind() == EffectKind::Relative);
        let sent = self.records.iter().filter(|(_, fate)| is_executed(*fate));
        sent.map(|(record, _)| record)
            .filter(|record| is_relative(record))
            .collect()
    }

    /// The record that the command at `place` belongs to.
    pub(super) fn record_at(&self, place: usize) -> Option<&Record> {
        self.records.iter().find_map(|(record, fate)| match *fate {
            Fate::Sent { first, commands } => (first..first + commands).contains(&place).then_some(record),
            Fate::Passed | Fate::TooOld | Fate::Unreadable | Fate::Unmet(_) => None,
        })
    }
}

/// How old a record is. Between openings of the journal only the wall clock tells.
pub(super) fn age_ms(record: &Record, now: Now) -> u64 {
    if record.seq >> 32 == now.ordinal && record.mono_ms != MONO_MS_RETRIED {
        now.mono_ms.saturating_sub(record.mono_ms)
    } else {
        now.wall_ms.saturating_sub(record.wall_ms)
    }
}

/// Whether a record has outlived `max_age`. One that a person put back has not: that would be in vain.
pub(super) fn is_too_old(record: &Record, age_ms: u64, age_max_ms: Option<u64>) -> bool {
    record.mono_ms != MONO_MS_RETRIED && age_max_ms.is_some_and(|age_max_ms| age_ms > age_max_ms)
}

/// Takes records off `records` up to a change of group or a limit; a record is never split.
pub(super) fn build(records: &mut VecDeque<Record>, terms: &Terms<'_>) -> Batch {
    let mut batch = Batch {
        request: b"*1\r\n$5\r\nMULTI\r\n".to_vec(),
        ..Batch::default()
    };
    // Records that are not sent count too, so that a batch ends.
    while batch.commands < terms.commands_max && batch.records.len() < 4 * terms.commands_max {
        let Some(record) = records.front() else { break };
        let fate = match decode(&record.payload) {
            Err(_) => Fate::Unreadable,
            Ok(payload)
                if terms
                    .aside
                    .is_some_and(|aside| aside.holds(payload.identity(), record.seq)) =>
            {
                Fate::Passed
            }
            Ok(payload) if !terms.group.holds(&payload) => break,
            Ok(_) if terms.dead.contains(&record.seq) => Fate::Passed,
            Ok(payload) if record.seq <= terms.done_seq => {
                if payload.is_guarded() {
                    let claims = guards::claims(&payload, age_ms(record, terms.now), terms.now);
                    batch.claimed.extend(claims);
                }
                Fate::Passed
            }
            Ok(payload) => {
                let age_ms = age_ms(record, terms.now);
                let commands = payload.commands();
                if is_too_old(record, age_ms, terms.age_max_ms) {
                    Fate::TooOld
                } else if batch.commands > 0
                    && (batch.commands + commands > terms.commands_max
                        || batch.request.len() + record.payload.len() > BATCH_BYTES_MAX)
                    || !add(&mut batch, record.seq, &payload, age_ms, terms)
                {
                    break;
                } else {
                    let first = batch.commands - commands;
                    Fate::Sent { first, commands }
                }
            }
        };
        if let Some(record) = records.pop_front() {
            batch.records.push((record, fate));
        }
    }
    if batch.commands == 0 {
        batch.request.clear();
    } else if batch.plan.is_none() {
        batch.close(terms.marker_key, terms.incarnations);
    }
    batch
}

/// Renders a record into the batch; `false` where it belongs into the next one.
fn add(batch: &mut Batch, seq: u64, payload: &Payload<'_>, age_ms: u64, terms: &Terms<'_>) -> bool {
    if payload.is_guarded() && batch.plan.is_none() {
        if batch.commands > 0 {
            return false;
        }
        batch.plan = Some(Plan::default());
    }
    let steps = match &batch.plan {
        None => None,
        Some(plan) => match plan.room(payload, age_ms, terms.now, terms.guards_max) {
            Room::Here(steps) => Some(steps),
            Room::None => return false,
        },
    };
    let start = batch.request.len();
    payload.render(age_ms, terms.now.upstream_ms, &mut batch.request);
    if let (Some(plan), Some(steps)) = (&mut batch.plan, steps) {
        plan.add(batch.records.len(), start..batch.request.len(), steps);
    }
    batch.commands += payload.commands();
    batch.provisional_ids += payload.provisional_ids();
    batch.marker_seq = seq;
    true
}

/// `WATCH marker; GET marker`
pub(super) fn watch(out: &mut Vec<u8>, marker_key: &[u8]) {
    command(out, &[b"WATCH", marker_key]);
    command(out, &[b"GET", marker_key]);
}

pub(super) fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    write::array(out, args.len());
    for arg in args {
        write::bulk(out, arg);
    }
}

/// Replies that a batch of so many commands draws: MULTI, each command, SET, EXEC, WATCH, GET, INFO.
pub(super) fn replies(commands: usize) -> usize {
    commands + 6
}

/// As [`replies`], to one that is discarded: MULTI, each command, DISCARD.
pub(super) fn replies_to_discarded(commands: usize) -> usize {
    commands + 2
}

/// What EXEC did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Exec {
    /// Everything was executed; these places drew errors, and had no effect.
    Applied { errors: Vec<(usize, String)> },
    /// Somebody moved the marker; nothing was executed.
    Moved,
    /// Nothing was executed.
    Refused(String),
}

/// The replies to a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Errors instead of `+QUEUED`, by place; the place after the last is the marker's.
    pub refused: Vec<(usize, String)>,
    pub exec: Exec,
    /// The marker now; an error's text where WATCH or GET is refused.
    pub marker: Result<Marker, String>,
    /// `INFO replication`; empty where that is refused.
    pub info: String,
}

impl Answer {
    /// The batch was applied, and the marker is where it put it: the next one may follow.
    pub(super) fn is_applied(&self, marker: Marker) -> bool {
        matches!(self.exec, Exec::Applied { .. }) && self.marker == Ok(marker)
    }
}

/// Reads the replies to a batch of so many commands. Nothing for replies that do not fit the requests: the two sides are out of step.
pub(super) fn parse(input: &[u8], commands: usize) -> Option<Answer> {
    let mut frames = Frames(input);
    if frames.next()? != b"+OK\r\n" {
        return None;
    }
    let mut refused = Vec::new();
    for place in 0..=commands {
        let frame = frames.next()?;
        if frame != QUEUED {
            refused.push((place, text_of_error(frame)?));
        }
    }
    let exec = exec(frames.next()?, commands + 1)?;
    let watched = frames.next()?;
    let marker = marker(watched, frames.next()?);
    let info = frames.next().map(bulk_text).unwrap_or_default();
    Some(Answer {
        refused,
        exec,
        marker,
        info,
    })
}

/// The marker from the replies to WATCH and GET.
pub(super) fn marker(watched: &[u8], got: &[u8]) -> Result<Marker, String> {
    if let Some(error) = text_of_error(watched).or_else(|| text_of_error(got)) {
        return Err(error);
    }
    Ok(match bulk_payload(got) {
        Some(value) => parse_marker(value),
        None if is_null(got) => Marker::Absent,
        None => Marker::Garbage,
    })
}

fn exec(frame: &[u8], elements: usize) -> Option<Exec> {
    if is_null(frame) {
        return Some(Exec::Moved);
    }
    if let Some(error) = text_of_error(frame) {
        return Some(Exec::Refused(error));
    }
    let header_end = frame.iter().position(|byte| *byte == b'\n')? + 1;
    let (header, rest) = frame.split_at(header_end);
    let count: usize = std::str::from_utf8(header.strip_prefix(b"*")?)
        .ok()?
        .trim_end()
        .parse()
        .ok()?;
    if count != elements {
        return None;
    }
    let mut frames = Frames(rest);
    let mut errors = Vec::new();
    for place in 0..count {
        let element = frames.next()?;
        if let Some(error) = text_of_error(element) {
            errors.push((place, error));
        }
    }
    Some(Exec::Applied { errors })
}

/// Walks over whole frames.
pub(super) struct Frames<'a>(pub &'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let bytes = if self.0.starts_with(QUEUED) {
            QUEUED.len()
        } else {
            match Scanner::default().scan(self.0) {
                Ok(Found::End { bytes, .. }) => bytes,
                Ok(Found::Part { .. }) | Err(_) => return None,
            }
        };
        let (frame, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(frame)
    }
}

fn is_null(frame: &[u8]) -> bool {
    matches!(frame, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
}

/// The text of `-…` (and of RESP3's `!…`).
pub(super) fn text_of_error(frame: &[u8]) -> Option<String> {
    let text = match frame.first()? {
        b'-' => frame.get(1..)?.trim_ascii_end(),
        b'!' => bulk_payload(frame)?,
        _ => return None,
    };
    Some(String::from_utf8_lossy(text).into_owned())
}

/// The payload of a bulk string of any kind.
pub(super) fn bulk_payload(frame: &[u8]) -> Option<&[u8]> {
    if !matches!(frame.first()?, b'$' | b'=' | b'!') || is_null(frame) {
        return None;
    }
    let start = frame.iter().position(|byte| *byte == b'\n')? + 1;
    frame.get(start..frame.len().checked_sub(2)?)
}

/// The text of a bulk string; empty for anything else.
pub(super) fn bulk_text(frame: &[u8]) -> String {
    String::from_utf8_lossy(bulk_payload(frame).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod guard_tests;
#[cfg(test)]
mod tests;
