//! Lists.

use super::parse::{at_least, integer};
use super::{Call, Fault, SYNTAX, wrong_arity};
use crate::resp::write;

type Outcome = Result<(), Fault>;

pub(in crate::outage) fn lrange(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    integer(call.arg(2))?;
    integer(call.arg(3))?;
    write::array(out, 0);
    Ok(())
}

pub(in crate::outage) fn lpos(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    const RANK: Fault = Fault::redis(
        "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
    );
    let mut has_count = false;
    let mut at = 3;
    while at < call.len() {
        if call.is_with(at, "RANK", 1) {
            if integer(call.arg(at + 1))? == 0 {
                return Err(RANK);
            }
        } else if call.is_with(at, "COUNT", 1) {
            at_least(call.arg(at + 1), 0, "ERR COUNT can't be negative")?;
            has_count = true;
        } else if call.is_with(at, "MAXLEN", 1) {
            at_least(call.arg(at + 1), 0, "ERR MAXLEN can't be negative")?;
        } else {
            return Err(SYNTAX);
        }
        at += 2;
    }
    if has_count {
        write::array(out, 0);
    } else {
        write::null(out, call.protocol);
    }
    Ok(())
}

pub(in crate::outage) fn pop(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    match call.len() {
        2 => write::null(out, call.protocol),
        3 => {
            at_least(call.arg(2), 0, "ERR value is out of range, must be positive")?;
            write::null_array(out, call.protocol);
        }
        _ => wrong_arity(out, call.spec),
    }
    Ok(())
}

pub(in crate::outage) fn mpop(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    multi_pop(call, 1, ["LEFT", "RIGHT"])?;
    write::null_array(out, call.protocol);
    Ok(())
}

pub(in crate::outage) fn lmove(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    directions(call)?;
    write::null(out, call.protocol);
    Ok(())
}

/// LEFT or RIGHT as third and fourth argument.
pub(in crate::outage) fn directions(call: &Call<'_>) -> Outcome {
    let is_direction = |at| call.is(at, "LEFT") || call.is(at, "RIGHT");
    if is_direction(3) && is_direction(4) {
        Ok(())
    } else {
        Err(SYNTAX)
    }
}

/// `numkeys key … where [COUNT n]` of LMPOP, ZMPOP and their blocking forms, from the position of `numkeys` on.
pub(in crate::outage) fn multi_pop(call: &Call<'_>, count_at: usize, ends: [&str; 2]) -> Outcome {
    let keys = at_least(call.arg(count_at), 1, "ERR numkeys should be greater than 0")?;
    let where_at = usize::try_from(keys)
        .ok()
        .and_then(|keys| keys.checked_add(count_at + 1))
        .filter(|at| *at < call.len())
        .ok_or(SYNTAX)?;
    if !ends.iter().any(|end| call.is(where_at, end)) {
        return Err(SYNTAX);
    }
    let option_at = where_at + 1;
    if option_at == call.len() {
        return Ok(());
    }
    if !call.is_with(option_at, "COUNT", 1) {
        return Err(SYNTAX);
    }
    at_least(call.arg(option_at + 1), 1, "ERR count should be greater than 0")?;
    if option_at + 2 == call.len() {
        Ok(())
    } else {
        Err(SYNTAX)
    }
}
