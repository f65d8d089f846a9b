use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::resp2::decode::decode as decode_resp2;
use redis_protocol::resp3::decode::complete::decode as decode_resp3;

use super::reply::{self, Found, Kind};
use super::request::OwnedRequest;
use super::scan::{Limits, Passed, ProtocolError, Scan, Scanner};

/// What a byte stream is made of: requests as their arguments, blanks, and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Request(Vec<Vec<u8>>),
    Nothing,
    Error(ProtocolError),
    Incomplete(usize),
}

fn small() -> Limits {
    Limits {
        args_max: 64,
        bulk_bytes_max: 512,
        inline_bytes_max: 4096,
        asker: crate::resp::scan::Asker::Admitted,
    }
}

/// Gives the scanner growing prefixes, as a session does, each `step` bytes longer than the last.
fn scan_in_steps(input: &[u8], steps: &[usize]) -> Vec<Seen> {
    let mut scanner = Scanner::default();
    let mut seen = Vec::new();
    let mut steps = steps.iter().copied().cycle();
    let (mut start, mut end) = (0, 0);
    loop {
        let rest = &input[start..end];
        match scanner.scan(rest, &small()) {
            Err(error) => {
                seen.push(Seen::Error(error));
                return seen;
            }
            Ok(Scan::Incomplete) if end == input.len() => {
                seen.push(Seen::Incomplete(rest.len()));
                return seen;
            }
            Ok(Scan::Incomplete) => end = input.len().min(end + steps.next().unwrap_or(1)),
            Ok(Scan::Nothing { len }) => {
                seen.push(Seen::Nothing);
                start += len;
            }
            Ok(Scan::Request { len }) => {
                seen.push(Seen::Request(arguments(&rest[..len], &scanner)));
                start += len;
            }
            Ok(Scan::Inline { len }) => {
                seen.push(Seen::Request(arguments(scanner.inline(), &scanner)));
                start += len;
            }
        }
    }
}

fn arguments(frame: &[u8], scanner: &Scanner) -> Vec<Vec<u8>> {
    let request = super::Request::new(frame, scanner.spans());
    request.args_from(0).map(<[u8]>::to_vec).collect()
}

/// Gives the reply scanner what it has not used, plus the next bytes; each frame is its bytes and kind.
fn replies_in_steps(input: &[u8], steps: &[usize]) -> (Vec<(Vec<u8>, Kind)>, Option<reply::NotAReply>) {
    let mut scanner = reply::Scanner::default();
    let mut frames = Vec::new();
    let mut frame = Vec::new();
    let mut steps = steps.iter().copied().cycle();
    let (mut start, mut end) = (0, 0);
    loop {
        match scanner.scan(&input[start..end]) {
            Err(error) => return (frames, Some(error)),
            Ok(Found::End { bytes, kind }) => {
                frame.extend_from_slice(&input[start..start + bytes]);
                start += bytes;
                assert!(!scanner.is_mid_reply());
                frames.push((std::mem::take(&mut frame), kind));
            }
            Ok(Found::Part { bytes, .. }) => {
                frame.extend_from_slice(&input[start..start + bytes]);
                start += bytes;
                assert_eq!(scanner.is_mid_reply(), !frame.is_empty());
                if end == input.len() {
                    return (frames, None);
                }
                end = input.len().min(end + steps.next().unwrap_or(1));
            }
        }
    }
}

fn argument() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..12), vec(any::<u8>(), 90..130)]
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    vec(argument(), 1..6).prop_map(|args| OwnedRequest::new(&args).as_request().frame().to_vec())
}

/// Bytes that look like the protocol: whole requests, lines, and broken pieces of both.
fn almost_requests() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => request(),
        1 => Just(b"*0\r\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"SET k \"a\\x41\\\"b\" 'c\\'d'\r\n".to_vec()),
        1 => "[ -~]{0,12}\r?\n".prop_map(String::into_bytes),
        1 => "[*$]-?[0-9]{0,4}\r\n".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..6),
    ];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn text() -> impl Strategy<Value = String> {
    "[ -~]{0,10}"
}

