//! On a full server everything in MULTI is refused, also what would free memory. Records at the head of the backlog that only free memory are
//! then replayed one by one, by a script that may run out of memory, and that compares and sets the marker as a batch does.

use super::batch::{Batch, Fate};
use super::resume::{Marker, marker_value};
use crate::journal::{Incarnations, Record};
use crate::outage::payload::decode;
use crate::resp::write;

/// `KEYS[1]` the marker, `ARGV[1]` its value now (empty: absent), `ARGV[2]` its next value, then the command.
const SCRIPT: &[u8] = b"#!lua flags=allow-oom\n\
    if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end\n\
    redis.call(unpack(ARGV, 3))\n\
    redis.call('SET', KEYS[1], ARGV[2])\n\
    return 1";

/// Commands that never need memory.
const FREEING: [&[u8]; 8] = [
    b"DEL",
    b"UNLINK",
    b"HDEL",
    b"SREM",
    b"ZREM",
    b"LREM",
    b"LTRIM",
    b"PEXPIREAT",
];

/// The first record that the batch sends, as its script call; nothing where that might need memory.
pub(super) fn relief<'b>(
    batch: &'b Batch,
    marker_key: &[u8],
    marker: Marker,
    incarnations: &Incarnations,
) -> Option<(&'b Record, Vec<u8>)> {
    let (record, _) = batch
        .records
        .iter()
        .find(|(_, fate)| matches!(fate, Fate::Sent { .. }))?;
    let payload = decode(&record.payload).ok()?;
    let effect = payload.effects().next()?;
    let is_freeing = payload
        .names()
        .all(|name| FREEING.iter().any(|known| known.eq_ignore_ascii_case(name.as_bytes())));
    // A deadline is rendered at its time: such a record waits.
    if payload.is_transaction() || effect.deadline.is_some() || !is_freeing {
        return None;
    }
    let header_end = effect.command.iter().position(|byte| *byte == b'\n')? + 1;
    let (header, args) = effect.command.split_at(header_end);
    let count: usize = std::str::from_utf8(header.strip_prefix(b"*")?)
        .ok()?
        .trim_end()
        .parse()
        .ok()?;
    let mut values = [String::new(), String::new()];
    let [now, next] = &mut values;
    match marker {
        Marker::At { name, seq } => marker_value(name, seq, now),
        Marker::Absent => {}
        Marker::Garbage => return None,
    }
    marker_value(incarnations.name_of(record.seq), record.seq, next);
    let mut request = b"*1\r\n$7\r\nUNWATCH\r\n".to_vec();
    write::array(&mut request, count + 6);
    for arg in [b"EVAL", SCRIPT, b"1", marker_key, now.as_bytes(), next.as_bytes()] {
        write::bulk(&mut request, arg);
    }
    request.extend_from_slice(args);
    Some((record, request))
}
