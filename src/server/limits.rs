//! What the system grants: open files, CPUs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
}
