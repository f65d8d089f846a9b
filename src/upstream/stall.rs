//! A lane whose next reply is for a client that does not read: those behind it are helped, and it is not waited for without end.

use std::collections::HashSet;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::link::{InFlight, Link, OpenTo, Recipient};
use super::own_request::OwnRequest;

/// A client that takes less than this per `timeouts.command` is given up where others wait behind it.
const TAKEN_BYTES_MIN: usize = 4 << 20;
/// Behind one that was waited for, the next has half its time, and so on up to here, and twice as long again each time that it has taken as much as
/// that time wants: others wait little longer than twice for the first, and for each beyond so many a 32nd more, or in proportion to what it takes.
const HALVINGS_MAX: u32 = 5;

/// A wait for one client.
pub(super) struct Stall {
    stuck: Rc<dyn Recipient>,
    /// For the first one on the lane.
    limit: Duration,
    /// For this one, as long as it has taken nothing.
    halvings: u32,
    /// Those in force: fewer with what it takes.
    halvings_now: u32,
    until: Pin<Box<Sleep>>,
    /// Read for it since `until` was set.
    taken_bytes: usize,
}

impl Stall {
    /// The first one on its lane.
    pub(super) fn new(stuck: Rc<dyn Recipient>, limit: Duration) -> Self {
        Self::halved(stuck, limit, 0)
    }

    /// The next one on the same lane.
    pub(super) fn next(&self, stuck: Rc<dyn Recipient>) -> Self {
        Self::halved(stuck, self.limit, (self.halvings + 1).min(HALVINGS_MAX))
    }

    fn halved(stuck: Rc<dyn Recipient>, limit: Duration, halvings: u32) -> Self {
        Self {
            stuck,
            limit,
            halvings,
            halvings_now: halvings,
            until: Box::pin(sleep(limit / (1 << halvings))),
            taken_bytes: 0,
        }
    }

    pub(super) fn is_for(&self, recipient: &Rc<dyn Recipient>) -> bool {
        address(&self.stuck) == address(recipient)
    }

    pub(super) fn took(&mut self, bytes: usize) {
        self.taken_bytes += bytes;
        if self.taken_bytes >= TAKEN_BYTES_MIN >> self.halvings_now {
            self.taken_bytes = 0;
            self.halvings_now = self.halvings_now.saturating_sub(1);
            let limit = self.limit_now();
            self.until.as_mut().reset(Instant::now() + limit);
        }
    }

    fn limit_now(&self) -> Duration {
        self.limit / (1 << self.halvings_now)
    }

    /// Where it is late that this is asked, it was the worker that did not run, and the client has its time once more.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        while self.until.as_mut().poll(cx).is_ready() {
            let limit = self.limit_now();
            let now = Instant::now();
            if now.saturating_duration_since(self.until.deadline()) < limit / 4 {
                return true;
            }
            self.until.as_mut().reset(now + limit);
        }
        false
    }
}

impl Link {
    /// Takes the lane from those who come later, and hands the reads behind `stuck` back to their sessions, which ask elsewhere; the replies that
    /// still come here are dropped. A read stays where something of its session that is none stays, for the order's sake.
    pub(super) fn detach(&self, stuck: &Rc<dyn Recipient>) {
        self.open_to.set(OpenTo::Nobody);
        self.hand_back_reads(stuck);
    }

    /// As [`Self::detach`] says.
    pub(super) fn hand_back_reads(&self, stuck: &Rc<dyn Recipient>) {
        let ignored: Rc<dyn Recipient> = Rc::new(OwnRequest::new(|_| {}));
        let mut handed_back = Vec::new();
        {
            let out = self.out.borrow();
            let mut slots = self.slots.borrow_mut();
            let stay: HashSet<*const ()> = slots
                .iter()
                .filter(|slot| slot.class != InFlight::Read)
                .map(|slot| address(&slot.recipient))
                .chain([address(stuck)])
                .collect();
            for slot in slots
                .iter_mut()
                .filter(|slot| !stay.contains(&address(&slot.recipient)))
            {
                let request = out.request(slot).to_vec();
                let recipient = std::mem::replace(&mut slot.recipient, Rc::clone(&ignored));
                handed_back.push((recipient, slot.seq, request));
            }
        }
        for (recipient, seq, request) in handed_back {
            recipient.taken_back(seq, &request, InFlight::Read);
        }
    }

    /// A request was answered: whoever was waited for has moved on. A lane that nobody is to join ends with its last one.
    pub(super) fn moved_on(&self) {
        if self.open_to.get() == OpenTo::All {
            return;
        }
        self.open_to.set(OpenTo::Nobody);
        if self.slots.borrow().is_empty() {
            self.abandon();
        }
    }

    /// Whether anything of others is in flight behind `stuck`.
    pub(super) fn is_shared_with(&self, stuck: &Rc<dyn Recipient>) -> bool {
        self.slots
            .borrow()
            .iter()
            .any(|slot| address(&slot.recipient) != address(stuck) && slot.class != InFlight::Read)
    }
}

pub(super) fn address(recipient: &Rc<dyn Recipient>) -> *const () {
    Rc::as_ptr(recipient).cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(64);

    fn client() -> Rc<dyn Recipient> {
        Rc::new(OwnRequest::new(|_| {}))
    }

    /// As long as is left to the one who is waited for.
    fn left(stall: &Stall) -> Duration {
        stall.until.deadline() - Instant::now()
    }

    async fn is_over(stall: &mut Stall) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(stall.is_over(cx))).await
    }

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn each_next_one_has_half_the_time_and_more_again_as_it_reads() {
        run(async {
            let mut stall = Stall::new(client(), LIMIT);
            for halvings in [1, 2, 3, 4, 5, 5] {
                stall = stall.next(client());
                assert!(left(&stall) <= LIMIT / (1 << halvings), "{halvings}");
            }
            stall.took((TAKEN_BYTES_MIN >> HALVINGS_MAX) - 1);
            assert!(left(&stall) <= LIMIT / 32, "not yet");
            stall.took(1);
            assert!(left(&stall) > LIMIT / 32 && left(&stall) <= LIMIT / 16);
            for halvings in [4, 3, 2, 1] {
                stall.took(TAKEN_BYTES_MIN >> halvings);
            }
            assert!(left(&stall) > LIMIT / 2);
            stall.until.as_mut().reset(Instant::now() + LIMIT / 4);
            stall.took(TAKEN_BYTES_MIN - 1);
            assert!(left(&stall) <= LIMIT / 4, "less than is asked of everybody");
            stall.took(1);
            assert!(left(&stall) > LIMIT / 2);
            assert!(left(&stall.next(client())) <= LIMIT / 32, "the next one has to begin");
        });
    }

    #[test]
    fn a_worker_that_did_not_run_holds_it_against_nobody() {
        run(async {
            let mut stall = Stall::new(client(), LIMIT);
            assert!(!is_over(&mut stall).await);
            stall.until.as_mut().reset(Instant::now() - LIMIT / 2);
            assert!(!is_over(&mut stall).await, "asked too late");
            assert!(left(&stall) > LIMIT / 2);
            stall.until.as_mut().reset(Instant::now() - Duration::from_millis(2));
            assert!(is_over(&mut stall).await);
        });
    }
}
