//! CLIENT TRACKING across an outage. While the upstream is lost no invalidation comes: the client is told at once to drop all that it has
//! cached. Tracking is asked for anew when the upstream is back, and what was cached meanwhile is dropped as well.
//!
//! With REDIRECT the messages go to another session, whose connection has another ID afterwards: a session that redirects ends with its own
//! connection, as at Redis. Who is subscribed to the messages' channel stays, and is told to drop everything.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::task::Context;

use super::route::Ask;
use super::state::{Pinned, State};
use super::subscriptions::Subscriptions;
use super::task::{Routed, Task};
use super::{Change, ChangeAwaited};
use crate::resp::scan::integer;
use crate::resp::{Protocol, Request, write};
use crate::upstream::dial;
use crate::upstream::link::{InFlight, Link, Piece, Watched};
use crate::upstream::own_request::{Outcome, OwnRequest};
use crate::upstream::stats::Route;

/// Where Redis says to connections of RESP2 what is invalid.
const CHANNEL: &[u8] = b"__redis__:invalidate";
const SYNTAX: &str = "ERR syntax error";

/// Tracking that is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tracking {
    mode: Mode,
    no_loop: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Read,
    OptIn,
    OptOut,
    /// Keys with one of these prefixes; the empty one stands for all.
    Broadcast(BTreeSet<Vec<u8>>),
}

/// What a CLIENT TRACKING asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    On(Tracking),
    Redirected,
    Off,
}

/// The options of a request.
#[derive(Default)]
struct Options<'a> {
    redirect: Option<i64>,
    broadcast: bool,
    opt_in: bool,
    opt_out: bool,
    no_loop: bool,
    prefixes: Vec<&'a [u8]>,
}

impl Asked {
    /// What a well-formed request asks of a session that tracks as `now` says. Errors are Redis's, without `-`; whether what is redirected to
    /// exists only Redis knows.
    pub(super) fn of(request: &Request<'_>, now: Option<&Tracking>) -> Result<Self, String> {
        let options = Options::of(request)?;
        match request.arg(2).to_ascii_lowercase().as_slice() {
            b"on" => {
                let on = Tracking::on(&options, now)?;
                Ok(options.redirect.map_or(Self::On(on), |_| Self::Redirected))
            }
            b"off" => Ok(Self::Off),
            _ => Err(SYNTAX.into()),
        }
    }
}

impl<'a> Options<'a> {
    fn of(request: &Request<'a>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut at = 3;
        while let Some(word) = request.get(at) {
            let value = request.get(at + 1);
            match (word.to_ascii_lowercase().as_slice(), value) {
                (b"redirect", Some(value)) => {
                    let id = integer(value).ok_or("ERR value is not an integer or out of range")?;
                    if options.redirect.replace(id).is_some() {
                        return Err("ERR A client can only redirect to a single other client".into());
                    }
                    at += 1;
                }
                (b"prefix", Some(value)) => {
                    options.prefixes.push(value);
                    at += 1;
                }
                (b"bcast", _) => options.broadcast = true,
                (b"optin", _) => options.opt_in = true,
                (b"optout", _) => options.opt_out = true,
                (b"noloop", _) => options.no_loop = true,
                _ => return Err(SYNTAX.into()),
            }
            at += 1;
        }
        Ok(options)
    }
}

