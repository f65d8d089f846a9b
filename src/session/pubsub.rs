//! Subscriptions: kept by the session, so that they outlive the connection that they are made on. What is asked about them goes upstream in the turn
//! in which it is read, as at Redis: who is answered elsewhere afterwards may rely on it.

use super::route::Ask;
use super::subscriptions::{Heard, is_subscription};
use super::task::{Routed, Task};
use super::{Home, Session};
use crate::command::{self, Name, Placement};
use crate::resp::Protocol;
use crate::upstream::link::Piece;
use crate::upstream::stats::Route;

impl Task {
    /// Whether everything on the session's dedicated connection is out of band now.
    pub(super) fn is_subscribed_mode(&self) -> bool {
        self.state.key.protocol == Protocol::Resp2 && !self.session.subscriptions.borrow().is_empty()
    }

    /// Whether a request is one of the many that Redis refuses in its subscribed mode, or a PING, which it answers otherwise there.
    pub(super) fn is_for_subscribed_mode(&self, ask: &Ask<'_>) -> bool {
        let is_taken = |name| is_subscription(name) || matches!(name, Name::Quit | Name::Reset);
        self.is_subscribed_mode() && !ask.name().is_some_and(is_taken)
    }

    /// Whether a request may go on while others are answered out of band: it must be answered there as well, where its answer stands behind theirs
    /// and is known from it.
    pub(super) fn may_follow_unconfirmed(&self, ask: &Ask<'_>) -> bool {
        let unconfirmed = self.session.subscriptions.borrow().unconfirmed();
        let is_answered_out_of_band = match ask.name() {
            Some(name) if is_subscription(name) => ask.spec.is_some_and(|spec| command::arity_ok(spec, &ask.request)),
            Some(Name::Ping) => self.is_subscribed_mode() && ask.request.len() <= 2,
            Some(_) | None => false,
        };
        let has_room = || {
            let dedicated = self.session.dedicated.borrow();
            unconfirmed < self.session.settings.limits.pipeline_max
                && !dedicated.as_ref().is_some_and(|link| link.is_full())
        };
        unconfirmed == 0 || is_answered_out_of_band && has_room()
    }

    /// SUBSCRIBE and its family: confirmed out of band.
    pub(super) fn subscribe(&mut self, ask: &Ask<'_>, name: Name) -> Routed {
        let is_refused = ask.spec.is_some_and(|spec| !command::arity_ok(spec, &ask.request));
        if is_refused && self.is_subscribed_mode() {
            return self.pass_subscribed(ask);
        }
        if is_refused || self.in_transaction() {
            return self.via_dedicated(ask, Placement::Dedicated);
        }
        // Nothing tells whose an error would be, and in RESP2 a confirmation from a reply: nothing that has a reply may be under way.
        if !self.session.is_settled() || !self.session.is_answered() {
            return Routed::Park;
        }
        let link = self.dedicated();
        if !self.take_home(Home::Link(link.id)) {
            return Routed::Park;
        }
        if self.state.key.protocol == Protocol::Resp2 {
            link.set_passthrough();
        }
        self.session.home.set(Home::Nowhere);
        let issued = self.session.issued.get();
        self.session.output.borrow_mut().use_up_skip(issued);
        self.session.subscriptions.borrow_mut().ask(name, &ask.request);
        self.session.local.worker().stats.routed(Route::Forwarded);
        link.push_bytes(ask.request.frame());
        self.session.local.replace_spares();
        Routed::Done
    }

    /// In the subscribed mode of RESP2, and behind MONITOR, everything is passed on, and everything that comes is passed back.
    pub(super) fn pass_subscribed(&mut self, ask: &Ask<'_>) -> Routed {
        let link = self.dedicated();
        self.session.local.worker().stats.routed(Route::Forwarded);
        if !self.is_monitoring() {
            let is_muted = self.session.output.borrow().is_open_muted();
            let stand_in = if is_muted {
                Vec::new()
            } else {
                self.subscribed_reply(ask)
            };
            self.session.subscriptions.borrow_mut().pass(stand_in);
        }
        link.push_bytes(ask.request.frame());
        Routed::Done
    }

    /// Confirms the changes that the connection died with.
    pub(super) fn confirm_unconfirmed(&mut self) {
        let confirmations = self.session.subscriptions.borrow_mut().cut(self.state.key.protocol);
        if !confirmations.is_empty() {
            self.session.output.borrow_mut().push(&confirmations, Piece::End);
        }
    }

    /// Makes the session's subscriptions anew on a fresh dedicated connection, without telling the client again.
    pub(super) fn renew_subscriptions(&mut self) {
        let link = self.dedicated();
        if self.state.key.protocol == Protocol::Resp2 {
            link.set_passthrough();
        }
        let commands = self.session.subscriptions.borrow_mut().renew();
        link.push_bytes(&commands);
    }
}

impl Session {
    /// Notes what an out-of-band frame says of the subscriptions.
    pub(super) fn hear(&self, frame: &[u8]) -> Heard {
        let mut subscriptions = self.subscriptions.borrow_mut();
        let was = subscriptions.unconfirmed();
        let heard = subscriptions.hear(frame);
        let left = subscriptions.unconfirmed();
        if left < was && (left == 0 || left == self.settings.limits.pipeline_max / 2) {
            self.wake_if_parked();
        }
        heard
    }
}
