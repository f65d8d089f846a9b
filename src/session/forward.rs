//! The upstream is well: every request goes there, over a lane or over the session's dedicated connection.

use std::rc::Rc;

use super::blocking::shortened;
use super::busy::is_for_busy;
use super::output::Withdrawn;
use super::route::Ask;
use super::state::{Pinned, Transaction, Watch};
use super::task::{Routed, Task};
use super::{Change, ChangeAwaited, Home, RetryReason, Session};
use crate::command::{self, Name, Placement};
use crate::upstream::dial;
use crate::upstream::link::{InFlight, Link, Watched};
use crate::upstream::stats::Route;

impl Task {
    #[inline]
    pub(super) fn forward(&mut self, ask: &Ask<'_>) -> Routed {
        let placement = ask.placement();
        let has_dedicated = self.session.dedicated.borrow().is_some();
        if placement == Placement::Lane
            && !has_dedicated
            && !self.is_bound()
            && ask.request.frame().len() <= self.session.settings.limits.lane_request_bytes_max
        {
            return self.via_lane(ask);
        }
        self.forward_bound(ask, placement)
    }

    #[inline]
    pub(super) fn via_lane(&mut self, ask: &Ask<'_>) -> Routed {
        let class = self.class(ask);
        let may_be_held = class == InFlight::Write || ask.may_replicate();
        let lane = if may_be_held {
            self.lane_for_writes()
        } else {
            self.lane()
        };
        if !self.take_home(Home::Link(lane.id)) {
            return Routed::Park;
        }
        self.send(&lane, ask, class, Watched::Yes);
        lane.write_early();
        Routed::Done
    }

    /// Everything but the plain case.
    fn forward_bound(&mut self, ask: &Ask<'_>, placement: Placement) -> Routed {
        if let Some(link) = self.session.dedicated.borrow().as_ref()
            && link.is_open()
            && link.is_passthrough()
        {
            if link.is_raw() {
                link.push_bytes(ask.request.frame());
                return Routed::Done;
            }
            let subscriptions = self.session.subscriptions.borrow();
            if subscriptions.is_empty() && subscriptions.is_confirmed() && self.state.pinned != Pinned::Feed {
                // The connection has left the subscribed mode: what follows is answered like anything else.
                link.end_passthrough();
            }
        }
        if self.session.blocking.get().is_some() {
            return Routed::Park;
        }
        // A transaction whose connection died is over only with its EXEC or DISCARD.
        match &self.state.transaction {
            Transaction::Cut => return self.not_forwarded(ask),
            // Begun while down, it goes upstream as a whole, with its EXEC.
            Transaction::Here(_) if placement != Placement::Session => return self.queue_down(ask),
            Transaction::Here(_) | Transaction::None | Transaction::Upstream => {}
        }
        if !self.may_follow_unconfirmed(ask) {
            return Routed::Park;
        }
        // Redis refuses everything else in its subscribed mode, in its own words.
        if self.is_for_subscribed_mode(ask) {
            return self.pass_subscribed(ask);
        }
        // What MONITOR feeds is not told from replies.
        if self.is_monitoring() && !matches!(ask.name(), Some(Name::Quit | Name::Reset)) {
            return self.pass_subscribed(ask);
        }
        if let Some(name) = ask.name()
            && placement == Placement::Session
        {
            return self.session_command(ask, name);
        }
        if ask.name() == Some(Name::ClientGetname) && self.state.pinned == Pinned::No && !self.in_transaction() {
            return self.answer_locally(ask);
        }
        if self.is_bound() {
            return self.via_dedicated(ask, placement);
        }
        match placement {
            Placement::Lane if ask.request.frame().len() <= self.session.settings.limits.lane_request_bytes_max => {
                if !self.release_dedicated() {
                    return Routed::Park;
                }
                self.via_lane(ask)
            }
            Placement::Dedicated if ask.name().is_some_and(is_for_busy) => self.ask_busy(ask),
            Placement::Lane | Placement::Dedicated | Placement::Script | Placement::Session => {
                self.via_dedicated(ask, placement)
            }
        }
    }

    pub(super) fn class(&self, ask: &Ask<'_>) -> InFlight {
        match ask.came_back {
            Some((_, class)) => class,
            None => ask.in_flight().into(),
        }
    }

