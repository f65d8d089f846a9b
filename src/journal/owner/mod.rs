//! The one thread per upstream that owns the journal's files and is the only writer of the generation.
//!
//! Each turn it takes everything that waits, writes all appends with one write per run of equal time, syncs once where
//! the policy is `always`, acknowledges what every worker has confirmed, and only then decides about closing. Between
//! turns it is parked in its inbox. It is the one place of this room that reads the monotonic clock: the rhythm of
//! `everysec` needs one.
//!
//! Nobody is left hanging: whatever the thread holds when it ends (also by a panic) is dropped, callbacks uncalled, and
//! [`OwnerHandle::append`] hands every later batch back.

mod beside;
mod inbox;
#[cfg(test)]
mod tests;
mod waiting;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use self::beside::Beside;
pub use self::inbox::{
    Batch, Ended, INBOX_MESSAGES_MAX, OwnerHandle, OwnerStatus, Payloads, Reply, Settled, Unsent, Waker,
};
use self::inbox::{Message, Request, Shared};
use self::waiting::say;
use super::handover::{Admission, Close, Handover, Trip};
use super::types::is_no_room;
use super::{AppendError, ErrorCounts, Fsync, Journal, Storage, SyncDone};

/// How often `everysec` syncs and the checkpoint is saved.
const RHYTHM: Duration = Duration::from_secs(1);

/// How often the outcome of a sync beside is looked for; bounds how long a poisoned segment goes unnoticed.
const SYNC_POLL: Duration = Duration::from_millis(50);

/// How often confirmations are looked for without being told, should a wake-up have met a full inbox.
const CONFIRMATION_POLL: Duration = Duration::from_millis(5);

/// The checkpoint is saved after so many replayed records, or after [`RHYTHM`].
const CHECKPOINT_RECORDS: u64 = 1000;

/// Starts the thread. `wakers` has one entry per worker; the generation is 1 and none has confirmed it. `fsync` is what
/// the journal was opened with. The thread ends after [`OwnerHandle::shutdown`] or when the last handle is dropped.
///
/// # Errors
/// The system has no thread to give.
pub fn spawn<S: Storage + 'static>(
    journal: Journal<S>,
    fsync: Fsync,
    wakers: Vec<Waker>,
) -> io::Result<(OwnerHandle, thread::JoinHandle<()>)> {
    let (sender, receiver) = sync_channel(INBOX_MESSAGES_MAX);
    let handover = Handover::new(wakers.len());
    let shared = Arc::new(Shared::new(
        handover.generation(),
        wakers.len(),
        journal.queue_id().to_owned(),
    ));
    let handle = OwnerHandle::new(sender, Arc::clone(&shared));
    let errors = ErrorCounts {
        no_room: u64::from(journal.not_begun().is_some()),
        ..ErrorCounts::default()
    };
    let owner = Owner {
        journal,
        fsync,
        handover,
        wakers,
        shared,
        beside: Beside::start()?,
        run: Vec::new(),
        unacknowledged: Vec::new(),
        trips: Vec::new(),
        closings: Vec::new(),
        shutdown: None,
        is_unsynced: false,
        due: None,
        last_error: None,
        errors,
    };
    let thread = thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || owner.live(&receiver))?;
    Ok((handle, thread))
}

/// Tells the handles that the thread has ended, however it did.
struct Farewell(Arc<Shared>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.end();
    }
}

enum Woken {
    By(Message),
    Time,
    Abandoned,
}

struct Owner<S: Storage> {
    journal: Journal<S>,
    fsync: Fsync,
    handover: Handover,
    wakers: Vec<Waker>,
    shared: Arc<Shared>,
    beside: Beside<S::File>,
    /// Admitted in this turn, not yet written.
    run: Vec<Batch>,
    /// As durable as promised, of the current generation; not yet confirmed by all workers. A session awaits its
    /// answer before it journals more than its pipeline allows, so this is bounded by the clients.
    unacknowledged: Vec<Batch>,
    trips: Vec<Reply<u64>>,
    /// Decided at the end of the turn, when the inbox is drained.
    closings: Vec<Reply<Close>>,
    shutdown: Option<Reply<Ended>>,
    /// Something was written since the last sync began (`everysec` only).
    is_unsynced: bool,
    /// When the next sync or checkpoint is due.
    due: Option<Instant>,
    /// The newest error; none once something was written again.
    last_error: Option<String>,
    errors: ErrorCounts,
}

