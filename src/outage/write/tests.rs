use std::borrow::Cow;

use super::*;
use crate::command::TABLE;
use crate::outage::effect::EffectKind::{Absolute, Relative};
use crate::resp::request::OwnedRequest;

const WALL_MS: u64 = 1_700_000_000_000;

fn request(text: &str) -> (&'static Spec, OwnedRequest) {
    let args = text.split(' ').collect::<Vec<_>>();
    let two = args.iter().take(2).copied().collect::<Vec<_>>().join(" ");
    let spec = [two.as_str(), args[0]]
        .iter()
        .find_map(|name| TABLE.iter().find(|spec| spec.name.eq_ignore_ascii_case(name)))
        .unwrap();
    (spec, OwnedRequest::new(&args))
}

/// The words of an effect, the deadline's place as `<after_ms>`.
fn shown(effect: &Effect<'_>) -> String {
    let mut command = effect.command.to_vec();
    if let Some(deadline) = effect.deadline {
        let text = format!("$0\r\n<{}>\r\n", deadline.after_ms);
        let at = deadline.offset as usize;
        command.splice(at..at, text.into_bytes());
    }
    let text = String::from_utf8(command).unwrap();
    let mut lines = text.split("\r\n");
    let args: usize = lines.next().unwrap()[1..].parse().unwrap();
    let words = lines.skip(1).step_by(2).collect::<Vec<_>>();
    assert_eq!(words.len(), args, "the header counts the deadline: {text:?}");
    words.join(" ")
}

fn outcome(text: &str, rule_reply: Option<&Reply>, ids: &mut StreamIds, protocol: Protocol) -> (String, String) {
    let (spec, request) = request(text);
    let mut ctx = WriteContext {
        protocol,
        upstream_name: "main",
        wall_ms: WALL_MS,
        stream_ids: ids,
        accepted_ids: None,
    };
    let mut out = Vec::new();
    let effect = match write_with(spec, &request.as_request(), rule_reply, &mut ctx, &mut out) {
        Write::Journal(effect) => format!("{:?} {}", effect.kind, shown(&effect)),
        Write::Error => "Error".to_owned(),
        Write::Refused => "Refused".to_owned(),
    };
    (effect, String::from_utf8(out).unwrap())
}

fn check(text: &str, kind: EffectKind, effect: &str, reply: &str) {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let expected = (format!("{kind:?} {effect}"), reply.to_owned());
        let got = outcome(text, None, &mut StreamIds::default(), protocol);
        assert_eq!(got, expected, "{text} in {protocol:?}");
    }
}

fn check_refused(text: &str) {
    let (effect, reply) = outcome(text, None, &mut StreamIds::default(), Protocol::Resp2);
    assert_eq!(effect, "Refused", "{text}");
    let name = request(text).0.name;
    assert_eq!(
        reply,
        format!("-UNAVAILABLE {name} was not applied: upstream \"main\" is down\r\n")
    );
}

#[test]
fn blind_writes_without_a_time_are_kept_as_they_came() {
    for (text, kind, reply) in [
        ("SET k v", Absolute, "+OK"),
        ("SET k v PXAT 5", Absolute, "+OK"),
        ("SET k v exat 5 EXAT 6", Absolute, "+OK"),
        ("MSET a 1 b 2", Absolute, "+OK"),
        ("MSETEX 2 a 1 b 2", Absolute, ":1"),
        ("MSETEX 1 a 1 PXAT 99", Absolute, ":1"),
        ("PFADD k a", Absolute, ":1"),
        ("PFMERGE k a", Relative, "+OK"),
        ("DEL a b a", Absolute, ":2"),
        ("UNLINK a a", Absolute, ":1"),
        ("DELIFEQ k v", Relative, ":1"),
        ("PERSIST k", Absolute, ":1"),
        ("EXPIREAT k 99", Absolute, ":1"),
        ("PEXPIREAT k 99 GT", Absolute, ":1"),
        ("PEXPIREAT k 99 NX", Relative, ":1"),
        ("RESTORE k 0 x REPLACE", Absolute, "+OK"),
        ("RESTORE k 9 x REPLACE ABSTTL", Absolute, "+OK"),
        ("HSET k f 1 f 2 g 3", Absolute, ":2"),
        ("HMSET k f 1", Absolute, "+OK"),
        ("HDEL k f f g", Absolute, ":2"),
        ("HSETEX k FIELDS 1 f v", Absolute, ":1"),
        ("HSETEX k EXAT 9 FIELDS 1 f v", Absolute, ":1"),
        ("SADD k a a", Absolute, ":1"),
        ("SREM k a b a", Absolute, ":2"),
        ("ZADD k 1 a 2 a", Absolute, ":1"),
        ("ZADD k GT CH 1 a 2 a", Absolute, ":2"),
        ("ZADD k NX 1 a", Relative, ":1"),
        ("ZADD k XX 1 a", Relative, ":0"),
        ("ZADD k XX CH 1 a 2 a", Relative, ":1"),
        ("GEOADD k 13 38 a 14 38 a", Absolute, ":1"),
        ("GEOADD k XX 13 38 a", Relative, ":0"),
        ("ZREM k a a", Absolute, ":1"),
        ("ZREMRANGEBYSCORE k 1 2", Absolute, ":0"),
        ("ZREMRANGEBYLEX k - +", Absolute, ":0"),
        ("ZREMRANGEBYRANK k 0 1", Relative, ":0"),
        ("RPUSH k a a", Relative, ":2"),
        ("LPUSH k a", Relative, ":1"),
        ("LTRIM k 0 9", Relative, "+OK"),
        ("XADD k 5-1 a b", Absolute, "$3\r\n5-1"),
        ("XADD k 7-* a b", Relative, "$3\r\n7-0"),
        ("XADD k MAXLEN ~ 5 * a b", Relative, "$15\r\n1700000000000-0"),
        ("XACK k g 1-1 1 1-0", Absolute, ":2"),
        ("XDEL k 1-1 1-1", Absolute, ":1"),
        ("XTRIM k MAXLEN 5", Absolute, ":0"),
        ("XGROUP CREATE k g 0 MKSTREAM", Relative, "+OK"),
        ("XGROUP CREATECONSUMER k g c", Absolute, ":1"),
    ] {
        check(text, kind, text, &format!("{reply}\r\n"));
    }
}

