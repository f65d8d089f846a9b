//! A replay that cannot go on while Redis answers keeps no read away from it.

use crate::support::{
    Client, DEADLINE, Durability, RedisServer, Tideover, array, await_down, bulk, check, error_text, integer, numbers,
    push, shown, wait_until,
};
use crate::way::Way;
use crate::{SECOND, assert_list, healthy, list, lose, over};

/// What a client of a halted replay sees: `cause` is there while Redis cannot be reached, until `lift`.
#[track_caller]
fn check_halted(
    redis: &RedisServer,
    says: &str,
    cause: impl FnOnce(&mut Client, &Tideover),
    lift: impl FnOnce(&mut Client, &Tideover),
) {
    let way = Way::to(redis);
    let proxy = over(&way, redis);
    let mut direct = redis.client();
    check(&mut direct, "MSET read me n 5", b"+OK\r\n");
    check(&mut direct, "RPUSH jobs j", b":1\r\n");
    lose(&way, &proxy);
    let mut client = proxy.client();
    push(&mut client, 0..10);
    cause(&mut direct, &proxy);
    way.lead_to(redis);
    wait_until(DEADLINE, "reads go upstream", || {
        client.call(&["GET", "read"]) == bulk("me")
    });
    assert_eq!(proxy.mode(), "catching_up");
    let why = proxy.status()["last_error"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains(says), "{why}");
    // Long after it was noticed, too.
    for number in 10..30 {
        push(&mut client, number..number + 1);
        check(&mut client, "GET read", &bulk("me"));
        check(&mut client, "LLEN jobs", b":1\r\n");
    }
    check_other_reads(&mut client, &mut direct);
    check(&mut client, "SET read you", b"+OK\r\n");
    check(&mut client, "LPOP jobs", b"$-1\r\n");
    check(&mut client, "BLPOP jobs 0.05", b"*-1\r\n");
    let refused = error_text(&client.call(&["INCR", "n"])).unwrap_or_default();
    assert!(refused.starts_with("UNAVAILABLE INCR was not applied"), "{refused}");
    assert_eq!(proxy.backlog(), 31);
    check(&mut direct, "EXISTS l", b":0\r\n");
    lift(&mut direct, &proxy);
    proxy.wait_for_recovery();
    assert_list(redis, 0..30);
    check(
        &mut direct,
        "MGET read n",
        &[b"*2\r\n".to_vec(), bulk("you"), bulk("5")].concat(),
    );
    check(&mut client, "LPOP jobs", &bulk("j"));
    check(&mut client, "INCR n", b":6\r\n");
    assert_eq!(proxy.dead_letters(), 0);
}

/// Reads that no lane takes: a transaction of them, scripts, and what is too large.
#[track_caller]
fn check_other_reads(client: &mut Client, direct: &mut Client) {
    let transaction = |client: &mut Client| {
        for line in ["MULTI", "GET read", "LLEN jobs"] {
            client.call(&line.split(' ').collect::<Vec<_>>());
        }
        client.call(&["EXEC"])
    };
    // One that is full refuses every transaction.
    assert_eq!(transaction(client), transaction(direct));
    for line in ["MULTI", "GET read", "SET read you"] {
        client.call(&line.split(' ').collect::<Vec<_>>());
    }
    let refused = error_text(&client.call(&["EXEC"])).unwrap_or_default();
    assert!(refused.starts_with("UNAVAILABLE EXEC was not applied"), "{refused}");
    let mut many = vec!["MGET".to_owned(), "read".to_owned()];
    many.extend((0..10_000).map(|number| format!("none:{number}")));
    assert!(client.call(&many).starts_with(b"*10001\r\n$2\r\nme\r\n"));
    let script = client.call(&["EVAL_RO", "return redis.call('GET', KEYS[1])", "1", "read"]);
    assert_eq!(script, bulk("me"), "{}", shown(&script));
    check(client, "XREAD BLOCK 20 STREAMS none $", b"*-1\r\n");
    check(client, "GET read", &bulk("me"));
}

/// One setting of Redis that keeps writes out, until it is undone.
#[track_caller]
fn check_setting(options: &[&str], says: &str, cause: &'static str, lift: &'static str) {
    let redis = RedisServer::start_with(Durability::Memory, options);
    check_halted(
        &redis,
        says,
        |direct, _| check(direct, cause, b"+OK\r\n"),
        |direct, _| check(direct, lift, b"+OK\r\n"),
    );
}

