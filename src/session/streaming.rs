//! Requests too large for a lane: passed on over the dedicated connection while they arrive, in bounded memory.

use std::rc::Rc;

use super::route::Ask;
use super::state::Transaction;
use super::task::{Closing, Task};
use super::{Home, Session};
use crate::command::{Name, Placement};
use crate::resp::Request;
use crate::resp::scan::{Passed, Scanner, Stream};
use crate::upstream::link::{InFlight, Link};
use crate::upstream::stats::Route;

/// Largest request that is gathered in memory (while it cannot be streamed, for it is to be journaled).
const GATHERED_REQUEST_BYTES_MAX: usize = 32 << 20;

/// One read of a request that is passed on: what has just been read is in the core's nearest cache when it is written. With 512 KiB a value of
/// 1 MB costs a twentieth more CPU and a tenth of the throughput; with 64 KiB, which the kernel's segments fill exactly, more still.
pub(super) const STREAMED_READ_BYTES: usize = 32 << 10;

/// A request that is passed on while it arrives.
pub(super) struct Streaming {
    stream: Stream,
    link: Rc<Link>,
}

/// What becomes of a request that is too large for a lane and has not arrived whole.
enum Head {
    /// It is passed on while it arrives.
    Passable(InFlight, Alters),
    /// It is gathered, and routed when it is whole.
    Gathered,
}

/// Whether a request may leave its connection other than it found it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alters {
    Yes,
    No,
}

impl Task {
    /// Whether a request that arrives in pieces may be passed on now: nothing of the session is in flight.
    fn may_stream(&mut self) -> bool {
        let session = &self.session;
        // What is not confirmed yet would be taken for its reply.
        session.is_settled() && session.subscriptions.borrow().is_confirmed() && session.retries.borrow().is_empty()
    }

    /// Opens a request that is passed on while it arrives.
    fn open_stream(&mut self, class: InFlight) -> Rc<Link> {
        let link = self.dedicated();
        let session = &self.session;
        session.home.set(Home::Link(link.id));
        session.in_flight.set(session.in_flight.get() + 1);
        session.local.worker().stats.routed(Route::Forwarded);
        let recipient: Rc<Session> = Rc::clone(session);
        link.push_streamed(recipient, session.issue(), class, session.local.turn.now_us());
        link
    }

    /// A request that has not arrived whole: beyond the size of a lane's requests it is passed on while it arrives, unless it may have to be journaled.
    pub(super) fn incomplete(&mut self, bytes: &[u8], scanner: &mut Scanner) {
        if bytes.len() <= self.session.settings.limits.lane_request_bytes_max {
            return;
        }
        let Some(stream) = scanner.to_stream() else { return };
        let name = scanner.spans().first().copied();
        let head = match &name {
            Some(span) => self.head(&Request::new(bytes, std::slice::from_ref(span))),
            // No command has a name this long.
            None if self.is_forwarding() && !self.in_transaction() && !self.is_subscribed_mode() => {
                Head::Passable(InFlight::Write, Alters::Yes)
            }
            None => Head::Gathered,
        };
        if let Head::Passable(class, alters) = head {
            if !self.may_stream() {
                self.session.parked.set(true);
                return;
            }
            let link = self.open_stream(class);
            if alters == Alters::Yes {
                link.alter();
            }
            self.streaming = Some(Streaming { stream, link });
            scanner.reset();
        } else if bytes.len() > GATHERED_REQUEST_BYTES_MAX {
            let seq = self.session.issue();
            let upstream = &self.session.local.shared.target.name;
            let text = format!(
                "-UNAVAILABLE the request was not applied: it is too large to be kept while upstream \"{upstream}\" is down\r\n"
            );
            self.session.answer(seq, text.as_bytes());
            self.closing = Closing::AfterReplies;
        }
    }

    /// What the name alone tells of a request whose arguments have not all come.
    fn head(&self, request: &Request<'_>) -> Head {
        let known = self.look_up(request);
        let ask = Ask::new(*request, &known, None);
        let is_queued = match self.state.transaction {
            Transaction::None => false,
            Transaction::Upstream => true,
            Transaction::Here(_) | Transaction::Cut => return Head::Gathered,
        };
        // The session has to know all of what is said of itself and of scripts, and what blocks, which may outlive its connection; and what
        // answers it in subscribed mode is no reply.
        let is_to_be_known = ask.placement() == Placement::Session
            || matches!(ask.name(), Some(Name::Client | Name::Script))
            || ask.is_blocking();
        if !self.is_forwarding() || is_to_be_known || self.is_subscribed_mode() {
            return Head::Gathered;
        }
        let class = if is_queued {
            InFlight::Queued
        } else {
            ask.in_flight().into()
        };
        let alters = if ask.may_alter() { Alters::Yes } else { Alters::No };
        Head::Passable(class, alters)
    }

    /// Passes on the bytes of a streamed request; 0 when there are none, or no room for them.
    pub(super) fn stream_on(&mut self, bytes: &[u8]) -> usize {
        let Some(streaming) = &mut self.streaming else { return 0 };
        if streaming.link.is_open() && streaming.link.is_full() {
            self.session.parked.set(true);
            return 0;
        }
        let (len, ended) = match streaming.stream.pass(bytes, &self.session.settings.limits.request) {
            Ok(Passed::More(len)) => (len, false),
            Ok(Passed::End(len)) => (len, true),
            // The half of it that went out must not be completed by anything else.
            Err(_) => {
                streaming.link.abandon();
                self.session.end();
                return 0;
            }
        };
        // When its connection has died the rest is received, and dropped: the answer says what became of it.
        if streaming.link.is_open() {
            let part = bytes.get(..len).unwrap_or_default();
            streaming.link.pass(part);
        }
        if ended {
            self.streaming = None;
        }
        len
    }
}
