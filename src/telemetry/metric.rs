//! Prometheus metrics: names, help, labels. Every label has a bounded set of values; `upstream` comes from the configuration.

use std::time::Duration;

use metrics::{Recorder, SetRecorderError, Unit, counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub(super) const BREAKER_STATE: &str = "tideover_breaker_state";
pub(super) const BREAKER_TRANSITIONS: &str = "tideover_breaker_transitions_total";
const COMMANDS: &str = "tideover_commands_total";
const QUEUE_RECORDS: &str = "tideover_queue_records";
const QUEUE_BYTES: &str = "tideover_queue_bytes";
const QUEUE_OLDEST_AGE: &str = "tideover_queue_oldest_age_seconds";
const QUEUE_ACKNOWLEDGED: &str = "tideover_queue_acknowledged_total";
const REPLAYED: &str = "tideover_replayed_total";
pub(super) const DEAD_LETTERS: &str = "tideover_dead_letters_total";
const UNCERTAIN_WRITES: &str = "tideover_uncertain_writes_total";
const STREAM_IDS_CHANGED: &str = "tideover_stream_ids_changed_total";
const UPSTREAM_CONNECTS: &str = "tideover_upstream_connects_total";
const UPSTREAM_CONNECTIONS: &str = "tideover_upstream_connections";
const CLIENTS: &str = "tideover_clients";
pub(super) const UNFENCED: &str = "tideover_unfenced_total";
pub(super) const JOURNAL_ERRORS: &str = "tideover_journal_errors_total";
const JOURNAL_WRITABLE: &str = "tideover_journal_writable";
const IDENTITIES_WAITING: &str = "tideover_identities_waiting";
const WITHOUT_REPLAY_RIGHTS: &str = "tideover_identities_without_replay_rights";

/// Values of the label `state`.
const BREAKER_STATES: [&str; 3] = ["closed", "open", "half_open"];

/// What became of a write whose fate is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UncertainAction {
    /// Answered with the uncertain error.
    Answered,
    /// Sent again: it is the same whether it was applied before or not, and nobody can tell.
    Resent,
    /// Journaled: a rule says that it is the same when it is done twice, and that nobody else writes there.
    Journaled,
}

/// How dialling the upstream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectResult {
    Ok,
    Refused,
    Unreachable,
    Timeout,
    /// The name does not resolve.
    Name,
    /// The server's TLS certificate is not accepted.
    Certificate,
    /// The server wants a certificate of us, or another one.
    ClientCertificate,
    /// It does not speak TLS, or not as we do.
    Tls,
    /// Connected, but the handshake failed.
    Handshake,
    /// It is we who have no file descriptor, port or memory left.
    Shortage,
}

/// The backlog, as gauges: one record per acknowledged write or transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLevel {
    pub records: u64,
    pub bytes: u64,
    pub oldest_age: Duration,
}

/// Renders what has been counted.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Metrics could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("a metrics recorder is installed already")]
pub struct MetricsError(#[from] SetRecorderError<PrometheusRecorder>);

impl UncertainAction {
    fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Resent => "resent",
            Self::Journaled => "journaled",
        }
    }
}

impl ConnectResult {
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::Refused,
        Self::Unreachable,
        Self::Timeout,
        Self::Name,
        Self::Certificate,
        Self::ClientCertificate,
        Self::Tls,
        Self::Handshake,
        Self::Shortage,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Name => "name",
            Self::Certificate => "certificate",
            Self::ClientCertificate => "client_certificate",
            Self::Tls => "tls",
            Self::Handshake => "handshake",
            Self::Shortage => "shortage",
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// The Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }
}

/// Makes the process's metrics go to the returned handle.
///
/// # Errors
/// When it is called a second time.
pub fn install() -> Result<Metrics, MetricsError> {
    let (recorder, handle) = recorder();
    metrics::set_global_recorder(recorder)?;
    Ok(handle)
}

/// A handle for tests of rooms above: nothing is counted there.
#[cfg(test)]
#[must_use]
pub(crate) fn detached() -> Metrics {
    recorder().1
}

fn recorder() -> (PrometheusRecorder, Metrics) {
    let recorder = PrometheusBuilder::new().build_recorder();
    describe(&recorder);
    let handle = Metrics(recorder.handle());
    (recorder, handle)
}

