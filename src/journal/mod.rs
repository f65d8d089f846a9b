//! The durable queue: records in segments, and how far replay got.

pub mod handover;
pub mod owner;
mod segment;
mod storage;
mod types;

use std::io;
pub use storage::{DiskStorage, Storage, StorageFile};
pub use types::{
    APPEND_RECORDS_MAX, AppendError, Appended, Checkpoint, Damage, DeadLetter, Fsync, Health, Mark, Missing, Moved,
    OpenError, OpenReport, ReadError, Record, ReplayedError, SEGMENT_BYTES_MAX, Settings, Status, SyncDone, SyncError,
    SyncTicket, Unsynced,
};

/// The journal of one upstream. One owner at a time; every call may block on the disk.
#[derive(Debug)]
pub struct Journal<S: Storage> {
    storage: S,
    settings: Settings,
    queue_id: String,
}

#[allow(missing_docs, unused_variables, clippy::missing_errors_doc)]
impl<S: Storage> Journal<S> {
    /// `fresh_queue_id` is used when the directory has none yet.
    pub fn open(
        storage: S,
        settings: Settings,
        fresh_queue_id: [u8; 16],
        wall_ms: u64,
    ) -> Result<(Self, OpenReport), OpenError> {
        Err(OpenError::Locked)
    }
    /// 32 hex digits, kept for the directory's life.
    pub fn queue_id(&self) -> &str {
        &self.queue_id
    }
    /// The incarnation that the next append gets (`seq >> 32`).
    pub fn incarnation(&self) -> u64 {
        0
    }
    pub fn knows_incarnation(&self, incarnation: u64) -> bool {
        false
    }
    /// Writes all payloads with one write. Not synced: see `sync`.
    pub fn append<'a>(
        &mut self,
        payloads: &mut dyn Iterator<Item = &'a [u8]>,
        wall_ms: u64,
        mono_ms: u64,
    ) -> Result<Appended, AppendError> {
        Err(AppendError::TooLarge)
    }
    pub fn sync(&mut self) -> Result<(), SyncError> {
        Ok(())
    }
    /// `None`: nothing to sync, or a ticket is out. While one is out, `sync` waits for nobody: it fails with `ResourceBusy`.
    pub fn sync_beside(&mut self) -> Result<Option<SyncTicket<S::File>>, SyncError> {
        Ok(None)
    }
    pub fn sync_done(&mut self, done: SyncDone) -> Result<(), SyncError> {
        Ok(())
    }
    pub fn read(&mut self, after_seq: u64, records_max: usize, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        Ok(Vec::new())
    }
    /// In memory only; see `save_checkpoint`. No-op when `seq` is not beyond the checkpoint.
    pub fn replayed(&mut self, seq: u64, mark: &Mark, wall_ms: u64) -> Result<Moved, ReplayedError> {
        Ok(Moved::default())
    }
    /// Not synced (may lag after a power cut). Every ~1000 records will do.
    pub fn save_checkpoint(&mut self) -> io::Result<()> {
        Ok(())
    }
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        None
    }
    /// Records after `seq` that are still kept are backlog again; durable.
    pub fn rewind(&mut self, seq: u64) -> Result<Moved, ReplayedError> {
        Ok(Moved::default())
    }
    /// Removes segments that hold replayed records up to `upto_seq` only.
    pub fn release(&mut self, upto_seq: u64) -> io::Result<Moved> {
        Ok(Moved::default())
    }
    /// Removes segments whose last record was replayed at or before `wall_ms`.
    pub fn release_older(&mut self, wall_ms: u64) -> io::Result<Moved> {
        Ok(Moved::default())
    }
    /// Durable when it returns; `false` when that record is a dead letter already.
    pub fn dead_letter(&mut self, seq: u64, reason: &str, error: &str, payload: &[u8]) -> io::Result<bool> {
        Ok(false)
    }
    pub fn dead_letters(&mut self) -> io::Result<Vec<DeadLetter>> {
        Ok(Vec::new())
    }
    pub fn dead_letters_after(&mut self, after_seq: u64, letters_max: usize) -> io::Result<Vec<DeadLetter>> {
        Ok(Vec::new())
    }
    /// `false` when there is none.
    pub fn drop_dead_letter(&mut self, seq: u64) -> io::Result<bool> {
        Ok(false)
    }
    /// Gives up all records, durable.
    pub fn drop_backlog(&mut self) -> io::Result<Moved> {
        Ok(Moved::default())
    }
    pub fn status(&self) -> Status {
        Status {
            records: 0,
            bytes: 0,
            oldest_wall_ms: None,
            acknowledged_total: 0,
            replayed_total: 0,
            retained_bytes: 0,
            disk_bytes: 0,
            dead_letters: 0,
            last_seq: 0,
            replayed_seq: 0,
            records_since_checkpoint: 0,
            health: Health::Sound,
            poisoned_total: 0,
        }
    }
    /// Syncs, saves the checkpoint durably.
    pub fn close(self) -> io::Result<()> {
        Ok(())
    }
}
