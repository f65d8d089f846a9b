//! MULTI … EXEC while the upstream is down: gathered here, then one journal record, or neutral replies, or refused as a whole.

use std::rc::Rc;

use super::Home;
use super::Session;
use super::append::Before;
use super::down::{Ruled, is_read};
use super::write_down::Written;

use super::route::Ask;
use super::state::{Transaction, Watch};
use super::task::{Routed, Task};
use crate::command::{self, Name, Placement};
use crate::outage::effect::{Effect, Guard};
use crate::outage::rules::{Care, Reply};
use crate::outage::{self, Answer};
use crate::resp::scan::{Limits, Scan, Scanner};
use crate::resp::{Protocol, Request, write as reply};
use crate::upstream::dial;
use crate::upstream::link::{InFlight, Watched};
use crate::upstream::stats::Route;

/// Bytes of queued commands that one transaction may hold.
const QUEUED_BYTES_MAX: usize = 32 << 20;

/// What has been queued since MULTI.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    requests: Vec<Vec<u8>>,
    bytes: usize,
    /// A command was refused when it was queued: EXEC aborts.
    spoilt: bool,
}

/// What EXEC makes of the queued commands.
enum Judged {
    /// No write among them: the replies.
    Replies(Vec<u8>),
    /// Writes only: their effects and the replies.
    Writes(Vec<(Effect<'static>, Guard)>, Vec<u8>),
    Refused,
}

/// What one queued command is.
enum Queued {
    Read,
    /// Its effects, several where each has a guard of its own.
    Write(Vec<(Effect<'static>, Guard)>),
    /// Redis refuses it for its arguments.
    Error,
    Refused,
}

impl Task {
    /// MULTI, EXEC, DISCARD, WATCH, UNWATCH while down.
    pub(super) fn transaction_down(&mut self, ask: &Ask<'_>, name: Name) -> Routed {
        if let Some(error) = command::refused(ask.spec, &ask.request) {
            if let Transaction::Here(gathered) = &mut self.state.transaction {
                gathered.spoilt = true;
            }
            return self.answer(ask, &error, Route::Local);
        }
        if matches!(self.state.transaction, Transaction::Cut | Transaction::Upstream) {
            return self.not_forwarded(ask);
        }
        let open = matches!(self.state.transaction, Transaction::Here(_));
        match (name, open) {
            (Name::Multi, false) => {
                self.state.transaction = Transaction::Here(Gathered::default());
                self.answer(ask, b"+OK\r\n", Route::Local)
            }
            (Name::Multi, true) => self.answer(ask, b"-ERR MULTI calls can not be nested\r\n", Route::Local),
            (Name::Watch, true) => self.answer(ask, b"-ERR WATCH inside MULTI is not allowed\r\n", Route::Local),
            (Name::Watch, false) => self.refuse(ask),
            (Name::Unwatch, true) => self.queue_down(ask),
            (Name::Unwatch, false) => {
                self.state.watch = Watch::None;
                self.answer(ask, b"+OK\r\n", Route::Local)
            }
            (Name::Discard, true) => {
                self.end_transaction();
                self.answer(ask, b"+OK\r\n", Route::Local)
            }
            (Name::Discard, false) => self.answer(ask, b"-ERR DISCARD without MULTI\r\n", Route::Local),
            (Name::Exec, false) => self.answer(ask, b"-ERR EXEC without MULTI\r\n", Route::Local),
            (_, _) => self.exec_here(ask),
        }
    }

    /// A command inside MULTI, while down.
    pub(super) fn queue_down(&mut self, ask: &Ask<'_>) -> Routed {
        let refused_name = match (ask.spec, ask.learned) {
            (Some(spec), _) => (!command::arity_ok(spec, &ask.request)).then_some(spec.name),
            (None, Some(learned)) => (!learned.arity_ok(&ask.request)).then_some(learned.name.as_str()),
            (None, None) => None,
        };
        if let Some(name) = refused_name {
            if let Transaction::Here(gathered) = &mut self.state.transaction {
                gathered.spoilt = true;
            }
            let text = format!("-{}\r\n", command::wrong_arity("ERR", name));
            return self.answer(ask, text.as_bytes(), Route::Local);
        }
        let Transaction::Here(gathered) = &mut self.state.transaction else {
            return self.not_forwarded(ask);
        };
        gathered.bytes += ask.request.frame().len();
        if gathered.bytes > QUEUED_BYTES_MAX {
            gathered.spoilt = true;
            gathered.requests.clear();
            return self.refuse(ask);
        }
        gathered.requests.push(ask.request.frame().to_vec());
        self.answer(ask, b"+QUEUED\r\n", Route::Local)
    }

    /// EXEC of a transaction that was begun while down; in CLOSED it goes upstream as a whole.
    pub(super) fn exec_here(&mut self, ask: &Ask<'_>) -> Routed {
        let Transaction::Here(gathered) = &self.state.transaction else {
            return self.refuse(ask);
        };
        if gathered.spoilt {
            self.end_transaction();
            return self.answer(
                ask,
                b"-EXECABORT Transaction discarded because of previous errors.\r\n",
                Route::Local,
            );
        }
        if self.state.watch != Watch::None {
            self.end_transaction();
            return self.refuse(ask);
        }
        if self.is_forwarding() {
            return self.exec_upstream(ask);
        }
        if !self.may_append() {
            return Routed::Park;
        }
        let Transaction::Here(gathered) = std::mem::take(&mut self.state.transaction) else {
            return self.refuse(ask);
        };
        match self.judge_transaction(&gathered.requests) {
            Judged::Replies(replies) => self.answer(ask, &replies, Route::Neutral),
            Judged::Refused => self.refuse(ask),
            Judged::Writes(effects, replies) => self.append(ask, &[&effects], &replies, Before::NotSent),
        }
    }

    fn exec_upstream(&mut self, ask: &Ask<'_>) -> Routed {
        if self.is_about_session() {
            self.end_transaction();
            return self.refuse(ask);
        }
        self.send_gathered(ask, InFlight::Write)
    }

    /// Whether nothing that was gathered changes anything: it goes upstream past a halted replay.
    pub(super) fn has_gathered_reads(&self) -> bool {
        let Transaction::Here(gathered) = &self.state.transaction else {
            return false;
        };
        let mut scanner = Scanner::default();
        let is_gathered_read = |bytes: &Vec<u8>| {
            let Ok(Scan::Request { .. }) = scanner.scan(bytes, &Limits::default()) else {
                return false;
            };
            let request = Request::new(bytes, scanner.spans());
            let known = self.look_up(&request);
            let ask = Ask::new(request, &known, None);
            is_read(&ask) && ask.placement() != Placement::Session
        };
        !gathered.spoilt && self.state.watch == Watch::None && gathered.requests.iter().all(is_gathered_read)
    }

    /// EXEC of reads only, with all that stands before it. Lost with its connection it is refused: alone it would mean nothing.
    pub(super) fn exec_reads(&mut self, ask: &Ask<'_>) -> Routed {
        if command::refused(ask.spec, &ask.request).is_some() {
            return self.down(ask);
        }
        self.send_gathered(ask, InFlight::ReadAgain)
    }

    fn send_gathered(&mut self, ask: &Ask<'_>, class: InFlight) -> Routed {
        let link = self.dedicated();
        if !self.take_home(Home::Link(link.id)) {
            return Routed::Park;
        }
        let Transaction::Here(gathered) = std::mem::take(&mut self.state.transaction) else {
            return self.refuse(ask);
        };
        let session: Rc<Session> = Rc::clone(&self.session);
        let now_us = session.local.turn.now_us();
        // What was gathered has not been looked at for what it does to a connection.
        link.alter();
        link.push_ignored(&dial::command(&["MULTI"]), now_us);
        for request in &gathered.requests {
            link.push_ignored(request, now_us);
        }
        session.local.worker().stats.routed(Route::Forwarded);
        session.in_flight.set(session.in_flight.get() + 1);
        let seq = self.seq(ask);
        link.push(session, seq, ask.request.frame(), class, Watched::Yes, now_us);
        Routed::Done
    }

    /// Whether something was gathered that would make another session of this one (SELECT, HELLO): it was not noted, and is refused while down, too.
    fn is_about_session(&self) -> bool {
        let Transaction::Here(gathered) = &self.state.transaction else {
            return false;
        };
        let mut scanner = Scanner::default();
        gathered.requests.iter().any(|bytes| {
            let Ok(Scan::Request { .. }) = scanner.scan(bytes, &Limits::default()) else {
                return true;
            };
            let request = Request::new(bytes, scanner.spans());
            command::placement(command::lookup(&request), &request) == Placement::Session
        })
    }

    fn judge_transaction(&mut self, requests: &[Vec<u8>]) -> Judged {
        let mut replies = Vec::new();
        reply::array(&mut replies, requests.len());
        let mut effects: Vec<(Effect<'static>, Guard)> = Vec::new();
        let mut reads = 0;
        let mut scanner = Scanner::default();
        for bytes in requests {
            let Ok(Scan::Request { .. }) = scanner.scan(bytes, &Limits::default()) else {
                return Judged::Refused;
            };
            let request = Request::new(bytes, scanner.spans());
            match self.judge_queued(&request, &mut replies) {
                Queued::Read => reads += 1,
                Queued::Write(guarded) => effects.extend(guarded),
                // Inside EXEC a command that fails leaves the others as they are.
                Queued::Error => {}
                Queued::Refused => return Judged::Refused,
            }
        }
        match (effects.is_empty(), reads) {
            (true, _) => Judged::Replies(replies),
            (false, 0) => Judged::Writes(effects, replies),
            (false, _) => Judged::Refused,
        }
    }

    /// One queued command: its reply is appended, unless it is refused.
    fn judge_queued(&mut self, request: &Request<'_>, replies: &mut Vec<u8>) -> Queued {
        let known = self.look_up(request);
        let ask = Ask::new(*request, &known, None);
        let protocol = self.state.key.protocol;
        let (ruled, care) = self.rule(&ask);
        let rule_reply = match ruled {
            Ruled::Error => return Queued::Refused,
            Ruled::Queue(rule_reply) => return self.judge_write(&ask, rule_reply.as_ref(), care, replies),
            Ruled::Neutral(rule_reply) => rule_reply,
            Ruled::AsBuiltIn | Ruled::Hold => None,
        };
        if let Some(rule_reply) = rule_reply {
            self.taint(&ask);
            rule_reply.write(protocol, replies);
            return Queued::Read;
        }
        let start = replies.len();
        let upstream = &self.session.local.shared.target.name;
        match outage::answer(ask.spec, request, protocol, upstream, replies) {
            Answer::Reply => {
                self.taint(&ask);
                Queued::Read
            }
            // Nothing blocks inside a transaction; these two then answer a null string.
            Answer::Hold { .. } => {
                self.taint(&ask);
                if matches!(ask.name(), Some(Name::Blmove | Name::Brpoplpush)) && protocol == Protocol::Resp2 {
                    replies.truncate(start);
                    reply::null(replies, Protocol::Resp2);
                }
                Queued::Read
            }
            Answer::Refused => Queued::Refused,
            Answer::Session => match self.local_reply(ask.name(), request) {
                Some(local) => {
                    replies.extend_from_slice(&local);
                    Queued::Read
                }
                None => Queued::Refused,
            },
            Answer::Write => self.judge_write(&ask, None, care, replies),
        }
    }

    fn judge_write(&mut self, ask: &Ask<'_>, rule_reply: Option<&Reply>, care: Care, replies: &mut Vec<u8>) -> Queued {
        let Some(spec) = ask.spec else { return Queued::Refused };
        let own = |(effect, guard): (Effect<'_>, Guard)| (effect.into_owned(), guard);
        match self.write_down(spec, &ask.request, rule_reply, care, replies) {
            Written::One(one) => Queued::Write(vec![own(one)]),
            Written::Each(all) => Queued::Write(all.into_iter().map(own).collect()),
            Written::Error => Queued::Error,
            Written::Refused => Queued::Refused,
        }
    }
}
