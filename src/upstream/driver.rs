//! The task that owns a link's sockets: dials, writes what sessions pushed, hands them the replies, and tells the end.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

use super::burst::Sender;
use super::connections::Ticket;
use super::dial::Role;
use super::gather::{Decision, Gather};
use super::io::{Reader, Writer};
use super::leaving::Leaving;
use super::link::{Fate, Flush, InFlight, Link, LinkKind, LinkState, Piece, Slot};
use super::local::Local;
use super::opening::{open, wake_watchers};
use super::shared::{Mode, Sign};
use super::stall::Stall;
use super::stats;
use super::transaction::exec_left_open;
use super::trouble::sign_of;
use super::turn::{SCRATCH_BYTES, wake_after_others};
use crate::breaker::UpstreamRole;
use crate::resp::reply::{Found, Kind, NotAReply, Scanner};

/// Reads of one connection before others get their turn.
const READS_PER_TURN: usize = 8;
/// What is read at once of a payload that has [`PAYLOAD_LEFT_MIN`] or more to come: it is in the core's cache yet when it is written again. And it
/// is less than a segment of the loopback device (65,483 bytes), for 64 KiB go out as one of those and a tiny one.
const PAYLOAD_READ_BYTES: usize = 48 << 10;
const PAYLOAD_LEFT_MIN: u64 = 64 << 10;
/// So many of these count as one read.
const PAYLOAD_READS: usize = 8;

/// Capacity that is kept for the start of a header line.
const INPUT_KEPT_BYTES: usize = 4 << 10;

/// Replay may begin so long after a trip, also without a proof of this connection's end: what it still has to send must not get there after
/// that, however long commands may wait.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// A lone blocking command has nothing to send, and a frozen Redis that wakes may serve it: its connection stays open until its own timeout is over
/// or the fence ends it, and is half-closed only when Redis serves others again, as often looked at. A Redis that reads the end of file drops what
/// it has not written. Until the first look, what ends it is taken for what made the breaker trip.
const WAITING_LOOK: Duration = Duration::from_millis(200);

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The upstream closed it: it will read nothing more from it.
    ClosedByPeer,
    Broken,
    /// What came is no RESP.
    NotResp,
    /// A transaction of one session may be open on it, and others are behind.
    InTransaction,
    /// Draining took longer than `hold_timeout`, or [`DRAIN_MAX`].
    DrainedTooLong,
}

pub(super) async fn drive(link: Rc<Link>, local: Rc<Local>) {
    match open(&link, &local).await {
        Ok((dialled, ticket)) => {
            let writer = Rc::new(dialled.writer);
            link.out.borrow_mut().begin(Rc::clone(&writer));
            let mut driver = Driver {
                link: Rc::clone(&link),
                local: Rc::clone(&local),
                role: match dialled.facts.role {
                    Role::Replica => UpstreamRole::Replica,
                    Role::Master | Role::Unknown => UpstreamRole::Master,
                },
                reader: dialled.reader,
                writer,
                scanner: Scanner::default(),
                input: Vec::new(),
                flushes: Vec::new(),
                draining: None,
                stall: None,
                gather: Gather::default(),
                answered: InFlight::Read,
            };
            stats::add(&local.worker().stats.connections, 1);
            let end = std::future::poll_fn(|cx| driver.poll(cx)).await;
            stats::sub(&local.worker().stats.connections, 1);
            driver.finish(end, ticket);
        }
        Err(failure) => failure.tell(&link, &local),
    }
    local.forget(&link);
    link.owner.take();
}

