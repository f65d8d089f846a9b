//! Keys that were answered neutrally in one outage.

use std::hash::{DefaultHasher, Hash, Hasher};

/// 256 KiB, from the first key on.
const BITS: usize = 1 << 21;
/// Bits of one key.
const MARKS: usize = 4;
/// With so many keys one in fifty others is taken for one of them; from then on all are.
const KEYS_MAX: usize = 1 << 18;

/// A bounded set: it may take a key for tainted that is not, never the other way round. When it is full every key is tainted.
#[derive(Debug, Default)]
pub struct Tainted {
    /// Empty, or [`BITS`] of them.
    words: Vec<u64>,
    keys: usize,
}

impl Tainted {
    pub fn add(&mut self, db: u32, key: &[u8]) {
        if self.keys >= KEYS_MAX {
            return;
        }
        if self.words.is_empty() {
            self.words = vec![0; BITS / 64];
        }
        let mut is_new = false;
        for bit in bits(db, key) {
            if let Some(word) = self.words.get_mut(bit / 64) {
                is_new |= *word >> (bit % 64) & 1 == 0;
                *word |= 1 << (bit % 64);
            }
        }
        self.keys += usize::from(is_new);
    }

    #[must_use]
    pub fn has(&self, db: u32, key: &[u8]) -> bool {
        let is_set = |bit: usize| self.words.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1);
        self.keys >= KEYS_MAX || bits(db, key).all(is_set)
    }

    /// The outage has ended.
    pub fn clear(&mut self) {
        self.words.fill(0);
        self.keys = 0;
    }
}

fn bits(db: u32, key: &[u8]) -> impl Iterator<Item = usize> {
    let mut hasher = DefaultHasher::new();
    (db, key).hash(&mut hasher);
    let hash = hasher.finish();
    let (start, step) = (hash as usize, (hash >> 32) as usize | 1);
    (0..MARKS).map(move |mark| start.wrapping_add(step.wrapping_mul(mark)) % BITS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_that_was_added_is_tainted_until_the_end(keys in proptest::collection::vec((0_u32..3, "[a-z]{0,8}"), 0..50)) {
            let mut tainted = Tainted::default();
            for (at, (db, key)) in keys.iter().enumerate() {
                tainted.add(*db, key.as_bytes());
                for (db, key) in &keys[..=at] {
                    prop_assert!(tainted.has(*db, key.as_bytes()));
                }
            }
            tainted.clear();
            prop_assert!(keys.iter().all(|(db, key)| !tainted.has(*db, key.as_bytes())));
        }
    }

    #[test]
    fn others_are_rarely_tainted_until_it_is_full_and_then_all_are() {
        let mut tainted = Tainted::default();
        let others = |tainted: &Tainted| (0..1000).filter(|n| tainted.has(1, format!("o{n}").as_bytes())).count();
        for n in 0..KEYS_MAX / 2 {
            tainted.add(0, format!("k{n}").as_bytes());
        }
        assert!(others(&tainted) < 20);
        for n in 0..2 * KEYS_MAX {
            tainted.add(0, format!("l{n}").as_bytes());
        }
        assert_eq!(others(&tainted), 1000);
        assert_eq!(tainted.words.len() * 64, BITS);
    }
}
