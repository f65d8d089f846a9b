//! Bytes in every shape: inline, split, malformed, big, unread, cut off; and the neighbours never notice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::time::{Duration, Instant};

use support::pair::{Pair, assert_same};
use support::{
    Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, bulk, command, integer, wait_until,
};

#[test]
fn inline_commands_get_the_same_replies() {
    let pair = Pair::start();
    for input in [
        "PING\r\n",
        "PING\n",
        "\r\n\r\nPING\r\n",
        "SET inline \"two words\\x41\\n\"\r\nGET inline\r\n",
        "SET inline 'single quoted'\r\nGET inline\r\n",
        "get\tinline\r\nGET  inline  \r\n",
        "EVAL \"return {1,2}\" 0\r\nPING\r\n",
        "MULTI\r\nSET inline 1\r\nEXEC\r\n",
        "*0\r\n*-1\r\nPING\r\n",
        "$5\r\nworld\r\n",
        "PING\r\n*1\r\n$4\r\nPING\r\nPING\r\n",
    ] {
        pair.check(input, |connect| all_of(&connect, input.as_bytes()));
    }
}

#[test]
fn requests_split_into_single_bytes_are_understood() {
    let pair = Pair::start();
    pair.check("one byte per write", |connect| {
        let mut client = connect();
        let mut input = command(&["SET", "split", "a value\r\nwith a line end"]);
        input.extend(command(&["GET", "split"]));
        input.extend(b"PING inline\r\n");
        input.extend(command(&["MULTI"]));
        input.extend(command(&["LRANGE", "split", "0", "-1"]));
        input.extend(command(&["EXEC"]));
        for byte in input {
            client.send_raw(&[byte]);
        }
        (0..6).flat_map(|_| client.reply()).collect()
    });
}

#[test]
fn malformed_input_gets_the_bytes_and_the_closing_that_redis_gives() {
    let pair = Pair::start();
    let mut neighbour = pair.proxy.client();
    assert_eq!(neighbour.call(&["SET", "neighbour", "1"]), b"+OK\r\n");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a billion arguments", b"*1000000000\r\n$4\r\nPING\r\n".to_vec()),
        ("too many arguments", b"*2147483648\r\n".to_vec()),
        ("arguments that are no number", b"*abc\r\n".to_vec()),
        ("a negative bulk", b"*1\r\n$-5\r\n".to_vec()),
        ("a null bulk", b"*2\r\n$3\r\nGET\r\n$-1\r\n".to_vec()),
        ("a bulk over the limit", b"*1\r\n$536870913\r\n".to_vec()),
        ("a bulk that is no number", b"*1\r\n$x\r\n".to_vec()),
        ("nested arrays", b"*1\r\n".repeat(10_000)),
        ("unbalanced quotes", b"GET \"unbalanced\r\n".to_vec()),
        ("quotes in the middle", b"GET \"a\"b\r\n".to_vec()),
        ("HTTP", b"POST / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec()),
        (
            "HTTP's header alone",
            b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec(),
        ),
        ("an endless line", vec![b'a'; 70_000]),
        ("an endless count", [b"*".as_slice(), &vec![b'1'; 70_000]].concat()),
        (
            "a good command first",
            [command(&["PING"]), b"*1\r\n$-5\r\n".to_vec()].concat(),
        ),
        ("half a command", b"*2\r\n$3\r\nGET\r\n$10\r\nabc".to_vec()),
        ("binary noise", (0..=255_u8).cycle().take(1000).collect()),
        (
            "in the middle of MULTI",
            [
                command(&["MULTI"]),
                command(&["SET", "m", "1"]),
                b"*1\r\n!\r\n".to_vec(),
            ]
            .concat(),
        ),
    ];
    for (what, input) in cases {
        pair.check(what, |connect| all_of(&connect, &input));
        assert_eq!(neighbour.call(&["GET", "neighbour"]), b"$1\r\n1\r\n", "after {what}");
    }
}

#[test]
fn redis_closes_after_a_protocol_error_and_so_do_we() {
    let pair = Pair::start();
    for input in [
        "*1\r\n$-5\r\n",
        "POST / HTTP/1.1\r\n",
        "QUIT\r\n",
        "PING\r\nQUIT\r\nPING\r\n",
    ] {
        pair.check(input, |connect| {
            let mut client = connect();
            client.send_raw(input.as_bytes());
            client.until_closed()
        });
    }
}

#[test]
fn big_values_pass_unchanged() {
    let pair = Pair::start();
    let mut neighbour = pair.proxy.client();
    for size in [65_535, 65_536, 65_537, 1_000_000, 20_000_000] {
        let value: Vec<u8> = (0..=255_u8).cycle().take(size).collect();
        pair.check(&format!("a value of {size} bytes"), |dial| {
            let mut client = dial();
            client.send(&[b"SET".as_slice(), b"big", &value]);
            client.send(&["GET", "big"]);
            client.send(&["PING"]);
            let mut replies = client.reply();
            replies.extend(client.reply());
            replies.extend(client.reply());
            assert!(
                replies.ends_with(&[bulk(&value), b"+PONG\r\n".to_vec()].concat()),
                "the value came back changed"
            );
            replies
        });
        assert_eq!(neighbour.call(&["PING"]), b"+PONG\r\n");
    }
}

