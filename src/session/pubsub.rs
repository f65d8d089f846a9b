//! Subscriptions: kept by the session, so that they outlive the connection that they are made on.

use super::Renewal;
use super::state::{State, Subscriptions};
use super::task::Task;
use crate::command::Name;
use crate::resp::scan::{Limits, Scan, Scanner};
use crate::resp::{Protocol, Request, write};
use crate::upstream::link::Piece;

/// Whether an out-of-band frame confirms a (un)subscription, or answers a PING in subscribed mode.
pub(super) fn is_confirmation(frame: &[u8]) -> bool {
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
enum Change {
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

fn change(name: Name) -> Option<(Change, Family)> {
    match name {
        Name::Subscribe => Some((Change::Subscribe, Family::Channel)),
        Name::Psubscribe => Some((Change::Subscribe, Family::Pattern)),
        Name::Ssubscribe => Some((Change::Subscribe, Family::Shard)),
        Name::Unsubscribe => Some((Change::Unsubscribe, Family::Channel)),
        Name::Punsubscribe => Some((Change::Unsubscribe, Family::Pattern)),
        Name::Sunsubscribe => Some((Change::Unsubscribe, Family::Shard)),
        _ => None,
    }
}

/// Whether the command is one of the subscribe family.
pub(super) fn is_subscription(name: Name) -> bool {
    change(name).is_some()
}

impl Family {
    fn of(self, subscriptions: &mut Subscriptions) -> &mut std::collections::BTreeSet<Vec<u8>> {
        match self {
            Self::Channel => &mut subscriptions.channels,
            Self::Pattern => &mut subscriptions.patterns,
            Self::Shard => &mut subscriptions.shards,
        }
    }

    fn word(self, change: Change) -> &'static str {
        match (self, change) {
            (Self::Channel, Change::Subscribe) => "subscribe",
            (Self::Pattern, Change::Subscribe) => "psubscribe",
            (Self::Shard, Change::Subscribe) => "ssubscribe",
            (Self::Channel, Change::Unsubscribe) => "unsubscribe",
            (Self::Pattern, Change::Unsubscribe) => "punsubscribe",
            (Self::Shard, Change::Unsubscribe) => "sunsubscribe",
        }
    }
}

impl Subscriptions {
    /// Notes what a request changes; gives the number of confirmations that Redis answers with. With `confirm`, appends them.
    pub(super) fn apply(
        &mut self,
        name: Name,
        request: &Request<'_>,
        mut confirm: Option<(&mut Vec<u8>, Protocol)>,
    ) -> u32 {
        let Some((change, family)) = change(name) else { return 0 };
        let mut names: Vec<Option<Vec<u8>>> = request.args_from(1).map(|name| Some(name.to_vec())).collect();
        if names.is_empty() && change == Change::Unsubscribe {
            names = family.of(self).iter().cloned().map(Some).collect();
            if names.is_empty() {
                names.push(None);
            }
        }
        for name in &names {
            if let Some(name) = name {
                match change {
                    Change::Subscribe => drop(family.of(self).insert(name.clone())),
                    Change::Unsubscribe => drop(family.of(self).remove(name)),
                }
            }
            if let Some((out, protocol)) = &mut confirm {
                write::push(out, *protocol, 3);
                write::bulk(out, family.word(change).as_bytes());
                match name {
                    Some(name) => write::bulk(out, name),
                    None => write::null(out, *protocol),
                }
                let count = match family {
                    Family::Channel | Family::Pattern => self.channels.len() + self.patterns.len(),
                    Family::Shard => self.shards.len(),
                };
                write::integer(out, i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        u32::try_from(names.len()).unwrap_or(u32::MAX)
    }

    /// The commands that make these subscriptions, and the number of confirmations that they draw.
    fn renewal(&self) -> (Vec<u8>, u32) {
        let mut out = Vec::new();
        let mut confirmations = 0;
        for (word, names) in [
            ("SUBSCRIBE", &self.channels),
            ("PSUBSCRIBE", &self.patterns),
            ("SSUBSCRIBE", &self.shards),
        ] {
            if names.is_empty() {
                continue;
            }
            write::array(&mut out, names.len() + 1);
            write::bulk(&mut out, word.as_bytes());
            for name in names {
                write::bulk(&mut out, name);
            }
            confirmations += u32::try_from(names.len()).unwrap_or(u32::MAX);
        }
        (out, confirmations)
    }
}

/// Whether everything on the session's dedicated connection is out of band now.
pub(super) fn is_subscribed_mode(state: &State) -> bool {
    state.key.protocol == Protocol::Resp2 && !state.subscriptions.is_empty()
}

impl Task {
    /// Confirms the change that the connection died with: it is the session's, and made upstream with the others.
    pub(super) fn confirm_unconfirmed(&mut self) {
        let Some((name, frame)) = self.state.unconfirmed.take() else {
            return;
        };
        let mut scanner = Scanner::default();
        let Ok(Scan::Request { .. }) = scanner.scan(&frame, &Limits::default()) else {
            return;
        };
        let request = Request::new(&frame, scanner.spans());
        let mut out = Vec::new();
        let protocol = self.state.key.protocol;
        self.state
            .subscriptions
            .apply(name, &request, Some((&mut out, protocol)));
        self.session.output.borrow_mut().push(&out, Piece::End);
    }

    /// Makes the session's subscriptions anew on a fresh dedicated connection, without telling the client again.
    pub(super) fn renew_subscriptions(&mut self) {
        let link = self.dedicated();
        let generation = link.generation;
        // A dial that comes up in the generation of the connection that ended reaches the Redis that ended it.
        let renewal = if self.session.renewal.get() == (Renewal::Undecided { generation }) {
            Renewal::ClosedByRedis
        } else {
            Renewal::AfterOutage
        };
        self.session.renewal.set(renewal);
        let (commands, confirmations) = self.state.subscriptions.renewal();
        if self.state.key.protocol == Protocol::Resp2 {
            link.set_passthrough();
        }
        self.session.confirmations.set(confirmations);
        self.session.swallowed.set(confirmations);
        link.push_bytes(&commands);
    }
}
