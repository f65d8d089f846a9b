//! An upstream connection that carries pipelined requests: a lane (shared by all sessions of a worker) or a dedicated connection (one session's own).
//!
//! The bytes of every unanswered request stay in the outgoing buffer until the answer is there, so that a connection that dies can say of each
//! whether it was sent, and hand it back. Nothing is written once the generation has moved on: what was not sent goes back to routing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use super::burst::Sender;
use super::give_way::request_pushed;
pub use super::in_flight::{Fate, InFlight, again};
use super::leaving::Leaving;
use super::outgoing::Outgoing;
use super::own_request::OwnRequest;
use super::settings::Identity;
use super::transaction::{Altered, RefusedExec};
use crate::resp::Protocol;

/// What an upstream connection is set up for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkKey {
    pub db: u32,
    pub identity: Identity,
    pub protocol: Protocol,
}

/// Whether a request's age tells anything about the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    Yes,
    /// It blocks by its own will.
    No,
}

/// Whether these bytes end the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Part,
    End,
}

/// The session that a reply goes to. None of these may call back into the link.
pub trait Recipient: Sender {
    /// Bytes of the reply to request `seq`. Returns whether [`Recipient::flush`] is to be called at the end of the turn.
    fn reply(&self, seq: u64, bytes: &[u8], piece: Piece, class: InFlight) -> Flush;
    /// Bytes of an out-of-band frame, or of anything on a connection in subscribed mode.
    fn push(&self, bytes: &[u8], piece: Piece) -> Flush;
    /// The request drew an error that says that it was not executed, and that the upstream is not to be used (LOADING, …).
    fn not_executed(&self, seq: u64, request: &[u8], class: InFlight);
    /// The request was not sent, not even in part where that part could run; or it is a read whose reply here is not waited for.
    fn taken_back(&self, seq: u64, request: &[u8], class: InFlight);
    /// Judges a lost request; called in reverse order of sending, before [`Recipient::lost`].
    fn judge(&self, class: InFlight) -> Fate;
    /// The connection died with the request on it; called in order of sending, with what [`Recipient::judge`] said.
    fn lost(&self, seq: u64, request: &[u8], class: InFlight, verdict: Fate);
    /// The upstream does not take this identity: `error` is its reply without `-`.
    fn denied(&self, seq: u64, error: &str);
    /// As [`Recipient::denied`], for credentials that it took before: their user is gone, or has another password now.
    fn withdrawn(&self, seq: u64, error: &str) {
        self.denied(seq, error);
    }
    /// The dedicated connection of this recipient ended.
    fn ended(&self);
    /// It is written to no more; what was sent on it may yet be answered.
    fn retired(&self) {}
    /// What it had for its dedicated connection has left, or some of it.
    fn left(&self) {}
    /// How much longer the reply is waited for, though the connection is written to no more: the command blocks by its own will.
    fn waits(&self, _seq: u64, _request: &[u8]) -> Option<Duration> {
        None
    }
    /// From now on nothing proves what the upstream did with the request, if its reply does not come.
    fn given_up(&self, _seq: u64) {}
    /// Whether more replies may be read for it; if not, the waker is woken when that may have changed.
    fn has_room(&self, kind: LinkKind, waker: &Waker) -> bool;
    /// It has not read for too long: it is closed, for others wait behind it.
    fn give_up(&self);
}

/// Whether a recipient wants to be flushed ([`Sender::flush`]) at the end of the turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    Wanted,
    /// It is on the list already, or gone.
    NotWanted,
}

/// A request on the connection.
pub(super) struct Slot {
    pub(super) recipient: Rc<dyn Recipient>,
    pub(super) seq: u64,
    /// Where its bytes start, counted from the connection's first; `len` of them are kept (0 for a streamed request).
    pub(super) start: u64,
    pub(super) len: u32,
    pub(super) sent_us: u32,
    pub(super) class: InFlight,
    pub(super) watched: Watched,
}

/// Life of a connection, forwards only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    Dialling,
    Up,
    /// Nothing is written any more; what was sent may still be answered.
    Draining,
    Dead,
}

