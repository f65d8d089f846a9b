//! Requests too large for a lane: passed on over the dedicated connection while they arrive, in bounded memory.

use std::rc::Rc;

use super::route::Ask;
use super::state::Transaction;
use super::task::{Closing, Task};
use crate::resp::Request;
use crate::resp::scan::{Passed, Scanner, Stream};
use crate::upstream::link::{InFlight, Link};

/// Largest request that is gathered in memory (while it cannot be streamed, for it is to be journaled).
const GATHERED_REQUEST_BYTES_MAX: usize = 32 << 20;

/// A request that is passed on while it arrives.
pub(super) struct Streaming {
    stream: Stream,
    link: Rc<Link>,
}

impl Task {
    /// A request that has not arrived whole: beyond the size of a lane's requests it is passed on while it arrives, unless it may have to be journaled.
    pub(super) fn incomplete(&mut self, bytes: &[u8], scanner: &mut Scanner) {
        if bytes.len() <= self.session.settings.limits.lane_request_bytes_max {
            return;
        }
        let Some(stream) = scanner.to_stream() else { return };
        if self.owes_password() {
            // As Redis, which takes no large argument from those it does not know.
            let seq = self.session.issue();
            self.session
                .answer(seq, b"-ERR Protocol error: unauthenticated bulk length\r\n");
            self.closing = Closing::AfterReplies;
        } else if self.is_forwarding() && !matches!(self.state.transaction, Transaction::Cut) {
            if !self.may_stream() {
                self.session.parked.set(true);
                return;
            }
            let name = scanner.spans().first().copied();
            let head = name.map(|span| [span]);
            let class = match &head {
                Some(spans) => {
                    let request = Request::new(bytes, spans);
                    let known = self.look_up(&request);
                    Ask::new(request, &known, None).in_flight().into()
                }
                None => InFlight::Write,
            };
            let class = if matches!(self.state.transaction, Transaction::None) {
                class
            } else {
                InFlight::Queued
            };
            let link = self.open_stream(class);
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
                self.session.dead.set(true);
                return 0;
            }
        };
        // When its connection has died the rest is received, and dropped: the answer says what became of it.
        if streaming.link.is_open() {
            streaming.link.push_bytes(bytes.get(..len).unwrap_or_default());
        }
        if ended {
            self.streaming = None;
        }
        len
    }
}
