//! HELLO, AUTH, SELECT and the rest of what a client says of itself: answered here, in every mode, so that an outage changes nothing for a client that connects.
//!
//! What only the upstream can judge (a password, a database) is judged by a lane's dial while it is there, and by what it judged before while it is not.

use super::route::Ask;
use super::state::{Pinned, Transaction};
use super::subscriptions::is_subscription;
use super::task::{Routed, Task};
use super::{Change, ChangeAwaited, Home};
use crate::command::{self, Name, Placement};
use crate::resp::Protocol;
use crate::resp::scan::integer;
use crate::upstream::dial;
use crate::upstream::link::{InFlight, LinkKey, LinkState, Watched};
use crate::upstream::settings::{Credentials, Identity, Secret};
use crate::upstream::stats::Route;

/// What the upstream says, or would say, of an identity in a database.
pub(super) enum Judgement {
    Accepted,
    /// Its error, without `-`.
    Refused(String),
    /// Not known yet: the session is woken when it is.
    Pending,
}

impl Task {
    /// A command of [`Placement::Session`].
    pub(super) fn session_command(&mut self, ask: &Ask<'_>, name: Name) -> Routed {
        match name {
            Name::Quit => return self.quit(ask),
            // With arguments it is refused, which spoils a transaction.
            Name::Reset if ask.request.len() == 1 => return self.reset(ask),
            Name::Multi | Name::Exec | Name::Discard | Name::Watch | Name::Unwatch => {
                return if self.is_forwarding() {
                    self.transaction_command(ask, name)
                } else {
                    self.transaction_down(ask, name)
                };
            }
            _ => {}
        }
        if self.in_transaction() {
            return self.in_transaction_command(ask, name);
        }
        if is_subscription(name) {
            return if self.is_forwarding() {
                self.subscribe(ask, name)
            } else {
                self.subscribe_down(ask, name)
            };
        }
        if let Some(error) = self.refused(ask) {
            return self.answer(ask, &error, Route::Local);
        }
        match name {
            Name::Auth => self.auth(ask),
            Name::Hello => self.hello(ask),
            Name::Select => self.select(ask),
            Name::ClientReply => self.reply_mode(ask),
            Name::ClientSetname | Name::ClientSetinfo => self.introduce(ask, name),
            _ => self.refuse(ask),
        }
    }

    /// Inside MULTI these are queued like everything else; what they change is noted for the time after EXEC.
    fn in_transaction_command(&mut self, ask: &Ask<'_>, name: Name) -> Routed {
        if !self.is_forwarding() || matches!(self.state.transaction, Transaction::Here(_)) {
            return self.queue_down(ask);
        }
        if name == Name::Select {
            // One that Redis does not have is refused when EXEC comes to it.
            let shared = &self.session.local.shared;
            let databases = shared.facts().databases.max(key_floor(&shared.target));
            if let Some(db) = number(ask.request.arg(1)).filter(|db| *db < databases) {
                self.state.selected_in_transaction = Some(db);
            }
        } else {
            // What EXEC makes of the connection is known to the connection alone.
            self.state.pinned = Pinned::Feed;
        }
        self.queue_upstream(ask)
    }

    pub(super) fn judge(&mut self, key: &LinkKey) -> Judgement {
        if !self.is_forwarding() {
            // What a dial from before the outage says is no answer to what is asked after it.
            self.pending_lane = None;
            return self.judge_down(key);
        }
        self.judge_by_lane(key)
    }

    /// What the dial of a lane says.
    pub(super) fn judge_by_lane(&mut self, key: &LinkKey) -> Judgement {
        let lane = match self.pending_lane.take() {
            Some(lane) if lane.key == *key => lane,
            Some(_) | None => {
                self.session.taken_back.set(None);
                self.session.local.lane(key)
            }
        };
        match (lane.state(), lane.refusal()) {
            (LinkState::Up, _) => Judgement::Accepted,
            (LinkState::Dead, Some(text)) => Judgement::Refused(text),
            // It failed for other reasons than who asks: the breaker is told, and another attempt made.
            (LinkState::Dead | LinkState::Draining, _) => {
                let lane = self.session.local.lane(key);
                if lane.state() == LinkState::Up {
                    return Judgement::Accepted;
                }
                // The breaker is CLOSED, for others are served, but no connection comes up for this session (maxclients).
                if self.is_taken_back_for_long() {
                    self.session.taken_back.set(None);
                    let upstream = &self.session.local.shared.target.name;
                    return Judgement::Refused(format!(
                        "UNAVAILABLE the request was not applied: upstream \"{upstream}\" takes no further connection"
                    ));
                }
                self.session.begin_taken_back();
                self.watch_lane(lane);
                Judgement::Pending
            }
            (LinkState::Dialling, _) => {
                self.watch_lane(lane);
                Judgement::Pending
            }
        }
    }

