//! What clients may send: no panic, the same requests for every split, those of `redis-protocol`, memory in proportion.
#![no_main]

#[path = "../../src/resp/in_steps.rs"]
#[allow(dead_code, reason = "the part for replies")]
mod in_steps;

use libfuzzer_sys::fuzz_target;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;
use tideover::resp::request::OwnedRequest;
use tideover::resp::{Request, reply, scan};

use in_steps::requests_in_steps;
use scan::{Asker, Limits, Passed, Scan, Scanner};

const LIMITS: Limits = Limits {
    args_max: 1024,
    bulk_bytes_max: 1 << 20,
    inline_bytes_max: 256,
    asker: Asker::Admitted,
};

fuzz_target!(|data: &[u8]| {
    let Some((steps, input)) = data.split_at_checked(4) else {
        return;
    };
    let steps: Vec<usize> = steps.iter().map(|step| usize::from(*step) + 1).collect();
    let seen = requests_in_steps(input, &steps, &LIMITS);
    // A line's length is looked at only while its end is missing, as in Redis: there, and only there, the split shows.
    if longest_line(input) <= LIMITS.inline_bytes_max {
        assert_eq!(seen, requests_in_steps(input, &[input.len().max(1)], &LIMITS));
        assert_eq!(seen, requests_in_steps(input, &[1], &LIMITS));
    }
    agrees_with_the_oracle(input);
    streams_end_at_the_same_place(input, &steps);
});

/// Bytes without a line end: `\n` is looked for in inline commands, `\r` in headers.
fn longest_line(input: &[u8]) -> usize {
    let longest = |end: u8| input.split(|byte| *byte == end).map(<[u8]>::len).max().unwrap_or(0);
    longest(b'\r').max(longest(b'\n'))
}

/// What the oracle reads and would write again as it stood is well-formed.
fn agrees_with_the_oracle(input: &[u8]) {
    // It recurses.
    if input.iter().filter(|byte| **byte == b'*').count() > 64 {
        return;
    }
    let Ok(Some((OwnedFrame::Array(elements), bytes))) = decode(input) else {
        return;
    };
    let args: Option<Vec<Vec<u8>>> = elements
        .into_iter()
        .map(|element| match element {
            OwnedFrame::BulkString(bytes) => Some(bytes),
            _ => None,
        })
        .collect();
    let Some(args) = args.filter(|args| !args.is_empty()) else {
        return;
    };
    if OwnedRequest::new(&args).as_request().frame() == &input[..bytes] {
        let mut scanner = Scanner::default();
        assert_eq!(scanner.scan(input, &LIMITS), Ok(Scan::Request { len: bytes }));
        assert_eq!(in_steps::arguments(&input[..bytes], &scanner), args);
    }
}

/// A request that is passed on while it arrives ends where it ends when it is held; neither keeps more than its share.
fn streams_end_at_the_same_place(input: &[u8], steps: &[usize]) {
    let mut whole = Scanner::default();
    let scanned = whole.scan(input, &LIMITS);
    assert!(whole.spans().len() <= input.len() && whole.inline().len() <= 12 * input.len() + 16);
    let mut scanner = Scanner::default();
    let known = input.len().min(steps[0]);
    if scanner.scan(&input[..known], &LIMITS) != Ok(Scan::Incomplete) {
        return;
    }
    let Some(mut stream) = scanner.to_stream() else { return };
    let (mut start, mut end) = (0, known);
    for step in steps.iter().cycle() {
        match stream.pass(&input[start..end], &LIMITS) {
            Ok(Passed::End(bytes)) => {
                assert_eq!(scanned, Ok(Scan::Request { len: start + bytes }));
                return;
            }
            Ok(Passed::More(bytes)) => start += bytes,
            Err(error) => {
                assert!(longest_line(input) > LIMITS.inline_bytes_max || scanned == Err(error));
                return;
            }
        }
        if end == input.len() {
            assert_eq!(scanned, Ok(Scan::Incomplete));
            return;
        }
        end = input.len().min(end + step);
    }
}
