//! Redis goes away under load, and comes back: every single write is accounted for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::time::{Duration, Instant};

use support::load::{self, Load, UNCERTAIN};
use support::{
    DEADLINE, Durability, RedisServer, Relay, Settings, Tideover, Verdict, array, await_down, bulk, command,
    error_text, shown,
};

/// Long enough for the health connection's PING, sent every second, to be as old as this within twice this.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(1500);

const CLIENTS: usize = 6;

#[derive(Debug, Clone, Copy)]
enum Failure {
    Killed,
    Frozen,
}

/// Writers without pause, a failure, an outage, the return; and then every single write is accounted for.
fn check_load_through(failure: Failure) {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let settings = Settings {
        command_timeout: COMMAND_TIMEOUT,
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);

    let load = Load::start(&proxy.address(), CLIENTS);
    load.wait_for_more(100);
    let failed_at = Instant::now();
    match failure {
        Failure::Killed => redis.kill(),
        Failure::Frozen => redis.stop(),
    }
    proxy.wait_for_mode("down", DEADLINE);
    load.wait_for_more(200);
    support::wait_until(DEADLINE, "twice the timeout", || {
        failed_at.elapsed() > 2 * COMMAND_TIMEOUT
    });
    load.wait_for_more(200);
    match failure {
        Failure::Killed => redis.restart(),
        Failure::Frozen => redis.cont(),
    }
    proxy.wait_for_mode("healthy", DEADLINE);
    load.wait_for_more(100);
    let attempts = load.finish();
    proxy.wait_for_recovery();

    load::assert_none_lost(&attempts);
    load::assert_no_error_after(&attempts, failed_at + 2 * COMMAND_TIMEOUT);
    load::assert_uncertain_at_most(&attempts, 1);
    load::assert_applied(&mut redis.client(), &attempts);
    assert_eq!(proxy.dead_letters(), 0);
}

#[test]
fn every_write_is_accounted_for_when_redis_is_killed() {
    check_load_through(Failure::Killed);
}

#[test]
fn every_write_is_accounted_for_when_redis_freezes() {
    check_load_through(Failure::Frozen);
}

#[test]
fn every_write_is_accounted_for_when_redis_was_gone_before_the_start() {
    let mut redis = RedisServer::absent(Durability::AppendOnly);
    let proxy = Tideover::start(&redis);
    let began_at = Instant::now();
    let load = Load::start(&proxy.address(), CLIENTS);
    load.wait_for_more(300);
    redis.restart();
    proxy.wait_for_mode("healthy", DEADLINE);
    load.wait_for_more(100);
    let attempts = load.finish();
    proxy.wait_for_recovery();

    load::assert_none_lost(&attempts);
    load::assert_no_error_after(&attempts, began_at);
    load::assert_applied(&mut redis.client(), &attempts);
}

#[test]
fn outages_one_after_another_lose_and_repeat_nothing() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let load = Load::start(&proxy.address(), 3);
    const OUTAGES: usize = 4;
    for outage in 0..OUTAGES {
        load.wait_for_more(50);
        if outage % 2 == 0 {
            redis.kill()
        } else {
            redis.stop()
        }
        proxy.wait_for_mode("down", DEADLINE);
        load.wait_for_more(50);
        if outage % 2 == 0 {
            redis.restart()
        } else {
            redis.cont()
        }
        proxy.wait_for_mode("healthy", DEADLINE);
    }
    let attempts = load.finish();
    proxy.wait_for_recovery();
    load::assert_none_lost(&attempts);
    load::assert_uncertain_at_most(&attempts, OUTAGES);
    load::assert_applied(&mut redis.client(), &attempts);
}

#[test]
fn a_pipeline_caught_in_flight_is_uncertain_and_no_more_than_that() {
    const IN_FLIGHT: usize = 16;
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    assert_eq!(client.call(&["RPUSH", "l", "first"]), b":1\r\n");
    redis.stop();
    let pipeline: Vec<u8> = (0..IN_FLIGHT)
        .flat_map(|n| command(&["RPUSH", "l", &n.to_string()]))
        .collect();
    client.send_raw(&pipeline);
    proxy.wait_for_mode("down", DEADLINE);
    let mut expected = vec!["first".to_owned()];
    let mut uncertain = Vec::new();
    for number in 0..IN_FLIGHT {
        match error_text(&client.reply()) {
            Some(text) if text.contains(UNCERTAIN) => uncertain.push(number.to_string()),
            Some(text) => panic!("RPUSH answered {text}"),
            None => {}
        }
        expected.push(number.to_string());
    }
    for number in IN_FLIGHT..2 * IN_FLIGHT {
        let reply = client.call(&["RPUSH", "l", &number.to_string()]);
        assert_eq!(reply, b":1\r\n", "down is down: {}", shown(&reply));
        expected.push(number.to_string());
    }
    redis.cont();
    proxy.wait_for_recovery();
    let mut found = array(&redis.client().call(&["LRANGE", "l", "0", "-1"]));
    found.retain(|value| !uncertain.contains(value));
    expected.retain(|value| !uncertain.contains(value));
    assert_eq!(found, expected);
}

