//! Exactly once: each attack on the fence, the marker, the hand-over, time and retention, live wherever a user could see it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

#[path = "../support/mod.rs"]
mod support;

mod clocks;
mod failover;
mod fence;
mod halted;
mod marker;
mod way;

use support::{
    Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, command, integer, shown, wait_until,
};
use way::Way;

/// Replays so slowly that a test can come in the middle: `SECOND` records take a second.
fn slow() -> Settings {
    Settings {
        more: format!("rate_max = {SECOND}"),
        ..Settings::default()
    }
}

const SECOND: usize = 4000;

/// A healthy proxy that replays slowly.
fn healthy(redis: &RedisServer) -> Tideover {
    let proxy = Tideover::start_with(redis, &slow());
    proxy.wait_for_mode("healthy", DEADLINE);
    proxy
}

/// A proxy that reaches its Redis over a way, healthy.
fn over(way: &Way, redis: &RedisServer) -> Tideover {
    let settings = Settings {
        url: Some(way.url()),
        ..slow()
    };
    let proxy = Tideover::start_with(redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    proxy
}

/// A proxy whose Redis has been killed, and which knows.
fn down(durability: Durability) -> (RedisServer, Tideover) {
    let mut redis = RedisServer::start(durability);
    let proxy = healthy(&redis);
    redis.kill();
    proxy.wait_for_mode("down", DEADLINE);
    (redis, proxy)
}

/// Nobody reaches Redis any more, and the proxy knows.
fn lose(way: &Way, proxy: &Tideover) {
    way.close();
    let mut client = proxy.client();
    wait_until(DEADLINE, "mode down", || {
        client.call(&["GET", "x"]);
        matches!(proxy.mode().as_str(), "down" | "probing")
    });
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Pushes the numbers one by one; every one must be acknowledged.
#[track_caller]
fn push(client: &mut Client, range: std::ops::Range<usize>) {
    let pipeline: Vec<u8> = numbers(range.clone())
        .iter()
        .flat_map(|number| command(&["RPUSH", "l", number]))
        .collect();
    client.send_raw(&pipeline);
    for number in range {
        let reply = client.reply();
        assert!(integer(&reply) > 0, "{number} was not acknowledged");
    }
}

#[track_caller]
fn list(redis: &RedisServer) -> Vec<String> {
    array(&redis.client().call(&["LRANGE", "l", "0", "-1"]))
}

#[track_caller]
fn assert_list(redis: &RedisServer, expected: std::ops::Range<usize>) {
    let (found, expected) = (list(redis), numbers(expected));
    let differs = found.iter().zip(&expected).position(|(left, right)| left != right);
    assert_eq!((found.len(), differs), (expected.len(), None));
}

/// The dead letters as a person sees them.
fn letters(proxy: &Tideover) -> String {
    String::from_utf8_lossy(&proxy.run_cli(&["dead-letters", "list"]).stdout).into_owned()
}

#[track_caller]
fn check(client: &mut Client, line: &str, expected: &[u8]) {
    let args: Vec<&str> = line.split_whitespace().collect();
    let reply = client.call(&args);
    assert!(
        reply == expected,
        "{line}\n  expected {}\n  answered {}",
        shown(expected),
        shown(&reply)
    );
}

/// What `/status` says of the fence.
fn fence_status(proxy: &Tideover) -> String {
    proxy.status()["fence"].as_str().unwrap_or_default().to_owned()
}

/// A counter's value on the metrics page, all its labels together.
fn metric(proxy: &Tideover, name: &str) -> u64 {
    let (_, page) = proxy.get("/metrics");
    page.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}
