//! One catching up, from the fence to the request to close.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::Replay;
use super::batch::{self, Answer, Batch, Exec, Fate, Group, Now, Terms, build, command, marker, text_of_error, watch};
use super::controls::Pause;
use super::fence::fence;
use super::line::{Line, trouble_of, trouble_of_dial};
use super::pace::Pace;
use super::resume::{Continuity, Decision, Local, Marker, Server, There, decide};
use super::review::{refused, server};
use super::source::{JournalError, Source, ask, send};
use crate::breaker::{ErrorClass, Failure, ReplayEffect, Trouble};
use crate::journal::handover::Close;
use crate::journal::{DeadLetter, Mark, Moved, Record, ReplayedError};
use crate::outage::payload::decode;
use crate::resp::Protocol;
use crate::telemetry;
use crate::upstream::dial::{Conversation, DialError, Facts, Handshake, dial, mono_ms, wall_ms};
use crate::upstream::settings::Credentials;
use crate::upstream::shared::Mode;

/// How often a halted replay tries again.
const HALT: Duration = Duration::from_secs(1);
/// How long replicas may take to confirm.
const WAIT_MS: u64 = 1000;
/// While the journal's owner cannot decide about closing yet.
const UNSETTLED: Duration = Duration::from_millis(1);

/// Why batches stop.
#[derive(Debug)]
pub(super) enum Stop {
    /// The breaker must reopen.
    Upstream(Trouble),
    /// The upstream answers, but replay cannot go on: says why.
    Halt(String),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Upstream(trouble)
    }
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        Self::Halt(error.to_string())
    }
}

/// How far one database is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Records up to this one are done.
    done_seq: u64,
    /// What the marker was last seen or set to, in this catching up.
    marker: Option<Marker>,
}

impl Place {
    pub(super) fn done(done_seq: u64) -> Self {
        Self { done_seq, marker: None }
    }
}

#[derive(Debug)]
pub(super) struct Run<'a> {
    pub replay: &'a mut Replay,
    pub url: Line,
    /// The connection of the last user other than the URL's.
    named: Option<(Vec<u8>, Line)>,
    pub run_id: Option<String>,
    clock_offset_ms: i64,
    pub server: Server,
    source: Source,
    pub places: HashMap<u32, Place>,
    dead: HashSet<u64>,
    /// Whose rights to MULTI and the marker are known.
    entitled: HashSet<Group>,
    /// Whose database is selected and marker watched.
    current: Option<Group>,
    pub incarnation: u64,
    pace: Pace,
    started: Instant,
    /// The answer to the last confirmation, taken before the next.
    confirming: Option<oneshot::Receiver<Result<Moved, ReplayedError>>>,
    /// Last record that the journal was told of.
    pub acked_seq: u64,
    /// The checkpoint when this catching up began.
    pub reviewed_seq: u64,
    halted: Option<String>,
    /// A connection that wrote is gone: WAIT on the others says nothing of it.
    unconfirmable: bool,
    has_waited: bool,
}

pub(super) async fn run(replay: &mut Replay, conversation: Conversation, facts: &Facts) -> Result<(), Trouble> {
    let mut line = Line::new(conversation, replay.shared.target.timeouts.command);
    replay.shared.set_mode(Mode::CatchingUp);
    let source = Source::new(replay.owner.clone(), 0);
    // Answered when every worker has confirmed the generation: from then on no older connection is written to.
    let owner = replay.owner.clone();
    let generation = match ask(|reply| owner.trip(reply)).await {
        Ok(generation) => generation,
        Err(error) => {
            tracing::error!(upstream = replay.shared.target.name, %error, "no replay");
            return Err(Trouble::Soft(Failure::Protocol));
        }
    };
    fence(&replay.shared, &replay.controls, generation, &mut line, facts).await?;
    let mut run = Run {
        url: line,
        named: None,
        run_id: facts.run_id.clone(),
        clock_offset_ms: facts.clock_offset_ms,
        server: Server::default(),
        source,
        places: HashMap::new(),
        dead: HashSet::new(),
        entitled: HashSet::new(),
        current: None,
        incarnation: 0,
        pace: Pace::new(),
        started: Instant::now(),
        confirming: None,
        acked_seq: 0,
        reviewed_seq: 0,
        halted: None,
        unconfirmable: false,
        has_waited: false,
        replay,
    };
    run.live().await
}

