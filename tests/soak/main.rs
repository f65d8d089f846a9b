//! Unique writes and a queue of jobs through tideover while a seeded nemesis kills, freezes and cuts everything; then a proof of what became of each.
//!
//! `cargo test` runs one short round with a fixed seed. For long: `SOAK_SECONDS=20 SOAK_SEED=7 cargo test --test soak`. What a failed round
//! leaves behind is kept in a directory that the message names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod clients;
mod histories;
mod history;
mod jobs;
mod kills;
mod nemesis;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write;
use std::time::{Duration, Instant};

use clients::{Clients, Notes, PADDING};
use history::{Found, Kind, Operation, Outcome, violations};
use jobs::Jobs;
use nemesis::Blow;
use support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, Wire, array};

const SECONDS: u64 = 8;
const SEED: u64 = 5;
/// The load goes on this long after everything is healed.
const CALM: Duration = Duration::from_millis(500);

fn number_of(variable: &str, or_else: u64) -> u64 {
    std::env::var(variable).map_or(or_else, |text| text.parse().expect("a number"))
}

#[test]
fn every_acknowledged_write_is_there_once_and_in_order_whatever_happens() {
    let (seed, seconds) = (number_of("SOAK_SEED", SEED), number_of("SOAK_SECONDS", SECONDS));
    eprintln!("SOAK_SEED={seed} SOAK_SECONDS={seconds}");
    let mut random = fastrand::Rng::with_seed(seed);
    let settings = Settings {
        workers: random.u16(1..=3),
        fsync: ["always", "everysec", "no"][random.usize(0..3)],
        ..Settings::default()
    };
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let place = RedisServer::absent(Durability::Memory);
    let wire = Wire::start(&place, &redis);
    let mut proxy = Tideover::start_with(random.choice([&place, &place, &place, &redis]).unwrap(), &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let begin = Instant::now();
    let answer_max = 2 * settings.command_timeout + settings.hold_timeout + Duration::from_secs(2);
    let clients = Clients::start(&proxy.address(), seed, begin, answer_max);
    let jobs = Jobs::start(&proxy.address(), seed);
    let mut blows = String::new();
    while begin.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(random.u64(0..800)));
        let blow = Blow::draw(&mut random);
        writeln!(blows, "{:?} {blow:?}", begin.elapsed()).unwrap();
        blow.strike(&mut redis, &mut proxy, &wire);
    }
    let mut wrong = Vec::new();
    if let Some(status) = proxy.process().exited() {
        wrong.push(format!("tideover ended by itself: {status}"));
    }
    std::thread::sleep(CALM);
    let Notes { operations, complaints } = clients.finish();
    wrong.extend(complaints);
    match recovered(&proxy) {
        Err(why) => wrong.push(why),
        Ok(()) if proxy.dead_letters() > 0 => wrong.push(format!("dead letters: {}", proxy.status())),
        Ok(()) => {}
    }
    wrong.extend(jobs.finish(&mut redis.client()));
    if proxy.log_text().contains("panicked") {
        wrong.push("tideover panicked".to_owned());
    }
    let found = found(&mut redis.client(), &operations);
    wrong.extend(violations(&operations, &found));
    eprintln!("{blows}{}", summary(&operations));
    if !wrong.is_empty() {
        let kept = keep(&redis, &proxy, &blows, &operations, &found, &wrong);
        let shown = wrong.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
        panic!("seed {seed}: {} violations, kept in {kept}\n{shown}", wrong.len());
    }
}

