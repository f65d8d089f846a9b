//! SCAN and its like, SORT.

use super::parse::integer;
use super::{Call, Fault, SYNTAX};
use crate::resp::write;

type Outcome = Result<(), Fault>;

pub(in crate::outage) fn scan(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    from_start(call.arg(1))?;
    let mut at = 2;
    while at < call.len() {
        if call.is_with(at, "COUNT", 1) {
            if integer(call.arg(at + 1))? < 1 {
                return Err(SYNTAX);
            }
        } else if !call.is_with(at, "MATCH", 1) && !call.is_with(at, "TYPE", 1) {
            return Err(SYNTAX);
        }
        at += 2;
    }
    last_page(out);
    Ok(())
}

/// Redis does not look at the options where the key is missing.
pub(in crate::outage) fn scan_key(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    from_start(call.arg(2))?;
    last_page(out);
    Ok(())
}

/// An iteration that began before must not end early: its caller would take what it has not seen for gone.
fn from_start(cursor: &[u8]) -> Outcome {
    const INVALID: Fault = Fault::redis("ERR invalid cursor");
    let digits = match cursor {
        [b'-' | b'+', digits @ ..] if !digits.is_empty() => digits,
        _ => cursor,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(INVALID);
    }
    if digits.iter().all(|digit| *digit == b'0') {
        return Ok(());
    }
    let number: Option<u64> = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    Err(number.map_or(INVALID, |_| Fault::NotExecuted))
}

fn last_page(out: &mut Vec<u8>) {
    write::array(out, 2);
    write::bulk(out, b"0");
    write::array(out, 0);
}

pub(in crate::outage) fn sort(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    if sort_stores(call)? {
        return Err(Fault::NotApplied);
    }
    write::array(out, 0);
    Ok(())
}

pub(in crate::outage) fn sort_ro(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    if sort_stores(call)? {
        return Err(SYNTAX);
    }
    write::array(out, 0);
    Ok(())
}

fn sort_stores(call: &Call<'_>) -> Result<bool, Fault> {
    let mut stores = false;
    let mut at = 2;
    while at < call.len() {
        if ["ASC", "DESC", "ALPHA"].iter().any(|word| call.is(at, word)) {
            at += 1;
        } else if call.is_with(at, "LIMIT", 2) {
            integer(call.arg(at + 1))?;
            integer(call.arg(at + 2))?;
            at += 3;
        } else if call.is_with(at, "BY", 1) || call.is_with(at, "GET", 1) {
            at += 2;
        } else if call.is_with(at, "STORE", 1) {
            stores = true;
            at += 2;
        } else {
            return Err(SYNTAX);
        }
    }
    Ok(stores)
}
