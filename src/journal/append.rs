//! Writing: appends, syncs, and what happens when they fail.

use std::io;

use super::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, segment_name};
use super::segment::{Segment, Tally};
use super::small_files::{Queue, create_afresh};
use super::storage::{Storage, StorageFile};
use super::types::{
    APPEND_RECORDS_MAX, AppendError, Appended, Fsync, SyncDone, SyncError, SyncTicket, Unsynced, is_no_room,
};
use super::window::Window;
use super::{Journal, OpenSegment, Writer};

/// A segment that is replayed wholly is sealed beyond this size, so that it can be removed.
const SEAL_BYTES: u64 = 1024 * 1024;
/// A new incarnation begins this many numbers before the counter would end.
const COUNTER_RESERVE: u64 = 1 << 24;
/// More than this is not kept of the encode buffer between appends.
const ENCODED_BYTES_KEPT: usize = 1024 * 1024;
const CARRY: &str = "carry.tmp";

impl<S: Storage> Journal<S> {
    /// Writes all payloads with one write, numbered without a gap. Nothing is synced: see [`Journal::sync`] and
    /// [`Journal::sync_beside`]. Retained segments give way when `bytes_max` is reached, and when the disk is full (for the next
    /// append: this one fails).
    ///
    /// # Errors
    /// None of the records is in the journal, see [`AppendError`].
    pub fn append(
        &mut self,
        payloads: &mut dyn Iterator<Item = &[u8]>,
        wall_ms: u64,
        mono_ms: u64,
    ) -> Result<Appended, AppendError> {
        let appended = self.write_all(payloads, wall_ms, mono_ms);
        if let Err(AppendError::Io { source }) = &appended
            && is_no_room(source)
        {
            // Where that fails too, the next append does.
            drop(self.release(self.checkpoint.seq));
        }
        appended
    }

    fn write_all(
        &mut self,
        payloads: &mut dyn Iterator<Item = &[u8]>,
        wall_ms: u64,
        mono_ms: u64,
    ) -> Result<Appended, AppendError> {
        let failed = |source| AppendError::Io { source };
        self.begin().map_err(failed)?;
        self.repair().map_err(failed)?;
        self.renew_incarnation().map_err(failed)?;
        let records = self.encode(payloads, wall_ms, mono_ms)?;
        if records == 0 {
            return Ok(Appended {
                last_seq: self.last_seq(),
                records: 0,
                bytes: 0,
            });
        }
        let bytes = self.encoded.len() as u64;
        if self.wants_new_segment(bytes) {
            self.seal().map_err(failed)?;
        }
        self.make_room(bytes)?;
        if matches!(self.writer, Writer::Closed) {
            self.start_segment().map_err(failed)?;
        }
        let offset = self.back_tally().end;
        let first_seq = self.next_seq;
        self.next_seq += records;
        let Writer::Open(open) = &mut self.writer else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        if let Err(source) = open.file.write_at(&self.encoded, offset) {
            self.write_failed();
            return Err(failed(source));
        }
        let last_seq = self.next_seq - 1;
        if let Some(segment) = self.segments.back_mut() {
            segment.note_append(first_seq, records, bytes);
        }
        self.totals.appended += records;
        self.backlog.records += records;
        self.backlog.bytes += bytes;
        self.backlog.oldest_wall_ms.get_or_insert(wall_ms);
        if self.encoded.capacity() > ENCODED_BYTES_KEPT {
            self.encoded = Vec::new();
        }
        Ok(Appended {
            last_seq,
            records,
            bytes,
        })
    }

    /// Makes everything written durable (under [`Fsync::No`] only what is in the newest segment: earlier ones are left
    /// to the kernel).
    ///
    /// # Errors
    /// The segment is poisoned; [`SyncError::unsynced`] says what became of its records.
    pub fn sync(&mut self) -> Result<(), SyncError> {
        if let Some(unsynced) = self.withdrawn.take() {
            return Err(SyncError {
                source: io::Error::other("a sync before an append failed"),
                unsynced,
            });
        }
        if self.ticket.is_some() && matches!(self.writer, Writer::Open(_)) {
            return Err(SyncError {
                source: io::ErrorKind::ResourceBusy.into(),
                unsynced: Unsynced::TicketOut,
            });
        }
        let written = self.back_tally();
        match &mut self.writer {
            Writer::Closed => Ok(()),
            Writer::Open(open) => {
                if open.synced == written {
                    return Ok(());
                }
                match open.file.sync() {
                    Ok(()) => {
                        open.synced = written;
                        Ok(())
                    }
                    Err(source) => Err(self.sync_failed(source)),
                }
            }
            Writer::Poisoned(open) => {
                let records = written.records - open.synced.records;
                self.repair().map_err(|source| SyncError {
                    source,
                    unsynced: Unsynced::Waiting { records },
                })
            }
        }
    }

