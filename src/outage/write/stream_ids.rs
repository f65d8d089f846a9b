//! The stream IDs one session has seen, so that a provisional one is never older.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::parse::{IdArgument, StreamId, id_argument};

const KEYS_MAX: usize = 64;

/// Bounded memory of the last ID per stream, and of which were provisional (`XADD *` is replayed as `*`: the upstream
/// gives the final ID). Keys that fall out leave a common floor: IDs get newer than needed, acknowledgements of IDs
/// are refused more often than needed, never less.
#[derive(Debug, Default)]
pub struct StreamIds {
    streams: VecDeque<Stream>,
    floor: Known,
}

#[derive(Debug)]
struct Stream {
    key_hash: u64,
    known: Known,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    last: Option<StreamId>,
    first_provisional: Option<StreamId>,
}

impl StreamIds {
    /// An ID that the upstream gave, or that the client chose.
    pub fn saw(&mut self, key: &[u8], id: StreamId) {
        let known = self.known_mut(key);
        known.last = known.last.max(Some(id));
    }

    /// The upstream's reply to an XADD, as it came; what is no ID says nothing.
    pub fn saw_reply(&mut self, key: &[u8], reply: &[u8]) {
        let mut lines = reply.split(|byte| *byte == b'\n');
        if let (Some([b'$', ..]), Some(line), Some([])) = (lines.next(), lines.next(), lines.next())
            && let Some(IdArgument::Explicit(id)) = line.strip_suffix(b"\r").and_then(id_argument)
        {
            self.saw(key, id);
        }
    }

    /// For `XADD key *`: the clock, or one more than the last ID.
    pub(super) fn issue(&mut self, key: &[u8], wall_ms: u64) -> StreamId {
        let known = self.known_mut(key);
        let now = StreamId { ms: wall_ms, seq: 0 };
        let id = known.last.map_or(now, |last| now.max(last.next()));
        known.issued(id);
        id
    }

    /// For `XADD key ms-*`: the next sequence in that millisecond, as far as this session can know.
    pub(super) fn issue_in(&mut self, key: &[u8], ms: u64) -> StreamId {
        let known = self.known_mut(key);
        let id = match known.last {
            Some(last) if last.ms == ms => last.next(),
            // 0-0 is no ID.
            _ => StreamId {
                ms,
                seq: u64::from(ms == 0),
            },
        };
        known.issued(id);
        id
    }

    /// As [`Self::issue`], for a stream that all sessions of an upstream share and IDs that are final: newer also than what `session` has seen.
    pub(super) fn accept(&mut self, key: &[u8], wall_ms: u64, session: &mut Self) -> StreamId {
        self.learn(key, session);
        let id = self.issue(key, wall_ms);
        session.saw(key, id);
        id
    }

    /// As [`Self::issue_in`], likewise.
    pub(super) fn accept_in(&mut self, key: &[u8], ms: u64, session: &mut Self) -> StreamId {
        self.learn(key, session);
        let id = self.issue_in(key, ms);
        session.saw(key, id);
        id
    }

    fn learn(&mut self, key: &[u8], session: &mut Self) {
        if let Some(last) = session.known_mut(key).last {
            self.saw(key, last);
        }
    }

    /// Whether the ID can be one that this session was given in this outage, and that the upstream will change.
    pub(super) fn is_provisional(&self, key: &[u8], id: StreamId) -> bool {
        let hash = hash(key);
        let known = self.streams.iter().find(|stream| stream.key_hash == hash);
        known
            .map_or(&self.floor, |stream| &stream.known)
            .first_provisional
            .is_some_and(|first| id >= first)
    }

    /// The backlog is gone: no provisional ID is waiting any more. The last IDs stay.
    pub fn settle(&mut self) {
        self.floor.first_provisional = None;
        for stream in &mut self.streams {
            stream.known.first_provisional = None;
        }
    }

    fn known_mut(&mut self, key: &[u8]) -> &mut Known {
        let key_hash = hash(key);
        let at = match self.streams.iter().position(|stream| stream.key_hash == key_hash) {
            Some(at) => at,
            None => {
                self.make_room();
                let known = self.floor;
                self.streams.push_back(Stream { key_hash, known });
                self.streams.len() - 1
            }
        };
        &mut self.streams[at].known
    }

