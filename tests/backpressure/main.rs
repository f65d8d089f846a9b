//! What Redis waits for, tideover waits for in bounded memory, and the neighbours never notice.
//!
//! `cargo test` runs a short form. For long: `BACKPRESSURE_MB=512 BACKPRESSURE_GETS=1000000 cargo test --test backpressure -- --nocapture --test-threads 1`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod neighbours;
#[path = "../support/mod.rs"]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use neighbours::Neighbours;
use support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, bulk, command, integer, wait_until};

const BULK_MB: usize = 100;
const GETS: usize = 60_000;
/// Of the process, at its peak.
const RESIDENT_BYTES_MAX: u64 = 40 << 20;
/// The tests share their cores.
const NEIGHBOUR_WAIT_MAX: Duration = Duration::from_millis(400);

/// Bytes per second.
const AT_ONCE: usize = u32::MAX as usize;

fn number_of(variable: &str, or_else: usize) -> usize {
    std::env::var(variable).map_or(or_else, |text| text.parse().expect("a number"))
}

/// One worker, so that all share its lane.
struct Rig {
    redis: RedisServer,
    proxy: Tideover,
}

impl Rig {
    fn start() -> Self {
        Self::start_with(&[], "")
    }

    fn start_with(redis_options: &[&str], limits: &str) -> Self {
        let redis = RedisServer::start_with(Durability::Memory, redis_options);
        let settings = Settings {
            workers: 1,
            command_timeout: Duration::from_secs(2),
            more: format!("[limits]\n{limits}"),
            ..Settings::default()
        };
        let proxy = Tideover::start_with(&redis, &settings);
        proxy.wait_for_mode("healthy", DEADLINE);
        Self { redis, proxy }
    }

    fn stream(&self) -> TcpStream {
        connect(&self.proxy.address())
    }

    fn resident_bytes_peak(&mut self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.proxy.process().id())).unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kb: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
        kb << 10
    }

    #[track_caller]
    fn assert_well(&mut self, what: &str, neighbours: Neighbours) {
        self.assert_well_within(NEIGHBOUR_WAIT_MAX, what, neighbours);
    }

    #[track_caller]
    fn assert_well_within(&mut self, wait_max: Duration, what: &str, neighbours: Neighbours) {
        let (slowest, answered) = neighbours.finish();
        let peak = self.resident_bytes_peak();
        eprintln!("{what}: peak {peak} bytes, neighbours answered {answered}, slowest {slowest:?}");
        assert!(peak < RESIDENT_BYTES_MAX, "{what}: {peak} bytes");
        assert!(slowest < wait_max, "{what}: a neighbour waited {slowest:?}");
        assert_eq!(self.proxy.mode(), "healthy");
    }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Reads exactly so many bytes, at so many per second at most, and gives the last of them.
