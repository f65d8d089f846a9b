//! Whether users may use MULTI and the marker: without, what must not be applied twice cannot be replayed for them, and is refused while down.
//! Found out while up, once there is a lane of the user: the upstream is asked with the URL's credentials (`ACL DRYRUN`), which leaves no trace.
//! Where that is not known (before 7.0) or not allowed, the user tries, on a connection of its own and without effect: `WATCH marker, GET
//! marker, MULTI, SET marker, DISCARD`; a refusal then stands in the upstream's ACL LOG and error statistics, so it is not drawn often: see
//! [`Occasion`]. Redis's rights know no databases.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::timeout;

use super::clock::mono_ms;
use super::dial::{Conversation, Handshake, command, dial, error_text};
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

/// When somebody without rights may be tested again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    /// A lane of the user has come up: [`RETEST_MS`] after the last time.
    Lane,
    /// A client has authenticated; rights may have been changed before it did. At once, then ever later, at most [`RETEST_MS`]: some
    /// authenticate for each request.
    Auth,
}

const RETEST_MS: u64 = 10 * 60 * 1000;

/// What came of a user's last test; times on our monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tested {
    UnderWay {
        missing_before: u32,
    },
    Granted,
    /// So many times in a row.
    Missing {
        at_ms: u64,
        times: u32,
    },
}

impl Tested {
    fn missing_times(self) -> u32 {
        match self {
            Self::UnderWay { missing_before } => missing_before,
            Self::Granted => 0,
            Self::Missing { at_ms: _, times } => times,
        }
    }
}

/// Whether to test now somebody of whose last test this came.
fn is_due(last: Option<Tested>, occasion: Occasion, now_ms: u64) -> bool {
    match (last, occasion) {
        (None, Occasion::Lane) => true,
        // Where there is no lane yet one will come up.
        (None, Occasion::Auth) | (Some(Tested::UnderWay { .. } | Tested::Granted), _) => false,
        (Some(Tested::Missing { at_ms, times }), occasion) => {
            let pause_ms = match occasion {
                Occasion::Lane => RETEST_MS,
                Occasion::Auth => 1000 * ((1 << times.saturating_sub(1).min(16)) - 1),
            };
            now_ms.saturating_sub(at_ms) >= pause_ms.min(RETEST_MS)
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Rights {
    marker_key: OnceLock<Vec<u8>>,
    without: Mutex<BTreeSet<String>>,
    tested: Mutex<HashMap<String, Tested>>,
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

    fn lock_tested(&self) -> MutexGuard<'_, HashMap<String, Tested>> {
        self.tested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers, and says loudly, what was seen at `now_ms` of our monotonic clock.
    pub fn note(&self, upstream: &str, user: &str, rights: ReplayRights, now_ms: u64) {
        let mut tested = self.lock_tested();
        let times = tested.get(user).map_or(0, |tested| tested.missing_times());
        let outcome = match rights {
            ReplayRights::Granted => Tested::Granted,
            ReplayRights::Missing => Tested::Missing {
                at_ms: now_ms,
                times: times.saturating_add(1),
            },
        };
        if tested.len() < USERS_MAX || tested.contains_key(user) {
            tested.insert(user.to_owned(), outcome);
        }
        drop(tested);
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

    /// Whether this user is to be tested, by whoever asks.
    fn take_wanted(&self, user: &str, occasion: Occasion, now_ms: u64) -> bool {
        let mut tested = self.lock_tested();
        let last = tested.get(user).copied();
        let is_wanted = self.marker_key.get().is_some()
            && (tested.len() < USERS_MAX || last.is_some())
            && is_due(last, occasion, now_ms);
        if is_wanted {
            let missing_before = last.map_or(0, Tested::missing_times);
            tested.insert(user.to_owned(), Tested::UnderWay { missing_before });
        }
        is_wanted
    }

    /// A test has told nothing.
    fn want(&self, user: &str) {
        self.lock_tested().remove(user);
    }
}

/// Has the user of a new lane tested, on a connection of its own.
pub(super) fn look(link: &Link, shared: &Arc<Shared>) {
    let identity = &link.key.identity;
    let user = shared.user_of(identity.name());
    if link.kind == LinkKind::Lane
        && link.generation.is_multiple_of(2)
        && shared.rights.take_wanted(user, Occasion::Lane, mono_ms())
    {
        tokio::task::spawn_local(test(Arc::clone(shared), identity.clone()));
    }
}

/// The upstream has let a client in as this identity.
pub fn look_again(identity: &Identity, shared: &Arc<Shared>) {
    let user = shared.user_of(identity.name());
    if shared.rights.are_missing(user) && shared.rights.take_wanted(user, Occasion::Auth, mono_ms()) {
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
    match rights {
        Some(rights) => shared.rights.note(&shared.target.name, user, rights, mono_ms()),
        None => shared.rights.want(user),
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
    let handshake = Handshake::in_own_name(own.as_ref(), shared.target.db);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_without_rights_is_tested_again_seldom_and_at_once_after_authenticating() {
        let rights = Rights::default();
        let mut now_ms = 5;
        assert!(!rights.take_wanted("bob", Occasion::Lane, now_ms), "with what?");
        rights.set_marker_key(b"marker");
        assert!(!rights.take_wanted("bob", Occasion::Auth, now_ms));
        assert!(rights.take_wanted("bob", Occasion::Lane, now_ms));
        assert!(!rights.take_wanted("bob", Occasion::Lane, now_ms), "one is enough");
        rights.note("main", "bob", ReplayRights::Missing, now_ms);
        assert!(!rights.take_wanted("bob", Occasion::Lane, now_ms + RETEST_MS - 1));
        // Who authenticates all the time is tested ever less often.
        let mut tests = 0;
        while now_ms < 2 * RETEST_MS {
            if rights.take_wanted("bob", Occasion::Auth, now_ms) {
                rights.note("main", "bob", ReplayRights::Missing, now_ms);
                tests += 1;
            }
            now_ms += 50;
        }
        assert_eq!(tests, 10);
        assert!(rights.take_wanted("bob", Occasion::Lane, now_ms + RETEST_MS));
        assert!(rights.are_missing("bob"), "until the test says otherwise");
        rights.note("main", "bob", ReplayRights::Granted, now_ms);
        assert!(!rights.are_missing("bob"));
        assert!(!rights.take_wanted("bob", Occasion::Lane, now_ms + RETEST_MS));
        // Withdrawn, as replay saw it.
        rights.note("main", "bob", ReplayRights::Missing, now_ms);
        assert!(!rights.take_wanted("bob", Occasion::Lane, now_ms));
        assert!(rights.take_wanted("bob", Occasion::Auth, now_ms));
        rights.want("bob");
        assert!(rights.take_wanted("bob", Occasion::Lane, now_ms));
    }
}
