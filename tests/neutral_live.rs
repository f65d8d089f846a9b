//! Neutral replies against a live, empty redis-server, byte for byte, in RESP2 and RESP3.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tideover::command::{Flags, Spec, TABLE, lookup};
use tideover::outage::{Answer, answer};
use tideover::resp::Protocol;
use tideover::resp::request::OwnedRequest;

/// Requests that an empty Redis answers without an error; two blanks stand for an empty argument between them.
const GOOD: &[&str] = &[
    "GET k",
    "HGET h f",
    "LINDEX l 0",
    "DUMP k",
    "RANDOMKEY",
    "MEMORY USAGE k",
    "MEMORY USAGE k SAMPLES 5",
    "OBJECT ENCODING k",
    "OBJECT FREQ k",
    "OBJECT IDLETIME k",
    "OBJECT REFCOUNT k",
    "ZSCORE z m",
    "GEODIST g a b",
    "GEODIST g a b KM",
    "GETRANGE k 0 -1",
    "SUBSTR k 0 -1",
    "STRLEN k",
    "BITCOUNT k",
    "BITCOUNT k 0 -1 BIT",
    "GETBIT k 7",
    "EXISTS a b",
    "TOUCH a b",
    "DBSIZE",
    "HLEN h",
    "HEXISTS h f",
    "HSTRLEN h f",
    "LLEN l",
    "SCARD s",
    "SISMEMBER s m",
    "SINTERCARD 2 a b",
    "SINTERCARD 2 a b LIMIT 3",
    "ZCARD z",
    "ZCOUNT z (1 +inf",
    "ZCOUNT z  1",
    "ZLEXCOUNT z [a (b",
    "ZLEXCOUNT z - +",
    "ZINTERCARD 2 a b",
    "ZINTERCARD 1 a LIMIT 0",
    "XLEN s",
    "PFCOUNT a b",
    "TYPE k",
    "TTL k",
    "PTTL k",
    "EXPIRETIME k",
    "PEXPIRETIME k",
    "MGET a b c",
    "HMGET h a b",
    "SMISMEMBER s a b",
    "ZMSCORE z a b",
    "GEOHASH g",
    "GEOHASH g a b",
    "GEOPOS g",
    "GEOPOS g a b",
    "BITFIELD_RO k",
    "BITFIELD_RO k GET u8 0 GET i64 #3",
    "BITPOS k 0",
    "BITPOS k 1 0 -1 BYTE",
    "LCS a b",
    "LCS a b LEN",
    "LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN",
    "SCAN 0",
    "SCAN 00 MATCH x* COUNT 10 TYPE string",
    "HSCAN h 0",
    "SSCAN s 0 MATCH a",
    "ZSCAN z 0 COUNT 5",
    "KEYS *",
    "HGETALL h",
    "HKEYS h",
    "HVALS h",
    "HRANDFIELD h",
    "HRANDFIELD h -3",
    "HRANDFIELD h 3 WITHVALUES",
    "ZRANDMEMBER z",
    "ZRANDMEMBER z 3",
    "ZRANDMEMBER z -3 WITHSCORES",
    "SRANDMEMBER s",
    "SRANDMEMBER s 4",
    "LRANGE l 0 -1",
    "SORT_RO l BY w* GET # LIMIT 0 5 ALPHA DESC",
    "LPOS l x",
    "LPOS l x RANK -1 MAXLEN 5",
    "LPOS l x COUNT 0",
    "SMEMBERS s",
    "SINTER a b",
    "SUNION a b",
    "SDIFF a b",
    "ZRANGE z 0 -1",
    "ZRANGE z 0 -1 REV WITHSCORES",
    "ZRANGE z (1 2 BYSCORE LIMIT 0 5",
    "ZRANGE z - + BYLEX REV LIMIT -1 5",
    "ZRANGE z 0 1 LIMIT 0 -1",
    "ZRANGEBYSCORE z -inf +inf WITHSCORES LIMIT 0 1",
    "ZRANGEBYLEX z - [b LIMIT 0 1",
    "ZREVRANGE z 0 1 WITHSCORES",
    "ZREVRANGEBYSCORE z 5 (1",
    "ZREVRANGEBYLEX z + -",
    "ZDIFF 2 a b WITHSCORES",
    "ZINTER 2 a b WEIGHTS 1 2.5 AGGREGATE MAX",
    "ZUNION 1 a AGGREGATE sum WITHSCORES",
    "GEOSEARCH g FROMMEMBER m BYRADIUS 1 m",
    "GEOSEARCH g FROMLONLAT 1 1 BYBOX 1 1 km ASC COUNT 1 ANY WITHDIST WITHHASH",
    "GEORADIUS_RO g 1 1 1 km WITHCOORD COUNT 2 DESC",
    "GEORADIUSBYMEMBER_RO g m 1 mi",
    "XRANGE s - +",
    "XRANGE s 1 (2-3 COUNT 5",
    "XREVRANGE s + - COUNT 1",
    "ZRANK z m",
    "ZREVRANK z m",
    "XREAD STREAMS a b 0 $",
    "XREAD COUNT 2 STREAMS a 1-1",
    "XREAD COUNT -1 BLOCK 10 STREAMS a $",
    "PUBLISH c m",
    "SPUBLISH c m",
    "PUBSUB CHANNELS",
    "PUBSUB CHANNELS a*",
    "PUBSUB SHARDCHANNELS",
    "PUBSUB NUMSUB",
    "PUBSUB NUMSUB a b",
    "PUBSUB SHARDNUMSUB a",
    "PUBSUB NUMPAT",
    "SLOWLOG GET",
    "SLOWLOG GET -1",
    "SLOWLOG LEN",
    "LATENCY LATEST",
    "LATENCY HISTORY command",
    "MODULE LIST",
    "SCRIPT EXISTS ffff eeee",
    "LPOP l",
    "RPOP l 2",
    "LPOP l 0",
    "SPOP s",
    "SPOP s 2",
    "ZPOPMIN z",
    "ZPOPMAX z 2",
    "LMPOP 2 a b LEFT",
    "LMPOP 1 a RIGHT COUNT 3",
    "ZMPOP 1 a MIN COUNT 2",
    "LMOVE a b LEFT RIGHT",
    "RPOPLPUSH a b",
    "GETEX k",
    "GETEX k EX 10",
    "GETEX k PERSIST",
    "SORT l",
    "SORT l BY nosort GET a* GET b* ASC",
    "GEORADIUS g 1 1 1 km",
    "GEORADIUSBYMEMBER g m 1 km WITHDIST",
    "BITFIELD k GET u8 0",
    "BITFIELD k OVERFLOW SAT",
    "BLPOP a b 0.01",
    "BRPOP a 0.01",
    "BZPOPMIN a 0.01",
    "BZPOPMAX a b 0.01",
    "BLMPOP 0.01 2 a b LEFT COUNT 1",
    "BZMPOP 0.01 1 a MAX",
    "BLMOVE a b LEFT RIGHT 0.01",
    "BRPOPLPUSH a b 0.01",
    "WAIT 0 10",
    "WAIT 1 10",
];

