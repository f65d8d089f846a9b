//! The circuit breaker of one upstream: states, window, backoff, and what an outcome means. Pure: time and randomness are arguments.
//!
//! Knows no other room. Time is the monotonic time since a start of the caller's choosing.

mod backoff;
#[expect(
    clippy::module_inception,
    reason = "one concept per file, and this is the room's own"
)]
mod breaker;
mod classify;
mod reason;
mod settings;
#[cfg(test)]
mod tests;
mod window;

pub use breaker::{Breaker, Mode, ProbeStart, State, Transition};
pub use classify::{
    BreakerEffect, ClientEffect, ErrorClass, ReplayEffect, Transient, Unavailable, UpstreamRole, is_said_by_servers,
};
pub use reason::{Failure, HardSign, Reason, Trouble};
pub use settings::Settings;
