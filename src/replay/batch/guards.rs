//! Records that ask for something at replay (create only, needs its key): what is asked of the upstream before their batch, under WATCH, and
//! what its answers mean for each of them. Those whose guard is not met never go into the batch; if anybody touches a key between the question
//! and EXEC, the batch is not applied, and all is asked again.
//!
//! Within a batch a guard sees what the records before it leave. One whose key was touched there in a way that leaves its existence open
//! (EXPIRE, RENAME, a script) begins the next batch. Within one record, a transaction, that counts as if the key had not been touched.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use super::{Batch, Fate, Now, command};
use crate::command::{Name, for_each_key, lookup};
use crate::journal::Incarnations;
use crate::outage::effect::Guard;
use crate::outage::payload::{Payload, render};
use crate::resp::Request;
use crate::resp::scan::{Limits, Scan, Scanner};

/// Keys that this backlog is known to have written, beyond which none are remembered: their next create-only write is then a dead letter.
const OURS_MAX: usize = 1 << 20;
/// A deadline that is nearer may be over before the command runs.
const SOON_MS: i64 = 10_000;

/// Keys that hold what this backlog put there: it may overwrite them. By hash, in memory only: what an earlier process put there is not known.
#[derive(Debug, Default)]
pub(in crate::replay) struct Ours {
    hashes: HashSet<u64>,
    hasher: RandomState,
}

impl Ours {
    pub(in crate::replay) fn add(&mut self, db: u32, keys: &mut Vec<Vec<u8>>) {
        for key in keys.drain(..) {
            if self.hashes.len() < OURS_MAX {
                self.hashes.insert(self.hasher.hash_one((db, key.as_slice())));
            }
        }
    }

    fn has(&self, db: u32, key: &[u8]) -> bool {
        self.hashes.contains(&self.hasher.hash_one((db, key)))
    }

    pub(in crate::replay) fn clear(&mut self) {
        self.hashes = HashSet::new();
    }
}

/// Why a record is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replay) enum Unmet {
    /// Its key holds something that whoever wrote it was told is not there.
    WouldOverwriteUnseen,
    KeyGone,
    /// Its user may not ask.
    NotPermitted,
}

/// What the upstream says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replay) enum Presence {
    There,
    Absent,
    NotPermitted,
}

/// What a command leaves of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touch {
    Creates,
    Removes,
    Keeps,
    Open,
    /// Also of keys that it does not name.
    OpenAll,
}

#[derive(Debug)]
struct Step {
    guard: Guard,
    keys: Vec<Vec<u8>>,
    touch: Touch,
}

#[derive(Debug)]
struct Planned {
    /// Place among the batch's records.
    at: usize,
    /// Of the batch's request.
    bytes: Range<usize>,
    steps: Vec<Step>,
}

/// A batch with guarded records: the first of them begins it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Keys to ask about, each once, in the order of the question.
    asked: Vec<Vec<u8>>,
    is_asked: HashSet<Vec<u8>>,
    open: HashSet<Vec<u8>>,
    all_open: bool,
    planned: Vec<Planned>,
    guarded: usize,
}

/// Where a record stands in a guarded batch.
pub(super) enum Room {
    /// The batch ends before it.
    None,
    Here(Steps),
}

pub(super) struct Steps(Vec<Step>);

impl Plan {
    /// Whether a record can be judged in this batch, which may hold so many guarded ones.
    pub(super) fn room(&self, payload: &Payload<'_>, age_ms: u64, now: Now, guards_max: usize) -> Room {
        let steps = steps(payload, age_ms, now);
        let is_open = |key: &Vec<u8>| self.all_open || self.open.contains(key);
        if payload.is_guarded() && (self.guarded >= guards_max || guarded_keys(&steps).any(is_open)) {
            Room::None
        } else {
            Room::Here(Steps(steps))
        }
    }

