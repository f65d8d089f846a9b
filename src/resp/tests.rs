use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::resp2::decode::decode as decode_resp2;
use redis_protocol::resp2::types::OwnedFrame;

use super::in_steps::{Seen, arguments, replies_in_steps, requests_in_steps};
use super::reply::{self, Found};
use super::request::OwnedRequest;
use super::scan::{Limits, Passed, ProtocolError, Scan, Scanner};

fn small() -> Limits {
    Limits {
        args_max: 64,
        bulk_bytes_max: 512,
        inline_bytes_max: 4096,
        asker: crate::resp::scan::Asker::Admitted,
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

pub(super) fn steps() -> impl Strategy<Value = Vec<usize>> {
    vec(1_usize..40, 1..6)
}

proptest! {
    #[test]
    fn any_split_of_a_request_stream_gives_the_same_requests_and_errors(
        input in almost_requests(), steps in steps(),
    ) {
        let whole = requests_in_steps(&input, &[input.len().max(1)], &small());
        prop_assert_eq!(&requests_in_steps(&input, &[1], &small()), &whole);
        prop_assert_eq!(&requests_in_steps(&input, &steps, &small()), &whole);
    }

    #[test]
    fn no_bytes_make_a_scanner_panic(input in vec(any::<u8>(), 0..200), steps in steps()) {
        requests_in_steps(&input, &steps, &small());
        replies_in_steps(&input, &steps);
    }

    #[test]
    fn requests_are_what_redis_protocol_makes_of_them(
        requests in vec(request(), 1..4), steps in steps(),
    ) {
        let input = requests.concat();
        let mut expected = Vec::new();
        let mut rest = input.as_slice();
        while let Some((frame, bytes)) = decode_resp2(rest).unwrap() {
            expected.push(Seen::Request(bulk_strings(frame)));
            rest = &rest[bytes..];
        }
        expected.push(Seen::Incomplete(0));
        prop_assert_eq!(requests_in_steps(&input, &steps, &small()), expected);
    }

    #[test]
    fn what_a_scanner_keeps_is_bounded_by_the_request(input in almost_requests()) {
        let mut scanner = Scanner::default();
        let mut rest = input.as_slice();
        while let Ok(Scan::Request { len } | Scan::Inline { len } | Scan::Nothing { len }) = scanner.scan(rest, &small()) {
            // An argument takes at least six bytes in array form, and two inline, whose array form adds at most ten to each.
            prop_assert!(scanner.spans().len() <= len.div_ceil(2));
            prop_assert!(scanner.inline().len() <= 10 + 12 * input.len());
            rest = &rest[len..];
        }
        scanner.reset();
        prop_assert!(scanner.kept_bytes() <= 16 * size_of::<super::Span>());
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

fn bulk_strings(frame: OwnedFrame) -> Vec<Vec<u8>> {
    let OwnedFrame::Array(elements) = frame else {
        panic!("a request is an array")
    };
    let bytes = |element| match element {
        OwnedFrame::BulkString(bytes) => bytes,
        other => panic!("{other:?} is no argument"),
    };
    elements.into_iter().map(bytes).collect()
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
    // Only a line without an end is too long, wherever the pieces part.
    check(&[with("*"), b"\r".to_vec()].concat(), "waits");
    check(&[with("*1\r\n$"), b"\r".to_vec()].concat(), "waits");
    check(&[with("*"), b"\r\n".to_vec()].concat(), "invalid multibulk length");
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
