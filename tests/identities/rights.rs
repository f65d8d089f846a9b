//! Users who may not use MULTI or the marker, and users without dangerous commands.

use serde_json::json;

use super::support::{
    DEADLINE, Durability, RedisServer, Settings, Tideover, bulk, check, error_text, shown, wait_until,
};
use super::{OK, as_user, redis, start_with_users, take_down};

fn without_rights(how: &str) -> RedisServer {
    let users = format!("user carol on >pw +@all ~* &* {how}\nuser default on nopass +@all ~* &*\n");
    start_with_users(RedisServer::absent(Durability::AppendOnly), &users)
}

#[test]
fn a_user_who_may_not_use_the_marker_journals_absolute_writes_only() {
    for how in ["-multi", "resetkeys ~k* ~l*", "-watch"] {
        let mut redis = without_rights(how);
        let proxy = Tideover::healthy(&redis);
        let mut carol = as_user(&proxy, "carol", "pw");
        check(&mut carol, "RPUSH l 0", b":1\r\n");
        wait_until(DEADLINE, "it is said", || {
            proxy.status()["identities_without_replay_rights"] == json!(["carol"])
        });
        check(&mut redis.client(), "ACL LOG", b"*0\r\n");
        check(
            &mut redis.client(),
            "GET l",
            b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        );
        check(&mut redis.client(), "DBSIZE", b":1\r\n");
        take_down(&mut redis, &proxy);
        let reply = carol.call(&["RPUSH", "l", "1"]);
        let text = error_text(&reply).unwrap_or_else(|| panic!("{}", shown(&reply)));
        assert_eq!(
            text,
            "UNAVAILABLE RPUSH was not applied: upstream \"main\" is down and this user has no right to MULTI or the marker"
        );
        check(&mut carol, "SET k 1", OK);
        let mut url = proxy.client();
        check(&mut url, "RPUSH url 0", b":1\r\n");
        redis.restart();
        proxy.wait_for_recovery();
        check(&mut carol, "GET k", &bulk("1"));
        check(&mut url, "LLEN l", b":1\r\n");
        check(&mut url, "LLEN url", b":1\r\n");
        assert_eq!(proxy.dead_letters(), 0);
    }
}

#[test]
fn rights_that_are_given_count_for_who_authenticates_after_that_and_nobody_is_tested_often() {
    let redis = without_rights("-multi");
    let proxy = Tideover::healthy(&redis);
    let without = || proxy.status()["identities_without_replay_rights"].clone();
    let mut carol = as_user(&proxy, "carol", "pw");
    check(&mut carol, "RPUSH l 0", b":1\r\n");
    wait_until(DEADLINE, "it is said", || without() == json!(["carol"]));
    let mut root = redis.client();
    check(&mut root, "ACL LOG RESET", OK);
    // Each database has lanes of its own.
    for db in 1..8 {
        check(&mut carol, &format!("SELECT {db}"), OK);
        check(&mut carol, "SET k 1", OK);
    }
    check(&mut root, "ACL LOG", b"*0\r\n");
    check(&mut root, "ACL SETUSER carol +multi", OK);
    as_user(&proxy, "carol", "pw");
    wait_until(DEADLINE, "she is tested again", || without() == json!([]));
}

#[test]
fn who_may_not_be_asked_about_tries() {
    let users = "user carol on >pw +@all ~* &* -multi\nuser plain on >pw +@all -acl ~* &*\nuser default off\n";
    let redis = start_with_users(RedisServer::absent(Durability::AppendOnly), users);
    let settings = Settings {
        url: Some(format!("redis://plain:pw@{}", redis.address())),
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    check(&mut proxy.client(), "SET k 1", OK);
    check(&mut as_user(&proxy, "carol", "pw"), "SET k 2", OK);
    wait_until(DEADLINE, "it is said", || {
        proxy.status()["identities_without_replay_rights"] == json!(["carol"])
    });
}

#[test]
fn a_right_that_is_withdrawn_in_the_outage_halts_nobody() {
    let mut redis = redis();
    let proxy = Tideover::healthy(&redis);
    let mut bob = as_user(&proxy, "bob", "word");
    let mut url = proxy.client();
    take_down(&mut redis, &proxy);
    check(&mut bob, "RPUSH l 0", b":1\r\n");
    check(&mut bob, "SET k 1", OK);
    check(&mut url, "RPUSH url 0", b":1\r\n");
    let file = redis.dir().join("users.acl");
    let users = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, users.replace(">word +@all", ">word +@all -multi")).unwrap();
    redis.restart();
    proxy.wait_for_recovery();
    assert_eq!(proxy.dead_letters(), 1);
    check(&mut url, "LLEN url", b":1\r\n");
    check(&mut url, "GET k", &bulk("1"));
    let listed = proxy.run_cli(&["dead-letters", "list"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(text.contains("no_permission"), "{text}");
    assert_eq!(proxy.status()["identities_without_replay_rights"], json!(["bob"]));
}

#[test]
fn a_user_who_may_not_select_a_database_halts_nobody() {
    let mut redis = redis();
    let proxy = Tideover::healthy(&redis);
    let mut bob = as_user(&proxy, "bob", "word");
    take_down(&mut redis, &proxy);
    check(&mut bob, "SELECT 3", OK);
    check(&mut bob, "SET k 1", OK);
    let mut url = proxy.client();
    check(&mut url, "SET u 1", OK);
    let file = redis.dir().join("users.acl");
    let users = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, users.replace(">word +@all", ">word +@all -select")).unwrap();
    redis.restart();
    proxy.wait_for_recovery();
    assert_eq!(proxy.dead_letters(), 1);
    check(&mut url, "GET u", &bulk("1"));
}

#[test]
fn without_dangerous_commands_an_outage_ends_like_any_other() {
    let users = "user plain on >pw +@all -@dangerous ~* &*\nuser default off\nuser root on >root +@all ~* &*\n";
    let mut redis = start_with_users(RedisServer::absent(Durability::AppendOnly), users);
    let settings = Settings {
        url: Some(format!("redis://plain:pw@{}", redis.address())),
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let mut client = proxy.client();
    check(&mut client, "RPUSH l 0", b":1\r\n");
    take_down(&mut redis, &proxy);
    check(&mut client, "RPUSH l 1", b":1\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    check(&mut client, "LLEN l", b":2\r\n");
    // Frozen: bytes of before must run before replay, or never.
    redis.stop();
    let mut other = proxy.client();
    other.send(&["RPUSH", "l", "frozen"]);
    proxy.wait_for_mode("down", DEADLINE);
    check(&mut client, "RPUSH l 2", b":1\r\n");
    redis.cont();
    proxy.wait_for_recovery();
    assert_eq!(proxy.status()["fence"], json!("proven"));
    let reply = client.call(&["LRANGE", "l", "-1", "-1"]);
    assert_eq!(super::array(&reply), ["2"]);
}
