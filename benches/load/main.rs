//! A load generator for Redis and what stands before it: one thread, every reply compared with the bytes that it must be.
//!
//! Without `--rate` each client asks again once it is answered (a closed loop: how much can it take?). With it, requests have intended times, and
//! latency counts from those, however late a request could be sent: a stall is met by every request that fell due in it, not by one (no coordinated
//! omission). What cannot be held is said: `rate` beside `rate_asked`, and `unsent`.
//!
//! Prints a line `begin` once all clients are there, then one JSON object. A reply that is an error, or not the expected one, ends it with
//! exit code 1 and no numbers. Files: `schedule` says when, `asks`, `fan_out` and `ping_pong` are the games that are played, `drive` plays them.

mod asks;
mod connection;
mod drive;
mod failure;
mod fan_out;
mod fill;
mod ping_pong;
mod poll;
mod requests;
mod schedule;
mod sources;
mod tally;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::asks::{Asks, Stay};
use crate::failure::Failure;
use crate::fan_out::FanOut;
use crate::ping_pong::PingPong;
use crate::requests::Requests;
use crate::schedule::{Pace, Span};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Sets all keys once, those of redis-benchmark too, and measures nothing.
    Fill,
    Get,
    /// GETs that must find nothing, as while Redis is away.
    Miss,
    Set,
    /// MSET of ten.
    Mset,
    /// Nine GETs to one SET, at random.
    Mixed,
    /// MULTI, five SETs and EXEC in one write, counted as one.
    Multi,
    /// Connect, GET, leave, as PHP does, counted as one.
    Visit,
    /// One more client publishes to all the others; counted and timed per delivered message.
    FanOut,
    /// Pairs: one pops what the other pushes, and back; counted and timed per hop.
    PingPong,
}

#[derive(Debug, Parser)]
#[command(name = "load", about = "Puts load on a Redis on this machine and measures it")]
struct Arguments {
    #[arg(long)]
    port: u16,
    #[arg(long, value_enum)]
    workload: Workload,
    #[arg(long, default_value_t = 50)]
    clients: usize,
    /// Requests that a client sends at once, and whose replies it awaits before the next ones. Published messages on their way, for `fan-out`.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    #[arg(long, default_value_t = 3)]
    value_bytes: usize,
    /// As many keys are asked for, at random.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Passes before anything is counted.
    #[arg(long, default_value_t = 0.2)]
    warm_up_seconds: f64,
    /// What is counted (requests, messages, hops) per second; without it each client asks as soon as it may.
    #[arg(long)]
    rate: Option<f64>,
    /// Keeps the connections, after printing, until stdin ends.
    #[arg(long)]
    stay: bool,
    /// For `cargo bench`, which adds it.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to be told when this cannot be written either.
            let _ = writeln!(std::io::stderr(), "load: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments {
        port,
        clients,
        pipeline,
        value_bytes,
        keys,
        ..
    } = *arguments;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ask = |requests, stay| Asks::new(address, requests, clients, stay);
    match arguments.workload {
        Workload::Fill => fill::fill(address, keys, value_bytes),
        Workload::Get => play(
            arguments,
            ask(Requests::get(keys, value_bytes, pipeline), Stay::Connected)?,
        ),
        Workload::Miss => play(arguments, ask(Requests::miss(keys, pipeline), Stay::Connected)?),
        Workload::Set => play(
            arguments,
            ask(Requests::set(keys, value_bytes, pipeline), Stay::Connected)?,
        ),
        Workload::Mset => play(
            arguments,
            ask(Requests::mset(keys, value_bytes, pipeline), Stay::Connected)?,
        ),
        Workload::Mixed => play(
            arguments,
            ask(Requests::mixed(keys, value_bytes, pipeline), Stay::Connected)?,
        ),
        Workload::Multi => play(
            arguments,
            ask(Requests::multi(keys, value_bytes, pipeline), Stay::Connected)?,
        ),
        Workload::Visit => play(
            arguments,
            ask(Requests::get(keys, value_bytes, pipeline), Stay::ForOneAnswer)?,
        ),
        Workload::FanOut => {
            let window = arguments.rate.map_or(pipeline, |_| fan_out::ON_THEIR_WAY_MAX);
            play(arguments, FanOut::new(address, clients, window)?)
        }
        Workload::PingPong => play(arguments, PingPong::new(address, clients)?),
    }
}

fn play<G: drive::Game>(arguments: &Arguments, mut game: G) -> Result<(), Failure> {
    let pace = match arguments.rate {
        None => Pace::WhenAnswered,
        Some(per_second) => Pace::Fixed {
            starts_per_second: per_second / game.counted_per_start(),
        },
    };
    let span = Span {
        warm_up: seconds(arguments.warm_up_seconds)?,
        counted: seconds(arguments.seconds)?,
    };
    print("begin")?;
    let tally = drive::drive(&mut game, pace, span)?;
    let mut report = tally.report();
    report["rate_asked"] = arguments.rate.into();
    print(&report.to_string())?;
    if arguments.stay {
        // However it ends: whoever started this has seen enough.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    }
    Ok(())
}

fn seconds(number: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(number).map_err(|error| Failure::Argument(error.to_string()))
}

fn print(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|source| Failure::Io {
            doing: "printing",
            source,
        })
}
