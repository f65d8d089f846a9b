//! While Redis is well, the connection that a session has for itself follows what the session says, and ends where it would end at Redis.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use support::command;
use support::pair::{Pair, assert_same};
use support::{Durability, RedisServer, Tideover};

#[test]
fn a_connection_of_its_own_goes_along_into_another_database_and_protocol() {
    let pair = Pair::start();
    pair.check("BLPOP behind SELECT", |dial| {
        let mut client = dial();
        let mut replies = Vec::new();
        for args in [
            ["SELECT", "5"].as_slice(),
            &["RPUSH", "list", "in 5"],
            &["SELECT", "4"],
            &["RPUSH", "list", "in 4"],
            &["BLPOP", "list", "1"],
            &["SELECT", "5"],
            &["BLPOP", "list", "1"],
        ] {
            replies.extend(client.call(args));
        }
        let mut client = client.hello3();
        for args in [["BLPOP", "list", "0.01"].as_slice(), &["CLIENT", "TRACKINGINFO"]] {
            replies.extend(client.call(args));
        }
        replies
    });
}

#[test]
fn a_pinned_connection_speaks_the_protocol_of_a_hello_with_auth() {
    let pair = Pair::start();
    pair.check("HELLO 3 AUTH behind CLIENT TRACKINGINFO", |dial| {
        let mut client = dial();
        let mut replies = client.call(&["CLIENT", "TRACKINGINFO"]);
        client.call(&["HELLO", "3", "AUTH", "default", "any"]);
        replies.extend(client.call(&["CLIENT", "TRACKINGINFO"]));
        replies.extend(client.call(&["HGETALL", "nothing"]));
        replies
    });
}

#[test]
fn a_replica_gets_the_replication_stream() {
    let pair = Pair::start();
    let (mut replica, mut writer) = (pair.proxy.client(), pair.proxy.client());
    replica.send(&["SYNC"]);
    let mut stream = Vec::new();
    let mut has = |part: &[u8]| {
        support::wait_until(support::DEADLINE, "the replication stream", || {
            stream.extend(replica.some_bytes());
            stream.windows(part.len()).any(|bytes| bytes == part)
        });
    };
    has(b"REDIS0010");
    writer.call(&["SET", "replicated", "1"]);
    has(&command(&["SET", "replicated", "1"]));
}

#[test]
fn a_user_without_the_right_to_select_stays_in_the_database_chosen_before() {
    let pair = Pair::start();
    pair.check("AUTH behind SELECT", |dial| {
        let (mut admin, mut user) = (dial(), dial());
        let mut replies = Vec::new();
        for rule in [
            [
                "ACL", "SETUSER", "limited", "on", ">secret", "~*", "+get", "+set", "+blpop",
            ]
            .as_slice(),
            &["ACL", "SETUSER", "selecting", "on", ">secret", "~*", "+get", "+select"],
        ] {
            replies.extend(admin.call(rule));
        }
        for args in [
            ["SELECT", "9"].as_slice(),
            &["AUTH", "limited", "secret"],
            &["SET", "k", "in 9"],
            &["GET", "k"],
            &["SELECT", "5"],
            &["GET", "k"],
            &["BLPOP", "nothing", "0.01"],
            &["INCR", "k"],
            &["AUTH", "selecting", "secret"],
            &["GET", "k"],
            &["SELECT", "5"],
            &["GET", "k"],
        ] {
            replies.extend(user.call(args));
        }
        // What tideover does for itself is not held against the user.
        replies.extend(admin.call(&["INFO", "errorstats"]));
        replies
    });
}

