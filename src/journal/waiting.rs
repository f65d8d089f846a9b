//! Records that wait for their identity: replay has moved them here so that the checkpoint may pass them, and the records of others go on.
//!
//! An entry holds records of one name in order, and is numbered as the first of them. The journal knows a name as bytes.
//!
//! Crash points: an entry is durable before the checkpoint passes its records, so that until then they stand in both places, and
//! [`Journal::waiting_names`] tells which to skip; an entry goes only when a durable checkpoint has passed its last record.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::Journal;
use super::dead_letters;
use super::format::{Codec, QueueId, RECORD_HEADER_BYTES, u32_at, u64_at};
use super::keyed_log::{Entry, KeyedLog, Names, Progress};
use super::storage::{Storage, StorageFile};
use super::types::{DeadLetter, Moved, Record, WaitingEntry, WaitingName};

const NAMES: Names = Names {
    file: "waiting",
    temporary: "waiting.tmp",
    corrupt: "waiting.corrupt",
    magic: b"TIDEWAIT",
};
/// Most records of one entry, and bytes after which it takes no more: what is read at once when it leaves.
const ENTRY_RECORDS_MAX: usize = 1024;
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Before the payload of a record in an entry. It has no checksum of its own: what a torn entry leaves must not be taken for an entry.
const HEAD_BYTES: usize = 28;

/// What is known of an entry without reading it.
#[derive(Debug, Clone)]
struct Held {
    name: Vec<u8>,
    last_seq: u64,
    records: u64,
    bytes: u64,
    oldest_wall_ms: u64,
    newest_wall_ms: u64,
}

#[derive(Debug)]
pub(super) struct Waiting<F> {
    log: KeyedLog<F>,
    held: BTreeMap<u64, Held>,
    /// Records that the checkpoint has not passed, with their bytes: they stand in the backlog, too.
    ahead: BTreeMap<u64, u64>,
    /// Records that left by being replayed, since this opening.
    replayed: u64,
}

