//! What the owner takes: batches of appends from sessions and requests of the control side, in one bounded inbox so
//! that their order is one order.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use super::super::handover::Close;
use super::super::{
    Checkpoint, DeadLetter, ErrorCounts, Incarnations, Mark, Moved, ReadError, Record, ReplayedError, Status,
};
use super::waiting::WaitingRequest;

/// Messages that may wait for the owner.
pub const INBOX_MESSAGES_MAX: usize = 1024;

/// Called once with the answer, on the owner's thread: it must not block. Dropped uncalled when the owner ended first.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// Wakes a worker so that it loads the generation and confirms it; called on the owner's thread, must not block.
pub type Waker = Box<dyn Fn() + Send>;

/// Payloads of records, one after the other in one buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payloads {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Payloads {
    /// Adds a record.
    pub fn push(&mut self, payload: &[u8]) {
        self.push_with(|bytes| bytes.extend_from_slice(payload));
    }

    /// Adds a record that `write` appends to the buffer, which it must not shorten.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// The records in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let payload = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            payload
        })
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all records.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory it holds for payloads.
    #[must_use]
    pub fn bytes_capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Empties it for reuse; the memory stays.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// What became of a batch. Its records share one fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// In the journal, as durable as the fsync policy promises, and no worker forwards anything any more.
    Acknowledged,
    /// Nothing was written: the generation has changed since the session saw it. Route the writes again.
    Refused,
    /// Nothing was written: the journal has reached its size limit.
    Full,
    /// Nothing is in the journal: the disk failed, or the owner is ending. Says why.
    Failed(String),
}

/// What a session journals in one turn.
pub struct Batch {
    /// The generation its session routed under.
    pub generation: u64,
    /// The records.
    pub payloads: Payloads,
    /// Wall clock when they were accepted, milliseconds since 1970.
    pub wall_ms: u64,
    /// Monotonic clock then, milliseconds since an origin of the caller's.
    pub mono_ms: u64,
    /// Called once on the owner's thread, with the payloads given back for reuse: it must not block. Dropped uncalled
    /// when the owner ended before it could acknowledge: then the records may or may not be in the journal.
    pub done: Box<dyn FnOnce(Settled, Payloads) + Send>,
}

impl Batch {
    pub(super) fn settle(self, settled: Settled) {
        (self.done)(settled, self.payloads);
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Batch")
            .field("generation", &self.generation)
            .field("records", &self.payloads.len())
            .finish_non_exhaustive()
    }
}

/// The owner's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerStatus {
    /// The journal's numbers.
    pub journal: Status,
    /// The generation.
    pub generation: u64,
    /// Whether every worker has confirmed it.
    pub is_confirmed_by_all: bool,
    /// Records written that await the workers' confirmation before they are acknowledged.
    pub unacknowledged_records: u64,
    /// The newest error; nothing once something was written again.
    pub last_error: Option<String>,
    /// All errors.
    pub errors: ErrorCounts,
}

/// What a shutdown left.
#[derive(Debug)]
pub struct Ended {
    /// The journal's last numbers.
    pub journal: Status,
    /// Whether everything is synced and the checkpoint saved.
    pub result: io::Result<()>,
}

pub(super) enum Request {
    Trip(Reply<u64>),
    Close(Reply<Close>),
    Read {
        after_seq: u64,
        records_max: usize,
        bytes_max: usize,
        reply: Reply<Result<Vec<Record>, ReadError>>,
    },
    Replayed {
        seq: u64,
        mark: Mark,
        wall_ms: u64,
        reply: Reply<Result<Moved, ReplayedError>>,
    },
    Rewind {
        seq: u64,
        reply: Reply<Result<Moved, ReplayedError>>,
    },
    Release {
        upto_seq: u64,
        reply: Reply<io::Result<Moved>>,
    },
    ReleaseOlder {
        wall_ms: u64,
        reply: Reply<io::Result<Moved>>,
    },
    DeadLetter {
        letter: DeadLetter,
        reply: Reply<io::Result<bool>>,
    },
    DeadLetters {
        after_seq: u64,
        letters_max: usize,
        reply: Reply<io::Result<Vec<DeadLetter>>>,
    },
    DropDeadLetter {
        seq: u64,
        reply: Reply<io::Result<bool>>,
    },
    Waiting(WaitingRequest),
    DropBacklog(Reply<io::Result<Moved>>),
    Checkpoint(Reply<Option<Checkpoint>>),
    Incarnations(Reply<Incarnations>),
    Status(Reply<OwnerStatus>),
    Shutdown(Reply<Ended>),
}

