//! The durable queue.
pub mod handover;
