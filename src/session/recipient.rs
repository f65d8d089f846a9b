//! What connections tell a session: replies, pushes, and what became of requests whose connection died.

use std::io;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::blocking::asks_for_replicas;
use super::output::{PASSED_BYTES_MIN, Withdrawn};
use super::subscriptions::Heard;
use super::{RetryReason, Session, command_name};
use crate::upstream::again;
use crate::upstream::burst::{Burst, Offer, Sender};
use crate::upstream::link::{Fate, Flush, InFlight, LinkKind, Piece, Recipient};
use crate::upstream::stats;

/// An out-of-band frame that comes in pieces is gathered up to this size, so that it can be told what it is.
const PUSH_GATHERED_BYTES_MAX: usize = 64 << 10;
/// Replies of a dedicated connection are read on while fewer bytes than this wait for the client.
pub(super) const ROOM_BYTES: usize = 256 << 10;

/// An out-of-band frame whose rest has not come.
#[derive(Debug)]
pub(super) enum PushPart {
    /// Its beginning, too short to tell what it is; nothing where there is no frame.
    Gathered(Vec<u8>),
    /// The client has the beginning, and gets the rest, which says nothing of what it is.
    PassedOn,
    /// The client does not get it.
    Dropped,
}

impl Default for PushPart {
    fn default() -> Self {
        Self::Gathered(Vec::new())
    }
}

/// What a command is told whose transaction has been cut: the word on it is EXEC's, which is refused or uncertain. An error would say that there
/// is no transaction, and the client would take what it is told next for more than `+QUEUED`.
pub(super) fn stand_in(request: &[u8]) -> &'static [u8] {
    match command_name(request).to_ascii_uppercase().as_str() {
        "MULTI" | "WATCH" | "UNWATCH" | "DISCARD" => b"+OK\r\n",
        _ => b"+QUEUED\r\n",
    }
}

impl Sender for Session {
    fn flush(&self) {
        self.write();
        self.go_on_streaming();
    }

    fn offer(&self, burst: &mut Burst) -> Offer {
        if self.blocked.get() || self.dead.get() {
            return Offer::Declined;
        }
        let mut output = self.output.borrow_mut();
        if !std::mem::replace(&mut output.flush_wanted, false) {
            return Offer::Nothing;
        }
        match self.writer.plain_socket() {
            Some(socket) => burst.add(socket, output.ready()),
            None => Offer::Declined,
        }
    }

    fn sent(&self, result: io::Result<usize>) {
        let mut output = self.output.borrow_mut();
        if let Ok(sent) = result {
            self.wrote(&mut output, sent);
        }
        let is_all = output.ready().is_empty();
        drop(output);
        if !is_all {
            self.write();
        }
        self.go_on_streaming();
    }
}

impl Recipient for Session {
    #[inline]
    fn reply(&self, seq: u64, bytes: &[u8], piece: Piece, class: InFlight) -> Flush {
        self.taken_back.set(None);
        self.note_reply(seq, bytes);
        match class {
            InFlight::Write => self.write_answered(seq, bytes),
            InFlight::Read | InFlight::ReadAgain | InFlight::Queued => {}
        }
        if self.dead.get() {
            if piece == Piece::End {
                self.landed();
            }
            return Flush::NotWanted;
        }
        let mut output = self.output.borrow_mut();
        if bytes.len() < PASSED_BYTES_MIN || !self.pass(&mut output, seq, bytes, piece) {
            output.reply(seq, bytes, piece);
        }
        let flush = if std::mem::replace(&mut output.flush_wanted, true) {
            Flush::NotWanted
        } else {
            Flush::Wanted
        };
        drop(output);
        if piece == Piece::End {
            self.landed();
        }
        flush
    }

    fn push(&self, bytes: &[u8], piece: Piece) -> Flush {
        let mut part = self.push_part.borrow_mut();
        let gathered = match &mut *part {
            PushPart::Gathered(gathered) => gathered,
            PushPart::PassedOn | PushPart::Dropped => {
                let is_dropped = matches!(*part, PushPart::Dropped);
                if piece == Piece::End {
                    *part = PushPart::default();
                }
                drop(part);
                return if is_dropped {
                    Flush::NotWanted
                } else {
                    self.pass_on(bytes, piece)
                };
            }
        };
        if piece == Piece::Part && gathered.len() + bytes.len() < PUSH_GATHERED_BYTES_MAX {
            gathered.extend_from_slice(bytes);
            return Flush::NotWanted;
        }
        let whole;
        let bytes = if gathered.is_empty() {
            bytes
        } else {
            gathered.extend_from_slice(bytes);
            whole = std::mem::take(gathered);
            &whole
        };
        drop(part);
        let is_passed_on = match self.hear(bytes) {
            Heard::News => true,
            Heard::Reply => !self.output.borrow().is_open_muted(),
            Heard::Known => false,
            Heard::Renewed => {
                self.invalidation_owed.set(true);
                self.wake();
                false
            }
            // Closed, it finds out.
            Heard::Withdrawn => {
                self.end();
                false
            }
        };
        if piece == Piece::Part {
            self.push_part.replace(if is_passed_on {
                PushPart::PassedOn
            } else {
                PushPart::Dropped
            });
        }
        if is_passed_on {
            self.pass_on(bytes, piece)
        } else {
            Flush::NotWanted
        }
    }

