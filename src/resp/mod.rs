//! RESP framing: request and reply scanners, requests as spans over raw bytes, reply writers, limits. Pure.
//!
//! Knows no other room. Frames are found, never decoded into trees: what passes through stays the bytes it was.

pub mod reply;
pub mod request;
pub mod scan;
pub mod write;

#[cfg(test)]
mod in_steps;
#[cfg(test)]
mod reply_tests;
#[cfg(test)]
mod tests;

pub use request::{Request, Span};

/// The protocol version of a session, as set by HELLO (RESP2 until then).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

impl Protocol {
    /// As HELLO says it.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}
