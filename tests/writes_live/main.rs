//! Writes while down against a live redis-server: the acknowledgement or error is what Redis answers when every
//! argument takes effect once, and the effect leaves what the original command leaves.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "test helpers")]

mod samples;
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use tideover::command::{Spec, TABLE};
use tideover::outage::payload::{Origin, decode, encode};
use tideover::outage::write::{StreamIds, Write, WriteContext, write};
use tideover::outage::{Answer, answer};
use tideover::resp::Protocol;
use tideover::resp::request::OwnedRequest;

use samples::{CREATING, FUZZED, KEYSPACE_ERRORS, MADE_BY_REDIS, NEWER, SAMPLES, SINCE_REFUSED, UNCOUNTED, WORDS};
use server::{Connection, Server, words};

const KEYS: [&str; 3] = ["k", "k2", "k3"];

/// What is compared beside the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    /// The reply's bytes, DUMP and TTL.
    Everything,
    /// DUMP and TTL: how many members go cannot be known, 0 is answered.
    State,
    /// For IDs and times that Redis makes itself: the reply's kind, the stream's length and groups.
    Shape,
}

fn spec(args: &[String]) -> &'static Spec {
    let two = args.iter().take(2).cloned().collect::<Vec<_>>().join(" ");
    TABLE
        .iter()
        .find(|spec| spec.name.eq_ignore_ascii_case(&two))
        .or_else(|| TABLE.iter().find(|spec| spec.name.eq_ignore_ascii_case(&args[0])))
        .expect("the command is in the table")
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Primes both databases alike, runs the command in db 0 and our effect in db 1, and says what differs.
fn check(
    redis: &mut Connection,
    protocol: Protocol,
    (prime, command): (&str, &str),
    compared: Compared,
) -> Option<String> {
    let args = words(command);
    check_args(redis, protocol, prime, &args, compared)
        .map(|difference| format!("{command} ({protocol:?}): {difference}"))
}

fn check_args<A: AsRef<[u8]>>(
    redis: &mut Connection,
    protocol: Protocol,
    prime: &str,
    args: &[A],
    compared: Compared,
) -> Option<String> {
    redis.command("FLUSHALL");
    redis.command("SELECT 0");
    for prime in prime.split(" ; ").filter(|prime| !prime.is_empty()) {
        let reply = redis.command(prime);
        assert!(!reply.starts_with(b"-"), "{prime}: {}", String::from_utf8_lossy(&reply));
    }
    for key in KEYS {
        redis.command(&format!("COPY {key} {key} DB 1"));
    }
    let request = OwnedRequest::new(args);
    let redis_reply = redis.raw(request.as_request().frame());
    let names = args
        .iter()
        .map(|arg| String::from_utf8_lossy(arg.as_ref()).into_owned());
    let mut out = Vec::new();
    let mut ctx = WriteContext {
        protocol,
        upstream_name: "main",
        wall_ms: u64::try_from(now_ms()).unwrap(),
        stream_ids: &mut StreamIds::default(),
        accepted_ids: None,
    };
    let outcome = write(
        spec(&names.collect::<Vec<_>>()),
        &request.as_request(),
        &mut ctx,
        &mut out,
    );
    let replies = format!(
        "Redis {:?}, we {:?}",
        String::from_utf8_lossy(&redis_reply),
        String::from_utf8_lossy(&out)
    );
    let effect = match outcome {
        Write::Error => return (out != redis_reply).then_some(replies),
        Write::Refused => return Some(replies),
        Write::Journal(effect) => effect,
    };
    let same_reply = match compared {
        Compared::Everything => out == redis_reply,
        Compared::State => out == b":0\r\n" && redis_reply.starts_with(b":"),
        Compared::Shape => out[..1] == redis_reply[..1] && out.len() == redis_reply.len(),
    };
    if !same_reply {
        return Some(replies);
    }
    let mut payload = Vec::new();
    encode(Origin { db: 1, identity: b"" }, &[effect], &mut payload);
    let mut rendered = Vec::new();
    decode(&payload).unwrap().render(0, now_ms(), &mut rendered);
    redis.command("SELECT 1");
    let replayed = redis.raw(&rendered);
    if replayed.starts_with(b"-") {
        return Some(format!("the effect failed: {}", String::from_utf8_lossy(&replayed)));
    }
    let ttls = redis.ttls_ms(0).into_iter().zip(redis.ttls_ms(1));
    for (original, effect) in ttls {
        if (original < 0 || effect < 0) && original != effect || original.abs_diff(effect) > 2_000 {
            return Some(format!("TTL {original}, from the effect {effect}"));
        }
    }
    let same_state = redis.state(0, compared) == redis.state(1, compared);
    (!same_state).then(|| "the effect leaves another state".to_owned())
}