impl<S: Storage> Owner<S> {
    fn live(mut self, inbox: &Receiver<Message>) {
        let _farewell = Farewell(Arc::clone(&self.shared));
        loop {
            match self.wait(inbox) {
                Woken::By(message) => self.take(message),
                Woken::Time => {}
                Woken::Abandoned => break,
            }
            for message in inbox.try_iter().take(INBOX_MESSAGES_MAX) {
                self.take(message);
            }
            self.finish_turn();
            if self.shutdown.is_some() {
                break;
            }
        }
        self.end(inbox);
    }

    fn wait(&self, inbox: &Receiver<Message>) -> Woken {
        let mut patience = self.due.map(|due| due.saturating_duration_since(Instant::now()));
        let mut at_most = |limit: Duration| patience = Some(patience.map_or(limit, |patience| patience.min(limit)));
        if self.beside.is_out() {
            at_most(SYNC_POLL);
        }
        if !self.unacknowledged.is_empty() || !self.trips.is_empty() {
            at_most(CONFIRMATION_POLL);
        }
        match patience {
            None => inbox.recv().map_or(Woken::Abandoned, Woken::By),
            Some(patience) => match inbox.recv_timeout(patience) {
                Ok(message) => Woken::By(message),
                Err(RecvTimeoutError::Timeout) => Woken::Time,
                Err(RecvTimeoutError::Disconnected) => Woken::Abandoned,
            },
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Append(batch) => match self.handover.admit(batch.generation) {
                Admission::Write => self.run.push(batch),
                Admission::Refuse => batch.settle(Settled::Refused),
            },
            Message::Confirmed => {}
            Message::Request(request) => {
                // What came before the request is in the journal when it is answered.
                self.commit();
                self.answer(request);
            }
        }
    }

    fn finish_turn(&mut self) {
        if let Some(done) = self.beside.poll() {
            self.synced_beside(done);
        }
        self.commit();
        self.settle();
        if !self.closings.is_empty() {
            let unacknowledged = self.unacknowledged.len() as u64;
            let close = self.handover.close(self.journal.backlog_records(), unacknowledged);
            if let Close::Closed { generation } = close {
                self.publish(generation);
            }
            for reply in self.closings.drain(..) {
                reply(close);
            }
        }
        self.keep_rhythm();
    }

    /// Writes the run, and keeps the policy's promise for it.
    fn commit(&mut self) {
        if self.run.is_empty() {
            return;
        }
        let mut run = std::mem::take(&mut self.run);
        let mut written = Vec::with_capacity(run.len());
        while let Some(first) = run.first() {
            let time = (first.wall_ms, first.mono_ms);
            let same = run
                .iter()
                .take_while(|batch| (batch.wall_ms, batch.mono_ms) == time)
                .count();
            let rest = run.split_off(same);
            if let Err(why) = self.write(run, &mut written) {
                // The rest is not tried: under `always` the sync below tells one fate for all that was written.
                fail(rest, &why);
                run = Vec::new();
            } else {
                run = rest;
            }
        }
        self.run = run;
        if written.is_empty() {
            return;
        }
        match self.fsync {
            Fsync::Always => {
                if let Err(error) = self.journal.sync() {
                    self.note(&error);
                    fail(written, &error.to_string());
                    return;
                }
            }
            Fsync::EverySec => self.is_unsynced = true,
            Fsync::No => {}
        }
        self.unacknowledged.append(&mut written);
    }

