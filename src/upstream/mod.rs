//! The Redis behind us: dialling, lanes, dedicated connections, the connection file.

pub mod clock;
mod connect;
pub mod connections;
pub mod dial;
mod driver;
pub mod health;
mod held;
pub mod hello;
pub mod io;
pub mod known;
pub mod learn;
pub mod link;
pub mod local;
pub mod own_request;
mod pool;
mod proof;
mod said;
pub mod scripts;
pub mod settings;
pub mod shared;
pub mod stall;
pub mod stats;
pub mod tls;

pub use link::again;

#[cfg(test)]
mod tests;
