//! One worker's part of one upstream: its lanes, its dedicated connections, and the generation that it has confirmed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::driver;
use super::link::{Link, LinkKey, LinkKind, LinkState, Recipient};
use super::pool::{Before, Pool};
use super::settings::Identity;
use super::shared::{Mode, Shared, WorkerShared};
use super::transaction::RefusedExec;
use super::turn::Turn;
use crate::command::Learned;
use crate::resp::Protocol;

/// Wait before a dial that follows a failed one.
const DIAL_PAUSE: Duration = Duration::from_millis(20);

/// See the module.
pub struct Local {
    pub shared: Arc<Shared>,
    pub turn: Rc<Turn>,
    worker: usize,
    next_link_id: Cell<u64>,
    pub(super) lanes: RefCell<Vec<Rc<Link>>>,
    /// Lanes on which Redis holds a command.
    pub(super) held: RefCell<Vec<Rc<Link>>>,
    pub(super) pool: RefCell<Pool>,
    /// Every link whose driver lives.
    links: RefCell<Vec<Rc<Link>>>,
    seen_generation: Cell<u64>,
    waiters: RefCell<Vec<Waker>>,
    confirm: Box<dyn Fn(u64)>,
    dial_not_before: Cell<Option<Instant>>,
    /// When the oldest and the newest blocking commands were sent of those that are not proven executed yet.
    pub(super) blocked: Cell<Option<(Instant, Instant)>>,
    /// Somebody waits for any proof.
    pub(super) proof_awaited: Cell<bool>,
    /// A PING for that is unanswered.
    pub(super) is_proving: Cell<bool>,
    stopping: Cell<bool>,
    /// The version that this is, and the commands learned.
    learned: RefCell<(u64, Arc<Learned>)>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local")
            .field("upstream", &self.shared.target.name)
            .field("worker", &self.worker)
            .finish()
    }
}

impl Local {
    /// `confirm` tells the journal's owner that this worker writes to no connection older than a generation.
    #[must_use]
    pub fn new(shared: Arc<Shared>, worker: usize, turn: Rc<Turn>, confirm: Box<dyn Fn(u64)>) -> Rc<Self> {
        let start = LinkKey {
            db: shared.target.db,
            identity: Identity::Url,
            protocol: Protocol::Resp2,
        };
        let local = Self {
            seen_generation: Cell::new(0),
            shared,
            turn,
            worker,
            next_link_id: Cell::new(2),
            lanes: RefCell::default(),
            held: RefCell::default(),
            pool: RefCell::new(Pool::new(start, Instant::now())),
            links: RefCell::default(),
            waiters: RefCell::default(),
            confirm,
            dial_not_before: Cell::new(None),
            blocked: Cell::new(None),
            proof_awaited: Cell::new(false),
            is_proving: Cell::new(false),
            stopping: Cell::new(false),
            learned: RefCell::default(),
        };
        local.look();
        Rc::new(local)
    }

    #[must_use]
    pub fn worker(&self) -> &WorkerShared {
        // The worker's index is given at construction, from the same list.
        &self.shared.workers[self.worker]
    }

