//! How requests on dedicated connections leave: those of a turn together, where there are several. And who is waited for when they have left.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::burst::{Burst, Offer, Sender};
use super::link::{Link, LinkKind};
use super::local::Local;

/// When what is unsent is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    WhenThereIsRoom,
    /// It is on the list of those that write then.
    AtEndOfTurn,
}

impl Local {
    /// Writes what has been pushed to a dedicated connection: together with what others have for theirs, where that may wait for the end of the turn.
    pub fn write_dedicated(&self, link: &Rc<Link>) {
        if !self.turn.is_bursting() || !link.may_leave_later() {
            link.write();
        } else if link.leaving.replace(Leaving::AtEndOfTurn) != Leaving::AtEndOfTurn {
            let link: Rc<Link> = Rc::clone(link);
            self.turn.write_later(link);
        }
    }
}

impl Link {
    /// Whether what is unsent may leave at the end of the turn, with what other dedicated connections have. A streamed request may not wait.
    fn may_leave_later(&self) -> bool {
        self.kind == LinkKind::Dedicated
            && self.may_be_written()
            && self.slots.borrow().front().is_some_and(|slot| slot.len > 0)
            && self.out.borrow().for_burst().is_some()
    }

    /// How much longer the only request's reply is waited for, with nothing left to send: see [`super::link::Recipient::waits`].
    pub(super) fn waits_for_reply(&self) -> Option<Duration> {
        let (slots, out) = (self.slots.borrow(), self.out.borrow());
        match (slots.front(), slots.len()) {
            (Some(slot), 1) if slot.len > 0 && out.is_sent(slot) => slot.recipient.waits(slot.seq, out.request(slot)),
            _ => None,
        }
    }

    /// What is left is the driver's to write, or to take back.
    fn leave_the_rest(&self) {
        if self.out.borrow().has_unsent() {
            self.wake();
        }
    }
}

impl Sender for Link {
    fn flush(&self) {
        self.leaving.set(Leaving::WhenThereIsRoom);
        self.write();
        self.leave_the_rest();
    }

    fn offer(&self, burst: &mut Burst) -> Offer {
        self.leaving.set(Leaving::WhenThereIsRoom);
        if !self.may_be_written() {
            self.leave_the_rest();
            return Offer::Nothing;
        }
        match self.out.borrow().for_burst() {
            Some((socket, bytes)) => burst.add(socket, bytes),
            None => Offer::Declined,
        }
    }

    fn sent(&self, result: io::Result<usize>) {
        if let Ok(sent) = result {
            self.out.borrow_mut().wrote(sent);
            self.tell_left();
        }
        self.leave_the_rest();
    }

    /// Nothing is sent twice: what was offered counts as sent, and the connection ends behind it.
    fn sent_perhaps(&self) {
        self.out.borrow_mut().end_uncertain();
        self.tell_left();
        self.retire();
    }
}
