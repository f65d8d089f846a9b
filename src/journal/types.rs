//! What the journal takes and gives: settings, records, reports and errors.

use std::io;

use bytes::Bytes;
use thiserror::Error;

use super::storage::StorageFile;

/// What an acknowledgement promises, as Redis's `appendfsync`. The owner keeps the rhythm; the journal only needs to
/// know what an unsynced record is worth: under [`Fsync::Always`] it was never acknowledged, otherwise it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// `sync` after each append, before its records are acknowledged.
    Always,
    /// Acknowledged when written; synced within about a second.
    EverySec,
    /// Acknowledged when written; synced when the kernel likes.
    No,
}

/// How a journal behaves.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What an acknowledgement promises.
    pub fsync: Fsync,
    /// Most bytes that backlog, waiting records, retained records and dead letters together may take on disk. (What waits already counts,
    /// but is never turned away.)
    pub bytes_max: u64,
    /// A segment is sealed before it would grow beyond this (one append larger than it gets a segment of its own).
    pub segment_bytes_max: u64,
}

/// The usual size of a segment.
pub const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Most records that one append takes.
pub const APPEND_RECORDS_MAX: usize = 1 << 20;

/// The monotonic time of a record that was a dead letter and was put back: the wall clock tells its age.
pub const MONO_MS_RETRIED: u64 = u64::MAX;

/// One record as read back. The payload is a slice of the chunk it was read with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number: `incarnation's ordinal << 32 | counter`, ascending, with gaps.
    pub seq: u64,
    /// Wall clock at its append, milliseconds since 1970.
    pub wall_ms: u64,
    /// Monotonic clock at its append, milliseconds since an origin of the caller's, or [`MONO_MS_RETRIED`].
    pub mono_ms: u64,
    /// The caller's bytes.
    pub payload: Bytes,
}

/// What an append wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Number of the last record written (of the last one before, when there were none). The records of one append
    /// are numbered without a gap, so the first is `last_seq + 1 - records`.
    pub last_seq: u64,
    /// Records written.
    pub records: u64,
    /// Bytes they take on disk.
    pub bytes: u64,
}

/// What the checkpoint stores beside the sequence number: the upstream that confirmed it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mark {
    /// The server's `run_id`.
    pub run_id: String,
    /// Its `master_replid`.
    pub replid: String,
    /// Its `master_repl_offset` after the batch.
    pub offset: i64,
}

/// How far replay got, as last confirmed by the upstream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Last record replayed; 0 before the first.
    pub seq: u64,
    /// Wall clock of the confirmation, milliseconds since 1970.
    pub wall_ms: u64,
    /// Who confirmed it.
    pub mark: Mark,
}

/// What [`Journal::replayed`](super::Journal::replayed) moved out of the backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Records moved.
    pub records: u64,
    /// Bytes they take on disk.
    pub bytes: u64,
}

/// A record that the upstream refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The record's number.
    pub seq: u64,
    /// Wall clock when the write was accepted, milliseconds since 1970; 0 where that is not known.
    pub wall_ms: u64,
    /// Why, as a word (`wrong_type`, `too_old`).
    pub reason: String,
    /// What the upstream said.
    pub error: String,
    /// The record's bytes.
    pub payload: Bytes,
}

/// Somebody whose records wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingName {
    /// As the caller named it.
    pub name: Vec<u8>,
    /// How many.
    pub records: u64,
    /// First and last number of each entry, ascending: of this name, all records in between wait (or are dead letters).
    pub ranges: Vec<(u64, u64)>,
}

/// Records of one name that wait, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingEntry {
    /// The number of the first of them.
    pub key: u64,
    /// Whose they are.
    pub name: Vec<u8>,
    /// Some of them may have been applied.
    pub is_begun: bool,
    /// The records.
    pub records: Vec<Record>,
}

