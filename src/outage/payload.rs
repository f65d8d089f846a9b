//! What a journal record holds: where a write came from, and its effects. The journal sees bytes.
//!
//! ```text
//! byte    version (1)
//! varint  database
//! varint  length of the identity, then its bytes (user name; empty: the URL's credentials)
//! varint  number of effects, at least 1; more than 1: a transaction, replayed as one
//! per effect:
//!   byte    bit 0: relative, bit 1: has a deadline, bits 2 and 3: its guard (0 none, 1 claims, 2 create only, 3 needs its key)
//!   [varint offset in the command, 8 bytes after_ms, little-endian]   with a deadline only
//!   varint  length of the command, then its bytes
//! ```
//! Varints are LEB128, at most 64 bits. Nothing follows the last effect. Checksums are the journal's. Records from before there were guards
//! have none; a version that does not know them keeps guarded records as dead letters, unapplied.

use std::borrow::Cow;

use thiserror::Error;

use super::effect::{Deadline, Effect, EffectKind, Guard};
use crate::resp::write;

const VERSION: u8 = 1;
const RELATIVE: u8 = 1;
const HAS_DEADLINE: u8 = 2;
const GUARD: u8 = 12;
const CLAIMS: u8 = 4;
const CREATE_ONLY: u8 = 8;
const NEEDS_KEY: u8 = 12;

/// The session's side of a record: the database and the identity that it is replayed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    pub db: u32,
    /// User name; empty: the credentials of the upstream's URL.
    pub identity: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    #[error("the record ends too early")]
    Truncated,
    #[error("record format {0} is not known to this version")]
    Version(u8),
    #[error("the record holds a number out of range")]
    Number,
    #[error("the record holds no effect")]
    Empty,
    #[error("unknown flags {0:#04x}")]
    Flags(u8),
    #[error("a deadline stands outside its command")]
    Offset,
    #[error("bytes follow the last effect")]
    Trailing,
}

/// Appends one record's payload to `out`, without guards. `effects` must not be empty.
pub fn encode(origin: Origin<'_>, effects: &[Effect<'_>], out: &mut Vec<u8>) {
    encode_guarded(origin, effects.iter().map(|effect| (effect, Guard::None)), out);
}

/// Appends one record's payload to `out`. `effects` must not be empty.
pub fn encode_guarded<'e, 'c: 'e>(
    origin: Origin<'_>,
    effects: impl ExactSizeIterator<Item = (&'e Effect<'c>, Guard)> + Clone,
    out: &mut Vec<u8>,
) {
    debug_assert!(effects.len() > 0, "a record has at least one effect");
    let commands_bytes: usize = effects.clone().map(|(effect, _)| effect.command.len() + 32).sum();
    out.reserve(commands_bytes + origin.identity.len() + 16);
    out.push(VERSION);
    varint(out, u64::from(origin.db));
    varint(out, origin.identity.len() as u64);
    out.extend_from_slice(origin.identity);
    varint(out, effects.len() as u64);
    for (effect, guard) in effects {
        let relative = match effect.kind {
            EffectKind::Absolute => 0,
            EffectKind::Relative => RELATIVE,
        };
        let flags = relative
            | match guard {
                Guard::None => 0,
                Guard::Claims => CLAIMS,
                Guard::CreateOnly => CREATE_ONLY,
                Guard::NeedsKey => NEEDS_KEY,
            };
        match effect.deadline {
            None => out.push(flags),
            Some(deadline) => {
                out.push(flags | HAS_DEADLINE);
                varint(out, u64::from(deadline.offset));
                out.extend_from_slice(&deadline.after_ms.to_le_bytes());
            }
        }
        varint(out, effect.command.len() as u64);
        out.extend_from_slice(&effect.command);
    }
}

