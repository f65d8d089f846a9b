//! §2: how far replay got, whoever touches, copies, evicts or flushes what says so.

use std::path::{Path, PathBuf};

use crate::support::{
    Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, bulk, check, error_text, info_count, integer,
    numbers, push, wait_until,
};
use crate::way::{Exec, Way};
use crate::{SECOND, assert_list, down, letters, list, lose, over};

fn marker_key(redis: &RedisServer) -> String {
    array(&redis.client().call(&["KEYS", "tideover:*:replayed"])).remove(0)
}

fn last_error(proxy: &Tideover) -> String {
    proxy.status()["last_error"].as_str().unwrap_or_default().to_owned()
}

/// An outage that costs Redis nothing.
fn through_an_outage(redis: &RedisServer, way: &Way, proxy: &Tideover, during: impl FnOnce(&mut Client)) {
    lose(way, proxy);
    during(&mut proxy.client());
    way.lead_to(redis);
}

#[test]
fn a_database_that_is_gone_takes_nothing_elsewhere() {
    let (mut redis, proxy) = down(Durability::AppendOnly);
    let mut client = proxy.client();
    push(&mut client, 0..10);
    check(&mut client, "SELECT 9", b"+OK\r\n");
    check(&mut client, "SET victim written", b"+OK\r\n");
    check(&mut client, "SELECT 7", b"+OK\r\n");
    check(&mut client, "SET here 1", b"+OK\r\n");
    check(&mut client, "SELECT 0", b"+OK\r\n");
    push(&mut client, 10..20);
    redis.add_options(&["--databases", "8"]);
    redis.restart();
    proxy.wait_for_recovery();
    assert_list(&redis, 0..20);
    let mut direct = redis.client();
    check(&mut direct, "EXISTS victim", b":0\r\n");
    check(&mut direct, "SELECT 7", b"+OK\r\n");
    check(&mut direct, "GET here", &bulk("1"));
    assert!(letters(&proxy).contains("bad_database"), "{}", letters(&proxy));
    assert_eq!(proxy.dead_letters(), 1);
}

#[test]
fn a_stranger_who_touches_the_marker_costs_a_batch_and_nothing_more() {
    let redis = RedisServer::start(Durability::Memory);
    let way = Way::to(&redis);
    let proxy = over(&way, &redis);
    through_an_outage(&redis, &way, &proxy, |client| push(client, 0..1));
    proxy.wait_for_recovery();
    let marker = marker_key(&redis);
    assert_eq!(
        integer(&redis.client().call(&["TTL", &marker])),
        -1,
        "it does not expire"
    );
    through_an_outage(&redis, &way, &proxy, |client| push(client, 1..SECOND));
    let mut stranger = redis.client();
    for touch in 1..30 {
        // Tells who watches it, and changes nothing.
        assert_eq!(error_text(&stranger.call(&["APPEND", &marker, ""])), None);
        wait_until(DEADLINE, "replay goes on", || list_length(&mut stranger) > touch * 100);
    }
    proxy.wait_for_recovery();
    assert_list(&redis, 0..SECOND);
    assert_eq!(proxy.dead_letters(), 0);
}

fn list_length(client: &mut Client) -> i64 {
    integer(&client.call(&["LLEN", "l"]))
}

fn journal_dir(proxy: &Tideover) -> PathBuf {
    proxy.data_dir().join("main").join("journal")
}

/// As a power cut does that comes before anything was synced since then.
fn put_back(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).unwrap();
    copy(from, to);
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "the files are copied");
}

#[test]
fn numbers_that_went_with_the_journals_tail_are_not_used_again() {
    let redis = RedisServer::start(Durability::Memory);
    let mut proxy = Tideover::start_with(&redis, &Settings::default());
    proxy.wait_for_mode("healthy", DEADLINE);
    redis.stop();
    proxy.wait_for_mode("down", DEADLINE);
    push(&mut proxy.client(), 0..10);
    let synced = proxy.dir().join("synced");
    copy(&journal_dir(&proxy), &synced);
    push(&mut proxy.client(), 10..50);
    redis.cont();
    proxy.wait_for_recovery();
    assert_list(&redis, 0..50);
    proxy.kill();
    // The host lost the last forty and the checkpoint, Redis has them, and the marker says so.
    put_back(&synced, &journal_dir(&proxy));
    redis.stop();
    proxy.restart();
    proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(proxy.backlog(), 10);
    push(&mut proxy.client(), 50..90);
    redis.cont();
    proxy.wait_for_recovery();
    assert_list(&redis, 0..90);
}

