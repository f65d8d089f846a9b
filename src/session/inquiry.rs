//! A connection that others know the session by (its subscriptions, its ID) has ended on its own: was it ended on purpose (CLIENT KILL, an
//! output buffer limit, a user that is gone), or is the upstream gone? At Redis the client would be closed either way; here it outlives an
//! outage, and nothing else.
//!
//! The lane is asked: an upstream that answers is well, and meant this connection.

use std::rc::Rc;
use std::task::Waker;

use super::Session;
use super::state::Pinned;
use super::task::Task;
use crate::upstream::dial;
use crate::upstream::link::{Fate, Flush, InFlight, LinkKind, Piece, Recipient, Watched};

/// Where the question stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Inquiry {
    #[default]
    None,
    /// Until it is answered, or the upstream is given up, the session does nothing.
    Asked,
}

/// Takes the lane's answer for a session.
struct Answer(Rc<Session>);

impl Answer {
    fn answered(&self) {
        if self.0.inquiry.replace(Inquiry::None) == Inquiry::Asked {
            self.0.dead.set(true);
            self.0.wake();
        }
    }

    fn unanswered(&self) {
        self.0.inquiry.set(Inquiry::None);
        self.0.wake();
    }
}

impl Recipient for Answer {
    fn reply(&self, _: u64, _: &[u8], _: Piece, _: InFlight) -> Flush {
        self.answered();
        Flush::NotWanted
    }
    fn push(&self, _: &[u8], _: Piece) -> Flush {
        Flush::NotWanted
    }
    fn not_executed(&self, _: u64, _: &[u8], _: InFlight) {
        self.unanswered();
    }
    fn taken_back(&self, _: u64, _: &[u8], _: InFlight) {
        self.unanswered();
    }
    fn judge(&self, _: InFlight) -> Fate {
        Fate::Neutral
    }
    fn lost(&self, _: u64, _: &[u8], _: InFlight, _: Fate) {
        self.unanswered();
    }
    fn denied(&self, _: u64, _: &str) {
        self.answered();
    }
    fn ended(&self) {}
    fn flush(&self) {}
    fn has_room(&self, _: LinkKind, _: &Waker) -> bool {
        true
    }
    fn give_up(&self) {}
}

impl Task {
    /// Whether the end of the dedicated connection is what a client of Redis would notice.
    pub(super) fn is_known_by_its_connection(&self) -> bool {
        self.state.pinned != Pinned::No || !self.state.subscriptions.is_empty()
    }

    /// Asks whether the upstream is there.
    pub(super) fn inquire(&mut self) {
        self.session.inquiry.set(Inquiry::Asked);
        let lane = self.lane();
        let answer = Rc::new(Answer(Rc::clone(&self.session)));
        let now_us = self.session.local.turn.now_us();
        lane.push(
            answer,
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
