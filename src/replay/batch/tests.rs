use bytes::Bytes;

use super::*;
use crate::outage::effect::{Effect, EffectKind};
use crate::outage::payload::{Origin, encode};

const KEY: &[u8] = b"m";

fn record(seq: u64, db: u32, identity: &str, commands: &[&str]) -> Record {
    let effects: Vec<Effect<'_>> = commands
        .iter()
        .map(|name| {
            let mut command_bytes = Vec::new();
            command(&mut command_bytes, &[name.as_bytes()]);
            Effect {
                kind: EffectKind::Absolute,
                command: command_bytes.into(),
                deadline: None,
            }
        })
        .collect();
    let mut payload = Vec::new();
    let origin = Origin {
        db,
        identity: identity.as_bytes(),
    };
    encode(origin, &effects, &mut payload);
    Record {
        seq: (1 << 32) | seq,
        wall_ms: 500,
        mono_ms: 100,
        payload: Bytes::from(payload),
    }
}

struct Case<'a> {
    done: u64,
    dead: &'a [u64],
    age_max_ms: Option<u64>,
    commands_max: usize,
}

const PLAIN: Case<'_> = Case {
    done: 0,
    dead: &[],
    age_max_ms: None,
    commands_max: 4,
};

fn check(records: &[Record], case: &Case<'_>, fates: &[Fate], sent: &str) {
    let group = Group {
        identity: Vec::new(),
        db: 0,
    };
    let dead = case.dead.iter().map(|seq| (1 << 32) | seq).collect();
    let incarnations = Incarnations::default().after_opening(&[0; 16]).unwrap();
    let terms = Terms {
        group: &group,
        marker_key: KEY,
        incarnations: &incarnations,
        done_seq: (1 << 32) | case.done,
        dead: &dead,
        aside: None,
        age_max_ms: case.age_max_ms,
        now: Now {
            wall_ms: 1500,
            mono_ms: 300,
            upstream_ms: 0,
            ordinal: 1,
        },
        commands_max: case.commands_max,
        guards_max: 8,
    };
    let mut left: VecDeque<Record> = records.iter().cloned().collect();
    let batch = build(&mut left, &terms);
    let seen: Vec<Fate> = batch.records.iter().map(|(_, fate)| *fate).collect();
    assert_eq!(seen, fates);
    let names: Vec<String> = String::from_utf8(batch.request.clone())
        .unwrap()
        .split("\r\n")
        .filter(|line| !line.is_empty() && !line.starts_with(['*', '$']))
        .map(str::to_owned)
        .collect();
    assert_eq!(names.join(" "), sent);
    assert_eq!(left.len(), records.len() - fates.len(), "what is not taken stays");
    let replies_to = batch.request.split(|byte| *byte == b'*').count() - 1;
    assert_eq!(replies_to, if sent.is_empty() { 0 } else { replies(batch.commands) });
}

fn at(first: usize, commands: usize) -> Fate {
    Fate::Sent { first, commands }
}

fn sent(commands: &str, seq: u64) -> String {
    let value = (1_u64 << 32) | seq;
    format!("MULTI {commands} SET m 1:{value} EXEC WATCH m GET m INFO replication")
}

#[test]
fn batches_are_cut_at_another_group_and_at_the_limit_but_never_inside_a_record() {
    let records = [
        record(1, 0, "", &["A"]),
        record(2, 0, "", &["B", "C"]),
        record(3, 1, "", &["D"]),
    ];
    check(&records, &PLAIN, &[at(0, 1), at(1, 2)], &sent("A B C", 2));
    let records = [record(1, 0, "", &["A"]), record(2, 0, "alice", &["B"])];
    check(&records, &PLAIN, &[at(0, 1)], &sent("A", 1));
    let records = [record(1, 0, "", &["A", "B", "C"]), record(2, 0, "", &["D", "E"])];
    check(&records, &PLAIN, &[at(0, 3)], &sent("A B C", 1));
    let records = [record(1, 0, "", &["A", "B", "C", "D", "E"]), record(2, 0, "", &["F"])];
    check(&records, &PLAIN, &[at(0, 5)], &sent("A B C D E", 1));
    check(&[record(1, 1, "", &["A"])], &PLAIN, &[], "");
}

