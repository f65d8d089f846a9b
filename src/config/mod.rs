//! Arguments, environment and file become settings: parsed once, every fault named at once, valid from then on.

mod address;
mod secret;
mod settings;

pub use address::{Credentials, ListenAddress, UpstreamAddress, UpstreamUrl};
pub use secret::Secret;
pub use settings::{
    AfterNeutralRead, Fsync, InFlight, LimitSettings, NeedsKey, QueueSettings, ReplaySettings, RuleSettings, Settings,
    TimeoutSettings, UpstreamSettings, WhenDown, XaddId,
};
