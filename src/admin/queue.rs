//! Verbs on the backlog.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::ask::{self, AskError};
use super::body::Pages;
use super::record::{self, Clocks};
use super::view::{UpstreamView, View};
use crate::journal::Record;
use crate::upstream::clock::wall_ms;

/// Records and payload bytes that are in memory at a time (one record may be larger).
const PAGE_RECORDS: usize = 256;
const PAGE_BYTES: usize = 256 * 1024;
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

pub(super) async fn drop_backlog(upstream: &UpstreamView) -> Result<serde_json::Value, AskError> {
    let moved = ask::drop_backlog(&upstream.owner).await?;
    Ok(json!({"dropped_records": moved.records, "dropped_bytes": moved.bytes}))
}

/// Sends the backlog, oldest first, page by page.
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
    let mut after_seq = numbers.replayed_seq;
    let mut left = match form {
        Form::Lines { records_max } => records_max,
        Form::Commands => usize::MAX,
    };
    let mut db = None;
    while left > 0 {
        let records = ask::records(&upstream.owner, after_seq, left.min(PAGE_RECORDS), PAGE_BYTES).await?;
        let Some(last) = records.last() else { break };
        after_seq = last.seq;
        left = left.saturating_sub(records.len());
        let clocks = Clocks {
            wall_ms: wall_ms(),
            offset_ms: upstream.shared.facts().clock_offset_ms,
        };
        let known = records.iter().filter(|record| record.seq <= numbers.last_seq);
        let page = page(known, form, clocks, &mut db).map_err(AskError::Failed)?;
        let is_last = after_seq >= numbers.last_seq;
        match tokio::time::timeout(READER_PATIENCE, pages.send(Ok(page))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => break,
        }
        if is_last {
            break;
        }
    }
    Ok(())
}

/// Records as they leave; `db` is the database selected before, and after.
pub(crate) fn page<'a>(
    records: impl Iterator<Item = &'a Record>,
    form: Form,
    clocks: Clocks,
    db: &mut Option<u32>,
) -> Result<Bytes, String> {
    let mut page = Vec::new();
    for one in records {
        match form {
            Form::Lines { records_max: _ } => {
                page.extend_from_slice(record::line(&record::record(one, clocks)).as_bytes())
            }
            Form::Commands => {
                record::export(one, clocks, db, &mut page).map_err(|error| format!("record {}: {error}", one.seq))?
            }
        }
    }
    Ok(Bytes::from(page))
}
