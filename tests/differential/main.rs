//! Every command of the table, with good arguments and bad, to a Redis directly and through tideover to another one of the same age: the same bytes.
//!
//! `lines/*.txt` are requests, `talks/*.txt` conversations of several clients; `compare.rs` has the list of what cannot be the same, and why.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panicking")]

mod compare;
mod line;
#[path = "../writes_live/samples.rs"]
#[expect(dead_code, reason = "only the samples that stand alone are wanted here")]
mod samples;
#[path = "../support/mod.rs"]
mod support;
mod talk;

use std::collections::BTreeSet;

use compare::compared;
use line::Line;
use support::pair::Pair;
use support::{Client, DEADLINE, Settings, await_down, command, shown};
use tideover::command::{Name, TABLE};
use tideover::resp::Protocol;

/// Requests that are played in their order on an empty server.
const LINES: &[(&str, &str)] = &[
    ("strings.txt", include_str!("lines/strings.txt")),
    ("keys.txt", include_str!("lines/keys.txt")),
    ("collections.txt", include_str!("lines/collections.txt")),
    ("zsets.txt", include_str!("lines/zsets.txt")),
    ("streams.txt", include_str!("lines/streams.txt")),
    ("scripts.txt", include_str!("lines/scripts.txt")),
    ("server.txt", include_str!("lines/server.txt")),
    ("odd.txt", include_str!("lines/odd.txt")),
];

/// Requests that stand each for itself; a word between two blanks may be empty.
const SINGLE: [&str; 2] = [
    include_str!("../neutral_live/good.txt"),
    include_str!("../neutral_live/bad.txt"),
];

/// What the keys of [`SINGLE`] hold when they are tried.
const VALUES: [&str; 7] = [
    "",
    "SET key 10",
    "RPUSH key 1 2 3",
    "SADD key 1 2 3",
    "HSET key f 1 a 2",
    "GEOADD key 13.361389 38.115556 a 15.087269 37.502669 b 2 48 m",
    "XADD key 1-1 f v",
];
const KEYS: &str = "a b c g h k l s z";

/// Rows that are not run to success on a test server, and why. The second word of a name may be left out.
const NEVER_SUCCEED: &[(&str, &str)] = &[
    ("ACL LOAD", "the test server has no ACL file"),
    ("ACL SAVE", "the test server has no ACL file"),
    ("ASKING", "for a cluster"),
    ("BGREWRITEAOF", "the answer depends on a child that may still run"),
    ("BGSAVE", "the answer depends on a child that may still run"),
    ("CLUSTER", "for a cluster"),
    ("CONFIG REWRITE", "the test server has no configuration file"),
    ("FAILOVER", "needs a replica"),
    ("FUNCTION KILL", "no function runs for so long"),
    ("LATENCY GRAPH", "needs a delay, which is not twice the same"),
    ("MIGRATE", "needs another server; one that is not there is tried"),
    ("MODULE LOAD", "no module is there"),
    ("MODULE LOADEX", "no module is there"),
    ("MODULE UNLOAD", "no module is there"),
    (
        "OBJECT FREQ",
        "needs another eviction policy, which changes what is stored",
    ),
    ("PFSELFTEST", "keeps the server busy for longer than it may be silent"),
    ("PSYNC", "makes the connection a replica's"),
    ("READONLY", "for a cluster"),
    ("READWRITE", "for a cluster"),
    (
        "REPLICAOF",
        "makes the server a replica; the master it has already is tried",
    ),
    (
        "SCRIPT DEBUG",
        "the answer depends on what else has arrived on the connection",
    ),
    ("SCRIPT KILL", "no script runs for so long"),
    ("SHUTDOWN", "ends the server"),
    ("SYNC", "makes the connection a replica's"),
];

/// In which ways a batch is worth sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forms {
    All,
    /// Its requests are sent inline and inside MULTI in another batch.
    FramedOutsideMulti,
}

/// Requests and the state that they find.
struct Batch {
    title: String,
    forms: Forms,
    before: Vec<Line>,
    lines: Vec<Line>,
}

fn batches() -> Vec<Batch> {
    let typed = |text: &str| -> Vec<Line> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(Line::typed).collect()
    };
    let mut batches: Vec<Batch> = LINES
        .iter()
        .map(|(title, text)| Batch {
            title: (*title).to_owned(),
            forms: Forms::All,
            before: Vec::new(),
            lines: typed(text),
        })
        .collect();
    batches.extend(VALUES.map(|value| {
        Batch {
            title: format!("keys after \"{value}\""),
            forms: if value.is_empty() {
                Forms::All
            } else {
                Forms::FramedOutsideMulti
            },
            before: KEYS
                .split(' ')
                .flat_map(|key| typed(&value.replace("key", key)))
                .collect(),
            lines: SINGLE
                .iter()
                .flat_map(|text| text.lines())
                .map(|line| Line::of(&line.split(' ').collect::<Vec<_>>()))
                .collect(),
        }
    }));
    let flush = Line::typed("FLUSHALL");
    let writes = [samples::SAMPLES, samples::UNCOUNTED, samples::MADE_BY_REDIS];
    batches.push(Batch {
        title: "writes".to_owned(),
        forms: Forms::All,
        before: Vec::new(),
        lines: writes
            .into_iter()
            .flatten()
            .flat_map(|(before, sample)| {
                let before = before.split(" ; ").filter(|text| !text.is_empty());
                std::iter::once(flush.clone()).chain(before.chain([*sample]).map(Line::typed))
            })
            .collect(),
    });
    batches.push(Batch {
        title: "numbers of arguments".to_owned(),
        forms: Forms::All,
        before: Vec::new(),
        lines: TABLE.iter().flat_map(wrong_arities).collect(),
    });
    batches
}