    /// Writes batches of one time with one write. When they do not fit together, those that fit alone still do. Fails
    /// when the disk does.
    fn write(&mut self, batches: Vec<Batch>, written: &mut Vec<Batch>) -> Result<(), String> {
        let Some(first) = batches.first() else { return Ok(()) };
        let (wall_ms, mono_ms) = (first.wall_ms, first.mono_ms);
        let appended = {
            let mut payloads = batches.iter().flat_map(|batch| batch.payloads.iter());
            self.journal.append(&mut payloads, wall_ms, mono_ms)
        };
        match appended {
            Ok(_) => {
                self.last_error = None;
                written.extend(batches);
            }
            Err(AppendError::Full { .. } | AppendError::TooLarge) if batches.len() > 1 => {
                let mut batches = batches.into_iter();
                while let Some(batch) = batches.next() {
                    if let Err(why) = self.write(vec![batch], written) {
                        fail(batches, &why);
                        return Err(why);
                    }
                }
            }
            Err(AppendError::Full { .. }) => {
                self.errors.full += 1;
                for batch in batches {
                    batch.settle(Settled::Full);
                }
            }
            Err(error @ AppendError::TooLarge) => fail(batches, &error.to_string()),
            Err(error @ AppendError::Io { .. }) => {
                match &error {
                    AppendError::Io { source } if is_no_room(source) => self.errors.no_room += 1,
                    AppendError::Io { .. } | AppendError::Full { .. } | AppendError::TooLarge => {
                        self.errors.append += 1
                    }
                }
                let why = error.to_string();
                fail(batches, &why);
                self.last_error = Some(why.clone());
                return Err(why);
            }
        }
        Ok(())
    }

    /// Acknowledges and answers trips, if every worker has confirmed the generation.
    fn settle(&mut self) {
        if !self.handover.is_confirmed_by_all() {
            for (worker, generation) in self.shared.confirmations().enumerate() {
                self.handover.confirm(worker, generation);
            }
            if !self.handover.is_confirmed_by_all() {
                return;
            }
        }
        for batch in self.unacknowledged.drain(..) {
            batch.settle(Settled::Acknowledged);
        }
        let generation = self.handover.generation();
        for reply in self.trips.drain(..) {
            reply(generation);
        }
    }

    fn publish(&self, generation: u64) {
        self.shared.publish(generation);
        for wake in &self.wakers {
            wake();
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Trip(reply) => {
                match self.handover.trip() {
                    Trip::Begun { generation } => self.publish(generation),
                    Trip::Journaling { generation: _ } => {}
                }
                self.trips.push(reply);
            }
            Request::Close(reply) => self.closings.push(reply),
            Request::Read {
                after_seq,
                records_max,
                bytes_max,
                reply,
            } => {
                let read = self.journal.read(after_seq, records_max, bytes_max);
                self.errors.read += u64::from(read.is_err());
                reply(read);
            }
            Request::Replayed {
                seq,
                mark,
                wall_ms,
                reply,
            } => reply(self.journal.replayed(seq, &mark, wall_ms)),
            Request::Rewind { seq, reply } => reply(self.journal.rewind(seq)),
            Request::Release { upto_seq, reply } => reply(self.journal.release(upto_seq)),
            Request::ReleaseOlder { wall_ms, reply } => reply(self.journal.release_older(wall_ms)),
            Request::DeadLetter { letter, reply } => {
                say(reply, &mut self.errors.dead_letters, self.journal.dead_letter(&letter));
            }
            Request::DeadLetters {
                after_seq,
                letters_max,
                reply,
            } => {
                let read = self.journal.dead_letters_after(after_seq, letters_max);
                say(reply, &mut self.errors.dead_letters, read);
            }
            Request::DropDeadLetter { seq, reply } => {
                say(reply, &mut self.errors.dead_letters, self.journal.drop_dead_letter(seq));
            }
            Request::Waiting(request) => waiting::answer(&mut self.journal, &mut self.errors.waiting, request),
            Request::DropBacklog(reply) => reply(self.journal.drop_backlog()),
            Request::Checkpoint(reply) => reply(self.journal.checkpoint().cloned()),
            Request::Incarnations(reply) => reply(self.journal.incarnations().clone()),
            Request::Status(reply) => reply(self.status()),
            Request::Shutdown(reply) => self.shutdown = Some(reply),
        }
    }