impl Tracking {
    /// In Redis's order of checks.
    fn on(options: &Options<'_>, now: Option<&Self>) -> Result<Self, String> {
        if !options.broadcast && !options.prefixes.is_empty() {
            return Err("ERR PREFIX option requires BCAST mode to be enabled".into());
        }
        let known = now.and_then(|now| match &now.mode {
            Mode::Broadcast(prefixes) => Some(prefixes),
            Mode::Read | Mode::OptIn | Mode::OptOut => None,
        });
        if now.is_some() && known.is_some() != options.broadcast {
            return Err("ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.".into());
        }
        let mode = match (options.broadcast, options.opt_in, options.opt_out) {
            (true, false, false) => Mode::Broadcast(joined(known, &options.prefixes)?),
            (true, _, _) => return Err("ERR OPTIN and OPTOUT are not compatible with BCAST".into()),
            (false, true, true) => return Err("ERR You can't specify both OPTIN mode and OPTOUT mode".into()),
            (false, true, false) => Mode::OptIn,
            (false, false, true) => Mode::OptOut,
            (false, false, false) => Mode::Read,
        };
        if let (Some(Mode::OptIn), Mode::OptOut) | (Some(Mode::OptOut), Mode::OptIn) = (now.map(|now| &now.mode), &mode)
        {
            return Err("ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.".into());
        }
        Ok(Self {
            mode,
            no_loop: options.no_loop,
        })
    }

    /// The command that a fresh connection is told.
    fn request(&self) -> Vec<u8> {
        let mut args: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON"];
        match &self.mode {
            Mode::Read => {}
            Mode::OptIn => args.push(b"OPTIN"),
            Mode::OptOut => args.push(b"OPTOUT"),
            Mode::Broadcast(prefixes) => {
                args.push(b"BCAST");
                // Beside the empty prefix, which came last, Redis would refuse any other.
                if !prefixes.contains(b"".as_slice()) {
                    args.extend(prefixes.iter().flat_map(|prefix| [b"PREFIX".as_slice(), prefix]));
                }
            }
        }
        args.extend(self.no_loop.then_some(b"NOLOOP".as_slice()));
        dial::command(&args)
    }

    /// The reply to CLIENT CACHING.
    pub(super) fn caching(now: Option<&Self>, word: &[u8], out: &mut Vec<u8>) {
        let mode = now.map(|now| &now.mode);
        let error = match (mode, word.to_ascii_lowercase().as_slice()) {
            (None, _) => {
                "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled"
            }
            (Some(Mode::OptIn), b"yes") | (Some(Mode::OptOut), b"no") => return write::simple(out, "OK"),
            (_, b"yes") => "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            (_, b"no") => "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            (_, _) => SYNTAX,
        };
        write::error(out, error);
    }

    /// The reply to CLIENT TRACKINGINFO.
    pub(super) fn info(now: Option<&Self>, protocol: Protocol, out: &mut Vec<u8>) {
        let nothing = BTreeSet::new();
        let (mode, prefixes) = match now.map(|now| &now.mode) {
            Some(Mode::OptIn) => (Some("optin"), &nothing),
            Some(Mode::OptOut) => (Some("optout"), &nothing),
            Some(Mode::Broadcast(prefixes)) => (Some("bcast"), prefixes),
            Some(Mode::Read) | None => (None, &nothing),
        };
        let no_loop = now.is_some_and(|now| now.no_loop).then_some("noloop");
        let flags = [Some(if now.is_some() { "on" } else { "off" }), mode, no_loop];
        write::map(out, protocol, 3);
        write::bulk(out, b"flags");
        write::set(out, protocol, flags.iter().flatten().count());
        flags
            .iter()
            .flatten()
            .for_each(|flag| write::bulk(out, flag.as_bytes()));
        write::bulk(out, b"redirect");
        write::integer(out, Self::redirect(now));
        write::bulk(out, b"prefixes");
        write::array(out, prefixes.len());
        prefixes.iter().for_each(|prefix| write::bulk(out, prefix));
    }

    /// The reply to CLIENT GETREDIR.
    pub(super) fn redirect(now: Option<&Self>) -> i64 {
        if now.is_some() { 0 } else { -1 }
    }
}

