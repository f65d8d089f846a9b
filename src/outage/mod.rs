//! What a client is told while the upstream is down. Pure: requests in, replies out.
//!
//! [`answer`] decides by the command's name, then by its arguments, what kind of answer a request gets, and writes the reply where it is one
//! that needs nobody else. A neutral reply is, byte for byte, what a Redis with an empty keyspace answers (checked against 7.0;
//! newer servers refuse some arguments that 7.0 takes, or in other words: `tests/neutral_live.rs` lists them, and 7.0's answer stands).
//! Deviations, on purpose, where an empty Redis would answer an error that makes consumers act: XPENDING, XINFO GROUPS and CONSUMERS,
//! XREADGROUP, XCLAIM, XAUTOCLAIM.

mod decide;
pub mod effect;
mod glob;
mod hold;
mod neutral;
pub mod payload;
mod refuse;
pub mod rules;
pub mod tainted;
pub mod write;

use std::time::Duration;

use crate::command::{InFlight, LearnedCommand, Spec, arity_ok};
use crate::resp::{self, Protocol, Request};

use decide::{Decision, decision};
use neutral::{Call, Fault};
pub use refuse::{not_applied, not_applied_unseen, not_executed};

/// What becomes of a request while the upstream is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reply stands in the output: a neutral one, or Redis's own error for bad arguments.
    Reply,
    /// A write of a kind that can be journaled, unless its arguments forbid it (SET NX): the write half decides. Nothing was written to the output.
    Write,
    /// The `-UNAVAILABLE` reply stands in the output.
    Refused,
    /// A blocking command: to be held for its own timeout (`None`: for ever), then answered with what stands in the output.
    Hold { timeout: Option<Duration> },
    /// The session itself answers: handshake, PING, transactions, pub/sub, CLIENT …, INFO, COMMAND, CONFIG GET, TIME. Nothing was written to the output.
    Session,
}

/// Decides what a request is answered while the upstream is down and appends the reply, if it is known here, to `out`.
///
/// `spec` is the request's row of the table, `None` for an unknown command. User rules come before this, not here. Inside a transaction nothing
/// blocks: there a `Hold` is a reply, and only BLMOVE and BRPOPLPUSH differ, which in RESP2 then answer a null string instead of a null array.
pub fn answer(
    spec: Option<&'static Spec>,
    request: &Request<'_>,
    protocol: Protocol,
    upstream_name: &str,
    out: &mut Vec<u8>,
) -> Answer {
    let Some(spec) = spec else {
        not_executed(out, &refuse::printable(request.arg(0)), upstream_name);
        return Answer::Refused;
    };
    if !arity_ok(spec, request) {
        neutral::wrong_arity(out, spec);
        return Answer::Reply;
    }
    let call = Call {
        spec,
        request: *request,
        protocol,
    };
    let start = out.len();
    let outcome = match decision(spec.id) {
        Decision::Session => return Answer::Session,
        Decision::Write => return Answer::Write,
        Decision::NotApplied => Err(Fault::NotApplied),
        Decision::NotExecuted => Err(Fault::NotExecuted),
        Decision::SessionIfBare if request.len() == 1 => return Answer::Session,
        Decision::SessionIfBare | Decision::UnknownSubcommand => Err(neutral::unknown_subcommand(&call)),
        Decision::Neutral(reply) => reply(&call, out).map(|()| Answer::Reply),
        Decision::Hold(hold) => hold(&call, out),
    };
    outcome.unwrap_or_else(|fault| {
        out.truncate(start);
        match fault {
            Fault::Redis(text) => {
                resp::write::error(out, &text);
                Answer::Reply
            }
            Fault::NotApplied => {
                not_applied(out, spec.name, upstream_name);
                Answer::Refused
            }
            Fault::NotExecuted => {
                not_executed(out, spec.name, upstream_name);
                Answer::Refused
            }
        }
    })
}

/// As [`answer`], for a command that the table does not have and the upstream has told of: nobody knows what it would answer or do, so nothing
/// is made up and nothing journaled.
pub fn answer_learned(
    command: &LearnedCommand,
    request: &Request<'_>,
    upstream_name: &str,
    out: &mut Vec<u8>,
) -> Answer {
    if !command.arity_ok(request) {
        neutral::wrong_arity_learned(out, &command.name);
        return Answer::Reply;
    }
    match command.in_flight {
        InFlight::Write => not_applied(out, &command.name, upstream_name),
        InFlight::Read => not_executed(out, &command.name, upstream_name),
    }
    Answer::Refused
}

#[cfg(test)]
mod tests;
