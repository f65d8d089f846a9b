//! Neutral replies against a live, empty redis-server, byte for byte, in RESP2 and RESP3.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use redis_protocol::resp3::types::{OwnedFrame, Resp3Frame};
use tideover::command::{Entry, Flags, Learned, Spec, TABLE, is_container, lookup};
use tideover::outage::{Answer, answer, answer_learned};
use tideover::resp::Protocol;
use tideover::resp::request::OwnedRequest;
use tideover::upstream::dial::value;

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
    (
        "XREADGROUP",
        "an empty Redis answers NOGROUP, which makes consumers create the group",
    ),
    (
        "XCLAIM",
        "an empty Redis answers NOGROUP, which makes consumers create the group",
    ),
    (
        "XAUTOCLAIM",
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

const TIMEOUT: &str = "a timeout of `inf` is called out of range, not negative";
const CURSOR: &str = "an empty cursor is none; Valkey knows the types";
const BITS: &str = "arguments are looked at although there is no such key";

/// Commands of which servers newer than 7.0 refuse other arguments, or in other words; tideover answers as 7.0 does.
const REFUSALS_SINCE_CHANGED: &[(&str, &str)] = &[
    ("BITCOUNT", BITS),
    ("BITPOS", BITS),
    ("BLMOVE", TIMEOUT),
    ("BLMPOP", TIMEOUT),
    ("BLPOP", TIMEOUT),
    ("BRPOP", TIMEOUT),
    ("BRPOPLPUSH", TIMEOUT),
    ("BZMPOP", TIMEOUT),
    ("BZPOPMAX", TIMEOUT),
    ("BZPOPMIN", TIMEOUT),
    ("MODULE LIST", "Redis 8 comes with modules"),
    ("SCAN", CURSOR),
    ("HSCAN", CURSOR),
    ("SSCAN", CURSOR),
    ("ZSCAN", CURSOR),
    ("XREADGROUP", "`Unbalanced XREAD list of streams` reads otherwise"),
    ("XREAD", "`Unbalanced XREAD list of streams` reads otherwise"),
];

/// Commands that came after 7.0, with the replies of Redis 8.0 and Valkey 8.1 in RESP2: for servers that do not have them.
const NEWER: &[(&str, &str)] = &[
    ("HTTL h FIELDS 2 a b", "*2\r\n:-2\r\n:-2\r\n"),
    ("HPTTL h FIELDS 1 a", "*1\r\n:-2\r\n"),
    ("HEXPIRETIME h FIELDS 1 a", "*1\r\n:-2\r\n"),
    ("HPEXPIRETIME h FIELDS 1 a", "*1\r\n:-2\r\n"),
    (
        "HTTL h FIELDS 2 a",
        "-ERR The `numfields` parameter must match the number of arguments\r\n",
    ),
    (
        "HPTTL h FIELDS 1 a b",
        "-ERR The `numfields` parameter must match the number of arguments\r\n",
    ),
    (
        "HEXPIRETIME h FIELDS x a",
        "-ERR Number of fields must be a positive integer\r\n",
    ),
    (
        "HPEXPIRETIME h FOO 1 a",
        "-ERR Mandatory argument FIELDS is missing or not at the right position\r\n",
    ),
    ("HGETEX h FIELDS 2 a b", "*2\r\n$-1\r\n$-1\r\n"),
    ("HGETEX h EX 10 FIELDS 1 a", "*1\r\n$-1\r\n"),
    ("HGETEX h PERSIST FIELDS 1 a", "*1\r\n$-1\r\n"),
    (
        "HGETEX h EX x FIELDS 1 a",
        "-ERR value is not an integer or out of range\r\n",
    ),
    (
        "HGETEX h EX 10 PX 10 FIELDS 1 a",
        "-ERR Mandatory argument FIELDS is missing or not at the right position\r\n",
    ),
    (
        "HGETEX h FIELDS 0 a",
        "-ERR Number of fields must be a positive integer\r\n",
    ),
    ("WAITAOF 0 0 10", "*2\r\n:0\r\n:0\r\n"),
    (
        "WAITAOF 2 0 10",
        "-ERR value is out of range, value must between 0 and 1\r\n",
    ),
    ("COMMANDLOG GET 10 slow", "*0\r\n"),
    (
        "COMMANDLOG GET x foo",
        "-ERR count should be greater than or equal to -1\r\n",
    ),
    (
        "COMMANDLOG GET 1 foo",
        "-ERR type should be one of the following: slow, large-request, large-reply\r\n",
    ),
    ("COMMANDLOG LEN LARGE-REPLY", ":0\r\n"),
    (
        "COMMANDLOG LEN foo",
        "-ERR type should be one of the following: slow, large-request, large-reply\r\n",
    ),
];

/// Neutral commands that Redis 7.0 with an empty keyspace refuses for the number of their arguments only.
const NO_ARGUMENT_IS_BAD: &[&str] = &[
    "BITCOUNT",
    "DBSIZE",
    "DUMP",
    "EXISTS",
    "EXPIRETIME",
    "GEOHASH",
    "GEOPOS",
    "GET",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HSTRLEN",
    "HVALS",
    "KEYS",
    "LATENCY HISTORY",
    "LATENCY LATEST",
    "LINDEX",
    "LLEN",
    "MGET",
    "MODULE LIST",
    "OBJECT ENCODING",
    "OBJECT FREQ",
    "OBJECT IDLETIME",
    "OBJECT REFCOUNT",
    "PEXPIRETIME",
    "PFCOUNT",
    "PTTL",
    "PUBLISH",
    "PUBSUB NUMPAT",
    "PUBSUB NUMSUB",
    "PUBSUB SHARDNUMSUB",
    "RANDOMKEY",
    "RPOPLPUSH",
    "SCARD",
    "SCRIPT EXISTS",
    "SDIFF",
    "SINTER",
    "SISMEMBER",
    "SLOWLOG LEN",
    "SMEMBERS",
    "SMISMEMBER",
    "SPUBLISH",
    "STRLEN",
    "SUNION",
    "TOUCH",
    "TTL",
    "TYPE",
    "XLEN",
    "ZCARD",
    "ZMSCORE",
    "ZRANK",
    "ZREVRANK",
    "ZSCORE",
];

const SENTINEL: &[u8] = b"$8\r\nsentinel\r\n";
const PROTOCOLS: [Protocol; 2] = [Protocol::Resp2, Protocol::Resp3];

struct Server(RedisServer);

impl Server {
    fn start() -> Self {
        Self(RedisServer::start(Durability::Memory))
    }

    /// The commands that it refuses otherwise than 7.0 does.
    fn changed(&self) -> Vec<&'static str> {
        let is_7_0 = self
            .connect(Protocol::Resp2)
            .ask(&["INFO", "server"])
            .contains("redis_version:7.0.");
        let names = REFUSALS_SINCE_CHANGED.iter().map(|(name, _)| *name);
        names.filter(|_| !is_7_0).collect()
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
    let changed = server.changed();
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
            if ours != theirs && !changed.contains(&name_of(&args)) {
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
    let changed = server.changed();
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
            let name = name_of(&args);
            if answer != Answer::Reply || ARITY_SINCE_CHANGED.contains(&name) || changed.contains(&name) {
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
    let first = name_of(&args).split(' ').count();
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
fn what_a_server_may_not_have_is_answered_as_by_one_that_has_it() {
    let server = Server::start();
    for protocol in PROTOCOLS {
        let mut connection = server.connect(protocol);
        for (line, recorded) in NEWER {
            let args: Vec<&str> = line.split(' ').collect();
            let recorded = match protocol {
                Protocol::Resp2 => (*recorded).to_owned(),
                Protocol::Resp3 => recorded.replace("$-1\r\n", "_\r\n"),
            };
            assert_eq!(ours(&args, protocol).1, recorded, "{line}");
            if is_known(&mut connection, row(&args)) {
                assert_eq!(connection.ask(&args), recorded, "{line}");
            }
        }
    }
}

#[test]
fn every_neutral_command_has_samples() {
    let newer = || NEWER.iter().map(|(line, _)| *line);
    let rows = |lines: &mut dyn Iterator<Item = &'static str>, is_refused: bool| -> Vec<&str> {
        let said = lines.map(|line| line.split(' ').collect::<Vec<_>>());
        let fitting = said.filter(|args| ours(args, Protocol::Resp2).1.starts_with('-') == is_refused);
        fitting.map(|args| name_of(&args)).collect()
    };
    let good = rows(&mut GOOD.lines().chain(newer()), false);
    let bad = rows(&mut BAD.lines().chain(newer()), true);
    let mut missing = Vec::new();
    for spec in TABLE.iter().filter(|spec| is_neutral(spec)) {
        let is_exception = EXCEPTIONS.iter().any(|(name, _)| *name == spec.name);
        if good.contains(&spec.name) == is_exception {
            missing.push(format!("good {}", spec.name));
        }
        if !is_exception && bad.contains(&spec.name) == NO_ARGUMENT_IS_BAD.contains(&spec.name) {
            missing.push(format!("bad {}", spec.name));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Whether something is answered in Redis's stead: padded with arguments that mean nothing, it draws a reply, or Redis's error for them.
fn is_neutral(spec: &Spec) -> bool {
    let mut args: Vec<&str> = spec.name.split(' ').collect();
    args.resize(usize::from(spec.arity.unsigned_abs()), "x");
    !is_container(spec.id) && matches!(ours(&args, Protocol::Resp2).0, Answer::Reply | Answer::Hold { .. })
}

/// Every command and subcommand of the server at hand has a row that says what it is answered while down; what its modules bring is refused
/// by its flags.
#[test]
fn no_command_of_a_server_is_answered_by_default() {
    let server = Server::start();
    let mut connection = server.connect(Protocol::Resp2);
    let commands = connection.ask(&["COMMAND"]);
    let mut entries = Vec::new();
    for command in &elements(&value(commands.as_bytes()).unwrap()) {
        gather(command, &mut entries);
    }
    assert!(entries.len() > 350, "only {}", entries.len());
    for entry in &entries {
        let name = entry.name.replace('|', " ").to_ascii_uppercase();
        let mut args: Vec<&str> = name.split(' ').collect();
        args.resize(
            usize::try_from(entry.arity.unsigned_abs()).unwrap().max(args.len()),
            "x",
        );
        let request = OwnedRequest::new(&args);
        let request = request.as_request();
        let found = lookup(&request);
        if entry.flags.iter().any(|flag| flag == "module") {
            assert!(found.is_none(), "{name}");
            let learned = Learned::new(std::slice::from_ref(entry));
            let mut out = Vec::new();
            let answer = answer_learned(learned.find(&request).unwrap(), &request, "main", &mut out);
            assert_eq!(answer, Answer::Refused, "{name}");
            let is_write = entry.flags.iter().any(|flag| flag == "write");
            let word = if is_write { "applied" } else { "executed" };
            let expected = format!("-UNAVAILABLE {name} was not {word}: upstream \"main\" is down\r\n");
            assert_eq!(String::from_utf8_lossy(&out), expected);
            continue;
        }
        let spec = found.unwrap_or_else(|| panic!("{name} has no row"));
        assert_eq!(spec.name, name, "no row of its own");
        for (flag, word) in [(Flags::WRITE, "write"), (Flags::READONLY, "readonly")] {
            let is_said = entry.flags.iter().any(|flag| flag == word);
            assert_eq!(spec.flags.contains(flag), is_said, "{name}: {word}");
        }
    }
}

/// One element of COMMAND's reply with its subcommands, flat.
fn gather(command: &OwnedFrame, entries: &mut Vec<Entry>) {
    let parts = elements(command);
    let text = |frame: &OwnedFrame| frame.as_str().unwrap_or_default().to_owned();
    entries.push(Entry {
        name: text(&parts[0]),
        arity: number(&parts[1]),
        flags: elements(&parts[2]).iter().map(text).collect(),
        first_key: number(&parts[3]),
        last_key: number(&parts[4]),
        key_step: number(&parts[5]),
        subcommands: Vec::new(),
    });
    elements(&parts[9]).iter().for_each(|inner| gather(inner, entries));
}

fn elements(frame: &OwnedFrame) -> Vec<OwnedFrame> {
    match frame {
        OwnedFrame::Array { data, .. } => data.clone(),
        OwnedFrame::Set { data, .. } => data.iter().cloned().collect(),
        _ => Vec::new(),
    }
}

fn number(frame: &OwnedFrame) -> i64 {
    match frame {
        OwnedFrame::Number { data, .. } => *data,
        _ => panic!("no number: {frame:?}"),
    }
}

/// The row of a request.
fn row(args: &[&str]) -> &'static Spec {
    lookup(&OwnedRequest::new(args).as_request()).expect("samples are in the table")
}

fn name_of(args: &[&str]) -> &'static str {
    row(args).name
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
