//! What a client says and asks when it connects.

use super::*;

#[test]
fn a_client_can_connect_during_the_outage() {
    let (_gone, proxy) = down();
    for proto in ["2", "3"] {
        let mut client = proxy.client();
        let greeting = String::from_utf8(client.call(&["HELLO", proto, "SETNAME", "late"])).unwrap();
        assert!(
            greeting.contains("7.0.") && greeting.contains("standalone"),
            "{greeting}"
        );
        // Redis 7.0 does not know it, and said so of itself before it went.
        let unknown = b"-ERR unknown subcommand 'SETINFO'. Try CLIENT HELP.\r\n";
        check(&mut client, "CLIENT SETINFO LIB-NAME some", unknown);
        check(&mut client, "CLIENT GETNAME", &bulk("late"));
        check(&mut client, "SELECT 2", b"+OK\r\n");
        check(&mut client, "PING", b"+PONG\r\n");
        let info = String::from_utf8(client.call(&["INFO"])).unwrap();
        assert!(
            info.contains("redis_version:7.") && info.contains("role:master") && info.contains("loading:0"),
            "{info}"
        );
        assert!(client.call(&["CLIENT", "ID"]).starts_with(b":"));
        assert!(client.call(&["COMMAND", "COUNT"]).starts_with(b":"));
        assert!(
            error_text(&client.call(&["AUTH", "never-seen"])).is_some(),
            "no credentials pass unchecked"
        );
        assert!(error_text(&client.call(&["SELECT", "99"])).is_some());
    }
}

#[test]
fn credentials_that_redis_accepted_before_are_accepted_while_down() {
    let mut redis = RedisServer::start_with(
        Durability::AppendOnly,
        &["--user", "worker", "on", ">secret", "~*", "+@all"],
    );
    let proxy = Tideover::healthy(&redis);
    check(&mut proxy.client(), "AUTH worker secret", b"+OK\r\n");
    redis.kill();
    proxy.wait_for_mode("down", DEADLINE);
    let mut client = proxy.client();
    check(&mut client, "AUTH worker secret", b"+OK\r\n");
    check(&mut client, "SET as-worker 1", b"+OK\r\n");
    assert!(error_text(&proxy.client().call(&["AUTH", "worker", "wrong"])).is_some());
    assert!(error_text(&proxy.client().call(&["AUTH", "stranger", "secret"])).is_some());
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut redis.client(), "GET as-worker", &bulk("1"));
}

#[test]
fn a_session_that_owes_a_password_journals_nothing_also_after_a_restart() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    check(&mut redis.client(), "CONFIG SET requirepass secret", b"+OK\r\n");
    redis.add_options(&["--requirepass", "secret"]);
    let mut proxy = Tideover::healthy(&redis);
    let owed = b"-NOAUTH Authentication required.\r\n";
    check(&mut proxy.client(), "SET k 1", owed);
    let mut client = proxy.client();
    check(&mut client, "AUTH secret", b"+OK\r\n");
    check(&mut client, "SET k 2", b"+OK\r\n");
    redis.kill();
    proxy.wait_for_mode("down", DEADLINE);
    check(&mut proxy.client(), "SET k 3", owed);
    proxy.restart();
    proxy.wait_for_mode("down", DEADLINE);
    check(&mut proxy.client(), "SET k 4", owed);
    check(&mut proxy.client(), "RPUSH l 4", owed);
    let mut client = proxy.client();
    check(&mut client, "AUTH secret", b"+OK\r\n");
    check(&mut client, "SET k 5", b"+OK\r\n");
    assert_eq!(proxy.backlog(), 1);
    redis.launch();
    proxy.wait_for_recovery();
    check(&mut client, "GET k", &bulk("5"));
    check(&mut client, "EXISTS l", b":0\r\n");
}