#[test]
fn records_that_are_done_dead_old_or_unreadable_are_taken_and_not_sent() {
    let records = [1, 2, 3].map(|seq| record(seq, 0, "", &["A"]));
    let done = Case { done: 2, ..PLAIN };
    check(&records, &done, &[Fate::Passed, Fate::Passed, at(0, 1)], &sent("A", 3));
    let dead = Case { dead: &[1, 3], ..PLAIN };
    check(&records, &dead, &[Fate::Passed, at(0, 1), Fate::Passed], &sent("A", 2));
    let old = Case {
        age_max_ms: Some(199),
        ..PLAIN
    };
    check(&records, &old, &[Fate::TooOld; 3], "");
    let young = Case {
        age_max_ms: Some(200),
        commands_max: 1,
        ..PLAIN
    };
    check(&records, &young, &[at(0, 1)], &sent("A", 1));
    let mut bad = record(1, 0, "", &["A"]);
    bad.payload = Bytes::from_static(b"\x09");
    check(&[bad], &PLAIN, &[Fate::Unreadable], "");
}

#[test]
fn ages_are_monotonic_within_an_opening_and_never_negative() {
    let now = |ordinal, wall_ms, mono_ms| Now {
        wall_ms,
        mono_ms,
        upstream_ms: 0,
        ordinal,
    };
    let record = record(1, 0, "", &["A"]);
    assert_eq!(age_ms(&record, now(1, 9000, 350)), 250);
    assert_eq!(age_ms(&record, now(2, 9000, 350)), 8500);
    assert_eq!(age_ms(&record, now(2, 400, 350)), 0);
    assert!(is_too_old(&record, 250, Some(249)) && !is_too_old(&record, 250, Some(250)));
    let retried = Record {
        mono_ms: MONO_MS_RETRIED,
        ..record
    };
    assert_eq!(age_ms(&retried, now(1, 9000, 350)), 8500);
    assert!(!is_too_old(&retried, 8500, Some(1)), "a person wants it");
}

const TAIL: &str = "+OK\r\n$12\r\n1:4294967303\r\n$9\r\nrole:x\r\n \r\n";

fn answer(head: &str) -> Answer {
    parse(format!("{head}{TAIL}").as_bytes(), 2).unwrap()
}

#[test]
fn replies_to_a_batch_are_told_apart() {
    let queued = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n";
    let applied = answer(&format!("{queued}*3\r\n+OK\r\n*2\r\n:1\r\n-x\r\n+OK\r\n"));
    assert_eq!(applied.exec, Exec::Applied { errors: Vec::new() });
    assert_eq!(
        applied.marker,
        Ok(Marker::At {
            name: 1,
            seq: (1 << 32) | 7
        })
    );
    assert_eq!(applied.info, "role:x\r\n ");
    let wrong = answer(&format!("{queued}*3\r\n:1\r\n-WRONGTYPE no\r\n+OK\r\n"));
    let errors = vec![(1, "WRONGTYPE no".to_owned())];
    assert_eq!(wrong.exec, Exec::Applied { errors });
    for null in ["*-1\r\n", "$-1\r\n", "_\r\n"] {
        assert_eq!(answer(&format!("{queued}{null}")).exec, Exec::Moved);
    }
    let aborted = answer("+OK\r\n+QUEUED\r\n-OOM no\r\n-NOPERM marker\r\n-EXECABORT x\r\n");
    assert_eq!(
        aborted.refused,
        [(1, "OOM no".to_owned()), (2, "NOPERM marker".to_owned())]
    );
    assert_eq!(aborted.exec, Exec::Refused("EXECABORT x".to_owned()));
}

#[test]
fn replies_out_of_step_are_no_answer() {
    for replies in [
        "",
        "-NOPERM multi\r\n",
        "+OK\r\n+QUEUED\r\n",
        "+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:1\r\n:1\r\n:1\r\n",
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:1\r\n",
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n:1\r\n",
    ] {
        let input = format!("{replies}{TAIL}");
        assert_eq!(parse(input.as_bytes(), 2), None, "{replies}");
    }
}

#[test]
fn a_marker_is_read_from_the_replies_to_watch_and_get() {
    assert_eq!(marker(b"+OK\r\n", b"$-1\r\n"), Ok(Marker::Absent));
    assert_eq!(marker(b"+OK\r\n", b"_\r\n"), Ok(Marker::Absent));
    assert_eq!(marker(b"+OK\r\n", b"$1\r\nx\r\n"), Ok(Marker::Garbage));
    assert_eq!(marker(b"-NOPERM x\r\n", b"$-1\r\n"), Err("NOPERM x".to_owned()));
    assert_eq!(marker(b"+OK\r\n", b"-WRONGTYPE x\r\n"), Err("WRONGTYPE x".to_owned()));
}
