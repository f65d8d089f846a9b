//! What all tasks of a worker share: a read buffer, a clock, and the lists of those who write at the end of a turn, which is what is done between two
//! looks at the sockets.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::buffers::Buffers;
use super::burst::{Burst, Sender, Uring};
use super::give_way::told;

/// Bytes read from a socket at once: most of what is large then goes on without being kept.
pub const SCRATCH_BYTES: usize = 512 << 10;

/// So many subscribers wait for the end of the turn: the first read while the worker goes on with the others.
const TOLD_MAX: usize = 8;

/// See the module.
pub struct Turn {
    pub scratch: RefCell<Box<[u8]>>,
    pub buffers: Rc<Buffers>,
    burst: RefCell<Burst>,
    /// To be flushed at the end of the turn.
    later: RefCell<Vec<Rc<dyn Sender>>>,
    /// Of them, subscribers with a message.
    told: Cell<usize>,
    /// Dedicated connections that write at the end of the turn.
    writers: RefCell<Vec<Rc<dyn Sender>>>,
    flusher: RefCell<Option<Waker>>,
    epoch: Instant,
    stamped_us: Cell<u32>,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn")
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

impl Turn {
    #[must_use]
    pub fn new(uring: Uring) -> Self {
        Self {
            burst: RefCell::new(Burst::new(uring)),
            later: RefCell::default(),
            told: Cell::new(0),
            writers: RefCell::default(),
            buffers: Rc::default(),
            flusher: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            epoch: Instant::now(),
            stamped_us: Cell::new(0),
        }
    }

    /// Flushes all: now where there are enough of them for a burst, else with those that come from elsewhere in this turn, or up to the
    /// subscriber that makes them [`TOLD_MAX`].
    pub fn flush(&self, recipients: &mut Vec<Rc<dyn Sender>>) {
        let mut burst = self.burst.borrow_mut();
        if !burst.is_open() || burst.is_for(recipients.len()) {
            burst.flush(recipients);
            return;
        }
        drop(burst);
        for recipient in recipients.drain(..) {
            self.flush_later(recipient);
        }
        if self.told.get() >= TOLD_MAX {
            self.flush_all(&self.later);
        }
    }

    /// Flushes a recipient at the end of the turn; at once where nothing is gained by waiting.
    pub fn flush_later(&self, recipient: Rc<dyn Sender>) {
        if self.is_bursting() {
            self.put(&self.later, recipient);
        } else {
            recipient.flush();
        }
    }

    /// Whether anybody gains by waiting for the end of the turn.
    #[must_use]
    pub fn is_bursting(&self) -> bool {
        self.burst.borrow().is_open()
    }

    pub(super) fn write_later(&self, connection: Rc<dyn Sender>) {
        self.put(&self.writers, connection);
    }

    fn put(&self, list: &RefCell<Vec<Rc<dyn Sender>>>, sender: Rc<dyn Sender>) {
        let mut list = list.borrow_mut();
        list.push(sender);
        if list.len() == 1
            && let Some(flusher) = self.flusher.borrow().as_ref()
        {
            flusher.wake_by_ref();
        }
    }

    /// Flushes those that wait for it, at the end of each turn. Never ends.
    pub async fn flush_each_turn(self: Rc<Self>) {
        std::future::poll_fn(|cx| {
            let mut flusher = self.flusher.borrow_mut();
            if !flusher.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *flusher = Some(cx.waker().clone());
            }
            drop(flusher);
            for list in [&self.writers, &self.later] {
                self.flush_all(list);
            }
            Poll::Pending
        })
        .await
    }

    /// A subscriber that is about to be flushed has a message.
    pub(super) fn told(&self) {
        self.told.set(self.told.get() + 1);
        told();
    }

    fn flush_all(&self, list: &RefCell<Vec<Rc<dyn Sender>>>) {
        self.told.set(0);
        let mut senders = list.take();
        self.burst.borrow_mut().flush(&mut senders);
        // With its capacity; nobody was added meanwhile.
        list.replace(senders);
    }

    /// Reads the clock, for [`Self::stamped_us`].
    #[inline]
    pub fn stamp(&self) {
        self.stamped_us.set(self.now_us());
    }

    /// As [`Self::now_us`], of the last stamp: what is routed together was asked at the same time, and has it from one look at the clock.
    #[inline]
    #[must_use]
    pub fn stamped_us(&self) -> u32 {
        self.stamped_us.get()
    }

    /// Microseconds since the worker started; wraps after 71 minutes, so only differences mean something.
    #[inline]
    #[must_use]
    pub fn now_us(&self) -> u32 {
        self.epoch.elapsed().as_micros() as u32
    }
}

/// Wakes a task after the next look at the sockets: one that moves much must not come first again and again.
pub fn wake_after_others(waker: &Waker) {
    let turn = std::pin::pin!(tokio::task::yield_now());
    // Pending, always: it is asked for the first time.
    let _ = turn.poll(&mut Context::from_waker(waker));
}