fn describe(recorder: &impl Recorder) {
    let counters = [
        (BREAKER_TRANSITIONS, "Changes of the breaker's state"),
        (COMMANDS, "Commands by where they went"),
        (QUEUE_ACKNOWLEDGED, "Writes acknowledged out of the journal"),
        (REPLAYED, "Records applied by replay"),
        (DEAD_LETTERS, "Records that replay had to set aside"),
        (
            UNCERTAIN_WRITES,
            "What was in flight when a connection died: writes answered as uncertain or journaled, reads sent again",
        ),
        (
            STREAM_IDS_CHANGED,
            "Stream entries replayed under another ID than the one returned",
        ),
        (UPSTREAM_CONNECTS, "Attempts to connect to the upstream"),
        (UNFENCED, "Connections whose end could not be proven before replay"),
        (JOURNAL_ERRORS, "What the journal's disk did not do"),
    ];
    let gauges = [
        (BREAKER_STATE, Unit::Count, "1 for the state the breaker is in"),
        (QUEUE_RECORDS, Unit::Count, "Records acknowledged and not yet replayed"),
        (QUEUE_BYTES, Unit::Bytes, "Bytes acknowledged and not yet replayed"),
        (
            QUEUE_OLDEST_AGE,
            Unit::Seconds,
            "Age of the oldest record not yet replayed",
        ),
        (UPSTREAM_CONNECTIONS, Unit::Count, "Open connections to the upstream"),
        (CLIENTS, Unit::Count, "Connected clients"),
        (
            JOURNAL_WRITABLE,
            Unit::Count,
            "0 while the journal's newest write has failed",
        ),
        (
            IDENTITIES_WAITING,
            Unit::Count,
            "Users whose journaled writes wait for their credentials",
        ),
        (
            WITHOUT_REPLAY_RIGHTS,
            Unit::Count,
            "Identities without rights for MULTI or the marker",
        ),
    ];
    for (name, help) in counters {
        recorder.describe_counter(name.into(), Some(Unit::Count), help.into());
    }
    for (name, unit, help) in gauges {
        recorder.describe_gauge(name.into(), Some(unit), help.into());
    }
}

/// Sets the gauge of `state` to 1 and those of the other states to 0; `state` is a label of the breaker's.
pub fn set_breaker_state(upstream: &str, state: &'static str) {
    debug_assert!(BREAKER_STATES.contains(&state), "{state} is no state");
    for label in BREAKER_STATES {
        let value = if label == state { 1.0 } else { 0.0 };
        gauge!(BREAKER_STATE, "upstream" => upstream.to_owned(), "state" => label).set(value);
    }
}