pub(super) enum Message {
    Append(Batch),
    /// Look at the confirmations.
    Confirmed,
    Request(Request),
}

#[derive(Debug)]
pub(super) struct Shared {
    /// In an allocation of its own: every worker reads it once per turn.
    generation: Arc<AtomicU64>,
    confirmed: Box<[AtomicU64]>,
    is_running: AtomicBool,
    queue_id: String,
}

impl Shared {
    pub(super) fn new(generation: u64, workers: usize, queue_id: String) -> Self {
        Self {
            generation: Arc::new(AtomicU64::new(generation)),
            confirmed: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            is_running: AtomicBool::new(true),
            queue_id,
        }
    }

    pub(super) fn publish(&self, generation: u64) {
        self.generation.store(generation, Ordering::Release);
    }

    pub(super) fn confirmations(&self) -> impl Iterator<Item = u64> {
        self.confirmed.iter().map(|confirmed| confirmed.load(Ordering::SeqCst))
    }

    pub(super) fn end(&self) {
        self.is_running.store(false, Ordering::Release);
    }
}

/// Why a request was not taken; its reply is dropped uncalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// The inbox is full (the disk is slow): ask again a little later.
    #[error("the journal's inbox is full")]
    Full,
    /// The owner has ended.
    #[error("the journal's owner has ended")]
    Ended,
}

/// Speaks to the owner from any thread; never blocks.
#[derive(Debug, Clone)]
pub struct OwnerHandle {
    inbox: SyncSender<Message>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Append(_) => "Append",
            Self::Confirmed => "Confirmed",
            Self::Request(_) => "Request",
        })
    }
}

impl OwnerHandle {
    pub(super) fn new(inbox: SyncSender<Message>, shared: Arc<Shared>) -> Self {
        Self { inbox, shared }
    }

    /// Journals a batch; `done` tells what became of it.
    ///
    /// # Errors
    /// The batch itself, untouched: the inbox is full, or the owner has ended ([`Self::is_running`] tells which).
    pub fn append(&self, batch: Batch) -> Result<(), Batch> {
        self.inbox
            .try_send(Message::Append(batch))
            .map_err(|error| match error {
                TrySendError::Full(message) | TrySendError::Disconnected(message) => match message {
                    Message::Append(batch) => batch,
                    Message::Confirmed | Message::Request(_) => unreachable!("a failed send gives back what was sent"),
                },
            })
    }

    /// The generation; load it once per turn, before the lanes are flushed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// The generation's counter, for those who know nothing else of the journal. Only its owner writes it.
    #[must_use]
    pub fn generation_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.generation)
    }

    /// Worker number `worker` has seen `generation` and writes nothing any more under an older one.
    pub fn confirm(&self, worker: usize, generation: u64) {
        if let Some(confirmed) = self.shared.confirmed.get(worker) {
            confirmed.store(generation, Ordering::SeqCst);
        }
        // A full inbox wakes the owner as well, and it looks at the confirmations in each of its turns.
        let _: Result<(), TrySendError<Message>> = self.inbox.try_send(Message::Confirmed);
    }

    /// Whether the thread is there. A panic in it ends it: batches and requests that it held are dropped uncalled.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.shared.is_running.load(Ordering::Acquire)
    }

    /// 32 hex digits that name the journal for its directory's life.
    #[must_use]
    pub fn queue_id(&self) -> &str {
        &self.shared.queue_id
    }

    pub(super) fn request(&self, request: Request) -> Result<(), Unsent> {
        self.inbox
            .try_send(Message::Request(request))
            .map_err(|error| match error {
                TrySendError::Full(_) => Unsent::Full,
                TrySendError::Disconnected(_) => Unsent::Ended,
            })
    }
}

