//! While Redis is away: what a client is told, and that it was true.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::time::{Duration, Instant};

use support::load::UNCERTAIN;
use support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, bulk, error_text, shown};

/// A proxy whose Redis has been killed, and which knows.
fn down() -> (RedisServer, Tideover) {
    down_with(&Settings::default())
}

fn down_with(settings: &Settings) -> (RedisServer, Tideover) {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::start_with(&redis, settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    redis.kill();
    proxy.wait_for_mode("down", DEADLINE);
    (redis, proxy)
}

#[track_caller]
fn check(client: &mut Client, line: &str, expected: &[u8]) {
    let args: Vec<&str> = line.split_whitespace().collect();
    let reply = client.call(&args);
    assert!(
        reply == expected,
        "{line}\n  expected {}\n  answered {}",
        shown(expected),
        shown(&reply)
    );
}

#[test]
fn reads_are_answered_as_an_empty_redis_would() {
    let script = "
        GET k
        MGET a b
        EXISTS k
        STRLEN k
        GETRANGE k 0 -1
        TTL k
        PTTL k
        TYPE k
        KEYS *
        DBSIZE
        RANDOMKEY
        SCAN 0
        HGET h f
        HGETALL h
        HMGET h f g
        HKEYS h
        HLEN h
        HEXISTS h f
        HSCAN h 0
        LRANGE l 0 -1
        LLEN l
        LINDEX l 0
        LPOS l x
        SMEMBERS s
        SISMEMBER s m
        SMISMEMBER s m n
        SCARD s
        SRANDMEMBER s
        SRANDMEMBER s 3
        SINTER s t
        ZRANGE z 0 -1
        ZRANGE z 0 -1 WITHSCORES
        ZSCORE z m
        ZMSCORE z m n
        ZRANK z m
        ZCARD z
        ZCOUNT z -inf +inf
        XRANGE x - +
        XLEN x
        XREAD STREAMS x 0
        GETBIT b 1
        BITCOUNT b
        PFCOUNT p
        GEOPOS g m
        LPOP l
        LPOP l 2
        RPOP l
        SPOP s
        SPOP s 2
        ZPOPMIN z
        GET
        GET a b
        LRANGE l x y
        PING
        PING text
        ECHO text
    ";
    let (_gone, proxy) = down();
    let empty = RedisServer::start(Durability::Memory);
    for connect in [|client: Client| client, Client::hello3] {
        let (mut expected, mut got) = (connect(empty.client()), connect(proxy.client()));
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let args: Vec<&str> = line.split_whitespace().collect();
            check(&mut got, line, &expected.call(&args));
        }
    }
    check(&mut proxy.client().hello3(), "GET k", b"_\r\n");
    assert_eq!(proxy.backlog(), 0, "reads and pops are never journaled");
}

#[test]
fn writes_whose_reply_decides_are_refused_and_not_applied() {
    let (mut redis, proxy) = down();
    let mut client = proxy.client();
    let refused = [
        "INCR refused",
        "INCRBY refused 5",
        "DECR refused",
        "INCRBYFLOAT refused 1.5",
        "APPEND refused x",
        "SET refused v NX",
        "SET refused v XX",
        "SET refused v GET",
        "SETNX refused v",
        "MSETNX refused v",
        "GETSET refused v",
        "GETDEL refused",
        "HINCRBY refused f 1",
        "HSETNX refused f v",
        "ZINCRBY refused 1 m",
        "ZADD refused INCR 1 m",
        "RENAME other refused",
        "SUNIONSTORE refused a b",
        "EVAL return(redis.call('SET',KEYS[1],1)) 1 refused",
        "EVALSHA ffffffffffffffffffffffffffffffffffffffff 1 refused",
        "SCAN 17",
        "WATCH refused",
    ];
    for line in refused {
        let args: Vec<&str> = line.split_whitespace().collect();
        let reply = client.call(&args);
        let text = error_text(&reply).unwrap_or_else(|| panic!("{line} answered {}", shown(&reply)));
        assert!(text.starts_with("UNAVAILABLE "), "{line}: {text}");
        assert!(!text.contains(" may "), "{line}: {text}");
    }
    let text = error_text(&client.call(&["INCR", "refused"])).unwrap();
    assert!(text.contains("INCR was not applied") && text.contains("main"), "{text}");
    assert_eq!(proxy.backlog(), 0);
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut redis.client(), "EXISTS refused", b":0\r\n");
}