    fn not_executed(&self, seq: u64, request: &[u8], class: InFlight) {
        let blocking = self.blocking.get().filter(|blocking| blocking.seq == seq);
        let waited_since = blocking.map(|blocking| blocking.since);
        self.retry(seq, request, class, RetryReason::NotExecuted { waited_since });
    }

    fn taken_back(&self, seq: u64, request: &[u8], class: InFlight) {
        self.write_behind.set(false);
        if self.taken_back.get().is_some_and(|spell| seq >= spell.before_seq) {
            self.taken_back.set(None);
        }
        self.begin_taken_back();
        self.retry(seq, request, class, RetryReason::NotSent);
    }

    fn judge(&self, class: InFlight) -> Fate {
        let write_behind = self.write_behind.get();
        match class {
            InFlight::Read if !write_behind => Fate::Again,
            InFlight::Read | InFlight::ReadAgain => Fate::Neutral,
            // Its EXEC has the last word on it.
            InFlight::Queued => Fate::Neutral,
            InFlight::Write => {
                self.write_behind.set(true);
                Fate::Uncertain
            }
        }
    }

    fn lost(&self, seq: u64, request: &[u8], class: InFlight, fate: Fate) {
        self.write_behind.set(false);
        let withdrawn = self.output.borrow_mut().withdraw(seq);
        if withdrawn == Withdrawn::Torn {
            self.end();
            self.landed();
            return;
        }
        if class == InFlight::Queued {
            self.answer(seq, stand_in(request));
            self.landed();
            return;
        }
        let blocking = self.blocking.get().filter(|blocking| blocking.seq == seq);
        match fate {
            Fate::Again | Fate::Neutral if let Some(blocking) = blocking => {
                // XREAD. That Redis had nothing for it was no attempt; else it has one more.
                let class = match fate {
                    _ if self.is_blocking_proven(blocking) => InFlight::Read,
                    Fate::Again => again(class),
                    Fate::Neutral | Fate::Uncertain => {
                        self.end_uncertain();
                        self.landed();
                        return;
                    }
                };
                stats::add(&self.local.worker().stats.uncertain_resent, 1);
                self.retry(seq, request, class, self.goes_on_waiting(blocking));
            }
            Fate::Again => {
                stats::add(&self.local.worker().stats.uncertain_resent, 1);
                self.retry(seq, request, again(class), RetryReason::Lost);
            }
            Fate::Neutral => self.retry(seq, request, class, RetryReason::Neutral),
            Fate::Uncertain => {
                match blocking {
                    // Of what Redis has begun to answer something was taken; and WAIT is about the writes that this very Redis was given.
                    Some(blocking)
                        if withdrawn == Withdrawn::Nothing
                            && !asks_for_replicas(request)
                            && self.is_blocking_proven(blocking) =>
                    {
                        self.retry(seq, request, class, self.goes_on_waiting(blocking));
                        return;
                    }
                    // It may have been given something. An error ends workers that outlive a lost connection, which says the same.
                    Some(_) => self.end_uncertain(),
                    None if withdrawn == Withdrawn::Nothing && self.may_journal_caught(request) => {
                        let since = Instant::now();
                        self.retry(seq, request, class, RetryReason::Caught { since });
                        return;
                    }
                    None => self.answer_uncertain(seq, request),
                }
                self.landed();
            }
        }
    }

    fn denied(&self, seq: u64, error: &str) {
        self.answer(seq, format!("-{error}\r\n").as_bytes());
        self.landed();
    }

    /// Redis closes the connections of a user that is deleted. Who is closed comes again and says the password of today.
    fn withdrawn(&self, _: u64, _: &str) {
        self.end();
        self.landed();
    }

    fn ended(&self) {
        self.dedicated_ended.set(true);
        self.wake();
    }

    fn retired(&self) {
        self.wake();
    }

    fn left(&self) {
        self.blocking_left();
    }

    fn waits(&self, seq: u64, request: &[u8]) -> Option<Duration> {
        self.blocking_for(seq, request)
    }

    fn given_up(&self, seq: u64) {
        self.blocking_given_up(seq);
    }

    fn has_room(&self, kind: LinkKind, waker: &Waker) -> bool {
        let bytes_max = match kind {
            LinkKind::Dedicated => ROOM_BYTES,
            LinkKind::Lane => self.settings.limits.reply_buffer_bytes_max,
        };
        if self.dead.get() || !self.blocked.get() || self.output.borrow().waiting_bytes() < bytes_max {
            return true;
        }
        self.room_waker.replace(Some(waker.clone()));
        false
    }

    fn give_up(&self) {
        self.dead.set(true);
        self.wake();
    }
}
