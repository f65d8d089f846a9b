//! The command table as data, and where a command's keys are. Pure.

mod keys;
mod learned;
mod lookup;
mod placement;
mod refused;
mod table;

pub use keys::{for_each_key, sort_destination};
pub use learned::{Entry, Learned, LearnedCommand};
pub use lookup::{by_name, is_container, lookup};
pub use placement::{Blocks, InFlight, Placement, blocks, in_flight, placement};
pub use refused::{name_in_errors, refusal_code, refused, wrong_arity};
pub use table::{Name, TABLE};

use crate::resp::Request;

/// What `COMMAND INFO` says of a command, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($name:ident = $bit:literal),* $(,)?) => { $(pub const $name: Self = Self(1 << $bit);)* };
}

impl Flags {
    pub const EMPTY: Self = Self(0);
    flags! {
        ADMIN = 0, ALLOW_BUSY = 1, ASKING = 2, BLOCKING = 3, DENYOOM = 4, FAST = 5, LOADING = 6, MAY_REPLICATE = 7,
        NOSCRIPT = 8, NO_AUTH = 9, NO_MANDATORY_KEYS = 10, NO_MULTI = 11, PROTECTED = 12, PUBSUB = 13, READONLY = 14,
        SKIP_MONITOR = 15, SKIP_SLOWLOG = 16, STALE = 17, TOUCHES_ARBITRARY_KEYS = 18, WRITE = 19,
    }

    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Where keys stand among the arguments; positions count the command's name (both words of a subcommand) as 0 (and 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySpec {
    /// First, last (negative: from the end, -1 is the last argument), step.
    Range(usize, isize, usize),
    /// Position of the number of keys, position of the first key, step.
    Counted(usize, usize, usize),
    /// After a keyword, searched from a position (negative: backwards, from that far before the end): from the keyword's successor to
    /// last (0 is the successor itself; negative: from the end, as in `Range`), step.
    After(&'static str, isize, isize, usize),
    /// After a keyword, searched from a position: the first half of what follows.
    Streams(&'static str, usize),
    /// Not to be told from the arguments by rule (SORT … BY/GET). The destination of SORT … STORE is found nevertheless.
    Unknown,
}

/// One line of the table.
#[derive(Debug)]
pub struct Spec {
    pub id: Name,
    /// Upper case, words separated by a space.
    pub name: &'static str,
    /// As `COMMAND INFO`: exact, or a minimum when negative.
    pub arity: i8,
    pub flags: Flags,
    pub keys: &'static [KeySpec],
}

/// Whether the number of arguments is one that Redis accepts.
#[must_use]
pub fn arity_ok(spec: &Spec, request: &Request<'_>) -> bool {
    let len = request.len();
    let bound = usize::from(spec.arity.unsigned_abs());
    if spec.arity < 0 { len >= bound } else { len == bound }
}
