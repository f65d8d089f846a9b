//! Which incarnations a journal has had. Each opening is one. Its ordinal, the upper half of its records' numbers, is the next one, so that the
//! numbers last, and two copies of one directory go on with the same. Its name is drawn, so that each of them can tell the other's marker from
//! its own.

use super::format::u64_at;

/// So many names are kept; which were before them nobody knows any more.
const KEPT_MAX: usize = 4096;
/// The highest bit of every drawn name. Beyond it some readers of JSON round; and no name is below 2^32, where earlier versions, which drew none,
/// wrote the ordinal in its place.
const NAME_TOP_BIT: u64 = 1 << 52;

/// Whose a record's number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incarnation {
    /// No opening of this journal; perhaps one of a copy.
    Unknown,
    /// So old that its name is not kept: perhaps one of a copy. It must not be what says that a record is done.
    Forgotten,
    /// An earlier opening: its last records may have gone with the host while the upstream kept their effects.
    Past,
    Current,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Incarnations {
    /// The names of all ordinals from 1 to this one are forgotten.
    forgotten_upto: u64,
    /// Those after it, ascending.
    kept: Vec<Kept>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    ordinal: u64,
    name: u64,
}

impl Kept {
    /// Of an earlier version.
    fn unnamed(ordinal: u64) -> Self {
        Self { ordinal, name: ordinal }
    }
}

impl Incarnations {
    /// The ordinal of the next append, `seq >> 32`; 0 before the first opening.
    #[must_use]
    pub fn current_ordinal(&self) -> u64 {
        self.kept.last().map_or(self.forgotten_upto, |kept| kept.ordinal)
    }

    /// The name that goes with a record's number. Where its own is forgotten, or it was renewed since this was asked for, the current one.
    #[must_use]
    pub fn name_of(&self, seq: u64) -> u64 {
        let own = self.kept.binary_search_by_key(&(seq >> 32), |kept| kept.ordinal);
        let kept = own.ok().and_then(|at| self.kept.get(at)).or(self.kept.last());
        kept.map_or(0, |kept| kept.name)
    }

    /// Whose a number is that came with this name.
    #[must_use]
    pub fn judge(&self, name: u64, seq: u64) -> Incarnation {
        let ordinal = seq >> 32;
        let is_of = |kept: &Kept| kept.name == name;
        if self.kept.last().is_some_and(is_of) && ordinal >= self.current_ordinal() {
            Incarnation::Current
        } else if (1..=self.forgotten_upto).contains(&ordinal) {
            // See [`Self::name_of`].
            if self.kept.iter().any(is_of) {
                Incarnation::Past
            } else {
                Incarnation::Forgotten
            }
        } else if self.kept.contains(&Kept { ordinal, name }) {
            Incarnation::Past
        } else {
            Incarnation::Unknown
        }
    }

    /// With the next opening's. Nothing when the numbers are used up.
    pub(crate) fn after_opening(&self, random: &[u8; 16]) -> Option<Self> {
        match self.current_ordinal() {
            // A fresh directory has a queue id of its own.
            0 => self.after(1),
            _ => self.after(NAME_TOP_BIT | (u64_at(random, 0)? % NAME_TOP_BIT)),
        }
    }

    /// With the one that follows at once. Nothing when the numbers are used up. It keeps the name, which no copy has for what comes after the
    /// copying: that begins with an opening.
    pub(super) fn after_renewal(&self) -> Option<Self> {
        self.after(self.kept.last()?.name)
    }

    fn after(&self, name: u64) -> Option<Self> {
        let mut next = self.clone();
        let ordinal = self.current_ordinal() + 1;
        next.kept.push(Kept { ordinal, name });
        if next.kept.len() > KEPT_MAX {
            next.forgotten_upto = next.kept.remove(0).ordinal;
        }
        (ordinal < 1 << 32).then_some(next)
    }

    /// As it stands in the queue file.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let kept = self.kept.iter().flat_map(|kept| [kept.ordinal, kept.name]);
        for number in std::iter::once(self.forgotten_upto).chain(kept) {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// What [`Self::encode`] wrote.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (forgotten_upto, kept) = bytes.split_first_chunk()?;
        let kept = kept.chunks_exact(16).map(|chunk| {
            let (ordinal, name) = (u64_at(chunk, 0)?, u64_at(chunk, 8)?);
            Some(Kept { ordinal, name })
        });
        Some(Self {
            forgotten_upto: u64::from_le_bytes(*forgotten_upto),
            kept: kept.collect::<Option<_>>()?,
        })
    }