impl<F: StorageFile> Waiting<F> {
    /// Reads the log; `is_backlog` says of a number whether the checkpoint has yet to pass it. Returns also how many bytes hold no valid entry.
    pub(super) fn load<S: Storage<File = F>>(
        storage: &S,
        queue_id: QueueId,
        codec: Codec,
        is_backlog: &dyn Fn(u64) -> bool,
    ) -> io::Result<(Self, u64)> {
        let (log, unreadable) = KeyedLog::load(storage, &NAMES, queue_id, codec)?;
        let mut this = Self {
            log,
            held: BTreeMap::new(),
            ahead: BTreeMap::new(),
            replayed: 0,
        };
        let keys: Vec<u64> = this.log.seqs_after(0).collect();
        for key in keys {
            let (name, records) = this.read(key)?;
            // A crash may have taken a record from the end of the backlog, and not from here.
            this.ahead.extend(ahead(&records, is_backlog));
            this.held.insert(key, held(name, &records));
        }
        Ok((this, unreadable))
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    pub(super) fn replayed(&self) -> u64 {
        self.replayed
    }

    /// What stands here and not in the backlog.
    pub(super) fn beyond(&self) -> Moved {
        let sum = |of: fn(&Held) -> u64| self.held.values().map(of).sum::<u64>();
        Moved {
            records: sum(|held| held.records).saturating_sub(self.ahead.len() as u64),
            bytes: sum(|held| held.bytes).saturating_sub(self.ahead.values().sum()),
        }
    }

    /// Whether the checkpoint has passed all records of an entry.
    fn is_passed(&self, key: u64, held: &Held) -> bool {
        self.ahead.range(key..=held.last_seq).next().is_none()
    }

    /// Records kept here.
    pub(super) fn records(&self) -> u64 {
        self.held.values().map(|held| held.records).sum()
    }

    pub(super) fn oldest_wall_ms(&self) -> Option<u64> {
        self.held.values().map(|held| held.oldest_wall_ms).min()
    }

    /// The checkpoint moves on to `seq`; returns how many records it passes that stand here.
    pub(super) fn passed(&mut self, seq: u64) -> u64 {
        let rest = self.ahead.split_off(&seq.saturating_add(1));
        std::mem::replace(&mut self.ahead, rest).len() as u64
    }

    /// The records of entries that end after `seq`, as far as `is_backlog` says so, with their bytes.
    pub(super) fn after(&self, seq: u64, is_backlog: &dyn Fn(u64) -> bool) -> io::Result<BTreeMap<u64, u64>> {
        let mut after = BTreeMap::new();
        for (&key, _) in self.held.iter().filter(|(_, held)| held.last_seq > seq) {
            after.extend(ahead(&self.read(key)?.1, is_backlog));
        }
        Ok(after)
    }

    /// The checkpoint has gone back; these are after it.
    pub(super) fn rewound(&mut self, after: BTreeMap<u64, u64>) {
        self.ahead = after;
    }

    fn read(&self, key: u64) -> io::Result<(Vec<u8>, Vec<Record>)> {
        parse(&self.log.read(key)?.1).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub(super) fn clear<S: Storage<File = F>>(&mut self, storage: &S) -> io::Result<()> {
        let keys: Vec<u64> = self.held.keys().copied().collect();
        self.log.drop_entries(storage, &keys)?;
        self.held.clear();
        self.ahead.clear();
        Ok(())
    }
}

impl<S: Storage> Journal<S> {
    /// Moves records of one name, in order, to those that wait, durably, with one write and one sync. Until the checkpoint has passed them
    /// they are in the backlog as well. `bytes_max` does not keep them out: they were taken before.
    ///
    /// None of them may stand there already ([`Journal::waiting_names`]).
    ///
    /// # Errors
    /// They are not kept, though a crash may bring them back: then they are told of at the next opening.
    pub fn set_aside(&mut self, name: &[u8], records: &[Record]) -> io::Result<()> {
        let mut entries = Vec::new();
        let mut kept = Vec::new();
        let mut rest = records;
        while let Some(first) = rest.first() {
            let mut bytes = 0;
            let fits = |record: &&Record| {
                let is_first = bytes == 0;
                bytes += record.payload.len() + RECORD_HEADER_BYTES;
                is_first || bytes <= ENTRY_BYTES_MAX
            };
            let count = rest.iter().take(ENTRY_RECORDS_MAX).take_while(fits).count();
            let (these, others) = rest.split_at(count.max(1));
            entries.push(Entry {
                seq: first.seq,
                wall_ms: first.wall_ms,
                payload: encode(name, these)?,
            });
            kept.push((first.seq, held(name.to_vec(), these)));
            rest = others;
        }
        self.waiting.log.add(&self.storage, &entries)?;
        self.waiting.held.extend(kept);
        let replayed_seq = self.checkpoint.seq;
        self.waiting.ahead.extend(ahead(records, &|seq| seq > replayed_seq));
        Ok(())
    }

    /// Who waits, and which records: of a name, all that lie in one of its ranges.
    #[must_use]
    pub fn waiting_names(&self) -> Vec<WaitingName> {
        let mut names: BTreeMap<&[u8], WaitingName> = BTreeMap::new();
        for (&key, held) in &self.waiting.held {
            let name = names.entry(&held.name).or_insert_with(|| WaitingName {
                name: held.name.clone(),
                records: 0,
                ranges: Vec::new(),
            });
            name.records += held.records;
            name.ranges.push((key, held.last_seq));
        }
        names.into_values().collect()
    }

    /// The first entry after number `after_key`, of `name` or of anybody.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn waiting_entry(&mut self, after_key: u64, name: Option<&[u8]>) -> io::Result<Option<WaitingEntry>> {
        let mut after = self.waiting.held.range(after_key.saturating_add(1)..);
        let Some((&key, _)) = after.find(|(_, held)| name.is_none_or(|name| held.name == name)) else {
            return Ok(None);
        };
        let (name, records) = self.waiting.read(key)?;
        Ok(Some(WaitingEntry {
            key,
            name,
            is_begun: self.waiting.log.progress(key) == Progress::Begun,
            records,
        }))
    }

    /// Notes, durably, that records of an entry may be applied from now on.
    ///
    /// # Errors
    /// It may or may not be noted; asking again is safe.
    pub fn begin_waiting(&mut self, key: u64) -> io::Result<()> {
        self.waiting.log.begin(&self.storage, key)
    }

    /// An entry has been replayed, and goes, durably. `false` where it stays, since the checkpoint has yet to pass its last record.
    ///
    /// # Errors
    /// It may or may not be kept; asking again is safe.
    pub fn drop_waiting(&mut self, key: u64) -> io::Result<bool> {
        let Some(held) = self.waiting.held.get(&key) else {
            return Ok(true);
        };
        if !self.waiting.is_passed(key, held) {
            return Ok(false);
        }
        if held.last_seq > self.checkpoints.durable_seq() {
            self.checkpoints.save_durably(&self.storage, &self.checkpoint)?;
        }
        self.waiting.log.drop_entries(&self.storage, &[key])?;
        if let Some(held) = self.waiting.held.remove(&key) {
            self.waiting.replayed += held.records;
        }
        Ok(true)
    }

    /// Makes dead letters of the first entry whose records were all accepted before `before_wall_ms` and of which nothing may have been
    /// applied. Returns how many.
    ///
    /// # Errors
    /// They wait on, or are dead letters as well; asking again is safe.
    pub fn age_waiting(&mut self, before_wall_ms: u64, reason: &str, error: &str) -> io::Result<u64> {
        let old = self.waiting.held.iter().find(|(key, held)| {
            held.newest_wall_ms < before_wall_ms
                && self.waiting.is_passed(**key, held)
                && self.waiting.log.progress(**key) == Progress::Untouched
        });
        let Some((&key, _)) = old else { return Ok(0) };
        let (_, records) = self.waiting.read(key)?;
        let mut letters = Vec::new();
        for record in records.iter().filter(|record| !self.letters.contains(record.seq)) {
            letters.push(dead_letters::entry(&DeadLetter {
                seq: record.seq,
                wall_ms: record.wall_ms,
                reason: reason.to_owned(),
                error: error.to_owned(),
                payload: record.payload.clone(),
            })?);
        }
        if !letters.is_empty() {
            self.letters.add(&self.storage, &letters)?;
        }
        let replayed = self.waiting.replayed;
        self.drop_waiting(key)?;
        self.waiting.replayed = replayed;
        Ok(letters.len() as u64)
    }
}

fn ahead(records: &[Record], is_backlog: &dyn Fn(u64) -> bool) -> impl Iterator<Item = (u64, u64)> {
    let ahead = records.iter().filter(|record| is_backlog(record.seq));
    ahead.map(|record| (record.seq, record_bytes(record)))
}

fn record_bytes(record: &Record) -> u64 {
    (RECORD_HEADER_BYTES + record.payload.len()) as u64
}

fn held(name: Vec<u8>, records: &[Record]) -> Held {
    let times = || records.iter().map(|record| record.wall_ms);
    Held {
        name,
        last_seq: records.last().map_or(0, |record| record.seq),
        records: records.len() as u64,
        bytes: records.iter().map(record_bytes).sum(),
        oldest_wall_ms: times().min().unwrap_or_default(),
        newest_wall_ms: times().max().unwrap_or_default(),
    }
}

fn encode(name: &[u8], records: &[Record]) -> io::Result<Vec<u8>> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let mut entry = length(name)?.to_le_bytes().to_vec();
    entry.extend_from_slice(name);
    for record in records {
        entry.extend_from_slice(&length(&record.payload)?.to_le_bytes());
        for number in [record.seq, record.wall_ms, record.mono_ms] {
            entry.extend_from_slice(&number.to_le_bytes());
        }
        entry.extend_from_slice(&record.payload);
    }
    Ok(entry)
}

fn parse(entry: &Bytes) -> Option<(Vec<u8>, Vec<Record>)> {
    let name_end = 4usize.checked_add(u32_at(entry, 0)? as usize)?;
    let name = entry.get(4..name_end)?.to_vec();
    let mut records = Vec::new();
    let mut at = name_end;
    while at < entry.len() {
        let start = at.checked_add(HEAD_BYTES)?;
        let end = start.checked_add(u32_at(entry, at)? as usize)?;
        entry.get(start..end)?;
        records.push(Record {
            seq: u64_at(entry, at + 4)?,
            wall_ms: u64_at(entry, at + 12)?,
            mono_ms: u64_at(entry, at + 20)?,
            payload: entry.slice(start..end),
        });
        at = end;
    }
    Some((name, records))
}
