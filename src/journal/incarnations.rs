//! Which incarnations a journal has had. Each opening is one, and begins some random numbers after the last: two copies of one directory then
//! go on with different ones, and each can tell the other's marker from its own.

use super::format::u64_at;

/// One in so many pairs of copies begins the same. Larger ones would take numbers beyond 2^53, where some readers of JSON round, within some
/// thousand openings.
const JUMP_MAX: u64 = 1 << 8;
/// Kept one by one; before them all numbers count as known.
const KNOWN_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Incarnations {
    /// All from 1 to this one count as known.
    all_upto: u64,
    /// Those after it, ascending.
    later: Vec<u64>,
}

impl Incarnations {
    /// The incarnation of the next append, `seq >> 32`; 0 before the first opening.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.later.last().copied().unwrap_or(self.all_upto)
    }

    /// Whether this journal has ever handed out numbers of that incarnation.
    #[must_use]
    pub fn knows(&self, incarnation: u64) -> bool {
        (1..=self.all_upto).contains(&incarnation) || self.later.binary_search(&incarnation).is_ok()
    }

    /// With the next opening's. Nothing when the numbers are used up.
    pub(super) fn after_opening(&self, random: &[u8; 16]) -> Option<Self> {
        // A fresh directory has a name of its own.
        let jump = match self.current() {
            0 => 1,
            _ => 1 + u64_at(random, 0)?.wrapping_sub(u64_at(random, 8)?) % JUMP_MAX,
        };
        self.after(jump)
    }

    /// With the one that follows at once. Nothing when the numbers are used up.
    pub(super) fn after_renewal(&self) -> Option<Self> {
        self.after(1)
    }

    fn after(&self, jump: u64) -> Option<Self> {
        let mut next = self.clone();
        next.later.push(self.current() + jump);
        if next.later.len() > KNOWN_MAX {
            next.all_upto = next.later.remove(0);
        }
        (next.current() < 1 << 32).then_some(next)
    }

    /// As it stands in the queue file.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.current(), self.all_upto].iter().chain(&self.later) {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// What [`Self::encode`] wrote, or an earlier version, which wrote the highest only.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let all_upto = u64_at(bytes, 8).or_else(|| u64_at(bytes, 0))?;
        let later = bytes.get(16..).unwrap_or_default().chunks_exact(8);
        Some(Self {
            all_upto,
            later: later.map_while(|chunk| u64_at(chunk, 0)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(number: u64) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    #[test]
    fn copies_go_on_with_different_incarnations_and_know_their_common_ones() {
        let common = Incarnations::default().after_opening(&random(99)).unwrap();
        assert_eq!(common.current(), 1);
        let (left, right) = (
            common.after_opening(&random(5)).unwrap(),
            common.after_opening(&random(9)).unwrap(),
        );
        assert_eq!((left.current(), right.current()), (7, 11));
        assert!(left.knows(1) && right.knows(1));
        for unknown in [0, 2, 11, 12] {
            assert!(!left.knows(unknown), "{unknown}");
        }
        assert!(!right.knows(7) && right.knows(11));
        assert!(left.after_renewal().unwrap().knows(8));
    }

    #[test]
    fn what_is_written_is_read_also_that_of_an_earlier_version() {
        let mut incarnations = Incarnations::default();
        for number in 0..5000 {
            incarnations = incarnations.after_opening(&random(number)).unwrap();
            assert!(incarnations.knows(incarnations.current()));
        }
        let mut bytes = Vec::new();
        incarnations.encode(&mut bytes);
        assert!(bytes.len() < 64 << 10);
        assert_eq!(Incarnations::parse(&bytes), Some(incarnations.clone()));
        let old = Incarnations::parse(&bytes[..8]).unwrap();
        assert_eq!(old.current(), incarnations.current());
        assert!(old.knows(1) && old.knows(old.current()) && !old.knows(old.current() + 1));
        assert_eq!(Incarnations::parse(&bytes[..7]), None);
    }

    #[test]
    fn the_numbers_end() {
        let full = Incarnations {
            all_upto: (1 << 32) - 1,
            later: Vec::new(),
        };
        assert_eq!(full.after_renewal(), None);
    }
}
