//! The task of a session: reads what the client sends, hands each request to routing, writes what waits, and ends when the client does.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::append::Appender;
use super::credentials::Check;
use super::idle::IdleWatch;
use super::output::Output;
use super::state::State;
use super::streaming::{STREAMED_READ_BYTES, Streaming};
use super::whole::{Whole, is_multi};
use super::{ChangeAwaited, Home, Session, Settings};
use crate::resp::Request;
use crate::resp::scan::{ProtocolError, Scan, Scanner};
use crate::upstream::io::{Reader, Writer};
use crate::upstream::link::Link;
use crate::upstream::turn::{SCRATCH_BYTES, wake_after_others};

/// Requests are read on while a session waits, up to this: enough to see that the client is gone.
const INPUT_WAITING_BYTES_MAX: usize = 64 << 10;
/// Reads of one client before others get their turn.
const READS_PER_TURN: usize = 8;
/// Capacity that an idle client keeps.
const INPUT_KEPT_BYTES: usize = 4 << 10;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Routed {
    /// It is sent, answered, or journaled: the next one may come.
    Done,
    /// It must wait; it will be routed again.
    Park,
}

/// How the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    No,
    /// When everything asked before is answered.
    AfterReplies,
}

pub(super) struct Task {
    pub(super) session: Rc<Session>,
    pub(super) state: State,
    /// The lane for the state's key, while it is open.
    pub(super) lane: Option<Rc<Link>>,
    /// A lane whose dial decides about an AUTH, HELLO or SELECT.
    pub(super) pending_lane: Option<Rc<Link>>,
    /// Credentials that Redis is asked about.
    pub(super) pending_check: Option<Rc<Check>>,
    pub(super) idle_watch: Option<IdleWatch>,
    pub(super) appender: Rc<Appender>,
    pub(super) closing: Closing,
    reader: Reader,
    scanner: Scanner,
    /// Received, not routed yet.
    input: Vec<u8>,
    pub(super) streaming: Option<Streaming>,
    /// The client has shut down its sending side.
    end_of_input: bool,
    held: Option<Held>,
    /// A request has waited in vain for the end of a backlog since the client sent something last.
    pub(super) waited_out: bool,
}

/// A request that waits for the end of something, until a deadline.
struct Held {
    since: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Serves one client until it leaves.
pub async fn serve(appender: Rc<Appender>, settings: Rc<Settings>, id: u64, reader: Reader, writer: Writer) {
    let local = Rc::clone(appender.local());
    let state = State::new(local.shared.target.db, settings.client_password.as_ref());
    let session = Rc::new(Session {
        id,
        local: Rc::clone(&local),
        settings,
        writer,
        output: RefCell::new(Output::new(Rc::clone(&local.turn.buffers))),
        retries: RefCell::default(),
        issued: Cell::new(0),
        in_flight: Cell::new(0),
        home: Cell::new(Home::Nowhere),
        waker: RefCell::default(),
        room_waker: RefCell::default(),
        blocked: Cell::new(false),
        dead: Cell::new(false),
        write_behind: Cell::new(false),
        append_generation: Cell::new(0),
        taken_back: Cell::new(None),
        blocking: Cell::new(None),
        last_write_answered: Cell::new(None),
        change_awaited: Cell::new(ChangeAwaited::None),
        scripts_noted: RefCell::default(),
        stream_adds: RefCell::default(),
        push_part: RefCell::default(),
        dedicated: RefCell::default(),
        dedicated_ended: Cell::new(false),
        inquiry: Cell::default(),
        parked: Cell::new(false),
        subscriptions: RefCell::default(),
        is_tracked: Cell::new(false),
        invalidation_owed: Cell::new(false),
        wakes_when_settled: Cell::new(false),
    });
    let mut task = Task {
        session: Rc::clone(&session),
        state,
        lane: None,
        pending_lane: None,
        idle_watch: session.settings.limits.idle_timeout.map(IdleWatch::new),
        pending_check: None,
        appender,
        closing: Closing::No,
        reader,
        scanner: Scanner::default(),
        input: Vec::new(),
        streaming: None,
        end_of_input: false,
        held: None,
        waited_out: false,
    };
    std::future::poll_fn(|cx| task.poll(cx)).await;
    // What is ready may wait for the end of the turn; it does nothing where the session is dead.
    session.write();
    session.dead.set(true);
    if let Some(waker) = session.waker.take() {
        local.unwait(&waker);
    }
    if let Some(waker) = session.room_waker.take() {
        waker.wake();
    }
    task.part();
    task.abandon_check();
}

impl Task {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.register(cx);
        let mut reads = 0;
        loop {
            if self.session.dead.get() {
                return Poll::Ready(());
            }
            if self.session.blocked.get() {
                self.write_blocked(cx);
            }
            self.session.parked.set(false);
            // Nobody waits for it here.
            let _ = self.settle_change();
            self.connection_ended();
            self.keep_fed(cx);
            self.run(cx);
            self.write_dedicated();
            // What was routed now may have been a SUBSCRIBE.
            self.keep_fed(cx);
            self.invalidate_all();
            if self.closing == Closing::No && !self.end_of_input {
                self.session.write_by_and_by();
            } else {
                self.session.write();
            }
            if self.is_over() {
                return Poll::Ready(());
            }
            if self.may_not_read() {
                // Nothing of the client's wakes it now: what lands must.
                self.session.parked.set(true);
                return self.idle(cx);
            }
            if reads == READS_PER_TURN {
                wake_after_others(cx.waker());
                return self.idle(cx);
            }
            if self.read(cx).is_pending() {
                return self.idle(cx);
            }
            reads += 1;
        }
    }

