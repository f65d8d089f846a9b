//! redis-rs, the same directly and through tideover: each check runs in both places, and what the client saw must be equal.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::sync::mpsc;
use std::thread;

use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{
    Commands, Connection, ErrorKind, ProtocolVersion, PubSub, PushInfo, RedisConnectionInfo, RedisResult, Script,
    Value, pipe,
};

use support::pair::Pair;
use support::{DEADLINE, wait_until};

const CHANNELS: usize = 3_000;

/// One way to a server.
struct Place {
    address: String,
    protocol: ProtocolVersion,
}

impl Place {
    fn try_connect(&self, identify: impl Fn(RedisConnectionInfo) -> RedisConnectionInfo) -> RedisResult<Connection> {
        let info: redis::ConnectionInfo = format!("redis://{}", self.address).parse()?;
        let settings = identify(info.redis_settings().clone().set_protocol(self.protocol));
        let connection = redis::Client::open(info.set_redis_settings(settings))?.get_connection()?;
        connection.set_read_timeout(Some(DEADLINE))?;
        Ok(connection)
    }

    fn connect(&self) -> Connection {
        self.try_connect(|settings| settings).unwrap()
    }
}

/// What the command, words split at blanks, came to: value or error.
fn told(connection: &mut Connection, line: &str) -> String {
    let mut command = redis::Cmd::new();
    for word in line.split(' ') {
        command.arg(word);
    }
    shown(command.query::<Value>(connection))
}

fn all_told(connection: &mut Connection, lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| told(connection, line)).collect()
}

fn shown<T: std::fmt::Debug>(result: RedisResult<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error {error}"),
    }
}

fn identity(place: &Place) -> RedisResult<Vec<String>> {
    let mut seen = all_told(
        &mut place.connect(),
        &["ACL SETUSER worker on >secret ~own:* &* +@all -flushall"],
    );
    let mut worker = place.try_connect(|info| info.set_username("worker").set_password("secret").set_db(2))?;
    seen.extend(all_told(
        &mut worker,
        &[
            "ACL WHOAMI",
            "CLIENT SETNAME named",
            "CLIENT GETNAME",
            "SET own:k v",
            "GET other",
            "FLUSHALL",
            "AUTH worker wrong",
            "GET own:k",
        ],
    ));
    let stranger = place.try_connect(|info| info.set_username("worker").set_password("wrong"));
    seen.push(shown(stranger.map(|_| "connected")));
    Ok(seen)
}

fn pipelines(place: &Place) -> RedisResult<Vec<String>> {
    let mut connection = place.connect();
    let mut pipeline = pipe();
    for number in 0..1000 {
        pipeline.set(format!("k{number}"), number).get(format!("k{number}"));
    }
    let whole: RedisResult<Vec<Value>> = pipeline.query(&mut connection);
    let failing: RedisResult<Vec<Value>> = pipe().get("k1").lpush("k1", "x").incr("n", 1).query(&mut connection);
    Ok(vec![shown(whole), shown(failing), told(&mut connection, "GET n")])
}

fn transactions(place: &Place) -> RedisResult<Vec<String>> {
    let (mut connection, mut other) = (place.connect(), place.connect());
    let mut seen = Vec::new();
    let failing: RedisResult<Vec<Value>> = pipe().atomic().incr("n", 1).lpush("n", "x").query(&mut connection);
    seen.push(shown(failing));
    let mut turns = 0;
    let incremented = redis::transaction(&mut connection, &["n"], |connection, pipeline| {
        let value: i64 = connection.get("n")?;
        turns += 1;
        if turns < 3 {
            let () = other.incr("n", 10)?;
        }
        pipeline
            .set("n", value + 1)
            .ignore()
            .get("n")
            .query::<Option<Vec<i64>>>(connection)
    });
    seen.push(shown(incremented));
    seen.push(format!("{turns} turns"));
    seen.extend(all_told(
        &mut connection,
        &["WATCH n", "UNWATCH", "MULTI", "INCR n", "DISCARD", "EXEC", "GET n"],
    ));
    Ok(seen)
}

