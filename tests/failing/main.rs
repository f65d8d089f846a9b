//! Every way in which an upstream fails, and comes back: why the breaker opened, what clients saw meanwhile, that each write is accounted for,
//! and that nobody waited for longer than `wait_max`. Kill and freeze alone are in `tests/outage.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod black_hole;
mod flapping;
mod limits;
mod pass_through;
mod passwords;
mod replicas;
mod restarts;
mod slow;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use support::load::{self, Attempt, Load};
use support::{DEADLINE, Settings, Tideover};

pub(crate) const CLIENTS: usize = 4;

/// What a command may wait at most: until silence is long enough to mean something, then for the rest of a dying connection; and a second for the
/// machine that all tests run on.
pub(crate) fn wait_max(settings: &Settings) -> Duration {
    settings.command_timeout + settings.hold_timeout + Duration::from_secs(1)
}

/// How often the breaker changed its state, by `from->to:reason`.
pub(crate) fn transitions(proxy: &Tideover) -> BTreeMap<String, u64> {
    let (_, metrics) = proxy.get("/metrics");
    let lines = metrics.lines().filter_map(|line| {
        let labels = line.strip_prefix("tideover_breaker_transitions_total{")?;
        let (labels, count) = labels.split_once("} ")?;
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let change = format!("{}->{}:{}", label("from")?, label("to")?, label("reason")?);
        Some((change, count.parse().ok()?))
    });
    lines.collect()
}

/// The reasons for which a CLOSED breaker has opened.
pub(crate) fn reasons(proxy: &Tideover) -> Vec<String> {
    let changes = transitions(proxy).into_iter().filter(|(_, count)| *count > 0);
    let reasons = changes.filter_map(|(change, _)| change.strip_prefix("closed->open:").map(str::to_owned));
    reasons.collect()
}

/// Writers without pause, a failure, an outage, the return. Gives what became of every write, which is all well but for being applied.
#[track_caller]
pub(crate) fn load_through(
    proxy: &Tideover,
    settings: &Settings,
    reasons_allowed: &[&str],
    fail: impl FnOnce(),
    heal: impl FnOnce(),
) -> Vec<Attempt> {
    let load = Load::start(&proxy.address(), CLIENTS);
    load.wait_for_more(50);
    let failed_at = Instant::now();
    fail();
    proxy.wait_for_mode("down", DEADLINE);
    load.wait_for_more(100);
    heal();
    proxy.wait_for_mode("healthy", DEADLINE);
    load.wait_for_more(50);
    let attempts = load.finish();
    proxy.wait_for_recovery();
    load::assert_none_lost(&attempts);
    load::assert_answered_within(&attempts, wait_max(settings));
    load::assert_no_error_after(&attempts, failed_at + wait_max(settings));
    load::assert_uncertain_at_most(&attempts, 1);
    assert_eq!(proxy.dead_letters(), 0);
    let reasons = reasons(proxy);
    assert!(
        !reasons.is_empty() && reasons.iter().all(|reason| reasons_allowed.contains(&reason.as_str())),
        "opened for {reasons:?}, not for {reasons_allowed:?}"
    );
    attempts
}
