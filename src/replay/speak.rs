//! An upstream that asks a password, and a URL that has none: what is ours to say there (the fence, the review, WAIT) is said as a user
//! whose sessions have authenticated. Without such a user, and with something to say, replay waits for one.

use tokio::time::timeout;

use super::Replay;
use super::line::{Line, trouble_of_dial};
use super::run::HALT;
use super::source::ask;
use crate::breaker::{Failure, Trouble};
use crate::outage::payload::decode;
use crate::resp::Protocol;
use crate::upstream::dial::{DialError, Facts, Handshake, Opener, dial};
use crate::upstream::settings::Credentials;
use crate::upstream::shared::Mode;

const WAITS: &str = "the upstream asks a password: replay waits for a client that authenticates";

/// Makes `line` one that is authenticated, if it is not; the name of the user that it speaks as then.
pub(super) async fn speak(replay: &Replay, line: &mut Line, facts: &mut Facts) -> Result<Option<String>, Trouble> {
    if line.connection().is_some() {
        return Ok(None);
    }
    let shared = &replay.shared;
    loop {
        if let Some(credentials) = somebody(replay).await {
            let handshake = Handshake {
                opener: Opener::Itself,
                credentials: Some(&credentials),
                protocol: Protocol::Resp2,
                db: shared.target.db,
            };
            match dial(&shared.target, &handshake).await {
                Ok(dialled) => {
                    *facts = dialled.facts.clone();
                    shared.set_facts(facts.clone());
                    *line = Line::new(dialled.into(), shared.target.timeouts.command);
                    replay.controls.update(|status| status.last_error = None);
                    shared.set_mode(Mode::CatchingUp);
                    return Ok(Some(credentials.user.unwrap_or_else(|| "default".to_owned())));
                }
                Err(DialError::Refused(_)) => shared.known.refused(&credentials),
                Err(error) => return Err(trouble_of_dial(&error)),
            }
        } else if has_nothing_to_say(replay).await? {
            return Ok(None);
        } else {
            if shared.mode() != Mode::Halted {
                tracing::warn!(upstream = shared.target.name, "{WAITS}");
                replay
                    .controls
                    .update(|status| status.last_error = Some(WAITS.to_owned()));
                shared.set_mode(Mode::Halted);
            }
            drop(timeout(HALT, replay.controls.changed()).await);
            line.ping().await?;
        }
    }
}

/// Credentials that a session authenticated with: the default user's, else those of the first record's user, else anybody's.
async fn somebody(replay: &Replay) -> Option<Credentials> {
    let shared = &replay.shared;
    if let Some(credentials) = shared.known.live("default") {
        return Some(credentials);
    }
    of_first_record(replay).await.or_else(|| shared.known.anybody())
}

async fn of_first_record(replay: &Replay) -> Option<Credentials> {
    let owner = &replay.owner;
    let checkpoint = ask(|reply| owner.checkpoint(reply)).await.ok()?.unwrap_or_default();
    let records = ask(|reply| owner.read(checkpoint.seq, 1, 1, reply)).await.ok()?.ok()?;
    let payload = decode(&records.first()?.payload).ok()?;
    replay.shared.known.live(std::str::from_utf8(payload.identity()).ok()?)
}

/// No older connection to fence, nothing to replay, nothing that the upstream could have lost.
async fn has_nothing_to_say(replay: &Replay) -> Result<bool, Trouble> {
    let owner = &replay.owner;
    let status = ask(|reply| owner.status(reply))
        .await
        .map_err(|_| Trouble::Soft(Failure::Protocol))?;
    Ok(status.journal.records == status.journal.waiting_records)
}
