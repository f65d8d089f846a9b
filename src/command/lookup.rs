//! A request's row in the table: one hash of its name in upper case, no allocation.

use super::{Name, Spec, TABLE};
use crate::resp::Request;

/// Longest word of any name in the table, rounded up to whole integers.
const WORD_BYTES_MAX: usize = 24;
const SLOTS: usize = 1024;
const NO_ROW: u16 = u16::MAX;
/// Odd; of some thousand tried, the one with which the fewest names miss their own slot.
const SPREAD: u64 = 0x412c_b34e_f260_4f53;

/// One word of a name in upper case, as integers.
#[derive(Clone, Copy)]
struct Word {
    parts: [u64; WORD_BYTES_MAX / 8],
    len: u8,
}

#[derive(Clone, Copy)]
struct Slot {
    word: Word,
    /// 0 for a command, 1 + the container's row for a subcommand.
    within: u16,
    row: u16,
    has_subcommands: bool,
}

static INDEX: [Slot; SLOTS] = build();

/// The row of a request: that of the subcommand where there is one, that of the container where its subcommand is
/// missing or unknown, nothing for an unknown name. Letter case does not matter.
#[must_use]
#[inline]
pub fn lookup(request: &Request<'_>) -> Option<&'static Spec> {
    let slot = find(request.arg(0), 0)?;
    if slot.has_subcommands
        && let Some(subcommand) = request.get(1)
        && let Some(inner) = find(subcommand, slot.row + 1)
    {
        return TABLE.get(usize::from(inner.row));
    }
    TABLE.get(usize::from(slot.row))
}

/// The row of a command (`GET`) or a subcommand (`CLIENT ID`, one space) by its full name, in any letter case: for names in configurations.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Spec> {
    let (first, second) = match name.split_once(' ') {
        Some((first, second)) => (first, Some(second)),
        None => (name, None),
    };
    let slot = find(first.as_bytes(), 0)?;
    let row = match second {
        Some(second) => find(second.as_bytes(), slot.row + 1)?.row,
        None => slot.row,
    };
    TABLE.get(usize::from(row))
}

/// Whether the row only groups subcommands: a request that comes with it has none, or an unknown one.
/// COMMAND, which is complete without, counts too.
#[must_use]
pub const fn is_container(name: Name) -> bool {
    use Name::*;
    matches!(
        name,
        Acl | Client
            | Cluster
            | Command
            | Commandlog
            | Config
            | Function
            | Latency
            | Memory
            | Module
            | Object
            | Pubsub
            | Script
            | Slowlog
            | Xgroup
            | Xinfo
    )
}

#[inline]
fn find(word: &[u8], within: u16) -> Option<&'static Slot> {
    let word = Word::of(word)?;
    let mut at = word.slot(within);
    loop {
        let slot = &INDEX[at];
        if slot.word.is(&word) && slot.within == within {
            return Some(slot);
        }
        if slot.row == NO_ROW {
            return None;
        }
        at = (at + 1) % SLOTS;
    }
}

impl Word {
    const EMPTY: Self = Self {
        parts: [0; WORD_BYTES_MAX / 8],
        len: 0,
    };

    #[inline]
    fn of(bytes: &[u8]) -> Option<Self> {
        let mut parts = [0; WORD_BYTES_MAX / 8];
        if bytes.len() > WORD_BYTES_MAX {
            return None;
        }
        let len = u8::try_from(bytes.len()).ok()?;
        let mut rest = bytes;
        for part in &mut parts {
            let Some((eight, behind)) = rest.split_first_chunk() else {
                *part = upper(load(rest));
                break;
            };
            *part = upper(u64::from_le_bytes(*eight));
            rest = behind;
        }
        Some(Self { parts, len })
    }

    /// Without a call to compare memory, which arrays of this size would get.
    #[inline]
    fn is(&self, other: &Self) -> bool {
        let [a, b, c] = self.parts;
        let [x, y, z] = other.parts;
        (a ^ x) | (b ^ y) | (c ^ z) | u64::from(self.len ^ other.len) == 0
    }

    const fn of_table(name: &str, first: usize, end: usize) -> Self {
        let mut word = Self::EMPTY;
        let mut at = first;
        while at < end {
            let index = at - first;
            word.parts[index / 8] |= (name.as_bytes()[at] as u64) << (8 * (index % 8));
            word.len += 1;
            at += 1;
        }
        word
    }

    const fn slot(&self, within: u16) -> usize {
        let [a, b, c] = self.parts;
        let mixed = a ^ b.rotate_left(21) ^ c.rotate_left(42) ^ (within as u64).wrapping_mul(SPREAD);
        (mixed.wrapping_mul(SPREAD) >> (u64::BITS - SLOTS.trailing_zeros())) as usize
    }
}