/// Who may push into a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenTo {
    All,
    /// A lane on which Redis holds a command while it answers others (CLIENT PAUSE): what it would hold, too.
    Held,
    /// A lane that waits, or has waited, for somebody: those who come later take another one.
    Nobody,
}

/// Lane or dedicated: what is done with frames that answer nothing, and with backpressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    Lane,
    Dedicated,
}

/// What arrives on a connection, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Replies, in the order of the requests; out-of-band frames between them.
    Replies,
    /// Frames, all out of band (RESP2 subscribed mode, MONITOR).
    Frames,
    /// Bytes that are not frames (the replication stream behind SYNC): passed on as they come.
    Bytes,
}

/// Requests that an idle connection has room for.
const IDLE_SLOTS: usize = 64;

/// The part of a connection that sessions push into. Its driver, a task of the same worker, owns the sockets.
pub struct Link {
    /// Unique in its worker; never 0 or 1.
    pub id: u64,
    pub key: LinkKey,
    /// The generation it was dialled in: valid in no other.
    pub generation: u64,
    /// The generation now.
    counter: Arc<AtomicU64>,
    pub kind: LinkKind,
    /// The session of a dedicated connection; nothing while it is in the pool.
    pub(super) owner: RefCell<Option<Rc<dyn Recipient>>>,
    pub(super) state: Cell<LinkState>,
    pub(super) out: RefCell<Outgoing>,
    pub(super) slots: RefCell<VecDeque<Slot>>,
    pub(super) driver: RefCell<Option<Waker>>,
    /// The driver has been woken and has not run yet.
    pub(super) woken: Cell<bool>,
    pub(super) incoming: Cell<Incoming>,
    pub(super) open_to: Cell<OpenTo>,
    /// When something arrived last.
    pub(super) heard_us: Cell<u32>,
    /// Whether the upstream is being asked, elsewhere, if it is there ([`super::held`]).
    pub(super) asked_beside: Cell<bool>,
    /// A dedicated connection that some session has had.
    pub(super) has_served: Cell<bool>,
    pub(super) altered: Cell<Altered>,
    /// Requests that were pushed.
    pub(super) pushed: Cell<u64>,
    /// Something was pushed since the last look at idle lanes.
    pub(super) used: Cell<bool>,
    pub(super) client_id: Cell<u64>,
    pub(super) refused_exec: Cell<RefusedExec>,
    pub(super) leaving: Cell<Leaving>,
    /// Wakers of those who wait for the dial to be decided.
    pub(super) watchers: RefCell<Vec<Waker>>,
    /// Why the dial was refused, without `-`.
    pub(super) refusal: RefCell<Option<String>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.id)
            .field("key", &self.key)
            .field("state", &self.state)
            .finish()
    }
}

impl Link {
    pub(super) fn new(id: u64, key: LinkKey, generation: u64, counter: Arc<AtomicU64>, kind: LinkKind) -> Self {
        Self {
            id,
            key,
            generation,
            counter,
            kind,
            owner: RefCell::default(),
            state: Cell::new(LinkState::Dialling),
            out: RefCell::default(),
            slots: RefCell::default(),
            driver: RefCell::default(),
            woken: Cell::new(false),
            incoming: Cell::new(Incoming::Replies),
            open_to: Cell::new(OpenTo::All),
            heard_us: Cell::new(0),
            asked_beside: Cell::new(false),
            has_served: Cell::new(false),
            altered: Cell::default(),
            pushed: Cell::new(0),
            used: Cell::new(true),
            client_id: Cell::new(0),
            refused_exec: Cell::default(),
            leaving: Cell::new(Leaving::WhenThereIsRoom),
            watchers: RefCell::default(),
            refusal: RefCell::default(),
        }
    }

    #[must_use]
    pub fn state(&self) -> LinkState {
        self.state.get()
    }

