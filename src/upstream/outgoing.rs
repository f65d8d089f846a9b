//! The bytes that a connection has for the upstream: kept until they are answered, written when there are enough of them or the turn is over.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::burst;
use super::give_way::requests_left;
use super::io::Writer;
use super::link::Slot;

/// Capacity that an empty buffer keeps until [`Outgoing::shed`].
const KEPT_BYTES: usize = 128 << 10;
/// Capacity that an idle connection keeps.
const IDLE_BYTES: usize = 4 << 10;
/// Answered bytes are moved out of the way only when there are this many.
const MOVED_BYTES: usize = 64 << 10;
/// Unsent bytes of a dedicated connection above which its session stops reading.
const FULL_BYTES: usize = 64 << 10;
/// Unsent bytes that are written in mid-turn, so that the upstream works while the rest of the turn is read. Half of what Redis reads at once.
const EARLY_BYTES: usize = 8 << 10;

/// `base ≤ sent ≤ base + bytes.len()`; all before the oldest unanswered request may be forgotten.
#[derive(Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    base: u64,
    sent: u64,
    /// While the connection may be written to.
    writer: Option<Rc<Writer>>,
}

impl Outgoing {
    /// The connection is up.
    pub(super) fn begin(&mut self, writer: Rc<Writer>) {
        self.writer = Some(writer);
    }

    /// Nothing is written any more; what was not sent is dropped.
    pub(super) fn end_writing(&mut self) {
        self.writer = None;
        self.bytes.truncate((self.sent - self.base) as usize);
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Where what was sent ends, counted from the connection's first byte.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn is_sent(&self, slot: &Slot) -> bool {
        slot.start + u64::from(slot.len) <= self.sent
    }

    fn unsent(&self) -> &[u8] {
        self.bytes.get((self.sent - self.base) as usize..).unwrap_or_default()
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.end()
    }

    /// Whether what is unsent is worth a write before the turn is over.
    #[inline]
    pub(super) fn is_early(&self) -> bool {
        self.end() - self.sent >= EARLY_BYTES as u64
    }

    /// What is unsent, and the socket, where both may be part of a burst.
    pub(super) fn for_burst(&self) -> Option<(RawFd, &[u8])> {
        let unsent = Some(self.unsent()).filter(|unsent| burst::is_small(unsent))?;
        Some((self.writer.as_ref()?.plain_socket()?, unsent))
    }

    /// A burst has sent so many of the unsent bytes.
    pub(super) fn wrote(&mut self, bytes: usize) {
        requests_left(bytes);
        self.sent += bytes as u64;
    }

    /// All that is unsent may be sent: it counts as that, and nothing follows it.
    pub(super) fn end_uncertain(&mut self) {
        self.sent = self.end();
        if let Some(writer) = self.writer.take() {
            writer.shutdown();
        }
    }

    /// Whether a streaming session is to wait before it pushes more.
    pub(super) fn is_full(&self) -> bool {
        self.unsent().len() > FULL_BYTES
    }

    /// Writes what the socket takes at once. Errors are the reader's to tell: what the upstream said before it closed is still to be read.
    ///
    /// # Errors
    /// `WouldBlock` where something is left.
    pub(super) fn try_write(&mut self) -> io::Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        while self.has_unsent() {
            let written = writer.try_write(self.bytes.get((self.sent - self.base) as usize..).unwrap_or_default());
            match written {
                Ok(written) => {
                    requests_left(written);
                    self.sent += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// As [`Self::try_write`], and the task is woken when the socket takes more.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.try_write().is_err() {
            let Some(writer) = &self.writer else { break };
            if ready!(writer.poll_ready(cx)).is_err() {
                break;
            }
        }
        match &self.writer {
            Some(writer) => writer.poll_flush(cx).map(drop),
            None => Poll::Ready(()),
        }
    }

    /// Writes bytes that are not to be kept, as far as the socket takes them at once and nothing stands before them; gives how many.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> usize {
        let Some(writer) = self.writer.as_ref().filter(|_| self.bytes.is_empty()) else {
            return 0;
        };
        let mut passed = 0;
        while passed < bytes.len()
            && let Ok(written) = writer.try_write(bytes.get(passed..).unwrap_or_default())
        {
            passed += written;
        }
        requests_left(passed);
        self.base += passed as u64;
        self.sent += passed as u64;
        passed
    }

    /// Gives back memory that an idle connection does not need.
    pub(super) fn shed(&mut self) {
        if self.bytes.is_empty() {
            self.bytes.shrink_to(IDLE_BYTES);
        }
    }

    /// What is kept of a request: nothing of a streamed one, which may start before everything that is kept.
    pub(super) fn request(&self, slot: &Slot) -> &[u8] {
        let start = slot.start.saturating_sub(self.base) as usize;
        self.bytes.get(start..start + slot.len as usize).unwrap_or_default()
    }

    /// Forgets what stands before `keep`, which is nothing unsent, and nothing forgotten before; moves bytes rarely.
    #[inline]
    pub(super) fn forget(&mut self, keep: u64) {
        let keep = keep.max(self.base).min(self.sent);
        let done = (keep - self.base) as usize;
        if done == self.bytes.len() {
            self.base = keep;
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
        } else if done > MOVED_BYTES && done > self.bytes.len() / 2 {
            self.bytes.drain(..done);
            self.base = keep;
        }
    }
}