/// Reads what [`encode`] wrote, without a copy; every part is checked, so that the rest cannot fail.
///
/// # Errors
/// Any [`PayloadError`]; no bytes make it panic.
pub fn decode(bytes: &[u8]) -> Result<Payload<'_>, PayloadError> {
    let mut reader = Reader(bytes);
    let version = reader.byte()?;
    if version != VERSION {
        return Err(PayloadError::Version(version));
    }
    let db = u32::try_from(reader.varint()?).map_err(|_| PayloadError::Number)?;
    let identity = reader.counted()?;
    let commands = usize::try_from(reader.varint()?).map_err(|_| PayloadError::Number)?;
    if commands == 0 {
        return Err(PayloadError::Empty);
    }
    let effects = reader.0;
    let mut kind = EffectKind::Absolute;
    let mut is_guarded = false;
    for _ in 0..commands {
        let (effect, guard) = reader.effect()?;
        if effect.kind == EffectKind::Relative {
            kind = EffectKind::Relative;
        }
        is_guarded |= guard != Guard::None;
    }
    if !reader.0.is_empty() {
        return Err(PayloadError::Trailing);
    }
    Ok(Payload {
        origin: Origin { db, identity },
        commands,
        kind,
        is_guarded,
        effects,
    })
}

/// A record's payload, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    origin: Origin<'a>,
    commands: usize,
    kind: EffectKind,
    is_guarded: bool,
    effects: &'a [u8],
}

impl<'a> Payload<'a> {
    #[must_use]
    pub fn origin(&self) -> Origin<'a> {
        self.origin
    }

    #[must_use]
    pub fn db(&self) -> u32 {
        self.origin.db
    }

    #[must_use]
    pub fn identity(&self) -> &'a [u8] {
        self.origin.identity
    }

    /// Number of commands, at least 1.
    #[must_use]
    pub fn commands(&self) -> usize {
        self.commands
    }

    /// Whether the client sent several commands as one MULTI.
    #[must_use]
    pub fn is_transaction(&self) -> bool {
        self.commands > 1
    }

    /// Relative if any of its effects is.
    #[must_use]
    pub fn kind(&self) -> EffectKind {
        self.kind
    }

    /// Whether any of its effects asks for something at replay.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.is_guarded
    }

    /// The effects in order.
    pub fn effects(&self) -> impl Iterator<Item = Effect<'a>> + use<'a> {
        self.guarded_effects().map(|(effect, _)| effect)
    }

    /// The effects in order, each with what it asks for.
    pub fn guarded_effects(&self) -> impl Iterator<Item = (Effect<'a>, Guard)> + use<'a> {
        let mut reader = Reader(self.effects);
        std::iter::from_fn(move || reader.effect().ok())
    }

    /// The commands' names as sent, for logs.
    pub fn names(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        self.effects().map(|effect| match effect.command {
            Cow::Borrowed(command) => String::from_utf8_lossy(first_bulk(command)),
            Cow::Owned(command) => Cow::Owned(String::from_utf8_lossy(first_bulk(&command)).into_owned()),
        })
    }

    /// Entries of streams whose IDs the upstream gives when they are replayed: others than their clients were told.
    #[must_use]
    pub fn provisional_ids(&self) -> usize {
        let relative = self.effects().filter(|effect| effect.kind == EffectKind::Relative);
        relative
            .filter(|effect| first_bulk(&effect.command).eq_ignore_ascii_case(b"XADD"))
            .count()
    }

    /// Appends the commands as they are sent: deadlines as absolute milliseconds on the upstream's clock, never below 1.
    pub fn render(&self, age_ms: u64, upstream_now_ms: i64, out: &mut Vec<u8>) {
        out.reserve(self.effects.len());
        for effect in self.effects() {
            render(&effect, age_ms, upstream_now_ms, out);
        }
    }
}

