//! What the sessions of an upstream remember together of an outage, on whatever worker. Only the path of an outage comes here, and only where
//! a rule asks for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::outage::tainted::Tainted;
use crate::outage::write::StreamIds;

#[derive(Debug, Default)]
pub struct OutageMemory {
    tainted: Mutex<OfOutage>,
    accepted_ids: Mutex<StreamIds>,
}

#[derive(Debug, Default)]
struct OfOutage {
    outage: u64,
    tainted: Tainted,
}

impl OutageMemory {
    /// A key was answered neutrally. `generation` is the worker's: an even one that is about to move counts to the outage after it.
    pub(super) fn taint(&self, generation: u64, db: u32, key: &[u8]) {
        self.of_outage(generation).tainted.add(db, key);
    }

    /// Whether a key was answered neutrally in this outage, or may have been.
    pub(super) fn is_tainted(&self, generation: u64, db: u32, key: &[u8]) -> bool {
        self.of_outage(generation).tainted.has(db, key)
    }

    fn of_outage(&self, generation: u64) -> MutexGuard<'_, OfOutage> {
        let mut known = lock(&self.tainted);
        let outage = generation | 1;
        if outage > known.outage {
            known.outage = outage;
            known.tainted.clear();
        }
        known
    }

    /// The last IDs of streams whose IDs are final.
    pub(super) fn accepted_ids(&self) -> MutexGuard<'_, StreamIds> {
        lock(&self.accepted_ids)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_tainted_until_the_next_outage() {
        let memory = OutageMemory::default();
        memory.taint(2, 0, b"k");
        assert!(memory.is_tainted(3, 0, b"k"));
        assert!(!memory.is_tainted(3, 1, b"k"));
        memory.taint(3, 0, b"l");
        assert!(memory.is_tainted(3, 0, b"k"));
        // A worker that has not looked yet.
        assert!(!memory.is_tainted(5, 0, b"k"));
        memory.taint(3, 0, b"k");
        assert!(memory.is_tainted(5, 0, b"k"));
    }
}
