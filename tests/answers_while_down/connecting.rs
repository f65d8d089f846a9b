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
fn after_a_restart_during_the_outage_redis_is_what_it_last_said() {
    let mut redis = RedisServer::start_with(Durability::Memory, &["--databases", "32"]);
    let version = String::from_utf8(redis.client().call(&["INFO", "server"])).unwrap();
    let version = version.lines().find(|line| line.starts_with("redis_version:")).unwrap();
    let mut proxy = Tideover::healthy(&redis);
    redis.kill();
    proxy.restart();
    proxy.wait_for_mode("down", DEADLINE);
    let mut client = proxy.client();
    let info = String::from_utf8(client.call(&["INFO"])).unwrap();
    assert!(info.lines().any(|line| line == version), "{info}");
    let greeting = String::from_utf8(client.call(&["HELLO", "3"])).unwrap();
    let (_, number) = version.split_once(':').unwrap();
    assert!(greeting.contains(&format!("\r\n{number}\r\n")), "{greeting}");
    check(&mut client, "SELECT 31", b"+OK\r\n");
    assert!(error_text(&client.call(&["SELECT", "32"])).is_some());
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
    await_down(&proxy);
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
    await_down(&proxy);
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

/// What client libraries ask when they connect, of a tideover that has been in touch with Redis and of one that never was.
#[test]
fn what_a_library_asks_at_connect_is_answered_or_refused_in_so_many_words() {
    let (_gone, seen) = down();
    let absent = RedisServer::absent(Durability::AppendOnly);
    let never = Tideover::start_with(&absent, &Settings::default());
    never.wait_for_mode("down", DEADLINE);
    let disabled = b"-ERR This instance has cluster support disabled\r\n".as_slice();
    for proxy in [&seen, &never] {
        for connect in [(|client| client) as fn(Client) -> Client, Client::hello3] {
            let mut client = connect(proxy.client());
            for (line, expected) in [
                ("CLIENT SETNAME app", b"+OK\r\n".as_slice()),
                ("CLIENT GETNAME", b"$3\r\napp\r\n"),
                ("CLIENT NO-EVICT ON", b"+OK\r\n"),
                ("CLIENT NO-TOUCH ON", b"+OK\r\n"),
                ("SELECT 1", b"+OK\r\n"),
                ("PING", b"+PONG\r\n"),
                ("ACL WHOAMI", b"$7\r\ndefault\r\n"),
                ("CLUSTER INFO", disabled),
                ("CLUSTER SLOTS", disabled),
                ("CLUSTER SHARDS", disabled),
                ("CLUSTER NODES", disabled),
                ("READONLY", disabled),
                ("SCRIPT EXISTS ffff", b"*1\r\n:0\r\n"),
                ("ROLE", b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
            ] {
                check(&mut client, line, expected);
            }
            for (line, first) in [
                ("CLIENT ID", b':'),
                ("COMMAND", b'*'),
                ("COMMAND COUNT", b':'),
                ("COMMAND LIST", b'*'),
                ("COMMAND INFO get set", b'*'),
                ("TIME", b'*'),
            ] {
                let reply = client.call(&line.split(' ').collect::<Vec<_>>());
                assert_eq!(reply[0], first, "{line}: {}", shown(&reply));
            }
            for section in [["INFO"].as_slice(), &["INFO", "server"], &["INFO", "everything"]] {
                let info = String::from_utf8(client.call(section)).unwrap();
                for field in [
                    "redis_version:",
                    "redis_mode:standalone",
                    "loading:0",
                    "role:master",
                    "cluster_enabled:0",
                ] {
                    assert!(info.contains(field), "{section:?} lacks {field}: {info}");
                }
            }
            let databases = String::from_utf8(client.call(&["CONFIG", "GET", "databases"])).unwrap();
            assert!(databases.ends_with("$9\r\ndatabases\r\n$2\r\n16\r\n"), "{databases}");
            // They would tell of a server that is not there, or change it.
            for line in [
                "SCRIPT LOAD return",
                "SCRIPT FLUSH",
                "FUNCTION LIST",
                "FUNCTION STATS",
                "SENTINEL MASTERS",
                "LOLWUT",
                "CONFIG SET maxmemory 1",
                "MONITOR",
                "DEBUG SLEEP 0",
            ] {
                let text = error_text(&client.call(&line.split(' ').collect::<Vec<_>>())).expect(line);
                assert!(text.starts_with("UNAVAILABLE "), "{line}: {text}");
            }
        }
    }
}

#[test]
fn only_credentials_that_redis_accepted_last_let_a_session_journal() {
    let mut redis = RedisServer::start_with(
        Durability::AppendOnly,
        &[
            "--user", "worker", "on", ">old", "~*", "+@all", "--user", "default", "off",
        ],
    );
    let mut proxy = Tideover::start_with(&redis, &Settings::default());
    let owed = b"-NOAUTH Authentication required.\r\n";
    support::wait_until(DEADLINE, "AUTH goes through", || {
        proxy.client().call(&["AUTH", "worker", "old"]) == b"+OK\r\n"
    });
    redis.kill();
    await_down(&proxy);
    proxy.restart();
    proxy.wait_for_mode("down", DEADLINE);
    for (user, password) in [("worker", "wrong"), ("stranger", "old"), ("default", "old")] {
        let mut client = proxy.client();
        let text = error_text(&client.call(&["AUTH", user, password])).expect("refused");
        assert!(text.starts_with("UNAVAILABLE AUTH was not applied"), "{user}: {text}");
        check(&mut client, "SET k refused", owed);
        let hello = client.call(&["HELLO", "3", "AUTH", user, password]);
        assert!(error_text(&hello).is_some(), "{user}: {}", shown(&hello));
        check(&mut client, "RPUSH l refused", owed);
    }
    assert_eq!(proxy.backlog(), 0);
    let mut client = proxy.client();
    check(&mut client, "AUTH worker old", b"+OK\r\n");
    check(&mut client, "SET k 1", b"+OK\r\n");
    assert_eq!(proxy.backlog(), 1);
    redis.launch();
    proxy.wait_for_recovery();
    // Redis has another password for it now, and says so of the old one: that is forgotten.
    check(&mut client, "ACL SETUSER worker resetpass >new", b"+OK\r\n");
    support::wait_until(DEADLINE, "the old password is refused", || {
        let reply = proxy.client().call(&["AUTH", "worker", "old"]);
        reply.starts_with(b"-WRONGPASS")
    });
    redis.kill();
    await_down(&proxy);
    let mut client = proxy.client();
    assert!(error_text(&client.call(&["AUTH", "worker", "old"])).is_some());
    check(&mut client, "SET k 2", owed);
    assert_eq!(proxy.backlog(), 0);
}
