//! Each rule key against a live redis-server: the damage without it, and none with it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

#[path = "../support/mod.rs"]
mod support;

mod caught;
mod guards;

use support::{Durability, RedisServer, Settings, Tideover};

/// A Redis and a tideover with these rules in front of it.
fn start(rules: &str) -> (RedisServer, Tideover) {
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = start_before(&redis, rules);
    (redis, proxy)
}

fn start_before(redis: &RedisServer, rules: &str) -> Tideover {
    let settings = Settings {
        more: rules.to_owned(),
        ..Settings::default()
    };
    let proxy = Tideover::start_with(redis, &settings);
    proxy.wait_for_mode("healthy", support::DEADLINE);
    proxy
}

/// The reasons of the dead letters, in order.
fn reasons(proxy: &Tideover) -> Vec<String> {
    let (_, text) = proxy
        .http("GET", "/upstreams/main/dead-letters", &["X-Tideover: 1"])
        .unwrap();
    text.lines()
        .map(|line| {
            let letter: serde_json::Value = serde_json::from_str(line).unwrap();
            letter["reason"].as_str().unwrap().to_owned()
        })
        .collect()
}
