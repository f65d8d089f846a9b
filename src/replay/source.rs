//! The journal's side of replay: requests to its owner, and the backlog read ahead.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::journal::owner::{OwnerHandle, Reply, Unsent};
use crate::journal::{ReadError, Record};

const READ_RECORDS_MAX: usize = 4096;
const READ_BYTES_MAX: usize = 4 << 20;
/// The next read is asked for when fewer are left, and fewer bytes than one brings.
const RECORDS_LOW: usize = 4096;

/// The journal cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("the journal's owner has ended")]
    Ended,
    #[error("the journal cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the journal: {0}")]
    Other(String),
}

/// Asks the owner; waits where its inbox is full.
pub(super) async fn ask<T: Send + 'static>(
    request: impl Fn(Reply<T>) -> Result<(), Unsent>,
) -> Result<T, JournalError> {
    send(request).await?.await.map_err(|_| JournalError::Ended)
}

/// As [`ask`], but the answer is taken later.
pub(super) async fn send<T: Send + 'static>(
    request: impl Fn(Reply<T>) -> Result<(), Unsent>,
) -> Result<oneshot::Receiver<T>, JournalError> {
    loop {
        let (sender, receiver) = oneshot::channel();
        // Whoever asked may have gone.
        match request(Box::new(move |answer| drop(sender.send(answer)))) {
            Ok(()) => return Ok(receiver),
            Err(Unsent::Full) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
            Err(Unsent::Ended) => return Err(JournalError::Ended),
        }
    }
}

type Read = Result<Vec<Record>, ReadError>;

/// Records in order, read ahead by one chunk.
#[derive(Debug)]
pub(super) struct Source {
    owner: OwnerHandle,
    pub records: VecDeque<Record>,
    /// The last record that was read.
    read_seq: u64,
    under_way: Option<oneshot::Receiver<Read>>,
}

impl Source {
    pub(super) fn new(owner: OwnerHandle, after_seq: u64) -> Self {
        Self {
            owner,
            records: VecDeque::new(),
            read_seq: after_seq,
            under_way: None,
        }
    }

    /// Makes sure that there is a record; `None` at the end of the backlog.
    pub(super) async fn fill(&mut self) -> Result<Option<()>, JournalError> {
        if !self.records.is_empty() {
            return Ok(Some(()));
        }
        self.ask_ahead()?;
        while let Some(receiver) = self.under_way.take() {
            self.keep(receiver.await.map_err(|_| JournalError::Ended)?)?;
        }
        if self.records.is_empty() && self.read_seq_asked_in_vain().await? {
            return Ok(None);
        }
        Ok((!self.records.is_empty()).then_some(()))
    }

    /// Asks once more: the read ahead may have been answered before the newest appends.
    async fn read_seq_asked_in_vain(&mut self) -> Result<bool, JournalError> {
        let (owner, after_seq) = (&self.owner, self.read_seq);
        let read = ask(|reply| owner.read(after_seq, READ_RECORDS_MAX, READ_BYTES_MAX, reply)).await?;
        self.keep(read)?;
        Ok(self.records.is_empty())
    }

    /// Takes what has arrived and asks for more when little is left; never waits.
    pub(super) fn top_up(&mut self) -> Result<(), JournalError> {
        if let Some(receiver) = &mut self.under_way {
            match receiver.try_recv() {
                Ok(read) => {
                    self.under_way = None;
                    self.keep(read)?;
                }
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => return Err(JournalError::Ended),
            }
        }
        self.ask_ahead()
    }

    fn ask_ahead(&mut self) -> Result<(), JournalError> {
        let bytes_held = || self.records.iter().map(|record| record.payload.len()).sum::<usize>();
        if self.under_way.is_some() || self.records.len() >= RECORDS_LOW || bytes_held() >= READ_BYTES_MAX {
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        let reply = Box::new(move |read| drop(sender.send(read)));
        match self.owner.read(self.read_seq, READ_RECORDS_MAX, READ_BYTES_MAX, reply) {
            Ok(()) => self.under_way = Some(receiver),
            Err(Unsent::Full) => {}
            Err(Unsent::Ended) => return Err(JournalError::Ended),
        }
        Ok(())
    }

    fn keep(&mut self, read: Read) -> Result<(), JournalError> {
        let records = read?;
        if let Some(last) = records.last() {
            self.read_seq = last.seq;
        }
        self.records.extend(records);
        Ok(())
    }
}