/// Nothing is written any more.
struct Draining {
    phase: DrainPhase,
    limit: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DrainPhase {
    /// Half-closed, and read until the end comes from the other side.
    Closing,
    /// Open, for a lone blocking command.
    Waiting,
}

impl Draining {
    fn wait(wait: Duration) -> Self {
        Self {
            phase: DrainPhase::Waiting,
            limit: Box::pin(sleep(wait.min(WAITING_LOOK))),
        }
    }
}

struct Driver {
    link: Rc<Link>,
    local: Rc<Local>,
    /// When we came: a replica's READONLY is its ordinary answer.
    role: UpstreamRole,
    reader: Reader,
    writer: Rc<Writer>,
    scanner: Scanner,
    /// The start of a header line whose rest has not come.
    input: Vec<u8>,
    /// Who is to be flushed at the end of this turn.
    flushes: Vec<Rc<dyn Sender>>,
    draining: Option<Draining>,
    /// A lane waits, or has waited, for a client that does not read.
    stall: Option<Stall>,
    gather: Gather,
    /// What the request was that was answered last.
    answered: InFlight,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.link.woken.set(false);
        {
            let mut waker = self.link.driver.borrow_mut();
            if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        match self.decide() {
            Decision::Write => self.write(cx),
            Decision::Gather => self.let_others_run(cx),
        }
        while let Some(draining) = &mut self.draining
            && draining.limit.as_mut().poll(cx).is_ready()
        {
            let wait = match draining.phase {
                DrainPhase::Closing => None,
                DrainPhase::Waiting => self.link.waits_for_reply(),
            };
            let Some(wait) = wait else {
                return Poll::Ready(End::DrainedTooLong);
            };
            // What ends it now is not what made the breaker trip: the command may be served meanwhile, and its reply dropped with the connection.
            self.give_up();
            self.draining = Some(match self.local.shared.mode() {
                Mode::Starting | Mode::Down | Mode::Probing => Draining::wait(wait),
                Mode::Healthy | Mode::CatchingUp | Mode::Halted => self.close(),
            });
        }
        self.read(cx)
    }

    fn give_up(&self) {
        let slots = self.link.slots.borrow();
        slots.iter().for_each(|slot| slot.recipient.given_up(slot.seq));
    }

    fn close(&self) -> Draining {
        self.writer.shutdown();
        Draining {
            phase: DrainPhase::Closing,
            limit: Box::pin(sleep(self.local.shared.target.hold_timeout.min(DRAIN_MAX))),
        }
    }

    fn decide(&mut self) -> Decision {
        let link = &self.link;
        if link.kind == LinkKind::Dedicated || link.state.get() != LinkState::Up || !link.out.borrow().has_unsent() {
            self.gather.nothing_left();
            return Decision::Write;
        }
        let unanswered = link.slots.borrow().len();
        self.gather.decide(unanswered, link.pushed.get(), Instant::now())
    }

    /// Comes again after the next look at the sockets. Until then nothing that is pushed needs to wake the driver.
    fn let_others_run(&self, cx: &Context<'_>) {
        std::thread::yield_now();
        self.link.woken.set(true);
        wake_after_others(cx.waker());
    }

    /// Writes what has been pushed, in this generation only; starts draining when the link is to end.
    fn write(&mut self, cx: &mut Context<'_>) {
        self.local.look();
        if self.link.state.get() == LinkState::Draining {
            if self.draining.is_none() {
                self.draining = Some(match self.link.waits_for_reply() {
                    Some(wait) => Draining::wait(wait),
                    None => self.close(),
                });
            }
            return;
        }
        if self.link.leaving.get() == Leaving::AtEndOfTurn {
            return;
        }
        let mut out = self.link.out.borrow_mut();
        let sent = out.sent();
        // Where it is pending, the driver is woken.
        let _ = out.poll_write(cx);
        if out.sent() != sent {
            self.link.tell_left();
        }
        let slots = self.link.slots.borrow();
        if slots.front().is_none_or(|slot| slot.len == 0) {
            // Of a streamed request nothing is kept, of those behind it everything.
            let kept = slots
                .iter()
                .find(|slot| slot.len > 0)
                .map_or(out.sent(), |slot| slot.start);
            drop(slots);
            out.forget(kept);
            drop(out);
            self.wake_owner_for_room();
        }
    }

    /// Whether the request whose reply comes next is a streamed one, of which nothing is kept.
    fn is_streamed_next(&self) -> bool {
        self.link.slots.borrow().front().is_some_and(|slot| slot.len == 0)
    }

    /// A session that streams waits for the buffer to drain.
    fn wake_owner_for_room(&self) {
        if self.link.kind == LinkKind::Dedicated
            && let Some(owner) = self.link.owner.borrow().as_ref()
        {
            owner.flush();
        }
    }

