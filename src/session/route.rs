//! Where a request goes, by the generation and the mode of its upstream.

use std::rc::Rc;
use std::sync::Arc;

use super::down::is_transactional;
use super::state::{Admission, Pinned, State, Transaction, Watch};
use super::task::{Closing, Routed, Task};
use super::{Change, ChangeAwaited, Retry, RetryReason, TakenBack};
use crate::command::{self, Flags, Learned, LearnedCommand, Name, Placement, Spec};
use crate::resp::scan::{Asker, Limits, Scan, Scanner};
use crate::resp::{Request, write};
use crate::upstream::link::InFlight;
use crate::upstream::settings::Identity;
use crate::upstream::shared::Mode;
use crate::upstream::stats::Route;

/// A request on its way: a new one, or one that came back.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) request: Request<'a>,
    pub(super) spec: Option<&'static Spec>,
    /// Where the table has no row: what the upstream has told of the command.
    pub(super) learned: Option<&'a LearnedCommand>,
    /// Its place in the order of replies, where it has one already, and what it is.
    pub(super) came_back: Option<(u64, InFlight)>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(request: Request<'a>, known: &'a Known, came_back: Option<(u64, InFlight)>) -> Self {
        let learned = known.learned.as_deref().and_then(|learned| learned.find(&request));
        Self {
            request,
            spec: known.spec.filter(|_| learned.is_none()),
            learned,
            came_back,
        }
    }

    pub(super) fn name(&self) -> Option<Name> {
        self.spec.map(|spec| spec.id)
    }

    #[inline]
    pub(super) fn placement(&self) -> Placement {
        match self.learned {
            None => command::placement(self.spec, &self.request),
            Some(learned) => learned.placement,
        }
    }

    #[inline]
    pub(super) fn in_flight(&self) -> command::InFlight {
        match self.learned {
            None => command::in_flight(self.spec, &self.request),
            Some(learned) => learned.in_flight,
        }
    }

    /// Whether it may leave its connection other than it found it. Nobody knows of a command that nobody knows.
    pub(super) fn may_alter(&self) -> bool {
        match (self.name(), self.learned) {
            (Some(name), _) => matches!(
                name,
                Name::Asking
                    | Name::Readonly
                    | Name::Readwrite
                    | Name::ClientCapa
                    | Name::ClientImportSource
                    | Name::ScriptDebug
            ),
            (None, Some(learned)) => learned.may_alter,
            (None, None) => true,
        }
    }

    /// Whether Redis holds it like a write while writes are paused (PFCOUNT, PUBLISH).
    #[inline]
    pub(super) fn may_replicate(&self) -> bool {
        self.spec.is_some_and(|spec| spec.flags.contains(Flags::MAY_REPLICATE))
    }

    pub(super) fn is_blocking(&self) -> bool {
        match self.learned {
            None => self.spec.is_some_and(|spec| spec.flags.contains(Flags::BLOCKING)),
            Some(learned) => learned.is_blocking,
        }
    }
}

/// What there is to look a request up in.
pub(super) struct Known {
    spec: Option<&'static Spec>,
    learned: Option<Arc<Learned>>,
}

impl Task {
    /// The table's row; without one, or with that of a container whose subcommand the table does not have, also what was learned.
    #[inline]
    pub(super) fn look_up(&self, request: &Request<'_>) -> Known {
        let spec = command::lookup(request);
        let is_known = spec.is_some_and(|spec| !command::is_container(spec.id) || request.len() == 1);
        let learned = (!is_known).then(|| self.session.local.learned());
        Known { spec, learned }
    }

    /// The number of a request, given now if it is new.
    pub(super) fn seq(&self, ask: &Ask<'_>) -> u64 {
        ask.came_back.map_or_else(|| self.session.issue(), |(seq, _)| seq)
    }

    /// Answers a request here and now.
    pub(super) fn answer(&self, ask: &Ask<'_>, reply: &[u8], route: Route) -> Routed {
        self.session.local.worker().stats.routed(route);
        self.session.answer(self.seq(ask), reply);
        Routed::Done
    }

    /// Whether requests go upstream now.
    pub(super) fn is_forwarding(&self) -> bool {
        self.session.local.generation().is_multiple_of(2)
    }

    pub(super) fn route_new(&mut self, request: &Request<'_>) -> Routed {
        // What came back goes first.
        if self.session.local.is_stopping()
            || !self.session.retries.borrow().is_empty()
            || self.session.in_flight.get() >= self.session.settings.limits.pipeline_max
        {
            return Routed::Park;
        }
        if self.settle_change() == Routed::Park {
            return Routed::Park;
        }
        let known = self.look_up(request);
        let ask = Ask::new(*request, &known, None);
        if ask.spec.is_none() && is_http(request) {
            // As Redis, which leaves even earlier replies unsent: who speaks HTTP here is a browser that was misled.
            self.session.dead.set(true);
            return Routed::Done;
        }
        if (self.state.admission == Admission::Owed || self.session.local.shared.password_owed())
            && let Some(routed) = self.gate(&ask)
        {
            return routed;
        }
        if self.is_forwarding() {
            self.forward(&ask)
        } else {
            self.not_closed(&ask)
        }
    }

