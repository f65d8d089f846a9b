//! While Redis is away: what a client is told, and that it was true.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod blocking;
mod connecting;
mod pubsub;
#[path = "../support/mod.rs"]
mod support;
mod tracking;
mod transactions;

use std::time::{Duration, Instant};

use support::load::UNCERTAIN;
use support::{
    Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, await_down, bulk, check, error_text, shown,
};

/// A proxy whose Redis has been killed, and which knows.
fn down() -> (RedisServer, Tideover) {
    down_with(&Settings::default())
}

fn down_with(settings: &Settings) -> (RedisServer, Tideover) {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::start_with(&redis, settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    redis.kill();
    await_down(&proxy);
    (redis, proxy)
}

#[test]
fn reads_are_answered_as_an_empty_redis_would() {
    let script = "
        GET k
        MGET a b
        EXISTS k
        STRLEN k
        GETRANGE k 0 -1
        TTL k
        PTTL k
        TYPE k
        KEYS *
        DBSIZE
        RANDOMKEY
        SCAN 0
        HGET h f
        HGETALL h
        HMGET h f g
        HKEYS h
        HLEN h
        HEXISTS h f
        HSCAN h 0
        LRANGE l 0 -1
        LLEN l
        LINDEX l 0
        LPOS l x
        SMEMBERS s
        SISMEMBER s m
        SMISMEMBER s m n
        SCARD s
        SRANDMEMBER s
        SRANDMEMBER s 3
        SINTER s t
        ZRANGE z 0 -1
        ZRANGE z 0 -1 WITHSCORES
        ZSCORE z m
        ZMSCORE z m n
        ZRANK z m
        ZCARD z
        ZCOUNT z -inf +inf
        XRANGE x - +
        XLEN x
        XREAD STREAMS x 0
        GETBIT b 1
        BITCOUNT b
        PFCOUNT p
        GEOPOS g m
        LPOP l
        LPOP l 2
        RPOP l
        SPOP s
        SPOP s 2
        ZPOPMIN z
        GET
        GET a b
        LRANGE l x y
        PING
        PING text
        ECHO text
    ";
    let (_gone, proxy) = down();
    let empty = RedisServer::start(Durability::Memory);
    for connect in [|client: Client| client, Client::hello3] {
        let (mut expected, mut got) = (connect(empty.client()), connect(proxy.client()));
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let args: Vec<&str> = line.split_whitespace().collect();
            check(&mut got, line, &expected.call(&args));
        }
    }
    check(&mut proxy.client().hello3(), "GET k", b"_\r\n");
    assert_eq!(proxy.backlog(), 0, "reads and pops are never journaled");
}

#[test]
fn writes_whose_reply_decides_are_refused_and_not_applied() {
    let (mut redis, proxy) = down();
    let mut client = proxy.client();
    let refused = [
        "INCR refused",
        "INCRBY refused 5",
        "DECR refused",
        "INCRBYFLOAT refused 1.5",
        "APPEND refused x",
        "SET refused v NX",
        "SET refused v XX",
        "SET refused v GET",
        "SETNX refused v",
        "MSETNX refused v",
        "GETSET refused v",
        "GETDEL refused",
        "HINCRBY refused f 1",
        "HSETNX refused f v",
        "ZINCRBY refused 1 m",
        "ZADD refused INCR 1 m",
        "RENAME other refused",
        "SUNIONSTORE refused a b",
        "EVAL return(redis.call('SET',KEYS[1],1)) 1 refused",
        "EVALSHA ffffffffffffffffffffffffffffffffffffffff 1 refused",
        "SCAN 17",
        "WATCH refused",
    ];
    for line in refused {
        let args: Vec<&str> = line.split_whitespace().collect();
        let reply = client.call(&args);
        let text = error_text(&reply).unwrap_or_else(|| panic!("{line} answered {}", shown(&reply)));
        assert!(text.starts_with("UNAVAILABLE "), "{line}: {text}");
        assert!(!text.contains(" may "), "{line}: {text}");
    }
    let text = error_text(&client.call(&["INCR", "refused"])).unwrap();
    assert!(text.contains("INCR was not applied") && text.contains("main"), "{text}");
    assert_eq!(proxy.backlog(), 0);
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut redis.client(), "EXISTS refused", b":0\r\n");
}

