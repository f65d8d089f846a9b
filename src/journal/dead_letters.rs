//! Records that the upstream refused for good: a log of its own, every entry synced.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::format::{Codec, Head, QueueId, RECORD_HEADER_BYTES, VERSION, u32_at};
use super::scan::{Area, Numbers, Tail, scan};
use super::small_files::create_afresh;
use super::storage::{Storage, StorageFile};
use super::types::DeadLetter;

const NAME: &str = "dead-letters";
const TEMPORARY: &str = "dead-letters.tmp";
const CORRUPT: &str = "dead-letters.corrupt";
const MAGIC: &[u8; 8] = b"TIDEDEAD";
const HEADER_BYTES: u64 = 28;
const KIND_LETTER: u64 = 1;
const KIND_DROPPED: u64 = 2;

/// What an entry says.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// The write was accepted at `wall_ms`.
    Letter {
        wall_ms: u64,
    },
    Dropped,
}

/// Where a letter stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    bytes: u64,
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
pub(super) struct DeadLetters<F> {
    queue_id: QueueId,
    codec: Codec,
    letters: BTreeMap<u64, Place>,
    log: Log<F>,
    /// Where the letters can be read, when the log is unfit.
    old: Option<F>,
}

impl<F: StorageFile> DeadLetters<F> {
    /// Reads the log. Returns also how many bytes hold no valid entry; if it is more than a torn tail, the file is kept
    /// as `dead-letters.corrupt`, and a new one holds the valid letters.
    pub(super) fn load<S: Storage<File = F>>(storage: &S, queue_id: QueueId, codec: Codec) -> io::Result<(Self, u64)> {
        let mut this = Self {
            queue_id,
            codec,
            letters: BTreeMap::new(),
            log: Log::Unfit,
            old: None,
        };
        let mut file = match storage.open(NAME) {
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
        let letters = &mut this.letters;
        let mut end = HEADER_BYTES;
        let (holes, tail) = scan(&file, codec, area, &mut |seen| {
            let place = Place {
                offset: seen.offset,
                bytes: seen.head.record_bytes(),
            };
            end = seen.offset + place.bytes;
            if seen.head.wall_ms == KIND_LETTER {
                letters.insert(seen.head.seq, place);
            } else {
                letters.remove(&seen.head.seq);
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
        self.letters.len() as u64
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        match &self.log {
            Log::Unfit => self.letters.values().map(|place| place.bytes).sum(),
            Log::Open { end, .. } => *end,
        }
    }

    pub(super) fn add<S: Storage<File = F>>(&mut self, storage: &S, letter: &DeadLetter) -> io::Result<bool> {
        let (seq, reason, error) = (letter.seq, letter.reason.as_bytes(), letter.error.as_bytes());
        if self.letters.contains_key(&seq) {
            return Ok(false);
        }
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let reason_bytes = u32::try_from(reason.len()).map_err(too_long)?.to_le_bytes();
        let error_bytes = u32::try_from(error.len()).map_err(too_long)?.to_le_bytes();
        let place = self.write(
            storage,
            seq,
            Kind::Letter {
                wall_ms: letter.wall_ms,
            },
            &[&reason_bytes, &error_bytes, reason, error, &letter.payload],
        )?;
        self.letters.insert(seq, place);
        Ok(true)
    }

    pub(super) fn drop_letter<S: Storage<File = F>>(&mut self, storage: &S, seq: u64) -> io::Result<bool> {
        if !self.letters.contains_key(&seq) {
            return Ok(false);
        }
        self.write(storage, seq, Kind::Dropped, &[])?;
        self.letters.remove(&seq);
        let live: u64 = self.letters.values().map(|place| place.bytes).sum();
        if self.letters.is_empty() || live * 4 < self.bytes() && self.bytes() > 1024 * 1024 {
            self.retire();
            // The drop itself is durable; what fails here is tried again by the next write.
            let _ = self.rewrite(storage);
        }
        Ok(true)
    }

    pub(super) fn read<S: Storage<File = F>>(
        &mut self,
        _storage: &S,
        after_seq: u64,
        letters_max: usize,
    ) -> io::Result<Vec<DeadLetter>> {
        let mut found = Vec::new();
        for place in self
            .letters
            .range(after_seq.saturating_add(1)..)
            .map(|(_, place)| place)
            .take(letters_max)
        {
            let record = self.record(place)?;
            let letter = parse(&record);
            found.push(letter.ok_or(io::ErrorKind::InvalidData)?);
        }
        Ok(found)
    }

    fn header(&self) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
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

    /// Stops appending to the present file; its letters stay readable.
    fn retire(&mut self) {
        if let Log::Open { file, .. } = std::mem::replace(&mut self.log, Log::Unfit) {
            self.old = Some(file);
        }
    }

    fn write<S: Storage<File = F>>(
        &mut self,
        storage: &S,
        seq: u64,
        kind: Kind,
        payload: &[&[u8]],
    ) -> io::Result<Place> {
        let (kind, wall_ms) = match kind {
            Kind::Letter { wall_ms } => (KIND_LETTER, wall_ms),
            Kind::Dropped => (KIND_DROPPED, 0),
        };
        let mut entry = Vec::new();
        if !self.codec.encode(&mut entry, seq, kind, wall_ms, payload) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if matches!(self.log, Log::Unfit) {
            self.rewrite(storage)?;
        }
        let Log::Open { file, end } = &mut self.log else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let place = Place {
            offset: *end,
            bytes: entry.len() as u64,
        };
        if let Err(error) = file.write_at(&entry, place.offset).and_then(|()| file.sync()) {
            let _ = file.truncate(place.offset);
            self.retire();
            return Err(error);
        }
        *end += place.bytes;
        Ok(place)
    }

    /// Writes all letters to a new file, which replaces the present one when it is durable.
    fn rewrite<S: Storage<File = F>>(&mut self, storage: &S) -> io::Result<()> {
        let mut file = create_afresh(storage, TEMPORARY)?;
        file.write_at(&self.header(), 0)?;
        let mut end = HEADER_BYTES;
        let mut letters = BTreeMap::new();
        for (&seq, place) in &self.letters {
            file.write_at(&self.record(place)?, end)?;
            letters.insert(
                seq,
                Place {
                    offset: end,
                    bytes: place.bytes,
                },
            );
            end += place.bytes;
        }
        file.sync()?;
        storage.rename(TEMPORARY, NAME)?;
        storage.sync_dir()?;
        self.letters = letters;
        self.log = Log::Open { file, end };
        self.old = None;
        Ok(())
    }

    fn keep_aside<S: Storage<File = F>>(&self, storage: &S) -> io::Result<()> {
        const CHUNK_BYTES: usize = 64 * 1024;
        let Some(from) = &self.old else { return Ok(()) };
        let mut file = create_afresh(storage, CORRUPT)?;
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

fn parse(entry: &Bytes) -> Option<DeadLetter> {
    let head = Head::parse(entry)?;
    let payload = entry.slice(RECORD_HEADER_BYTES..);
    let payload = &payload;
    let reason_end = 8usize.checked_add(u32_at(payload, 0)? as usize)?;
    let error_end = reason_end.checked_add(u32_at(payload, 4)? as usize)?;
    let text = |range| Some(String::from_utf8_lossy(payload.get(range)?).into_owned());
    let (reason, error) = (text(8..reason_end)?, text(reason_end..error_end)?);
    Some(DeadLetter {
        seq: head.seq,
        wall_ms: head.mono_ms,
        reason,
        error,
        payload: payload.slice(error_end..),
    })
}