/// Commands so far that went `route`, a label of the statistics' own.
pub fn commands(upstream: &str, route: &'static str, total: u64) {
    counter!(COMMANDS, "upstream" => upstream.to_owned(), "route" => route).absolute(total);
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn float(number: u64) -> f64 {
    number as f64
}

pub fn queue_level(upstream: &str, level: QueueLevel) {
    gauge!(QUEUE_RECORDS, "upstream" => upstream.to_owned()).set(float(level.records));
    gauge!(QUEUE_BYTES, "upstream" => upstream.to_owned()).set(float(level.bytes));
    gauge!(QUEUE_OLDEST_AGE, "upstream" => upstream.to_owned()).set(level.oldest_age.as_secs_f64());
}

pub fn queue_acknowledged(upstream: &str, total: u64) {
    counter!(QUEUE_ACKNOWLEDGED, "upstream" => upstream.to_owned()).absolute(total);
}

pub fn replayed(upstream: &str, total: u64) {
    counter!(REPLAYED, "upstream" => upstream.to_owned()).absolute(total);
}

pub fn uncertain_writes(upstream: &str, action: UncertainAction, total: u64) {
    counter!(UNCERTAIN_WRITES, "upstream" => upstream.to_owned(), "action" => action.label()).absolute(total);
}

/// Replayed stream entries with another ID than their client was told.
pub fn stream_ids_changed(upstream: &str, n: u64) {
    counter!(STREAM_IDS_CHANGED, "upstream" => upstream.to_owned()).increment(n);
}

pub fn upstream_connects(upstream: &str, result: ConnectResult) {
    counter!(UPSTREAM_CONNECTS, "upstream" => upstream.to_owned(), "result" => result.label()).increment(1);
}

pub fn upstream_connections(upstream: &str, open: u64) {
    gauge!(UPSTREAM_CONNECTIONS, "upstream" => upstream.to_owned()).set(float(open));
}

pub fn clients(upstream: &str, connected: u64) {
    gauge!(CLIENTS, "upstream" => upstream.to_owned()).set(float(connected));
}

/// Errors of a journal so far; `kind` is one of a fixed list.
pub fn journal_errors(upstream: &str, kind: &'static str, total: u64) {
    counter!(JOURNAL_ERRORS, "upstream" => upstream.to_owned(), "kind" => kind).absolute(total);
}

/// Whether the newest write to a journal has succeeded.
pub fn journal_writable(upstream: &str, writable: bool) {
    gauge!(JOURNAL_WRITABLE, "upstream" => upstream.to_owned()).set(if writable { 1.0 } else { 0.0 });
}

pub fn identities_waiting(upstream: &str, n: usize) {
    gauge!(IDENTITIES_WAITING, "upstream" => upstream.to_owned()).set(u32::try_from(n).unwrap_or(u32::MAX));
}

pub fn identities_without_replay_rights(upstream: &str, n: usize) {
    gauge!(WITHOUT_REPLAY_RIGHTS, "upstream" => upstream.to_owned()).set(u32::try_from(n).unwrap_or(u32::MAX));
}

/// Makes every series that happens by events be there from the start, at 0: dashboards and alerts want no gaps.
pub fn start_at_zero(upstream: &str, dead_letter_reasons: impl IntoIterator<Item = &'static str>) {
    for result in ConnectResult::ALL {
        counter!(UPSTREAM_CONNECTS, "upstream" => upstream.to_owned(), "result" => result.label()).absolute(0);
    }
    counter!(
        BREAKER_TRANSITIONS,
        "upstream" => upstream.to_owned(), "from" => "open", "to" => "half_open", "reason" => "probe_succeeded"
    )
    .absolute(0);
    for reason in dead_letter_reasons {
        counter!(DEAD_LETTERS, "upstream" => upstream.to_owned(), "reason" => reason).absolute(0);
    }
    counter!(UNFENCED, "upstream" => upstream.to_owned()).absolute(0);
    journal_errors(upstream, "damaged", 0);
    stream_ids_changed(upstream, 0);
    identities_without_replay_rights(upstream, 0);
}

#[cfg(test)]
mod tests {
    use super::super::events;
    use super::*;

    fn rendered(record: impl FnOnce()) -> String {
        let (recorder, metrics) = recorder();
        metrics::with_local_recorder(&recorder, record);
        metrics.render()
    }

    fn check(record: impl FnOnce(), expected: &[&str]) {
        let text = rendered(record);
        for line in expected {
            assert!(
                text.lines().any(|candidate| candidate == *line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn counters_and_gauges_carry_their_labels() {
        check(
            || {
                commands("main", "forwarded", 2);
                commands("main", "held", 2);
                commands("main", "held", 3);
                uncertain_writes("main", UncertainAction::Answered, 1);
                start_at_zero("main", ["too_old", "wrong_type"]);
                upstream_connects("main", ConnectResult::Refused);
                clients("main", 7);
                queue_level(
                    "main",
                    QueueLevel {
                        records: 3,
                        bytes: 90,
                        oldest_age: Duration::from_millis(1500),
                    },
                );
                queue_acknowledged("main", 4);
                events::dead_letters("main", "too_old", 2);
            },
            &[
                r#"tideover_commands_total{upstream="main",route="forwarded"} 2"#,
                r#"tideover_commands_total{upstream="main",route="held"} 3"#,
                r#"tideover_uncertain_writes_total{upstream="main",action="answered"} 1"#,
                r#"tideover_upstream_connects_total{upstream="main",result="refused"} 1"#,
                r#"tideover_upstream_connects_total{upstream="main",result="ok"} 0"#,
                r#"tideover_clients{upstream="main"} 7"#,
                r#"tideover_queue_records{upstream="main"} 3"#,
                r#"tideover_queue_bytes{upstream="main"} 90"#,
                r#"tideover_queue_oldest_age_seconds{upstream="main"} 1.5"#,
                r#"tideover_queue_acknowledged_total{upstream="main"} 4"#,
                r#"tideover_dead_letters_total{upstream="main",reason="too_old"} 2"#,
                r#"tideover_dead_letters_total{upstream="main",reason="wrong_type"} 0"#,
                "# TYPE tideover_clients gauge",
                "# HELP tideover_clients Connected clients",
            ],
        );
    }

    #[test]
    fn exactly_one_state_of_the_breaker_is_set() {
        check(
            || {
                set_breaker_state("main", "open");
                events::breaker_transition("main", "open", "half_open", "probe_succeeded");
            },
            &[
                r#"tideover_breaker_state{upstream="main",state="closed"} 0"#,
                r#"tideover_breaker_state{upstream="main",state="open"} 0"#,
                r#"tideover_breaker_state{upstream="main",state="half_open"} 1"#,
                r#"tideover_breaker_transitions_total{upstream="main",from="open",to="half_open",reason="probe_succeeded"} 1"#,
            ],
        );
    }
}