/// Requests with bad arguments, most of which Redis refuses.
const BAD: &[&str] = &[
    "GETRANGE k a 1",
    "GETRANGE k 0 01",
    "SUBSTR k 0 x",
    "GETBIT k -1",
    "GETBIT k x",
    "GETBIT k 4294967296",
    "GETBIT k 4294967295",
    "BITCOUNT k x",
    "BITPOS k 2",
    "BITPOS k x",
    "BITPOS k 1 x",
    "BITPOS k 1 0 1 BIT x",
    "BITFIELD_RO k SET u8 0 1",
    "BITFIELD_RO k GET u64 0",
    "BITFIELD_RO k GET i65 0",
    "BITFIELD_RO k GET u0 0",
    "BITFIELD_RO k GET x8 0",
    "BITFIELD_RO k GET u8 x",
    "BITFIELD_RO k GET u8 -1",
    "BITFIELD_RO k GET u8 #99999999999999",
    "BITFIELD_RO k GET i64 4294967295",
    "BITFIELD_RO k GET u8",
    "BITFIELD k OVERFLOW FOO",
    "BITFIELD k SET u8 0 x",
    "LCS a b LEN IDX",
    "LCS a b MINMATCHLEN x",
    "LCS a b MINMATCHLEN",
    "LCS a b FOO",
    "HRANDFIELD h x",
    "HRANDFIELD h 1 FOO",
    "HRANDFIELD h 1 WITHVALUES x",
    "HRANDFIELD h -9223372036854775808",
    "HRANDFIELD h -5000000000000000000 WITHVALUES",
    "HRANDFIELD h 4611686018427387904 WITHVALUES",
    "HRANDFIELD h WITHVALUES",
    "ZRANDMEMBER z x",
    "ZRANDMEMBER z -9223372036854775808",
    "ZRANDMEMBER z 1 FOO",
    "ZRANDMEMBER z -5000000000000000000 WITHSCORES",
    "SRANDMEMBER s x",
    "SRANDMEMBER s -9223372036854775808",
    "SRANDMEMBER s 1 2",
    "SCAN x",
    "SCAN 1x",
    "SCAN -",
    "SCAN 18446744073709551616",
    "SCAN 0 COUNT 0",
    "SCAN 0 COUNT x",
    "SCAN 0 FOO",
    "SCAN 0 MATCH",
    "SCAN 0 FOO bar",
    "HSCAN h x",
    "HSCAN h 0 FOO",
    "SSCAN s 0 COUNT x",
    "LINDEX l x",
    "LRANGE l a b",
    "LRANGE l 0 +1",
    "LPOS l x RANK 0",
    "LPOS l x RANK a",
    "LPOS l x COUNT -1",
    "LPOS l x COUNT a",
    "LPOS l x MAXLEN -1",
    "LPOS l x FOO 1",
    "LPOS l x RANK",
    "SINTERCARD x a",
    "SINTERCARD 0 a",
    "SINTERCARD 2 a",
    "SINTERCARD 1 a LIMIT -1",
    "SINTERCARD 1 a LIMIT x",
    "SINTERCARD 1 a FOO",
    "SINTERCARD 1 a LIMIT",
    "ZINTERCARD x a",
    "ZINTERCARD 0 a",
    "ZINTERCARD 2 a",
    "ZINTERCARD 1 a LIMIT -1",
    "ZINTERCARD 1 a FOO",
    "ZINTERCARD 1 a WITHSCORES",
    "ZCOUNT z a b",
    "ZCOUNT z 1 nan",
    "ZCOUNT z ( 1",
    "ZCOUNT z ((1 1",
    "ZLEXCOUNT z a b",
    "ZLEXCOUNT z +x (b",
    "ZRANGE z a b",
    "ZRANGE z 0 x BYSCORE",
    "ZRANGE z 0 1 BYLEX",
    "ZRANGE z - + BYLEX WITHSCORES",
    "ZRANGE z 0 1 LIMIT 0 1",
    "ZRANGE z 0 1 LIMIT 0",
    "ZRANGE z 0 1 BYSCORE LIMIT x 1",
    "ZRANGE z 0 1 FOO",
    "ZRANGE z 0 1 BYSCORE BYLEX",
    "ZRANGE z 0 1 REV REV",
    "ZRANGEBYSCORE z a b",
    "ZRANGEBYSCORE z 0 1 REV",
    "ZRANGEBYSCORE z 0 1 BYSCORE",
    "ZRANGEBYLEX z - + WITHSCORES",
    "ZRANGEBYLEX z a b",
    "ZREVRANGE z 0 1 REV",
    "ZREVRANGE z 0 1 LIMIT 0 1",
    "ZREVRANGE z a b FOO",
    "ZUNION x a",
    "ZUNION 0 a",
    "ZUNION 2 a",
    "ZUNION 9223372036854775807 a",
    "ZUNION 1 a WEIGHTS",
    "ZUNION 1 a WEIGHTS x",
    "ZUNION 1 a AGGREGATE FOO",
    "ZUNION 1 a FOO",
    "ZDIFF 1 a WEIGHTS 1",
    "ZDIFF 0 a",
    "ZDIFF 1 a LIMIT 1",
    "ZINTER 0 a",
    "GEODIST g a b foo",
    "GEODIST g a b m x",
    "GEOSEARCH g FROMLONLAT x 1 BYBOX 1 1 km",
    "GEOSEARCH g FROMLONLAT 1 1 BYRADIUS x km",
    "GEOSEARCH g FROMLONLAT 1 1 BYRADIUS 1 foo",
    "GEOSEARCH g FROMLONLAT 1 1 BYRADIUS -1 m",
    "GEOSEARCH g FROMLONLAT 1 1 FROMMEMBER a BYRADIUS 1 m",
    "GEOSEARCH g FROMLONLAT 1 1 ASC ASC ASC",
    "GEOSEARCH g BYRADIUS 1 m ASC ASC ASC",
    "GEOSEARCH g FROMLONLAT 1 1 BYRADIUS 1 m COUNT 0",
    "GEOSEARCH g FROMLONLAT 1 1 BYRADIUS 1 m ANY",
    "GEOSEARCH g FROMLONLAT 1 1 BYRADIUS 1 m COUNT x",
    "GEOSEARCH g FROMLONLAT 1 1 BYRADIUS 1 m FOO",
    "GEOSEARCH g FROMLONLAT 1 100 BYRADIUS 1 m",
    "GEOSEARCH g FROMLONLAT -180.1 1 BYRADIUS 1 m",
    "GEOSEARCH g FROMLONLAT 1 1 BYBOX -1 1 m",
    "GEOSEARCH g FROMLONLAT 1 1 BYBOX 1 x m",
    "GEOSEARCH g FROMLONLAT 1 1 BYBOX x 1 m",
    "GEOSEARCH g FROMLONLAT 1 1 BYRADIUS 1 m BYBOX 1 1 m",
    "GEOSEARCH g FROMLONLAT 1 1 BYRADIUS 1 m STORE d",
    "GEORADIUS g x 1 1 km",
    "GEORADIUS g 1 1 x km",
    "GEORADIUS g 1 1 1 foo",
    "GEORADIUS g 1 1 -1 km",
    "GEORADIUS g 1 1 1 m FOO",
    "GEORADIUS g 1 1 1 m STORE d WITHCOORD",
    "GEORADIUS_RO g 1 1 1 m STORE d",
    "GEORADIUSBYMEMBER_RO g m x km",
    "GEORADIUSBYMEMBER g m -1 km",
    "GEORADIUSBYMEMBER g m 1 km FOO",
    "GEORADIUSBYMEMBER_RO g m 1 km STORE d",
    "XRANGE s a b",
    "XRANGE s - + COUNT x",
    "XRANGE s - + COUNT -1",
    "XRANGE s - + FOO 1",
    "XRANGE s - + COUNT",
    "XRANGE s (- +",
    "XRANGE s (18446744073709551615-18446744073709551615 +",
    "XRANGE s (18446744073709551615 +",
    "XRANGE s - (0-0",
    "XRANGE s - (0",
    "XRANGE s 1-1-1 +",
    "XREVRANGE s a b",
    "XREVRANGE s (0-0 -",
    "XREVRANGE s + - COUNT 1 2",
    "XPENDING s g - +",
    "XPENDING s g - + x",
    "XPENDING s g IDLE x - + 10",
    "XPENDING s g a b 10",
    "XPENDING s g FOO 1 2 3",
    "MEMORY USAGE k SAMPLES",
    "MEMORY USAGE k SAMPLES x",
    "MEMORY USAGE k SAMPLES -1",
    "MEMORY USAGE k FOO 1",
    "SORT l LIMIT 1",
    "SORT l LIMIT 1 x",
    "SORT l GET",
    "SORT l FOO",
    "SORT_RO l STORE d",
    "SLOWLOG GET x",
    "SLOWLOG GET -2",
    "PUBSUB CHANNELS a b",
    "PUBSUB shardchannels a b",
    "XREAD BLOCK -1 STREAMS a $",
    "XREAD BLOCK x STREAMS a $",
    "XREAD BLOCK 99999999999999999999 STREAMS a $",
    "XREAD COUNT x STREAMS a $",
    "XREAD STREAMS a b 0",
    "XREAD STREAMS a b",
    "XREAD STREAMS a >",
    "XREAD STREAMS a -",
    "XREAD BLOCK 1 COUNT 1 STREAMS a 0-x",
    "XREAD FOO STREAMS a 0",
    "XREAD COUNT 1 NOACK STREAMS",
    "XREAD GROUP g c STREAMS a 0",
    "XREAD COUNT 1 BLOCK 1",
    "XREADGROUP FOO g c STREAMS s >",
    "XREADGROUP GROUP g c COUNT 1 STREAMS s",
    "XREADGROUP GROUP g c COUNT 1 STREAMS a b >",
    "XREADGROUP COUNT 1 NOACK NOACK STREAMS s >",
    "XAUTOCLAIM s g c x 0",
    "XAUTOCLAIM s g c 0 0 COUNT 0",
    "XAUTOCLAIM s g c 0 x",
    "XAUTOCLAIM s g c 0 0 FOO",
    "BLPOP a -1",
    "BLPOP a x",
    "BLPOP a nan",
    "BLPOP a inf",
    "BLPOP a 1e300",
    "BLMPOP 0.01 0 a LEFT",
    "BLMPOP 0.01 x a LEFT",
    "BLMPOP 1 2 a LEFT",
    "BLMPOP x 1 a LEFT COUNT 0",
    "BLMPOP x 1 a LEFT",
    "BZMPOP 0.01 1 a FOO",
    "BLMOVE a b X LEFT 0.1",
    "BLMOVE a b LEFT LEFT x",
    "BRPOPLPUSH a b -1",
    "LMOVE a b LEFT FOO",
    "LPOP l -1",
    "LPOP l x",
    "LPOP l 1 2",
    "SPOP s -1",
    "SPOP s x",
    "SPOP s 1 2",
    "ZPOPMIN z x",
    "ZPOPMAX z -1",
    "ZPOPMIN z 1 2",
    "LMPOP 0 a LEFT",
    "LMPOP x a LEFT",
    "LMPOP 1 a LEFT COUNT 0",
    "LMPOP 1 a LEFT COUNT x",
    "LMPOP 1 a LEFT COUNT 1 COUNT 1",
    "LMPOP 1 a LEFT FOO",
    "LMPOP 2 a LEFT",
    "LMPOP 1 a FOO",
    "ZMPOP 1 a MIN COUNT 0",
    "GETEX k EX 10 PERSIST",
    "GETEX k FOO",
    "GETEX k EX",
    "GETEX k KEEPTTL",
    "GETEX k EX 1 PX 1",
    "WAIT x 0",
    "WAIT 0 x",
    "WAIT 0 -1",
    "CLIENT FOO",
    "CONFIG foo bar",
    "OBJECT FOO a",
    "MEMORY FOO",
    "XINFO FOO",
    "PUBSUB FOO",
    "CLUSTER FOO",
    "COMMAND FOO",
    "GEORADIUSBYMEMBER g m 1 km ANY",
    "GEORADIUSBYMEMBER g m 1 km COUNT 0",
    "GEORADIUSBYMEMBER g m 1 km STORE d WITHDIST",
    "GEORADIUS g 1 1 1 km ANY",
    "GEORADIUS g 1 1 1 km COUNT 1 STORE",
    "ZRANGE z 0 1 withscores LIMIT -1 -1",
    "XPENDING s g IDLE",
    "XPENDING s g IDLE 1",
    "XPENDING s g IDLE 5 - +",
    "XPENDING s g IDLE 5 - + 1 c d",
    "XAUTOCLAIM s g c 0 (x",
    "XAUTOCLAIM s g c 0 (18446744073709551615-18446744073709551615",
    "XAUTOCLAIM s g c 0 0 COUNT",
    "XREAD STREAMS",
    "XREAD COUNT",
    "XREAD BLOCK STREAMS a $",
    "BITPOS k 1 0 1 FOO",
    "ZCOUNT z (-inf (inf",
    "ZCOUNT z 1e5 infinity",
    "ZCOUNT z .5 5.",
    "ZCOUNT z 1_0 2",
    "GEOSEARCH g FROMLONLAT nan 1 BYRADIUS 1 m",
    "GEOSEARCH g FROMLONLAT 1 1 BYRADIUS inf m",
    "LCS a b LEN MINMATCHLEN 99999999999999999999",
    "SRANDMEMBER s 0",
    "HRANDFIELD h 0",
    "SINTERCARD 1 a LIMIT 0 LIMIT 2",
    "SORT l LIMIT 1 2 BY",
];

