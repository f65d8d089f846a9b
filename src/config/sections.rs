//! The parts of the file that need nothing but themselves.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use toml::Value;

use super::raw::{Section, duration, one_of, size, string, whole};
use super::settings::{LimitSettings, QueueSettings, ReplaySettings};
use crate::breaker;
use crate::journal::Fsync;
use crate::upstream::burst::Uring;
use crate::upstream::busy_poll::BusyPoll;
use crate::upstream::settings::Timeouts;

const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
pub(super) const FSYNC: [(&str, Fsync); 3] = [
    ("always", Fsync::Always),
    ("everysec", Fsync::EverySec),
    ("no", Fsync::No),
];
pub(super) const BUSY_POLL: [(&str, BusyPoll); 2] = [("auto", BusyPoll::Auto), ("off", BusyPoll::Off)];
pub(super) const URING: [(&str, Uring); 2] = [("auto", Uring::Auto), ("off", Uring::Off)];
const NAME_RULE: &str = "must be 1 to 32 of a-z, 0-9, _ and -";

pub(super) fn name(value: &Value) -> Result<String, String> {
    let name = string(value)?;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if name.is_empty() || 32 < name.len() || !name.bytes().all(fits) {
        return Err(NAME_RULE.to_owned());
    }
    Ok(name.to_owned())
}

pub(super) fn socket_address(value: &Value) -> Result<SocketAddr, String> {
    string(value)?
        .parse()
        .map_err(|_| "must be address:port, as in \"127.0.0.1:9122\"".to_owned())
}

pub(super) fn worker_count(value: &Value) -> Result<NonZeroUsize, String> {
    let number = whole(1, 256)(value)?;
    usize::try_from(number)
        .ok()
        .and_then(NonZeroUsize::new)
        .ok_or_else(|| "must be at least 1".to_owned())
}

pub(super) fn limits(mut section: Section<'_>) -> LimitSettings {
    let default = LimitSettings::default();
    let count = |section: &mut Section<'_>, key, default: usize, max| {
        section.get(key, default, |value| whole(1, max)(value).map(|number| number as usize))
    };
    let bytes = |section: &mut Section<'_>, key, default: usize, min, max| {
        let parse = |value: &Value| size(min, max)(value).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        section.get(key, default, parse)
    };
    let limits = LimitSettings {
        clients_max: count(&mut section, "clients", default.clients_max, 1_000_000),
        args_max: count(&mut section, "args", default.args_max, i32::MAX.unsigned_abs()),
        bulk_bytes_max: bytes(&mut section, "bulk", default.bulk_bytes_max, 1024, 2 * GIB),
        inline_bytes_max: bytes(&mut section, "inline", default.inline_bytes_max, 1024, MIB),
        reply_buffer_bytes_max: bytes(
            &mut section,
            "reply_buffer",
            default.reply_buffer_bytes_max,
            64 * 1024,
            2 * GIB,
        ),
        lane_request_bytes_max: bytes(
            &mut section,
            "lane_request",
            default.lane_request_bytes_max,
            1024,
            16 * MIB,
        ),
        pipeline_max: count(&mut section, "pipeline", default.pipeline_max, 1_000_000),
        idle_timeout: section.optional("idle_timeout", duration(Duration::from_secs(1), YEAR)),
    };
    section.finish();
    limits
}

pub(super) fn breaker_settings(mut section: Section<'_>) -> breaker::Settings {
    let default = breaker::Settings::default();
    let failure_threshold = section.get("failure_threshold", default.failure_threshold, |value| {
        whole(1, 1_000_000)(value).and_then(|number| NonZeroU32::new(number).ok_or("must be at least 1".to_owned()))
    });
    let recovery_timeout = section.optional("recovery_timeout", duration(MILLISECOND, HOUR));
    let recovery_timeout_max = section.optional("recovery_timeout_max", duration(MILLISECOND, HOUR));
    let wait = recovery_timeout.unwrap_or(default.recovery_timeout);
    let wait_max = recovery_timeout_max.unwrap_or(default.recovery_timeout_max);
    if wait_max < wait {
        let (key, value) = match recovery_timeout_max {
            Some(max) => ("recovery_timeout_max", max),
            None => ("recovery_timeout", wait),
        };
        let value = Some(format!("\"{}\"", humantime::format_duration(value)));
        section.fault(key, value, "recovery_timeout must be at most recovery_timeout_max");
    }
    section.finish();
    breaker::Settings {
        failure_threshold,
        recovery_timeout: wait,
        recovery_timeout_max: wait_max,
    }
}

pub(super) fn timeouts(mut section: Section<'_>) -> Timeouts {
    let default = Timeouts::default();
    let timeouts = Timeouts {
        connect: section.get("connect", default.connect, duration(MILLISECOND, HOUR)),
        command: section.get("command", default.command, duration(MILLISECOND, HOUR)),
    };
    section.finish();
    timeouts
}

pub(super) fn queue(mut section: Section<'_>) -> QueueSettings {
    let default = QueueSettings::default();
    let queue = QueueSettings {
        fsync: section.get("fsync", default.fsync, one_of(&FSYNC)),
        bytes_max: section.get("max_bytes", default.bytes_max, size(MIB, 1024 * 1024 * GIB)),
        age_max: section.optional("max_age", duration(Duration::from_secs(1), YEAR)),
    };
    section.finish();
    queue
}

pub(super) fn replay(mut section: Section<'_>) -> ReplaySettings {
    let default = ReplaySettings::default();
    let replay = ReplaySettings {
        start_delay_max: section.get(
            "start_delay_max",
            default.start_delay_max,
            duration(Duration::ZERO, HOUR),
        ),
        rate_max: section.optional("rate_max", |value| {
            whole(1, u32::MAX)(value).and_then(|rate| NonZeroU32::new(rate).ok_or("must be at least 1".to_owned()))
        }),
    };
    section.finish();
    replay
}
