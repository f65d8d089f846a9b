//! The upstream is not to be written to: neutral replies, journaled writes, refusals, and commands that wait.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::append::Before;
use super::forward::needs_identity;
use super::route::Ask;
use super::state::Transaction;
use super::task::{Routed, Task};
use super::write_down::Written;
use super::{Home, Session};
use crate::command::{self, InFlight, Name, Placement};
use crate::outage::effect::{Effect, EffectKind, Guard};
use crate::outage::payload::{self, Origin};
use crate::outage::rules::{Care, Reply, WhenDown};
use crate::outage::{self, Answer};
use crate::resp::write;
use crate::upstream::link::Piece;
use crate::upstream::stats::Route;

/// What the user's rules say of a request.
pub(super) enum Ruled {
    AsBuiltIn,
    Neutral(Option<Reply>),
    Queue(Option<Reply>),
    Error,
    Hold,
}

impl Task {
    /// Answers as when down.
    pub(super) fn down(&mut self, ask: &Ask<'_>) -> Routed {
        // What belongs to a transaction that was cut, or would end one, is not to be taken for a command of its own.
        match ask.came_back {
            Some((_, crate::upstream::link::InFlight::Queued)) => {
                return self.answer(ask, super::recipient::stand_in(ask.request.frame()), Route::Local);
            }
            Some(_) if is_transactional(ask.name()) => return self.refuse(ask),
            Some(_) | None => {}
        }
        if self.is_for_subscribed_mode(ask) {
            return self.answer(ask, &self.subscribed_reply(ask), Route::Local);
        }
        if let Some(name) = ask.name()
            && ask.placement() == Placement::Session
        {
            return self.session_command(ask, name);
        }
        if self.in_transaction() {
            return self.queue_down(ask);
        }
        let (ruled, care) = self.rule(ask);
        match ruled {
            Ruled::AsBuiltIn => self.by_table(ask, care),
            Ruled::Neutral(Some(reply)) => {
                let mut out = Vec::new();
                reply.write(self.state.key.protocol, &mut out);
                self.taint(ask);
                self.answer(ask, &out, Route::Neutral)
            }
            Ruled::Neutral(None) => self.by_table(ask, care),
            Ruled::Queue(reply) => self.journal(ask, reply.as_ref(), care),
            Ruled::Error => self.refuse(ask),
            Ruled::Hold => self.hold_for_rule(ask, care),
        }
    }

    /// What the first rule that matches says, and what it asks for if that is to be journaled.
    pub(super) fn rule(&self, ask: &Ask<'_>) -> (Ruled, Care) {
        let rules = &self.session.settings.rules;
        if rules.is_empty() {
            return (Ruled::AsBuiltIn, Care::default());
        }
        let mut keys: Vec<&[u8]> = Vec::new();
        for_each_key(ask, |key| keys.push(key));
        let known = ask.spec.is_some() || ask.learned.is_some();
        let Some(rule) = rules.first_match(ask.name(), keys.iter().copied()).filter(|_| known) else {
            return (Ruled::AsBuiltIn, Care::default());
        };
        let ruled = match rule.when_down {
            None => Ruled::AsBuiltIn,
            Some(WhenDown::Neutral) => Ruled::Neutral(rule.reply.clone()),
            Some(WhenDown::Queue) => Ruled::Queue(rule.reply.clone()),
            Some(WhenDown::Error) => Ruled::Error,
            Some(WhenDown::Hold) => Ruled::Hold,
        };
        (ruled, rule.care)
    }

    /// Notes that the keys of a request were answered neutrally, where a rule wants to know.
    pub(super) fn taint(&self, ask: &Ask<'_>) {
        let settings = &self.session.settings;
        if !settings.rules.mind_neutral_reads() {
            return;
        }
        let generation = self.session.local.generation();
        for_each_key(ask, |key| {
            if settings.rules.mind_neutral_reads_of(key) {
                settings.memory.taint(generation, self.state.key.db, key);
            }
        });
    }

