//! Opening: who we are, what is there, what is damaged, and the next incarnation.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;

use super::dead_letters;
use super::format::{Codec, QueueId, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, segment_first_seq, segment_name};
use super::incarnations::Incarnations;
use super::keyed_log::KeyedLog;
use super::scan::{Area, Numbers, Tail, scan};
use super::segment::{Segment, holds};
use super::small_files::{Checkpoints, QUEUE, Queue, read_small};
use super::storage::{Storage, StorageFile};
use super::types::{Checkpoint, Damage, Missing, OpenError, OpenReport, Settings, is_no_room};
use super::waiting::Waiting;
use super::walk::Walk;
use super::{Backlog, Journal, Start, Totals, Writer};

/// A segment may be damaged in this many places before it counts as unreadable.
const HOLES_MAX: usize = 1024;

fn disk(file: &str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io {
        file: file.to_owned(),
        source,
    }
}

impl<S: Storage> Journal<S> {
    /// Takes the directory, recovers what is there and begins a new incarnation, durably. `random`, another one each time, becomes the queue id
    /// of a directory that has none, and the incarnation's name of one that has; `wall_ms` stands for the time of confirmation where it is not known.
    ///
    /// # Errors
    /// See [`OpenError`]; no record is changed.
    pub fn open(
        mut storage: S,
        settings: Settings,
        random: [u8; 16],
        wall_ms: u64,
    ) -> Result<(Self, OpenReport), OpenError> {
        lock(&mut storage)?;
        let names = storage.list().map_err(disk("."))?;
        for name in names.iter().filter(|name| name.ends_with(".tmp")) {
            storage.remove(name).map_err(disk(name))?;
        }
        let queue = load_queue(&storage, &names, random)?;
        let codec = Codec::new(&queue.queue_id);
        let (checkpoints, checkpoint, checkpoints_unreadable) =
            Checkpoints::load(&storage, queue.queue_id).map_err(disk("checkpoint"))?;
        let mut recovery = Recovery {
            storage: &storage,
            queue_id: queue.queue_id,
            codec,
            checkpoint,
            wall_ms,
            segments: VecDeque::new(),
            backlog: Backlog::default(),
            report: OpenReport {
                checkpoints_unreadable,
                ..OpenReport::default()
            },
        };
        recovery.segments(&names)?;
        let Recovery {
            segments,
            backlog,
            mut report,
            checkpoint,
            ..
        } = recovery;
        let replayed_seq = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.seq);
        let is_backlog = |seq| seq > replayed_seq && holds(&segments, seq);
        let (letters, waiting) = logs(&storage, &queue, codec, &is_backlog, &mut report)?;
        let incarnations = queue.incarnations.after_opening(&random);
        let incarnations = incarnations.ok_or(OpenError::Exhausted)?;
        let mut journal = Self {
            storage,
            settings,
            codec,
            queue_id: queue.queue_id,
            queue_id_hex: hex(&queue.queue_id),
            next_seq: (incarnations.current_ordinal() << 32) + 1,
            incarnations,
            start: Start::Pending(String::new()),
            next_segment_id: segments.len() as u64,
            segments,
            writer: Writer::Closed,
            ticket: None,
            withdrawn: None,
            encoded: Vec::new(),
            backlog,
            checkpoint: checkpoint.unwrap_or_default(),
            checkpoints,
            reading: Walk::default(),
            replaying: Walk::default(),
            letters,
            waiting,
            totals: Totals::default(),
        };
        match journal.begin() {
            // What is there can be replayed, and makes room by it.
            Err(error) if is_no_room(&error) => {}
            begun => begun.map_err(disk(QUEUE))?,
        }
        Ok((journal, report))
    }

    /// Makes the incarnation durable, once. Retained records give way where there is no room.
    ///
    /// # Errors
    /// Nothing can be appended yet.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        match self.start {
            Start::Done => return Ok(()),
            Start::Pending(_) => {}
        }
        let mut begun = self.make_durable();
        if begun.as_ref().is_err_and(is_no_room) && self.release(self.checkpoint.seq).is_ok() {
            begun = self.make_durable();
        }
        if let Err(error) = begun {
            self.start = Start::Pending(format!("the journal cannot begin: {error}"));
            return Err(error);
        }
        self.start = Start::Done;
        self.checkpoints.take_place(&self.storage, &self.checkpoint);
        Ok(())
    }

    fn make_durable(&mut self) -> io::Result<()> {
        if self.checkpoint.seq > 0 {
            // It may be the one that was never synced; numbers after it are about to be built on it.
            self.checkpoints.save_durably(&self.storage, &self.checkpoint)?;
        }
        Queue {
            queue_id: self.queue_id,
            incarnations: self.incarnations.clone(),
        }
        .save(&self.storage)
    }
}

