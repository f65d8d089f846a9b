use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use redis_protocol::resp2::decode::decode as decode_resp2;
use redis_protocol::resp3::decode::complete::decode as decode_resp3;

use super::in_steps::replies_in_steps;
use super::reply::{Found, Kind, NotAReply, Scanner};
use super::tests::steps;

fn text() -> impl Strategy<Value = String> {
    "[ -~]{0,10}"
}

/// A type byte, a line, its end.
fn line(kind: char, body: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Vec<u8>> {
    body.prop_map(move |body| format!("{kind}{body}\r\n").into_bytes())
        .boxed()
}

/// A type byte, a length, a payload that may hold anything.
fn sized(kind: char, head: &'static str) -> BoxedStrategy<Vec<u8>> {
    vec(any::<u8>(), 0..40)
        .prop_map(move |payload| {
            let mut out = format!("{kind}{}\r\n{head}", head.len() + payload.len()).into_bytes();
            out.extend_from_slice(&payload);
            out.extend_from_slice(b"\r\n");
            out
        })
        .boxed()
}

/// What both versions have and what may be a key of the oracle's maps.
fn plain() -> BoxedStrategy<Vec<u8>> {
    let integer = any::<i64>().prop_map(|n| n.to_string());
    Union::new([sized('$', ""), line('+', text()), line(':', integer)]).boxed()
}

fn error() -> BoxedStrategy<Vec<u8>> {
    line('-', text().prop_map(|text| format!("ERR {text}")))
}

fn nested(kind: char, elements: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("{kind}{}\r\n", elements.len()).into_bytes();
    out.extend(elements.iter().flatten());
    out
}

/// `%` or, before what they belong to, the attributes of `|`.
fn pairs(kind: char, pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = format!("{kind}{}\r\n", pairs.len()).into_bytes();
    for (key, value) in pairs {
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    out
}

/// The oracle knows no attributes of attributes and none of null.
fn attributed(attributes: &[(Vec<u8>, Vec<u8>)], value: Vec<u8>) -> Vec<u8> {
    let value = if value.starts_with(b"|") || value.starts_with(b"_") {
        nested('*', &[value])
    } else {
        value
    };
    [pairs('|', attributes), value].concat()
}

fn resp2_reply() -> BoxedStrategy<Vec<u8>> {
    let nulls = select(vec![b"$-1\r\n".to_vec(), b"*-1\r\n".to_vec()]);
    let leaf = Union::new([plain(), error(), nulls.boxed()]);
    leaf.prop_recursive(4, 32, 5, |inner| {
        vec(inner, 0..5).prop_map(|elements| nested('*', &elements))
    })
    .boxed()
}

fn resp3_value() -> BoxedStrategy<Vec<u8>> {
    let fixed = select(vec![
        b"_\r\n".to_vec(),
        b"#t\r\n".to_vec(),
        b"#f\r\n".to_vec(),
        b",inf\r\n".to_vec(),
        b",-inf\r\n".to_vec(),
        b",nan\r\n".to_vec(),
    ]);
    let double = (any::<i32>(), any::<u16>()).prop_map(|(whole, part)| format!("{whole}.{part}"));
    let leaf = Union::new([
        plain(),
        error(),
        fixed.boxed(),
        line(',', double),
        line('(', "-?[1-9][0-9]{0,60}"),
        sized('=', "txt:"),
        sized('=', "mkd:"),
        sized('!', "ERR "),
    ]);
    leaf.prop_recursive(4, 32, 5, |inner| {
        let map = || vec((plain(), inner.clone()), 0..3);
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|elements| nested('*', &elements)),
            vec(plain(), 0..5).prop_map(|elements| nested('~', &elements)),
            map().prop_map(|map| pairs('%', &map)),
            (map(), inner.clone()).prop_map(|(map, value)| attributed(&map, value)),
        ]
    })
    .boxed()
}

/// A reply or a push, which is never inside anything.
fn resp3_reply() -> BoxedStrategy<Vec<u8>> {
    let push = vec(resp3_value(), 0..4).prop_map(|elements| {
        [b"+message\r\n".to_vec()]
            .into_iter()
            .chain(elements)
            .collect::<Vec<_>>()
    });
    prop_oneof![4 => resp3_value(), 1 => push.prop_map(|elements| nested('>', &elements))].boxed()
}

