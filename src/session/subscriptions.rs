//! What a session is subscribed to, and what it has asked that is answered out of band.
//!
//! A change counts from the moment that it is asked, so that requests need not wait for each other's confirmations. One that Redis refuses is
//! taken out again, and those behind it are made anew without it.

use std::collections::{BTreeSet, VecDeque};

use crate::command::Name;
use crate::resp::{Protocol, Request, write};

/// Whether an out-of-band frame confirms a (un)subscription, or answers a PING in subscribed mode.
fn is_confirmation(frame: &[u8]) -> bool {
    let Some(at) = frame.iter().position(|byte| *byte == b'$') else {
        return false;
    };
    let word = frame.get(at..).unwrap_or_default();
    const WORDS: [&[u8]; 7] = [
        b"$9\r\nsubscribe\r\n",
        b"$10\r\npsubscribe\r\n",
        b"$10\r\nssubscribe\r\n",
        b"$11\r\nunsubscribe\r\n",
        b"$12\r\npunsubscribe\r\n",
        b"$12\r\nsunsubscribe\r\n",
        b"$4\r\npong\r\n",
    ];
    at <= 4 && WORDS.iter().any(|known| word.starts_with(known))
}

/// The two directions of a change to the subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Subscribe,
    Unsubscribe,
}

/// The kinds of subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Channel,
    Pattern,
    Shard,
}

fn kind(name: Name) -> Option<(Direction, Family)> {
    match name {
        Name::Subscribe => Some((Direction::Subscribe, Family::Channel)),
        Name::Psubscribe => Some((Direction::Subscribe, Family::Pattern)),
        Name::Ssubscribe => Some((Direction::Subscribe, Family::Shard)),
        Name::Unsubscribe => Some((Direction::Unsubscribe, Family::Channel)),
        Name::Punsubscribe => Some((Direction::Unsubscribe, Family::Pattern)),
        Name::Sunsubscribe => Some((Direction::Unsubscribe, Family::Shard)),
        _ => None,
    }
}

/// Whether the command is one of the subscribe family.
pub(super) fn is_subscription(name: Name) -> bool {
    kind(name).is_some()
}

/// The names subscribed to.
#[derive(Debug, Default)]
struct Names {
    channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
    shards: BTreeSet<Vec<u8>>,
}

impl Names {
    fn of(&mut self, family: Family) -> &mut BTreeSet<Vec<u8>> {
        match family {
            Family::Channel => &mut self.channels,
            Family::Pattern => &mut self.patterns,
            Family::Shard => &mut self.shards,
        }
    }

    /// As a confirmation says it.
    fn count(&self, family: Family) -> usize {
        match family {
            Family::Channel | Family::Pattern => self.channels.len() + self.patterns.len(),
            Family::Shard => self.shards.len(),
        }
    }
}

/// A request of the subscribe family.
#[derive(Debug)]
struct Change {
    direction: Direction,
    family: Family,
    /// None: all that there are.
    names: Vec<Vec<u8>>,
    /// Of these, what was not as the request wants it before.
    changed: Vec<Vec<u8>>,
}

impl Change {
    fn of(name: Name, request: &Request<'_>) -> Option<Self> {
        let (direction, family) = kind(name)?;
        Some(Self {
            direction,
            family,
            names: request.args_from(1).map(<[u8]>::to_vec).collect(),
            changed: Vec::new(),
        })
    }

    /// Makes the change; calls `confirm` once for each confirmation that Redis gives, with the name in it, if there is one, and the count.
    fn make(&mut self, known: &mut Names, mut confirm: impl FnMut(Option<&[u8]>, usize)) {
        let is_of_all = self.names.is_empty() && self.direction == Direction::Unsubscribe;
        let all: Vec<Vec<u8>>;
        let names = if is_of_all {
            all = known.of(self.family).iter().cloned().collect();
            &all
        } else {
            &self.names
        };
        for name in names {
            let of_family = known.of(self.family);
            let is_changed = match self.direction {
                Direction::Subscribe => of_family.insert(name.clone()),
                Direction::Unsubscribe => of_family.remove(name),
            };
            if is_changed {
                self.changed.push(name.clone());
            }
            confirm(Some(name), known.count(self.family));
        }
        if names.is_empty() {
            confirm(None, known.count(self.family));
        }
    }

