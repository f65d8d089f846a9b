//! What a failure catches in the middle: half a reply, half a message, a dial that decides about a SELECT, a command that waits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use support::relay::{Relay, Verdict};
use support::{
    Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, await_down, bulk, command, error_text, shown,
    wait_for_blocked, wait_until,
};

/// The health owner asks every second: by then it has asked, and was answered, after the command.
const WELL: Duration = Duration::from_millis(2500);

fn answered_for(time: Duration) {
    let begun = Instant::now();
    wait_until(DEADLINE, "Redis has answered others for long", || {
        begun.elapsed() > time
    });
}

/// Two pipelined pops with these timeouts, in an outage that begins so long after them.
fn two_pops_caught(timeouts_s: [&str; 2], after: Duration) -> (RedisServer, Tideover, Client) {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    let [first, second] = timeouts_s;
    client.send_raw(&[command(&["BLPOP", "a", first]), command(&["BLPOP", "b", second])].concat());
    answered_for(after);
    redis.kill();
    await_down(&proxy);
    (redis, proxy, client)
}

/// The second pop ends at its own time, counted from the end of the first one.
#[track_caller]
fn assert_waits(client: &mut Client, timeout: Duration) {
    let answered_at = Instant::now();
    assert_eq!(client.reply(), b"*-1\r\n");
    let waited = answered_at.elapsed();
    assert!(waited > timeout / 2, "the second one waited {waited:?}");
}

/// What the client of a blocking command hears that Redis had for long when its connection ended behind these bytes.
fn check_blocked(request: &[&str], partial: &'static [u8]) {
    let (redis, place) = (
        RedisServer::start(Durability::AppendOnly),
        RedisServer::absent(Durability::AppendOnly),
    );
    let name = request[0].to_owned();
    let relay = Relay::start(&place, &redis, move |args| {
        if args[0] != name {
            return Verdict::Pass;
        }
        answered_for(WELL);
        Verdict::CloseAfter(partial.to_vec())
    });
    let proxy = Tideover::healthy(&place);
    let mut client = proxy.client();
    client.send(request);
    assert_eq!(shown(&client.until_closed()), "", "{request:?}");
    assert_eq!(relay.connections_of(request[0]).len(), 1, "{request:?} was sent again");
}

/// A connection that ends behind what it was asked, once for each of these; what Redis had of them it has not executed.
#[test]
fn each_fate_of_what_is_in_flight_is_counted() {
    let (redis, place) = (
        RedisServer::start(Durability::AppendOnly),
        RedisServer::absent(Durability::AppendOnly),
    );
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let _relay = Relay::start(&place, &redis, move |args| {
        let is_caught = ["GET", "RPUSH", "EXEC", "BLPOP"].contains(&args[0].as_str());
        if is_caught && seen.lock().unwrap().insert(args[0].clone()) {
            Verdict::CloseAfter(Vec::new())
        } else {
            Verdict::Pass
        }
    });
    let proxy = Tideover::healthy(&place);
    let expect = |action: &str, count: u64| {
        let line = format!("tideover_uncertain_writes_total{{upstream=\"main\",action=\"{action}\"}} {count}");
        wait_until(DEADLINE, &line, || {
            proxy.get("/metrics").1.lines().any(|said| said == line)
        });
    };
    let uncertain = |reply: &[u8], name: &str| {
        let text = error_text(reply).unwrap_or_else(|| panic!("{name}: {}", shown(reply)));
        assert!(
            text.starts_with(&format!("UNAVAILABLE {name} may or may not")),
            "{text}"
        );
    };
    expect("answered", 0);
    let mut client = proxy.client();
    assert_eq!(client.call(&["GET", "k"]), b"$-1\r\n");
    expect("resent", 1);
    uncertain(&client.call(&["RPUSH", "l", "1"]), "RPUSH");
    expect("answered", 1);
    proxy.wait_for_mode("healthy", DEADLINE);
    assert_eq!(client.call(&["MULTI"]), b"+OK\r\n");
    assert_eq!(client.call(&["RPUSH", "l", "2"]), b"+QUEUED\r\n");
    uncertain(&client.call(&["EXEC"]), "EXEC");
    expect("answered", 2);
    proxy.wait_for_mode("healthy", DEADLINE);
    client.send(&["BLPOP", "q", "0"]);
    assert_eq!(client.until_closed(), b"");
    expect("answered", 3);
    assert_eq!(redis.client().call(&["LLEN", "l"]), b":0\r\n");
}

