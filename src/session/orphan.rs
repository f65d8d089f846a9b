//! A connection that others know the session by (its subscriptions, its ID) has ended. When Redis goes on, Redis has ended it (CLIENT KILL, a
//! full output buffer, a user that is gone), and the client is to see it. When Redis is gone, the session outlives the outage.

use std::rc::Rc;
use std::task::Context;

use super::forward::Ignored;
use super::state::Pinned;
use super::task::Task;
use crate::upstream::link::{Link, LinkState};

/// A session whose connection has ended in a generation that may be over.
pub(super) struct Orphan {
    pub(super) generation: u64,
    /// A connection that tells whether the same Redis goes on.
    pub(super) proof: Option<Rc<Link>>,
}

impl Task {
    /// Whether the end of the dedicated connection is what a client of Redis would notice.
    pub(super) fn is_known_by_its_connection(&self) -> bool {
        self.state.pinned != Pinned::No || !self.state.subscriptions.is_empty()
    }

    /// Whether it is still open who ended the connection; ends the session when Redis did.
    pub(super) fn is_orphaned(&mut self, cx: &Context<'_>) -> bool {
        let local = Rc::clone(&self.session.local);
        let Some(orphan) = &mut self.orphan else { return false };
        if orphan.generation != local.generation() {
            if let Some(proof) = orphan.proof.take() {
                proof.abandon();
            }
            self.orphan = None;
            return false;
        }
        let proof = match &orphan.proof {
            Some(proof) if proof.state() != LinkState::Dead || proof.refusal().is_some() => Rc::clone(proof),
            Some(_) | None => {
                let proof = local.dedicated_fresh(&self.state.key, Rc::new(Ignored));
                orphan.proof = Some(Rc::clone(&proof));
                proof
            }
        };
        if proof.state() == LinkState::Up || proof.refusal().is_some() {
            proof.abandon();
            self.session.dead.set(true);
        } else {
            proof.watch(cx.waker());
        }
        true
    }
}
