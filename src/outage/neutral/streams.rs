//! Streams. What needs a consumer group gets the answer of an empty group: Redis's own for a missing one makes consumers create it.

use std::time::Duration;

use super::parse::{decimal, integer, stream_id};
use super::{Call, Fault, SYNTAX};
use crate::command::Name;
use crate::outage::Answer;
use crate::resp::write;

type Outcome = Result<(), Fault>;

const ID: Fault = Fault::redis("ERR Invalid stream ID specified as stream command argument");

/// XRANGE and XREVRANGE.
pub(in crate::outage) fn range(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    let (start, end) = if call.spec.id == Name::Xrevrange {
        (3, 2)
    } else {
        (2, 3)
    };
    interval(call.arg(start), call.arg(end))?;
    let mut at = 4;
    while at < call.len() {
        if !call.is_with(at, "COUNT", 1) {
            return Err(SYNTAX);
        }
        integer(call.arg(at + 1))?;
        at += 2;
    }
    write::array(out, 0);
    Ok(())
}

fn interval(start: &[u8], end: &[u8]) -> Outcome {
    const START: Fault = Fault::redis("ERR invalid start ID for the interval");
    const END: Fault = Fault::redis("ERR invalid end ID for the interval");
    if bound(start, u64::MIN)? == Bound::Excluding(u64::MAX, u64::MAX) {
        return Err(START);
    }
    if bound(end, u64::MAX)? == Bound::Excluding(0, 0) {
        return Err(END);
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Bound {
    Including,
    Excluding(u64, u64),
}

fn bound(bytes: &[u8], missing_sequence: u64) -> Result<Bound, Fault> {
    if let [b'(', id @ ..] = bytes {
        let (ms, sequence) = stream_id(id).ok_or(ID)?;
        return Ok(Bound::Excluding(ms, sequence.unwrap_or(missing_sequence)));
    }
    if !matches!(bytes, b"-" | b"+") {
        stream_id(bytes).ok_or(ID)?;
    }
    Ok(Bound::Including)
}

pub(in crate::outage) fn pending(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    if call.len() == 3 {
        write::array(out, 4);
        write::integer(out, 0);
        write::null(out, call.protocol);
        write::null(out, call.protocol);
        write::null_array(out, call.protocol);
        return Ok(());
    }
    if !(6..=9).contains(&call.len()) {
        return Err(SYNTAX);
    }
    let mut at = 3;
    if call.is(at, "IDLE") {
        integer(call.arg(4))?;
        if call.len() < 8 {
            return Err(SYNTAX);
        }
        at = 5;
    }
    integer(call.arg(at + 2))?;
    interval(call.arg(at), call.arg(at + 1))?;
    write::array(out, 0);
    Ok(())
}

pub(in crate::outage) fn claim(_: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    write::array(out, 0);
    Ok(())
}

pub(in crate::outage) fn autoclaim(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    decimal(call.arg(4)).ok_or(Fault::redis("ERR Invalid min-idle-time argument for XAUTOCLAIM"))?;
    interval(call.arg(5), b"+")?;
    let mut at = 6;
    while at < call.len() {
        if call.is_with(at, "COUNT", 1) {
            if decimal(call.arg(at + 1)).is_none_or(|count| count < 1) {
                return Err(Fault::redis("ERR COUNT must be > 0"));
            }
            at += 2;
        } else if call.is(at, "JUSTID") {
            at += 1;
        } else {
            return Err(SYNTAX);
        }
    }
    write::array(out, 3);
    write::bulk(out, b"0-0");
    write::array(out, 0);
    write::array(out, 0);
    Ok(())
}

/// XREAD and XREADGROUP.
pub(in crate::outage) fn read(call: &Call<'_>, out: &mut Vec<u8>) -> Result<Answer, Fault> {
    let options = read_options(call)?;
    let in_group = call.spec.id == Name::Xreadgroup;
    let rest = call.request.args_from(options.streams_at);
    if rest.len() % 2 == 1 {
        return Err(Fault::redis(
            "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
        ));
    }
    for id in rest.clone().skip(rest.len() / 2) {
        read_id(id, in_group)?;
    }
    write::null_array(out, call.protocol);
    Ok(match options.block {
        Block::No => Answer::Reply,
        Block::For(timeout) => Answer::Hold { timeout },
    })
}

fn read_id(id: &[u8], in_group: bool) -> Outcome {
    match (id, in_group) {
        (b">", true) | (b"$" | b"+", false) => Ok(()),
        (b">", false) => Err(Fault::redis(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        )),
        // An empty history would say that the consumer has nothing left to acknowledge.
        (_, true) => Err(Fault::NotExecuted),
        (id, false) => stream_id(id).map(|_| ()).ok_or(ID),
    }
}

enum Block {
    No,
    For(Option<Duration>),
}

struct ReadOptions {
    block: Block,
    streams_at: usize,
}

fn read_options(call: &Call<'_>) -> Result<ReadOptions, Fault> {
    const NO_GROUP: Fault = Fault::redis("ERR Missing GROUP option for XREADGROUP");
    let in_group = call.spec.id == Name::Xreadgroup;
    let mut block = Block::No;
    let mut has_group = false;
    let mut at = 1;
    while at < call.len() {
        if call.is_with(at, "BLOCK", 1) {
            block = Block::For(milliseconds(call.arg(at + 1))?);
            at += 2;
        } else if call.is_with(at, "COUNT", 1) {
            integer(call.arg(at + 1))?;
            at += 2;
        } else if call.is_with(at, "STREAMS", 1) {
            if in_group && !has_group {
                return Err(NO_GROUP);
            }
            return Ok(ReadOptions {
                block,
                streams_at: at + 1,
            });
        } else if call.is_with(at, "GROUP", 2) {
            if !in_group {
                return Err(only_in_group("GROUP"));
            }
            has_group = true;
            at += 3;
        } else if call.is(at, "NOACK") {
            if !in_group {
                return Err(only_in_group("NOACK"));
            }
            at += 1;
        } else {
            return Err(SYNTAX);
        }
    }
    Err(SYNTAX)
}

fn only_in_group(word: &str) -> Fault {
    Fault::Redis(format!("ERR The {word} option is only supported by XREADGROUP. You called XREAD instead.").into())
}

/// A blocking time in milliseconds; 0 is for ever.
pub(in crate::outage) fn milliseconds(bytes: &[u8]) -> Result<Option<Duration>, Fault> {
    let n = decimal(bytes).ok_or(Fault::redis("ERR timeout is not an integer or out of range"))?;
    match u64::try_from(n) {
        Ok(0) => Ok(None),
        Ok(ms) => Ok(Some(Duration::from_millis(ms))),
        Err(_) => Err(Fault::redis("ERR timeout is negative")),
    }
}
