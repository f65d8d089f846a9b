//! Users of their own across outages and restarts: who is not known again waits, and nobody else; and nothing of theirs is lost, repeated or reordered.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod rights;
#[path = "../support/mod.rs"]
mod support;

use serde_json::json;
use support::{
    Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, await_down, bulk, check, error_text, shown,
    wait_until,
};

const OK: &[u8] = b"+OK\r\n";

/// A Redis where alice and bob may do everything; what it acknowledged survives it.
pub(crate) fn redis() -> RedisServer {
    let redis = RedisServer::absent(Durability::AppendOnly);
    let users =
        "user alice on >secret +@all ~* &*\nuser bob on >word +@all ~* &*\nuser default on nopass +@all ~* &*\n";
    start_with_users(redis, users)
}

pub(crate) fn start_with_users(mut redis: RedisServer, users: &str) -> RedisServer {
    let file = redis.dir().join("users.acl");
    std::fs::write(&file, users).unwrap();
    redis.add_options(&["--aclfile", file.to_str().unwrap()]);
    redis.restart();
    redis
}

#[track_caller]
pub(crate) fn take_down(redis: &mut RedisServer, proxy: &Tideover) {
    redis.kill();
    await_down(proxy);
}

/// How a client says who it is.
#[derive(Clone, Copy, Debug)]
enum Way {
    Auth,
    Hello,
}

#[track_caller]
fn login(client: &mut Client, user: &str, password: &str, way: Way) {
    match way {
        Way::Auth => check(client, &format!("AUTH {user} {password}"), OK),
        Way::Hello => {
            let reply = client.call(&["HELLO", "3", "AUTH", user, password]);
            assert_eq!(reply.first(), Some(&b'%'), "{}", shown(&reply));
        }
    }
}

#[track_caller]
pub(crate) fn as_user(proxy: &Tideover, user: &str, password: &str) -> Client {
    let mut client = proxy.client();
    login(&mut client, user, password, Way::Auth);
    client
}

#[track_caller]
fn push(client: &mut Client, key: &str, from: usize, to: usize) {
    for number in from..to {
        let reply = client.call(&["RPUSH", key, &number.to_string()]);
        assert_eq!(error_text(&reply), None, "{key} {number}");
    }
}

#[track_caller]
fn assert_list(redis: &RedisServer, key: &str, count: usize) {
    let expected: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    assert_eq!(
        array(&redis.client().call(&["LRANGE", key, "0", "-1"])),
        expected,
        "{key}"
    );
}

fn waiting(proxy: &Tideover) -> (u64, serde_json::Value) {
    let status = proxy.status();
    (
        status["queue"]["waiting_records"].as_u64().unwrap(),
        status["identities_waiting"].clone(),
    )
}

#[track_caller]
fn await_waiting(proxy: &Tideover, records: u64) {
    wait_until(DEADLINE, &format!("{records} records wait"), || {
        proxy.mode() == "healthy" && waiting(proxy).0 == records
    });
}

/// A backlog of three users, and tideover killed over it; Redis is back, and only those without a name and alice are.
fn interrupted(way: Way) -> (RedisServer, Tideover) {
    let mut redis = redis();
    let mut proxy = Tideover::healthy(&redis);
    let (mut alice, mut bob) = (as_user(&proxy, "alice", "secret"), as_user(&proxy, "bob", "word"));
    let mut url = proxy.client();
    push(&mut bob, "bob", 0, 3);
    take_down(&mut redis, &proxy);
    for number in 0..50 {
        push(&mut url, "url", number, number + 1);
        push(&mut alice, "alice", number, number + 1);
        push(&mut bob, "bob", number + 3, number + 4);
    }
    check(&mut bob, "SET bob:last 1", OK);
    proxy.restart();
    login(&mut proxy.client(), "alice", "secret", way);
    redis.restart();
    (redis, proxy)
}

#[test]
fn records_of_a_user_who_is_not_known_again_wait_and_only_they() {
    let (redis, proxy) = interrupted(Way::Auth);
    await_waiting(&proxy, 51);
    assert_list(&redis, "url", 50);
    assert_list(&redis, "alice", 50);
    assert_list(&redis, "bob", 3);
    assert_eq!(waiting(&proxy).1, json!(["bob"]));
    let status = proxy.status();
    assert_eq!(
        (&status["queue"]["records"], &status["state"]),
        (&json!(51), &json!("closed"))
    );
    assert!(status["queue"]["oldest_age_ms"].as_u64() > Some(0));
    // Everybody else has all of Redis.
    let mut url = proxy.client();
    check(&mut url, "INCR n", b":1\r\n");
    check(&mut url, "GET bob:last", b"$-1\r\n");
    check(&mut as_user(&proxy, "alice", "secret"), "INCR n", b":2\r\n");
    assert!(proxy.log_text().contains("must authenticate or be named"), "it is said");
    wait_until(DEADLINE, "it is counted", || {
        let metrics = proxy.get("/metrics").1;
        metrics.contains("tideover_identities_waiting{upstream=\"main\"} 1")
    });
}