/// Waits until Redis holds a client that waits for a key.
fn somebody_is_blocked(connection: &mut Connection) {
    wait_until(DEADLINE, "a blocked client", || {
        !told(connection, "INFO clients").contains("blocked_clients:0")
    });
}

fn blocking_pops(place: &Place) -> RedisResult<Vec<String>> {
    let mut connection = place.connect();
    let mut seen = all_told(&mut connection, &["BLPOP a b 0.1"]);
    for (pop, push) in [
        ("BLPOP a b c 9.5", "RPUSH b 1 2"),
        ("BRPOP c d 0", "RPUSH d 1 2"),
        ("BLMOVE from to LEFT RIGHT 9.5", "RPUSH from 1"),
        ("BZPOPMIN y z 9.5", "ZADD z 1.5 m 2 n"),
        ("BLMPOP 9.5 2 e f LEFT COUNT 2", "RPUSH f 1 2 3"),
    ] {
        let mut waiter = place.connect();
        let waiting = thread::spawn(move || told(&mut waiter, pop));
        somebody_is_blocked(&mut connection);
        seen.push(told(&mut connection, push));
        seen.push(waiting.join().unwrap());
    }
    Ok(seen)
}

fn messages(subscriber: &mut PubSub<'_>, count: usize) -> RedisResult<Vec<String>> {
    (0..count)
        .map(|_| subscriber.get_message().map(|message| format!("{message:?}")))
        .collect()
}

/// Waits until Redis has what was last asked for: the client does not always wait for the answer to a SUBSCRIBE.
fn subscribed(publisher: &mut Connection, question: &str, answer: &str) {
    wait_until(DEADLINE, question, || told(publisher, question).contains(answer));
}

fn pubsub(place: &Place) -> RedisResult<Vec<String>> {
    let (mut publisher, mut connection) = (place.connect(), place.connect());
    let mut subscriber = connection.as_pubsub();
    subscriber.subscribe(&["c", "d"])?;
    subscriber.psubscribe(&["p*", "c?"])?;
    subscribed(&mut publisher, "PUBSUB NUMPAT", "int(2)");
    let mut seen = all_told(
        &mut publisher,
        &[
            "PUBLISH c hello",
            "PUBLISH pool hello",
            "PUBLISH c1 hello",
            "PUBLISH nobody hello",
            "PUBSUB NUMSUB c d",
            "PUBSUB NUMPAT",
        ],
    );
    seen.extend(messages(&mut subscriber, 3)?);
    subscriber.unsubscribe("c")?;
    subscriber.punsubscribe("p*")?;
    subscribed(&mut publisher, "PUBSUB NUMPAT", "int(1)");
    seen.extend(all_told(
        &mut publisher,
        &["PUBLISH c hello", "PUBLISH pool hello", "PUBLISH cx hello"],
    ));
    seen.extend(messages(&mut subscriber, 1)?);
    drop(subscriber);
    seen.push(told(&mut connection, "SET k v"));
    Ok(seen)
}

#[allow(clippy::disallowed_methods, reason = "the client takes no other sender")]
fn pushes_of(connection: &mut Connection) -> mpsc::Receiver<PushInfo> {
    let (sender, pushes) = mpsc::channel();
    connection.set_push_sender(sender);
    pushes
}

fn sharded_pubsub(place: &Place) -> RedisResult<Vec<String>> {
    let (mut publisher, mut subscriber) = (place.connect(), place.connect());
    let pushes = pushes_of(&mut subscriber);
    let mut command = redis::cmd("SSUBSCRIBE");
    command.arg("shard").set_no_response(true).exec(&mut subscriber)?;
    subscribed(&mut publisher, "PUBSUB SHARDNUMSUB shard", "int(1)");
    let seen = vec![
        told(&mut publisher, "SPUBLISH shard hello"),
        told(&mut subscriber, "PING"),
    ];
    Ok(seen
        .into_iter()
        .chain(pushes.try_iter().map(|push| format!("{push:?}")))
        .collect())
}

