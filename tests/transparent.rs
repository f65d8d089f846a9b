//! While Redis is well, a client sees byte for byte what Redis answers.
//!
//! Every conversation is held twice, with a Redis directly and through tideover with another one of the same age, and the bytes
//! are compared.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use support::pair::{Pair, assert_same};
use support::{Client, DEADLINE, await_down, bulk, command, error_text, wait_until};

#[test]
fn hello_greets_as_redis_does_but_for_the_id() {
    let pair = Pair::start();
    for hello in [
        ["HELLO", "2"].as_slice(),
        &["HELLO", "3"],
        &["HELLO"],
        &["HELLO", "3", "SETNAME", "me"],
    ] {
        let words = |reply: Vec<u8>| {
            let text = String::from_utf8(reply).unwrap();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let id = lines.iter().position(|line| line == "id").unwrap();
            lines
                .into_iter()
                .enumerate()
                .filter(|(at, _)| *at != id + 1)
                .map(|(_, line)| line)
                .collect::<Vec<_>>()
        };
        let expected = words(pair.direct.client().call(hello));
        assert_eq!(words(pair.proxy.client().call(hello)), expected, "{hello:?}");
    }
}

#[test]
fn replies_that_are_turned_off_are_those_that_redis_does_not_give() {
    let pair = Pair::start();
    for (requests, replies) in [
        (["CLIENT REPLY OFF", "RESET", "PING"], 2),
        (["CLIENT REPLY SKIP", "RESET", "PING"], 1),
        (["CLIENT REPLY SKIP", "SUBSCRIBE c", "PING"], 2),
        (["CLIENT REPLY OFF", "SUBSCRIBE c", "UNSUBSCRIBE c"], 2),
        (["CLIENT REPLY SKIP", "PING", "GET k"], 1),
    ] {
        pair.check(&requests.join(", "), |dial| {
            let mut client = dial();
            client.send_raw(
                &requests
                    .map(|line| command(&line.split(' ').collect::<Vec<_>>()))
                    .concat(),
            );
            (0..replies).flat_map(|_| client.reply()).collect()
        });
    }
}

/// A confirmation is out of band in Redis, and none of the replies that CLIENT REPLY turns off.
#[test]
fn subscriptions_are_confirmed_while_down_though_replies_are_turned_off() {
    let mut pair = Pair::start();
    pair.behind.kill();
    await_down(&pair.proxy);
    for connect in [|client: Client| client, Client::hello3] {
        for (lines, replies) in [
            (["SET k v", "CLIENT REPLY OFF", "SUBSCRIBE c", "UNSUBSCRIBE c"], 3),
            (["SET k v", "CLIENT REPLY SKIP", "SUBSCRIBE c", "PING"], 3),
            (["CLIENT REPLY OFF", "PSUBSCRIBE a b", "GET k", "PUNSUBSCRIBE a"], 3),
            (["SET k v", "CLIENT REPLY SKIP", "GET k", "SUBSCRIBE c"], 2),
        ] {
            pair.check(&lines.join(", "), |dial| {
                let mut client = connect(dial());
                client.send_raw(&lines.map(|line| command(&line.split(' ').collect::<Vec<_>>())).concat());
                (0..replies).flat_map(|_| client.reply()).collect()
            });
        }
    }
}

#[test]
fn a_blocked_pop_is_woken_by_another_client() {
    let pair = Pair::start();
    let blocked = |client: &mut Client| support::wait_for_blocked(client, 1, support::DEADLINE);
    for connect in [|client: Client| client, Client::hello3] {
        pair.check("BLPOP and a command behind it", |dial| {
            let (mut waiter, mut other) = (connect(dial()), connect(dial()));
            waiter.send_raw(&[command(&["BLPOP", "q", "0"]), command(&["ECHO", "behind"])].concat());
            blocked(&mut other);
            let mut replies = other.call(&["RPUSH", "q", "job"]);
            replies.extend(waiter.reply());
            replies.extend(waiter.reply());
            replies
        });
        pair.check("XREAD BLOCK", |dial| {
            let (mut waiter, mut other) = (connect(dial()), connect(dial()));
            other.call(&["DEL", "bx"]);
            waiter.send(&["XREAD", "BLOCK", "0", "STREAMS", "bx", "$"]);
            blocked(&mut other);
            other.call(&["XADD", "bx", "1-1", "f", "v"]);
            waiter.reply()
        });
    }
    pair.check("a timeout of its own", |dial| {
        dial().call(&["BLPOP", "nothing", "0.05"])
    });
}

#[test]
fn monitor_shows_what_others_do() {
    let pair = Pair::start();
    let (mut monitor, mut other) = (pair.proxy.client(), pair.proxy.client());
    assert_eq!(monitor.call(&["MONITOR"]), b"+OK\r\n");
    other.call(&["SET", "monitored", "1"]);
    support::wait_until(support::DEADLINE, "MONITOR's line", || {
        String::from_utf8(monitor.reply())
            .unwrap()
            .contains("\"SET\" \"monitored\" \"1\"")
    });
}

#[test]
fn scripts_and_functions_run() {
    let pair = Pair::start();
    pair.check("SCRIPT LOAD, EVALSHA, FUNCTION", |dial| {
        let mut client = dial();
        let sha = client.call(&["SCRIPT", "LOAD", "return redis.call('INCRBY', KEYS[1], ARGV[1])"]);
        let sha_text = String::from_utf8_lossy(&sha).lines().nth(1).unwrap().to_owned();
        let mut replies = sha;
        replies.extend(client.call(&["EVALSHA", &sha_text, "1", "counter", "5"]));
        let code = "#!lua name=lib\nredis.register_function('twice', function(keys, args) return args[1] * 2 end)";
        replies.extend(client.call(&["FUNCTION", "LOAD", code]));
        replies.extend(client.call(&["FCALL", "twice", "0", "21"]));
        replies.extend(client.call(&["EVAL", "error('thrown')", "0"]));
        replies
    });
}

