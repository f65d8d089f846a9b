//! While the upstream is down: neutral replies, and what becomes of writes.

use divan::{Bencher, black_box};
use tideover::command;
use tideover::outage::payload::{self, Origin};
use tideover::outage::write::{StreamIds, Write, WriteContext, write};
use tideover::outage::{Answer, answer};
use tideover::resp::{Protocol, Request};

use super::{WALL_MS, request};

const READS: &[&str] = &[
    "GET user:1000:profile",
    "HGETALL user:1000",
    "MGET a b c d e f g h i j",
    "XPENDING stream group",
];

/// One whose form stays, and those whose times become absolute.
const WRITES: &[&str] = &[
    "SET user:1000:profile some-ordinary-value",
    "SET user:1000:profile some-ordinary-value EX 60",
    "SETEX user:1000:profile 60 some-ordinary-value",
    "EXPIRE user:1000:profile 60",
    "HSET user:1000 name Ada role engine",
    "XADD stream * field value",
    // Refused: its reply decides something.
    "INCR counter",
];

const ORIGIN: Origin<'_> = Origin { db: 0, identity: b"" };

fn neutral(bencher: Bencher<'_, '_>, line: &str, protocol: Protocol) {
    let request = request(line);
    let spec = command::lookup(&request.as_request());
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        let answered = answer(spec, &black_box(&request).as_request(), protocol, "main", &mut out);
        assert_eq!(answered, Answer::Reply);
    });
}

#[divan::bench(args = READS)]
fn neutral_reply_resp2(bencher: Bencher<'_, '_>, line: &str) {
    neutral(bencher, line, Protocol::Resp2);
}

#[divan::bench(args = READS)]
fn neutral_reply_resp3(bencher: Bencher<'_, '_>, line: &str) {
    neutral(bencher, line, Protocol::Resp3);
}

fn become_effect<'a>(request: &Request<'a>, stream_ids: &mut StreamIds, out: &mut Vec<u8>) -> Write<'a> {
    let spec = command::lookup(request).unwrap();
    let mut context = WriteContext {
        protocol: Protocol::Resp2,
        upstream_name: "main",
        wall_ms: WALL_MS,
        stream_ids,
        accepted_ids: None,
    };
    write(spec, request, &mut context, out)
}

#[divan::bench(args = WRITES)]
fn write_becomes_effect(bencher: Bencher<'_, '_>, line: &str) {
    let request = request(line);
    let mut stream_ids = StreamIds::default();
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        let request = black_box(&request).as_request();
        drop(black_box(become_effect(&request, &mut stream_ids, &mut out)));
    });
}

#[divan::bench(args = &WRITES[..2])]
fn payload_encode(bencher: Bencher<'_, '_>, line: &str) {
    let request = request(line);
    let effect = match become_effect(&request.as_request(), &mut StreamIds::default(), &mut Vec::new()) {
        Write::Journal(effect) => effect,
        other => panic!("not journaled: {other:?}"),
    };
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        payload::encode(ORIGIN, std::slice::from_ref(black_box(&effect)), &mut out);
    });
}

/// As replay does: checked, and rendered with its deadline.
#[divan::bench(args = &WRITES[..2])]
fn payload_decode_and_render(bencher: Bencher<'_, '_>, line: &str) {
    let bytes = payload_of(line);
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        payload::decode(black_box(&bytes))
            .unwrap()
            .render(1_000, WALL_MS as i64, &mut out);
    });
}

/// What the journal keeps of a write.
pub(super) fn payload_of(line: &str) -> Vec<u8> {
    let request = request(line);
    let mut out = Vec::new();
    match become_effect(&request.as_request(), &mut StreamIds::default(), &mut Vec::new()) {
        Write::Journal(effect) => payload::encode(ORIGIN, &[effect], &mut out),
        other => panic!("not journaled: {other:?}"),
    }
    out
}