fn many_channels(place: &Place) -> RedisResult<Vec<String>> {
    let (mut publisher, mut connection) = (place.connect(), place.connect());
    let mut subscriber = connection.as_pubsub();
    let names: Vec<String> = (0..CHANNELS).map(|number| format!("channel:{number}")).collect();
    subscriber.subscribe(&names)?;
    let last = format!("PUBSUB NUMSUB channel:{}", CHANNELS - 1);
    subscribed(&mut publisher, &last, "int(1)");
    let mut pipeline = pipe();
    for name in &names {
        pipeline.publish(name, format!("to {name}"));
    }
    let mut seen = vec![shown(pipeline.query::<Vec<i64>>(&mut publisher))];
    seen.extend(messages(&mut subscriber, CHANNELS)?);
    subscriber.unsubscribe(&names[1..])?;
    seen.push(told(&mut publisher, "PUBSUB CHANNELS"));
    Ok(seen)
}

fn keyspace_notifications(place: &Place) -> RedisResult<Vec<String>> {
    let (mut writer, mut connection) = (place.connect(), place.connect());
    let mut seen = all_told(&mut writer, &["CONFIG SET notify-keyspace-events KEA"]);
    let mut subscriber = connection.as_pubsub();
    subscriber.psubscribe("__key*__:*")?;
    subscribed(&mut writer, "PUBSUB NUMPAT", "int(1)");
    seen.extend(all_told(
        &mut writer,
        &["SET k v", "RENAME k kk", "LPUSH l x", "DEL kk l", "SET e 1 PX 5"],
    ));
    seen.extend(messages(&mut subscriber, 18)?);
    seen.push(told(&mut writer, "CONFIG SET notify-keyspace-events "));
    Ok(seen)
}

fn tracking_modes(place: &Place) -> RedisResult<Vec<String>> {
    let mut seen = Vec::new();
    for (options, caching) in [
        ("", ""),
        (" BCAST PREFIX a: PREFIX b:", ""),
        (" OPTIN", "CLIENT CACHING YES"),
        (" OPTOUT", "CLIENT CACHING NO"),
        (" NOLOOP", ""),
    ] {
        seen.extend(tracking(place, options, caching)?);
    }
    Ok(seen)
}

/// RESP3: the tracking connection's own pushes; RESP2: what a second connection hears.
fn tracking(place: &Place, options: &str, caching: &str) -> RedisResult<Vec<String>> {
    let (mut tracker, mut other, mut second) = (place.connect(), place.connect(), place.connect());
    let pushes = pushes_of(&mut tracker);
    let redirect: i64 = redis::cmd("CLIENT").arg("ID").query(&mut second)?;
    let mut listener = second.as_pubsub();
    listener.subscribe(&["__redis__:invalidate", "marker"])?;
    subscribed(&mut other, "PUBSUB NUMSUB marker", "int(1)");
    let on = match place.protocol {
        ProtocolVersion::RESP3 => format!("CLIENT TRACKING ON{options}"),
        _ => format!("CLIENT TRACKING ON REDIRECT {redirect}{options}"),
    };
    let mut seen = all_told(&mut tracker, &[&on, "GET a:1"]);
    if !caching.is_empty() {
        seen.push(told(&mut tracker, caching));
    }
    seen.push(told(&mut tracker, "GET b:1"));
    for key in ["a:1", "b:1", "c:1"] {
        seen.push(told(&mut other, &format!("SET {key} 1")));
        seen.push(told(&mut tracker, &format!("GET {key}")));
        seen.push(told(&mut tracker, &format!("SET {key} 2")));
    }
    seen.extend(all_told(&mut tracker, &["PING", "CLIENT TRACKING OFF"]));
    seen.extend(pushes.try_iter().map(|push| format!("{push:?}")));
    seen.push(told(&mut other, "PUBLISH marker end"));
    while !seen.last().is_some_and(|message| message.contains("marker")) {
        // Their payload is an array, which `Msg` shows as it is.
        seen.extend(messages(&mut listener, 1)?);
    }
    Ok(seen)
}

