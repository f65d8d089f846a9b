//! What people may change about replay, and what they are told of it. Shared with other threads.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::kept::{Kept, Pause, Rate, Wishes};

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
    wishes: Wishes,
    status: Status,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Controls {
    inner: Mutex<Inner>,
    changed: Notify,
    /// Where wishes outlive the process; nothing: they do not.
    kept: Option<Kept>,
    /// Held while a wish is made and kept, so that the newest is what is kept.
    wishing: Mutex<()>,
}

impl Controls {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With what was wished for in an earlier process; later wishes go to `kept`.
    #[must_use]
    pub fn new(kept: Kept, wishes: Wishes) -> Self {
        Self {
            inner: Mutex::new(Inner {
                wishes,
                status: Status::default(),
            }),
            changed: Notify::new(),
            kept: Some(kept),
            wishing: Mutex::default(),
        }
    }

    #[must_use]
    pub fn pause(&self) -> Pause {
        self.lock().wishes.pause
    }

    #[must_use]
    pub fn rate(&self) -> Rate {
        self.lock().wishes.rate
    }

    /// Blocks on the disk.
    ///
    /// # Errors
    /// It is done, but not kept: the next process will not know.
    pub fn set_pause(&self, pause: Pause) -> io::Result<()> {
        self.wish(|wishes| wishes.pause = pause)
    }

    /// # Errors
    /// As [`Self::set_pause`].
    pub fn set_rate(&self, rate: Rate) -> io::Result<()> {
        self.wish(|wishes| wishes.rate = rate)
    }

    fn wish(&self, change: impl FnOnce(&mut Wishes)) -> io::Result<()> {
        let _wishing = self.wishing.lock().unwrap_or_else(PoisonError::into_inner);
        let wishes = {
            let mut inner = self.lock();
            change(&mut inner.wishes);
            inner.wishes
        };
        self.changed.notify_one();
        self.kept.as_ref().map_or(Ok(()), |kept| kept.save(wishes))
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
