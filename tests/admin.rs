//! The admin address and the command line: names that dashboards, probes and people rely on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use support::{DEADLINE, Durability, RedisServer, Settings, Tideover, await_down, error_text, integer};

const HEADER: &str = "X-Tideover: 1";

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn probes_answer_200_while_healthy_and_while_down() {
    let mut redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::healthy(&redis);
    assert_eq!((proxy.get("/livez").0, proxy.get("/readyz").0), (200, 200));
    redis.kill();
    await_down(&proxy);
    assert_eq!((proxy.get("/livez").0, proxy.get("/readyz").0), (200, 200));
}

#[test]
fn readyz_becomes_200_though_redis_was_never_there() {
    let redis = RedisServer::absent(Durability::Memory);
    let proxy = Tideover::start(&redis);
    support::wait_until(DEADLINE, "/readyz is 200", || {
        proxy.http("GET", "/readyz", &[]).is_ok_and(|(code, _)| code == 200)
    });
    assert_eq!(proxy.get("/livez").0, 200);
}

#[test]
fn no_upstreams_port_is_open_before_the_admin_address() {
    let redis = RedisServer::absent(Durability::Memory);
    let mut proxy = Tideover::prepare(&redis, &Settings::default());
    let taken = [proxy.address(), proxy.admin_address()].map(|address| TcpListener::bind(address).unwrap());
    proxy.launch();
    assert!(!proxy.process().wait_for_exit(DEADLINE).success());
    // Of the two it is the first that is named.
    let log = proxy.log_text();
    assert!(log.contains("(admin)") && !log.contains(&proxy.address()), "{log}");
    drop(taken);
}

#[test]
fn unknown_paths_and_methods_are_refused() {
    let redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::healthy(&redis);
    assert_eq!(proxy.get("/nonsense").0, 404);
    assert!(matches!(proxy.http("DELETE", "/status", &[]).unwrap().0, 404 | 405));
    let (code, page) = proxy.get("/");
    assert_eq!(code, 200);
    assert!(page.contains("tideover") && page.contains("main"), "{page}");
}

#[test]
fn status_has_its_documented_shape() {
    let redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::healthy(&redis);
    let _client = proxy.client();
    let status = proxy.try_status().unwrap();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let upstream = &status["upstreams"][0];
    assert_eq!(upstream["name"], "main");
    assert_eq!(upstream["listen"], proxy.address());
    assert_eq!(upstream["url"], redis.url());
    assert_eq!(
        (&upstream["state"], &upstream["mode"]),
        (&"closed".into(), &"healthy".into())
    );
    for count in [
        "records",
        "bytes",
        "oldest_age_ms",
        "acknowledged_total",
        "replayed_total",
        "retained_bytes",
    ] {
        assert!(upstream["queue"][count].is_u64(), "queue.{count} in {upstream}");
    }
    assert_eq!(upstream["dead_letters"], 0);
    support::wait_until(DEADLINE, "the client is counted", || proxy.status()["clients"] == 1);
    assert!(upstream["last_error"].is_null());
}

#[test]
fn status_tells_of_the_outage_and_the_backlog() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    redis.kill();
    await_down(&proxy);
    let mut client = proxy.client();
    for number in 0..10 {
        assert_eq!(client.call(&["SET", "k", &number.to_string()]), b"+OK\r\n");
    }
    let status = proxy.status();
    assert_eq!(status["state"], "open");
    assert_eq!(
        (&status["queue"]["records"], &status["queue"]["acknowledged_total"]),
        (&10.into(), &10.into())
    );
    assert!(status["queue"]["bytes"].as_u64().unwrap() > 0);
    assert!(status["last_error"].is_string(), "{status}");
    redis.restart();
    proxy.wait_for_recovery();
    let queue = proxy.status()["queue"].clone();
    assert_eq!(
        (&queue["records"], &queue["bytes"], &queue["replayed_total"]),
        (&0.into(), &0.into(), &10.into())
    );
}

