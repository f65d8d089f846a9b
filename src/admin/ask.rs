//! Questions to the journal's owner, as futures with a deadline.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::journal::Moved;
use crate::journal::owner::{OwnerHandle, OwnerStatus, Reply, Unsent};
use crate::journal::{DeadLetter, Record, WaitingEntry};

/// The journal's numbers are asked for often: the last known ones do when the disk is slow.
const NUMBERS_PATIENCE: Duration = Duration::from_millis(500);
/// Everything else may wait for the disk a while.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Unsent(#[from] Unsent),
    #[error("the journal's owner has ended")]
    Ended,
    #[error("the journal does not answer; its disk may be slow")]
    Timeout,
    /// The journal's own words.
    #[error("{0}")]
    Failed(String),
}

async fn ask<T: Send + 'static>(
    patience: Duration,
    send: impl FnOnce(Reply<T>) -> Result<(), Unsent>,
) -> Result<T, AskError> {
    let (sender, receiver) = oneshot::channel();
    send(Box::new(move |answer| {
        // Whoever asked may have gone.
        let _ = sender.send(answer);
    }))?;
    match tokio::time::timeout(patience, receiver).await {
        Ok(answer) => answer.map_err(|_| AskError::Ended),
        Err(_) => Err(AskError::Timeout),
    }
}

fn said<T>(answer: Result<T, impl std::fmt::Display>) -> Result<T, AskError> {
    answer.map_err(|error| AskError::Failed(error.to_string()))
}

pub(super) async fn numbers(owner: &OwnerHandle) -> Result<OwnerStatus, AskError> {
    ask(NUMBERS_PATIENCE, |reply| owner.status(reply)).await
}

pub(super) async fn records(
    owner: &OwnerHandle,
    after_seq: u64,
    records_max: usize,
    bytes_max: usize,
) -> Result<Vec<Record>, AskError> {
    said(ask(PATIENCE, |reply| owner.read(after_seq, records_max, bytes_max, reply)).await?)
}

/// The next entry of records that wait for their user.
pub(super) async fn waiting_entry(owner: &OwnerHandle, after_key: u64) -> Result<Option<WaitingEntry>, AskError> {
    said(ask(PATIENCE, |reply| owner.waiting_entry(after_key, None, reply)).await?)
}

pub(super) async fn drop_backlog(owner: &OwnerHandle) -> Result<Moved, AskError> {
    said(ask(PATIENCE, |reply| owner.drop_backlog(reply)).await?)
}

pub(super) async fn letters(
    owner: &OwnerHandle,
    after_seq: u64,
    letters_max: usize,
) -> Result<Vec<DeadLetter>, AskError> {
    said(ask(PATIENCE, |reply| owner.dead_letters(after_seq, letters_max, reply)).await?)
}

pub(super) async fn drop_letter(owner: &OwnerHandle, seq: u64) -> Result<bool, AskError> {
    said(ask(PATIENCE, |reply| owner.drop_dead_letter(seq, reply)).await?)
}

pub(super) async fn generation_of_trip(owner: &OwnerHandle) -> Result<u64, AskError> {
    ask(PATIENCE, |reply| owner.trip(reply)).await
}
