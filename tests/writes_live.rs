//! Writes while down against a live redis-server: the acknowledgement or error is what Redis answers when every
//! argument takes effect once, and the effect leaves what the original command leaves.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "test helpers")]

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tideover::command::{Spec, TABLE};
use tideover::outage::payload::{Origin, decode, encode};
use tideover::outage::write::{StreamIds, Write, WriteContext, write};
use tideover::resp::Protocol;
use tideover::resp::request::OwnedRequest;

const KEYS: [&str; 3] = ["k", "k2", "k3"];
const STREAM: &str = "XADD k 1-1 a b ; XADD k 2-1 a b ; XADD k 3-1 a b";
const GROUP: &str = "XADD k 1-1 a b ; XADD k 2-1 a b ; XGROUP CREATE k g 0 ; XREADGROUP GROUP g c COUNT 2 STREAMS k >";

/// What is compared beside the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    /// The reply's bytes, DUMP and TTL.
    Everything,
    /// DUMP and TTL: how many members go cannot be known, 0 is answered.
    State,
    /// For IDs and times that Redis makes itself: the reply's kind, the stream's length and groups.
    Shape,
}

/// What stands before, and the command. `""` is an empty argument.
const SAMPLES: &[(&str, &str)] = &[
    // SET
    ("", "SET k v"),
    ("SET k old EX 100", "SET k v"),
    ("RPUSH k a", "set k \"\""),
    ("", "SET k v EX 100"),
    ("", "SET k v ex 100 EX 200"),
    ("", "SET k v PX 100000"),
    ("", "SET k v EXAT 4102444800"),
    ("", "SET k v PXAT 4102444800000"),
    ("SET k old", "SET k v PXAT 1"),
    ("", "SET"),
    ("", "SET k"),
    ("", "SET k v EX"),
    ("", "SET k v 10"),
    ("", "SET k v EX 10 PX 10"),
    ("", "SET k v NX XX"),
    ("", "SET k v XX NX"),
    ("", "SET k v KEEPTTL EX 10"),
    ("", "SET k v EX 10 KEEPTTL"),
    ("", "SET k v EX abc"),
    ("", "SET k v EX 1.5"),
    ("", "SET k v EX 0"),
    ("", "SET k v PX -5"),
    ("", "SET k v EX 9223372036854775"),
    ("", "SET k v EX 9223372036854775807"),
    ("", "SET k v EX 9223372036854775808"),
    ("", "SET k v PX 9223372036854775807"),
    ("", "SET k v EXAT 9223372036854775807"),
    ("", "SET k v EXAT -1"),
    ("", "SET k v PERSIST"),
    ("", "SETEX k 100 v"),
    ("", "setex k 0 v"),
    ("", "SETEX k -1 v"),
    ("", "SETEX k abc v"),
    ("", "SETEX k 9223372036854775807 v"),
    ("", "SETEX k 10"),
    ("", "PSETEX k 100000 v"),
    ("", "PSETEX k 0 v"),
    ("", "PSETEX k 9223372036854775807 v"),
    ("", "MSET k 1 k2 2 k 3"),
    ("", "MSET k 1 k2"),
    ("", "MSET k"),
    // Keys
    ("SET k 1 ; SET k2 2", "DEL k k k2"),
    ("SET k 1 ; SET k2 2 ; SET k3 3", "UNLINK k k2 k k3"),
    ("", "DEL"),
    ("SET k 1", "EXPIRE k 100"),
    ("SET k 1", "EXPIRE k 100 NX"),
    ("SET k 1 EX 50", "EXPIRE k 100 XX GT"),
    ("SET k 1 EX 50", "EXPIRE k 10 lt"),
    ("SET k 1 EX 50", "EXPIRE k 100 GT"),
    ("SET k 1", "EXPIRE k -1"),
    ("SET k 1", "EXPIRE k 0"),
    ("SET k 1", "PEXPIRE k -9223372036854775808"),
    ("SET k 1", "PEXPIRE k 100000"),
    ("SET k 1", "EXPIREAT k 4102444800"),
    ("SET k 1", "EXPIREAT k -5"),
    ("SET k 1", "PEXPIREAT k 4102444800000 NX"),
    ("SET k 1", "PEXPIREAT k 1"),
    ("", "EXPIRE k"),
    ("", "EXPIRE k abc"),
    ("", "EXPIRE k 10 foo"),
    ("", "EXPIRE k 10 NX XX"),
    ("", "EXPIRE k 10 NX GT"),
    ("", "EXPIRE k 10 GT LT"),
    ("", "EXPIRE k abc GT LT"),
    ("", "EXPIRE k 9223372036854775"),
    ("", "EXPIRE k 9223372036854775807"),
    ("", "EXPIRE k -9223372036854775807"),
    ("", "PEXPIRE k 9223372036854775807"),
    ("", "EXPIREAT k 9223372036854775807"),
    ("", "PEXPIREAT k 9223372036854775808"),
    ("SET k 1 EX 100", "PERSIST k"),
    ("", "PERSIST"),
    ("", "RESTORE k -1 x REPLACE"),
    ("", "RESTORE k abc x REPLACE"),
    ("", "RESTORE k 0 x REPLAC"),
    ("", "RESTORE k 0 x REPLACE IDLETIME -1"),
    ("", "RESTORE k 0 x REPLACE IDLETIME x"),
    ("", "RESTORE k 0 x REPLACE IDLETIME"),
    ("", "RESTORE k 0 x REPLACE FREQ 256"),
    ("", "RESTORE k 0 x REPLACE FREQ 1 IDLETIME 1"),
    ("", "RESTORE k 0"),
    // Hashes, sets
    ("", "HSET k f 1"),
    ("", "HSET k f 1 f 2 g 3"),
    ("", "HSET k a 1 b 1 c 1 d 1 e 1 f 1 g 1 h 1 i 1 a 2"),
    ("", "HSET k f"),
    ("", "HSET k f 1 g"),
    ("", "HMSET k f 1 f 2"),
    ("", "HMSET k f 1 g"),
    ("HSET k f 1 g 2 h 3", "HDEL k f f g"),
    ("", "HDEL k"),
    ("", "SADD k a"),
    ("", "SADD k a a b 1 1 2"),
    ("", "SADD k"),
    ("SADD k a b c", "SREM k a a b"),
    ("", "SREM k"),
    // Sorted sets
    ("", "ZADD k 1 a"),
    ("", "ZADD k 1 a 2 a"),
    ("", "ZADD k CH 1 a 2 a"),
    ("", "ZADD k CH 1 a 1 a 3 b"),
    ("", "ZADD k CH NX 1 a 2 a"),
    ("", "ZADD k CH GT 2 a 1 a 3 a"),
    ("", "ZADD k CH LT 2 a 1 a 3 a"),
    ("", "ZADD k NX 1 a"),
    ("ZADD k 1 a", "ZADD k XX 2 a"),
    ("ZADD k 1 a 1 b", "ZADD k XX CH 2 a 2 b"),
    ("ZADD k 1 a", "ZADD k XX GT CH 2 a"),
    ("", "zadd k gt 1 a"),
    ("", "ZADD k inf a -inf b +1 c 0x10 d 1e3 e .5 f"),
    ("", "ZADD k 1"),
    ("", "ZADD k 1 a 2"),
    ("", "ZADD k NX CH"),
    ("", "ZADD k NX XX 1 a"),
    ("", "ZADD k NX GT 1 a"),
    ("", "ZADD k GT LT 1 a"),
    ("", "ZADD k GT NX LT 1 a"),
    ("", "ZADD k INCR 1 a 2 b"),
    ("", "ZADD k abc a"),
    ("", "ZADD k nan a"),
    ("", "ZADD k 1e400 a"),
    ("", "ZADD k 1e-400 a"),
    ("", "ZADD k \"\" a"),
    ("", "ZADD k 1 a x b"),
    ("", "GEOADD k 13.361389 38.115556 a 15 37 b"),
    ("", "GEOADD k 13 38 a 15 37 a"),
    ("", "GEOADD k NX 13 38 a"),
    ("GEOADD k 1 1 a", "GEOADD k XX CH 13 38 a"),
    ("", "GEOADD k 181 38 a"),
    ("", "GEOADD k 13 85.06 a"),
    ("", "GEOADD k -180 -85.05112878 a"),
    ("", "GEOADD k x 38 a"),
    ("", "GEOADD k 13 nan a"),
    ("", "GEOADD k inf 13 a"),
    ("", "GEOADD k 13 38 a 15"),
    ("", "GEOADD k NX XX 13 38 a"),
    ("", "GEOADD k NX CH CH"),
    ("", "GEOADD k 13 38"),
    ("ZADD k 1 a 2 b 3 c", "ZREM k a a b"),
    ("", "ZREM k"),
    ("", "ZREMRANGEBYSCORE k -inf (5"),
    ("", "ZREMRANGEBYSCORE k \"\" 0x10"),
    ("", "ZREMRANGEBYSCORE k a 5"),
    ("", "ZREMRANGEBYSCORE k 1 nan"),
    ("", "ZREMRANGEBYSCORE k 1 1e400"),
    ("", "ZREMRANGEBYSCORE k 1 ("),
    ("", "ZREMRANGEBYSCORE k 1"),
    ("", "ZREMRANGEBYLEX k - +"),
    ("", "ZREMRANGEBYLEX k [a (b"),
    ("", "ZREMRANGEBYLEX k a b"),
    ("", "ZREMRANGEBYLEX k -a +"),
    ("", "ZREMRANGEBYRANK k 0 -1"),
    ("", "ZREMRANGEBYRANK k 0 x"),
    // Lists
    ("", "RPUSH k a b a"),
    ("", "LPUSH k a b a"),
    ("", "RPUSH k"),
    ("RPUSH k a b c", "LTRIM k 0 1"),
    ("RPUSH k a b c", "LTRIM k -2 -1"),
    ("", "LTRIM k a 1"),
    ("", "LTRIM k 0 9223372036854775808"),
    ("", "LTRIM k 0"),
    // HyperLogLog
    ("", "PFADD k a b a"),
    ("", "PFADD k"),
    ("", "PFADD"),
    ("PFADD k2 a b ; PFADD k3 c", "PFMERGE k k2 k3"),
    ("", "PFMERGE k"),
    // Streams
    ("", "XADD k 5-3 a b"),
    ("", "XADD k 5 a b c d"),
    ("", "XADD k 007-01 a b"),
    ("", "XADD k 5-* a b"),
    ("", "XADD k 0-* a b"),
    (STREAM, "XADD k MAXLEN 2 9-1 a b"),
    (STREAM, "XADD k MAXLEN = 2 9-1 a b"),
    (STREAM, "XADD k MAXLEN ~ 2 LIMIT 10 9-1 a b"),
    (STREAM, "XADD k MINID 2-1 9-1 a b"),
    ("", "XADD k 0-0 a b"),
    ("", "XADD k 0 a b"),
    ("", "XADD k * a"),
    ("", "XADD k 1-1 a b c"),
    ("", "XADD k x a b"),
    ("", "XADD k - a b"),
    ("", "XADD k 1-2-3 a b"),
    ("", "XADD k 18446744073709551616-1 a b"),
    ("", "XADD k MAXLEN -1 * a b"),
    ("", "XADD k MAXLEN x * a b"),
    ("", "XADD k MAXLEN 1 MINID 1 * a b"),
    ("", "XADD k MAXLEN 1 MAXLEN 2 * a b"),
    ("", "XADD k MINID x * a b"),
    ("", "XADD k LIMIT 5 * a b"),
    ("", "XADD k LIMIT -5 * a b"),
    ("", "XADD k MAXLEN 1 LIMIT 5 * a b"),
    ("", "XADD k MAXLEN ~ 1 LIMIT x * a b"),
    ("", "XADD k MAXLEN 1 x a b"),
    ("", "XADD k MAXLEN ~ 1 * a"),
    ("", "XADD k MAXLEN 1 NOMKSTREAM MAXLEN"),
    ("", "XADD k LIMIT 5 x a b"),
    ("", "XADD k *"),
    (STREAM, "XDEL k 1-1 1-1 2-1"),
    (STREAM, "XDEL k 1-1 x"),
    ("", "XDEL k"),
    (GROUP, "XACK k g 1-1 1-1 2-1"),
    (GROUP, "XACK k g 1-1 -"),
    ("", "XACK k g"),
    ("", "XTRIM k MAXLEN 5"),
    ("", "XTRIM k MAXLEN"),
    ("", "XTRIM k FOO 5"),
    ("", "XTRIM k LIMIT 5"),
    ("", "XTRIM k LIMIT 0"),
    ("", "XTRIM k MAXLEN 5 LIMIT 5"),
    ("", "XTRIM k MAXLEN ~ 5 LIMIT 0"),
    ("", "XTRIM k MINID x"),
    ("", "XTRIM k MAXLEN 5 MAXLEN 6"),
    (STREAM, "XGROUP CREATE k g 0"),
    ("", "XGROUP CREATE k g 5-1 MKSTREAM"),
    ("", "XGROUP CREATE k g 0 MKSTREAM ENTRIESREAD 3"),
    (STREAM, "XGROUP CREATE k g x"),
    ("", "XGROUP Create k g 0 FOO"),
    ("", "XGROUP CREATE k g 0 MKSTREAM ENTRIESREAD x"),
    ("", "XGROUP CREATE k g 0 MKSTREAM ENTRIESREAD -2"),
    ("", "XGROUP CREATE k g 0 MKSTREAM ENTRIESREAD"),
    ("", "XGROUP CREATE k g"),
    ("", "XGROUP CREATECONSUMER k g"),
    // Arity is Redis's word for writes that we refuse, too.
    ("", "INCR"),
    ("", "SETNX k"),
    ("", "GETSET k"),
    ("", "XGROUP DESTROY k"),
    ("", "RENAME k"),
    ("", "SUNIONSTORE k"),
];

