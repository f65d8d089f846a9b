//! Sorted-set writes, GEOADD among them.

use std::collections::HashMap;

use super::members::distinct;
use super::parse::{float, integer, is_lex_bound, is_score_bound};
use super::refusal::ArgumentError;
use super::{Outcome, Verdict, WriteContext, verbatim};
use crate::command::{Name, Spec};
use crate::outage::effect::{Effect, EffectKind};
use crate::resp::Request;

const LONGITUDE_MAX: f64 = 180.0;
const LATITUDE_MAX: f64 = 85.051_128_78;

#[derive(Clone, Copy, Default)]
struct Options {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    ch: bool,
    incr: bool,
}

impl Options {
    /// Sets the option that `word` names; false when it names none.
    fn take(&mut self, word: &[u8], known: &[&[u8]]) -> bool {
        let upper = word.to_ascii_uppercase();
        if !known.contains(&upper.as_slice()) {
            return false;
        }
        match upper.as_slice() {
            b"NX" => self.nx = true,
            b"XX" => self.xx = true,
            b"GT" => self.gt = true,
            b"LT" => self.lt = true,
            b"CH" => self.ch = true,
            _ => self.incr = true,
        }
        true
    }

    /// GT and LT move a score one way only, so doing it again changes nothing; NX and XX look at what is there.
    fn kind(self) -> EffectKind {
        if self.nx || self.xx {
            EffectKind::Relative
        } else {
            EffectKind::Absolute
        }
    }
}

/// `ZADD key [NX|XX] [GT|LT] [CH] [INCR] score member […]`
pub(super) fn zadd<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    let mut options = Options::default();
    let known: [&[u8]; 6] = [b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"];
    let mut at = 2;
    while request.get(at).is_some_and(|word| options.take(word, &known)) {
        at += 1;
    }
    let rest = request.len() - at;
    if rest == 0 || !rest.is_multiple_of(2) {
        return Err(ArgumentError::Syntax);
    }
    if options.nx && options.xx {
        return Err(ArgumentError::Text(
            "ERR XX and NX options at the same time are not compatible",
        ));
    }
    if (options.nx && (options.gt || options.lt)) || (options.gt && options.lt) {
        return Err(ArgumentError::Text(
            "ERR GT, LT, and/or NX options at the same time are not compatible",
        ));
    }
    if options.incr && rest > 2 {
        return Err(ArgumentError::Text(
            "ERR INCR option supports a single increment-element pair",
        ));
    }
    let scores = request.args_from(at).step_by(2);
    for score in scores.clone() {
        float(score).ok_or(ArgumentError::NotFloat)?;
    }
    if options.incr {
        return Ok(Verdict::Decides(Effect::verbatim(EffectKind::Relative, request)));
    }
    let members = request.args_from(at + 1).step_by(2);
    let count = match options {
        Options {
            xx: true, ch: false, ..
        } => 0,
        Options {
            xx: false, ch: true, ..
        } => changed(scores.zip(members), options),
        _ => distinct(members),
    };
    verbatim(options.kind(), request, count)
}

/// What CH counts when all members are new: each one, and every later change of its score within the command.
fn changed<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>, options: Options) -> usize {
    let mut known: HashMap<&[u8], f64> = HashMap::new();
    let mut count = 0;
    for (score, member) in pairs {
        let score = float(score).unwrap_or_default();
        let is_change = known.get(member).is_none_or(|before| {
            !options.nx && score != *before && (!options.gt || score > *before) && (!options.lt || score < *before)
        });
        if is_change {
            known.insert(member, score);
            count += 1;
        }
    }
    count
}

/// `GEOADD key [NX|XX] [CH] longitude latitude member […]`
pub(super) fn geoadd<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    let mut options = Options::default();
    let known: [&[u8]; 3] = [b"NX", b"XX", b"CH"];
    let mut at = 2;
    while request.get(at).is_some_and(|word| options.take(word, &known)) {
        at += 1;
    }
    let rest = request.len() - at;
    if rest == 0 || !rest.is_multiple_of(3) || (options.nx && options.xx) {
        return Err(ArgumentError::Syntax);
    }
    for position in (at..request.len()).step_by(3) {
        let longitude = float(request.arg(position)).ok_or(ArgumentError::NotFloat)?;
        let latitude = float(request.arg(position + 1)).ok_or(ArgumentError::NotFloat)?;
        if longitude.abs() > LONGITUDE_MAX || latitude.abs() > LATITUDE_MAX {
            return Err(ArgumentError::Position(longitude, latitude));
        }
    }
    let members = request.args_from(at + 2).step_by(3);
    let has_duplicates = distinct(members.clone()) < members.len();
    if options.ch && has_duplicates {
        // Whether a second position changes the first depends on its geohash.
        return Ok(Verdict::Decides(Effect::verbatim(options.kind(), request)));
    }
    let count = match options {
        Options {
            xx: true, ch: false, ..
        } => 0,
        _ => distinct(members),
    };
    verbatim(options.kind(), request, count)
}

/// `ZREMRANGEBYSCORE|ZREMRANGEBYLEX|ZREMRANGEBYRANK key min max`: how many go cannot be known, 0 is answered.
pub(super) fn zremrange<'a>(spec: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    let bounds = [request.arg(2), request.arg(3)];
    let (kind, error) = match spec.id {
        Name::Zremrangebyrank => {
            let are_ranks = bounds.iter().all(|bound| integer(bound).is_some());
            (EffectKind::Relative, (!are_ranks).then_some(ArgumentError::NotInteger))
        }
        Name::Zremrangebylex => {
            let text = ArgumentError::Text("ERR min or max not valid string range item");
            let are_lex = bounds.iter().all(|bound| is_lex_bound(bound));
            (EffectKind::Absolute, (!are_lex).then_some(text))
        }
        _ => {
            let text = ArgumentError::Text("ERR min or max is not a float");
            let are_scores = bounds.iter().all(|bound| is_score_bound(bound));
            (EffectKind::Absolute, (!are_scores).then_some(text))
        }
    };
    match error {
        Some(error) => Err(error),
        None => verbatim(kind, request, 0),
    }
}