    fn watch_lane(&mut self, lane: std::rc::Rc<crate::upstream::link::Link>) {
        if let Some(waker) = self.session.waker.borrow().as_ref() {
            lane.watch(waker);
        }
        self.pending_lane = Some(lane);
    }

    pub(super) fn judge_down(&self, key: &LinkKey) -> Judgement {
        let shared = &self.session.local.shared;
        if let Identity::Client(credentials) = &key.identity
            && !shared.known.accepts(credentials)
        {
            let upstream = &shared.target.name;
            return Judgement::Refused(format!(
                "UNAVAILABLE AUTH was not applied: upstream \"{upstream}\" is down and has not accepted these credentials before"
            ));
        }
        if key.db >= shared.facts().databases.max(key_floor(&shared.target)) {
            return Judgement::Refused("ERR DB index is out of range".into());
        }
        Judgement::Accepted
    }

    /// Goes over to a key that has been accepted. A connection that carries the session's state goes along, any other stays behind.
    pub(super) fn become_key(&mut self, key: LinkKey) {
        if self.is_bound() {
            self.tell_connection(&key);
        } else {
            self.let_go_of_dedicated();
        }
        if let Identity::Client(credentials) = &key.identity {
            self.session.local.shared.known.accepted(credentials);
        }
        self.state.key = key;
        self.lane = None;
    }

    fn tell_connection(&self, key: &LinkKey) {
        let dedicated = self.session.dedicated.borrow();
        let Some(link) = dedicated.as_ref().filter(|link| link.is_open()) else {
            return;
        };
        link.alter();
        let was = &self.state.key;
        let credentials = match &key.identity {
            _ if key.identity == was.identity => None,
            identity => self.session.local.shared.credentials(identity),
        };
        let said = [
            credentials.as_ref().map(dial::auth),
            (key.protocol != was.protocol)
                .then(|| dial::command(&["HELLO", key.protocol.number().to_string().as_str()])),
            (key.db != was.db).then(|| dial::command(&["SELECT", key.db.to_string().as_str()])),
        ];
        for command in said.into_iter().flatten() {
            link.push_ignored(&command, self.session.local.turn.now_us());
        }
        if key.protocol == Protocol::Resp2 && !self.session.subscriptions.borrow().is_empty() {
            // From RESP3 into the subscribed mode of RESP2.
            link.set_passthrough();
        }
    }

    fn auth(&mut self, ask: &Ask<'_>) -> Routed {
        let credentials = match (ask.request.len(), text(ask.request.arg(1)), text(ask.request.arg(2))) {
            (2, Some(password), _) => Credentials {
                user: None,
                password: Secret::new(password),
            },
            (3, Some(user), Some(password)) => Credentials {
                user: Some(user),
                password: Secret::new(password),
            },
            (2 | 3, _, _) => return self.answer(ask, WRONGPASS, Route::Local),
            _ => return self.answer(ask, b"-ERR syntax error\r\n", Route::Local),
        };
        if !self.session.is_settled() {
            return Routed::Park;
        }
        match self.authenticate(credentials, self.state.key.protocol) {
            Judgement::Pending => Routed::Park,
            Judgement::Accepted => self.answer(ask, b"+OK\r\n", Route::Local),
            Judgement::Refused(text) => self.answer(ask, format!("-{text}\r\n").as_bytes(), Route::Local),
        }
    }

    fn select(&mut self, ask: &Ask<'_>) -> Routed {
        let Some(db) = number(ask.request.arg(1)) else {
            let error: &[u8] = match integer(ask.request.arg(1)) {
                Some(number) if i32::try_from(number).is_ok() => b"-ERR DB index is out of range\r\n",
                Some(_) => b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n",
                None => b"-ERR value is not an integer or out of range\r\n",
            };
            return self.answer(ask, error, Route::Local);
        };
        if !self.session.is_settled() {
            return Routed::Park;
        }
        let key = LinkKey {
            db,
            ..self.state.key.clone()
        };
        match self.judge(&key) {
            Judgement::Pending => Routed::Park,
            Judgement::Refused(text) => self.answer(ask, format!("-{text}\r\n").as_bytes(), Route::Local),
            // A user may lack the right to SELECT, which only Redis knows.
            Judgement::Accepted if self.is_forwarding() && matches!(key.identity, Identity::Client(_)) => {
                self.select_upstream(ask, &key)
            }
            Judgement::Accepted => {
                self.become_key(key);
                self.answer(ask, b"+OK\r\n", Route::Local)
            }
        }
    }

