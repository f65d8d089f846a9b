//! tideover itself dies, is ended, or is started twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::time::{Duration, Instant};

use support::load::{self, Load};
use support::{
    Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, await_down, integer, numbers, push,
};

const BACKLOG: usize = 500;

#[track_caller]
fn assert_list(redis: &RedisServer, expected: std::ops::Range<usize>) {
    assert_eq!(
        array(&redis.client().call(&["LRANGE", "l", "0", "-1"])),
        numbers(expected)
    );
}

fn durable() -> Settings {
    Settings {
        fsync: "always",
        ..Settings::default()
    }
}

#[test]
fn a_backlog_survives_kill_9_and_is_replayed_once() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let mut proxy = Tideover::start_with(&redis, &durable());
    proxy.wait_for_mode("healthy", DEADLINE);
    push(&mut proxy.client(), 0..10);
    redis.kill();
    await_down(&proxy);
    push(&mut proxy.client(), 10..BACKLOG);
    proxy.kill();
    proxy.restart();
    proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(proxy.backlog(), (BACKLOG - 10) as u64);
    push(&mut proxy.client(), BACKLOG..BACKLOG + 10);
    redis.restart();
    proxy.wait_for_recovery();
    assert_list(&redis, 0..BACKLOG + 10);

    // What was replayed stays replayed: not by the next start, not after the next outage.
    proxy.kill();
    proxy.restart();
    proxy.wait_for_recovery();
    redis.kill();
    await_down(&proxy);
    redis.restart();
    proxy.wait_for_recovery();
    assert_list(&redis, 0..BACKLOG + 10);
}

/// Whoever journals a script by its hash has given its text before; Redis and tideover have both forgotten it by then.
#[test]
fn scripts_journaled_by_their_hash_are_applied_after_both_were_started_again() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let settings = Settings {
        more: "[[upstream.rule]]\ncommands = [\"EVALSHA\"]\nkeys = [\"s\"]\nwhen_down = \"queue\"\nreply = \"_\"\n"
            .to_owned(),
        ..durable()
    };
    let mut proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let hash = proxy
        .client()
        .call(&["SCRIPT", "LOAD", "redis.call('RPUSH', KEYS[1], ARGV[1])"]);
    let hash = array(&[b"*1\r\n".to_vec(), hash].concat()).remove(0);
    let add = |proxy: &Tideover, arg: &str| proxy.client().call(&["EVALSHA", &hash, "1", "s", arg]);
    redis.kill();
    await_down(&proxy);
    assert_eq!(add(&proxy, "before"), b"$-1\r\n");
    proxy.kill();
    proxy.restart();
    proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(add(&proxy, "behind"), b"$-1\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    assert_eq!(add(&proxy, "after"), b"$-1\r\n");
    let list = redis.client().call(&["LRANGE", "s", "0", "-1"]);
    assert_eq!(array(&list), ["before", "behind", "after"]);
}

