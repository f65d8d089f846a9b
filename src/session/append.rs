//! One worker's appends to one journal: gathered over a turn, sent as one batch, and answered when the journal's owner says what became of them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{RetryReason, Session};
use crate::journal::owner::{Batch, OwnerHandle, Payloads, Settled};
use crate::upstream::burst::Sender;
use crate::upstream::clock::{mono_ms, wall_ms};
use crate::upstream::link::{Flush, InFlight};
use crate::upstream::local::Local;
use crate::upstream::stats;

/// Batches with the owner at once: one is written while the next is gathered.
const BATCHES_MAX: usize = 2;
/// Gathered payloads above which sessions wait.
const GATHERED_BYTES_MAX: usize = 8 << 20;
/// Wait before a batch that the owner's full inbox sent back is sent again.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// A write that waits for its acknowledgement; the ranges are of the batch's bytes.
struct Ack {
    session: Rc<Session>,
    seq: u64,
    reply: Range<usize>,
    request: Range<usize>,
    before: Before,
}

/// What was done with a write before it was journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    NotSent,
    /// It was sent, and its reply was lost then.
    MayBeApplied {
        since: Instant,
    },
}

#[derive(Default)]
struct Gathered {
    payloads: Payloads,
    acks: Vec<Ack>,
    bytes: Vec<u8>,
    generation: u64,
}

/// What the owner's thread sends back.
struct Fate {
    batch: u64,
    settled: Settled,
    payloads: Payloads,
}

/// See the module.
pub struct Appender {
    local: Rc<Local>,
    owner: OwnerHandle,
    gathered: RefCell<Gathered>,
    /// With the owner, oldest first: it settles them in order.
    sent: RefCell<VecDeque<(u64, Gathered)>>,
    next_batch: Cell<u64>,
    /// Empty, with the memory of batches that are settled.
    spare: RefCell<Vec<Gathered>>,
    flushes: RefCell<Vec<Rc<dyn Sender>>>,
    task: RefCell<Option<Waker>>,
    woken: Cell<bool>,
}

