//! Opens what each upstream keeps on disk, and makes the parts that workers and control side share.
//!
//! ```text
//! data_dir/NAME/journal/…     the journal, locked for this process
//! data_dir/NAME/connections   the connection file
//! data_dir/NAME/known         credentials that the upstream has accepted, hashed
//! data_dir/NAME/last-said     what the upstream last said of itself
//! data_dir/NAME/scripts       scripts that clients have given to the upstream
//! data_dir/NAME/replay-wishes what people asked of replay: a pause, a rate
//! data_dir/NAME/password-owed there while the upstream asks a password of those who have none
//! ```

use std::fs::DirBuilder;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::StartError;
use super::worker::Part;
use crate::config::{Settings, UpstreamSettings};
use crate::journal::owner::{OwnerHandle, Unsent, spawn};
use crate::journal::{self, DiskStorage, Journal, SEGMENT_BYTES_MAX};
use crate::replay::{self, Controls, Kept, Pause, Rate, Replay, Wishes};
use crate::resp::scan;
use crate::session;
use crate::telemetry;
use crate::upstream::clock::wall_ms;
use crate::upstream::connections::ConnectionFile;
use crate::upstream::known::Known;
use crate::upstream::last_said::LastSaid;
use crate::upstream::shared::{Shared, Sign, Target};

/// One upstream, ready to be served.
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    pub(super) owner: OwnerHandle,
    pub(super) signs: mpsc::Receiver<Sign>,
    pub(super) replay: Replay,
    pub(super) controls: Arc<Controls>,
}

/// Opens all upstreams; also gives each worker its parts.
pub(super) fn all(settings: &Settings, workers: usize) -> Result<(Vec<Opened>, Vec<Vec<Part>>), StartError> {
    let mut parts: Vec<Vec<Part>> = (0..workers).map(|_| Vec::new()).collect();
    let mut all = Vec::new();
    for upstream in &settings.upstreams {
        let opened = one(settings, upstream, workers)?;
        let memory = Arc::new(session::OutageMemory::default());
        for (index, parts) in parts.iter_mut().enumerate() {
            let owner = opened.owner.clone();
            parts.push(Part {
                shared: Arc::clone(&opened.shared),
                owner: owner.clone(),
                session: session_settings(settings, upstream, Arc::clone(&memory)),
                confirm: Box::new(move |generation| owner.confirm(index, generation)),
            });
        }
        all.push(opened);
    }
    Ok((all, parts))
}

fn one(settings: &Settings, upstream: &UpstreamSettings, workers: usize) -> Result<Opened, StartError> {
    let dir = settings.data_dir.join(&upstream.name);
    make_dir(&dir)?;
    let journal_dir = dir.join("journal");
    let fsync = upstream.queue.fsync;
    let journal_settings = journal::Settings {
        fsync,
        bytes_max: upstream.queue.bytes_max,
        segment_bytes_max: SEGMENT_BYTES_MAX,
    };
    let storage = DiskStorage::new(&journal_dir).map_err(|error| format!("{}: {error}", journal_dir.display()))?;
    let now_ms = wall_ms();
    let (journal, report) = Journal::open(storage, journal_settings, random_id(), now_ms)
        .map_err(|error| format!("{}: {error}", journal_dir.display()))?;
    tell(&upstream.name, &report);
    let bells: Arc<std::sync::OnceLock<Arc<Shared>>> = Arc::default();
    let wakers = (0..workers)
        .map(|worker| {
            let bells = Arc::clone(&bells);
            let waker: crate::journal::owner::Waker = Box::new(move || {
                if let Some(shared) = bells.get()
                    && let Some(worker) = shared.workers.get(worker)
                {
                    worker.bell.notify_one();
                }
            });
            waker
        })
        .collect();
    let (owner, _thread) =
        spawn(journal, fsync, wakers).map_err(|error| format!("the journal has no thread: {error}"))?;
    let file = |name: &str| dir.join(name);
    let connections = ConnectionFile::open(&file("connections"))
        .map_err(|error| format!("{}: {error}", file("connections").display()))?;
    let known =
        Known::open(&file("known"), random_id()).map_err(|error| format!("{}: {error}", file("known").display()))?;
    let target = Target {
        name: upstream.name.clone(),
        address: upstream.url.address.clone(),
        db: upstream.url.db,
        credentials: upstream.url.credentials.clone(),
        password_file: upstream.url.password_file.clone(),
        timeouts: upstream.timeouts,
        hold_timeout: upstream.hold_timeout,
    };
    let (shared, signs) = Shared::new(target, connections, known, owner.generation_counter(), workers);
    let (last_said, facts) = LastSaid::open(&file("last-said"));
    shared.recall(last_said, facts);
    shared.scripts.recall(&file("scripts"));
    // Nobody else sets it.
    let _ = bells.set(Arc::clone(&shared));
    let replay_settings = replay::Settings {
        start_delay_max: upstream.replay.start_delay_max,
        rate_max: upstream.replay.rate_max,
        age_max: upstream.queue.age_max,
    };
    let controls = Arc::new(controls(&upstream.name, &dir));
    let replay = Replay::new(
        Arc::clone(&shared),
        owner.clone(),
        replay_settings,
        Arc::clone(&controls),
    );
    Ok(Opened {
        shared,
        owner,
        signs,
        replay,
        controls,
    })
}