    /// Whether requests may be pushed.
    #[inline]
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state.get(), LinkState::Dialling | LinkState::Up) && self.open_to.get() == OpenTo::All
    }

    /// Why the upstream refused this identity or database, when it did.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.refusal.borrow().clone()
    }

    /// The upstream's ID of this connection (0 where it is not known).
    #[must_use]
    pub fn client_id(&self) -> u64 {
        self.client_id.get()
    }

    /// Wakes `waker` once the dial is decided.
    pub fn watch(&self, waker: &Waker) {
        let mut watchers = self.watchers.borrow_mut();
        if !watchers.iter().any(|known| known.will_wake(waker)) {
            watchers.push(waker.clone());
        }
    }

    /// Queues a complete request; it is written at the end of the turn.
    #[inline]
    pub fn push(
        &self,
        recipient: Rc<dyn Recipient>,
        seq: u64,
        request: &[u8],
        class: InFlight,
        watched: Watched,
        now_us: u32,
    ) {
        debug_assert!(
            self.is_open() || self.is_held(),
            "requests are pushed to open links only"
        );
        let mut out = self.out.borrow_mut();
        let slot = Slot {
            recipient,
            seq,
            start: out.end(),
            len: request.len() as u32,
            sent_us: now_us,
            class,
            watched,
        };
        out.push(request);
        self.slots.borrow_mut().push_back(slot);
        self.pushed.set(self.pushed.get() + 1);
        request_pushed();
        self.wake();
    }

    /// Opens the slot of a request whose bytes follow in pieces ([`Link::push_bytes`]). Nothing else may be on the connection.
    pub fn push_streamed(&self, recipient: Rc<dyn Recipient>, seq: u64, class: InFlight, now_us: u32) {
        let start = self.out.borrow().end();
        let slot = Slot {
            recipient,
            seq,
            start,
            len: 0,
            sent_us: now_us,
            class,
            watched: Watched::No,
        };
        self.slots.borrow_mut().push_back(slot);
    }

    /// Queues bytes that are part of a streamed request, or draw no reply of their own.
    pub fn push_bytes(&self, bytes: &[u8]) {
        self.out.borrow_mut().push(bytes);
        self.wake();
    }

    /// As [`Link::push_bytes`], for a part of a streamed request: what the socket takes at once is not queued.
    pub fn pass(&self, bytes: &[u8]) {
        let mut out = self.out.borrow_mut();
        let passed = if self.may_be_written() { out.pass(bytes) } else { 0 };
        out.push(bytes.get(passed..).unwrap_or_default());
        drop(out);
        self.wake();
    }

    /// Queues a request whose reply nobody waits for.
    pub fn push_ignored(&self, request: &[u8], now_us: u32) {
        let ignored = Rc::new(OwnRequest::new(|_| {}));
        self.push(ignored, 0, request, InFlight::Read, Watched::Yes, now_us);
    }

    /// Whether a streaming session is to wait before it pushes more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.out.borrow().is_full()
    }

    /// From here on nothing that arrives is a reply to a request in flight.
    pub fn set_passthrough(&self) {
        self.incoming.set(Incoming::Frames);
    }

    /// What arrives is replies again: the last subscription is gone.
    pub fn end_passthrough(&self) {
        self.incoming.set(Incoming::Replies);
    }

    /// From here on what arrives is not RESP.
    pub fn set_raw(&self) {
        self.incoming.set(Incoming::Bytes);
    }

    /// Writes in mid-turn where there is enough to write.
    #[inline]
    pub fn write_early(&self) {
        if self.out.borrow().is_early() {
            self.write();
        }
    }

    /// Whether the generation is still its own, which is to be asked before each write; and not where the driver is to begin draining: what was not
    /// sent is dropped then.
    pub(super) fn may_be_written(&self) -> bool {
        self.state.get() == LinkState::Up && self.generation == self.counter.load(Ordering::Acquire)
    }

    /// Writes what has been pushed.
    pub(super) fn write(&self) {
        if self.may_be_written() {
            // What the socket does not take now is the driver's to write.
            let mut out = self.out.borrow_mut();
            let sent = out.sent();
            drop(out.try_write());
            if out.sent() != sent {
                self.tell_left();
            }
        }
    }

    /// Something has left just now, perhaps long after it was routed.
    pub(super) fn tell_left(&self) {
        self.owner.borrow().iter().for_each(|owner| owner.left());
    }

    /// Lets the driver run: there is something to write, room to read, or nothing to live for.
    #[inline]
    pub fn wake(&self) {
        self.used.set(true);
        if !self.woken.replace(true)
            && let Some(waker) = self.driver.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    /// The session that owned this connection is gone, or the connection carries state that nobody can use: ends it.
    pub fn abandon(&self) {
        if self.leaving.get() == Leaving::AtEndOfTurn {
            self.write();
        }
        self.owner.take();
        if self.state.get() != LinkState::Dead {
            self.state.set(LinkState::Draining);
            self.wake();
        }
    }

    /// Its session has another one now.
    pub fn disown(&self) {
        self.owner.take();
    }

    /// Everything that arrives is out of band.
    #[must_use]
    pub fn is_passthrough(&self) -> bool {
        self.incoming.get() != Incoming::Replies
    }

    /// What arrives is not RESP, and who asked for it speaks to the upstream as if there were nobody between.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.incoming.get() == Incoming::Bytes
    }

    /// Dedicated, and without a session: nobody waits for it.
    pub(super) fn is_spare(&self) -> bool {
        self.kind == LinkKind::Dedicated && self.owner.borrow().is_none() && self.slots.borrow().is_empty()
    }

    /// Whether it could serve another session as it is: nothing under way, no state of its own.
    #[must_use]
    pub(super) fn is_reusable(&self) -> bool {
        self.is_open() && !self.is_passthrough() && self.altered.get() == Altered::No && self.slots.borrow().is_empty()
    }

    /// Stops writing: hands unsent requests back to their sessions, keeps those sent for the answers that may still come.
    pub(super) fn retire(&self) {
        if matches!(self.state.get(), LinkState::Dialling | LinkState::Up) {
            self.state.set(LinkState::Draining);
            let (unsent, requests) = {
                let mut out = self.out.borrow_mut();
                let mut slots = self.slots.borrow_mut();
                // A request sent in part cannot run: the connection ends in the middle of it.
                // A streamed one is given up by its session; what of it went out may have been all.
                let first_unsent = slots.partition_point(|slot| slot.len == 0 || out.is_sent(slot));
                let unsent: Vec<Slot> = slots.drain(first_unsent..).collect();
                let requests: Vec<Vec<u8>> = unsent.iter().map(|slot| out.request(slot).to_vec()).collect();
                out.end_writing();
                (unsent, requests)
            };
            self.owner.borrow().iter().for_each(|owner| owner.retired());
            for (slot, request) in unsent.iter().zip(&requests) {
                slot.recipient.taken_back(slot.seq, request, slot.class);
            }
            self.wake();
        }
    }

    /// Tells all who wait on it that the upstream refused it.
    pub(super) fn deny_all(&self, error: &str) {
        // A dial begins with HELLO, which is refused in words of its own.
        let said = if error.starts_with("NOAUTH") {
            "NOAUTH Authentication required."
        } else {
            error
        };
        let is_withdrawn = error.starts_with("WRONGPASS") && self.key.identity != Identity::Url;
        for slot in self.slots.take() {
            if is_withdrawn {
                slot.recipient.withdrawn(slot.seq, said);
            } else {
                slot.recipient.denied(slot.seq, said);
            }
            slot.recipient.flush();
        }
    }

    /// Gives back memory that a connection without requests does not need.
    pub(super) fn shed(&self) {
        let mut slots = self.slots.borrow_mut();
        if slots.is_empty() {
            slots.shrink_to(IDLE_SLOTS);
            self.out.borrow_mut().shed();
        }
    }

    /// Age of the oldest unanswered request, when that is one whose age tells anything.
    #[must_use]
    pub(super) fn oldest_us(&self, now_us: u32) -> Option<u32> {
        let slots = self.slots.borrow();
        let slot = slots.front()?;
        (slot.watched == Watched::Yes).then(|| now_us.wrapping_sub(slot.sent_us))
    }
}
