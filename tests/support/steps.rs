//! Steps that many stories take.

use std::ops::Range;

use super::{Client, DEADLINE, Tideover, command, integer, shown, wait_until};

/// Sends the words of a line, and expects this reply.
#[track_caller]
pub fn check(client: &mut Client, line: &str, expected: &[u8]) {
    let args: Vec<&str> = line.split_whitespace().collect();
    let reply = client.call(&args);
    assert!(
        reply == expected,
        "{line}\n  expected {}\n  answered {}",
        shown(expected),
        shown(&reply)
    );
}

pub fn numbers(range: Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Pushes the numbers to the list `l`; every one must be acknowledged.
#[track_caller]
pub fn push(client: &mut Client, range: Range<usize>) {
    let pipeline: Vec<u8> = numbers(range.clone())
        .iter()
        .flat_map(|number| command(&["RPUSH", "l", number]))
        .collect();
    client.send_raw(&pipeline);
    for number in range {
        let reply = client.reply();
        assert!(integer(&reply) > 0, "{number} was not acknowledged");
    }
}

/// Asks until tideover knows that Redis is gone: an idle upstream is looked at once a second only.
#[track_caller]
pub fn await_down(proxy: &Tideover) {
    let mut client = proxy.client();
    wait_until(DEADLINE, "mode down", || {
        client.call(&["GET", "absent"]);
        matches!(proxy.mode().as_str(), "down" | "probing")
    });
}
