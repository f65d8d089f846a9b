//! What the program runs with: validated, complete, without defaults left to fill in.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{ListenAddress, Secret, UpstreamUrl};
use crate::journal::Fsync;
use crate::outage::rules::Rules;
use crate::upstream::burst::Uring;
use crate::upstream::busy_poll::BusyPoll;
use crate::upstream::settings::Timeouts;
use crate::upstream::tls::ServerTls;
use crate::{breaker, telemetry};

/// The whole configuration. `upstreams` is never empty; names and listen addresses are unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub admin: SocketAddr,
    /// Nothing: as many as the cgroup's CPU limit.
    pub workers: Option<NonZeroUsize>,
    pub shutdown_timeout: Duration,
    pub busy_poll: BusyPoll,
    pub io_uring: Uring,
    pub log: telemetry::LogSettings,
    pub limits: LimitSettings,
    pub upstreams: Vec<UpstreamSettings>,
}

/// `[limits]`, per process (`clients`) or per client (the others).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// `clients`
    pub clients_max: usize,
    /// `args`: arguments of one command, its name included.
    pub args_max: usize,
    /// `bulk`: one argument, as Redis's `proto-max-bulk-len`.
    pub bulk_bytes_max: usize,
    /// `inline`: an inline command, or a header line without its end.
    pub inline_bytes_max: usize,
    /// `reply_buffer`: replies that a client has not read yet.
    pub reply_buffer_bytes_max: usize,
    /// `lane_request`: larger requests go over a dedicated connection.
    pub lane_request_bytes_max: usize,
    /// `pipeline`: commands of one session in flight; beyond it the session is not read.
    pub pipeline_max: usize,
    /// `idle_timeout`: a client that says nothing for so long is closed.
    pub idle_timeout: Option<Duration>,
}

/// `[[upstream]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// `[a-z0-9_-]{1,32}`: a directory and a metric label.
    pub name: String,
    pub listen: ListenAddress,
    /// `[upstream.listen_tls]`: only with a TCP address.
    pub listen_tls: Option<Arc<ServerTls>>,
    /// With the credentials of `password_file`, if there is one.
    pub url: UpstreamUrl,
    /// How long a command may wait for the end of a backlog.
    pub hold_timeout: Duration,
    /// What clients must AUTH with first.
    pub client_password: Option<Secret>,
    pub breaker: breaker::Settings,
    pub timeouts: Timeouts,
    pub queue: QueueSettings,
    pub replay: ReplaySettings,
    pub rules: Rules,
}

/// `[upstream.queue]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    pub fsync: Fsync,
    /// `max_bytes`
    pub bytes_max: u64,
    /// `max_age`: older records become dead letters (`too_old`).
    pub age_max: Option<Duration>,
}

/// `[upstream.replay]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplaySettings {
    /// Replay starts after a wait that is uniform from 0 to this.
    pub start_delay_max: Duration,
    /// Records per second.
    pub rate_max: Option<NonZeroU32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./tideover-data"),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 9122)),
            workers: None,
            shutdown_timeout: Duration::from_secs(10),
            busy_poll: BusyPoll::Auto,
            io_uring: Uring::Auto,
            log: telemetry::LogSettings::default(),
            limits: LimitSettings::default(),
            upstreams: vec![UpstreamSettings::default()],
        }
    }
}

impl Default for LimitSettings {
    /// Redis's own bounds where it has them.
    fn default() -> Self {
        Self {
            clients_max: 10_000,
            args_max: 2_147_483_647,
            bulk_bytes_max: 512 * 1024 * 1024,
            inline_bytes_max: 64 * 1024,
            reply_buffer_bytes_max: 8 * 1024 * 1024,
            lane_request_bytes_max: 64 * 1024,
            pipeline_max: 1024,
            idle_timeout: None,
        }
    }
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            name: "main".to_owned(),
            listen: ListenAddress::default(),
            listen_tls: None,
            url: UpstreamUrl::default(),
            hold_timeout: Duration::from_secs(1),
            client_password: None,
            breaker: breaker::Settings::default(),
            timeouts: Timeouts::default(),
            queue: QueueSettings::default(),
            replay: ReplaySettings::default(),
            rules: Rules::default(),
        }
    }
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            fsync: Fsync::EverySec,
            bytes_max: 1024 * 1024 * 1024,
            age_max: None,
        }
    }
}

impl Default for ReplaySettings {
    fn default() -> Self {
        Self {
            start_delay_max: Duration::from_millis(250),
            rate_max: None,
        }
    }
}