/// Two processes, each with its own copy of one data directory, in front of one Redis. Whatever was acknowledged by either is applied once, or
/// waits behind an alarm while reads go on.
#[test]
fn of_two_copies_of_a_data_directory_one_is_told_and_skips_nothing() {
    let redis = RedisServer::start(Durability::Memory);
    let mut first = Tideover::start_with(&redis, &Settings::default());
    first.wait_for_mode("healthy", DEADLINE);
    redis.stop();
    first.wait_for_mode("down", DEADLINE);
    push(&mut first.client(), 0..5);
    redis.cont();
    first.wait_for_recovery();
    assert_eq!(first.terminate(DEADLINE).code(), Some(0));
    let mut second = Tideover::prepare(&redis, &Settings::default());
    copy(&first.data_dir(), &second.data_dir());
    first.restart();
    second.launch();
    second.wait_until_listening();
    for proxy in [&first, &second] {
        proxy.wait_for_mode("healthy", DEADLINE);
    }
    redis.stop();
    for proxy in [&first, &second] {
        proxy.wait_for_mode("down", DEADLINE);
    }
    for (proxy, key, count) in [(&first, "a", 10), (&second, "b", 20)] {
        let mut client = proxy.client();
        for number in 0..count {
            assert_eq!(error_text(&client.call(&["RPUSH", key, &number.to_string()])), None);
        }
    }
    redis.cont();
    let told = |proxy: &Tideover| proxy.mode() == "catching_up" && last_error(proxy).contains("marker");
    wait_until(DEADLINE, "one has caught up and the other halts", || {
        let both = [&first, &second];
        both.iter().any(|proxy| proxy.mode() == "healthy") && both.iter().any(|proxy| told(proxy))
            || both.iter().all(|proxy| proxy.mode() == "healthy")
    });
    let mut direct = redis.client();
    for (proxy, key, count) in [(&first, "a", 10_usize), (&second, "b", 20)] {
        let there = array(&direct.call(&["LRANGE", key, "0", "-1"]));
        if told(proxy) {
            assert_eq!(
                there.len() + usize::try_from(proxy.backlog()).unwrap(),
                count,
                "nothing is skipped: {key}"
            );
            assert_eq!(
                array(&proxy.client().call(&["LRANGE", key, "0", "-1"])),
                there,
                "reads go on"
            );
        } else {
            assert_eq!(there, numbers(0..count), "{key}: {}", last_error(proxy));
        }
    }
    assert!(told(&first) || told(&second), "one of them has to know");
}

/// Has Redis evict the marker, and nothing else of what the tests look at. Its clock for this has seconds: the marker was used before the
/// filler, the filler before the list.
fn evict_the_marker(redis: &RedisServer) {
    let mut direct = redis.client();
    let marker = marker_key(redis);
    let idle = |key: &str| integer(&redis.client().call(&["OBJECT", "IDLETIME", key]));
    wait_until(DEADLINE, "the marker is idle", || idle(&marker) > 0);
    direct.call(&["SET", "filler", &"v".repeat(1 << 20)]);
    wait_until(DEADLINE, "the filler is idle", || idle("filler") > 0);
    let used = info_count(&mut direct, "memory", "used_memory");
    let limit = (used - (512 << 10)).to_string();
    for command in [
        ["CONFIG", "SET", "maxmemory-samples", "64"].as_slice(),
        &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"],
        // No second passes inside a transaction.
        &["MULTI"],
        &["LLEN", "l"],
        &["GET", "x"],
        &["CONFIG", "SET", "maxmemory", &limit],
        &["EXEC"],
    ] {
        direct.call(command);
    }
    wait_until(DEADLINE, "the marker is evicted", || {
        integer(&direct.call(&["EXISTS", &marker])) == 0
    });
    check(&mut direct, "CONFIG SET maxmemory 0", b"+OK\r\n");
}

#[test]
fn an_evicted_marker_and_a_restart_push_nothing_twice() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let way = Way::to(&redis);
    let proxy = over(&way, &redis);
    through_an_outage(&redis, &way, &proxy, |client| {
        push(client, 0..10);
        check(client, "SET x 1", b"+OK\r\n");
    });
    proxy.wait_for_recovery();
    evict_the_marker(&redis);
    redis.kill();
    lose(&way, &proxy);
    push(&mut proxy.client(), 10..20);
    redis.restart();
    way.lead_to(&redis);
    proxy.wait_for_recovery();
    assert_list(&redis, 0..20);
    check(&mut redis.client(), "GET x", &bulk("1"));
    let letters = letters(&proxy);
    assert_eq!(
        letters.matches("lost_by_failover").count(),
        10,
        "said loudly: {letters}"
    );
}

#[test]
fn an_evicted_marker_without_a_restart_costs_nothing() {
    let redis = RedisServer::start(Durability::Memory);
    let way = Way::to(&redis);
    let proxy = over(&way, &redis);
    through_an_outage(&redis, &way, &proxy, |client| push(client, 0..10));
    proxy.wait_for_recovery();
    evict_the_marker(&redis);
    through_an_outage(&redis, &way, &proxy, |client| push(client, 10..20));
    proxy.wait_for_recovery();
    assert_list(&redis, 0..20);
    assert_eq!(proxy.dead_letters(), 0);
}