    /// The number of confirmations, for which the change is made.
    fn count(&mut self, known: &mut Names) -> usize {
        let mut confirmations = 0;
        self.make(known, |_, _| confirmations += 1);
        confirmations
    }

    /// Only right while nothing that was made later stands.
    fn take_back(&mut self, known: &mut Names) {
        let of_family = known.of(self.family);
        for name in self.changed.drain(..) {
            match self.direction {
                Direction::Subscribe => drop(of_family.remove(&name)),
                Direction::Unsubscribe => drop(of_family.insert(name)),
            }
        }
    }

    fn word(&self) -> &'static str {
        match (self.family, self.direction) {
            (Family::Channel, Direction::Subscribe) => "subscribe",
            (Family::Pattern, Direction::Subscribe) => "psubscribe",
            (Family::Shard, Direction::Subscribe) => "ssubscribe",
            (Family::Channel, Direction::Unsubscribe) => "unsubscribe",
            (Family::Pattern, Direction::Unsubscribe) => "punsubscribe",
            (Family::Shard, Direction::Unsubscribe) => "sunsubscribe",
        }
    }

    /// Makes the change, and writes its confirmations without the first `told`.
    fn confirm(&mut self, known: &mut Names, protocol: Protocol, told: usize, out: &mut Vec<u8>) {
        let word = self.word();
        let mut at = 0;
        self.make(known, |name, count| {
            if at >= told {
                write::push(out, protocol, 3);
                write::bulk(out, word.as_bytes());
                match name {
                    Some(name) => write::bulk(out, name),
                    None => write::null(out, protocol),
                }
                write::integer(out, i64::try_from(count).unwrap_or(i64::MAX));
            }
            at += 1;
        });
    }
}

#[derive(Debug)]
enum Asked {
    Change(Change),
    /// Passed on in subscribed mode: a PING, or what Redis refuses there. With the answer that it gets should its connection die.
    Passed(Vec<u8>),
    /// Subscriptions made anew after an outage: the client has had the confirmations.
    Renewal,
}

/// Sent, and not answered in full.
#[derive(Debug)]
struct Unconfirmed {
    asked: Asked,
    /// Frames that answer it: those that have come, and those still to come.
    told: usize,
    left: usize,
}

/// What an out-of-band frame is to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    News,
    /// No confirmation, but what CLIENT REPLY turns off.
    Reply,
    /// It has had it before.
    Known,
    /// As [`Heard::Known`], and the last of these: what was said on the channels before it was missed.
    Renewed,
    /// What it has been told that it is subscribed to is refused by now.
    Withdrawn,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// As they are once all that is unconfirmed is confirmed.
    known: Names,
    /// In the order of sending.
    unconfirmed: VecDeque<Unconfirmed>,
}

impl Subscriptions {
    pub(super) fn is_empty(&self) -> bool {
        self.known.channels.is_empty() && self.known.patterns.is_empty() && self.known.shards.is_empty()
    }

    pub(super) fn has_channel(&self, channel: &[u8]) -> bool {
        self.known.channels.contains(channel)
    }

    /// Requests that have been sent and not been answered in full.
    pub(super) fn unconfirmed(&self) -> usize {
        self.unconfirmed.len()
    }

    /// Everything asked has been answered.
    pub(super) fn is_confirmed(&self) -> bool {
        self.unconfirmed.is_empty()
    }

    /// Makes a change that is confirmed here.
    pub(super) fn change_here(&mut self, name: Name, request: &Request<'_>, protocol: Protocol, out: &mut Vec<u8>) {
        if let Some(mut change) = Change::of(name, request) {
            change.confirm(&mut self.known, protocol, 0, out);
        }
    }

    /// A change goes upstream.
    pub(super) fn ask(&mut self, name: Name, request: &Request<'_>) {
        if let Some(mut change) = Change::of(name, request) {
            let left = change.count(&mut self.known);
            self.sent(Asked::Change(change), left);
        }
    }

    /// Something else goes upstream that is answered by one frame; by `stand_in`, should the connection die.
    pub(super) fn pass(&mut self, stand_in: Vec<u8>) {
        self.sent(Asked::Passed(stand_in), 1);
    }

    fn sent(&mut self, asked: Asked, left: usize) {
        self.unconfirmed.push_back(Unconfirmed { asked, told: 0, left });
    }

