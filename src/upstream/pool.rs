//! Dedicated connections that no session has: given back, or dialled ahead (spares), so that the next session need not wait for a dial.
//!
//! There are always spares for what sessions start with (the URL's identity in RESP2); for other keys while there is a lane for them, or once a
//! session needed one, until nobody has for a minute. They are dialled when all is well again, when a subscriber took one, when a lane comes up, and by the
//! worker's tick, and only while CLOSED; one that fails says nothing of the upstream to anybody, for nobody waits for it, and is not tried again for a while.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::link::{Link, LinkKey, LinkState};

/// Connections kept ready for each key in use.
pub(super) const SPARES: usize = 2;
/// For a key that has a lane, and no session has needed more.
const SPARES_UNPROVEN: usize = 1;
/// Connections without a session, of all keys together.
const IDLE_MAX: usize = 64;
/// Keys that spares are kept for: identities, databases, protocol versions.
const KEYS_MAX: usize = 16;
/// How long a key is in use after a session needed it, and a connection beyond the spares is kept.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Before the next spare after one that could not be dialled: the upstream may have no room.
const FAILED_PAUSE: Duration = Duration::from_secs(10);
/// Before the next spare after one that the upstream ended.
const ENDED_PAUSE: Duration = Duration::from_secs(1);

/// Whom a connection may have served before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Anybody,
    Nobody,
}

struct Idle {
    link: Rc<Link>,
    since: Instant,
}

/// A key that sessions needed a connection for, or may need one.
struct Wanted {
    key: LinkKey,
    at: Instant,
    spares: usize,
    /// When one was needed that had served nobody.
    fresh_at: Option<Instant>,
    /// No spare is dialled before.
    not_before: Instant,
}

/// See the module.
pub(super) struct Pool {
    idle: Vec<Idle>,
    /// The first is what sessions start with and is never forgotten.
    wanted: Vec<Wanted>,
}

impl Pool {
    pub(super) fn new(start: LinkKey, now: Instant) -> Self {
        let wanted = Wanted {
            key: start,
            at: now,
            spares: SPARES,
            fresh_at: None,
            not_before: now,
        };
        Self {
            idle: Vec::new(),
            wanted: vec![wanted],
        }
    }

    /// A connection for a session: rather one that is up, and the one used last. Notes that the key is needed.
    pub(super) fn take(&mut self, key: &LinkKey, before: Before, now: Instant) -> Option<Rc<Link>> {
        self.want(key, before, now);
        self.idle.retain(|idle| idle.link.is_reusable());
        let fits = |link: &Link| link.key == *key && (before == Before::Anybody || !link.has_served.get());
        let (at, _) = self
            .idle
            .iter()
            .enumerate()
            .filter(|(_, idle)| fits(&idle.link))
            .max_by_key(|(at, idle)| (idle.link.state() == LinkState::Up, idle.link.has_served.get(), *at))?;
        Some(self.idle.remove(at).link)
    }

    /// A connection that fits and can be spoken on at once.
    pub(super) fn take_up(&mut self, fits: impl Fn(&LinkKey) -> bool) -> Option<Rc<Link>> {
        let is_up = |link: &Link| link.state() == LinkState::Up && link.is_reusable();
        let mut idle = self.idle.iter();
        let at = idle.position(|idle| fits(&idle.link.key) && is_up(&idle.link))?;
        Some(self.idle.remove(at).link)
    }

