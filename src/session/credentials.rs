//! Whether Redis takes credentials now: each AUTH is asked anew, for a password may have been withdrawn while connections of its user go on.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Waker;

use tokio::time::Instant;

use super::handshake::Judgement;
use super::state::Admission;
use super::task::Task;
use crate::resp::Protocol;
use crate::upstream::dial::{auth, error_text};
use crate::upstream::link::{InFlight, Link, LinkKey, Recipient, Watched};
use crate::upstream::own_request::{Outcome, OwnRequest};
use crate::upstream::rights;
use crate::upstream::settings::{Credentials, Identity};
use crate::upstream::shared::Mode;

/// An AUTH under way, on a connection with nothing else on it (a refused AUTH behind other replies gets none).
pub(super) struct Check {
    key: LinkKey,
    verdict: RefCell<Option<Verdict>>,
    waker: RefCell<Option<Waker>>,
    link: RefCell<Option<Rc<Link>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// The error, without `-`.
    Refused(String),
    /// The connection ended before it was said.
    Lost,
}

impl Check {
    fn decide(&self, verdict: Verdict) {
        self.verdict.borrow_mut().get_or_insert(verdict);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl Task {
    /// Checks credentials, here where the configuration asks for a password of its own, else upstream; on success the session acts as them.
    pub(super) fn authenticate(&mut self, credentials: Credentials, protocol: Protocol) -> Judgement {
        if let Some(password) = &self.session.settings.client_password
            && credentials.user.as_deref().is_none_or(|user| user == "default")
        {
            if *password != credentials.password {
                return Judgement::Refused("WRONGPASS invalid username-password pair or user is disabled.".into());
            }
            self.state.admission = Admission::Granted;
            self.become_key(LinkKey {
                protocol,
                ..self.state.key.clone()
            });
            return Judgement::Accepted;
        }
        // The URL's own credentials are no other identity than that of sessions that never AUTH.
        let identity = if self.session.local.shared.target.credentials.as_ref() == Some(&credentials) {
            Identity::Url
        } else {
            Identity::Client(std::sync::Arc::new(credentials.clone()))
        };
        let key = LinkKey {
            identity,
            protocol,
            ..self.state.key.clone()
        };
        let judgement = if !self.is_forwarding() {
            self.abandon_check();
            self.judge_not_closed(&key, &credentials)
        } else if self.pending_lane.is_none() && self.session.local.has_lane(&key) {
            self.check_credentials(&key, &credentials)
        } else {
            // The dial is the check; the session stays what it became, whatever becomes of the password.
            self.judge(&key)
        };
        if let Judgement::Refused(text) = &judgement
            && text.starts_with("WRONGPASS")
        {
            self.session.local.shared.known.refused(&credentials);
        }
        if matches!(judgement, Judgement::Accepted) {
            self.state.admission = Admission::Granted;
            if self.is_forwarding() {
                rights::look_again(&key.identity, &self.session.local.shared);
            }
            self.become_key(key);
        }
        judgement
    }

    /// As when down, unless the upstream answers: then it is asked, or will be in a moment. It may know better who is let in.
    fn judge_not_closed(&mut self, key: &LinkKey, credentials: &Credentials) -> Judgement {
        let shared = &self.session.local.shared;
        let mode = shared.mode();
        if shared.known.accepts(credentials) {
            return self.judge(key);
        }
        match mode {
            Mode::Halted => self.judge_by_lane(key),
            Mode::CatchingUp | Mode::Healthy => {
                let limit = shared.target.hold_timeout;
                if self.held_until(limit) > Instant::now() {
                    Judgement::Pending
                } else {
                    self.judge(key)
                }
            }
            Mode::Starting | Mode::Down | Mode::Probing => self.judge(key),
        }
    }

    /// What Redis says of credentials, on a connection of the key that they make.
    pub(super) fn check_credentials(&mut self, key: &LinkKey, credentials: &Credentials) -> Judgement {
        let check = match self.pending_check.take() {
            Some(check) if check.key == *key && *check.verdict.borrow() != Some(Verdict::Lost) => check,
            Some(_) | None => self.begin_check(key, credentials),
        };
        let verdict = check.verdict.borrow().clone();
        match verdict {
            None | Some(Verdict::Lost) => {
                check.waker.replace(self.session.waker.borrow().clone());
                self.pending_check = Some(check);
                Judgement::Pending
            }
            Some(Verdict::Accepted) => {
                if let Some(link) = check.link.take() {
                    self.session.local.give_back(&link);
                }
                Judgement::Accepted
            }
            Some(Verdict::Refused(error)) => {
                if let Some(link) = check.link.take() {
                    link.abandon();
                }
                Judgement::Refused(error)
            }
        }
    }

    fn begin_check(&self, key: &LinkKey, credentials: &Credentials) -> Rc<Check> {
        let check = Rc::new(Check {
            key: key.clone(),
            verdict: RefCell::default(),
            waker: RefCell::default(),
            link: RefCell::default(),
        });
        let local = &self.session.local;
        let told = Rc::clone(&check);
        let request = Rc::new(OwnRequest::new(move |outcome| {
            told.decide(match outcome {
                Outcome::Reply(reply) => error_text(reply).map_or(Verdict::Accepted, Verdict::Refused),
                Outcome::Denied(error) => Verdict::Refused(error.to_owned()),
                Outcome::Unanswered => Verdict::Lost,
            });
        }));
        let owner: Rc<dyn Recipient> = request.clone();
        let link = local.dedicated(key, owner);
        let now_us = local.turn.now_us();
        link.push(request, 0, &auth(credentials), InFlight::Read, Watched::Yes, now_us);
        check.link.replace(Some(link));
        check
    }

    /// Ends a check that nobody waits for any more.
    pub(super) fn abandon_check(&mut self) {
        if let Some(link) = self.pending_check.take().and_then(|check| check.link.take()) {
            link.abandon();
        }
    }
}
