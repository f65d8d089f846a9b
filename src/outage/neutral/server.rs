//! What a server tells about itself.

use super::parse::{at_least, integer};
use super::{Call, Fault, SYNTAX};
use crate::resp::write;

type Outcome = Result<(), Fault>;

pub(in crate::outage) fn memory_usage(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    let mut at = 3;
    while at < call.len() {
        if !call.is_with(at, "SAMPLES", 1) || integer(call.arg(at + 1))? < 0 {
            return Err(SYNTAX);
        }
        at += 2;
    }
    write::null(out, call.protocol);
    Ok(())
}

pub(in crate::outage) fn channels(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    if call.len() > 3 {
        return Err(too_many(call, "PUBSUB"));
    }
    write::array(out, 0);
    Ok(())
}

pub(in crate::outage) fn channel_counts(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    write::array(out, 2 * (call.len() - 2));
    for channel in call.request.args_from(2) {
        write::bulk(out, channel);
        write::integer(out, 0);
    }
    Ok(())
}

pub(in crate::outage) fn slowlog_get(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    match call.len() {
        2 => {}
        3 => {
            at_least(call.arg(2), -1, "ERR count should be greater than or equal to -1")?;
        }
        _ => return Err(too_many(call, "SLOWLOG")),
    }
    write::array(out, 0);
    Ok(())
}

/// COMMANDLOG GET count type, as Valkey has it.
pub(in crate::outage) fn commandlog_get(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    at_least(call.arg(2), -1, "ERR count should be greater than or equal to -1")?;
    commandlog_type(call, 3)?;
    write::array(out, 0);
    Ok(())
}

pub(in crate::outage) fn commandlog_len(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    commandlog_type(call, 2)?;
    write::integer(out, 0);
    Ok(())
}

fn commandlog_type(call: &Call<'_>, at: usize) -> Outcome {
    if ["slow", "large-request", "large-reply"]
        .iter()
        .any(|word| call.is(at, word))
    {
        return Ok(());
    }
    Err(Fault::redis(
        "ERR type should be one of the following: slow, large-request, large-reply",
    ))
}

fn too_many(call: &Call<'_>, container: &str) -> Fault {
    // The word is the subcommand's name, in the client's letter case.
    let word = String::from_utf8_lossy(call.arg(1));
    let text = format!("ERR unknown subcommand or wrong number of arguments for '{word}'. Try {container} HELP.");
    Fault::Redis(text.into())
}
