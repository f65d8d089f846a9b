//! What the admin room may do to an upstream's replay.

use std::sync::Arc;

use crate::admin::{Control, Fence, journal_again};
use crate::journal::DeadLetter;
use crate::journal::owner::{OwnerHandle, Reply};
use crate::replay::{self, Controls, Pause};

/// See the module.
#[derive(Debug)]
pub(super) struct ReplayControl {
    pub(super) controls: Arc<Controls>,
    pub(super) owner: OwnerHandle,
}

impl Control for ReplayControl {
    fn pause(&self) {
        self.controls.set_pause(Pause::Paused);
    }

    fn resume(&self) {
        self.controls.set_pause(Pause::Running);
    }

    fn is_paused(&self) -> bool {
        self.controls.pause() == Pause::Paused
    }

    fn fence(&self) -> Fence {
        match self.controls.status().fence {
            replay::Fence::Proven => Fence::Proven,
            replay::Fence::Unproven => Fence::Unproven,
        }
    }

    fn retry(&self, letters: Vec<DeadLetter>, reply: Reply<Result<u64, String>>) {
        // The health owner sees the generation move, and has the records replayed.
        let owner = self.owner.clone();
        tokio::task::spawn_local(async move { reply(journal_again(&owner, letters).await) });
    }
}