#[test]
fn scripts_that_redis_did_not_take_are_not_given_to_it_and_a_refused_flush_forgets_none() {
    let redis = RedisServer::start(Durability::Memory);
    let mut proxy = Tideover::start(&redis);
    proxy.wait_for_mode("healthy", DEADLINE);
    redis
        .client()
        .call(&["ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all", "-@scripting"]);
    let (mut alice, mut bob) = (proxy.client(), proxy.client());
    assert_eq!(bob.call(&["AUTH", "bob", "pw"]), b"+OK\r\n");
    assert_eq!(
        alice.call(&["EVAL", "return redis.error_reply('taken')", "0"]),
        b"-ERR taken\r\n"
    );
    assert_eq!(alice.call(&["EVAL", "return 1"])[0], b'-');
    assert_eq!(alice.call(&["SCRIPT", "LOAD", "no lua"])[0], b'-');
    assert_eq!(bob.call(&["EVAL", "return 'planted'", "0"])[0], b'-');
    assert_eq!(bob.call(&["SCRIPT", "FLUSH"])[0], b'-');
    assert_eq!(alice.call(&["MULTI"]), b"+OK\r\n");
    assert_eq!(alice.call(&["SCRIPT", "FLUSH"]), b"+QUEUED\r\n");
    assert_eq!(alice.call(&["DISCARD"]), b"+OK\r\n");
    let kept = |proxy: &Tideover| std::fs::read_to_string(proxy.data_dir().join("main/scripts")).unwrap();
    let one = "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$33\r\nreturn redis.error_reply('taken')\r\n";
    assert_eq!(kept(&proxy), one);
    // A large one, in two pieces.
    let large = format!("return 2{}", " ".repeat(200 << 10));
    let load = support::command(&["SCRIPT", "LOAD", &large]);
    let (first, second) = load.split_at(load.len() - 10);
    alice.send_raw(first);
    assert_eq!(proxy.client().call(&["PING"]), b"+PONG\r\n");
    alice.send_raw(second);
    assert_eq!(alice.reply()[0], b'$');
    assert!(kept(&proxy).ends_with(std::str::from_utf8(&load).unwrap()));
    proxy.kill();
    proxy.restart();
    proxy.wait_for_mode("healthy", DEADLINE);
    assert_eq!(proxy.client().call(&["SCRIPT", "FLUSH"]), b"+OK\r\n");
    assert_eq!(kept(&proxy), "");
}

#[test]
fn a_backlog_survives_kill_9_while_redis_is_frozen() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let mut proxy = Tideover::start_with(&redis, &durable());
    proxy.wait_for_mode("healthy", DEADLINE);
    push(&mut proxy.client(), 0..10);
    redis.stop();
    proxy.wait_for_mode("down", DEADLINE);
    push(&mut proxy.client(), 10..BACKLOG);
    proxy.kill();
    proxy.restart();
    push(&mut proxy.client(), BACKLOG..BACKLOG + 10);
    redis.cont();
    proxy.wait_for_recovery();
    assert_list(&redis, 0..BACKLOG + 10);
}

#[test]
fn bytes_sent_before_the_crash_are_fenced_by_the_next_process() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let mut proxy = Tideover::start_with(&redis, &durable());
    proxy.wait_for_mode("healthy", DEADLINE);
    assert_eq!(proxy.client().call(&["SET", "k", "0"]), b"+OK\r\n");
    redis.stop();
    let mut caught = proxy.client();
    caught.send(&["SET", "k", "1"]);
    // The command is in Redis's socket, unread, when the proxy dies: it may run when Redis wakes, but not after what follows.
    proxy.wait_for_mode("down", DEADLINE);
    proxy.kill();
    proxy.restart();
    assert_eq!(proxy.client().call(&["SET", "k", "2"]), b"+OK\r\n");
    redis.cont();
    proxy.wait_for_recovery();
    assert_eq!(redis.client().call(&["GET", "k"]), b"$1\r\n2\r\n");
}

#[test]
fn every_acknowledged_write_survives_kill_9_under_load() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let mut proxy = Tideover::start_with(&redis, &durable());
    proxy.wait_for_mode("healthy", DEADLINE);
    redis.kill();
    await_down(&proxy);
    let load = Load::start(&proxy.address(), 4);
    load.wait_for_more(100);
    proxy.kill();
    let attempts = load.finish();
    proxy.restart();
    redis.restart();
    proxy.wait_for_recovery();
    load::assert_uncertain_at_most(&attempts, 0);
    load::assert_applied(&mut redis.client(), &attempts);
}