#[test]
fn blind_writes_are_acknowledged_as_redis_would_and_replayed() {
    let (mut redis, proxy) = down();
    let mut client = proxy.client();
    let acknowledged: [(&str, &[u8]); 24] = [
        ("SET k v", b"+OK\r\n"),
        ("SETEX e 1000 v", b"+OK\r\n"),
        ("PSETEX pe 1000000 v", b"+OK\r\n"),
        ("MSET a 1 b 2", b"+OK\r\n"),
        ("DEL nothing", b":1\r\n"),
        ("DEL nothing nothing other", b":2\r\n"),
        ("UNLINK nothing", b":1\r\n"),
        ("HSET h f 1 g 2", b":2\r\n"),
        ("HSET h2 f 1 f 2", b":1\r\n"),
        ("HMSET h3 f 1", b"+OK\r\n"),
        ("HDEL h g", b":1\r\n"),
        ("SADD s a b a", b":2\r\n"),
        ("SREM s a", b":1\r\n"),
        ("RPUSH l 1 2 3", b":3\r\n"),
        ("LPUSH l 0", b":1\r\n"),
        ("LTRIM l 0 2", b"+OK\r\n"),
        ("ZADD z 1 a 2 b", b":2\r\n"),
        ("ZREM z a", b":1\r\n"),
        ("EXPIRE k 1000", b":1\r\n"),
        ("PERSIST k", b":1\r\n"),
        ("PFADD p a", b":1\r\n"),
        ("GEOADD g 13.361389 38.115556 Palermo", b":1\r\n"),
        ("SELECT 3", b"+OK\r\n"),
        ("SET in3 v", b"+OK\r\n"),
    ];
    for (line, expected) in acknowledged {
        check(&mut client, line, expected);
    }
    let id = client.call(&["XADD", "x", "*", "f", "v"]);
    assert!(
        id.starts_with(b"$") && id.contains(&b'-'),
        "a stream ID, not {}",
        shown(&id)
    );
    redis.restart();
    proxy.wait_for_recovery();
    let mut direct = redis.client();
    for (line, expected) in [
        ("GET k", bulk("v")),
        ("TTL k", b":-1\r\n".to_vec()),
        ("MGET a b", [b"*2\r\n".to_vec(), bulk("1"), bulk("2")].concat()),
        ("HGET h f", bulk("1")),
        ("HEXISTS h g", b":0\r\n".to_vec()),
        ("HGET h2 f", bulk("2")),
        ("SMEMBERS s", [b"*1\r\n".to_vec(), bulk("b")].concat()),
        (
            "LRANGE l 0 -1",
            [b"*3\r\n".to_vec(), bulk("0"), bulk("1"), bulk("2")].concat(),
        ),
        ("ZRANGE z 0 -1", [b"*1\r\n".to_vec(), bulk("b")].concat()),
        ("ZCARD g", b":1\r\n".to_vec()),
        ("EXISTS in3 x", b":0\r\n".to_vec()),
        ("SELECT 3", b"+OK\r\n".to_vec()),
        ("GET in3", bulk("v")),
        ("XLEN x", b":1\r\n".to_vec()),
    ] {
        check(&mut direct, line, &expected);
    }
}

#[test]
fn what_redis_would_refuse_for_its_arguments_is_refused_with_its_own_words() {
    let (_gone, proxy) = down();
    let reference = RedisServer::start(Durability::Memory);
    let (mut expected, mut got) = (reference.client(), proxy.client());
    for line in [
        "SET k",
        "SET k v EX 0",
        "SET k v EX abc",
        "SET k v EX 10 PX 10",
        "SET k v NONSENSE",
        "SETEX k -1 v",
        "EXPIRE k abc",
        "HSET h f",
        "MSET a 1 b",
        "ZADD z abc m",
        "LTRIM l a b",
        "XADD x * f",
        "XADD x nonsense f v",
        "RPUSH l",
    ] {
        let args: Vec<&str> = line.split_whitespace().collect();
        check(&mut got, line, &expected.call(&args));
    }
    assert_eq!(proxy.backlog(), 0);
}

#[test]
fn a_rule_queues_what_the_table_refuses() {
    let rule =
        "[[upstream.rule]]\ncommands = [\"INCR\"]\nkeys = [\"stats:*\"]\nwhen_down = \"queue\"\nreply = \":1\"\n";
    let (mut redis, proxy) = down_with(&Settings {
        more: rule.to_owned(),
        ..Settings::default()
    });
    let mut client = proxy.client();
    for _ in 0..5 {
        check(&mut client, "INCR stats:hits", b":1\r\n");
    }
    assert!(
        error_text(&client.call(&["INCR", "other"]))
            .unwrap()
            .starts_with("UNAVAILABLE ")
    );
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut redis.client(), "GET stats:hits", &bulk("5"));
    check(&mut redis.client(), "EXISTS other", b":0\r\n");
}

#[test]
fn an_id_is_provisional_only_until_its_backlog_is_gone() {
    let (mut redis, proxy) = down();
    let mut client = proxy.client();
    let reply = String::from_utf8(client.call(&["XADD", "s", "*", "f", "v"])).unwrap();
    let id = reply.lines().nth(1).unwrap();
    let refused = error_text(&client.call(&["XACK", "s", "g", id])).unwrap();
    assert!(refused.starts_with("UNAVAILABLE "), "{refused}");
    redis.restart();
    proxy.wait_for_recovery();
    redis.kill();
    await_down(&proxy);
    check(&mut client, &format!("XACK s g {id}"), b":1\r\n");
}

#[test]
fn an_id_given_while_down_is_never_older_than_what_the_session_saw_before() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    // Of a clock that is ahead of ours, or of a client that chooses.
    check(&mut client, "XADD s 9999999999999-7 f v", &bulk("9999999999999-7"));
    let mut pipeline = support::command(&["XADD", "t", "9999999999999-1", "f", "v"]);
    pipeline.extend(support::command(&["GETDEL", "nothing"]));
    pipeline.extend(support::command(&["XADD", "t", "9999999999999-2", "f", "v"]));
    client.send_raw(&pipeline);
    (0..3).for_each(|_| drop(client.reply()));
    redis.kill();
    await_down(&proxy);
    check(&mut client, "XADD s * f v", &bulk("9999999999999-8"));
    check(&mut client, "XADD t * f v", &bulk("9999999999999-3"));
    check(&mut client, "XADD t 9999999999999-9 f v", &bulk("9999999999999-9"));
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut redis.client(), "XLEN t", b":4\r\n");
    let changed = "tideover_stream_ids_changed_total{upstream=\"main\"} 2";
    support::wait_until(DEADLINE, changed, || proxy.get("/metrics").1.contains(changed));
}

#[test]
fn a_session_that_was_connected_before_and_after_never_notices() {
    let (mut redis, proxy) = down();
    let mut client = proxy.client().hello3();
    check(&mut client, "SELECT 5", b"+OK\r\n");
    check(&mut client, "SET here 1", b"+OK\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut client, "GET here", &bulk("1"));
    check(&mut client, "HGETALL nothing", b"%0\r\n");
    check(&mut client, "EVAL return(redis.call('GET','here')) 0", &bulk("1"));
}
