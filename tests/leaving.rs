//! Clients that block, wait, leave and are killed: what Redis would do about them happens, to them and to nobody else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::time::{Duration, Instant};

use support::pair::{Pair, assert_same};
use support::{
    Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, await_down, bulk, command, error_text,
    integer, shown, wait_for_blocked, wait_until,
};

/// How long a client that left may be counted as blocked; at Redis it is one turn of its event loop, here two hops more.
const PROMPT: Duration = Duration::from_millis(500);

fn start() -> (RedisServer, Tideover, Client) {
    let redis = RedisServer::start(Durability::Memory);
    let settings = Settings {
        workers: 1,
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let direct = redis.client();
    (redis, proxy, direct)
}

/// `name=value` of each client that Redis sees.
fn client_list(direct: &mut Client, name: &str) -> Vec<String> {
    let text = String::from_utf8(direct.call(&["CLIENT", "LIST"])).unwrap();
    let prefix = format!("{name}=");
    text.split_whitespace()
        .filter_map(|word| word.strip_prefix(&prefix).map(str::to_owned))
        .collect()
}

#[test]
fn what_is_pushed_after_a_blocked_client_left_stays() {
    let (_redis, proxy, mut direct) = start();
    for (blocking, behind) in [
        (vec!["BLPOP", "q", "0"], Vec::new()),
        (vec!["BLPOP", "q", "0"], command(&["BLPOP", "q", "0"]).repeat(50)),
        (vec!["BLMOVE", "q", "other", "LEFT", "LEFT", "0"], command(&["PING"])),
        (vec!["BZPOPMIN", "z", "0"], Vec::new()),
        (vec!["XREAD", "BLOCK", "0", "STREAMS", "x", "$"], Vec::new()),
        (vec!["WAIT", "1", "0"], Vec::new()),
    ] {
        let mut leaving = proxy.client();
        leaving.call(&["PING"]);
        leaving.send_raw(&[command(&blocking), behind].concat());
        wait_for_blocked(&mut direct, 1, DEADLINE);
        drop(leaving);
        wait_for_blocked(&mut direct, 0, PROMPT);
        assert_eq!(integer(&direct.call(&["RPUSH", "q", "job"])), 1, "after {blocking:?}");
        assert_eq!(array(&direct.call(&["LRANGE", "q", "0", "-1"])), ["job"]);
        direct.call(&["FLUSHALL"]);
    }
}

#[test]
fn client_unblock_wakes_the_session_that_told_its_id() {
    let pair = Pair::start();
    for how in [vec![], vec!["TIMEOUT"], vec!["ERROR"]] {
        for blocking in [
            vec!["BLPOP", "q", "0"],
            vec!["XREAD", "BLOCK", "0", "STREAMS", "x", "$"],
            vec!["BLMOVE", "q", "r", "LEFT", "LEFT", "0"],
        ] {
            pair.check(&format!("{blocking:?} {how:?}"), |dial| {
                let (mut waiter, mut other, mut idle) = (dial(), dial(), dial());
                let id = integer(&waiter.call(&["CLIENT", "ID"])).to_string();
                let idle_id = integer(&idle.call(&["CLIENT", "ID"])).to_string();
                waiter.send_raw(&[command(&blocking), command(&["ECHO", "behind"])].concat());
                wait_for_blocked(&mut other, 1, DEADLINE);
                let mut args = vec!["CLIENT", "UNBLOCK", &idle_id];
                args.extend(&how);
                let mut all = other.call(&args);
                args[2] = &id;
                all.extend(other.call(&args));
                all.extend([waiter.reply(), waiter.reply(), idle.call(&["PING"])].concat());
                assert_eq!(integer(&waiter.call(&["CLIENT", "ID"])).to_string(), id);
                all
            });
        }
    }
    assert_eq!(pair.proxy.mode(), "healthy");
}

#[test]
fn client_kill_closes_the_session_that_told_its_id_and_no_other() {
    let (_redis, proxy, mut direct) = start();
    for doing in ["nothing", "blocking", "a transaction", "itself"] {
        let (mut doomed, mut bystander, mut plain) = (proxy.client(), proxy.client(), proxy.client());
        let id = integer(&doomed.call(&["CLIENT", "ID"])).to_string();
        let bystander_id = integer(&bystander.call(&["CLIENT", "ID"])).to_string();
        assert_eq!(plain.call(&["SET", "k", "v"]), b"+OK\r\n");
        match doing {
            "blocking" => {
                doomed.send(&["BLPOP", "q", "0"]);
                wait_for_blocked(&mut direct, 1, DEADLINE);
            }
            "a transaction" => {
                doomed.send_raw(&[command(&["MULTI"]), command(&["SET", "k", "w"])].concat());
                assert_eq!([doomed.reply(), doomed.reply()].concat(), b"+OK\r\n+QUEUED\r\n");
            }
            _ => {}
        }
        let kill = ["CLIENT", "KILL", "ID", &id];
        if doing == "itself" {
            assert_eq!(doomed.call(&["CLIENT", "KILL", "ID", &id, "SKIPME", "no"]), b":1\r\n");
        } else {
            assert_eq!(plain.call(&kill), b":1\r\n", "{doing}");
        }
        let last = doomed.until_closed();
        // A pop in flight may have been applied, for all that tideover knows.
        let is_honest = last.is_empty() || doing == "blocking" && shown(&last).contains("BLPOP may or may not");
        assert!(is_honest, "{doing}: {}", shown(&last));
        assert_eq!(plain.call(&["GET", "k"]), bulk("v"), "{doing}");
        assert_eq!(integer(&bystander.call(&["CLIENT", "ID"])).to_string(), bystander_id);
    }
    assert_eq!(proxy.mode(), "healthy");
}

#[test]
fn a_session_that_told_its_id_outlives_an_outage() {
    let (mut redis, proxy, _direct) = start();
    let mut client = proxy.client();
    client.call(&["CLIENT", "ID"]);
    redis.kill();
    await_down(&proxy);
    assert_eq!(client.call(&["GET", "k"]), b"$-1\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    assert_eq!(client.call(&["SET", "k", "v"]), b"+OK\r\n");
    client.call(&["CLIENT", "ID"]);
    redis.stop();
    proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(client.call(&["GET", "k"]), b"$-1\r\n");
    redis.cont();
    proxy.wait_for_recovery();
    assert_eq!(client.call(&["GET", "k"]), bulk("v"));
}

#[test]
fn a_lane_that_is_killed_is_replaced_and_what_was_on_it_is_told_the_truth() {
    let (_redis, proxy, mut direct) = start();
    let (mut writer, mut reader, mut idle) = (proxy.client(), proxy.client(), proxy.client());
    for client in [&mut writer, &mut reader, &mut idle] {
        client.call(&["SET", "k", "v"]);
    }
    let lane = |direct: &mut Client| {
        let text = String::from_utf8(direct.call(&["CLIENT", "LIST"])).unwrap();
        let line = text
            .lines()
            .find(|line| line.contains("cmd=set ") || line.contains("cmd=get "));
        let id = line.and_then(|line| line.split(' ').next()?.strip_prefix("id=").map(str::to_owned));
        id.expect("the lane was the last to SET or GET")
    };
    // Nothing in flight: nobody notices.
    let id = lane(&mut direct);
    assert_eq!(direct.call(&["CLIENT", "KILL", "ID", &id]), b":1\r\n");
    wait_until(DEADLINE, "the lane is gone", || {
        !client_list(&mut direct, "id").contains(&id)
    });
    for client in [&mut writer, &mut reader, &mut idle] {
        assert_eq!(client.call(&["GET", "k"]), bulk("v"));
    }
    // A write in flight, and another session's read behind it.
    let id = lane(&mut direct);
    direct.call(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    writer.send(&["SET", "k", "w"]);
    wait_for_blocked(&mut direct, 1, DEADLINE);
    reader.send(&["GET", "k"]);
    assert_eq!(direct.call(&["CLIENT", "KILL", "ID", &id]), b":1\r\n");
    let text = error_text(&writer.reply()).unwrap();
    assert!(text.contains("SET may or may not have been applied"), "{text}");
    assert_eq!(reader.reply(), bulk("v"));
    direct.call(&["CLIENT", "UNPAUSE"]);
    for client in [&mut writer, &mut reader, &mut idle] {
        assert_eq!(client.call(&["GET", "k"]), bulk("v"));
        assert_eq!(client.call(&["SET", "k", "v"]), b"+OK\r\n");
    }
    assert_eq!(proxy.mode(), "healthy");
}

#[test]
fn wait_counts_the_replicas_that_have_what_this_session_wrote() {
    let (redis, proxy, mut direct) = start();
    let port = redis.port().to_string();
    let replica = RedisServer::start_with(Durability::Memory, &["--replicaof", "127.0.0.1", &port]);
    let is_online = |direct: &mut Client| shown(&direct.call(&["INFO", "replication"])).contains("state=online");
    wait_until(DEADLINE, "the replica is in step", || is_online(&mut direct));
    let mut client = proxy.client();
    for round in 0..20 {
        client.send_raw(
            &[
                command(&["SET", "k", &round.to_string()]),
                command(&["WAIT", "1", "20000"]),
            ]
            .concat(),
        );
        assert_eq!([client.reply(), client.reply()].concat(), b"+OK\r\n:1\r\n");
        assert_eq!(
            replica.client().call(&["GET", "k"]),
            bulk(round.to_string()),
            "the replica has it"
        );
    }
    replica.stop();
    client.send_raw(&[command(&["SET", "k", "alone"]), command(&["WAIT", "1", "200"])].concat());
    assert_eq!([client.reply(), client.reply()].concat(), b"+OK\r\n:0\r\n");
    replica.cont();
    assert_eq!(client.call(&["WAIT", "1", "20000"]), b":1\r\n");
    assert_eq!(
        client.call(&["WAITAOF", "0", "0", "10"]),
        direct.call(&["WAITAOF", "0", "0", "10"]),
        "Redis 7.0 does not know it, in its own words"
    );
}

#[test]
fn a_vanished_session_leaves_no_transaction_and_no_watch_behind() {
    let (_redis, proxy, mut direct) = start();
    for round in 0..20 {
        let mut vanishing = proxy.client();
        let lines: &[&str] = match round % 4 {
            0 => &["MULTI", "SET k vanished"],
            1 => &["WATCH k", "MULTI", "SET k vanished"],
            2 => &["WATCH k"],
            _ => &["MULTI", "SET k vanished", "EXEC", "WATCH k"],
        };
        for line in lines {
            vanishing.call(&line.split(' ').collect::<Vec<_>>());
        }
        if round % 2 == 0 {
            // In the middle of EXEC: it may be executed, but nobody else gets its reply.
            vanishing.send(&["EXEC"]);
        }
        drop(vanishing);
        let mut next = proxy.client();
        next.call(&["WATCH", "other"]);
        direct.call(&["SET", "k", "changed"]);
        assert_eq!(next.call(&["MULTI"]), b"+OK\r\n");
        assert_eq!(next.call(&["SET", "mine", "1"]), b"+QUEUED\r\n");
        assert_eq!(next.call(&["EXEC"]), b"*1\r\n+OK\r\n");
    }
    wait_until(DEADLINE, "nobody is in MULTI", || {
        client_list(&mut direct, "multi").iter().all(|queued| queued == "-1")
    });
}

/// One of the commands that go different ways.
fn any_command(random: &mut fastrand::Rng) -> &'static str {
    const LINES: [&str; 38] = [
        "SET a 1",
        "GET a",
        "INCR a",
        "APPEND a x",
        "RPUSH q one",
        "LLEN q",
        "LPOP q",
        "BLPOP q 0.01",
        "BRPOP q nothing 0.01",
        "BLMOVE q r LEFT RIGHT 0.01",
        "MULTI",
        "EXEC",
        "DISCARD",
        "WATCH a",
        "UNWATCH",
        "EVAL return(redis.call('INCR',KEYS[1])) 1 a",
        "EVAL return(redis.call('GET',KEYS[1])) 1 a",
        "SELECT 0",
        "SELECT 1",
        "SELECT 77",
        "CLIENT GETNAME",
        "CLIENT SETNAME me",
        "CLIENT NO-EVICT off",
        "SCRIPT FLUSH",
        "OBJECT ENCODING a",
        "WAIT 0 1",
        "NONSENSE",
        "GET",
        "XREAD BLOCK 1 STREAMS nothing $",
        "DBSIZE",
        "SUBSCRIBE c",
        "SUBSCRIBE d",
        "PSUBSCRIBE p*",
        "UNSUBSCRIBE c",
        "UNSUBSCRIBE d",
        "PUNSUBSCRIBE p*",
        "PING",
        "RESET",
    ];
    LINES[random.usize(..LINES.len())]
}

#[test]
fn pipelines_of_all_ways_mixed_are_answered_as_by_redis() {
    let pair = Pair::start();
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut in_multi = false;
        let lines: Vec<&str> = (0..random.usize(5..40))
            .map(|_| any_command(&mut random))
            .filter(|line| {
                in_multi = *line == "MULTI" || in_multi && !["EXEC", "DISCARD", "RESET"].contains(line);
                // Inside MULTI a name is that of the connection, which is not the session's for good, and a subscription is no reply.
                !in_multi || !line.contains("NAME") && !line.contains("SUBSCRIBE")
            })
            .collect();
        let big = "x".repeat(100_000);
        let packet: Vec<u8> = lines
            .iter()
            .flat_map(|line| command(&line.split(' ').collect::<Vec<_>>()))
            .chain(command(&["SET", "big", &big]))
            .chain(command(&["STRLEN", "big"]))
            .collect();
        let all = |client: Client| {
            let mut client = if seed % 2 == 0 { client } else { client.hello3() };
            client.call(&["FLUSHALL"]);
            client.send_raw(&packet);
            let replies: Vec<Vec<u8>> = (0..lines.len() + 2).map(|_| client.reply()).collect();
            replies
        };
        // Together, for Redis takes its time with timeouts.
        let (expected, got) = std::thread::scope(|scope| {
            let direct = scope.spawn(|| all(pair.direct.client()));
            let got = all(pair.proxy.client());
            (direct.join().expect("Redis answers"), got)
        });
        for (at, (expected, got)) in expected.iter().zip(&got).enumerate() {
            assert_same(&format!("seed {seed}, reply {at} of {lines:?}"), expected, got);
        }
    }
}

#[test]
fn a_client_that_leaves_while_it_blocks_is_gone_within_a_moment() {
    let (_redis, proxy, mut direct) = start();
    let begin = Instant::now();
    for _ in 0..20 {
        let mut leaving = proxy.client();
        leaving.send(&["BLPOP", "q", "0"]);
        wait_for_blocked(&mut direct, 1, DEADLINE);
        drop(leaving);
        wait_for_blocked(&mut direct, 0, DEADLINE);
    }
    // Twenty rounds of it: no timer is involved.
    assert!(begin.elapsed() < 20 * PROMPT, "{:?}", begin.elapsed());
}
