//! The table: a request's row, its keys, and where it goes.

use divan::{Bencher, black_box};
use tideover::command;

use super::request;

/// Common ones, one with a subcommand, one of the longest names; last, one that is not in the table.
const LINES: &[&str] = &[
    "GET user:1000:profile",
    "set user:1000:profile value EX 60",
    "MSET a 1 b 2 c 3 d 4 e 5 f 6 g 7 h 8 i 9 j 10",
    "CLIENT SETINFO LIB-NAME name",
    "GEORADIUSBYMEMBER_RO places here 10 km",
    "XREADGROUP GROUP group consumer COUNT 10 STREAMS one two > >",
    "JSON.GET document $",
];

#[divan::bench(args = LINES)]
fn lookup(bencher: Bencher<'_, '_>, line: &str) {
    let request = request(line);
    bencher.bench_local(|| command::lookup(&black_box(&request).as_request()));
}

#[divan::bench(args = &LINES[..LINES.len() - 1])]
fn keys(bencher: Bencher<'_, '_>, line: &str) {
    let request = request(line);
    let spec = command::lookup(&request.as_request()).unwrap();
    bencher.bench_local(|| {
        let mut bytes = 0;
        command::for_each_key(spec, &black_box(&request).as_request(), |key| bytes += key.len());
        bytes
    });
}

/// What a session asks of the table for every request that it forwards.
#[divan::bench(args = LINES)]
fn placement_and_in_flight(bencher: Bencher<'_, '_>, line: &str) {
    let request = request(line);
    let spec = command::lookup(&request.as_request());
    bencher.bench_local(|| {
        let request = black_box(&request).as_request();
        (command::placement(spec, &request), command::in_flight(spec, &request))
    });
}
