//! §1: what was sent before a failure runs before replay, or never.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{
    Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, bulk, check, command, numbers, push,
    wait_until,
};
use crate::way::Way;
use crate::{fence_status, list, metric, over};

/// The common hardening: no CLIENT KILL, CLIENT LIST, INFO, CONFIG.
const HARDENED: [&str; 8] = ["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-@dangerous"];

fn hardened() -> RedisServer {
    RedisServer::start_with(Durability::Memory, &HARDENED)
}

/// That nothing old stands behind what was replayed, now and after Redis has read everything that is there to be read.
#[track_caller]
fn assert_no_old_behind(redis: &RedisServer, replayed: usize) {
    let before = list(redis);
    let behind = before.iter().position(|element| !element.starts_with("old")).unwrap();
    assert!(
        before[behind..] == numbers(0..replayed),
        "{} elements are behind the first that was replayed",
        before.len() - behind
    );
    for _ in 0..50 {
        check(&mut redis.client(), "PING", b"+PONG\r\n");
    }
    let after = list(redis).len();
    assert_eq!(after, before.len(), "what was sent before the failure ran after replay");
}

/// Fewer than a session may have in flight; together far more than Redis reads of a connection at once.
const PUSHES: usize = 100;

#[test]
fn the_ends_of_many_full_connections_are_proof_without_any_right() {
    let redis = hardened();
    let proxy = Tideover::healthy(&redis);
    let mut owners: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    for owner in &mut owners {
        // Gives it a connection of its own.
        check(owner, "WATCH w", b"+OK\r\n");
    }
    redis.stop();
    let old = format!("old{}", "-".repeat(1000));
    for owner in &mut owners {
        owner.send_raw(&command(&["RPUSH", "l", &old]).repeat(PUSHES));
    }
    proxy.wait_for_mode("down", DEADLINE);
    push(&mut proxy.client(), 0..100);
    redis.cont();
    proxy.wait_for_recovery();
    assert_eq!(fence_status(&proxy), "proven");
    assert_eq!(metric(&proxy, "tideover_unfenced_total"), 0);
    let length = list(&redis).len();
    assert!(length > 20 * PUSHES / 2, "the connections carried little: {length}");
    assert_no_old_behind(&redis, 100);
}

/// A way that has taken a write, and Redis has not; and is free for new connections.
fn partitioned(redis: &RedisServer) -> (Way, Tideover, Client) {
    let way = Way::to(redis);
    let proxy = over(&way, redis);
    let caught = partition(&way, &proxy);
    (way, proxy, caught)
}

/// The client whose writes the way keeps.
fn partition(way: &Way, proxy: &Tideover) -> Client {
    let mut caught = proxy.client();
    check(&mut caught, "RPUSH l old", b":1\r\n");
    way.hold();
    caught.send_raw(&command(&["RPUSH", "l", "old"]));
    caught.send_raw(&command(&["SET", "k", "old"]));
    caught
}

/// Writes while down, lets replay catch up over a proven fence, and then what the partition kept.
#[track_caller]
fn assert_kept_bytes_never_run(redis: &RedisServer, way: &Way, proxy: &Tideover) {
    let mut client = proxy.client();
    check(&mut client, "SET k new", b"+OK\r\n");
    push(&mut client, 0..10);
    proxy.wait_for_recovery();
    assert_eq!(fence_status(proxy), "proven");
    way.release();
    assert_no_old_behind(redis, 10);
    check(&mut redis.client(), "GET k", &bulk("new"));
}

#[test]
fn bytes_that_a_partition_kept_never_run_after_the_fence() {
    let redis = RedisServer::start(Durability::Memory);
    let (way, proxy, _caught) = partitioned(&redis);
    proxy.wait_for_mode("down", DEADLINE);
    assert_kept_bytes_never_run(&redis, &way, &proxy);
}

#[test]
fn bytes_that_a_partition_kept_of_an_earlier_process_never_run_after_the_fence() {
    let redis = RedisServer::start(Durability::Memory);
    let (way, mut proxy, _caught) = partitioned(&redis);
    proxy.kill();
    proxy.restart();
    assert_kept_bytes_never_run(&redis, &way, &proxy);
}

