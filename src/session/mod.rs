//! One client connection: reads requests, routes each, and answers in order.
//!
//! At any time a session has requests in flight in one place only (its home: a lane, its dedicated connection, or the journal); a request for another
//! place waits until they are settled. That keeps execution in order across places, and settles everything forwarded before the first append.

mod append;
mod blocking;
mod busy;
mod credentials;
mod down;
mod forward;
mod handshake;
mod hello;
mod idle;
mod in_flight;
mod inquiry;
mod local_answers;
mod memory;
mod output;
mod pubsub;
mod recipient;
mod route;
mod scripts;
mod state;
mod stream_adds;
mod streaming;
mod subscriptions;
mod task;
mod tracking;
mod transaction;
mod whole;
mod write_down;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::outage::rules::Rules;
use crate::resp::scan;
use crate::upstream::burst;
use crate::upstream::io::Writer;
use crate::upstream::link::{Flush, InFlight, Link, Piece};
use crate::upstream::local::Local;
use crate::upstream::settings::Secret;
use crate::upstream::stats;
use crate::upstream::turn::{SCRATCH_BYTES, wake_after_others};

pub use append::Appender;
use inquiry::Inquiry;
pub use memory::OutageMemory;
use output::Output;
use stream_adds::StreamAdds;
use subscriptions::Subscriptions;
pub use task::serve;

/// Bounds of one client, and of all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub request: scan::Limits,
    /// Largest request that goes on a lane.
    pub lane_request_bytes_max: usize,
    /// Requests in flight per session.
    pub pipeline_max: usize,
    /// A client that says nothing for so long is closed.
    pub idle_timeout: Option<Duration>,
    /// Replies that wait for a client that does not read.
    pub reply_buffer_bytes_max: usize,
}

/// What all sessions of a listener are served with.
#[derive(Debug)]
pub struct Settings {
    pub limits: Limits,
    /// Sessions must AUTH with it first.
    pub client_password: Option<Secret>,
    pub rules: Rules,
    /// One for all workers.
    pub memory: Arc<OutageMemory>,
}

/// A request that is to be routed (again), with its place in the order of replies.
#[derive(Debug)]
struct Retry {
    seq: u64,
    request: Vec<u8>,
    class: InFlight,
    reason: RetryReason,
}

/// Why a request is routed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RetryReason {
    /// It was not sent.
    NotSent,
    /// A read whose connection died.
    Lost,
    /// A blocking command whose connection died while Redis had nothing for it: it goes on waiting.
    Waiting { since: Instant, lost: Loss },
    /// It drew LOADING or its like: to be answered as when down. A blocking command may have waited before.
    NotExecuted { waited_since: Option<Instant> },
    /// A read that may not be sent again: to be answered neutrally.
    Neutral,
    /// A write that was lost without its reply, and that a rule journals where that was the breaker's doing.
    Caught { since: Instant },
}

impl RetryReason {
    /// Whether the request has waited elsewhere, on its own time.
    fn has_waited(self) -> bool {
        match self {
            Self::Waiting { .. } => true,
            Self::NotExecuted { waited_since } => waited_since.is_some(),
            Self::NotSent | Self::Lost | Self::Neutral | Self::Caught { .. } => false,
        }
    }
}

/// A loss in flight: when it was noticed, and the generation then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loss {
    at: Instant,
    generation: u64,
}

/// Where the requests in flight are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Nowhere,
    Link(u64),
    Journal,
}

/// A change to the session that Redis judges, and its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChangeAwaited {
    None,
    Awaited { seq: u64, change: Change },
    Applied(Change),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// A SELECT inside a transaction takes effect only with its EXEC, one of a user who may lack the right with its reply.
    Db(u32),
    /// What a CLIENT TRACKING asks for.
    Tracking,
}

/// A blocking command that was sent.
#[derive(Clone, Copy, Debug)]
struct Blocking {
    seq: u64,
    since: Instant,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// On its connection's buffer.
    Routed,
    /// On its way.
    Sent { at: Instant },
    /// Redis is silent: it may be executed yet, and its connection end before its reply.
    GivenUp,
}

/// A time in which no connection takes a session's requests.
#[derive(Clone, Copy, Debug)]
struct TakenBack {
    since: Instant,
    /// What is asked later has waited for nothing yet.
    before_seq: u64,
}