fn read_at_rate(stream: &mut TcpStream, bytes: usize, per_second: usize) -> Vec<u8> {
    const LAST: usize = 16;
    let begin = Instant::now();
    let mut buffer = vec![0; 64 << 10];
    let mut last = Vec::new();
    let mut got = 0;
    while got < bytes {
        let want = buffer.len().min(bytes - got);
        let read = stream.read(&mut buffer[..want]).unwrap();
        assert!(read > 0, "closed after {got} of {bytes} bytes");
        got += read;
        last.extend_from_slice(&buffer[..read]);
        last.drain(..last.len().saturating_sub(LAST));
        let due = Duration::from_secs_f64(
            f64::from(u32::try_from(got).unwrap()) / f64::from(u32::try_from(per_second).unwrap()),
        );
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    last
}

#[test]
fn a_value_of_any_size_passes_both_ways_in_bounded_memory() {
    const CHUNK: usize = 1 << 20;
    let size = number_of("BACKPRESSURE_MB", BULK_MB) << 20;
    let mut rig = Rig::start();
    // Redis is blocked while it copies the value: as long for those who ask it directly.
    let direct = Neighbours::start(&rig.redis.address(), 4);
    let neighbours = Neighbours::start(&rig.proxy.address(), 4);
    let mut stream = rig.stream();
    write!(stream, "*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${size}\r\n").unwrap();
    let chunk = vec![b'x'; CHUNK];
    for _ in 0..size / CHUNK {
        stream.write_all(&chunk).unwrap();
    }
    stream.write_all(b"\r\n").unwrap();
    assert_eq!(read_at_rate(&mut stream, 5, AT_ONCE), b"+OK\r\n");
    stream.write_all(&command(&["GET", "big"])).unwrap();
    let last = read_at_rate(&mut stream, format!("${size}\r\n").len() + size + 2, AT_ONCE);
    assert_eq!(last, b"xxxxxxxxxxxxxx\r\n");
    stream.write_all(&command(&["STRLEN", "big"])).unwrap();
    let expected = format!(":{size}\r\n");
    assert_eq!(read_at_rate(&mut stream, expected.len(), 1 << 20), expected.as_bytes());
    let (slowest, answered) = direct.finish();
    eprintln!("asked directly: answered {answered}, slowest {slowest:?}");
    rig.assert_well_within(NEIGHBOUR_WAIT_MAX + 2 * slowest, "a big value", neighbours);
}

#[test]
fn a_big_reply_to_a_slow_reader_stalls_nobody() {
    const ELEMENTS: usize = 400;
    const ELEMENT_BYTES: usize = 100_000;
    let mut rig = Rig::start();
    let mut direct = rig.redis.client();
    let element = "e".repeat(ELEMENT_BYTES);
    for _ in 0..ELEMENTS {
        direct.call(&["RPUSH", "list", &element]);
    }
    let neighbours = Neighbours::start(&rig.proxy.address(), 50);
    neighbours.wait_for_more(10);
    let mut stream = rig.stream();
    stream.write_all(&command(&["LRANGE", "list", "0", "-1"])).unwrap();
    let bytes = format!("*{ELEMENTS}\r\n").len() + ELEMENTS * bulk(&element).len();
    let last = read_at_rate(&mut stream, bytes, bytes / 5);
    assert_eq!(last, b"eeeeeeeeeeeeee\r\n");
    rig.assert_well("a slow reader", neighbours);
}

#[test]
fn a_stuck_client_delays_nobody_on_its_lane() {
    let mut rig = Rig::start();
    let mut direct = rig.redis.client();
    direct.call(&["SET", "big", &"x".repeat(12 << 20)]);
    let neighbours = Neighbours::start(&rig.proxy.address(), 50);
    neighbours.wait_for_more(10);
    let mut stuck = Vec::new();
    // Each is buffered up to limits.reply_buffer.
    for _ in 0..2 {
        let mut stream = rig.stream();
        stream.write_all(&command(&["GET", "big"])).unwrap();
        stuck.push(stream);
        neighbours.wait_for_more(20);
    }
    rig.assert_well("stuck clients", neighbours);
}

#[test]
fn a_write_behind_a_stuck_client_is_answered_once_that_is_given_up() {
    let mut rig = Rig::start();
    rig.redis.client().call(&["SET", "big", &"x".repeat(40 << 20)]);
    let mut writer = rig.proxy.client();
    writer.call(&["SET", "written", "0"]);
    let neighbours = Neighbours::start(&rig.proxy.address(), 4);
    let mut stuck = rig.stream();
    // While Redis is frozen both get on the lane, in this order.
    rig.redis.stop();
    stuck.write_all(&command(&["GET", "big"])).unwrap();
    wait_until(DEADLINE, "both are served", || rig.proxy.status()["clients"] == 6);
    writer.send(&["INCR", "written"]);
    rig.redis.cont();
    assert_eq!(integer(&writer.reply()), 1);
    assert_eq!(integer(&writer.call(&["INCR", "written"])), 2);
    // It was cut off in the middle of its reply.
    let mut reply = Vec::new();
    let _ = stuck.read_to_end(&mut reply);
    assert!(reply.len() < 40 << 20);
    let (slowest, _) = neighbours.finish();
    assert!(slowest < Duration::from_secs(4), "a neighbour waited {slowest:?}");
    assert!(rig.resident_bytes_peak() < RESIDENT_BYTES_MAX);
}

#[test]
fn a_write_behind_several_stuck_transactions_waits_for_little_longer_than_twice_for_one() {
    const STUCK: usize = 6;
    let rig = Rig::start();
    wait_until(DEADLINE, "the upstream's commands are known", || {
        rig.proxy.log_text().contains("asked for the upstream's commands")
    });
    rig.redis.client().call(&["SET", "big", &"x".repeat(12 << 20)]);
    let mut writer = rig.proxy.client();
    writer.call(&["SET", "written", "0"]);
    let transaction = [
        command(&["MULTI"]),
        command(&["INCR", "stuck"]),
        command(&["GET", "big"]).repeat(3),
        command(&["EXEC"]),
    ]
    .concat();
    // While Redis is frozen all get on the lane, the writer last.
    rig.redis.stop();
    let stuck: Vec<TcpStream> = (0..STUCK)
        .map(|_| {
            let mut stream = rig.stream();
            stream.write_all(&transaction).unwrap();
            stream
        })
        .collect();
    wait_until(DEADLINE, "all are served", || {
        rig.proxy.status()["clients"] == STUCK + 1
    });
    let begin = Instant::now();
    writer.send(&["INCR", "written"]);
    rig.redis.cont();
    assert_eq!(integer(&writer.reply()), 1);
    let took = begin.elapsed();
    assert!(took > Duration::from_secs(2), "nobody was waited for: {took:?}");
    assert!(took < Duration::from_secs(7), "it waited for each of them: {took:?}");
    assert_eq!(writer.call(&["GET", "stuck"]), bulk(STUCK.to_string()));
    drop(stuck);
}

#[test]
fn a_pipeline_that_is_written_before_anything_is_read_comes_back_whole() {
    let gets = number_of("BACKPRESSURE_GETS", GETS);
    let mut rig = Rig::start();
    let value = "v".repeat(1000);
    rig.redis.client().call(&["SET", "value", &value]);
    let neighbours = Neighbours::start(&rig.proxy.address(), 4);
    let mut stream = rig.stream();
    let mut sender = stream.try_clone().unwrap();
    sender.set_write_timeout(None).unwrap();
    let request = command(&["GET", "value"]).repeat(1000);
    let sending = std::thread::spawn(move || {
        for _ in 0..gets / 1000 {
            sender.write_all(&request).unwrap();
        }
    });
    // It blocks when all buffers on the way are full: those of the kernel, and a bounded part of ours.
    neighbours.wait_for_more(200);
    let bytes = gets * bulk(&value).len();
    assert_eq!(read_at_rate(&mut stream, bytes, AT_ONCE), b"vvvvvvvvvvvvvv\r\n");
    sending.join().unwrap();
    stream.write_all(&command(&["PING"])).unwrap();
    assert_eq!(read_at_rate(&mut stream, 7, 1 << 20), b"+PONG\r\n");
    rig.assert_well("an unread pipeline", neighbours);
}

#[test]
fn a_transaction_of_a_hundred_thousand_commands_is_executed_whole() {
    const COMMANDS: usize = 100_000;
    let mut rig = Rig::start();
    let neighbours = Neighbours::start(&rig.proxy.address(), 4);
    let mut client = rig.proxy.client();
    let mut input = command(&["MULTI"]);
    input.extend(command(&["INCR", "count"]).repeat(COMMANDS));
    input.extend(command(&["EXEC"]));
    let mut sender = client.sender();
    let sending = std::thread::spawn(move || sender.write_all(&input).unwrap());
    assert_eq!(client.reply(), b"+OK\r\n");
    for _ in 0..COMMANDS {
        assert_eq!(client.reply(), b"+QUEUED\r\n");
    }
    let replies = client.reply();
    assert!(replies.starts_with(b"*100000\r\n:1\r\n") && replies.ends_with(b":100000\r\n"));
    sending.join().unwrap();
    assert_eq!(integer(&client.call(&["INCR", "count"])), 100_001);
    rig.assert_well("a long transaction", neighbours);
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_by_redis_as_directly() {
    const MESSAGE_BYTES: usize = 100_000;
    let limit = ["--client-output-buffer-limit", "pubsub 4mb 4mb 1"];
    let mut rig = Rig::start_with(&limit, "");
    let neighbours = Neighbours::start(&rig.proxy.address(), 4);
    let mut publisher = rig.redis.client();
    let message = "m".repeat(MESSAGE_BYTES);
    for address in [rig.redis.address(), rig.proxy.address()] {
        let mut slow = Client::connect(&address);
        slow.call(&["SUBSCRIBE", "channel"]);
        wait_until(DEADLINE, &format!("Redis ends the subscriber at {address}"), || {
            integer(&publisher.call(&["PUBLISH", "channel", &message])) == 0
        });
        // What was on its way still comes, then the end.
        slow.until_closed();
    }
    rig.assert_well("a slow subscriber", neighbours);
}

#[test]
fn a_monitor_that_does_not_read_is_held_in_bounded_memory() {
    const PADDING_BYTES: usize = 10_000;
    let limit = ["--client-output-buffer-limit", "normal 8mb 8mb 1"];
    let mut rig = Rig::start_with(&limit, "");
    let neighbours = Neighbours::start(&rig.proxy.address(), 4);
    let mut monitor = rig.proxy.client();
    assert_eq!(monitor.call(&["MONITOR"]), b"+OK\r\n");
    let mut direct = rig.redis.client();
    let padding = "p".repeat(PADDING_BYTES);
    wait_until(DEADLINE, "Redis ends the monitor", || {
        for _ in 0..100 {
            direct.call(&["ECHO", &padding]);
        }
        let list = direct.call(&["CLIENT", "LIST", "TYPE", "NORMAL"]);
        !list.windows(12).any(|word| word == b" cmd=monitor")
    });
    monitor.until_closed();
    rig.assert_well("a slow monitor", neighbours);
}

#[test]
fn bytes_that_trickle_in_are_answered() {
    let mut rig = Rig::start();
    let neighbours = Neighbours::start(&rig.proxy.address(), 4);
    let mut stream = rig.stream();
    stream.set_nodelay(true).unwrap();
    for byte in command(&["SET", "trickle", "1"]) {
        stream.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(read_at_rate(&mut stream, 5, 1 << 20), b"+OK\r\n");
    rig.assert_well("a trickle", neighbours);
}

#[test]
fn a_client_that_shuts_its_sending_side_gets_all_it_asked_for() {
    const GETS: usize = 2_000;
    let mut rig = Rig::start();
    let value = "v".repeat(1000);
    rig.redis.client().call(&["SET", "value", &value]);
    let neighbours = Neighbours::start(&rig.proxy.address(), 4);
    let mut stream = rig.stream();
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        sender.write_all(&command(&["GET", "value"]).repeat(GETS)).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    neighbours.wait_for_more(20);
    let mut replies = Vec::new();
    stream.read_to_end(&mut replies).unwrap();
    sending.join().unwrap();
    assert_eq!(replies.len(), GETS * bulk(&value).len());
    rig.assert_well("a half-closed client", neighbours);
}

#[test]
fn one_client_too_many_gets_the_error_of_redis_and_the_others_stay() {
    let direct = RedisServer::start_with(Durability::Memory, &["--maxclients", "2"]);
    let rig = Rig::start_with(&[], "clients = 2");
    let converse = |address: &str| {
        let mut first = Client::connect(address);
        assert_eq!(first.call(&["PING"]), b"+PONG\r\n");
        let mut second = Client::connect(address);
        assert_eq!(second.call(&["PING"]), b"+PONG\r\n");
        let refusal = Client::connect(address).until_closed();
        assert_eq!(first.call(&["PING"]), b"+PONG\r\n");
        drop(second);
        wait_until(DEADLINE, "there is room again", || {
            let mut next = TcpStream::connect(address).unwrap();
            next.set_read_timeout(Some(DEADLINE)).unwrap();
            // Refused, it may be reset before it has written.
            let _ = next.write_all(b"PING\r\n");
            let mut reply = [0; 7];
            match next.read_exact(&mut reply) {
                Ok(()) => reply == *b"+PONG\r\n",
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::WouldBlock, "no answer");
                    false
                }
            }
        });
        refusal
    };
    wait_until(DEADLINE, "nobody is connected", || rig.proxy.status()["clients"] == 0);
    let expected = converse(&direct.address());
    support::pair::assert_same("one too many", &expected, &converse(&rig.proxy.address()));
}