/// The dead letters, and what waits.
type Logs<F> = (KeyedLog<F>, Waiting<F>);

/// The logs beside the segments.
fn logs<S: Storage>(
    storage: &S,
    queue: &Queue,
    codec: Codec,
    is_backlog: &dyn Fn(u64) -> bool,
    report: &mut OpenReport,
) -> Result<Logs<S::File>, OpenError> {
    let (letters, unreadable) =
        KeyedLog::load(storage, &dead_letters::NAMES, queue.queue_id, codec).map_err(disk("dead-letters"))?;
    report.dead_letter_bytes_unreadable = unreadable;
    let (waiting, unreadable) = Waiting::load(storage, queue.queue_id, codec, is_backlog).map_err(disk("waiting"))?;
    report.waiting_bytes_unreadable = unreadable;
    Ok((letters, waiting))
}

fn lock<S: Storage>(storage: &mut S) -> Result<(), OpenError> {
    storage.lock().map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked,
        _ => OpenError::Io {
            file: "lock".to_owned(),
            source,
        },
    })
}

fn load_queue<S: Storage>(storage: &S, names: &[String], fresh_queue_id: QueueId) -> Result<Queue, OpenError> {
    let corrupt = |what| OpenError::Corrupt {
        file: QUEUE.to_owned(),
        offset: 0,
        what,
    };
    if let Some(bytes) = read_small(storage, QUEUE).map_err(disk(QUEUE))? {
        return Queue::parse(&bytes).ok_or_else(|| corrupt("it does not say whose the records are"));
    }
    let belongs = |name: &String| {
        segment_first_seq(name).is_some()
            || name.starts_with("checkpoint")
            || name.starts_with("dead-letters")
            || name.starts_with("waiting")
    };
    if names.iter().any(|name| belongs(name) && !name.ends_with(".tmp")) {
        return Err(corrupt("it is gone, though other files are there"));
    }
    Ok(Queue {
        queue_id: fresh_queue_id,
        incarnations: Incarnations::default(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

struct Recovery<'a, S> {
    storage: &'a S,
    queue_id: QueueId,
    codec: Codec,
    checkpoint: Option<Checkpoint>,
    wall_ms: u64,
    segments: VecDeque<Segment>,
    backlog: Backlog,
    report: OpenReport,
}

/// A segment file before its records are looked at.
struct Candidate<F> {
    file: F,
    size: u64,
    first_seq: u64,
    header: Option<SegmentHeader>,
}

impl<S: Storage> Recovery<'_, S> {
    fn segments(&mut self, names: &[String]) -> Result<(), OpenError> {
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_first_seq(name)).collect();
        numbers.sort_unstable();
        let mut next = None;
        for (at, &first_seq) in numbers.iter().enumerate() {
            let candidate = match next.take() {
                Some(candidate) => candidate,
                None => self.candidate(first_seq)?,
            };
            if let Some(&first_seq) = numbers.get(at + 1) {
                next = Some(self.candidate(first_seq)?);
            }
            self.recover(candidate, next.as_ref())?;
        }
        self.report.segments = self.segments.len();
        self.report.backlog_records = self.backlog.records;
        Ok(())
    }

    fn candidate(&self, first_seq: u64) -> Result<Candidate<S::File>, OpenError> {
        let name = segment_name(first_seq);
        let file = self.storage.open(&name).map_err(disk(&name))?;
        let size = file.size().map_err(disk(&name))?;
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
        let read = file.read_at(&mut bytes, 0).map_err(disk(&name))?;
        bytes.truncate(read);
        let header = SegmentHeader::parse(&bytes);
        let corrupt = |what| {
            Err(OpenError::Corrupt {
                file: name.clone(),
                offset: 0,
                what,
            })
        };
        match header {
            Some(header) if header.version != VERSION => corrupt("its version is not known"),
            Some(header) if header.queue_id != self.queue_id => corrupt("it belongs to another queue"),
            Some(header) if header.first_seq != first_seq => corrupt("its name is not its own"),
            Some(_) | None => Ok(Candidate {
                file,
                size,
                first_seq,
                header,
            }),
        }
    }

    fn recover(
        &mut self,
        mut candidate: Candidate<S::File>,
        next: Option<&Candidate<S::File>>,
    ) -> Result<(), OpenError> {
        let name = segment_name(candidate.first_seq);
        let found_seq = self.found_seq();
        let prior_last_seq = candidate.header.map_or(found_seq, |header| header.prior_last_seq);
        let mut segment = Segment::new(self.segments.len() as u64, candidate.first_seq, prior_last_seq);
        let upto_seq = next
            .and_then(|next| next.header)
            .map_or(u64::MAX, |header| header.prior_last_seq);
        let area = Area {
            start: SEGMENT_HEADER_BYTES.min(candidate.size),
            size: candidate.size,
            numbers: Numbers::Ascending {
                first_seq: candidate.first_seq,
                upto_seq,
            },
        };
        let replayed_seq = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.seq);
        let backlog = &mut self.backlog;
        let (holes, tail) = scan(&candidate.file, self.codec, area, &mut |seen| {
            segment.note(seen.head.seq, seen.offset, seen.head.record_bytes());
            if seen.head.seq > replayed_seq {
                backlog.records += 1;
                backlog.bytes += seen.head.record_bytes();
                backlog.oldest_wall_ms.get_or_insert(seen.head.wall_ms);
            }
        })
        .map_err(disk(&name))?;
        if holes.len() > HOLES_MAX {
            let offset = holes.first().map_or(0, |hole| hole.start);
            return Err(OpenError::Corrupt {
                file: name,
                offset,
                what: "it is damaged in too many places",
            });
        }
        if candidate.header.is_none() && segment.tally.records > 0 {
            self.damage(&name, 0, SEGMENT_HEADER_BYTES);
            segment.is_damaged = true;
        }
        for hole in &holes {
            self.damage(&name, hole.start, hole.end - hole.start);
            segment.is_damaged = true;
        }
        segment.holes = holes;
        if segment.prior_last_seq > found_seq {
            self.report.missing.push(Missing {
                after_seq: found_seq,
                upto_seq: segment.prior_last_seq,
            });
        }
        if let Tail::Bad(bytes) = tail {
            self.tail(&mut candidate, &mut segment, next.is_none(), upto_seq, bytes)?;
        }
        self.keep(candidate, segment, next.is_none())
    }

    /// The last record that is there or was replayed.
    fn found_seq(&self) -> u64 {
        let replayed_seq = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.seq);
        self.segments
            .back()
            .map_or(0, |segment| segment.tally.last_seq)
            .max(replayed_seq)
    }

    fn damage(&mut self, name: &str, offset: u64, bytes: u64) {
        self.report.damage.push(Damage {
            file: name.to_owned(),
            offset,
            bytes,
        });
    }

    /// Bytes after the last valid record: cut at the end of the last segment, damage elsewhere, unless the next segment
    /// says that nothing is missing.
    fn tail(
        &mut self,
        candidate: &mut Candidate<S::File>,
        segment: &mut Segment,
        is_last: bool,
        upto_seq: u64,
        bytes: u64,
    ) -> Result<(), OpenError> {
        let name = segment.name();
        if is_last {
            self.report.torn_bytes += bytes;
            if segment.tally.records > 0 {
                candidate.file.truncate(segment.tally.end).map_err(disk(&name))?;
                candidate.file.sync().map_err(disk(&name))?;
            }
            return Ok(());
        }
        // Where nothing is missing, it is what a failed append left.
        let is_missing = if segment.tally.records > 0 {
            segment.tally.last_seq < upto_seq
        } else {
            upto_seq >= segment.first_seq
        };
        if is_missing {
            self.damage(&name, candidate.size - bytes, bytes);
            segment.is_damaged = true;
        }
        Ok(())
    }

    fn keep(&mut self, candidate: Candidate<S::File>, mut segment: Segment, is_last: bool) -> Result<(), OpenError> {
        let name = segment.name();
        if segment.tally.records > 0 {
            self.report.records += segment.tally.records;
            if let Some(checkpoint) = &self.checkpoint
                && segment.tally.last_seq <= checkpoint.seq
            {
                segment.replayed_wall_ms = Some(if checkpoint.wall_ms > 0 {
                    checkpoint.wall_ms
                } else {
                    self.wall_ms
                });
            }
            self.segments.push_back(segment);
            return Ok(());
        }
        if segment.is_damaged {
            self.storage
                .rename(&name, &format!("{name}.corrupt"))
                .map_err(disk(&name))?;
            self.report.files_given_up.push(name);
            return Ok(());
        }
        // Created and never written to, or only by an append that failed.
        let had_content = candidate.size > SEGMENT_HEADER_BYTES || candidate.header.is_none();
        self.storage.remove(&name).map_err(disk(&name))?;
        if had_content && !is_last {
            self.report.files_given_up.push(name);
        }
        Ok(())
    }
}