    /// Makes `home` the place of what is in flight; not while something is in flight elsewhere.
    #[inline]
    pub(super) fn take_home(&self, home: Home) -> bool {
        if self.session.home.get() != home {
            if !self.session.is_settled() {
                return false;
            }
            self.session.home.set(home);
        }
        true
    }

    #[inline]
    pub(super) fn send(&self, link: &Link, ask: &Ask<'_>, class: InFlight, watched: Watched) -> u64 {
        let session = &self.session;
        let seq = self.seq(ask);
        if ask.name() == Some(Name::Xadd) && class == InFlight::Write {
            session.stream_adds.borrow_mut().sent(seq, ask.request.arg(1));
        }
        self.push_on(link, seq, ask.request.frame(), class, watched);
        seq
    }

    #[inline]
    pub(super) fn push_on(&self, link: &Link, seq: u64, frame: &[u8], class: InFlight, watched: Watched) {
        let session = &self.session;
        session.local.worker().stats.routed(Route::Forwarded);
        session.in_flight.set(session.in_flight.get() + 1);
        let recipient: Rc<Session> = Rc::clone(session);
        link.push(recipient, seq, frame, class, watched, session.local.turn.stamped_us());
    }

    /// The session's dedicated connection, from the pool or dialled.
    pub(super) fn dedicated(&mut self) -> Rc<Link> {
        if let Some(link) = self.session.dedicated.borrow().as_ref()
            && link.is_open()
            && !self.is_left_behind(link)
        {
            return Rc::clone(link);
        }
        if let Some(link) = self.session.dedicated.take() {
            link.abandon();
        }
        let owner: Rc<Session> = Rc::clone(&self.session);
        let link = self.session.local.dedicated(&self.state.key, owner);
        self.session.dedicated.replace(Some(Rc::clone(&link)));
        self.track_on(&link);
        link
    }

    /// Subscribed to nothing any more, and everything on it is still taken for out of band.
    fn is_left_behind(&self, link: &Link) -> bool {
        let subscriptions = self.session.subscriptions.borrow();
        link.is_passthrough()
            && subscriptions.is_empty()
            && subscriptions.is_confirmed()
            && self.state.pinned != Pinned::Feed
    }

    /// Gives the dedicated connection back, which the session is not bound to; not while something is in flight on it.
    pub(super) fn release_dedicated(&mut self) -> bool {
        // A connection that still owes confirmations is nobody else's.
        if !self.session.is_settled() || !self.session.subscriptions.borrow().is_confirmed() {
            return false;
        }
        self.let_go_of_dedicated();
        true
    }

    /// One that has gone along with the session to another key is not what its own key says: nobody else's.
    pub(super) fn let_go_of_dedicated(&self) {
        if let Some(link) = self.session.dedicated.take() {
            self.session.local.give_back(&link);
        }
    }

    /// The session is over. A connection that nothing of it is left on serves the next one.
    pub(super) fn part(&mut self) {
        let may_release = !self.is_bound() && self.streaming.is_none();
        if (!may_release || !self.release_dedicated())
            && let Some(link) = self.session.dedicated.take()
        {
            link.abandon();
        }
    }

    /// The upstream has said itself that it is not to be used.
    fn has_unexecuted(&self) -> bool {
        let retries = self.session.retries.borrow();
        retries
            .iter()
            .any(|retry| matches!(retry.reason, RetryReason::NotExecuted { .. }))
    }

    /// The dedicated connection ended on its own: what was begun on it is over.
    pub(super) fn connection_ended(&mut self) {
        let closed = self
            .session
            .dedicated
            .borrow()
            .as_ref()
            .is_some_and(|link| !link.is_open());
        if !self.session.dedicated_ended.replace(false) && !closed {
            return;
        }
        let mut is_missed = self.is_known_by_its_connection() && self.is_forwarding() && !self.has_unexecuted();
        // One that is draining still brings replies, but its end is no news of the one that follows it.
        if let Some(link) = self.session.dedicated.take() {
            is_missed &= link.generation == self.session.local.generation();
            link.disown();
        }
        if matches!(self.state.transaction, Transaction::Upstream) {
            self.state.transaction = Transaction::Cut;
        }
        if self.state.watch == Watch::Upstream {
            self.state.watch = Watch::Lost;
        }
        if self.session.output.borrow_mut().withdraw_push() == Withdrawn::Torn {
            // Whatever came next would be taken for the rest of it.
            self.session.end();
        }
        match self.state.pinned {
            Pinned::No => {}
            Pinned::Identity => self.state.pinned = Pinned::No,
            Pinned::Feed => self.session.end(),
        }
        if is_missed {
            self.inquire();
        }
        self.lost_its_feed();
        self.confirm_unconfirmed();
        self.session.push_part.take();
    }

