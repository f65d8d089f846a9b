//! Numbers and stream IDs as Redis reads them (`string2ll`, `strtod`, `string2ull`): what it refuses is refused here.

pub(super) use crate::resp::scan::integer;

/// As `string2d`: what `strtod` takes as a whole, without leading blanks, overflow and underflow.
pub(super) fn float(text: &[u8]) -> Option<f64> {
    if text.first().is_none_or(|byte| is_space(*byte)) {
        return None;
    }
    let (value, range) = strtod(text)?;
    match range {
        Range::Within => Some(value),
        Range::Beyond => None,
    }
}

/// One end of a range by score: `(` excludes, blanks and the empty string are let through, as `strtod` does.
pub(in crate::outage) fn is_score_bound(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"(").unwrap_or(text);
    // Redis looks at a C string here: what follows a NUL is not seen.
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    text.is_empty() || strtod(trim_start(text)).is_some()
}

/// One end of a lexicographical range: `-`, `+`, `[…` or `(…`.
pub(in crate::outage) fn is_lex_bound(text: &[u8]) -> bool {
    matches!(text, b"-" | b"+" | [b'[' | b'(', ..])
}

enum Range {
    Within,
    Beyond,
}

fn strtod(text: &[u8]) -> Option<(f64, Range)> {
    let unsigned = match text {
        [b'-' | b'+', rest @ ..] => rest,
        _ => text,
    };
    if let [b'0', b'x' | b'X', digits @ ..] = unsigned {
        let value = hexadecimal(digits)?;
        let range = if value.is_finite() {
            Range::Within
        } else {
            Range::Beyond
        };
        return Some((if text.starts_with(b"-") { -value } else { value }, range));
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    if value.is_nan() {
        return None;
    }
    let is_word = unsigned.first().is_some_and(u8::is_ascii_alphabetic);
    let mantissa = unsigned
        .split(|byte| matches!(byte, b'e' | b'E'))
        .next()
        .unwrap_or_default();
    let underflow = value == 0.0 && mantissa.iter().any(|byte| matches!(byte, b'1'..=b'9'));
    let overflow = value.is_infinite() && !is_word;
    Some((
        value,
        if underflow || overflow {
            Range::Beyond
        } else {
            Range::Within
        },
    ))
}

/// `h.hhhp±d` after the `0x`. Rounds more than once beyond 52 bits, which no check here can tell.
fn hexadecimal(text: &[u8]) -> Option<f64> {
    let mut parts = text.splitn(2, |byte| matches!(byte, b'p' | b'P'));
    let mantissa = parts.next()?;
    let exponent: i32 = match parts.next() {
        None => 0,
        Some(digits) => std::str::from_utf8(digits).ok()?.parse().ok()?,
    };
    let mut value = 0.0_f64;
    let mut scale: Option<i32> = None;
    let mut digits = 0_usize;
    for byte in mantissa {
        if *byte == b'.' {
            if scale.replace(0).is_some() {
                return None;
            }
            continue;
        }
        value = value * 16.0 + f64::from(char::from(*byte).to_digit(16)?);
        scale = scale.map(|places| places.saturating_sub(4));
        digits += 1;
    }
    (digits > 0).then(|| value * 2.0_f64.powi(exponent.saturating_add(scale.unwrap_or(0))))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_space(**byte)).count();
    text.get(blanks..).unwrap_or_default()
}

/// The ID of a stream entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamId {
    pub ms: u64,
    pub seq: u64,
}

impl StreamId {
    pub const MIN: Self = Self { ms: 0, seq: 0 };

    /// The next greater ID; stays at the greatest.
    #[must_use]
    pub fn next(self) -> Self {
        match (self.seq.checked_add(1), self.ms.checked_add(1)) {
            (Some(seq), _) => Self { ms: self.ms, seq },
            (None, Some(ms)) => Self { ms, seq: 0 },
            (None, None) => self,
        }
    }
}

/// An ID argument of XADD other than `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdArgument {
    Explicit(StreamId),
    /// `ms-*`
    AutoSequence(u64),
}

/// As XADD reads it: `ms`, `ms-seq` or `ms-*`.
pub(super) fn id_argument(text: &[u8]) -> Option<IdArgument> {
    match text.strip_suffix(b"-*") {
        Some(ms) if !ms.contains(&b'-') => unsigned(ms).map(IdArgument::AutoSequence),
        _ => stream_id(text).map(IdArgument::Explicit),
    }
}

/// `ms` (sequence 0) or `ms-seq`; `-` and `+` are no IDs here.
pub(super) fn stream_id(text: &[u8]) -> Option<StreamId> {
    if text.len() > 127 {
        return None;
    }
    match text.iter().position(|byte| *byte == b'-') {
        None => unsigned(text).map(|ms| StreamId { ms, seq: 0 }),
        Some(at) => Some(StreamId {
            ms: unsigned(text.get(..at)?)?,
            seq: unsigned(text.get(at + 1..)?)?,
        }),
    }
}

/// As `string2ull`, which falls back to `strtoull`: blanks, `+` and leading zeros are let through.
fn unsigned(text: &[u8]) -> Option<u64> {
    let text = trim_start(text);
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_string2ll_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("", None),
            ("-", None),
            ("1.0", None),
        ] {
            assert_eq!(integer(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn floats_are_read_as_string2d_reads_them() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("+1.5e3", Some(1500.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("-inf", Some(f64::NEG_INFINITY)),
            ("Infinity", Some(f64::INFINITY)),
            ("0x10", Some(16.0)),
            ("-0x1.8p1", Some(-3.0)),
            ("0e5", Some(0.0)),
            ("1e400", None),
            ("1e-400", None),
            ("nan", None),
            ("", None),
            (" 1", None),
            ("1 ", None),
            ("0x", None),
            ("abc", None),
        ] {
            assert_eq!(float(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn stream_ids_are_read_as_redis_reads_them() {
        let id = |ms, seq| Some(StreamId { ms, seq });
        for (text, expected) in [
            ("5", id(5, 0)),
            ("5-7", id(5, 7)),
            ("18446744073709551615-18446744073709551615", id(u64::MAX, u64::MAX)),
            ("007-01", id(7, 1)),
            ("18446744073709551616", None),
            ("5-", None),
            ("-5", None),
            ("-", None),
            ("+", None),
            ("5-6-7", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(stream_id(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(id_argument(b"5-*"), Some(IdArgument::AutoSequence(5)));
        assert_eq!(id_argument(b"*-*"), None);
        assert_eq!(id_argument(b"1-2-*"), None);
    }
}
