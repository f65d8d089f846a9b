//! Records and dead letters as people and programs read them.

use serde::Serialize;

use super::in_order::Stands;
use crate::journal::{DeadLetter, Record};
use crate::outage::payload::{self, Payload};
use crate::resp::write;
use crate::upstream::clock::upstream_ms;

/// Bytes of one argument that a summary shows.
const ARGUMENT_SHOWN_BYTES: usize = 64;
/// Bytes of one command that a summary shows, about.
const COMMAND_SHOWN_BYTES: usize = 512;
/// Commands of one transaction that a summary shows.
const COMMANDS_SHOWN: usize = 16;

/// How much of a record's commands is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    Summary,
    Whole,
}

#[derive(Debug, Serialize)]
pub(crate) struct RecordShown {
    pub(crate) seq: u64,
    pub(crate) age_ms: u64,
    pub(crate) stands: Stands,
    #[serde(flatten)]
    pub(crate) what: Contents,
}

#[derive(Debug, Serialize)]
pub(crate) struct LetterShown {
    pub(crate) seq: u64,
    pub(crate) reason: String,
    pub(crate) error: String,
    #[serde(flatten)]
    pub(crate) what: Contents,
}

#[derive(Debug, Serialize)]
pub(crate) struct Contents {
    pub(crate) bytes: usize,
    pub(crate) db: u32,
    /// Empty: the credentials of the upstream's URL.
    pub(crate) identity: String,
    /// Commands in the record; more than one is a transaction.
    pub(crate) count: usize,
    /// As redis-cli would take them, deadlines as they were at acceptance.
    pub(crate) commands: Vec<String>,
}

/// When a record is read: its age, and the upstream's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    pub(crate) wall_ms: u64,
    /// The upstream's clock minus ours.
    pub(crate) offset_ms: i64,
}

impl Clocks {
    fn age_ms(self, record: &Record) -> u64 {
        self.wall_ms.saturating_sub(record.wall_ms)
    }

    fn upstream_ms(self) -> i64 {
        upstream_ms(self.wall_ms, self.offset_ms)
    }
}

pub(crate) fn record(record: &Record, stands: Stands, clocks: Clocks) -> RecordShown {
    RecordShown {
        seq: record.seq,
        age_ms: clocks.age_ms(record),
        stands,
        what: contents(&record.payload, Detail::Summary),
    }
}

pub(crate) fn letter(letter: &DeadLetter, detail: Detail) -> LetterShown {
    LetterShown {
        seq: letter.seq,
        reason: letter.reason.clone(),
        error: letter.error.clone(),
        what: contents(&letter.payload, detail),
    }
}

/// One line of JSON; these types have no maps with keys that JSON could not hold.
pub(crate) fn line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

fn contents(bytes: &[u8], detail: Detail) -> Contents {
    match payload::decode(bytes) {
        Ok(payload) => Contents {
            bytes: bytes.len(),
            db: payload.db(),
            identity: escaped(payload.identity(), usize::MAX),
            count: payload.commands(),
            commands: commands(&payload, detail),
        },
        Err(error) => Contents {
            bytes: bytes.len(),
            db: 0,
            identity: String::new(),
            count: 0,
            commands: vec![format!("unreadable: {error}")],
        },
    }
}

fn commands(payload: &Payload<'_>, detail: Detail) -> Vec<String> {
    let (commands_max, command_max, argument_max) = match detail {
        Detail::Summary => (COMMANDS_SHOWN, COMMAND_SHOWN_BYTES, ARGUMENT_SHOWN_BYTES),
        Detail::Whole => (usize::MAX, usize::MAX, usize::MAX),
    };
    let shown = |command: &[u8]| {
        let mut text = String::new();
        for argument in arguments(command) {
            if text.len() > command_max {
                text.push_str(" …");
                break;
            }
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&quoted(argument, argument_max));
        }
        text
    };
    payload
        .effects()
        .take(commands_max)
        .map(|effect| shown(&effect.command))
        .collect()
}

/// The bulk strings of a command as we render it: `*n`, then `$len` and bytes each. A deadline that is only filled in at
/// replay is not among them.
fn arguments(command: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_line(command);
    std::iter::from_fn(move || {
        let length = rest.strip_prefix(b"$")?;
        let digits = length.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let length: usize = std::str::from_utf8(length.get(..digits)?).ok()?.parse().ok()?;
        let (argument, tail) = after_line(rest).split_at_checked(length)?;
        rest = tail.strip_prefix(b"\r\n")?;
        Some(argument)
    })
}

fn after_line(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |at| at + 1);
    bytes.get(end..).unwrap_or_default()
}

/// As redis-cli shows an argument, with quotes where they are needed.
fn quoted(argument: &[u8], bytes_max: usize) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'\'');
    let text = escaped(argument, bytes_max);
    if !argument.is_empty() && argument.iter().all(is_plain) {
        text
    } else {
        format!("\"{text}\"")
    }
}