#[test]
fn blind_writes_are_acknowledged_as_redis_would_and_replayed() {
    let (mut redis, proxy) = down();
    let mut client = proxy.client();
    let acknowledged: [(&str, &[u8]); 24] = [
        ("SET k v", b"+OK\r\n"),
        ("SETEX e 1000 v", b"+OK\r\n"),
        ("PSETEX pe 1000000 v", b"+OK\r\n"),
        ("MSET a 1 b 2", b"+OK\r\n"),
        ("DEL nothing", b":1\r\n"),
        ("DEL nothing nothing other", b":2\r\n"),
        ("UNLINK nothing", b":1\r\n"),
        ("HSET h f 1 g 2", b":2\r\n"),
        ("HSET h2 f 1 f 2", b":1\r\n"),
        ("HMSET h3 f 1", b"+OK\r\n"),
        ("HDEL h g", b":1\r\n"),
        ("SADD s a b a", b":2\r\n"),
        ("SREM s a", b":1\r\n"),
        ("RPUSH l 1 2 3", b":3\r\n"),
        ("LPUSH l 0", b":1\r\n"),
        ("LTRIM l 0 2", b"+OK\r\n"),
        ("ZADD z 1 a 2 b", b":2\r\n"),
        ("ZREM z a", b":1\r\n"),
        ("EXPIRE k 1000", b":1\r\n"),
        ("PERSIST k", b":1\r\n"),
        ("PFADD p a", b":1\r\n"),
        ("GEOADD g 13.361389 38.115556 Palermo", b":1\r\n"),
        ("SELECT 3", b"+OK\r\n"),
        ("SET in3 v", b"+OK\r\n"),
    ];
    for (line, expected) in acknowledged {
        check(&mut client, line, expected);
    }
    let id = client.call(&["XADD", "x", "*", "f", "v"]);
    assert!(
        id.starts_with(b"$") && id.contains(&b'-'),
        "a stream ID, not {}",
        shown(&id)
    );
    redis.restart();
    proxy.wait_for_recovery();
    let mut direct = redis.client();
    for (line, expected) in [
        ("GET k", bulk("v")),
        ("TTL k", b":-1\r\n".to_vec()),
        ("MGET a b", [b"*2\r\n".to_vec(), bulk("1"), bulk("2")].concat()),
        ("HGET h f", bulk("1")),
        ("HEXISTS h g", b":0\r\n".to_vec()),
        ("HGET h2 f", bulk("2")),
        ("SMEMBERS s", [b"*1\r\n".to_vec(), bulk("b")].concat()),
        (
            "LRANGE l 0 -1",
            [b"*3\r\n".to_vec(), bulk("0"), bulk("1"), bulk("2")].concat(),
        ),
        ("ZRANGE z 0 -1", [b"*1\r\n".to_vec(), bulk("b")].concat()),
        ("ZCARD g", b":1\r\n".to_vec()),
        ("EXISTS in3 x", b":0\r\n".to_vec()),
        ("SELECT 3", b"+OK\r\n".to_vec()),
        ("GET in3", bulk("v")),
        ("XLEN x", b":1\r\n".to_vec()),
    ] {
        check(&mut direct, line, &expected);
    }
}

#[test]
fn what_redis_would_refuse_for_its_arguments_is_refused_with_its_own_words() {
    let (_gone, proxy) = down();
    let reference = RedisServer::start(Durability::Memory);
    let (mut expected, mut got) = (reference.client(), proxy.client());
    for line in [
        "SET k",
        "SET k v EX 0",
        "SET k v EX abc",
        "SET k v EX 10 PX 10",
        "SET k v NONSENSE",
        "SETEX k -1 v",
        "EXPIRE k abc",
        "HSET h f",
        "MSET a 1 b",
        "ZADD z abc m",
        "LTRIM l a b",
        "XADD x * f",
        "XADD x nonsense f v",
        "RPUSH l",
    ] {
        let args: Vec<&str> = line.split_whitespace().collect();
        check(&mut got, line, &expected.call(&args));
    }
    assert_eq!(proxy.backlog(), 0);
}

#[test]
fn a_blocking_command_is_held_for_its_own_timeout() {
    let (_gone, proxy) = down();
    for (line, connect, expected) in [
        (
            "BLPOP q 1",
            (|client| client) as fn(Client) -> Client,
            b"*-1\r\n".as_slice(),
        ),
        ("BLPOP q 1", Client::hello3, b"_\r\n"),
        ("BZPOPMIN q 1", |client| client, b"*-1\r\n"),
        ("XREAD BLOCK 1000 STREAMS x 0", |client| client, b"*-1\r\n"),
    ] {
        let mut client = connect(proxy.client());
        let begin = Instant::now();
        check(&mut client, line, expected);
        let held = begin.elapsed();
        assert!(held >= Duration::from_millis(900), "{line} was answered after {held:?}");
        assert!(held < Duration::from_secs(5), "{line} was answered after {held:?}");
    }
}

