//! Sorted sets.

use super::lists::multi_pop;
use super::parse::{at_least, float, integer, is_lex_bound, is_score_bound};
use super::sets::limits;
use super::{Call, Fault, SYNTAX};
use crate::resp::write;

type Outcome = Result<(), Fault>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// Which options a range command takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Options {
    /// WITHSCORES and LIMIT.
    Common,
    /// Those, and BYSCORE, BYLEX, REV, each once.
    Choosing,
}

pub(in crate::outage) fn zcount(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    bounds(call, By::Score)?;
    write::integer(out, 0);
    Ok(())
}

pub(in crate::outage) fn zlexcount(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    bounds(call, By::Lex)?;
    write::integer(out, 0);
    Ok(())
}

pub(in crate::outage) fn zrange(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    range(call, By::Rank, Options::Choosing, out)
}

pub(in crate::outage) fn by_rank(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    range(call, By::Rank, Options::Common, out)
}

pub(in crate::outage) fn by_score(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    range(call, By::Score, Options::Common, out)
}

pub(in crate::outage) fn by_lex(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    range(call, By::Lex, Options::Common, out)
}

fn range(call: &Call<'_>, mut by: By, options: Options, out: &mut Vec<u8>) -> Outcome {
    let (mut with_scores, mut has_limit, mut is_reversed, mut is_chosen) = (false, false, false, false);
    let mut at = 4;
    while at < call.len() {
        let may_choose = options == Options::Choosing && !is_chosen;
        if call.is(at, "WITHSCORES") {
            with_scores = true;
        } else if call.is_with(at, "LIMIT", 2) {
            integer(call.arg(at + 1))?;
            has_limit = integer(call.arg(at + 2))? != -1;
            at += 2;
        } else if options == Options::Choosing && !is_reversed && call.is(at, "REV") {
            is_reversed = true;
        } else if may_choose && call.is(at, "BYLEX") {
            (by, is_chosen) = (By::Lex, true);
        } else if may_choose && call.is(at, "BYSCORE") {
            (by, is_chosen) = (By::Score, true);
        } else {
            return Err(SYNTAX);
        }
        at += 1;
    }
    if has_limit && by == By::Rank {
        return Err(Fault::redis(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ));
    }
    if with_scores && by == By::Lex {
        return Err(Fault::redis(
            "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
        ));
    }
    bounds(call, by)?;
    write::array(out, 0);
    Ok(())
}

fn bounds(call: &Call<'_>, by: By) -> Outcome {
    let (low, high) = (call.arg(2), call.arg(3));
    match by {
        By::Rank => integer(low).and(integer(high)).map(|_| ()),
        By::Score if is_score_bound(low) && is_score_bound(high) => Ok(()),
        By::Score => Err(Fault::redis("ERR min or max is not a float")),
        By::Lex if is_lex_bound(low) && is_lex_bound(high) => Ok(()),
        By::Lex => Err(Fault::redis("ERR min or max not valid string range item")),
    }
}

pub(in crate::outage) fn rank(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    match call.len() {
        3 => write::null(out, call.protocol),
        4 if call.is(3, "WITHSCORE") => write::null_array(out, call.protocol),
        _ => return Err(SYNTAX),
    }
    Ok(())
}

/// ZUNION and ZINTER.
pub(in crate::outage) fn combine(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    const WEIGHT: Fault = Fault::redis("ERR weight value is not a float");
    let keys_end = keys_end(call)?;
    let keys = keys_end - 2;
    let mut at = keys_end;
    while at < call.len() {
        if call.is_with(at, "WEIGHTS", keys) {
            for weight in call.request.args_from(at + 1).take(keys) {
                float(weight).ok_or(WEIGHT)?;
            }
            at += 1 + keys;
        } else if call.is_with(at, "AGGREGATE", 1) {
            if !["SUM", "MIN", "MAX"].iter().any(|word| call.is(at + 1, word)) {
                return Err(SYNTAX);
            }
            at += 2;
        } else if call.is(at, "WITHSCORES") {
            at += 1;
        } else {
            return Err(SYNTAX);
        }
    }
    write::array(out, 0);
    Ok(())
}

pub(in crate::outage) fn zdiff(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    if (keys_end(call)?..call.len()).any(|at| !call.is(at, "WITHSCORES")) {
        return Err(SYNTAX);
    }
    write::array(out, 0);
    Ok(())
}

pub(in crate::outage) fn zintercard(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    limits(call, keys_end(call)?)?;
    write::integer(out, 0);
    Ok(())
}

/// Where the options begin behind `numkeys key …`.
fn keys_end(call: &Call<'_>) -> Result<usize, Fault> {
    let keys = integer(call.arg(1))?;
    if keys < 1 {
        let text = format!(
            "ERR at least 1 input key is needed for '{}' command",
            call.name_in_errors()
        );
        return Err(Fault::Redis(text.into()));
    }
    usize::try_from(keys)
        .ok()
        .and_then(|keys| keys.checked_add(2))
        .filter(|end| *end <= call.len())
        .ok_or(SYNTAX)
}

pub(in crate::outage) fn pop(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    match call.len() {
        2 => {}
        3 => {
            at_least(call.arg(2), 0, "ERR value is out of range, must be positive")?;
        }
        _ => return Err(SYNTAX),
    }
    write::array(out, 0);
    Ok(())
}

pub(in crate::outage) fn mpop(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    multi_pop(call, 1, ["MIN", "MAX"])?;
    write::null_array(out, call.protocol);
    Ok(())
}
