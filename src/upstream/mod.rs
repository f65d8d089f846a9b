//! The Redis behind us: dialling, lanes, dedicated connections, the connection file.

mod admit;
pub mod buffers;
pub mod burst;
pub mod busy_poll;
pub mod clock;
mod connect;
pub mod connections;
pub mod dead;
pub mod dial;
mod driver;
mod gather;
pub mod give_way;
pub mod health;
mod held;
pub mod hello;
mod in_flight;
pub mod io;
pub mod known;
pub mod last_said;
pub mod learn;
mod leaving;
pub mod link;
pub mod local;
mod opening;
mod outgoing;
pub mod own_request;
mod pool;
mod proof;
pub mod rights;
mod said;
pub mod scripts;
pub mod settings;
pub mod shared;
mod small_file;
mod speaker;
pub mod stall;
pub mod stats;
pub mod tls;
pub mod transaction;
mod trouble;
pub mod turn;

pub use link::again;

#[cfg(test)]
mod tests;