#[test]
fn a_user_who_comes_back_finds_its_records_replayed_before_anything_new() {
    for way in [Way::Auth, Way::Hello] {
        let (redis, proxy) = interrupted(way);
        await_waiting(&proxy, 51);
        let mut url = proxy.client();
        let mut bob = proxy.client();
        // Pipelined: nothing of it may overtake what waits.
        match way {
            Way::Auth => bob.send(&["AUTH", "bob", "word"]),
            Way::Hello => bob.send(&["HELLO", "3", "AUTH", "bob", "word"]),
        }
        for number in 53..60 {
            bob.send(&["RPUSH", "bob", &number.to_string()]);
        }
        bob.send(&["SET", "bob:last", "2"]);
        assert_eq!(error_text(&bob.reply()), None);
        for _ in 53..60 {
            assert_eq!(error_text(&bob.reply()), None);
        }
        assert_eq!(bob.reply(), OK);
        await_waiting(&proxy, 0);
        push(&mut bob, "bob", 60, 65);
        assert_list(&redis, "bob", 65);
        check(&mut url, "GET bob:last", &bulk("2"));
        assert_eq!(waiting(&proxy).1, json!([]));
        assert_eq!((proxy.backlog(), proxy.dead_letters()), (0, 0));
    }
}

#[test]
fn several_sessions_of_a_user_who_comes_back_all_stay_behind() {
    let (redis, proxy) = interrupted(Way::Auth);
    await_waiting(&proxy, 51);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut bob = as_user(proxy, "bob", "word");
                check(&mut bob, &format!("APPEND bob:{number} x"), b":1\r\n");
                let reply = bob.call(&["RPUSH", "bob", "new"]);
                assert_eq!(error_text(&reply), None);
            });
        }
    });
    await_waiting(&proxy, 0);
    let list = array(&redis.client().call(&["LRANGE", "bob", "0", "-1"]));
    let old: Vec<String> = (0..53).map(|number| number.to_string()).collect();
    assert_eq!(list[..53], old);
    assert_eq!(list[53..], vec!["new"; 8]);
}

#[test]
fn a_user_who_authenticates_while_down_is_replayed_with_the_others() {
    let (mut redis, proxy) = interrupted(Way::Auth);
    await_waiting(&proxy, 51);
    take_down(&mut redis, &proxy);
    let mut bob = as_user(&proxy, "bob", "word");
    push(&mut bob, "bob", 53, 60);
    redis.restart();
    await_waiting(&proxy, 0);
    proxy.wait_for_recovery();
    push(&mut bob, "bob", 60, 62);
    assert_list(&redis, "bob", 62);
}

