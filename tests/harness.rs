//! The harness itself, on redis-server alone: a check that cannot fail proves nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use support::load::{self, Attempt, Kind, Load, Outcome};
use support::{Client, Durability, RedisServer};

#[test]
fn a_killed_server_keeps_what_it_acknowledged_and_an_emptied_one_nothing() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    assert_eq!(redis.client().call(&["SET", "k", "v"]), b"+OK\r\n");
    redis.kill();
    assert!(Client::try_connect(&redis.address(), Duration::from_secs(1)).is_err());
    redis.restart();
    assert_eq!(redis.client().call(&["GET", "k"]), b"$1\r\nv\r\n");
    redis.restart_empty();
    assert_eq!(redis.client().call(&["GET", "k"]), b"$-1\r\n");
}

#[test]
fn a_frozen_server_accepts_and_answers_when_it_wakes() {
    let redis = RedisServer::start(Durability::Memory);
    redis.stop();
    let mut client = Client::try_connect(&redis.address(), Duration::from_millis(100)).unwrap();
    client.send(&["PING"]);
    assert!(client.try_reply().is_err());
    redis.cont();
    client.set_timeout(support::DEADLINE);
    assert_eq!(client.reply(), b"+PONG\r\n");
}

#[test]
fn a_reply_is_read_to_its_end_whatever_its_type() {
    let redis = RedisServer::start(Durability::Memory);
    let mut client = redis.client().hello3();
    for (line, expected) in [
        ("DEBUG PROTOCOL map", b"%3\r\n:0\r\n#f\r\n:1\r\n#t\r\n:2\r\n#f\r\n".as_slice()),
        ("DEBUG PROTOCOL attrib", b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n$39\r\nSome real reply following the attribute\r\n"),
        ("DEBUG PROTOCOL verbatim", b"=29\r\ntxt:This is a verbatim\nstring\r\n"),
        ("DEBUG PROTOCOL null", b"_\r\n"),
        ("DEBUG PROTOCOL double", b",3.141\r\n"),
        ("DEBUG PROTOCOL bignum", b"(1234567999999999999999999999999999999\r\n"),
        ("DEBUG PROTOCOL set", b"~3\r\n:0\r\n:1\r\n:2\r\n"),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let reply = client.call(&args);
        assert!(reply == expected, "{line}: {}", support::shown(&reply));
    }
    assert_eq!(client.call(&["PING"]), b"+PONG\r\n");
}

/// What a load of a moment did to a Redis of its own.
fn loaded() -> (RedisServer, Vec<Attempt>) {
    let redis = RedisServer::start(Durability::Memory);
    let load = Load::start(&redis.address(), 2);
    load.wait_for_more(100);
    let attempts = load.finish();
    (redis, attempts)
}

#[test]
fn a_load_without_failure_is_applied_and_accounted_for() {
    let begin = Instant::now();
    let (redis, attempts) = loaded();
    load::assert_none_lost(&attempts);
    load::assert_no_error_after(&attempts, begin);
    load::assert_uncertain_at_most(&attempts, 0);
    load::assert_applied(&mut redis.client(), &attempts);
}

#[test]
fn lost_repeated_reordered_and_refused_but_applied_writes_are_found() {
    for damage in [
        ["LPOP", "list:0"].as_slice(),
        &["LMOVE", "list:0", "list:0", "LEFT", "RIGHT"],
        &["RPUSH", "list:1", "3"],
        &["XTRIM", "stream:1", "MAXLEN", "10"],
        &["XADD", "stream:0", "*", "v", "1"],
        &["HDEL", "hash:0", "5"],
        &["DEL", "key:1:7"],
        &["RPUSH", "list:0", "99999999"],
    ] {
        let (redis, attempts) = loaded();
        redis.client().call(damage);
        let found = catch_unwind(AssertUnwindSafe(|| {
            load::assert_applied(&mut redis.client(), &attempts)
        }));
        assert!(found.is_err(), "{damage:?} went unnoticed");
    }
    let (redis, mut attempts) = loaded();
    let refused = attempts.iter_mut().find(|attempt| attempt.kind == Kind::Xadd).unwrap();
    refused.outcome = Outcome::Refused("UNAVAILABLE".to_owned());
    let found = catch_unwind(AssertUnwindSafe(|| {
        load::assert_applied(&mut redis.client(), &attempts)
    }));
    assert!(found.is_err(), "a refused write that was applied went unnoticed");
}
