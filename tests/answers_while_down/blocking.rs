//! Blocking commands: held for their own timeout, or until the upstream is back.

use super::*;

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