    /// What earlier versions wrote, which had no names: the newest, up to which one they were not kept one by one, and the later ones; or the
    /// newest only.
    pub(super) fn parse_unnamed(bytes: &[u8]) -> Option<Self> {
        let newest = u64_at(bytes, 0)?;
        let later = bytes.get(16..).unwrap_or_default().chunks_exact(8);
        let kept: Vec<Kept> = later.filter_map(|chunk| u64_at(chunk, 0)).map(Kept::unnamed).collect();
        if kept.is_empty() {
            return Some(Self {
                forgotten_upto: newest.checked_sub(1)?,
                kept: vec![Kept::unnamed(newest)],
            });
        }
        Some(Self {
            forgotten_upto: u64_at(bytes, 8)?,
            kept,
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

    fn opened(times: u64) -> Incarnations {
        let begin = Incarnations::default();
        (1..=times).fold(begin, |last, number| last.after_opening(&random(number)).unwrap())
    }

    fn seq(ordinal: u64) -> u64 {
        (ordinal << 32) + 5
    }

    #[track_caller]
    fn check(incarnations: &Incarnations, name: u64, ordinal: u64, expected: Incarnation) {
        assert_eq!(incarnations.judge(name, seq(ordinal)), expected, "{name} {ordinal}");
    }

    #[test]
    fn copies_go_on_with_different_incarnations_and_know_their_common_ones() {
        let common = opened(2);
        let copies = [70, 71].map(|number| common.after_opening(&random(number)).unwrap());
        for (own, other) in [(&copies[0], &copies[1]), (&copies[1], &copies[0])] {
            assert_eq!(own.current_ordinal(), 3);
            check(own, own.name_of(seq(3)), 3, Incarnation::Current);
            for ordinal in 1..=2 {
                assert_eq!(own.name_of(seq(ordinal)), other.name_of(seq(ordinal)));
                check(own, other.name_of(seq(ordinal)), ordinal, Incarnation::Past);
            }
            // Neither the other's number nor a mixture of what is known.
            for (name, ordinal) in [(other.name_of(seq(3)), 3), (3, 3), (1, 2), (1, 3), (0, 0), (1, 0)] {
                check(own, name, ordinal, Incarnation::Unknown);
            }
        }
    }

    #[test]
    fn a_renewal_is_of_the_opening_and_of_no_copy() {
        let before = opened(2);
        let (renewed, copy) = (
            before.after_renewal().unwrap(),
            before.after_opening(&random(70)).unwrap(),
        );
        assert_eq!((renewed.current_ordinal(), copy.current_ordinal()), (3, 3));
        let name = before.name_of(seq(2));
        assert_eq!(renewed.name_of(seq(3)), name);
        check(&renewed, name, 3, Incarnation::Current);
        check(&renewed, name, 2, Incarnation::Past);
        check(&copy, name, 3, Incarnation::Unknown);
        check(&renewed, copy.name_of(seq(3)), 3, Incarnation::Unknown);
        // Who asked before the renewal names it rightly, and knows it again.
        assert_eq!(before.name_of(seq(3)), name);
        check(&before, name, 3, Incarnation::Current);
    }

    #[test]
    fn names_are_neither_ordinals_nor_rounded() {
        for number in [0, 1, u64::MAX] {
            let name = opened(1).after_opening(&random(number)).unwrap().name_of(seq(2));
            assert!((1 << 52..1 << 53).contains(&name), "{name}");
        }
    }

    #[test]
    fn a_forgotten_name_is_not_taken_for_ours_but_what_is_written_in_its_place_is() {
        let (early, late) = (opened(10), opened(KEPT_MAX as u64 + 10));
        assert_eq!((late.current_ordinal(), late.kept.len()), (4106, KEPT_MAX));
        for ordinal in 1..=10 {
            check(&late, early.name_of(seq(ordinal)), ordinal, Incarnation::Forgotten);
            check(&late, late.name_of(seq(ordinal)), ordinal, Incarnation::Past);
        }
        check(&late, late.name_of(seq(11)), 11, Incarnation::Past);
        check(&late, 11, 11, Incarnation::Unknown);
        let later = late.after_opening(&random(0)).unwrap();
        check(&later, late.name_of(seq(3)), 3, Incarnation::Past);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut incarnations = Incarnations::default();
        for number in 0..5000 {
            incarnations = incarnations.after_opening(&random(number)).unwrap();
            if !number.is_multiple_of(500) {
                continue;
            }
            let mut bytes = Vec::new();
            incarnations.encode(&mut bytes);
            assert!(bytes.len() < 65 << 10);
            assert_eq!(Incarnations::parse(&bytes), Some(incarnations.clone()));
        }
        assert_eq!(Incarnations::parse(&[0; 7]), None);
    }

    #[test]
    fn what_earlier_versions_wrote_is_read_with_the_ordinals_as_names() {
        let bytes: Vec<u8> = [9_u64, 3, 5, 9]
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let old = Incarnations::parse_unnamed(&bytes).unwrap();
        let opened = old.after_opening(&random(70)).unwrap();
        assert_eq!(opened.current_ordinal(), 10);
        for ordinal in [5, 9] {
            assert_eq!(opened.name_of(seq(ordinal)), ordinal);
            check(&opened, ordinal, ordinal, Incarnation::Past);
        }
        check(&opened, 3, 3, Incarnation::Forgotten);
        for ordinal in [4, 6, 10, 11] {
            check(&opened, ordinal, ordinal, Incarnation::Unknown);
        }
        let newest_only = Incarnations::parse_unnamed(&bytes[..8]).unwrap();
        check(&newest_only, 9, 9, Incarnation::Current);
        check(&newest_only, 8, 8, Incarnation::Forgotten);
        assert_eq!(newest_only.after_opening(&random(70)).unwrap().current_ordinal(), 10);
        assert_eq!(Incarnations::parse_unnamed(&bytes[..7]), None);
    }

    #[test]
    fn the_numbers_end() {
        let full = Incarnations {
            forgotten_upto: 0,
            kept: vec![Kept::unnamed((1 << 32) - 1)],
        };
        assert_eq!(full.after_renewal(), None);
        assert_eq!(full.after_opening(&random(0)), None);
    }
}
