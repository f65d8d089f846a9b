//! The Redis behind us: dialling, lanes, dedicated connections, the connection file.

pub mod clock;
pub mod connections;
pub mod dial;
mod driver;
pub mod health;
pub mod io;
pub mod known;
pub mod link;
pub mod local;
pub mod scripts;
pub mod settings;
pub mod shared;
pub mod stats;

pub use driver::again;

#[cfg(test)]
mod tests;
