//! What the system grants: open files, CPUs.

use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::sched_getaffinity;

/// Raises the soft limit of open files to the hard one.
pub(super) fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// As many workers as the cgroup's CPU limit, rounded up; one where there is none: batching wins over more threads.
pub(super) fn workers() -> usize {
    std::fs::read_to_string("/sys/fs/cgroup/cpu.max")
        .ok()
        .and_then(|text| cpus(&text))
        .unwrap_or(1)
}

/// `cpu.max` of cgroup v2: quota and period in microseconds, or `max`.
fn cpus(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota_us, period_us): (usize, usize) = (quota.parse().ok()?, period.parse().ok()?);
    (period_us > 0).then(|| quota_us.div_ceil(period_us).max(1))
}

/// Whether workers may be busy without a need: there is a CPU for each, and no limit at which they and one thread more would be stopped for the
/// rest of a period.
pub(super) fn may_be_busy(workers: usize) -> bool {
    let cpus = sched_getaffinity(None).map_or(1, |cpus| cpus.count() as usize);
    // Less than that only where a cgroup, or one around it, has a limit.
    let allowed = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    is_room_for(workers, cpus, allowed)
}

fn is_room_for(workers: usize, cpus: usize, allowed: usize) -> bool {
    workers <= cpus && (allowed >= cpus || workers < allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_limit_is_rounded_up_and_none_is_one_worker() {
        assert_eq!(cpus("max 100000\n"), None);
        assert_eq!(cpus("50000 100000\n"), Some(1));
        assert_eq!(cpus("150000 100000\n"), Some(2));
        assert_eq!(cpus("x"), None);
    }

    #[test]
    fn workers_may_be_busy_where_a_cpu_is_left_of_a_limit_and_there_is_one_for_each() {
        for (workers, cpus, allowed, expected) in [
            (1, 2, 2, true),
            (2, 2, 2, true),
            (3, 2, 2, false),
            (1, 1, 1, true),
            (1, 8, 1, false),
            (1, 8, 2, true),
            (2, 8, 2, false),
        ] {
            assert_eq!(
                is_room_for(workers, cpus, allowed),
                expected,
                "{workers} workers, {cpus} CPUs, {allowed} allowed"
            );
        }
    }
}