#[test]
fn what_was_flushed_in_an_outage_stays_away() {
    let redis = RedisServer::start(Durability::Memory);
    let way = Way::to(&redis);
    let proxy = over(&way, &redis);
    let mut client = proxy.client();
    lose(&way, &proxy);
    push(&mut client, 0..10);
    way.lead_to(&redis);
    proxy.wait_for_recovery();
    lose(&way, &proxy);
    push(&mut client, 10..20);
    check(&mut redis.client(), "FLUSHALL", b"+OK\r\n");
    push(&mut client, 20..30);
    way.lead_to(&redis);
    proxy.wait_for_recovery();
    assert_list(&redis, 10..30);
    assert_eq!(proxy.dead_letters(), 0);
}

#[test]
fn a_flush_during_replay_is_of_what_was_there_and_the_rest_follows() {
    let redis = RedisServer::start(Durability::Memory);
    let way = Way::to(&redis);
    let proxy = over(&way, &redis);
    through_an_outage(&redis, &way, &proxy, |client| push(client, 0..SECOND));
    let mut direct = redis.client();
    wait_until(DEADLINE, "a part is replayed", || list_length(&mut direct) > 500);
    check(&mut direct, "FLUSHALL", b"+OK\r\n");
    proxy.wait_for_recovery();
    let left = list(&redis);
    assert!(left.len() < SECOND - 500, "what was there is flushed");
    assert_eq!(left, numbers(SECOND - left.len()..SECOND), "what followed is whole");
}

#[test]
fn what_was_flushed_before_a_restart_comes_back_as_far_as_it_is_absolute() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let way = Way::to(&redis);
    let proxy = over(&way, &redis);
    through_an_outage(&redis, &way, &proxy, |client| {
        push(client, 0..10);
        check(client, "SET x 1", b"+OK\r\n");
    });
    proxy.wait_for_recovery();
    check(&mut redis.client(), "FLUSHALL", b"+OK\r\n");
    redis.kill();
    lose(&way, &proxy);
    push(&mut proxy.client(), 10..20);
    redis.restart();
    way.lead_to(&redis);
    proxy.wait_for_recovery();
    assert_list(&redis, 10..20);
    // As after the loss of all data, which nobody can tell from it: for a minute, and said.
    check(&mut redis.client(), "GET x", &bulk("1"));
    assert_eq!(letters(&proxy).matches("lost_by_failover").count(), 10);
}

#[test]
fn deletions_make_room_on_a_full_redis_and_what_needs_room_waits_in_its_place() {
    let redis = RedisServer::start(Durability::Memory);
    let way = Way::to(&redis);
    let proxy = over(&way, &redis);
    let mut direct = redis.client();
    for number in 0..21 {
        check(&mut direct, &format!("SET big:{number} 1"), b"+OK\r\n");
    }
    lose(&way, &proxy);
    let mut client = proxy.client();
    for number in 0..20 {
        check(&mut client, &format!("DEL big:{number}"), b":1\r\n");
    }
    check(&mut client, "SET after 1", b"+OK\r\n");
    check(&mut client, "DEL big:20", b":1\r\n");
    check(&mut direct, "CONFIG SET maxmemory 1", b"+OK\r\n");
    way.lead_to(&redis);
    wait_until(DEADLINE, "all but two are replayed", || proxy.backlog() == 2);
    check(&mut direct, "EXISTS big:0 big:19 after", b":0\r\n");
    check(&mut client, "GET big:20", &bulk("1"));
    check(&mut direct, "CONFIG SET maxmemory 0", b"+OK\r\n");
    proxy.wait_for_recovery();
    check(&mut direct, "GET after", &bulk("1"));
    check(&mut direct, "EXISTS big:20", b":0\r\n");
    assert_eq!(proxy.dead_letters(), 0);
}

#[test]
fn a_write_that_failed_in_a_batch_whose_answer_a_crash_took_is_a_dead_letter() {
    let redis = RedisServer::start(Durability::Memory);
    let way = Way::to(&redis);
    let mut proxy = over(&way, &redis);
    check(&mut redis.client(), "SET text v", b"+OK\r\n");
    lose(&way, &proxy);
    let mut client = proxy.client();
    push(&mut client, 0..3);
    check(&mut client, "RPUSH text x", b":1\r\n");
    push(&mut client, 3..6);
    way.set_exec(Exec::Unanswered);
    way.lead_to(&redis);
    let mut direct = redis.client();
    wait_until(DEADLINE, "the batch is applied", || list_length(&mut direct) == 6);
    proxy.kill();
    way.set_exec(Exec::Answered);
    proxy.restart();
    proxy.wait_for_recovery();
    assert_list(&redis, 0..6);
    check(&mut direct, "GET text", &bulk("v"));
    assert_eq!(proxy.dead_letters(), 1, "{}", letters(&proxy));
    assert!(letters(&proxy).contains("wrong_type"), "{}", letters(&proxy));
}
