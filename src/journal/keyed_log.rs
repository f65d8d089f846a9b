//! A durable log of entries by number, each until it is dropped: the dead letters, and the records that wait for their identity. What is
//! added or dropped together is one write and one sync.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::format::{Codec, Head, QueueId, RECORD_HEADER_BYTES, VERSION};
use super::scan::{Area, Numbers, Tail, scan};
use super::small_files::create_afresh;
use super::storage::{Storage, StorageFile};

const HEADER_BYTES: u64 = 28;
const KIND_ENTRY: u64 = 1;
const KIND_DROPPED: u64 = 2;
const KIND_BEGUN: u64 = 3;

/// The files of one log.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) file: &'static str,
    pub(super) temporary: &'static str,
    pub(super) corrupt: &'static str,
    pub(super) magic: &'static [u8; 8],
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    bytes: u64,
    progress: Progress,
}

/// An entry to be added.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) seq: u64,
    /// A time of the caller's.
    pub(super) wall_ms: u64,
    pub(super) payload: Vec<u8>,
}

/// How far an entry is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Untouched,
    Begun,
}

#[derive(Debug)]
enum Log<F> {
    /// No file yet, or one that must not be appended to any more: it is written afresh first.
    Unfit,
    Open {
        file: F,
        end: u64,
    },
}

#[derive(Debug)]
pub(super) struct KeyedLog<F> {
    names: &'static Names,
    queue_id: QueueId,
    codec: Codec,
    entries: BTreeMap<u64, Place>,
    log: Log<F>,
    /// Where the entries can be read, when the log is unfit.
    old: Option<F>,
}

impl<F: StorageFile> KeyedLog<F> {
    /// Reads the log. Returns also how many bytes hold no valid entry; if it is more than a torn tail, the file is kept
    /// as `*.corrupt`, and a new one holds the valid entries.
    pub(super) fn load<S: Storage<File = F>>(
        storage: &S,
        names: &'static Names,
        queue_id: QueueId,
        codec: Codec,
    ) -> io::Result<(Self, u64)> {
        let mut this = Self {
            names,
            queue_id,
            codec,
            entries: BTreeMap::new(),
            log: Log::Unfit,
            old: None,
        };
        let mut file = match storage.open(names.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((this, 0)),
            Err(error) => return Err(error),
        };
        let size = file.size()?;
        let mut header = vec![0; HEADER_BYTES as usize];
        let has_header = file.read_at(&mut header, 0)? == header.len() && header == this.header();
        let area = Area {
            start: HEADER_BYTES.min(size),
            size,
            numbers: Numbers::Any,
        };
        let entries = &mut this.entries;
        let mut end = HEADER_BYTES;
        let (holes, tail) = scan(&file, codec, area, &mut |seen| {
            let place = Place {
                offset: seen.offset,
                bytes: seen.head.record_bytes(),
                progress: Progress::Untouched,
            };
            end = seen.offset + place.bytes;
            match seen.head.wall_ms {
                KIND_ENTRY => drop(entries.insert(seen.head.seq, place)),
                KIND_BEGUN => {
                    if let Some(place) = entries.get_mut(&seen.head.seq) {
                        place.progress = Progress::Begun;
                    }
                }
                _ => drop(entries.remove(&seen.head.seq)),
            }
        })?;
        let torn = match tail {
            Tail::Clean => 0,
            Tail::Bad(bytes) => bytes,
        };
        let damaged: u64 = holes.iter().map(|hole| hole.end - hole.start).sum();
        if damaged > 0 || !has_header {
            this.old = Some(file);
            this.keep_aside(storage)?;
            this.rewrite(storage)?;
        } else {
            if torn > 0 {
                file.truncate(end)?;
                file.sync()?;
            }
            this.log = Log::Open { file, end };
        }
        Ok((this, damaged + torn))
    }

