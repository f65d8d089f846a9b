//! Whether what is in Redis is what clients were told. Pure.
//!
//! A client has one command in flight and its values ascend, so that Redis must hold every acknowledged one, each once and in
//! ascending order. An uncertain one may be there or not, at most once and at its place; a refused one must not.

use std::collections::{HashMap, HashSet};

/// What a client was told of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Acknowledged,
    /// It may or may not have been applied.
    Uncertain,
    Refused,
}

/// One write to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) value: u64,
    pub(super) fate: Fate,
}

/// What is wrong; all zero when nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Acknowledged and not there.
    pub(super) lost: usize,
    /// There once more than it was sent.
    pub(super) doubled: usize,
    /// There behind a later one.
    pub(super) out_of_order: usize,
    /// There although refused, or never sent.
    pub(super) unasked: usize,
}

impl Findings {
    pub(super) fn is_clean(self) -> bool {
        self == Self::default()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.unasked += other.unasked;
    }
}

/// Compares a list or a stream.
pub(super) fn sequence(told: &[Told], found: &[u64]) -> Findings {
    let fates: HashMap<u64, Fate> = told.iter().map(|told| (told.value, told.fate)).collect();
    let mut findings = Findings::default();
    let mut seen = HashSet::new();
    let mut newest = None;
    for &value in found {
        match fates.get(&value) {
            None | Some(Fate::Refused) => findings.unasked += 1,
            Some(Fate::Acknowledged | Fate::Uncertain) => {
                if !seen.insert(value) {
                    findings.doubled += 1;
                } else if newest > Some(value) {
                    findings.out_of_order += 1;
                } else {
                    newest = Some(value);
                }
            }
        }
    }
    let is_lost = |told: &&Told| told.fate == Fate::Acknowledged && !seen.contains(&told.value);
    findings.lost = told.iter().filter(is_lost).count();
    findings
}

/// Compares a key that each write overwrites: it holds the last acknowledged value, or a later uncertain one.
pub(super) fn last(told: &[Told], found: Option<u64>) -> Findings {
    let mut findings = Findings::default();
    let due = told
        .iter()
        .rfind(|told| told.fate == Fate::Acknowledged)
        .map(|told| told.value);
    match found {
        None => findings.lost = usize::from(due.is_some()),
        Some(found) => match told.iter().find(|told| told.value == found) {
            None => findings.unasked = 1,
            Some(told) if told.fate == Fate::Refused => findings.unasked = 1,
            // An older one lies over it, or it never came.
            Some(_) if Some(found) < due => findings.lost = 1,
            Some(_) => {}
        },
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` acknowledged, `u` uncertain, `r` refused: the values 0, 1, 2, …
    fn told(fates: &str) -> Vec<Told> {
        let told = |(value, fate)| Told {
            value,
            fate: match fate {
                'a' => Fate::Acknowledged,
                'u' => Fate::Uncertain,
                _ => Fate::Refused,
            },
        };
        (0..).zip(fates.chars()).map(told).collect()
    }

    fn findings(lost: usize, doubled: usize, out_of_order: usize, unasked: usize) -> Findings {
        Findings {
            lost,
            doubled,
            out_of_order,
            unasked,
        }
    }

    #[test]
    fn a_sequence_is_clean_when_every_acknowledged_value_is_there_once_and_in_order() {
        for (fates, found) in [
            ("", [].as_slice()),
            ("aaa", &[0, 1, 2]),
            ("aua", &[0, 1, 2]),
            ("aua", &[0, 2]),
            ("ara", &[0, 2]),
            ("uuu", &[]),
        ] {
            assert!(sequence(&told(fates), found).is_clean(), "{fates} {found:?}");
        }
    }

    #[test]
    fn what_is_lost_doubled_reordered_or_unasked_is_found() {
        for (fates, found, expected) in [
            ("aaa", [0, 2].as_slice(), findings(1, 0, 0, 0)),
            ("aaa", &[], findings(3, 0, 0, 0)),
            ("aaa", &[0, 1, 1, 2], findings(0, 1, 0, 0)),
            ("aaa", &[0, 1, 2, 0], findings(0, 1, 0, 0)),
            ("aaa", &[0, 2, 1], findings(0, 0, 1, 0)),
            ("aua", &[0, 1, 1, 2], findings(0, 1, 0, 0)),
            ("aua", &[0, 2, 1], findings(0, 0, 1, 0)),
            ("ara", &[0, 1, 2], findings(0, 0, 0, 1)),
            ("a", &[0, 9], findings(0, 0, 0, 1)),
            ("aaaa", &[3, 1, 1], findings(2, 1, 1, 0)),
        ] {
            assert_eq!(sequence(&told(fates), found), expected, "{fates} {found:?}");
        }
    }

    #[test]
    fn the_last_value_is_the_last_acknowledged_or_a_later_uncertain_one() {
        for (fates, found, expected) in [
            ("", None, findings(0, 0, 0, 0)),
            ("aa", Some(1), findings(0, 0, 0, 0)),
            ("aau", Some(1), findings(0, 0, 0, 0)),
            ("aau", Some(2), findings(0, 0, 0, 0)),
            ("u", None, findings(0, 0, 0, 0)),
            ("aa", Some(0), findings(1, 0, 0, 0)),
            ("aua", Some(1), findings(1, 0, 0, 0)),
            ("aa", None, findings(1, 0, 0, 0)),
            ("aar", Some(2), findings(0, 0, 0, 1)),
            ("aa", Some(9), findings(0, 0, 0, 1)),
        ] {
            assert_eq!(last(&told(fates), found), expected, "{fates} {found:?}");
        }
    }
}
