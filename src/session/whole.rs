//! MULTI … EXEC that has come as a whole, while the upstream is well: it goes on the lane.
//!
//! Pushed in one step, it has nothing of others between its commands, and behind its EXEC the lane is what it was. EXEC leaves last: a transaction
//! that a trip or a lost connection cuts is not executed. What becomes of its commands then is told by their class, as on a connection of
//! the session's own, which a transaction in pieces still gets.

use super::task::Task;
use super::{ChangeAwaited, Home};
use crate::command::{self, Name, Placement};
use crate::resp::Request;
use crate::resp::scan::{Limits, Scan, Scanner};
use crate::upstream::link::{InFlight, Watched};

/// What became of a transaction of which MULTI is next.
pub(super) enum Whole {
    /// Not there as a whole, or not for a lane: its commands are routed one by one.
    No,
    /// It must wait for what is in flight.
    Park,
    /// So many bytes of it are on the lane.
    Sent { len: usize },
}

/// Whether MULTI is next, in the form that client libraries send.
#[inline]
pub(super) fn is_multi(input: &[u8]) -> bool {
    const FRAME: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
    input
        .get(..FRAME.len())
        .is_some_and(|frame| frame.eq_ignore_ascii_case(FRAME))
}

/// Where the commands of a transaction end that any connection can execute and be none the worse for, EXEC's last. Pure.
///
/// One that only reads is none for a lane: it would wait behind writes that Redis holds, and for clients that do not read, as reads do not.
fn find(input: &[u8], scanner: &mut Scanner, limits: &Limits, commands_max: usize) -> Option<Vec<usize>> {
    let mut ends = Vec::with_capacity(8);
    let mut at = 0;
    let mut writes = 0;
    while ends.len() < commands_max {
        let rest = input.get(at..)?;
        let Ok(Scan::Request { len }) = scanner.scan(rest, limits) else {
            scanner.reset();
            return None;
        };
        let request = Request::new(rest.get(..len)?, scanner.spans());
        let spec = command::lookup(&request)?;
        at += len;
        ends.push(at);
        match (spec.id, command::placement(Some(spec), &request)) {
            (Name::Multi, _) if ends.len() == 1 => {}
            (Name::Exec, _) if request.len() == 1 => return (writes > 0).then_some(ends),
            (_, Placement::Lane) => {
                writes += usize::from(command::in_flight(Some(spec), &request) == command::InFlight::Write);
            }
            (_, Placement::Dedicated | Placement::Script | Placement::Session) => return None,
        }
    }
    None
}

impl Task {
    /// Sends a transaction that is at the start of `input` as a whole, where the lane can take it.
    pub(super) fn send_whole(&mut self, input: &[u8], scanner: &mut Scanner, limits: &Limits) -> Whole {
        if !self.may_send_whole() {
            return Whole::No;
        }
        let settings = &self.session.settings.limits;
        let pipeline_max = settings.pipeline_max;
        let input = input.get(..settings.lane_request_bytes_max).unwrap_or(input);
        let Some(ends) = find(input, scanner, limits, pipeline_max) else {
            return Whole::No;
        };
        let lane = self.lane_for_writes();
        if !self.session.local.ends_with_exec(&lane)
            || self.session.dedicated.borrow().is_some() && !self.release_dedicated()
        {
            return Whole::No;
        }
        if self.session.in_flight.get() + ends.len() > pipeline_max || !self.take_home(Home::Link(lane.id)) {
            return Whole::Park;
        }
        let (mut at, last) = (0, ends.len() - 1);
        for (index, &end) in ends.iter().enumerate() {
            let class = if index == last {
                InFlight::Write
            } else {
                InFlight::Queued
            };
            let frame = input.get(at..end).unwrap_or_default();
            self.push_on(&lane, self.session.issue(), frame, class, Watched::Yes);
            at = end;
        }
        lane.write_early();
        Whole::Sent { len: at }
    }

