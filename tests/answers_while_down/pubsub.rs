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
    proxy.wait_for_mode("down", DEADLINE);
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
