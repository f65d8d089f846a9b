//! Batches of guarded records against a model of what one record after the other would do.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::outage::effect::{Effect, EffectKind, Guard};
use crate::outage::payload::{Origin, encode_guarded};

const UPSTREAM_MS: i64 = 1_000_000;

type One = (Guard, String);

fn record(seq: u64, effects: &[One]) -> Record {
    let effects: Vec<(Effect<'_>, Guard)> = effects
        .iter()
        .map(|(guard, line)| {
            let mut bytes = Vec::new();
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            command(&mut bytes, &words);
            let effect = Effect {
                kind: EffectKind::Absolute,
                command: bytes.into(),
                deadline: None,
            };
            (effect, *guard)
        })
        .collect();
    let mut payload = Vec::new();
    let guarded = effects.iter().map(|(effect, guard)| (effect, *guard));
    encode_guarded(Origin { db: 0, identity: b"" }, guarded, &mut payload);
    Record {
        seq,
        wall_ms: 0,
        mono_ms: 0,
        payload: Bytes::from(payload),
    }
}

/// Keys and what they hold, as far as these commands go.
type Keyspace = BTreeMap<String, String>;

fn apply(keyspace: &mut Keyspace, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let key = words[1].to_owned();
    match words[0] {
        "SET" => drop(keyspace.insert(key, words[2].to_owned())),
        "HSET" => {
            let value = keyspace.entry(key).or_default();
            *value = format!("{value}+{}", words[3]);
        }
        "DEL" => drop(keyspace.remove(&key)),
        "PEXPIREAT" if words[2].parse::<i64>().unwrap() <= UPSTREAM_MS => drop(keyspace.remove(&key)),
        "PEXPIREAT" | "MULTI" | "EXEC" => {}
        other => panic!("{other}"),
    }
}

/// One record after the other, guards by what is there: the keyspace, and the records that were not applied.
fn one_by_one(mut keyspace: Keyspace, records: &[Vec<One>]) -> (Keyspace, Vec<(usize, Unmet)>) {
    let mut ours: BTreeSet<String> = BTreeSet::new();
    let mut unmet = Vec::new();
    for (at, effects) in records.iter().enumerate() {
        let [(guard, line)] = effects.as_slice() else { panic!() };
        let key = line.split(' ').nth(1).unwrap().to_owned();
        let there = keyspace.contains_key(&key);
        match guard {
            Guard::CreateOnly if there && !ours.contains(&key) => {
                unmet.push((at, Unmet::WouldOverwriteUnseen));
                continue;
            }
            Guard::NeedsKey if !there => {
                unmet.push((at, Unmet::KeyGone));
                continue;
            }
            Guard::CreateOnly | Guard::Claims => drop(ours.insert(key)),
            Guard::None | Guard::NeedsKey => {}
        }
        apply(&mut keyspace, line);
    }
    (keyspace, unmet)
}

/// What is sent, as lines.
fn lines(request: &[u8]) -> Vec<String> {
    let text = String::from_utf8(request.to_vec()).unwrap();
    let requests = text.split('*').filter(|part| !part.is_empty());
    let words = |part: &str| {
        let bulks = part.split("\r\n").skip(2).step_by(2).map(str::to_owned);
        bulks.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    };
    requests.map(words).collect()
}

fn in_batches(
    mut keyspace: Keyspace,
    records: &[Vec<One>],
    commands_max: usize,
    guards_max: usize,
) -> (Keyspace, Vec<(usize, Unmet)>) {
    let group = Group {
        identity: Vec::new(),
        db: 0,
    };
    let mut left: VecDeque<Record> = (1..).zip(records).map(|(seq, effects)| record(seq, effects)).collect();
    let mut ours = Ours::default();
    let (mut unmet, dead) = (Vec::new(), HashSet::new());
    while !left.is_empty() {
        let terms = Terms {
            group: &group,
            marker_key: b"m",
            incarnations: &Incarnations::default(),
            done_seq: 0,
            dead: &dead,
            aside: None,
            age_max_ms: None,
            now: Now {
                wall_ms: 0,
                mono_ms: 0,
                upstream_ms: UPSTREAM_MS,
                ordinal: 0,
            },
            commands_max,
            guards_max,
        };
        let mut batch = build(&mut left, &terms);
        assert!(!batch.records.is_empty(), "nothing was taken");
        let mut answers = Vec::new();
        if let Some((request, count)) = batch.question() {
            let asked = lines(&request);
            assert_eq!(asked.len(), count);
            answers.extend(asked[1..].iter().map(|line| {
                match keyspace.contains_key(line.strip_prefix("EXISTS ").unwrap()) {
                    true => Presence::There,
                    false => Presence::Absent,
                }
            }));
        }
        batch.settle(&answers, 0, &ours, b"m", &Incarnations::default());
        let mut sent = lines(&batch.request).into_iter();
        if batch.commands > 0 {
            assert_eq!(sent.next().unwrap(), "MULTI");
            for line in sent.by_ref().take(batch.commands) {
                apply(&mut keyspace, &line);
            }
            assert_eq!(sent.next().unwrap(), format!("SET m 0:{}", batch.marker_seq));
            assert_eq!(sent.next().unwrap(), "EXEC");
        }
        let mut place = 0;
        for (record, fate) in &batch.records {
            match fate {
                Fate::Sent { first, commands } => {
                    assert_eq!(*first, place);
                    place += commands;
                    assert!(record.seq <= batch.marker_seq);
                }
                Fate::Unmet(why) => unmet.push((usize::try_from(record.seq).unwrap() - 1, *why)),
                other => panic!("{other:?}"),
            }
        }
        ours.add(0, &mut batch.claims);
    }
    (keyspace, unmet)
}

fn one() -> impl Strategy<Value = One> {
    let key = prop::sample::select(vec!["a", "b", "c"]);
    let kind = prop::sample::select(vec![
        (Guard::CreateOnly, "SET"),
        (Guard::Claims, "SET"),
        (Guard::None, "SET"),
        (Guard::NeedsKey, "HSET"),
        (Guard::None, "HSET"),
        (Guard::None, "DEL"),
        (Guard::NeedsKey, "PEXPIREAT"),
        (Guard::None, "PEXPIREAT"),
    ]);
    (key, kind, any::<bool>(), 0..1000_u32).prop_map(|(key, (guard, name), late, value)| {
        let line = match name {
            "SET" => format!("SET {key} {value}"),
            "HSET" => format!("HSET {key} f {value}"),
            "PEXPIREAT" if late => format!("PEXPIREAT {key} {}", UPSTREAM_MS * 2),
            "PEXPIREAT" => format!("PEXPIREAT {key} 1"),
            _ => format!("{name} {key}"),
        };
        (guard, line)
    })
}

proptest! {
    #[test]
    fn batches_do_what_one_record_after_the_other_does(
        records in prop::collection::vec(one().prop_map(|one| vec![one]), 0..40),
        there in prop::collection::btree_set(prop::sample::select(vec!["a", "b", "c"]), 0..3),
        commands_max in 1..20_usize,
        guards_max in 1..10_usize,
    ) {
        let keyspace: Keyspace = there.into_iter().map(|key| (key.to_owned(), "good".to_owned())).collect();
        let expected = one_by_one(keyspace.clone(), &records);
        prop_assert_eq!(in_batches(keyspace, &records, commands_max, guards_max), expected);
    }
}

fn check(there: &[&str], effects: &[(Guard, &str)], expected: Option<Unmet>) {
    let effects: Vec<One> = effects
        .iter()
        .map(|(guard, line)| (*guard, (*line).to_owned()))
        .collect();
    let keyspace: Keyspace = there.iter().map(|key| ((*key).to_owned(), "good".to_owned())).collect();
    let (after, unmet) = in_batches(keyspace.clone(), std::slice::from_ref(&effects), 9, 9);
    let unmet: Vec<Unmet> = unmet.into_iter().map(|(_, why)| why).collect();
    assert_eq!(unmet, Vec::from_iter(expected), "{effects:?}");
    assert!(
        expected.is_none() || after == keyspace,
        "a transaction is applied as one or not at all"
    );
}

#[test]
fn a_transaction_is_judged_as_one() {
    use Guard::{CreateOnly, NeedsKey, None as Plain};
    let overwrites = Some(Unmet::WouldOverwriteUnseen);
    check(&["a"], &[(Plain, "SET b 1"), (CreateOnly, "SET a 1")], overwrites);
    check(&["a"], &[(Plain, "DEL a"), (CreateOnly, "SET a 1")], None);
    check(&[], &[(CreateOnly, "SET a 1"), (CreateOnly, "SET a 2")], None);
    check(&[], &[(Plain, "HSET a f 1"), (NeedsKey, "HSET a f 2")], None);
    check(
        &["a"],
        &[(NeedsKey, "HSET a f 1"), (NeedsKey, "HSET b f 1")],
        Some(Unmet::KeyGone),
    );
}

#[test]
fn records_applied_before_anybody_heard_of_it_make_their_keys_ours() {
    let group = Group {
        identity: Vec::new(),
        db: 0,
    };
    let effects = [
        (Guard::CreateOnly, "SET a 1"),
        (Guard::Claims, "SET b 1"),
        (Guard::CreateOnly, "SET dead 1"),
        (Guard::NeedsKey, "HSET c f 1"),
    ];
    let mut left: VecDeque<Record> = (1..)
        .zip(effects)
        .map(|(seq, (guard, line))| record(seq, &[(guard, line.to_owned())]))
        .collect();
    let terms = Terms {
        group: &group,
        marker_key: b"m",
        incarnations: &Incarnations::default(),
        done_seq: 4,
        dead: &HashSet::from([3]),
        aside: None,
        age_max_ms: None,
        now: Now {
            wall_ms: 0,
            mono_ms: 0,
            upstream_ms: UPSTREAM_MS,
            ordinal: 0,
        },
        commands_max: 9,
        guards_max: 9,
    };
    let batch = build(&mut left, &terms);
    assert_eq!(batch.claimed, [b"a", b"b"]);
    assert!(batch.request.is_empty() && !batch.is_guarded());
}

#[test]
fn who_may_not_ask_has_nothing_overwritten_and_nothing_made() {
    let group = Group {
        identity: Vec::new(),
        db: 0,
    };
    let mut left = VecDeque::from([record(1, &[(Guard::NeedsKey, "HSET a f 1".to_owned())])]);
    let dead = HashSet::new();
    let terms = Terms {
        group: &group,
        marker_key: b"m",
        incarnations: &Incarnations::default(),
        done_seq: 0,
        dead: &dead,
        aside: None,
        age_max_ms: None,
        now: Now {
            wall_ms: 0,
            mono_ms: 0,
            upstream_ms: UPSTREAM_MS,
            ordinal: 0,
        },
        commands_max: 9,
        guards_max: 9,
    };
    let mut batch = build(&mut left, &terms);
    batch.settle(
        &[Presence::NotPermitted],
        0,
        &Ours::default(),
        b"m",
        &Incarnations::default(),
    );
    assert_eq!(batch.records[0].1, Fate::Unmet(Unmet::NotPermitted));
    assert!(batch.request.is_empty());
}
