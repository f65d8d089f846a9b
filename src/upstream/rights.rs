//! Whether users may use MULTI and the marker: without, what must not be applied twice cannot be replayed for them, and is refused while down.
//! Tested while up, on a connection of its own once there is a lane of the user, without effect: `WATCH marker, GET marker, MULTI, SET marker,
//! DISCARD`. Redis's rights know no databases. A refusal stands in the upstream's ACL LOG and error statistics, once.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::timeout;

use super::dial::{Conversation, Handshake, command, dial, error_text};
use super::link::{Link, LinkKind};
use super::opening::opener;
use super::settings::Identity;
use super::shared::Shared;
use crate::breaker::{ErrorClass, Transient};
use crate::resp::Protocol;
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
    let credentials = shared.credentials(&identity);
    let own = match &identity {
        Identity::Url => None,
        Identity::Client(_) => shared.target.own_credentials(),
    };
    let default = shared.known.live("default");
    let default = default.filter(|default| credentials.as_ref() != Some(default));
    let handshake = Handshake {
        credentials: credentials.as_ref(),
        opener: opener(&shared, &identity, own.as_ref(), default.as_ref()),
        protocol: Protocol::Resp2,
        db: shared.target.db,
    };
    let rights = match (dial(&shared.target, &handshake).await, shared.rights.marker_key.get()) {
        (Ok(dialled), Some(key)) => timeout(shared.target.timeouts.connect, ask(&mut dialled.into(), key)).await,
        (Ok(_) | Err(_), _) => Ok(None),
    };
    let user = shared.user_of(identity.name());
    if let Ok(Some(rights)) = rights {
        shared.rights.note(&shared.target.name, user, rights);
    }
    if !matches!(rights, Ok(Some(ReplayRights::Granted))) {
        shared.rights.want(user);
    }
}

/// One question at a time: after the first refusal no other is drawn, and what follows a refused MULTI would be executed. Nothing where it
/// was not answered.
async fn ask(conversation: &mut Conversation, key: &[u8]) -> Option<ReplayRights> {
    let questions: [&[&[u8]]; 5] = [
        &[b"WATCH", key],
        &[b"GET", key],
        &[b"MULTI"],
        &[b"SET", key, b""],
        &[b"DISCARD"],
    ];
    for question in questions {
        let reply = conversation.ask(&command(question), 1).await.ok()?.pop()?;
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
