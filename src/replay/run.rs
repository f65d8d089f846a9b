//! One catching up, from the fence to the request to close.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::Replay;
use super::apply::GUARDS_MAX;
use super::batch::{Group, command};
use super::dead_letter::{DeadLetterReason, UNREADABLE};
use super::enter::Entered;
use super::fence::fence;
use super::kept::Pause;
use super::line::Line;
use super::pace::Pace;
use super::resume::{Marker, Server};
use super::source::{JournalError, Source, ask};
use super::speak::speak;
use super::waiting::Aside;
use crate::breaker::{Failure, Trouble};
use crate::journal::handover::Close;
use crate::journal::{Incarnations, Moved, ReplayedError};
use crate::outage::payload::decode;
use crate::upstream::connections::Ticket;
use crate::upstream::dial::{Conversation, Facts};
use crate::upstream::shared::Mode;

/// How often a halted replay tries again.
pub(super) const HALT: Duration = Duration::from_secs(1);
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
    pub(super) done_seq: u64,
    /// What the marker was last seen or set to, in this catching up.
    pub(super) marker: Option<Marker>,
}

impl Place {
    pub(super) fn done(done_seq: u64) -> Self {
        Self { done_seq, marker: None }
    }
}

/// Whose records are replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    Backlog,
    /// Of those that waited for their user.
    Waiting,
}

