//! The settings as the file that would say them all, passwords hidden.

use std::fmt::Display;
use std::time::Duration;

use toml::{Table, Value};

use super::UpstreamAddress;
use super::raw::{size_text, word};
use super::rule;
use super::sections::{BUSY_POLL, FSYNC, URING};
use super::settings::{LimitSettings, QueueSettings, Settings, UpstreamSettings};
use super::tls;

/// TOML for `tideover check`. Keys that are off are left out.
#[must_use]
pub fn effective(settings: &Settings) -> String {
    let mut top = Table::new();
    put(&mut top, "data_dir", text(settings.data_dir.display()));
    put(&mut top, "admin", text(settings.admin));
    if let Some(workers) = settings.workers {
        put(&mut top, "workers", count(workers.get()));
    }
    put(&mut top, "shutdown_timeout", duration(settings.shutdown_timeout));
    put(&mut top, "busy_poll", text(word(&BUSY_POLL, settings.busy_poll)));
    put(&mut top, "io_uring", text(word(&URING, settings.io_uring)));
    let mut log = Table::new();
    put(&mut log, "format", text(settings.log.format.as_str()));
    put(&mut log, "level", text(settings.log.level.as_str()));
    put(&mut top, "log", Value::Table(log));
    put(&mut top, "limits", Value::Table(limits(&settings.limits)));
    let upstreams = settings
        .upstreams
        .iter()
        .map(|one| Value::Table(upstream(one)))
        .collect();
    put(&mut top, "upstream", Value::Array(upstreams));
    top.to_string()
}

fn limits(limits: &LimitSettings) -> Table {
    let LimitSettings {
        clients_max,
        args_max,
        bulk_bytes_max,
        inline_bytes_max,
        reply_buffer_bytes_max,
        lane_request_bytes_max,
        pipeline_max,
        idle_timeout,
    } = limits;
    let bytes = |bytes: &usize| text(size_text(u64::try_from(*bytes).unwrap_or(u64::MAX)));
    let mut table = Table::new();
    put(&mut table, "clients", count(*clients_max));
    put(&mut table, "args", count(*args_max));
    put(&mut table, "bulk", bytes(bulk_bytes_max));
    put(&mut table, "inline", bytes(inline_bytes_max));
    put(&mut table, "reply_buffer", bytes(reply_buffer_bytes_max));
    put(&mut table, "lane_request", bytes(lane_request_bytes_max));
    put(&mut table, "pipeline", count(*pipeline_max));
    if let Some(timeout) = idle_timeout {
        put(&mut table, "idle_timeout", duration(*timeout));
    }
    table
}

fn upstream(upstream: &UpstreamSettings) -> Table {
    let mut table = Table::new();
    put(&mut table, "name", text(&upstream.name));
    put(&mut table, "listen", text(&upstream.listen));
    put(&mut table, "url", text(&upstream.url));
    if let UpstreamAddress::Tls { tls, .. } = &upstream.url.address {
        let tls = tls::client_table(tls);
        if !tls.is_empty() {
            put(&mut table, "tls", Value::Table(tls));
        }
    }
    if let Some(tls) = &upstream.listen_tls {
        put(&mut table, "listen_tls", Value::Table(tls::server_table(tls)));
    }
    put(&mut table, "hold_timeout", duration(upstream.hold_timeout));
    if upstream.client_password.is_some() {
        put(&mut table, "client_password", text("***"));
    }
    let mut breaker = Table::new();
    put(
        &mut breaker,
        "failure_threshold",
        Value::Integer(upstream.breaker.failure_threshold.get().into()),
    );
    put(
        &mut breaker,
        "recovery_timeout",
        duration(upstream.breaker.recovery_timeout),
    );
    put(
        &mut breaker,
        "recovery_timeout_max",
        duration(upstream.breaker.recovery_timeout_max),
    );
    put(&mut table, "breaker", Value::Table(breaker));
    let mut timeouts = Table::new();
    put(&mut timeouts, "connect", duration(upstream.timeouts.connect));
    put(&mut timeouts, "command", duration(upstream.timeouts.command));
    put(&mut table, "timeouts", Value::Table(timeouts));
    put(&mut table, "queue", Value::Table(queue(&upstream.queue)));
    let mut replay = Table::new();
    put(
        &mut replay,
        "start_delay_max",
        duration(upstream.replay.start_delay_max),
    );
    if let Some(rate) = upstream.replay.rate_max {
        put(&mut replay, "rate_max", Value::Integer(rate.get().into()));
    }
    put(&mut table, "replay", Value::Table(replay));
    if !upstream.rules.is_empty() {
        let rules = upstream
            .rules
            .settings()
            .iter()
            .map(|one| Value::Table(rule::table(one)))
            .collect();
        put(&mut table, "rule", Value::Array(rules));
    }
    table
}

fn queue(queue: &QueueSettings) -> Table {
    let mut table = Table::new();
    put(&mut table, "fsync", text(word(&FSYNC, queue.fsync)));
    put(&mut table, "max_bytes", text(size_text(queue.bytes_max)));
    if let Some(age) = queue.age_max {
        put(&mut table, "max_age", duration(age));
    }
    table
}

fn put(table: &mut Table, key: &str, value: Value) {
    table.insert(key.to_owned(), value);
}

fn text(shown: impl Display) -> Value {
    Value::String(shown.to_string())
}

fn count(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn duration(duration: Duration) -> Value {
    text(humantime::format_duration(duration))
}