/// The part of a session that others hold: connections that bring its replies, the journal that acknowledges its writes.
struct Session {
    /// Unique in its process; what CLIENT ID-like local answers use.
    id: u64,
    local: Rc<Local>,
    settings: Rc<Settings>,
    writer: Writer,
    output: RefCell<Output>,
    retries: RefCell<VecDeque<Retry>>,
    /// The number that the next request gets.
    issued: Cell<u64>,
    in_flight: Cell<usize>,
    home: Cell<Home>,
    waker: RefCell<Option<Waker>>,
    /// A connection that waits for room here.
    room_waker: RefCell<Option<Waker>>,
    /// The client's socket takes no more: the task waits until it does.
    blocked: Cell<bool>,
    /// To be closed without further ado.
    dead: Cell<bool>,
    /// While the requests lost with a connection are judged: a write of this session stands behind.
    write_behind: Cell<bool>,
    /// The generation of the appends in flight.
    append_generation: Cell<u64>,
    /// Since when requests have come back that no connection would take.
    taken_back: Cell<Option<TakenBack>>,
    /// The newest write that the upstream has answered.
    last_write_answered: Cell<Option<u64>>,
    change_awaited: Cell<ChangeAwaited>,
    scripts_noted: RefCell<Vec<scripts::Noted>>,
    stream_adds: RefCell<StreamAdds>,
    /// A blocking command is in flight: nothing is sent behind it.
    blocking: Cell<Option<Blocking>>,
    dedicated: RefCell<Option<Rc<Link>>>,
    /// An out-of-band frame whose rest has not come.
    push_part: RefCell<recipient::PushPart>,
    /// The dedicated connection ended on its own.
    dedicated_ended: Cell<bool>,
    inquiry: Cell<Inquiry>,
    /// The task waits for something that happens elsewhere.
    parked: Cell<bool>,
    subscriptions: RefCell<Subscriptions>,
    /// Its connection tracks what it reads (CLIENT TRACKING).
    is_tracked: Cell<bool>,
    /// The client is to be told to drop what it has cached.
    invalidation_owed: Cell<bool>,
    /// The task is to run when nothing is in flight any more.
    wakes_when_settled: Cell<bool>,
}

impl Session {
    /// Gives the next request its number.
    fn issue(&self) -> u64 {
        let seq = self.issued.get();
        self.issued.set(seq + 1);
        seq
    }

    /// Nothing is in flight anywhere.
    fn is_settled(&self) -> bool {
        self.in_flight.get() == 0
    }

    /// Everything asked is answered.
    fn is_answered(&self) -> bool {
        self.output.borrow().next() == self.issued.get()
    }

    /// No connection takes its requests, from now on if not for longer.
    fn begin_taken_back(&self) {
        if self.taken_back.get().is_none() {
            self.taken_back.set(Some(TakenBack {
                since: Instant::now(),
                before_seq: self.issued.get(),
            }));
        }
    }

    /// Gives the reply to a request that is not in flight.
    fn answer(&self, seq: u64, reply: &[u8]) {
        self.output.borrow_mut().reply(seq, reply, Piece::End);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// One request less in flight; whoever waits for that goes on.
    #[inline]
    fn landed(&self) {
        let left = self.in_flight.get() - 1;
        self.in_flight.set(left);
        if left == 0 || left == self.settings.limits.pipeline_max / 2 {
            self.settled();
        }
    }

    fn settled(&self) {
        if self.in_flight.get() == 0 {
            self.home.set(Home::Nowhere);
            self.blocking.set(None);
            if self.wakes_when_settled.replace(false) {
                self.wake();
            }
        }
        self.wake_if_parked();
    }

    #[inline]
    fn wake_if_parked(&self) {
        if self.parked.get() {
            self.wake();
        }
    }

    fn retry(&self, seq: u64, request: &[u8], class: InFlight, reason: RetryReason) {
        let mut retries = self.retries.borrow_mut();
        let at = retries.partition_point(|retry| retry.seq < seq);
        retries.insert(
            at,
            Retry {
                seq,
                request: request.to_vec(),
                class,
                reason,
            },
        );
        drop(retries);
        self.landed();
        self.wake();
    }

    /// An out-of-band frame, or a part of one, is for the client.
    fn pass_on(&self, bytes: &[u8], piece: Piece) -> Flush {
        self.output.borrow_mut().push(bytes, piece);
        self.flush_wanted()
    }

    fn flush_wanted(&self) -> Flush {
        let mut output = self.output.borrow_mut();
        if std::mem::replace(&mut output.flush_wanted, true) {
            Flush::NotWanted
        } else {
            Flush::Wanted
        }
    }

    /// Writes what is ready; on a socket that takes no more leaves the rest to the task.
    fn write(&self) {
        let mut output = self.output.borrow_mut();
        output.flush_wanted = false;
        while !self.dead.get() {
            let ready = output.ready();
            let written = if ready.is_empty() {
                // What is taken may still wait for the socket.
                self.writer.try_flush().map(|()| 0)
            } else {
                self.writer.try_write(ready)
            };
            match written {
                Ok(0) => {
                    self.blocked.set(false);
                    return;
                }
                Ok(written) => self.wrote(&mut output, written),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    // What comes from one connection is not read beyond the bound, but for a read or two; early replies of others may add to it.
                    let bytes_max = self.settings.limits.reply_buffer_bytes_max;
                    if output.waiting_bytes() > bytes_max + bytes_max.max(2 * SCRATCH_BYTES) {
                        self.dead.set(true);
                    }
                    if !self.blocked.replace(true) || self.dead.get() {
                        self.wake();
                    }
                    return;
                }
                Err(_) => {
                    self.dead.set(true);
                    self.wake();
                }
            }
        }
    }

