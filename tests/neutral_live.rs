//! Neutral replies against a live, empty redis-server, byte for byte, in RESP2 and RESP3.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tideover::command::{Flags, Spec, TABLE, lookup};
use tideover::outage::{Answer, answer};
use tideover::resp::Protocol;
use tideover::resp::request::OwnedRequest;

use support::{Durability, RedisServer};

/// Requests that an empty Redis answers without an error, one per line; two blanks stand for an empty argument between them.
const GOOD: &str = include_str!("neutral_live/good.txt");

/// Requests with bad arguments, most of which Redis refuses.
const BAD: &str = include_str!("neutral_live/bad.txt");

/// Reading commands whose answer differs on purpose, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "XPENDING",
        "an empty Redis answers NOGROUP, which makes consumers create the group",
    ),
    ("XINFO GROUPS", "an empty Redis answers that there is no such key"),
    ("XINFO CONSUMERS", "an empty Redis answers that there is no such key"),
    (
        "XINFO STREAM",
        "refused: a made-up last ID misleads who reads by offset",
    ),
    ("EVAL_RO", "refused: a script's reply is of any type"),
    ("EVALSHA_RO", "refused: a script's reply is of any type"),
    ("FCALL_RO", "refused: a function's reply is of any type"),
    ("LOLWUT", "refused: it tells the version of a server that is not there"),
];

/// Commands whose arity grew after 7.0.
const ARITY_SINCE_CHANGED: &[&str] = &["ZRANK", "ZREVRANK"];

const SENTINEL: &[u8] = b"$8\r\nsentinel\r\n";
const PROTOCOLS: [Protocol; 2] = [Protocol::Resp2, Protocol::Resp3];

struct Server(RedisServer);

impl Server {
    fn start() -> Self {
        Self(RedisServer::start(Durability::Memory))
    }

    fn connect(&self, protocol: Protocol) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", self.0.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut connection = Connection(stream);
        if protocol == Protocol::Resp3 {
            connection.ask(&["HELLO", "3"]);
        }
        connection
    }
}

struct Connection(TcpStream);

impl Connection {
    /// Redis's reply: everything before the reply to an ECHO that is sent behind.
    fn ask(&mut self, args: &[&str]) -> String {
        let mut bytes = OwnedRequest::new(args).as_request().frame().to_vec();
        bytes.extend_from_slice(OwnedRequest::new(&["ECHO", "sentinel"]).as_request().frame());
        self.0.write_all(&bytes).unwrap();
        let mut reply = Vec::new();
        let mut buffer = [0; 4096];
        while !reply.ends_with(SENTINEL) {
            let n = self
                .0
                .read(&mut buffer)
                .unwrap_or_else(|error| panic!("{args:?}: {error}"));
            assert_ne!(n, 0, "{args:?}: redis-server hung up");
            reply.extend_from_slice(&buffer[..n]);
        }
        reply.truncate(reply.len() - SENTINEL.len());
        String::from_utf8_lossy(&reply).into_owned()
    }
}

fn ours(args: &[&str], protocol: Protocol) -> (Answer, String) {
    let owned = OwnedRequest::new(args);
    let request = owned.as_request();
    let mut out = Vec::new();
    let answer = answer(lookup(&request), &request, protocol, "main", &mut out);
    (answer, String::from_utf8_lossy(&out).into_owned())
}