#[test]
fn a_blocking_command_held_through_the_outage_wakes_when_redis_is_back() {
    let (mut redis, proxy) = down();
    let mut waiter = proxy.client();
    waiter.send(&["BLPOP", "q", "0"]);
    // A reply to what another session sends later: by then the proxy has read the waiter's command, or reads it next.
    check(&mut proxy.client(), "PING", b"+PONG\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut proxy.client(), "RPUSH q job", b":1\r\n");
    assert_eq!(array(&waiter.reply()), ["q", "job"]);
}

#[test]
fn a_pop_that_was_blocked_upstream_goes_on_waiting_through_the_outage() {
    const TIMEOUT: Duration = Duration::from_secs(4);
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let began = Instant::now();
    let mut waiters = [proxy.client(), proxy.client().hello3()];
    let mut short = proxy.client();
    waiters[0].send(&["BLPOP", "q", "0"]);
    waiters[1].send(&["BZPOPMIN", "z", "60"]);
    short.send(&["BRPOP", "nothing", &TIMEOUT.as_secs().to_string()]);
    let mut direct = redis.client();
    support::wait_until(DEADLINE, "blocked clients", || {
        String::from_utf8(direct.call(&["INFO", "clients"]))
            .unwrap()
            .contains("blocked_clients:3\r\n")
    });
    // It has answered the health owner since: it had nothing for them. A dial says PING once, too, and CLIENT INFO.
    let mut pings = || {
        let stats = String::from_utf8(direct.call(&["INFO", "commandstats"])).unwrap();
        let [pings, dials] = ["cmdstat_ping:calls=", "cmdstat_client|info:calls="].map(|name| {
            let (_, calls) = stats.split_once(name).expect(name);
            calls.split(',').next().unwrap().parse::<u64>().unwrap()
        });
        pings.saturating_sub(dials)
    };
    let before = pings();
    support::wait_until(DEADLINE, "two PINGs", || pings() >= before + 2);
    redis.kill();
    proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(short.reply(), b"*-1\r\n");
    assert!(began.elapsed() >= TIMEOUT, "after {:?}", began.elapsed());
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut proxy.client(), "RPUSH q job", b":1\r\n");
    check(&mut proxy.client(), "ZADD z 1 job", b":1\r\n");
    assert_eq!(array(&waiters[0].reply()), ["q", "job"]);
    assert!(waiters[1].reply().starts_with(b"*3\r\n$1\r\nz\r\n"));
}

#[test]
fn a_pop_that_redis_may_have_executed_ends_with_its_connection() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut waiter = proxy.client();
    check(&mut waiter, "BLPOP q 0.01", b"*-1\r\n");
    redis.stop();
    waiter.send(&["BLPOP", "q", "0"]);
    assert_eq!(waiter.until_closed(), b"");
    redis.cont();
}

#[test]
fn a_transaction_is_neutral_or_one_record_or_refused() {
    let (mut redis, proxy) = down();
    let mut client = proxy.client();
    let mut transaction = |commands: &[&str]| {
        check(&mut client, "MULTI", b"+OK\r\n");
        for line in commands {
            check(&mut client, line, b"+QUEUED\r\n");
        }
        client.call(&["EXEC"])
    };
    assert_eq!(transaction(&["GET a", "HGETALL h"]), b"*2\r\n$-1\r\n*0\r\n");
    assert_eq!(transaction(&["SET a 1", "RPUSH l x y"]), b"*2\r\n+OK\r\n:2\r\n");
    assert_eq!(proxy.backlog(), 1, "one record per transaction");
    for mixed in [["SET a 2", "GET a"].as_slice(), &["SET a 2", "INCR n"], &["INCR n"]] {
        let text = error_text(&transaction(mixed)).expect("mixed transactions are refused");
        assert!(text.starts_with("UNAVAILABLE "), "{text}");
    }
    check(&mut client, "MULTI", b"+OK\r\n");
    assert!(error_text(&client.call(&["SET", "a"])).is_some());
    assert!(error_text(&client.call(&["EXEC"])).unwrap().starts_with("EXECABORT"));
    check(&mut client, "MULTI", b"+OK\r\n");
    check(&mut client, "SET a 3", b"+QUEUED\r\n");
    check(&mut client, "DISCARD", b"+OK\r\n");
    assert_eq!(proxy.backlog(), 1);
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut redis.client(), "GET a", &bulk("1"));
    check(&mut redis.client(), "LLEN l", b":2\r\n");
    check(&mut redis.client(), "EXISTS n", b":0\r\n");
}

