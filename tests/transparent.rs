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
use support::{Client, bulk, command, error_text};

/// Replies of every type, and errors; nothing that depends on time, chance or identity.
const SCRIPT: &str = "
    PING
    PING hello
    ECHO hello
    SET k v
    GET k
    GET nothing
    SET k v NX
    SET k w XX GET
    SETEX e 1000 v
    TTL e
    PTTL nothing
    APPEND k tail
    STRLEN k
    GETRANGE k 0 1
    INCR n
    INCRBYFLOAT n 1.5
    INCR k
    MSET a 1 b 2
    MGET a b nothing
    EXISTS a b nothing
    TYPE a
    DEL a b
    DEL a
    RPUSH l 1 2 3
    LRANGE l 0 -1
    LPOP l 2
    LPOP nothing
    LPOP nothing 2
    BLPOP l 1
    BLMPOP 0.01 1 l LEFT
    LLEN l
    LPUSH l
    SADD s 1 2 3
    SADD s 3
    SMEMBERS s
    SMISMEMBER s 1 9
    HSET h f 1 g 2
    HGETALL h
    HGET h nothing
    HMGET h f nothing
    HINCRBYFLOAT h f 0.25
    HRANDFIELD nothing
    ZADD z 1 a 2.5 b
    ZRANGE z 0 -1 WITHSCORES
    ZSCORE z b
    ZMSCORE z a nothing
    ZPOPMIN z
    ZADD z INCR 3 c
    GEOADD g 13.361389 38.115556 Palermo
    GEOPOS g Palermo nothing
    XADD x 1-1 f v
    XADD x 1-1 f v
    XRANGE x - +
    XGROUP CREATE x group 0
    XREADGROUP GROUP group one COUNT 1 STREAMS x >
    XPENDING x group
    XREAD STREAMS nothing 0
    XINFO GROUPS x
    PFADD p a b
    PFCOUNT p
    SETBIT bits 7 1
    BITFIELD bits GET u8 0
    LCS k k IDX
    OBJECT ENCODING l
    DUMP nothing
    SCAN 0 COUNT 1000 TYPE stream
    WAIT 0 10
    PUBLISH nobody hello
    EVAL return{1,'two',{3}} 0
    EVAL return{double=3.5} 0
    EVAL return{err='MY'} 0
    EVAL return(redis.call('GET',KEYS[1])) 1 k
    EVALSHA ffffffffffffffffffffffffffffffffffffffff 0
    SCRIPT EXISTS ffffffffffffffffffffffffffffffffffffffff
    CONFIG GET maxmemory-policy
    CONFIG SET nonsense 1
    CLIENT GETNAME
    CLIENT SETNAME me
    CLIENT GETNAME
    CLIENT SETNAME two\u{1}words
    COMMAND COUNT
    COMMAND INFO get nonsense
    COMMAND GETKEYS SET k v
    COMMAND DOCS get
    ACL WHOAMI
    DBSIZE
    GET
    GET a b
    HGET k f
    NONSENSE with arguments
    CLIENT NONSENSE
    SELECT 99
    SELECT x
    EXEC
    DISCARD
    UNWATCH
    AUTH wrong
    HELLO 9
    SWAPDB 0 1
    FLUSHALL
    DBSIZE
    RESET
    PING
";

#[test]
fn replies_are_the_same_in_resp2() {
    Pair::start().check_script(|client| client, SCRIPT);
}

#[test]
fn replies_are_the_same_in_resp3() {
    Pair::start().check_script(Client::hello3, SCRIPT);
}

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
fn a_pipeline_is_answered_in_order_with_the_same_bytes() {
    let pair = Pair::start();
    pair.check("the script in one write", |connect| {
        let mut client = connect();
        let lines: Vec<Vec<&str>> = SCRIPT
            .lines()
            .map(|line| line.split_whitespace().collect())
            .filter(|args: &Vec<_>| !args.is_empty())
            .collect();
        client.send_raw(&lines.iter().flat_map(|args| command(args)).collect::<Vec<u8>>());
        lines.iter().flat_map(|_| client.reply()).collect()
    });
}

#[test]
fn transactions_are_the_same() {
    let pair = Pair::start();
    let script = "
        MULTI
        MULTI
        SET k 1
        INCR k
        LPUSH k x
        GET k
        EXEC
        MULTI
        SET k
        SET k 2
        EXEC
        MULTI
        SET k 3
        DISCARD
        GET k
        MULTI
        WATCH k
        SELECT 3
        SET in3 1
        EXEC
        GET in3
        SELECT 0
        GET in3
        WATCH k
        UNWATCH
        MULTI
        EXEC
        MULTI
        BLPOP nothing 0
        HGETALL nothing
        EXEC
    ";
    pair.check_script(|client| client, script);
    pair.check_script(Client::hello3, script);
}