    /// A sync to be run on another thread, of all that is written so far. `None` when nothing is unsynced, or one is
    /// under way. Its outcome must come back to [`Journal::sync_done`].
    ///
    /// # Errors
    /// No second handle could be had; nothing changed.
    pub fn sync_beside(&mut self) -> io::Result<Option<SyncTicket<S::File>>> {
        let (Writer::Open(open), Some(segment), None) = (&self.writer, self.segments.back(), self.ticket) else {
            return Ok(None);
        };
        if open.synced == segment.tally {
            return Ok(None);
        }
        let ticket = SyncTicket {
            file: open.file.duplicate()?,
            segment: segment.id,
            covers: segment.tally,
        };
        self.ticket = Some(segment.id);
        Ok(Some(ticket))
    }

    /// Takes the outcome of a [`SyncTicket`].
    ///
    /// # Errors
    /// As [`Journal::sync`].
    pub fn sync_done(&mut self, done: SyncDone) -> Result<(), SyncError> {
        self.ticket = None;
        if self.segments.back().is_none_or(|segment| segment.id != done.segment) {
            // Its unsynced records were carried to another segment, or are gone.
            return Ok(());
        }
        match (&mut self.writer, done.result) {
            // Poisoned meanwhile: an error may have been told to the other handle, so this success proves nothing.
            (Writer::Closed, _) | (Writer::Poisoned(_), Ok(())) => Ok(()),
            (Writer::Open(open), Ok(())) => {
                open.synced = done.covers;
                Ok(())
            }
            (Writer::Open(_) | Writer::Poisoned(_), Err(source)) => Err(self.sync_failed(source)),
        }
    }

    fn encode(
        &mut self,
        payloads: &mut dyn Iterator<Item = &[u8]>,
        wall_ms: u64,
        mono_ms: u64,
    ) -> Result<u64, AppendError> {
        self.encoded.clear();
        let mut records = 0;
        for payload in payloads {
            let fits = records < APPEND_RECORDS_MAX as u64
                && self
                    .codec
                    .encode(&mut self.encoded, self.next_seq + records, wall_ms, mono_ms, &[payload]);
            let ahead = self.encoded.len() as u64 + self.disk_bytes_needed();
            if !fits {
                return Err(AppendError::TooLarge);
            }
            if ahead > self.settings.bytes_max {
                // Not even an empty journal has this much room: do not gather more of it in memory.
                return Err(AppendError::Full {
                    bytes: self.disk_bytes(),
                    bytes_max: self.settings.bytes_max,
                });
            }
            records += 1;
        }
        Ok(records)
    }

    /// What cannot be given up for an append.
    fn disk_bytes_needed(&self) -> u64 {
        self.backlog.bytes + self.letters.bytes() + self.waiting.bytes()
    }

    /// Begins another incarnation before the counter of this one would run into the next number.
    fn renew_incarnation(&mut self) -> io::Result<()> {
        let left = (1u64 << 32) - (self.next_seq & 0xffff_ffff);
        if left > COUNTER_RESERVE || (self.ticket.is_some() && left > 2 * APPEND_RECORDS_MAX as u64) {
            return Ok(());
        }
        self.seal()?;
        let incarnations = self.incarnations.after_renewal();
        let queue = Queue {
            queue_id: self.queue_id,
            incarnations: incarnations.ok_or_else(|| io::Error::other("all incarnation numbers are used up"))?,
        };
        queue.save(&self.storage)?;
        self.incarnations = queue.incarnations;
        self.next_seq = (self.incarnations.current_ordinal() << 32) + 1;
        Ok(())
    }

    fn wants_new_segment(&self, bytes: u64) -> bool {
        let (Writer::Open(_), None, Some(segment)) = (&self.writer, self.ticket, self.segments.back()) else {
            // While a sync is under way beside, its error may be told to either handle, so the segment must stay.
            return false;
        };
        let is_replayed = segment.tally.last_seq <= self.checkpoint.seq;
        let is_full = segment.tally.end + bytes > self.settings.segment_bytes_max;
        let is_worth_removing = segment.tally.end > SEAL_BYTES.min(self.settings.segment_bytes_max / 4);
        segment.tally.records > 0 && (is_full || (is_replayed && is_worth_removing))
    }

