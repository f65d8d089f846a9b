//! The names of metrics and events, in one place.

mod settings;

pub use settings::{LogFormat, LogLevel, LogSettings};
