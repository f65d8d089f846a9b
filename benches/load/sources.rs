//! Addresses that short connections come from.
//!
//! Tens of thousands of them per second use up the ports of one address: each is kept for a minute after its connection, and the kernel's search for one
//! that is left would be measured. All of 127.0.0.0/8 is ours.

use std::net::{Ipv4Addr, SocketAddrV4};

/// 127.0.0.1 itself is left to servers, and to who connects from wherever the kernel says.
const HOSTS: std::ops::RangeInclusive<u8> = 2..=251;
/// Below those that the kernel gives: it gives nobody a port that has been asked for by number, whatever the host.
const PORTS: std::ops::RangeInclusive<u16> = 10_000..=32_767;

/// Each once before any comes again.
#[derive(Debug)]
pub(crate) struct Sources {
    host: u8,
    port: u16,
}

impl Sources {
    /// From somewhere: the run before has used some.
    pub(crate) fn new() -> Self {
        Self {
            host: fastrand::u8(HOSTS),
            port: fastrand::u16(PORTS),
        }
    }

    pub(crate) fn next(&mut self) -> SocketAddrV4 {
        self.port += 1;
        if self.port > *PORTS.end() {
            self.port = *PORTS.start();
            self.host = if self.host == *HOSTS.end() {
                *HOSTS.start()
            } else {
                self.host + 1
            };
        }
        SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, self.host), self.port)
    }
}