/// How many go depends on what is there: `:0` is answered.
const UNCOUNTED: &[(&str, &str)] = &[
    ("ZADD k 1 a 2 b 3 c", "ZREMRANGEBYSCORE k 1 (3"),
    ("ZADD k 1 a 1 b 1 c", "ZREMRANGEBYLEX k [a (c"),
    ("ZADD k 1 a 2 b 3 c", "ZREMRANGEBYRANK k 0 -2"),
    (STREAM, "XTRIM k MAXLEN 1"),
    (STREAM, "XTRIM k MINID = 2-1"),
    (STREAM, "XTRIM k MAXLEN ~ 1 LIMIT 5"),
];

const MADE_BY_REDIS: &[(&str, &str)] = &[
    ("", "XADD k * a b"),
    (STREAM, "XADD k MAXLEN 2 * a b c d"),
    ("XADD k 1-1 a b ; XGROUP CREATE k g 0", "XGROUP CREATECONSUMER k g c"),
];

struct Server {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        Self { child, port, _dir: dir }
    }

    fn connect(&self, protocol: Protocol) -> Connection {
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => panic!("redis-server did not come up: {error}"),
                Err(_) => std::thread::yield_now(),
            }
        };
        stream.set_nodelay(true).unwrap();
        let mut connection = Connection(BufReader::new(stream));
        if protocol == Protocol::Resp3 {
            connection.command("HELLO 3");
        }
        connection
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn command(&mut self, text: &str) -> Vec<u8> {
        self.raw(OwnedRequest::new(&words(text)).as_request().frame())
    }

    fn raw(&mut self, frame: &[u8]) -> Vec<u8> {
        self.0.get_mut().write_all(frame).unwrap();
        let mut reply = Vec::new();
        self.reply(&mut reply);
        reply
    }

    fn reply(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        self.0.read_until(b'\n', out).unwrap();
        let line = String::from_utf8_lossy(&out[start + 1..out.len() - 2]).into_owned();
        match out[start] {
            b'$' | b'=' => {
                if let Ok(len) = line.parse::<usize>() {
                    let mut payload = vec![0; len + 2];
                    self.0.read_exact(&mut payload).unwrap();
                    out.extend(payload);
                }
            }
            kind @ (b'*' | b'~' | b'>' | b'%') => {
                let n = line.parse::<usize>().unwrap_or(0);
                for _ in 0..if kind == b'%' { n * 2 } else { n } {
                    self.reply(out);
                }
            }
            _ => {}
        }
    }

    fn state(&mut self, db: u32, compared: Compared) -> Vec<Vec<u8>> {
        self.command(&format!("SELECT {db}"));
        let commands: &[&str] = match compared {
            Compared::Everything | Compared::State => &["DUMP"],
            Compared::Shape => &["TYPE", "XLEN", "XINFO GROUPS"],
        };
        let pairs = KEYS.iter().flat_map(|key| commands.iter().map(move |command| format!("{command} {key}")));
        pairs.map(|command| self.command(&command)).collect()
    }

    fn ttls_ms(&mut self, db: u32) -> Vec<i64> {
        self.command(&format!("SELECT {db}"));
        let replies = KEYS.map(|key| self.command(&format!("PTTL {key}")));
        let text = |reply: Vec<u8>| String::from_utf8(reply).unwrap();
        replies.map(|reply| text(reply)[1..].trim_end().parse().unwrap()).to_vec()
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(|word| word.replace("\"\"", "")).collect()
}

