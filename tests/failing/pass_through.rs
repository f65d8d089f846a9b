//! Errors of a Redis that is there: they reach the client, and the breaker stays CLOSED.

use std::time::Duration;

use crate::reasons;
use crate::support::{
    Client, DEADLINE, Durability, RedisServer, Settings, Tideover, bulk, error_text, shown, wait_until,
};

#[track_caller]
fn config(direct: &mut Client, name: &str, value: &str) {
    assert_eq!(
        direct.call(&["CONFIG", "SET", name, value]),
        b"+OK\r\n",
        "{name} {value}"
    );
}

/// While `break_it` is in effect a write draws `prefix` and a read its value; afterwards all is as before.
#[track_caller]
fn check(
    prefix: &str,
    break_it: impl FnOnce(&RedisServer, &mut Client),
    mend_it: impl FnOnce(&RedisServer, &mut Client),
) {
    let redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::healthy(&redis);
    let (mut client, mut direct) = (proxy.client(), redis.client());
    assert_eq!(client.call(&["SET", "k", "1"]), b"+OK\r\n");
    break_it(&redis, &mut direct);
    let began_at = std::time::Instant::now();
    wait_until(DEADLINE, "the health owner has asked", || {
        let text = error_text(&client.call(&["SET", "k", "2"])).unwrap_or_default();
        assert!(text.starts_with(prefix), "{text}");
        assert_eq!(client.call(&["GET", "k"]), bulk("1"));
        began_at.elapsed() > Duration::from_millis(1200)
    });
    assert_eq!(proxy.mode(), "healthy");
    mend_it(&redis, &mut direct);
    wait_until(DEADLINE, "writes again", || {
        client.call(&["SET", "k", "2"]) == b"+OK\r\n"
    });
    assert_eq!(reasons(&proxy), [""; 0]);
}

#[test]
fn a_redis_without_memory_says_so_to_writers() {
    check(
        "OOM ",
        |_, direct| config(direct, "maxmemory", "1"),
        |_, direct| config(direct, "maxmemory", "0"),
    );
}

#[test]
fn a_redis_without_enough_replicas_says_so_to_writers() {
    check(
        "NOREPLICAS ",
        |_, direct| config(direct, "min-replicas-to-write", "1"),
        |_, direct| config(direct, "min-replicas-to-write", "0"),
    );
}

/// PING draws the error, too.
#[test]
fn a_redis_that_cannot_save_says_so_to_writers() {
    check(
        "MISCONF ",
        |redis, direct| {
            // A snapshot cannot take the place of a directory.
            std::fs::create_dir(redis.dir().join("dump.rdb")).unwrap();
            config(direct, "save", "3600 1000000");
            direct.call(&["BGSAVE"]);
            wait_until(DEADLINE, "a failed snapshot", || {
                let info = direct.call(&["INFO", "persistence"]);
                String::from_utf8_lossy(&info).contains("rdb_last_bgsave_status:err")
            });
        },
        |_, direct| config(direct, "save", ""),
    );
}

/// Silent at first, which is down; then it says BUSY, which is there.
#[test]
fn a_redis_held_by_a_script_is_down_while_silent_and_passes_busy_on_then() {
    let redis = RedisServer::start_with(Durability::AppendOnly, &["--busy-reply-threshold", "2500"]);
    let settings = Settings::default();
    let proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let mut client = proxy.client();
    assert_eq!(client.call(&["SET", "k", "1"]), b"+OK\r\n");
    let mut holder = redis.client();
    holder.send(&["EVAL", "while true do end", "0"]);
    proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(reasons(&proxy), ["silence"]);
    assert_eq!(client.call(&["SET", "k", "2"]), b"+OK\r\n");
    assert_eq!(client.call(&["GET", "k"]), b"$-1\r\n");
    let mut direct = redis.client();
    wait_until(DEADLINE, "BUSY", || direct.call(&["PING"]).starts_with(b"-BUSY"));
    // The backlog cannot go on, and writes stay behind it.
    assert_eq!(client.call(&["SET", "k", "3"]), b"+OK\r\n");
    assert_eq!(direct.call(&["SCRIPT", "KILL"]), b"+OK\r\n");
    proxy.wait_for_recovery();
    let reply = client.call(&["GET", "k"]);
    assert_eq!(reply, bulk("3"), "{}", shown(&reply));
    // And without a silence before: it passes.
    config(&mut direct, "busy-reply-threshold", "50");
    holder.reply();
    holder.send(&["EVAL", "while true do end", "0"]);
    wait_until(DEADLINE, "BUSY", || client.call(&["GET", "k"]).starts_with(b"-BUSY"));
    assert_eq!(direct.call(&["SCRIPT", "KILL"]), b"+OK\r\n");
    wait_until(DEADLINE, "the end of the script", || {
        client.call(&["GET", "k"]) == bulk("3")
    });
    assert_eq!(proxy.mode(), "healthy");
}