/// Whether the journal's newest segment can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known against it.
    Sound,
    /// A write or a sync failed; the next append starts a new segment.
    Poisoned {
        /// Acknowledged records that stand in the poisoned segment only and were never synced. They are readable; the
        /// next append or sync first copies them to a new segment.
        records_unsynced: u64,
    },
}

/// The journal in numbers. `records`, `bytes` and `oldest_wall_ms` count the backlog and what waits for its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Records not yet replayed.
    pub records: u64,
    /// Bytes they take on disk.
    pub bytes: u64,
    /// How many of them wait for their identity.
    pub waiting_records: u64,
    /// Wall clock at the append of the oldest of them.
    pub oldest_wall_ms: Option<u64>,
    /// Records appended (and not withdrawn) since this opening.
    pub acknowledged_total: u64,
    /// Records replayed since this opening (again after a rewind, counted again).
    pub replayed_total: u64,
    /// Bytes of records that are replayed and still kept.
    pub retained_bytes: u64,
    /// Bytes of all files that `bytes_max` bounds.
    pub disk_bytes: u64,
    /// Dead letters kept.
    pub dead_letters: u64,
    /// Number of the last record in the journal; where all are gone, of the last one replayed.
    pub last_seq: u64,
    /// Number of the last record replayed, 0 before the first.
    pub replayed_seq: u64,
    /// Records replayed since the checkpoint was last written.
    pub records_since_checkpoint: u64,
    /// Whether the newest segment can be written to.
    pub health: Health,
    /// Segments poisoned since this opening.
    pub poisoned_total: u64,
}

/// Bytes of a segment that hold no valid record though they should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file. It stays in place while records around the damage are needed, and is renamed to `*.corrupt` then.
    pub file: String,
    /// Where the damage begins.
    pub offset: u64,
    /// How far it reaches.
    pub bytes: u64,
}

/// Records that were in the journal and are not there any more: `after_seq < seq <= upto_seq`, as far as used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The last record found before the gap.
    pub after_seq: u64,
    /// The last number known to be missing.
    pub upto_seq: u64,
}

/// What opening found. Nothing is given up without a line here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenReport {
    /// Segments found with at least one record.
    pub segments: usize,
    /// Valid records found, retained ones too.
    pub records: u64,
    /// Records of them that are not yet replayed.
    pub backlog_records: u64,
    /// Bytes cut from the end of the last segment: an append that a crash cut short.
    pub torn_bytes: u64,
    /// Damage inside segments; valid records before and after it are kept.
    pub damage: Vec<Damage>,
    /// Records lost with damaged or vanished segments.
    pub missing: Vec<Missing>,
    /// Files without one valid record that were removed or renamed to `*.corrupt`.
    pub files_given_up: Vec<String>,
    /// Bytes of checkpoint files that could not be read; replay starts at what is left (or at the oldest record).
    pub checkpoints_unreadable: usize,
    /// Bytes of the dead-letter file that hold no valid letter (kept as `dead-letters.corrupt-*`, unless a torn tail).
    pub dead_letter_bytes_unreadable: u64,
    /// Likewise of the file of those that wait.
    pub waiting_bytes_unreadable: u64,
}