/// Requests of the control side. All fail with [`Unsent`] when the request was not taken.
#[allow(clippy::missing_errors_doc, reason = "the one error is explained above")]
impl OwnerHandle {
    /// Stops forwarding; the reply is the journaling generation, given when every worker has confirmed it.
    pub fn trip(&self, reply: Reply<u64>) -> Result<(), Unsent> {
        self.request(Request::Trip(reply))
    }

    /// Forwards again, if nothing is left to replay.
    pub fn close(&self, reply: Reply<Close>) -> Result<(), Unsent> {
        self.request(Request::Close(reply))
    }

    /// Records after `after_seq`, in order; none when there are none.
    pub fn read(
        &self,
        after_seq: u64,
        records_max: usize,
        bytes_max: usize,
        reply: Reply<Result<Vec<Record>, ReadError>>,
    ) -> Result<(), Unsent> {
        self.request(Request::Read {
            after_seq,
            records_max,
            bytes_max,
            reply,
        })
    }

    /// The upstream has confirmed all records up to `seq`; the checkpoint is saved now and then.
    pub fn replayed(
        &self,
        seq: u64,
        mark: Mark,
        wall_ms: u64,
        reply: Reply<Result<Moved, ReplayedError>>,
    ) -> Result<(), Unsent> {
        self.request(Request::Replayed {
            seq,
            mark,
            wall_ms,
            reply,
        })
    }

    /// Records after `seq` that are still kept are backlog again; trip first.
    pub fn rewind(&self, seq: u64, reply: Reply<Result<Moved, ReplayedError>>) -> Result<(), Unsent> {
        self.request(Request::Rewind { seq, reply })
    }

    /// Replayed records up to `upto_seq` need not be kept any more.
    pub fn release(&self, upto_seq: u64, reply: Reply<io::Result<Moved>>) -> Result<(), Unsent> {
        self.request(Request::Release { upto_seq, reply })
    }

    /// Records replayed at or before `wall_ms` need not be kept any more.
    pub fn release_older(&self, wall_ms: u64, reply: Reply<io::Result<Moved>>) -> Result<(), Unsent> {
        self.request(Request::ReleaseOlder { wall_ms, reply })
    }

    /// Keeps a record that the upstream refused for good; durable at the reply, which is `false` when it was kept before.
    pub fn dead_letter(&self, letter: DeadLetter, reply: Reply<io::Result<bool>>) -> Result<(), Unsent> {
        self.request(Request::DeadLetter { letter, reply })
    }

    /// Dead letters after `after_seq`, in order.
    pub fn dead_letters(
        &self,
        after_seq: u64,
        letters_max: usize,
        reply: Reply<io::Result<Vec<DeadLetter>>>,
    ) -> Result<(), Unsent> {
        self.request(Request::DeadLetters {
            after_seq,
            letters_max,
            reply,
        })
    }

    /// Gives up a dead letter; `false` when there is none.
    pub fn drop_dead_letter(&self, seq: u64, reply: Reply<io::Result<bool>>) -> Result<(), Unsent> {
        self.request(Request::DropDeadLetter { seq, reply })
    }

    /// Gives up all records, at the user's explicit wish.
    pub fn drop_backlog(&self, reply: Reply<io::Result<Moved>>) -> Result<(), Unsent> {
        self.request(Request::DropBacklog(reply))
    }

    /// How far replay got.
    pub fn checkpoint(&self, reply: Reply<Option<Checkpoint>>) -> Result<(), Unsent> {
        self.request(Request::Checkpoint(reply))
    }

    /// This journal's openings.
    pub fn incarnations(&self, reply: Reply<Incarnations>) -> Result<(), Unsent> {
        self.request(Request::Incarnations(reply))
    }

    /// The numbers.
    pub fn status(&self, reply: Reply<OwnerStatus>) -> Result<(), Unsent> {
        self.request(Request::Status(reply))
    }

    /// Syncs everything, saves the checkpoint and ends the thread. Appends that wait in the inbox fail.
    pub fn shutdown(&self, reply: Reply<Ended>) -> Result<(), Unsent> {
        self.request(Request::Shutdown(reply))
    }
}
