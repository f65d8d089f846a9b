//! What a session makes of the connection that it has to itself: it goes along with it, and nobody else meets it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use support::pair::Pair;

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