#[test]
fn relative_times_become_deadlines() {
    for (text, kind, effect, reply) in [
        ("SET k v EX 10", Absolute, "SET k v PXAT <10000>", "+OK"),
        ("set k v px 10 PX 20", Absolute, "SET k v PXAT <20>", "+OK"),
        ("SETEX k 10 v", Absolute, "SET k v PXAT <10000>", "+OK"),
        ("PSETEX k 10 v", Absolute, "SET k v PXAT <10>", "+OK"),
        ("MSETEX 1 a 1 EX 9", Absolute, "MSETEX 1 a 1 PXAT <9000>", ":1"),
        ("EXPIRE k 10", Absolute, "PEXPIREAT k <10000>", ":1"),
        ("EXPIRE k 10 XX GT", Relative, "PEXPIREAT k <10000> XX GT", ":1"),
        ("EXPIRE k -1", Absolute, "PEXPIREAT k <-1000>", ":1"),
        ("PEXPIRE k 10 LT", Absolute, "PEXPIREAT k <10> LT", ":1"),
        (
            "RESTORE k 9 x REPLACE FREQ 5",
            Absolute,
            "RESTORE k <9> x REPLACE FREQ 5 ABSTTL",
            "+OK",
        ),
        (
            "HEXPIRE k 5 FIELDS 2 f g",
            Absolute,
            "HPEXPIREAT k <5000> FIELDS 2 f g",
            "*2\r\n:1\r\n:1",
        ),
        (
            "HEXPIRE k 5 NX FIELDS 1 f",
            Relative,
            "HPEXPIREAT k <5000> NX FIELDS 1 f",
            "*1\r\n:1",
        ),
        (
            "HSETEX k EX 5 FIELDS 1 f v",
            Absolute,
            "HSETEX k PXAT <5000> FIELDS 1 f v",
            ":1",
        ),
    ] {
        check(text, kind, effect, &format!("{reply}\r\n"));
    }
}

#[test]
fn writes_whose_reply_decides_and_what_is_never_journaled_are_refused() {
    for text in [
        "SET k v NX",
        "SET k v XX EX 5",
        "SET k v GET",
        "SET k v KEEPTTL",
        "SET k v IFEQ old",
        "MSETEX 1 a 1 NX",
        "MSETEX 5 a 1",
        "MSETEX x a 1",
        "HSETEX k FNX FIELDS 1 f v",
        "HSETEX k KEEPTTL FIELDS 1 f v",
        "HEXPIRE k 0 FIELDS 1 f",
        "HEXPIRE k 5 FIELDS 2 f",
        "ZADD k INCR 1 a",
        "RESTORE k 0 x",
        "XADD k NOMKSTREAM * a b",
        "XGROUP CREATE k g $",
        "XGROUP DESTROY k g",
        "INCR k",
        "SETNX k v",
        "GETDEL k",
        "GETEX k EX 5",
        "RENAME a b",
        "LREM k 0 a",
        "EVAL return 0",
        "LPOP k",
        "XCLAIM k g c 0 1-1",
        "FLUSHALL",
        "MIGRATE h 1 k 0 5",
        "GET k",
    ] {
        check_refused(text);
    }
}

#[test]
fn errors_for_arguments_come_before_our_own() {
    for (text, reply) in [
        ("INCR", "-ERR wrong number of arguments for 'incr' command\r\n"),
        ("SET k v NX EX 0", "-ERR invalid expire time in 'set' command\r\n"),
        (
            "HSETEX k EX 0 FIELDS 1 f v",
            "-ERR invalid expire time in 'hsetex' command\r\n",
        ),
        ("ZADD k INCR x a", "-ERR value is not a valid float\r\n"),
        (
            "XGROUP CREATE k g",
            "-ERR wrong number of arguments for 'xgroup|create' command\r\n",
        ),
        ("EXPIRE k 9 a\rb\n", "-ERR Unsupported option a b\r\n"),
    ] {
        let got = outcome(text, None, &mut StreamIds::default(), Protocol::Resp3);
        assert_eq!(got, ("Error".to_owned(), reply.to_owned()), "{text:?}");
    }
}