    /// A lane has this key: one of its sessions may need a connection of its own. Those who have needed one come first.
    pub(super) fn may_want(&mut self, key: &LinkKey, now: Instant) {
        if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.key == *key) {
            wanted.at = now;
        } else if self.wanted.len() < KEYS_MAX {
            self.wanted.push(Wanted {
                key: key.clone(),
                at: now,
                spares: SPARES_UNPROVEN,
                fresh_at: None,
                not_before: now,
            });
        }
    }

    fn want(&mut self, key: &LinkKey, before: Before, now: Instant) {
        let fresh_at = (before == Before::Nobody).then_some(now);
        if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.key == *key) {
            wanted.at = now;
            wanted.spares = SPARES;
            wanted.fresh_at = fresh_at.or(wanted.fresh_at);
            return;
        }
        if self.wanted.len() >= KEYS_MAX
            && let Some((oldest, _)) = self
                .wanted
                .iter()
                .enumerate()
                .skip(1)
                .min_by_key(|(_, wanted)| wanted.at)
        {
            self.wanted.remove(oldest);
        }
        self.wanted.push(Wanted {
            key: key.clone(),
            at: now,
            spares: SPARES,
            fresh_at,
            not_before: now,
        });
    }

    /// Keeps a connection for the next session; false when there are enough.
    pub(super) fn put(&mut self, link: &Rc<Link>, now: Instant) -> bool {
        let has_room = self.idle.len() < IDLE_MAX;
        if has_room {
            let link = Rc::clone(link);
            self.idle.push(Idle { link, since: now });
        }
        has_room
    }

    /// The keys that spares are to be dialled for, once for each.
    pub(super) fn missing(&self, now: Instant) -> Vec<LinkKey> {
        let mut missing = Vec::new();
        for wanted in self.wanted.iter().filter(|wanted| wanted.not_before <= now) {
            // Where fresh ones are needed, those that have served are no spares.
            let is_fresh_needed = wanted.fresh_at.is_some_and(|at| !is_old(at, now));
            let is_spare = |link: &Link| link.key == wanted.key && !(is_fresh_needed && link.has_served.get());
            let have = self.idle.iter().filter(|idle| is_spare(&idle.link)).count();
            missing.extend(std::iter::repeat_n(
                wanted.key.clone(),
                wanted.spares.saturating_sub(have),
            ));
        }
        missing.truncate(IDLE_MAX - self.idle.len().min(IDLE_MAX));
        missing
    }

    /// Takes out what nobody has used for a minute, but for the spares of keys in use; forgets keys that are not any more.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Rc<Link>> {
        let mut is_start = true;
        self.wanted
            .retain(|wanted| std::mem::take(&mut is_start) || !is_old(wanted.at, now));
        let mut expired = Vec::new();
        let mut at = 0;
        while let Some(idle) = self.idle.get(at) {
            let key = &idle.link.key;
            let is_alike = |other: &Link| other.key == *key && other.has_served.get() == idle.link.has_served.get();
            let have = self.idle.iter().filter(|other| is_alike(&other.link)).count();
            let wanted = self.wanted.iter().find(|wanted| wanted.key == *key);
            let keep = wanted.map_or(0, |wanted| wanted.spares);
            if have > keep && is_old(idle.since, now) {
                expired.push(self.idle.remove(at).link);
            } else {
                at += 1;
            }
        }
        expired
    }

    /// A spare could not be dialled.
    pub(super) fn failed(&mut self, key: &LinkKey, now: Instant) {
        self.pause(key, now + FAILED_PAUSE);
    }

    /// A connection is no more.
    pub(super) fn forget(&mut self, link: &Rc<Link>, now: Instant) {
        if let Some(at) = self.idle.iter().position(|idle| Rc::ptr_eq(&idle.link, link)) {
            self.idle.remove(at);
            self.pause(&link.key, now + ENDED_PAUSE);
        }
    }

    fn pause(&mut self, key: &LinkKey, until: Instant) {
        if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.key == *key) {
            wanted.not_before = wanted.not_before.max(until);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.idle.len()
    }

    /// The generation has moved on. What could not be dialled before says nothing of now.
    pub(super) fn clear(&mut self) {
        self.idle.clear();
        for wanted in &mut self.wanted {
            wanted.not_before = wanted.at;
        }
    }
}

