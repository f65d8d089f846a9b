//! What a write becomes when it is journaled: its effect, not its wish.

use std::borrow::Cow;

use crate::resp::{Request, write};

/// What may happen when a suffix of the journal is applied a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectKind {
    /// Applying a suffix of such effects again gives the same state.
    Absolute,
    /// Depends on the state it meets (pushes, trims, `XADD *`, NX): applied exactly once or not at all.
    Relative,
}

/// What an effect asks for when it is replayed; where that is not so, its record becomes a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    None,
    /// Nothing; but from then on the keys that it writes are known to hold what this backlog put there.
    Claims,
    /// Its keys do not exist, or hold what this backlog put there.
    CreateOnly,
    /// Its keys exist.
    NeedsKey,
}

/// A time that was relative when the write was accepted: a bulk string with the absolute time (milliseconds) is
/// inserted into the command at replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Byte offset in the command.
    pub offset: u32,
    /// Milliseconds after the acceptance; not positive when it was over from the start (`EXPIRE k -1`).
    pub after_ms: i64,
}

impl Deadline {
    /// The absolute time on the upstream's clock, at least 1 (0 and below is refused by SET … PXAT).
    #[must_use]
    pub fn at_ms(self, age_ms: u64, upstream_now_ms: i64) -> i64 {
        let age_ms = i64::try_from(age_ms).unwrap_or(i64::MAX);
        upstream_now_ms
            .saturating_add(self.after_ms.saturating_sub(age_ms))
            .max(1)
    }
}

/// One command as it is replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect<'a> {
    pub kind: EffectKind,
    /// A RESP array of bulk strings. With a deadline its header counts one bulk string more than it holds.
    pub command: Cow<'a, [u8]>,
    pub deadline: Option<Deadline>,
}

impl<'a> Effect<'a> {
    /// The same with memory of its own.
    #[must_use]
    pub fn into_owned(self) -> Effect<'static> {
        Effect {
            kind: self.kind,
            command: Cow::Owned(self.command.into_owned()),
            deadline: self.deadline,
        }
    }

    /// The request as it came, without a copy.
    #[must_use]
    pub fn verbatim(kind: EffectKind, request: &Request<'a>) -> Self {
        Self {
            kind,
            command: Cow::Borrowed(request.frame()),
            deadline: None,
        }
    }
}

/// Builds a command that differs from its request.
#[derive(Debug)]
pub(crate) struct Rewrite {
    command: Vec<u8>,
    deadline: Option<Deadline>,
}

impl Rewrite {
    /// `args` counts everything that follows, the deadline too; `bytes` is a guess at the length.
    pub(crate) fn new(args: usize, bytes: usize) -> Self {
        let mut command = Vec::with_capacity(bytes);
        write::array(&mut command, args);
        Self {
            command,
            deadline: None,
        }
    }

    pub(crate) fn arg(mut self, payload: &[u8]) -> Self {
        write::bulk(&mut self.command, payload);
        self
    }

    pub(crate) fn args<'b>(self, payloads: impl Iterator<Item = &'b [u8]>) -> Self {
        payloads.fold(self, Self::arg)
    }

    /// The deadline's place is here. At most once per command.
    pub(crate) fn deadline(mut self, after_ms: i64) -> Self {
        self.deadline = Some(Deadline {
            offset: u32::try_from(self.command.len()).unwrap_or(u32::MAX),
            after_ms,
        });
        self
    }

    pub(crate) fn finish(self, kind: EffectKind) -> Effect<'static> {
        Effect {
            kind,
            command: Cow::Owned(self.command),
            deadline: self.deadline,
        }
    }
}
