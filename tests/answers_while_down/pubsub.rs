//! Subscriptions outlive the outage, and can be made while it lasts.

use super::*;

#[test]
fn subscribers_stay_connected_and_are_subscribed_again() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut before = proxy.client();
    check(
        &mut before,
        "SUBSCRIBE channel",
        b"*3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n",
    );
    redis.kill();
    await_down(&proxy);
    let mut during = proxy.client().hello3();
    check(
        &mut during,
        "SUBSCRIBE channel",
        b">3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n",
    );
    check(&mut proxy.client(), "PUBLISH channel lost", b":0\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    let mut direct = redis.client();
    support::wait_until(DEADLINE, "both are subscribed again", || {
        direct.call(&["PUBSUB", "NUMSUB", "channel"]).ends_with(b":2\r\n")
    });
    check(&mut direct, "PUBLISH channel hello", b":2\r\n");
    assert_eq!(
        before.reply(),
        b"*3\r\n$7\r\nmessage\r\n$7\r\nchannel\r\n$5\r\nhello\r\n"
    );
    assert_eq!(
        during.reply(),
        b">3\r\n$7\r\nmessage\r\n$7\r\nchannel\r\n$5\r\nhello\r\n"
    );
}

/// All three kinds, before and during the outage, in both protocols; what was given up while down is not subscribed to again.
#[test]
fn each_kind_of_subscription_is_made_and_given_up_while_down() {
    for (connect, push) in [((|client| client) as fn(Client) -> Client, '*'), (Client::hello3, '>')] {
        let mut redis = RedisServer::start(Durability::AppendOnly);
        let proxy = Tideover::healthy(&redis);
        let mut before = connect(proxy.client());
        let said = |word: &str, name: &str, count: usize| {
            let (word_bytes, name_bytes) = (word.len(), name.len());
            format!("{push}3\r\n${word_bytes}\r\n{word}\r\n${name_bytes}\r\n{name}\r\n:{count}\r\n")
        };
        for (line, word, name, count) in [
            ("SUBSCRIBE kept", "subscribe", "kept", 1),
            ("SUBSCRIBE dropped", "subscribe", "dropped", 2),
            ("PSUBSCRIBE pattern:*", "psubscribe", "pattern:*", 3),
            ("SSUBSCRIBE shard", "ssubscribe", "shard", 1),
        ] {
            check(&mut before, line, said(word, name, count).as_bytes());
        }
        redis.kill();
        await_down(&proxy);
        check(
            &mut before,
            "UNSUBSCRIBE dropped",
            said("unsubscribe", "dropped", 2).as_bytes(),
        );
        check(
            &mut before,
            "PSUBSCRIBE late:*",
            said("psubscribe", "late:*", 3).as_bytes(),
        );
        let pong: &[u8] = if push == '*' {
            b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
        } else {
            b"+PONG\r\n"
        };
        check(&mut before, "PING", pong);
        let mut left = connect(proxy.client());
        check(&mut left, "SSUBSCRIBE given", said("ssubscribe", "given", 1).as_bytes());
        check(&mut left, "SUNSUBSCRIBE", said("sunsubscribe", "given", 0).as_bytes());
        check(&mut left, "GET k", if push == '*' { b"$-1\r\n" } else { b"_\r\n" });
        redis.restart();
        proxy.wait_for_recovery();
        let mut direct = redis.client();
        support::wait_until(DEADLINE, "subscribed again", || {
            direct.call(&["PUBSUB", "NUMPAT"]) == b":2\r\n"
                && direct.call(&["PUBSUB", "SHARDNUMSUB", "shard"]).ends_with(b":1\r\n")
        });
        for (line, receivers) in [
            ("PUBLISH dropped no", 0),
            ("SPUBLISH given no", 0),
            ("PUBLISH kept a", 1),
            ("PUBLISH pattern:x b", 1),
            ("PUBLISH late:x c", 1),
            ("SPUBLISH shard d", 1),
        ] {
            check(&mut direct, line, format!(":{receivers}\r\n").as_bytes());
        }
        for word in ["$1\r\na\r\n", "$1\r\nb\r\n", "$1\r\nc\r\n", "$1\r\nd\r\n"] {
            let message = before.reply();
            assert!(message.ends_with(word.as_bytes()), "{} is not {word}", shown(&message));
        }
    }
}

/// What Redis has not confirmed is confirmed here, in order, and made with all the others.
#[test]
fn subscriptions_caught_in_flight_are_confirmed_in_order_and_made_once_it_is_back() {
    for (connect, push) in [((|client| client) as fn(Client) -> Client, '*'), (Client::hello3, '>')] {
        let mut redis = RedisServer::start(Durability::AppendOnly);
        let proxy = Tideover::healthy(&redis);
        let mut client = connect(proxy.client());
        client.call(&["SUBSCRIBE", "a"]);
        redis.stop();
        for line in [
            "SUBSCRIBE b c",
            "PSUBSCRIBE p*",
            "UNSUBSCRIBE c x",
            "UNSUBSCRIBE",
            "SSUBSCRIBE s",
            "SUBSCRIBE d",
            "PUNSUBSCRIBE q*",
        ] {
            client.send(&line.split(' ').collect::<Vec<_>>());
        }
        redis.kill();
        for (word, name, count) in [
            ("subscribe", "b", 2),
            ("subscribe", "c", 3),
            ("psubscribe", "p*", 4),
            ("unsubscribe", "c", 3),
            ("unsubscribe", "x", 3),
            ("unsubscribe", "a", 2),
            ("unsubscribe", "b", 1),
            ("ssubscribe", "s", 1),
            ("subscribe", "d", 2),
            ("punsubscribe", "q*", 2),
        ] {
            let (word_bytes, name_bytes) = (word.len(), name.len());
            let expected = format!("{push}3\r\n${word_bytes}\r\n{word}\r\n${name_bytes}\r\n{name}\r\n:{count}\r\n");
            assert_eq!(shown(&client.reply()), shown(expected.as_bytes()));
        }
        redis.restart();
        proxy.wait_for_recovery();
        let mut direct = redis.client();
        support::wait_until(DEADLINE, "subscribed again", || {
            direct.call(&["PUBSUB", "NUMPAT"]) == b":1\r\n"
                && direct.call(&["PUBSUB", "CHANNELS"]) == b"*1\r\n$1\r\nd\r\n"
                && direct.call(&["PUBSUB", "SHARDCHANNELS"]) == b"*1\r\n$1\r\ns\r\n"
        });
        check(&mut direct, "PUBLISH p1 m", b":1\r\n");
        assert!(client.reply().ends_with(b"$2\r\np1\r\n$1\r\nm\r\n"));
    }
}
