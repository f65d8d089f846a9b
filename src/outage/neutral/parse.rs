//! Arguments as Redis parses them.

use super::{Fault, NOT_INTEGER};

pub(in crate::outage) use crate::outage::write::parse::{is_lex_bound, is_score_bound};
pub(in crate::outage) use crate::resp::scan::integer as decimal;

/// An integer, or Redis's usual error.
pub(in crate::outage) fn integer(bytes: &[u8]) -> Result<i64, Fault> {
    decimal(bytes).ok_or(NOT_INTEGER)
}

/// An integer of at least `least`, or the error that the command has for it.
pub(in crate::outage) fn at_least(bytes: &[u8], least: i64, error: &'static str) -> Result<i64, Fault> {
    decimal(bytes).filter(|n| *n >= least).ok_or(Fault::redis(error))
}

/// A count that is turned around when negative, so the least integer is none.
pub(in crate::outage) fn signed_count(bytes: &[u8]) -> Result<i64, Fault> {
    const OUT_OF_RANGE: Fault =
        Fault::redis("ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807");
    match integer(bytes)? {
        i64::MIN => Err(OUT_OF_RANGE),
        count => Ok(count),
    }
}

/// A float as `strtod` reads it whole, without NaN; hexadecimal floats are not known here.
pub(in crate::outage) fn float(bytes: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.parse().ok().filter(|value: &f64| !value.is_nan())
}

/// A stream ID: milliseconds, and a sequence number where it is given.
pub(in crate::outage) fn stream_id(bytes: &[u8]) -> Option<(u64, Option<u64>)> {
    let unsigned = |digits: &[u8]| -> Option<u64> {
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    match bytes.iter().position(|byte| *byte == b'-') {
        Some(dash) => Some((unsigned(&bytes[..dash])?, Some(unsigned(&bytes[dash + 1..])?))),
        None => Some((unsigned(bytes)?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_are_one_or_two_numbers() {
        for (text, expected) in [
            ("1", Some((1, None))),
            ("1-2", Some((1, Some(2)))),
            ("18446744073709551615-0", Some((u64::MAX, Some(0)))),
            ("18446744073709551616", None),
            ("-", None),
            ("1-", None),
            ("1-2-3", None),
            ("+1", None),
            ("", None),
        ] {
            assert_eq!(stream_id(text.as_bytes()), expected, "{text:?}");
        }
    }
}