#[test]
fn answers_are_those_of_an_empty_redis() {
    let server = Server::start();
    let mut differences = Vec::new();
    for protocol in PROTOCOLS {
        let mut connection = server.connect(protocol);
        for (line, is_good) in GOOD
            .lines()
            .map(|line| (line, true))
            .chain(BAD.lines().map(|line| (line, false)))
        {
            let args: Vec<&str> = line.split(' ').collect();
            let (answer, ours) = ours(&args, protocol);
            assert!(
                matches!(answer, Answer::Reply | Answer::Hold { .. }),
                "{line}: {answer:?} {ours}"
            );
            let theirs = connection.ask(&args);
            if ours != theirs {
                differences.push(format!("{protocol:?} {line}: ours {ours:?}, Redis's {theirs:?}"));
            }
            assert!(!(is_good && ours.starts_with('-')), "{line}: {ours}");
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn wrong_numbers_of_arguments_get_redis_s_error() {
    let server = Server::start();
    let mut connection = server.connect(Protocol::Resp2);
    let mut differences = Vec::new();
    let mut compared = 0;
    for spec in TABLE {
        if !is_known(&mut connection, spec) {
            continue;
        }
        for args in wrong_arities(spec) {
            let (answer, ours) = ours(&args, Protocol::Resp2);
            assert_eq!(answer, Answer::Reply, "{args:?}");
            let theirs = connection.ask(&args);
            compared += 1;
            if ours != theirs && !ARITY_SINCE_CHANGED.contains(&spec.name) {
                differences.push(format!("{args:?}: ours {ours:?}, Redis's {theirs:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared > 400, "only {compared} compared");
}

/// Arguments that mean something to one command or another.
const WORDS: &[&str] = &[
    "0",
    "1",
    "2",
    "-1",
    "3",
    "0.01",
    "x",
    "k",
    "",
    "(1",
    "[a",
    "-",
    "+",
    "1-1",
    "$",
    ">",
    "u8",
    "i64",
    "m",
    "km",
    "inf",
    "nan",
    "*",
    "COUNT",
    "LIMIT",
    "WITHSCORES",
    "WITHVALUES",
    "BYSCORE",
    "BYLEX",
    "REV",
    "LEFT",
    "RIGHT",
    "MIN",
    "MAX",
    "GET",
    "SET",
    "BY",
    "ALPHA",
    "DESC",
    "MATCH",
    "TYPE",
    "STREAMS",
    "BLOCK",
    "GROUP",
    "NOACK",
    "WEIGHTS",
    "AGGREGATE",
    "SUM",
    "RANK",
    "MAXLEN",
    "IDX",
    "LEN",
    "MINMATCHLEN",
    "EX",
    "PERSIST",
    "FROMMEMBER",
    "FROMLONLAT",
    "BYRADIUS",
    "BYBOX",
    "ANY",
    "WITHDIST",
    "IDLE",
    "JUSTID",
    "SAMPLES",
    "OVERFLOW",
    "WRAP",
];

/// Good requests with some arguments exchanged, dropped or added. The seed is fixed: a failure repeats.
#[test]
fn mutated_requests_get_redis_s_answer() {
    let server = Server::start();
    let good: Vec<&str> = GOOD.lines().collect();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut differences = Vec::new();
    let mut compared = 0;
    for protocol in PROTOCOLS {
        let mut connection = server.connect(protocol);
        for _ in 0..6000 {
            let line = good[rng.usize(..good.len())];
            let args = mutated(line, &mut rng);
            let (answer, ours) = ours(&args, protocol);
            if answer != Answer::Reply || ARITY_SINCE_CHANGED.contains(&args[0]) {
                continue;
            }
            let theirs = connection.ask(&args);
            compared += 1;
            if ours != theirs {
                differences.push(format!("{protocol:?} {args:?}: ours {ours:?}, Redis's {theirs:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared > 8000, "only {compared} compared");
}

fn mutated(line: &'static str, rng: &mut fastrand::Rng) -> Vec<&'static str> {
    let mut args: Vec<&str> = line.split(' ').collect();
    let spec = lookup(&OwnedRequest::new(&args).as_request()).expect("samples are in the table");
    let first = spec.name.split(' ').count();
    for _ in 0..rng.usize(1..=3) {
        let word = WORDS[rng.usize(..WORDS.len())];
        let at = rng.usize(first..=args.len());
        match rng.u8(..3) {
            0 if at < args.len() => args[at] = word,
            1 if at < args.len() => drop(args.remove(at)),
            _ => args.insert(at, word),
        }
    }
    args
}

#[test]
fn every_reading_command_has_a_good_sample_or_a_reason() {
    let server = Server::start();
    let mut connection = server.connect(Protocol::Resp2);
    for spec in TABLE {
        if !spec.flags.contains(Flags::READONLY) || !is_known(&mut connection, spec) {
            continue;
        }
        let has_sample = GOOD.lines().any(|line| {
            let args: Vec<&str> = line.split(' ').collect();
            lookup(&OwnedRequest::new(&args).as_request()).is_some_and(|found| found.id == spec.id)
        });
        let is_exception = EXCEPTIONS.iter().any(|(name, _)| *name == spec.name);
        assert!(has_sample != is_exception, "{}", spec.name);
    }
}

/// Whether this server has the command.
fn is_known(connection: &mut Connection, spec: &Spec) -> bool {
    let name = spec.name.replace(' ', "|");
    connection.ask(&["COMMAND", "INFO", &name]).starts_with("*1\r\n*10\r\n")
}

/// One argument too few, and one too many where their number is fixed.
fn wrong_arities(spec: &'static Spec) -> Vec<Vec<&'static str>> {
    let words: Vec<&str> = spec.name.split(' ').collect();
    let bound = usize::from(spec.arity.unsigned_abs());
    let padded = |len: usize| {
        let mut args = words.clone();
        args.resize(len, "x");
        args
    };
    let mut all = Vec::new();
    if bound > words.len() {
        all.push(padded(bound - 1));
    }
    if spec.arity > 0 {
        all.push(padded(bound + 1));
    }
    all
}
