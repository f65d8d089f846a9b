//! The names of metrics and events, in one place. Whoever counts or logs calls a typed function here.

mod events;
mod logging;
mod metric;
mod settings;

pub use events::{
    breaker_transition, certificates_kept, certificates_reloaded, dead_letters, fence_unproven, identity_is_back,
    identity_waits, journal_damaged, journal_failed, journal_works_again, probe_failed, replay_rights_missing, started,
    stopping, tls_failed,
};
pub use logging::{LogError, init_logging};
#[cfg(test)]
pub(crate) use metric::detached;
pub use metric::{
    ConnectResult, Metrics, MetricsError, QueueLevel, UncertainAction, clients, commands, identities_waiting,
    identities_without_replay_rights, install, journal_errors, journal_writable, queue_acknowledged, queue_level,
    replayed, set_breaker_state, start_at_zero, stream_ids_changed, uncertain_writes, upstream_connections,
    upstream_connects,
};
pub use settings::{LogFormat, LogLevel, LogSettings};