/// No argument, one too few, and one too many where their number is fixed; in three ways of writing the name. None that would succeed.
fn wrong_arities(spec: &'static tideover::command::Spec) -> Vec<Line> {
    let written = [
        spec.name.to_owned(),
        spec.name.to_lowercase(),
        format!("{}{}", &spec.name[..1], spec.name[1..].to_lowercase()),
    ];
    let bound = usize::from(spec.arity.unsigned_abs());
    let words_count = spec.name.split(' ').count();
    let few = (bound > words_count).then(|| bound - 1);
    let many = (spec.arity > 0).then_some(bound + 1);
    let lens: BTreeSet<usize> = few.map(|_| words_count).into_iter().chain(few).chain(many).collect();
    let mut lines = Vec::new();
    for (name, len) in written.iter().zip(lens.iter().cycle().take(lens.len() * 3)) {
        let mut args: Vec<&str> = name.split(' ').collect();
        args.resize(*len, "x");
        lines.push(Line::of(&args));
    }
    lines
}

/// How the requests of a batch are sent.
#[derive(Debug, Clone, Copy)]
enum Sent {
    /// Each when the one before is answered.
    OneByOne,
    /// All in one write.
    Pipelined,
    Inline,
    /// Each between MULTI and EXEC.
    InMulti,
}

/// Whether a request left both connections open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Open,
    Closed,
}

impl Batch {
    fn fits(&self, sent: Sent) -> bool {
        match sent {
            Sent::OneByOne | Sent::Pipelined => true,
            Sent::Inline | Sent::InMulti => self.forms == Forms::All,
        }
    }
}

/// Both sides, with what was found.
struct Run<'a> {
    pair: &'a Pair,
    protocol: Protocol,
    sent: Sent,
    compared: usize,
    differences: Vec<String>,
    /// Rows of the table that were answered without an error.
    succeeded: BTreeSet<Name>,
}

impl Run<'_> {
    fn play(&mut self, batch: &Batch) {
        self.fresh(batch);
        let mut sides = connect(self.pair, self.protocol);
        match self.sent {
            Sent::Pipelined => {
                let all: Vec<u8> = batch.lines.iter().flat_map(Line::framed).collect();
                sides.iter_mut().for_each(|side| side.send_raw(&all));
                for line in &batch.lines {
                    if self.compare(batch, line, &mut sides, 1) == Ends::Closed {
                        return;
                    }
                }
            }
            Sent::OneByOne | Sent::Inline | Sent::InMulti => {
                for line in &batch.lines {
                    let (bytes, replies) = match self.sent {
                        Sent::Inline => ([&line.inline[..], b"\r\n"].concat(), 1),
                        Sent::InMulti => {
                            let (multi, exec) = (command(&["MULTI"]), command(&["EXEC"]));
                            ([multi, line.framed(), exec].concat(), 3)
                        }
                        Sent::OneByOne | Sent::Pipelined => (line.framed(), 1),
                    };
                    sides.iter_mut().for_each(|side| side.send_raw(&bytes));
                    if self.compare(batch, line, &mut sides, replies) == Ends::Closed {
                        return;
                    }
                }
            }
        }
    }

    /// Both servers as they began, and with the state that the batch wants.
    fn fresh(&self, batch: &Batch) {
        for server in [self.pair.direct.client(), self.pair.behind.client()] {
            let mut server = server;
            for clean in ["FLUSHALL", "FUNCTION FLUSH", "SCRIPT FLUSH", "ACL LOG RESET"] {
                server.call(&clean.split(' ').collect::<Vec<_>>());
            }
            for line in &batch.before {
                server.call(&line.args);
            }
        }
    }

    fn compare(&mut self, batch: &Batch, line: &Line, sides: &mut [Client; 2], replies: usize) -> Ends {
        let mut ends = Ends::Open;
        let [expected, got] = sides.each_mut().map(|side| {
            let mut reply = Vec::new();
            for _ in 0..replies {
                match side.try_reply() {
                    Ok(frame) => reply.extend(frame),
                    Err(error) => {
                        ends = Ends::Closed;
                        reply.extend(format!("<{error}>").bytes());
                        break;
                    }
                }
            }
            reply
        });
        self.compared += 1;
        let spec = line.spec();
        if let Some(spec) = spec
            && expected.first() != Some(&b'-')
        {
            self.succeeded.insert(spec.id);
        }
        let compared = compared(spec);
        if !compared.is_same(&expected, &got) {
            self.differences.push(format!(
                "{}, {:?}, {:?}, {compared:?}: {}\n  redis answers    {}\n  tideover answers {}",
                batch.title,
                self.protocol,
                self.sent,
                line.inline.escape_ascii(),
                shown(&expected),
                shown(&got)
            ));
        }
        ends
    }
}