    /// Takes a record in.
    pub(super) fn add(&mut self, at: usize, bytes: Range<usize>, Steps(steps): Steps) {
        self.guarded += usize::from(steps.iter().any(|step| step.guard != Guard::None));
        for key in guarded_keys(&steps) {
            if !self.is_asked.contains(key) {
                self.is_asked.insert(key.clone());
                self.asked.push(key.clone());
            }
        }
        for step in &steps {
            for key in &step.keys {
                match step.touch {
                    Touch::Creates | Touch::Removes => drop(self.open.remove(key)),
                    Touch::Keeps => {}
                    Touch::Open | Touch::OpenAll => drop(self.open.insert(key.clone())),
                }
            }
            self.all_open |= step.touch == Touch::OpenAll;
        }
        self.planned.push(Planned { at, bytes, steps });
    }
}

/// Keys that a guard other than [`Guard::Claims`] is about.
fn guarded_keys(steps: &[Step]) -> impl Iterator<Item = &Vec<u8>> {
    let asks = |step: &&Step| matches!(step.guard, Guard::CreateOnly | Guard::NeedsKey);
    steps.iter().filter(asks).flat_map(|step| &step.keys)
}

/// Keys that a record which was applied has made this backlog's.
pub(super) fn claims(payload: &Payload<'_>, age_ms: u64, now: Now) -> Vec<Vec<u8>> {
    let is_claim = |step: &Step| matches!(step.guard, Guard::Claims | Guard::CreateOnly);
    let steps = steps(payload, age_ms, now).into_iter();
    steps.filter(is_claim).flat_map(|step| step.keys).collect()
}

fn steps(payload: &Payload<'_>, age_ms: u64, now: Now) -> Vec<Step> {
    let mut scanner = Scanner::default();
    let mut bytes = Vec::new();
    let step = |(effect, guard)| {
        bytes.clear();
        scanner.reset();
        render(&effect, age_ms, now.upstream_ms, &mut bytes);
        let mut keys = Vec::new();
        let touch = match scanner.scan(&bytes, &Limits::default()) {
            Ok(Scan::Request { .. }) => {
                let request = Request::new(&bytes, scanner.spans());
                lookup(&request).map_or(Touch::OpenAll, |spec| {
                    for_each_key(spec, &request, |key| keys.push(key.to_vec()));
                    touch(spec.id, &request, guard, now)
                })
            }
            _ => Touch::OpenAll,
        };
        let touch = if keys.is_empty() { Touch::OpenAll } else { touch };
        Step { guard, keys, touch }
    };
    payload.guarded_effects().map(step).collect()
}

fn touch(name: Name, request: &Request<'_>, guard: Guard, now: Now) -> Touch {
    let is_later = |arg: &[u8]| {
        let at_ms: Option<i64> = std::str::from_utf8(arg).ok().and_then(|text| text.parse().ok());
        at_ms.is_some_and(|at_ms| at_ms > now.upstream_ms.saturating_add(SOON_MS))
    };
    match name {
        Name::Set if request.len() == 3 => Touch::Creates,
        Name::Set if request.len() == 5 && request.arg(3).eq_ignore_ascii_case(b"PXAT") && is_later(request.arg(4)) => {
            Touch::Creates
        }
        Name::Mset | Name::Hset | Name::Hmset | Name::Rpush | Name::Lpush | Name::Sadd => Touch::Creates,
        Name::Xadd if !request.args_from(2).any(|arg| arg.eq_ignore_ascii_case(b"NOMKSTREAM")) => Touch::Creates,
        Name::Zadd if request.arg(2).first().is_some_and(|byte| !byte.is_ascii_alphabetic()) => Touch::Creates,
        Name::Del | Name::Unlink => Touch::Removes,
        Name::Pexpireat if is_later(request.arg(2)) => Touch::Keeps,
        Name::Persist => Touch::Keeps,
        Name::Hincrby | Name::Hincrbyfloat | Name::Zincrby | Name::Zadd | Name::Incrby | Name::Incr | Name::Append
            if guard == Guard::NeedsKey =>
        {
            Touch::Keeps
        }
        Name::Eval | Name::Evalsha | Name::Fcall | Name::Sort => Touch::OpenAll,
        _ => Touch::Open,
    }
}

impl Batch {
    /// Whether it holds records that ask for something.
    pub(in crate::replay) fn is_guarded(&self) -> bool {
        self.plan.is_some()
    }

