//! The circuit breaker of one upstream: states, window, backoff, and what an outcome means. Pure: time and randomness are arguments.
//!
//! Knows no other room.

mod settings;

pub use settings::Settings;
