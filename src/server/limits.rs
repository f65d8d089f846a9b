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

/// The cgroup's CPU limit: so much time in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuLimit {
    quota_us: usize,
    period_us: usize,
}

impl CpuLimit {
    /// Nothing where there is none.
    pub(super) fn read() -> Option<Self> {
        std::fs::read_to_string("/sys/fs/cgroup/cpu.max")
            .ok()
            .and_then(|text| Self::parsed(&text))
    }

    /// `cpu.max` of cgroup v2: quota and period in microseconds, or `max`.
    fn parsed(text: &str) -> Option<Self> {
        let (quota, period) = text.trim().split_once(' ')?;
        let (quota_us, period_us) = (quota.parse().ok()?, period.parse().ok()?);
        (period_us > 0).then_some(Self { quota_us, period_us })
    }

    /// As many workers as it has CPUs, rounded up.
    pub(super) fn workers(self) -> usize {
        self.quota_us.div_ceil(self.period_us).max(1)
    }

    /// Whether so many threads can be busy all the time without being stopped for the rest of a period.
    pub(super) fn is_enough_for(self, threads: usize) -> bool {
        self.quota_us / self.period_us >= threads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_limit_is_rounded_up_to_workers_and_down_to_those_that_may_be_busy() {
        for (text, workers, busy) in [
            ("50000 100000\n", 1, 0),
            ("100000 100000\n", 1, 1),
            ("150000 100000\n", 2, 1),
        ] {
            let limit = CpuLimit::parsed(text).expect(text);
            assert_eq!(limit.workers(), workers, "{text}");
            assert!(limit.is_enough_for(busy) && !limit.is_enough_for(busy + 1), "{text}");
        }
        for text in ["max 100000\n", "100000 0\n", "x"] {
            assert_eq!(CpuLimit::parsed(text), None, "{text}");
        }
    }
}
