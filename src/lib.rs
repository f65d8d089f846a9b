//! tideover: a sidecar proxy that tides an application over a Redis outage.
//!
//! This page is the project's map; it is filled as the rooms are built.

pub mod admin;
pub mod breaker;
pub mod cli;
pub mod command;
pub mod config;
pub mod journal;
pub mod outage;
pub mod replay;
pub mod resp;
pub mod server;
pub mod session;
pub mod telemetry;
pub mod upstream;