    /// Ends the open segment; syncs it where that is promised.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        let written = self.back_tally();
        match (&mut self.writer, self.settings.fsync) {
            (Writer::Open(open), Fsync::Always | Fsync::EverySec) if open.synced != written => {
                let result = if self.ticket.is_some() {
                    Err(io::Error::other("a sync is under way beside"))
                } else {
                    open.file.sync()
                };
                match result {
                    Ok(()) => self.writer = Writer::Closed,
                    Err(source) => self.settle(source)?,
                }
            }
            (Writer::Open(_), _) => self.writer = Writer::Closed,
            (Writer::Closed | Writer::Poisoned(_), _) => {}
        }
        Ok(())
    }

    /// After a failed sync inside an append: fine when the records are carried.
    fn settle(&mut self, source: io::Error) -> io::Result<()> {
        let error = self.sync_failed(source);
        match error.unsynced {
            Unsynced::Carried { .. } | Unsynced::TicketOut => Ok(()),
            Unsynced::Withdrawn { .. } => {
                self.withdrawn = Some(error.unsynced);
                Err(error.source)
            }
            Unsynced::Waiting { .. } => Err(error.source),
        }
    }

    fn start_segment(&mut self) -> io::Result<()> {
        let header = SegmentHeader {
            version: VERSION,
            queue_id: self.queue_id,
            first_seq: self.next_seq,
            prior_last_seq: self.last_seq(),
        };
        let name = segment_name(header.first_seq);
        match self.create_segment(&name, &header) {
            Ok(file) => {
                let segment = Segment::new(self.next_segment_id, header.first_seq, header.prior_last_seq);
                self.next_segment_id += 1;
                self.writer = Writer::Open(OpenSegment {
                    file,
                    synced: segment.tally,
                });
                self.segments.push_back(segment);
                Ok(())
            }
            Err(source) => {
                // The left-over may stay; the next attempt has another name.
                let _ = self.storage.remove(&name);
                self.next_seq += 1;
                Err(source)
            }
        }
    }

    fn create_segment(&self, name: &str, header: &SegmentHeader) -> io::Result<S::File> {
        let mut file = self.storage.create(name)?;
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        self.storage.sync_dir()?;
        Ok(file)
    }

    /// Poisons the segment after a failed write and cuts off what it left. A sync of what stood there before shows
    /// whether that is in doubt too.
    fn write_failed(&mut self) {
        self.totals.poisoned += 1;
        let written = self.back_tally();
        let Writer::Open(mut open) = std::mem::replace(&mut self.writer, Writer::Closed) else {
            return;
        };
        // Best effort: where it fails, the next segment's header says that the rest does not count.
        let _ = open.file.truncate(written.end);
        // With a sync under way beside, an error of earlier writes may have been told there.
        let is_synced = open.file.sync().is_ok() && self.ticket.is_none();
        if is_synced || self.settings.fsync == Fsync::No {
            open.synced = written;
        }
        let is_in_doubt = open.synced != written;
        self.writer = Writer::Poisoned(open);
        if is_in_doubt && self.settings.fsync == Fsync::Always {
            self.withdrawn = Some(self.withdraw());
        }
    }

    /// Poisons the segment after a failed sync and sees to its unsynced records.
    fn sync_failed(&mut self, source: io::Error) -> SyncError {
        self.totals.poisoned += 1;
        self.writer = match std::mem::replace(&mut self.writer, Writer::Closed) {
            Writer::Open(open) | Writer::Poisoned(open) => Writer::Poisoned(open),
            Writer::Closed => Writer::Closed,
        };
        let unsynced = match self.settings.fsync {
            Fsync::Always => self.withdraw(),
            Fsync::EverySec | Fsync::No => {
                let records = self.unsynced_records();
                match self.repair() {
                    Ok(()) => Unsynced::Carried { records },
                    Err(_) => Unsynced::Waiting { records },
                }
            }
        };
        SyncError { source, unsynced }
    }

    fn unsynced_records(&self) -> u64 {
        match &self.writer {
            Writer::Open(open) | Writer::Poisoned(open) => self.back_tally().records - open.synced.records,
            Writer::Closed => 0,
        }
    }

    /// Takes unsynced records out of the journal: nobody was told that they are kept.
    fn withdraw(&mut self) -> Unsynced {
        let (Writer::Poisoned(mut open), Some(segment)) = (
            std::mem::replace(&mut self.writer, Writer::Closed),
            self.segments.back_mut(),
        ) else {
            return Unsynced::Withdrawn {
                after_seq: self.last_seq(),
                records: 0,
            };
        };
        let records = segment.tally.records - open.synced.records;
        let bytes = segment.tally.record_bytes - open.synced.record_bytes;
        let _ = open.file.truncate(open.synced.end);
        segment.cut(open.synced);
        self.totals.appended = self.totals.appended.saturating_sub(records);
        self.backlog.records = self.backlog.records.saturating_sub(records);
        self.backlog.bytes = self.backlog.bytes.saturating_sub(bytes);
        if self.backlog.records == 0 {
            self.backlog.oldest_wall_ms = None;
        }
        self.reading.reset();
        self.replaying.reset();
        self.drop_empty_back();
        Unsynced::Withdrawn {
            after_seq: self.last_seq(),
            records,
        }
    }

    /// Makes a poisoned journal writable again: its unsynced records first reach a segment of their own.
    pub(super) fn repair(&mut self) -> io::Result<()> {
        let written = self.back_tally();
        let Writer::Poisoned(open) = &mut self.writer else {
            return Ok(());
        };
        if open.synced == written {
            self.writer = Writer::Closed;
            self.drop_empty_back();
            return Ok(());
        }
        match self.settings.fsync {
            Fsync::Always => {
                self.withdrawn = Some(self.withdraw());
                Ok(())
            }
            Fsync::EverySec | Fsync::No => self.carry(),
        }
    }

    /// Copies the unsynced records to a new segment, which appears whole and durable or not at all.
    fn carry(&mut self) -> io::Result<()> {
        let (Writer::Poisoned(open), Some(segment)) = (&self.writer, self.segments.back()) else {
            return Ok(());
        };
        let mut carried = self.copy_unsynced(&open.file, segment, open.synced)?;
        let synced = open.synced;
        carried.id = self.next_segment_id;
        self.storage.rename(CARRY, &carried.name())?;
        self.storage.sync_dir()?;
        self.next_segment_id += 1;
        let name = carried.name();
        if let Some(segment) = self.segments.back_mut() {
            segment.cut(synced);
            if segment.tally.records == 0 {
                if segment.name() != name {
                    let _ = self.storage.remove(&segment.name());
                }
                self.segments.pop_back();
            }
        }
        self.segments.push_back(carried);
        self.writer = Writer::Closed;
        self.reading.reset();
        self.replaying.reset();
        Ok(())
    }

    fn copy_unsynced(&self, from: &S::File, segment: &Segment, synced: Tally) -> io::Result<Segment> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let mut window = Window::default();
        let mut file = create_afresh(&self.storage, CARRY)?;
        let mut carried: Option<Segment> = None;
        let mut offset = synced.end;
        while offset < segment.tally.end {
            let head = window.at(from, offset, RECORD_HEADER_BYTES as u64, segment.tally.end)?;
            let head = super::format::Head::parse(head).ok_or_else(damaged)?;
            if head.record_bytes() > segment.tally.end - offset {
                return Err(damaged());
            }
            let record = window.at(from, offset, head.record_bytes(), segment.tally.end)?;
            let record = record.get(..head.record_bytes() as usize).ok_or_else(damaged)?;
            if !self.codec.is_valid(record) {
                return Err(damaged());
            }
            let carried = carried.get_or_insert_with(|| Segment::new(0, head.seq, synced.last_seq));
            file.write_at(record, carried.tally.end)?;
            carried.note(head.seq, carried.tally.end, head.record_bytes());
            offset += head.record_bytes();
        }
        let carried = carried.ok_or_else(damaged)?;
        let (first_seq, prior_last_seq) = (carried.first_seq, carried.prior_last_seq);
        let header = SegmentHeader {
            version: VERSION,
            queue_id: self.queue_id,
            first_seq,
            prior_last_seq,
        };
        debug_assert_eq!(header.encode().len() as u64, SEGMENT_HEADER_BYTES);
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        Ok(carried)
    }

    fn drop_empty_back(&mut self) {
        if let Some(segment) = self.segments.back().filter(|segment| segment.tally.records == 0) {
            let _ = self.storage.remove(&segment.name());
            self.segments.pop_back();
        }
    }
}