#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) replay: &'a mut Replay,
    pub(super) url: Line,
    /// The connection of the last user other than the URL's.
    pub(super) named: Option<(Vec<u8>, Line)>,
    pub(super) run_id: Option<String>,
    pub(super) clock_offset_ms: i64,
    pub(super) server: Server,
    pub(super) source: Source,
    pub(super) places: HashMap<u32, Place>,
    /// Whether `source`, `places` and `marker_key` are of the backlog.
    pub(super) course: Course,
    pub(super) marker_key: Vec<u8>,
    pub(super) dead: HashSet<u64>,
    /// What stands aside, and which entries of it have been replayed.
    pub(super) aside: Aside,
    pub(super) drained: BTreeSet<u64>,
    /// What the groups' own markers say.
    pub(super) own_seqs: HashMap<Group, u64>,
    /// Whose rights to MULTI and the marker are known.
    pub(super) entitled: HashSet<Group>,
    /// Who has no right to them.
    pub(super) unentitled: HashSet<Group>,
    /// Whose database is selected and marker watched.
    pub(super) current: Option<Group>,
    pub(super) incarnations: Incarnations,
    pub(super) pace: Pace,
    pub(super) guards_max: usize,
    /// Since when no guarded batch was applied, for others touched their keys.
    pub(super) contended_since: Option<Instant>,
    pub(super) started: Instant,
    /// The answer to the last confirmation, taken before the next.
    pub(super) confirming: Option<oneshot::Receiver<Result<Moved, ReplayedError>>>,
    /// Last record that the journal was told of.
    pub(super) acked_seq: u64,
    /// The checkpoint when this catching up began.
    pub(super) reviewed_seq: u64,
    pub(super) halted: Option<String>,
    /// A connection that wrote is gone: WAIT on the others says nothing of it.
    pub(super) unconfirmable: bool,
    pub(super) has_waited: bool,
    /// Whose credentials the URL's connection was given for want of its own.
    pub(super) spoken_as: Option<String>,
    /// This catching up's own connections on the connection file.
    pub(super) tickets: Vec<Ticket>,
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
    let mut facts = facts.clone();
    let spoken_as = speak(replay, &mut line, &mut facts).await?;
    fence(&replay.shared, &replay.controls, generation, &mut line, &facts).await?;
    let mut run = Run {
        url: line,
        named: None,
        run_id: facts.run_id,
        clock_offset_ms: facts.clock_offset_ms,
        server: Server::default(),
        source,
        places: HashMap::new(),
        course: Course::Backlog,
        marker_key: replay.marker_key.clone(),
        dead: HashSet::new(),
        aside: Aside::default(),
        drained: BTreeSet::new(),
        own_seqs: HashMap::new(),
        entitled: HashSet::new(),
        unentitled: HashSet::new(),
        current: None,
        incarnations: Incarnations::default(),
        pace: Pace::new(),
        guards_max: GUARDS_MAX,
        contended_since: None,
        started: Instant::now(),
        confirming: None,
        acked_seq: 0,
        reviewed_seq: 0,
        halted: None,
        unconfirmable: false,
        has_waited: false,
        spoken_as,
        tickets: Vec::new(),
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
                // Everything said on them is answered: nothing of it can be applied later.
                Ok(true) => {
                    for ticket in self.tickets.drain(..) {
                        self.replay.shared.connections.closed(ticket);
                    }
                    return Ok(());
                }
                Ok(false) => {}
                Err(stop) => self.stopped(stop).await?,
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Stop> {
        if self.tickets.is_empty()
            && let Some(connection) = self.url.connection().cloned()
        {
            self.on_file(connection)?;
        }
        let owner = self.replay.owner.clone();
        self.incarnations = ask(|reply| owner.incarnations(reply)).await?;
        let status = ask(|reply| owner.status(reply)).await?;
        if status.journal.records > 0 {
            let delay_ms = u64::try_from(self.replay.settings.start_delay_max.as_millis()).unwrap_or(u64::MAX);
            sleep(Duration::from_millis(fastrand::u64(0..=delay_ms))).await;
        }
        // Who is let in from now on is found by what follows.
        let _ = self.replay.shared.known.take_freed();
        self.age_aside().await?;
        self.look_aside().await?;
        self.review().await?;
        self.load_scripts().await?;
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

    /// An upstream that restarted has no scripts; one that did not has them already. What it refuses, it refused the client.
    async fn load_scripts(&mut self) -> Result<(), Stop> {
        let (loads, count) = self.replay.shared.scripts.loads();
        if count > 0 {
            self.url.ask(&loads, count).await?;
        }
        Ok(())
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

    /// Reads the backlog again from the last confirmation on, and rights and marker before the next batch.
    pub(super) fn restart(&mut self) {
        self.current = None;
        if self.course == Course::Waiting {
            return;
        }
        self.source = Source::new(self.replay.owner.clone(), self.acked_seq);
        self.unentitled.clear();
    }

    /// Lets reads go on and looks again a little later.
    async fn halt(&mut self, why: String) -> Result<(), Trouble> {
        self.show_halted(why);
        // Woken early by whoever changed something.
        drop(timeout(HALT, self.replay.controls.changed()).await);
        let asked_at = std::time::Instant::now();
        self.url.ping().await?;
        self.replay.shared.set_answered(asked_at);
        Ok(())
    }

    pub(super) fn show_halted(&mut self, why: String) {
        if self.halted.as_ref() != Some(&why) {
            tracing::warn!(upstream = self.replay.shared.target.name, why, "replay is halted");
            self.replay
                .controls
                .update(|status| status.last_error = Some(why.clone()));
            self.replay.shared.set_mode(Mode::Halted);
            self.halted = Some(why);
        }
    }

    pub(super) fn going(&mut self) {
        if self.halted.take().is_some() {
            self.replay.controls.update(|status| status.last_error = None);
            self.replay.shared.set_mode(Mode::CatchingUp);
        }
    }

    /// One stretch of records of one group, or the end; `true` when the generation is even.
    async fn turn(&mut self) -> Result<bool, Stop> {
        // With nothing to replay there is nothing to pause: an upstream that is well is not to be kept from its clients.
        if self.source.fill().await?.is_none() {
            return self.finish().await;
        }
        if let Some(seq) = self.pass() {
            self.ack(seq).await?;
            return Ok(false);
        }
        if self.replay.controls.pause() == Pause::Paused {
            return Err(Stop::Halt("replay is paused".to_owned()));
        }
        let Some(record) = self.source.records.front() else {
            return Ok(false);
        };
        let Ok(payload) = decode(&record.payload) else {
            self.bury_front(DeadLetterReason::Unreadable, UNREADABLE).await?;
            return Ok(false);
        };
        let group = Group::of(&payload);
        if self.current.as_ref() != Some(&group) {
            let mut entered = self.enter(&group).await?;
            if entered == Entered::WithoutMarker {
                entered = self.alone(&group).await?;
                if entered == Entered::Ready {
                    return Ok(false);
                }
            }
            match entered {
                Entered::Ready => {}
                Entered::Refused { reason, error } => {
                    self.bury_front(reason, &error).await?;
                    return Ok(false);
                }
                Entered::Waits | Entered::WithoutMarker => {
                    self.set_aside(&group.identity).await?;
                    self.going();
                    return Ok(false);
                }
            }
        }
        self.stream(&group).await?;
        Ok(false)
    }

    /// The backlog is read to its end: let replicas confirm, and ask to close.
    async fn finish(&mut self) -> Result<bool, Stop> {
        self.confirmed().await?;
        self.drain_known().await?;
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
