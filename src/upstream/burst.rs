//! Many small sends with one system call, through io_uring where the kernel lets us.
//!
//! What it is for: the first reply of a batch wakes the client's process, and a kernel that lets it run at once makes this worker wait between
//! any two replies of the batch. One system call for all of them is not interrupted, and costs less than one for each: half of the processor
//! time per request where clients and worker share a core (`benches`). The same holds for requests on dedicated connections, where it is Redis
//! that is woken: from each by itself it takes a batch of one. Without io_uring (an old kernel, a container's seccomp profile,
//! `io_uring = "off"`) everything is written by itself.

use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::rc::Rc;

use io_uring::{IoUring, Probe, opcode, types};
use rustix::net::SendFlags;

/// Sends in one system call.
const SENDS_MAX: usize = 128;
/// What is larger is written by itself: here it would be copied.
const SEND_BYTES_MAX: usize = 4 << 10;
/// Fewer senders than this write one by one.
const SENDERS_MIN: usize = 3;
/// A socket that is full says so, and one that is closed raises no signal.
const AT_ONCE: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Whether io_uring may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uring {
    /// Where there is one.
    #[default]
    Auto,
    Off,
}

/// Whether bytes may be part of a burst.
#[inline]
#[must_use]
pub fn is_small(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.len() <= SEND_BYTES_MAX
}

/// Somebody who has bytes for a socket.
pub trait Sender {
    /// Writes what has been gathered.
    fn flush(&self);
    /// Puts what has been gathered into a burst instead, if that is all there is to do; what became of it comes with [`Sender::sent`].
    fn offer(&self, _: &mut Burst) -> Offer {
        Offer::Declined
    }
    /// So many bytes of what was offered are sent; or none, where there is an error.
    fn sent(&self, _: io::Result<usize>) {}
    /// The burst has failed, and has not said whether what was offered is sent.
    fn sent_perhaps(&self) {
        self.flush();
    }
}

/// Whether a sender has put what it has into the burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    Taken,
    /// It is to be flushed by itself.
    Declined,
    /// It has been flushed, or offered, since it was put on the list.
    Nothing,
}

/// One worker's.
pub struct Burst {
    ring: Option<IoUring>,
    bytes: Vec<u8>,
    sends: Vec<(RawFd, Range<usize>)>,
    /// Those who have offered and were not told yet, as in `sends`.
    senders: Vec<Option<Rc<dyn Sender>>>,
}

impl std::fmt::Debug for Burst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Burst")
            .field("ring", &self.ring.is_some())
            .finish_non_exhaustive()
    }
}

impl Burst {
    #[must_use]
    pub fn new(uring: Uring) -> Self {
        let ring = match uring {
            Uring::Auto => open()
                .map_err(|error| tracing::debug!(%error, "no io_uring: replies are written one by one"))
                .ok(),
            Uring::Off => None,
        };
        Self {
            ring,
            bytes: Vec::new(),
            sends: Vec::new(),
            senders: Vec::new(),
        }
    }

    /// Whether there is an io_uring.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ring.is_some()
    }

    /// Takes a copy of what is to be sent on a socket.
    pub fn add(&mut self, socket: RawFd, bytes: &[u8]) -> Offer {
        if !is_small(bytes) {
            return Offer::Declined;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.sends.push((socket, start..self.bytes.len()));
        Offer::Taken
    }

    /// Whether so many senders are enough for a burst.
    #[must_use]
    pub fn is_for(&self, senders: usize) -> bool {
        self.ring.is_some() && senders >= SENDERS_MIN
    }

    /// Flushes all: together where there are enough of them. What others have offered may not be taken back by whoever is flushed or told here.
    pub fn flush(&mut self, senders: &mut Vec<Rc<dyn Sender>>) {
        if !self.is_for(senders.len()) {
            senders.drain(..).for_each(|sender| sender.flush());
            return;
        }
        for sender in senders.drain(..) {
            if self.ring.is_none() {
                sender.flush();
                continue;
            }
            match sender.offer(self) {
                Offer::Taken => self.senders.push(Some(sender)),
                Offer::Declined => sender.flush(),
                Offer::Nothing => {}
            }
            if self.sends.len() == SENDS_MAX {
                self.send();
            }
        }
        self.send();
    }

    /// Sends what was taken, and tells each sender.
    fn send(&mut self) {
        let Some(ring) = self.ring.as_mut().filter(|_| !self.sends.is_empty()) else {
            return;
        };
        let senders = &mut self.senders;
        let result = submit(ring, &self.sends, &self.bytes, |index, result| {
            if let Some(sender) = senders.get_mut(index).and_then(Option::take) {
                sender.sent(result);
            }
        });
        if let Err(error) = result {
            tracing::warn!(%error, "io_uring fails: from now on everything is written one by one");
            // What the kernel has not taken is never sent from there, for the ring ends here.
            self.ring = None;
            self.senders.iter().flatten().for_each(|sender| sender.sent_perhaps());
        }
        self.senders.clear();
        self.sends.clear();
        self.bytes.clear();
    }
}

fn open() -> io::Result<IoUring> {
    let ring = IoUring::new(SENDS_MAX as u32)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    // Linux 5.12 and later: earlier ones differ in what they do with an entry that may not wait.
    if probe.is_supported(opcode::Send::CODE) && ring.params().is_feature_native_workers() {
        Ok(ring)
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Sends each range of `bytes` on its socket, at most [`SENDS_MAX`], and tells what became of it; returns when all are told, or with the kernel's
/// refusal.
#[allow(
    unsafe_code,
    reason = "the kernel reads the bytes at addresses that it is given; see below for why they are there"
)]
fn submit(
    ring: &mut IoUring,
    sends: &[(RawFd, Range<usize>)],
    bytes: &[u8],
    mut tell: impl FnMut(usize, io::Result<usize>),
) -> io::Result<()> {
    for (index, (socket, range)) in sends.iter().enumerate() {
        let part = bytes.get(range.clone()).unwrap_or_default();
        let entry = opcode::Send::new(types::Fd(*socket), part.as_ptr(), part.len() as u32)
            .flags(AT_ONCE.bits().cast_signed())
            .build()
            .user_data(index as u64);
        // SAFETY: the kernel reads `part` while it executes the entry. An entry that may not wait (DONTWAIT) is executed, to its end or to
        // EAGAIN, inside the `submit` that hands it over (io_uring_enter; without SQPOLL nobody else takes entries), and `bytes` is borrowed
        // until after that. The ring has room: it was empty, and has `SENDS_MAX` places.
        if unsafe { ring.submission().push(&entry) }.is_err() {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
    }
    let mut left = sends.len();
    let mut refusal = None;
    while left > 0 && refusal.is_none() {
        match ring.submit_and_wait(left) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => refusal = Some(error),
        }
        // Also of what was executed before a refusal.
        for entry in ring.completion() {
            left = left.saturating_sub(1);
            let result = entry.result();
            let sent = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            tell(entry.user_data() as usize, sent);
        }
    }
    refusal.map_or(Ok(()), Err)
}
