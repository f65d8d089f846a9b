//! stub
use super::route::Ask;
use super::task::{Routed, Task};
use crate::command::Name;

impl Task {
    pub(super) fn down(&mut self, ask: &Ask<'_>) -> Routed {
        self.refuse(ask)
    }
    pub(super) fn catching_up(&mut self, ask: &Ask<'_>) -> Routed {
        self.refuse(ask)
    }
    pub(super) fn halted(&mut self, ask: &Ask<'_>) -> Routed {
        self.refuse(ask)
    }
    pub(super) fn not_forwarded(&mut self, ask: &Ask<'_>) -> Routed {
        self.refuse(ask)
    }
    pub(super) fn transaction_down(&mut self, ask: &Ask<'_>, _: Name) -> Routed {
        self.refuse(ask)
    }
    pub(super) fn subscribe_down(&mut self, ask: &Ask<'_>, _: Name) -> Routed {
        self.refuse(ask)
    }
    pub(super) fn queue_down(&mut self, ask: &Ask<'_>) -> Routed {
        self.refuse(ask)
    }
}
