//! Journal → Redis: everything that was acknowledged while the upstream was down is applied to it, in order, once.
//!
//! A catching up, in order: every worker has confirmed that it writes to no older connection · the fence (`fence.rs`): what was sent before
//! the failure has been applied or never will be · the review (`review.rs`): has the upstream lost what it had confirmed? · batches
//! (`enter.rs`, `apply.rs`), each one MULTI … EXEC that also sets the marker, which is watched, so that it is applied once or not at all, whatever
//! dies in between · WAIT · the request to close, which the journal's owner grants when nothing is left.
//!
//! Invariants
//! - One batch is in flight. It holds records of one identity and one database, which is selected and checked before MULTI. Meanwhile the server
//!   queues the next one, so that it does not wait for us; the marker's SET and EXEC follow once the first is known to be applied, else it is discarded.
//! - The journal's checkpoint passes a record when the upstream has confirmed it, a dead letter of it is durable, or it stands aside durably
//!   until its user is known again (`waiting.rs`).
//! - A guarded record (`batch/guards.rs`) is judged under WATCH. If its guard is not met it is a dead letter before its batch is sent: what a batch
//!   that was applied held, was applied, also when nobody heard of it.
//! - After anything but the expected replies the marker is read again and the backlog from the checkpoint on.
//!
//! What no marker can help: a redis-server whose AOF ends in the middle of a command inside MULTI (a kill or a power cut tore its write) cuts
//! the file there and not before the MULTI [seen on 7.0.15]. The batch is not applied, is replayed, and at the next load of that file the torn
//! half stands before it. `redis-check-aof --fix` before the start, or BGREWRITEAOF after it, takes it away.
//!
//! The marker, `tideover:<queue-id>:replayed`, stands in each database that was replayed to, and does not expire: it is some hundred bytes,
//! and one that expired while nobody looked would have to be guessed about.

mod alone;
mod apply;
mod batch;
mod controls;
mod dead_letter;
mod enter;
mod fence;
mod held;
mod kept;
mod line;
mod pace;

mod relief;
pub mod resume;
mod review;
mod run;
mod source;
mod speak;
mod unanswered;
mod waiting;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

pub use controls::{Controls, Fence, Status};
pub use dead_letter::DeadLetterReason;
pub use kept::{Kept, Pause, Rate, Wishes};

use crate::breaker::Trouble;
use crate::journal::owner::OwnerHandle;
use crate::upstream::clock::wall_ms;
use crate::upstream::dial::{Conversation, Facts};
use crate::upstream::shared::Shared;

/// `[upstream.replay]`, and `max_age` of `[upstream.queue]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Replay starts after a wait that is uniform from 0 to this.
    pub start_delay_max: Duration,
    /// Records per second.
    pub rate_max: Option<NonZeroU32>,
    /// Older records become dead letters, reason `too_old`.
    pub age_max: Option<Duration>,
}

/// How a catching up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left, and the generation is even again.
    CaughtUp,
    /// The breaker must reopen; the next catching up goes on where this one ended.
    Failed(Trouble),
}

/// The replay of one upstream, for the life of the process.
#[derive(Debug)]
pub struct Replay {
    shared: Arc<Shared>,
    owner: OwnerHandle,
    settings: Settings,
    controls: Arc<Controls>,
    marker_key: Vec<u8>,
    /// Live writes may have run since the records up to this one were confirmed. Nothing before the first look at the checkpoint.
    live_since_seq: Option<u64>,
    /// What the backlog of this outage has put there so far.
    ours: batch::Ours,
}

impl Replay {
    #[must_use]
    pub fn new(shared: Arc<Shared>, owner: OwnerHandle, settings: Settings, controls: Arc<Controls>) -> Self {
        let marker_key = format!("tideover:{}:replayed", owner.queue_id()).into_bytes();
        shared.rights.set_marker_key(&marker_key);
        Self {
            shared,
            owner,
            settings,
            controls,
            marker_key,
            live_since_seq: None,
            ours: batch::Ours::default(),
        }
    }

    /// A probe has succeeded on this fresh connection: fence, replay, WAIT, close. To be called while the generation is odd. Sets the modes
    /// `CatchingUp` and `Halted`; the mode after it is the caller's.
    ///
    /// Returns when the generation is even again, or when the breaker must reopen. May be dropped at any point: the marker knows.
    pub async fn recover(&mut self, conversation: Conversation, facts: &Facts) -> Outcome {
        let outcome = Box::pin(run::run(self, conversation, facts)).await;
        match outcome {
            Ok(()) => {
                self.ours.clear();
                self.controls.update(|status| {
                    status.last_error = None;
                });
                Outcome::CaughtUp
            }
            Err(trouble) => {
                self.controls.update(|status| {
                    status.last_error = Some(format!("replay stopped: {}", trouble.label()));
                });
                Outcome::Failed(trouble)
            }
        }
    }

    /// To be called every second while CLOSED: replayed records that the upstream has had for a minute need not be kept, and what waits for its
    /// user may be too old.
    pub async fn tend(&mut self) {
        if !self.controls.status().identities_waiting.is_empty() {
            self.age_waiting().await;
            self.say_who_waits().await;
        }
        let before_ms = wall_ms().saturating_sub(resume::RETENTION_MS);
        let owner = &self.owner;
        if let Ok(Err(error)) = source::ask(|reply| owner.release_older(before_ms, reply)).await {
            tracing::warn!(upstream = self.shared.target.name, %error, "replayed records could not be removed");
        }
    }
}