    /// `WATCH key…` and `EXISTS key` for each, with the number of replies; nothing where nothing is to be asked.
    pub(in crate::replay) fn question(&self) -> Option<(Vec<u8>, usize)> {
        let asked = &self.plan.as_ref()?.asked;
        if asked.is_empty() {
            return None;
        }
        let mut request = Vec::new();
        let watch: Vec<&[u8]> = std::iter::once(b"WATCH".as_slice())
            .chain(asked.iter().map(Vec::as_slice))
            .collect();
        command(&mut request, &watch);
        for key in asked {
            command(&mut request, &[b"EXISTS", key]);
        }
        Some((request, asked.len() + 1))
    }

    /// Takes out what must not be sent, by the answers to [`Self::question`] in order, and completes the request.
    pub(in crate::replay) fn settle(
        &mut self,
        answers: &[Presence],
        db: u32,
        ours: &Ours,
        marker_key: &[u8],
        incarnations: &Incarnations,
    ) {
        let Some(plan) = &self.plan else { return };
        let mut known: HashMap<&[u8], Presence> = HashMap::new();
        for (key, presence) in plan.asked.iter().zip(answers) {
            known.insert(key, *presence);
        }
        let all = std::mem::take(&mut self.request);
        let head_bytes = plan.planned.first().map_or(0, |first| first.bytes.start);
        self.request.extend_from_slice(&all[..head_bytes]);
        self.commands = 0;
        let mut claimed: HashSet<&[u8]> = HashSet::new();
        for planned in &plan.planned {
            let Some((record, fate)) = self.records.get_mut(planned.at) else {
                continue;
            };
            match meet(&planned.steps, &known, |key| claimed.contains(key) || ours.has(db, key)) {
                Err(unmet) => *fate = Fate::Unmet(unmet),
                Ok(left) => {
                    known.extend(left);
                    let claims = planned.steps.iter().filter(|step| step.guard != Guard::None);
                    claimed.extend(
                        claims
                            .filter(|step| step.guard != Guard::NeedsKey)
                            .flat_map(|step| step.keys.iter().map(Vec::as_slice)),
                    );
                    let commands = planned.steps.len();
                    *fate = Fate::Sent {
                        first: self.commands,
                        commands,
                    };
                    self.commands += commands;
                    self.marker_seq = record.seq;
                    self.request.extend_from_slice(&all[planned.bytes.clone()]);
                }
            }
        }
        self.claims = claimed.into_iter().map(<[u8]>::to_vec).collect();
        if self.commands == 0 {
            self.request.clear();
        } else {
            self.close(marker_key, incarnations);
        }
    }
}

/// Judges one record; what it leaves of the keys that are asked about, if it is sent.
fn meet<'s>(
    steps: &'s [Step],
    known: &HashMap<&'s [u8], Presence>,
    is_ours: impl Fn(&[u8]) -> bool,
) -> Result<Vec<(&'s [u8], Presence)>, Unmet> {
    let mut left: HashMap<&[u8], Presence> = HashMap::new();
    let mut own: HashSet<&[u8]> = HashSet::new();
    for step in steps {
        for key in step.keys.iter().map(Vec::as_slice) {
            let presence = left.get(key).or_else(|| known.get(key)).copied();
            match (step.guard, presence) {
                (Guard::CreateOnly, _) if own.contains(key) || is_ours(key) => {}
                (Guard::CreateOnly | Guard::NeedsKey, Some(Presence::NotPermitted)) => return Err(Unmet::NotPermitted),
                (Guard::CreateOnly, Some(Presence::There)) => return Err(Unmet::WouldOverwriteUnseen),
                (Guard::NeedsKey, Some(Presence::Absent) | None) => return Err(Unmet::KeyGone),
                (Guard::CreateOnly, Some(Presence::Absent) | None)
                | (Guard::NeedsKey, Some(Presence::There))
                | (Guard::None | Guard::Claims, _) => {}
            }
            match step.touch {
                Touch::Creates => drop(left.insert(key, Presence::There)),
                Touch::Removes => drop(left.insert(key, Presence::Absent)),
                Touch::Keeps | Touch::Open | Touch::OpenAll => {}
            }
            if matches!(step.guard, Guard::Claims | Guard::CreateOnly) {
                own.insert(key);
            }
        }
    }
    Ok(left.into_iter().collect())
}
