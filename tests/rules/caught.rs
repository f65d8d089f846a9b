//! `in_flight`.

use super::support::{
    Client, DEADLINE, Durability, RedisServer, Relay, Tideover, Verdict, bulk, command, error_text, shown, wait_until,
};
use super::{start, start_before};

const JOURNAL: &str = "[[upstream.rule]]\nkeys = [\"own:*\"]\nin_flight = \"journal\"\n";

fn is_uncertain(reply: &[u8]) -> bool {
    error_text(reply).is_some_and(|text| text.contains("may or may not have been applied"))
}

fn journaled(proxy: &Tideover) -> bool {
    let (_, metrics) = proxy.get("/metrics");
    let line = "tideover_uncertain_writes_total{upstream=\"main\",action=\"journaled\"} ";
    metrics
        .lines()
        .any(|known| known.strip_prefix(line).is_some_and(|count| count != "0"))
}

/// Sends these to a frozen Redis, which is then killed: their replies, once it is back.
fn caught(redis: &mut RedisServer, proxy: &Tideover, lines: &[&str]) -> Vec<Vec<u8>> {
    let mut client: Client = proxy.client();
    client.call(&["PING"]);
    redis.stop();
    let requests: Vec<u8> = lines
        .iter()
        .flat_map(|line| command(&line.split(' ').collect::<Vec<_>>()))
        .collect();
    client.send_raw(&requests);
    proxy.wait_for_mode("down", DEADLINE);
    redis.kill();
    let replies = lines.iter().map(|_| client.reply()).collect();
    redis.restart();
    proxy.wait_for_recovery();
    replies
}

#[test]
fn an_absolute_write_that_the_breaker_caught_is_lost_only_without_the_rule() {
    let (mut redis, proxy) = start("");
    let replies = caught(&mut redis, &proxy, &["SET own:a 1"]);
    assert!(is_uncertain(&replies[0]), "{}", shown(&replies[0]));
    assert_eq!(redis.client().call(&["GET", "own:a"]), b"$-1\r\n");
    assert!(!journaled(&proxy));

    let (mut redis, proxy) = start(JOURNAL);
    let lines = [
        "SET own:a 1",
        "SET own:a 2 EX 1000",
        "RPUSH own:l x",
        "SET other 1",
        "DEL own:b",
    ];
    let replies = caught(&mut redis, &proxy, &lines);
    assert_eq!(replies[0], b"+OK\r\n");
    assert_eq!(replies[1], b"+OK\r\n");
    assert!(is_uncertain(&replies[2]), "{}", shown(&replies[2]));
    assert!(is_uncertain(&replies[3]), "{}", shown(&replies[3]));
    assert_eq!(replies[4], b":1\r\n");
    assert_eq!(redis.client().call(&["GET", "own:a"]), bulk("2"));
    assert_eq!(redis.client().call(&["EXISTS", "own:l"]), b":0\r\n");
    wait_until(DEADLINE, "the metric", || journaled(&proxy));
}

#[test]
fn what_a_frozen_redis_had_already_is_the_same_when_it_is_replayed() {
    let (redis, proxy) = start(JOURNAL);
    let mut client = proxy.client();
    client.call(&["PING"]);
    redis.stop();
    client.send(&["SET", "own:a", "1"]);
    proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(client.reply(), b"+OK\r\n");
    assert_eq!(client.call(&["SET", "own:a", "2"]), b"+OK\r\n");
    redis.cont();
    proxy.wait_for_recovery();
    assert_eq!(redis.client().call(&["GET", "own:a"]), bulk("2"));
}

/// Redis gave it an ID of its own if it had it: with another one it would be there twice.
#[test]
fn an_entry_without_an_id_is_uncertain_also_where_ids_are_accepted() {
    let (mut redis, proxy) = start(&format!("{JOURNAL}xadd_id = \"accepted\"\n"));
    let replies = caught(&mut redis, &proxy, &["XADD own:s * f v", "XADD own:s 5-* f v"]);
    for reply in &replies {
        assert!(is_uncertain(reply), "{}", shown(reply));
    }
    assert_eq!(redis.client().call(&["EXISTS", "own:s"]), b":0\r\n");
}

/// While all is well one connection that dies makes no backlog.
#[test]
fn a_write_lost_with_one_connection_is_uncertain_also_with_the_rule() {
    let (redis, place) = (
        RedisServer::start(Durability::AppendOnly),
        RedisServer::absent(Durability::AppendOnly),
    );
    let relay = Relay::start(&place, &redis, |args| {
        if args[0] == "SET" {
            Verdict::CloseAfter(Vec::new())
        } else {
            Verdict::Pass
        }
    });
    let proxy = start_before(&place, JOURNAL);
    let mut client = proxy.client();
    let reply = client.call(&["SET", "own:a", "1"]);
    assert!(is_uncertain(&reply), "{}", shown(&reply));
    assert_eq!(proxy.mode(), "healthy");
    assert_eq!(client.call(&["GET", "own:a"]), b"$-1\r\n");
    let sent = relay
        .requests()
        .into_iter()
        .filter(|(_, request)| request == "SET own:a 1");
    assert_eq!(sent.count(), 1);
    assert!(!journaled(&proxy));
}