/// A reply of bounded depth; in RESP2 of its types only.
fn reply_frame(protocol: super::Protocol) -> BoxedStrategy<Vec<u8>> {
    let line = |kind: &'static str, body: BoxedStrategy<String>| {
        body.prop_map(move |body| format!("{kind}{body}\r\n").into_bytes())
            .boxed()
    };
    let bulk = vec(any::<u8>(), 0..40).prop_map(|payload| {
        let mut out = Vec::new();
        super::write::bulk(&mut out, &payload);
        out
    });
    let mut leaves = vec![
        bulk.boxed(),
        line("+", text().boxed()),
        line("-", text().prop_map(|text| format!("ERR {text}")).boxed()),
        line(":", any::<i64>().prop_map(|n| n.to_string()).boxed()),
    ];
    let mut aggregates = vec![('*', 1)];
    match protocol {
        super::Protocol::Resp2 => {
            leaves.push(Just(b"$-1\r\n".to_vec()).boxed());
            leaves.push(Just(b"*-1\r\n".to_vec()).boxed());
        }
        super::Protocol::Resp3 => {
            leaves.push(Just(b"_\r\n".to_vec()).boxed());
            leaves.push(Just(b"#t\r\n".to_vec()).boxed());
            leaves.push(Just(b",1.5\r\n".to_vec()).boxed());
            leaves.push(Just(b"(3492890328409238509324850943850943825024385\r\n".to_vec()).boxed());
            leaves.push(Just(b"=8\r\ntxt:some\r\n".to_vec()).boxed());
            leaves.push(Just(b"!9\r\nERR wrong\r\n".to_vec()).boxed());
            aggregates.push(('~', 1));
            aggregates.push(('%', 2));
        }
    }
    let leaf = proptest::strategy::Union::new(leaves);
    leaf.prop_recursive(4, 32, 5, move |inner| {
        (vec(inner, 0..5), proptest::sample::select(aggregates.clone())).prop_map(|(elements, (kind, each))| {
            let n = elements.len() / each;
            let mut out = format!("{kind}{n}\r\n").into_bytes();
            // The oracle keeps sets and maps as such: what is equal twice would be counted once.
            out.extend(elements.into_iter().take(n * each).flatten());
            out
        })
    })
    .boxed()
}

fn steps() -> impl Strategy<Value = Vec<usize>> {
    vec(1_usize..40, 1..6)
}

proptest! {
    #[test]
    fn any_split_of_a_request_stream_gives_the_same_requests_and_errors(
        input in almost_requests(), steps in steps(),
    ) {
        let whole = scan_in_steps(&input, &[input.len().max(1)]);
        prop_assert_eq!(&scan_in_steps(&input, &[1]), &whole);
        prop_assert_eq!(&scan_in_steps(&input, &steps), &whole);
    }

    #[test]
    fn no_bytes_make_a_scanner_panic(input in vec(any::<u8>(), 0..200), steps in steps()) {
        scan_in_steps(&input, &steps);
        replies_in_steps(&input, &steps);
    }

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
    fn requests_end_where_redis_protocol_ends_them(input in request(), behind in vec(any::<u8>(), 0..8)) {
        let (_, oracle) = decode_resp2(&input).unwrap().unwrap();
        let mut longer = input.clone();
        longer.extend(behind);
        prop_assert_eq!(
            Scanner::default().scan(&longer, &small()),
            Ok(Scan::Request { len: oracle })
        );
    }

    #[test]
    fn resp2_replies_end_where_redis_protocol_ends_them(
        input in reply_frame(super::Protocol::Resp2), behind in vec(any::<u8>(), 0..8), steps in steps(),
    ) {
        let (_, oracle) = decode_resp2(&input).unwrap().unwrap();
        check_reply_end(&input, &behind, oracle, &steps)?;
    }

    #[test]
    fn resp3_replies_end_where_redis_protocol_ends_them(
        input in reply_frame(super::Protocol::Resp3), behind in vec(any::<u8>(), 0..8), steps in steps(),
    ) {
        // The oracle refuses what cannot be a key of its maps; such frames say nothing.
        if let Ok(Some((_, oracle))) = decode_resp3(&input) {
            check_reply_end(&input, &behind, oracle, &steps)?;
        }
    }

    // A request becomes a stream at any point before its end; the stream finds the end that the scanner finds.
    #[test]
    fn a_stream_ends_a_request_where_the_scanner_does(
        frame in request(), behind in vec(any::<u8>(), 0..20), turn in any::<prop::sample::Index>(), steps in steps(),
    ) {
        let mut scanner = Scanner::default();
        let known = turn.index(frame.len());
        prop_assert_eq!(scanner.scan(&frame[..known], &small()), Ok(Scan::Incomplete));
        let Some(mut stream) = scanner.to_stream() else {
            // Not even its first line is there.
            prop_assert!(frame[..known].iter().filter(|byte| **byte == b'\n').count() == 0);
            return Ok(());
        };
        let mut input = frame.clone();
        input.extend(behind);
        let mut steps = steps.into_iter().cycle();
        let (mut start, mut end) = (0, known);
        loop {
            match stream.pass(&input[start..end], &small()) {
                Ok(Passed::End(bytes)) => {
                    prop_assert_eq!(start + bytes, frame.len());
                    break;
                }
                Ok(Passed::More(bytes)) => {
                    start += bytes;
                    prop_assert!(end < input.len(), "it has run past the end");
                    end = input.len().min(end + steps.next().unwrap_or(1));
                }
                Err(error) => return Err(TestCaseError::fail(format!("{error:?}"))),
            }
        }
    }
}

