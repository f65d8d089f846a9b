//! `after_neutral_read`, `needs_key` and `xadd_id`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::support::{
    Client, DEADLINE, Durability, RedisServer, Tideover, Wire, array, await_down, bulk, error_text, shown, wait_until,
};
use super::{reasons, start, start_before};

const CREATE_ONLY: &str = "[[upstream.rule]]\nkeys = [\"session:*\"]\nafter_neutral_read = \"create_only\"\n";
const REFUSE: &str = "[[upstream.rule]]\nkeys = [\"session:*\"]\nafter_neutral_read = \"refuse\"\n";
const NEEDS_KEY: &str = "[[upstream.rule]]\ncommands = [\"HSET\", \"RPUSH\", \"EXPIRE\", \"XADD\"]\nneeds_key = true\n";
const ACCEPTED: &str = "[[upstream.rule]]\ncommands = [\"XADD\"]\nkeys = [\"log\"]\nxadd_id = \"accepted\"\n";

/// What a client does while Redis is down, and what Redis and the dead letters say afterwards.
fn through_an_outage(redis: &mut RedisServer, proxy: &Tideover, outage: impl FnOnce(&mut Client)) -> Client {
    redis.kill();
    await_down(proxy);
    outage(&mut proxy.client());
    redis.restart();
    proxy.wait_for_recovery();
    redis.client()
}

#[track_caller]
fn ok(client: &mut Client, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let reply = client.call(&words);
    assert!(!reply.starts_with(b"-"), "{line}: {}", shown(&reply));
}

/// Read, told that there is nothing, and so written anew.
fn login(client: &mut Client) {
    assert_eq!(client.call(&["GET", "session:1"]), b"$-1\r\n");
    ok(client, "SET session:1 {}");
}

fn check_login(rules: &str, expected: &str, letters: &[&str]) {
    let (mut redis, proxy) = start(rules);
    ok(&mut proxy.client(), "SET session:1 user7");
    let mut direct = through_an_outage(&mut redis, &proxy, login);
    assert_eq!(direct.call(&["GET", "session:1"]), bulk(expected));
    assert_eq!(reasons(&proxy), letters);
}

#[test]
fn a_default_written_after_a_neutral_read_overwrites_good_data_only_without_the_rule() {
    check_login("", "{}", &[]);
    check_login(CREATE_ONLY, "user7", &["would_overwrite_unseen"]);
}

#[test]
fn what_was_written_first_decides_for_what_is_written_after_it() {
    let (mut redis, proxy) = start(CREATE_ONLY);
    let mut client = proxy.client();
    for key in ["session:lost", "session:multi", "session:mset", "session:del"] {
        ok(&mut client, &format!("SET {key} good"));
    }
    let mut direct = through_an_outage(&mut redis, &proxy, |client| {
        for key in [
            "session:lost",
            "session:new",
            "session:far",
            "session:multi",
            "session:mset",
            "session:none",
        ] {
            ok(client, &format!("EXISTS {key}"));
        }
        ok(client, "SET session:lost 1");
        ok(client, "SET session:lost 2");
        ok(client, "SET session:new 1");
        ok(client, "SET session:new 2 EX 1000");
        ok(client, "SET session:far 1");
        // Read after it was written here: what the client is told then does not matter.
        ok(client, "SET session:written 1");
        ok(client, "GET session:written");
        ok(client, "SET session:written 2");
        for line in ["MULTI", "SET session:multi 1", "SET session:other 1", "EXEC"] {
            ok(client, line);
        }
        ok(client, "MSET session:mset 1 session:none 1 session:fresh 1");
        ok(client, "GET session:del");
        ok(client, "DEL session:del");
        ok(client, "SET session:del 1");
        // More than one batch.
        for n in 0..2000 {
            ok(client, &format!("SET other:{n} x"));
        }
        ok(client, "SET session:far 2");
    });
    for (key, expected) in [
        ("lost", "good"),
        ("new", "2"),
        ("far", "2"),
        ("written", "2"),
        ("multi", "good"),
        ("mset", "good"),
        ("none", "1"),
        ("fresh", "1"),
        ("del", "1"),
    ] {
        assert_eq!(
            direct.call(&["GET", &format!("session:{key}")]),
            bulk(expected),
            "{key}"
        );
    }
    assert_eq!(
        direct.call(&["GET", "session:other"]),
        b"$-1\r\n",
        "a transaction is one"
    );
    assert_eq!(reasons(&proxy), ["would_overwrite_unseen"; 4]);
}

