//! Whether users may use MULTI and the marker: without, what must not be applied twice cannot be replayed for them, and is refused while down.
//! Found out while up, once there is a lane of the user: the upstream is asked with the URL's credentials (`ACL DRYRUN`), which leaves no trace.
//! Where that is not known (before 7.0) or not allowed, the user tries, on a connection of its own and without effect: `WATCH marker, GET
//! marker, MULTI, SET marker, DISCARD`; a refusal then stands in the upstream's ACL LOG and error statistics. Redis's rights know no databases.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::timeout;

use super::dial::{Conversation, Handshake, Opener, command, dial, error_text};
use super::link::{Link, LinkKind};
use super::opening::opener;
use super::settings::Identity;
use super::shared::Shared;
use crate::breaker::{ErrorClass, Transient};
use crate::resp::Protocol::Resp2;
use crate::telemetry;

/// Users remembered.
const USERS_MAX: usize = 65_536;

/// What a user may do as far as replay is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayRights {
    Granted,
    Missing,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Rights {
    marker_key: OnceLock<Vec<u8>>,
    without: Mutex<BTreeSet<String>>,
    /// Tested, or being tested.
    granted: Mutex<HashSet<String>>,
    /// Saves the lock where nobody is without.
    are_missing: AtomicBool,
    /// The URL's credentials may not ask about others, and that stands in the ACL LOG: not again.
    may_not_ask: AtomicBool,
}

impl Rights {
    /// The key to test with; the first one counts.
    pub fn set_marker_key(&self, key: &[u8]) {
        let _ = self.marker_key.set(key.to_vec());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.without.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers, and says loudly, what was seen.
    pub fn note(&self, upstream: &str, user: &str, rights: ReplayRights) {
        let mut without = self.lock();
        let has_changed = match rights {
            ReplayRights::Granted => without.remove(user),
            ReplayRights::Missing => without.len() < USERS_MAX && without.insert(user.to_owned()),
        };
        self.are_missing.store(!without.is_empty(), Ordering::Relaxed);
        drop(without);
        if has_changed && rights == ReplayRights::Missing {
            telemetry::replay_rights_missing(upstream, user);
        }
    }

    #[must_use]
    pub fn are_missing(&self, user: &str) -> bool {
        self.are_missing.load(Ordering::Relaxed) && self.lock().contains(user)
    }

    /// Who is without, for people.
    #[must_use]
    pub fn users_without(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    /// Whether this user is to be tested: once, and again where rights were missing.
    fn take_wanted(&self, user: &str) -> bool {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        self.marker_key.get().is_some() && granted.len() < USERS_MAX && granted.insert(user.to_owned())
    }

    fn want(&self, user: &str) {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner).remove(user);
    }
}

/// Has the user of a new lane tested, on a connection of its own.
pub(super) fn look(link: &Link, shared: &Arc<Shared>) {
    let identity = &link.key.identity;
    let user = shared.user_of(identity.name());
    if link.kind == LinkKind::Lane && link.generation.is_multiple_of(2) && shared.rights.take_wanted(user) {
        tokio::task::spawn_local(test(Arc::clone(shared), identity.clone()));
    }
}

async fn test(shared: Arc<Shared>, identity: Identity) {
    let Some(key) = shared.rights.marker_key.get() else {
        return;
    };
    let user = shared.user_of(identity.name());
    let limit = shared.target.timeouts.connect;
    let mut rights = timeout(limit, asked_about(&shared, user, key)).await.unwrap_or(None);
    if rights.is_none() {
        rights = timeout(limit, tried(&shared, &identity, key)).await.unwrap_or(None);
    }
    if let Some(rights) = rights {
        shared.rights.note(&shared.target.name, user, rights);
    }
    if rights != Some(ReplayRights::Granted) {
        shared.rights.want(user);
    }
}

fn questions(key: &[u8]) -> [Vec<&[u8]>; 5] {
    [
        vec![b"WATCH", key],
        vec![b"GET", key],
        vec![b"MULTI"],
        vec![b"SET", key, b""],
        vec![b"DISCARD"],
    ]
}

/// What the upstream says of a user to us; nothing where it does not.
async fn asked_about(shared: &Shared, user: &str, key: &[u8]) -> Option<ReplayRights> {
    if shared.rights.may_not_ask.load(Ordering::Relaxed) {
        return None;
    }
    let own = shared.target.own_credentials();
    let handshake = Handshake {
        credentials: own.as_ref(),
        opener: Opener::Itself,
        protocol: Resp2,
        db: shared.target.db,
    };
    let mut conversation = Conversation::from(dial(&shared.target, &handshake).await.ok()?);
    for question in questions(key) {
        let request = [vec![b"ACL".as_slice(), b"DRYRUN", user.as_bytes()], question].concat();
        let reply = conversation.ask(&command(&request), 1).await.ok()?.pop()?;
        if let Some(error) = error_text(&reply) {
            let is_denied = ErrorClass::of(error.as_bytes()) == ErrorClass::Permission;
            shared.rights.may_not_ask.fetch_or(is_denied, Ordering::Relaxed);
            return None;
        }
        if reply != b"+OK\r\n" {
            return Some(ReplayRights::Missing);
        }
    }
    Some(ReplayRights::Granted)
}

/// One question at a time: after the first refusal no other is drawn, and what follows a refused MULTI would be executed. Nothing where it
/// was not answered.
async fn tried(shared: &Shared, identity: &Identity, key: &[u8]) -> Option<ReplayRights> {
    let credentials = shared.credentials(identity);
    let own = match identity {
        Identity::Url => None,
        Identity::Client(_) => shared.target.own_credentials(),
    };
    let default = shared.known.live("default");
    let default = default.filter(|default| credentials.as_ref() != Some(default));
    let handshake = Handshake {
        credentials: credentials.as_ref(),
        opener: opener(shared, identity, own.as_ref(), default.as_ref()),
        protocol: Resp2,
        db: shared.target.db,
    };
    let mut conversation = Conversation::from(dial(&shared.target, &handshake).await.ok()?);
    for question in questions(key) {
        let reply = conversation.ask(&command(&question), 1).await.ok()?.pop()?;
        let Some(error) = error_text(&reply) else { continue };
        return match ErrorClass::of(error.as_bytes()) {
            ErrorClass::Permission => Some(ReplayRights::Missing),
            // Rights are looked at first: a full server says nothing about them.
            ErrorClass::Transient(Transient::Oom) if question.len() == 3 => Some(ReplayRights::Granted),
            _ => None,
        };
    }
    Some(ReplayRights::Granted)
}
