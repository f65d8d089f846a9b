//! The fence: nothing that was sent before the failure may be applied after replay began. For each older connection the first proof wins:
//! its end, read by the worker that has it; another server process; a reply to CLIENT KILL for exactly that connection.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::controls::{Controls, Fence};
use super::line::Line;
use crate::breaker::Trouble;
use crate::telemetry;
use crate::upstream::connections::Entry;
use crate::upstream::dead::{kill, killable, strike_killed, strike_others};
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

/// Proves all connections dialled before `generation` dead, or waits as long as is reasonable and says so.
pub(super) async fn fence(
    shared: &Shared,
    controls: &Controls,
    generation: u64,
    line: &mut Line,
    facts: &Facts,
) -> Result<(), Trouble> {
    let run_id = facts.run_id.as_deref();
    strike_others(&shared.connections, &shared.connections.older_than(generation), run_id);
    await_ends(shared, generation).await;
    let left = shared.connections.older_than(generation);
    let killable = killable(&left, run_id);
    if !killable.is_empty() {
        let replies = line.ask(&kill(&killable), killable.len()).await?;
        strike_killed(&shared.connections, &killable, &replies, run_id);
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