    /// The commands that make the subscriptions on a fresh connection.
    pub(super) fn renew(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let known = &self.known;
        for (word, names) in [
            ("SUBSCRIBE", &known.channels),
            ("PSUBSCRIBE", &known.patterns),
            ("SSUBSCRIBE", &known.shards),
        ] {
            if names.is_empty() {
                continue;
            }
            write::array(&mut out, names.len() + 1);
            write::bulk(&mut out, word.as_bytes());
            for name in names {
                write::bulk(&mut out, name);
            }
            self.unconfirmed.push_back(Unconfirmed {
                asked: Asked::Renewal,
                told: 0,
                left: names.len(),
            });
        }
        out
    }

    /// Notes what an out-of-band frame says of what is unconfirmed.
    pub(super) fn hear(&mut self, frame: &[u8]) -> Heard {
        let Some(first) = self.unconfirmed.front_mut() else {
            return Heard::News;
        };
        match (frame.first(), &first.asked) {
            (Some(b'-'), _) => return self.refused(),
            // Where Redis has refused what would have begun the subscribed mode, it answers a PING as ever.
            (Some(b'+'), Asked::Passed(_)) => {}
            _ if is_confirmation(frame) => {}
            _ => return Heard::News,
        }
        first.told += 1;
        first.left = first.left.saturating_sub(1);
        let heard = match first.asked {
            Asked::Change(_) => Heard::News,
            Asked::Passed(_) => Heard::Reply,
            Asked::Renewal => Heard::Known,
        };
        if first.left == 0 {
            self.unconfirmed.pop_front();
        }
        let is_renewing = matches!(self.unconfirmed.front(), Some(next) if matches!(next.asked, Asked::Renewal));
        match heard {
            Heard::Known if !is_renewing => Heard::Renewed,
            heard => heard,
        }
    }

    /// The oldest of what is unconfirmed drew an error: as if it had never been asked (NOPERM).
    fn refused(&mut self) -> Heard {
        self.take_back();
        let refused = self.unconfirmed.pop_front();
        for request in &mut self.unconfirmed {
            if let Asked::Change(change) = &mut request.asked {
                // Without the one that is gone, an UNSUBSCRIBE from all may be from fewer.
                request.left = change.count(&mut self.known);
            }
        }
        match refused.map(|request| request.asked) {
            Some(Asked::Renewal) => Heard::Withdrawn,
            Some(Asked::Change(_) | Asked::Passed(_)) => Heard::Reply,
            None => Heard::News,
        }
    }

    fn take_back(&mut self) {
        for request in self.unconfirmed.iter_mut().rev() {
            if let Asked::Change(change) = &mut request.asked {
                change.take_back(&mut self.known);
            }
        }
    }