#[test]
fn a_watched_key_that_changes_aborts_the_transaction() {
    let pair = Pair::start();
    pair.check("WATCH, changed by another client", |connect| {
        let (mut watcher, mut other) = (connect(), connect());
        let mut replies = watcher.call(&["WATCH", "w"]);
        replies.extend(other.call(&["SET", "w", "theirs"]));
        for args in [["MULTI"].as_slice(), &["SET", "w", "ours"], &["EXEC"], &["GET", "w"]] {
            replies.extend(watcher.call(args));
        }
        replies
    });
    pair.check("WATCH, unchanged", |connect| {
        let mut watcher = connect();
        let calls = [
            ["WATCH", "w"].as_slice(),
            &["GET", "w"],
            &["MULTI"],
            &["SET", "w", "ours"],
            &["EXEC"],
            &["GET", "w"],
        ];
        calls.into_iter().flat_map(|args| watcher.call(args)).collect()
    });
}

#[test]
fn a_blocked_pop_is_woken_by_another_client() {
    let pair = Pair::start();
    let blocked = |client: &mut Client| {
        let line = |client: &mut Client| String::from_utf8(client.call(&["INFO", "clients"])).unwrap();
        support::wait_until(support::DEADLINE, "a blocked client", || {
            line(client).contains("blocked_clients:1\r\n")
        });
    };
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
fn pubsub_is_the_same() {
    let pair = Pair::start();
    for connect in [|client: Client| client, Client::hello3] {
        pair.check("SUBSCRIBE, PSUBSCRIBE, PUBLISH", |dial| {
            let (mut subscriber, mut publisher) = (connect(dial()), connect(dial()));
            let mut replies = Vec::new();
            subscriber.send(&["SUBSCRIBE", "one", "two"]);
            replies.extend(subscriber.reply());
            replies.extend(subscriber.reply());
            replies.extend(subscriber.call(&["PSUBSCRIBE", "o*"]));
            replies.extend(publisher.call(&["PUBLISH", "one", "hello"]));
            replies.extend(subscriber.reply());
            replies.extend(subscriber.reply());
            replies.extend(subscriber.call(&["PING"]));
            replies.extend(subscriber.call(&["PING", "text"]));
            replies.extend(subscriber.call(&["GET", "k"]));
            replies.extend(subscriber.call(&["UNSUBSCRIBE", "one"]));
            replies.extend(subscriber.call(&["UNSUBSCRIBE"]));
            replies.extend(subscriber.call(&["PUNSUBSCRIBE"]));
            replies.extend(subscriber.call(&["GET", "k"]));
            replies.extend(subscriber.call(&["UNSUBSCRIBE"]));
            replies
        });
    }
}

#[test]
fn a_subscriber_that_redis_closes_is_closed() {
    let pair = Pair::start();
    pair.check("CLIENT KILL TYPE pubsub", |connect| {
        let mut subscriber = connect();
        let mut bytes = subscriber.call(&["SUBSCRIBE", "channel"]);
        bytes.extend(connect().call(&["CLIENT", "KILL", "TYPE", "pubsub"]));
        bytes.extend(subscriber.until_closed());
        bytes
    });
}

#[test]
fn pushes_of_client_tracking_arrive() {
    let pair = Pair::start();
    pair.check("CLIENT TRACKING", |dial| {
        let (mut reader, mut writer) = (dial().hello3(), dial());
        let mut replies = reader.call(&["CLIENT", "TRACKING", "ON"]);
        replies.extend(reader.call(&["GET", "tracked"]));
        replies.extend(writer.call(&["SET", "tracked", "1"]));
        replies.extend(reader.reply());
        replies.extend(reader.call(&["GET", "tracked"]));
        replies
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
fn client_reply_off_and_skip_are_honoured() {
    let pair = Pair::start();
    pair.check("CLIENT REPLY", |dial| {
        let mut client = dial();
        for args in [
            ["CLIENT", "REPLY", "SKIP"].as_slice(),
            &["SET", "r", "1"],
            &["ECHO", "seen"],
        ] {
            client.send(args);
        }
        for args in [
            ["CLIENT", "REPLY", "OFF"].as_slice(),
            &["SET", "r", "2"],
            &["PING"],
            &["CLIENT", "REPLY", "ON"],
            &["GET", "r"],
        ] {
            client.send(args);
        }
        (0..3).flat_map(|_| client.reply()).collect()
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
