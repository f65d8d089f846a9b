//! How long to wait for the next probe: exponential, full jitter.

use std::time::Duration;

use super::Settings;

/// Below this a probe would only burn CPU on both sides.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// The wait before probe `attempt` (0 is the first after a trip), without jitter.
pub(super) fn wait(settings: &Settings, attempt: u32) -> Duration {
    let factor = 2_u32.saturating_pow(attempt);
    settings
        .recovery_timeout
        .saturating_mul(factor)
        .min(settings.recovery_timeout_max)
}

/// A wait that is uniform between the floor and `wait`; `random_unit` is uniform in 0..1.
pub(super) fn jittered(wait: Duration, random_unit: f64) -> Duration {
    let unit = if random_unit.is_finite() {
        random_unit.clamp(0.0, 1.0)
    } else {
        1.0
    };
    wait.mul_f64(unit).max(WAIT_MIN.min(wait)).min(wait)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum() {
        let settings = Settings::default();
        let waits: Vec<u128> = [0, 1, 2, 3, 4, 31, 32, u32::MAX]
            .into_iter()
            .map(|attempt| wait(&settings, attempt).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000, 1000, 1000]);
    }

    #[test]
    fn jitter_spreads_over_the_whole_wait() {
        let wait = Duration::from_millis(1000);
        let spread: Vec<u128> = [0.0, 0.25, 0.5, 1.0]
            .into_iter()
            .map(|unit| jittered(wait, unit).as_millis())
            .collect();
        assert_eq!(spread, [10, 250, 500, 1000]);
    }

    proptest! {
        #[test]
        fn jitter_stays_between_floor_and_wait(wait_ms in 1_u64..3_600_000, unit in any::<f64>()) {
            let wait = Duration::from_millis(wait_ms);
            let jittered = jittered(wait, unit);
            prop_assert!(WAIT_MIN.min(wait) <= jittered && jittered <= wait, "{:?}", jittered);
        }
    }
}