/// The prefixes with those that are asked for; none of them may begin another.
fn joined(known: Option<&BTreeSet<Vec<u8>>>, asked: &[&[u8]]) -> Result<BTreeSet<Vec<u8>>, String> {
    let overlaps = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let mut prefixes = known.cloned().unwrap_or_default();
    for (at, prefix) in asked.iter().enumerate() {
        let existing = prefixes.iter().find(|known| overlaps(known, prefix));
        let provided = asked.iter().skip(at + 1).find(|other| overlaps(other, prefix));
        let (what, other) = match (existing, provided) {
            (Some(known), _) => ("an existing", known.as_slice()),
            (None, Some(other)) => ("another provided", *other),
            (None, None) => continue,
        };
        let [prefix, other] = [prefix, other].map(|text| String::from_utf8_lossy(text).replace(['\r', '\n'], " "));
        return Err(format!(
            "ERR Prefix '{prefix}' overlaps with {what} prefix '{other}'. Prefixes for a single client must not overlap."
        ));
    }
    match asked {
        [] => drop(prefixes.insert(Vec::new())),
        asked => prefixes.extend(asked.iter().map(|prefix| prefix.to_vec())),
    }
    Ok(prefixes)
}

impl State {
    /// The message that drops everything that the client may have cached; nothing where Redis sends it none.
    fn invalidation(&self, subscriptions: &Subscriptions) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self.key.protocol {
            Protocol::Resp3 if self.tracking.is_some() => {
                write::push(&mut out, Protocol::Resp3, 2);
                write::bulk(&mut out, b"invalidate");
                write::null(&mut out, Protocol::Resp3);
            }
            Protocol::Resp2 if subscriptions.has_channel(CHANNEL) => {
                write::array(&mut out, 3);
                write::bulk(&mut out, b"message");
                write::bulk(&mut out, CHANNEL);
                write::null(&mut out, Protocol::Resp2);
            }
            Protocol::Resp2 | Protocol::Resp3 => return None,
        }
        Some(out)
    }
}

impl Task {
    /// The connection has ended: what the client has cached is not kept up to date any more.
    pub(super) fn lost_its_feed(&self) {
        let session = &self.session;
        let subscriptions = session.subscriptions.borrow();
        let was_told = subscriptions.has_channel(CHANNEL) && subscriptions.is_confirmed();
        if session.is_tracked.replace(false) || was_told {
            session.invalidation_owed.set(true);
        }
    }

    /// Subscriptions and tracking without a connection are asked for upstream, now or once it is back.
    pub(super) fn keep_fed(&mut self, cx: &Context<'_>) {
        let is_subscribed = !self.session.subscriptions.borrow().is_empty();
        let is_fed = is_subscribed || self.state.tracking.is_some();
        if !is_fed || self.awaits_answer() || self.session.dedicated.borrow().is_some() {
            return;
        }
        if self.is_forwarding() {
            if self.state.tracking.is_some() {
                self.renew_tracking();
            }
            if is_subscribed {
                self.renew_subscriptions();
            }
        } else {
            self.session.local.wait(cx.waker());
        }
    }

    /// Tells the client to drop what it has cached, between two replies.
    pub(super) fn invalidate_all(&mut self) {
        if !self.session.invalidation_owed.get() {
            return;
        }
        let message = self.state.invalidation(&self.session.subscriptions.borrow());
        let mut output = self.session.output.borrow_mut();
        if message.is_some() && !output.is_between_replies() {
            // What is in flight wakes the session when it has landed.
            self.session.wakes_when_settled.set(true);
            return;
        }
        self.session.invalidation_owed.set(false);
        if let Some(message) = message {
            output.push(&message, Piece::End);
        }
    }

    /// A CLIENT TRACKING has been sent.
    pub(super) fn note_tracking(&mut self, ask: &Ask<'_>, seq: u64) {
        if self.in_transaction() {
            // What EXEC makes of the connection is known to the connection alone.
            self.state.pinned = Pinned::Feed;
        } else if let Ok(asked) = Asked::of(&ask.request, self.state.tracking.as_ref()) {
            self.state.tracking_asked = Some(asked);
            let change = Change::Tracking;
            self.session.change_awaited.set(ChangeAwaited::Awaited { seq, change });
        }
    }