    /// What was routed to the dedicated connection goes out in this turn: nobody else's requests could be gathered with it there.
    fn write_dedicated(&self) {
        let dedicated = self.session.dedicated.borrow();
        dedicated
            .iter()
            .for_each(|link| self.session.local.write_dedicated(link));
    }

    fn register(&self, cx: &Context<'_>) {
        let mut waker = self.session.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Nothing to do until woken. What was written meanwhile may have found the socket full.
    fn idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.session.blocked.get() {
            self.write_blocked(cx);
        }
        if self.session.dead.get() || self.is_idle_for_too_long(cx) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn write_blocked(&self, cx: &mut Context<'_>) {
        while self.session.blocked.get() && !self.session.dead.get() {
            match self.session.writer.poll_ready(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => self.session.write(),
                Poll::Ready(Err(_)) => self.session.dead.set(true),
            }
        }
    }

    fn is_over(&self) -> bool {
        let session = &self.session;
        if session.dead.get() {
            return true;
        }
        let is_answered = session.is_answered() && session.subscriptions.borrow().is_confirmed();
        match self.closing {
            Closing::AfterReplies => is_answered && !session.blocked.get(),
            // A client that left waits for nothing, except for the answers to what it has sent.
            Closing::No => {
                self.end_of_input
                    && (is_answered && !session.parked.get()
                        || session.blocking.get().is_some() && session.in_flight.get() <= 1
                        || self.held.is_some()
                        // The rest of it will not come.
                        || self.streaming.is_some() && !session.parked.get())
                    && !session.blocked.get()
            }
        }
    }

    /// Waiting for others, a session reads on only to see its client leave.
    fn may_not_read(&self) -> bool {
        self.end_of_input
            || self.closing != Closing::No
            || (self.session.parked.get() && self.input.len() >= INPUT_WAITING_BYTES_MAX)
            || self.session.output.borrow().waiting_bytes() > super::recipient::ROOM_BYTES
    }

    /// One read; what it brings is routed at once, from the buffer that it was read into.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let turn = Rc::clone(&self.session.local.turn);
        let mut scratch = turn.scratch.borrow_mut();
        let is_parked = self.session.parked.get();
        let bytes_max = if is_parked {
            INPUT_WAITING_BYTES_MAX
        } else if self.streaming.is_some() {
            STREAMED_READ_BYTES
        } else {
            SCRATCH_BYTES
        };
        let room = scratch.get_mut(..bytes_max).unwrap_or_default();
        match self.reader.poll_read(cx, room) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => {
                self.end_of_input = true;
                Poll::Ready(())
            }
            Poll::Ready(Err(_)) => {
                self.session.dead.set(true);
                Poll::Ready(())
            }
            Poll::Ready(Ok(read)) => {
                self.waited_out = false;
                if let Some(watch) = &mut self.idle_watch {
                    watch.heard();
                }
                let bytes = scratch.get(..read).unwrap_or_default();
                if self.input.is_empty() && !is_parked && self.session.retries.borrow().is_empty() {
                    let used = self.consume(bytes);
                    self.input.extend_from_slice(bytes.get(used..).unwrap_or_default());
                } else {
                    self.input.extend_from_slice(bytes);
                }
                Poll::Ready(())
            }
        }
    }

    /// Routes what waits: first requests that came back, then input.
    fn run(&mut self, cx: &mut Context<'_>) {
        if self.awaits_answer() {
            self.park(cx);
            return;
        }
        if !self.session.retries.borrow().is_empty() {
            self.session.local.turn.stamp();
        }
        loop {
            let Some(retry) = self.session.retries.borrow_mut().pop_front() else {
                break;
            };
            if self.route_again(&retry) == Routed::Park {
                self.session.retries.borrow_mut().push_front(retry);
                self.park(cx);
                return;
            }
            if self.session.blocking.get().is_some() || retry.reason.has_waited() {
                // It waits upstream now, or has waited enough. What stands behind it has a time of its own.
                self.release();
            }
        }
        if !self.input.is_empty() {
            let mut input = std::mem::take(&mut self.input);
            let used = self.consume(&input);
            input.drain(..used);
            if input.is_empty() {
                input.shrink_to(INPUT_KEPT_BYTES);
            }
            self.input = input;
        }
        if self.session.parked.get() {
            self.park(cx);
        } else {
            self.held = None;
        }
    }

    /// Sees to being woken when what the session waits for may have happened.
    fn park(&mut self, cx: &mut Context<'_>) {
        self.session.parked.set(true);
        self.session.local.wait(cx.waker());
        if let Some(held) = &mut self.held
            && held
                .sleep
                .as_mut()
                .is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready())
        {
            // The deadline is looked at by routing, in the next turn; once, for it may have to wait for something else then.
            held.sleep = None;
            cx.waker().wake_by_ref();
        }
    }

    /// Until when a request that began to wait now, or earlier, waits; the session is woken then.
    pub(super) fn held_until(&mut self, limit: std::time::Duration) -> Instant {
        let held = self.held.get_or_insert_with(|| Held {
            since: Instant::now(),
            sleep: None,
        });
        let until = held.since + limit;
        if until > Instant::now() && held.sleep.as_ref().is_none_or(|sleep| sleep.deadline() != until) {
            held.sleep = Some(Box::pin(sleep_until(until)));
        }
        until
    }

    /// A request waits without a deadline of its own.
    pub(super) fn held_for_ever(&mut self) {
        let held = self.held.get_or_insert_with(|| Held {
            since: Instant::now(),
            sleep: None,
        });
        held.sleep = None;
    }

    /// A request has been waiting elsewhere before.
    pub(super) fn held_since(&mut self, since: std::time::Instant) {
        let since = Instant::from_std(since);
        if self.held.as_ref().is_none_or(|held| held.since > since) {
            self.held = Some(Held { since, sleep: None });
        }
    }

    /// How long the request has been waiting.
    pub(super) fn held_for(&self) -> Option<std::time::Duration> {
        self.held.as_ref().map(|held| held.since.elapsed())
    }

    /// Whether a request waits already.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn release(&mut self) {
        self.held = None;
    }

    /// Routes the requests in `bytes`; gives the number of bytes that are done with.
    fn consume(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        let mut scanner = std::mem::take(&mut self.scanner);
        self.session.local.turn.stamp();
        while !self.session.parked.get() && self.closing == Closing::No {
            let rest = bytes.get(at..).unwrap_or_default();
            if self.streaming.is_some() {
                match self.stream_on(rest) {
                    0 => break,
                    passed => at += passed,
                }
                continue;
            }
            if rest.is_empty() {
                break;
            }
            let limits = self.request_limits();
            if is_multi(rest) {
                match self.send_whole(rest, &mut scanner, &limits) {
                    Whole::No => {}
                    Whole::Park => {
                        self.session.parked.set(true);
                        break;
                    }
                    Whole::Sent { len } => {
                        self.held = None;
                        at += len;
                        continue;
                    }
                }
            }
            let (request, len) = match scanner.scan(rest, &limits) {
                Ok(Scan::Incomplete) => {
                    self.incomplete(rest, &mut scanner);
                    if self.streaming.is_some() {
                        continue;
                    }
                    break;
                }
                Ok(Scan::Nothing { len }) => {
                    at += len;
                    continue;
                }
                Ok(Scan::Request { len }) => (Request::new(rest.get(..len).unwrap_or_default(), scanner.spans()), len),
                Ok(Scan::Inline { len }) => (Request::new(scanner.inline(), scanner.spans()), len),
                Err(error) => {
                    match self.refuse_protocol(&error) {
                        Routed::Done => at = bytes.len(),
                        Routed::Park => {
                            scanner.reset();
                            self.session.parked.set(true);
                        }
                    }
                    break;
                }
            };
            match self.route_new(&request) {
                Routed::Done => {
                    self.held = None;
                    at += len;
                }
                Routed::Park => self.session.parked.set(true),
            }
        }
        if at == bytes.len() && scanner.spans().len() > 64 {
            scanner.reset();
        }
        self.scanner = scanner;
        at
    }

    /// What came is no request: nothing behind it is looked at.
    #[cold]
    fn refuse_protocol(&mut self, error: &ProtocolError) -> Routed {
        // Confirmations have no place of their own among the replies.
        if !self.session.subscriptions.borrow().is_confirmed() {
            return Routed::Park;
        }
        let mut reply = Vec::new();
        error.write(&mut reply);
        let seq = self.session.issue();
        self.session.answer(seq, &reply);
        self.closing = Closing::AfterReplies;
        Routed::Done
    }
}