    /// Whether the one whose reply comes next takes more. Nobody joins a lane behind one that does not, and those whose writes wait there wait only
    /// for so long; alone it may take its time, as on a connection of its own.
    fn has_room(&mut self, cx: &mut Context<'_>) -> bool {
        let next = match self.link.kind {
            LinkKind::Dedicated => self.link.owner.borrow().clone(),
            LinkKind::Lane => self.link.slots.borrow().front().map(|slot| Rc::clone(&slot.recipient)),
        };
        let Some(next) = next.filter(|next| !next.has_room(self.link.kind, cx.waker())) else {
            return true;
        };
        if self.link.kind == LinkKind::Dedicated {
            return false;
        }
        let stall = match self.stall.take() {
            Some(stall) if stall.is_for(&next) => stall,
            before => {
                self.link.detach(&next);
                match before {
                    Some(before) => before.next(Rc::clone(&next)),
                    None => Stall::new(Rc::clone(&next), self.local.shared.target.timeouts.command),
                }
            }
        };
        if self.stall.insert(stall).is_over(cx) && self.link.is_shared_with(&next) {
            next.give_up();
            return true;
        }
        false
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let local = Rc::clone(&self.local);
        let mut reads_left = READS_PER_TURN * PAYLOAD_READS;
        while reads_left > 0 {
            if !self.has_room(cx) {
                return Poll::Pending;
            }
            let mut scratch = local.turn.scratch.borrow_mut();
            let (bytes_max, cost) = if self.scanner.payload_left() < PAYLOAD_LEFT_MIN {
                (SCRATCH_BYTES, PAYLOAD_READS)
            } else {
                (PAYLOAD_READ_BYTES, 1)
            };
            reads_left -= cost.min(reads_left);
            let room = scratch.get_mut(..bytes_max).unwrap_or_default();
            let read = match ready!(self.reader.poll_read(cx, room)) {
                Ok(0) => return Poll::Ready(End::ClosedByPeer),
                Ok(read) => read,
                Err(_) => return Poll::Ready(End::Broken),
            };
            if let Some(stall) = &mut self.stall {
                stall.took(read);
            }
            let taken = self.take(scratch.get(..read).unwrap_or_default());
            drop(scratch);
            local.turn.flush(&mut self.flushes);
            if let Err(end) = taken {
                return Poll::Ready(end);
            }
        }
        wake_after_others(cx.waker());
        Poll::Pending
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), End> {
        if self.input.is_empty() {
            let used = self.replies(bytes)?;
            self.input.extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(bytes);
            let used = self.replies(&input)?;
            input.drain(..used);
            if input.is_empty() {
                input.shrink_to(INPUT_KEPT_BYTES);
            }
            self.input = input;
        }
        Ok(())
    }

    /// Hands out all replies in `bytes`; gives the number of bytes used.
    fn replies(&mut self, bytes: &[u8]) -> Result<usize, End> {
        let now_us = self.local.turn.now_us();
        self.link.heard_us.set(now_us);
        let mut at = 0;
        while at < bytes.len() {
            let whole = !self.scanner.is_mid_reply();
            let rest = bytes.get(at..).unwrap_or_default();
            if whole && self.link.is_raw() && self.link.slots.borrow().is_empty() {
                self.deliver_out_of_band(rest, Piece::End);
                return Ok(bytes.len());
            }
            match self.scanner.scan(rest).map_err(|NotAReply| End::NotResp)? {
                Found::End { bytes: len, kind } => {
                    at += len;
                    self.deliver(rest.get(..len).unwrap_or_default(), kind, Piece::End, whole, now_us)?;
                }
                Found::Part { bytes: len, kind } => {
                    at += len;
                    if len > 0 {
                        self.deliver(rest.get(..len).unwrap_or_default(), kind, Piece::Part, false, now_us)?;
                    }
                    break;
                }
            }
        }
        Ok(at)
    }

