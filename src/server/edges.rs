//! What happens when the breaker leaves CLOSED, and when it may return: the journal and its replay.

use std::time::Duration;

use super::open::ask;
use crate::breaker::Trouble;
use crate::journal::owner::OwnerHandle;
use crate::replay::{Outcome, Replay};
use crate::upstream::dial::{Conversation, Facts};
use crate::upstream::health;

/// Between two attempts to reach an owner whose inbox is full.
const AGAIN: Duration = Duration::from_millis(2);

pub(super) struct Edges {
    pub(super) owner: OwnerHandle,
    pub(super) replay: Replay,
}

impl health::Edges for Edges {
    async fn open(&mut self) {
        while ask(|reply| self.owner.trip(reply)).await.is_none() && self.owner.is_running() {
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn close(&mut self, conversation: Conversation, facts: &Facts) -> Result<(), Trouble> {
        match self.replay.recover(conversation, facts).await {
            Outcome::CaughtUp => Ok(()),
            Outcome::Failed(trouble) => Err(trouble),
        }
    }

    async fn tend(&mut self) {
        self.replay.tend().await;
    }
}