/// Why a journal cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("the journal directory is in use by another process")]
    Locked,
    /// A file that nothing can stand in for is damaged, or of another queue.
    #[error("{file} is damaged at byte {offset}: {what}")]
    Corrupt {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// All incarnation numbers are used up.
    #[error("the journal has been opened too often")]
    Exhausted,
    /// The disk.
    #[error("{file}: {source}")]
    Io {
        /// The file, or `.` for the directory.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Why nothing was appended. In each case none of the records is in the journal, and the numbers of records before
/// them are untouched.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The records would not fit into `bytes_max`, also after all retained ones were given up.
    #[error("the journal is full: {bytes} bytes of at most {bytes_max}")]
    Full {
        /// Bytes in use.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// More than [`APPEND_RECORDS_MAX`] records, or one of 4 GiB.
    #[error("too much for one append")]
    TooLarge,
    /// A write failed (or a sync that had to come first). The segment is poisoned; the next append starts a new one.
    #[error("the journal cannot be written: {source}")]
    Io {
        /// What the system said.
        source: io::Error,
    },
}

/// A sync failed. The segment is poisoned; the sync is not tried again on it.
#[derive(Debug, Error)]
#[error("the journal cannot be synced: {source}")]
pub struct SyncError {
    /// What the system said.
    pub source: io::Error,
    /// What became of the unsynced records.
    pub unsynced: Unsynced,
}

/// What became of records that a failed sync leaves in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// [`Fsync::Always`]: all records after `after_seq` are taken out of the journal; none may be acknowledged.
    Withdrawn {
        /// The last record that stays.
        after_seq: u64,
        /// How many were taken out.
        records: u64,
    },
    /// They were acknowledged, and are now synced in a new segment under their old numbers.
    Carried {
        /// How many.
        records: u64,
    },
    /// They were acknowledged and could not be copied yet; appends fail until they are.
    Waiting {
        /// How many.
        records: u64,
    },
    /// Nothing was tried, since a [`SyncTicket`] is out: the segment is not poisoned.
    TicketOut,
}

/// Whether a write failed for want of room: on the disk, in a quota, or below a limit of the process.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Errors since an opening, by what could not be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErrorCounts {
    /// Appends that the disk had no room for.
    pub no_room: u64,
    /// Appends that `bytes_max` left no room for.
    pub full: u64,
    /// Other appends that failed.
    pub append: u64,
    /// Syncs.
    pub sync: u64,
    /// Checkpoints.
    pub checkpoint: u64,
    /// Reads of records that are damaged or that the disk does not give.
    pub read: u64,
    /// Writes and reads of dead letters.
    pub dead_letters: u64,
    /// Writes and reads of records that wait for their identity.
    pub waiting: u64,
}

impl ErrorCounts {
    /// Each kind's name and count.
    #[must_use]
    pub fn by_kind(&self) -> [(&'static str, u64); 8] {
        [
            ("no_room", self.no_room),
            ("full", self.full),
            ("append", self.append),
            ("sync", self.sync),
            ("checkpoint", self.checkpoint),
            ("read", self.read),
            ("dead_letters", self.dead_letters),
            ("waiting", self.waiting),
        ]
    }
}

/// Why records cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// A record was valid at opening and is not now. Opening again finds what is left.
    #[error("{file} is damaged at byte {offset}")]
    Corrupt {
        /// The segment.
        file: String,
        /// Where.
        offset: u64,
    },
    /// The disk.
    #[error("{file}: {source}")]
    Io {
        /// The segment.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Why the checkpoint did not move.
#[derive(Debug, Error)]
pub enum ReplayedError {
    /// No record that far has been written (and, under [`Fsync::Always`], synced).
    #[error("record {seq} is beyond the last one, {last_seq}")]
    Ahead {
        /// The number given.
        seq: u64,
        /// The last readable record.
        last_seq: u64,
    },
    /// The records in between cannot be read, so not counted.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The checkpoint could not be made durable; nothing changed.
    #[error("checkpoint: {0}")]
    Io(#[from] io::Error),
}

/// A sync to be done on another thread: [`SyncTicket::run`] there, then
/// [`Journal::sync_done`](super::Journal::sync_done) here.
#[derive(Debug)]
pub struct SyncTicket<F> {
    pub(super) file: F,
    pub(super) segment: u64,
    pub(super) covers: super::segment::Tally,
}

impl<F: StorageFile> SyncTicket<F> {
    /// Syncs; blocks as long as the disk takes.
    #[must_use = "the journal waits for the outcome"]
    pub fn run(self) -> SyncDone {
        SyncDone {
            result: self.file.sync(),
            segment: self.segment,
            covers: self.covers,
        }
    }
}

/// The outcome of a [`SyncTicket`].
#[derive(Debug)]
pub struct SyncDone {
    pub(super) result: io::Result<()>,
    pub(super) segment: u64,
    pub(super) covers: super::segment::Tally,
}