    /// The connection is gone: gives the rest of what answers what was asked. The changes are the session's, and made upstream with the others.
    pub(super) fn cut(&mut self, protocol: Protocol) -> Vec<u8> {
        let mut out = Vec::new();
        self.take_back();
        for request in self.unconfirmed.drain(..) {
            match request.asked {
                Asked::Change(mut change) => change.confirm(&mut self.known, protocol, request.told, &mut out),
                Asked::Passed(stand_in) => out.extend_from_slice(&stand_in),
                Asked::Renewal => {}
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command;
    use crate::resp::request::OwnedRequest;

    const REFUSED: &[u8] = b"-NOPERM no\r\n";
    const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$9\r\nsubscribe\r\n$9\r\nsubscribe\r\n";

    fn asking(subscriptions: &mut Subscriptions, lines: &[&str]) {
        for line in lines {
            let request = OwnedRequest::new(&line.split(' ').collect::<Vec<_>>());
            let request = request.as_request();
            let name = command::lookup(&request).unwrap().id;
            if is_subscription(name) {
                subscriptions.ask(name, &request);
            } else {
                subscriptions.pass(b"+stood in\r\n".to_vec());
            }
        }
    }

    /// A confirmation; which one does not matter, as at Redis the order says that.
    fn confirm(subscriptions: &mut Subscriptions, times: usize) -> Vec<Heard> {
        (0..times)
            .map(|_| subscriptions.hear(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"))
            .collect()
    }

    /// The words of each frame, without the marks.
    fn cut(subscriptions: &mut Subscriptions) -> String {
        let frames = String::from_utf8(subscriptions.cut(Protocol::Resp2)).unwrap();
        let words = frames.split("\r\n").filter(|word| !word.starts_with(['*', '$']));
        words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    }

    fn channels(subscriptions: &Subscriptions) -> Vec<&str> {
        let channels = subscriptions.known.channels.iter();
        channels.map(|name| std::str::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn each_request_is_confirmed_by_as_many_frames_as_it_has_names_and_messages_are_none() {
        let mut subscriptions = Subscriptions::default();
        asking(
            &mut subscriptions,
            &["SUBSCRIBE a b a", "PING", "UNSUBSCRIBE", "UNSUBSCRIBE"],
        );
        assert!(subscriptions.is_empty(), "each change counts at once");
        for (frames, left, expected) in [
            (2, 4, Heard::News),
            (1, 3, Heard::News),
            (1, 2, Heard::Reply),
            (2, 1, Heard::News),
            (1, 0, Heard::News),
        ] {
            assert_eq!(subscriptions.hear(MESSAGE), Heard::News);
            let heard = confirm(&mut subscriptions, frames);
            assert!(heard.iter().all(|heard| *heard == expected), "{heard:?}");
            assert_eq!(subscriptions.unconfirmed(), left);
        }
        assert!(subscriptions.is_confirmed());
    }

    #[test]
    fn without_what_was_refused_the_requests_behind_it_are_others() {
        let mut subscriptions = Subscriptions::default();
        asking(
            &mut subscriptions,
            &["SUBSCRIBE a", "SUBSCRIBE b c", "UNSUBSCRIBE", "SUBSCRIBE d"],
        );
        confirm(&mut subscriptions, 1);
        assert_eq!(subscriptions.hear(REFUSED), Heard::Reply);
        // From one channel, not from three.
        confirm(&mut subscriptions, 1);
        assert_eq!(subscriptions.unconfirmed(), 1);
        assert_eq!(subscriptions.hear(REFUSED), Heard::Reply);
        assert!(subscriptions.is_empty() && subscriptions.is_confirmed());
    }

    #[test]
    fn what_was_subscribed_before_stays_when_it_is_refused_now() {
        let mut subscriptions = Subscriptions::default();
        asking(&mut subscriptions, &["SUBSCRIBE a"]);
        confirm(&mut subscriptions, 1);
        asking(&mut subscriptions, &["SUBSCRIBE a b", "UNSUBSCRIBE a", "SUBSCRIBE a c"]);
        subscriptions.hear(REFUSED);
        assert_eq!(channels(&subscriptions), ["a", "c"]);
        subscriptions.hear(REFUSED);
        subscriptions.hear(REFUSED);
        assert_eq!(channels(&subscriptions), ["a"]);
    }

    #[test]
    fn a_connection_that_is_cut_leaves_the_rest_of_the_answers() {
        let mut subscriptions = Subscriptions::default();
        asking(
            &mut subscriptions,
            &[
                "SUBSCRIBE a b c",
                "UNSUBSCRIBE b",
                "PING",
                "PSUBSCRIBE p",
                "UNSUBSCRIBE",
            ],
        );
        confirm(&mut subscriptions, 2);
        assert_eq!(
            cut(&mut subscriptions),
            "subscribe c :3 unsubscribe b :2 +stood in psubscribe p :3 unsubscribe a :2 unsubscribe c :1"
        );
        assert!(subscriptions.is_confirmed());
        assert_eq!(cut(&mut subscriptions), "");
        assert_eq!(subscriptions.renew(), b"*2\r\n$10\r\nPSUBSCRIBE\r\n$1\r\np\r\n");
    }

    #[test]
    fn a_renewal_is_not_told_but_for_its_end_or_its_refusal() {
        let mut subscriptions = Subscriptions::default();
        asking(&mut subscriptions, &["SUBSCRIBE a b", "SSUBSCRIBE s"]);
        cut(&mut subscriptions);
        subscriptions.renew();
        asking(&mut subscriptions, &["SUBSCRIBE c"]);
        assert_eq!(
            confirm(&mut subscriptions, 4),
            [Heard::Known, Heard::Known, Heard::Renewed, Heard::News]
        );
        subscriptions.renew();
        asking(&mut subscriptions, &["SUBSCRIBE d"]);
        assert_eq!(
            cut(&mut subscriptions),
            "subscribe d :4",
            "renewals die with their connection"
        );
        subscriptions.renew();
        assert_eq!(subscriptions.hear(REFUSED), Heard::Withdrawn);
    }
}