#[test]
fn kill_9_in_the_middle_of_replay_repeats_nothing() {
    const MANY: usize = 20_000;
    let mut redis = RedisServer::start(Durability::Memory);
    let mut proxy = Tideover::start_with(&redis, &Settings::default());
    proxy.wait_for_mode("healthy", DEADLINE);
    redis.stop();
    proxy.wait_for_mode("down", DEADLINE);
    push(&mut proxy.client(), 0..MANY);
    redis.cont();
    let mut direct = redis.client();
    for part in 1..=3_i64 {
        let wanted = part * (MANY as i64) / 5;
        support::wait_until(DEADLINE, "a part of the backlog is replayed", || {
            integer(&direct.call(&["LLEN", "l"])) >= wanted
        });
        proxy.restart();
    }
    proxy.wait_for_recovery();
    assert_list(&redis, 0..MANY);
    redis.kill();
}

#[test]
fn redis_killed_in_the_middle_of_replay_repeats_nothing() {
    const MANY: usize = 20_000;
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    redis.kill();
    await_down(&proxy);
    push(&mut proxy.client(), 0..MANY);
    for part in 0..3_i64 {
        redis.restart();
        let wanted = part * (MANY as i64) / 5 + 1;
        let mut direct = redis.client();
        support::wait_until(DEADLINE, "a part of the backlog is replayed", || {
            integer(&direct.call(&["LLEN", "l"])) >= wanted
        });
        redis.kill();
    }
    redis.restart();
    proxy.wait_for_recovery();
    assert_list(&redis, 0..MANY);
}

#[test]
fn a_second_process_on_the_same_data_directory_refuses_to_start() {
    let redis = RedisServer::start(Durability::Memory);
    let first = Tideover::healthy(&redis);
    let mut second = Tideover::prepare(
        &redis,
        &Settings {
            data_dir: Some(first.data_dir()),
            ..Settings::default()
        },
    );
    second.launch();
    let status = second.process().wait_for_exit(DEADLINE);
    assert!(!status.success());
    assert!(
        second.log_text().contains(&first.data_dir().display().to_string()),
        "{}",
        second.log_text()
    );
    assert_eq!(first.client().call(&["PING"]), b"+PONG\r\n");
}

#[test]
fn a_second_process_on_the_same_address_refuses_to_start() {
    let redis = RedisServer::start(Durability::Memory);
    let first = Tideover::healthy(&redis);
    let mut second = Tideover::prepare(&redis, &Settings::default());
    let config = std::fs::read_to_string(second.config())
        .unwrap()
        .replace(&second.address(), &first.address());
    std::fs::write(second.config(), config).unwrap();
    second.launch();
    assert!(!second.process().wait_for_exit(DEADLINE).success());
    assert!(second.log_text().contains(&first.address()), "{}", second.log_text());
}

#[test]
fn sigterm_ends_with_0_though_clients_are_idle_or_blocked() {
    const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
    let redis = RedisServer::start(Durability::Memory);
    let mut proxy = Tideover::start_with(
        &redis,
        &Settings {
            shutdown_timeout: SHUTDOWN_TIMEOUT,
            ..Settings::default()
        },
    );
    proxy.wait_for_mode("healthy", DEADLINE);
    let mut idle: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
    assert_eq!(idle[0].call(&["PING"]), b"+PONG\r\n");
    idle[1].send(&["BLPOP", "q", "0"]);
    idle[2].call(&["SUBSCRIBE", "channel"]);
    idle[3].call(&["MULTI"]);
    let begin = Instant::now();
    let status = proxy.terminate(SHUTDOWN_TIMEOUT + Duration::from_secs(2));
    assert_eq!(status.code(), Some(0), "after {:?}", begin.elapsed());
}

#[test]
fn sigterm_during_an_outage_keeps_the_backlog() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let mut proxy = Tideover::healthy(&redis);
    redis.kill();
    await_down(&proxy);
    push(&mut proxy.client(), 0..BACKLOG);
    assert_eq!(proxy.terminate(DEADLINE).code(), Some(0));
    redis.restart();
    proxy.restart();
    proxy.wait_for_recovery();
    assert_list(&redis, 0..BACKLOG);
}
