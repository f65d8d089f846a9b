//! Connections of a session's own: they are there before they are needed, go on to the next session, and carry nothing of the last one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use support::pair::Pair;
use support::{
    Client, DEADLINE, Durability, RedisServer, Relay, Settings, Tideover, Verdict, bulk, command, connects, info_count,
    integer, wait_until,
};

/// Spares of a worker, as in src/upstream/pool.rs.
const SPARES: usize = 2;

fn one_worker() -> Settings {
    Settings {
        workers: 1,
        ..Settings::default()
    }
}

/// The client ids in the connection file.
fn on_file(proxy: &Tideover) -> Vec<String> {
    let slots = std::fs::read_to_string(proxy.data_dir().join("main/connections")).unwrap();
    let ids = slots.lines().filter_map(|slot| slot.split(' ').next());
    ids.filter(|id| !id.is_empty()).map(str::to_owned).collect()
}

/// Connections on which nothing has been said since the handshake, and that are on file: what is up.
fn spares_up(proxy: &Tideover, direct: &mut Client) -> usize {
    let on_file = on_file(proxy);
    let clients = String::from_utf8(direct.call(&["CLIENT", "LIST"])).unwrap();
    let spares = clients.lines().filter(|client| client.contains(" cmd=time "));
    spares
        .filter(|client| {
            let id = client.strip_prefix("id=").and_then(|rest| rest.split(' ').next());
            id.is_some_and(|id| on_file.iter().any(|there| there == id))
        })
        .count()
}

/// tideover in front of `redis`, with its spares and nothing else under way.
fn with_spares(redis: &RedisServer, direct: &mut Client) -> Tideover {
    let proxy = Tideover::start_with(redis, &one_worker());
    proxy.wait_for_mode("healthy", DEADLINE);
    wait_until(DEADLINE, "the upstream's commands are known", || {
        proxy.log_text().contains("asked for the upstream's commands")
    });
    wait_until(DEADLINE, "the spares and the health connection", || {
        info_count(direct, "clients", "connected_clients") == 1 + SPARES + 1
    });
    proxy
}

#[test]
fn sessions_that_come_for_one_transaction_cost_redis_no_connects() {
    let redis = RedisServer::start(Durability::Memory);
    let mut direct = redis.client();
    let proxy = with_spares(&redis, &mut direct);
    let before = connects(&mut direct);
    for _ in 0..500 {
        let mut client = proxy.client();
        // As a whole it would need no connection of its own.
        assert_eq!(client.call(&["MULTI"]), b"+OK\r\n");
        client.send_raw(&[command(&["INCR", "n"]), command(&["EXEC"])].concat());
        assert_eq!(client.reply(), b"+QUEUED\r\n");
        assert!(client.reply().starts_with(b"*1\r\n:"));
    }
    for _ in 0..100 {
        let mut client = proxy.client();
        client.send_raw(&[command(&["RPUSH", "q", "job"]), command(&["BLPOP", "q", "0"])].concat());
        assert_eq!(client.reply(), b":1\r\n");
        client.reply();
        client.call(&["WATCH", "n"]);
        client.call(&["UNWATCH"]);
    }
    let more = connects(&mut direct) - before;
    assert!(more <= 20, "{more} connects for 600 sessions");
    assert_eq!(direct.call(&["GET", "n"]), bulk("500"));
}

/// What was refused inside them leaves nothing behind when they have ended.
#[test]
fn transactions_that_redis_refuses_cost_it_no_connects() {
    let redis = RedisServer::start(Durability::Memory);
    let mut direct = redis.client();
    let proxy = with_spares(&redis, &mut direct);
    direct.call(&["CONFIG", "SET", "maxmemory", "1"]);
    let before = connects(&mut direct);
    for _ in 0..100 {
        for (refused, error, ending, ended) in [
            ("SET n 1", "-OOM ", "EXEC", "-EXECABORT "),
            ("INCR", "-ERR wrong number", "EXEC", "-EXECABORT "),
            ("GET", "-ERR wrong number", "DISCARD", "+OK"),
        ] {
            let mut client = proxy.client();
            assert_eq!(client.call(&["MULTI"]), b"+OK\r\n");
            for (line, expected) in [(refused, error), (ending, ended)] {
                let reply = client.call(&line.split(' ').collect::<Vec<_>>());
                assert!(
                    reply.starts_with(expected.as_bytes()),
                    "{line}: {}",
                    reply.escape_ascii()
                );
            }
        }
    }
    let more = connects(&mut direct) - before;
    assert!(more <= 20, "{more} connects for 300 sessions");
}

