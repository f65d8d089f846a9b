//! A Redis that loads for long before it serves again, from a snapshot or from its log.

use std::cell::RefCell;

use crate::load_through;
use crate::support::load;
use crate::support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, command, wait_until};

const KEYS: usize = 2000;

/// Half a millisecond for each key, and a look at clients in between.
const SLOW_LOADING: [&str; 4] = [
    "--key-load-delay",
    "500",
    "--loading-process-events-interval-bytes",
    "1024",
];

fn is_loading(redis: &RedisServer) -> bool {
    let Ok(mut client) = Client::try_connect(&redis.address(), DEADLINE) else {
        return false;
    };
    client
        .try_call(&["PING"])
        .is_ok_and(|reply| reply.starts_with(b"-LOADING"))
}

#[track_caller]
fn check(durability: Durability, end: impl FnOnce(&mut RedisServer)) {
    let mut redis = RedisServer::start(durability);
    let mut direct = redis.client();
    let filling: Vec<u8> = (0..KEYS)
        .flat_map(|key| command(&["SET", &format!("filler:{key}"), "v"]))
        .collect();
    direct.send_raw(&filling);
    for _ in 0..KEYS {
        assert_eq!(direct.reply(), b"+OK\r\n");
    }
    redis.add_options(&SLOW_LOADING);
    let settings = Settings::default();
    let proxy = Tideover::healthy(&redis);
    let redis = RefCell::new(redis);
    let attempts = load_through(
        &proxy,
        &settings,
        &["connection_refused", "loading"],
        || end(&mut redis.borrow_mut()),
        || {
            let mut redis = redis.borrow_mut();
            redis.launch();
            wait_until(DEADLINE, "LOADING", || is_loading(&redis));
        },
    );
    let redis = redis.into_inner();
    load::assert_applied(&mut redis.client(), &attempts);
    assert_eq!(redis.client().call(&["EXISTS", "filler:0"]), b":1\r\n");
}

#[test]
fn every_write_is_accounted_for_when_redis_loads_its_log() {
    check(Durability::AppendOnly, RedisServer::kill);
}

#[test]
fn every_write_is_accounted_for_when_redis_loads_a_snapshot() {
    check(Durability::Memory, |redis| {
        // It answers only when it cannot.
        let _ = redis.client().try_call(&["SHUTDOWN", "SAVE"]);
    });
}
