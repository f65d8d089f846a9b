//! What is answered and kept while the upstream is down: neutral replies, journaled effects, rules. Pure.

pub mod effect;
mod glob;
pub mod payload;
pub mod rules;
pub mod write;