    fn by_table(&mut self, ask: &Ask<'_>, care: Care) -> Routed {
        let turn = Rc::clone(&self.session.local.turn);
        let mut out = turn.buffers.take();
        let upstream = &self.session.local.shared.target.name;
        let answer = match ask.learned {
            None => outage::answer(ask.spec, &ask.request, self.state.key.protocol, upstream, &mut out),
            Some(learned) => outage::answer_learned(learned, &ask.request, upstream, &mut out),
        };
        let routed = match answer {
            Answer::Reply => {
                self.taint(ask);
                self.answer(ask, &out, Route::Neutral)
            }
            Answer::Refused => self.answer(ask, &out, Route::Rejected),
            Answer::Write => self.journal(ask, None, care),
            Answer::Session => self.answer_locally(ask),
            Answer::Hold { timeout } => self.hold_blocking(ask, timeout, &out),
        };
        turn.buffers.give(out);
        routed
    }

    /// A command that would block: for as long as it asks for, or until the upstream is back.
    fn hold_blocking(&mut self, ask: &Ask<'_>, timeout: Option<Duration>, reply: &[u8]) -> Routed {
        if !self.is_held() {
            self.session.local.worker().stats.routed(Route::Held);
        }
        match timeout {
            None => {
                self.held_for_ever();
                Routed::Park
            }
            Some(timeout) if self.held_until(timeout) > Instant::now() => Routed::Park,
            Some(_) => {
                self.taint(ask);
                self.answer(ask, reply, Route::Neutral)
            }
        }
    }

    fn hold_for_rule(&mut self, ask: &Ask<'_>, care: Care) -> Routed {
        let limit = self.session.local.shared.target.hold_timeout;
        if !self.is_held() {
            self.session.local.worker().stats.routed(Route::Held);
        }
        if self.held_until(limit) > Instant::now() {
            Routed::Park
        } else {
            self.by_table(ask, care)
        }
    }

    /// Writes go behind the backlog at once; everything else waits for its end, or is answered as when down.
    pub(super) fn catching_up(&mut self, ask: &Ask<'_>) -> Routed {
        let placement = ask.placement();
        let is_write = ask.spec.is_some_and(|spec| spec.flags.contains(command::Flags::WRITE));
        if placement == Placement::Session || is_write && self.goes_to_the_journal(ask) || self.in_transaction() {
            return self.down(ask);
        }
        self.hold(ask, self.session.local.shared.target.hold_timeout)
    }

    fn goes_to_the_journal(&self, ask: &Ask<'_>) -> bool {
        match self.rule(ask).0 {
            Ruled::Queue(_) => true,
            Ruled::Neutral(_) | Ruled::Error | Ruled::Hold => false,
            Ruled::AsBuiltIn => {
                let mut ignored = Vec::new();
                outage::answer(ask.spec, &ask.request, self.state.key.protocol, "", &mut ignored) == Answer::Write
            }
        }
    }

    /// The upstream answers, but replay cannot go on: reads are not kept from it.
    pub(super) fn halted(&mut self, ask: &Ask<'_>) -> Routed {
        if self.is_subscribed_mode() || ask.came_back.is_some_and(|_| is_transactional(ask.name())) {
            return self.down(ask);
        }
        if self.in_transaction() {
            return if ask.name() == Some(Name::Exec) && self.has_gathered_reads() {
                self.exec_reads(ask)
            } else {
                self.down(ask)
            };
        }
        // No connection comes up for this session (maxclients).
        if ask.came_back.is_some() && self.is_taken_back_for_long() {
            return self.down(ask);
        }
        let placement = ask.placement();
        // Where a client is to hear what becomes invalid, the connection that it reads on has to know.
        let is_tracked = self.state.tracking.is_some();
        let is_small = ask.request.frame().len() <= self.session.settings.limits.lane_request_bytes_max;
        match placement {
            Placement::Dedicated if is_tracked && ask.name() == Some(Name::ClientCaching) => {
                self.via_dedicated(ask, placement)
            }
            _ if !is_read(ask) => self.down(ask),
            Placement::Session => self.down(ask),
            Placement::Lane if is_small && !is_tracked => {
                let has_dedicated = self.session.dedicated.borrow().is_some();
                if has_dedicated && !self.release_dedicated() {
                    return Routed::Park;
                }
                self.via_lane(ask)
            }
            Placement::Lane | Placement::Dedicated | Placement::Script => self.via_dedicated(ask, placement),
        }
    }

