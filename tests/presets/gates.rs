//! Where the answer decides whether something may be done: limiters, locks, tokens, revocation lists.

use crate::world::{Program, Raised, World};
use crate::{Damages, check};

#[test]
fn rate_limiters() {
    check(
        "rate-limiters.toml",
        limiters_story,
        &[
            "a client beyond its limit was let in",
            "the history of a limit was lost for good",
            "a password was tried beyond the limit",
        ],
    );
}

fn limiters_story(world: &mut World) -> Damages {
    let mut damages = Damages::new();
    let mut redis = world.elsewhere();
    redis.call("SET :1:throttle_anon_203.0.113.9 [3,2,1] EX 3600");
    redis.call("SET limit:login:ada 5 EX 3600");
    world.cut();
    let mut program = world.program();
    if drf_allow_request(&mut program).is_ok() {
        damages.push("a client beyond its limit was let in");
    }
    // Laravel 12's `RateLimiter::tooManyAttempts`, before a password is looked at.
    let attempts = program.call("GET limit:login:ada");
    drop(program);
    world.mend();
    if redis.get(":1:throttle_anon_203.0.113.9").as_deref() != Some("[3,2,1]") {
        damages.push("the history of a limit was lost for good");
    }
    if attempts.is_ok_and(|attempts| attempts.is_nothing()) {
        damages.push("a password was tried beyond the limit");
    }
    damages
}

/// `SimpleRateThrottle.allow_request` of Django REST framework 3.16 on Django 5's cache, three requests an hour.
fn drf_allow_request(program: &mut Program<'_>) -> Result<(), Raised> {
    let history = program.call("GET :1:throttle_anon_203.0.113.9")?;
    assert!(history.is_nothing(), "nobody knows it while down");
    program.call("SET :1:throttle_anon_203.0.113.9 [4] EX 3600")?;
    Ok(())
}

#[test]
fn locks() {
    check(
        "locks.toml",
        locks_story,
        &[
            "a lock that is held looked free",
            "a lock that had expired was renewed",
            "a second leader was made",
            "the lock of somebody else was freed",
        ],
    );
}

fn locks_story(world: &mut World) -> Damages {
    let mut damages = Damages::new();
    let mut redis = world.elsewhere();
    redis.call("SET lock:invoice ours");
    redis.call("SET leader:cron pod-1");
    world.cut();
    let mut program = world.program();
    // redis-py 8.1's `Lock.locked`
    if program.call("GET lock:invoice").is_ok_and(|owner| owner.is_nothing()) {
        damages.push("a lock that is held looked free");
    }
    // Our lock expires, and somebody elsewhere takes it.
    redis.call("DEL lock:invoice");
    redis.call("SET lock:invoice theirs NX");
    if program
        .call("PEXPIRE lock:invoice 30000")
        .is_ok_and(|renewed| renewed.is_one())
    {
        damages.push("a lock that had expired was renewed");
    }
    // SET NX to lock, DEL to unlock.
    let _ = program.call("DEL lock:invoice");
    if become_leader(&mut program, "pod-2").is_ok() {
        damages.push("a second leader was made");
    }
    drop(program);
    world.mend();
    if redis.get("lock:invoice").is_none() {
        damages.push("the lock of somebody else was freed");
    }
    damages
}

/// "Nobody is, so I am", with an expiry that is renewed.
fn become_leader(program: &mut Program<'_>, pod: &str) -> Result<(), Raised> {
    let leader = program.call("GET leader:cron")?;
    assert!(leader.is_nothing(), "nobody knows it while down");
    program.call(&format!("SET leader:cron {pod} EX 30"))?;
    Ok(())
}

#[test]
fn one_time_tokens() {
    check(
        "one-time-tokens.toml",
        tokens_story,
        &[
            "a token that never was counted as used now",
            "a nonce was new twice",
            "a payment was made twice",
        ],
    );
}

fn tokens_story(world: &mut World) -> Damages {
    let mut damages = Damages::new();
    let mut redis = world.elsewhere();
    redis.call("SET idem:payment-7 done");
    world.cut();
    let mut program = world.program();
    let given_out = program.call("SETEX reset:8f14e 600 ada");
    if program.call("DEL reset:guessed").is_ok_and(|deleted| deleted.is_one()) {
        damages.push("a token that never was counted as used now");
    }
    let mut new = 0;
    for _ in 0..2 {
        new += i32::from(program.call("SADD nonce:today a1b2").is_ok_and(|added| added.is_one()));
    }
    if new == 2 {
        damages.push("a nonce was new twice");
    }
    if program.call("EXISTS idem:payment-7").is_ok_and(|seen| !seen.is_one()) {
        damages.push("a payment was made twice");
    }
    drop(program);
    world.mend();
    assert!(given_out.is_ok());
    assert_eq!(
        redis.get("reset:8f14e").as_deref(),
        Some("ada"),
        "what was given out holds"
    );
    damages
}

#[test]
fn revocation_lists() {
    check(
        "revocation-lists.toml",
        revocation_story,
        &["a revoked token was taken", "a banned user got in"],
    );
}

fn revocation_story(world: &mut World) -> Damages {
    let mut damages = Damages::new();
    let mut redis = world.elsewhere();
    redis.call("SET revoked:jti-1 1 EX 3600");
    redis.call("SADD banned mallory");
    world.cut();
    let mut program = world.program();
    if program
        .call("EXISTS revoked:jti-1")
        .is_ok_and(|listed| !listed.is_one())
    {
        damages.push("a revoked token was taken");
    }
    if program
        .call("SISMEMBER banned mallory")
        .is_ok_and(|listed| !listed.is_one())
    {
        damages.push("a banned user got in");
    }
    let added = [
        program.call("SET revoked:jti-2 1 EX 3600"),
        program.call("SADD banned trudy"),
    ];
    drop(program);
    world.mend();
    assert!(added.iter().all(Result::is_ok), "{added:?}");
    assert!(redis.call("EXISTS revoked:jti-2").is_one(), "a revocation is not lost");
    assert!(redis.call("SISMEMBER banned trudy").is_one(), "a ban is not lost");
    damages
}