/// With what people asked of replay before; when that cannot be read it may have been a pause.
fn controls(upstream: &str, dir: &Path) -> Controls {
    let kept = Kept::new(dir);
    let wishes = kept.load().unwrap_or_else(|error| {
        tracing::error!(upstream, %error, "what was asked of replay before cannot be read: it is paused");
        Wishes {
            pause: Pause::Paused,
            rate: Rate::Configured,
        }
    });
    if wishes.pause == Pause::Paused {
        tracing::warn!(upstream, "replay is paused: `tideover queue resume` ends that");
    }
    Controls::new(kept, wishes)
}

fn make_dir(dir: &Path) -> Result<(), StartError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| format!("{}: {error}", dir.display()))
}

/// Everything that opening found and gave up is said.
fn tell(upstream: &str, report: &journal::OpenReport) {
    if report.torn_bytes > 0 {
        tracing::warn!(
            upstream,
            bytes = report.torn_bytes,
            "a torn tail was cut from the journal: a crash cut short an append that was not acknowledged"
        );
    }
    let places = report.damage.len() + report.missing.len() + report.files_given_up.len();
    let logs = [report.dead_letter_bytes_unreadable, report.waiting_bytes_unreadable];
    let damages = places + report.checkpoints_unreadable + logs.iter().filter(|bytes| **bytes > 0).count();
    if damages > 0 {
        telemetry::journal_damaged(upstream, damages as u64, report);
    }
    if report.backlog_records > 0 {
        tracing::info!(
            upstream,
            records = report.backlog_records,
            "the journal holds a backlog from before"
        );
    }
}

fn session_settings(
    settings: &Settings,
    upstream: &UpstreamSettings,
    memory: Arc<session::OutageMemory>,
) -> session::Settings {
    let limits = &settings.limits;
    session::Settings {
        limits: session::Limits {
            request: scan::Limits {
                args_max: u32::try_from(limits.args_max).unwrap_or(u32::MAX),
                bulk_bytes_max: limits.bulk_bytes_max as u64,
                inline_bytes_max: limits.inline_bytes_max,
                asker: scan::Asker::Admitted,
            },
            lane_request_bytes_max: limits.lane_request_bytes_max,
            pipeline_max: limits.pipeline_max,
            idle_timeout: limits.idle_timeout,
            reply_buffer_bytes_max: limits.reply_buffer_bytes_max,
        },
        client_password: upstream.client_password.clone(),
        rules: upstream.rules.clone(),
        memory,
    }
}

/// From the operating system: two hosts must not draw the same in the same moment, as with a seed from the clock.
pub(crate) fn random_id() -> [u8; 16] {
    // The operating system draws its keys.
    let half = || u128::from(RandomState::new().hash_one(()));
    ((half() << 64) | half()).to_le_bytes()
}

/// Asks the journal's owner and waits for the answer; nothing when it did not take the question, or ended before it answered.
pub(super) async fn ask<T: Send + 'static>(
    question: impl FnOnce(Box<dyn FnOnce(T) + Send>) -> Result<(), Unsent>,
) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    // A receiver that is gone has no use for the answer.
    question(Box::new(move |answer| drop(sender.send(answer)))).ok()?;
    receiver.await.ok()
}
