//! epoll, with a timer that is finer than its milliseconds.

use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::failure::Failure;

const EVENTS_MAX: usize = 1024;
const TIMER: u64 = u64::MAX;
/// Ends a wait in which nothing happens, so that the end is seen.
const LONGEST_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Replies,
    /// There is more to send than the kernel takes.
    RepliesAndRoom,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Replies => epoll::EventFlags::IN,
            Self::RepliesAndRoom => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    armed_ns: u64,
}

impl Poll {
    pub(crate) fn new() -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Failure::io("making a poll"))?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )
        .map_err(Failure::io("making a timer"))?;
        // By its edge: nobody reads it.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), flags).map_err(Failure::io("waiting"))?;
        Ok(Self {
            epoll,
            timer,
            armed_ns: 0,
        })
    }

    pub(crate) fn add(&self, source: impl AsFd, token: usize, interest: Interest) -> Result<(), Failure> {
        let data = epoll::EventData::new_u64(token as u64);
        epoll::add(&self.epoll, source, data, interest.flags()).map_err(Failure::io("waiting"))
    }

    pub(crate) fn change(&self, source: impl AsFd, token: usize, interest: Interest) -> Result<(), Failure> {
        let data = epoll::EventData::new_u64(token as u64);
        epoll::modify(&self.epoll, source, data, interest.flags()).map_err(Failure::io("waiting"))
    }

    /// A wait will end at `at_ns`, a time after `now_ns`.
    pub(crate) fn wake_at(&mut self, at_ns: u64, now_ns: u64) -> Result<(), Failure> {
        if self.armed_ns == at_ns {
            return Ok(());
        }
        self.armed_ns = at_ns;
        let wait_ns = at_ns.saturating_sub(now_ns).max(1);
        let it_value = Timespec {
            tv_sec: (wait_ns / 1_000_000_000) as i64,
            tv_nsec: (wait_ns % 1_000_000_000) as _,
        };
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).map_err(Failure::io("setting a timer"))?;
        Ok(())
    }

    /// Tokens of the connections for which something is to be done.
    pub(crate) fn wait(&mut self, events: &mut Events) -> Result<(), Failure> {
        events.ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut events.ready), Some(&LONGEST_WAIT)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(Failure::Io {
                doing: "waiting",
                source: errno.into(),
            }),
        }
    }
}

pub(crate) struct Events {
    ready: Vec<epoll::Event>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            ready: Vec::with_capacity(EVENTS_MAX),
        }
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = usize> {
        let tokens = self.ready.iter().map(|event| {
            let data = event.data;
            data.u64()
        });
        tokens.filter(|token| *token != TIMER).map(|token| token as usize)
    }
}