    /// Makes the change that Redis has granted. Parks while it has not said.
    pub(super) fn settle_change(&mut self) -> Routed {
        let awaited = self.session.change_awaited.get();
        match awaited {
            ChangeAwaited::None => return Routed::Done,
            ChangeAwaited::Awaited { .. } if !self.session.is_settled() => return Routed::Park,
            ChangeAwaited::Awaited { .. } => {}
            ChangeAwaited::Applied(Change::Db(db)) => {
                self.state.key.db = db;
                self.lane = None;
            }
            ChangeAwaited::Applied(Change::Tracking) => {
                if let Some(asked) = self.state.tracking_asked.take() {
                    self.tracked(asked);
                    self.session.is_tracked.set(self.state.tracking.is_some());
                }
            }
        }
        self.session.change_awaited.set(ChangeAwaited::None);
        Routed::Done
    }

    pub(super) fn route_again(&mut self, retry: &Retry) -> Routed {
        let mut scanner = Scanner::default();
        let Ok(Scan::Request { .. }) = scanner.scan(&retry.request, &Limits::default()) else {
            // Only whole requests in array form are ever sent and kept.
            self.session.answer(retry.seq, b"-ERR Protocol error\r\n");
            return Routed::Done;
        };
        let request = Request::new(&retry.request, scanner.spans());
        let known = self.look_up(&request);
        let ask = Ask::new(request, &known, Some((retry.seq, retry.class)));
        if !self.is_forwarding() && self.session.local.shared.mode() != Mode::Halted {
            self.session.taken_back.set(None);
        }
        if let RetryReason::Waiting { since, .. } = retry.reason {
            self.held_since(since);
        }
        match retry.reason {
            _ if retry.class == InFlight::Queued => self.down(&ask),
            RetryReason::Neutral => self.down(&ask),
            RetryReason::Caught { since } => self.caught(&ask, since),
            // The breaker is CLOSED, for others are served, but no connection comes up for this session (maxclients).
            RetryReason::NotSent if self.is_forwarding() && self.is_taken_back_for_long() => self.refuse(&ask),
            RetryReason::Waiting { lost, .. } if self.is_in_doubt(lost) => Routed::Park,
            RetryReason::NotSent | RetryReason::Lost | RetryReason::Waiting { .. }
                if self.is_forwarding() && !is_transactional(ask.name()) =>
            {
                self.forward(&ask)
            }
            RetryReason::NotSent | RetryReason::Lost | RetryReason::Waiting { .. } if self.is_forwarding() => {
                self.refuse(&ask)
            }
            // The breaker is about to open; should it not, the command is answered as when down all the same.
            RetryReason::NotExecuted { .. } if self.is_forwarding() => {
                let limit = self.session.local.shared.target.hold_timeout;
                if self.held_until(limit) > tokio::time::Instant::now() {
                    return Routed::Park;
                }
                self.release();
                self.refuse(&ask)
            }
            // A later write of this session was executed: behind it, this one would overwrite it.
            RetryReason::NotExecuted { .. }
                if retry.class == InFlight::Write
                    && self
                        .session
                        .last_write_answered
                        .get()
                        .is_some_and(|answered| answered > retry.seq) =>
            {
                self.refuse(&ask)
            }
            RetryReason::NotExecuted { waited_since } => {
                waited_since.into_iter().for_each(|since| self.held_since(since));
                self.not_closed(&ask)
            }
            RetryReason::NotSent | RetryReason::Lost | RetryReason::Waiting { .. } => self.not_closed(&ask),
        }
    }

    /// Whether a password is asked for that the session has not said.
    pub(super) fn owes_password(&self) -> bool {
        let shared = &self.session.local.shared;
        self.state.admission == Admission::Owed
            || shared.password_owed() && self.state.key.identity == Identity::Url && shared.target.credentials.is_none()
    }

    /// What the next request may be.
    pub(super) fn request_limits(&self) -> Limits {
        let limits = self.session.settings.limits.request;
        if self.owes_password() {
            Limits {
                asker: Asker::Unauthenticated,
                ..limits
            }
        } else {
            limits
        }
    }

    /// Whether no connection comes up for this session although the upstream answers others. Where it answers nobody, the breaker is about to open.
    pub(super) fn is_taken_back_for_long(&self) -> bool {
        let shared = &self.session.local.shared;
        let (hold, silence) = (shared.target.hold_timeout, shared.target.timeouts.command);
        self.session.taken_back.get().is_some_and(|TakenBack { since, .. }| {
            let waited = since.elapsed();
            waited > hold && shared.answered_after(since) || waited > hold + silence
        })
    }

    /// What a session gets that has not said a password that is asked for. Nothing where it may pass.
    fn gate(&mut self, ask: &Ask<'_>) -> Option<Routed> {
        if !self.owes_password() {
            return None;
        }
        match ask.name() {
            Some(Name::Auth | Name::Hello | Name::Quit | Name::Reset) => None,
            Some(_) | None => {
                let refused = self.refused(ask);
                let noauth: &[u8] = match ask.name() {
                    Some(Name::Exec) => {
                        b"-EXECABORT Transaction discarded because of: NOAUTH Authentication required.\r\n"
                    }
                    Some(_) | None => b"-NOAUTH Authentication required.\r\n",
                };
                let reply = refused.as_deref().unwrap_or(noauth);
                Some(self.answer(ask, reply, Route::Local))
            }
        }
    }