/// Reading commands whose answer differs on purpose, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "XPENDING",
        "an empty Redis answers NOGROUP, which makes consumers create the group",
    ),
    ("XINFO GROUPS", "an empty Redis answers that there is no such key"),
    ("XINFO CONSUMERS", "an empty Redis answers that there is no such key"),
    (
        "XINFO STREAM",
        "refused: a made-up last ID misleads who reads by offset",
    ),
    ("EVAL_RO", "refused: a script's reply is of any type"),
    ("EVALSHA_RO", "refused: a script's reply is of any type"),
    ("FCALL_RO", "refused: a function's reply is of any type"),
    ("LOLWUT", "refused: it tells the version of a server that is not there"),
];

/// Commands whose arity grew after 7.0.
const ARITY_SINCE_CHANGED: &[&str] = &["ZRANK", "ZREVRANK"];

const SENTINEL: &[u8] = b"$8\r\nsentinel\r\n";
const PROTOCOLS: [Protocol; 2] = [Protocol::Resp2, Protocol::Resp3];

struct Server {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
            ])
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        Self {
            child,
            port,
            _directory: directory,
        }
    }

    fn connect(&self, protocol: Protocol) -> Connection {
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "redis-server does not answer: {error}"),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut connection = Connection(stream);
        if protocol == Protocol::Resp3 {
            connection.ask(&["HELLO", "3"]);
        }
        connection
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