#[test]
fn acknowledgements_errors_and_effects_are_those_of_redis() {
    let server = Server::start();
    let tables = [
        (SAMPLES, Compared::Everything),
        (UNCOUNTED, Compared::State),
        (MADE_BY_REDIS, Compared::Shape),
        (NEWER, Compared::Shape),
    ];
    let mut differences = Vec::new();
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut redis = server.connect(protocol);
        let refuses = redis.command(SINCE_REFUSED).starts_with(b"-");
        for (samples, compared) in tables {
            let known: Vec<_> = samples
                .iter()
                .filter(|(_, command)| *command != SINCE_REFUSED || !refuses)
                .filter(|(_, command)| redis.has(&words(command)[0]))
                .collect();
            let checks = known
                .into_iter()
                .filter_map(|sample| check(&mut redis, protocol, *sample, compared));
            differences.extend(checks);
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_command_that_is_queued_by_default_has_samples() {
    let sampled: Vec<&str> = [SAMPLES, UNCOUNTED, MADE_BY_REDIS, NEWER]
        .concat()
        .iter()
        .map(|(_, command)| spec(&words(command)).name)
        .collect();
    let queued = TABLE.iter().filter(|row| {
        let mut args: Vec<&str> = row.name.split(' ').collect();
        args.resize(usize::from(row.arity.unsigned_abs()), "1");
        let request = OwnedRequest::new(&args);
        answer(
            Some(row),
            &request.as_request(),
            Protocol::Resp2,
            "main",
            &mut Vec::new(),
        ) == Answer::Write
    });
    let missing: Vec<&str> = queued
        .map(|row| row.name)
        .filter(|name| !sampled.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_restored_value_and_its_time_to_live_are_those_of_redis() {
    let server = Server::start();
    let mut redis = server.connect(Protocol::Resp2);
    redis.command("RPUSH k a b c");
    let dump = redis.command("DUMP k");
    let payload_at = dump.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let payload = &dump[payload_at..dump.len() - 2];
    let tables: [&[&[u8]]; 4] = [
        &[b"RESTORE", b"k", b"0", payload, b"REPLACE"],
        &[b"RESTORE", b"k", b"100000", payload, b"replace", b"IDLETIME", b"5"],
        &[b"RESTORE", b"k", b"4102444800000", payload, b"ABSTTL", b"REPLACE"],
        &[b"RESTORE", b"k", b"1", payload, b"ABSTTL", b"REPLACE"],
    ];
    for args in tables {
        let difference = check_args(&mut redis, Protocol::Resp2, "SET k old", args, Compared::Everything);
        assert_eq!(difference, None, "{} arguments", args.len());
    }
}

#[test]
fn whatever_the_arguments_an_error_is_redis_own_and_what_redis_refuses_is_not_journaled() {
    let server = Server::start();
    let mut redis = server.connect(Protocol::Resp2);
    let mut random = fastrand::Rng::with_seed(7);
    let mut differences = Vec::new();
    for _ in 0..30_000 {
        let command = FUZZED[random.usize(..FUZZED.len())];
        let mut args = words(command);
        args.push("k".to_owned());
        for _ in 0..random.usize(..8) {
            args.push(WORDS[random.usize(..WORDS.len())].to_owned());
        }
        redis.command("FLUSHALL");
        let request = OwnedRequest::new(&args);
        let redis_reply = redis.raw(request.as_request().frame());
        let mut out = Vec::new();
        let mut ctx = WriteContext {
            protocol: Protocol::Resp2,
            upstream_name: "main",
            wall_ms: u64::try_from(now_ms()).unwrap(),
            stream_ids: &mut StreamIds::default(),
            accepted_ids: None,
        };
        let outcome = write(spec(&args), &request.as_request(), &mut ctx, &mut out);
        let depends_on_keyspace = KEYSPACE_ERRORS
            .iter()
            .any(|text| redis_reply.starts_with(text.as_bytes()));
        // XX takes no effect on an empty keyspace, and the ID for * is made by the clock.
        let is_acknowledged_alike =
            CREATING.contains(&command) && !args.iter().any(|arg| arg == "*" || (arg == "xx" && command != "SET"));
        let is_same = depends_on_keyspace
            || match outcome {
                Write::Error => out == redis_reply,
                Write::Journal(_) if is_acknowledged_alike => out == redis_reply,
                Write::Journal(_) => !redis_reply.starts_with(b"-"),
                Write::Refused => true,
            };
        if !is_same {
            let shown = [&redis_reply, &out].map(|reply| String::from_utf8_lossy(reply).trim_end().to_owned());
            differences.push(format!("{args:?}: Redis {:?}, we {:?}", shown[0], shown[1]));
        }
    }
    differences.truncate(40);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
