//! redis-rs, unmodified: while Redis is up, through an outage, and connecting during one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use redis::streams::StreamRangeReply;
use redis::{Commands, Connection, ErrorKind, ProtocolVersion, RedisConnectionInfo, RedisResult};

use support::{DEADLINE, Durability, RedisServer, Tideover};

fn connect(proxy: &Tideover, protocol: ProtocolVersion) -> Connection {
    let info: redis::ConnectionInfo = format!("redis://{}/2", proxy.address()).parse().unwrap();
    let settings: RedisConnectionInfo = info.redis_settings().clone().set_protocol(protocol);
    redis::Client::open(info.set_redis_settings(settings))
        .unwrap()
        .get_connection()
        .unwrap()
}

fn use_everything(connection: &mut Connection) -> RedisResult<()> {
    let () = connection.set("k", "v")?;
    assert_eq!(connection.get::<_, Option<String>>("k")?, Some("v".to_owned()));
    assert_eq!(connection.get::<_, Option<String>>("nothing")?, None);
    let () = connection.hset("h", "f", 1)?;
    assert_eq!(connection.hgetall::<_, Vec<(String, i64)>>("h")?, [("f".to_owned(), 1)]);
    let () = connection.rpush("l", &[1, 2, 3])?;
    assert_eq!(connection.lrange::<_, Vec<i64>>("l", 0, -1)?, [1, 2, 3]);
    assert_eq!(connection.incr::<_, _, i64>("n", 5)?, 5);
    let (first, second): (i64, String) = redis::pipe().atomic().incr("n", 1).get("k").query(connection)?;
    assert_eq!((first, second.as_str()), (6, "v"));
    let sum: i64 = redis::cmd("EVAL")
        .arg("return ARGV[1] + ARGV[2]")
        .arg(0)
        .arg(2)
        .arg(3)
        .query(connection)?;
    assert_eq!(sum, 5);
    let _id: String = connection.xadd("x", "*", &[("f", "v")])?;
    assert_eq!(connection.xrange_all::<_, StreamRangeReply>("x")?.ids.len(), 1);
    Ok(())
}

#[test]
fn it_works_while_redis_is_up() {
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        let redis = RedisServer::start(Durability::Memory);
        let proxy = Tideover::healthy(&redis);
        use_everything(&mut connect(&proxy, protocol)).unwrap();
    }
}

#[test]
fn it_works_through_an_outage_and_connects_during_one() {
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        let mut redis = RedisServer::start(Durability::AppendOnly);
        let proxy = Tideover::healthy(&redis);
        let mut before = connect(&proxy, protocol);
        let () = before.set("k", "before").unwrap();
        redis.kill();
        proxy.wait_for_mode("down", DEADLINE);
        let mut during = connect(&proxy, protocol);
        for connection in [&mut before, &mut during] {
            assert_eq!(connection.get::<_, Option<String>>("k").unwrap(), None);
            assert_eq!(connection.hgetall::<_, Vec<(String, i64)>>("h").unwrap(), []);
            let () = connection.rpush("l", "queued").unwrap();
            let error = connection.incr::<_, _, i64>("n", 1).unwrap_err();
            assert!(
                !error.is_connection_dropped() && error.kind() != ErrorKind::Io,
                "{error}"
            );
            assert_eq!(error.code(), Some("UNAVAILABLE"), "{error}");
        }
        let () = during.set("k", "during").unwrap();
        redis.restart();
        proxy.wait_for_recovery();
        for connection in [&mut before, &mut during] {
            assert_eq!(connection.get::<_, String>("k").unwrap(), "during");
            assert_eq!(connection.llen::<_, i64>("l").unwrap(), 2);
            let () = connection.del(&["n"]).unwrap();
            assert_eq!(connection.incr::<_, _, i64>("n", 1).unwrap(), 1);
        }
    }
}
