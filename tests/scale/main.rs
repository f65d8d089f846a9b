//! Many clients: idle ones cost little, and those that come and go in crowds leave nothing behind.
//!
//! `cargo test` runs a short form. For long, on a release build:
//! `SCALE_SECONDS=60 SCALE_CLIENTS_PER_SECOND=2000 SCALE_IDLE_CLIENTS=10000 TIDEOVER_TEST_BINARY=target/release/tideover cargo test --test scale -- --nocapture --test-threads 1`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod crowd;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use crowd::Crowd;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, wait_until};

const SECONDS: u64 = 4;
const CLIENTS_PER_SECOND: u64 = 500;
const IDLE_CLIENTS: u64 = 500;
const IDLE_CLIENT_BYTES_MAX: u64 = 16 << 10;
/// Dedicated connections that are there before they are needed.
const SPARES: usize = 2;
/// Dedicated connections that the pool keeps for a minute, as many as were needed at once; each client in ten would leave one.
const POOLED_MAX: usize = 64;
/// What a process may take once more, whatever the number of clients.
const ONCE_BYTES: u64 = 2 << 20;

fn number_of(variable: &str, or_else: u64) -> u64 {
    std::env::var(variable).map_or(or_else, |text| text.parse().expect("a number"))
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    resident_bytes: u64,
    cpu: Duration,
    files: usize,
    /// At Redis, without the one that asks.
    connections: usize,
    /// In the connection file.
    on_file: usize,
    /// As tideover counts them.
    clients: u64,
}

fn held(redis: &RedisServer, proxy: &mut Tideover) -> Held {
    let id = proxy.process().id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let resident = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let resident_kb: u64 = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
    let list = redis.client().call(&["CLIENT", "LIST"]);
    let file = std::fs::read_to_string(proxy.data_dir().join("main/connections")).unwrap_or_default();
    Held {
        resident_bytes: resident_kb << 10,
        cpu: cpu_of(id),
        files: std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count(),
        connections: list.windows(5).filter(|word| word == b" age=").count() - 1,
        on_file: file.lines().filter(|slot| !slot.trim().is_empty()).count(),
        clients: proxy.status()["clients"].as_u64().unwrap(),
    }
}

fn cpu_of(id: u32) -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let behind_name = stat.rsplit_once(')').unwrap().1;
    let field = |index: usize| -> u32 { behind_name.split_whitespace().nth(index).unwrap().parse().unwrap() };
    TICK * (field(11) + field(12))
}