    /// CLIENT TRACKING while down: noted, and asked for when the upstream is back.
    pub(super) fn track_down(&mut self, ask: &Ask<'_>) -> Routed {
        match Asked::of(&ask.request, self.state.tracking.as_ref()) {
            Ok(Asked::Redirected) => self.refuse(ask),
            Ok(asked) => {
                self.tracked(asked);
                self.answer(ask, b"+OK\r\n", Route::Local)
            }
            Err(error) => self.answer(ask, format!("-{error}\r\n").as_bytes(), Route::Local),
        }
    }

    /// What was asked for has been granted.
    pub(super) fn tracked(&mut self, asked: Asked) {
        self.state.tracking = match asked {
            Asked::On(tracking) => Some(tracking),
            Asked::Off => None,
            Asked::Redirected => {
                self.state.pinned = Pinned::Feed;
                None
            }
        };
    }

    /// Lets a fresh connection track as the last one did.
    pub(super) fn track_on(&self, link: &Link) {
        // In the subscribed mode of RESP2 its reply would be taken for a message, and messages would come from nowhere.
        if let Some(tracking) = self.state.tracking.as_ref().filter(|_| !self.is_subscribed_mode()) {
            link.alter();
            let session = Rc::clone(&self.session);
            let granted = OwnRequest::new(move |outcome| {
                match outcome {
                    Outcome::Reply(b"+OK\r\n") => {
                        session.is_tracked.set(true);
                        session.invalidation_owed.set(true);
                    }
                    // It lacks the right by now: closed, it finds out.
                    Outcome::Reply(_) | Outcome::Denied(_) => session.end(),
                    Outcome::Unanswered => {}
                }
                session.wake();
            });
            let now_us = self.session.local.turn.now_us();
            let request = tracking.request();
            link.push(Rc::new(granted), 0, &request, InFlight::Read, Watched::Yes, now_us);
        }
    }

    /// Asks for tracking anew, on a connection that is the session's for good.
    fn renew_tracking(&mut self) {
        if !self.is_subscribed_mode() {
            self.state.pinned = Pinned::Identity;
            self.introduce_on_dedicated();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::request::OwnedRequest;

    fn asked(line: &str, now: Option<&Tracking>) -> Result<Asked, String> {
        let args: Vec<&str> = line.split(' ').collect();
        Asked::of(&OwnedRequest::new(&args).as_request(), now)
    }

    fn on(line: &str, now: Option<&Tracking>) -> Tracking {
        match asked(line, now) {
            Ok(Asked::On(tracking)) => tracking,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn request(tracking: &Tracking) -> String {
        let frame = tracking.request();
        let text = String::from_utf8_lossy(&frame).into_owned();
        let words = text
            .split("\r\n")
            .filter(|word| !word.starts_with(['*', '$']) && !word.is_empty());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_fresh_connection_is_told_what_the_last_one_tracked() {
        for line in [
            "CLIENT TRACKING ON",
            "CLIENT TRACKING ON OPTIN",
            "CLIENT TRACKING ON OPTOUT NOLOOP",
            "CLIENT TRACKING ON BCAST",
            "CLIENT TRACKING ON BCAST PREFIX a PREFIX b NOLOOP",
        ] {
            assert_eq!(request(&on(line, None)), line);
        }
        let first = on("CLIENT TRACKING ON BCAST PREFIX b", None);
        let second = on("client tracking on bcast prefix a", Some(&first));
        assert_eq!(request(&second), "CLIENT TRACKING ON BCAST PREFIX a PREFIX b");
        let all = on("CLIENT TRACKING ON BCAST", Some(&second));
        assert_eq!(request(&all), "CLIENT TRACKING ON BCAST");
        assert_eq!(asked("CLIENT TRACKING off", Some(&all)), Ok(Asked::Off));
        assert_eq!(asked("CLIENT TRACKING on REDIRECT 7", None), Ok(Asked::Redirected));
    }
}
