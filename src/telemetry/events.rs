//! What is worth a log line, and the counts that go with it. ERROR and WARN: a person must act or lost something.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use metrics::counter;
use tracing::{error, info, warn};

use super::metric::{BREAKER_TRANSITIONS, DEAD_LETTERS, UNFENCED, journal_errors, set_breaker_state};

/// The breaker changed its state; labels are the breaker's own.
pub fn breaker_transition(upstream: &str, from: &'static str, to: &'static str, reason: &'static str) {
    counter!(
        BREAKER_TRANSITIONS,
        "upstream" => upstream.to_owned(), "from" => from, "to" => to, "reason" => reason
    )
    .increment(1);
    set_breaker_state(upstream, to);
    info!(upstream, from, to, reason, "breaker");
}

/// A probe failed. DEBUG: the transition before it has said at INFO that the upstream is down.
pub fn probe_failed(upstream: &str, trouble: &'static str) {
    tracing::debug!(upstream, trouble, "probe failed");
}

/// The upstream's TLS cannot be used as it is, or as it is configured.
pub fn tls_failed(upstream: &str, error: &dyn Display) {
    warn!(upstream, %error, "no connection to the upstream");
}

/// Certificates were replaced on disk.
pub fn certificates_reloaded(files: &[PathBuf]) {
    info!(?files, "certificates were replaced: the new ones are used from now on");
}

/// Certificates were replaced on disk by something that cannot be used.
pub fn certificates_kept(file: Option<&Path>, error: &str) {
    warn!(
        ?file,
        error, "certificates were replaced, but not by good ones: those from before are used on"
    );
}

/// Records that replay set aside; `reason` is one of a fixed list.
pub fn dead_letters(upstream: &str, reason: &'static str, n: u64) {
    counter!(DEAD_LETTERS, "upstream" => upstream.to_owned(), "reason" => reason).increment(n);
    warn!(upstream, reason, n, "dead letters");
}

/// Connections whose end could not be proven before replay.
pub fn fence_unproven(upstream: &str, connections: u64) {
    counter!(UNFENCED, "upstream" => upstream.to_owned()).increment(connections);
    warn!(
        upstream,
        connections, "fence unproven: what was sent before the failure may still be applied"
    );
}

/// Records wait for an identity whose password is not known (any more).
pub fn identity_waits(upstream: &str, user: &str, records: u64) {
    warn!(
        upstream,
        user, records, "journaled writes wait: the user must authenticate or be named in the configuration"
    );
}

/// A user whose journaled writes wait is known again: they are replayed.
pub fn identity_is_back(upstream: &str, user: &str) {
    info!(
        upstream,
        user, "journaled writes that waited for their user are replayed"
    );
}

/// An identity may not use MULTI or the marker: it journals absolute writes only.
pub fn replay_rights_missing(upstream: &str, user: &str) {
    warn!(
        upstream,
        user, "no rights for MULTI or the marker: only absolute writes are journaled"
    );
}

/// The journal cannot write.
pub fn journal_failed(upstream: &str, error: &dyn Display) {
    error!(upstream, %error, "journal failed: writes are refused while the upstream is down");
}

/// It can again.
pub fn journal_works_again(upstream: &str) {
    info!(upstream, "journal works again");
}

/// Opening found `damages` places where the journal is not what was written.
pub fn journal_damaged(upstream: &str, damages: u64, report: &dyn std::fmt::Debug) {
    journal_errors(upstream, "damaged", damages);
    error!(
        upstream,
        ?report,
        "the journal is damaged: acknowledged writes may be lost"
    );
}

/// A listener is bound.
pub fn started(upstream: &str, listen: &dyn Display, url: &dyn Display, data_dir: &Path) {
    info!(upstream, %listen, %url, data_dir = %data_dir.display(), "listening");
}

/// A stop was asked for.
pub fn stopping(signal: &'static str) {
    info!(signal, "stopping");
}