fn check_reply_end(input: &[u8], behind: &[u8], oracle: usize, steps: &[usize]) -> Result<(), TestCaseError> {
    prop_assert_eq!(oracle, input.len());
    let kind = match input.first() {
        Some(b'-' | b'!') => Kind::Error,
        Some(_) | None => Kind::Value,
    };
    let longer = [input, behind].concat();
    prop_assert_eq!(
        reply::Scanner::default().scan(&longer),
        Ok(Found::End { bytes: oracle, kind })
    );
    prop_assert_eq!(replies_in_steps(input, steps), (vec![(input.to_vec(), kind)], None));
    Ok(())
}

#[test]
fn a_million_nested_arrays_take_neither_stack_nor_memory() {
    // It owns no memory beyond itself.
    assert!(!std::mem::needs_drop::<reply::Scanner>());
    let mut input = b"*1\r\n".repeat(1_000_000);
    input.extend_from_slice(b":1\r\n");
    let mut scanner = reply::Scanner::default();
    let mut used = 0;
    while used < input.len() {
        let end = input.len().min(used + 1000);
        match scanner.scan(&input[used..end]) {
            Ok(Found::Part { bytes, .. }) if bytes > 0 => used += bytes,
            Ok(Found::End { bytes, .. }) => used += bytes,
            other => panic!("{other:?} at {used}"),
        }
    }
    assert!(!scanner.is_mid_reply());

    // As a request it is refused at the second header.
    let mut scanner = Scanner::default();
    assert_eq!(
        scanner.scan(&input, &Limits::default()),
        Err(ProtocolError::ExpectedBulk(b'*'))
    );
    assert_eq!(scanner.kept_bytes(), 0);
}

#[test]
fn huge_counts_allocate_nothing() {
    for input in [
        "*2147483647\r\n",
        "*1\r\n$536870912\r\n",
        "*2147483647\r\n$536870912\r\n",
    ] {
        let mut scanner = Scanner::default();
        assert_eq!(
            scanner.scan(input.as_bytes(), &Limits::default()),
            Ok(Scan::Incomplete),
            "{input}"
        );
        assert_eq!(scanner.kept_bytes(), 0, "{input}");
    }
    for input in [
        "*9223372036854775807\r\n",
        "$9223372036854775807\r\n",
        "%9223372036854775807\r\n",
    ] {
        let found = reply::Scanner::default().scan(input.as_bytes());
        assert!(
            matches!(found, Ok(Found::Part { bytes, .. }) if bytes == input.len()),
            "{input}: {found:?}"
        );
    }
    let twice = "*9223372036854775807\r\n".repeat(4);
    assert_eq!(
        reply::Scanner::default().scan(twice.as_bytes()),
        Err(reply::NotAReply),
        "more elements than can be counted"
    );
}

/// What the scanner makes of `input`, as a text: the arguments, or the reply before the close.
fn check(input: &[u8], expected: &str) {
    let mut scanner = Scanner::default();
    let said = match scanner.scan(input, &Limits::default()) {
        Ok(Scan::Incomplete) => "waits".to_owned(),
        Ok(Scan::Nothing { len }) => format!("nothing {len}"),
        Ok(Scan::Request { len }) => said_arguments(&input[..len], &scanner),
        Ok(Scan::Inline { .. }) => said_arguments(scanner.inline(), &scanner),
        Err(error) => {
            let mut out = Vec::new();
            error.write(&mut out);
            let text = out.strip_prefix(b"-ERR Protocol error: ").unwrap();
            text.strip_suffix(b"\r\n").unwrap().escape_ascii().to_string()
        }
    };
    let head = &input[..input.len().min(60)];
    assert_eq!(said, expected, "{}", head.escape_ascii());
}