    /// The upstream is not to be written to: held, journaled, answered neutrally, or refused.
    fn not_closed(&mut self, ask: &Ask<'_>) -> Routed {
        // What was forwarded is settled before anything else is done (it may yet be answered).
        let mode = self.session.local.shared.mode();
        if !self.session.is_settled() && self.session.home.get() != super::Home::Journal && !self.reads_on(mode) {
            return Routed::Park;
        }
        let target = &self.session.local.shared.target;
        match mode {
            Mode::Starting => self.hold(ask, target.timeouts.connect),
            Mode::Down | Mode::Probing => self.down(ask),
            Mode::CatchingUp => self.catching_up(ask),
            Mode::Halted => self.halted(ask),
            // The generation is about to move.
            Mode::Healthy => self.hold(ask, target.hold_timeout),
        }
    }

    /// Whether what is in flight are reads that went upstream past a halted replay: others may follow them.
    fn reads_on(&self, mode: Mode) -> bool {
        let lane = self.lane.as_ref().filter(|lane| lane.is_open());
        mode == Mode::Halted && lane.is_some_and(|lane| self.session.home.get() == super::Home::Link(lane.id))
    }

    /// Waits for a decision; without one in time it is as when down.
    pub(super) fn hold(&mut self, ask: &Ask<'_>, limit: std::time::Duration) -> Routed {
        if !self.is_held() {
            self.session.local.worker().stats.routed(Route::Held);
        }
        if !self.waited_out && self.held_until(limit) > tokio::time::Instant::now() {
            return Routed::Park;
        }
        // Those that came with it have waited as long.
        self.waited_out = true;
        self.down(ask)
    }

    /// `-UNAVAILABLE … was not applied`.
    pub(super) fn refuse(&mut self, ask: &Ask<'_>) -> Routed {
        let name = super::command_name(ask.request.frame());
        let upstream = &self.session.local.shared.target.name;
        let mut reply = Vec::new();
        write::error(
            &mut reply,
            &format!("UNAVAILABLE {name} was not applied: upstream \"{upstream}\" is down"),
        );
        self.answer(ask, &reply, Route::Rejected)
    }

    /// The client leaves in order.
    pub(super) fn quit(&mut self, ask: &Ask<'_>) -> Routed {
        if !self.session.subscriptions.borrow().is_confirmed() {
            return Routed::Park;
        }
        self.closing = Closing::AfterReplies;
        self.answer(ask, b"+OK\r\n", Route::Local)
    }

    /// A fresh start, on the same client connection.
    pub(super) fn reset(&mut self, ask: &Ask<'_>) -> Routed {
        if !self.session.is_settled() || !self.session.subscriptions.borrow().is_confirmed() {
            return Routed::Park;
        }
        if let Some(link) = self.session.dedicated.take() {
            link.abandon();
        }
        self.session.subscriptions.take();
        self.session.is_tracked.set(false);
        self.session.invalidation_owed.set(false);
        self.lane = None;
        let session = &self.session;
        self.state = State::new(
            session.local.shared.target.db,
            session.settings.client_password.as_ref(),
        );
        // CLIENT REPLY OFF ends with it, SKIP has it skipped.
        let mut output = session.output.borrow_mut();
        if output.is_open_muted() {
            output.unmute(session.issued.get());
        }
        drop(output);
        self.answer(ask, b"+RESET\r\n", Route::Local)
    }

    /// The lane for what Redis holds while writes are paused: the one that it holds, if there is one.
    #[inline]
    pub(super) fn lane_for_writes(&mut self) -> Rc<crate::upstream::link::Link> {
        let held = self.session.local.held_lane(&self.state.key);
        held.unwrap_or_else(|| self.lane())
    }

    /// The lane for the session's key.
    pub(super) fn lane(&mut self) -> Rc<crate::upstream::link::Link> {
        match &self.lane {
            Some(lane) if lane.is_open() && lane.key == self.state.key => Rc::clone(lane),
            Some(_) | None => {
                let lane = self.session.local.lane(&self.state.key);
                self.lane = Some(Rc::clone(&lane));
                lane
            }
        }
    }

    /// Whether the next request must go where the last ones went.
    #[inline]
    pub(super) fn is_bound(&self) -> bool {
        let state = &self.state;
        !matches!(state.transaction, Transaction::None)
            || state.watch != Watch::None
            || state.pinned != Pinned::No
            || state.tracking.is_some()
            || !self.session.subscriptions.borrow().is_empty()
    }

    /// Whether a transaction is under way, here or upstream.
    pub(super) fn in_transaction(&self) -> bool {
        !matches!(self.state.transaction, Transaction::None)
    }
}

/// `POST` and `Host:`, the marks of an HTTP request.
fn is_http(request: &Request<'_>) -> bool {
    let name = request.arg(0);
    name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"HOST:")
}