fn spec(args: &[String]) -> &'static Spec {
    let two = args.iter().take(2).cloned().collect::<Vec<_>>().join(" ");
    TABLE
        .iter()
        .find(|spec| spec.name.eq_ignore_ascii_case(&two))
        .or_else(|| TABLE.iter().find(|spec| spec.name.eq_ignore_ascii_case(&args[0])))
        .expect("the command is in the table")
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Primes both databases alike, runs the command in db 0 and our effect in db 1, and says what differs.
fn check(redis: &mut Connection, protocol: Protocol, (prime, command): (&str, &str), compared: Compared) -> Option<String> {
    let args = words(command);
    check_args(redis, protocol, prime, &args, compared).map(|difference| format!("{command} ({protocol:?}): {difference}"))
}

fn check_args<A: AsRef<[u8]>>(
    redis: &mut Connection,
    protocol: Protocol,
    prime: &str,
    args: &[A],
    compared: Compared,
) -> Option<String> {
    redis.command("FLUSHALL");
    redis.command("SELECT 0");
    for prime in prime.split(" ; ").filter(|prime| !prime.is_empty()) {
        let reply = redis.command(prime);
        assert!(!reply.starts_with(b"-"), "{prime}: {}", String::from_utf8_lossy(&reply));
    }
    for key in KEYS {
        redis.command(&format!("COPY {key} {key} DB 1"));
    }
    let request = OwnedRequest::new(args);
    let redis_reply = redis.raw(request.as_request().frame());
    let names = args.iter().map(|arg| String::from_utf8_lossy(arg.as_ref()).into_owned());
    let mut out = Vec::new();
    let mut ctx = WriteContext {
        protocol,
        upstream_name: "main",
        wall_ms: u64::try_from(now_ms()).unwrap(),
        stream_ids: &mut StreamIds::default(),
    };
    let outcome = write(spec(&names.collect::<Vec<_>>()), &request.as_request(), &mut ctx, &mut out);
    let replies = format!(
        "Redis {:?}, we {:?}",
        String::from_utf8_lossy(&redis_reply),
        String::from_utf8_lossy(&out)
    );
    let effect = match outcome {
        Write::Error => return (out != redis_reply).then_some(replies),
        Write::Refused => return Some(replies),
        Write::Journal(effect) => effect,
    };
    let same_reply = match compared {
        Compared::Everything => out == redis_reply,
        Compared::State => out == b":0\r\n" && redis_reply.starts_with(b":"),
        Compared::Shape => out[..1] == redis_reply[..1] && out.len() == redis_reply.len(),
    };
    if !same_reply {
        return Some(replies);
    }
    let mut payload = Vec::new();
    encode(Origin { db: 1, identity: b"" }, &[effect], &mut payload);
    let mut rendered = Vec::new();
    decode(&payload).unwrap().render(0, now_ms(), &mut rendered);
    redis.command("SELECT 1");
    let replayed = redis.raw(&rendered);
    if replayed.starts_with(b"-") {
        return Some(format!("the effect failed: {}", String::from_utf8_lossy(&replayed)));
    }
    let ttls = redis.ttls_ms(0).into_iter().zip(redis.ttls_ms(1));
    for (original, effect) in ttls {
        if (original < 0 || effect < 0) && original != effect || original.abs_diff(effect) > 2_000 {
            return Some(format!("TTL {original}, from the effect {effect}"));
        }
    }
    let same_state = redis.state(0, compared) == redis.state(1, compared);
    (!same_state).then(|| "the effect leaves another state".to_owned())
}

