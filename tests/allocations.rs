//! Calls to the allocator per request, of a tideover that runs in this process beside a redis-server that does not, and a client that
//! makes none.
//!
//! Counted in short rounds, and the middle one of them tells: what goes by the clock (health, numbers published, ticks: some 300 calls a
//! second) and what is done once (dialling, learning the upstream's commands, buffers that grow to their size) falls into few of them, what is
//! done for each request into all.
//!
//! The bounds are what was found, not what would be tolerable: one that is exceeded says that a request costs more than it did.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::alloc::System;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};

use rustix::process::{Signal, getpid, kill_process};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::{Client, DEADLINE, Durability, Port, RedisServer, bulk, command, wait_until};
use tempfile::TempDir;
use tideover::config::{Flags, Outside, load};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUND_REQUESTS: usize = 160;
/// 20,000 requests.
const ROUNDS: usize = 125;
/// Where the journal, on a disk, is in the way.
const ROUNDS_JOURNALED: usize = 15;

const OK: &[u8] = b"+OK\r\n";
const NULL: &[u8] = b"$-1\r\n";

/// A client that allocates nothing while it talks: it sends the same requests again and again, and expects the same replies.
struct Talker {
    stream: TcpStream,
    requests: Vec<u8>,
    expected: Vec<u8>,
    replies: Vec<u8>,
}

impl Talker {
    fn new(address: &str, request: &[&str], reply: &[u8], depth: usize) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let expected = reply.repeat(depth);
        Self {
            stream,
            requests: command(request).repeat(depth),
            replies: vec![0; expected.len()],
            expected,
        }
    }

    fn send(&mut self) {
        self.stream.write_all(&self.requests).unwrap();
    }

    fn receive(&mut self) {
        self.stream.read_exact(&mut self.replies).unwrap();
        assert_eq!(self.replies, self.expected);
    }
}

/// Who asks, and how much at once.
#[derive(Clone, Copy)]
struct Shape {
    clients: usize,
    depth: usize,
}

const ONE_BY_ONE: Shape = Shape { clients: 1, depth: 1 };
const PIPELINES: Shape = Shape { clients: 1, depth: 16 };
const CLIENTS: Shape = Shape { clients: 8, depth: 2 };

/// Calls to the allocator in the middle one of `rounds` rounds.
fn calls_per_round(address: &str, request: &[&str], reply: &[u8], shape: Shape, rounds: usize) -> usize {
    let mut talkers: Vec<Talker> = (0..shape.clients)
        .map(|_| Talker::new(address, request, reply, shape.depth))
        .collect();
    let mut calls = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let region = Region::new(ALLOCATOR);
        for _ in 0..ROUND_REQUESTS / (shape.clients * shape.depth) {
            talkers.iter_mut().for_each(Talker::send);
            talkers.iter_mut().for_each(Talker::receive);
        }
        let change = region.change();
        calls.push(change.allocations + change.reallocations);
    }
    let (_, middle, _) = calls.select_nth_unstable(rounds / 2);
    *middle
}

struct Tideover {
    address: String,
    thread: JoinHandle<ExitCode>,
    _dir: TempDir,
    _ports: [Port; 2],
}

impl Tideover {
    fn start(redis: &RedisServer) -> Self {
        let ports = [Port::reserve(), Port::reserve()];
        let [listen, admin] = ports.each_ref().map(Port::address);
        let dir = TempDir::new().unwrap();
        let flags = Flags {
            config: None,
            listen: Some(listen.clone()),
            upstream: Some(redis.url()),
            data_dir: Some(dir.path().to_str().unwrap().to_owned()),
            admin: Some(admin),
            workers: Some("1".to_owned()),
            log_format: None,
            log_level: Some("error".to_owned()),
        };
        let outside = Outside {
            env: &|_| None,
            read: &|_| Err(io::ErrorKind::NotFound.into()),
        };
        let settings = load(&flags, outside).unwrap();
        let thread = thread::spawn(move || tideover::server::run(&settings));
        wait_until(DEADLINE, "tideover listens", || {
            assert!(!thread.is_finished(), "tideover ended before it listened");
            TcpStream::connect(&listen).is_ok()
        });
        Self {
            address: listen,
            thread,
            _dir: dir,
            _ports: ports,
        }
    }

    /// As a supervisor does.
    fn stop(self) {
        kill_process(getpid(), Signal::TERM).unwrap();
        assert_eq!(self.thread.join().unwrap(), ExitCode::SUCCESS);
    }

    /// Asserts that a round of these requests makes no more than `calls_max` calls.
    #[track_caller]
    fn check(&self, request: &[&str], reply: &[u8], shape: Shape, rounds: usize, calls_max: usize) {
        let calls = calls_per_round(&self.address, request, reply, shape, rounds);
        let Shape { clients, depth } = shape;
        let words = request.iter().filter(|word| word.len() < 32).copied();
        let what = format!(
            "{} from {clients} clients, {depth} at once: {calls} calls to the allocator for {ROUND_REQUESTS} requests",
            words.collect::<Vec<_>>().join(" ")
        );
        eprintln!("{what}");
        assert!(calls <= calls_max, "{what}, more than {calls_max}");
    }
}

/// One test, since counting is the process's: nothing else may run meanwhile.
#[test]
fn forwarded_and_neutral_commands_allocate_nothing_and_journaled_ones_only_for_their_batch() {
    let mut redis = RedisServer::start(Durability::Memory);
    let (value, large) = ("v".repeat(64), "v".repeat(8 << 10));
    assert_eq!(redis.client().call(&["SET", "key", &value]), OK);
    assert_eq!(redis.client().call(&["SET", "large", &large]), OK);
    let tideover = Tideover::start(&redis);

    let get: &[&str] = &["GET", "key"];
    tideover.check(get, &bulk(&value), ONE_BY_ONE, ROUNDS, 0);
    tideover.check(get, &bulk(&value), PIPELINES, ROUNDS, 0);
    tideover.check(get, &bulk(&value), CLIENTS, ROUNDS, 0);
    let set: &[&str] = &["SET", "key", &value];
    for shape in [ONE_BY_ONE, PIPELINES, CLIENTS] {
        tideover.check(set, OK, shape, ROUNDS, 0);
    }
    tideover.check(&["SET", "large", &large], OK, ONE_BY_ONE, ROUNDS / 5, 0);
    tideover.check(&["GET", "large"], &bulk(&large), ONE_BY_ONE, ROUNDS / 5, 0);

    redis.kill();
    let mut client = Client::connect(&tideover.address);
    wait_until(DEADLINE, "reads are answered neutrally", || client.call(get) == NULL);
    tideover.check(get, NULL, ONE_BY_ONE, ROUNDS, 0);
    tideover.check(get, NULL, PIPELINES, ROUNDS, 0);
    // Of each batch, which here is one write: its message to the journal's owner, and the owner's two lists of batches.
    tideover.check(set, OK, ONE_BY_ONE, ROUNDS_JOURNALED, 3 * ROUND_REQUESTS);
    // As above, and the option in upper case and the effect.
    let set_ex: &[&str] = &["SET", "key", &value, "EX", "100"];
    tideover.check(set_ex, OK, ONE_BY_ONE, ROUNDS_JOURNALED, 5 * ROUND_REQUESTS);
    // A batch is sixteen of them.
    tideover.check(set, OK, PIPELINES, ROUNDS_JOURNALED, 3 * (ROUND_REQUESTS / 16));
    tideover.stop();
}