    /// Says it where it changes nothing for anybody else: on the lane of that database, or on the session's own connection.
    fn select_upstream(&mut self, ask: &Ask<'_>, key: &LinkKey) -> Routed {
        let link = if self.is_bound() {
            let link = self.dedicated();
            link.alter();
            link
        } else {
            self.let_go_of_dedicated();
            self.session.local.lane(key)
        };
        if !self.take_home(Home::Link(link.id)) {
            return Routed::Park;
        }
        let seq = self.seq(ask);
        let ask = Ask {
            came_back: Some((seq, InFlight::Write)),
            ..*ask
        };
        self.send(&link, &ask, InFlight::Write, Watched::Yes);
        let change = Change::Db(key.db);
        self.session.change_awaited.set(ChangeAwaited::Awaited { seq, change });
        Routed::Done
    }

    fn reply_mode(&mut self, ask: &Ask<'_>) -> Routed {
        let word = ask.request.arg(2).to_ascii_uppercase();
        let seq = self.seq(ask);
        self.session.local.worker().stats.routed(Route::Local);
        let mut output = self.session.output.borrow_mut();
        let reply: &[u8] = match word.as_slice() {
            b"ON" => {
                output.unmute(seq);
                b"+OK\r\n"
            }
            b"OFF" => {
                output.mute(seq, None);
                b""
            }
            b"SKIP" => {
                if !output.is_open_muted() {
                    output.mute(seq, Some(seq + 1));
                }
                b""
            }
            _ => b"-ERR syntax error\r\n",
        };
        output.reply(seq, reply, crate::upstream::link::Piece::End);
        Routed::Done
    }

    fn introduce(&mut self, ask: &Ask<'_>, name: Name) -> Routed {
        let (place, value, what) = match name {
            Name::ClientSetname => (&mut self.state.name, ask.request.arg(2), "Client names"),
            _ => match ask.request.arg(2).to_ascii_lowercase().as_slice() {
                b"lib-name" => (&mut self.state.library_name, ask.request.arg(3), "lib-name"),
                b"lib-ver" => (&mut self.state.library_version, ask.request.arg(3), "lib-ver"),
                _ => {
                    let option = String::from_utf8_lossy(ask.request.arg(2)).replace(['\r', '\n'], " ");
                    let text = format!("-ERR Unrecognized option '{option}'\r\n");
                    return self.answer(ask, text.as_bytes(), Route::Local);
                }
            },
        };
        if value.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
            let text = format!("-ERR {what} cannot contain spaces, newlines or special characters.\r\n");
            return self.answer(ask, text.as_bytes(), Route::Local);
        }
        *place = (!value.is_empty()).then(|| value.to_vec());
        self.tell_own_connection(ask.request.frame());
        self.answer(ask, b"+OK\r\n", Route::Local)
    }

    /// What changes nothing but the client's introduction, to the connection that is the session's own, if it has one.
    pub(super) fn tell_own_connection(&self, frame: &[u8]) {
        if self.state.pinned != Pinned::No
            && let Some(link) = self.session.dedicated.borrow().as_ref()
            && link.is_open()
        {
            link.push_ignored(frame, self.session.local.turn.now_us());
        }
    }

    /// What Redis says of the request's form alone, if it says anything.
    pub(super) fn refused(&self, ask: &Ask<'_>) -> Option<Vec<u8>> {
        let spec = match ask.spec {
            Some(spec) if spec.id == Name::ClientSetinfo && self.is_before_7_2() => {
                command::TABLE.get(Name::Client as usize)
            }
            spec => spec,
        };
        command::refused(spec, &ask.request)
    }

    /// CLIENT SETINFO came with Redis 7.2, an older upstream answers that it does not know it; HELLO reads its options otherwise since then.
    pub(super) fn is_before_7_2(&self) -> bool {
        let facts = self.session.local.shared.facts();
        let mut parts = facts.version.split('.').map(|part| part.parse().unwrap_or(0));
        let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        !facts.version.is_empty() && version < (7, 2)
    }

    pub(super) fn queue_upstream(&mut self, ask: &Ask<'_>) -> Routed {
        self.via_dedicated(ask, Placement::Dedicated)
    }
}

const WRONGPASS: &[u8] = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";

/// Databases there are at least: the one that the URL names.
fn key_floor(target: &crate::upstream::shared::Target) -> u32 {
    target.db + 1
}

fn text(arg: &[u8]) -> Option<String> {
    std::str::from_utf8(arg).ok().map(str::to_owned)
}

fn number(arg: &[u8]) -> Option<u32> {
    integer(arg)
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| i32::try_from(*n).is_ok())
}
