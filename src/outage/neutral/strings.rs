//! Replies of one shape, and strings.

use super::parse::{at_least, integer};
use super::{Call, Fault, SYNTAX};
use crate::resp::write;

type Outcome = Result<(), Fault>;

/// `:0`
pub(in crate::outage) fn zero(_: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    write::integer(out, 0);
    Ok(())
}

pub(in crate::outage) fn null(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    write::null(out, call.protocol);
    Ok(())
}

pub(in crate::outage) fn empty_array(_: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    write::array(out, 0);
    Ok(())
}

pub(in crate::outage) fn empty_map(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    write::map(out, call.protocol, 0);
    Ok(())
}

pub(in crate::outage) fn empty_set(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    write::set(out, call.protocol, 0);
    Ok(())
}

pub(in crate::outage) fn type_of(_: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    write::simple(out, "none");
    Ok(())
}

/// `:-2`, never -1, which says that the key is there without an expiry.
pub(in crate::outage) fn no_such_key(_: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    write::integer(out, -2);
    Ok(())
}

pub(in crate::outage) fn null_each_from_1(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    nulls(call, call.len() - 1, out);
    Ok(())
}

pub(in crate::outage) fn null_each_from_2(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    nulls(call, call.len() - 2, out);
    Ok(())
}

pub(in crate::outage) fn null_array_each_from_2(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    write::array(out, call.len() - 2);
    for _ in 2..call.len() {
        write::null_array(out, call.protocol);
    }
    Ok(())
}

pub(in crate::outage) fn zero_each_from_2(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    write::array(out, call.len() - 2);
    for _ in 2..call.len() {
        write::integer(out, 0);
    }
    Ok(())
}

pub(in crate::outage) fn get_range(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    integer(call.arg(2))?;
    integer(call.arg(3))?;
    write::bulk(out, b"");
    Ok(())
}

pub(in crate::outage) fn lcs(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    const BOTH: Fault = Fault::redis("ERR If you want both the length and indexes, please just use IDX.");
    let (mut wants_len, mut wants_idx) = (false, false);
    let mut at = 3;
    while at < call.len() {
        if call.is(at, "IDX") {
            wants_idx = true;
        } else if call.is(at, "LEN") {
            wants_len = true;
        } else if call.is_with(at, "MINMATCHLEN", 1) {
            at += 1;
            integer(call.arg(at))?;
        } else if !call.is(at, "WITHMATCHLEN") {
            return Err(SYNTAX);
        }
        at += 1;
    }
    match (wants_len, wants_idx) {
        (true, true) => return Err(BOTH),
        (true, false) => write::integer(out, 0),
        (false, false) => write::bulk(out, b""),
        (false, true) => {
            write::map(out, call.protocol, 2);
            write::bulk(out, b"matches");
            write::array(out, 0);
            write::bulk(out, b"len");
            write::integer(out, 0);
        }
    }
    Ok(())
}

/// The new expiry is for a key that is not there, so Redis looks at the option's name only.
pub(in crate::outage) fn getex(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    let takes_time = |at| {
        ["EX", "PX", "EXAT", "PXAT"]
            .iter()
            .any(|word| call.is_with(at, word, 1))
    };
    match call.len() {
        2 => {}
        3 if call.is(2, "PERSIST") => {}
        4 if takes_time(2) => {}
        _ => return Err(SYNTAX),
    }
    null(call, out)
}

/// HGETEX key [option …] FIELDS n field …; a time that is none is left for a Redis to refuse.
pub(in crate::outage) fn hgetex(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    let takes_time = ["EX", "PX", "EXAT", "PXAT"].iter().any(|word| call.is(2, word));
    let at = match takes_time {
        true if integer(call.arg(3))? <= 0 => return Err(Fault::NotExecuted),
        true => 4,
        false if call.is(2, "PERSIST") => 3,
        false => 2,
    };
    nulls(call, fields(call, at)?, out);
    Ok(())
}

/// HTTL key FIELDS n field … and its kin: -2 for each.
pub(in crate::outage) fn no_such_fields(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    let fields = fields(call, 2)?;
    write::array(out, fields);
    for _ in 0..fields {
        write::integer(out, -2);
    }
    Ok(())
}

/// The number of fields that stand behind FIELDS, to the end; the errors are those of Redis 8.
fn fields(call: &Call<'_>, at: usize) -> Result<usize, Fault> {
    const NO_FIELDS: Fault = Fault::redis("ERR Mandatory argument FIELDS is missing or not at the right position");
    const MISMATCH: Fault = Fault::redis("ERR The `numfields` parameter must match the number of arguments");
    if !call.is(at, "FIELDS") {
        return Err(NO_FIELDS);
    }
    let fields = at_least(call.arg(at + 1), 1, "ERR Number of fields must be a positive integer")?;
    usize::try_from(fields)
        .ok()
        .filter(|fields| at.saturating_add(2).saturating_add(*fields) == call.len())
        .ok_or(MISMATCH)
}

fn nulls(call: &Call<'_>, n: usize, out: &mut Vec<u8>) {
    write::array(out, n);
    for _ in 0..n {
        write::null(out, call.protocol);
    }
}