#[test]
fn what_tideover_says_for_itself_is_answered_to_nobody() {
    let pair = Pair::start();
    pair.check("SUBSCRIBE behind CLIENT SETNAME, HELLO 2 while subscribed", |dial| {
        let mut subscriber = dial();
        subscriber.call(&["CLIENT", "ID"]);
        subscriber.send_raw(&[command(&["CLIENT", "SETNAME", "name"]), command(&["SUBSCRIBE", "one"])].concat());
        let mut replies = subscriber.reply();
        replies.extend(subscriber.reply());
        replies.extend(dial().call(&["PUBLISH", "one", "hello"]));
        replies.extend(subscriber.reply());
        replies.extend(subscriber.call(&["UNSUBSCRIBE"]));
        subscriber.call(&["HELLO", "3"]);
        replies.extend(subscriber.call(&["SUBSCRIBE", "one"]));
        subscriber.call(&["HELLO", "2"]);
        replies.extend(dial().call(&["PUBLISH", "one", "hello"]));
        replies.extend(subscriber.reply());
        replies.extend(subscriber.call(&["PING"]));
        replies
    });
    for feed in ["MONITOR", "SYNC"] {
        let mut client = pair.proxy.client();
        client.call(&["CLIENT", "SETNAME", "name"]);
        client.send(&[feed]);
        let bytes = client.some_bytes();
        let begins: &[u8] = if feed == "SYNC" { b"$" } else { b"+OK\r\n" };
        assert!(
            bytes.trim_ascii_start().starts_with(begins),
            "{feed} begins with {bytes:?}"
        );
        if feed == "MONITOR" {
            pair.proxy.client().call(&["SET", "k", "v"]);
            let line = client.reply();
            assert!(line.ends_with(b"\"SET\" \"k\" \"v\"\r\n"), "{line:?}");
        }
    }
}

#[test]
fn a_password_that_was_withdrawn_is_taken_no_more() {
    let pair = Pair::start();
    pair.check("AUTH with a password that is gone", |dial| {
        let (mut admin, mut before, mut after) = (dial(), dial(), dial());
        let mut replies = admin.call(&["ACL", "SETUSER", "rotated", "on", ">old", "~*", "+@all"]);
        replies.extend(before.call(&["AUTH", "rotated", "old"]));
        replies.extend(before.call(&["SET", "k", "v"]));
        replies.extend(admin.call(&["ACL", "SETUSER", "rotated", "<old", ">new"]));
        replies.extend(after.call(&["AUTH", "rotated", "old"]));
        replies.extend(after.call(&["HELLO", "3", "AUTH", "rotated", "old"]));
        replies.extend(after.call(&["ACL", "WHOAMI"]));
        replies.extend(after.call(&["AUTH", "rotated", "new"]));
        replies.extend(after.call(&["ACL", "WHOAMI"]));
        // Who was let in stays in.
        replies.extend(before.call(&["GET", "k"]));
        replies
    });
}

#[test]
fn little_is_taken_from_those_who_owe_a_password() {
    let redis = RedisServer::start(Durability::Memory);
    redis.client().call(&["CONFIG", "SET", "requirepass", "secret"]);
    let proxy = Tideover::healthy(&redis);
    for request in ["*100\r\n", "*1\r\n$100000000\r\n", "*2147483648\r\n", "*1\r\n$x\r\n"] {
        let answers: Vec<Vec<u8>> = [redis.client(), proxy.client()]
            .into_iter()
            .map(|mut client| {
                client.send_raw(request.as_bytes());
                client.until_closed()
            })
            .collect();
        assert_same(request, &answers[0], &answers[1]);
        assert!(answers[0].starts_with(b"-ERR Protocol error"));
    }
}

#[test]
fn a_client_that_redis_ends_is_ended() {
    let pair = Pair::start();
    pair.check("CLIENT KILL of a subscriber, and of an ID", |dial| {
        let mut admin = dial();
        let mut replies = Vec::new();
        for begin in [["SUBSCRIBE", "one"], ["CLIENT", "TRACKINGINFO"]] {
            let mut client = dial();
            let id = support::integer(&client.call(&["CLIENT", "ID"])).to_string();
            replies.extend(client.call(&begin));
            replies.extend(admin.call(&["CLIENT", "KILL", "ID", &id]));
            replies.extend(client.until_closed());
        }
        replies
    });
}
