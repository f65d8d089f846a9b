//! Requests that tideover makes for itself on a connection that sessions use.

use std::cell::RefCell;
use std::task::Waker;

use super::burst::Sender;
use super::link::{Fate, Flush, InFlight, LinkKind, Piece, Recipient};

/// What may be kept of a reply: `+OK`, `+PONG`, or an error.
const REPLY_BYTES_MAX: usize = 64 << 10;

/// What became of a request of our own.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// The whole reply.
    Reply(&'a [u8]),
    /// The upstream does not take the identity: its reply without `-`.
    Denied(&'a str),
    /// Its connection ended, or the upstream is not to be used.
    Unanswered,
}

/// Tells somebody what becomes of the request, possibly more than once: the connection that it was made on ends, too.
#[derive(Debug)]
pub struct OwnRequest<F> {
    tell: F,
    reply: RefCell<Vec<u8>>,
}

impl<F: Fn(Outcome<'_>)> OwnRequest<F> {
    pub fn new(tell: F) -> Self {
        Self {
            tell,
            reply: RefCell::default(),
        }
    }
}

impl<F> Sender for OwnRequest<F> {
    fn flush(&self) {}
}

impl<F: Fn(Outcome<'_>)> Recipient for OwnRequest<F> {
    fn reply(&self, _: u64, bytes: &[u8], piece: Piece, _: InFlight) -> Flush {
        let mut reply = self.reply.borrow_mut();
        let room = REPLY_BYTES_MAX - reply.len();
        reply.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        if piece == Piece::End {
            (self.tell)(Outcome::Reply(&reply));
        }
        Flush::NotWanted
    }
    fn push(&self, _: &[u8], _: Piece) -> Flush {
        Flush::NotWanted
    }
    fn not_executed(&self, _: u64, _: &[u8], _: InFlight) {
        (self.tell)(Outcome::Unanswered);
    }
    fn taken_back(&self, _: u64, _: &[u8], _: InFlight) {
        (self.tell)(Outcome::Unanswered);
    }
    fn judge(&self, _: InFlight) -> Fate {
        Fate::Neutral
    }
    fn lost(&self, _: u64, _: &[u8], _: InFlight, _: Fate) {
        (self.tell)(Outcome::Unanswered);
    }
    fn denied(&self, _: u64, error: &str) {
        (self.tell)(Outcome::Denied(error));
    }
    fn ended(&self) {
        (self.tell)(Outcome::Unanswered);
    }
    fn has_room(&self, _: LinkKind, _: &Waker) -> bool {
        true
    }
    fn give_up(&self) {}
}