#[test]
fn a_rule_gives_the_reply_that_the_table_has_not() {
    let one = Reply::Integer(1);
    for (text, effect) in [
        ("INCR stats:a", "Relative INCR stats:a"),
        ("SET k v NX PX 10", "Relative SET k v NX PXAT <10>"),
        ("SET k v IFEQ old EX 1", "Relative SET k v IFEQ old PXAT <1000>"),
        (
            "HSETEX k FXX PX 9 FIELDS 1 f v",
            "Relative HSETEX k FXX PXAT <9> FIELDS 1 f v",
        ),
        ("RESTORE k 9 x", "Relative RESTORE k <9> x ABSTTL"),
        ("RPUSH k a b", "Relative RPUSH k a b"),
        ("SETBIT k 1 1", "Absolute SETBIT k 1 1"),
    ] {
        let got = outcome(text, Some(&one), &mut StreamIds::default(), Protocol::Resp2);
        assert_eq!(got, (effect.to_owned(), ":1\r\n".to_owned()), "{text}");
    }
    for text in [
        "LPOP k",
        "GET k",
        "SWAPDB 0 1",
        "SET k v KEEPTTL",
        "XGROUP CREATE k g $",
    ] {
        let (effect, _) = outcome(text, Some(&one), &mut StreamIds::default(), Protocol::Resp2);
        assert_eq!(effect, "Refused", "{text}");
    }
    let (effect, reply) = outcome("INCRBY k", Some(&one), &mut StreamIds::default(), Protocol::Resp2);
    assert_eq!(effect, "Error", "{reply}");
}

#[test]
fn provisional_ids_go_up_and_cannot_be_named_in_the_same_outage() {
    let mut ids = StreamIds::default();
    let mut run = |text: &str| outcome(text, None, &mut ids, Protocol::Resp2);
    assert_eq!(run("XADD s 1600000000000-0 a b").1, "$15\r\n1600000000000-0\r\n");
    assert_eq!(run("XADD s * a b").1, "$15\r\n1700000000000-0\r\n");
    assert_eq!(run("XADD s * a b").1, "$15\r\n1700000000000-1\r\n");
    assert_eq!(run("XACK s g 1600000000000-0").1, ":1\r\n");
    for text in ["XACK s g 1700000000000-1", "XDEL s 1 1700000000000"] {
        assert_eq!(run(text).0, "Refused", "{text}");
    }
    assert_eq!(run("XACK other g 1700000000000-1").1, ":1\r\n");
    ids.settle();
    let after = outcome("XDEL s 1700000000000-0", None, &mut ids, Protocol::Resp2);
    assert_eq!(after.1, ":1\r\n");
}

#[test]
fn a_plain_write_is_not_copied() {
    for text in ["SET k v", "HSET k f v", "RPUSH k a", "DEL k"] {
        let (spec, request) = request(text);
        let mut ids = StreamIds::default();
        let mut ctx = WriteContext {
            protocol: Protocol::Resp2,
            upstream_name: "main",
            wall_ms: WALL_MS,
            stream_ids: &mut ids,
            accepted_ids: None,
        };
        let outcome = write(spec, &request.as_request(), &mut ctx, &mut Vec::new());
        let Write::Journal(effect) = outcome else {
            panic!("{text} is journaled")
        };
        assert!(matches!(effect.command, Cow::Borrowed(_)), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_arguments_make_a_write_panic_and_every_outcome_has_one_reply(
        command in 0..TABLE.len(),
        args in proptest::collection::vec("(|k|-?[0-9]{1,20}|NX|XX|GT|CH|EX|PX|FIELDS|MAXLEN|~|\\*|LIMIT|REPLACE|1-1|5-\\*|[ -~]{0,4})", 0..9),
    ) {
        let spec = &TABLE[command];
        let words = spec.name.split(' ').map(str::to_owned).chain(args).collect::<Vec<_>>();
        let request = OwnedRequest::new(&words);
        let mut ids = StreamIds::default();
        let mut ctx = WriteContext {
            protocol: Protocol::Resp3,
            upstream_name: "main",
            wall_ms: WALL_MS,
            stream_ids: &mut ids,
            accepted_ids: None,
        };
        let mut out = Vec::new();
        let outcome = write(spec, &request.as_request(), &mut ctx, &mut out);
        proptest::prop_assert!(out.ends_with(b"\r\n"));
        let is_error = out.starts_with(b"-");
        proptest::prop_assert_eq!(is_error, !matches!(outcome, Write::Journal(_)));
        if let Write::Journal(effect) = outcome {
            shown(&effect);
        }
    }
}
