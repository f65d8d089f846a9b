//! A connection that others know the session by (its subscriptions, its ID) has ended on its own: was it ended on purpose (CLIENT KILL, an
//! output buffer limit, a user that is gone), or is the upstream gone? At Redis the client would be closed either way; here it outlives an
//! outage, and nothing else.
//!
//! The lane is asked: an upstream that answers is well, and meant this connection.

use std::rc::Rc;

use super::state::Pinned;
use super::task::Task;
use crate::upstream::dial;
use crate::upstream::link::{InFlight, Watched};
use crate::upstream::own_request::{Outcome, OwnRequest};

/// Where the question stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Inquiry {
    #[default]
    None,
    /// Until it is answered, or the upstream is given up, the session does nothing.
    Asked,
}

impl Task {
    /// Whether the end of the dedicated connection is what a client of Redis would notice.
    pub(super) fn is_known_by_its_connection(&self) -> bool {
        self.state.pinned != Pinned::No
            || self.state.tracking.is_some()
            || !self.session.subscriptions.borrow().is_empty()
    }

    /// Asks whether the upstream is there.
    pub(super) fn inquire(&mut self) {
        self.session.inquiry.set(Inquiry::Asked);
        let lane = self.lane();
        let session = Rc::clone(&self.session);
        let ping = OwnRequest::new(move |outcome| {
            let was = session.inquiry.replace(Inquiry::None);
            match outcome {
                Outcome::Reply(_) | Outcome::Denied(_) if was == Inquiry::Asked => session.end(),
                Outcome::Reply(_) | Outcome::Denied(_) | Outcome::Unanswered => {}
            }
            session.wake();
        });
        let now_us = self.session.local.turn.now_us();
        lane.push(
            Rc::new(ping),
            0,
            &dial::command(&["PING"]),
            InFlight::Read,
            Watched::Yes,
            now_us,
        );
    }

    /// Whether the session waits for the answer. An upstream that is not written to any more has given it.
    pub(super) fn awaits_answer(&self) -> bool {
        if !self.is_forwarding() {
            self.session.inquiry.set(Inquiry::None);
        }
        self.session.inquiry.get() == Inquiry::Asked
    }
}
