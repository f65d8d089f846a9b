//! The journal's own failures, on a real disk: a limit on file sizes stands for a disk without room, since any user can set one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

#[path = "../support/mod.rs"]
mod support;

use std::fs::File;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use support::process::Process;
use support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, bulk, error_text, wait_until};

/// A tideover below a limit. Its log goes through a process without one.
struct Limited {
    proxy: Tideover,
    log: Process,
    tideover: Process,
}

impl Limited {
    fn start(redis: &RedisServer, fsync: &'static str, limit: Option<u64>) -> Self {
        let proxy = Tideover::prepare(
            redis,
            &Settings {
                fsync,
                ..Settings::default()
            },
        );
        let (log, tideover) = launch(&proxy, limit);
        let mut limited = Self { proxy, log, tideover };
        limited.wait_until_listening();
        limited
    }

    /// After a SIGKILL, with the same files and ports.
    fn restart(&mut self, limit: Option<u64>) {
        self.tideover.kill();
        (self.log, self.tideover) = launch(&self.proxy, limit);
        self.wait_until_listening();
    }

    fn wait_until_listening(&mut self) {
        wait_until(DEADLINE, "tideover listens", || {
            assert_eq!(self.tideover.exited(), None, "{}", self.proxy.log_text());
            Client::try_connect(&self.proxy.address(), DEADLINE).is_ok()
        });
    }

    /// From now on no file grows beyond this.
    fn limit(&self, bytes: Option<u64>) {
        let pid = Pid::from_raw(i32::try_from(self.tideover.id()).unwrap()).unwrap();
        let limit = Rlimit {
            current: bytes,
            maximum: getrlimit(Resource::Fsize).maximum,
        };
        prlimit(Some(pid), Resource::Fsize, limit).unwrap();
    }

    fn has_metric(&self, series: &str, test: impl Fn(f64) -> bool) -> bool {
        let (_, metrics) = self.proxy.get("/metrics");
        let value = metrics.lines().find_map(|line| line.strip_prefix(series));
        value.is_some_and(|value| test(value.trim().parse().unwrap()))
    }

    #[track_caller]
    fn wait_for_trouble(&self) {
        wait_until(DEADLINE, "the trouble is counted, logged and shown", || {
            self.has_metric(NO_ROOM, |count| count > 0.0)
                && self.has_metric(WRITABLE, |writable| writable == 0.0)
                && self.proxy.log_text().contains("journal failed")
                && self.proxy.status()["journal_error"].is_string()
        });
        let (code, body) = self.proxy.get("/readyz");
        assert_eq!(code, 200, "{body}");
        assert!(body.contains("writes are refused"), "{body}");
    }

    #[track_caller]
    fn wait_for_its_end(&self) {
        wait_until(DEADLINE, "the trouble is over", || {
            self.has_metric(WRITABLE, |writable| writable == 1.0)
                && self.proxy.log_text().contains("journal works again")
                && self.proxy.status()["journal_error"].is_null()
        });
        assert_eq!(self.proxy.get("/readyz"), (200, "ok\n".to_owned()));
    }
}

const NO_ROOM: &str = "tideover_journal_errors_total{upstream=\"main\",kind=\"no_room\"}";
const WRITABLE: &str = "tideover_journal_writable{upstream=\"main\"}";

/// A write beyond the limit is an error instead of the signal that ends a process.
const SHELL: &str = r#"trap "" XFSZ; test -z "$2" || ulimit -S -f "$2"; exec "$0" run --config "$1""#;

