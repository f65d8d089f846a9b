//! Arguments, environment and file become settings: parsed once, every fault named at once, valid from then on.

mod address;
mod effective;
mod fault;
mod loader;
mod raw;
mod rule;
mod sections;
mod settings;
#[cfg(test)]
mod tests;
mod tls;

pub use crate::upstream::settings::Secret;
pub use address::{Credentials, ListenAddress, UpstreamAddress, UpstreamUrl};
pub use effective::effective;
pub use fault::{ConfigErrors, Fault, LoadError};
pub use loader::{Flags, Outside, load};
pub use settings::{LimitSettings, QueueSettings, ReplaySettings, Settings, UpstreamSettings};
