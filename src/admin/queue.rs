//! Verbs on what is queued: the backlog, and what waits for its user.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::ask::{self, AskError};
use super::body::Pages;
use super::in_order::{InOrder, Wanted};
use super::record::{self, Clocks};
use super::view::{UpstreamView, View};
use crate::upstream::clock::wall_ms;

/// Records and payload bytes that are in memory at a time (one record may be larger).
pub(crate) const PAGE_RECORDS: usize = 256;
pub(crate) const PAGE_BYTES: usize = 256 * 1024;
/// A reader that takes no page for so long is given up.
const READER_PATIENCE: Duration = Duration::from_secs(30);

/// How the backlog leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One line of JSON each, at most so many.
    Lines { records_max: usize },
    /// RESP, everything that was there when asked.
    Commands,
}

impl Form {
    pub(crate) fn records_max(self) -> usize {
        match self {
            Self::Lines { records_max } => records_max,
            Self::Commands => usize::MAX,
        }
    }
}

pub(super) async fn drop_backlog(upstream: &UpstreamView) -> Result<serde_json::Value, AskError> {
    let moved = ask::drop_backlog(&upstream.owner).await?;
    Ok(json!({"dropped_records": moved.records, "dropped_bytes": moved.bytes}))
}

/// Sends what is queued, oldest first, page by page.
pub(super) async fn pump(view: Arc<View>, name: String, form: Form, pages: Pages) {
    let Some(upstream) = view.find(&name) else {
        return;
    };
    if let Err(error) = read_out(upstream, form, &pages).await {
        // The reader sees that the answer is cut off; if it has gone there is nobody to tell.
        let _ = pages.send(Err(io::Error::other(error.to_string()))).await;
    }
}

async fn read_out(upstream: &UpstreamView, form: Form, pages: &Pages) -> Result<(), AskError> {
    let numbers = ask::numbers(&upstream.owner).await?.journal;
    let mut queue = InOrder::new(numbers.replayed_seq, numbers.last_seq);
    let mut left = form.records_max();
    let mut db = None;
    while left > 0 {
        match queue.wants() {
            Some(Wanted::Records { after_seq }) => {
                let records = ask::records(&upstream.owner, after_seq, left.min(PAGE_RECORDS), PAGE_BYTES).await?;
                queue.feed_records(records);
                continue;
            }
            Some(Wanted::Entry { after_key }) => {
                queue.feed_entry(ask::waiting_entry(&upstream.owner, after_key).await?);
                continue;
            }
            None => {}
        }
        let clocks = Clocks {
            wall_ms: wall_ms(),
            offset_ms: upstream.shared.facts().clock_offset_ms,
        };
        let page = page(&mut queue, &mut left, form, clocks, &mut db).map_err(AskError::Failed)?;
        if page.is_empty() {
            break;
        }
        match tokio::time::timeout(READER_PATIENCE, pages.send(Ok(page))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    Ok(())
}

/// Records as they leave, as far as they are read, empty at the end; at most `left`, which counts down. `db` is the database selected
/// before, and after.
pub(crate) fn page(
    queue: &mut InOrder,
    left: &mut usize,
    form: Form,
    clocks: Clocks,
    db: &mut Option<u32>,
) -> Result<Bytes, String> {
    let mut page = Vec::new();
    while *left > 0
        && page.len() < PAGE_BYTES
        && let Some((one, stands)) = queue.next()
    {
        *left -= 1;
        match form {
            Form::Lines { records_max: _ } => {
                page.extend_from_slice(record::line(&record::record(&one, stands, clocks)).as_bytes());
            }
            Form::Commands => {
                record::export(&one, clocks, db, &mut page).map_err(|error| format!("record {}: {error}", one.seq))?;
            }
        }
    }
    Ok(Bytes::from(page))
}