#[test]
fn sessions_that_ask_for_transactions_at_once_settle_for_the_connections_they_need() {
    const CLIENTS: usize = 20;
    let redis = RedisServer::start(Durability::Memory);
    let mut direct = redis.client();
    let proxy = with_spares(&redis, &mut direct);
    let before = connects(&mut direct);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
    for _ in 0..30 {
        for client in &mut clients {
            // What only reads has no lane.
            client.send_raw(&[command(&["MULTI"]), command(&["GET", "n"]), command(&["EXEC"])].concat());
        }
        for client in &mut clients {
            assert_eq!(
                [client.reply(), client.reply()],
                [b"+OK\r\n".to_vec(), b"+QUEUED\r\n".to_vec()]
            );
            assert_eq!(client.reply(), b"*1\r\n$-1\r\n");
            assert_eq!(client.call(&["GET", "n"]), b"$-1\r\n");
        }
    }
    let more = connects(&mut direct) - before;
    assert!(more <= CLIENTS + 2 * SPARES, "{more} connects for 600 transactions");
}

#[test]
fn a_storm_of_blocking_sessions_dials_what_it_needs() {
    let redis = RedisServer::start(Durability::Memory);
    let mut direct = redis.client();
    let proxy = with_spares(&redis, &mut direct);
    let before = connects(&mut direct);
    let mut clients: Vec<Client> = (0..100).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(&["BLPOP", "q", "0"]);
    }
    wait_until(DEADLINE, "all of them block", || {
        info_count(&mut direct, "clients", "blocked_clients") == 100
    });
    wait_until(DEADLINE, "the spares are there again", || {
        info_count(&mut direct, "clients", "connected_clients") == 1 + 100 + SPARES + 1
    });
    assert!(connects(&mut direct) - before <= 100 + 2 * SPARES);
    for client in &mut clients {
        direct.call(&["RPUSH", "q", "job"]);
        let _ = client;
    }
    for client in &mut clients {
        assert!(client.reply().starts_with(b"*2\r\n"));
    }
    assert_eq!(proxy.mode(), "healthy");
}

#[test]
fn what_needs_a_connection_of_its_own_finds_one_dialled_before_it_came() {
    for (name, request) in [
        ("BLPOP", vec!["BLPOP", "nothing", "0.01"]),
        ("MULTI", vec!["MULTI"]),
        ("SUBSCRIBE", vec!["SUBSCRIBE", "news"]),
        ("CLIENT", vec!["CLIENT", "ID"]),
        ("EVAL", vec!["EVAL", "return 1", "0"]),
    ] {
        let place = RedisServer::absent(Durability::Memory);
        let redis = RedisServer::start(Durability::Memory);
        let relay = Relay::start(&place, &redis, |_| Verdict::Pass);
        let proxy = Tideover::start_with(&place, &one_worker());
        proxy.wait_for_mode("healthy", DEADLINE);
        // Every handshake ends with TIME: probe, health, asking for commands, spares.
        wait_until(DEADLINE, "spares", || relay.connections_of("TIME").len() == 3 + SPARES);
        let dialled = relay.connections_of("TIME");
        let mut client = proxy.client();
        client.call(&request);
        let ours: Vec<usize> = relay
            .requests()
            .into_iter()
            .filter(|(_, line)| *line == request.join(" "))
            .map(|(id, _)| id)
            .collect();
        assert!(ours.iter().all(|id| dialled.contains(id)) && ours.len() == 1, "{name}");
    }
}

#[test]
fn a_spare_that_redis_ends_is_replaced_and_nobody_gets_it() {
    let redis = RedisServer::start(Durability::Memory);
    let mut direct = redis.client();
    let proxy = with_spares(&redis, &mut direct);
    let before = connects(&mut direct);
    direct.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    wait_until(DEADLINE, "new spares, and a new health connection", || {
        info_count(&mut direct, "clients", "connected_clients") == 1 + SPARES + 1
    });
    let mut client = proxy.client();
    assert_eq!(client.call(&["MULTI"]), b"+OK\r\n");
    assert_eq!(client.call(&["EXEC"]), b"*0\r\n");
    assert_eq!(proxy.mode(), "healthy");
    assert!(connects(&mut direct) - before <= 2 * SPARES + 2);
}