    pub(super) fn via_dedicated(&mut self, ask: &Ask<'_>, placement: Placement) -> Routed {
        if ask.name().is_some_and(needs_identity) && self.state.pinned == Pinned::No && !self.pin(ask.name()) {
            return Routed::Park;
        }
        match ask.name() {
            Some(Name::Monitor) if ask.request.len() == 1 && !self.in_transaction() => {
                return self.feed(ask, Link::set_passthrough);
            }
            Some(Name::Sync | Name::Psync) if !self.in_transaction() => return self.feed(ask, Link::set_raw),
            Some(_) | None => {}
        }
        let link = self.dedicated();
        if !self.take_home(Home::Link(link.id)) {
            return Routed::Park;
        }
        let blocking = ask.is_blocking() && !self.in_transaction() && placement == Placement::Dedicated;
        let unwatched = blocking
            || placement == Placement::Script
            || matches!(ask.name(), None | Some(Name::Wait | Name::Waitaof | Name::ClientPause));
        let class = if self.in_transaction() {
            InFlight::Queued
        } else {
            self.class(ask)
        };
        if matches!(ask.name(), Some(Name::Wait | Name::Waitaof)) && !self.in_transaction() {
            // A fresh connection has written nothing, and Redis would report replicas that never got the session's writes.
            self.own_write(&link);
        }
        if matches!(
            ask.name(),
            Some(Name::ModuleLoad | Name::ModuleLoadex | Name::ModuleUnload)
        ) {
            self.session.local.shared.learned.want();
        }
        if ask.may_alter() || self.in_transaction() && ask.placement() == Placement::Session {
            link.alter();
        }
        let watched = if unwatched { Watched::No } else { Watched::Yes };
        let seq = match self
            .held_for()
            .and_then(|waited| blocking.then(|| shortened(&ask.request, waited)).flatten())
        {
            Some(shorter) => {
                let shorter = Ask {
                    request: shorter.as_request(),
                    ..*ask
                };
                self.send(&link, &shorter, class, watched)
            }
            None => self.send(&link, ask, class, watched),
        };
        if blocking {
            self.note_blocking(seq);
        }
        if placement == Placement::Script {
            self.note_script(ask, seq);
        }
        if ask.name() == Some(Name::ClientTracking) {
            self.note_tracking(ask, seq);
        }
        Routed::Done
    }

    /// Gives the connection an offset of its own in the replication stream, behind every write that this session had answered.
    fn own_write(&self, link: &Link) {
        let now_us = self.session.local.turn.now_us();
        link.push_ignored(&dial::command(&["PING"]), now_us);
    }

    /// The connection becomes the session's for good, with its name and library. False while something is in flight elsewhere.
    fn pin(&mut self, name: Option<Name>) -> bool {
        if !self.session.is_settled() {
            return false;
        }
        self.state.pinned = match name {
            Some(Name::Monitor | Name::Sync | Name::Psync) => Pinned::Feed,
            Some(_) | None => Pinned::Identity,
        };
        let has_state = self.in_transaction()
            || self.state.watch != Watch::None
            || !self.session.subscriptions.borrow().is_empty()
            || self.state.tracking.is_some();
        // Where it carries a transaction, a WATCH or subscriptions it is the session's alone already.
        if !has_state {
            // One that served others knows of itself what they did.
            self.let_go_of_dedicated();
            let owner: Rc<Session> = Rc::clone(&self.session);
            let link = self.session.local.dedicated_fresh(&self.state.key, owner);
            self.session.dedicated.replace(Some(link));
        }
        // Redis refuses SYNC while another reply is under way.
        if !self.in_transaction() && !matches!(name, Some(Name::Sync | Name::Psync)) {
            self.introduce_on_dedicated();
        }
        true
    }