/// Appends one command as it is sent. The deadline's place must be inside the command.
pub fn render(effect: &Effect<'_>, age_ms: u64, upstream_now_ms: i64, out: &mut Vec<u8>) {
    let Some(deadline) = effect.deadline else {
        out.extend_from_slice(&effect.command);
        return;
    };
    let (head, tail) = effect.command.split_at(deadline.offset as usize);
    out.extend_from_slice(head);
    bulk_decimal(out, deadline.at_ms(age_ms, upstream_now_ms));
    out.extend_from_slice(tail);
}

/// `$len n`, without a temporary buffer; `n` is positive.
fn bulk_decimal(out: &mut Vec<u8>, n: i64) {
    let len = n.checked_ilog10().map_or(1, |log| i64::from(log) + 1);
    out.push(b'$');
    write::decimal(out, len);
    out.extend_from_slice(b"\r\n");
    write::decimal(out, n);
    out.extend_from_slice(b"\r\n");
}

/// The payload of the first bulk string of a RESP array; empty when there is none.
fn first_bulk(command: &[u8]) -> &[u8] {
    command
        .split(|byte| *byte == b'\n')
        .nth(2)
        .map_or(&[], <[u8]>::trim_ascii_end)
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], PayloadError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(PayloadError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, PayloadError> {
        let (first, tail) = self.0.split_first().ok_or(PayloadError::Truncated)?;
        self.0 = tail;
        Ok(*first)
    }

    fn varint(&mut self) -> Result<u64, PayloadError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(PayloadError::Number);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(PayloadError::Number)
    }

    fn counted(&mut self) -> Result<&'a [u8], PayloadError> {
        let len = usize::try_from(self.varint()?).map_err(|_| PayloadError::Truncated)?;
        self.take(len)
    }

    fn effect(&mut self) -> Result<(Effect<'a>, Guard), PayloadError> {
        let flags = self.byte()?;
        if flags & !(RELATIVE | HAS_DEADLINE | GUARD) != 0 {
            return Err(PayloadError::Flags(flags));
        }
        let guard = match flags & GUARD {
            CLAIMS => Guard::Claims,
            CREATE_ONLY => Guard::CreateOnly,
            NEEDS_KEY => Guard::NeedsKey,
            _ => Guard::None,
        };
        let deadline = if flags & HAS_DEADLINE == 0 {
            None
        } else {
            let offset = u32::try_from(self.varint()?).map_err(|_| PayloadError::Number)?;
            let mut after_ms = [0; 8];
            after_ms.copy_from_slice(self.take(8)?);
            Some(Deadline {
                offset,
                after_ms: i64::from_le_bytes(after_ms),
            })
        };
        let command = self.counted()?;
        if deadline.is_some_and(|deadline| deadline.offset as usize > command.len()) {
            return Err(PayloadError::Offset);
        }
        let effect = Effect {
            kind: if flags & RELATIVE == 0 {
                EffectKind::Absolute
            } else {
                EffectKind::Relative
            },
            command: Cow::Borrowed(command),
            deadline,
        };
        Ok((effect, guard))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn effect() -> impl Strategy<Value = Effect<'static>> {
        let command = proptest::collection::vec(any::<u8>(), 0..80);
        (
            any::<bool>(),
            command,
            proptest::option::of((any::<u32>(), any::<i64>())),
        )
            .prop_map(|(relative, command, deadline)| Effect {
                kind: if relative {
                    EffectKind::Relative
                } else {
                    EffectKind::Absolute
                },
                deadline: deadline.map(|(offset, after_ms)| Deadline {
                    offset: offset % (u32::try_from(command.len()).unwrap() + 1),
                    after_ms,
                }),
                command: Cow::Owned(command),
            })
    }

    fn guard() -> impl Strategy<Value = Guard> {
        proptest::sample::select(vec![Guard::None, Guard::Claims, Guard::CreateOnly, Guard::NeedsKey])
    }

    #[test]
    fn a_record_from_before_there_were_guards_has_none() {
        let old = b"\x01\x03\x00\x01\x01\x14*1\r\n$10\r\nFLUSHALLXX\r\n";
        let mut bytes = old.to_vec();
        bytes[5] = u8::try_from(old.len() - 6).unwrap();
        let payload = decode(&bytes).unwrap();
        assert!(!payload.is_guarded());
        assert_eq!((payload.db(), payload.kind()), (3, EffectKind::Relative));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_and_no_prefix_of_it(
            db in any::<u32>(),
            identity in proptest::collection::vec(any::<u8>(), 0..300),
            guarded in proptest::collection::vec((effect(), guard()), 1..6),
        ) {
            let mut bytes = Vec::new();
            let origin = Origin { db, identity: &identity };
            encode_guarded(origin, guarded.iter().map(|(effect, guard)| (effect, *guard)), &mut bytes);
            let effects: Vec<Effect<'_>> = guarded.iter().map(|(effect, _)| effect.clone()).collect();
            let payload = decode(&bytes).unwrap();
            prop_assert_eq!(payload.origin(), origin);
            prop_assert_eq!(payload.commands(), effects.len());
            prop_assert_eq!(payload.is_transaction(), effects.len() > 1);
            prop_assert_eq!(payload.effects().collect::<Vec<_>>(), effects.clone());
            let relative = effects.iter().any(|effect| effect.kind == EffectKind::Relative);
            prop_assert_eq!(payload.kind() == EffectKind::Relative, relative);
            prop_assert_eq!(payload.guarded_effects().collect::<Vec<_>>(), guarded.clone());
            prop_assert_eq!(payload.is_guarded(), guarded.iter().any(|(_, guard)| *guard != Guard::None));
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end]).is_err(), "a prefix of {} bytes was accepted", end);
            }
            bytes.push(0);
            prop_assert_eq!(decode(&bytes), Err(PayloadError::Trailing));
        }

        #[test]
        fn no_bytes_make_decode_or_render_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            age_ms in any::<u64>(),
            now_ms in any::<i64>(),
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Ok(payload) = decode(&bytes) {
                let mut out = Vec::new();
                payload.render(age_ms, now_ms, &mut out);
                prop_assert_eq!(payload.names().count(), payload.commands());
            }
        }
    }

    fn rendered(after_ms: i64, age_ms: u64, now_ms: i64) -> String {
        let effect = super::super::effect::Rewrite::new(5, 0)
            .args([b"SET".as_slice(), b"k", b"v", b"PXAT"].into_iter())
            .deadline(after_ms)
            .finish(EffectKind::Absolute);
        let mut bytes = Vec::new();
        encode(Origin { db: 3, identity: b"" }, &[effect], &mut bytes);
        let mut out = Vec::new();
        let payload = decode(&bytes).unwrap();
        assert_eq!(payload.names().collect::<Vec<_>>(), ["SET"]);
        payload.render(age_ms, now_ms, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_deadline_becomes_the_upstreams_time_less_the_age() {
        let head = "*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n$4\r\nPXAT\r\n";
        assert_eq!(rendered(10_000, 4_000, 1_000_000), format!("{head}$7\r\n1006000\r\n"));
        assert_eq!(rendered(10_000, 4_000_000, 1_000_000), format!("{head}$1\r\n1\r\n"));
        assert_eq!(rendered(i64::MIN, u64::MAX, 0), format!("{head}$1\r\n1\r\n"));
        assert_eq!(
            rendered(i64::MAX, 0, i64::MAX),
            format!("{head}$19\r\n{}\r\n", i64::MAX)
        );
    }

    #[test]
    fn another_format_is_named() {
        assert_eq!(decode(&[9, 0, 0, 1, 0, 0]), Err(PayloadError::Version(9)));
        assert_eq!(decode(&[1, 0, 0, 0]), Err(PayloadError::Empty));
        assert_eq!(decode(&[1, 0, 0, 1, 16, 0]), Err(PayloadError::Flags(16)));
    }
}