#[test]
fn a_configuration_that_names_the_user_frees_what_waits() {
    let (redis, mut proxy) = interrupted(Way::Auth);
    await_waiting(&proxy, 51);
    proxy.kill();
    let settings = Settings {
        url: Some(format!("redis://bob:word@{}", redis.address())),
        data_dir: Some(proxy.data_dir()),
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    assert_eq!(waiting(&proxy), (0, json!([])));
    assert_list(&redis, "bob", 53);
}

#[test]
fn a_user_called_default_who_waits_keeps_nobody_else_waiting() {
    let mut redis = redis();
    let mut proxy = Tideover::healthy(&redis);
    let mut named = as_user(&proxy, "default", "any");
    take_down(&mut redis, &proxy);
    push(&mut named, "l", 0, 3);
    proxy.restart();
    redis.restart();
    await_waiting(&proxy, 3);
    let mut url = proxy.client();
    for number in 1..20 {
        check(&mut url, "INCR n", format!(":{number}\r\n").as_bytes());
    }
    as_user(&proxy, "default", "any");
    await_waiting(&proxy, 0);
    assert_list(&redis, "l", 3);
    let metrics = proxy.get("/metrics").1;
    assert!(
        metrics.contains("tideover_replayed_total{upstream=\"main\"} 3\n"),
        "{metrics}"
    );
}

#[test]
fn killed_in_the_middle_of_it_what_waited_is_applied_once() {
    let mut redis = redis();
    let settings = Settings {
        more: "[upstream.replay]\nrate_max = 2000\n".to_owned(),
        ..Settings::default()
    };
    let mut proxy = prepare_slow(&redis, &settings);
    let mut bob = as_user(&proxy, "bob", "word");
    take_down(&mut redis, &proxy);
    let pipeline: Vec<u8> = (0..3000)
        .flat_map(|number: usize| support::command(&["RPUSH", "bob", &number.to_string()]))
        .collect();
    bob.send_raw(&pipeline);
    for _ in 0..3000 {
        assert_eq!(error_text(&bob.reply()), None);
    }
    proxy.restart();
    redis.restart();
    await_waiting(&proxy, 3000);
    for _ in 0..3 {
        let before = redis.client().call(&["LLEN", "bob"]);
        let mut bob = proxy.client();
        bob.send(&["AUTH", "bob", "word"]);
        wait_until(DEADLINE, "something is replayed", || {
            redis.client().call(&["LLEN", "bob"]) != before
        });
        proxy.restart();
        proxy.wait_for_mode("healthy", DEADLINE);
    }
    let mut bob = as_user(&proxy, "bob", "word");
    push(&mut bob, "bob", 3000, 3001);
    await_waiting(&proxy, 0);
    assert_list(&redis, "bob", 3001);
    assert_eq!(proxy.dead_letters(), 0);
}

/// With a `[upstream.replay]` of its own.
fn prepare_slow(redis: &RedisServer, settings: &Settings) -> Tideover {
    let mut proxy = Tideover::prepare(redis, settings);
    let toml = std::fs::read_to_string(proxy.config()).unwrap();
    let toml = toml.replacen("[upstream.replay]\nstart_delay_max = \"20ms\"\n", "", 1);
    std::fs::write(proxy.config(), toml).unwrap();
    proxy.launch();
    proxy.wait_until_listening();
    proxy.wait_for_mode("healthy", DEADLINE);
    proxy
}

#[test]
fn after_a_rotated_password_the_records_wait_for_the_new_one() {
    let mut redis = redis();
    let proxy = Tideover::healthy(&redis);
    let mut bob = as_user(&proxy, "bob", "word");
    push(&mut bob, "bob", 0, 2);
    take_down(&mut redis, &proxy);
    push(&mut bob, "bob", 2, 10);
    check(&mut proxy.client(), "SET k 1", OK);
    let file = redis.dir().join("users.acl");
    let users = std::fs::read_to_string(&file).unwrap().replace(">word", ">rotated");
    std::fs::write(&file, users).unwrap();
    redis.restart();
    await_waiting(&proxy, 8);
    check(&mut proxy.client(), "GET k", &bulk("1"));
    // As Redis does with the connections of a user that is gone.
    assert!(bob.try_call(&["RPUSH", "bob", "too early"]).is_err());
    let mut bob = as_user(&proxy, "bob", "rotated");
    push(&mut bob, "bob", 10, 12);
    await_waiting(&proxy, 0);
    assert_list(&redis, "bob", 12);
}

#[test]
fn records_of_a_user_who_was_deleted_wait_until_somebody_drops_them_or_it_is_made_again() {
    let mut redis = redis();
    let proxy = Tideover::healthy(&redis);
    let mut bob = as_user(&proxy, "bob", "word");
    take_down(&mut redis, &proxy);
    push(&mut bob, "bob", 0, 5);
    let file = redis.dir().join("users.acl");
    let users = std::fs::read_to_string(&file).unwrap();
    let without: String = users
        .lines()
        .filter(|line| !line.contains("bob"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&file, without).unwrap();
    redis.restart();
    await_waiting(&proxy, 5);
    // Made again: its connection, not an AUTH, is what is seen first.
    check(&mut redis.client(), "ACL SETUSER bob on >word +@all ~*", OK);
    wait_until(DEADLINE, "bob is let in again", || {
        error_text(&bob.call(&["RPUSH", "new", "x"])).is_none()
    });
    await_waiting(&proxy, 0);
    assert_list(&redis, "bob", 5);

    take_down(&mut redis, &proxy);
    push(&mut bob, "bob", 5, 7);
    redis.restart();
    await_waiting(&proxy, 2);
    assert!(proxy.run_cli(&["queue", "drop"]).status.success());
    await_waiting(&proxy, 0);
    wait_until(DEADLINE, "nobody waits", || waiting(&proxy).1 == json!([]));
    check(&mut redis.client(), "ACL SETUSER bob on >word +@all ~*", OK);
    let mut bob = as_user(&proxy, "bob", "word");
    check(&mut bob, "SET dropped 1", OK);
    assert_list(&redis, "bob", 5);
}

#[test]
fn where_everybody_owes_a_password_whoever_says_one_brings_the_others_service() {
    let mut redis = redis();
    check(&mut redis.client(), "ACL SETUSER default off", OK);
    let mut admin = redis_as(&redis, "alice", "secret");
    check(&mut admin, "ACL SAVE", OK);
    let mut proxy = Tideover::start(&redis);
    let mut bob = as_user(&proxy, "bob", "word");
    take_down(&mut redis, &proxy);
    push(&mut bob, "bob", 0, 5);
    proxy.restart();
    redis.restart();
    wait_until(DEADLINE, "halted", || proxy.status()["halted"] == json!(true));
    // Nobody here has seen this user before: Redis answers, so Redis is asked.
    std::fs::remove_file(proxy.data_dir().join("main/known")).unwrap();
    let mut alice = proxy.client();
    wait_until(DEADLINE, "alice is let in", || {
        alice.call(&["AUTH", "alice", "secret"]) == OK
    });
    await_waiting(&proxy, 5);
    check(&mut alice, "INCR n", b":1\r\n");
    let mut bob = as_user(&proxy, "bob", "word");
    push(&mut bob, "bob", 5, 6);
    await_waiting(&proxy, 0);
    let bobs = redis_as(&redis, "alice", "secret").call(&["LRANGE", "bob", "0", "-1"]);
    assert_eq!(array(&bobs), ["0", "1", "2", "3", "4", "5"]);
}

fn redis_as(redis: &RedisServer, user: &str, password: &str) -> Client {
    let mut client = redis.client();
    login(&mut client, user, password, Way::Auth);
    client
}
