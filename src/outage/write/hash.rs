//! Hash writes.

use super::expiry::{Expiry, ExpiryOption, TimeUnit, after_ms};
use super::members::distinct;
use super::parse::integer;
use super::refusal::ArgumentError;
use super::{Acknowledgement, Outcome, Verdict, WriteContext, verbatim, verbatim_ok};
use crate::command::Spec;
use crate::outage::effect::{Effect, EffectKind, Rewrite};
use crate::resp::Request;

/// `HSET key field value [field value …]`
pub(super) fn hset<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    even(request)?;
    let fields = distinct(request.args_from(2).step_by(2));
    verbatim(EffectKind::Absolute, request, fields)
}

/// `HMSET key field value [field value …]`
pub(super) fn hmset<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    even(request)?;
    verbatim_ok(EffectKind::Absolute, request)
}

fn even(request: &Request<'_>) -> Result<(), ArgumentError<'static>> {
    if request.len().is_multiple_of(2) {
        Ok(())
    } else {
        Err(ArgumentError::Arity)
    }
}

/// `HEXPIRE key seconds [NX|XX|GT|LT] FIELDS n field […]` (Redis 7.4, Valkey 9): becomes HPEXPIREAT. A time that is
/// not positive is refused by us (it deletes or fails, as the server's version has it), and so is what is malformed.
pub(super) fn hexpire<'a>(_: &'static Spec, request: &Request<'a>, ctx: &mut WriteContext<'_>) -> Outcome<'a> {
    let after_ms = after_ms(request.arg(2), TimeUnit::Seconds, ctx.wall_ms)?;
    let (kind, fields_at) = match request.arg(3).to_ascii_uppercase().as_slice() {
        b"NX" | b"XX" => (EffectKind::Relative, 4),
        b"GT" | b"LT" => (EffectKind::Absolute, 4),
        _ => (EffectKind::Absolute, 3),
    };
    let Some(fields) = counted_fields(request, fields_at, 1).filter(|_| after_ms > 0) else {
        return Ok(Verdict::Never);
    };
    let effect = Rewrite::new(request.len(), request.frame().len() + 24)
        .args([b"HPEXPIREAT".as_slice(), request.arg(1)].into_iter())
        .deadline(after_ms)
        .args(request.args_from(3))
        .finish(kind);
    Ok(Verdict::Journal(effect, Acknowledgement::Ones(fields)))
}

/// `HSETEX key [FNX|FXX] [EX|PX|EXAT|PXAT time] FIELDS n field value […]` (Redis 8, Valkey 9): FNX and FXX decide,
/// KEEPTTL depends on what is there, what is malformed is refused by us.
pub(super) fn hsetex<'a>(_: &'static Spec, request: &Request<'a>, ctx: &mut WriteContext<'_>) -> Outcome<'a> {
    let is_conditional = [b"FNX".as_slice(), b"FXX"]
        .iter()
        .any(|word| request.arg(2).eq_ignore_ascii_case(word));
    let expiry_at = if is_conditional { 3 } else { 2 };
    let option = ExpiryOption::parse(request.arg(expiry_at));
    let fields_at = if option.is_some() { expiry_at + 2 } else { expiry_at };
    if counted_fields(request, fields_at, 2).is_none() {
        return Ok(Verdict::Never);
    }
    let kind = if is_conditional {
        EffectKind::Relative
    } else {
        EffectKind::Absolute
    };
    let expiry = option
        .map(|option| option.expiry(request.arg(expiry_at + 1), ctx.wall_ms))
        .transpose()?;
    let effect = match expiry {
        None | Some(Expiry::At) => Effect::verbatim(kind, request),
        Some(Expiry::After(after_ms)) => Rewrite::new(request.len(), request.frame().len() + 16)
            .args(request.args_from(0).take(expiry_at))
            .arg(b"PXAT")
            .deadline(after_ms)
            .args(request.args_from(fields_at))
            .finish(kind),
    };
    Ok(if is_conditional {
        Verdict::Decides(effect)
    } else {
        Verdict::Journal(effect, Acknowledgement::Integer(1))
    })
}

/// `FIELDS n …` at `at`, with exactly n groups of `group` arguments to the end.
fn counted_fields(request: &Request<'_>, at: usize, group: usize) -> Option<usize> {
    if !request.arg(at).eq_ignore_ascii_case(b"FIELDS") {
        return None;
    }
    let fields = usize::try_from(integer(request.arg(at + 1))?).ok()?;
    let rest = request.len().checked_sub(at + 2)?;
    (fields > 0 && fields.checked_mul(group)? == rest).then_some(fields)
}
