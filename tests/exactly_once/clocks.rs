//! §5: a time to live runs by the clock of Redis, from when the write was accepted, whatever ours says.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::relay::{Relay, Verdict};
use crate::support::{Durability, RedisServer, Tideover, await_down, bulk, check, error_text, integer};

/// A Redis whose clock is so far from ours, which is what counts when its TIME is looked at.
fn check_skewed(skew_ms: i64) {
    const TTL_MS: i64 = 100_000;
    let (mut redis, place) = (
        RedisServer::start(Durability::AppendOnly),
        RedisServer::absent(Durability::Memory),
    );
    let judge = move |args: &[String]| {
        if args[0] != "TIME" {
            return Verdict::Pass;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let theirs_ms = i64::try_from(now.as_millis()).unwrap() + skew_ms;
        let (seconds, micros) = ((theirs_ms / 1000).to_string(), (theirs_ms % 1000 * 1000).to_string());
        Verdict::Answer([b"*2\r\n".to_vec(), bulk(&seconds), bulk(&micros)].concat())
    };
    let relay = Relay::start(&place, &redis, judge);
    let proxy = Tideover::healthy(&place);
    relay.close();
    redis.kill();
    await_down(&proxy);
    let accepted_at = Instant::now();
    let mut client = proxy.client();
    let lines = [
        "SET a v EX 100",
        "SETEX b 100 v",
        "HSET h f v",
        "EXPIRE h 100",
        "SET gone v PX 1",
    ];
    for line in lines {
        let args: Vec<&str> = line.split(' ').collect();
        assert_eq!(error_text(&client.call(&args)), None, "{line}");
    }
    redis.restart();
    let _relay = Relay::start(&place, &redis, judge);
    proxy.wait_for_recovery();
    let mut direct = redis.client();
    let slack = i64::try_from((accepted_at.elapsed() + Duration::from_millis(500)).as_millis()).unwrap();
    for key in ["a", "b", "h"] {
        // Redis's true clock is ours: by the one that it tells, this is what it has to be.
        let left_ms = integer(&direct.call(&["PTTL", key])) - skew_ms;
        assert!(
            (TTL_MS - slack..TTL_MS + 500).contains(&left_ms),
            "{key}: {left_ms} ms left at {skew_ms}"
        );
    }
    if skew_ms <= 0 {
        check(&mut direct, "EXISTS gone", b":0\r\n");
    }
}

#[test]
fn a_time_to_live_is_not_shortened_by_a_clock_that_is_behind() {
    check_skewed(30_000);
}

#[test]
fn a_time_to_live_is_not_lengthened_by_a_clock_that_is_ahead() {
    check_skewed(-30_000);
}

#[test]
fn what_redis_would_refuse_is_refused_and_not_journaled() {
    let mut redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::healthy(&redis);
    let mut direct = redis.client();
    let lines = [
        "EXPIRE k 9223372036854775",
        "SET k v EX 9223372036854775",
        "SETEX k 0 v",
        "PSETEX k -1 v",
        "SET k v PX 0",
    ];
    let said: Vec<Vec<u8>> = lines
        .iter()
        .map(|line| direct.call(&line.split(' ').collect::<Vec<_>>()))
        .collect();
    redis.kill();
    await_down(&proxy);
    let mut client = proxy.client();
    for (line, said) in lines.iter().zip(&said) {
        check(&mut client, line, said);
    }
    let kept = error_text(&client.call(&["SET", "k", "v", "KEEPTTL"])).unwrap_or_default();
    assert!(kept.starts_with("UNAVAILABLE SET was not applied"), "{kept}");
    assert_eq!(proxy.backlog(), 0);
}