#[test]
fn a_client_that_does_not_read_hurts_nobody() {
    const BIG: usize = 100_000;
    let pair = Pair::start();
    let mut neighbour = pair.proxy.client();
    neighbour.call(&["SET", "big", &"x".repeat(BIG)]);
    let mut slow = pair.proxy.client();
    for _ in 0..40 {
        slow.send(&["GET", "big"]);
    }
    let mut never = pair.proxy.client();
    for _ in 0..2_000 {
        never.send(&["GET", "big"]);
    }
    neighbour.set_timeout(Duration::from_secs(5));
    for number in 0..500 {
        assert_eq!(neighbour.call(&["ECHO", &number.to_string()]), bulk(number.to_string()));
    }
    for _ in 0..40 {
        assert_eq!(slow.reply().len(), bulk("x".repeat(BIG)).len());
    }
    assert_eq!(slow.call(&["PING"]), b"+PONG\r\n");
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_something_leaves_no_trace() {
    let pair = Pair::start();
    let mut other = pair.proxy.client();
    let beginnings: Vec<(&str, Vec<u8>)> = vec![
        ("MULTI", [command(&["MULTI"]), command(&["SET", "trace", "1"])].concat()),
        ("SELECT", [command(&["SELECT", "5"]), command(&["MULTI"])].concat()),
        ("WATCH", command(&["WATCH", "trace"])),
        (
            "half a command",
            b"*3\r\n$3\r\nSET\r\n$5\r\ntrace\r\n$10\r\n12".to_vec(),
        ),
        (
            "half a big command",
            [
                b"*3\r\n$3\r\nSET\r\n$5\r\ntrace\r\n$1000000\r\n".as_slice(),
                &[b'x'; 200_000],
            ]
            .concat(),
        ),
        ("BLPOP", command(&["BLPOP", "queue", "0"])),
        ("SUBSCRIBE", command(&["SUBSCRIBE", "trace"])),
    ];
    for (what, beginning) in beginnings {
        for _ in 0..3 {
            let mut vanishing = pair.proxy.client();
            vanishing.send_raw(&[command(&["PING"]), beginning.clone()].concat());
            assert_eq!(vanishing.reply(), b"+PONG\r\n");
        }
        assert_eq!(other.call(&["GET", "trace"]), b"$-1\r\n", "after {what}");
    }
    support::wait_for_blocked(&mut other, 0, support::DEADLINE);
    support::wait_until(support::DEADLINE, "no subscriber left", || {
        integer(&other.call(&["PUBLISH", "trace", "x"])) == 0
    });
    assert_eq!(
        integer(&other.call(&["RPUSH", "queue", "job"])),
        1,
        "nobody steals the job"
    );
    assert_eq!(array(&other.call(&["LRANGE", "queue", "0", "-1"])), ["job"]);
}

#[test]
fn ten_thousand_pipelined_commands_keep_their_order() {
    const COMMANDS: usize = 10_000;
    let pair = Pair::start();
    let mut client = pair.proxy.client();
    let mut input = Vec::new();
    let mut expected = Vec::new();
    for number in 0..COMMANDS {
        let text = number.to_string();
        let (request, reply) = match number % 100 {
            // Kinds that may take another way than the shared connection.
            17 => (command(&["EVAL", "return ARGV[1]", "0", &text]), bulk(&text)),
            42 => (
                command(&["BLPOP", &format!("empty{text}"), "0.001"]),
                b"*-1\r\n".to_vec(),
            ),
            58 => (command(&["SELECT", &(number % 7).to_string()]), b"+OK\r\n".to_vec()),
            73 => (
                command(&["ECHO", &"y".repeat(70_000 + number)]),
                bulk("y".repeat(70_000 + number)),
            ),
            _ => (command(&["ECHO", &text]), bulk(&text)),
        };
        input.extend(request);
        expected.push(reply);
    }
    let mut sender = client.sender();
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut sender, &input).unwrap());
    for (number, expected) in expected.iter().enumerate() {
        assert_same(&format!("command {number}"), expected, &client.reply());
    }
    sending.join().unwrap();
}

/// Sends, half-closes, and reads to the end, as `printf … | nc` does.
fn all_of(connect: &&dyn Fn() -> Client, input: &[u8]) -> Vec<u8> {
    let mut client = connect();
    client.send_raw(input);
    client.finish_sending();
    client.until_closed()
}

#[test]
fn a_client_that_is_idle_for_too_long_is_closed_unless_it_waits_for_something() {
    let redis = RedisServer::start(Durability::Memory);
    let settings = Settings {
        more: "[limits]\nidle_timeout = \"1s\"".to_owned(),
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let (mut idle, mut blocked, mut subscriber) = (proxy.client(), proxy.client(), proxy.client());
    blocked.send(&["BLPOP", "list", "0"]);
    subscriber.call(&["SUBSCRIBE", "channel"]);
    let begin = Instant::now();
    idle.call(&["PING"]);
    assert_eq!(idle.until_closed(), b"");
    assert!(begin.elapsed() >= Duration::from_secs(1));
    let mut active = proxy.client();
    wait_until(DEADLINE, "three times as long", || {
        assert_eq!(active.call(&["PING"]), b"+PONG\r\n");
        begin.elapsed() > Duration::from_secs(3)
    });
    active.call(&["PUBLISH", "channel", "message"]);
    active.call(&["RPUSH", "list", "element"]);
    assert_eq!(array(&subscriber.reply()), ["message", "channel", "message"]);
    assert_eq!(array(&blocked.reply()), ["list", "element"]);
}
