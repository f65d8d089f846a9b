//! What a write becomes while the upstream is down: journaled, refused as Redis would, or refused by us.
//!
//! The defaults follow one question: does the reply decide something? A blind write is journaled and acknowledged with
//! what Redis answers when every argument takes effect once; a write whose reply is acted upon (INCR, SET NX, GETDEL)
//! needs a rule that gives the reply; pops and claims are never journaled.

mod class;
mod expiry;
mod fit;
mod guard;
mod hash;
mod keys;
mod list;
mod members;
pub(super) mod parse;
mod refusal;
mod stream;
mod stream_ids;
mod string;
mod zset;

pub use fit::{Fit, fit};
pub use guard::{Guarded, guarded};
pub use parse::StreamId;
pub use stream_ids::StreamIds;

use self::class::{Class, class};
use self::refusal::ArgumentError;
use super::effect::{Effect, EffectKind};
use super::rules::Reply;
use crate::command::{Name, Spec};
use crate::resp::{Protocol, Request, write as reply};

/// What a write needs to know of its session.
#[derive(Debug)]
pub struct WriteContext<'a> {
    pub protocol: Protocol,
    pub upstream_name: &'a str,
    /// Our wall clock, milliseconds since 1970.
    pub wall_ms: u64,
    pub stream_ids: &'a mut StreamIds,
    /// Where a rule says that the ID returned is the ID replayed.
    pub accepted_ids: Option<AcceptedIds<'a>>,
}

/// What the sessions of an upstream have in common when they give IDs that are final.
#[derive(Debug)]
pub struct AcceptedIds<'a> {
    pub stream_ids: &'a mut StreamIds,
    /// The upstream's wall clock, milliseconds since 1970, for IDs that stand behind those it gave itself.
    pub upstream_ms: u64,
}

/// What is done with a write; the reply stands in the caller's buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Write<'a> {
    /// Journal this, then send the acknowledgement that stands in `out`.
    Journal(Effect<'a>),
    /// Redis's own error for the arguments stands in `out`; nothing is journaled.
    Error,
    /// `-UNAVAILABLE` stands in `out`; nothing is journaled.
    Refused,
}

/// What a handler finds out about its command.
#[derive(Debug)]
enum Verdict<'a> {
    Journal(Effect<'a>, Acknowledgement),
    /// The reply decides something: journaled only when a rule gives the reply.
    Decides(Effect<'a>),
    /// No rule can make this safe.
    Never,
}

type Outcome<'a> = Result<Verdict<'a>, ArgumentError<'a>>;

/// What Redis answers when every argument takes effect once. The same bytes in RESP2 and RESP3.
#[derive(Debug)]
enum Acknowledgement {
    Ok,
    Integer(i64),
    Id(StreamId),
    /// One `:1` per field.
    Ones(usize),
}

impl Acknowledgement {
    fn reply(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ok => out.extend_from_slice(b"+OK\r\n"),
            Self::Integer(n) => reply::integer(out, *n),
            Self::Id(id) => reply::bulk(out, format!("{}-{}", id.ms, id.seq).as_bytes()),
            Self::Ones(n) => {
                reply::array(out, *n);
                for _ in 0..*n {
                    reply::integer(out, 1);
                }
            }
        }
    }
}

/// Decides by the built-in table. Exactly one reply is appended to `out`.
pub fn write<'a>(
    spec: &'static Spec,
    request: &Request<'a>,
    ctx: &mut WriteContext<'_>,
    out: &mut Vec<u8>,
) -> Write<'a> {
    write_with(spec, request, None, ctx, out)
}

/// Decides by a rule that says `when_down = "queue"`: its reply, where it has one, replaces the table's and makes
/// writes journalable whose own reply decides something. Arguments are checked and times made absolute as without it;
/// what must never be journaled (pops, claims, administration, reads) stays refused.
pub fn write_with<'a>(
    spec: &'static Spec,
    request: &Request<'a>,
    rule_reply: Option<&Reply>,
    ctx: &mut WriteContext<'_>,
    out: &mut Vec<u8>,
) -> Write<'a> {
    match (judge(spec, request, ctx), rule_reply) {
        (Ok(Verdict::Journal(effect, acknowledgement)), None) => {
            acknowledgement.reply(out);
            Write::Journal(effect)
        }
        (Ok(Verdict::Journal(effect, _) | Verdict::Decides(effect)), Some(reply)) => {
            reply.write(ctx.protocol, out);
            Write::Journal(effect)
        }
        (Ok(Verdict::Decides(_)), None) | (Ok(Verdict::Never), _) => {
            refusal::unavailable(spec, ctx.upstream_name, out);
            Write::Refused
        }
        (Err(error), _) => {
            error.reply(spec, out);
            Write::Error
        }
    }
}

fn judge<'a>(spec: &'static Spec, request: &Request<'a>, ctx: &mut WriteContext<'_>) -> Outcome<'a> {
    if !arity_fits(spec, request.len()) {
        return Err(ArgumentError::Arity);
    }
    match class(spec.id) {
        Class::Blind(handler) => handler(spec, request, ctx),
        Class::Decides(kind) => Ok(Verdict::Decides(Effect::verbatim(kind, request))),
        Class::Never => Ok(Verdict::Never),
    }
}

/// What a rule that says `when_down = "queue"` needs for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queueing {
    /// Nothing: the table has a reply, for the plain form at least.
    ByDefault,
    /// A reply of its own.
    WithReply,
    /// No rule makes it safe.
    Never,
}

#[must_use]
pub fn queueing(name: Name) -> Queueing {
    match class(name) {
        Class::Blind(_) => Queueing::ByDefault,
        Class::Decides(_) => Queueing::WithReply,
        Class::Never => Queueing::Never,
    }
}

fn arity_fits(spec: &Spec, args: usize) -> bool {
    let wanted = usize::from(spec.arity.unsigned_abs());
    if spec.arity < 0 { args >= wanted } else { args == wanted }
}

/// The request as it came, acknowledged with a number.
fn verbatim<'a>(kind: EffectKind, request: &Request<'a>, n: usize) -> Outcome<'a> {
    let n = i64::try_from(n).unwrap_or(i64::MAX);
    let effect = Effect::verbatim(kind, request);
    Ok(Verdict::Journal(effect, Acknowledgement::Integer(n)))
}

/// The request as it came, acknowledged with `+OK`.
fn verbatim_ok<'a>(kind: EffectKind, request: &Request<'a>) -> Outcome<'a> {
    Ok(Verdict::Journal(Effect::verbatim(kind, request), Acknowledgement::Ok))
}

#[cfg(test)]
mod tests;
