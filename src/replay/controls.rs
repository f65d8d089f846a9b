//! What people may change about replay, and what they are told of it. Shared with other threads.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Whether replay goes on by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pause {
    #[default]
    Running,
    /// `queue pause`
    Paused,
}

/// The end of connections older than this catching up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fence {
    #[default]
    Proven,
    Unproven,
}

impl Fence {
    /// As `/status` says it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Unproven => "unproven",
        }
    }
}

/// What `/status` says of replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub fence: Fence,
    /// Why replay cannot go on, or last could not.
    pub last_error: Option<String>,
    /// Users whose records wait for their credentials.
    pub identities_waiting: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Inner {
    pause: Pause,
    rate_max: Option<NonZeroU32>,
    status: Status,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Controls {
    inner: Mutex<Inner>,
    changed: Notify,
}

impl Controls {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn pause(&self) -> Pause {
        self.lock().pause
    }

    pub fn set_pause(&self, pause: Pause) {
        self.lock().pause = pause;
        self.changed.notify_one();
    }

    /// Records per second instead of the configuration's; nothing: the configuration's.
    pub fn set_rate_max(&self, rate_max: Option<NonZeroU32>) {
        self.lock().rate_max = rate_max;
        self.changed.notify_one();
    }

    pub(super) fn rate_max(&self) -> Option<NonZeroU32> {
        self.lock().rate_max
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().status.clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock().status);
    }
}