fn escaped(bytes: &[u8], bytes_max: usize) -> String {
    let shown = bytes.get(..bytes_max).unwrap_or(bytes);
    let mut text = shown.escape_ascii().to_string();
    if shown.len() < bytes.len() {
        text.push('…');
    }
    text
}

/// Appends a record as the commands that replay would send now; `db` is the database selected before, and after.
/// Who they are sent as is not in them.
pub(crate) fn export(
    record: &Record,
    clocks: Clocks,
    db: &mut Option<u32>,
    out: &mut Vec<u8>,
) -> Result<(), payload::PayloadError> {
    let payload = payload::decode(&record.payload)?;
    if *db != Some(payload.db()) {
        *db = Some(payload.db());
        command(out, &[b"SELECT", payload.db().to_string().as_bytes()]);
    }
    if payload.is_transaction() {
        command(out, &[b"MULTI"]);
    }
    payload.render(clocks.age_ms(record), clocks.upstream_ms(), out);
    if payload.is_transaction() {
        command(out, &[b"EXEC"]);
    }
    Ok(())
}

fn command(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    write::array(out, arguments.len());
    for argument in arguments {
        write::bulk(out, argument);
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use bytes::Bytes;

    use super::*;
    use crate::outage::effect::{Effect, EffectKind};
    use crate::outage::payload::Origin;

    fn of(commands: &[&[&[u8]]], db: u32) -> Record {
        let effects: Vec<Effect<'_>> = commands
            .iter()
            .map(|arguments| {
                let mut bytes = Vec::new();
                command(&mut bytes, arguments);
                Effect {
                    kind: EffectKind::Absolute,
                    command: Cow::Owned(bytes),
                    deadline: None,
                }
            })
            .collect();
        let mut bytes = Vec::new();
        payload::encode(Origin { db, identity: b"me" }, &effects, &mut bytes);
        Record {
            seq: 7,
            wall_ms: 1_000,
            mono_ms: 0,
            payload: Bytes::from(bytes),
        }
    }

    const CLOCKS: Clocks = Clocks {
        wall_ms: 1_500,
        offset_ms: 0,
    };

    #[test]
    fn a_record_is_shown_as_redis_cli_would_take_it() {
        let long = [b'x'; 100];
        let shown = record(
            &of(&[&[b"SET", b"k\n", b"", b"a b", b"\xff"], &[b"DEL", &long]], 3),
            Stands::Waiting,
            CLOCKS,
        );
        let expected = format!("DEL {}…", "x".repeat(64));
        assert_eq!(shown.what.commands, [r#"SET "k\n" "" "a b" "\xff""#, expected.as_str()]);
        assert_eq!(
            (shown.seq, shown.age_ms, shown.what.db, shown.what.count),
            (7, 500, 3, 2)
        );
        let json: serde_json::Value = serde_json::from_str(&line(&shown)).unwrap();
        assert_eq!(
            (&json["identity"], &json["seq"], &json["stands"]),
            (&"me".into(), &7.into(), &"waiting".into())
        );
    }

    #[test]
    fn a_whole_letter_is_not_cut_and_an_unreadable_one_says_so() {
        let long = [b'x'; 100];
        let mut dead = DeadLetter {
            seq: 1,
            wall_ms: 1,
            reason: "wrong_type".to_owned(),
            error: "WRONGTYPE".to_owned(),
            payload: of(&[&[b"DEL", &long]], 0).payload,
        };
        assert_eq!(
            letter(&dead, Detail::Whole).what.commands,
            [format!("DEL {}", "x".repeat(100))]
        );
        dead.payload = Bytes::from_static(b"\x09nonsense");
        let commands = letter(&dead, Detail::Summary).what.commands;
        assert!(
            commands.first().is_some_and(|text| text.starts_with("unreadable")),
            "{commands:?}"
        );
    }

    #[test]
    fn an_export_selects_databases_and_wraps_transactions() {
        let (mut db, mut out) = (None, Vec::new());
        for record in [
            of(&[&[b"DEL", b"a"]], 0),
            of(&[&[b"DEL", b"b"], &[b"DEL", b"c"]], 0),
            of(&[&[b"DEL", b"d"]], 2),
        ] {
            export(&record, CLOCKS, &mut db, &mut out).unwrap();
        }
        let words: Vec<&str> = std::str::from_utf8(&out)
            .unwrap()
            .split("\r\n")
            .filter(|word| !word.starts_with(['*', '$']))
            .collect();
        assert_eq!(
            words.join(" ").trim(),
            "SELECT 0 DEL a MULTI DEL b DEL c EXEC SELECT 2 DEL d"
        );
    }
}
