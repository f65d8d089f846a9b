//! `limits.idle_timeout`: clients that say nothing for so long are closed, as with Redis's `timeout`
//! (<https://redis.io/docs/latest/develop/reference/clients/>): not those that wait for something, nor subscribers.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::state::Pinned;
use super::task::Task;

/// The watch over one client.
pub(super) struct IdleWatch {
    limit: Duration,
    heard_at: Instant,
    until: Pin<Box<Sleep>>,
}

impl IdleWatch {
    pub(super) fn new(limit: Duration) -> Self {
        let now = Instant::now();
        Self {
            limit,
            heard_at: now,
            until: Box::pin(sleep_until(now + limit)),
        }
    }

    pub(super) fn heard(&mut self) {
        self.heard_at = Instant::now();
    }

    /// Whether nothing has been heard for the limit; looks again when it may be so.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        // A client that sends all the time moves no timer: the time of its last request is looked at when the timer ends.
        while let Poll::Ready(()) = self.until.as_mut().poll(cx) {
            let until = self.heard_at + self.limit;
            if until <= Instant::now() {
                return true;
            }
            self.until.as_mut().reset(until);
        }
        false
    }
}

impl Task {
    /// To be asked when there is nothing else to do.
    pub(super) fn is_idle_for_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        let waits = !self.session.is_answered()
            || !self.session.subscriptions.borrow().is_empty()
            || self.state.tracking.is_some()
            || self.state.pinned == Pinned::Feed;
        let Some(watch) = &mut self.idle_watch else {
            return false;
        };
        if waits {
            watch.heard();
        }
        watch.is_over(cx)
    }
}
