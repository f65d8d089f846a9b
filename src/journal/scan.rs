//! Recovery: what of a file of records is valid.

use std::io;
use std::ops::Range;

use super::format::{Codec, Head, RECORD_HEADER_BYTES};
use super::storage::StorageFile;
use super::window::Window;

/// Where to look, and which records can be there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) start: u64,
    pub(super) size: u64,
    /// Records of one segment have ascending numbers within one incarnation; letters have any.
    pub(super) numbers: Numbers,
}

/// The record numbers that are plausible.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numbers {
    /// Ascending from `first_seq`, within its incarnation; the scan ends before the first one beyond `upto_seq`.
    Ascending { first_seq: u64, upto_seq: u64 },
    /// Any.
    Any,
}

/// What lies behind the last valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing, or only what does not count (beyond `upto_seq`).
    Clean,
    /// This many bytes that hold no valid record.
    Bad(u64),
}

/// A valid record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) offset: u64,
    pub(super) head: Head,
}

/// Reads all of `area`, calls `note` for each valid record, and tells the damage before the last of them.
///
/// # Errors
/// A read.
pub(super) fn scan<F: StorageFile>(
    file: &F,
    codec: Codec,
    area: Area,
    note: &mut dyn FnMut(Seen),
) -> io::Result<(Vec<Range<u64>>, Tail)> {
    let mut window = Window::default();
    let mut holes = Vec::new();
    let mut offset = area.start;
    let mut last_seq = 0;
    while offset < area.size {
        let found = match record_at(file, &mut window, codec, area, last_seq, offset)? {
            Some(head) => Some(Seen { offset, head }),
            None => next_valid(file, &mut window, codec, area, last_seq, offset + 1)?,
        };
        let Some(seen) = found else {
            return Ok((holes, Tail::Bad(area.size - offset)));
        };
        if let Numbers::Ascending { upto_seq, .. } = area.numbers
            && seen.head.seq > upto_seq
        {
            return Ok((holes, Tail::Clean));
        }
        if seen.offset > offset {
            holes.push(offset..seen.offset);
        }
        last_seq = seen.head.seq;
        offset = seen.offset + seen.head.record_bytes();
        note(seen);
    }
    Ok((holes, Tail::Clean))
}

fn is_plausible(head: &Head, area: Area, last_seq: u64, offset: u64) -> bool {
    let fits = head.record_bytes() <= area.size - offset;
    match area.numbers {
        Numbers::Ascending { first_seq, .. } => {
            fits && head.seq >= first_seq && head.seq > last_seq && head.seq >> 32 == first_seq >> 32
        }
        Numbers::Any => fits && matches!(head.wall_ms, 1..=3),
    }
}

fn record_at<F: StorageFile>(
    file: &F,
    window: &mut Window,
    codec: Codec,
    area: Area,
    last_seq: u64,
    offset: u64,
) -> io::Result<Option<Head>> {
    let bytes = window.at(file, offset, RECORD_HEADER_BYTES as u64, area.size)?;
    let Some(head) = Head::parse(bytes) else {
        return Ok(None);
    };
    if !is_plausible(&head, area, last_seq, offset) {
        return Ok(None);
    }
    let bytes = window.at(file, offset, head.record_bytes(), area.size)?;
    let is_valid = bytes
        .get(..head.record_bytes() as usize)
        .is_some_and(|record| codec.is_valid(record));
    Ok(is_valid.then_some(head))
}

/// The next valid record at or after `offset`, at any byte.
fn next_valid<F: StorageFile>(
    file: &F,
    window: &mut Window,
    codec: Codec,
    area: Area,
    last_seq: u64,
    mut offset: u64,
) -> io::Result<Option<Seen>> {
    while offset + RECORD_HEADER_BYTES as u64 <= area.size {
        let bytes = window.at(file, offset, RECORD_HEADER_BYTES as u64, area.size)?;
        let candidate = bytes
            .windows(RECORD_HEADER_BYTES)
            .position(|head| Head::parse(head).is_some_and(|head| is_plausible(&head, area, last_seq, offset)));
        // `is_plausible` was asked with the window's first offset, so it let through what fits from there; the exact
        // question follows.
        let Some(ahead) = candidate else {
            offset += (bytes.len().saturating_sub(RECORD_HEADER_BYTES) + 1) as u64;
            continue;
        };
        offset += ahead as u64;
        if let Some(head) = record_at(file, window, codec, area, last_seq, offset)? {
            return Ok(Some(Seen { offset, head }));
        }
        offset += 1;
    }
    Ok(None)
}