#[test]
fn a_full_redis_is_read() {
    check_setting(&[], "OOM", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0");
}

#[test]
fn a_redis_without_enough_replicas_is_read() {
    check_setting(
        &[],
        "NOREPLICAS",
        "CONFIG SET min-replicas-to-write 1",
        "CONFIG SET min-replicas-to-write 0",
    );
}

#[test]
fn a_redis_that_cannot_save_is_read() {
    let redis = RedisServer::start_with(Durability::Memory, &["--save", "3600 1"]);
    check_halted(
        &redis,
        "MISCONF",
        |direct, _| {
            // Where its dump would go there is a directory.
            std::fs::create_dir(redis.dir().join("dump.rdb")).unwrap();
            direct.call(&["BGSAVE"]);
            wait_until(DEADLINE, "the save has failed", || {
                direct.call(&["SET", "probe", "1"]).starts_with(b"-MISCONF")
            });
        },
        |direct, _| {
            check(direct, "CONFIG SET stop-writes-on-bgsave-error no", b"+OK\r\n");
        },
    );
}

#[test]
fn a_redis_with_a_marker_that_is_not_ours_is_read() {
    let redis = RedisServer::start(Durability::Memory);
    let key = |proxy: &Tideover| {
        let dir = proxy.data_dir().join("main").join("journal").join("queue");
        let bytes = std::fs::read(dir).unwrap();
        let id: String = bytes[16..32].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("tideover:{id}:replayed")
    };
    check_halted(
        &redis,
        "marker",
        |direct, proxy| check(direct, &format!("SET {} nonsense", key(proxy)), b"+OK\r\n"),
        |direct, proxy| check(direct, &format!("DEL {}", key(proxy)), b":1\r\n"),
    );
}

#[test]
fn a_redis_behind_a_paused_queue_is_read() {
    let redis = RedisServer::start(Durability::Memory);
    check_halted(
        &redis,
        "paused",
        |_, proxy| assert!(proxy.run_cli(&["queue", "pause"]).status.success()),
        |_, proxy| assert!(proxy.run_cli(&["queue", "resume"]).status.success()),
    );
}

#[test]
fn a_redis_that_holds_writes_is_read() {
    check_setting(&[], "holds", "CLIENT PAUSE 60000 WRITE", "CLIENT UNPAUSE");
}

#[test]
fn a_halted_replay_is_halted_again_after_a_crash_and_its_backlog_is_whole() {
    let redis = RedisServer::start(Durability::Memory);
    let mut proxy = healthy(&redis);
    redis.stop();
    proxy.wait_for_mode("down", DEADLINE);
    push(&mut proxy.client(), 0..10);
    proxy.kill();
    redis.cont();
    let mut direct = redis.client();
    check(&mut direct, "MSET read me", b"+OK\r\n");
    check(&mut direct, "CONFIG SET min-replicas-to-write 1", b"+OK\r\n");
    proxy.restart();
    let mut client = proxy.client();
    wait_until(DEADLINE, "reads go upstream", || {
        client.call(&["GET", "read"]) == bulk("me")
    });
    push(&mut client, 10..20);
    assert_eq!(proxy.backlog(), 20);
    check(&mut direct, "CONFIG SET min-replicas-to-write 0", b"+OK\r\n");
    proxy.wait_for_recovery();
    assert_list(&redis, 0..20);
}

/// The cause comes in the middle of replay, and Redis dies behind it.
#[test]
fn a_halt_in_mid_replay_goes_on_where_it_stopped_also_after_another_outage() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = healthy(&redis);
    redis.stop();
    proxy.wait_for_mode("down", DEADLINE);
    push(&mut proxy.client(), 0..SECOND);
    redis.cont();
    let mut direct = redis.client();
    wait_until(DEADLINE, "a part is replayed", || {
        integer(&direct.call(&["LLEN", "l"])) > 500
    });
    check(&mut direct, "CONFIG SET min-replicas-to-write 1", b"+OK\r\n");
    wait_until(DEADLINE, "replay halts", || {
        proxy.status()["last_error"]
            .as_str()
            .is_some_and(|why| why.contains("NOREPLICAS"))
    });
    let part = list(&redis);
    assert_eq!(part, numbers(0..part.len()));
    let mut client = proxy.client();
    assert_eq!(
        array(&client.call(&["LRANGE", "l", "0", "-1"])),
        part,
        "reads see what is there"
    );
    redis.kill();
    await_down(&proxy);
    push(&mut client, SECOND..SECOND + 10);
    redis.restart();
    proxy.wait_for_recovery();
    assert_list(&redis, 0..SECOND + 10);
}