#[test]
fn a_transaction_begun_before_the_outage_is_not_applied_in_part() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    check(&mut client, "MULTI", b"+OK\r\n");
    check(&mut client, "SET cut 1", b"+QUEUED\r\n");
    redis.kill();
    proxy.wait_for_mode("down", DEADLINE);
    check(&mut client, "SET cut 2", b"+QUEUED\r\n");
    let text = error_text(&client.call(&["EXEC"])).expect("a cut transaction is refused");
    assert!(text.starts_with("UNAVAILABLE ") && !text.contains(UNCERTAIN), "{text}");
    check(&mut client, "SET after 1", b"+OK\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut redis.client(), "EXISTS cut", b":0\r\n");
    check(&mut redis.client(), "GET after", &bulk("1"));
}

#[test]
fn subscribers_stay_connected_and_are_subscribed_again() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut before = proxy.client();
    check(
        &mut before,
        "SUBSCRIBE channel",
        b"*3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n",
    );
    redis.kill();
    proxy.wait_for_mode("down", DEADLINE);
    let mut during = proxy.client().hello3();
    check(
        &mut during,
        "SUBSCRIBE channel",
        b">3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n",
    );
    check(&mut proxy.client(), "PUBLISH channel lost", b":0\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    let mut direct = redis.client();
    support::wait_until(DEADLINE, "both are subscribed again", || {
        direct.call(&["PUBSUB", "NUMSUB", "channel"]).ends_with(b":2\r\n")
    });
    check(&mut direct, "PUBLISH channel hello", b":2\r\n");
    assert_eq!(
        before.reply(),
        b"*3\r\n$7\r\nmessage\r\n$7\r\nchannel\r\n$5\r\nhello\r\n"
    );
    assert_eq!(
        during.reply(),
        b">3\r\n$7\r\nmessage\r\n$7\r\nchannel\r\n$5\r\nhello\r\n"
    );
}

#[test]
fn a_client_can_connect_during_the_outage() {
    let (_gone, proxy) = down();
    for proto in ["2", "3"] {
        let mut client = proxy.client();
        let greeting = String::from_utf8(client.call(&["HELLO", proto, "SETNAME", "late"])).unwrap();
        assert!(
            greeting.contains("7.0.") && greeting.contains("standalone"),
            "{greeting}"
        );
        // Redis 7.0 does not know it, and said so of itself before it went.
        let unknown = b"-ERR unknown subcommand 'SETINFO'. Try CLIENT HELP.\r\n";
        check(&mut client, "CLIENT SETINFO LIB-NAME some", unknown);
        check(&mut client, "CLIENT GETNAME", &bulk("late"));
        check(&mut client, "SELECT 2", b"+OK\r\n");
        check(&mut client, "PING", b"+PONG\r\n");
        let info = String::from_utf8(client.call(&["INFO"])).unwrap();
        assert!(
            info.contains("redis_version:7.") && info.contains("role:master") && info.contains("loading:0"),
            "{info}"
        );
        assert!(client.call(&["CLIENT", "ID"]).starts_with(b":"));
        assert!(client.call(&["COMMAND", "COUNT"]).starts_with(b":"));
        assert!(
            error_text(&client.call(&["AUTH", "never-seen"])).is_some(),
            "no credentials pass unchecked"
        );
        assert!(error_text(&client.call(&["SELECT", "99"])).is_some());
    }
}

#[test]
fn credentials_that_redis_accepted_before_are_accepted_while_down() {
    let mut redis = RedisServer::start_with(
        Durability::AppendOnly,
        &["--user", "worker", "on", ">secret", "~*", "+@all"],
    );
    let proxy = Tideover::healthy(&redis);
    check(&mut proxy.client(), "AUTH worker secret", b"+OK\r\n");
    redis.kill();
    proxy.wait_for_mode("down", DEADLINE);
    let mut client = proxy.client();
    check(&mut client, "AUTH worker secret", b"+OK\r\n");
    check(&mut client, "SET as-worker 1", b"+OK\r\n");
    assert!(error_text(&proxy.client().call(&["AUTH", "worker", "wrong"])).is_some());
    assert!(error_text(&proxy.client().call(&["AUTH", "stranger", "secret"])).is_some());
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut redis.client(), "GET as-worker", &bulk("1"));
}