    /// Journals a write, or answers why not.
    fn journal(&mut self, ask: &Ask<'_>, rule_reply: Option<&Reply>, care: Care) -> Routed {
        if !self.may_append() {
            return Routed::Park;
        }
        let Some(spec) = ask.spec else { return self.refuse(ask) };
        let buffers = &self.session.local.turn.buffers;
        let mut reply = buffers.take();
        let routed = match self.write_down(spec, &ask.request, rule_reply, care, &mut reply) {
            Written::One(one) => self.append(ask, &[&[one]], &reply, Before::NotSent),
            Written::Each(all) => self.append(ask, &all.chunks(1).collect::<Vec<_>>(), &reply, Before::NotSent),
            Written::Error => self.answer(ask, &reply, Route::Neutral),
            Written::Refused => self.answer(ask, &reply, Route::Rejected),
        };
        buffers.give(reply);
        routed
    }

    /// What must not be applied twice is not taken from a user who may not use the marker.
    pub(super) fn may_be_replayed(&self, kind: EffectKind, guard: Guard) -> bool {
        let shared = &self.session.local.shared;
        let is_repeatable = kind == EffectKind::Absolute && guard == Guard::None;
        is_repeatable
            || !shared
                .rights
                .are_missing(shared.user_of(self.state.key.identity.name()))
    }

    pub(super) fn refuse_without_rights(&self, name: &str, out: &mut Vec<u8>) {
        let upstream = &self.session.local.shared.target.name;
        let text = format!(
            "UNAVAILABLE {name} was not applied: upstream \"{upstream}\" is down and this user has no right to MULTI or the marker"
        );
        write::error(out, &text);
    }

    /// Whether a record may go to the journal now. Not while one of an older generation is out: refused, it would come behind this one.
    pub(super) fn may_append(&mut self) -> bool {
        let generation = self.session.local.generation();
        let settled = self.session.is_settled() || self.session.append_generation.get() == generation;
        if self.appender.is_full() || !settled || !self.take_home(Home::Journal) {
            return false;
        }
        if self.session.append_generation.replace(generation) != generation {
            // The backlog that the IDs issued before stood in is gone: what bears one now is Redis's own.
            self.session.stream_adds.borrow_mut().ids.settle();
        }
        true
    }