fn said_arguments(frame: &[u8], scanner: &Scanner) -> String {
    let args: Vec<String> = arguments(frame, scanner)
        .iter()
        .map(|arg| arg.escape_ascii().to_string())
        .collect();
    format!("[{}]", args.join("|"))
}

#[test]
fn malformed_counts_and_lengths_get_the_texts_of_redis() {
    let count = "invalid multibulk length";
    let length = "invalid bulk length";
    let counts = [
        "abc",
        "",
        "+1",
        "01",
        "-0",
        " 1",
        "1 ",
        "2147483648",
        "99999999999999999999",
    ];
    for text in counts {
        check(format!("*{text}\r\n").as_bytes(), count);
    }
    for text in ["-5", "-1", "", "+4", "04", "536870913", "600000000"] {
        check(format!("*1\r\n${text}\r\nPING\r\n").as_bytes(), length);
    }
    check(b"*1\r\n:5\r\n", r"expected \'$\', got \':\'");
    check(b"*1\r\n\r\n", r"expected \'$\', got \' \'");
    check(b"*1\r\n\n\r\n", r"expected \'$\', got \' \'");
    check(b"*1\r\n\xff\r\n", r"expected \'$\', got \'\xff\'");
}

#[test]
fn lines_beyond_64_kib_get_the_texts_of_redis() {
    let long = vec![b'1'; 64 << 10];
    let with = |head: &str| [head.as_bytes(), &long].concat();
    check(&long, "waits");
    check(&with("a"), "too big inline request");
    check(&with("\0"), "too big inline request");
    check(&with("*"), "too big mbulk count string");
    check(&with("*1\r\n$"), "too big bulk count string");
}

#[test]
fn inline_commands_are_split_as_by_redis() {
    let table: &[(&[u8], &str)] = &[
        (b"PING\r\n", "[PING]"),
        (b"PING\n", "[PING]"),
        (b"PING\r\r\n", "[PING]"),
        (b"  SET\tk  v \r\n", "[SET|k|v]"),
        (b"ECHO \"\\x41\\n\\\"\\q\"\r\n", r#"[ECHO|A\n\"q]"#),
        (b"ECHO \"\\xZZ\"\r\n", "[ECHO|xZZ]"),
        (b"ECHO 'a\\'b\\n'\r\n", r"[ECHO|a\'b\\n]"),
        (b"ECHO foo\"bar\"\r\n", "[ECHO|foobar]"),
        (b"ECHO a\rb\r\n", "[ECHO|a|b]"),
        (b"ECHO a\x0bb\x0cc\r\n", r"[ECHO|a\x0bb\x0cc]"),
        (b"\x0bECHO \"a\"\x0b\"b\"\r\n", "[ECHO|a|b]"),
        (b"\"\"\r\n", "[]"),
        (b"ECHO \"abc\r\n", "unbalanced quotes in request"),
        (b"ECHO 'abc\r\n", "unbalanced quotes in request"),
        (b"ECHO \"a\"b\r\n", "unbalanced quotes in request"),
        (b"ECHO \"\\\r\n", "unbalanced quotes in request"),
    ];
    for (input, expected) in table {
        check(input, expected);
    }
}

#[test]
fn empty_requests_ask_for_nothing() {
    for (input, len) in [
        ("*0\r\nPING\r\n", 4),
        ("*-5\r\n", 5),
        ("*-9223372036854775808\r\n", 23),
        ("\r\n\r\n", 2),
        ("\n", 1),
        ("   \r\n", 5),
    ] {
        check(input.as_bytes(), &format!("nothing {len}"));
    }
}

#[test]
fn a_zero_byte_hides_the_end_of_its_line() {
    for input in [
        b"ECHO a\0b\r\nPING\r\n".as_slice(),
        b"*1\0\r\n$4\r\nPING\r\n",
        b"*1\r\n$4\0\r\nPING\r\n",
        b"*1\r\n\0\r\n",
    ] {
        check(input, "waits");
    }
    check(b"*1\r\n$2\r\na\0\r\n", r"[a\x00]");
}

#[test]
fn the_byte_behind_a_carriage_return_is_not_looked_at() {
    check(b"*1\rx$4\rxPINGxx", "[PING]");
    check(b"*1\nx$4\n", "waits");
}
