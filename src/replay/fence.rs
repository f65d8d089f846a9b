//! The fence: nothing that was sent before the failure may be applied after replay began. For each older connection the first proof wins:
//! its end, read by the worker that has it; another server process; a reply to CLIENT KILL for exactly that connection.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::batch::command;
use super::controls::{Controls, Fence};
use super::line::Line;
use crate::breaker::Trouble;
use crate::telemetry;
use crate::upstream::connections::Entry;
use crate::upstream::dial::Facts;
use crate::upstream::shared::Shared;

/// How long workers may take to read their half-closed connections to the end.
const END_PATIENCE_MAX: Duration = Duration::from_millis(500);
const END_POLL: Duration = Duration::from_millis(10);

/// Without a proof for some connection: what may be unread by the server is at most this, since nobody knows better.
const UNREAD_BYTES: u32 = 64 << 10;
/// Redis reads at most this much of a connection per turn of its event loop.
const READ_PER_TURN_BYTES: u32 = 16 << 10;
const HEALTH: Duration = Duration::from_secs(2);
const HEALTH_PING: Duration = Duration::from_millis(200);

/// What is known of an older connection.
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

fn proof(entry: &Entry, run_id: Option<&str>) -> Proof {
    let is_same_process = match (entry.connection.run_id.as_deref(), run_id) {
        (Some(then), Some(now)) if then != now => return Proof::AnotherProcess,
        (Some(_), Some(_)) => true,
        (None, _) | (_, None) => false,
    };
    if entry.connection.address.is_none() || entry.connection.client_id == 0 {
        Proof::None
    } else if is_same_process {
        Proof::Kill
    } else {
        Proof::KillOnlyIfThere
    }
}

/// Proves all connections dialled before `generation` dead, or waits as long as is reasonable and says so.
pub(super) async fn fence(
    shared: &Shared,
    controls: &Controls,
    generation: u64,
    line: &mut Line,
    facts: &Facts,
) -> Result<(), Trouble> {
    let run_id = facts.run_id.as_deref();
    for entry in shared.connections.older_than(generation) {
        if proof(&entry, run_id) == Proof::AnotherProcess {
            shared.connections.closed(entry.ticket);
        }
    }
    await_ends(shared, generation).await;
    let left = shared.connections.older_than(generation);
    let killable: Vec<&Entry> = left
        .iter()
        .filter(|entry| matches!(proof(entry, run_id), Proof::Kill | Proof::KillOnlyIfThere))
        .collect();
    if !killable.is_empty() {
        let mut request = Vec::new();
        for entry in &killable {
            let id = entry.connection.client_id.to_string();
            let address = entry.connection.address.as_deref().unwrap_or_default();
            command(
                &mut request,
                &[b"CLIENT", b"KILL", b"ID", id.as_bytes(), b"ADDR", address.as_bytes()],
            );
        }
        let replies = line.ask(&request, killable.len()).await?;
        for (entry, reply) in killable.iter().zip(&replies) {
            let is_proven = match proof(entry, run_id) {
                Proof::Kill => reply.first() == Some(&b':'),
                Proof::KillOnlyIfThere => reply == b":1\r\n",
                Proof::AnotherProcess | Proof::None => false,
            };
            if is_proven {
                shared.connections.closed(entry.ticket);
            }
        }
    }
    let left = shared.connections.older_than(generation);
    let fence = if left.is_empty() {
        Fence::Proven
    } else {
        Fence::Unproven
    };
    controls.update(|status| status.fence = fence);
    match fence {
        Fence::Proven => Ok(()),
        Fence::Unproven => outwait(shared, line, &left).await,
    }
}

/// Workers take a connection off the file when they have read its end.
async fn await_ends(shared: &Shared, generation: u64) {
    let until = Instant::now() + shared.target.hold_timeout.min(END_PATIENCE_MAX);
    // Nobody reads the connections of an earlier process (generation 0) to their end.
    let is_awaited = |entry: &Entry| entry.generation > 0;
    while shared.connections.older_than(generation).iter().any(is_awaited) && Instant::now() < until {
        sleep(END_POLL).await;
    }
}

async fn outwait(shared: &Shared, line: &mut Line, left: &[Entry]) -> Result<(), Trouble> {
    telemetry::fence_unproven(&shared.target.name, left.len() as u64);
    for _ in 0..UNREAD_BYTES.div_ceil(READ_PER_TURN_BYTES) + 2 {
        line.ping().await?;
    }
    let until = Instant::now() + HEALTH;
    while Instant::now() < until {
        sleep(HEALTH_PING).await;
        line.ping().await?;
    }
    for entry in left {
        shared.connections.closed(entry.ticket);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::connections::{Connection, ConnectionFile};

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
            assert_eq!(proof(&entry, run_id), expected, "{entry:?} {run_id:?}");
        }
    }
}