#[test]
fn connections_that_were_reset_come_off_the_file_while_redis_is_well() {
    check_reset_connections(None);
}

/// Tideover has no password of its own, and asks as one of those who said theirs.
#[test]
fn connections_that_were_reset_come_off_the_file_where_only_clients_know_the_password() {
    check_reset_connections(Some("secret"));
}

fn check_reset_connections(password: Option<&str>) {
    // So many are asked about at once, as in src/upstream/connections.rs.
    const RESET: usize = 64;
    let place = RedisServer::absent(Durability::Memory);
    let options = password.map(|password| ["--requirepass", password]);
    let redis = RedisServer::start_with(Durability::Memory, options.as_ref().map_or(&[], |options| options));
    let relay = Relay::start(&place, &redis, |request| match request[0].as_str() {
        "MULTI" => Verdict::CloseAfter(b"+OK\r\nno RESP\r\n".to_vec()),
        _ => Verdict::Pass,
    });
    let proxy = Tideover::start_with(&place, &one_worker());
    proxy.wait_for_mode("healthy", DEADLINE);
    for _ in 0..RESET {
        let mut client = proxy.client();
        if let Some(password) = password {
            assert_eq!(client.call(&["AUTH", password]), b"+OK\r\n");
        }
        assert_eq!(client.call(&["MULTI"]), b"+OK\r\n");
    }
    // A password is asked about on a lane.
    let lanes = usize::from(password.is_some());
    wait_until(DEADLINE, "they are off the file", || {
        on_file(&proxy).len() <= SPARES + lanes
    });
    let kills = relay
        .requests()
        .into_iter()
        .filter(|(_, request)| request.starts_with("CLIENT KILL ID "));
    let asked_on: Vec<usize> = kills.map(|(connection, _)| connection).collect();
    assert_eq!(asked_on.len(), RESET, "each once");
    assert!(
        asked_on.iter().all(|connection| *connection == asked_on[0]),
        "on one connection"
    );
    assert_eq!(proxy.mode(), "healthy");
    let metrics = proxy.get("/metrics").1;
    assert!(!metrics.contains("to=\"open\""), "no fence did it: {metrics}");
}

#[test]
fn a_session_takes_no_connection_along_into_another_database_protocol_or_user() {
    let pair = Pair::start();
    // Each leaves a connection of its own behind before it changes, and would find it again after.
    for uses in [
        "BLPOP nothing 0.01",
        "EVAL return(1) 0",
        "WATCH k\nUNWATCH",
        "WATCH k\nSELECT 5\nUNWATCH\nSELECT 0",
    ] {
        pair.check_script(
            |client| client,
            &format!(
                "FLUSHALL\nSELECT 5\nRPUSH q five\nSELECT 0\nRPUSH q zero zero\n{uses}\nSELECT 5\nBLPOP q 1\nMULTI\nSET k five\nEXEC
                 {uses}\nSELECT 0\nBLPOP q 1\nGET k\n{uses}\nHELLO 3 SETNAME x\nEVAL return{{double=1.5}} 0\nCONFIG GET maxmemory\nMULTI\nHGETALL k\nEXEC\nHELLO 2 SETNAME x\nEVAL return{{double=1.5}} 0\nRESET"
            )
            .lines()
            .filter(|line| !line.contains("HELLO"))
            .collect::<Vec<_>>()
            .join("\n"),
        );
        pair.check_script(
            Client::hello3,
            &format!("{uses}\nSELECT 3\nMULTI\nSET k three\nEXEC\nEVAL return(redis.call('GET',KEYS[1])) 1 k"),
        );
    }
    pair.check("HELLO between two commands of a session's own connection", |dial| {
        let mut client = dial();
        let mut all = client.call(&["EVAL", "redis.setresp(3);return{double=1.5}", "0"]);
        client.call(&["HELLO", "3"]);
        all.extend(client.call(&["EVAL", "redis.setresp(3);return{double=1.5}", "0"]));
        client.call(&["HELLO", "2"]);
        all.extend(client.call(&["EVAL", "redis.setresp(3);return{double=1.5}", "0"]));
        all
    });
    pair.check("AUTH between two commands of a session's own connection", |dial| {
        let mut client = dial();
        let mut all = client.call(&["ACL", "SETUSER", "alice", "on", ">secret", "~a:*", "+@all"]);
        all.extend(client.call(&["EVAL", "return redis.call('GET',KEYS[1])", "1", "b:1"]));
        all.extend(client.call(&["AUTH", "alice", "secret"]));
        all.extend(client.call(&["EVAL", "return redis.call('GET',KEYS[1])", "1", "b:1"]));
        all
    });
}

