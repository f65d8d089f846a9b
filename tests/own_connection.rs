//! What a session makes of the connection that it has to itself: it goes along with it, and nobody else meets it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use support::command;
use support::pair::{Pair, assert_same};
use support::{Durability, RedisServer, Tideover};

/// FLUSHDB and WATCH have a connection of the session's own, and so has what follows them at once.
#[test]
fn a_session_takes_its_own_connection_along_to_another_database() {
    let pair = Pair::start();
    pair.check_script(
        |client| client,
        "SET k zero
         SELECT 1
         SET k one
         SELECT 0
         FLUSHDB
         SELECT 1
         FLUSHDB
         GET k
         SET k one
         CLIENT NOSUCH
         SELECT 2
         WATCH k
         MULTI
         SET k two
         EXEC
         GET k
         SELECT 1
         GET k
         WATCH k
         SELECT 2
         MULTI
         GET k
         SELECT 1
         GET k
         EXEC
         GET k",
    );
}

#[test]
fn a_session_takes_its_own_connection_along_to_another_protocol() {
    let pair = Pair::start();
    pair.check("HELLO behind a script", |dial| {
        let mut client = dial();
        let script = ["EVAL", "redis.setresp(3) return {double = 0.5}", "0"];
        let mut replies = client.call(&script);
        for version in ["3", "2"] {
            client.call(&["HELLO", version]);
            replies.extend(client.call(&script));
        }
        replies
    });
}

#[test]
fn a_connection_that_served_another_database_is_nobody_elses() {
    let pair = Pair::start();
    pair.check("what a WATCH finds", |dial| {
        let mut client = dial();
        for args in [
            &["MULTI"][..],
            &["SELECT", "3"],
            &["EXEC"],
            &["CLIENT", "GETREDIR"],
            &["SET", "k", "v"],
        ] {
            client.call(args);
        }
        let mut other = dial();
        let watched = other.call(&["WATCH", "k"]);
        [watched, other.call(&["DBSIZE"]), other.call(&["GET", "k"])].concat()
    });
}

#[test]
fn what_a_transaction_makes_of_its_connection_stays_with_its_session() {
    let pair = Pair::start();
    pair.check("AUTH, SETNAME and HELLO inside MULTI", |dial| {
        let mut admin = dial();
        admin.call(&["ACL", "SETUSER", "guest", "on", "nopass", "~*", "+@all"]);
        let mut client = dial();
        let mut replies = Vec::new();
        for args in [
            &["MULTI"][..],
            &["AUTH", "guest", "any"],
            &["CLIENT", "SETNAME", "me"],
            &["EXEC"],
            &["ACL", "WHOAMI"],
        ] {
            replies.extend(client.call(args));
        }
        replies.extend(client.call(&["CLIENT", "GETNAME"]));
        drop(client);
        let mut other = dial();
        for args in [&["WATCH", "k"][..], &["ACL", "WHOAMI"], &["CLIENT", "GETNAME"]] {
            replies.extend(other.call(args));
        }
        replies
    });
}

#[test]
fn an_answer_given_here_stands_behind_the_confirmations_before_it() {
    let pair = Pair::start();
    pair.check("UNSUBSCRIBE and what follows at once", |dial| {
        let mut client = dial();
        let lines = [
            "SUBSCRIBE c",
            "UNSUBSCRIBE c",
            "SELECT 1",
            "SUBSCRIBE c",
            "UNSUBSCRIBE",
            "CLIENT SETNAME x",
            "SUBSCRIBE c",
            "UNSUBSCRIBE",
            "MULTI",
            "PING",
            "EXEC",
        ];
        for line in lines {
            client.send(&line.split(' ').collect::<Vec<_>>());
        }
        (0..lines.len()).flat_map(|_| client.reply()).collect()
    });
}

#[test]
fn an_error_that_debug_was_told_to_say_is_passed_on() {
    let pair = Pair::start();
    pair.check("DEBUG ERROR", |dial| {
        let mut client = dial();
        let mut replies = client.call(&["debug", "ERROR", "LOADING not really"]);
        replies.extend(client.call(&["DEBUG", "ERROR", "READONLY not really"]));
        replies.extend(client.call(&["INCR", "n"]));
        replies
    });
}

#[test]
fn a_session_finds_its_name_among_the_clients() {
    let pair = Pair::start();
    pair.check("CLIENT LIST", |dial| {
        let mut client = dial();
        client.call(&["CLIENT", "SETNAME", "it-is-me"]);
        let list = client.call(&["CLIENT", "LIST"]);
        vec![u8::from(String::from_utf8_lossy(&list).contains(" name=it-is-me "))]
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
    has(b"REDIS00");
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
                "ACL",
                "SETUSER",
                "limited",
                "on",
                ">secret",
                "~*",
                "+get",
                "+set",
                "+blpop",
                "+@transaction",
            ]
            .as_slice(),
            &[
                "ACL",
                "SETUSER",
                "selecting",
                "on",
                ">secret",
                "~*",
                "+get",
                "+set",
                "+select",
                "+@transaction",
            ],
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
            // What is dialled meanwhile is seen as well.
            while !client.reply().ends_with(b"\"SET\" \"k\" \"v\"\r\n") {}
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

#[test]
fn a_session_whose_user_is_deleted_is_closed() {
    let pair = Pair::start();
    pair.check("a session of a user that is gone", |dial| {
        let (mut admin, mut one, mut other) = (dial(), dial(), dial());
        let mut replies = admin.call(&["ACL", "SETUSER", "leaver", "on", ">x", "~*", "+@all"]);
        for session in [&mut one, &mut other] {
            replies.extend(session.call(&["AUTH", "leaver", "x"]));
            replies.extend(session.call(&["SET", "k", "v"]));
        }
        replies.extend(admin.call(&["ACL", "DELUSER", "leaver"]));
        for session in [&mut one, &mut other] {
            // Redis has closed it already, perhaps too early for this to be sent.
            let _ = session.try_call(&["GET", "k"]).map(|reply| replies.extend(reply));
            assert_eq!(session.until_closed(), b"");
        }
        replies.extend(admin.call(&["GET", "k"]));
        replies.extend(dial().call(&["AUTH", "leaver", "x"]));
        replies
    });
}

#[test]
fn a_password_asked_for_from_now_on_is_asked_in_the_words_of_redis() {
    let pair = Pair::start();
    pair.check("a new session after CONFIG SET requirepass", |dial| {
        let mut replies = dial().call(&["CONFIG", "SET", "requirepass", "x"]);
        let mut session = dial();
        replies.extend(session.call(&["GET", "k"]));
        replies.extend(session.call(&["AUTH", "x"]));
        replies.extend(session.call(&["GET", "k"]));
        replies.extend(session.call(&["CONFIG", "SET", "requirepass", ""]));
        replies
    });
}
