//! Bitmaps.

use super::parse::{decimal, integer};
use super::{Call, Fault, SYNTAX};
use crate::resp::write;

type Outcome = Result<(), Fault>;

const OFFSET: Fault = Fault::redis("ERR bit offset is not an integer or out of range");
const TYPE: Fault =
    Fault::redis("ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.");
/// Redis's default `proto-max-bulk-len`, the longest string.
const STRING_BYTES_MAX: i64 = 512 << 20;

pub(in crate::outage) fn getbit(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    decimal(call.arg(2)).and_then(|n| offset(n, 1)).ok_or(OFFSET)?;
    write::integer(out, 0);
    Ok(())
}

/// The range is not looked at where the key is missing.
pub(in crate::outage) fn bitpos(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    match integer(call.arg(2))? {
        0 => write::integer(out, 0),
        1 => write::integer(out, -1),
        _ => return Err(Fault::redis("ERR The bit argument must be 1 or 0.")),
    }
    Ok(())
}

pub(in crate::outage) fn bitfield(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    let operations = operations(call)?;
    if operations.writes > 0 {
        return Err(Fault::NotApplied);
    }
    zeros(operations.reads, out);
    Ok(())
}

pub(in crate::outage) fn bitfield_ro(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    let operations = operations(call)?;
    if operations.writes > 0 {
        return Err(Fault::redis("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    zeros(operations.reads, out);
    Ok(())
}

#[derive(Default)]
struct Operations {
    reads: usize,
    writes: usize,
}

fn operations(call: &Call<'_>) -> Result<Operations, Fault> {
    let mut operations = Operations::default();
    let mut at = 2;
    while at < call.len() {
        if call.is_with(at, "OVERFLOW", 1) {
            if !["WRAP", "SAT", "FAIL"].iter().any(|word| call.is(at + 1, word)) {
                return Err(Fault::redis("ERR Invalid OVERFLOW type specified"));
            }
            at += 2;
            continue;
        }
        let is_read = call.is_with(at, "GET", 2);
        if !is_read && !call.is_with(at, "SET", 3) && !call.is_with(at, "INCRBY", 3) {
            return Err(SYNTAX);
        }
        let bits = bits(call.arg(at + 1)).ok_or(TYPE)?;
        field_offset(call.arg(at + 2), bits).ok_or(OFFSET)?;
        if is_read {
            operations.reads += 1;
            at += 3;
        } else {
            integer(call.arg(at + 3))?;
            operations.writes += 1;
            at += 4;
        }
    }
    Ok(operations)
}

fn bits(kind: &[u8]) -> Option<i64> {
    let (bits_max, digits) = match kind {
        [b'i', digits @ ..] => (64, digits),
        [b'u', digits @ ..] => (63, digits),
        _ => return None,
    };
    decimal(digits).filter(|bits| (1..=bits_max).contains(bits))
}

/// `#n` counts fields instead of bits.
fn field_offset(bytes: &[u8], bits: i64) -> Option<i64> {
    match bytes {
        [b'#', digits @ ..] => offset(decimal(digits)?, bits),
        _ => offset(decimal(bytes)?, 1),
    }
}

fn offset(n: i64, unit_bits: i64) -> Option<i64> {
    n.checked_mul(unit_bits)
        .filter(|bit| (0..STRING_BYTES_MAX * 8).contains(bit))
}

fn zeros(n: usize, out: &mut Vec<u8>) {
    write::array(out, n);
    for _ in 0..n {
        write::integer(out, 0);
    }
}