    fn make_room(&mut self) {
        if self.streams.len() < KEYS_MAX {
            return;
        }
        if let Some(Stream { known, .. }) = self.streams.pop_front() {
            self.floor.last = self.floor.last.max(known.last);
            self.floor.first_provisional = earlier(self.floor.first_provisional, known.first_provisional);
        }
    }
}

impl Known {
    fn issued(&mut self, id: StreamId) {
        self.last = self.last.max(Some(id));
        self.first_provisional = earlier(self.first_provisional, Some(id));
    }
}

fn earlier(one: Option<StreamId>, other: Option<StreamId>) -> Option<StreamId> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, seq: u64) -> StreamId {
        StreamId { ms, seq }
    }

    #[test]
    fn ids_never_go_back_when_the_clock_does() {
        let mut ids = StreamIds::default();
        assert_eq!(ids.issue(b"s", 100), id(100, 0));
        assert_eq!(ids.issue(b"s", 100), id(100, 1));
        assert_eq!(ids.issue(b"s", 50), id(100, 2));
        assert_eq!(ids.issue(b"s", 101), id(101, 0));
        assert_eq!(ids.issue(b"other", 50), id(50, 0));
        ids.saw(b"s", id(500, u64::MAX));
        assert_eq!(ids.issue(b"s", 102), id(501, 0));
    }

    #[test]
    fn accepted_ids_grow_over_all_sessions_and_are_not_provisional() {
        let [mut shared, mut one, mut two] = [StreamIds::default(), StreamIds::default(), StreamIds::default()];
        one.saw(b"s", id(500, 3));
        assert_eq!(shared.accept(b"s", 100, &mut one), id(500, 4));
        assert_eq!(shared.accept(b"s", 100, &mut two), id(500, 5));
        assert_eq!(shared.accept_in(b"s", 501, &mut one), id(501, 0));
        assert_eq!(shared.accept_in(b"s", 501, &mut two), id(501, 1));
        assert!(!one.is_provisional(b"s", id(501, 0)) && !two.is_provisional(b"s", id(501, 1)));
    }

    #[test]
    fn the_id_in_a_whole_reply_is_seen_and_nothing_else() {
        let mut ids = StreamIds::default();
        for other in [
            "-ERR x\r\n",
            "$-1\r\n",
            "_\r\n",
            "$5\r\n900-",
            "$0\r\n\r\n",
            "$3\r\n9-x\r\n",
            "",
        ] {
            ids.saw_reply(b"s", other.as_bytes());
        }
        assert_eq!(ids.issue(b"s", 100), id(100, 0));
        ids.saw_reply(b"s", b"$5\r\n900-4\r\n");
        assert_eq!(ids.issue(b"s", 100), id(900, 5));
    }

    #[test]
    fn a_sequence_goes_on_within_its_millisecond() {
        let mut ids = StreamIds::default();
        assert_eq!(ids.issue_in(b"s", 7), id(7, 0));
        assert_eq!(ids.issue_in(b"s", 7), id(7, 1));
        assert_eq!(ids.issue_in(b"zero", 0), id(0, 1));
    }

    #[test]
    fn ids_from_before_the_outage_are_not_provisional() {
        let mut ids = StreamIds::default();
        ids.saw(b"s", id(90, 0));
        assert!(!ids.is_provisional(b"s", id(95, 0)));
        ids.issue(b"s", 100);
        assert!(!ids.is_provisional(b"s", id(99, 0)));
        assert!(ids.is_provisional(b"s", id(100, 0)));
        assert!(ids.is_provisional(b"s", id(200, 0)));
        assert!(!ids.is_provisional(b"other", id(200, 0)));
        ids.settle();
        assert!(!ids.is_provisional(b"s", id(100, 0)));
        assert_eq!(ids.issue(b"s", 100), id(100, 1));
    }

    #[test]
    fn streams_that_fall_out_leave_a_floor() {
        let mut ids = StreamIds::default();
        ids.issue(b"first", 1_000);
        for n in 0..KEYS_MAX {
            ids.issue(format!("s{n}").as_bytes(), 10);
        }
        assert_eq!(ids.streams.len(), KEYS_MAX);
        assert!(ids.is_provisional(b"first", id(1_000, 0)));
        assert!(ids.issue(b"first", 10) > id(1_000, 0));
    }
}