/// Samples that a test knows the value of.
const SAMPLES: [&str; 9] = [
    "tideover_breaker_state{upstream=\"main\",state=\"closed\"} 1",
    "tideover_breaker_state{upstream=\"main\",state=\"open\"} 0",
    "tideover_breaker_state{upstream=\"main\",state=\"half_open\"} 0",
    "tideover_queue_records{upstream=\"main\"} 0",
    "tideover_queue_bytes{upstream=\"main\"} 0",
    "tideover_queue_oldest_age_seconds{upstream=\"main\"} 0",
    "tideover_queue_acknowledged_total{upstream=\"main\"} 2",
    "tideover_replayed_total{upstream=\"main\"} 2",
    "tideover_clients{upstream=\"main\"} 1",
];

/// (name, labels beside `upstream`)
type Family = (&'static str, &'static [&'static str]);

const FAMILIES: [Family; 14] = [
    ("tideover_breaker_transitions_total", &["from=", "to=", "reason="]),
    ("tideover_commands_total", &["route=\"forwarded\""]),
    ("tideover_commands_total", &["route=\"neutral\""]),
    ("tideover_commands_total", &["route=\"queued\""]),
    ("tideover_commands_total", &["route=\"rejected\""]),
    ("tideover_commands_total", &["route=\"local\""]),
    ("tideover_commands_total", &["route=\"held\""]),
    ("tideover_command_duration_seconds_bucket", &["le="]),
    ("tideover_replayed_total", &[]),
    ("tideover_dead_letters_total", &["reason="]),
    ("tideover_uncertain_writes_total", &["action="]),
    ("tideover_stream_ids_changed_total", &[]),
    ("tideover_upstream_connects_total", &["result="]),
    ("tideover_upstream_connections", &[]),
];

#[test]
fn metrics_have_their_documented_names() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client();
    client.call(&["SET", "k", "v"]);
    redis.kill();
    await_down(&proxy);
    client.call(&["GET", "k"]);
    client.call(&["SET", "k", "w"]);
    client.call(&["LPUSH", "k", "wrong type"]);
    client.call(&["INCR", "n"]);
    redis.restart();
    proxy.wait_for_recovery();
    // Counts are published each second.
    let begin = std::time::Instant::now();
    loop {
        let (_, metrics) = proxy.get("/metrics");
        let missing = missing_metrics(&metrics);
        if missing.is_empty() {
            return;
        }
        assert!(begin.elapsed() < DEADLINE, "/metrics lacks {missing:#?} in\n{metrics}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn missing_metrics(metrics: &str) -> Vec<String> {
    let has = |name: &str, labels: &[&str]| {
        let mut lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.any(|line| line.contains("upstream=\"main\"") && labels.iter().all(|label| line.contains(label)))
    };
    let families = FAMILIES
        .iter()
        .filter(|(name, labels)| !has(name, labels))
        .map(|family| format!("{family:?}"));
    let samples = SAMPLES
        .iter()
        .filter(|sample| !has_sample(metrics, sample))
        .map(ToString::to_string);
    families.chain(samples).collect()
}

/// Labels in any order.
fn has_sample(metrics: &str, sample: &str) -> bool {
    let (series, value) = sample.rsplit_once(' ').unwrap();
    let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap();
    metrics.lines().any(|line| {
        line.starts_with(&format!("{name}{{"))
            && labels.split(',').all(|label| line.contains(label))
            && line
                .rsplit_once(' ')
                .is_some_and(|(_, got)| got.parse::<f64>().ok() == value.parse().ok())
    })
}

#[test]
fn verbs_want_the_header() {
    let redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::healthy(&redis);
    for verb in ["pause", "resume"] {
        let path = format!("/upstreams/main/queue/{verb}");
        let (code, _) = proxy.http("POST", &path, &[]).unwrap();
        assert!((400..500).contains(&code), "{path} without the header answered {code}");
        let (code, body) = proxy.http("POST", &path, &[HEADER]).unwrap();
        assert!((200..300).contains(&code), "{path} answered {code} {body}");
    }
    assert_eq!(
        proxy
            .http("POST", "/upstreams/nobody/queue/pause", &[HEADER])
            .unwrap()
            .0,
        404
    );
    let (code, _) = proxy.http("GET", "/upstreams/main/queue/pause", &[HEADER]).unwrap();
    assert!((400..500).contains(&code), "a GET changes nothing, but answered {code}");
}

#[test]
fn a_paused_queue_is_kept_and_reads_go_upstream_meanwhile() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    redis.client().call(&["SET", "read", "me"]);
    let proxy = Tideover::healthy(&redis);
    redis.kill();
    await_down(&proxy);
    let mut client = proxy.client();
    assert_eq!(client.call(&["RPUSH", "l", "a"]), b":1\r\n");
    assert!(proxy.run_cli(&["queue", "pause"]).status.success());
    redis.restart();
    proxy.wait_for_mode("catching_up", DEADLINE);
    support::wait_until(DEADLINE, "reads go upstream", || {
        client.call(&["GET", "read"]) == b"$2\r\nme\r\n"
    });
    assert_eq!(client.call(&["RPUSH", "l", "b"]), b":1\r\n");
    assert_eq!(proxy.backlog(), 2);
    assert_eq!(integer(&redis.client().call(&["LLEN", "l"])), 0);
    assert!(proxy.run_cli(&["queue", "resume"]).status.success());
    proxy.wait_for_recovery();
    assert_eq!(integer(&redis.client().call(&["LLEN", "l"])), 2);
}

#[test]
fn status_on_the_command_line_is_for_people_and_for_programs() {
    let redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::healthy(&redis);
    let output = proxy.run_cli(&["status", "--admin", &proxy.admin_address()]);
    assert!(
        output.status.success() && text(&output).contains("main") && text(&output).contains("healthy"),
        "{}",
        text(&output)
    );
    let json = proxy.run_cli(&["status", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["upstreams"][0]["name"], "main");
}

#[test]
fn status_of_a_proxy_that_does_not_run_fails_and_says_where_it_looked() {
    let redis = RedisServer::absent(Durability::Memory);
    let proxy = Tideover::prepare(&redis, &Settings::default());
    let output = proxy.run_cli(&["status"]);
    assert!(!output.status.success());
    assert!(text(&output).contains(&proxy.admin_address()), "{}", text(&output));
}

#[test]
fn the_backlog_can_be_looked_at_exported_and_dropped() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    redis.kill();
    await_down(&proxy);
    let mut client = proxy.client();
    assert_eq!(client.call(&["SET", "looked-at", "v"]), b"+OK\r\n");
    for verb in ["status", "peek", "export"] {
        let output = proxy.run_cli(&["queue", verb, "--upstream", "main"]);
        assert!(output.status.success(), "queue {verb}: {}", text(&output));
        assert!(
            verb == "status" || text(&output).contains("looked-at"),
            "queue {verb}: {}",
            text(&output)
        );
    }
    let output = proxy.run_cli(&["queue", "drop"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(proxy.backlog(), 0);
    redis.restart();
    proxy.wait_for_recovery();
    assert_eq!(integer(&redis.client().call(&["EXISTS", "looked-at"])), 0);
}

#[test]
fn dead_letters_can_be_shown_retried_and_dropped() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    redis.client().call(&["SET", "text", "v"]);
    let proxy = Tideover::healthy(&redis);
    redis.kill();
    await_down(&proxy);
    let mut client = proxy.client();
    assert_eq!(client.call(&["RPUSH", "text", "x"]), b":1\r\n");
    assert_eq!(client.call(&["SADD", "text", "x"]), b":1\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    assert_eq!(proxy.dead_letters(), 2);
    let listed = proxy.run_cli(&["dead-letters", "list"]);
    assert!(
        listed.status.success() && text(&listed).contains("text"),
        "{}",
        text(&listed)
    );
    assert_eq!(integer(&client.call(&["DEL", "text"])), 1);
    assert!(proxy.run_cli(&["dead-letters", "retry"]).status.success());
    support::wait_until(DEADLINE, "the first is applied, the second dead again", || {
        proxy.dead_letters() == 1
    });
    assert_eq!(integer(&client.call(&["LLEN", "text"])), 1);
    assert!(proxy.run_cli(&["dead-letters", "drop"]).status.success());
    assert_eq!(proxy.dead_letters(), 0);
}

/// Who asks may leave, or ask twice.
#[test]
fn a_dead_letter_is_put_back_once_whoever_asks_and_leaves() {
    const LETTERS: usize = 200;
    let mut redis = RedisServer::start(Durability::AppendOnly);
    redis.client().call(&["SET", "text", "v"]);
    let settings = Settings {
        fsync: "always",
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    redis.kill();
    await_down(&proxy);
    let mut client = proxy.client();
    for number in 0..LETTERS {
        client.send(&["RPUSH", "text", &number.to_string()]);
    }
    for _ in 0..LETTERS {
        assert!(integer(&client.reply()) > 0);
    }
    redis.restart();
    proxy.wait_for_recovery();
    redis.kill();
    await_down(&proxy);
    assert_eq!(proxy.dead_letters() as usize, LETTERS);
    let ask = || {
        let mut asker = TcpStream::connect(proxy.admin_address()).unwrap();
        let path = "/upstreams/main/dead-letters/retry";
        write!(
            asker,
            "POST {path} HTTP/1.1\r\nHost: x\r\n{HEADER}\r\nContent-Length: 0\r\n\r\n"
        )
        .unwrap();
        asker
    };
    while proxy.dead_letters() > 0 {
        let before = proxy.backlog();
        let askers = [ask(), ask()];
        support::wait_until(DEADLINE, "some are put back", || {
            proxy.backlog() > before || proxy.dead_letters() == 0
        });
        drop(askers);
    }
    redis.restart();
    redis.client().call(&["DEL", "text"]);
    proxy.wait_for_recovery();
    assert_eq!(integer(&redis.client().call(&["LLEN", "text"])) as usize, LETTERS);
}

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_stored_is_the_owners_alone() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    redis.kill();
    await_down(&proxy);
    assert_eq!(error_text(&proxy.client().call(&["SET", "k", "secret"])), None);
    let mut waiting = vec![proxy.data_dir()];
    let mut files = 0;
    while let Some(dir) = waiting.pop() {
        assert_eq!(mode_of(&dir), 0o700, "{}", dir.display());
        for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            } else {
                files += 1;
                assert_eq!(mode_of(&entry.path()), 0o600, "{}", entry.path().display());
            }
        }
    }
    assert!(files > 0);
}

#[test]
fn a_wrong_configuration_names_every_wrong_key_at_once() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = dir.path().join("wrong.toml");
    let toml = "shutdown_timeout = \"soon\"\nnonsense = 1\n[[upstream]]\nname = \"main\"\nlisten = \"127.0.0.1:99999\"\n\
                url = \"memcached://127.0.0.1\"\n[upstream.queue]\nfsync = \"sometimes\"\n";
    std::fs::write(&config, toml).unwrap();
    let output = Command::new(Tideover::binary())
        .arg("check")
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    for word in [
        "shutdown_timeout",
        "soon",
        "nonsense",
        "listen",
        "99999",
        "url",
        "memcached",
        "fsync",
        "sometimes",
    ] {
        assert!(text(&output).contains(word), "{word} in {}", text(&output));
    }
}

#[test]
fn wrong_usage_exits_2() {
    for args in [
        ["run", "--nonsense"].as_slice(),
        &["nonsense"],
        &["check", "extra"],
        &["queue"],
    ] {
        let output = Command::new(Tideover::binary()).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output));
    }
}

#[test]
fn check_prints_what_is_in_force_without_secrets() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = dir.path().join("right.toml");
    let toml =
        "[[upstream]]\nname = \"main\"\nlisten = \"127.0.0.1:6380\"\nurl = \"redis://user:hunter2@127.0.0.1:6379\"\n";
    std::fs::write(&config, toml).unwrap();
    let output = Command::new(Tideover::binary())
        .arg("check")
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(
        text(&output).contains("hold_timeout") && !text(&output).contains("hunter2"),
        "{}",
        text(&output)
    );
}
