//! MULTI … EXEC that comes as a whole shares the connection of others, and does nothing to them, whatever becomes of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use support::{
    Client, DEADLINE, Durability, Port, RedisServer, Relay, Settings, Tideover, Verdict, await_down, bulk, command,
    connects, error_text,
};

const UNCERTAIN: &str = "may or may not have been applied";

fn one_worker() -> Settings {
    Settings {
        workers: 1,
        ..Settings::default()
    }
}

fn split(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// In front of `redis`, well, and with its commands learned: before that no transaction shares a connection.
fn in_front_of(redis: &RedisServer, settings: &Settings) -> Tideover {
    let proxy = Tideover::start_with(redis, settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    support::wait_until(DEADLINE, "the upstream's commands are known", || {
        proxy.log_text().contains("asked for the upstream's commands")
    });
    proxy
}

/// All in one write.
fn send(client: &mut Client, lines: &[&str]) {
    let bytes: Vec<u8> = lines.iter().flat_map(|line| command(&split(line))).collect();
    client.send_raw(&bytes);
}

fn replies(client: &mut Client, lines: &[&str]) -> Vec<String> {
    send(client, lines);
    read(client, lines.len())
}

fn read(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| String::from_utf8(client.reply()).unwrap()).collect()
}

/// The connection of the last request of this name.
fn connection_of(relay: &Relay, name: &str) -> usize {
    *relay.connections_of(name).last().unwrap()
}

#[test]
fn only_a_transaction_that_any_connection_can_execute_shares_one() {
    let place = RedisServer::absent(Durability::Memory);
    let redis = RedisServer::start(Durability::Memory);
    let relay = Relay::start(&place, &redis, |_| Verdict::Pass);
    let proxy = in_front_of(&place, &one_worker());
    let mut other = proxy.client();
    other.call(&["GET", "k"]);
    let shared = connection_of(&relay, "GET");
    for (lines, is_shared) in [
        (&["MULTI", "INCR n", "LPUSH n x", "EXEC"][..], true),
        (&["multi", "SET k v", "exec"], true),
        (&["MULTI", "EXEC"], false),
        (&["MULTI", "GET k", "EXEC"], false),
        (&["MULTI", "INCR", "EXEC"], true),
        (
            &[
                "STRLEN k",
                "MULTI",
                "APPEND k v",
                "EXEC",
                "STRLEN k",
                "MULTI",
                "APPEND k v",
                "EXEC",
            ],
            true,
        ),
        (&["MULTI", "BLPOP l 0", "EXEC"], false),
        (&["MULTI", "SELECT 1", "SET k 1", "EXEC", "SELECT 0"], false),
        (&["MULTI", "EVAL return'1' 0", "EXEC"], false),
        (&["MULTI", "INCR n", "DISCARD"], false),
        (&["MULTI", "MULTI", "INCR n", "EXEC"], false),
        (&["MULTI", "NOSUCH", "EXEC"], false),
        (&["WATCH n", "MULTI", "INCR n", "EXEC"], false),
    ] {
        let mut client = proxy.client();
        let seen = replies(&mut client, lines);
        let connection = connection_of(&relay, if lines.contains(&"multi") { "multi" } else { "MULTI" });
        assert_eq!(connection == shared, is_shared, "{lines:?}");
        assert!(seen.iter().all(|reply| !reply.is_empty()), "{lines:?}");
        assert_eq!(other.call(&["ECHO", "others"]), bulk("others"), "{lines:?}");
    }
    let mut client = proxy.client();
    for line in ["MULTI", "INCR n", "EXEC"] {
        client.call(&split(line));
    }
    assert_ne!(connection_of(&relay, "MULTI"), shared, "in pieces");
}

#[test]
fn it_is_answered_as_by_redis_itself() {
    let redis = RedisServer::start(Durability::Memory);
    let proxy = in_front_of(&redis, &Settings::default());
    for lines in [
        &["SET k 1", "MULTI", "INCR k", "GET k", "LPUSH k x", "EXEC", "GET k"][..],
        &["MULTI", "INCR k", "NOSUCH", "EXEC", "GET k"],
        &["MULTI", "INCR", "GET k", "EXEC", "GET k"],
        &["MULTI", "EXEC now", "EXEC", "GET k"],
        &["MULTI", "CONFIG GET maxmemory", "EXEC", "PING"],
        &["MULTI", "EXEC", "EXEC", "DISCARD"],
    ] {
        redis.client().call(&["FLUSHALL"]);
        let direct = replies(&mut redis.client(), lines);
        redis.client().call(&["FLUSHALL"]);
        assert_eq!(replies(&mut proxy.client(), lines), direct, "{lines:?}");
    }
}

#[test]
fn nothing_of_others_comes_between_its_commands() {
    const CLIENTS: usize = 8;
    const TIMES: usize = 50;
    let place = RedisServer::absent(Durability::Memory);
    let redis = RedisServer::start(Durability::Memory);
    let relay = Relay::start(&place, &redis, |_| Verdict::Pass);
    let proxy = in_front_of(&place, &one_worker());
    std::thread::scope(|scope| {
        for id in 0..CLIENTS {
            let mut client = proxy.client();
            scope.spawn(move || {
                let key = format!("own:{id}");
                for _ in 0..TIMES {
                    let lines = [format!("GET {key}"), format!("INCR {key}"), format!("APPEND {key} 0")];
                    let seen = replies(
                        &mut client,
                        &[&lines[0], "MULTI", &lines[1], &lines[2], "EXEC", &lines[0]],
                    );
                    assert_eq!(seen[1..4], ["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n"]);
                    assert!(seen[4].starts_with("*2\r\n:"), "{seen:?}");
                    client.call(&["DEL", &key]);
                }
            });
        }
    });
    let requests = relay.requests();
    let (mut count, mut is_any_shared) = (0, false);
    for id in 0..=requests.iter().map(|(id, _)| *id).max().unwrap() {
        let on_it = requests.iter().filter(|(on, _)| *on == id);
        let lines: Vec<&str> = on_it.map(|(_, line)| line.as_str()).collect();
        let mut keys = BTreeSet::new();
        for at in (0..lines.len()).filter(|at| lines[*at] == "MULTI") {
            let key = lines[at + 1].strip_prefix("INCR ").unwrap();
            keys.insert(key);
            assert_eq!(lines[at + 2..at + 4], [&format!("APPEND {key} 0"), "EXEC"]);
            count += 1;
        }
        is_any_shared |= keys.len() > 1;
    }
    assert_eq!((count, is_any_shared), (CLIENTS * TIMES, true));
}

#[test]
fn cut_by_the_end_of_its_connection_it_is_uncertain_and_reads_of_others_are_asked_again() {
    let place = RedisServer::absent(Durability::Memory);
    let redis = RedisServer::start(Durability::Memory);
    let relay = Relay::start(&place, &redis, |args| match args.first().map(String::as_str) {
        Some("INCR") => Verdict::Close,
        _ => Verdict::Pass,
    });
    let proxy = in_front_of(&place, &one_worker());
    let (mut client, mut other) = (proxy.client(), proxy.client());
    other.call(&["SET", "k", "v"]);
    send(&mut client, &["MULTI", "INCR n", "EXEC"]);
    send(&mut other, &["GET k"]);
    assert_eq!(read(&mut client, 2), ["+OK\r\n", "+QUEUED\r\n"]);
    let text = error_text(&client.reply()).unwrap();
    assert!(
        text.starts_with("UNAVAILABLE EXEC ") && text.contains(UNCERTAIN),
        "{text}"
    );
    assert_eq!(other.reply(), bulk("v"));
    assert_eq!(client.call(&["GET", "k"]), bulk("v"));
    assert_eq!(client.call(&["EXEC"]), b"-ERR EXEC without MULTI\r\n");
    assert_eq!(redis.client().call(&["EXISTS", "n"]), b":0\r\n");
    drop(relay);
}

#[test]
fn one_that_has_not_left_when_redis_fails_is_refused_and_not_applied() {
    let redis = RedisServer::start(Durability::Memory);
    let settings = Settings {
        command_timeout: Duration::from_secs(3),
        ..one_worker()
    };
    let proxy = in_front_of(&redis, &settings);
    let (mut filler, mut client) = (proxy.client(), proxy.client());
    filler.call(&["SET", "filler", "0"]);
    redis.stop();
    // More than the sockets take.
    filler.send_raw(&command(&["SET", "filler", &"x".repeat(60_000)]).repeat(800));
    send(&mut client, &["MULTI", "SET cut 1", "EXEC"]);
    assert_eq!(read(&mut client, 2), ["+OK\r\n", "+QUEUED\r\n"]);
    let text = error_text(&client.reply()).unwrap();
    assert!(
        text.starts_with("UNAVAILABLE EXEC ") && !text.contains(UNCERTAIN),
        "{text}"
    );
    await_down(&proxy);
    assert_eq!(client.call(&["SET", "after", "1"]), b"+OK\r\n");
    redis.cont();
    proxy.wait_for_recovery();
    let mut direct = redis.client();
    assert_eq!(direct.call(&["EXISTS", "cut"]), b":0\r\n");
    assert_eq!(direct.call(&["GET", "after"]), bulk("1"));
    assert_eq!(client.call(&["GET", "after"]), bulk("1"));
}

/// Redis discards the transaction with the EXEC that it refuses: nobody else is answered `+QUEUED`.
#[test]
fn an_exec_that_is_refused_leaves_nothing_open_for_others() {
    let redis = RedisServer::start(Durability::Memory);
    let mut direct = redis.client();
    for (user, rights) in [
        ("no-exec", "-exec"),
        ("no-multi", "-multi"),
        ("no-incr", "-incr"),
        ("no-keys", "resetkeys ~k"),
    ] {
        let rule = format!("ACL SETUSER {user} on >pw ~* &* +@all {rights}");
        assert_eq!(direct.call(&split(&rule)), b"+OK\r\n");
    }
    let proxy = in_front_of(&redis, &one_worker());
    for user in ["no-exec", "no-multi", "no-incr", "no-keys"] {
        let lines = ["MULTI", "INCR n", "EXEC"];
        let connect = || {
            let (mut own, mut through) = (redis.client(), proxy.client());
            for client in [&mut own, &mut through] {
                assert_eq!(client.call(&["AUTH", user, "pw"]), b"+OK\r\n");
            }
            (own, through)
        };
        let (mut own, mut through) = connect();
        let (_, mut other) = connect();
        other.call(&["GET", "k"]);
        direct.call(&["SET", "n", "0"]);
        let expected = replies(&mut own, &lines);
        direct.call(&["SET", "n", "0"]);
        direct.call(&["SET", "k", user]);
        send(&mut through, &lines);
        send(&mut other, &["GET k"]);
        assert_eq!(read(&mut through, 3), expected, "{user}");
        assert_eq!(other.reply(), bulk(user));
        assert_eq!(other.call(&["GET", "k"]), bulk(user));
    }
}

/// Nothing ends a transaction there but DISCARD and the connection's end.
#[test]
fn where_redis_has_no_exec_nobody_else_is_in_the_transaction() {
    let redis = RedisServer::start_with(Durability::Memory, &["--rename-command", "EXEC", "''"]);
    let proxy = in_front_of(&redis, &one_worker());
    let mut other = proxy.client();
    assert_eq!(other.call(&["SET", "k", "v"]), b"+OK\r\n");
    let lines = ["MULTI", "INCR n", "EXEC"];
    let expected = replies(&mut redis.client(), &lines);
    assert!(expected[2].starts_with("-ERR unknown command"), "{expected:?}");
    for _ in 0..3 {
        let mut client = proxy.client();
        assert_eq!(replies(&mut client, &lines), expected);
        assert_eq!(other.call(&["GET", "k"]), bulk("v"));
        drop(client);
        // On a connection of its own, which may be one that was given back.
        assert_eq!(proxy.client().call(&["BLPOP", "none", "0.01"]), b"*-1\r\n");
    }
}

/// What was learned of the Redis before is not known of this one.
#[test]
fn a_redis_that_comes_back_without_exec_puts_nobody_into_a_transaction_of_others() {
    let mut redis = RedisServer::start(Durability::Memory);
    let proxy = in_front_of(&redis, &one_worker());
    let lines = ["MULTI", "INCR n", "EXEC"];
    let (mut client, mut other) = (proxy.client(), proxy.client());
    assert_eq!(replies(&mut client, &lines)[2], "*1\r\n:1\r\n");
    redis.add_options(&["--rename-command", "EXEC", "''"]);
    redis.kill();
    await_down(&proxy);
    redis.restart();
    proxy.wait_for_recovery();
    other.call(&["SET", "k", "v"]);
    for _ in 0..20 {
        send(&mut client, &lines);
        for _ in 0..10 {
            assert_eq!(other.call(&["GET", "k"]), bulk("v"));
        }
        let seen = read(&mut client, 3);
        assert_eq!(seen[..2], ["+OK\r\n", "+QUEUED\r\n"]);
        assert!(seen[2].starts_with('-'), "{seen:?}");
        // Where it had a connection of its own, that is in the transaction yet.
        client = proxy.client();
    }
    assert_eq!(other.call(&["SET", "k", "w"]), b"+OK\r\n");
    assert_eq!(redis.client().call(&["GET", "k"]), bulk("w"));
}

/// A node of a cluster discards a transaction that spans slots, with an error that is not EXECABORT.
#[test]
fn where_a_node_of_a_cluster_refuses_it_others_notice_nothing() {
    let bus = Port::reserve();
    let bus_port = bus.number().to_string();
    let redis = RedisServer::start_with(
        Durability::Memory,
        &["--cluster-enabled", "yes", "--cluster-port", &bus_port],
    );
    let mut direct = redis.client();
    assert_eq!(direct.call(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), b"+OK\r\n");
    support::wait_until(DEADLINE, "the cluster is up", || {
        direct.call(&["SET", "k", "v"]) == b"+OK\r\n"
    });
    let proxy = in_front_of(&redis, &one_worker());
    let (mut client, mut other) = (proxy.client(), proxy.client());
    other.call(&["GET", "k"]);
    let before = connects(&mut direct);
    for applied in 1..=20 {
        send(&mut client, &["MULTI", "SET a 1", "SET b 2", "EXEC"]);
        send(&mut other, &["INCR n"]);
        let seen = read(&mut client, 4);
        assert!(seen[3].starts_with("-CROSSSLOT "), "{seen:?}");
        assert_eq!(other.reply(), format!(":{applied}\r\n").into_bytes());
    }
    assert_eq!(connects(&mut direct), before);
    assert_eq!(direct.call(&["EXISTS", "a"]), b":0\r\n");
}

#[test]
fn one_that_meets_a_script_that_runs_too_long_leaves_nothing_open_for_others() {
    let redis = RedisServer::start(Durability::Memory);
    let mut direct = redis.client();
    direct.call(&["CONFIG", "SET", "busy-reply-threshold", "1"]);
    let settings = Settings {
        command_timeout: DEADLINE,
        ..one_worker()
    };
    let proxy = in_front_of(&redis, &settings);
    let (mut client, mut other) = (proxy.client(), proxy.client());
    assert_eq!(client.call(&["SET", "k", "v"]), b"+OK\r\n");
    let mut own = redis.client();
    direct.send(&["EVAL", "while true do end", "0"]);
    support::wait_until(DEADLINE, "Redis is busy", || {
        redis.client().call(&["GET", "k"]).starts_with(b"-BUSY")
    });
    let lines = ["MULTI", "SET k 1", "EXEC"];
    let expected = replies(&mut own, &lines);
    assert!(expected[2].starts_with("-EXECABORT"), "{expected:?}");
    send(&mut client, &lines);
    assert_eq!(read(&mut client, 3), expected);
    redis.client().call(&["SCRIPT", "KILL"]);
    direct.reply();
    support::wait_until(DEADLINE, "Redis is busy no more", || {
        redis.client().call(&["GET", "k"]) == bulk("v")
    });
    proxy.wait_for_mode("healthy", DEADLINE);
    assert_eq!(other.call(&["GET", "k"]), bulk("v"));
    assert_eq!(client.call(&["GET", "k"]), bulk("v"));
}

#[test]
fn while_writes_are_paused_it_waits_alone() {
    const PAUSE: Duration = Duration::from_secs(3);
    let redis = RedisServer::start(Durability::Memory);
    let settings = Settings {
        command_timeout: DEADLINE,
        ..one_worker()
    };
    let proxy = in_front_of(&redis, &settings);
    let (mut client, mut reader) = (proxy.client(), proxy.client());
    client.call(&["SET", "k", "v"]);
    let mut direct = redis.client();
    direct.call(&["CLIENT", "PAUSE", &PAUSE.as_millis().to_string(), "WRITE"]);
    let begin = Instant::now();
    send(&mut client, &["MULTI", "INCR n", "EXEC"]);
    let only_reads = replies(&mut reader, &["GET k", "MULTI", "GET k", "EXEC"]);
    assert_eq!(
        only_reads,
        ["$1\r\nv\r\n", "+OK\r\n", "+QUEUED\r\n", "*1\r\n$1\r\nv\r\n"]
    );
    assert!(begin.elapsed() < PAUSE, "reads waited for writes");
    assert_eq!(read(&mut client, 3), ["+OK\r\n", "+QUEUED\r\n", "*1\r\n:1\r\n"]);
}
