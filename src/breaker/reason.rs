//! What can be wrong with an upstream, and why the breaker changed its state. Labels are metric labels: add, do not rename.

/// A sign that trips at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HardSign {
    ConnectionRefused,
    /// No route to the host or network.
    Unreachable,
    Loading,
    Masterdown,
    Clusterdown,
    /// A master that became a replica.
    Demoted,
    /// Another server process answers than the one that was caught up with.
    Replaced,
    /// Our own credentials are refused.
    Denied,
}

/// A failure that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Reset, or end of file with commands in flight.
    Reset,
    ConnectTimeout,
    /// The host's name does not resolve.
    NameResolution,
    /// A reply that is not RESP, or not one to what was asked.
    Protocol,
    /// `-BUSY`: a script holds the server.
    Busy,
    /// `-ERR max number of clients reached`
    MaxClients,
    /// A right that is needed is missing, or the server is in protected mode.
    Denied,
    /// It is we who have no file descriptor, port or memory left.
    Shortage,
}

/// Anything that is wrong with an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    Hard(HardSign),
    Soft(Failure),
    /// No answer for longer than `timeouts.command`.
    Silence,
}

/// Why the breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Hard(HardSign),
    Silence,
    ConsecutiveFailures,
    FailureRate,
    ProbeSucceeded,
    CaughtUp,
    ReplayFailed,
}

impl HardSign {
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ConnectionRefused => "connection_refused",
            Self::Unreachable => "unreachable",
            Self::Loading => "loading",
            Self::Masterdown => "masterdown",
            Self::Clusterdown => "clusterdown",
            Self::Demoted => "demoted",
            Self::Replaced => "replaced",
            Self::Denied => "denied",
        }
    }
}

impl Failure {
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::ConnectTimeout => "connect_timeout",
            Self::NameResolution => "name_resolution",
            Self::Protocol => "protocol",
            Self::Busy => "busy",
            Self::MaxClients => "max_clients",
            Self::Denied => "denied",
            Self::Shortage => "shortage",
        }
    }
}

impl Trouble {
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Hard(sign) => sign.label(),
            Self::Soft(failure) => failure.label(),
            Self::Silence => "silence",
        }
    }
}

impl Reason {
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Hard(sign) => sign.label(),
            Self::Silence => "silence",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::ProbeSucceeded => "probe_succeeded",
            Self::CaughtUp => "caught_up",
            Self::ReplayFailed => "replay_failed",
        }
    }
}
