//! Sets, and random members of all collections.

use super::parse::{at_least, signed_count};
use super::{Call, Fault, SYNTAX};
use crate::resp::write;

type Outcome = Result<(), Fault>;

pub(in crate::outage) fn random_member(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    match call.len() {
        2 => write::null(out, call.protocol),
        3 => {
            signed_count(call.arg(2))?;
            write::array(out, 0);
        }
        _ => return Err(SYNTAX),
    }
    Ok(())
}

pub(in crate::outage) fn random_field(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    random_pair(call, "WITHVALUES", out)
}

pub(in crate::outage) fn random_with_scores(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    random_pair(call, "WITHSCORES", out)
}

fn random_pair(call: &Call<'_>, with: &str, out: &mut Vec<u8>) -> Outcome {
    if call.len() == 2 {
        write::null(out, call.protocol);
        return Ok(());
    }
    let count = signed_count(call.arg(2))?;
    if call.len() > 4 || call.len() == 4 && !call.is(3, with) {
        return Err(SYNTAX);
    }
    // Twice as many elements are replied.
    if call.len() == 4 && !(-i64::MAX / 2..=i64::MAX / 2).contains(&count) {
        return Err(Fault::redis("ERR value is out of range"));
    }
    write::array(out, 0);
    Ok(())
}

pub(in crate::outage) fn spop(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    match call.len() {
        2 => write::null(out, call.protocol),
        3 => {
            at_least(call.arg(2), 0, "ERR value is out of range, must be positive")?;
            write::set(out, call.protocol, 0);
        }
        _ => return Err(SYNTAX),
    }
    Ok(())
}

pub(in crate::outage) fn sintercard(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    const TOO_MANY: Fault = Fault::redis("ERR Number of keys can't be greater than number of args");
    let keys = at_least(call.arg(1), 1, "ERR numkeys should be greater than 0")?;
    let options_at = usize::try_from(keys)
        .ok()
        .and_then(|keys| keys.checked_add(2))
        .filter(|at| *at <= call.len())
        .ok_or(TOO_MANY)?;
    limits(call, options_at)?;
    write::integer(out, 0);
    Ok(())
}

/// `[LIMIT n]` to the end of the request.
pub(in crate::outage) fn limits(call: &Call<'_>, first: usize) -> Outcome {
    let mut at = first;
    while at < call.len() {
        if !call.is_with(at, "LIMIT", 1) {
            return Err(SYNTAX);
        }
        at_least(call.arg(at + 1), 0, "ERR LIMIT can't be negative")?;
        at += 2;
    }
    Ok(())
}