fn kind_of(frame: &[u8]) -> Kind {
    match frame.first() {
        Some(b'-' | b'!') => Kind::Error,
        Some(b'>') => Kind::Push,
        Some(_) | None => Kind::Value,
    }
}

/// The scanner's frames, whatever the pieces, are those that the oracle has found to be of these lengths.
fn check(frames: &[Vec<u8>], lengths: &[usize], behind: &[u8], steps: &[usize]) -> Result<(), TestCaseError> {
    let ours: Vec<usize> = frames.iter().map(Vec::len).collect();
    prop_assert_eq!(lengths, ours);
    let expected: Vec<(Vec<u8>, Kind)> = frames.iter().map(|frame| (frame.clone(), kind_of(frame))).collect();
    prop_assert_eq!(replies_in_steps(&frames.concat(), steps), (expected, None));
    if let (Some(first), Some(bytes)) = (frames.first(), lengths.first()) {
        let (bytes, kind) = (*bytes, kind_of(first));
        prop_assert_eq!(
            Scanner::default().scan(&[first, behind].concat()),
            Ok(Found::End { bytes, kind })
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_reply_like_bytes_make_the_reply_scanner_panic_or_differ_by_split(
        input in "([*$%~>=!|+:,_#(-]-?[0-9]{0,20}\r\n?|[a-z]{0,5}){0,12}", steps in steps(),
    ) {
        let input = input.as_bytes();
        let whole = replies_in_steps(input, &[input.len().max(1)]);
        prop_assert_eq!(&replies_in_steps(input, &[1]), &whole);
        prop_assert_eq!(&replies_in_steps(input, &steps), &whole);
    }

    #[test]
    fn resp2_replies_end_where_redis_protocol_ends_them(
        frames in vec(resp2_reply(), 1..4), behind in vec(any::<u8>(), 0..8), steps in steps(),
    ) {
        let lengths: Vec<usize> = frames.iter().map(|frame| decode_resp2(frame).unwrap().unwrap().1).collect();
        check(&frames, &lengths, &behind, &steps)?;
    }

    #[test]
    fn resp3_replies_end_where_redis_protocol_ends_them(
        frames in vec(resp3_reply(), 1..4), behind in vec(any::<u8>(), 0..8), steps in steps(),
    ) {
        let lengths: Vec<usize> = frames.iter().map(|frame| decode_resp3(frame).unwrap().unwrap().1).collect();
        check(&frames, &lengths, &behind, &steps)?;
    }
}

// Their end cannot be told by a count; no Redis sends them, and one that did must not make us wait forever.
#[test]
fn streamed_replies_are_refused_at_their_first_line() {
    for input in [
        "$?\r\n;4\r\nword\r\n;0\r\n",
        "*?\r\n:1\r\n.\r\n",
        "~?\r\n.\r\n",
        "%?\r\n.\r\n",
        "|?\r\n.\r\n",
        ">?\r\n.\r\n",
    ] {
        for step in 1..=input.len() {
            assert_eq!(
                replies_in_steps(input.as_bytes(), &[step]),
                (vec![], Some(NotAReply)),
                "{input}"
            );
        }
    }
}

#[test]
fn what_a_payload_has_still_to_come_is_known_between_its_parts() {
    let mut scanner = Scanner::default();
    assert_eq!(scanner.payload_left(), 0);
    let header = b"*2\r\n$100000\r\nabc";
    let part = |bytes| Found::Part {
        bytes,
        kind: Kind::Value,
    };
    assert_eq!(scanner.scan(header), Ok(part(header.len())));
    assert_eq!(scanner.payload_left(), 100_002 - 3);
    assert_eq!(scanner.scan(&[b'x'; 70_000]), Ok(part(70_000)));
    assert_eq!(scanner.payload_left(), 30_002 - 3);
    assert_eq!(scanner.scan(&[b'x'; 29_999]), Ok(part(29_999)));
    assert_eq!(scanner.payload_left(), 0);
    let rest = b"$-1\r\n";
    let end = Found::End {
        bytes: rest.len(),
        kind: Kind::Value,
    };
    assert_eq!(scanner.scan(rest), Ok(end));
    assert_eq!(scanner.payload_left(), 0);
}
