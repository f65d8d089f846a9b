//! MULTI … EXEC: neutral, one record, or refused as a whole.

use super::*;

#[test]
fn a_transaction_is_neutral_or_one_record_or_refused() {
    let (mut redis, proxy) = down();
    let mut client = proxy.client();
    let mut transaction = |commands: &[&str]| {
        check(&mut client, "MULTI", b"+OK\r\n");
        for line in commands {
            check(&mut client, line, b"+QUEUED\r\n");
        }
        client.call(&["EXEC"])
    };
    assert_eq!(transaction(&["GET a", "HGETALL h"]), b"*2\r\n$-1\r\n*0\r\n");
    assert_eq!(transaction(&["SET a 1", "RPUSH l x y"]), b"*2\r\n+OK\r\n:2\r\n");
    assert_eq!(proxy.backlog(), 1, "one record per transaction");
    for mixed in [["SET a 2", "GET a"].as_slice(), &["SET a 2", "INCR n"], &["INCR n"]] {
        let text = error_text(&transaction(mixed)).expect("mixed transactions are refused");
        assert!(text.starts_with("UNAVAILABLE "), "{text}");
    }
    check(&mut client, "MULTI", b"+OK\r\n");
    assert!(error_text(&client.call(&["SET", "a"])).is_some());
    assert!(error_text(&client.call(&["EXEC"])).unwrap().starts_with("EXECABORT"));
    check(&mut client, "MULTI", b"+OK\r\n");
    check(&mut client, "SET a 3", b"+QUEUED\r\n");
    check(&mut client, "DISCARD", b"+OK\r\n");
    assert_eq!(proxy.backlog(), 1);
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut redis.client(), "GET a", &bulk("1"));
    check(&mut redis.client(), "LLEN l", b":2\r\n");
    check(&mut redis.client(), "EXISTS n", b":0\r\n");
}

#[test]
fn a_transaction_begun_before_the_outage_is_not_applied_in_part() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    check(&mut client, "MULTI", b"+OK\r\n");
    check(&mut client, "SET cut 1", b"+QUEUED\r\n");
    redis.kill();
    await_down(&proxy);
    check(&mut client, "SET cut 2", b"+QUEUED\r\n");
    let text = error_text(&client.call(&["EXEC"])).expect("a cut transaction is refused");
    assert!(text.starts_with("UNAVAILABLE ") && !text.contains(UNCERTAIN), "{text}");
    check(&mut client, "SET after 1", b"+OK\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut redis.client(), "EXISTS cut", b":0\r\n");
    check(&mut redis.client(), "GET after", &bulk("1"));
}

#[test]
fn rules_hold_inside_a_transaction() {
    let rules = "[[upstream.rule]]\ncommands = [\"INCR\"]\nkeys = [\"stats:*\"]\nwhen_down = \"queue\"\nreply = \":1\"\n\
                 [[upstream.rule]]\nkeys = [\"lock:*\"]\nwhen_down = \"error\"\n";
    let (mut redis, proxy) = down_with(&Settings {
        more: rules.to_owned(),
        ..Settings::default()
    });
    let mut client = proxy.client();
    for line in ["MULTI", "SET a 1", "INCR stats:hits"] {
        client.call(&line.split(' ').collect::<Vec<_>>());
    }
    check(&mut client, "EXEC", b"*2\r\n+OK\r\n:1\r\n");
    for line in ["MULTI", "SET b 1", "SET lock:x 1"] {
        client.call(&line.split(' ').collect::<Vec<_>>());
    }
    assert!(
        error_text(&client.call(&["EXEC"]))
            .unwrap()
            .starts_with("UNAVAILABLE EXEC was not applied")
    );
    redis.restart();
    proxy.wait_for_recovery();
    check(
        &mut redis.client(),
        "MGET a stats:hits b lock:x",
        b"*4\r\n$1\r\n1\r\n$1\r\n1\r\n$-1\r\n$-1\r\n",
    );
}

#[test]
fn what_is_watched_or_selected_or_wrong_is_said_and_nothing_of_it_is_journaled() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut watching = proxy.client();
    check(&mut watching, "WATCH w", b"+OK\r\n");
    redis.kill();
    await_down(&proxy);
    let refused = |client: &mut Client, line: &str| {
        let text = error_text(&client.call(&line.split(' ').collect::<Vec<_>>())).expect(line);
        assert!(text.starts_with("UNAVAILABLE "), "{line}: {text}");
    };
    check(&mut watching, "MULTI", b"+OK\r\n");
    check(&mut watching, "SET w 1", b"+QUEUED\r\n");
    refused(&mut watching, "EXEC");
    let mut client = proxy.client();
    refused(&mut client, "WATCH w");
    check(&mut client, "EXEC", b"-ERR EXEC without MULTI\r\n");
    check(&mut client, "MULTI", b"+OK\r\n");
    check(&mut client, "MULTI", b"-ERR MULTI calls can not be nested\r\n");
    check(&mut client, "WATCH w", b"-ERR WATCH inside MULTI is not allowed\r\n");
    check(&mut client, "SELECT 3", b"+QUEUED\r\n");
    check(&mut client, "SET w 1", b"+QUEUED\r\n");
    refused(&mut client, "EXEC");
    let aborted = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
    for (wrong, said) in [
        ("SET w", "ERR wrong number of arguments for 'set' command"),
        ("GET", "ERR wrong number of arguments for 'get' command"),
    ] {
        check(&mut client, "MULTI", b"+OK\r\n");
        check(&mut client, wrong, format!("-{said}\r\n").as_bytes());
        check(&mut client, "SET w 1", b"+QUEUED\r\n");
        check(&mut client, "EXEC", aborted);
    }
    // What Redis refuses inside EXEC leaves the others as they are.
    check(&mut client, "MULTI", b"+OK\r\n");
    check(&mut client, "SET w 1 EX x", b"+QUEUED\r\n");
    check(&mut client, "SET v 1", b"+QUEUED\r\n");
    check(
        &mut client,
        "EXEC",
        b"*2\r\n-ERR value is not an integer or out of range\r\n+OK\r\n",
    );
    assert_eq!(proxy.backlog(), 1);
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut redis.client(), "EXISTS w", b":0\r\n");
    check(&mut redis.client(), "GET v", &bulk("1"));
}
