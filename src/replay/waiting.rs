//! An identity whose credentials are not known (any more) must not keep the records of others waiting: its own are set aside, durably, the
//! checkpoint passes them, and they are replayed before anything else of that identity once it is known again. Order across identities is
//! given up for it alone.
//!
//! What is set aside is behind the marker, so it has a marker of its own: `tideover:<queue-id>:replayed:<identity in hex>`, in each database
//! that it is replayed to. Records of one identity are applied in order, whichever way they come, so that marker also speaks for those that
//! are met again in the backlog (after a rewind, or a crash between their replay and the checkpoint).
//!
//! Crash points, in order: set aside and not passed: met again, and skipped, for they are known to stand aside · the own marker is set where
//! there is none, then the entry noted as begun, then batches: an entry that is begun and finds no marker has met one that somebody removed
//! (FLUSHALL, eviction, a server that came back empty), and nobody knows how far it was: what can be applied twice is, the rest becomes dead
//! letters · applied and not dropped: the marker knows · dropped: done. They are not retained after that: what a failover takes of them is lost as
//! it would be without us.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::batch::{Group, bulk_payload, command, marker, text_of_error};
use super::dead_letter::{DeadLetterReason, TOO_OLD, UNREADABLE};
use super::enter::Entered;
use super::kept::Pause;
use super::resume::{Marker, marker_value, parse_marker};
use super::review::refused;
use super::run::{Course, Place, Run, Stop};
use super::source::{Source, ask};
use crate::breaker::ErrorClass;
use crate::journal::{Incarnation, Record, WaitingEntry, WaitingName};
use crate::outage::effect::EffectKind;
use crate::outage::payload::{Payload, decode};
use crate::telemetry;
use crate::upstream::clock::wall_ms;

/// Which records stand aside, by identity.
#[derive(Debug, Default)]
pub(super) struct Aside(BTreeMap<Vec<u8>, Vec<(u64, u64)>>);

impl Aside {
    fn new(names: Vec<WaitingName>) -> Self {
        Self(names.into_iter().map(|name| (name.name, name.ranges)).collect())
    }

    pub(super) fn holds(&self, identity: &[u8], seq: u64) -> bool {
        self.0.get(identity).is_some_and(|ranges| {
            let after = ranges.partition_point(|(first_seq, _)| *first_seq <= seq);
            let range = after.checked_sub(1).and_then(|at| ranges.get(at));
            range.is_some_and(|(_, last_seq)| seq <= *last_seq)
        })
    }
}

