//! Redis comes back: as itself, loading, demoted, empty, full, or with other ideas about a key.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::time::{Duration, Instant};

use support::{
    Client, DEADLINE, Durability, RedisServer, Tideover, array, await_down, bulk, check, error_text, integer, push,
};

/// A proxy whose Redis has been killed, and which knows.
fn down(durability: Durability) -> (RedisServer, Tideover) {
    let mut redis = RedisServer::start(durability);
    let proxy = Tideover::healthy(&redis);
    redis.kill();
    await_down(&proxy);
    (redis, proxy)
}

#[track_caller]
fn assert_list(redis: &RedisServer, count: usize) {
    let expected: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    assert_eq!(array(&redis.client().call(&["LRANGE", "l", "0", "-1"])), expected);
}

#[test]
fn a_loading_redis_is_down_and_its_error_reaches_nobody() {
    let mut redis = RedisServer::start(Durability::Memory);
    check(&mut redis.client(), "DEBUG POPULATE 2000", b"+OK\r\n");
    check(&mut redis.client(), "SAVE", b"+OK\r\n");
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    redis.kill();
    await_down(&proxy);
    check(&mut client, "SET before 1", b"+OK\r\n");
    // A millisecond for each key: two seconds of LOADING.
    redis.add_options(&[
        "--key-load-delay",
        "1000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    redis.launch();
    support::wait_until(DEADLINE, "LOADING", || {
        ping(&redis).is_some_and(|reply| reply.starts_with(b"-LOADING"))
    });
    let mut answered = 0;
    while ping(&redis).is_some_and(|reply| reply.starts_with(b"-LOADING")) {
        check(&mut client, "GET key:1", b"$-1\r\n");
        check(&mut client, &format!("RPUSH l {answered}"), b":1\r\n");
        answered += 1;
    }
    assert!(answered > 0);
    proxy.wait_for_recovery();
    check(&mut client, "GET before", &bulk("1"));
    check(&mut client, "GET key:1", &bulk("value:1"));
    let length = integer(&redis.client().call(&["LLEN", "l"]));
    assert_list(&redis, usize::try_from(length).unwrap());
    assert!(length >= answered);
}

fn ping(redis: &RedisServer) -> Option<Vec<u8>> {
    let mut client = Client::try_connect(&redis.address(), DEADLINE).ok()?;
    client.try_call(&["PING"]).ok()
}

#[test]
fn a_master_that_became_a_replica_is_down_and_its_error_reaches_nobody() {
    let redis = RedisServer::start(Durability::Memory);
    let other = RedisServer::start(Durability::Memory);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    check(&mut client, "SET k 0", b"+OK\r\n");
    check(
        &mut redis.client(),
        &format!("REPLICAOF 127.0.0.1 {}", other.port()),
        b"+OK\r\n",
    );
    for number in 0..50 {
        let reply = client.call(&["RPUSH", "l", &number.to_string()]);
        assert_eq!(error_text(&reply), None);
    }
    proxy.wait_for_mode("down", DEADLINE);
    check(&mut client, "SET k 1", b"+OK\r\n");
    check(&mut redis.client(), "REPLICAOF NO ONE", b"+OK\r\n");
    proxy.wait_for_recovery();
    check(&mut redis.client(), "GET k", &bulk("1"));
    assert_list(&redis, 50);
}

#[test]
fn an_upstream_that_always_was_a_replica_is_healthy_as_one() {
    let master = RedisServer::start(Durability::Memory);
    let replica = RedisServer::start_with(
        Durability::Memory,
        &["--replicaof", "127.0.0.1", &master.port().to_string()],
    );
    let proxy = Tideover::healthy(&replica);
    let text = error_text(&proxy.client().call(&["SET", "k", "v"])).expect("a replica refuses writes");
    assert!(text.starts_with("READONLY "), "{text}");
    assert_eq!(proxy.mode(), "healthy");
}

#[test]
fn a_redis_that_comes_back_empty_gets_the_backlog_once() {
    let (mut redis, proxy) = down(Durability::Memory);
    push(&mut proxy.client(), 0..300);
    redis.restart_empty();
    proxy.wait_for_recovery();
    assert_list(&redis, 300);
    assert_eq!(proxy.dead_letters(), 0);
}

#[test]
fn records_that_can_never_be_applied_become_dead_letters_and_replay_goes_on() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    check(&mut proxy.client(), "SET text v", b"+OK\r\n");
    redis.kill();
    await_down(&proxy);
    let mut client = proxy.client();
    check(&mut client, "SET first 1", b"+OK\r\n");
    check(&mut client, "RPUSH text x", b":1\r\n");
    check(&mut client, "SET last 1", b"+OK\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    assert_eq!(proxy.dead_letters(), 1);
    check(
        &mut client,
        "MGET first text last",
        &[b"*3\r\n".to_vec(), bulk("1"), bulk("v"), bulk("1")].concat(),
    );
    let listed = proxy.run_cli(&["dead-letters", "list"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.success() && text.contains("WRONGTYPE"), "{text}");
}

#[test]
fn writes_that_arrive_during_replay_stay_behind_the_backlog() {
    const BACKLOG: usize = 20_000;
    let (mut redis, proxy) = down(Durability::Memory);
    let mut client = proxy.client();
    push(&mut client, 0..BACKLOG);
    redis.restart();
    let mut number = BACKLOG;
    support::wait_until(DEADLINE, "mode healthy", || {
        push(&mut client, number..number + 10);
        number += 10;
        proxy.mode() == "healthy"
    });
    push(&mut client, number..number + 10);
    assert_list(&redis, number + 10);
}

#[test]
fn a_session_that_moves_between_outage_and_health_keeps_its_order() {
    let (mut redis, proxy) = down(Durability::AppendOnly);
    let mut client = proxy.client();
    let mut number = 0;
    for _ in 0..3 {
        push(&mut client, number..number + 500);
        number += 500;
        redis.restart();
        let begin = number;
        support::wait_until(DEADLINE, "mode healthy", || {
            push(&mut client, number..number + 1);
            number += 1;
            proxy.mode() == "healthy"
        });
        assert!(number > begin);
        assert_list(&redis, number);
        redis.kill();
        await_down(&proxy);
    }
}

#[test]
fn a_relative_expiry_runs_from_when_it_was_accepted() {
    const OUTAGE: Duration = Duration::from_millis(1500);
    let (mut redis, proxy) = down(Durability::AppendOnly);
    let mut client = proxy.client();
    let before = Instant::now();
    for line in [
        "SET a v EX 100",
        "SET b v PX 100000",
        "SETEX c 100 v",
        "PSETEX d 100000 v",
    ] {
        check(&mut client, line, b"+OK\r\n");
    }
    check(&mut client, "SET e v", b"+OK\r\n");
    check(&mut client, "EXPIRE e 100", b":1\r\n");
    check(&mut client, "SET f v", b"+OK\r\n");
    check(&mut client, "PEXPIRE f 100000", b":1\r\n");
    check(&mut client, "SET gone v PX 200", b"+OK\r\n");
    let accepted = before.elapsed();
    support::wait_until(DEADLINE, "the outage has lasted", || before.elapsed() > OUTAGE);
    redis.restart();
    proxy.wait_for_recovery();
    let mut direct = redis.client();
    for key in ["a", "b", "c", "d", "e", "f"] {
        let earliest = 100_000 - i64::try_from(before.elapsed().as_millis()).unwrap();
        let left = integer(&direct.call(&["PTTL", key]));
        // The clocks are the same machine's: a few milliseconds for the measurement of their difference.
        let latest = earliest + i64::try_from(accepted.as_millis()).unwrap() + 50;
        assert!(
            (earliest - 50..=latest + 50).contains(&left),
            "{key}: {left} ms left, expected {earliest} to {latest}"
        );
    }
    check(&mut direct, "EXISTS gone", b":0\r\n");
}

#[test]
fn mode_is_never_healthy_before_the_backlog_of_an_earlier_process_is_gone() {
    const BACKLOG: usize = 20_000;
    let (mut redis, mut proxy) = down(Durability::Memory);
    push(&mut proxy.client(), 0..BACKLOG);
    proxy.kill();
    redis.restart();
    proxy.launch();
    let mut direct = redis.client();
    support::wait_until(DEADLINE, "mode healthy", || {
        let Some(status) = proxy.try_status() else { return false };
        let upstream = &status["upstreams"][0];
        let healthy = upstream["mode"] == "healthy";
        if healthy {
            assert_eq!(upstream["queue"]["records"], 0, "healthy with a backlog");
            assert_eq!(integer(&direct.call(&["LLEN", "l"])), BACKLOG as i64);
        }
        healthy
    });
    assert_list(&redis, BACKLOG);
}

#[test]
fn every_database_gets_its_own_records() {
    let (mut redis, proxy) = down(Durability::AppendOnly);
    let mut client = proxy.client();
    for round in 0..20 {
        for db in [0, 3, 7] {
            check(&mut client, &format!("SELECT {db}"), b"+OK\r\n");
            check(&mut client, &format!("RPUSH l {db}:{round}"), b":1\r\n");
        }
    }
    redis.restart();
    proxy.wait_for_recovery();
    let mut direct = redis.client();
    for db in [0, 3, 7] {
        check(&mut direct, &format!("SELECT {db}"), b"+OK\r\n");
        let expected: Vec<String> = (0..20).map(|round| format!("{db}:{round}")).collect();
        assert_eq!(array(&direct.call(&["LRANGE", "l", "0", "-1"])), expected);
    }
}

#[test]
fn a_replay_that_redis_has_no_room_for_is_no_outage_for_reads() {
    let (mut redis, proxy) = down(Durability::AppendOnly);
    let mut client = proxy.client();
    push(&mut client, 0..10);
    redis.add_options(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    redis.restart();
    proxy.wait_for_mode("catching_up", DEADLINE);
    support::wait_until(DEADLINE, "reads go upstream", || {
        let info = client.call(&["CONFIG", "GET", "maxmemory"]);
        info.ends_with(&bulk("1")) && error_text(&client.call(&["GET", "k"])).is_none()
    });
    check(&mut client, "RPUSH l 10", b":1\r\n");
    assert_eq!(proxy.backlog(), 11);
    check(&mut redis.client(), "CONFIG SET maxmemory 0", b"+OK\r\n");
    proxy.wait_for_recovery();
    assert_list(&redis, 11);
    assert_eq!(proxy.dead_letters(), 0);
}

#[test]
fn stream_entries_keep_their_order_and_values() {
    let (mut redis, proxy) = down(Durability::AppendOnly);
    let mut client = proxy.client();
    let mut ids: Vec<(u64, u64)> = Vec::new();
    for number in 0..50 {
        let reply = String::from_utf8(client.call(&["XADD", "x", "*", "v", &number.to_string()])).unwrap();
        let (ms, seq) = reply.lines().nth(1).unwrap().split_once('-').unwrap();
        ids.push((ms.parse().unwrap(), seq.parse().unwrap()));
    }
    assert!(
        ids.windows(2).all(|pair| pair[0] < pair[1]),
        "provisional IDs grow: {ids:?}"
    );
    redis.restart();
    proxy.wait_for_recovery();
    let strings = array(&redis.client().call(&["XRANGE", "x", "-", "+"]));
    let values: Vec<String> = strings.chunks(3).map(|entry| entry[2].clone()).collect();
    assert_eq!(values, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
}