fn is_old(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) >= REMEMBERED
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::super::link::LinkKind;
    use super::super::settings::Identity;
    use super::*;
    use crate::resp::Protocol;

    fn key(db: u32) -> LinkKey {
        LinkKey {
            db,
            identity: Identity::Url,
            protocol: Protocol::Resp2,
        }
    }

    fn link(db: u32) -> Rc<Link> {
        Rc::new(Link::new(
            2,
            key(db),
            2,
            Arc::new(AtomicU64::new(2)),
            LinkKind::Dedicated,
        ))
    }

    fn pool() -> (Pool, Instant) {
        let now = Instant::now();
        (Pool::new(key(0), now), now)
    }

    /// Dials what is missing, as the tick does.
    fn fill(pool: &mut Pool, now: Instant) -> usize {
        let missing = pool.missing(now);
        for key in &missing {
            assert!(pool.put(&link(key.db), now));
        }
        missing.len()
    }

    #[test]
    fn spares_are_filled_up_to_what_each_key_in_use_needs_and_no_further() {
        let (mut pool, now) = pool();
        assert_eq!(fill(&mut pool, now), SPARES);
        assert_eq!(fill(&mut pool, now), 0);
        // A hundred at once: two find a spare, the others dial themselves.
        let taken = (0..100)
            .filter_map(|_| pool.take(&key(0), Before::Anybody, now))
            .count();
        assert_eq!(taken, SPARES);
        assert_eq!(fill(&mut pool, now), SPARES);
        assert!(pool.take(&key(5), Before::Anybody, now).is_none());
        assert_eq!(fill(&mut pool, now), SPARES, "for the other database, too");
    }

    #[test]
    fn a_key_that_has_a_lane_has_one_spare_before_a_session_needs_one() {
        let (mut pool, now) = pool();
        fill(&mut pool, now);
        pool.may_want(&key(5), now);
        assert_eq!(fill(&mut pool, now), 1);
        assert!(pool.take(&key(5), Before::Anybody, now).is_some());
        assert_eq!(fill(&mut pool, now), SPARES);
        let later = now + REMEMBERED;
        pool.may_want(&key(5), later);
        assert!(pool.expired(later).is_empty(), "its lane is there yet");
    }

    #[test]
    fn a_connection_that_served_somebody_is_no_fresh_one_and_is_taken_first_otherwise() {
        let (mut pool, now) = pool();
        let (fresh, used) = (link(0), link(0));
        used.has_served.set(true);
        pool.put(&used, now);
        pool.put(&fresh, now);
        let taken = pool.take(&key(0), Before::Nobody, now).unwrap();
        assert!(Rc::ptr_eq(&taken, &fresh));
        assert!(pool.take(&key(0), Before::Nobody, now).is_none());
        pool.put(&fresh, now);
        let taken = pool.take(&key(0), Before::Anybody, now).unwrap();
        assert!(Rc::ptr_eq(&taken, &used));
    }

    #[test]
    fn where_fresh_ones_are_needed_those_that_served_are_no_spares() {
        let (mut pool, now) = pool();
        for _ in 0..SPARES {
            let used = link(0);
            used.has_served.set(true);
            pool.put(&used, now);
        }
        assert_eq!(fill(&mut pool, now), 0);
        assert!(pool.take(&key(0), Before::Nobody, now).is_none());
        assert_eq!(fill(&mut pool, now), SPARES);
        assert!(pool.take(&key(0), Before::Nobody, now).is_some());
        assert_eq!(fill(&mut pool, now), 1);
        assert!(pool.expired(now + REMEMBERED).is_empty(), "a few of each kind are kept");
    }

    #[test]
    fn after_a_minute_only_the_spares_of_keys_in_use_are_left() {
        let (mut pool, now) = pool();
        pool.take(&key(5), Before::Anybody, now);
        fill(&mut pool, now);
        for _ in 0..3 {
            pool.put(&link(0), now);
        }
        assert!(pool.expired(now + REMEMBERED / 2).is_empty());
        let expired = pool.expired(now + REMEMBERED);
        let of = |db: u32| expired.iter().filter(|link| link.key.db == db).count();
        assert_eq!((of(0), of(5)), (3, SPARES));
        assert_eq!(
            fill(&mut pool, now + REMEMBERED),
            0,
            "the other key costs nothing any more"
        );
    }

    #[test]
    fn a_spare_that_failed_or_ended_is_not_replaced_at_once() {
        let (mut pool, now) = pool();
        fill(&mut pool, now);
        let spare = pool.take(&key(0), Before::Anybody, now).unwrap();
        pool.put(&spare, now);
        pool.forget(&spare, now);
        assert_eq!(fill(&mut pool, now), 0);
        assert_eq!(fill(&mut pool, now + ENDED_PAUSE), 1);
        pool.failed(&key(0), now);
        pool.take(&key(0), Before::Anybody, now);
        assert_eq!(fill(&mut pool, now + ENDED_PAUSE), 0);
        assert_eq!(fill(&mut pool, now + FAILED_PAUSE), 1);
        pool.failed(&key(0), now + FAILED_PAUSE);
        pool.clear();
        assert_eq!(fill(&mut pool, now + FAILED_PAUSE), SPARES, "after an outage");
    }

    #[test]
    fn keys_and_connections_without_a_session_are_bounded() {
        let (mut pool, now) = pool();
        for db in 0..100 {
            pool.take(&key(db), Before::Anybody, now + Duration::from_millis(u64::from(db)));
        }
        assert_eq!(pool.wanted.len(), KEYS_MAX);
        assert_eq!(pool.wanted[0].key, key(0));
        while pool.put(&link(3), now) {}
        assert_eq!(pool.idle.len(), IDLE_MAX);
        assert!(pool.missing(now + REMEMBERED).is_empty());
    }
}
