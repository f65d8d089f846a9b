//! What is remembered of a segment.

/// How far a segment reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Valid records.
    pub(super) records: u64,
    /// Bytes they take.
    pub(super) record_bytes: u64,
    /// File offset after the last of them.
    pub(super) end: u64,
    /// Number of the last of them; 0 when there is none.
    pub(super) last_seq: u64,
}