#[test]
fn each_session_stays_in_the_database_it_selected() {
    let pair = Pair::start();
    pair.check("SELECT", |dial| {
        let mut clients: Vec<Client> = (0..8).map(|_| dial()).collect();
        let mut replies = Vec::new();
        for (db, client) in clients.iter_mut().enumerate() {
            replies.extend(client.call(&["SELECT", &db.to_string()]));
        }
        for (db, client) in clients.iter_mut().enumerate() {
            replies.extend(client.call(&["SET", "same", &format!("in {db}")]));
        }
        for client in clients.iter_mut().rev() {
            replies.extend(client.call(&["GET", "same"]));
            replies.extend(client.call(&["DBSIZE"]));
        }
        let mut pipeline = Vec::new();
        for db in 0..8 {
            pipeline.extend(command(&["SELECT", &db.to_string()]));
            pipeline.extend(command(&["GET", "same"]));
        }
        clients[0].send_raw(&pipeline);
        replies.extend((0..16).flat_map(|_| clients[0].reply()));
        replies
    });
}

#[test]
fn a_write_is_seen_by_the_read_behind_it_whatever_way_they_take() {
    let pair = Pair::start();
    let mut client = pair.proxy.client();
    for number in 0..300 {
        let text = number.to_string();
        let big = text.repeat(30_000);
        let (write, read): (Vec<u8>, Vec<u8>) = match number % 3 {
            0 => (
                command(&["SET", "own", &text]),
                command(&["EVAL", "return redis.call('GET', KEYS[1])", "1", "own"]),
            ),
            1 => (
                command(&["EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", "1", "own", &text]),
                command(&["GET", "own"]),
            ),
            _ => (command(&["SET", "own", &big]), command(&["STRLEN", "own"])),
        };
        client.send_raw(&[write, read].concat());
        assert_eq!(client.reply(), b"+OK\r\n");
        let expected = if number % 3 == 2 {
            format!(":{}\r\n", big.len()).into_bytes()
        } else {
            bulk(&text)
        };
        assert_same("the read behind the write", &expected, &client.reply());
    }
}

#[test]
fn sessions_with_their_own_user_act_as_it() {
    let pair = Pair::start();
    pair.check("AUTH", |dial| {
        let (mut admin, mut user) = (dial(), dial());
        let mut replies = admin.call(&[
            "ACL",
            "SETUSER",
            "reader",
            "on",
            ">secret",
            "~*",
            "+@read",
            "+acl|whoami",
        ]);
        for args in [
            ["AUTH", "reader", "wrong"].as_slice(),
            &["AUTH", "reader", "secret"],
            &["ACL", "WHOAMI"],
            &["SET", "k", "v"],
            &["GET", "k"],
        ] {
            replies.extend(user.call(args));
        }
        replies.extend(admin.call(&["ACL", "WHOAMI"]));
        replies.extend(admin.call(&["SET", "k", "v"]));
        replies
    });
}

#[test]
fn application_errors_do_not_open_the_breaker() {
    let pair = Pair::start();
    let mut client = pair.proxy.client();
    client.call(&["SET", "text", "v"]);
    for _ in 0..200 {
        let error = error_text(&client.call(&["LPUSH", "text", "x"])).unwrap();
        assert!(error.starts_with("WRONGTYPE "), "{error}");
    }
    assert_eq!(pair.proxy.mode(), "healthy");
    assert_eq!(client.call(&["GET", "text"]), b"$1\r\nv\r\n");
}

/// More than a lane takes: it is passed on while it arrives.
const STREAMED_BYTES: usize = 8 << 20;

#[test]
fn a_large_request_that_redis_refuses_gets_its_error() {
    let pair = Pair::start();
    pair.check("errors behind large requests", |dial| {
        let mut client = dial();
        let large = "x".repeat(STREAMED_BYTES);
        let mut replies = client.call(&["SET", "text", "v"]);
        replies.extend(client.call(&["LPUSH", "text", &large]));
        replies.extend(client.call(&["SET", "text", &large, "NOSUCH"]));
        replies.extend(client.call(&["GET", "text"]));
        replies
    });
}

#[test]
fn a_large_request_whose_connection_redis_ends_is_not_waited_for() {
    let pair = Pair::start();
    let mut client = pair.proxy.client();
    let mut direct = pair.behind.client();
    let request = command(&["SET", "k", &"x".repeat(STREAMED_BYTES)]);
    let (begin, rest) = request.split_at(request.len() / 2);
    client.send_raw(begin);
    wait_until(DEADLINE, "Redis reads it", || {
        let list = String::from_utf8(direct.call(&["CLIENT", "LIST"])).unwrap();
        list.lines().any(|line| {
            let read = line.split_once(" qbuf=").and_then(|(_, rest)| rest.split(' ').next());
            read.is_some_and(|bytes| bytes.parse::<usize>().unwrap() > STREAMED_BYTES / 4)
        })
    });
    direct.call(&["CLIENT", "KILL", "TYPE", "normal"]);
    client.send_raw(rest);
    match client.try_reply() {
        Ok(reply) => assert_eq!(reply.first(), Some(&b'-')),
        Err(error) => assert!(
            matches!(
                error.kind(),
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
            ),
            "{error}"
        ),
    }
    assert_eq!(direct.call(&["EXISTS", "k"]), b":0\r\n");
    assert_eq!(pair.proxy.client().call(&["EXISTS", "k"]), b":0\r\n");
}
