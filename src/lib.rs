//! tideover: a sidecar proxy that tides an application over a Redis outage.
//!
//! This page is the project's map; it is filled as the rooms are built.

pub mod command;
pub mod journal;
pub mod resp;