#[test]
fn a_session_that_takes_a_transaction_for_ended_does_not_outlive_its_client() {
    let redis = RedisServer::start(Durability::Memory);
    let mut direct = redis.client();
    direct.call(&["ACL", "SETUSER", "few", "on", ">x", "~*", "&*", "+@all", "-discard"]);
    let proxy = Tideover::healthy(&redis);
    for connect in [|client: Client| client, Client::hello3] {
        let mut client = connect(proxy.client());
        assert_eq!(client.call(&["AUTH", "few", "x"]), b"+OK\r\n");
        assert_eq!(client.call(&["MULTI"]), b"+OK\r\n");
        assert!(client.call(&["DISCARD"]).starts_with(b"-NOPERM "));
        client.send(&["SUBSCRIBE", "c"]);
        client.until_closed();
    }
    wait_until(DEADLINE, "no session", || proxy.status()["clients"] == 0);
}

#[test]
fn a_connection_that_was_subscribed_answers_what_comes_after() {
    let pair = Pair::start();
    for connect in [|client: Client| client, Client::hello3] {
        for after in [
            "BLPOP nothing 0.01",
            "MULTI",
            "EVAL return(1) 0",
            "WATCH k",
            "SELECT 3",
            "GET k",
        ] {
            pair.check_script(
                connect,
                &format!("SUBSCRIBE news\nUNSUBSCRIBE news\n{after}\nPING\nSET k v\nGET k\nRESET"),
            );
        }
    }
}

#[test]
fn replies_and_confirmations_keep_the_order_of_what_was_asked() {
    let pair = Pair::start();
    for connect in [|client: Client| client, Client::hello3] {
        for lines in [
            ["UNSUBSCRIBE c", "CLIENT SETNAME me", "SELECT 1", "GET k"],
            ["SUBSCRIBE c", "UNSUBSCRIBE c", "CLIENT SETNAME me", "EVAL return(1) 0"],
            ["WATCH a", "SELECT 1", "SUBSCRIBE c", "PING"],
            ["CLIENT NO-EVICT off", "CLIENT SETNAME me", "SUBSCRIBE c", "PING"],
            ["SUBSCRIBE c", "RESET", "PING", "GET k"],
            ["PING", "GET k", "SUBSCRIBE c", "QUIT"],
        ] {
            let words = lines.map(|line| command(&line.split(' ').collect::<Vec<_>>()));
            pair.check(&format!("{lines:?}"), |dial| {
                let mut client = connect(dial());
                client.send_raw(&words.concat());
                lines.iter().flat_map(|_| client.reply()).collect()
            });
        }
        pair.check("SUBSCRIBE, and what is no request", |dial| {
            let mut client = connect(dial());
            client.send_raw(&[command(&["SUBSCRIBE", "c"]), b"*1\r\n$x\r\n".to_vec()].concat());
            [client.reply(), client.reply()].concat()
        });
    }
}

#[test]
fn what_a_session_says_of_itself_is_heard_however_long_it_is() {
    let pair = Pair::start();
    let names: Vec<String> = (0..3000).map(|at| format!("{at}-{}", "x".repeat(50))).collect();
    let long = |word: &str| {
        let mut args = vec![word];
        args.extend(names.iter().map(String::as_str));
        command(&args)
    };
    for connect in [|client: Client| client, Client::hello3] {
        pair.check("SUBSCRIBE and UNSUBSCRIBE", |dial| {
            let mut client = connect(dial());
            let mut all = Vec::new();
            for word in ["SUBSCRIBE", "UNSUBSCRIBE"] {
                client.send_raw(&long(word));
                names.iter().for_each(|_| all.extend(client.reply()));
            }
            all.extend(client.call(&["EVAL", "return 1", "0"]));
            all
        });
        pair.check("WATCH", |dial| {
            let (mut client, mut other) = (connect(dial()), dial());
            client.send_raw(&long("WATCH"));
            let mut all = client.reply();
            all.extend(client.call(&["GET", "k"]));
            other.call(&["SET", &names[7], "changed"]);
            all.extend(client.call(&["MULTI"]));
            all.extend(client.call(&["SET", "k", "v"]));
            all.extend(client.call(&["EXEC"]));
            all
        });
        pair.check("a value inside MULTI", |dial| {
            let mut client = connect(dial());
            let mut all = client.call(&["MULTI"]);
            all.extend(client.call(&["SET", "big", &"x".repeat(300_000)]));
            all.extend(client.call(&["STRLEN", "big"]));
            all.extend(client.call(&["EXEC"]));
            all
        });
    }
}

