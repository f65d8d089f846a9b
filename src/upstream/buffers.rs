//! Buffers for replies on their way to clients. The sessions of a worker share them, so that a busy one allocates nothing and an idle one
//! holds nothing.

use std::cell::{Cell, RefCell};

/// Buffers that are kept.
const KEPT_MAX: usize = 256;
/// A larger one is given back to the system.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// See the module. Lent last in, first out, so that those that are not needed are the ones at the bottom.
#[derive(Debug, Default)]
pub struct Buffers {
    free: RefCell<Vec<Vec<u8>>>,
    /// The fewest that were free at once since [`Buffers::shed`].
    unused: Cell<usize>,
}

impl Buffers {
    /// An empty one.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        let mut free = self.free.borrow_mut();
        let buffer = free.pop().unwrap_or_default();
        self.unused.set(self.unused.get().min(free.len()));
        buffer
    }

    pub fn give(&self, mut buffer: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if buffer.capacity() > 0 && buffer.capacity() <= BUFFER_BYTES_MAX && free.len() < KEPT_MAX {
            buffer.clear();
            free.push(buffer);
        }
    }

    /// Gives those back to the system that were not needed since the last call.
    pub fn shed(&self) {
        let mut free = self.free.borrow_mut();
        let unused = self.unused.get().min(free.len());
        free.drain(..unused);
        self.unused.set(free.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_kept_and_the_rest_is_shed() {
        let buffers = Buffers::default();
        let lent: Vec<Vec<u8>> = (0..10).map(|_| Vec::with_capacity(100)).collect();
        lent.into_iter().for_each(|buffer| buffers.give(buffer));
        // Nothing is known of them yet.
        buffers.shed();
        assert_eq!(buffers.free.borrow().len(), 10);
        for _ in 0..3 {
            let two = [buffers.take(), buffers.take()];
            assert!(two.iter().all(|buffer| buffer.is_empty() && buffer.capacity() == 100));
            two.into_iter().for_each(|buffer| buffers.give(buffer));
        }
        buffers.shed();
        assert_eq!(buffers.free.borrow().len(), 2);
        buffers.shed();
        assert_eq!(buffers.free.borrow().len(), 0);
        buffers.give(Vec::with_capacity(BUFFER_BYTES_MAX + 1));
        buffers.give(Vec::new());
        assert_eq!(buffers.free.borrow().len(), 0);
        assert_eq!(buffers.take().capacity(), 0);
    }
}