/// Fewer than eight bytes as a little-endian integer, zero behind the end, without a byte loop: the halves overlap.
#[inline]
fn load(bytes: &[u8]) -> u64 {
    match bytes {
        [a, b, c, d, ..] => {
            let low = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
            let high = match bytes.last_chunk::<4>() {
                Some(last) => u64::from(u32::from_le_bytes(*last)),
                None => 0,
            };
            low | high << (8 * (bytes.len() - 4))
        }
        [a, b, c] => u64::from(*a) | u64::from(*b) << 8 | u64::from(*c) << 16,
        [a, b] => u64::from(*a) | u64::from(*b) << 8,
        [a] => u64::from(*a),
        [] => 0,
    }
}

/// Upper-cases the ASCII letters of eight bytes at once: bit 7 of `is_lower` is set where a byte is `a..=z`, and a quarter of it is the case bit.
const fn upper(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low7 = bytes & (EACH * 0x7f);
    let from_a = low7 + EACH * (0x80 - b'a' as u64);
    let past_z = low7 + EACH * (0x80 - b'z' as u64 - 1);
    let is_lower = from_a & !past_z & !bytes & (EACH * 0x80);
    bytes ^ (is_lower >> 2)
}

const fn build() -> [Slot; SLOTS] {
    let empty = Slot {
        word: Word::EMPTY,
        within: u16::MAX,
        row: NO_ROW,
        has_subcommands: false,
    };
    let mut index = [empty; SLOTS];
    let mut container = 0;
    let mut row = 0;
    while row < TABLE.len() {
        let name = TABLE[row].name;
        let space = first_space(name);
        // A container stands before its subcommands in the sorted table.
        let (word, within) = if space == name.len() {
            if is_container(TABLE[row].id) {
                container = row;
            }
            (Word::of_table(name, 0, name.len()), 0)
        } else {
            (Word::of_table(name, space + 1, name.len()), container as u16 + 1)
        };
        let mut at = word.slot(within);
        while index[at].row != NO_ROW {
            at = (at + 1) % SLOTS;
        }
        index[at] = Slot {
            word,
            within,
            row: row as u16,
            has_subcommands: is_container(TABLE[row].id),
        };
        row += 1;
    }
    index
}

const fn first_space(name: &str) -> usize {
    let mut at = 0;
    while at < name.len() && name.as_bytes()[at] != b' ' {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::request::OwnedRequest;

    fn name_of(args: &[&str]) -> Option<&'static str> {
        lookup(&OwnedRequest::new(args).as_request()).map(|spec| spec.name)
    }

    fn mixed(name: &str) -> String {
        name.char_indices()
            .map(|(at, c)| if at % 2 == 0 { c.to_ascii_lowercase() } else { c })
            .collect()
    }

    #[test]
    fn every_row_is_found_in_any_letter_case() {
        for (row, spec) in TABLE.iter().enumerate() {
            assert_eq!(spec.id as usize, row, "{}", spec.name);
            for written in [spec.name.to_owned(), spec.name.to_lowercase(), mixed(spec.name)] {
                let words: Vec<&str> = written.split(' ').collect();
                assert_eq!(name_of(&words), Some(spec.name), "{written}");
                assert_eq!(by_name(&written).map(|found| found.id), Some(spec.id), "{written}");
            }
        }
    }

    #[test]
    fn names_stand_near_their_own_slot() {
        let steps = |spec: &Spec| {
            let slot = INDEX.iter().position(|slot| slot.row == spec.id as u16).unwrap();
            (slot + SLOTS - INDEX[slot].word.slot(INDEX[slot].within)) % SLOTS
        };
        assert!(TABLE.iter().all(|spec| steps(spec) <= 4));
        assert!(TABLE.iter().map(steps).sum::<usize>() < TABLE.len() / 4);
    }

    #[test]
    fn containers_are_exactly_the_rows_with_subcommands() {
        for spec in TABLE {
            let prefix = format!("{} ", spec.name);
            let has_rows = TABLE.iter().any(|other| other.name.starts_with(&prefix));
            assert_eq!(is_container(spec.id), has_rows, "{}", spec.name);
        }
    }

    #[test]
    fn unknown_names_are_not_found() {
        for name in [
            "",
            " ",
            " ID",
            "G",
            "GETT",
            "GE",
            "GET ",
            "GET\0",
            "\0GET",
            "ID",
            "CLIENT ID",
            "GEORADIUSBYMEMBER_ROXXXXXXXXX",
            "g\u{e9}t",
            "[ET",
            "GE{",
        ] {
            assert_eq!(name_of(&[name, "x"]), None, "{name:?}");
            assert!(name == "CLIENT ID" || by_name(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn a_missing_or_unknown_subcommand_yields_the_container() {
        assert_eq!(name_of(&["client"]), Some("CLIENT"));
        assert_eq!(name_of(&["client", "usage"]), Some("CLIENT"));
        assert_eq!(name_of(&["memory", "usage"]), Some("MEMORY USAGE"));
        assert_eq!(name_of(&["get", "id"]), Some("GET"));
    }

    #[test]
    fn upper_touches_ascii_letters_only() {
        for byte in 0..=u8::MAX {
            let word = u64::from_le_bytes([byte; 8]);
            assert_eq!(upper(word).to_le_bytes(), [byte.to_ascii_uppercase(); 8], "{byte}");
        }
    }
}
