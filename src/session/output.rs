//! Replies towards one client: in the order of its requests, whatever order they become known in.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::upstream::buffers::Buffers;
use crate::upstream::link::Piece;

/// A part of a reply that is not complete is kept back up to this size, so that it can be withdrawn when its connection dies.
const WITHHELD_BYTES_MAX: usize = 64 << 10;
/// Fewer bytes than this are gathered, so that one system call takes many replies.
pub(super) const PASSED_BYTES_MIN: usize = 16 << 10;

/// A reply that is known before its turn.
#[derive(Debug)]
struct Early {
    seq: u64,
    bytes: Vec<u8>,
    complete: bool,
}

/// What was known of a reply whose connection died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withdrawn {
    Nothing,
    /// Some of it, and nobody has seen it.
    Part,
    /// Some of it went out: the client cannot be told anything else.
    Torn,
}

/// `sent ≤ committed ≤ bytes.len()`; `next` is the request whose reply comes next.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Borrowed from `buffers` while there is something in it.
    bytes: Vec<u8>,
    buffers: Rc<Buffers>,
    sent: usize,
    /// End of the last complete reply (or of a part that went out, which cannot be withdrawn).
    committed: usize,
    next: u64,
    early: VecDeque<Early>,
    /// A reply, or an out-of-band frame, has gone out in part.
    torn: bool,
    /// An out-of-band frame stands at the end whose rest has not come: nothing may stand inside it.
    push_is_open: bool,
    /// Requests that want no reply (CLIENT REPLY OFF, SKIP): first to last, the last open-ended.
    muted: VecDeque<(u64, Option<u64>)>,
    /// It is on some list of those to be flushed.
    pub(super) flush_wanted: bool,
}

