//! Blocking commands: held for their own timeout, or until the upstream is back.

use super::*;

/// Every command that blocks, its null reply in RESP2, and what wakes it with what it is given then.
const BLOCKING: &[(&str, &str, &str, &str)] = &[
    ("BLPOP q TIMEOUT", "*-1", "RPUSH q job", "*2"),
    ("BRPOP q TIMEOUT", "*-1", "RPUSH q job", "*2"),
    ("BLMOVE q d LEFT RIGHT TIMEOUT", "*-1", "RPUSH q job", "$3"),
    ("BRPOPLPUSH q d TIMEOUT", "*-1", "RPUSH q job", "$3"),
    ("BLMPOP TIMEOUT 1 q LEFT", "*-1", "RPUSH q job", "*2"),
    ("BZPOPMIN z TIMEOUT", "*-1", "ZADD z 1 job", "*3"),
    ("BZPOPMAX z TIMEOUT", "*-1", "ZADD z 1 job", "*3"),
    ("BZMPOP TIMEOUT 1 z MIN", "*-1", "ZADD z 1 job", "*2"),
    ("XREAD BLOCK TIMEOUT_MS STREAMS x $", "*-1", "XADD x 1-1 f v", "*1"),
];

fn blocking(line: &str, timeout_s: u64) -> String {
    let ms = (timeout_s * 1000).to_string();
    line.replace("TIMEOUT_MS", &ms)
        .replace("TIMEOUT", &timeout_s.to_string())
}

#[test]
fn a_blocking_command_is_held_for_its_own_timeout() {
    let (_gone, proxy) = down();
    let connects = [(|client| client) as fn(Client) -> Client, Client::hello3];
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for (line, null, ..) in BLOCKING.iter().copied().chain([("WAIT 1 TIMEOUT_MS", ":0", "", "")]) {
        for (connect, null) in connects.iter().zip([null, null.replace("*-1", "_").as_str()]) {
            let mut client = connect(proxy.client());
            let line = blocking(line, 1);
            client.send(&line.split(' ').collect::<Vec<_>>());
            waiting.push((line, client, format!("{null}\r\n")));
        }
    }
    for (line, mut client, null) in waiting {
        let reply = client.reply();
        let held = begin.elapsed();
        assert_eq!(shown(&reply), shown(null.as_bytes()), "{line}");
        assert!(held >= Duration::from_millis(900), "{line} was answered after {held:?}");
        assert!(held < Duration::from_secs(5), "{line} was answered after {held:?}");
    }
}

#[test]
fn each_blocking_command_wakes_when_redis_is_back_and_gone_clients_take_nothing() {
    let (mut redis, proxy) = down();
    for (number, (line, ..)) in BLOCKING.iter().enumerate() {
        let mut gone = proxy.client();
        gone.send(&blocking(line, 60).split(' ').collect::<Vec<_>>());
        if number % 2 == 0 {
            gone.finish_sending();
            assert_eq!(gone.until_closed(), b"", "{line}");
        }
    }
    let clients = || proxy.status()["clients"].as_u64();
    support::wait_until(DEADLINE, "no client is left", || clients() == Some(0));
    let mut waiting: Vec<Client> = BLOCKING.iter().map(|_| proxy.client()).collect();
    for (client, (line, ..)) in waiting.iter_mut().zip(BLOCKING) {
        client.send(&blocking(line, 60).split(' ').collect::<Vec<_>>());
    }
    support::wait_until(DEADLINE, "all are there", || clients() == Some(BLOCKING.len() as u64));
    redis.restart();
    proxy.wait_for_recovery();
    let mut direct = redis.client();
    support::wait_for_blocked(&mut direct, BLOCKING.len(), DEADLINE);
    for (_, _, giving, _) in BLOCKING {
        direct.call(&giving.split(' ').collect::<Vec<_>>());
    }
    for (mut client, (line, _, _, given)) in waiting.into_iter().zip(BLOCKING) {
        let reply = client.reply();
        assert!(
            reply.starts_with(format!("{given}\r\n").as_bytes()),
            "{line}: {}",
            shown(&reply)
        );
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
    let mut waiters = [proxy.client(), proxy.client().hello3()];
    let mut short = proxy.client();
    let mut direct = redis.client();
    // On a connection that is being dialled nobody knows for a while when the command got there.
    support::wait_until(DEADLINE, "a spare for each", || {
        let clients = String::from_utf8(direct.call(&["CLIENT", "LIST"])).unwrap();
        clients.matches(" cmd=time ").count() >= 3
    });
    let began = Instant::now();
    waiters[0].send(&["BLPOP", "q", "0"]);
    waiters[1].send(&["BZPOPMIN", "z", "60"]);
    short.send(&["BRPOP", "nothing", &TIMEOUT.as_secs().to_string()]);
    support::wait_for_blocked(&mut direct, 3, DEADLINE);
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
    // One may be of a dial that is under way, the last one may not have been heard yet.
    support::wait_until(DEADLINE, "three PINGs", || pings() >= before + 3);
    redis.kill();
    await_down(&proxy);
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
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut waiter = proxy.client();
    check(&mut waiter, "BLPOP q 0.01", b"*-1\r\n");
    redis.stop();
    waiter.send(&["BLPOP", "q", "0"]);
    await_down(&proxy);
    redis.kill();
    assert_eq!(waiter.until_closed(), b"");
}

#[test]
fn a_pop_with_a_timeout_ends_with_its_connection_where_redis_stays_frozen() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut waiter = proxy.client();
    check(&mut waiter, "BLPOP q 0.01", b"*-1\r\n");
    redis.stop();
    waiter.send(&["BLPOP", "q", "4"]);
    assert_eq!(waiter.until_closed(), b"");
    redis.cont();
}

#[test]
fn a_redis_that_was_frozen_gives_a_waiting_pop_its_element() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let (mut popper, mut mover) = (proxy.client(), proxy.client());
    popper.send(&["BLPOP", "q", "0"]);
    mover.send(&["BLMOVE", "from", "to", "LEFT", "RIGHT", "60"]);
    let mut direct = redis.client();
    support::wait_for_blocked(&mut direct, 2, DEADLINE);
    redis.stop();
    direct.send(&["RPUSH", "q", "job"]);
    let mut other = redis.client();
    other.send(&["RPUSH", "from", "job"]);
    await_down(&proxy);
    redis.cont();
    assert_eq!(array(&popper.reply()), ["q", "job"]);
    assert_eq!(mover.reply(), b"$3\r\njob\r\n");
    proxy.wait_for_recovery();
    assert_eq!(
        array(&proxy.client().call(&["LRANGE", "to", "0", "-1"])),
        ["job"],
        "moved once"
    );
}

#[test]
fn a_demotion_does_not_begin_the_timeout_of_a_pop_anew() {
    const TIMEOUT: Duration = Duration::from_secs(4);
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let (mut waiter, mut direct) = (proxy.client(), redis.client());
    let began = Instant::now();
    waiter.send(&["BLPOP", "q", &TIMEOUT.as_secs().to_string()]);
    support::wait_until(DEADLINE, "half of it", || began.elapsed() > TIMEOUT / 2);
    direct.call(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(waiter.reply(), b"*-1\r\n");
    let waited = began.elapsed();
    assert!(waited >= TIMEOUT && waited < TIMEOUT * 3 / 2, "{waited:?}");
}
