//! Stream writes. `XADD *` is replayed as `*`: the ID that the client gets is provisional, unless a rule says that it is accepted.

use super::members::distinct;
use super::parse::{IdArgument, StreamId, id_argument, integer, stream_id};
use super::refusal::ArgumentError;
use super::{Acknowledgement, Outcome, Verdict, WriteContext, verbatim, verbatim_ok};
use crate::command::Spec;
use crate::outage::effect::{Effect, EffectKind, Rewrite};
use crate::resp::Request;

/// Who asks for trimming: XADD has an ID behind the options, XTRIM nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Xadd,
    Xtrim,
}

#[derive(Default)]
struct Trimming {
    has_strategy: bool,
    is_approximate: bool,
    limit: Option<i64>,
    makes_no_stream: bool,
}

/// `XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] n [LIMIT n]] *|id field value […]`
pub(super) fn xadd<'a>(_: &'static Spec, request: &Request<'a>, ctx: &mut WriteContext<'_>) -> Outcome<'a> {
    let (trimming, id_at) = Trimming::parse(request, Caller::Xadd)?;
    let id = match request.get(id_at) {
        None | Some(b"*") => None,
        Some(text) => Some(id_argument(text).ok_or(ArgumentError::StreamId)?),
    };
    trimming.check(Caller::Xadd)?;
    let pairs = request.len().saturating_sub(id_at + 1);
    if pairs == 0 || !pairs.is_multiple_of(2) {
        return Err(ArgumentError::Arity);
    }
    if id == Some(IdArgument::Explicit(StreamId::MIN)) {
        return Err(ArgumentError::Text(
            "ERR The ID specified in XADD must be greater than 0-0",
        ));
    }
    let kind = match id {
        Some(IdArgument::Explicit(_)) => EffectKind::Absolute,
        Some(IdArgument::AutoSequence(_)) | None => EffectKind::Relative,
    };
    let effect = Effect::verbatim(kind, request);
    if trimming.makes_no_stream {
        return Ok(Verdict::Decides(effect));
    }
    let key = request.arg(1);
    let id = match (id, &mut ctx.accepted_ids) {
        (None, None) => ctx.stream_ids.issue(key, ctx.wall_ms),
        (Some(IdArgument::AutoSequence(ms)), None) => ctx.stream_ids.issue_in(key, ms),
        (Some(IdArgument::Explicit(id)), accepted_ids) => {
            ctx.stream_ids.saw(key, id);
            if let Some(accepted) = accepted_ids {
                accepted.stream_ids.saw(key, id);
            }
            id
        }
        (None, Some(accepted)) => {
            let id = accepted.stream_ids.accept(key, accepted.upstream_ms, ctx.stream_ids);
            return Ok(with_id(request, id_at, id));
        }
        (Some(IdArgument::AutoSequence(ms)), Some(accepted)) => {
            let id = accepted.stream_ids.accept_in(key, ms, ctx.stream_ids);
            return Ok(with_id(request, id_at, id));
        }
    };
    Ok(Verdict::Journal(effect, Acknowledgement::Id(id)))
}

/// The ID that is returned is the one that is replayed: a second time it is refused.
fn with_id<'a>(request: &Request<'a>, id_at: usize, id: StreamId) -> Verdict<'a> {
    let effect = Rewrite::new(request.len(), request.frame().len() + 40)
        .args(request.args_from(0).take(id_at))
        .arg(format!("{}-{}", id.ms, id.seq).as_bytes())
        .args(request.args_from(id_at + 1))
        .finish(EffectKind::Absolute);
    Verdict::Journal(effect, Acknowledgement::Id(id))
}

/// `XTRIM key MAXLEN|MINID [=|~] n [LIMIT n]`: how many go cannot be known, 0 is answered.
pub(super) fn xtrim<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    let (trimming, _) = Trimming::parse(request, Caller::Xtrim)?;
    trimming.check(Caller::Xtrim)?;
    verbatim(EffectKind::Absolute, request, 0)
}

