//! The breaker's knobs.

use std::num::NonZeroU32;
use std::time::Duration;

/// `[upstream.breaker]`, validated: `recovery_timeout` is at least a millisecond and at most `recovery_timeout_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Consecutive failures that trip.
    pub failure_threshold: NonZeroU32,
    /// OPEN for this long before the first probe.
    pub recovery_timeout: Duration,
    /// What the wait between probes doubles up to.
    pub recovery_timeout_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failure_threshold: const { NonZeroU32::new(5).unwrap() },
            recovery_timeout: Duration::from_millis(100),
            recovery_timeout_max: Duration::from_secs(1),
        }
    }
}
