//! The durable queue of acknowledged writes: records in segments, and how far replay got. It knows bytes, not Redis;
//! time is an argument; it writes no log line, but returns what happened.
//!
//! Invariants
//! - A record is readable in the order of its append, or a report or error says that it is not.
//! - What was not synced under [`Fsync::Always`] is never read, so never replayed.
//! - After a failed write or sync the segment is poisoned: nothing more is written or synced there. Acknowledged
//!   records that were not synced are copied to a new segment, durable before anything else is appended.
//! - A number is never used twice: each opening has its own upper 32 bits, durable before its first append, and the
//!   numbers of a failed append are skipped.
//! - The checkpoint never passes a record that was not written; it is durable before a segment goes.
//! - A torn tail is cut at the end of the last segment only. Each segment says which record came before it, so that
//!   left-overs of failed appends do not count, and missing records are noticed.
//! - Memory does not grow with the number of records: per segment an index point per MiB, and two read chunks. (Dead
//!   letters take a few words each, records that wait a few words per entry of up to a thousand.)
//!
//! What fails, and what comes of it. Each is counted in `tideover_journal_errors_total{kind}` and logged when it begins; while the newest
//! write has failed, `tideover_journal_writable` is 0 and `/status` says why (`journal_error`).
//!
//! | Failure | Outcome | Kind |
//! |---|---|---|
//! | no room for an append: disk, quota, file size limit | replayed records give way; else the append is refused, `-UNAVAILABLE`, until there is room | `no_room` |
//! | no room at the opening | as above; reads and replay go on, the incarnation begins when there is room (tried each second) | `no_room` |
//! | `bytes_max` reached | replayed records give way; else the append is refused | `full` |
//! | I/O error of a write | the append is refused; the segment is poisoned, the next append starts another | `append` |
//! | I/O error of a sync, `always` | the records of that sync are withdrawn and refused; nobody was told that they are kept | `sync` |
//! | I/O error of a sync, `everysec`, `no` | acknowledged records are copied to another segment, synced; appends are refused until that is done | `sync` |
//! | I/O error of a checkpoint | an older one stands; the marker in Redis keeps records from being applied twice | `checkpoint` |
//! | a dead letter cannot be kept or read | replay is halted before its record | `dead_letters` |
//! | records cannot be set aside, or read when their user is back | replay is halted before them | `waiting` |
//! | a crash within an append | the torn tail is cut at the next opening: it was not acknowledged | (log line) |
//! | damage in a record, found at the opening | that record is lost, those around it are not; the file is kept as `*.corrupt` in the end | `damaged` |
//! | damage in a record, found later | replay is halted there; the next opening finds what is left | `read` |
//! | damage in a segment's header, or in one checkpoint | nothing is lost | `damaged` |
//! | damage in the queue file | no start: nothing else says whose the records are | (exit 1) |
//! | damage among dead letters | that one is lost; the file is kept as `dead-letters.corrupt` | `damaged` |
//! | damage in an entry of those that wait | its records are lost; the file is kept as `waiting.corrupt` | `damaged` |
//! | a step of the wall clock | order and counts are by number; expiries by the monotonic clock, after a restart by the wall clock | – |
//! | another process has the directory | no start | (exit 1) |
//!
//! Directory: `lock`, `queue`, `checkpoint`, `checkpoint.recent`, `seg-<first seq, 20 digits>.journal`, `dead-letters`,
//! `waiting` and `*.corrupt` for what people may want to look at. The formats are drawn in `format.rs`.

mod append;
mod dead_letters;
mod format;
pub mod handover;
mod incarnations;
mod keyed_log;
mod open;
mod overlay;
pub mod owner;
mod replay;
mod scan;
mod segment;
mod small_files;
mod storage;
mod types;
mod waiting;
mod walk;
mod window;

#[cfg(test)]
mod fault_storage;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;

use format::{Codec, QueueId};
pub use incarnations::{Incarnation, Incarnations};
use keyed_log::KeyedLog;
pub use overlay::{Overlay, OverlayFile};
use segment::{Segment, Tally};
use small_files::Checkpoints;
pub use storage::{DiskStorage, Storage, StorageFile};
pub use types::{
    APPEND_RECORDS_MAX, AppendError, Appended, Checkpoint, Damage, DeadLetter, ErrorCounts, Fsync, Health,
    MONO_MS_RETRIED, Mark, Missing, Moved, OpenError, OpenReport, ReadError, Record, ReplayedError, SEGMENT_BYTES_MAX,
    Settings, Status, SyncDone, SyncError, SyncTicket, Unsynced, WaitingEntry, WaitingName,
};
use waiting::Waiting;
use walk::{Ground, Walk};

/// The journal of one upstream. It has one owner; every call may block on the disk.
#[derive(Debug)]
pub struct Journal<S: Storage> {
    storage: S,
    settings: Settings,
    codec: Codec,
    queue_id: QueueId,
    queue_id_hex: String,
    incarnations: Incarnations,
    /// Whether the incarnation is durable.
    start: Start,
    next_seq: u64,
    next_segment_id: u64,
    segments: VecDeque<Segment>,
    writer: Writer<S::File>,
    /// The segment a sync beside is under way for.
    ticket: Option<u64>,
    /// A withdrawal that happened outside of `sync` and that `sync` has yet to tell.
    withdrawn: Option<Unsynced>,
    encoded: Vec<u8>,
    backlog: Backlog,
    checkpoint: Checkpoint,
    checkpoints: Checkpoints<S::File>,
    reading: Walk<S::File>,
    replaying: Walk<S::File>,
    letters: KeyedLog<S::File>,
    waiting: Waiting<S::File>,
    totals: Totals,
}

