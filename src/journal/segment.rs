//! What is remembered of a segment: where it ends, its damage, and a sparse index.

use std::collections::VecDeque;
use std::ops::Range;

use super::format::{SEGMENT_HEADER_BYTES, segment_name};

/// Distance of the points of the sparse index, in bytes.
const INDEX_STEP_BYTES: u64 = 1024 * 1024;

/// How far a segment reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// Valid records.
    pub(super) records: u64,
    /// Bytes they take.
    pub(super) record_bytes: u64,
    /// File offset after the last of them.
    pub(super) end: u64,
    /// Number of the last of them; of the last one before the segment when there is none.
    pub(super) last_seq: u64,
}

impl Tally {
    pub(super) fn empty(prior_last_seq: u64) -> Self {
        Self {
            records: 0,
            record_bytes: 0,
            end: SEGMENT_HEADER_BYTES,
            last_seq: prior_last_seq,
        }
    }
}

/// One segment on disk.
#[derive(Debug)]
pub(super) struct Segment {
    /// Unique and ascending within this opening (a carried segment may take the name of the poisoned one).
    pub(super) id: u64,
    pub(super) first_seq: u64,
    pub(super) prior_last_seq: u64,
    pub(super) tally: Tally,
    /// Damaged ranges between header and end.
    pub(super) holes: Vec<Range<u64>>,
    /// Whether the file holds damage worth keeping when its records are not needed any more.
    pub(super) is_damaged: bool,
    /// Record number and offset, about every [`INDEX_STEP_BYTES`].
    index: Vec<(u64, u64)>,
    /// When its last record was replayed.
    pub(super) replayed_wall_ms: Option<u64>,
}

impl Segment {
    pub(super) fn new(id: u64, first_seq: u64, prior_last_seq: u64) -> Self {
        Self {
            id,
            first_seq,
            prior_last_seq,
            tally: Tally::empty(prior_last_seq),
            holes: Vec::new(),
            is_damaged: false,
            index: Vec::new(),
            replayed_wall_ms: None,
        }
    }

    pub(super) fn name(&self) -> String {
        segment_name(self.first_seq)
    }

    /// Counts a record that stands at `offset`.
    pub(super) fn note(&mut self, seq: u64, offset: u64, bytes: u64) {
        if self
            .index
            .last()
            .is_none_or(|&(_, last)| offset - last >= INDEX_STEP_BYTES)
        {
            self.index.push((seq, offset));
        }
        self.tally.records += 1;
        self.tally.record_bytes += bytes;
        self.tally.end = offset + bytes;
        self.tally.last_seq = seq;
    }

    /// Counts an append that was written at the end.
    pub(super) fn note_append(&mut self, first_seq: u64, records: u64, bytes: u64) {
        self.note(first_seq, self.tally.end, bytes);
        self.tally.records += records - 1;
        self.tally.last_seq += records - 1;
    }

    /// Forgets what lies beyond `tally`.
    pub(super) fn cut(&mut self, tally: Tally) {
        self.tally = tally;
        self.index.retain(|&(_, offset)| offset < tally.end);
    }

    /// An offset from which the records after `after_seq` can be reached.
    pub(super) fn offset_before(&self, after_seq: u64) -> u64 {
        let points = self
            .index
            .partition_point(|&(seq, _)| seq <= after_seq.saturating_add(1));
        points
            .checked_sub(1)
            .and_then(|at| self.index.get(at))
            .map_or(SEGMENT_HEADER_BYTES, |&(_, offset)| offset)
    }

    /// Where the damage that begins at `offset` ends.
    pub(super) fn hole_end(&self, offset: u64) -> Option<u64> {
        self.holes.iter().find(|hole| hole.start == offset).map(|hole| hole.end)
    }
}

/// The place of the segment with this id.
pub(super) fn position_of(segments: &VecDeque<Segment>, id: u64) -> Option<usize> {
    let at = segments.partition_point(|segment| segment.id < id);
    (segments.get(at)?.id == id).then_some(at)
}

/// Whether a number lies within one of the segments.
pub(super) fn holds(segments: &VecDeque<Segment>, seq: u64) -> bool {
    let after = segments.partition_point(|segment| segment.first_seq <= seq);
    let segment = after.checked_sub(1).and_then(|at| segments.get(at));
    segment.is_some_and(|segment| seq <= segment.tally.last_seq)
}