    /// Tells the dedicated connection the session's name and library.
    pub(super) fn introduce_on_dedicated(&mut self) {
        let link = self.dedicated();
        let now_us = self.session.local.turn.now_us();
        let said = [
            (&["CLIENT", "SETNAME"][..], &self.state.name),
            (&["CLIENT", "SETINFO", "LIB-NAME"][..], &self.state.library_name),
            (&["CLIENT", "SETINFO", "LIB-VER"][..], &self.state.library_version),
        ];
        for (words, value) in said {
            if let Some(value) = value {
                let mut args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
                args.push(value);
                let request = crate::resp::request::OwnedRequest::new(&args);
                link.push_ignored(request.as_request().frame(), now_us);
            }
        }
    }

    /// Everything that comes from here on is a feed.
    fn feed(&mut self, ask: &Ask<'_>, begin: fn(&Link)) -> Routed {
        if !self.session.is_settled() || !self.session.is_answered() {
            return Routed::Park;
        }
        let link = self.dedicated();
        begin(&link);
        link.push_bytes(ask.request.frame());
        self.state.pinned = Pinned::Feed;
        Routed::Done
    }

    pub(super) fn is_monitoring(&self) -> bool {
        let dedicated = self.session.dedicated.borrow();
        let is_passthrough = dedicated
            .as_ref()
            .is_some_and(|link| link.is_open() && link.is_passthrough());
        is_passthrough && self.state.pinned == Pinned::Feed
    }

    /// MULTI, EXEC, DISCARD, WATCH, UNWATCH: to the dedicated connection, noting what they begin and end.
    pub(super) fn transaction_command(&mut self, ask: &Ask<'_>, name: Name) -> Routed {
        if matches!(self.state.transaction, Transaction::Here(_)) {
            return self.transaction_down(ask, name);
        }
        // What was watched died with its connection: nothing that depends on it may be applied.
        if self.state.watch == Watch::Lost {
            match name {
                Name::Multi => {
                    self.state.transaction = Transaction::Cut;
                    return self.answer(ask, b"+OK\r\n", Route::Local);
                }
                Name::Unwatch => {
                    self.state.watch = Watch::None;
                    return self.answer(ask, b"+OK\r\n", Route::Local);
                }
                _ => {}
            }
        }
        let begins = matches!(name, Name::Multi | Name::Watch);
        // A malformed EXEC ends the transaction, too.
        let is_malformed = ask.spec.is_some_and(|spec| !command::arity_ok(spec, &ask.request))
            && !(name == Name::Exec && self.in_transaction());
        let refused = is_malformed || matches!(name, Name::Exec | Name::Discard) && !self.in_transaction();
        if !self.is_bound() && (!begins || refused) {
            // Redis's own error (or its OK, for UNWATCH), which a lane can bring as well.
            return if self.release_dedicated() {
                self.via_lane(ask)
            } else {
                Routed::Park
            };
        }
        let link = self.dedicated();
        if !self.take_home(Home::Link(link.id)) {
            return Routed::Park;
        }
        let class = if name == Name::Exec {
            InFlight::Write
        } else {
            InFlight::Queued
        };
        let seq = self.session.issued.get();
        self.send(&link, ask, class, Watched::Yes);
        match name {
            _ if refused => {}
            Name::Multi => self.state.transaction = Transaction::Upstream,
            Name::Exec | Name::Discard => {
                self.state.transaction = Transaction::None;
                self.state.watch = Watch::None;
                if let Some(db) = self.state.selected_in_transaction.take()
                    && name == Name::Exec
                {
                    let change = Change::Db(db);
                    self.session.change_awaited.set(ChangeAwaited::Awaited { seq, change });
                }
            }
            Name::Watch if !self.in_transaction() => self.state.watch = Watch::Upstream,
            Name::Unwatch if !self.in_transaction() => self.state.watch = Watch::None,
            _ => {}
        }
        Routed::Done
    }
}

/// Commands whose answer is about the connection that they come on, or that change it for good.
pub(super) fn needs_identity(name: Name) -> bool {
    matches!(
        name,
        Name::ClientId
            | Name::ClientInfo
            | Name::ClientList
            | Name::ClientTracking
            | Name::ClientTrackinginfo
            | Name::ClientCaching
            | Name::ClientGetredir
            | Name::ClientNoEvict
            | Name::ClientNoTouch
            | Name::Monitor
            | Name::Sync
            | Name::Psync
            | Name::Replconf
    )
}
