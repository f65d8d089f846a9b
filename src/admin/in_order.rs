//! What is queued, in order of its numbers: the backlog, and the records set aside that wait for their user. Pure: whoever reads feeds it.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::journal::{Record, WaitingEntry};

/// Whether a record is in the backlog, or waits for its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stands {
    Backlog,
    Waiting,
}

/// What must be read before anything else can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Some records of the backlog.
    Records { after_seq: u64 },
    /// The next entry of those that wait.
    Entry { after_key: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    After(u64),
    Nothing,
}

/// Holds what was read ahead: of the backlog as much as is fed at once, of those that wait the entries that overlap there.
#[derive(Debug)]
pub(crate) struct InOrder {
    upto_seq: u64,
    backlog: VecDeque<Record>,
    unread_backlog: Unread,
    waiting: BTreeMap<u64, Record>,
    unread_entries: Unread,
}

impl InOrder {
    /// From the first record that waits, or of the backlog, up to this number.
    pub(crate) fn new(replayed_seq: u64, upto_seq: u64) -> Self {
        Self {
            upto_seq,
            backlog: VecDeque::new(),
            unread_backlog: Unread::After(replayed_seq),
            waiting: BTreeMap::new(),
            unread_entries: Unread::After(0),
        }
    }

    pub(crate) fn wants(&self) -> Option<Wanted> {
        if let (Unread::After(after_seq), true) = (self.unread_backlog, self.backlog.is_empty()) {
            return Some(Wanted::Records { after_seq });
        }
        match self.unread_entries {
            // No later entry has a number up to its key.
            Unread::After(after_key) if self.next_seq().is_none_or(|seq| seq > after_key) => {
                Some(Wanted::Entry { after_key })
            }
            Unread::After(_) | Unread::Nothing => None,
        }
    }

    /// The next records of the backlog; none at its end.
    pub(crate) fn feed_records(&mut self, records: Vec<Record>) {
        self.unread_backlog = match records.last() {
            Some(last) if last.seq < self.upto_seq => Unread::After(last.seq),
            Some(_) | None => Unread::Nothing,
        };
        self.backlog.extend(records);
        let known = self.backlog.partition_point(|record| record.seq <= self.upto_seq);
        self.backlog.truncate(known);
    }

    /// The next entry of those that wait; none behind the last one.
    pub(crate) fn feed_entry(&mut self, entry: Option<WaitingEntry>) {
        let Some(entry) = entry.filter(|entry| entry.key <= self.upto_seq) else {
            self.unread_entries = Unread::Nothing;
            return;
        };
        self.unread_entries = Unread::After(entry.key);
        let records = entry.records.into_iter().map(|record| (record.seq, record));
        self.waiting.extend(records);
    }

    fn next_seq(&self) -> Option<u64> {
        let of_backlog = self.backlog.front().map(|record| record.seq);
        let of_waiting = self.waiting.keys().next().copied();
        of_backlog.into_iter().chain(of_waiting).min()
    }

    /// The next record; none where something must be read before, or at the end.
    pub(crate) fn next(&mut self) -> Option<(Record, Stands)> {
        if self.wants().is_some() {
            return None;
        }
        let seq = self.next_seq()?;
        // What is set aside stands in the backlog, too, until the checkpoint has passed it.
        let of_backlog = self.backlog.pop_front_if(|record| record.seq == seq);
        let of_waiting = self.waiting.remove(&seq).map(|record| (record, Stands::Waiting));
        of_waiting.or_else(|| of_backlog.map(|record| (record, Stands::Backlog)))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(seq: u64) -> Record {
        Record {
            seq,
            wall_ms: 0,
            mono_ms: 0,
            payload: Bytes::new(),
        }
    }

    fn entry(seqs: &[u64]) -> WaitingEntry {
        WaitingEntry {
            key: seqs[0],
            name: b"bob".to_vec(),
            is_begun: false,
            records: seqs.iter().copied().map(record).collect(),
        }
    }

    /// Numbers as they come, those that wait negative.
    fn all(mut queue: InOrder, backlog: &[u64], entries: &[&[u64]]) -> Vec<i64> {
        let mut seen = Vec::new();
        loop {
            match queue.wants() {
                Some(Wanted::Records { after_seq }) => {
                    let next = backlog.iter().filter(|seq| **seq > after_seq).take(2);
                    queue.feed_records(next.copied().map(record).collect());
                }
                Some(Wanted::Entry { after_key }) => {
                    let next = entries.iter().find(|seqs| seqs[0] > after_key);
                    queue.feed_entry(next.map(|seqs| entry(seqs)));
                }
                None => match queue.next() {
                    Some((record, Stands::Backlog)) => seen.push(record.seq as i64),
                    Some((record, Stands::Waiting)) => seen.push(-(record.seq as i64)),
                    None => return seen,
                },
            }
        }
    }

    #[test]
    fn everything_comes_once_and_in_order_and_what_waits_is_said_to() {
        let all = |replayed_seq, upto_seq, backlog: &[u64], entries: &[&[u64]]| {
            all(InOrder::new(replayed_seq, upto_seq), backlog, entries)
        };
        assert!(all(0, 99, &[], &[]).is_empty());
        assert_eq!(all(0, 99, &[1, 2, 3], &[]), [1, 2, 3]);
        assert_eq!(all(9, 9, &[], &[&[1, 4], &[2, 3, 7], &[8]]), [-1, -2, -3, -4, -7, -8]);
        assert_eq!(
            all(4, 99, &[5, 6, 7, 8, 9], &[&[1, 6], &[3, 8]]),
            [-1, -3, 5, -6, 7, -8, 9]
        );
        assert_eq!(all(0, 6, &[5, 6, 7, 8], &[&[1, 3], &[7]]), [-1, -3, 5, 6]);
    }
}
