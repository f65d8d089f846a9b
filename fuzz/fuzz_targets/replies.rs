//! What an upstream may send: no panic, the same frames for every split, those of `redis-protocol`, no memory at all.
#![no_main]

#[path = "../../src/resp/in_steps.rs"]
#[allow(dead_code, reason = "the part for requests")]
mod in_steps;

use libfuzzer_sys::fuzz_target;
use redis_protocol::resp2;
use redis_protocol::resp3;
use tideover::resp::{Request, reply, scan};

use in_steps::replies_in_steps;
use reply::{Found, Scanner};

fuzz_target!(|data: &[u8]| {
    assert!(!std::mem::needs_drop::<Scanner>());
    let Some((steps, input)) = data.split_at_checked(4) else {
        return;
    };
    let steps: Vec<usize> = steps.iter().map(|step| usize::from(*step) + 1).collect();
    let seen = replies_in_steps(input, &steps);
    assert_eq!(seen, replies_in_steps(input, &[input.len().max(1)]));
    assert_eq!(seen, replies_in_steps(input, &[1]));
    // The oracles recurse, take memory for what is announced, let a lone carriage return stand in a line, and know the pieces of streams.
    let is_nested = input.iter().filter(|byte| b"*~%>|".contains(byte)).count() > 64;
    let is_huge = input
        .split(|byte| !byte.is_ascii_digit())
        .any(|digits| digits.len() > 4);
    let is_odd = input.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n');
    let is_streamed = input
        .split(|byte| *byte == b'\n')
        .any(|line| line.starts_with(b";") || line.starts_with(b"."));
    if is_nested || is_huge || is_odd || is_streamed {
        return;
    }
    for bytes in [well_formed_resp2(input), well_formed_resp3(input)]
        .into_iter()
        .flatten()
    {
        match Scanner::default().scan(input) {
            Ok(Found::End { bytes: ours, .. }) => assert_eq!(ours, bytes),
            other => panic!("the oracle finds {bytes} bytes, we {other:?}"),
        }
    }
});

/// The length of what the oracle reads and writes again as it stood.
fn well_formed_resp2(input: &[u8]) -> Option<usize> {
    let (frame, bytes) = resp2::decode::decode(input).ok()??;
    let mut again = vec![0; 2 * bytes + 64];
    let written = resp2::encode::encode(&mut again, &frame, false).ok()?;
    (again[..written] == input[..bytes]).then_some(bytes)
}

fn well_formed_resp3(input: &[u8]) -> Option<usize> {
    let (frame, bytes) = resp3::decode::complete::decode(input).ok()??;
    let mut again = vec![0; 2 * bytes + 64];
    let written = resp3::encode::complete::encode(&mut again, &frame, false).ok()?;
    (again[..written] == input[..bytes]).then_some(bytes)
}