impl Trimming {
    /// As `streamParseAddOrTrimArgsOrReply`; returns where the options end, for XADD the ID's place.
    fn parse<'a>(request: &Request<'a>, caller: Caller) -> Result<(Self, usize), ArgumentError<'a>> {
        let mut trimming = Self::default();
        let mut at = 2;
        while let Some(word) = request.get(at) {
            let more = request.len() - 1 - at;
            let upper = word.to_ascii_uppercase();
            match (caller, upper.as_slice()) {
                (Caller::Xadd, b"*") => break,
                (_, b"MAXLEN" | b"MINID") if more > 0 => at = trimming.strategy(request, at, &upper)?,
                (_, b"LIMIT") if more > 0 => {
                    at += 1;
                    let limit = integer(request.arg(at)).ok_or(ArgumentError::NotInteger)?;
                    if limit < 0 {
                        return Err(ArgumentError::Text("ERR The LIMIT argument must be >= 0."));
                    }
                    trimming.limit = Some(limit);
                }
                (Caller::Xadd, b"NOMKSTREAM") => trimming.makes_no_stream = true,
                (Caller::Xadd, _) => break,
                (Caller::Xtrim, _) => return Err(ArgumentError::Syntax),
            }
            at += 1;
        }
        Ok((trimming, at))
    }

    /// `MAXLEN|MINID [=|~] value` at `at`; returns the value's place.
    fn strategy<'a>(&mut self, request: &Request<'a>, at: usize, word: &[u8]) -> Result<usize, ArgumentError<'a>> {
        if self.has_strategy {
            return Err(ArgumentError::Text(
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        let sign = request.arg(at + 1);
        let has_sign = matches!(sign, b"~" | b"=") && at + 2 < request.len();
        self.has_strategy = true;
        self.is_approximate = has_sign && sign == b"~";
        let value_at = if has_sign { at + 2 } else { at + 1 };
        let value = request.arg(value_at);
        if word == b"MINID" {
            stream_id(value).ok_or(ArgumentError::StreamId)?;
        } else if integer(value).ok_or(ArgumentError::NotInteger)? < 0 {
            return Err(ArgumentError::Text("ERR The MAXLEN argument must be >= 0."));
        }
        Ok(value_at)
    }

    fn check(&self, caller: Caller) -> Result<(), ArgumentError<'static>> {
        if !self.has_strategy {
            if self.limit.is_some_and(|limit| limit != 0) {
                return Err(ArgumentError::Text(
                    "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
                ));
            }
            if caller == Caller::Xtrim {
                return Err(ArgumentError::Text(
                    "ERR syntax error, XTRIM must be called with a trimming strategy",
                ));
            }
        }
        if self.limit.is_some() && !self.is_approximate {
            return Err(ArgumentError::Text(
                "ERR syntax error, LIMIT cannot be used without the special ~ option",
            ));
        }
        Ok(())
    }
}

/// `XACK key group id […]`
pub(super) fn xack<'a>(_: &'static Spec, request: &Request<'a>, ctx: &mut WriteContext<'_>) -> Outcome<'a> {
    by_id(request, 3, ctx)
}

/// `XDEL key id […]`
pub(super) fn xdel<'a>(_: &'static Spec, request: &Request<'a>, ctx: &mut WriteContext<'_>) -> Outcome<'a> {
    by_id(request, 2, ctx)
}

/// An ID that was given provisionally will be another one at the upstream: what names it cannot be kept.
fn by_id<'a>(request: &Request<'a>, first: usize, ctx: &WriteContext<'_>) -> Outcome<'a> {
    let ids = request
        .args_from(first)
        .map(|text| stream_id(text).ok_or(ArgumentError::StreamId))
        .collect::<Result<Vec<_>, _>>()?;
    let key = request.arg(1);
    if ids.iter().any(|id| ctx.stream_ids.is_provisional(key, *id)) {
        return Ok(Verdict::Never);
    }
    verbatim(EffectKind::Absolute, request, distinct(ids.iter()))
}

/// `XGROUP CREATE key group id|$ [MKSTREAM] [ENTRIESREAD n]`: `$` is the end at the time of the call, which nobody
/// knows while down.
pub(super) fn xgroup_create<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    let mut at = 5;
    while let Some(word) = request.get(at) {
        if word.eq_ignore_ascii_case(b"MKSTREAM") {
            at += 1;
        } else if word.eq_ignore_ascii_case(b"ENTRIESREAD") && at + 1 < request.len() {
            let entries = integer(request.arg(at + 1)).ok_or(ArgumentError::NotInteger)?;
            if entries < -1 {
                return Err(ArgumentError::Text("ERR value for ENTRIESREAD must be positive or -1"));
            }
            at += 2;
        } else {
            return Err(ArgumentError::Subcommand(request.arg(1)));
        }
    }
    if request.arg(4) == b"$" {
        return Ok(Verdict::Never);
    }
    stream_id(request.arg(4)).ok_or(ArgumentError::StreamId)?;
    verbatim_ok(EffectKind::Relative, request)
}

/// `XGROUP CREATECONSUMER key group consumer`
pub(super) fn xgroup_createconsumer<'a>(
    _: &'static Spec,
    request: &Request<'a>,
    _: &mut WriteContext<'_>,
) -> Outcome<'a> {
    verbatim(EffectKind::Absolute, request, 1)
}