struct Connection(TcpStream);

impl Connection {
    /// Redis's reply: everything before the reply to an ECHO that is sent behind.
    fn ask(&mut self, args: &[&str]) -> String {
        let mut bytes = OwnedRequest::new(args).as_request().frame().to_vec();
        bytes.extend_from_slice(OwnedRequest::new(&["ECHO", "sentinel"]).as_request().frame());
        self.0.write_all(&bytes).unwrap();
        let mut reply = Vec::new();
        let mut buffer = [0; 4096];
        while !reply.ends_with(SENTINEL) {
            let n = self
                .0
                .read(&mut buffer)
                .unwrap_or_else(|error| panic!("{args:?}: {error}"));
            assert_ne!(n, 0, "{args:?}: redis-server hung up");
            reply.extend_from_slice(&buffer[..n]);
        }
        reply.truncate(reply.len() - SENTINEL.len());
        String::from_utf8_lossy(&reply).into_owned()
    }
}

fn ours(args: &[&str], protocol: Protocol) -> (Answer, String) {
    let owned = OwnedRequest::new(args);
    let request = owned.as_request();
    let mut out = Vec::new();
    let answer = answer(lookup(&request), &request, protocol, "main", &mut out);
    (answer, String::from_utf8_lossy(&out).into_owned())
}

