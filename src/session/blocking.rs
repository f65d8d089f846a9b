//! Blocking commands: those in flight are noted, and those that waited here go upstream with what is left of their timeout.

use std::time::{Duration, Instant};

use super::task::Task;
use super::{Blocking, Loss, Progress, RetryReason, Session, command_name};
use crate::command::{self, Blocks, Name, blocks};
use crate::resp::Request;
use crate::resp::request::OwnedRequest;
use crate::resp::scan::{Limits, Scan, Scanner};
use crate::upstream::stats;

impl Task {
    /// A blocking command has been sent: nothing is sent behind it.
    pub(super) fn note_blocking(&self, seq: u64) {
        self.session.blocking.set(Some(Blocking {
            seq,
            since: Instant::now(),
            progress: Progress::Routed,
        }));
    }

    /// Whether what took one connection may have taken all of them, and the breaker has not decided. A blocking command that is sent to one
    /// of those meanwhile is lost again, and then nothing proves that Redis had nothing for it.
    pub(super) fn is_in_doubt(&self, lost: Loss) -> bool {
        let local = &self.session.local;
        let is_in_doubt = lost.generation == local.generation()
            && self.is_forwarding()
            // By then silence has been told from slowness.
            && lost.at.elapsed() < local.shared.target.hold_timeout + local.shared.target.timeouts.command
            && !local.shared.answered_after(lost.at);
        if is_in_doubt {
            local.await_proof();
        }
        is_in_doubt
    }
}

impl Session {
    /// Closes the client of a blocking command that may have been answered, as Redis does that goes.
    pub(super) fn end_uncertain(&self) {
        stats::add(&self.local.worker().stats.uncertain_answered, 1);
        self.end();
    }

    /// The connection has been written to.
    pub(super) fn blocking_left(&self) {
        if let Some(blocking) = self.blocking.get()
            && blocking.progress != Progress::GivenUp
        {
            let now = Instant::now();
            self.local.has_blocked(now);
            self.blocking.set(Some(Blocking {
                progress: Progress::Sent { at: now },
                ..blocking
            }));
        }
    }

    /// Nothing but its reply will tell what Redis did with it.
    pub(super) fn blocking_given_up(&self, seq: u64) {
        if let Some(blocking) = self.blocking.get()
            && blocking.seq == seq
        {
            self.blocking.set(Some(Blocking {
                progress: Progress::GivenUp,
                ..blocking
            }));
        }
    }

    /// How much longer a reply to the blocking command is waited for on a connection that is written to no more: until its own timeout, and as
    /// long again as a reply may take on its way. Nothing where it is none, or over.
    pub(super) fn blocking_for(&self, seq: u64, request: &[u8]) -> Option<Duration> {
        let blocking = self.blocking.get().filter(|blocking| blocking.seq == seq)?;
        if self.dead.get() || asks_for_replicas(request) {
            return None;
        }
        let mut scanner = Scanner::default();
        let Ok(Scan::Request { .. }) = scanner.scan(request, &Limits::default()) else {
            return None;
        };
        let (_, unit_s, timeout) = timeout_of(&Request::new(request, scanner.spans()))?;
        if timeout <= 0.0 {
            return Some(Duration::MAX);
        }
        let timeout = Duration::try_from_secs_f64(timeout * unit_s).unwrap_or(Duration::MAX);
        let until = timeout.saturating_add(self.local.shared.target.hold_timeout);
        let left = until.saturating_sub(blocking.since.elapsed());
        (!left.is_zero()).then_some(left)
    }

    pub(super) fn is_blocking_proven(&self, blocking: Blocking) -> bool {
        match blocking.progress {
            Progress::Sent { at } => self.local.is_proven(at),
            Progress::Routed | Progress::GivenUp => false,
        }
    }

    pub(super) fn goes_on_waiting(&self, blocking: Blocking) -> RetryReason {
        RetryReason::Waiting {
            since: blocking.since,
            lost: Loss {
                at: Instant::now(),
                generation: self.local.generation(),
            },
        }
    }
}

/// WAIT and WAITAOF are about the writes that were sent on that very connection.
pub(super) fn asks_for_replicas(request: &[u8]) -> bool {
    matches!(command_name(request).as_str(), "WAIT" | "WAITAOF")
}

/// Where the timeout of a blocking command stands, the unit of it in seconds, and its value; nothing where it cannot be told.
fn timeout_of(request: &Request<'_>) -> Option<(usize, f64, f64)> {
    let name = command::lookup(request)?.id;
    let (at, unit_s) = match name {
        Name::Blpop | Name::Brpop | Name::Blmove | Name::Brpoplpush | Name::Bzpopmin | Name::Bzpopmax => {
            (request.len() - 1, 1.0)
        }
        Name::Blmpop | Name::Bzmpop => (1, 1.0),
        Name::Xread | Name::Xreadgroup => match blocks(request) {
            Blocks::For(at) => (at, 0.001),
            Blocks::No | Blocks::Perhaps => return None,
        },
        Name::Wait | Name::Waitaof => (request.len() - 1, 0.001),
        _ => return None,
    };
    let timeout: f64 = std::str::from_utf8(request.get(at)?).ok()?.parse().ok()?;
    Some((at, unit_s, timeout))
}

/// The request with its timeout less what it has waited; nothing where it waits for ever, or its timeout cannot be told.
pub(super) fn shortened(request: &Request<'_>, waited: Duration) -> Option<OwnedRequest> {
    let (at, unit_s, timeout) = timeout_of(request)?;
    if timeout <= 0.0 {
        return None;
    }
    // Zero would mean for ever.
    let left_ms = (timeout * unit_s - waited.as_secs_f64()).max(0.001) * 1000.0;
    let left = if unit_s < 1.0 {
        format!("{left_ms:.0}")
    } else {
        format!("{:.3}", left_ms / 1000.0)
    };
    let mut args: Vec<&[u8]> = request.args_from(0).collect();
    *args.get_mut(at)? = left.as_bytes();
    Some(OwnedRequest::new(&args))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, waited_ms: u64, expected: Option<&str>) {
        let args: Vec<&str> = command.split(' ').collect();
        let request = OwnedRequest::new(&args);
        let shorter = shortened(&request.as_request(), Duration::from_millis(waited_ms));
        let shorter = shorter.map(|request| {
            let args: Vec<String> = request
                .as_request()
                .args_from(0)
                .map(|arg| String::from_utf8_lossy(arg).into_owned())
                .collect();
            args.join(" ")
        });
        assert_eq!(shorter.as_deref(), expected, "{command}");
    }

    #[test]
    fn what_is_left_of_a_timeout_goes_upstream() {
        check("BLPOP a b 5", 1500, Some("BLPOP a b 3.500"));
        check("BLPOP a 1", 5000, Some("BLPOP a 0.001"));
        check("BLPOP a 0", 5000, None);
        check("BLMPOP 2.5 1 a LEFT", 500, Some("BLMPOP 2.000 1 a LEFT"));
        check(
            "XREAD COUNT 1 BLOCK 3000 STREAMS s $",
            1000,
            Some("XREAD COUNT 1 BLOCK 2000 STREAMS s $"),
        );
        check(
            "XREADGROUP GROUP block 12000 BLOCK 3000 STREAMS s >",
            1000,
            Some("XREADGROUP GROUP block 12000 BLOCK 2000 STREAMS s >"),
        );
        check("XREADGROUP GROUP block 12000 BLOCK 0 STREAMS s >", 1000, None);
        check("XREAD BLOCK", 1000, None);
        check("GET a", 1000, None);
        check("BLPOP a x", 1000, None);
    }
}
