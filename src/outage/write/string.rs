//! SET and its relatives, and the HyperLogLog writes.

use super::expiry::{Expiry, ExpiryOption};
use super::parse::integer;
use super::refusal::ArgumentError;
use super::{Acknowledgement, Outcome, Verdict, WriteContext, verbatim, verbatim_ok};
use crate::command::{Name, Spec};
use crate::outage::effect::{Effect, EffectKind, Rewrite};
use crate::resp::Request;

/// `SET key value [EX|PX|EXAT|PXAT time]`; with NX, XX, GET, KEEPTTL or IFEQ the reply or the old TTL decides.
pub(super) fn set<'a>(_: &'static Spec, request: &Request<'a>, ctx: &mut WriteContext<'_>) -> Outcome<'a> {
    if request.len() == 3 {
        return verbatim_ok(EffectKind::Absolute, request);
    }
    let options = Options::parse(request)?;
    let expiry = options
        .expiry
        .map(|(option, value)| option.expiry(value, ctx.wall_ms))
        .transpose()?;
    let kind = if options.conditions.is_empty() {
        EffectKind::Absolute
    } else {
        EffectKind::Relative
    };
    let effect = match expiry {
        None | Some(Expiry::At) => Effect::verbatim(kind, request),
        Some(Expiry::After(after_ms)) => {
            let name_key_value = [b"SET".as_slice(), request.arg(1), request.arg(2)];
            Rewrite::new(5 + options.conditions.len(), request.frame().len() + 16)
                .args(name_key_value.into_iter())
                .args(options.conditions.iter().copied())
                .arg(b"PXAT")
                .deadline(after_ms)
                .finish(kind)
        }
    };
    if options.keeps_ttl {
        return Ok(Verdict::Never);
    }
    if kind == EffectKind::Relative {
        return Ok(Verdict::Decides(effect));
    }
    Ok(Verdict::Journal(effect, Acknowledgement::Ok))
}

#[derive(Default)]
struct Options<'a> {
    expiry: Option<(ExpiryOption, &'a [u8])>,
    /// Everything but the expiry, as sent.
    conditions: Vec<&'a [u8]>,
    keeps_ttl: bool,
}

impl<'a> Options<'a> {
    /// In Redis's order, with its conflicts (`parseExtendedStringArgumentsOrReply`): the same expiry option may come twice.
    fn parse(request: &Request<'a>) -> Result<Self, ArgumentError<'a>> {
        let mut options = Self::default();
        let mut condition: Option<&[u8]> = None;
        let mut at = 3;
        while let Some(word) = request.get(at) {
            let upper = word.to_ascii_uppercase();
            match upper.as_slice() {
                b"NX" | b"XX" => {
                    if condition.is_some_and(|other| !other.eq_ignore_ascii_case(word)) {
                        return Err(ArgumentError::Syntax);
                    }
                    condition = Some(word);
                    options.conditions.push(word);
                }
                b"GET" => options.conditions.push(word),
                b"KEEPTTL" if options.expiry.is_none() => {
                    options.keeps_ttl = true;
                    options.conditions.push(word);
                }
                b"IFEQ" | b"IFNE" | b"IFDEQ" | b"IFDNE" => {
                    at += 1;
                    let value = request.get(at).ok_or(ArgumentError::Syntax)?;
                    options.conditions.extend([word, value]);
                }
                _ => {
                    at += 1;
                    options.expire(&upper, request.get(at))?;
                }
            }
            at += 1;
        }
        Ok(options)
    }

    fn expire(&mut self, word: &[u8], value: Option<&'a [u8]>) -> Result<(), ArgumentError<'a>> {
        let (Some(option), Some(value)) = (ExpiryOption::parse(word), value) else {
            return Err(ArgumentError::Syntax);
        };
        if self.keeps_ttl || self.expiry.is_some_and(|(other, _)| other != option) {
            return Err(ArgumentError::Syntax);
        }
        self.expiry = Some((option, value));
        Ok(())
    }
}

/// `SETEX key seconds value`, `PSETEX key milliseconds value`
pub(super) fn setex<'a>(spec: &'static Spec, request: &Request<'a>, ctx: &mut WriteContext<'_>) -> Outcome<'a> {
    let option = match spec.id {
        Name::Psetex => ExpiryOption::Px,
        _ => ExpiryOption::Ex,
    };
    let Expiry::After(after_ms) = option.expiry(request.arg(2), ctx.wall_ms)? else {
        return Ok(Verdict::Never);
    };
    let effect = Rewrite::new(5, request.frame().len() + 16)
        .args([b"SET".as_slice(), request.arg(1), request.arg(3), b"PXAT"].into_iter())
        .deadline(after_ms)
        .finish(EffectKind::Absolute);
    Ok(Verdict::Journal(effect, Acknowledgement::Ok))
}

/// `MSET key value [key value …]`
pub(super) fn mset<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    if request.len().is_multiple_of(2) {
        return Err(ArgumentError::Arity);
    }
    verbatim_ok(EffectKind::Absolute, request)
}

/// `MSETEX numkeys key value […] [EX|PX|EXAT|PXAT time]` (Redis 8.4). NX and XX decide; what is malformed is refused by
/// us, since the servers' texts differ.
pub(super) fn msetex<'a>(_: &'static Spec, request: &Request<'a>, ctx: &mut WriteContext<'_>) -> Outcome<'a> {
    let pairs_end = integer(request.arg(1))
        .and_then(|pairs| usize::try_from(pairs).ok())
        .filter(|pairs| *pairs > 0)
        .and_then(|pairs| pairs.checked_mul(2)?.checked_add(2))
        .filter(|end| *end <= request.len());
    let Some(pairs_end) = pairs_end else {
        return Ok(Verdict::Never);
    };
    let expiry = match request.len() - pairs_end {
        0 => return verbatim(EffectKind::Absolute, request, 1),
        2 => ExpiryOption::parse(request.arg(pairs_end)),
        _ => None,
    };
    let Some(option) = expiry else {
        return Ok(Verdict::Never);
    };
    match option.expiry(request.arg(pairs_end + 1), ctx.wall_ms)? {
        Expiry::At => verbatim(EffectKind::Absolute, request, 1),
        Expiry::After(after_ms) => {
            let effect = Rewrite::new(request.len(), request.frame().len() + 16)
                .args(request.args_from(0).take(pairs_end))
                .arg(b"PXAT")
                .deadline(after_ms)
                .finish(EffectKind::Absolute);
            Ok(Verdict::Journal(effect, Acknowledgement::Integer(1)))
        }
    }
}

/// `PFADD key [element …]`
pub(super) fn pfadd<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    verbatim(EffectKind::Absolute, request, 1)
}

/// `PFMERGE dest [source …]`: reads its sources when it is replayed.
pub(super) fn pfmerge<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    verbatim_ok(EffectKind::Relative, request)
}