/// Waits until nothing is left, for as long as it gets less.
fn recovered(proxy: &Tideover) -> Result<(), String> {
    let mut least = (u64::MAX, Instant::now());
    while proxy.mode() != "healthy" || proxy.backlog() != 0 {
        let backlog = proxy.backlog();
        if backlog < least.0 {
            least = (backlog, Instant::now());
        }
        if least.1.elapsed() > DEADLINE {
            return Err(format!("no recovery after everything was healed: {}", proxy.status()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A client that was told that there is no transaction goes on without one, and one that was told that there is ends it.
#[test]
fn what_is_said_of_a_multi_that_was_caught_in_flight_holds_for_what_follows() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    assert_eq!(client.call(&["SET", "k", "0"]), b"+OK\r\n");
    redis.stop();
    let multi = client.call(&["MULTI"]);
    let set = client.call(&["SET", "k", "1"]);
    let (expected, value) = if multi == b"+OK\r\n" {
        ("+QUEUED\r\n", "0")
    } else {
        ("+OK\r\n", "1")
    };
    assert_eq!(
        String::from_utf8_lossy(&set),
        expected,
        "after {}",
        String::from_utf8_lossy(&multi)
    );
    redis.cont();
    proxy.wait_for_recovery();
    assert_eq!(redis.client().call(&["GET", "k"]), support::bulk(value));
}

/// Everything that the operations could have left.
fn found(redis: &mut Client, operations: &[Operation]) -> Found {
    let mut found = Found::new();
    for (place, _) in operations.iter().flat_map(|operation| &operation.deeds) {
        if found.contains_key(place) {
            continue;
        }
        redis.call(&["SELECT", &place.db.to_string()]);
        let name = place.name.as_str();
        let optional = |reply: Vec<u8>| array(&[b"*1\r\n".as_slice(), &reply].concat());
        let values = match place.kind {
            Kind::List => array(&redis.call(&["LRANGE", name, "0", "-1"])),
            Kind::Stream => {
                let strings = array(&redis.call(&["XRANGE", name, "-", "+"]));
                strings.chunks(3).map(|entry| entry[2].clone()).collect()
            }
            Kind::Set => array(&redis.call(&["SMEMBERS", name])),
            Kind::String => optional(redis.call(&["GET", name])),
            Kind::Field => optional(redis.call(&["HGET", "hash", name])),
        };
        let values = values.iter().map(|value| value.trim_end_matches(PADDING).to_owned());
        found.insert(place.clone(), values.collect());
    }
    found
}

fn summary(operations: &[Operation]) -> String {
    let count = |wanted: fn(&Outcome) -> bool| operations.iter().filter(|one| wanted(&one.outcome)).count();
    let slowest = operations.iter().map(|one| one.settled_us - one.sent_us).max();
    format!(
        "{} acknowledged, {} uncertain, {} refused, {} lost; slowest answer {:?}",
        count(|outcome| *outcome == Outcome::Acknowledged),
        count(|outcome| *outcome == Outcome::Uncertain),
        count(|outcome| matches!(outcome, Outcome::Refused(_))),
        count(|outcome| *outcome == Outcome::Lost),
        Duration::from_micros(slowest.unwrap_or_default())
    )
}

/// Copies the files of both and the history to where they outlive the test.
fn keep(
    redis: &RedisServer,
    proxy: &Tideover,
    blows: &str,
    operations: &[Operation],
    found: &Found,
    wrong: &[String],
) -> String {
    let dir = tempfile::Builder::new()
        .prefix("tideover-soak-")
        .tempdir()
        .unwrap()
        .keep();
    let mut history: Vec<String> = operations.iter().map(ToString::to_string).collect();
    history.push(String::new());
    std::fs::write(dir.join("history"), history.join("\n")).unwrap();
    std::fs::write(dir.join("found"), format!("{found:#?}\n")).unwrap();
    std::fs::write(dir.join("blows"), blows).unwrap();
    std::fs::write(dir.join("violations"), wrong.join("\n")).unwrap();
    for (from, name) in [(redis.dir(), "redis"), (proxy.dir(), "tideover")] {
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .arg(from)
            .arg(dir.join(name))
            .status();
        assert!(copied.is_ok_and(|status| status.success()), "the files are copied");
    }
    dir.display().to_string()
}
