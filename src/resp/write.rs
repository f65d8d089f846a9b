//! Appends replies (and request headers) to a buffer. Shapes: the RESP specification, <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use super::Protocol;

/// `+text`
pub fn simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    line(out, text.as_bytes());
}

/// `-text`; the text starts with its code (`ERR …`) and holds no line break.
pub fn error(out: &mut Vec<u8>, text: &str) {
    out.push(b'-');
    line(out, text.as_bytes());
}

/// `:n`
pub fn integer(out: &mut Vec<u8>, n: i64) {
    out.push(b':');
    decimal(out, n);
    out.extend_from_slice(b"\r\n");
}

/// `$len payload`
pub fn bulk(out: &mut Vec<u8>, payload: &[u8]) {
    header(out, b'$', payload.len());
    line(out, payload);
}

/// `*n`
pub fn array(out: &mut Vec<u8>, n: usize) {
    header(out, b'*', n);
}

/// `%n` in RESP3, `*2n` in RESP2: n pairs follow.
pub fn map(out: &mut Vec<u8>, protocol: Protocol, pairs: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', pairs * 2),
        Protocol::Resp3 => header(out, b'%', pairs),
    }
}

/// `~n` in RESP3, `*n` in RESP2.
pub fn set(out: &mut Vec<u8>, protocol: Protocol, n: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', n),
        Protocol::Resp3 => header(out, b'~', n),
    }
}

/// `>n` in RESP3, `*n` in RESP2.
pub fn push(out: &mut Vec<u8>, protocol: Protocol, n: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', n),
        Protocol::Resp3 => header(out, b'>', n),
    }
}

/// Null where RESP2 has a null bulk string: `$-1`, `_` in RESP3.
pub fn null(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Null where RESP2 has a null array: `*-1`, `_` in RESP3.
pub fn null_array(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Human text: `$len text` in RESP2, `=len txt:text` in RESP3.
pub fn verbatim(out: &mut Vec<u8>, protocol: Protocol, text: &[u8]) {
    match protocol {
        Protocol::Resp2 => bulk(out, text),
        Protocol::Resp3 => {
            header(out, b'=', text.len() + 4);
            out.extend_from_slice(b"txt:");
            line(out, text);
        }
    }
}

fn header(out: &mut Vec<u8>, kind: u8, n: usize) {
    out.push(kind);
    decimal(out, i64::try_from(n).unwrap_or(i64::MAX));
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// Decimal digits without a temporary string.
pub fn decimal(out: &mut Vec<u8>, n: i64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = n.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if n < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}