    /// Closes the client's connection, behind what is ready: that may wait for the end of the turn.
    fn end(&self) {
        self.write();
        self.dead.set(true);
        self.wake();
    }

    /// As [`Session::write`], but what is small may wait for the end of the turn, to go out with what others have.
    fn write_by_and_by(self: &Rc<Self>) {
        let may_wait = !self.blocked.get() && self.writer.plain_socket().is_some() && {
            let mut output = self.output.borrow_mut();
            burst::is_small(output.ready())
        };
        if !may_wait {
            self.write();
        } else if self.flush_wanted() == Flush::Wanted {
            let session: Rc<Self> = Rc::clone(self);
            self.local.turn.flush_later(session);
        }
    }

    /// Writes a large part of a reply to the client as it comes, where nothing stands before it; `false` where it is to be kept.
    fn pass(&self, output: &mut Output, seq: u64, bytes: &[u8], piece: Piece) -> bool {
        let is_plain = self.writer.plain_socket().is_some();
        if self.blocked.get() || !is_plain || !output.may_pass(seq, bytes.len(), piece) {
            return false;
        }
        while !output.ready().is_empty() {
            let Some(written) = self.take_at_once(output.ready()) else {
                return false;
            };
            self.wrote(output, written);
        }
        let mut rest = bytes;
        while !rest.is_empty()
            && let Some(written) = self.take_at_once(rest)
        {
            rest = rest.get(written..).unwrap_or_default();
        }
        output.passed(rest, piece);
        true
    }

    /// How much the client's socket takes at once; nothing where it takes no more, and then no more is read for it. Whoever flushes meets any
    /// other error again.
    fn take_at_once(&self, bytes: &[u8]) -> Option<usize> {
        let written = self.writer.try_write(bytes);
        if let Err(error) = &written
            && error.kind() == std::io::ErrorKind::WouldBlock
            && !self.blocked.replace(true)
        {
            self.wake();
        }
        written.ok()
    }

    /// A session that streams to its dedicated connection may wait for room there.
    fn go_on_streaming(&self) {
        if self.dedicated.borrow().is_some()
            && self.parked.get()
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            wake_after_others(waker);
        }
    }

    /// The client's socket took these many bytes.
    fn wrote(&self, output: &mut Output, bytes: usize) {
        output.wrote(bytes);
        if let Some(waker) = self.room_waker.take() {
            wake_after_others(&waker);
        }
    }

    /// The upstream has answered a write.
    #[inline]
    fn write_answered(&self, seq: u64, reply: &[u8]) {
        self.last_write_answered.set(Some(seq));
        self.stream_adds.borrow_mut().answered(seq, reply);
        if let ChangeAwaited::Awaited { seq: awaited, change } = self.change_awaited.get()
            && awaited == seq
        {
            // Null, or an error: nothing of the transaction was executed.
            let applied = reply.first() == Some(&b'*') && !reply.starts_with(b"*-1") || reply == b"+OK\r\n";
            self.change_awaited.set(if applied {
                ChangeAwaited::Applied(change)
            } else {
                ChangeAwaited::None
            });
        }
    }

    /// A request whose fate is not known. The name is its command's.
    fn answer_uncertain(&self, seq: u64, request: &[u8]) {
        stats::add(&self.local.worker().stats.uncertain_answered, 1);
        let name = command_name(request);
        let upstream = &self.local.shared.target.name;
        let text = format!(
            "-UNAVAILABLE {name} may or may not have been applied: the connection to upstream \"{upstream}\" was lost\r\n"
        );
        self.answer(seq, text.as_bytes());
    }
}

/// The command's name in a request, for an error text: upper case, at most 32 characters.
fn command_name(request: &[u8]) -> String {
    let mut scanner = scan::Scanner::default();
    // A name is a name whatever stands behind it: what is not complete is looked for no further.
    drop(scanner.scan(request, &scan::Limits::default()));
    let name = scanner.spans().first().and_then(|span| {
        let start = span.start as usize;
        request.get(start..start + span.len as usize)
    });
    let printable = |byte: &u8| {
        if byte.is_ascii_graphic() {
            char::from(byte.to_ascii_uppercase())
        } else {
            '?'
        }
    };
    name.map_or_else(
        || "the request".to_owned(),
        |name| name.iter().take(32).map(printable).collect(),
    )
}