/// Neither a slow command nor a busy machine leaves its mark.
fn start(options: &[&str]) -> Pair {
    let settings = Settings {
        command_timeout: DEADLINE,
        ..Settings::default()
    };
    Pair::start_with(&[options, &["--slowlog-log-slower-than", "-1"]].concat(), &settings)
}

fn connect(pair: &Pair, protocol: Protocol) -> [Client; 2] {
    [pair.direct.client(), pair.proxy.client()].map(|client| match protocol {
        Protocol::Resp2 => client,
        Protocol::Resp3 => client.hello3(),
    })
}

fn check(protocol: Protocol) {
    let pair = start(&[]);
    let mut run = Run {
        pair: &pair,
        protocol,
        sent: Sent::OneByOne,
        compared: 0,
        differences: Vec::new(),
        succeeded: BTreeSet::new(),
    };
    let batches = batches();
    for sent in [Sent::OneByOne, Sent::Pipelined, Sent::Inline, Sent::InMulti] {
        run.sent = sent;
        for batch in &batches {
            if batch.fits(sent) {
                run.play(batch);
            }
        }
        if matches!(sent, Sent::OneByOne) {
            run.rows_without_success();
        }
    }
    eprintln!("{protocol:?}: {} requests compared", run.compared);
    assert!(
        run.differences.is_empty(),
        "{} differences\n{}",
        run.differences.len(),
        run.differences.join("\n")
    );
}

impl Run<'_> {
    /// Every row of the table that this server knows must have succeeded, or stand in [`NEVER_SUCCEED`], not both.
    fn rows_without_success(&mut self) {
        let mut server = self.pair.direct.client();
        for spec in TABLE {
            let name = spec.name.replace(' ', "|");
            let info = server.call(&["COMMAND", "INFO", &name]);
            let is_known = info.starts_with(b"*1\r\n*10\r\n");
            let is_container = tideover::command::is_container(spec.id) && spec.id != Name::Command;
            let is_excused = NEVER_SUCCEED
                .iter()
                .any(|(name, _)| spec.name == *name || spec.name.split(' ').next() == Some(name));
            let succeeds_elsewhere = TALKED.contains(&spec.id);
            let succeeded = self.succeeded.contains(&spec.id);
            if is_known && !is_container && !succeeded && !is_excused && !succeeds_elsewhere {
                self.differences
                    .push(format!("{} has no sample that succeeds", spec.name));
            }
        }
    }
}

/// Rows that succeed in `talks/*.txt`: they have more or less than one reply, or change the connection.
const TALKED: &[Name] = &[
    Name::ClientCaching,
    Name::ClientReply,
    Name::Discard,
    Name::Exec,
    Name::Monitor,
    Name::Multi,
    Name::Psubscribe,
    Name::Punsubscribe,
    Name::Quit,
    Name::Replconf,
    Name::Reset,
    Name::Ssubscribe,
    Name::Subscribe,
    Name::Sunsubscribe,
    Name::Unsubscribe,
    Name::Unwatch,
    Name::Watch,
];

/// Holds the conversations, each on an empty server.
fn converse(pair: &Pair, protocol: Protocol, texts: &[&'static str]) {
    let mut differences = Vec::new();
    let mut turns = 0;
    for talk in texts.iter().flat_map(|text| talk::talks(text)) {
        let connect = || connect(pair, protocol);
        turns += talk.turns();
        for mut server in [pair.direct.client(), pair.behind.client()] {
            server.call(&["AUTH", "secret"]);
            server.call(&["FLUSHALL"]);
        }
        differences.extend(talk.hold(&connect));
    }
    eprintln!("{turns} turns compared");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn conversations_go_as_with_redis() {
    let pair = start(&[]);
    let any = include_str!("talks/any.txt");
    converse(&pair, Protocol::Resp2, &[include_str!("talks/resp2.txt"), any]);
}

#[test]
fn the_subscribed_mode_of_resp2_is_that_of_redis_up_or_down() {
    let mut pair = start(&[]);
    let text = include_str!("talks/subscribed.txt");
    converse(&pair, Protocol::Resp2, &[text]);
    pair.behind.kill();
    await_down(&pair.proxy);
    let talks = talk::talks(text);
    let differences = talks
        .iter()
        .flat_map(|talk| talk.hold(&|| connect(&pair, Protocol::Resp2)));
    let differences: Vec<String> = differences.collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn who_has_not_said_the_password_or_may_not_is_told_what_redis_tells() {
    let pair = start(&["--requirepass", "secret"]);
    converse(&pair, Protocol::Resp2, &[include_str!("talks/locked.txt")]);
}

#[test]
fn every_command_is_answered_as_by_redis_in_resp2() {
    check(Protocol::Resp2);
}

#[test]
fn every_command_is_answered_as_by_redis_in_resp3() {
    check(Protocol::Resp3);
}