/// How sessions leave: each line a command, the last of them the last before the client is gone.
const ENDINGS: &[&str] = &[
    "MULTI\nSET k leaked",
    "MULTI\nSET k leaked\nNONSENSE",
    "MULTI\nGET\nEXEC",
    "MULTI\nGET\nEXEC x\nSET k v",
    "MULTI\nGET\nDISCARD x",
    "MULTI\nSET k leaked\nDISCARD",
    "MULTI\nMULTI\nWATCH k\nSET k leaked\nDISCARD",
    "MULTI\nSELECT 7\nSET k seven\nEXEC",
    "MULTI\nSELECT 99\nEXEC\nGET k",
    "MULTI\nSUBSCRIBE news\nEXEC",
    "MULTI\nCLIENT SETNAME x\nEXEC",
    "MULTI\nHELLO 3\nEXEC",
    "WATCH k",
    "WATCH k\nUNWATCH",
    "WATCH k\nMULTI\nDISCARD",
    "WATCH k\nSELECT 7\nUNWATCH\nSELECT 0",
    "MULTI\nSET k leaked\nRESET",
    "WATCH k\nRESET",
    "SUBSCRIBE news",
    "SUBSCRIBE news\nUNSUBSCRIBE news\nWATCH k\nUNWATCH",
    "CLIENT ID\nCLIENT NO-EVICT on",
    "CLIENT TRACKING on BCAST",
    "SCRIPT DEBUG YES",
    "MONITOR",
    "AUTH nodiscard x\nMULTI\nDISCARD",
    "AUTH nodiscard x\nWATCH k\nUNWATCH",
    "AUTH nodiscard x\nMULTI\nEXEC",
];

/// What a session had is the next one's, so that has to be as new.
#[test]
fn no_session_finds_anything_of_the_last_one_on_its_connection() {
    let redis = RedisServer::start(Durability::Memory);
    let mut direct = redis.client();
    direct.call(&[
        "ACL",
        "SETUSER",
        "nodiscard",
        "on",
        "nopass",
        "~*",
        "&*",
        "+@all",
        "-discard",
        "-unwatch",
        "-exec",
    ]);
    let proxy = Tideover::start_with(&redis, &one_worker());
    proxy.wait_for_mode("healthy", DEADLINE);
    for ending in ENDINGS {
        for user in ["default", "nodiscard"] {
            let mut leaving = proxy.client();
            for line in ending.lines() {
                leaving.call(&line.split(' ').collect::<Vec<_>>());
            }
            drop(leaving);
            direct.call(&["SET", "k", "v"]);
            // More of them than one, so that each connection that was given back is among theirs.
            let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
            for client in &mut clients {
                if user != "default" {
                    assert_eq!(client.call(&["AUTH", user, "x"]), b"+OK\r\n");
                }
                let reply = client.call(&["EVAL", "return{redis.call('GET',KEYS[1])}", "1", "k"]);
                assert_eq!(reply, b"*1\r\n$1\r\nv\r\n", "after {ending:?} as {user}");
                client.send_raw(&[command(&["MULTI"]), command(&["GET", "k"])].concat());
                assert_eq!(
                    [client.reply(), client.reply()].concat(),
                    b"+OK\r\n+QUEUED\r\n",
                    "after {ending:?} as {user}"
                );
                if user == "default" {
                    assert_eq!(client.call(&["EXEC"]), b"*1\r\n$1\r\nv\r\n", "after {ending:?}");
                }
            }
        }
    }
    assert_eq!(integer(&direct.call(&["DBSIZE"])), 1);
}