/// What a client caches of a halted replay's reads it is told of.
#[test]
fn a_client_that_caches_hears_of_changes_while_replay_is_halted() {
    let redis = RedisServer::start(Durability::Memory);
    let way = Way::to(&redis);
    let proxy = over(&way, &redis);
    let mut direct = redis.client();
    check(&mut direct, "MSET read me other x", b"+OK\r\n");
    let mut client = proxy.client().hello3();
    check(&mut client, "CLIENT TRACKING ON", b"+OK\r\n");
    lose(&way, &proxy);
    push(&mut proxy.client(), 0..10);
    assert!(proxy.run_cli(&["queue", "pause"]).status.success());
    way.lead_to(&redis);
    let mut reader = proxy.client();
    wait_until(DEADLINE, "reads go upstream", || {
        reader.call(&["GET", "read"]) == bulk("me")
    });
    client.send(&["GET", "read"]);
    wait_until(DEADLINE, "the value comes", || client.reply() == bulk("me"));
    check(&mut direct, "SET read you", b"+OK\r\n");
    let told = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$4\r\nread\r\n".to_vec();
    wait_until(DEADLINE, "the client is told", || client.reply() == told);
    assert!(proxy.run_cli(&["queue", "resume"]).status.success());
    proxy.wait_for_recovery();
}

/// The generation does not move, and nobody but the client waits for what it asked.
#[test]
fn a_read_past_a_halted_replay_is_answered_when_redis_freezes() {
    let redis = RedisServer::start(Durability::Memory);
    let way = Way::to(&redis);
    let proxy = over(&way, &redis);
    lose(&way, &proxy);
    let mut client = proxy.client();
    push(&mut client, 0..10);
    assert!(proxy.run_cli(&["queue", "pause"]).status.success());
    way.lead_to(&redis);
    let mut direct = redis.client();
    check(&mut direct, "SET read me", b"+OK\r\n");
    wait_until(DEADLINE, "reads go upstream", || {
        client.call(&["GET", "read"]) == bulk("me")
    });
    redis.stop();
    check(&mut client, "GET read", b"$-1\r\n");
    push(&mut client, 10..20);
    assert!(proxy.run_cli(&["queue", "resume"]).status.success());
    redis.cont();
    proxy.wait_for_recovery();
    assert_list(&redis, 0..20);
}

/// The replay has its connection. Nobody gets another one.
#[test]
fn a_read_that_finds_no_place_at_a_halted_redis_is_answered() {
    let redis = RedisServer::start(Durability::Memory);
    let way = Way::to(&redis);
    let proxy = over(&way, &redis);
    lose(&way, &proxy);
    push(&mut proxy.client(), 0..10);
    assert!(proxy.run_cli(&["queue", "pause"]).status.success());
    let mut direct = redis.client();
    check(&mut direct, "SET read me", b"+OK\r\n");
    way.lead_to(&redis);
    let mut client = proxy.client();
    wait_until(DEADLINE, "reads go upstream", || {
        client.call(&["GET", "read"]) == bulk("me")
    });
    check(&mut direct, "CONFIG SET maxclients 1", b"+OK\r\n");
    let mut other = proxy.client();
    check(&mut other, "SELECT 1", b"+OK\r\n");
    check(&mut other, "GET read", b"$-1\r\n");
    check(&mut other, "SET here 1", b"+OK\r\n");
    check(&mut client, "GET read", &bulk("me"));
    check(&mut direct, "CONFIG SET maxclients 1000", b"+OK\r\n");
    assert!(proxy.run_cli(&["queue", "resume"]).status.success());
    proxy.wait_for_recovery();
    check(&mut direct, "SELECT 1", b"+OK\r\n");
    check(&mut direct, "GET here", &bulk("1"));
    check(&mut other, "GET here", &bulk("1"));
}
