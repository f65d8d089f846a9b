//! A PING on a spare connection, whose answer proves what Redis has done before it.
//!
//! A blocking command that is lost with its connection may go on waiting only if Redis had executed it and had nothing for it: if Redis has
//! answered something, here or on the health connection, that was asked a little later.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::dial::command;
use super::link::{InFlight, Link, Watched};
use super::local::Local;
use super::own_request::{Outcome, OwnRequest};

/// What a command may take to reach Redis on its way beside another one.
const ON_ITS_WAY: Duration = Duration::from_millis(10);

impl Local {
    /// A blocking command was sent at `instant`.
    pub fn has_blocked(&self, instant: Instant) {
        let oldest = self.blocked.get().map_or(instant, |(oldest, _)| oldest);
        self.blocked.set(Some((oldest, instant)));
    }

    /// Whether a blocking command sent at `instant` has been executed.
    #[must_use]
    pub fn is_proven(&self, instant: Instant) -> bool {
        self.shared.answered_after(instant + ON_ITS_WAY)
    }

    /// Asks, and wakes those that wait when there is an answer: one of them waits for the upstream's answer to what is asked from now on.
    pub fn await_proof(&self) {
        self.proof_awaited.set(true);
    }

    /// Proves blocking commands executed that were sent a little before. To be called often.
    pub fn prove_blocked(self: &Rc<Self>) {
        let is_awaited = self.proof_awaited.take();
        if is_awaited {
            // The health owner may have had an answer.
            self.wake_waiters();
        }
        let is_due = self
            .blocked
            .get()
            .is_some_and(|(oldest, _)| oldest.elapsed() >= ON_ITS_WAY);
        if !is_due && (!is_awaited || self.is_proving.get()) {
            return;
        }
        let Some(beside) = self.pool.borrow_mut().take_up(|_| true) else {
            return;
        };
        self.is_proving.set(true);
        let sent_at = Instant::now();
        if is_due {
            let newest = self.blocked.get().map(|(_, newest)| newest);
            // Those are for the next one.
            let unproven = newest.filter(|newest| *newest + ON_ITS_WAY >= sent_at);
            self.blocked.set(unproven.map(|newest| (newest, newest)));
        }
        let local = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let is_answered = local.ping_on(beside).await;
            local.is_proving.set(false);
            if is_answered {
                local.shared.set_answered(sent_at);
                if local.proof_awaited.take() {
                    local.wake_waiters();
                }
            }
        });
    }

    /// Whether PING is answered, and not by an error (BUSY, LOADING: others are not answered either). Gives the connection back.
    pub(super) async fn ping_on(self: &Rc<Self>, beside: Rc<Link>) -> bool {
        let (sender, answered) = oneshot::channel();
        let sender = RefCell::new(Some(sender));
        let ping = OwnRequest::new(move |outcome| {
            let is_pong = matches!(outcome, Outcome::Reply(reply) if reply.first() != Some(&b'-'));
            if let Some(sender) = sender.take() {
                // Who asked may have ended with the worker.
                let _ = sender.send(is_pong);
            }
        });
        let now_us = self.turn.now_us();
        beside.push(
            Rc::new(ping),
            0,
            &command(&["PING"]),
            InFlight::Read,
            Watched::No,
            now_us,
        );
        let is_well = answered.await == Ok(true);
        self.give_back(&beside);
        is_well
    }
}