fn scripts(place: &Place) -> RedisResult<Vec<String>> {
    let mut connection = place.connect();
    let script = Script::new("redis.call('SET', KEYS[1], ARGV[1]) return {ARGV[1] + 1, KEYS[1]}");
    let mut seen = Vec::new();
    for value in [41, 1] {
        let mut invocation = script.key("k");
        seen.push(shown(invocation.arg(value).invoke::<Value>(&mut connection)));
        seen.push(told(&mut connection, "SCRIPT FLUSH"));
    }
    let code =
        "#!lua name=lib\nredis.register_function('put', function(k, a) return redis.call('SET', k[1], a[1]) end)";
    let mut load = redis::cmd("FUNCTION");
    load.arg("LOAD").arg(code);
    seen.push(shown(load.query::<Value>(&mut connection)));
    seen.push(shown(load.query::<Value>(&mut connection)));
    seen.extend(all_told(
        &mut connection,
        &[
            "FCALL put 1 k v",
            "FCALL_RO put 1 k v",
            "FUNCTION LIST",
            "FUNCTION DELETE lib",
            "FCALL put 1 k v",
        ],
    ));
    Ok(seen)
}

fn streams(place: &Place) -> RedisResult<Vec<String>> {
    let (mut connection, mut reader) = (place.connect(), place.connect());
    let mut seen = all_told(
        &mut connection,
        &[
            "XGROUP CREATE x g 0 MKSTREAM",
            "XGROUP CREATE x g 0",
            "XADD x 1-1 f 1",
            "XADD x 2-1 f 2",
            "XADD x 3-1 f ü",
        ],
    );
    let two = StreamReadOptions::default().group("g", "one").count(2);
    seen.push(shown(reader.xread_options::<_, _, Option<StreamReadReply>>(
        &["x"],
        &[">"],
        &two,
    )));
    let rest = StreamReadOptions::default().group("g", "two").block(9_000);
    seen.push(shown(reader.xread_options::<_, _, Option<StreamReadReply>>(
        &["x"],
        &[">"],
        &rest,
    )));
    let waiting =
        thread::spawn(move || shown(reader.xread_options::<_, _, Option<StreamReadReply>>(&["x"], &[">"], &rest)));
    somebody_is_blocked(&mut connection);
    seen.push(told(&mut connection, "XADD x 9-1 late 1"));
    seen.push(waiting.join().unwrap());
    seen.extend(all_told(
        &mut connection,
        &[
            "XACK x g 1-1",
            "XPENDING x g",
            "XCLAIM x g two 0 2-1",
            "XAUTOCLAIM x g two 0 0 COUNT 1",
            "XREAD BLOCK 5 STREAMS x 9",
            "XINFO GROUPS x",
        ],
    ));
    Ok(seen)
}

fn iterators(place: &Place) -> RedisResult<Vec<String>> {
    let mut connection = place.connect();
    let names: Vec<(String, usize)> = (0..1_000).map(|number| (format!("key:{number}"), number)).collect();
    let () = connection.mset(&names)?;
    let () = connection.hset_multiple("h", &names)?;
    let () = connection.sadd("s", names.iter().map(|(name, _)| name).collect::<Vec<_>>())?;
    let mut seen: Vec<String> = connection.scan_match("key:*1")?.collect::<RedisResult<_>>()?;
    seen.extend(connection.sscan("s")?.collect::<RedisResult<Vec<String>>>()?);
    let fields = connection
        .hscan::<_, (String, usize)>("h")?
        .collect::<RedisResult<Vec<_>>>()?;
    seen.extend(fields.iter().map(|field| format!("{field:?}")));
    seen.sort();
    // SCAN may say an item twice.
    seen.dedup();
    Ok(seen)
}