/// The key of an identity's own marker.
fn own_marker_key(marker_key: &[u8], identity: &[u8]) -> Vec<u8> {
    let mut key = marker_key.to_vec();
    key.push(b':');
    for byte in identity {
        key.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    key
}

impl Run<'_> {
    /// Whether records of this identity stand aside that have yet to be replayed.
    pub(super) fn is_behind(&self, identity: &[u8]) -> bool {
        let ranges = self.aside.0.get(identity);
        ranges.is_some_and(|ranges| ranges.iter().any(|(key, _)| !self.drained.contains(key)))
    }

    pub(super) fn is_known(&self, identity: &[u8]) -> bool {
        if identity.is_empty() {
            self.is_spoken_as_default()
        } else {
            self.credentials(&String::from_utf8_lossy(identity)).is_some()
        }
    }

    /// Looks at what stands aside, and says of whom.
    pub(super) async fn look_aside(&mut self) -> Result<(), Stop> {
        let owner = self.replay.owner.clone();
        let names = ask(|reply| owner.waiting_names(reply)).await?;
        let shared = &self.replay.shared;
        for name in &names {
            let identity = String::from_utf8_lossy(&name.name);
            if !shared.known.waits(&identity) {
                telemetry::identity_waits(&shared.target.name, shared.user_of(&identity), name.records);
            }
        }
        self.replay.set_waiting(&names);
        self.aside = Aside::new(names);
        Ok(())
    }

    /// Takes records off the backlog about which nothing is left to do: dead letters, what stands aside, what is done. The last one's number.
    pub(super) fn pass(&mut self) -> Option<u64> {
        let mut last_seq = None;
        while let Some(record) = self.source.records.front() {
            let is_done = self.dead.contains(&record.seq)
                || decode(&record.payload).is_ok_and(|payload| {
                    self.aside.holds(payload.identity(), record.seq)
                        || record.seq <= self.done_seq(&Group::of(&payload))
                });
            if !is_done {
                break;
            }
            last_seq = Some(record.seq);
            self.source.records.pop_front();
        }
        last_seq
    }

    /// Records of this group up to this one are done.
    pub(super) fn done_seq(&self, group: &Group) -> u64 {
        let of_db = self.places.get(&group.db).map_or(0, |place| place.done_seq);
        of_db.max(self.own_seqs.get(group).copied().unwrap_or_default())
    }

    /// Sets aside what has been read of an identity's records.
    pub(super) async fn set_aside(&mut self, identity: &[u8]) -> Result<(), Stop> {
        let of_identity = |payload: &Payload<'_>| payload.identity() == identity;
        let dbs: BTreeSet<u32> = (self.source.records.iter())
            .filter_map(|record| decode(&record.payload).ok().filter(of_identity))
            .map(|payload| payload.db())
            .collect();
        for db in dbs {
            self.look_up_place(db).await?;
        }
        let mut records: Vec<Record> = Vec::new();
        for record in &self.source.records {
            let Some(payload) = decode(&record.payload).ok().filter(of_identity) else {
                continue;
            };
            if self.aside.holds(identity, record.seq) {
                // An entry must not reach around another one.
                break;
            }
            if !self.dead.contains(&record.seq) && record.seq > self.done_seq(&Group::of(&payload)) {
                records.push(record.clone());
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let owner = self.replay.owner.clone();
        ask(|reply| owner.set_aside(identity.to_vec(), records.clone(), reply))
            .await?
            .map_err(|error| Stop::Halt(format!("records that wait for their user cannot be set aside: {error}")))?;
        self.look_aside().await
    }

    /// How far a database is, as the URL's user sees it: the one whose records are set aside cannot look. Where it may not, only what the
    /// journal knows counts.
    async fn look_up_place(&mut self, db: u32) -> Result<(), Stop> {
        if self.places.contains_key(&db) || self.url.connection().is_none() {
            return Ok(());
        }
        self.current = None;
        let key = self.replay.marker_key.clone();
        match self.look_up(db, &key).await? {
            Some(marker) => {
                let identity = Vec::new();
                self.settle(&Group { identity, db }, marker).await
            }
            None => Ok(()),
        }
    }

    /// Reads a marker on the URL's connection; nothing where that is refused.
    async fn look_up(&mut self, db: u32, key: &[u8]) -> Result<Option<Marker>, Stop> {
        let mut request = Vec::new();
        command(&mut request, &[b"SELECT", db.to_string().as_bytes()]);
        command(&mut request, &[b"GET", key]);
        self.url.db = None;
        let replies = self.url.ask(&request, 2).await?;
        let [selected, got] = replies.as_slice() else {
            return Ok(None);
        };
        match text_of_error(selected).map_or_else(|| marker(b"+OK\r\n", got), Err) {
            Ok(marker) => Ok(Some(marker)),
            Err(error) => match ErrorClass::of(error.as_bytes()) {
                ErrorClass::Permission | ErrorClass::Application => Ok(None),
                _ => Err(refused(&error)),
            },
        }
    }

    /// Whether a record of the backlog went, or will go, the way of those that wait.
    pub(super) async fn went_aside(&mut self, payload: &Payload<'_>, seq: u64) -> Result<bool, Stop> {
        let group = Group::of(payload);
        if group.identity.is_empty() && self.spoken_as.is_none() {
            return Ok(false);
        }
        if !self.own_seqs.contains_key(&group) {
            let key = own_marker_key(&self.replay.marker_key, &group.identity);
            let marker = self.look_up(group.db, &key).await?;
            self.keep_own(&group, marker);
        }
        Ok(self.aside.holds(&group.identity, seq) || self.own_seqs.get(&group).is_some_and(|own_seq| seq <= *own_seq))
    }

    /// `GET` of the group's own marker, where it may have one.
    pub(super) fn ask_own(&self, group: &Group, request: &mut Vec<u8>) -> usize {
        if self.course == Course::Waiting || group.identity.is_empty() && self.spoken_as.is_none() {
            return 0;
        }
        command(
            request,
            &[b"GET", &own_marker_key(&self.replay.marker_key, &group.identity)],
        );
        1
    }

    pub(super) fn note_own(&mut self, group: &Group, reply: &[u8]) {
        self.keep_own(group, bulk_payload(reply).map(parse_marker));
    }

    fn keep_own(&mut self, group: &Group, marker: Option<Marker>) {
        let own_seq = match marker {
            Some(marker @ Marker::At { seq, .. }) => match self.incarnation_of(marker) {
                Incarnation::Past | Incarnation::Current => seq,
                Incarnation::Unknown | Incarnation::Forgotten => 0,
            },
            Some(Marker::Absent | Marker::Garbage) | None => 0,
        };
        self.own_seqs.insert(group.clone(), own_seq);
    }

    /// Replays what waited for those who are known now.
    pub(super) async fn drain_known(&mut self) -> Result<(), Stop> {
        let identities: Vec<Vec<u8>> = self.aside.0.keys().cloned().collect();
        for identity in identities {
            if self.is_behind(&identity) && self.is_known(&identity) {
                self.drain(&identity).await?;
            }
        }
        self.drop_drained().await
    }

    /// Replays what stands aside of one identity, as far as it is let in.
    pub(super) async fn drain(&mut self, identity: &[u8]) -> Result<(), Stop> {
        let shared = &self.replay.shared;
        telemetry::identity_is_back(&shared.target.name, shared.user_of(&String::from_utf8_lossy(identity)));
        let own_key = own_marker_key(&self.replay.marker_key, identity);
        let key = std::mem::replace(&mut self.marker_key, own_key);
        let source = std::mem::replace(&mut self.source, Source::new(self.replay.owner.clone(), u64::MAX));
        let places = std::mem::take(&mut self.places);
        self.course = Course::Waiting;
        // The right to one key is none to another.
        self.forget_rights(identity);
        let drained = self.drain_entries(identity).await;
        self.forget_rights(identity);
        self.course = Course::Backlog;
        self.places = places;
        self.source = source;
        self.marker_key = key;
        self.current = None;
        drained?;
        self.drop_drained().await
    }

    fn forget_rights(&mut self, identity: &[u8]) {
        self.entitled.retain(|group| group.identity != identity);
        self.unentitled.retain(|group| group.identity != identity);
    }

    async fn drain_entries(&mut self, identity: &[u8]) -> Result<(), Stop> {
        let owner = self.replay.owner.clone();
        let mut after_key = 0;
        loop {
            let entry = ask(|reply| owner.waiting_entry(after_key, Some(identity.to_vec()), reply))
                .await?
                .map_err(|error| Stop::Halt(format!("records that waited cannot be read: {error}")))?;
            let Some(entry) = entry else { return Ok(()) };
            after_key = entry.key;
            if self.drained.contains(&entry.key) {
                continue;
            }
            if !self.drain_entry(&entry).await? {
                return Ok(());
            }
            self.drained.insert(entry.key);
            self.drop_drained().await?;
        }
    }

    /// `false` when the user is not let in.
    async fn drain_entry(&mut self, entry: &WaitingEntry) -> Result<bool, Stop> {
        let owner = self.replay.owner.clone();
        let groups: BTreeSet<u32> = (entry.records.iter())
            .filter_map(|record| decode(&record.payload).ok())
            .map(|payload| payload.db())
            .collect();
        // No batch before every marker stands, and it is noted that they do.
        for db in groups {
            let identity = entry.name.clone();
            if self.enter_waiting(&Group { identity, db }, entry).await? == Entered::Waits {
                return Ok(false);
            }
        }
        ask(|reply| owner.begin_waiting(entry.key, reply))
            .await?
            .map_err(|error| Stop::Halt(format!("the replay of records that waited cannot be noted: {error}")))?;
        let all: VecDeque<Record> = entry.records.iter().cloned().collect();
        self.source.records = all.clone();
        while let Some(record) = self.source.records.front().cloned() {
            if self.replay.controls.pause() == Pause::Paused {
                return Err(Stop::Halt("replay is paused".to_owned()));
            }
            let Ok(payload) = decode(&record.payload) else {
                self.bury_front(DeadLetterReason::Unreadable, UNREADABLE).await?;
                continue;
            };
            let group = Group::of(&payload);
            if self.current.as_ref() != Some(&group) {
                match self.enter_waiting(&group, entry).await? {
                    Entered::Ready => {}
                    Entered::Refused { reason, error } => {
                        self.bury_front(reason, &error).await?;
                        continue;
                    }
                    Entered::WithoutMarker => {
                        if self.alone(&group).await? == Entered::Waits {
                            return Ok(false);
                        }
                        continue;
                    }
                    Entered::Waits => return Ok(false),
                }
            }
            self.stream(&group).await?;
            if self.current.is_none() {
                // The marker says again how far it is.
                self.source.records = all.clone();
            }
        }
        Ok(true)
    }

    /// As [`Run::enter`], with the own marker; sets that where there is none.
    async fn enter_waiting(&mut self, group: &Group, entry: &WaitingEntry) -> Result<Entered, Stop> {
        let marker = match self.watched(group).await? {
            Ok(marker) => marker,
            Err(entered) => return Ok(entered),
        };
        let done_seq = match (marker, self.incarnation_of(marker)) {
            (Marker::At { seq, .. }, Incarnation::Past) => seq,
            (Marker::At { seq, .. }, Incarnation::Forgotten) if seq < entry.key => seq,
            (Marker::At { seq, .. }, Incarnation::Current)
                if seq <= self.last_seq().await?.max(self.last_waiting_seq(entry)) =>
            {
                seq
            }
            (Marker::Absent, _) => {
                let done_seq = match self.places.get(&group.db) {
                    Some(place) => place.done_seq,
                    None if entry.is_begun => self.forgotten(group, entry).await?,
                    None => entry.key - 1,
                };
                self.set_marker(group, done_seq).await?;
                return Box::pin(self.enter_waiting(group, entry)).await;
            }
            (Marker::At { .. } | Marker::Garbage, _) => {
                return Err(Stop::Halt(
                    "the marker of records that waited is not of this journal".to_owned(),
                ));
            }
        };
        let place = Place {
            done_seq,
            marker: Some(marker),
        };
        self.places.insert(group.db, place);
        self.current = Some(group.clone());
        Ok(Entered::Ready)
    }

    fn last_waiting_seq(&self, entry: &WaitingEntry) -> u64 {
        entry.records.last().map_or(0, |record| record.seq)
    }

    /// Nobody knows how far an entry was: what must not be applied twice is given up, loudly.
    async fn forgotten(&mut self, group: &Group, entry: &WaitingEntry) -> Result<u64, Stop> {
        for record in &entry.records {
            let is_lost = decode(&record.payload)
                .is_ok_and(|payload| payload.db() == group.db && payload.kind() == EffectKind::Relative);
            if is_lost && !self.dead.contains(&record.seq) {
                self.bury(
                    record,
                    DeadLetterReason::MarkerLost,
                    "it may or may not have been applied: its marker is gone",
                )
                .await?;
            }
        }
        Ok(entry.key - 1)
    }

    async fn set_marker(&mut self, group: &Group, done_seq: u64) -> Result<(), Stop> {
        let mut value = String::new();
        marker_value(self.incarnations.name_of(done_seq), done_seq, &mut value);
        let mut request = Vec::new();
        command(&mut request, &[b"UNWATCH"]);
        command(&mut request, &[b"SET", &self.marker_key, value.as_bytes()]);
        let replies = self.line(group).ask(&request, 2).await?;
        match replies.last().and_then(|reply| text_of_error(reply)) {
            Some(error) => Err(refused(&error)),
            None => Ok(()),
        }
    }

    /// What has been replayed need not be kept, once the checkpoint has passed it.
    pub(super) async fn drop_drained(&mut self) -> Result<(), Stop> {
        if self.drained.is_empty() {
            return Ok(());
        }
        let owner = self.replay.owner.clone();
        let keys: Vec<u64> = self.drained.iter().copied().collect();
        for key in keys {
            let is_gone = ask(|reply| owner.drop_waiting(key, reply))
                .await?
                .map_err(|error| Stop::Halt(format!("records that waited cannot be given up: {error}")))?;
            if is_gone {
                self.drained.remove(&key);
            }
        }
        self.look_aside().await
    }

    /// What has waited for longer than `queue.max_age` waits no more.
    pub(super) async fn age_aside(&mut self) -> Result<(), Stop> {
        while self.replay.age_waiting().await > 0 {}
        Ok(())
    }
}

impl super::Replay {
    /// Makes dead letters of an entry that is too old; says of how many records.
    pub(super) async fn age_waiting(&self) -> u64 {
        let Some(age_max) = self.settings.age_max else {
            return 0;
        };
        let before_ms = wall_ms().saturating_sub(u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX));
        let owner = &self.owner;
        let (reason, error) = (DeadLetterReason::TooOld, TOO_OLD);
        match ask(|reply| owner.age_waiting(before_ms, reason.label(), error, reply)).await {
            Ok(Ok(0)) | Err(_) => 0,
            Ok(Ok(letters)) => {
                telemetry::dead_letters(&self.shared.target.name, reason.label(), letters);
                letters
            }
            Ok(Err(error)) => {
                tracing::warn!(upstream = self.shared.target.name, %error, "records that waited for too long could not be given up");
                0
            }
        }
    }

    /// Who waits, for those who look while CLOSED.
    pub(super) async fn say_who_waits(&self) {
        let owner = &self.owner;
        if let Ok(names) = ask(|reply| owner.waiting_names(reply)).await {
            self.set_waiting(&names);
        }
    }

    fn set_waiting(&self, names: &[WaitingName]) {
        let names: BTreeSet<String> = (names.iter())
            .map(|name| String::from_utf8_lossy(&name.name).into_owned())
            .collect();
        let users = names.iter().map(|name| self.shared.user_of(name).to_owned()).collect();
        self.shared.known.set_waiting(names);
        self.controls.update(|status| status.identities_waiting = users);
    }
}
