//! `/status`: the field names are interface.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::view::{UpstreamView, View};
use crate::journal::{self, owner::OwnerStatus};
use crate::replay::Pause;
use crate::upstream::clock::wall_ms;
use crate::upstream::shared::Mode;
use crate::upstream::stats::WorkerStats;

#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub(super) version: &'static str,
    pub(super) upstreams: Vec<UpstreamStatus>,
}

#[derive(Debug, Serialize)]
pub(super) struct UpstreamStatus {
    pub(super) name: String,
    pub(super) listen: String,
    pub(super) url: String,
    pub(super) state: &'static str,
    pub(super) mode: &'static str,
    pub(super) queue: QueueStatus,
    pub(super) dead_letters: u64,
    pub(super) clients: u64,
    pub(super) last_error: Option<String>,
    pub(super) fence: &'static str,
    /// Users whose journaled writes wait for their credentials.
    pub(super) identities_waiting: Vec<String>,
    /// Users who may not use MULTI or the marker, as far as tested: they journal absolute writes only.
    pub(super) identities_without_replay_rights: Vec<String>,
    pub(super) generation: u64,
    /// Open connections to the upstream.
    pub(super) connections: u64,
    /// Catching up cannot go on although the upstream answers.
    pub(super) halted: bool,
    pub(super) journal_error: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct QueueStatus {
    pub(crate) records: u64,
    /// Of them, those that wait for their user.
    pub(crate) waiting_records: u64,
    pub(crate) bytes: u64,
    pub(crate) oldest_age_ms: u64,
    pub(crate) acknowledged_total: u64,
    pub(crate) replayed_total: u64,
    pub(crate) retained_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) paused: bool,
    /// Records per second that replay may reach; nothing: as many as the upstream takes.
    pub(crate) rate_max: Option<NonZeroU32>,
}

impl QueueStatus {
    /// As far as the journal's numbers tell it; nothing is paused or limited.
    pub(crate) fn of(journal: &journal::Status) -> Self {
        Self {
            records: journal.records,
            waiting_records: journal.waiting_records,
            bytes: journal.bytes,
            oldest_age_ms: oldest_age_ms(journal),
            acknowledged_total: journal.acknowledged_total,
            replayed_total: journal.replayed_total,
            retained_bytes: journal.retained_bytes,
            disk_bytes: journal.disk_bytes,
            paused: false,
            rate_max: None,
        }
    }
}

/// The breaker's state that a mode belongs to.
pub(super) fn state(mode: Mode) -> &'static str {
    match mode {
        Mode::Healthy => "closed",
        Mode::Starting | Mode::Down | Mode::Probing => "open",
        Mode::CatchingUp | Mode::Halted => "half_open",
    }
}

pub(super) async fn status(view: &View) -> Status {
    let mut upstreams = Vec::with_capacity(view.upstreams.len());
    for upstream in &view.upstreams {
        upstreams.push(upstream_status(upstream).await);
    }
    Status {
        version: env!("CARGO_PKG_VERSION"),
        upstreams,
    }
}

pub(super) async fn upstream_status(upstream: &UpstreamView) -> UpstreamStatus {
    let numbers = upstream.journal_status().await;
    let mode = upstream.shared.mode();
    let journal_error = numbers.as_ref().and_then(|numbers| numbers.last_error.clone());
    let is_running = upstream.owner.is_running();
    let replay = upstream.controls.status();
    let why_halted = replay.last_error.filter(|_| mode == Mode::Halted);
    UpstreamStatus {
        name: upstream.name().to_owned(),
        listen: upstream.listen.clone(),
        url: upstream.url.clone(),
        state: state(mode),
        mode: mode.label(),
        queue: queue_status(upstream, numbers.as_ref()),
        dead_letters: numbers.as_ref().map_or(0, |numbers| numbers.journal.dead_letters),
        clients: sum(upstream, |stats| stats.clients.load(Relaxed)),
        last_error: why_halted.or_else(|| upstream.shared.last_error()),
        fence: replay.fence.label(),
        identities_waiting: replay.identities_waiting.into_iter().collect(),
        identities_without_replay_rights: upstream.shared.rights.users_without(),
        generation: upstream.shared.generation(),
        connections: sum(upstream, |stats| stats.connections.load(Relaxed)),
        halted: mode == Mode::Halted,
        journal_error: if is_running {
            journal_error
        } else {
            Some("the journal's owner has ended".to_owned())
        },
    }
}

fn queue_status(upstream: &UpstreamView, numbers: Option<&OwnerStatus>) -> QueueStatus {
    let controls = &upstream.controls;
    QueueStatus {
        paused: controls.pause() == Pause::Paused,
        rate_max: controls.rate().max(upstream.rate_max),
        ..numbers
            .map(|numbers| QueueStatus::of(&numbers.journal))
            .unwrap_or_default()
    }
}

/// Age of the oldest record of the backlog; 0 when there is none.
pub(super) fn oldest_age_ms(journal: &journal::Status) -> u64 {
    let now_ms = wall_ms();
    journal
        .oldest_wall_ms
        .map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms))
}

/// A number of all workers together.
pub(super) fn sum(upstream: &UpstreamView, of: impl Fn(&WorkerStats) -> u64) -> u64 {
    upstream.shared.workers.iter().map(|worker| of(&worker.stats)).sum()
}
