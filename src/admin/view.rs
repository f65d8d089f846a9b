//! What the room shows: the server fills it once, and the room remembers only the last numbers it saw.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::journal::ErrorCounts;
use crate::journal::owner::{OwnerHandle, OwnerStatus};
use crate::replay::Controls;
use crate::telemetry;
use crate::upstream::shared::{Mode, Shared};

/// A worker whose beat stands still for so long does not answer.
const BEAT_AGE_MAX: Duration = Duration::from_secs(1);

/// Everything the room shows.
#[derive(Debug)]
pub struct View {
    pub upstreams: Vec<UpstreamView>,
    pub ready: Arc<Readiness>,
    pub metrics: telemetry::Metrics,
}

/// One upstream.
#[derive(Debug)]
pub struct UpstreamView {
    pub shared: Arc<Shared>,
    pub owner: OwnerHandle,
    /// As bound: `host:port` or `unix:/path`.
    pub listen: String,
    /// Without secrets.
    pub url: String,
    pub controls: Arc<Controls>,
    /// `replay.rate_max` of the configuration.
    pub rate_max: Option<NonZeroU32>,
    /// Held while a dead letter is put back.
    pub(super) retry_turn: Arc<tokio::sync::Mutex<()>>,
    memory: Mutex<Memory>,
}

/// How far the process's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Listeners or journals are not open yet.
    Starting,
    Serving,
    /// SIGTERM has come.
    Stopping,
}

/// Set by the server, read by `/readyz`.
#[derive(Debug)]
pub struct Readiness(AtomicU8);

impl Default for Readiness {
    fn default() -> Self {
        Self(AtomicU8::new(Phase::Starting as u8))
    }
}

impl Readiness {
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Stopping,
        }
    }
}

/// The last numbers seen.
#[derive(Debug, Default)]
struct Memory {
    status: Option<OwnerStatus>,
    /// The journal's errors that were told.
    told: Option<Told>,
    beats: Vec<Beat>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    errors: ErrorCounts,
    trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Lasting,
    Over,
}

/// What is worth a log line about a journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Failed(String),
    WorksAgain,
}

#[derive(Clone, Copy, Debug)]
struct Beat {
    number: u64,
    since: Instant,
}

impl UpstreamView {
    #[must_use]
    pub fn new(shared: Arc<Shared>, owner: OwnerHandle, controls: Arc<Controls>, listen: String, url: String) -> Self {
        Self {
            shared,
            owner,
            listen,
            url,
            controls,
            rate_max: None,
            retry_turn: Arc::default(),
            memory: Mutex::default(),
        }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.target.name
    }

    /// The journal's numbers; the last ones known when its owner is busy with the disk.
    pub(super) async fn journal_status(&self) -> Option<OwnerStatus> {
        let fresh = super::ask::numbers(&self.owner).await.ok();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.is_some() {
            memory.status = fresh;
        }
        memory.status.clone()
    }

    /// What has changed about the journal's errors since the last question.
    pub(super) fn news_of_journal(&self, numbers: &OwnerStatus) -> Option<News> {
        let trouble = match &numbers.last_error {
            Some(_) => Trouble::Lasting,
            None => Trouble::Over,
        };
        let errors = numbers.errors;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let told = memory.told.replace(Told { errors, trouble });
        let had_trouble = told.is_some_and(|told| told.trouble == Trouble::Lasting);
        let known = told.map_or_else(ErrorCounts::default, |told| told.errors);
        match &numbers.last_error {
            Some(error) if !had_trouble => Some(News::Failed(error.clone())),
            None if had_trouble => Some(News::WorksAgain),
            // It came and went between two looks.
            None if errors != known => {
                let kinds = errors.by_kind().into_iter().zip(known.by_kind());
                let new = kinds.filter(|((_, count), (_, before))| count > before);
                let new: Vec<&str> = new.map(|((kind, _), _)| kind).collect();
                Some(News::Failed(format!("errors of kind {}", new.join(", "))))
            }
            Some(_) | None => None,
        }
    }

    /// Why the journal takes no writes now, as far as known.
    fn journal_error(&self) -> Option<String> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.status.as_ref()?.last_error.clone()
    }

    /// Numbers of the workers whose beat has not changed for a second.
    fn stuck_workers(&self, now: Instant) -> Vec<usize> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let beats = &mut memory.beats;
        let mut stuck = Vec::new();
        for (index, worker) in self.shared.workers.iter().enumerate() {
            let number = worker.stats.beats.load(Ordering::Relaxed);
            match beats.get_mut(index) {
                None => beats.push(Beat { number, since: now }),
                Some(beat) if beat.number != number => *beat = Beat { number, since: now },
                Some(beat) if now.saturating_duration_since(beat.since) >= BEAT_AGE_MAX => stuck.push(index),
                Some(_) => {}
            }
        }
        stuck
    }
}

impl View {
    pub(super) fn find(&self, name: &str) -> Option<&UpstreamView> {
        self.upstreams.iter().find(|upstream| upstream.name() == name)
    }

    /// Workers that have not answered for a second, ascending. Says the more the oftener it is asked: a beat's age
    /// counts from the first look at it.
    pub(super) fn stuck_workers(&self, now: Instant) -> Vec<usize> {
        let mut stuck: Vec<usize> = self
            .upstreams
            .iter()
            .flat_map(|upstream| upstream.stuck_workers(now))
            .collect();
        stuck.sort_unstable();
        stuck.dedup();
        stuck
    }

    /// What a person should know of a process that is ready: journals that take nothing.
    pub(super) fn worries(&self) -> String {
        let mut text = String::new();
        for upstream in &self.upstreams {
            if let Some(error) = upstream.journal_error() {
                text += &format!("{}: writes are refused while it is down: {error}\n", upstream.name());
            }
        }
        text
    }

    /// Why the process should get no traffic yet or any more; nothing when it should.
    pub(super) fn not_ready(&self) -> Option<&'static str> {
        match self.ready.phase() {
            Phase::Starting => Some("starting"),
            Phase::Stopping => Some("stopping"),
            Phase::Serving => {
                let undecided = self
                    .upstreams
                    .iter()
                    .any(|upstream| upstream.shared.mode() == Mode::Starting);
                undecided.then_some("the first probe has not decided yet")
            }
        }
    }
}