    /// Hands the records of one write to the journal; the reply follows their acknowledgement.
    pub(super) fn append(
        &self,
        ask: &Ask<'_>,
        records: &[&[(Effect<'_>, Guard)]],
        reply: &[u8],
        before: Before,
    ) -> Routed {
        let session: Rc<Session> = Rc::clone(&self.session);
        session.local.worker().stats.routed(Route::Queued);
        session.in_flight.set(session.in_flight.get() + 1);
        let seq = self.seq(ask);
        let origin = Origin {
            db: self.state.key.db,
            identity: self.state.key.identity.name().as_bytes(),
        };
        let bytes = [reply, ask.request.frame()];
        self.appender.append(session, seq, bytes, before, |payloads| {
            for record in records {
                let effects = record.iter().map(|(effect, guard)| (effect, *guard));
                payloads.push_with(|out| payload::encode_guarded(origin, effects, out));
            }
        });
        Routed::Done
    }

    /// A transaction whose connection died goes on to its end, and is refused there.
    pub(super) fn not_forwarded(&mut self, ask: &Ask<'_>) -> Routed {
        match ask.name() {
            Some(Name::Exec) => {
                self.end_transaction();
                self.refuse(ask)
            }
            Some(Name::Discard) => {
                self.end_transaction();
                self.answer(ask, b"+OK\r\n", Route::Local)
            }
            Some(Name::Quit) => self.quit(ask),
            Some(Name::Reset) => self.reset(ask),
            Some(Name::Multi) => self.answer(ask, b"-ERR MULTI calls can not be nested\r\n", Route::Local),
            Some(Name::Watch) => self.answer(ask, b"-ERR WATCH inside MULTI is not allowed\r\n", Route::Local),
            Some(_) | None => self.answer(ask, b"+QUEUED\r\n", Route::Local),
        }
    }

    /// What answers a request in the subscribed mode of RESP2, in which Redis takes few commands.
    pub(super) fn subscribed_reply(&self, ask: &Ask<'_>) -> Vec<u8> {
        if let Some(error) = self.refused(ask).filter(|_| ask.learned.is_none()) {
            return error;
        }
        let mut out = Vec::new();
        if ask.name() == Some(Name::Ping) {
            if ask.request.len() > 2 {
                // Its row has no such limit: PING itself finds out.
                write::error(&mut out, &command::wrong_arity("ERR", "PING"));
            } else {
                write::array(&mut out, 2);
                write::bulk(&mut out, b"pong");
                write::bulk(&mut out, ask.request.arg(1));
            }
            return out;
        }
        let (code, name) = match ask.spec {
            Some(spec) => (command::refusal_code(spec.id), command::name_in_errors(spec.name)),
            None => {
                let name = String::from_utf8_lossy(ask.request.arg(0)).to_ascii_lowercase();
                ("ERR", name)
            }
        };
        let text = format!(
            "{code} Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        );
        write::error(&mut out, &text);
        out
    }

    /// SUBSCRIBE and its family are confirmed here; the upstream hears of them when it is back.
    pub(super) fn subscribe_down(&mut self, ask: &Ask<'_>, name: Name) -> Routed {
        if ask.spec.is_some_and(|spec| !command::arity_ok(spec, &ask.request)) {
            return self.by_table(ask, Care::default());
        }
        let session = &self.session;
        let issued = session.issued.get();
        let is_muted = session.output.borrow().is_newest_muted(issued);
        // A confirmation is no reply that CLIENT REPLY turns off: it goes out of band, where no reply that comes later may overtake it.
        if is_muted && !(session.is_settled() && session.is_answered()) {
            return Routed::Park;
        }
        let mut out = Vec::new();
        let protocol = self.state.key.protocol;
        let mut subscriptions = session.subscriptions.borrow_mut();
        subscriptions.change_here(name, &ask.request, protocol, &mut out);
        drop(subscriptions);
        if !is_muted {
            return self.answer(ask, &out, Route::Local);
        }
        session.local.worker().stats.routed(Route::Local);
        let mut output = session.output.borrow_mut();
        output.use_up_skip(issued);
        output.push(&out, Piece::End);
        Routed::Done
    }
}

/// The keys of a request, as far as anybody knows them.
fn for_each_key<'a>(ask: &Ask<'a>, f: impl FnMut(&'a [u8])) {
    match (ask.spec, ask.learned) {
        (Some(spec), _) => command::for_each_key(spec, &ask.request, f),
        (None, Some(learned)) => learned.for_each_key(&ask.request, f),
        (None, None) => {}
    }
}

/// Whether a request changes nothing, and is answered by the upstream alone: what is about the session's own connection is answered here.
pub(super) fn is_read(ask: &Ask<'_>) -> bool {
    let is_about_connection = ask
        .name()
        .is_some_and(|name| needs_identity(name) || name == Name::ClientGetname);
    ask.in_flight() == InFlight::Read && !is_about_connection
}

pub(super) fn is_transactional(name: Option<Name>) -> bool {
    matches!(name, Some(Name::Multi | Name::Exec | Name::Discard | Name::Watch))
}

impl Task {
    /// The transaction, and what was watched for it, are over.
    pub(super) fn end_transaction(&mut self) {
        self.state.transaction = Transaction::None;
        self.state.watch = super::state::Watch::None;
        self.state.selected_in_transaction = None;
    }
}
