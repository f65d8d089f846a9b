//! Framing: where requests and replies end.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tideover::resp::{reply, scan, write};

use super::request;

/// Scans all requests in `input`, as a session does with what one read brought.
fn scan_requests(scanner: &mut scan::Scanner, input: &[u8], limits: &scan::Limits) -> usize {
    let mut at = 0;
    while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
        match scanner.scan(rest, limits) {
            Ok(scan::Scan::Request { len }) => at += len,
            other => panic!("not a request: {other:?}"),
        }
    }
    scanner.spans().len()
}

fn requests(bencher: Bencher<'_, '_>, line: &str, count: usize) {
    let input = request(line).as_request().frame().repeat(count);
    let limits = scan::Limits::default();
    let mut scanner = scan::Scanner::default();
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| scan_requests(&mut scanner, black_box(&input), &limits));
}

#[divan::bench]
fn request_get(bencher: Bencher<'_, '_>) {
    requests(bencher, "GET user:1000:profile", 1);
}

#[divan::bench]
fn request_pipeline_of_16_gets(bencher: Bencher<'_, '_>) {
    requests(bencher, "GET user:1000:profile", 16);
}

#[divan::bench]
fn request_mset_of_10(bencher: Bencher<'_, '_>) {
    let pairs: Vec<String> = (0..10)
        .map(|n| format!("user:{n}:name some-ordinary-value-{n}"))
        .collect();
    requests(bencher, &format!("MSET {}", pairs.join(" ")), 1);
}

/// The worst that a network can do.
#[divan::bench]
fn request_get_byte_by_byte(bencher: Bencher<'_, '_>) {
    let request = request("GET user:1000:profile");
    let input = request.as_request().frame();
    let limits = scan::Limits::default();
    let mut scanner = scan::Scanner::default();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        let mut found = scan::Scan::Incomplete;
        for arrived in 1..=input.len() {
            found = scanner.scan(black_box(&input[..arrived]), &limits).unwrap();
        }
        assert_eq!(found, scan::Scan::Request { len: input.len() });
    });
}

/// Scans all replies in `input`, which arrives in pieces of at most `piece` bytes.
fn scan_replies(scanner: &mut reply::Scanner, input: &[u8], piece: usize) -> usize {
    let (mut at, mut arrived, mut replies) = (0, 0, 0);
    while arrived < input.len() {
        arrived = (arrived + piece).min(input.len());
        while at < arrived {
            match scanner.scan(&input[at..arrived]).unwrap() {
                reply::Found::End { bytes, .. } => {
                    at += bytes;
                    replies += 1;
                }
                reply::Found::Part { bytes, .. } => {
                    at += bytes;
                    break;
                }
            }
        }
    }
    replies
}

fn replies(bencher: Bencher<'_, '_>, input: &[u8], count: usize, piece: usize) {
    let mut scanner = reply::Scanner::default();
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let found = scan_replies(&mut scanner, black_box(input), piece);
        assert_eq!(found, count);
    });
}

fn bulks(count: usize, bytes: usize) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..count {
        write::bulk(&mut input, &vec![b'v'; bytes]);
    }
    input
}

#[divan::bench]
fn reply_bulk_of_64_bytes(bencher: Bencher<'_, '_>) {
    replies(bencher, &bulks(1, 64), 1, usize::MAX);
}

#[divan::bench]
fn reply_pipeline_of_16_bulks(bencher: Bencher<'_, '_>) {
    replies(bencher, &bulks(16, 64), 16, usize::MAX);
}

#[divan::bench]
fn reply_array_of_100_bulks(bencher: Bencher<'_, '_>) {
    let mut input = Vec::new();
    write::array(&mut input, 100);
    input.extend(bulks(100, 16));
    replies(bencher, &input, 1, usize::MAX);
}

/// As a large value comes off a socket.
#[divan::bench]
fn reply_bulk_of_1_mib_in_reads_of_64_kib(bencher: Bencher<'_, '_>) {
    replies(bencher, &bulks(1, 1 << 20), 1, 64 << 10);
}