    fn status(&self) -> OwnerStatus {
        OwnerStatus {
            journal: self.journal.status(),
            generation: self.handover.generation(),
            is_confirmed_by_all: self.handover.is_confirmed_by_all(),
            unacknowledged_records: self
                .unacknowledged
                .iter()
                .map(|batch| batch.payloads.len() as u64)
                .sum(),
            last_error: self
                .last_error
                .clone()
                .or_else(|| self.journal.not_begun().map(str::to_owned)),
            errors: self.errors,
        }
    }

    /// Syncs and saves the checkpoint when that is due, and says when it is due next.
    fn keep_rhythm(&mut self) {
        let unsaved = self.journal.status().records_since_checkpoint;
        if !self.is_unsynced && unsaved == 0 && self.journal.not_begun().is_none() {
            self.due = None;
            return;
        }
        if unsaved >= CHECKPOINT_RECORDS {
            self.save_checkpoint();
        }
        let now = Instant::now();
        match self.due {
            None => self.due = Some(now + RHYTHM),
            Some(due) if due > now => {}
            Some(_) => {
                self.due = Some(now + RHYTHM);
                // Where there was no room at the start there may be now.
                if self.journal.not_begun().is_some() && self.journal.begin().is_ok() {
                    self.last_error = None;
                }
                if self.is_unsynced {
                    self.sync_beside();
                }
                if unsaved > 0 && unsaved < CHECKPOINT_RECORDS {
                    self.save_checkpoint();
                }
            }
        }
    }

    fn save_checkpoint(&mut self) {
        match self.journal.save_checkpoint() {
            Ok(()) => self.last_error = None,
            Err(error) => {
                self.errors.checkpoint += 1;
                self.last_error = Some(format!("checkpoint: {error}"));
            }
        }
    }

    fn sync_beside(&mut self) {
        if self.beside.is_out() {
            return;
        }
        match self.journal.sync_beside() {
            Ok(Some(ticket)) => {
                self.is_unsynced = false;
                if let Some(done) = self.beside.begin(ticket) {
                    self.synced_beside(done);
                }
            }
            Ok(None) => self.is_unsynced = false,
            Err(error) => self.note(&error),
        }
    }

    /// A failed sync has poisoned the segment: what stands in it is synced again, elsewhere, by the next one.
    fn synced_beside(&mut self, done: SyncDone) {
        match self.journal.sync_done(done) {
            Ok(()) => self.last_error = None,
            Err(error) => {
                self.note(&error);
                self.is_unsynced = true;
            }
        }
    }

    fn note(&mut self, error: &dyn fmt::Display) {
        self.errors.sync += 1;
        self.last_error = Some(error.to_string());
    }

    /// Makes everything durable. Batches that were written and not acknowledged are dropped uncalled: they are in the
    /// journal, but a worker might still forward a later write, so they may be called neither kept nor failed.
    fn end(mut self, inbox: &Receiver<Message>) {
        for message in inbox.try_iter().take(INBOX_MESSAGES_MAX) {
            match message {
                Message::Append(batch) => batch.settle(Settled::Failed("the journal is being closed".to_owned())),
                Message::Confirmed | Message::Request(_) => {}
            }
        }
        if let Some(done) = self.beside.finish() {
            self.synced_beside(done);
        }
        let journal = self.journal.status();
        let result = self.journal.close();
        if let Some(reply) = self.shutdown {
            reply(Ended { journal, result });
        }
    }
}

fn fail(batches: impl IntoIterator<Item = Batch>, why: &str) {
    for batch in batches {
        batch.settle(Settled::Failed(why.to_owned()));
    }
}
