//! What the workers, the health owner and the replay of one upstream share. No lock is on the path of a forwarded command.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::clock::mono_us;
use super::connections::ConnectionFile;
use super::dial::Facts;
use super::known::Known;
use super::last_said::LastSaid;
use super::learn::LearnedSlot;
use super::rights::Rights;
use super::scripts::Scripts;
use super::settings::{Address, Credentials, Identity, Secret, Timeouts};
use super::stats::WorkerStats;

/// What the workers need to know while the generation is odd; while it is even they forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// The first probe has not decided yet: commands are held.
    Starting,
    Healthy,
    Down,
    Probing,
    CatchingUp,
    /// Catching up cannot go on although the upstream answers: reads go upstream, writes behind the backlog.
    Halted,
}

impl Mode {
    const ALL: [Self; 6] = [
        Self::Starting,
        Self::Healthy,
        Self::Down,
        Self::Probing,
        Self::CatchingUp,
        Self::Halted,
    ];

    /// As `/status` says it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Down => "down",
            Self::Starting | Self::Probing => "probing",
            Self::CatchingUp | Self::Halted => "catching_up",
        }
    }
}

/// A sign of trouble that a worker saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    ConnectionRefused,
    ConnectTimeout,
    /// The network is unreachable, TLS failed, …
    ConnectFailed,
    /// The host's name does not resolve: those that are connected are served.
    NameUnknown,
    /// The URL's credentials are refused: those that are connected may be served.
    Denied,
    /// A script answered with what a server says that is loading, or has become a replica.
    SaidByScript,
    /// The upstream has as many clients as it takes: those that are connected are served.
    Full,
    /// The upstream did not accept the connection (protected mode) or spoke no RESP.
    NotAccepted,
    /// The connection ended with commands in flight.
    Reset,
    Loading,
    /// READONLY from an upstream that was a master when first reached.
    Demoted,
    MasterDown,
    ClusterDown,
    /// Another server process answers than the one that was caught up with.
    Replaced,
}

impl Sign {
    /// For people: `last_error` of `/status`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::ConnectionRefused => "the connection is refused",
            Self::ConnectTimeout => "the connection is not answered",
            Self::ConnectFailed => "the upstream cannot be reached",
            Self::NameUnknown => "the upstream's name does not resolve",
            Self::Denied => "the upstream refuses the URL's credentials",
            Self::SaidByScript => "a script says that the upstream cannot be used",
            Self::Full => "the upstream takes no more clients",
            Self::NotAccepted => "the upstream does not accept the connection",
            Self::Reset => "the connection ended with commands in flight",
            Self::Loading => "the upstream is loading its dataset",
            Self::Demoted => "the upstream has become a replica",
            Self::MasterDown => "the upstream is a replica without its master",
            Self::ClusterDown => "the upstream's cluster is down",
            Self::Replaced => "another server process answers",
        }
    }
}

/// Signs that may wait for the health owner; more of them say nothing new.
const SIGNS_MAX: usize = 256;

/// The per-worker part.
#[derive(Debug, Default)]
pub struct WorkerShared {
    pub stats: WorkerStats,
    /// Rung when the generation or the mode has changed.
    pub bell: Notify,
}

/// Fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub address: Address,
    pub db: u32,
    /// The URL's. A password that stands in a file is the one it held at the start: see [`Target::own_credentials`].
    pub credentials: Option<Credentials>,
    pub password_file: Option<PathBuf>,
    pub timeouts: Timeouts,
    pub hold_timeout: Duration,
}

impl Target {
    /// What sessions that never AUTH act with now. The file is read again at every dial, so that a rotation needs no restart; while it cannot
    /// be read, or is empty, the password of the start is tried.
    #[must_use]
    pub fn own_credentials(&self) -> Option<Credentials> {
        let mut credentials = self.credentials.clone()?;
        let Some(path) = &self.password_file else {
            return Some(credentials);
        };
        // A pipe held its password once: it was read at the start, and would be waited for now.
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Some(credentials);
        }
        match Secret::read(path) {
            Ok(password) => credentials.password = password,
            Err(error) => {
                tracing::warn!(upstream = self.name, path = %path.display(), %error, "password_file cannot be used")
            }
        }
        Some(credentials)
    }
}

#[derive(Debug)]
pub struct Shared {
    pub target: Target,
    pub connections: ConnectionFile,
    pub known: Known,
    pub learned: LearnedSlot,
    pub scripts: Scripts,
    pub rights: Rights,
    pub workers: Vec<WorkerShared>,
    /// Odd while journaling. Written by the journal's owner only.
    generation: Arc<AtomicU64>,
    mode: AtomicU8,
    facts: Mutex<Facts>,
    last_said: OnceLock<LastSaid>,
    last_error: Mutex<Option<String>>,
    /// When the newest PING of our own that has been answered was sent: on our monotonic clock, 0 for never.
    answered_us: AtomicU64,
    signs: mpsc::Sender<Sign>,
    /// The upstream answers only to those who authenticate, and the URL has no credentials.
    password_owed: std::sync::atomic::AtomicBool,
}