/// `limit` in blocks of 512 bytes.
fn launch(proxy: &Tideover, limit: Option<u64>) -> (Process, Process) {
    let log = File::options()
        .create(true)
        .append(true)
        .open(proxy.dir().join("tideover.log"))
        .unwrap();
    let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(log).spawn().unwrap();
    let pipe = cat.stdin.take().unwrap();
    let tideover = Command::new("sh")
        .args(["-c", SHELL])
        .arg(Tideover::binary())
        .arg(proxy.config())
        .arg(limit.map(|limit| limit.to_string()).unwrap_or_default())
        .current_dir(proxy.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(pipe)
        .spawn()
        .unwrap();
    (Process::new(cat), Process::new(tideover))
}

#[track_caller]
fn refused(reply: &[u8]) {
    let error = error_text(reply).unwrap_or_default();
    assert!(
        error.starts_with("UNAVAILABLE") && !error.contains("may"),
        "{}",
        support::shown(reply)
    );
}

fn push(client: &mut Client, value: &str) -> Vec<u8> {
    client.call(&["RPUSH", "l", value])
}

#[test]
fn a_disk_that_fills_up_refuses_writes_and_takes_them_again_under_each_policy() {
    for fsync in ["always", "everysec", "no"] {
        let mut redis = RedisServer::absent(Durability::Memory);
        let limited = Limited::start(&redis, fsync, None);
        limited.proxy.wait_for_mode("down", DEADLINE);
        let mut client = limited.proxy.client();
        assert_eq!(push(&mut client, "before"), b":1\r\n", "{fsync}");
        limited.limit(Some(1));
        for _ in 0..3 {
            refused(&push(&mut client, "refused"));
        }
        assert_eq!(client.call(&["GET", "k"]), b"$-1\r\n", "reads go on");
        limited.wait_for_trouble();
        limited.limit(None);
        assert_eq!(push(&mut client, "after"), b":1\r\n", "{fsync}");
        limited.wait_for_its_end();
        redis.restart();
        limited.proxy.wait_for_recovery();
        let list = array(&redis.client().call(&["LRANGE", "l", "0", "-1"]));
        assert_eq!(list, ["before", "after"], "{fsync}");
    }
}

#[test]
fn a_start_on_a_full_disk_serves_replays_and_takes_writes_when_there_is_room() {
    let mut redis = RedisServer::absent(Durability::Memory);
    let mut limited = Limited::start(&redis, "everysec", None);
    limited.proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(push(&mut limited.proxy.client(), "before"), b":1\r\n");
    limited.restart(Some(0));
    limited.proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(limited.proxy.backlog(), 1);
    let mut client = limited.proxy.client();
    assert_eq!(client.call(&["GET", "k"]), b"$-1\r\n");
    refused(&push(&mut client, "refused"));
    limited.wait_for_trouble();
    limited.limit(None);
    limited.wait_for_its_end();
    assert_eq!(push(&mut client, "after"), b":1\r\n");
    redis.restart();
    limited.proxy.wait_for_recovery();
    let mut direct = redis.client();
    assert_eq!(array(&direct.call(&["LRANGE", "l", "0", "-1"])), ["before", "after"]);
    assert_eq!(client.call(&["SET", "k", "v"]), b"+OK\r\n");
    assert_eq!(direct.call(&["GET", "k"]), bulk("v"));
}

/// Of connections that are not on file the next process knows only that there were some.
#[test]
fn a_first_start_on_a_full_disk_keeps_nobody_from_redis() {
    let mut redis = RedisServer::start(Durability::Memory);
    let mut limited = Limited::start(&redis, "everysec", Some(0));
    limited.proxy.wait_for_mode("healthy", DEADLINE);
    let mut client = limited.proxy.client();
    assert_eq!(client.call(&["INCR", "n"]), b":1\r\n");
    assert_eq!(client.call(&["BLPOP", "none", "0.01"]), b"*-1\r\n");
    let fence = |limited: &Limited| limited.proxy.status()["fence"].as_str().unwrap().to_owned();
    assert_eq!(fence(&limited), "proven");
    redis.kill();
    limited.proxy.wait_for_mode("down", DEADLINE);
    refused(&push(&mut client, "refused"));
    redis.restart();
    limited.proxy.wait_for_recovery();
    assert_eq!(client.call(&["INCR", "n"]), b":1\r\n");
    limited.restart(Some(0));
    limited.proxy.wait_for_recovery();
    assert_eq!(fence(&limited), "unproven");
    limited.limit(None);
    limited.wait_for_its_end();
    let mut client = limited.proxy.client();
    // A connection that none of those that are there can stand in for.
    assert_eq!(client.call(&["SELECT", "1"]), b"+OK\r\n");
    assert_eq!(client.call(&["GET", "none"]), b"$-1\r\n");
    limited.restart(None);
    limited.proxy.wait_for_recovery();
    assert_eq!(fence(&limited), "proven", "all were put on file when there was room");
    redis.kill();
    limited.proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(push(&mut limited.proxy.client(), "journaled"), b":1\r\n");
    redis.restart();
    limited.proxy.wait_for_recovery();
    assert_eq!(array(&redis.client().call(&["LRANGE", "l", "0", "-1"])), ["journaled"]);
}

#[test]
fn damage_costs_its_record_only_and_is_counted_and_logged() {
    let mut redis = RedisServer::absent(Durability::Memory);
    let mut proxy = Tideover::start(&redis);
    proxy.wait_for_mode("down", DEADLINE);
    let mut client = proxy.client();
    for value in ["first", "damaged", "last"] {
        assert_eq!(push(&mut client, value), b":1\r\n");
    }
    proxy.kill();
    let journal = proxy.data_dir().join("main/journal");
    let segment = std::fs::read_dir(journal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "journal"))
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(7).position(|word| word == b"damaged").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    redis.restart();
    proxy.launch();
    proxy.wait_until_listening();
    proxy.wait_for_recovery();
    let list = array(&redis.client().call(&["LRANGE", "l", "0", "-1"]));
    assert_eq!(list, ["first", "last"]);
    assert!(
        proxy.log_text().contains("the journal is damaged"),
        "{}",
        proxy.log_text()
    );
    let (_, metrics) = proxy.get("/metrics");
    let damaged = "tideover_journal_errors_total{upstream=\"main\",kind=\"damaged\"} 1";
    assert!(metrics.contains(damaged), "{metrics}");
}
