use super::*;
use crate::command::{TABLE, lookup};
use crate::resp::request::OwnedRequest;
use proptest::prelude::*;

fn run(line: &str, protocol: Protocol) -> (Answer, String) {
    let args: Vec<&str> = line.split(' ').collect();
    let owned = OwnedRequest::new(&args);
    let request = owned.as_request();
    let mut out = Vec::new();
    let answer = answer(lookup(&request), &request, protocol, "main", &mut out);
    (answer, String::from_utf8(out).unwrap())
}

#[track_caller]
fn check(line: &str, expected_answer: Answer, expected: &str) {
    let (answer, out) = run(line, Protocol::Resp2);
    assert_eq!((answer, out.as_str()), (expected_answer, expected), "{line}");
}

#[test]
fn refusals_say_what_was_not_done_and_why() {
    for (line, expected) in [
        ("INCR a", "INCR was not applied"),
        ("sort a STORE d", "SORT was not applied"),
        ("BITFIELD a SET u8 0 1", "BITFIELD was not applied"),
        ("GEORADIUS a 1 1 1 km STORE d", "GEORADIUS was not applied"),
        (
            "GEORADIUSBYMEMBER a m 1 km STOREDIST d",
            "GEORADIUSBYMEMBER was not applied",
        ),
        ("EVAL_RO x 0", "EVAL_RO was not executed"),
        ("CONFIG SET a b", "CONFIG SET was not executed"),
        ("WATCH a", "WATCH was not executed"),
        ("SCAN 17", "SCAN was not executed"),
        ("SCAN -1", "SCAN was not executed"),
        ("HSCAN h 18446744073709551615", "HSCAN was not executed"),
        ("XREADGROUP GROUP g c STREAMS s 0", "XREADGROUP was not executed"),
        ("json.get\r\n a", "JSON.GET?? was not executed"),
    ] {
        let text = format!("-UNAVAILABLE {expected}: upstream \"main\" is down\r\n");
        check(line, Answer::Refused, &text);
    }
}

#[test]
fn no_answer_says_may_or_leaves_the_output_half_written() {
    for spec in TABLE {
        let padding = usize::from(spec.arity.unsigned_abs()).saturating_sub(spec.name.split(' ').count());
        let line = format!("{}{}", spec.name, " 1".repeat(padding));
        let (answer, out) = run(&line, Protocol::Resp3);
        assert!(!out.to_lowercase().contains(" may "), "{line}: {out}");
        let writes_reply = !matches!(answer, Answer::Write | Answer::Session);
        assert_eq!(out.ends_with("\r\n"), writes_reply, "{line}: {answer:?} {out}");
        assert_eq!(
            out.starts_with("-UNAVAILABLE "),
            answer == Answer::Refused,
            "{line}: {out}"
        );
    }
}

#[test]
fn writes_and_the_session_s_own_are_left_to_them() {
    for line in [
        "SET a 1",
        "SET a 1 NX",
        "DEL a",
        "XADD s * f v",
        "EXPIRE a 1",
        "XGROUP CREATE s g $",
    ] {
        check(line, Answer::Write, "");
    }
    for line in [
        "PING",
        "HELLO 3",
        "MULTI",
        "EXEC",
        "CLIENT ID",
        "CLIENT TRACKING OFF",
        "CONFIG GET a",
        "COMMAND",
        "INFO",
    ] {
        check(line, Answer::Session, "");
    }
}

#[test]
fn blocking_commands_are_held_for_their_own_timeout() {
    let held = |ms| Answer::Hold {
        timeout: Some(Duration::from_millis(ms)),
    };
    let for_ever = Answer::Hold { timeout: None };
    for (line, expected) in [
        ("BLPOP a b 1.5", held(1500)),
        ("BRPOP a 0", for_ever),
        ("BZPOPMIN a 0.0001", held(1)),
        ("BLMOVE a b LEFT RIGHT 2", held(2000)),
        ("BRPOPLPUSH a b 2", held(2000)),
        ("BLMPOP 3 1 a LEFT COUNT 2", held(3000)),
        ("BZMPOP 3 1 a MIN", held(3000)),
        ("XREAD BLOCK 0 STREAMS a $", for_ever),
        ("XREAD COUNT 1 BLOCK 20 STREAMS a b $ 1-1", held(20)),
        ("XREADGROUP GROUP g c BLOCK 5 STREAMS a >", held(5)),
    ] {
        check(line, expected, "*-1\r\n");
        assert_eq!(run(line, Protocol::Resp3), (expected, "_\r\n".to_owned()), "{line}");
    }
    check("WAIT 1 100", held(100), ":0\r\n");
    check("WAITAOF 0 1 100", held(100), "*2\r\n:0\r\n:0\r\n");
}

#[test]
fn groups_look_empty_but_present() {
    check("XPENDING s g", Answer::Reply, "*4\r\n:0\r\n$-1\r\n$-1\r\n*-1\r\n");
    check("XPENDING s g - + 10", Answer::Reply, "*0\r\n");
    check("XINFO GROUPS s", Answer::Reply, "*0\r\n");
    check("XREADGROUP GROUP g c STREAMS s >", Answer::Reply, "*-1\r\n");
    check("XCLAIM s g c 0 1-1", Answer::Reply, "*0\r\n");
    check("XAUTOCLAIM s g c 0 0", Answer::Reply, "*3\r\n$3\r\n0-0\r\n*0\r\n*0\r\n");
}

#[test]
fn newer_commands_than_the_oldest_server_have_their_shapes() {
    check("ZRANK z m WITHSCORE", Answer::Reply, "*-1\r\n");
    check("HGETEX h EX 5 FIELDS 2 a b", Answer::Reply, "*2\r\n$-1\r\n$-1\r\n");
    check("XREAD STREAMS s +", Answer::Reply, "*-1\r\n");
}

proptest! {
    #[test]
    fn no_request_panics(
        row in 0..TABLE.len(),
        args in prop::collection::vec("-?[0-9]{1,19}|[a-z]{0,3}|COUNT|LIMIT|BLOCK|STREAMS|GROUP|FIELDS|BYLEX|[(\\[#+-]?[0-9.]{0,3}|u8|GET", 0..9),
    ) {
        let mut words: Vec<&str> = TABLE[row].name.split(' ').collect();
        words.extend(args.iter().map(String::as_str));
        let owned = OwnedRequest::new(&words);
        let mut out = b"before".to_vec();
        let answer = answer(Some(&TABLE[row]), &owned.as_request(), Protocol::Resp3, "main", &mut out);
        prop_assert!(out.starts_with(b"before"));
        prop_assert_eq!(out.len() == 6, matches!(answer, Answer::Write | Answer::Session));
    }
}
