//! Writes that Redis holds while it answers others: CLIENT PAUSE WRITE, or a FAILOVER under way. That is no outage. A SET within MULTI is held before it is
//! queued [seen on 7.0.15].

use std::time::Duration;

use tokio::time::Instant;

use super::batch::Group;
use super::line::frames;
use super::run::Run;
use crate::breaker::Trouble;
use crate::resp::Protocol;
use crate::upstream::dial::{Handshake, Opener, dial};

/// Longer than this it is the connection that is broken, not Redis that holds it.
const HELD_MAX: Duration = Duration::from_secs(30);

impl Run<'_> {
    /// Question and answer, for what writes.
    pub(super) async fn ask_though_held(
        &mut self,
        group: &Group,
        request: &[u8],
        count: usize,
    ) -> Result<Vec<Vec<u8>>, Trouble> {
        self.line(group).send(request).await?;
        frames(&self.replies_though_held(group, count).await?, count)
    }

    /// The replies to what writes. Reads go on while it is held; its turn it keeps.
    pub(super) async fn replies_though_held(&mut self, group: &Group, count: usize) -> Result<Vec<u8>, Trouble> {
        let until = Instant::now() + HELD_MAX;
        loop {
            match self.line(group).replies(count).await {
                Err(Trouble::Silence) if Instant::now() < until && self.are_others_answered().await => {
                    self.show_halted("Redis holds writes while it answers others (CLIENT PAUSE)".to_owned());
                }
                replied => return replied,
            }
        }
    }

    /// Whether this server process answers on a fresh connection.
    async fn are_others_answered(&self) -> bool {
        let target = &self.replay.shared.target;
        let credentials = match &self.spoken_as {
            Some(user) => self.replay.shared.known.live(user),
            None => target.own_credentials(),
        };
        let handshake = Handshake {
            opener: Opener::Itself,
            credentials: credentials.as_ref(),
            protocol: Protocol::Resp2,
            db: target.db,
        };
        match dial(target, &handshake).await {
            Ok(dialled) => dialled.facts.ping_error.is_none() && dialled.facts.run_id == self.run_id,
            Err(_) => false,
        }
    }
}
