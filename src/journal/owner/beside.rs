//! The sync that runs beside the owner, on a thread of its own, so that no append waits for the disk.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::super::{StorageFile, SyncDone, SyncTicket};

/// The helper thread; at most one sync is under way.
#[derive(Debug)]
pub(super) struct Beside<F> {
    tickets: SyncSender<SyncTicket<F>>,
    outcomes: Receiver<SyncDone>,
    is_out: bool,
}

impl<F: StorageFile> Beside<F> {
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn start() -> io::Result<Self> {
        let (tickets, to_do) = sync_channel::<SyncTicket<F>>(1);
        let (done, outcomes) = sync_channel(1);
        thread::Builder::new().name("journal-sync".to_owned()).spawn(move || {
            for ticket in to_do {
                if done.send(ticket.run()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self {
            tickets,
            outcomes,
            is_out: false,
        })
    }

    /// Whether a sync is under way.
    pub(super) const fn is_out(&self) -> bool {
        self.is_out
    }

    /// Starts a sync; the caller has made sure that none is under way. Where the helper is gone the sync is done here.
    pub(super) fn begin(&mut self, ticket: SyncTicket<F>) -> Option<SyncDone> {
        match self.tickets.try_send(ticket) {
            Ok(()) => {
                self.is_out = true;
                None
            }
            Err(error) => match error {
                std::sync::mpsc::TrySendError::Full(ticket) | std::sync::mpsc::TrySendError::Disconnected(ticket) => {
                    Some(ticket.run())
                }
            },
        }
    }

    /// The outcome, once there is one.
    pub(super) fn poll(&mut self) -> Option<SyncDone> {
        let done = self.outcomes.try_recv().ok()?;
        self.is_out = false;
        Some(done)
    }

    /// The outcome of the sync under way, waited for.
    pub(super) fn finish(&mut self) -> Option<SyncDone> {
        if !self.is_out {
            return None;
        }
        self.is_out = false;
        self.outcomes.recv().ok()
    }
}
