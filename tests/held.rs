//! CLIENT PAUSE and busy scripts: what Redis holds waits, what it answers does not, whatever shares a lane.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::time::Duration;

use support::pair::Pair;
use support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, bulk, command, info_count, wait_until};

/// One worker, so that all share its lane.
fn one_worker() -> Settings {
    Settings {
        workers: 1,
        command_timeout: Duration::from_secs(2),
        ..Settings::default()
    }
}

#[test]
fn a_pause_of_writes_holds_nobodys_reads_and_applies_each_write_once() {
    let redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::start_with(&redis, &one_worker());
    proxy.wait_for_mode("healthy", DEADLINE);
    let mut direct = redis.client();
    direct.call(&["SET", "k", "v"]);
    direct.call(&["PFADD", "hll", "a"]);
    let (mut admin, mut reader) = (proxy.client(), proxy.client());
    let mut writers: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    let mut counting = proxy.client();
    for round in 1..=2 {
        assert_eq!(admin.call(&["CLIENT", "PAUSE", "600000", "WRITE"]), b"+OK\r\n");
        for writer in &mut writers {
            // A read behind a write of the same session waits, as at Redis.
            writer.send_raw(&[command(&["INCR", "n"]), command(&["GET", "k"])].concat());
            assert_eq!(reader.call(&["GET", "k"]), bulk("v"));
        }
        counting.send(&["PFCOUNT", "hll"]);
        for _ in 0..100 {
            assert_eq!(reader.call(&["GET", "k"]), bulk("v"));
            assert_eq!(admin.call(&["EXISTS", "n"]), format!(":{}\r\n", round - 1).into_bytes());
        }
        // Two lanes, spares, the health connection, this one, and the one that asked for the pause.
        let connected = info_count(&mut direct, "clients", "connected_clients");
        assert!(connected < 12, "{connected} connections");
        assert_eq!(admin.call(&["CLIENT", "UNPAUSE"]), b"+OK\r\n");
        for writer in &mut writers {
            assert_eq!(writer.reply().first(), Some(&b':'));
            assert_eq!(writer.reply(), bulk("v"));
        }
        assert_eq!(counting.reply(), b":1\r\n");
        let applied = (round * writers.len()).to_string();
        assert_eq!(reader.call(&["GET", "n"]), bulk(&applied));
    }
}

#[test]
fn what_redis_allows_while_a_script_is_busy_is_allowed_in_any_database() {
    let pair = Pair::start_with(&["--busy-reply-threshold", "10"], &one_worker());
    for (server, address) in [
        (&pair.direct, pair.direct.address()),
        (&pair.behind, pair.proxy.address()),
    ] {
        let mut redis = server.client();
        let mut sessions: Vec<Client> = (0..3).map(|_| Client::connect(&address)).collect();
        for session in &mut sessions {
            assert_eq!(session.call(&["SELECT", "9"]), b"+OK\r\n");
            session.call(&["SET", "n", "1"]);
        }
        // A lane for this database, and a spare of its own for each who needs one.
        sessions[0].call(&["EVAL", "return 1", "0"]);
        wait_until(DEADLINE, "connections in the other database", || {
            let list = String::from_utf8(redis.call(&["CLIENT", "LIST"])).unwrap();
            list.matches(" db=9 ").count() >= 3
        });
        let [busy, queueing, killing] = sessions.as_mut_slice() else {
            unreachable!()
        };
        busy.send(&["EVAL", "while true do end", "0"]);
        wait_until(DEADLINE, "the script is busy", || {
            redis.call(&["PING"]).starts_with(b"-BUSY")
        });
        assert_eq!(queueing.call(&["MULTI"]), b"+OK\r\n", "at {address}");
        assert!(queueing.call(&["INCR", "n"]).starts_with(b"-BUSY"), "at {address}");
        assert_eq!(killing.call(&["SCRIPT", "KILL"]), b"+OK\r\n", "at {address}");
        assert_eq!(busy.reply().first(), Some(&b'-'), "at {address}");
        assert!(queueing.call(&["EXEC"]).starts_with(b"-EXECABORT"), "at {address}");
        assert_eq!(killing.call(&["GET", "n"]), bulk("1"));
    }
}