#[test]
fn acknowledgements_errors_and_effects_are_those_of_redis() {
    let server = Server::start();
    let tables = [
        (SAMPLES, Compared::Everything),
        (UNCOUNTED, Compared::State),
        (MADE_BY_REDIS, Compared::Shape),
    ];
    let mut differences = Vec::new();
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut redis = server.connect(protocol);
        for (samples, compared) in tables {
            let checks = samples.iter().filter_map(|sample| check(&mut redis, protocol, *sample, compared));
            differences.extend(checks);
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_restored_value_and_its_time_to_live_are_those_of_redis() {
    let server = Server::start();
    let mut redis = server.connect(Protocol::Resp2);
    redis.command("RPUSH k a b c");
    let dump = redis.command("DUMP k");
    let payload_at = dump.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let payload = &dump[payload_at..dump.len() - 2];
    let tables: [&[&[u8]]; 4] = [
        &[b"RESTORE", b"k", b"0", payload, b"REPLACE"],
        &[b"RESTORE", b"k", b"100000", payload, b"replace", b"IDLETIME", b"5"],
        &[b"RESTORE", b"k", b"4102444800000", payload, b"ABSTTL", b"REPLACE"],
        &[b"RESTORE", b"k", b"1", payload, b"ABSTTL", b"REPLACE"],
    ];
    for args in tables {
        let difference = check_args(&mut redis, Protocol::Resp2, "SET k old", args, Compared::Everything);
        assert_eq!(difference, None, "{} arguments", args.len());
    }
}
