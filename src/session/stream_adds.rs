//! The stream IDs that this session knows: what it was given while the upstream was down is never older than what it has seen before.
//!
//! Replies pass undecoded, but for those to XADD. What a transaction adds is in the reply to its EXEC and is not looked at.

use std::collections::VecDeque;

use crate::outage::write::StreamIds;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct StreamAdds {
    pub(super) ids: StreamIds,
    /// XADDs in flight, in order, with their keys.
    awaited: VecDeque<(u64, Vec<u8>)>,
}

impl StreamAdds {
    pub(super) fn sent(&mut self, seq: u64, key: &[u8]) {
        self.awaited.push_back((seq, key.to_vec()));
    }

    /// Writes are answered in their order: what stands before one that is has been lost.
    #[inline]
    pub(super) fn answered(&mut self, seq: u64, reply: &[u8]) {
        if !self.awaited.is_empty() {
            self.look_at(seq, reply);
        }
    }

    #[cold]
    fn look_at(&mut self, seq: u64, reply: &[u8]) {
        while let Some((awaited, key)) = self.awaited.pop_front_if(|(awaited, _)| *awaited <= seq) {
            if awaited == seq {
                self.ids.saw_reply(&key, reply);
            }
        }
    }
}