/// The newest segment, as far as it can be written to.
#[derive(Debug)]
enum Writer<F> {
    /// The next append starts a segment.
    Closed,
    /// `segments.back()` is appended to.
    Open(OpenSegment<F>),
    /// A write or sync of `segments.back()` failed; its unsynced records have yet to be seen to.
    Poisoned(OpenSegment<F>),
}

/// The incarnation's first step.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    /// Its number is not durable, and why: no record may carry it.
    Pending(String),
    Done,
}

#[derive(Debug)]
struct OpenSegment<F> {
    file: F,
    /// What the last successful sync covers.
    synced: Tally,
}

#[derive(Debug, Clone, Copy, Default)]
struct Backlog {
    records: u64,
    bytes: u64,
    oldest_wall_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    appended: u64,
    replayed: u64,
    poisoned: u64,
    since_checkpoint: u64,
}

impl<S: Storage> Journal<S> {
    /// 32 hex digits, kept for the directory's life.
    #[must_use]
    pub fn queue_id(&self) -> &str {
        &self.queue_id_hex
    }

    /// The openings of this directory. There is one more with each (and after 2^32 appends).
    #[must_use]
    pub fn incarnations(&self) -> &Incarnations {
        &self.incarnations
    }

    /// Why nothing can be appended since the opening; the next append, or [`Journal::begin`], tries again.
    #[must_use]
    pub fn not_begun(&self) -> Option<&str> {
        match &self.start {
            Start::Done => None,
            Start::Pending(why) => Some(why),
        }
    }

    /// The last confirmation of the upstream; `None` before the first.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        (self.checkpoint.seq > 0).then_some(&self.checkpoint)
    }

    /// The journal in numbers.
    #[must_use]
    pub fn status(&self) -> Status {
        let record_bytes: u64 = self.segments.iter().map(|segment| segment.tally.record_bytes).sum();
        let waiting = self.waiting.beyond();
        let oldest = [self.backlog.oldest_wall_ms, self.waiting.oldest_wall_ms()];
        Status {
            records: self.backlog.records + waiting.records,
            bytes: self.backlog.bytes + waiting.bytes,
            waiting_records: self.waiting.records(),
            oldest_wall_ms: oldest.into_iter().flatten().min(),
            acknowledged_total: self.totals.appended,
            replayed_total: self.totals.replayed + self.waiting.replayed(),
            retained_bytes: record_bytes.saturating_sub(self.backlog.bytes),
            disk_bytes: self.disk_bytes(),
            dead_letters: self.letters.count(),
            last_seq: self.last_seq(),
            replayed_seq: self.checkpoint.seq,
            records_since_checkpoint: self.totals.since_checkpoint,
            health: match &self.writer {
                Writer::Poisoned(open) => Health::Poisoned {
                    records_unsynced: self.back_tally().records.saturating_sub(open.synced.records),
                },
                Writer::Open(_) | Writer::Closed => Health::Sound,
            },
            poisoned_total: self.totals.poisoned,
        }
    }

    /// Records that replay has yet to look at.
    #[must_use]
    pub fn backlog_records(&self) -> u64 {
        self.backlog.records
    }

    /// Syncs what is written and makes the checkpoint durable.
    ///
    /// # Errors
    /// One of the two failed; the directory is as after a crash.
    pub fn close(mut self) -> io::Result<()> {
        match (&self.writer, self.ticket) {
            (Writer::Open(open), Some(_)) => open.file.sync()?,
            (Writer::Open(_) | Writer::Closed | Writer::Poisoned(_), _) => self.sync().map_err(|error| error.source)?,
        }
        self.checkpoints.save_durably(&self.storage, &self.checkpoint)
    }

    /// Number of the last record kept; where none is, of the last one replayed.
    fn last_seq(&self) -> u64 {
        self.segments
            .back()
            .map_or(0, |segment| segment.tally.last_seq)
            .max(self.checkpoint.seq)
    }

    fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.tally.end).sum::<u64>() + self.letters.bytes() + self.waiting.bytes()
    }

    fn back_tally(&self) -> Tally {
        self.segments.back().map_or(Tally::empty(0), |segment| segment.tally)
    }

    /// How far the last segment may be read.
    fn readable(&self) -> Tally {
        match (&self.writer, self.settings.fsync) {
            (Writer::Open(open) | Writer::Poisoned(open), Fsync::Always) => open.synced,
            (Writer::Open(_) | Writer::Poisoned(_) | Writer::Closed, Fsync::Always | Fsync::EverySec | Fsync::No) => {
                self.back_tally()
            }
        }
    }

    fn ground(&self) -> Ground<'_, S> {
        Ground {
            storage: &self.storage,
            segments: &self.segments,
            codec: self.codec,
            readable_end: self.readable().end,
        }
    }
}