    /// The generation that this worker works in.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.seen_generation.get()
    }

    /// Looks at the shared generation; on a change stops all older connections, hands back what they did not send, and confirms.
    #[inline]
    pub fn look(&self) {
        let generation = self.shared.generation();
        if generation != self.seen_generation.get() {
            self.moved_to(generation);
        }
    }

    #[cold]
    fn moved_to(&self, generation: u64) {
        self.seen_generation.set(generation);
        self.lanes.borrow_mut().clear();
        self.held.borrow_mut().clear();
        self.pool.borrow_mut().clear();
        let older: Vec<Rc<Link>> = self
            .links
            .borrow()
            .iter()
            .filter(|link| link.generation != generation)
            .cloned()
            .collect();
        for link in older {
            link.retire();
        }
        (self.confirm)(generation);
        self.wake_waiters();
    }

    /// The commands that the upstream knows and the table does not. Takes a lock only after something else has been learned.
    #[must_use]
    pub fn learned(&self) -> Arc<Learned> {
        let version = self.shared.learned.version();
        let mut kept = self.learned.borrow_mut();
        if kept.0 != version {
            *kept = (version, self.shared.learned.get());
        }
        Arc::clone(&kept.1)
    }

    /// Whether any EXEC leaves a connection without a transaction: the upstream has the command, and discards what it refuses.
    #[must_use]
    pub fn ends_with_exec(&self, link: &Link) -> bool {
        link.refused_exec.get() == RefusedExec::Discards && self.learned().has_exec()
    }

    /// Waits on the worker's bell: generation and mode changes reach the sessions that wait for them.
    pub async fn listen(self: Rc<Self>) {
        loop {
            self.worker().bell.notified().await;
            self.look();
            self.retire_if_down();
            self.dial_spares(Instant::now());
            self.wake_waiters();
        }
    }

    /// Connections that took reads past a halted replay: the upstream is gone again, and the generation says nothing of it.
    fn retire_if_down(&self) {
        let is_down = matches!(self.shared.mode(), Mode::Down | Mode::Probing);
        if self.generation().is_multiple_of(2) || !is_down {
            return;
        }
        self.lanes.borrow_mut().clear();
        self.pool.borrow_mut().clear();
        let links = self.links.borrow().clone();
        for link in links {
            link.retire();
        }
    }

    /// Lets every session that waits look again.
    pub fn wake_waiters(&self) {
        for waker in self.waiters.take() {
            waker.wake();
        }
    }

    /// Wakes `waker` at the next change of generation or mode.
    pub fn wait(&self, waker: &Waker) {
        let mut waiters = self.waiters.borrow_mut();
        if !waiters.iter().any(|known| known.will_wake(waker)) {
            waiters.push(waker.clone());
        }
    }

    /// Forgets a waker whose session is gone.
    pub fn unwait(&self, waker: &Waker) {
        self.waiters.borrow_mut().retain(|known| !known.will_wake(waker));
    }

    /// The lane for a key, dialled when there is none.
    #[must_use]
    pub fn lane(self: &Rc<Self>, key: &LinkKey) -> Rc<Link> {
        let mut lanes = self.lanes.borrow_mut();
        lanes.retain(|lane| lane.is_open());
        if let Some(lane) = lanes.iter().find(|lane| lane.key == *key) {
            return Rc::clone(lane);
        }
        let lane = self.dial(key, LinkKind::Lane);
        lanes.push(Rc::clone(&lane));
        lane
    }

    /// Whether a lane for a key is up.
    #[must_use]
    pub fn has_lane(&self, key: &LinkKey) -> bool {
        let lanes = self.lanes.borrow();
        lanes
            .iter()
            .any(|lane| lane.is_open() && lane.state() == LinkState::Up && lane.key == *key)
    }

    /// A dedicated connection for one session: one from the pool, else a new one.
    #[must_use]
    pub fn dedicated(self: &Rc<Self>, key: &LinkKey, owner: Rc<dyn Recipient>) -> Rc<Link> {
        self.dedicated_from(key, Before::Anybody, owner)
    }

    /// A dedicated connection that has served nobody else.
    #[must_use]
    pub fn dedicated_fresh(self: &Rc<Self>, key: &LinkKey, owner: Rc<dyn Recipient>) -> Rc<Link> {
        self.dedicated_from(key, Before::Nobody, owner)
    }

    fn dedicated_from(self: &Rc<Self>, key: &LinkKey, before: Before, owner: Rc<dyn Recipient>) -> Rc<Link> {
        let now = Instant::now();
        let pooled = self.pool.borrow_mut().take(key, before, now);
        let link = pooled.unwrap_or_else(|| self.dial(key, LinkKind::Dedicated));
        link.has_served.set(true);
        link.owner.replace(Some(owner));
        link
    }

    /// Dials spares for those that were taken without waiting for the worker's tick: what the next session asks on one that is up cannot be
    /// overtaken by what is asked elsewhere afterwards.
    pub fn replace_spares(self: &Rc<Self>) {
        self.dial_spares(Instant::now());
    }

    /// Takes a dedicated connection back whose session needs it no more and that carries no state but its key's.
    pub fn give_back(&self, link: &Rc<Link>) {
        let is_of_use = link.is_reusable() && link.generation == self.generation();
        if is_of_use && self.pool.borrow_mut().put(link, Instant::now()) {
            link.owner.take();
        } else {
            link.abandon();
        }
    }

    /// Dials spares where some are missing, while all is well, and ends what has been idle for long. To be called often.
    pub fn tend_spares(self: &Rc<Self>) {
        let now = Instant::now();
        let expired = self.pool.borrow_mut().expired(now);
        for link in expired {
            link.abandon();
        }
        self.dial_spares(now);
    }

    /// Dials spares where some are missing, while all is well.
    pub(super) fn dial_spares(self: &Rc<Self>, now: Instant) {
        let is_well = self.generation().is_multiple_of(2) && self.shared.mode() == Mode::Healthy;
        if !is_well || self.is_stopping() || self.dial_not_before().is_some_and(|at| at > now) {
            return;
        }
        for lane in self.lanes.borrow().iter().filter(|lane| lane.state() == LinkState::Up) {
            self.pool.borrow_mut().may_want(&lane.key, now);
        }
        let missing = self.pool.borrow().missing(now);
        for key in missing {
            if key.identity == Identity::Url && self.shared.password_owed() {
                continue;
            }
            let link = self.dial(&key, LinkKind::Dedicated);
            self.pool.borrow_mut().put(&link, now);
        }
    }

    #[cfg(test)]
    pub(super) fn idle_count(&self) -> usize {
        self.pool.borrow().len()
    }

    pub(super) fn spare_failed(&self, key: &LinkKey) {
        self.pool.borrow_mut().failed(key, Instant::now());
    }

    fn dial(self: &Rc<Self>, key: &LinkKey, kind: LinkKind) -> Rc<Link> {
        let id = self.next_link_id.get();
        self.next_link_id.set(id + 1);
        let counter = self.shared.generation_counter();
        let link = Rc::new(Link::new(id, key.clone(), self.generation(), counter, kind));
        self.links.borrow_mut().push(Rc::clone(&link));
        tokio::task::spawn_local(driver::drive(Rc::clone(&link), Rc::clone(self)));
        link
    }

    pub(super) fn forget(&self, link: &Rc<Link>) {
        self.links.borrow_mut().retain(|known| !Rc::ptr_eq(known, link));
        self.lanes.borrow_mut().retain(|known| !Rc::ptr_eq(known, link));
        self.held.borrow_mut().retain(|known| !Rc::ptr_eq(known, link));
        self.pool.borrow_mut().forget(link, Instant::now());
    }

    pub(super) fn dial_failed(&self) {
        self.dial_not_before.set(Some(Instant::now() + DIAL_PAUSE));
    }

    pub(super) fn dial_not_before(&self) -> Option<Instant> {
        self.dial_not_before.get()
    }

    /// Gives back memory that idle connections do not need. To be called now and then.
    pub fn shed(&self) {
        self.links.borrow().iter().for_each(|link| link.shed());
    }

    /// Ends lanes that nobody has used since the last call: there may be one for every user and database.
    pub fn end_idle_lanes(&self) {
        for lane in self.lanes.borrow().iter() {
            if !lane.used.replace(false) && lane.state() == LinkState::Up && lane.is_reusable() {
                lane.abandon();
            }
        }
    }

    /// No more requests are taken.
    pub fn stop(&self) {
        self.stopping.set(true);
    }

    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Whether a command that does not block is unanswered on any connection.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let now_us = self.turn.now_us();
        self.links.borrow().iter().any(|link| link.oldest_us(now_us).is_some())
    }

    /// Age of the oldest unanswered command on any connection of this worker.
    #[must_use]
    pub fn oldest_unanswered(&self) -> Duration {
        let now_us = self.turn.now_us();
        let links = self.links.borrow();
        let oldest_us = links
            .iter()
            .filter_map(|link| link.oldest_us(now_us))
            .max()
            .unwrap_or(0);
        Duration::from_micros(u64::from(oldest_us))
    }
}