/// A neighbour's lane is open, the health connection and the spares, and nothing else: the state to which everything must return.
fn settled(redis: &RedisServer) -> (Tideover, Client) {
    // The lane of a second would open with its first client.
    let settings = Settings {
        workers: 1,
        more: "[limits]\nclients = 20000".to_owned(),
        ..Settings::default()
    };
    let mut proxy = Tideover::start_with(redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let mut neighbour = proxy.client();
    assert_eq!(neighbour.call(&["SET", "key", "value"]), b"+OK\r\n");
    wait_until(
        DEADLINE,
        "the neighbour, health, a lane and the spares are connected",
        || {
            let held = held(redis, &mut proxy);
            held.clients == 1 && held.connections == 2 + SPARES
        },
    );
    (proxy, neighbour)
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let seconds = number_of("SCALE_SECONDS", SECONDS);
    let per_second = number_of("SCALE_CLIENTS_PER_SECOND", CLIENTS_PER_SECOND);
    let redis = RedisServer::start_with(Durability::Memory, &["--maxclients", "20000"]);
    let (mut proxy, mut neighbour) = settled(&redis);
    Crowd::run(&proxy.address(), Duration::from_secs(1), per_second);
    wait_until(DEADLINE, "the first crowd is gone", || {
        held(&redis, &mut proxy).clients == 1
    });
    let before = held(&redis, &mut proxy);
    let begin = Instant::now();
    let crowd = Crowd::run(&proxy.address(), Duration::from_secs(seconds), per_second);
    let took = begin.elapsed();
    assert_eq!(neighbour.call(&["GET", "key"]), b"$5\r\nvalue\r\n");
    let mut after = held(&redis, &mut proxy);
    wait_until(
        DEADLINE,
        "no more files and connections than are pooled, and no sessions",
        || {
            after = held(&redis, &mut proxy);
            let pooled = after.connections.saturating_sub(before.connections);
            after.clients == 1
                && pooled <= POOLED_MAX
                && after.files <= before.files + pooled
                && after.on_file <= before.on_file + pooled
        },
    );
    eprintln!(
        "{} clients in {took:?}, {:?} of CPU each, slowest {:?}\n  before {before:?}\n  after {after:?}",
        crowd.clients,
        (after.cpu - before.cpu) / u32::try_from(crowd.clients).unwrap(),
        crowd.slowest,
    );
    let grown = after.resident_bytes.saturating_sub(before.resident_bytes);
    assert!(
        grown <= ONCE_BYTES,
        "{grown} bytes more after {} clients",
        crowd.clients
    );
    assert_eq!(proxy.mode(), "healthy");
}

#[test]
fn an_idle_client_costs_little() {
    let clients = number_of("SCALE_IDLE_CLIENTS", IDLE_CLIENTS);
    let redis = RedisServer::start_with(Durability::Memory, &["--maxclients", "20000"]);
    let (mut proxy, mut neighbour) = settled(&redis);
    let before = held(&redis, &mut proxy);
    let mut silent = Vec::new();
    let mut used = Vec::new();
    for _ in 0..clients / 2 {
        silent.push(crowd::Plain::connect(&proxy.address()));
    }
    wait_until(DEADLINE, "all are served", || {
        held(&redis, &mut proxy).clients == 1 + clients / 2
    });
    let with_silent = held(&redis, &mut proxy);
    for _ in 0..clients / 2 {
        let mut client = crowd::Plain::connect(&proxy.address());
        client.set_and_get();
        used.push(client);
    }
    let with_used = held(&redis, &mut proxy);
    let each = |from: Held, to: Held| to.resident_bytes.saturating_sub(from.resident_bytes) / (clients / 2);
    let (silent_bytes, used_bytes) = (each(before, with_silent), each(with_silent, with_used));
    assert_eq!(neighbour.call(&["GET", "key"]), b"$5\r\nvalue\r\n");
    drop((silent, used));
    let mut after = with_used;
    // What asks for these numbers is connected for a moment, too.
    wait_until(DEADLINE, "all are gone", || {
        after = held(&redis, &mut proxy);
        after.clients == 1 && after.connections == before.connections && after.files <= before.files
    });
    eprintln!(
        "an idle client: {silent_bytes} bytes, after a SET and a GET {used_bytes}; all: {}, before any {}, after all {}",
        with_used.resident_bytes, before.resident_bytes, after.resident_bytes
    );
    assert!(silent_bytes.max(used_bytes) <= IDLE_CLIENT_BYTES_MAX);
}

#[test]
fn a_worker_sleeps_once_its_clients_are_quiet() {
    const REQUESTS: usize = 5000;
    const LOOK: Duration = Duration::from_secs(1);
    let redis = RedisServer::start(Durability::Memory);
    let (mut proxy, mut neighbour) = settled(&redis);
    let id = proxy.process().id();
    // One after the other: it may look at its sockets instead of sleeping, and asks itself whether that pays.
    for _ in 0..REQUESTS {
        assert_eq!(neighbour.call(&["GET", "key"]), b"$5\r\nvalue\r\n");
    }
    let before = cpu_of(id);
    std::thread::sleep(LOOK);
    let cpu = cpu_of(id) - before;
    assert!(cpu < LOOK / 4, "{cpu:?} of CPU while nobody asks");
}

#[test]
fn without_a_free_file_new_clients_wait_and_nobody_else_notices() {
    const FREE: u64 = 10;
    const CLIENTS: usize = 30;
    const LOOK: Duration = Duration::from_secs(1);
    let redis = RedisServer::start(Durability::Memory);
    let (mut proxy, mut neighbour) = settled(&redis);
    let files = held(&redis, &mut proxy).files as u64;
    let id = proxy.process().id();
    let pid = Pid::from_raw(i32::try_from(id).unwrap());
    let limit = Rlimit {
        current: Some(files + FREE),
        maximum: Some(files + FREE),
    };
    prlimit(pid, Resource::Nofile, limit).unwrap();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| crowd::Plain::connect(&proxy.address())).collect();
    wait_until(DEADLINE, "an accept has failed", || {
        proxy.log_text().contains("could not be accepted")
    });
    let (before, begin) = (cpu_of(id), Instant::now());
    while begin.elapsed() < LOOK {
        assert_eq!(neighbour.call(&["GET", "key"]), b"$5\r\nvalue\r\n");
        std::thread::sleep(Duration::from_millis(10));
    }
    let cpu = cpu_of(id) - before;
    assert!(cpu < LOOK / 4, "{cpu:?} of CPU while waiting for a file");
    let mut last = clients.pop().unwrap();
    drop(clients);
    last.set_and_get();
    assert_eq!(proxy.mode(), "healthy");
}
