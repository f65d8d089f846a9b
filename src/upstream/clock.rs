//! The two clocks of the process.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Our wall clock in milliseconds since 1970. It may step.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The upstream's wall clock, given its distance from ours.
#[must_use]
pub fn upstream_ms(wall_ms: u64, offset_ms: i64) -> i64 {
    i64::try_from(wall_ms).unwrap_or(i64::MAX).saturating_add(offset_ms)
}

/// Microseconds from the first time that this process asked for one of these to `instant`; zero for what was before.
pub(super) fn mono_us(instant: Instant) -> u64 {
    let since = instant.saturating_duration_since(*EPOCH);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds since this process first asked. Never steps; means nothing in another process.
#[must_use]
pub fn mono_ms() -> u64 {
    u64::try_from(EPOCH.elapsed().as_millis()).unwrap_or(u64::MAX)
}
