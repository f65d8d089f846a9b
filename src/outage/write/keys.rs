//! Writes on whole keys: DEL, the EXPIRE family, PERSIST, RESTORE.

use super::expiry::{TimeUnit, after_ms};
use super::members::distinct;
use super::parse::integer;
use super::refusal::ArgumentError;
use super::{Acknowledgement, Outcome, Verdict, WriteContext, verbatim};
use crate::command::{Name, Spec};
use crate::outage::effect::{Effect, EffectKind, Rewrite};
use crate::resp::Request;

/// `DEL|UNLINK key [key …]`
pub(super) fn del<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    verbatim(EffectKind::Absolute, request, distinct(request.args_from(1)))
}

/// `DELIFEQ key value` (Valkey 9): releases a lock, and is as safe later.
pub(super) fn delifeq<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    verbatim(EffectKind::Relative, request, 1)
}

/// `PERSIST key`
pub(super) fn persist<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    verbatim(EffectKind::Absolute, request, 1)
}

/// `EXPIRE|PEXPIRE|EXPIREAT|PEXPIREAT key time [NX|XX|GT|LT …]`: relative times become PEXPIREAT, also those that are
/// over from the start, since a past PEXPIREAT deletes under the same condition.
pub(super) fn expire<'a>(spec: &'static Spec, request: &Request<'a>, ctx: &mut WriteContext<'_>) -> Outcome<'a> {
    let kind = expire_condition(request.args_from(3))?;
    let unit = match spec.id {
        Name::Expire | Name::Expireat => TimeUnit::Seconds,
        _ => TimeUnit::Milliseconds,
    };
    let is_absolute = matches!(spec.id, Name::Expireat | Name::Pexpireat);
    let base_ms = if is_absolute { 0 } else { ctx.wall_ms };
    let after_ms = after_ms(request.arg(2), unit, base_ms)?;
    if is_absolute {
        return verbatim(kind, request, 1);
    }
    let effect = Rewrite::new(request.len(), request.frame().len() + 16)
        .arg(b"PEXPIREAT")
        .arg(request.arg(1))
        .deadline(after_ms)
        .args(request.args_from(3))
        .finish(kind);
    Ok(Verdict::Journal(effect, Acknowledgement::Integer(1)))
}

/// GT and LT move a deadline one way only, so doing it again changes nothing; NX and XX look at what is there.
fn expire_condition<'a>(options: impl Iterator<Item = &'a [u8]>) -> Result<EffectKind, ArgumentError<'a>> {
    let [mut nx, mut xx, mut gt, mut lt] = [false; 4];
    for option in options {
        match option.to_ascii_uppercase().as_slice() {
            b"NX" => nx = true,
            b"XX" => xx = true,
            b"GT" => gt = true,
            b"LT" => lt = true,
            _ => return Err(ArgumentError::UnsupportedOption(option)),
        }
    }
    if nx && (xx || gt || lt) {
        return Err(ArgumentError::Text(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if gt && lt {
        return Err(ArgumentError::Text(
            "ERR GT and LT options at the same time are not compatible",
        ));
    }
    Ok(if nx || xx {
        EffectKind::Relative
    } else {
        EffectKind::Absolute
    })
}

/// `RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME s] [FREQ f]`: without REPLACE the key's absence decides. The
/// payload's checksum and version are the upstream's to judge.
pub(super) fn restore<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    let options = RestoreOptions::parse(request)?;
    let ttl_ms = integer(request.arg(2)).ok_or(ArgumentError::NotInteger)?;
    if ttl_ms < 0 {
        return Err(ArgumentError::Text("ERR Invalid TTL value, must be >= 0"));
    }
    let kind = if options.replaces {
        EffectKind::Absolute
    } else {
        EffectKind::Relative
    };
    let effect = if ttl_ms == 0 || options.is_absolute {
        Effect::verbatim(kind, request)
    } else {
        Rewrite::new(request.len() + 1, request.frame().len() + 32)
            .args([b"RESTORE".as_slice(), request.arg(1)].into_iter())
            .deadline(ttl_ms)
            .args(request.args_from(3))
            .arg(b"ABSTTL")
            .finish(kind)
    };
    Ok(match kind {
        EffectKind::Absolute => Verdict::Journal(effect, Acknowledgement::Ok),
        EffectKind::Relative => Verdict::Decides(effect),
    })
}

#[derive(Default)]
struct RestoreOptions {
    replaces: bool,
    is_absolute: bool,
}

impl RestoreOptions {
    fn parse<'a>(request: &Request<'a>) -> Result<Self, ArgumentError<'a>> {
        let mut options = Self::default();
        let mut eviction: Option<Vec<u8>> = None;
        let mut at = 4;
        while let Some(word) = request.get(at) {
            let upper = word.to_ascii_uppercase();
            match upper.as_slice() {
                b"REPLACE" => options.replaces = true,
                b"ABSTTL" => options.is_absolute = true,
                b"IDLETIME" | b"FREQ" if eviction.as_ref().is_none_or(|other| *other == upper) => {
                    at += 1;
                    let value = request.get(at).ok_or(ArgumentError::Syntax)?;
                    let value = integer(value).ok_or(ArgumentError::NotInteger)?;
                    match (upper.as_slice(), value) {
                        (b"IDLETIME", ..0) => {
                            return Err(ArgumentError::Text("ERR Invalid IDLETIME value, must be >= 0"));
                        }
                        (b"FREQ", ..0 | 256..) => {
                            return Err(ArgumentError::Text("ERR Invalid FREQ value, must be >= 0 and <= 255"));
                        }
                        _ => eviction = Some(upper),
                    }
                }
                _ => return Err(ArgumentError::Syntax),
            }
            at += 1;
        }
        Ok(options)
    }
}
