//! The queue file (who we are) and the checkpoint (how far replay got).

use std::io;

use super::format::{QueueId, VERSION, encode_small, parse_small, u64_at};
use super::incarnations::Incarnations;
use super::storage::{Storage, StorageFile};
use super::types::{Checkpoint, Mark, is_no_room};

const QUEUE_MAGIC: &[u8; 8] = b"TIDEQUEU";
const QUEUE_VERSION: u32 = 2;
const QUEUE_VERSION_UNNAMED: u32 = 1;
const CHECKPOINT_MAGIC: &[u8; 8] = b"TIDECHKP";
const SMALL_FILE_BYTES_MAX: u64 = 256 * 1024;
pub(super) const QUEUE: &str = "queue";
/// Written durably; replaced as a whole.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// Written in place, never synced; counts when it is whole and newer.
pub(super) const CHECKPOINT_RECENT: &str = "checkpoint.recent";

/// The content of the queue file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) queue_id: QueueId,
    pub(super) incarnations: Incarnations,
}

impl Queue {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let of = |version, parse_incarnations: fn(&[u8]) -> Option<Incarnations>| {
            let (queue_id, incarnations) = parse_small(QUEUE_MAGIC, version, bytes)?.split_first_chunk()?;
            Some(Self {
                queue_id: *queue_id,
                incarnations: parse_incarnations(incarnations)?,
            })
        };
        of(QUEUE_VERSION, Incarnations::parse).or_else(|| of(QUEUE_VERSION_UNNAMED, Incarnations::parse_unnamed))
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// The old content or the new one stands.
    pub(super) fn save<S: Storage>(&self, storage: &S) -> io::Result<()> {
        let mut body = self.queue_id.to_vec();
        self.incarnations.encode(&mut body);
        replace(storage, QUEUE, &encode_small(QUEUE_MAGIC, QUEUE_VERSION, &body))
    }
}

/// Writes a whole file: a temporary one, synced, renamed, and the directory synced.
pub(super) fn replace<S: Storage>(storage: &S, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let mut file = create_afresh(storage, &temporary)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    drop(file);
    storage.rename(&temporary, name)?;
    storage.sync_dir()
}

/// Creates a file, also where a left-over has its name.
pub(super) fn create_afresh<S: Storage>(storage: &S, name: &str) -> io::Result<S::File> {
    match storage.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    storage.create(name)
}

/// All of a small file; `None` when there is none.
pub(super) fn read_small<S: Storage>(storage: &S, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match storage.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; file.size()?.min(SMALL_FILE_BYTES_MAX) as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// Where checkpoints are kept.
#[derive(Debug)]
pub(super) struct Checkpoints<F> {
    queue_id: QueueId,
    generation: u64,
    recent: Option<F>,
    durable_seq: u64,
}

impl<F: StorageFile> Checkpoints<F> {
    /// The newest readable checkpoint, and how many could not be read.
    pub(super) fn load<S: Storage<File = F>>(
        storage: &S,
        queue_id: QueueId,
    ) -> io::Result<(Self, Option<Checkpoint>, usize)> {
        // Its place on disk is taken: a checkpoint can be written there when the disk is full.
        let recent = match storage.open(CHECKPOINT_RECENT) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut newest: Option<(u64, Checkpoint)> = None;
        let mut unreadable = 0;
        for name in [CHECKPOINT, CHECKPOINT_RECENT] {
            let Some(bytes) = read_small(storage, name)? else {
                continue;
            };
            match parse_checkpoint(&bytes, &queue_id) {
                None => unreadable += 1,
                Some(found) if newest.as_ref().is_none_or(|(generation, _)| found.0 > *generation) => {
                    newest = Some(found);
                }
                Some(_) => {}
            }
        }
        let generation = newest.as_ref().map_or(0, |(generation, _)| *generation);
        Ok((
            Self {
                queue_id,
                generation,
                recent,
                durable_seq: 0,
            },
            newest.map(|(_, checkpoint)| checkpoint),
            unreadable,
        ))
    }

    /// Writes without a sync: after a power cut an older checkpoint may stand.
    pub(super) fn save_recent<S: Storage<File = F>>(&mut self, storage: &S, checkpoint: &Checkpoint) -> io::Result<()> {
        self.generation += 1;
        let bytes = self.encode(checkpoint);
        let mut file = match self.recent.take() {
            Some(file) => file,
            None => create_afresh(storage, CHECKPOINT_RECENT)?,
        };
        file.write_at(&bytes, 0)?;
        self.recent = Some(file);
        Ok(())
    }

    /// Writes durably; on a full disk in place, so that segments can go that make room.
    pub(super) fn save_durably<S: Storage<File = F>>(
        &mut self,
        storage: &S,
        checkpoint: &Checkpoint,
    ) -> io::Result<()> {
        self.generation += 1;
        // After a rewind it may be this one already when the save fails.
        self.durable_seq = self.durable_seq.min(checkpoint.seq);
        match replace(storage, CHECKPOINT, &self.encode(checkpoint)) {
            Err(error) if is_no_room(&error) => {
                let Some(recent) = &mut self.recent else {
                    return Err(error);
                };
                self.generation += 1;
                let bytes = encode(&self.queue_id, self.generation, checkpoint);
                recent.write_at(&bytes, 0)?;
                recent.sync()?;
            }
            saved => saved?,
        }
        self.durable_seq = checkpoint.seq;
        Ok(())
    }

    /// The checkpoint that the next opening finds is not before this one.
    pub(super) fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// Takes the place on disk that later checkpoints need. Without it they need a disk that is not full.
    pub(super) fn take_place<S: Storage<File = F>>(&mut self, storage: &S, checkpoint: &Checkpoint) {
        drop(self.save_recent(storage, checkpoint));
    }

    fn encode(&self, checkpoint: &Checkpoint) -> Vec<u8> {
        encode(&self.queue_id, self.generation, checkpoint)
    }
}

fn encode(queue_id: &QueueId, generation: u64, checkpoint: &Checkpoint) -> Vec<u8> {
    let mut body = queue_id.to_vec();
    for number in [generation, checkpoint.seq, checkpoint.wall_ms] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.extend_from_slice(&checkpoint.mark.offset.to_le_bytes());
    for text in [&checkpoint.mark.run_id, &checkpoint.mark.replid] {
        // Both are 40 hex digits; what is longer than the format allows is none of Redis's and is not kept.
        let length = u16::try_from(text.len()).unwrap_or(0);
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    }
    encode_small(CHECKPOINT_MAGIC, VERSION, &body)
}

fn parse_checkpoint(bytes: &[u8], queue_id: &QueueId) -> Option<(u64, Checkpoint)> {
    let body = parse_small(CHECKPOINT_MAGIC, VERSION, bytes)?;
    if !body.starts_with(queue_id) {
        return None;
    }
    let offset = i64::from_le_bytes(*body.get(40..)?.first_chunk()?);
    let (run_id, rest) = parse_text(body.get(48..)?)?;
    let (replid, _) = parse_text(rest)?;
    let mark = Mark { run_id, replid, offset };
    Some((
        u64_at(body, 16)?,
        Checkpoint {
            seq: u64_at(body, 24)?,
            wall_ms: u64_at(body, 32)?,
            mark,
        },
    ))
}

fn parse_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}