#[test]
fn a_pop_that_was_answered_in_part_is_not_waited_for_again() {
    check_blocked(&["BLPOP", "q", "0"], b"*2\r\n$1\r\nq\r\n$5\r\nab");
}

/// After a failover the new master has replicas, too, but not every write that the session had answered.
#[test]
fn a_wait_that_was_lost_is_not_asked_again() {
    check_blocked(&["WAIT", "1", "0"], b"");
}

#[test]
fn a_select_that_an_outage_decided_is_decided_anew_after_it() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let settings = Settings {
        workers: 1,
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let (mut client, mut other) = (proxy.client(), proxy.client());
    redis.stop();
    // No connection to that database is up, and none comes up.
    assert_eq!(client.call(&["SELECT", "5"]), b"+OK\r\n");
    redis.cont();
    proxy.wait_for_recovery();
    assert_eq!(other.call(&["SELECT", "5"]), b"+OK\r\n");
    assert_eq!(other.call(&["SET", "k", "5"]), b"+OK\r\n");
    // Behind something that is in flight, so that nothing but its answer wakes the session.
    client.send_raw(&[command(&["GET", "k"]), command(&["SELECT", "5"])].concat());
    assert_eq!(client.reply(), bulk("5"));
    assert_eq!(client.reply(), b"+OK\r\n");
}

#[test]
fn a_transaction_begun_while_down_takes_no_session_elsewhere() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    redis.kill();
    await_down(&proxy);
    assert_eq!(client.call(&["MULTI"]), b"+OK\r\n");
    assert_eq!(client.call(&["SELECT", "1"]), b"+QUEUED\r\n");
    assert_eq!(client.call(&["SET", "k", "1"]), b"+QUEUED\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    let exec = client.call(&["EXEC"]);
    let is_refused = error_text(&exec).is_some_and(|text| text.contains("EXEC was not applied"));
    assert!(is_refused, "{}", shown(&exec));
    assert_eq!(client.call(&["SET", "k", "0"]), b"+OK\r\n");
    let mut direct = redis.client();
    assert_eq!(direct.call(&["GET", "k"]), bulk("0"));
    direct.call(&["SELECT", "1"]);
    assert_eq!(direct.call(&["GET", "k"]), b"$-1\r\n");
}

#[test]
fn what_stands_behind_a_pop_that_outlived_an_outage_has_its_own_timeout() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let (mut redis, proxy, mut client) = two_pops_caught(["0", "2"], TIMEOUT);
    redis.restart();
    proxy.wait_for_recovery();
    redis.client().call(&["RPUSH", "a", "job"]);
    assert_eq!(array(&client.reply()), ["a", "job"]);
    assert_waits(&mut client, TIMEOUT);
}

/// What took its connection may have taken the spares, too, though that is not known yet: there it would be lost again, and its client closed.
#[test]
fn a_pop_that_was_lost_is_sent_again_only_after_redis_has_answered() {
    const PONG_DELAY: Duration = Duration::from_millis(300);
    let (redis, place) = (
        RedisServer::start(Durability::AppendOnly),
        RedisServer::absent(Durability::AppendOnly),
    );
    let lost_at: OnceLock<Instant> = OnceLock::new();
    let sent_again_after: Arc<OnceLock<Duration>> = Arc::default();
    let again = Arc::clone(&sent_again_after);
    let _relay = Relay::start(&place, &redis, move |args| {
        match (args[0].as_str(), lost_at.get()) {
            ("BLPOP", None) => {
                answered_for(WELL);
                lost_at.set(Instant::now()).unwrap();
                return Verdict::CloseAfter(Vec::new());
            }
            ("BLPOP", Some(lost_at)) => again.set(lost_at.elapsed()).unwrap(),
            ("PING", Some(lost_at)) => {
                wait_until(DEADLINE, "the time that Redis takes", || lost_at.elapsed() > PONG_DELAY)
            }
            _ => {}
        }
        Verdict::Pass
    });
    let settings = Settings {
        // So that it is not this that sends it again.
        hold_timeout: DEADLINE * 2,
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&place, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let mut client = proxy.client();
    client.send(&["BLPOP", "q", "0"]);
    wait_until(DEADLINE, "it is sent again", || sent_again_after.get().is_some());
    redis.client().call(&["RPUSH", "q", "job"]);
    assert_eq!(array(&client.reply()), ["q", "job"]);
    let after = sent_again_after.get().unwrap();
    assert!(*after > PONG_DELAY, "it was sent again after {after:?}");
}

/// Each outage that it outlives proves that Redis had nothing for it.
#[test]
fn a_read_that_blocks_outlives_one_outage_after_the_other() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    client.send(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]);
    for _ in 0..2 {
        answered_for(WELL);
        redis.kill();
        await_down(&proxy);
        redis.restart();
        proxy.wait_for_recovery();
    }
    let mut direct = redis.client();
    wait_for_blocked(&mut direct, 1, DEADLINE);
    direct.call(&["XADD", "s", "1-1", "f", "v"]);
    assert_eq!(
        client.reply(),
        b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"
    );
}

