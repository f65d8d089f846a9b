//! Between a dial and a connection's first request: whether its user has to wait.

use std::time::Duration;

use tokio::time::sleep;

use super::link::Link;
use super::local::Local;
use super::settings::Identity;

/// While a connection waits for the generation to move.
const FREED_LOOK: Duration = Duration::from_millis(10);

/// The connection is abandoned, or of an older generation by now.
#[derive(Debug)]
pub(super) struct NotWanted;

/// Journaled writes of this user wait for its credentials, and here they are: nothing of the user's is forwarded before those are replayed.
pub(super) async fn stay_behind(link: &Link, local: &Local) -> Result<(), NotWanted> {
    let shared = &local.shared;
    let name = link.key.identity.name();
    let accept = || {
        if let Identity::Client(credentials) = &link.key.identity {
            shared.known.accepted(credentials);
        }
    };
    // Of sessions from before a password was asked, whom replay speaks for as the user `default`.
    if link.generation.is_multiple_of(2) && name == "default" && shared.known.waits("") {
        accept();
        shared.known.free();
    }
    while link.generation.is_multiple_of(2) && shared.known.waits(name) {
        accept();
        local.look();
        if !link.is_open() || link.generation != local.generation() {
            return Err(NotWanted);
        }
        shared.known.free();
        sleep(FREED_LOOK).await;
    }
    Ok(())
}
