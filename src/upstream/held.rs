//! A lane on which Redis holds a command, while it answers others: CLIENT PAUSE holds writes, not reads.
//!
//! What tells is a PING on another connection that is answered although it was asked later. Reads behind are handed back to their sessions, which
//! ask on another lane; what Redis holds joins that lane until its first command is answered. Should nothing be held and the lane only be
//! late, that costs one connection and a few reads that are asked twice.

use std::rc::Rc;

use super::link::{InFlight, Link, LinkKey, LinkState, OpenTo};
use super::local::Local;
use super::stall::address;

/// A lane that is silent for so long is looked at.
const SILENT_US: u32 = 50_000;

impl Local {
    /// Looks for lanes that are held. To be called often.
    pub fn look_at_lanes(self: &Rc<Self>) {
        let now_us = self.turn.now_us();
        let silent: Vec<Rc<Link>> = self
            .lanes
            .borrow()
            .iter()
            .filter(|lane| lane.is_silent(now_us))
            .cloned()
            .collect();
        for lane in silent {
            self.ask_beside(lane);
        }
    }

    /// The lane for what Redis holds, if there is one for this key.
    #[inline]
    #[must_use]
    pub fn held_lane(&self, key: &LinkKey) -> Option<Rc<Link>> {
        let held = self.held.borrow();
        let lane = held.iter().find(|lane| lane.is_held() && lane.key == *key);
        lane.cloned()
    }

    fn ask_beside(self: &Rc<Self>, lane: Rc<Link>) {
        let Some(beside) = self.pool.borrow_mut().take_up(|key| *key == lane.key) else {
            return;
        };
        lane.asked_beside.set(true);
        let asked = lane.front();
        let local = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let is_well = local.ping_on(beside).await;
            lane.asked_beside.set(false);
            if is_well && lane.is_open() && lane.front() == asked && lane.hold() {
                local.held.borrow_mut().push(lane);
            }
        });
    }
}

impl Link {
    /// Whether what Redis holds may join it.
    #[must_use]
    pub(super) fn is_held(&self) -> bool {
        self.state.get() == LinkState::Up && self.open_to.get() == OpenTo::Held
    }

    /// Where its oldest unanswered request starts.
    fn front(&self) -> Option<u64> {
        self.slots.borrow().front().map(|slot| slot.start)
    }

    /// Whether others wait behind a request that was sent a while ago, and nothing has come since.
    fn is_silent(&self, now_us: u32) -> bool {
        let slots = self.slots.borrow();
        let Some(front) = slots.front() else { return false };
        let is_sent = self.out.borrow().is_sent(front);
        let is_old = |since_us: u32| now_us.wrapping_sub(since_us) >= SILENT_US;
        self.is_open()
            && !self.asked_beside.get()
            && is_sent
            && is_old(front.sent_us)
            && is_old(self.heard_us.get())
            && slots
                .iter()
                .any(|slot| slot.class == InFlight::Read && address(&slot.recipient) != address(&front.recipient))
    }

    /// Takes it from all whom Redis would answer. False where nothing is in flight.
    fn hold(&self) -> bool {
        let front = self.slots.borrow().front().map(|slot| Rc::clone(&slot.recipient));
        let Some(front) = front else { return false };
        self.open_to.set(OpenTo::Held);
        self.hand_back_reads(&front);
        true
    }
}