impl std::fmt::Debug for Appender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appender")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl Appender {
    /// Starts the task that sends what is gathered.
    #[must_use]
    pub fn start(local: Rc<Local>, owner: OwnerHandle) -> Rc<Self> {
        let appender = Rc::new(Self {
            local,
            owner,
            gathered: RefCell::default(),
            sent: RefCell::default(),
            next_batch: Cell::new(0),
            spare: RefCell::default(),
            flushes: RefCell::default(),
            task: RefCell::default(),
            woken: Cell::new(false),
        });
        tokio::task::spawn_local(Rc::clone(&appender).run());
        appender
    }

    /// The upstream that it is for.
    #[must_use]
    pub fn local(&self) -> &Rc<Local> {
        &self.local
    }

    /// Whether nothing waits for an acknowledgement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gathered.borrow().acks.is_empty() && self.sent.borrow().is_empty()
    }

    /// Whether sessions are to wait before they append more.
    pub(super) fn is_full(&self) -> bool {
        self.gathered.borrow().payloads.bytes_len() > GATHERED_BYTES_MAX
    }

    /// Gathers the records of one write. `reply` is sent once they are acknowledged; `request` is routed again if the generation moves before.
    pub(super) fn append(
        &self,
        session: Rc<Session>,
        seq: u64,
        [reply, request]: [&[u8]; 2],
        before: Before,
        records: impl FnOnce(&mut Payloads),
    ) {
        let mut gathered = self.gathered.borrow_mut();
        gathered.generation = self.local.generation();
        records(&mut gathered.payloads);
        let start = gathered.bytes.len();
        gathered.bytes.extend_from_slice(reply);
        let middle = gathered.bytes.len();
        gathered.bytes.extend_from_slice(request);
        let end = gathered.bytes.len();
        gathered.acks.push(Ack {
            session,
            seq,
            reply: start..middle,
            request: middle..end,
            before,
        });
        drop(gathered);
        self.wake();
    }

    fn wake(&self) {
        if !self.woken.replace(true)
            && let Some(task) = self.task.borrow().as_ref()
        {
            task.wake_by_ref();
        }
    }

    async fn run(self: Rc<Self>) {
        let (fates, mut settled) = mpsc::channel(BATCHES_MAX * 2);
        loop {
            let event = std::future::poll_fn(|cx| {
                let mut task = self.task.borrow_mut();
                if !task.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                    *task = Some(cx.waker().clone());
                }
                drop(task);
                match settled.poll_recv(cx) {
                    Poll::Ready(fate) => Poll::Ready(fate),
                    Poll::Pending if self.woken.replace(false) && self.may_send() => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
            if let Some(fate) = event {
                self.settle(fate);
            }
            if self.may_send() && !self.send(&fates) {
                tokio::time::sleep(FULL_PAUSE).await;
                self.woken.set(true);
            }
        }
    }

    fn may_send(&self) -> bool {
        !self.gathered.borrow().acks.is_empty() && self.sent.borrow().len() < BATCHES_MAX
    }

    /// Sends what is gathered. False when the owner's inbox is full.
    fn send(&self, fates: &mpsc::Sender<Fate>) -> bool {
        self.local.look();
        let spare = self.spare.borrow_mut().pop().unwrap_or_default();
        let mut batch = self.gathered.replace(spare);
        if batch.generation != self.local.generation() {
            self.settle_one(batch, &Settled::Refused);
            return true;
        }
        let number = self.next_batch.get();
        self.next_batch.set(number + 1);
        let fate = Uncalled {
            batch: number,
            fates: fates.clone(),
            called: false,
        };
        let payloads = std::mem::take(&mut batch.payloads);
        let sent = self.owner.append(Batch {
            generation: batch.generation,
            payloads,
            wall_ms: wall_ms(),
            mono_ms: mono_ms(),
            done: Box::new(move |settled, payloads| fate.call(settled, payloads)),
        });
        match sent {
            Ok(()) => {
                self.sent.borrow_mut().push_back((number, batch));
                true
            }
            Err(back) if self.owner.is_running() => {
                batch.payloads = back.payloads;
                let newer = self.gathered.replace(batch);
                debug_assert!(newer.acks.is_empty(), "nothing is gathered while a batch is sent");
                false
            }
            Err(_) => {
                self.settle_one(batch, &Settled::Failed("the journal has ended".into()));
                true
            }
        }
    }

    fn settle(&self, fate: Fate) {
        let Fate {
            batch,
            settled,
            payloads,
        } = fate;
        // A batch that the owner did not take reports its end as well; it is not among those sent.
        let at = self.sent.borrow().iter().position(|(number, _)| *number == batch);
        let Some((_, mut batch)) = at.and_then(|at| self.sent.borrow_mut().remove(at)) else {
            return;
        };
        batch.payloads = payloads;
        self.settle_one(batch, &settled);
        self.local.wake_waiters();
    }

    fn settle_one(&self, mut batch: Gathered, settled: &Settled) {
        for Ack {
            session,
            seq,
            reply,
            request,
            before,
        } in &batch.acks
        {
            let request = batch.bytes.get(request.clone()).unwrap_or_default();
            match (settled, *before) {
                (Settled::Acknowledged, before) => {
                    if before != Before::NotSent {
                        stats::add(&session.local.worker().stats.uncertain_journaled, 1);
                    }
                    session.answer(*seq, batch.bytes.get(reply.clone()).unwrap_or_default());
                    session.landed();
                }
                (Settled::Refused, Before::NotSent) => {
                    session.retry(*seq, request, InFlight::Write, RetryReason::NotSent);
                }
                (Settled::Refused, Before::MayBeApplied { since }) => {
                    session.retry(*seq, request, InFlight::Write, RetryReason::Caught { since });
                }
                (Settled::Full, Before::NotSent) => session.not_journaled(*seq, request, "its journal is full"),
                (Settled::Failed(why), Before::NotSent) if !why.is_empty() => session.not_journaled(*seq, request, why),
                (Settled::Full | Settled::Failed(_), _) => {
                    session.answer_uncertain(*seq, request);
                    session.landed();
                }
            }
        }
        let mut flushes = self.flushes.borrow_mut();
        for Ack { session, .. } in batch.acks.drain(..) {
            if session.flush_wanted() == Flush::Wanted {
                flushes.push(session);
            }
        }
        self.local.turn.flush(&mut flushes);
        batch.payloads.clear();
        batch.bytes.clear();
        let mut spare = self.spare.borrow_mut();
        let bytes = batch.payloads.bytes_capacity() + batch.bytes.capacity();
        if spare.len() < BATCHES_MAX && bytes < GATHERED_BYTES_MAX / 8 {
            spare.push(batch);
        }
    }
}

/// Says so when the owner ended without having called back.
struct Uncalled {
    batch: u64,
    fates: mpsc::Sender<Fate>,
    called: bool,
}

impl Uncalled {
    fn call(mut self, settled: Settled, payloads: Payloads) {
        self.called = true;
        // There is room for every batch that is out; without a receiver there is nobody to tell.
        let _ = self.fates.try_send(Fate {
            batch: self.batch,
            settled,
            payloads,
        });
    }
}

impl Drop for Uncalled {
    fn drop(&mut self) {
        if !self.called {
            let settled = Settled::Failed(String::new());
            let fate = Fate {
                batch: self.batch,
                settled,
                payloads: Payloads::default(),
            };
            let _ = self.fates.try_send(fate);
        }
    }
}

impl Session {
    /// A write that is in no journal, for a reason that the client should know.
    fn not_journaled(&self, seq: u64, request: &[u8], why: &str) {
        let name = super::command_name(request);
        let upstream = &self.local.shared.target.name;
        let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = format!("-UNAVAILABLE {name} was not applied: upstream \"{upstream}\" is down and {why}\r\n");
        self.answer(seq, text.as_bytes());
        self.landed();
    }
}
