//! A script that does not end: Redis answers everybody BUSY, but for the little that asks after it or ends it.

use super::Home;
use super::route::Ask;
use super::task::{Routed, Task};
use crate::command::Name;
use crate::upstream::link::{LinkKey, Watched};

pub(super) fn is_for_busy(name: Name) -> bool {
    matches!(name, Name::ScriptKill | Name::FunctionKill | Name::FunctionStats)
}

impl Task {
    /// Redis selects no database meanwhile, so no connection for another one could be dialled; these commands need none.
    pub(super) fn ask_busy(&mut self, ask: &Ask<'_>) -> Routed {
        if !self.release_dedicated() {
            return Routed::Park;
        }
        let key = LinkKey {
            db: 0,
            ..self.state.key.clone()
        };
        let lane = self.session.local.lane(&key);
        if !self.take_home(Home::Link(lane.id)) {
            return Routed::Park;
        }
        self.send(&lane, ask, self.class(ask), Watched::Yes);
        Routed::Done
    }
}