#[test]
fn a_read_caught_in_flight_is_answered_without_an_error() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    client.call(&["SET", "k", "v"]);
    redis.stop();
    let reply = client.call(&["GET", "k"]);
    assert!(reply == b"$-1\r\n" || reply == b"$1\r\nv\r\n", "{}", shown(&reply));
}

/// A client that was kept connected calls them by their hashes: nothing tells it that Redis has forgotten them.
#[test]
fn scripts_are_there_again_after_a_restart_of_redis() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    let hash_of = |script: &str| {
        let reply = redis.client().call(&["SCRIPT", "LOAD", script]);
        array(&[b"*1\r\n".to_vec(), reply].concat()).remove(0)
    };
    let (loaded, evaluated) = (hash_of("return 'loaded'"), hash_of("return 'evaluated'"));
    client.call(&["SCRIPT", "LOAD", "return 'loaded'"]);
    client.call(&["EVAL", "return 'evaluated'", "0"]);
    redis.kill();
    await_down(&proxy);
    redis.restart();
    proxy.wait_for_recovery();
    assert_eq!(client.call(&["EVALSHA", &loaded, "0"]), bulk("loaded"));
    assert_eq!(client.call(&["EVALSHA", &evaluated, "0"]), bulk("evaluated"));
}

#[test]
fn a_redis_that_takes_no_more_clients_serves_those_it_has() {
    let redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::healthy(&redis);
    let (mut served, mut other) = (proxy.client(), proxy.client());
    assert_eq!(served.call(&["SET", "k", "v"]), b"+OK\r\n");
    let mut direct = redis.client();
    assert_eq!(direct.call(&["CONFIG", "SET", "maxclients", "1"]), b"+OK\r\n");
    // Another database wants another connection.
    let refused = error_text(&other.call(&["SELECT", "3"])).unwrap();
    assert!(
        refused.starts_with("UNAVAILABLE") && refused.contains("takes no further connection"),
        "{refused}"
    );
    assert_eq!(served.call(&["GET", "k"]), b"$1\r\nv\r\n");
    assert_eq!(proxy.mode(), "healthy");
    assert_eq!(direct.call(&["CONFIG", "SET", "maxclients", "100"]), b"+OK\r\n");
    assert_eq!(other.call(&["SELECT", "3"]), b"+OK\r\n");
    assert_eq!(other.call(&["GET", "k"]), b"$-1\r\n");
}

#[test]
fn a_write_for_which_no_connection_comes_up_is_journaled_once_the_breaker_opens() {
    let redis = RedisServer::start(Durability::Memory);
    let settings = Settings {
        workers: 1,
        connect_timeout: Duration::from_millis(100),
        command_timeout: COMMAND_TIMEOUT,
        hold_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let (mut client, mut direct) = (proxy.client(), redis.client());
    // What the session was refused before is no part of the next request's wait.
    assert_eq!(direct.call(&["CONFIG", "SET", "maxclients", "1"]), b"+OK\r\n");
    let refused = error_text(&client.call(&["SET", "k", "refused"]));
    assert!(refused.is_some_and(|text| text.starts_with("UNAVAILABLE")));
    assert_eq!(direct.call(&["CONFIG", "SET", "maxclients", "100"]), b"+OK\r\n");
    // Nobody has a lane yet, and several dials fail before the silence is long enough to mean something.
    redis.stop();
    assert_eq!(client.call(&["SET", "k", "v"]), b"+OK\r\n");
    assert_eq!(proxy.backlog(), 1);
    redis.cont();
    proxy.wait_for_recovery();
    assert_eq!(redis.client().call(&["GET", "k"]), bulk("v"));
}

#[test]
fn a_trouble_that_was_none_is_not_shown_for_long() {
    let place = RedisServer::absent(Durability::Memory);
    let redis = RedisServer::start(Durability::Memory);
    let relay = Relay::start(&place, &redis, |request| match request.join(" ").as_str() {
        "INCR doomed" => Verdict::Close,
        _ => Verdict::Pass,
    });
    let proxy = Tideover::start_with(&place, &Settings::default());
    proxy.wait_for_mode("healthy", DEADLINE);
    let reply = proxy.client().call(&["INCR", "doomed"]);
    assert!(error_text(&reply).is_some_and(|text| text.contains(UNCERTAIN)));
    support::wait_until(DEADLINE, "the trouble", || !proxy.status()["last_error"].is_null());
    support::wait_until(DEADLINE, "nothing", || proxy.status()["last_error"].is_null());
    assert_eq!(proxy.mode(), "healthy");
    drop(relay);
}