/// Ten channels at a time, none of them awaited, and all given up again likewise.
#[test]
fn what_is_published_after_an_answer_elsewhere_finds_the_subscriptions_asked_before() {
    let redis = RedisServer::start(Durability::Memory);
    let mut direct = redis.client();
    let proxy = with_spares(&redis, &mut direct);
    for connect in [|client: Client| client, Client::hello3] {
        let (mut subscriber, mut other) = (connect(proxy.client()), connect(proxy.client()));
        // Keeping one all along, and not; nothing between giving up and asking again, and an answer.
        for (kept, awaits) in [(true, false), (false, false), (false, true)] {
            if kept {
                subscriber.call(&["SUBSCRIBE", "kept"]);
            }
            for round in 0..60 {
                let channels: Vec<String> = (0..10).map(|at| format!("{round}.{at}")).collect();
                for channel in &channels {
                    subscriber.send(&["SUBSCRIBE", channel]);
                }
                other.call(&["GET", "k"]);
                for channel in &channels {
                    assert_eq!(direct.call(&["PUBLISH", channel, "m"]), b":1\r\n", "{channel}");
                }
                for word in ["subscribe", "message"] {
                    for channel in &channels {
                        let frame = String::from_utf8(subscriber.reply()).unwrap();
                        assert!(
                            frame.contains(&format!("\r\n{word}\r\n")) && frame.contains(&format!("\r\n{channel}\r\n")),
                            "{word} {channel}: {frame}"
                        );
                    }
                }
                for channel in &channels {
                    subscriber.send(&["UNSUBSCRIBE", channel]);
                }
                for _ in channels.iter().filter(|_| awaits) {
                    subscriber.reply();
                }
                if !awaits {
                    // Behind what follows.
                    subscriber.send(&["SUBSCRIBE", "last"]);
                    subscriber.send(&["UNSUBSCRIBE", "last"]);
                    for _ in 0..channels.len() + 2 {
                        subscriber.reply();
                    }
                }
            }
            if kept {
                subscriber.call(&["UNSUBSCRIBE"]);
            }
        }
    }
}

#[test]
fn the_first_subscription_of_a_session_is_overtaken_by_nothing_where_a_spare_is_up() {
    let redis = RedisServer::start(Durability::Memory);
    let mut direct = redis.client();
    let proxy = with_spares(&redis, &mut direct);
    let mut other = proxy.client();
    other.call(&["GET", "k"]);
    for round in 0..50 {
        wait_until(DEADLINE, "the spares", || spares_up(&proxy, &mut direct) == SPARES);
        let (mut one, mut two) = (proxy.client(), proxy.client());
        for client in [&mut one, &mut two] {
            client.call(&["PING"]);
        }
        let channels = [format!("one.{round}"), format!("two.{round}")];
        one.send(&["SUBSCRIBE", &channels[0]]);
        two.send(&["SUBSCRIBE", &channels[1]]);
        other.call(&["GET", "k"]);
        for channel in &channels {
            assert_eq!(direct.call(&["PUBLISH", channel, "m"]), b":1\r\n", "{channel}");
        }
    }
}

#[test]
fn what_redis_refuses_among_pipelined_subscriptions_changes_nothing_for_the_others() {
    let pair = Pair::start();
    pair.check("one channel only", |dial| {
        dial().call(&[
            "ACL",
            "SETUSER",
            "few",
            "on",
            ">secret",
            "+@all",
            "resetchannels",
            "&a*",
            "&c",
        ])
    });
    let conversations = [
        "SUBSCRIBE no, PING, SUBSCRIBE no, UNSUBSCRIBE, PING, GET k",
        "SUBSCRIBE a no, SUBSCRIBE a, PING x, PSUBSCRIBE no*, PSUBSCRIBE a*, UNSUBSCRIBE, PING",
        "SUBSCRIBE a, SUBSCRIBE no, UNSUBSCRIBE, PUNSUBSCRIBE, UNSUBSCRIBE a, GET k, SUBSCRIBE c",
        "SUBSCRIBE no a, SUBSCRIBE, PING, SUBSCRIBE c, SUBSCRIBE, GET k, UNSUBSCRIBE c, GET k",
        "SSUBSCRIBE a, SSUBSCRIBE no, SUBSCRIBE c, SUNSUBSCRIBE, PING, PING a b, PING, QUIT",
        "SUBSCRIBE a, UNSUBSCRIBE a, SUBSCRIBE no, MULTI, SET k v, EXEC, SUBSCRIBE c, RESET",
    ];
    for connect in [|client: Client| client, Client::hello3] {
        for lines in conversations {
            pair.check(lines, |dial| {
                let mut client = connect(dial());
                client.call(&["AUTH", "few", "secret"]);
                for line in lines.split(", ") {
                    client.send(&line.split(' ').collect::<Vec<_>>());
                }
                client.finish_sending();
                client.until_closed()
            });
        }
    }
}
