//! What proves that a connection is dead, so that nothing more of it is read by the upstream: another server process, or the reply to CLIENT KILL
//! for exactly that connection. (The third proof is its end, read by the worker that has it.)

use std::sync::Arc;

use tokio::time::timeout;

use super::connections::{ConnectionFile, Entry};
use super::dial::{Conversation, DialError, Handshake, command, dial_counted};
use super::shared::Shared;

/// What is known of a connection on the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// Its server process is not the one that answers now.
    AnotherProcess,
    /// Any integer in reply to its KILL is a proof.
    Kill,
    /// Only `:1` is: the server may be another one, or the address not what it calls it.
    KillOnlyIfThere,
    None,
}

impl Proof {
    /// With a server that calls itself `run_id`.
    fn of(entry: &Entry, run_id: Option<&str>) -> Self {
        let is_same_process = match (entry.connection.run_id.as_deref(), run_id) {
            (Some(then), Some(now)) if then != now => return Self::AnotherProcess,
            (Some(_), Some(_)) => true,
            (None, _) | (_, None) => false,
        };
        if entry.connection.address.is_none() || entry.connection.client_id == 0 {
            Self::None
        } else if is_same_process {
            Self::Kill
        } else {
            Self::KillOnlyIfThere
        }
    }

    /// Whether it is one, with this reply to [`kill`].
    fn is_given_by(self, reply: &[u8]) -> bool {
        match self {
            Self::AnotherProcess => true,
            Self::Kill => reply.first() == Some(&b':'),
            Self::KillOnlyIfThere => reply == b":1\r\n",
            Self::None => false,
        }
    }
}

/// Those of `entries` whose KILL may prove something to a server that calls itself `run_id`; another one may have given their numbers to others.
pub fn killable<'a>(entries: &'a [Entry], run_id: Option<&str>) -> Vec<&'a Entry> {
    let may_be = |entry: &&Entry| match Proof::of(entry, run_id) {
        Proof::Kill | Proof::KillOnlyIfThere => true,
        Proof::AnotherProcess | Proof::None => false,
    };
    entries.iter().filter(may_be).collect()
}

/// The requests that end exactly these connections, those that are there.
#[must_use]
pub fn kill(entries: &[&Entry]) -> Vec<u8> {
    let kill = |entry: &&Entry| {
        let id = entry.connection.client_id.to_string();
        let address = entry.connection.address.as_deref().unwrap_or_default();
        command(&["CLIENT", "KILL", "ID", &id, "ADDR", address])
    };
    entries.iter().flat_map(kill).collect()
}

/// Takes those off the file whose server process is not the one that calls itself `run_id`.
pub fn strike_others(connections: &ConnectionFile, entries: &[Entry], run_id: Option<&str>) {
    let is_gone = |entry: &&Entry| Proof::of(entry, run_id) == Proof::AnotherProcess;
    for entry in entries.iter().filter(is_gone) {
        connections.closed(entry.ticket);
    }
}

/// Takes those off the file that these replies to [`kill`] prove dead.
pub fn strike_killed(connections: &ConnectionFile, killed: &[&Entry], replies: &[Vec<u8>], run_id: Option<&str>) {
    for (entry, reply) in killed.iter().zip(replies) {
        if Proof::of(entry, run_id).is_given_by(reply) {
            connections.closed(entry.ticket);
        }
    }
}

/// Takes connections off the file that were reset while the upstream is well: no fence comes to do it. On a connection of its own, within
/// `timeouts.connect` each for dialling and asking, as anybody whom the upstream lets in. Where there is no answer it is asked again; what is answered
/// otherwise, or may not be asked, stays for the fence.
pub(super) async fn clear(shared: Arc<Shared>, reset: Vec<Entry>) {
    let target = &shared.target;
    let somebody = || shared.password_owed().then(|| shared.known.anybody()).flatten();
    let credentials = target.own_credentials().or_else(somebody);
    let dialled = match dial_counted(target, &Handshake::in_own_name(credentials.as_ref(), 0)).await {
        Ok(dialled) => dialled,
        Err(DialError::PasswordOwed(_) | DialError::Refused(_)) => return,
        Err(_) => return again(&shared, &reset),
    };
    let run_id = dialled.facts.run_id.clone();
    strike_others(&shared.connections, &reset, run_id.as_deref());
    let killable = killable(&reset, run_id.as_deref());
    let request = kill(&killable);
    let mut conversation = Conversation::from(dialled);
    let asked = timeout(target.timeouts.connect, conversation.ask(&request, killable.len()));
    let Ok(Ok(replies)) = asked.await else {
        return again(&shared, &reset);
    };
    strike_killed(&shared.connections, &killable, &replies, run_id.as_deref());
}

fn again(shared: &Shared, reset: &[Entry]) {
    reset
        .iter()
        .for_each(|entry| shared.connections.was_reset(entry.ticket));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::connections::Connection;

    #[test]
    fn what_counts_as_proof() {
        let dir = tempfile::tempdir().unwrap();
        let file = ConnectionFile::open(&dir.path().join("connections")).unwrap();
        let entry = |client_id, address: Option<&str>, run_id: Option<&str>| {
            let connection = Connection {
                client_id,
                address: address.map(str::to_owned),
                run_id: run_id.map(str::to_owned),
            };
            let ticket = file.enter(1, connection.clone()).unwrap();
            Entry {
                ticket,
                generation: 1,
                connection,
            }
        };
        let here = Some("127.0.0.1:4000");
        for (entry, run_id, expected) in [
            (entry(7, here, Some("a")), Some("a"), Proof::Kill),
            (entry(7, here, Some("a")), Some("b"), Proof::AnotherProcess),
            (entry(0, None, Some("a")), Some("b"), Proof::AnotherProcess),
            (entry(7, here, None), Some("b"), Proof::KillOnlyIfThere),
            (entry(7, here, Some("a")), None, Proof::KillOnlyIfThere),
            (entry(7, None, Some("a")), Some("a"), Proof::None),
            (entry(0, here, Some("a")), Some("a"), Proof::None),
        ] {
            assert_eq!(Proof::of(&entry, run_id), expected, "{entry:?} {run_id:?}");
        }
        for (proof, given_by) in [
            (Proof::AnotherProcess, [true, true, true]),
            (Proof::Kill, [true, true, false]),
            (Proof::KillOnlyIfThere, [true, false, false]),
            (Proof::None, [false, false, false]),
        ] {
            let replies = [":1\r\n", ":0\r\n", "-NOPERM no\r\n"];
            assert_eq!(
                replies.map(|reply| proof.is_given_by(reply.as_bytes())),
                given_by,
                "{proof:?}"
            );
        }
    }
}