/// Who goes while a slow replay is in the middle of the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    Redis,
    Tideover,
}

fn rate(proxy: &Tideover, max: &str) {
    let path = format!("/upstreams/main/queue/rate?max={max}");
    let (code, body) = proxy.http("POST", &path, &["X-Tideover: 1"]).unwrap();
    assert_eq!(code, 200, "{body}");
}

/// Two writes of one key, with so many others between them, and a failure between their replays.
fn check_halfway(gone: Gone, between: u64, expected: &str, letters: &[&str]) {
    let (mut redis, mut proxy) = start(CREATE_ONLY);
    redis.kill();
    await_down(&proxy);
    let mut client = proxy.client();
    ok(&mut client, "EXISTS session:1");
    ok(&mut client, "SET session:1 first");
    for n in 0..between {
        ok(&mut client, &format!("SET other:{n} x"));
    }
    ok(&mut client, "SET session:1 second");
    rate(&proxy, &between.to_string());
    redis.restart();
    wait_until(DEADLINE, "half of the backlog", || proxy.backlog() < between / 2);
    rate(&proxy, "4");
    assert_eq!(redis.client().call(&["GET", "session:1"]), bulk("first"));
    match gone {
        Gone::Redis => {
            redis.kill();
            await_down(&proxy);
            rate(&proxy, "off");
            redis.restart();
        }
        Gone::Tideover => {
            proxy.restart();
            rate(&proxy, "off");
        }
    }
    proxy.wait_for_recovery();
    assert_eq!(redis.client().call(&["GET", "session:1"]), bulk(expected), "{gone:?}");
    assert_eq!(reasons(&proxy), letters, "{gone:?}");
}

#[test]
fn what_was_applied_before_a_failure_is_known() {
    check_halfway(Gone::Redis, 40, "second", &[]);
    // By the marker.
    check_halfway(Gone::Tideover, 40, "second", &[]);
}

#[test]
fn what_an_earlier_process_put_there_and_forgot_is_not_overwritten() {
    // The journal writes its checkpoint every thousand records: what stands before it is not read again.
    check_halfway(Gone::Tideover, 4000, "first", &["would_overwrite_unseen"]);
}

#[test]
fn a_write_after_a_neutral_read_is_refused_where_the_rule_says_so_until_the_outage_ends() {
    let (mut redis, proxy) = start(REFUSE);
    ok(&mut proxy.client(), "SET session:1 user7");
    let mut direct = through_an_outage(&mut redis, &proxy, |client| {
        ok(client, "SET session:2 unread");
        assert_eq!(client.call(&["GET", "session:1"]), b"$-1\r\n");
        // On another session, perhaps of another worker.
        for line in [
            "SET session:1 {}",
            "MSET session:3 1 session:1 2",
            "SETEX session:1 9 x",
        ] {
            let reply = proxy.client().call(&line.split(' ').collect::<Vec<_>>());
            let text = error_text(&reply).unwrap_or_default();
            assert!(
                text.starts_with("UNAVAILABLE ") && text.ends_with("was not seen"),
                "{}",
                shown(&reply)
            );
        }
    });
    assert_eq!(direct.call(&["GET", "session:1"]), bulk("user7"));
    assert_eq!(direct.call(&["GET", "session:2"]), bulk("unread"));
    ok(&mut proxy.client(), "SET session:1 again");
    redis.kill();
    await_down(&proxy);
    ok(&mut proxy.client(), "SET session:1 next");
}

fn check_expired(rules: &str, fields: &[&str], letters: &[&str]) {
    let (mut redis, proxy) = start(rules);
    ok(&mut proxy.client(), "HSET gone user 7");
    ok(&mut proxy.client(), "HSET kept user 7");
    redis.client().call(&["DEL", "gone"]);
    let mut direct = through_an_outage(&mut redis, &proxy, |client| {
        ok(client, "HSET gone seen 1");
        ok(client, "EXPIRE gone 1000");
        ok(client, "HSET kept seen 1");
        ok(client, "EXPIRE kept 1000");
        ok(client, "HSET kept seen 2");
        ok(client, "SADD made a");
        ok(client, "EXPIRE made 1000");
        for line in ["MULTI", "RPUSH gone 1", "HSET kept lost 1", "EXEC"] {
            ok(client, line);
        }
    });
    assert_eq!(array(&direct.call(&["HGETALL", "gone"])), fields);
    assert_eq!(direct.call(&["HGET", "kept", "seen"]), bulk("2"));
    assert!(
        direct.call(&["TTL", "made"]) != b":-1\r\n",
        "a key that the same backlog made is there"
    );
    assert_eq!(reasons(&proxy), letters);
}