#[test]
fn answers_are_those_of_an_empty_redis() {
    let server = Server::start();
    let mut differences = Vec::new();
    for protocol in PROTOCOLS {
        let mut connection = server.connect(protocol);
        for line in GOOD.iter().chain(BAD) {
            let args: Vec<&str> = line.split(' ').collect();
            let (answer, ours) = ours(&args, protocol);
            assert!(
                matches!(answer, Answer::Reply | Answer::Hold { .. }),
                "{line}: {answer:?} {ours}"
            );
            let theirs = connection.ask(&args);
            if ours != theirs {
                differences.push(format!("{protocol:?} {line}: ours {ours:?}, Redis's {theirs:?}"));
            }
            let is_error = ours.starts_with('-');
            assert!(!(is_error && GOOD.contains(line)), "{line}: {ours}");
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn wrong_numbers_of_arguments_get_redis_s_error() {
    let server = Server::start();
    let mut connection = server.connect(Protocol::Resp2);
    let mut differences = Vec::new();
    let mut compared = 0;
    for spec in TABLE {
        if !is_known(&mut connection, spec) {
            continue;
        }
        for args in wrong_arities(spec) {
            let (answer, ours) = ours(&args, Protocol::Resp2);
            assert_eq!(answer, Answer::Reply, "{args:?}");
            let theirs = connection.ask(&args);
            compared += 1;
            if ours != theirs && !ARITY_SINCE_CHANGED.contains(&spec.name) {
                differences.push(format!("{args:?}: ours {ours:?}, Redis's {theirs:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared > 400, "only {compared} compared");
}

#[test]
fn every_reading_command_has_a_good_sample_or_a_reason() {
    let server = Server::start();
    let mut connection = server.connect(Protocol::Resp2);
    for spec in TABLE {
        if !spec.flags.contains(Flags::READONLY) || !is_known(&mut connection, spec) {
            continue;
        }
        let has_sample = GOOD.iter().any(|line| {
            let args: Vec<&str> = line.split(' ').collect();
            lookup(&OwnedRequest::new(&args).as_request()).is_some_and(|found| found.id == spec.id)
        });
        let is_exception = EXCEPTIONS.iter().any(|(name, _)| *name == spec.name);
        assert!(has_sample != is_exception, "{}", spec.name);
    }
}

/// Whether this server has the command.
fn is_known(connection: &mut Connection, spec: &Spec) -> bool {
    let name = spec.name.replace(' ', "|");
    connection.ask(&["COMMAND", "INFO", &name]).starts_with("*1\r\n*10\r\n")
}

/// One argument too few, and one too many where their number is fixed.
fn wrong_arities(spec: &'static Spec) -> Vec<Vec<&'static str>> {
    let words: Vec<&str> = spec.name.split(' ').collect();
    let bound = usize::from(spec.arity.unsigned_abs());
    let padded = |len: usize| {
        let mut args = words.clone();
        args.resize(len, "x");
        args
    };
    let mut all = Vec::new();
    if bound > words.len() {
        all.push(padded(bound - 1));
    }
    if spec.arity > 0 {
        all.push(padded(bound + 1));
    }
    all
}