    /// What [`Task::route_new`] sees to before it forwards a command that any connection can execute.
    fn may_send_whole(&self) -> bool {
        let session = &self.session;
        self.is_forwarding()
            && !self.is_bound()
            && !session.local.is_stopping()
            && session.retries.borrow().is_empty()
            && session.blocking.get().is_none()
            && session.change_awaited.get() == ChangeAwaited::None
            && session.subscriptions.borrow().is_confirmed()
            && !self.owes_password()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::request::OwnedRequest;

    fn input(lines: &[&str]) -> Vec<u8> {
        let frame = |line: &&str| {
            let args: Vec<&str> = line.split(' ').collect();
            OwnedRequest::new(&args).as_request().frame().to_vec()
        };
        lines.iter().flat_map(frame).collect()
    }

    fn found(input: &[u8], commands_max: usize) -> Option<Vec<usize>> {
        find(input, &mut Scanner::default(), &Limits::default(), commands_max)
    }

    #[test]
    fn a_transaction_is_found_only_as_a_whole_with_a_write_and_without_what_is_not_for_a_lane() {
        for (lines, expected) in [
            (&["MULTI", "SET a 1", "EXEC"][..], Some(3)),
            (&["MULTI", "GET a", "SET a 1", "GET b", "EXEC"], Some(5)),
            (&["MULTI", "PUBLISH news 1", "EXEC"], Some(3)),
            (&["multi", "set a 1", "exec"], Some(3)),
            (&["MULTI", "INCR", "EXEC"], Some(3)),
            (&["MULTI", "INCR a", "EXEC", "MULTI", "INCR a", "EXEC"], Some(3)),
            (&["MULTI", "XREADGROUP GROUP g c STREAMS s 0", "EXEC"], Some(3)),
            (&["MULTI", "XREADGROUP GROUP g c BLOCK 0 STREAMS s 0", "EXEC"], None),
            (&["MULTI", "EXEC"], None),
            (&["MULTI", "GET a", "EXEC"], None),
            (&["MULTI", "INCR a", "BLPOP l 0", "EXEC"], None),
            (&["MULTI", "INCR a", "EVAL x 0", "EXEC"], None),
            (&["MULTI", "INCR a", "SELECT 1", "EXEC"], None),
            (&["MULTI", "INCR a", "SUBSCRIBE news", "EXEC"], None),
            (&["MULTI", "INCR a", "CLIENT ID", "EXEC"], None),
            (&["MULTI", "INCR a", "NOSUCH", "EXEC"], None),
            (&["MULTI", "INCR a", "MULTI", "EXEC"], None),
            (&["MULTI", "INCR a", "WATCH a", "EXEC"], None),
            (&["MULTI", "INCR a", "DISCARD"], None),
            (&["MULTI", "INCR a", "EXEC now"], None),
            (&["MULTI", "INCR a"], None),
            (&["MULTI"], None),
        ] {
            let found = found(&input(lines), 100);
            assert_eq!(found.map(|ends| ends.len()), expected, "{lines:?}");
        }
    }

    #[test]
    fn one_that_is_cut_anywhere_or_has_too_many_commands_is_none() {
        let whole = input(&["MULTI", "SET a 1", "EXEC"]);
        for len in 0..whole.len() {
            assert_eq!(found(&whole[..len], 100), None, "{len}");
        }
        assert_eq!(found(&whole, 2), None);
        let ends = found(&whole, 3).unwrap();
        assert_eq!(*ends.last().unwrap(), whole.len());
        let behind = [whole.as_slice(), b"GET a\r\n"].concat();
        assert_eq!(found(&behind, 3), Some(ends), "whatever comes behind it");
        let inline = [b"*1\r\n$5\r\nMULTI\r\nINCR a\r\n".as_slice(), &input(&["EXEC"])].concat();
        assert_eq!(found(&inline, 100), None);
    }

    #[test]
    fn the_scanner_finds_the_next_request_after_a_look_in_vain() {
        let cut = input(&["MULTI", "SET a 1"]);
        let mut scanner = Scanner::default();
        for len in 15..cut.len() {
            assert_eq!(find(&cut[..len], &mut scanner, &Limits::default(), 100), None);
            assert_eq!(
                scanner.scan(&cut, &Limits::default()),
                Ok(Scan::Request { len: 15 }),
                "{len}"
            );
        }
    }
}