fn monitor(place: &Place) -> RedisResult<Vec<String>> {
    let (mut monitor, mut connection) = (place.connect(), place.connect());
    let mut seen = vec![told(&mut monitor, "MONITOR")];
    let () = pipe().set("monitored", "ü \r\n \"q\"").query(&mut connection)?;
    let () = pipe()
        .atomic()
        .incr("monitored:n", 1)
        .set("monitored", "last")
        .query(&mut connection)?;
    while !seen.last().is_some_and(|line| line.contains("last")) {
        let line = shown(monitor.recv_response());
        if let Some((_, command)) = line
            .split_once(']')
            .filter(|(_, command)| command.contains("monitored"))
        {
            seen.push(command.to_owned());
        }
    }
    Ok(seen)
}

fn values(place: &Place) -> RedisResult<Vec<String>> {
    let mut connection = place.connect();
    let mut seen = Vec::new();
    let large: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    for value in ["ünï→🌍".as_bytes(), b"", b"\r\n$3\r\n\0\xff", &large] {
        let key = [b"k\0\r\n", &value[..value.len().min(20)]].concat();
        seen.push(shown(connection.set::<_, _, Value>(&key, value)));
        seen.push(shown(connection.get(&key).map(|got: Vec<u8>| got == value)));
        seen.push(shown(connection.rpush::<_, _, i64>("l", value)));
        seen.push(shown(
            connection.lrange("l", -1, -1).map(|got: Vec<Vec<u8>>| got == [value]),
        ));
    }
    Ok(seen)
}

/// This client does not connect again on its own: it has to see that its connection is gone.
fn killed_by_id(place: &Place) -> RedisResult<Vec<String>> {
    let (mut victim, mut other) = (place.connect(), place.connect());
    let mut seen = Vec::new();
    for by_itself in [true, false] {
        let id: i64 = redis::cmd("CLIENT").arg("ID").query(&mut victim)?;
        let killer = if by_itself { &mut victim } else { &mut other };
        seen.push(told(killer, &format!("CLIENT KILL ID {id} SKIPME no")));
        let error = victim
            .get::<_, Option<String>>("k")
            .expect_err("the connection is gone");
        seen.push(format!("{:?} {}", error.kind(), error.is_connection_dropped()));
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        victim = place.connect();
        seen.extend(all_told(&mut victim, &["SET k v", "GET k"]));
    }
    Ok(seen)
}

type Check = fn(&Place) -> RedisResult<Vec<String>>;

const CHECKS: &[(&str, Check)] = &[
    ("ACL user, password, name, database", identity),
    ("pipelines", pipelines),
    ("transactions and WATCH", transactions),
    ("blocking pops", blocking_pops),
    ("subscribe, psubscribe", pubsub),
    ("3000 channels", many_channels),
    ("keyspace notifications", keyspace_notifications),
    ("CLIENT TRACKING", tracking_modes),
    ("scripts and functions", scripts),
    ("streams", streams),
    ("iterators", iterators),
    ("MONITOR", monitor),
    ("values", values),
    ("CLIENT KILL ID", killed_by_id),
];

const CHECKS_OF_RESP3: &[(&str, Check)] = &[("ssubscribe", sharded_pubsub)];

fn compare(protocol: ProtocolVersion, checks: &[(&str, Check)]) {
    let pair = Pair::start();
    let places = [pair.direct.address(), pair.proxy.address()].map(|address| Place { address, protocol });
    for (name, check) in checks {
        let [expected, got] = places.each_ref().map(|place| {
            told(&mut place.connect(), "FLUSHALL");
            check(place)
        });
        let expected = expected.unwrap_or_else(|error| panic!("{name}, directly: {error}"));
        let got = got.unwrap_or_else(|error| panic!("{name}, through tideover: {error}"));
        for (expected, got) in expected.iter().zip(&got) {
            assert_eq!(expected, got, "{name}: left is direct, right is through tideover");
        }
        assert_eq!(expected.len(), got.len(), "{name}");
    }
}

#[test]
fn redis_rs_sees_the_same_with_and_without_tideover_resp2() {
    compare(ProtocolVersion::RESP2, CHECKS);
}

#[test]
fn redis_rs_sees_the_same_with_and_without_tideover_resp3() {
    compare(ProtocolVersion::RESP3, &[CHECKS, CHECKS_OF_RESP3].concat());
}