    pub(super) fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.entries.contains_key(&seq)
    }

    pub(super) fn progress(&self, seq: u64) -> Progress {
        self.entries
            .get(&seq)
            .map_or(Progress::Untouched, |place| place.progress)
    }

    /// The numbers after `after_seq`, ascending.
    pub(super) fn seqs_after(&self, after_seq: u64) -> impl Iterator<Item = u64> {
        self.entries.range(after_seq.saturating_add(1)..).map(|(&seq, _)| seq)
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        match &self.log {
            Log::Unfit => self.live_bytes(),
            Log::Open { end, .. } => *end,
        }
    }

    fn live_bytes(&self) -> u64 {
        self.entries.values().map(|place| place.bytes).sum()
    }

    /// What an entry holds, and the time that it was given.
    pub(super) fn read(&self, seq: u64) -> io::Result<(u64, Bytes)> {
        let place = self.entries.get(&seq).ok_or(io::ErrorKind::NotFound)?;
        let record = self.record(place)?;
        let head = Head::parse(&record).ok_or(io::ErrorKind::InvalidData)?;
        Ok((head.mono_ms, record.slice(RECORD_HEADER_BYTES..)))
    }

    /// Adds entries, durably, all or none; their numbers must be new.
    pub(super) fn add<S: Storage<File = F>>(&mut self, storage: &S, entries: &[Entry]) -> io::Result<()> {
        let places = self.write(
            storage,
            KIND_ENTRY,
            &mut entries
                .iter()
                .map(|entry| (entry.seq, entry.wall_ms, &entry.payload[..])),
        )?;
        self.entries.extend(places);
        Ok(())
    }

    /// Notes, durably, that an entry is on its way out.
    pub(super) fn begin<S: Storage<File = F>>(&mut self, storage: &S, seq: u64) -> io::Result<()> {
        if self.progress(seq) == Progress::Begun || !self.contains(seq) {
            return Ok(());
        }
        self.write(storage, KIND_BEGUN, &mut std::iter::once((seq, 0, &[][..])))?;
        if let Some(place) = self.entries.get_mut(&seq) {
            place.progress = Progress::Begun;
        }
        Ok(())
    }

    /// Drops entries, durably; those that are not there count for nothing. Returns how many went.
    pub(super) fn drop_entries<S: Storage<File = F>>(&mut self, storage: &S, seqs: &[u64]) -> io::Result<u64> {
        let there: Vec<u64> = seqs.iter().copied().filter(|seq| self.contains(*seq)).collect();
        if there.is_empty() {
            return Ok(0);
        }
        self.write(storage, KIND_DROPPED, &mut there.iter().map(|seq| (*seq, 0, &[][..])))?;
        for seq in &there {
            self.entries.remove(seq);
        }
        if self.entries.is_empty() || self.live_bytes() * 4 < self.bytes() && self.bytes() > 1024 * 1024 {
            self.retire();
            // The drop itself is durable; what fails here is tried again by the next write.
            let _ = self.rewrite(storage);
        }
        Ok(there.len() as u64)
    }

    fn header(&self) -> Vec<u8> {
        let mut header = self.names.magic.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&self.queue_id);
        header
    }

    fn record(&self, place: &Place) -> io::Result<Bytes> {
        let file = match (&self.log, &self.old) {
            (Log::Open { file, .. }, _) | (Log::Unfit, Some(file)) => file,
            (Log::Unfit, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        let mut record = vec![0; place.bytes as usize];
        let read = file.read_at(&mut record, place.offset)?;
        if read < record.len() || !self.codec.is_valid(&record) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Bytes::from(record))
    }

    /// Stops appending to the present file; its entries stay readable.
    fn retire(&mut self) {
        if let Log::Open { file, .. } = std::mem::replace(&mut self.log, Log::Unfit) {
            self.old = Some(file);
        }
    }

    fn write<S: Storage<File = F>>(
        &mut self,
        storage: &S,
        kind: u64,
        entries: &mut dyn Iterator<Item = (u64, u64, &[u8])>,
    ) -> io::Result<Vec<(u64, Place)>> {
        if matches!(self.log, Log::Unfit) {
            self.rewrite(storage)?;
        }
        let Log::Open { file, end } = &mut self.log else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut encoded = Vec::new();
        let mut places = Vec::new();
        for (seq, wall_ms, payload) in entries {
            let start = encoded.len() as u64;
            if !self.codec.encode(&mut encoded, seq, kind, wall_ms, &[payload]) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let place = Place {
                offset: *end + start,
                bytes: encoded.len() as u64 - start,
                progress: Progress::Untouched,
            };
            places.push((seq, place));
        }
        if let Err(error) = file.write_at(&encoded, *end).and_then(|()| file.sync()) {
            // Best effort, synced so that a power cut does not bring it back either.
            let _ = file.truncate(*end).and_then(|()| file.sync());
            self.retire();
            return Err(error);
        }
        *end += encoded.len() as u64;
        Ok(places)
    }

    /// Writes all entries to a new file, which replaces the present one when it is durable.
    fn rewrite<S: Storage<File = F>>(&mut self, storage: &S) -> io::Result<()> {
        let mut file = create_afresh(storage, self.names.temporary)?;
        file.write_at(&self.header(), 0)?;
        let mut end = HEADER_BYTES;
        let mut entries = BTreeMap::new();
        for (&seq, place) in &self.entries {
            file.write_at(&self.record(place)?, end)?;
            entries.insert(seq, Place { offset: end, ..*place });
            end += place.bytes;
            if place.progress == Progress::Begun {
                let mut note = Vec::new();
                let _ = self.codec.encode(&mut note, seq, KIND_BEGUN, 0, &[]);
                file.write_at(&note, end)?;
                end += note.len() as u64;
            }
        }
        file.sync()?;
        storage.rename(self.names.temporary, self.names.file)?;
        storage.sync_dir()?;
        self.entries = entries;
        self.log = Log::Open { file, end };
        self.old = None;
        Ok(())
    }

    fn keep_aside<S: Storage<File = F>>(&self, storage: &S) -> io::Result<()> {
        const CHUNK_BYTES: usize = 64 * 1024;
        let Some(from) = &self.old else { return Ok(()) };
        let mut file = create_afresh(storage, self.names.corrupt)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        loop {
            let read = from.read_at(&mut chunk, offset)?;
            if read == 0 {
                return file.sync();
            }
            file.write_at(&chunk[..read], offset)?;
            offset += read as u64;
        }
    }
}
