//! Verbs on dead letters.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::ask::{self, AskError};
use super::body::Pages;
use super::record::{self, Detail};
use super::route::Which;
use super::view::{UpstreamView, View};
use crate::journal::owner::{Batch, OwnerHandle, Payloads, Settled};
use crate::journal::{DeadLetter, MONO_MS_RETRIED};
use crate::upstream::clock::wall_ms;

/// Letters in memory at a time.
const PAGE_LETTERS: usize = 16;
/// The generation may change between a trip and the append behind it.
const TRIES_MAX: usize = 5;

/// Journals a letter's record anew, behind the backlog, and gives up the letter once its record is acknowledged (a crash in between leaves
/// both); `false` where there is no such letter. The health owner sees the generation move, and has it replayed. Its age counts from the
/// acceptance of its write.
///
/// Nobody does the same beside it, and it is done to its end though the asker leaves: a letter put back and kept would be put back again.
///
/// # Errors
/// Why it was not journaled; it is a letter still.
async fn journal_again(upstream: &UpstreamView, seq: u64) -> Result<bool, AskError> {
    let (owner, turn) = (upstream.owner.clone(), Arc::clone(&upstream.retry_turn));
    let done = tokio::spawn(async move {
        let _turn = turn.lock().await;
        let Some(letter) = find(&owner, seq).await? else {
            return Ok(false);
        };
        append(&owner, &letter).await.map_err(AskError::Failed)?;
        ask::drop_letter(&owner, seq).await
    });
    done.await
        .unwrap_or_else(|error| Err(AskError::Failed(error.to_string())))
}

async fn append(owner: &OwnerHandle, letter: &DeadLetter) -> Result<(), String> {
    for _ in 0..TRIES_MAX {
        let generation = ask::generation_of_trip(owner)
            .await
            .map_err(|error| error.to_string())?;
        let (accepted_ms, mono_ms) = times(letter);
        let mut payloads = Payloads::default();
        payloads.push(&letter.payload);
        let (sender, receiver) = oneshot::channel();
        let batch = Batch {
            generation,
            payloads,
            wall_ms: accepted_ms,
            mono_ms,
            done: Box::new(move |settled, _| {
                // Whoever asked may have gone.
                let _ = sender.send(settled);
            }),
        };
        owner
            .append(batch)
            .map_err(|_| "the journal's inbox is full".to_owned())?;
        match receiver.await {
            Ok(Settled::Acknowledged) => return Ok(()),
            Ok(Settled::Refused) => {}
            Ok(Settled::Full) => return Err("the journal is full".to_owned()),
            Ok(Settled::Failed(why)) => return Err(why),
            Err(_) => return Err("the journal's owner has ended".to_owned()),
        }
    }
    Err("the upstream's state changes too fast".to_owned())
}

/// Wall and monotonic time of a letter's record that is put back.
pub(crate) fn times(letter: &DeadLetter) -> (u64, u64) {
    match letter.wall_ms {
        0 => (wall_ms(), MONO_MS_RETRIED),
        accepted_ms => (accepted_ms, MONO_MS_RETRIED),
    }
}

/// One letter.
pub(super) async fn find(owner: &OwnerHandle, seq: u64) -> Result<Option<DeadLetter>, AskError> {
    let Some(before) = seq.checked_sub(1) else {
        return Ok(None);
    };
    let letters = ask::letters(owner, before, 1).await?;
    Ok(letters.into_iter().find(|letter| letter.seq == seq))
}

/// Sends all letters, one line of JSON each.
pub(super) async fn pump(view: Arc<View>, name: String, pages: Pages) {
    let Some(upstream) = view.find(&name) else {
        return;
    };
    let mut after_seq = 0;
    loop {
        let letters = match ask::letters(&upstream.owner, after_seq, PAGE_LETTERS).await {
            Ok(letters) => letters,
            Err(error) => {
                let _ = pages.send(Err(io::Error::other(error.to_string()))).await;
                return;
            }
        };
        let Some(last) = letters.last() else { return };
        after_seq = last.seq;
        let page: String = letters
            .iter()
            .map(|letter| record::line(&record::letter(letter, Detail::Summary)))
            .collect();
        if pages.send(Ok(Bytes::from(page))).await.is_err() {
            return;
        }
    }
}

/// Retries; nothing when there is no such letter.
pub(super) async fn retry(upstream: &UpstreamView, which: Which) -> Result<Option<Value>, AskError> {
    let mut retried: u64 = 0;
    match which {
        Which::One(seq) => {
            if !journal_again(upstream, seq).await? {
                return Ok(None);
            }
            retried += 1;
        }
        Which::All => {
            // Letters that die again get newer numbers: each is tried once.
            let upto_seq = ask::numbers(&upstream.owner).await?.journal.last_seq;
            let mut after_seq = 0;
            while let Some(letters) = page(upstream, after_seq, upto_seq).await? {
                for letter in letters {
                    after_seq = letter.seq;
                    retried += u64::from(journal_again(upstream, letter.seq).await?);
                }
            }
        }
    }
    Ok(Some(json!({"retried": retried})))
}

/// Drops; nothing when there is no such letter.
pub(super) async fn drop_letters(upstream: &UpstreamView, which: Which) -> Result<Option<Value>, AskError> {
    let mut dropped = 0;
    match which {
        Which::One(seq) => {
            if !ask::drop_letter(&upstream.owner, seq).await? {
                return Ok(None);
            }
            dropped += 1;
        }
        Which::All => {
            let upto_seq = ask::numbers(&upstream.owner).await?.journal.last_seq;
            let mut after_seq = 0;
            while let Some(letters) = page(upstream, after_seq, upto_seq).await? {
                for letter in letters {
                    after_seq = letter.seq;
                    dropped += u64::from(ask::drop_letter(&upstream.owner, letter.seq).await?);
                }
            }
        }
    }
    Ok(Some(json!({"dropped": dropped})))
}

/// The next letters up to `upto_seq`, or nothing.
async fn page(upstream: &UpstreamView, after_seq: u64, upto_seq: u64) -> Result<Option<Vec<DeadLetter>>, AskError> {
    let mut letters = ask::letters(&upstream.owner, after_seq, PAGE_LETTERS).await?;
    letters.retain(|letter| letter.seq <= upto_seq);
    Ok((!letters.is_empty()).then_some(letters))
}
