//! Writes that Redis holds while it answers others: CLIENT PAUSE WRITE, or a FAILOVER under way. That is no outage. A SET within MULTI is held before it is
//! queued [seen on 7.0.15]: the same on a fresh connection tells a Redis that holds writes from a connection of ours that is stranded.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::batch::{Group, command};
use super::line::frames;
use super::run::Run;
use crate::breaker::Trouble;
use crate::upstream::dial::{Conversation, Handshake, dial};

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
                Err(Trouble::Silence) if Instant::now() < until && self.are_writes_held().await => {
                    self.show_halted("Redis holds writes while it answers others (CLIENT PAUSE)".to_owned());
                }
                replied => return replied,
            }
        }
    }

    /// Whether this server process answers a fresh connection, but not a write there. Nothing is written.
    async fn are_writes_held(&self) -> bool {
        let target = &self.replay.shared.target;
        let credentials = match &self.spoken_as {
            Some(user) => self.replay.shared.known.live(user),
            None => target.own_credentials(),
        };
        let handshake = Handshake::in_own_name(credentials.as_ref(), target.db);
        let mut conversation: Conversation = match dial(target, &handshake).await {
            Ok(dialled) if dialled.facts.ping_error.is_none() && dialled.facts.run_id == self.run_id => dialled.into(),
            Ok(_) | Err(_) => return false,
        };
        let limit = target.timeouts.connect;
        let (mut begin, mut write) = (Vec::new(), Vec::new());
        command(&mut begin, &[b"MULTI"]);
        command(&mut write, &[b"SET", &self.replay.marker_key, b""]);
        command(&mut write, &[b"DISCARD"]);
        // What follows a refused MULTI is executed.
        matches!(timeout(limit, conversation.ask(&begin, 1)).await, Ok(Ok(replies)) if replies == [b"+OK\r\n"])
            && timeout(limit, conversation.ask(&write, 2)).await.is_err()
    }
}
