//! Blocking commands: their timeouts, and what they answer when these have passed.

use std::time::Duration;

use super::Answer;
use super::neutral::lists::{directions, multi_pop};
use super::neutral::parse::{float, integer};
use super::neutral::streams::milliseconds;
use super::neutral::{Call, Fault};
use crate::resp::write;

/// The timeout stands last: BLPOP, BRPOP, BZPOPMIN, BZPOPMAX.
pub(super) fn pop(call: &Call<'_>, out: &mut Vec<u8>) -> Result<Answer, Fault> {
    hold(call, call.len() - 1, out)
}

pub(super) fn brpoplpush(call: &Call<'_>, out: &mut Vec<u8>) -> Result<Answer, Fault> {
    hold(call, 3, out)
}

pub(super) fn blmove(call: &Call<'_>, out: &mut Vec<u8>) -> Result<Answer, Fault> {
    directions(call)?;
    hold(call, 5, out)
}

pub(super) fn blmpop(call: &Call<'_>, out: &mut Vec<u8>) -> Result<Answer, Fault> {
    multi_pop(call, 2, ["LEFT", "RIGHT"])?;
    hold(call, 1, out)
}

pub(super) fn bzmpop(call: &Call<'_>, out: &mut Vec<u8>) -> Result<Answer, Fault> {
    multi_pop(call, 2, ["MIN", "MAX"])?;
    hold(call, 1, out)
}

/// No replica has acknowledged anything, which is true.
pub(super) fn wait(call: &Call<'_>, out: &mut Vec<u8>) -> Result<Answer, Fault> {
    let replicas = integer(call.arg(1))?;
    let timeout = milliseconds(call.arg(2))?;
    write::integer(out, 0);
    Ok(if replicas <= 0 {
        Answer::Reply
    } else {
        Answer::Hold { timeout }
    })
}

pub(super) fn waitaof(call: &Call<'_>, out: &mut Vec<u8>) -> Result<Answer, Fault> {
    const LOCAL: Fault = Fault::redis("ERR value is out of range, value must between 0 and 1");
    const REPLICAS: Fault = Fault::redis("ERR value is out of range, must be positive");
    let local = integer(call.arg(1)).and_then(|n| if (0..=1).contains(&n) { Ok(n) } else { Err(LOCAL) })?;
    let replicas = integer(call.arg(2)).and_then(|n| if n >= 0 { Ok(n) } else { Err(REPLICAS) })?;
    let timeout = milliseconds(call.arg(3))?;
    write::array(out, 2);
    write::integer(out, 0);
    write::integer(out, 0);
    Ok(if local + replicas == 0 {
        Answer::Reply
    } else {
        Answer::Hold { timeout }
    })
}

/// A timeout answers a null array, also where the command alone answers a null string (BLMOVE, BRPOPLPUSH).
fn hold(call: &Call<'_>, timeout_at: usize, out: &mut Vec<u8>) -> Result<Answer, Fault> {
    let timeout = seconds(call.arg(timeout_at))?;
    write::null_array(out, call.protocol);
    Ok(Answer::Hold { timeout })
}

/// A blocking time in seconds, rounded up to whole milliseconds as Redis does; 0 is for ever.
fn seconds(bytes: &[u8]) -> Result<Option<Duration>, Fault> {
    const NEGATIVE: Fault = Fault::redis("ERR timeout is negative");
    let seconds = float(bytes).ok_or(Fault::redis("ERR timeout is not a float or out of range"))?;
    let ms = (seconds * 1000.0).ceil();
    if ms == 0.0 {
        return Ok(None);
    }
    // What does not fit into Redis's integer comes out negative there.
    if ms < 0.0 || ms >= i64::MAX as f64 {
        return Err(NEGATIVE);
    }
    Duration::try_from_secs_f64(ms / 1000.0).map(Some).map_err(|_| NEGATIVE)
}
