//! A master that became a replica, with and without data to serve; and scripts that say such things.

use crate::support::load;
use crate::support::{DEADLINE, Durability, RedisServer, Settings, Tideover, bulk, error_text, shown, wait_until};
use crate::{load_through, reasons, transitions};

/// A replica whose master is not there keeps what it has.
fn demote(redis: &RedisServer) {
    let nobody = RedisServer::absent(Durability::Memory);
    let reply = redis
        .client()
        .call(&["REPLICAOF", "127.0.0.1", &nobody.port().to_string()]);
    assert_eq!(reply, b"+OK\r\n");
}

fn promote(redis: &RedisServer) {
    assert_eq!(redis.client().call(&["REPLICAOF", "NO", "ONE"]), b"+OK\r\n");
}

#[track_caller]
fn check(serve_stale: &str, reasons: &[&str]) {
    let redis = RedisServer::start_with(Durability::AppendOnly, &["--replica-serve-stale-data", serve_stale]);
    let proxy = Tideover::healthy(&redis);
    let settings = Settings::default();
    let attempts = load_through(&proxy, &settings, reasons, || demote(&redis), || promote(&redis));
    // It was not executed: nothing is uncertain.
    load::assert_uncertain_at_most(&attempts, 0);
    load::assert_no_error_after(&attempts, attempts[0].sent);
    load::assert_applied(&mut redis.client(), &attempts);
}

#[test]
fn every_write_is_accounted_for_when_redis_is_demoted() {
    check("yes", &["demoted"]);
}

#[test]
fn every_write_is_accounted_for_when_redis_is_a_replica_without_its_master() {
    check("no", &["demoted", "masterdown"]);
}

#[test]
fn a_demotion_is_noticed_while_nobody_writes() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    demote(&redis);
    proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(reasons(&proxy), ["demoted"]);
    promote(&redis);
    proxy.wait_for_recovery();
}

#[test]
fn what_a_script_says_opens_nothing_by_itself() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    for text in ["LOADING my cache", "READONLY account", "MASTERDOWN x", "CLUSTERDOWN x"] {
        let script = format!("redis.call('INCR', KEYS[1]); return redis.error_reply('{text}')");
        let reply = client.call(&["EVAL", &script, "1", "k"]);
        assert_eq!(shown(&reply), format!("-{text}\\r\\n"));
    }
    let words_of_redis = "return redis.error_reply('LOADING Redis is loading the dataset in memory')";
    let reply = client.call(&["EVAL", words_of_redis, "0"]);
    assert!(error_text(&reply).is_some_and(|text| text.starts_with("UNAVAILABLE EVAL was not applied")));
    let asked = || redis.client().call(&["INFO", "commandstats"]);
    let pings = |info: &[u8]| {
        let text = String::from_utf8_lossy(info).into_owned();
        let (_, rest) = text.split_once("cmdstat_hello:calls=").unwrap();
        rest.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    let before = pings(&asked());
    wait_until(DEADLINE, "the health owner has asked", || pings(&asked()) > before + 1);
    assert_eq!(reasons(&proxy), [""; 0], "{:?}", transitions(&proxy));
    assert_eq!(client.call(&["GET", "k"]), bulk("4"));
}

/// Scripts are all that is asked, and they are refused in the words of Redis.
#[test]
fn a_demotion_that_only_scripts_meet_is_found_out() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    let script = "return redis.call('INCR', KEYS[1])";
    assert_eq!(client.call(&["EVAL", script, "1", "k"]), b":1\r\n");
    demote(&redis);
    let reply = client.call(&["EVAL", script, "1", "k"]);
    assert!(
        error_text(&reply).is_some_and(|text| text.starts_with("UNAVAILABLE EVAL")),
        "{}",
        shown(&reply)
    );
    proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(reasons(&proxy), ["demoted"]);
    promote(&redis);
    proxy.wait_for_recovery();
    assert_eq!(client.call(&["EVAL", script, "1", "k"]), b":2\r\n");
}