impl Shared {
    /// The receiver is the health owner's.
    #[must_use]
    pub fn new(
        target: Target,
        connections: ConnectionFile,
        known: Known,
        generation: Arc<AtomicU64>,
        workers: usize,
    ) -> (Arc<Self>, mpsc::Receiver<Sign>) {
        let (signs, receiver) = mpsc::channel(SIGNS_MAX);
        let password_owed = known.is_password_owed();
        let shared = Self {
            target,
            connections,
            known,
            learned: LearnedSlot::default(),
            scripts: Scripts::default(),
            rights: Rights::default(),
            workers: (0..workers).map(|_| WorkerShared::default()).collect(),
            generation,
            mode: AtomicU8::new(Mode::Starting as u8),
            facts: Mutex::default(),
            last_said: OnceLock::new(),
            last_error: Mutex::default(),
            answered_us: AtomicU64::new(0),
            signs,
            password_owed: password_owed.into(),
        };
        (Arc::new(shared), receiver)
    }

    /// The generation now; even means: forward.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn mode(&self) -> Mode {
        let index = usize::from(self.mode.load(Ordering::Acquire));
        Mode::ALL.get(index).copied().unwrap_or(Mode::Down)
    }

    /// Sets the mode and lets every worker look.
    pub fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Release);
        self.ring();
    }

    pub(super) fn generation_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.generation)
    }

    /// Lets every worker look at generation and mode.
    pub fn ring(&self) {
        for worker in &self.workers {
            worker.bell.notify_one();
        }
    }

    /// Tells the health owner.
    pub fn report(&self, sign: Sign) {
        // A full queue already says it.
        let _ = self.signs.try_send(sign);
    }

    fn lock_facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the upstream said of itself last.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.lock_facts().clone()
    }

    /// Begins with what an earlier process heard, and keeps what is heard from now on; to be called once, at the start.
    pub fn recall(&self, last_said: LastSaid, facts: Facts) {
        *self.lock_facts() = facts;
        // Nobody else sets it.
        let _ = self.last_said.set(last_said);
    }

    fn keep_facts(&self, facts: &Facts) {
        if let Some(last_said) = self.last_said.get() {
            last_said.keep(facts);
        }
    }

    pub fn set_facts(&self, facts: Facts) {
        self.keep_facts(&facts);
        *self.lock_facts() = facts;
    }

    /// What a session's own credentials have brought to light, where the configured ones show nothing.
    pub fn complete_facts(&self, facts: &Facts) {
        let mut known = self.lock_facts();
        if !known.version.is_empty() || facts.version.is_empty() {
            return;
        }
        known.hello.clone_from(&facts.hello);
        known.version.clone_from(&facts.version);
        known.mode.clone_from(&facts.mode);
        known.versions.clone_from(&facts.versions);
        let all = known.clone();
        drop(known);
        self.keep_facts(&all);
    }

    /// The upstream has answered what was asked at `instant`.
    pub fn set_answered(&self, instant: Instant) {
        self.answered_us.fetch_max(mono_us(instant), Ordering::Relaxed);
    }

    /// Whether the upstream has answered something that was asked after `instant`: what was asked before has been executed.
    #[must_use]
    pub fn answered_after(&self, instant: Instant) -> bool {
        self.answered_us.load(Ordering::Relaxed) > mono_us(instant)
    }

    /// The newest trouble, for people; nothing while all is well.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_last_error(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    #[must_use]
    pub fn password_owed(&self) -> bool {
        self.password_owed.load(Ordering::Relaxed)
    }

    pub fn set_password_owed(&self, owed: PasswordOwed) {
        let is_owed = owed == PasswordOwed::Yes;
        if self.password_owed.swap(is_owed, Ordering::Relaxed) != is_owed {
            self.known.remember_password_owed(owed);
        }
    }

    /// The user that journaled writes under this name are replayed as; the empty name is that of the URL's credentials.
    #[must_use]
    pub fn user_of<'a>(&'a self, name: &'a str) -> &'a str {
        let of_url = || self.target.credentials.as_ref().and_then(|url| url.user.as_deref());
        if name.is_empty() {
            of_url().unwrap_or("default")
        } else {
            name
        }
    }

    /// The credentials that an identity authenticates with.
    #[must_use]
    pub fn credentials(&self, identity: &Identity) -> Option<Credentials> {
        match identity {
            Identity::Url => self.target.own_credentials(),
            Identity::Client(credentials) => Some(Credentials::clone(credentials)),
        }
    }
}

/// Whether the upstream asks a password of sessions that have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordOwed {
    Yes,
    No,
}
