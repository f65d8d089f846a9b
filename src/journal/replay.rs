//! Reading, and what happens to records once they are replayed.

use std::io;

use super::format::SEGMENT_HEADER_BYTES;
use super::segment::{Segment, holds};
use super::storage::Storage;
use super::types::{AppendError, Checkpoint, Mark, Moved, ReadError, Record, ReplayedError};
use super::walk::Depth;
use super::{Backlog, Journal, Writer};

impl<S: Storage> Journal<S> {
    /// The records after `after_seq` in order, retained ones too: at most `records_max`, and no more than `bytes_max`
    /// of payload, but at least one where there is one. Reading on from the last one costs no search.
    ///
    /// # Errors
    /// The first record cannot be read. (A later one ends the answer early; the next call tells.)
    pub fn read(&mut self, after_seq: u64, records_max: usize, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut after_seq = after_seq;
        let mut reading = std::mem::take(&mut self.reading);
        let ground = self.ground();
        let outcome = loop {
            if records.len() >= records_max {
                break Ok(());
            }
            let step = match reading.peek(&ground, after_seq, Depth::Whole) {
                Ok(Some(step)) => step,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            bytes += step.payload.len();
            if bytes > bytes_max && !records.is_empty() {
                break Ok(());
            }
            reading.pass(&step);
            after_seq = step.head.seq;
            records.push(Record {
                seq: step.head.seq,
                wall_ms: step.head.wall_ms,
                mono_ms: step.head.mono_ms,
                payload: step.payload,
            });
        };
        self.reading = reading;
        match outcome {
            Err(error) if records.is_empty() => {
                self.reading.reset();
                Err(error)
            }
            Ok(()) | Err(_) => Ok(records),
        }
    }

    /// The upstream has confirmed everything up to `seq`. Nothing happens when that was known. The checkpoint moves in
    /// memory only: see [`Journal::save_checkpoint`].
    ///
    /// # Errors
    /// Nothing changed.
    pub fn replayed(&mut self, seq: u64, mark: &Mark, wall_ms: u64) -> Result<Moved, ReplayedError> {
        if seq <= self.checkpoint.seq {
            return Ok(Moved::default());
        }
        let last_seq = self.readable_last_seq();
        if seq > last_seq {
            return Err(ReplayedError::Ahead { seq, last_seq });
        }
        let (moved, oldest_wall_ms) = if seq == self.last_seq() {
            (
                Moved {
                    records: self.backlog.records,
                    bytes: self.backlog.bytes,
                },
                None,
            )
        } else {
            self.count(self.checkpoint.seq, seq)?
        };
        self.backlog = Backlog {
            records: self.backlog.records - moved.records,
            bytes: self.backlog.bytes - moved.bytes,
            oldest_wall_ms,
        };
        self.checkpoint = Checkpoint {
            seq,
            wall_ms,
            mark: mark.clone(),
        };
        // Those that wait for their identity count when they leave.
        self.totals.replayed += moved.records.saturating_sub(self.waiting.passed(seq));
        self.totals.since_checkpoint += moved.records;
        for segment in &mut self.segments {
            if segment.tally.last_seq <= seq {
                segment.replayed_wall_ms.get_or_insert(wall_ms);
            }
        }
        if let (Writer::Open(_), Some(segment)) = (&self.writer, self.segments.back_mut())
            && segment.replayed_wall_ms.is_some()
        {
            // The open segment may have been done before and have grown since.
            segment.replayed_wall_ms = Some(wall_ms);
        }
        Ok(moved)
    }

    /// Writes the checkpoint without a sync: after a power cut an older one may stand. Every 1,000 records or so will
    /// do, since the marker in Redis is the truth.
    ///
    /// # Errors
    /// An older checkpoint stands.
    pub fn save_checkpoint(&mut self) -> io::Result<()> {
        self.checkpoints.save_recent(&self.storage, &self.checkpoint)?;
        self.totals.since_checkpoint = 0;
        Ok(())
    }

    /// The upstream lost everything after `seq` (a failover): such records that are still kept are backlog again,
    /// durably. Returns what became backlog.
    ///
    /// # Errors
    /// The checkpoint may or may not be moved on disk; in memory nothing changed.
    pub fn rewind(&mut self, seq: u64) -> Result<Moved, ReplayedError> {
        let Some(first) = self.segments.front() else {
            return Ok(Moved::default());
        };
        let seq = seq.max(first.prior_last_seq);
        if seq >= self.checkpoint.seq {
            return Ok(Moved::default());
        }
        let (moved, _) = self.count(seq, self.checkpoint.seq)?;
        let oldest = self.first_wall_ms(seq)?;
        let waiting = self
            .waiting
            .after(seq, &|record_seq| record_seq > seq && holds(&self.segments, record_seq))?;
        let checkpoint = Checkpoint {
            seq,
            ..self.checkpoint.clone()
        };
        self.checkpoints.save_durably(&self.storage, &checkpoint)?;
        self.checkpoint = checkpoint;
        self.waiting.rewound(waiting);
        self.totals.since_checkpoint = 0;
        self.backlog = Backlog {
            records: self.backlog.records + moved.records,
            bytes: self.backlog.bytes + moved.bytes,
            oldest_wall_ms: oldest,
        };
        for segment in &mut self.segments {
            if segment.tally.last_seq > seq {
                segment.replayed_wall_ms = None;
            }
        }
        Ok(moved)
    }

    /// Retained records up to `upto_seq` are not needed any more. Whole segments go; returns what went with them.
    ///
    /// # Errors
    /// Nothing is lost; segments may be kept longer.
    pub fn release(&mut self, upto_seq: u64) -> io::Result<Moved> {
        let upto_seq = upto_seq.min(self.checkpoint.seq);
        let segments = self
            .segments
            .iter()
            .take_while(|segment| segment.tally.last_seq <= upto_seq)
            .count();
        self.remove_front(segments)
    }

    /// As [`Journal::release`], for segments whose last record was replayed at or before `wall_ms`.
    ///
    /// # Errors
    /// Nothing is lost; segments may be kept longer.
    pub fn release_older(&mut self, wall_ms: u64) -> io::Result<Moved> {
        let is_old = |segment: &&Segment| segment.replayed_wall_ms.is_some_and(|replayed| replayed <= wall_ms);
        let upto_seq = self.checkpoint.seq;
        let segments = self
            .segments
            .iter()
            .take_while(is_old)
            .take_while(|segment| segment.tally.last_seq <= upto_seq)
            .count();
        self.remove_front(segments)
    }

    /// Gives up all records, replayed or not, those that wait too, durably. Returns what of them was backlog or waited.
    ///
    /// # Errors
    /// When the checkpoint could not be moved, nothing changed; else only files are left over.
    pub fn drop_backlog(&mut self) -> io::Result<Moved> {
        let waiting = self.waiting.beyond();
        let dropped = Moved {
            records: self.backlog.records + waiting.records,
            bytes: self.backlog.bytes + waiting.bytes,
        };
        let checkpoint = Checkpoint {
            seq: self.last_seq(),
            ..self.checkpoint.clone()
        };
        self.checkpoints.save_durably(&self.storage, &checkpoint)?;
        self.checkpoint = checkpoint;
        self.backlog = Backlog::default();
        self.waiting.clear(&self.storage)?;
        self.remove_front(self.segments.len())?;
        Ok(dropped)
    }

    /// Gives up retained segments until `bytes` more fit.
    pub(super) fn make_room(&mut self, bytes: u64) -> Result<(), AppendError> {
        let header = match self.writer {
            Writer::Open(_) => 0,
            Writer::Closed | Writer::Poisoned(_) => SEGMENT_HEADER_BYTES,
        };
        let bytes_max = self.settings.bytes_max;
        let used = self.disk_bytes();
        let mut left = used + bytes + header;
        if left <= bytes_max {
            return Ok(());
        }
        let mut segments = 0;
        for segment in &self.segments {
            if left <= bytes_max || segment.tally.last_seq > self.checkpoint.seq {
                break;
            }
            left -= segment.tally.end;
            segments += 1;
        }
        if segments == self.segments.len() && header == 0 {
            left += SEGMENT_HEADER_BYTES;
        }
        if left > bytes_max {
            return Err(AppendError::Full { bytes: used, bytes_max });
        }
        self.remove_front(segments)
            .map_err(|source| AppendError::Io { source })?;
        Ok(())
    }

    /// Removes segments that are replayed, the checkpoint durable first.
    fn remove_front(&mut self, segments: usize) -> io::Result<Moved> {
        let mut removed = Moved::default();
        if segments == 0 {
            return Ok(removed);
        }
        self.checkpoints.save_durably(&self.storage, &self.checkpoint)?;
        self.totals.since_checkpoint = 0;
        for _ in 0..segments {
            let Some(segment) = self.segments.front() else { break };
            let name = segment.name();
            let result = if segment.is_damaged {
                self.storage.rename(&name, &format!("{name}.corrupt"))
            } else {
                self.storage.remove(&name)
            };
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            removed.records += segment.tally.records;
            removed.bytes += segment.tally.record_bytes;
            self.segments.pop_front();
        }
        if self.segments.is_empty() {
            self.writer = Writer::Closed;
            self.reading.reset();
            self.replaying.reset();
        }
        self.storage.sync_dir()?;
        Ok(removed)
    }

    /// Counts the records with `after_seq < seq <= upto_seq`, and looks at the one after them.
    fn count(&mut self, after_seq: u64, upto_seq: u64) -> Result<(Moved, Option<u64>), ReadError> {
        let mut walk = std::mem::take(&mut self.replaying);
        let ground = self.ground();
        let mut moved = Moved::default();
        let mut after_seq = after_seq;
        let next = loop {
            let Some(step) = walk.peek(&ground, after_seq, Depth::Heads)? else {
                break None;
            };
            if step.head.seq > upto_seq {
                break Some(step.head.wall_ms);
            }
            walk.pass(&step);
            after_seq = step.head.seq;
            moved.records += 1;
            moved.bytes += step.head.record_bytes();
        };
        walk.settle(after_seq, upto_seq);
        self.replaying = walk;
        Ok((moved, next))
    }

    fn first_wall_ms(&mut self, after_seq: u64) -> Result<Option<u64>, ReadError> {
        Ok(self.count(after_seq, after_seq)?.1)
    }

    fn readable_last_seq(&self) -> u64 {
        match self.segments.back() {
            Some(_) => self.readable().last_seq.max(self.checkpoint.seq),
            None => self.checkpoint.seq,
        }
    }
}