impl Output {
    pub(super) fn new(buffers: Rc<Buffers>) -> Self {
        Self {
            buffers,
            ..Self::default()
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() == 0 {
            self.bytes = self.buffers.take();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// All requests before this one are answered.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Bytes not yet taken by the client's socket, early ones included.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.bytes.len() - self.sent + self.early.iter().map(|early| early.bytes.len()).sum::<usize>()
    }

    /// Adds to the reply of request `seq`.
    #[inline]
    pub(super) fn reply(&mut self, seq: u64, bytes: &[u8], piece: Piece) {
        if seq != self.next || self.push_is_open {
            self.reply_early(seq, bytes, piece);
            return;
        }
        if self.muted.is_empty() || !self.is_muted(seq) {
            self.append(bytes);
        }
        if piece == Piece::End {
            self.end_reply();
        }
    }

    fn end_reply(&mut self) {
        self.committed = self.bytes.len();
        self.torn = false;
        self.next += 1;
        self.take_early();
    }

    /// Appends what was known before its turn, and has it now.
    fn take_early(&mut self) {
        while let Some(early) = self.early.pop_front_if(|early| early.seq == self.next) {
            if !self.is_muted(early.seq) {
                self.append(&early.bytes);
            }
            if !early.complete {
                return;
            }
            self.committed = self.bytes.len();
            self.next += 1;
        }
    }

    #[cold]
    fn reply_early(&mut self, seq: u64, bytes: &[u8], piece: Piece) {
        debug_assert!(seq >= self.next, "a request is answered once");
        let at = self.early.partition_point(|early| early.seq < seq);
        match self.early.get_mut(at) {
            Some(early) if early.seq == seq => {
                early.bytes.extend_from_slice(bytes);
                early.complete = piece == Piece::End;
            }
            Some(_) | None => {
                self.early.insert(
                    at,
                    Early {
                        seq,
                        bytes: bytes.to_vec(),
                        complete: piece == Piece::End,
                    },
                );
            }
        }
    }

    /// Adds an out-of-band frame. It stands between replies, never inside one, and none inside it.
    pub(super) fn push(&mut self, bytes: &[u8], piece: Piece) {
        self.append(bytes);
        self.push_is_open = piece == Piece::Part;
        if piece == Piece::End {
            self.committed = self.bytes.len();
            self.torn = false;
            self.take_early();
        }
    }

    /// Whether an out-of-band frame would stand between replies, behind all that are known.
    pub(super) fn is_between_replies(&self) -> bool {
        !self.push_is_open && !self.torn && self.committed == self.bytes.len() && self.early.is_empty()
    }

    /// Takes back what is known in part of an out-of-band frame, whose connection died.
    pub(super) fn withdraw_push(&mut self) -> Withdrawn {
        if !self.push_is_open {
            return Withdrawn::Nothing;
        }
        if self.torn {
            return Withdrawn::Torn;
        }
        self.push_is_open = false;
        self.bytes.truncate(self.committed);
        self.take_early();
        Withdrawn::Part
    }

    /// Takes back what is known in part of the reply to `seq`, whose connection died.
    pub(super) fn withdraw(&mut self, seq: u64) -> Withdrawn {
        let known = (self.bytes.len() - self.committed, self.early.len());
        if seq == self.next {
            if self.torn {
                return Withdrawn::Torn;
            }
            self.bytes.truncate(self.committed);
        } else {
            self.early.retain(|early| early.seq != seq);
        }
        if known == (self.bytes.len() - self.committed, self.early.len()) {
            Withdrawn::Nothing
        } else {
            Withdrawn::Part
        }
    }

    /// Whether a part of the reply to `seq` may go to the client without being kept here: it is its turn, and it would not be withheld. What
    /// is withheld of that reply is ready from then on.
    pub(super) fn may_pass(&mut self, seq: u64, bytes: usize, piece: Piece) -> bool {
        let withheld_bytes = self.bytes.len() - self.committed;
        let may_pass = bytes >= PASSED_BYTES_MIN
            && seq == self.next
            && !self.push_is_open
            && (self.torn || piece == Piece::End || withheld_bytes + bytes > WITHHELD_BYTES_MAX)
            && !self.is_muted(seq);
        if may_pass && withheld_bytes > 0 {
            self.torn = true;
            self.committed = self.bytes.len();
        }
        may_pass
    }

    /// The client's socket took a part of the reply whose turn it is, but for `rest`. Nothing else waits.
    pub(super) fn passed(&mut self, rest: &[u8], piece: Piece) {
        debug_assert!(self.bytes.is_empty(), "what comes first is written first");
        if !rest.is_empty() {
            self.append(rest);
        }
        match piece {
            Piece::End => self.end_reply(),
            Piece::Part => {
                self.torn = true;
                self.committed = self.bytes.len();
            }
        }
    }

    /// What may be written now.
    pub(super) fn ready(&mut self) -> &[u8] {
        if self.bytes.len() - self.committed > WITHHELD_BYTES_MAX {
            self.torn = true;
            self.committed = self.bytes.len();
        }
        self.bytes.get(self.sent..self.committed).unwrap_or_default()
    }

    /// The client's socket took these many bytes of what was ready.
    pub(super) fn wrote(&mut self, written: usize) {
        self.sent += written;
        if self.sent == self.bytes.len() {
            self.buffers.give(std::mem::take(&mut self.bytes));
            self.sent = 0;
            self.committed = 0;
        } else if self.sent > WITHHELD_BYTES_MAX {
            self.bytes.drain(..self.sent);
            self.committed -= self.sent;
            self.sent = 0;
        }
    }

    /// Wants no reply to the requests from `first` on; to `last` or until [`Output::unmute`].
    pub(super) fn mute(&mut self, first: u64, last: Option<u64>) {
        self.unmute(first);
        self.muted.push_back((first, last));
    }

    /// Wants replies again, from `seq` on.
    pub(super) fn unmute(&mut self, seq: u64) {
        if let Some((_, last)) = self.muted.back_mut()
            && last.is_none_or(|last| last >= seq)
        {
            *last = Some(seq.saturating_sub(1));
        }
    }

    /// The request before `seq` is answered out of band, which nothing turns off.
    pub(super) fn use_up_skip(&mut self, seq: u64) {
        if !self.is_open_muted() {
            self.unmute(seq);
        }
    }

    /// Whether the newest request, `seq`, wants no reply.
    pub(super) fn is_newest_muted(&self, seq: u64) -> bool {
        self.muted
            .back()
            .is_some_and(|(_, last)| last.is_none_or(|last| seq <= last))
    }

    /// Whether replies are off until they are wanted again.
    pub(super) fn is_open_muted(&self) -> bool {
        self.muted.back().is_some_and(|(_, last)| last.is_none())
    }

    fn is_muted(&mut self, seq: u64) -> bool {
        while self
            .muted
            .front()
            .is_some_and(|(_, last)| last.is_some_and(|last| last < seq))
        {
            self.muted.pop_front();
        }
        self.muted
            .front()
            .is_some_and(|(first, last)| *first <= seq && last.is_none_or(|last| seq <= last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(output: &mut Output) -> String {
        let bytes = output.ready().to_vec();
        output.wrote(bytes.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn replies_leave_in_the_order_of_the_requests() {
        let mut output = Output::default();
        output.reply(2, b"c", Piece::End);
        output.reply(1, b"b1", Piece::Part);
        assert_eq!(sent(&mut output), "");
        output.reply(0, b"a", Piece::End);
        assert_eq!(sent(&mut output), "a");
        output.reply(1, b"b2", Piece::End);
        assert_eq!(sent(&mut output), "b1b2c");
        assert_eq!(output.next(), 3);
    }

    #[test]
    fn a_reply_in_part_is_withheld_and_can_be_withdrawn() {
        let mut output = Output::default();
        output.reply(0, b"a", Piece::End);
        output.reply(1, b"half", Piece::Part);
        assert_eq!(sent(&mut output), "a");
        assert_eq!(output.withdraw(1), Withdrawn::Part);
        output.reply(1, b"-ERR", Piece::End);
        assert_eq!(sent(&mut output), "-ERR");
    }

    #[test]
    fn a_large_reply_goes_out_as_it_comes_and_cannot_be_withdrawn() {
        let mut output = Output::default();
        output.reply(0, &[b'x'; WITHHELD_BYTES_MAX + 1], Piece::Part);
        assert_eq!(sent(&mut output).len(), WITHHELD_BYTES_MAX + 1);
        assert_eq!(output.withdraw(0), Withdrawn::Torn);
        output.reply(0, b"end", Piece::End);
        assert_eq!(sent(&mut output), "end");
    }

    #[test]
    fn large_parts_pass_in_their_turn_and_what_was_withheld_goes_before_them() {
        let large = [b'x'; PASSED_BYTES_MIN];
        let mut output = Output::default();
        assert!(!output.may_pass(1, large.len(), Piece::End), "another's turn");
        assert!(!output.may_pass(0, large.len(), Piece::Part), "may yet be withdrawn");
        assert!(!output.may_pass(0, large.len() - 1, Piece::End), "gathered");
        output.reply(0, b"a", Piece::Part);
        assert!(output.may_pass(0, WITHHELD_BYTES_MAX, Piece::Part));
        assert_eq!(output.withdraw(0), Withdrawn::Torn);
        assert_eq!(sent(&mut output), "a");
        output.passed(b"b", Piece::Part);
        output.reply(1, b"d", Piece::End);
        assert_eq!(sent(&mut output), "b");
        assert!(output.may_pass(0, large.len(), Piece::Part));
        output.passed(b"", Piece::Part);
        assert!(output.may_pass(0, large.len(), Piece::End));
        output.passed(b"c", Piece::End);
        assert_eq!(sent(&mut output), "cd");
        assert_eq!(output.next(), 2);
        output.mute(2, None);
        assert!(!output.may_pass(2, large.len(), Piece::End), "not wanted");
    }

    #[test]
    fn no_reply_stands_inside_a_frame_that_comes_in_pieces() {
        let mut output = Output::default();
        output.push(b"pu", Piece::Part);
        output.reply(0, b"a", Piece::End);
        output.reply(1, b"b1", Piece::Part);
        assert_eq!(sent(&mut output), "");
        output.push(b"sh", Piece::End);
        assert_eq!(sent(&mut output), "pusha");
        output.reply(1, b"b2", Piece::End);
        assert_eq!(sent(&mut output), "b1b2");
        output.push(b"half", Piece::Part);
        output.reply(2, b"c", Piece::End);
        assert_eq!(output.withdraw_push(), Withdrawn::Part);
        assert_eq!(sent(&mut output), "c");
        output.push(&[b'x'; WITHHELD_BYTES_MAX + 1], Piece::Part);
        assert_eq!(sent(&mut output).len(), WITHHELD_BYTES_MAX + 1);
        assert_eq!(output.withdraw_push(), Withdrawn::Torn);
    }

    #[test]
    fn muted_requests_are_counted_but_not_answered() {
        let mut output = Output::default();
        output.mute(0, None);
        output.reply(0, b"a", Piece::End);
        output.reply(1, b"b", Piece::End);
        output.unmute(2);
        output.reply(2, b"c", Piece::End);
        output.mute(3, Some(4));
        output.reply(4, b"e", Piece::End);
        output.reply(3, b"d", Piece::End);
        output.reply(5, b"f", Piece::End);
        output.mute(6, Some(7));
        output.unmute(7);
        output.reply(6, b"", Piece::End);
        output.reply(7, b"h", Piece::End);
        assert_eq!(sent(&mut output), "cfh");
    }
}