#[test]
fn a_fence_without_any_proof_is_said_to_be_unproven() {
    let redis = hardened();
    let way = Way::to(&redis);
    // Patience with a caught command is none with the bytes of a connection that nobody answers for.
    let settings = Settings {
        url: Some(way.url()),
        hold_timeout: Duration::from_secs(60),
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let _caught = partition(&way, &proxy);
    proxy.wait_for_mode("down", DEADLINE);
    push(&mut proxy.client(), 0..10);
    wait_until(DEADLINE, "the fence is unproven", || fence_status(&proxy) == "unproven");
    proxy.wait_for_recovery();
    assert!(metric(&proxy, "tideover_unfenced_total") > 0);
    assert!(way.take_reset(), "what it still had to send is thrown away");
    assert_eq!(fence_status(&proxy), "unproven", "until the next fence");
    assert_eq!(list(&redis)[1..], numbers(0..10));
}

/// Clients of others that have the numbers which Redis gave tideover's connections before both restarted.
fn check_strangers_live(options: &[&str]) {
    let mut redis = RedisServer::start_with(Durability::Memory, options);
    let mut proxy = Tideover::healthy(&redis);
    push(&mut proxy.client(), 0..1);
    proxy.kill();
    redis.restart_empty();
    let mut strangers: Vec<Client> = (0..40).map(|_| redis.client()).collect();
    let ids: BTreeSet<Vec<u8>> = strangers
        .iter_mut()
        .map(|stranger| stranger.call(&["CLIENT", "ID"]))
        .collect();
    assert!(
        (5..30).all(|id| ids.contains(format!(":{id}\r\n").as_bytes())),
        "{ids:?}"
    );
    proxy.restart();
    proxy.wait_for_recovery();
    for stranger in &mut strangers {
        check(stranger, "PING", b"+PONG\r\n");
    }
}

#[test]
fn strangers_with_the_numbers_of_old_connections_live() {
    check_strangers_live(&[]);
}

#[test]
fn strangers_live_also_where_redis_does_not_say_which_process_it_is() {
    check_strangers_live(&["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-info"]);
}

#[test]
fn a_connection_that_is_being_dialled_at_the_trip_carries_nothing() {
    let redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::healthy(&redis);
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    redis.stop();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_raw(&command(&["SELECT", &(number + 1).to_string()]));
        client.send_raw(&command(&["RPUSH", "l", "once"]));
    }
    proxy.wait_for_mode("down", DEADLINE);
    for client in &mut clients {
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(client.reply(), b":1\r\n", "what was never sent is journaled");
    }
    redis.cont();
    proxy.wait_for_recovery();
    assert_eq!(fence_status(&proxy), "proven");
    for number in 1..=clients.len() {
        let mut direct = redis.client();
        check(&mut direct, &format!("SELECT {number}"), b"+OK\r\n");
        assert_eq!(array(&direct.call(&["LRANGE", "l", "0", "-1"])), ["once"]);
    }
}

#[test]
fn nothing_is_sent_behind_a_command_that_blocks() {
    let redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::start_with(&redis, &Settings::default());
    proxy.wait_for_mode("healthy", DEADLINE);
    let mut client = proxy.client();
    client.send_raw(&command(&["BLPOP", "q", "0"]));
    client.send_raw(&command(&["RPUSH", "l", "behind"]));
    let mut direct = redis.client();
    let mut blocked = String::new();
    wait_until(DEADLINE, "Redis holds the command", || {
        let all = String::from_utf8(direct.call(&["CLIENT", "LIST"])).unwrap();
        blocked = all
            .lines()
            .find(|line| line.contains("cmd=blpop"))
            .unwrap_or_default()
            .to_owned();
        !blocked.is_empty()
    });
    for _ in 0..20 {
        check(&mut redis.client(), "PING", b"+PONG\r\n");
    }
    let id = blocked.split(' ').next().unwrap().trim_start_matches("id=").to_owned();
    let now = String::from_utf8(direct.call(&["CLIENT", "LIST", "ID", &id])).unwrap();
    assert!(now.contains(" qbuf=0 "), "{now}");
    check(&mut direct, "RPUSH q 1", b":1\r\n");
    assert_eq!(array(&client.reply()), ["q", "1"]);
    assert_eq!(client.reply(), b":1\r\n");
}