impl Run<'_> {
    async fn live(&mut self) -> Result<(), Trouble> {
        while let Err(stop) = self.begin().await {
            self.stopped(stop).await?;
        }
        self.restart();
        loop {
            match self.turn().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(stop) => self.stopped(stop).await?,
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Stop> {
        let owner = self.replay.owner.clone();
        self.incarnation = current_incarnation(&owner).await?;
        let status = ask(|reply| owner.status(reply)).await?;
        if status.journal.records > 0 {
            let delay_ms = u64::try_from(self.replay.settings.start_delay_max.as_millis()).unwrap_or(u64::MAX);
            sleep(Duration::from_millis(fastrand::u64(0..=delay_ms))).await;
        }
        self.review().await?;
        let mut after_seq = self.acked_seq;
        loop {
            let letters = ask(|reply| owner.dead_letters(after_seq, 1024, reply))
                .await?
                .map_err(|error| Stop::Halt(format!("the dead letters cannot be read: {error}")))?;
            let Some(last) = letters.last() else { return Ok(()) };
            after_seq = last.seq;
            self.dead.extend(letters.iter().map(|letter| letter.seq));
        }
    }

    async fn stopped(&mut self, stop: Stop) -> Result<(), Trouble> {
        match stop {
            Stop::Upstream(trouble) => Err(trouble),
            Stop::Halt(why) => {
                self.restart();
                self.halt(why).await
            }
        }
    }

    /// Reads the backlog again from the last confirmation on, and the marker before the next batch.
    fn restart(&mut self) {
        self.source = Source::new(self.replay.owner.clone(), self.acked_seq);
        self.current = None;
    }

    /// Lets reads go on and looks again a little later.
    async fn halt(&mut self, why: String) -> Result<(), Trouble> {
        if self.halted.as_ref() != Some(&why) {
            tracing::warn!(upstream = self.replay.shared.target.name, why, "replay is halted");
            self.replay
                .controls
                .update(|status| status.last_error = Some(why.clone()));
            self.replay.shared.set_mode(Mode::Halted);
            self.halted = Some(why);
        }
        // Woken early by whoever changed something.
        drop(timeout(HALT, self.replay.controls.changed()).await);
        self.url.ping().await
    }

    fn going(&mut self) {
        if self.halted.take().is_some() {
            self.replay.controls.update(|status| {
                status.last_error = None;
                status.identities_waiting.clear();
            });
            self.replay.shared.set_mode(Mode::CatchingUp);
        }
    }

    /// One stretch of records of one group, or the end; `true` when the generation is even.
    async fn turn(&mut self) -> Result<bool, Stop> {
        if self.replay.controls.pause() == Pause::Paused {
            return Err(Stop::Halt("replay is paused".to_owned()));
        }
        if self.source.fill().await?.is_none() {
            return self.finish().await;
        }
        let Some(record) = self.source.records.front() else {
            return Ok(false);
        };
        let Ok(payload) = decode(&record.payload) else {
            let record = record.clone();
            self.bury(&record, "unreadable", "the record cannot be read by this version")
                .await?;
            self.source.records.pop_front();
            self.ack(record.seq).await?;
            return Ok(false);
        };
        let group = Group::of(&payload);
        if self.current.as_ref() != Some(&group) {
            let record = record.clone();
            if let Some(error) = self.enter(&group).await? {
                self.bury(&record, "bad_database", &error).await?;
                self.source.records.pop_front();
                self.ack(record.seq).await?;
                return Ok(false);
            }
        }
        self.stream(&group).await?;
        Ok(false)
    }

    fn line(&mut self, group: &Group) -> &mut Line {
        match &mut self.named {
            Some((identity, line)) if *identity == group.identity => line,
            Some(_) | None => &mut self.url,
        }
    }

    /// Selects the database and watches the marker, as the group's user. Returns why the database cannot be selected.
    async fn enter(&mut self, group: &Group) -> Result<Option<String>, Stop> {
        self.current = None;
        self.connect(&group.identity).await?;
        let line = self.line(group);
        if line.db != Some(group.db) {
            let mut request = Vec::new();
            command(&mut request, &[b"SELECT", group.db.to_string().as_bytes()]);
            let reply = line.ask(&request, 1).await?.pop().unwrap_or_default();
            if let Some(error) = text_of_error(&reply) {
                return match ErrorClass::of(error.as_bytes()).replay_effect() {
                    ReplayEffect::DeadLetter if !error.starts_with("NOPERM") => Ok(Some(error)),
                    ReplayEffect::DeadLetter
                    | ReplayEffect::Retry
                    | ReplayEffect::Stall
                    | ReplayEffect::Halt
                    | ReplayEffect::Done => Err(refused(&error)),
                };
            }
            line.db = Some(group.db);
        }
        let marker = self.watch(group).await?;
        self.settle(group.db, marker).await?;
        self.current = Some(group.clone());
        Ok(None)
    }

    /// WATCH and GET; the first time after making sure that MULTI and the marker are this user's to use.
    async fn watch(&mut self, group: &Group) -> Result<Marker, Stop> {
        let marker_key = self.replay.marker_key.clone();
        let mut request = Vec::new();
        if !self.entitled.contains(group) {
            command(&mut request, &[b"MULTI"]);
            // Alone: what follows a refused MULTI is executed.
            let reply = self.line(group).ask(&request, 1).await?.pop().unwrap_or_default();
            if let Some(error) = text_of_error(&reply) {
                return Err(self.not_entitled(group, &error));
            }
            request.clear();
            command(&mut request, &[b"SET", &marker_key, b""]);
            command(&mut request, &[b"DISCARD"]);
            let replies = self.line(group).ask(&request, 2).await?;
            if let Some(error) = replies.first().and_then(|reply| text_of_error(reply)) {
                return Err(self.not_entitled(group, &error));
            }
            request.clear();
        }
        watch(&mut request, &marker_key);
        let replies = self.line(group).ask(&request, 2).await?;
        let [watched, got] = replies.as_slice() else {
            return Err(Stop::Upstream(Trouble::Soft(Failure::Protocol)));
        };
        let marker = marker(watched, got).map_err(|error| self.not_entitled(group, &error))?;
        self.entitled.insert(group.clone());
        Ok(marker)
    }

    fn not_entitled(&self, group: &Group, error: &str) -> Stop {
        match ErrorClass::of(error.as_bytes()) {
            ErrorClass::Permission => {
                let user = String::from_utf8_lossy(&group.identity);
                if self.halted.is_none() {
                    telemetry::replay_rights_missing(&self.replay.shared.target.name, &user);
                }
                Stop::Halt(format!("user {user:?} has no right to MULTI or the marker: {error}"))
            }
            ErrorClass::NotExecuted(_)
            | ErrorClass::Transient(_)
            | ErrorClass::Identity
            | ErrorClass::ProtectedMode
            | ErrorClass::Redirected
            | ErrorClass::AlreadyThere
            | ErrorClass::XaddIdTooSmall
            | ErrorClass::Discarded
            | ErrorClass::Protocol
            | ErrorClass::Application => refused(error),
        }
    }

    /// Brings what is known of a database in line with its marker.
    async fn settle(&mut self, db: u32, marker: Marker) -> Result<(), Stop> {
        let known = self.places.get(&db).copied();
        if known.is_some_and(|place| place.marker == Some(marker)) {
            return Ok(());
        }
        let local = Local {
            acked_seq: known.map_or(self.reviewed_seq, |place| place.done_seq),
            // What was lost has been found by the review.
            acked_here_seq: None,
            last_seq: self.last_seq().await?,
            live_since_seq: 0,
            acked_age_ms: 0,
        };
        let there = There {
            marker,
            incarnation: self.incarnation_of(marker),
            continuity: Continuity::Same,
            keys: 1,
        };
        match decide(local, there) {
            Decision::Done { upto_seq } => {
                let place = Place {
                    done_seq: upto_seq,
                    marker: Some(marker),
                };
                self.places.insert(db, place);
                Ok(())
            }
            // With nothing known to be lost there is no rewind.
            Decision::Rewind { .. } => Ok(()),
            Decision::Foreign(foreign) => Err(Stop::Halt(foreign.text().to_owned())),
        }
    }

    /// Makes sure that there is a connection of this user.
    async fn connect(&mut self, identity: &[u8]) -> Result<(), Stop> {
        if identity.is_empty() || self.named.as_ref().is_some_and(|(named, _)| named == identity) {
            return Ok(());
        }
        let user = String::from_utf8_lossy(identity).into_owned();
        let Some(credentials) = self.credentials(&user) else {
            return Err(self.identity_waits(user).await);
        };
        if let Some((_, line)) = self.named.take() {
            self.unconfirmable |= line.has_written;
        }
        let shared = self.replay.shared.clone();
        let handshake = Handshake {
            credentials: Some(&credentials),
            protocol: Protocol::Resp2,
            db: shared.target.db,
        };
        match dial(&shared.target.address, &handshake, shared.target.timeouts.connect).await {
            // Behind one address there may be several servers.
            Ok(dialled)
                if dialled.facts.run_id != self.run_id && dialled.facts.run_id.is_some() && self.run_id.is_some() =>
            {
                Err(Stop::Upstream(Trouble::Soft(Failure::Reset)))
            }
            Ok(dialled) => {
                let line = Line::new(dialled.into(), shared.target.timeouts.command);
                self.named = Some((identity.to_vec(), line));
                Ok(())
            }
            Err(DialError::Refused(error)) if ErrorClass::of(error.as_bytes()) == ErrorClass::Identity => {
                shared.known.refused(&credentials);
                Err(self.identity_waits(user).await)
            }
            Err(error) => Err(Stop::Upstream(trouble_of_dial(&error))),
        }
    }

    fn credentials(&self, user: &str) -> Option<Credentials> {
        let target = &self.replay.shared.target;
        let of_url = target
            .credentials
            .as_ref()
            .filter(|credentials| credentials.user.as_deref().unwrap_or("default") == user);
        self.replay.shared.known.live(user).or_else(|| of_url.cloned())
    }

    async fn identity_waits(&self, user: String) -> Stop {
        let owner = &self.replay.owner;
        let records = match ask(|reply| owner.status(reply)).await {
            Ok(status) => status.journal.records,
            Err(error) => return error.into(),
        };
        let why = format!("journaled writes of user {user:?} wait for its credentials");
        if self.halted.as_ref() != Some(&why) {
            telemetry::identity_waits(&self.replay.shared.target.name, &user, records);
        }
        self.replay.controls.update(|status| {
            status.identities_waiting.insert(user);
        });
        Stop::Halt(why)
    }

    fn rate_max(&self) -> Option<NonZeroU32> {
        self.replay.controls.rate_max().or(self.replay.settings.rate_max)
    }

    /// Takes the next batch off what has been read; never waits.
    fn prepare(&mut self, group: &Group) -> Batch {
        // An error comes again where it can be dealt with.
        drop(self.source.top_up());
        let wall_ms = wall_ms();
        let terms = Terms {
            group,
            marker_key: &self.replay.marker_key,
            done_seq: self.places.get(&group.db).map_or(0, |place| place.done_seq),
            dead: &self.dead,
            age_max_ms: self
                .replay
                .settings
                .age_max
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            now: Now {
                wall_ms: u64::try_from(wall_ms).unwrap_or_default(),
                mono_ms: mono_ms(),
                upstream_ms: wall_ms.saturating_add(self.clock_offset_ms),
                incarnation: self.incarnation,
            },
            commands_max: self.pace.commands_max(self.rate_max()),
        };
        build(&mut self.source.records, &terms)
    }

    /// Batch after batch of one group, as far as it has been read.
    async fn stream(&mut self, group: &Group) -> Result<(), Stop> {
        let mut batch = self.prepare(group);
        while let Some(last_seq) = batch.last_seq() {
            self.bury_unsent(&batch).await?;
            if batch.request.is_empty() {
                self.ack(last_seq).await?;
                batch = self.prepare(group);
                continue;
            }
            let wait = self
                .pace
                .wait(batch.records.len(), self.rate_max(), self.started.elapsed());
            if !wait.is_zero() {
                sleep(wait).await;
            }
            let sent = Instant::now();
            self.line(group).send(&batch.request).await?;
            self.line(group).has_written = true;
            // The server works meanwhile.
            let next = self.prepare(group);
            let replies = self.line(group).replies(batch::replies(batch.commands)).await?;
            self.pace.took(batch.commands, sent.elapsed());
            let answer = batch::parse(&replies, batch.commands).ok_or(Trouble::Soft(Failure::Protocol))?;
            self.judge(group, &batch, answer).await?;
            if self.current.is_none() || self.replay.controls.pause() == Pause::Paused {
                self.restart();
                return Ok(());
            }
            batch = next;
        }
        Ok(())
    }

    /// What the replies to a batch mean. Afterwards `current` is unset where the next batch must not simply follow.
    async fn judge(&mut self, group: &Group, batch: &Batch, answer: Answer) -> Result<(), Stop> {
        let errors = match answer.exec {
            Exec::Applied { errors } => errors,
            Exec::Moved => {
                self.current = None;
                return Ok(());
            }
            Exec::Refused(error) => {
                self.current = None;
                return self.refused_at_queueing(group, batch, &answer.refused, &error).await;
            }
        };
        for (place, error) in &errors {
            let class = ErrorClass::of(error.as_bytes());
            if let (Some(record), true) = (batch.record_at(*place), class.replay_effect() != ReplayEffect::Done) {
                let record = record.clone();
                self.bury(&record, reason(class, error), error).await?;
            }
        }
        if answer.marker != Ok(Marker::At(batch.marker_seq)) {
            self.current = None;
        }
        let place = Place {
            done_seq: batch.marker_seq,
            marker: Some(Marker::At(batch.marker_seq)),
        };
        self.places.insert(group.db, place);
        self.server = server(self.run_id.as_deref(), &answer.info);
        let sent = batch
            .records
            .iter()
            .filter(|(_, fate)| matches!(fate, Fate::Sent { .. }));
        let applied = (sent.count() as u64).saturating_sub(errors.len() as u64);
        telemetry::replayed(&self.replay.shared.target.name, applied);
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
        let mut stall = None;
        for (place, error) in refusals {
            let class = ErrorClass::of(error.as_bytes());
            let Some(record) = batch.record_at(*place) else {
                // The marker's own SET.
                self.entitled.remove(group);
                stall = Some(self.not_entitled(group, error));
                continue;
            };
            match class.replay_effect() {
                ReplayEffect::Retry => return Err(Stop::Upstream(trouble_of(class))),
                ReplayEffect::Stall | ReplayEffect::Halt => stall = Some(Stop::Halt(error.clone())),
                ReplayEffect::DeadLetter | ReplayEffect::Done => {
                    let record = record.clone();
                    self.bury(&record, reason(class, error), error).await?;
                }
            }
        }
        stall.map_or(Ok(()), Err)
    }

    async fn bury_unsent(&mut self, batch: &Batch) -> Result<(), Stop> {
        for (record, fate) in &batch.records {
            match fate {
                Fate::Sent { .. } | Fate::Passed => {}
                Fate::TooOld => self.bury(record, "too_old", "older than queue.max_age").await?,
                Fate::Unreadable => {
                    self.bury(record, "unreadable", "the record cannot be read by this version")
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Keeps a record as a dead letter, durably.
    pub(super) async fn bury(&mut self, record: &Record, reason: &'static str, error: &str) -> Result<(), Stop> {
        let letter = DeadLetter {
            seq: record.seq,
            reason: reason.to_owned(),
            error: error.to_owned(),
            payload: record.payload.clone(),
        };
        let owner = &self.replay.owner;
        let is_new = ask(|reply| owner.dead_letter(letter.clone(), reply))
            .await?
            .map_err(|error| Stop::Halt(format!("a dead letter cannot be kept: {error}")))?;
        if is_new {
            telemetry::dead_letters(&self.replay.shared.target.name, reason, 1);
        }
        self.dead.insert(record.seq);
        Ok(())
    }

    /// Tells the journal that everything up to `seq` is done.
    async fn ack(&mut self, seq: u64) -> Result<(), Stop> {
        self.confirmed().await?;
        let mark = Mark {
            run_id: self.server.run_id.clone(),
            replid: self.server.replid.clone(),
            offset: self.server.offset,
        };
        let wall_ms = u64::try_from(wall_ms()).unwrap_or_default();
        let owner = &self.replay.owner;
        self.confirming = Some(send(|reply| owner.replayed(seq, mark.clone(), wall_ms, reply)).await?);
        self.acked_seq = seq;
        Ok(())
    }

    /// Takes the journal's answer to the last confirmation.
    async fn confirmed(&mut self) -> Result<(), Stop> {
        if let Some(receiver) = self.confirming.take() {
            receiver
                .await
                .map_err(|_| JournalError::Ended)?
                .map_err(|error| JournalError::Other(error.to_string()))?;
        }
        Ok(())
    }

    /// The backlog is read to its end: let replicas confirm, and ask to close.
    async fn finish(&mut self) -> Result<bool, Stop> {
        self.confirmed().await?;
        if !self.has_waited {
            self.has_waited = true;
            self.wait_for_replicas().await?;
        }
        let owner = self.replay.owner.clone();
        let mut asked: u32 = 0;
        loop {
            match ask(|reply| owner.close(reply)).await? {
                Close::Closed { .. } => {
                    let checkpoint = ask(|reply| owner.checkpoint(reply)).await?.unwrap_or_default();
                    self.replay.live_since_seq = Some(checkpoint.seq);
                    return Ok(true);
                }
                Close::NotEmpty { .. } => return Ok(false),
                Close::Unsettled => sleep(UNSETTLED).await,
            }
            asked += 1;
            if asked.is_multiple_of(500) {
                self.url.ping().await?;
            }
        }
    }

    /// WAIT on the connections that wrote: what all replicas have need not be kept.
    async fn wait_for_replicas(&mut self) -> Result<(), Stop> {
        let has_written = self.url.has_written || self.named.as_ref().is_some_and(|(_, line)| line.has_written);
        if !has_written || self.unconfirmable {
            return Ok(());
        }
        let replicas = self.read_server().await?.replicas;
        if replicas == 0 {
            return Ok(());
        }
        let mut request = Vec::new();
        let (count, limit_ms) = (replicas.to_string(), WAIT_MS.to_string());
        command(&mut request, &[b"WAIT", count.as_bytes(), limit_ms.as_bytes()]);
        let silence = self.replay.shared.target.timeouts.command + Duration::from_millis(WAIT_MS);
        let named = self.named.as_mut().map(|(_, line)| line);
        for line in std::iter::once(&mut self.url).chain(named) {
            if !line.has_written {
                continue;
            }
            let reply = line.ask_within(&request, 1, silence).await?.pop().unwrap_or_default();
            let confirmed: Option<u64> = std::str::from_utf8(&reply)
                .ok()
                .and_then(|text| text.strip_prefix(':')?.trim_end().parse().ok());
            if confirmed.is_none_or(|confirmed| confirmed < replicas) {
                return Ok(());
            }
        }
        let (owner, upto_seq) = (&self.replay.owner, self.acked_seq);
        if let Err(error) = ask(|reply| owner.release(upto_seq, reply)).await? {
            tracing::warn!(upstream = self.replay.shared.target.name, %error, "replayed records could not be removed");
        }
        Ok(())
    }
}

/// A dead letter's reason, one of a fixed list.
fn reason(class: ErrorClass, error: &str) -> &'static str {
    match class {
        ErrorClass::Permission => "no_permission",
        ErrorClass::XaddIdTooSmall => "id_too_small",
        ErrorClass::Application if error.starts_with("WRONGTYPE") => "wrong_type",
        ErrorClass::NotExecuted(_)
        | ErrorClass::Transient(_)
        | ErrorClass::Identity
        | ErrorClass::ProtectedMode
        | ErrorClass::Redirected
        | ErrorClass::AlreadyThere
        | ErrorClass::Discarded
        | ErrorClass::Protocol
        | ErrorClass::Application => "refused",
    }
}

/// The highest incarnation that the journal knows.
async fn current_incarnation(owner: &crate::journal::owner::OwnerHandle) -> Result<u64, Stop> {
    let (mut known, mut unknown) = (0_u64, 1_u64 << 32);
    while unknown - known > 1 {
        let middle = u64::midpoint(known, unknown);
        if ask(|reply| owner.knows_incarnation(middle, reply)).await? {
            known = middle;
        } else {
            unknown = middle;
        }
    }
    Ok(known)
}
