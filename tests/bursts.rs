//! Replies that leave together, and those that must not wait for it: each client gets each reply once, whole and in order.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::thread;

use rustix::process::Signal;
use support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, bulk, check, command, wait_until};

/// More than one burst holds.
const CROWD: usize = 300;

/// One worker: all meet in its turns.
fn start(redis: &RedisServer, uring: &str) -> Tideover {
    let proxy = Tideover::start_with(
        redis,
        &Settings {
            workers: 1,
            top: format!("io_uring = \"{uring}\""),
            ..Settings::default()
        },
    );
    proxy.wait_for_mode("healthy", DEADLINE);
    proxy
}

/// Pipelines what is answered from Redis, here, and with replies too large for a burst, all mixed up.
fn talk(address: &str, number: u64) {
    let mut random = fastrand::Rng::with_seed(number);
    let mut client = Client::connect(address);
    for round in 0..300 {
        let mut requests = Vec::new();
        let mut expected = Vec::new();
        for at in 0..random.usize(1..12) {
            let word = format!("{number}-{round}-{at}");
            let (request, reply) = match random.u8(0..4) {
                0 => (command(&["GET", "large"]), bulk("x".repeat(5000))),
                1 => (command(&["CLIENT", "SETNAME", "n"]), b"+OK\r\n".to_vec()),
                2 => (command(&["GET", "huge"]), bulk("y".repeat(100_000))),
                _ => (command(&["ECHO", &word]), bulk(&word)),
            };
            requests.extend(request);
            expected.push(reply);
        }
        client.send_raw(&requests);
        for reply in expected {
            assert_eq!(
                client.reply().escape_ascii().to_string(),
                reply.escape_ascii().to_string(),
                "client {number}, round {round}"
            );
        }
    }
}

fn everybody_talks(uring: &str) {
    let redis = RedisServer::start(Durability::Memory);
    let mut direct = redis.client();
    check(&mut direct, &format!("SET large {}", "x".repeat(5000)), b"+OK\r\n");
    check(&mut direct, &format!("SET huge {}", "y".repeat(100_000)), b"+OK\r\n");
    let proxy = start(&redis, uring);
    let address = proxy.address();
    thread::scope(|scope| {
        for number in 0..12 {
            let address = &address;
            scope.spawn(move || talk(address, number));
        }
    });
}

#[test]
fn replies_of_all_kinds_leave_once_and_in_order() {
    everybody_talks("auto");
}

#[test]
fn without_io_uring_it_is_the_same() {
    everybody_talks("off");
}

#[test]
fn a_message_reaches_each_subscriber_once_whatever_else_it_is_told() {
    let redis = RedisServer::start(Durability::Memory);
    let proxy = start(&redis, "auto");
    let mut subscribers: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = proxy.client().hello3();
            client.send(&["SUBSCRIBE", "news"]);
            assert_eq!(client.reply(), b">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
            client
        })
        .collect();
    let mut publisher = redis.client();
    for number in 0..300 {
        subscribers
            .iter_mut()
            .for_each(|subscriber| subscriber.send(&["CLIENT", "SETNAME", "n"]));
        let text = format!("message-{number}");
        publisher.send(&["PUBLISH", "news", &text]);
        for subscriber in &mut subscribers {
            let mut got = [subscriber.reply(), subscriber.reply()];
            got.sort();
            let message = [b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n".to_vec(), bulk(&text)].concat();
            assert_eq!(got, [b"+OK\r\n".to_vec(), message]);
        }
    }
}

#[test]
fn a_crowd_is_answered_by_more_than_one_burst() {
    let redis = RedisServer::start(Durability::Memory);
    let mut proxy = start(&redis, "auto");
    let mut clients: Vec<Client> = (0..CROWD).map(|_| proxy.client()).collect();
    for round in 0..5 {
        // All of them are there when it looks again.
        proxy.process().signal(Signal::STOP);
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&["ECHO", &format!("{round}-{number}")]);
        }
        proxy.process().signal(Signal::CONT);
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.reply(), bulk(format!("{round}-{number}")));
        }
    }
}

#[test]
fn what_redis_answered_reaches_a_client_that_may_be_closed_in_the_same_turn() {
    let mut redis = RedisServer::start(Durability::Memory);
    let mut proxy = start(&redis, "auto");
    let mut client = proxy.client();
    // Its own connection carries both.
    client.call(&["CLIENT", "ID"]);
    check(&mut client, "SET n 0", b"+OK\r\n");
    redis.stop();
    let requests = [command(&["INCR", "n"]), command(&["BLPOP", "q", "0"])].concat();
    client.send_raw(&requests);
    wait_until(DEADLINE, "the requests have reached Redis", || {
        unread_bytes_max(redis.port()) >= requests.len()
    });
    proxy.process().signal(Signal::STOP);
    redis.cont();
    let mut direct = redis.client();
    wait_until(DEADLINE, "Redis has executed INCR", || {
        direct.call(&["GET", "n"]) == bulk("1")
    });
    redis.kill();
    proxy.process().signal(Signal::CONT);
    // Whether BLPOP goes on waiting, or ends the connection, depends on whether Redis is known to have begun it.
    assert_eq!(client.reply(), b":1\r\n");
}

/// The most bytes that wait unread on any connection accepted on this port, as `/proc/net/tcp` tells.
fn unread_bytes_max(port: u16) -> usize {
    let local = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let unread_bytes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // local address, remote address, state, sent:unread
        let (_, unread) = fields[4].split_once(':')?;
        fields[1]
            .ends_with(&local)
            .then(|| usize::from_str_radix(unread, 16).unwrap())
    });
    unread_bytes.max().unwrap_or_default()
}