#[test]
fn a_field_set_in_a_session_that_is_gone_makes_half_a_session_only_without_the_rule() {
    // Without the rule RPUSH draws WRONGTYPE from the half session.
    check_expired("", &["seen", "1"], &["wrong_type"]);
    check_expired(NEEDS_KEY, &[], &["key_gone", "key_gone", "key_gone"]);
}

#[test]
fn a_key_that_others_touch_all_the_time_does_not_stop_guarded_records() {
    let (mut redis, proxy) = start(NEEDS_KEY);
    ok(&mut proxy.client(), "RPUSH l 0");
    redis.kill();
    await_down(&proxy);
    let mut client = proxy.client();
    for n in 1..300 {
        ok(&mut client, &format!("RPUSH l {n}"));
    }
    redis.restart();
    let mut direct = redis.client();
    while proxy.mode() != "healthy" {
        direct.call(&["LSET", "l", "0", "x"]);
    }
    let list = array(&direct.call(&["LRANGE", "l", "1", "-1"]));
    assert_eq!(list, (1..300).map(|n| n.to_string()).collect::<Vec<_>>());
}

fn ids(direct: &mut Client, stream: &str) -> Vec<String> {
    let all = array(&direct.call(&["XRANGE", stream, "-", "+"]));
    all.into_iter().filter(|text| text.contains('-')).collect()
}

#[test]
fn the_id_returned_is_the_id_replayed_only_with_the_rule() {
    for (rules, same) in [("", false), (ACCEPTED, true)] {
        let (mut redis, proxy) = start(rules);
        let mut returned = Vec::new();
        let mut direct = through_an_outage(&mut redis, &proxy, |_| {
            // A pool of connections, on two workers.
            let mut pool: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
            for n in 0..40 {
                let reply = pool[n % 4].call(&["XADD", "log", "MAXLEN", "~", "1000", "*", "n", &n.to_string()]);
                returned.push(array(&[b"*1\r\n".as_slice(), &reply].concat()).remove(0));
            }
        });
        assert_eq!(ids(&mut direct, "log") == returned, same, "{returned:?}");
        assert_eq!(ids(&mut direct, "log").len(), 40);
        assert_eq!(reasons(&proxy), [""; 0]);
    }
}

#[test]
fn an_accepted_id_that_is_behind_the_stream_is_a_dead_letter() {
    let (mut redis, proxy) = start(ACCEPTED);
    redis.client().call(&["XADD", "log", "99999999999999-1", "n", "other"]);
    let mut direct = through_an_outage(&mut redis, &proxy, |client| ok(client, "XADD log * n mine"));
    assert_eq!(ids(&mut direct, "log"), ["99999999999999-1"]);
    assert_eq!(reasons(&proxy), ["id_too_small"]);
}

/// The question and the batch take so long that somebody always comes in between.
#[test]
fn a_key_that_others_change_all_the_time_keeps_no_read_from_redis() {
    let [place, redis] = [(); 2].map(|()| RedisServer::start(Durability::Memory));
    let mut place = place;
    place.kill();
    let wire = Wire::start(&place, &redis);
    let proxy = start_before(&place, NEEDS_KEY);
    let mut direct = redis.client();
    ok(&mut direct, "HSET hot f 0");
    redis.stop();
    proxy.wait_for_mode("down", DEADLINE);
    let mut client = proxy.client();
    ok(&mut client, "HSET hot mine 1");
    wire.delay(Duration::from_millis(20));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut other = redis.client();
        let is_over = &is_over;
        scope.spawn(move || {
            let until = Instant::now() + 2 * DEADLINE;
            while !is_over.load(Ordering::Relaxed) && Instant::now() < until {
                other.call(&["HINCRBY", "hot", "f", "1"]);
            }
        });
        redis.cont();
        wait_until(DEADLINE, "reads go upstream", || {
            client.call(&["EXISTS", "hot"]) == b":1\r\n"
        });
        is_over.store(true, Ordering::Relaxed);
    });
    proxy.wait_for_recovery();
    assert_eq!(direct.call(&["HGET", "hot", "mine"]), bulk("1"));
    assert_eq!(reasons(&proxy), [""; 0]);
}