#[test]
fn a_session_that_owes_a_password_journals_nothing_also_after_a_restart() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    check(&mut redis.client(), "CONFIG SET requirepass secret", b"+OK\r\n");
    redis.add_options(&["--requirepass", "secret"]);
    let mut proxy = Tideover::healthy(&redis);
    let owed = b"-NOAUTH Authentication required.\r\n";
    check(&mut proxy.client(), "SET k 1", owed);
    let mut client = proxy.client();
    check(&mut client, "AUTH secret", b"+OK\r\n");
    check(&mut client, "SET k 2", b"+OK\r\n");
    redis.kill();
    proxy.wait_for_mode("down", DEADLINE);
    check(&mut proxy.client(), "SET k 3", owed);
    proxy.restart();
    proxy.wait_for_mode("down", DEADLINE);
    check(&mut proxy.client(), "SET k 4", owed);
    check(&mut proxy.client(), "RPUSH l 4", owed);
    let mut client = proxy.client();
    check(&mut client, "AUTH secret", b"+OK\r\n");
    check(&mut client, "SET k 5", b"+OK\r\n");
    assert_eq!(proxy.backlog(), 1);
    redis.launch();
    proxy.wait_for_recovery();
    check(&mut client, "GET k", &bulk("5"));
    check(&mut client, "EXISTS l", b":0\r\n");
}

#[test]
fn a_rule_queues_what_the_table_refuses() {
    let rule =
        "[[upstream.rule]]\ncommands = [\"INCR\"]\nkeys = [\"stats:*\"]\nwhen_down = \"queue\"\nreply = \":1\"\n";
    let (mut redis, proxy) = down_with(&Settings {
        more: rule.to_owned(),
        ..Settings::default()
    });
    let mut client = proxy.client();
    for _ in 0..5 {
        check(&mut client, "INCR stats:hits", b":1\r\n");
    }
    assert!(
        error_text(&client.call(&["INCR", "other"]))
            .unwrap()
            .starts_with("UNAVAILABLE ")
    );
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut redis.client(), "GET stats:hits", &bulk("5"));
    check(&mut redis.client(), "EXISTS other", b":0\r\n");
}

#[test]
fn an_id_is_provisional_only_until_its_backlog_is_gone() {
    let (mut redis, proxy) = down();
    let mut client = proxy.client();
    let reply = String::from_utf8(client.call(&["XADD", "s", "*", "f", "v"])).unwrap();
    let id = reply.lines().nth(1).unwrap();
    let refused = error_text(&client.call(&["XACK", "s", "g", id])).unwrap();
    assert!(refused.starts_with("UNAVAILABLE "), "{refused}");
    redis.restart();
    proxy.wait_for_recovery();
    redis.kill();
    proxy.wait_for_mode("down", DEADLINE);
    check(&mut client, &format!("XACK s g {id}"), b":1\r\n");
}

#[test]
fn rules_hold_inside_a_transaction() {
    let rules = "[[upstream.rule]]\ncommands = [\"INCR\"]\nkeys = [\"stats:*\"]\nwhen_down = \"queue\"\nreply = \":1\"\n\
                 [[upstream.rule]]\nkeys = [\"lock:*\"]\nwhen_down = \"error\"\n";
    let (mut redis, proxy) = down_with(&Settings {
        more: rules.to_owned(),
        ..Settings::default()
    });
    let mut client = proxy.client();
    for line in ["MULTI", "SET a 1", "INCR stats:hits"] {
        client.call(&line.split(' ').collect::<Vec<_>>());
    }
    check(&mut client, "EXEC", b"*2\r\n+OK\r\n:1\r\n");
    for line in ["MULTI", "SET b 1", "SET lock:x 1"] {
        client.call(&line.split(' ').collect::<Vec<_>>());
    }
    assert!(
        error_text(&client.call(&["EXEC"]))
            .unwrap()
            .starts_with("UNAVAILABLE EXEC was not applied")
    );
    redis.restart();
    proxy.wait_for_recovery();
    check(
        &mut redis.client(),
        "MGET a stats:hits b lock:x",
        b"*4\r\n$1\r\n1\r\n$1\r\n1\r\n$-1\r\n$-1\r\n",
    );
}

#[test]
fn a_session_that_was_connected_before_and_after_never_notices() {
    let (mut redis, proxy) = down();
    let mut client = proxy.client().hello3();
    check(&mut client, "SELECT 5", b"+OK\r\n");
    check(&mut client, "SET here 1", b"+OK\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut client, "GET here", &bulk("1"));
    check(&mut client, "HGETALL nothing", b"%0\r\n");
    check(&mut client, "EVAL return(redis.call('GET','here')) 0", &bulk("1"));
}