#[test]
fn what_stands_behind_a_pop_that_ended_during_the_outage_has_its_own_timeout() {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let (_redis, _proxy, mut client) = two_pops_caught(["5", "5"], WELL);
    assert_eq!(client.reply(), b"*-1\r\n");
    assert_waits(&mut client, TIMEOUT);
}

/// A message that is passed on while it comes, and what is answered here meanwhile.
#[test]
fn no_answer_stands_inside_a_message_and_none_behind_half_of_one() {
    const MESSAGE_BYTES: usize = 48 << 20;
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut subscriber = proxy.client().hello3();
    subscriber.call(&["SUBSCRIBE", "c"]);
    let mut direct = redis.client();
    direct.call(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"]);
    let message = "x".repeat(MESSAGE_BYTES);
    let mut sender = subscriber.sender();
    assert_eq!(direct.call(&["PUBLISH", "c", &message]), b":1\r\n");
    // What waits for a client that does not read is bounded: the first bytes are there, the last ones are not.
    let begin = subscriber.some_bytes();
    sender.write_all(&command(&["CLIENT", "SETNAME", "me"])).unwrap();
    let mut all = begin;
    let ok = b"+OK\r\n";
    while !all.ends_with(ok) {
        all.extend(subscriber.some_bytes());
    }
    let head = format!(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n${MESSAGE_BYTES}\r\n");
    assert_eq!(all.len(), head.len() + MESSAGE_BYTES + 2 + ok.len());
    let text = String::from_utf8_lossy(&all[head.len()..]).into_owned();
    assert_eq!(
        text.find('+'),
        Some(MESSAGE_BYTES + 2),
        "the answer stands inside the message"
    );

    direct.call(&["PUBLISH", "c", &message]);
    let begin = subscriber.some_bytes();
    redis.client().call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let rest = subscriber.until_closed();
    assert!(begin.len() + rest.len() < head.len() + MESSAGE_BYTES + 2, "it was cut");
}

/// It is read in pieces, and one that begins like an error is none.
#[test]
fn a_large_message_is_no_answer_to_what_is_asked_while_it_comes() {
    const MESSAGE_BYTES: usize = 48 << 20;
    let mut redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::healthy(&redis);
    let mut subscriber = proxy.client().hello3();
    subscriber.call(&["SUBSCRIBE", "c"]);
    let mut direct = redis.client();
    direct.call(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"]);
    direct.call(&["PUBLISH", "c", &"-".repeat(MESSAGE_BYTES)]);
    let mut all = subscriber.some_bytes();
    subscriber.send(&["SUBSCRIBE", "d"]);
    while !all.ends_with(b"$1\r\nd\r\n:2\r\n") {
        all.extend(subscriber.some_bytes());
    }
    redis.kill();
    await_down(&proxy);
    redis.restart_empty();
    let mut direct = redis.client();
    wait_until(DEADLINE, "both subscriptions on another connection", || {
        direct.call(&["PUBSUB", "NUMSUB", "c", "d"]) == b"*4\r\n$1\r\nc\r\n:1\r\n$1\r\nd\r\n:1\r\n"
    });
}

/// What decides about Redis wakes the session, once; nothing from the client does.
#[test]
fn a_subscription_held_until_redis_was_found_to_be_gone_is_made_once_it_is_back() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    redis.stop();
    let proxy = Tideover::start(&redis);
    let mut subscriber = proxy.client();
    subscriber.send(&["SUBSCRIBE", "c"]);
    wait_until(DEADLINE, "a held command", || {
        let (_, metrics) = proxy.get("/metrics");
        metrics
            .lines()
            .any(|line| line.contains("route=\"held\"") && !line.ends_with(" 0"))
    });
    redis.kill();
    assert_eq!(subscriber.reply(), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    let mut direct = redis.client();
    wait_until(DEADLINE, "a subscriber", || {
        direct.call(&["PUBLISH", "c", "m"]) == b":1\r\n"
    });
    assert_eq!(array(&subscriber.reply()), ["message", "c", "m"]);
}
