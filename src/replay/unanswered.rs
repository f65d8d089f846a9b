//! Batches that were applied and whose answers nobody has read: a crash, or the end of the connection, came between. The marker says that they
//! were applied, not what failed in them. Redis keeps no record of it; that a key is of another type than a write needs tells it still.

use std::collections::HashMap;

use super::batch::{self, Group};
use super::dead_letter::DeadLetterReason;
use super::run::{Run, Stop};
use super::source::ask;
use crate::command;
use crate::journal::Record;
use crate::outage::payload::{Payload, decode};
use crate::resp::Request;
use crate::resp::scan::{Limits, Scan, Scanner};

const READ_RECORDS_MAX: usize = 2048;
const READ_BYTES_MAX: usize = 4 << 20;
const ERROR: &str =
    "WRONGTYPE Operation against a key holding the wrong kind of value (seen afterwards: the answer was lost)";

/// A write with the type that it needs its key to be of.
type Needing = (&'static str, Record);
/// Writes whose key nothing in the same stretch replaced later, by key.
type Pending = HashMap<Vec<u8>, Vec<Needing>>;

impl Run<'_> {
    /// Makes dead letters of the group's database's records after `after_seq` and up to `upto_seq` that have visibly failed. To be called with
    /// the database selected.
    pub(super) async fn bury_unanswered(
        &mut self,
        group: &Group,
        mut after_seq: u64,
        upto_seq: u64,
    ) -> Result<(), Stop> {
        while after_seq < upto_seq {
            let owner = &self.replay.owner;
            let mut records = ask(|reply| owner.read(after_seq, READ_RECORDS_MAX, READ_BYTES_MAX, reply))
                .await?
                .map_err(|error| Stop::Halt(error.to_string()))?;
            records.retain(|record| record.seq <= upto_seq);
            let Some(last) = records.last() else { return Ok(()) };
            after_seq = last.seq;
            let mut pending = Pending::new();
            for record in records.iter().filter(|record| !self.dead.contains(&record.seq)) {
                if let Ok(payload) = decode(&record.payload)
                    && payload.db() == group.db
                    && !self.aside.holds(payload.identity(), record.seq)
                {
                    note(record, &payload, &mut pending);
                }
            }
            self.bury_of_another_type(group, pending).await?;
        }
        Ok(())
    }

    async fn bury_of_another_type(&mut self, group: &Group, pending: Pending) -> Result<(), Stop> {
        let pending: Vec<(Vec<u8>, Vec<Needing>)> = pending.into_iter().collect();
        if pending.is_empty() {
            return Ok(());
        }
        let mut request = Vec::new();
        for (key, _) in &pending {
            batch::command(&mut request, &[b"TYPE", key]);
        }
        let types = self.line(group).ask(&request, pending.len()).await?;
        let mut failed: Vec<&Record> = Vec::new();
        for ((_, writes), kind) in pending.iter().zip(&types) {
            // Without the right to ask there is no telling.
            let kind = kind.strip_prefix(b"+").map(<[u8]>::trim_ascii_end).unwrap_or(b"none");
            let is_another = |needed: &str| kind != b"none" && kind != needed.as_bytes();
            failed.extend(
                writes
                    .iter()
                    .filter(|(needed, _)| is_another(needed))
                    .map(|(_, record)| record),
            );
        }
        failed.sort_unstable_by_key(|record| record.seq);
        failed.dedup_by_key(|record| record.seq);
        for record in failed {
            self.bury(record, DeadLetterReason::WrongType, ERROR).await?;
        }
        Ok(())
    }
}

/// Notes what a record's writes need, and forgets what they replace.
fn note(record: &Record, payload: &Payload<'_>, pending: &mut Pending) {
    let mut commands = Vec::new();
    payload.render(0, 0, &mut commands);
    let mut rest = commands.as_slice();
    let mut scanner = Scanner::default();
    while let Ok(Scan::Request { len }) = scanner.scan(rest, &Limits::default()) {
        let (frame, behind) = rest.split_at(len);
        let request = Request::new(frame, scanner.spans());
        rest = behind;
        let Some(spec) = command::lookup(&request) else {
            continue;
        };
        match needed(spec.name) {
            Some(kind) => {
                let mut keys = Vec::new();
                command::for_each_key(spec, &request, |key| keys.push(key));
                if let Some(key) = keys.first() {
                    pending.entry(key.to_vec()).or_default().push((kind, record.clone()));
                }
            }
            None => command::for_each_key(spec, &request, |key| drop(pending.remove(key))),
        }
    }
}

/// The type that a write needs its key to be of, unless there is none.
fn needed(name: &str) -> Option<&'static str> {
    Some(match name {
        _ if name.ends_with("STORE") => return None,
        "LPUSH" | "RPUSH" | "LPUSHX" | "RPUSHX" | "LTRIM" | "LREM" | "LSET" | "LINSERT" => "list",
        "SADD" | "SREM" => "set",
        "GEOADD" => "zset",
        "APPEND" | "SETRANGE" | "SETBIT" | "PFADD" | "INCR" | "INCRBY" | "INCRBYFLOAT" | "DECR" | "DECRBY" => "string",
        _ => match name.as_bytes().first()? {
            b'Z' => "zset",
            b'H' => "hash",
            b'X' => "stream",
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outage::effect::{Effect, EffectKind};
    use crate::outage::payload::{Origin, encode};
    use crate::upstream::dial::command as encoded;

    fn pending(records: &[&[&str]]) -> Vec<(String, Vec<(&'static str, u64)>)> {
        let mut pending = Pending::new();
        for (seq, lines) in (1..).zip(records) {
            let effects: Vec<Effect<'_>> = lines
                .iter()
                .map(|line| Effect {
                    kind: EffectKind::Relative,
                    command: encoded(&line.split(' ').collect::<Vec<_>>()).into(),
                    deadline: None,
                })
                .collect();
            let mut bytes = Vec::new();
            encode(Origin { db: 0, identity: b"" }, &effects, &mut bytes);
            let record = Record {
                seq,
                wall_ms: 0,
                mono_ms: 0,
                payload: bytes.into(),
            };
            note(&record, &decode(&record.payload).unwrap(), &mut pending);
        }
        let mut pending: Vec<_> = pending
            .into_iter()
            .map(|(key, writes)| {
                let writes = writes.into_iter().map(|(kind, record)| (kind, record.seq)).collect();
                (String::from_utf8(key).unwrap(), writes)
            })
            .collect();
        pending.sort();
        pending
    }

    #[test]
    fn a_write_is_looked_at_unless_something_replaced_its_key() {
        assert_eq!(
            pending(&[
                &["RPUSH l a"],
                &["SET s v", "HSET h f v"],
                &["XGROUP CREATE x g 0"],
                &["LTRIM l 0 1"]
            ]),
            [
                ("h".to_owned(), vec![("hash", 2)]),
                ("l".to_owned(), vec![("list", 1), ("list", 4)]),
                ("x".to_owned(), vec![("stream", 3)]),
            ]
        );
        assert_eq!(pending(&[&["RPUSH l a"], &["SADD m a"], &["DEL l m"]]), []);
        assert_eq!(
            pending(&[&["DEL l"], &["ZADD l 1 a"]]),
            [("l".to_owned(), vec![("zset", 2)])]
        );
    }
}