    fn deliver(&mut self, bytes: &[u8], kind: Kind, piece: Piece, whole: bool, now_us: u32) -> Result<(), End> {
        // What has a slot is answered first. An error that no request waits for is the answer to a SUBSCRIBE, which has none.
        let out_of_band = kind == Kind::Push
            || self.link.slots.borrow().is_empty() && (self.link.is_passthrough() || kind == Kind::Error);
        if self.link.is_found_in_transaction(bytes) {
            return Err(End::InTransaction);
        }
        if out_of_band {
            self.deliver_out_of_band(bytes, piece);
            return Ok(());
        }
        let mut slots = self.link.slots.borrow_mut();
        match piece {
            Piece::Part => {
                // A reply that nobody asked for says that the upstream is about to close (maxclients, shutdown).
                let Some(slot) = slots.front() else { return Ok(()) };
                let recipient = Rc::clone(&slot.recipient);
                let (seq, class) = (slot.seq, slot.class);
                drop(slots);
                if recipient.reply(seq, bytes, piece, class) == Flush::Wanted {
                    self.flushes.push(recipient);
                }
            }
            Piece::End => {
                let Some(slot) = slots.pop_front() else { return Ok(()) };
                drop(slots);
                let stats = &self.local.worker().stats;
                stats.answered(now_us.wrapping_sub(slot.sent_us));
                let is_error = whole && kind == Kind::Error;
                let before = std::mem::replace(&mut self.answered, slot.class);
                let is_left_open = self.link.is_left_open(before, &slot, bytes, kind);
                let sign = if is_error {
                    sign_of(bytes, self.link.out.borrow().request(&slot), self.role)
                } else {
                    None
                };
                let flush = match sign {
                    None => slot.recipient.reply(slot.seq, bytes, piece, slot.class),
                    Some(sign) => self.not_executed(&slot, sign),
                };
                // Of a streamed request nothing is kept, and nothing follows it.
                self.link.out.borrow_mut().forget(slot.start + u64::from(slot.len));
                if self.link.kind == LinkKind::Dedicated && self.is_streamed_next() {
                    self.wake_owner_for_room();
                }
                self.link.moved_on();
                if flush == Flush::Wanted {
                    self.flushes.push(slot.recipient);
                }
                if is_left_open {
                    exec_left_open(&self.local.shared);
                    return Err(End::InTransaction);
                }
            }
        }
        Ok(())
    }

    fn deliver_out_of_band(&mut self, bytes: &[u8], piece: Piece) {
        let owner = self.link.owner.borrow().clone();
        if let Some(owner) = owner
            && owner.push(bytes, piece) == Flush::Wanted
        {
            self.flushes.push(owner);
            self.local.turn.told();
        }
    }

    fn not_executed(&self, slot: &Slot, sign: Sign) -> Flush {
        self.local.shared.report(sign);
        let request = self.link.out.borrow().request(slot).to_vec();
        slot.recipient.not_executed(slot.seq, &request, slot.class);
        Flush::NotWanted
    }

    /// Settles every request that is still on the connection.
    fn finish(self, end: End, ticket: Ticket) {
        let was = self.link.state.replace(LinkState::Dead);
        if matches!(end, End::DrainedTooLong) {
            self.give_up();
        }
        let slots = self.link.slots.take();
        match end {
            End::ClosedByPeer => self.local.shared.connections.closed(ticket),
            // Stays on the file until there is another proof; a plain close would go on sending what was not acknowledged.
            End::Broken | End::NotResp | End::InTransaction | End::DrainedTooLong => {
                self.local.shared.connections.was_reset(ticket);
                self.writer.reset_on_close();
            }
        }
        let sign = match end {
            End::NotResp => Some(Sign::NotAccepted),
            End::ClosedByPeer | End::Broken | End::DrainedTooLong => Some(Sign::Reset),
            // The upstream answers.
            End::InTransaction => None,
        };
        if let Some(sign) = sign.filter(|_| was == LinkState::Up && !slots.is_empty()) {
            self.local.shared.report(sign);
        }
        // What writes to the socket ends with it.
        let out = self.link.out.take();
        // What was never sent stands behind nothing.
        let fates: Vec<Fate> = slots
            .iter()
            .rev()
            .map(|slot| {
                if slot.len > 0 && !out.is_sent(slot) {
                    Fate::Again
                } else {
                    slot.recipient.judge(slot.class)
                }
            })
            .collect();
        for (slot, fate) in slots.iter().zip(fates.iter().rev()) {
            // What was never sent is not lost.
            if slot.len > 0 && !out.is_sent(slot) {
                slot.recipient.taken_back(slot.seq, out.request(slot), slot.class);
                continue;
            }
            let fate = if slot.len == 0 { Fate::Uncertain } else { *fate };
            slot.recipient.lost(slot.seq, out.request(slot), slot.class, fate);
        }
        for slot in &slots {
            slot.recipient.flush();
        }
        if let Some(owner) = self.link.owner.take() {
            owner.ended();
        }
        wake_watchers(&self.link);
    }
}
