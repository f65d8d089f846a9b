//! The room as its peers see it, over a journal on a real disk.

use std::borrow::Cow;
use std::time::Instant;

use http_body_util::BodyExt;
use hyper::{Request, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::journal::owner::{Batch, Payloads, Reply, Settled, spawn};
use crate::journal::{DeadLetter, DiskStorage, Fsync, Journal, SEGMENT_BYTES_MAX, Settings};
use crate::outage::effect::{Effect, EffectKind};
use crate::outage::payload::{self, Origin};
use crate::upstream::connections::ConnectionFile;
use crate::upstream::dial::command;
use crate::upstream::known::Known;
use crate::upstream::settings::{Address, Timeouts};
use crate::upstream::shared::{Mode, Shared, Target};

struct Rig {
    _dir: TempDir,
    view: Arc<View>,
}

impl Rig {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let settings = Settings {
            fsync: Fsync::No,
            bytes_max: 1 << 30,
            segment_bytes_max: SEGMENT_BYTES_MAX,
        };
        let storage = DiskStorage::new(dir.path().join("main")).unwrap();
        let journal = Journal::open(storage, settings, [7; 16], 1).unwrap().0;
        let (owner, _) = spawn(journal, Fsync::No, vec![Box::new(|| {})]).unwrap();
        owner.confirm(0, 1);
        let target = Target {
            name: "main".to_owned(),
            address: Address::Unix("/nowhere".into()),
            db: 0,
            credentials: None,
            password_file: None,
            timeouts: Timeouts {
                connect: Duration::from_secs(1),
                command: Duration::from_secs(1),
            },
            hold_timeout: Duration::from_secs(1),
        };
        let (shared, _) = Shared::new(
            target,
            ConnectionFile::open(&dir.path().join("connections")).unwrap(),
            Known::open(&dir.path().join("known"), [0; 16]).unwrap(),
            owner.generation_counter(),
            2,
        );
        let controls = Arc::default();
        let upstream = UpstreamView::new(
            shared,
            owner,
            controls,
            "127.0.0.1:1".to_owned(),
            "redis://h:2".to_owned(),
        );
        let view = Arc::new(View {
            upstreams: vec![upstream],
            ready: Arc::default(),
            metrics: crate::telemetry::detached(),
        });
        Self { _dir: dir, view }
    }

    fn upstream(&self) -> &UpstreamView {
        self.view.upstreams.first().unwrap()
    }

    async fn journal(&self, arguments: &[&str]) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut payloads = Payloads::default();
        payloads.push(&payload_of(arguments));
        self.upstream()
            .owner
            .append(Batch {
                generation: 1,
                payloads,
                wall_ms: 1,
                mono_ms: 1,
                done: Box::new(move |settled, _| sender.send(settled).unwrap()),
            })
            .unwrap();
        assert_eq!(receiver.await.unwrap(), Settled::Acknowledged);
    }

    async fn bury(&self, seq: u64, arguments: &[&str]) {
        let letter = DeadLetter {
            seq,
            wall_ms: 1,
            reason: "wrong_type".to_owned(),
            error: "WRONGTYPE Operation".to_owned(),
            payload: payload_of(arguments).into(),
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let reply: Reply<std::io::Result<bool>> = Box::new(move |kept| sender.send(kept).unwrap());
        self.upstream().owner.dead_letter(letter, reply).unwrap();
        assert!(receiver.await.unwrap().unwrap());
    }

    async fn ask(&self, method: &str, target: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("X-Tideover", "1")
            .body(())
            .unwrap();
        let response = respond::respond(Arc::clone(&self.view), [127, 0, 0, 1].into(), &request).await;
        let code = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn json(&self, method: &str, target: &str) -> Value {
        let (code, body) = self.ask(method, target).await;
        assert_eq!(code, StatusCode::OK, "{method} {target}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{target}: {error}: {body}"))
    }
}

fn payload_of(arguments: &[&str]) -> Vec<u8> {
    let effect = Effect {
        kind: EffectKind::Absolute,
        command: Cow::Owned(command(arguments)),
        deadline: None,
    };
    let mut bytes = Vec::new();
    payload::encode(Origin { db: 0, identity: b"" }, &[effect], &mut bytes);
    bytes
}

#[tokio::test]
async fn status_has_its_documented_shape() {
    let rig = Rig::new();
    rig.upstream().shared.set_mode(Mode::CatchingUp);
    rig.upstream()
        .shared
        .set_last_error(Some("connection refused".to_owned()));
    rig.journal(&["SET", "k", "v"]).await;
    let status = rig.json("GET", "/status").await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let upstream = &status["upstreams"][0];
    let expected = [
        ("name", "main"),
        ("listen", "127.0.0.1:1"),
        ("url", "redis://h:2"),
        ("state", "half_open"),
    ];
    for (field, value) in expected {
        assert_eq!(upstream[field], value, "{field}");
    }
    assert_eq!(upstream["mode"], "catching_up");
    assert_eq!(upstream["fence"], "proven");
    assert_eq!(upstream["last_error"], "connection refused");
    assert_eq!(
        (&upstream["dead_letters"], &upstream["clients"]),
        (&0.into(), &0.into())
    );
    assert_eq!(
        (&upstream["queue"]["records"], &upstream["queue"]["acknowledged_total"]),
        (&1.into(), &1.into())
    );
    for count in ["bytes", "oldest_age_ms", "replayed_total", "retained_bytes"] {
        assert!(upstream["queue"][count].is_u64(), "{count} in {upstream}");
    }
}

#[test]
fn every_mode_belongs_to_one_state() {
    for (mode, expected) in [
        (Mode::Starting, "open"),
        (Mode::Healthy, "closed"),
        (Mode::Down, "open"),
        (Mode::Probing, "open"),
        (Mode::CatchingUp, "half_open"),
        (Mode::Halted, "half_open"),
    ] {
        assert_eq!(status::state(mode), expected, "{mode:?}");
    }
}

#[tokio::test]
async fn ready_once_serving_and_decided_also_when_down_and_not_when_stopping() {
    let rig = Rig::new();
    let ready = async || rig.ask("GET", "/readyz").await.0.as_u16();
    assert_eq!(ready().await, 503);
    rig.view.ready.set(Phase::Serving);
    assert_eq!(ready().await, 503, "no probe has decided");
    rig.upstream().shared.set_mode(Mode::Down);
    assert_eq!(ready().await, 200);
    rig.view.ready.set(Phase::Stopping);
    assert_eq!(ready().await, 503);
}

#[tokio::test]
async fn a_worker_whose_beat_stands_still_for_a_second_is_not_live() {
    let rig = Rig::new();
    let begin = Instant::now();
    let stuck_at = |ms| rig.view.stuck_workers(begin + Duration::from_millis(ms));
    let beat = |worker: usize| {
        let worker = rig.upstream().shared.workers.get(worker).unwrap();
        crate::upstream::stats::add(&worker.stats.beats, 1);
    };
    assert!(stuck_at(0).is_empty());
    beat(0);
    assert!(stuck_at(900).is_empty());
    assert_eq!(stuck_at(1000), [1]);
    beat(1);
    assert!(stuck_at(1899).is_empty());
    assert_eq!(stuck_at(2000), [0]);
    assert_eq!(
        rig.ask("GET", "/livez").await.0,
        StatusCode::OK,
        "now is long before those looks"
    );
}

#[tokio::test]
async fn the_backlog_is_shown_exported_and_dropped() {
    let rig = Rig::new();
    for number in 0..600 {
        rig.journal(&["SET", &format!("k{number}"), "v"]).await;
    }
    let (_, peek) = rig.ask("GET", "/upstreams/main/queue/peek?count=300").await;
    let lines: Vec<Value> = peek.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 300);
    assert_eq!(lines[299]["commands"][0], "SET k299 v");
    let (_, export) = rig.ask("GET", "/upstreams/main/queue/export").await;
    assert!(export.starts_with("*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$2\r\nk0\r\n$1\r\nv\r\n"));
    assert_eq!(export.matches("SET").count(), 600);
    let dropped = rig.json("POST", "/upstreams/main/queue/drop").await;
    assert_eq!(dropped["dropped_records"], 600);
    assert_eq!(rig.json("GET", "/upstreams/main/queue").await["records"], 0);
    assert_eq!(
        rig.ask("GET", "/upstreams/main/queue/export").await,
        (StatusCode::OK, String::new())
    );
}

#[tokio::test]
async fn replay_is_paused_and_resumed() {
    let rig = Rig::new();
    for (verb, expected) in [("pause", true), ("resume", false)] {
        rig.json("POST", &format!("/upstreams/main/queue/{verb}")).await;
        assert_eq!(
            rig.json("GET", "/upstreams/main/queue").await["paused"],
            expected,
            "{verb}"
        );
    }
    assert_eq!(
        rig.ask("POST", "/upstreams/other/queue/pause").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn dead_letters_are_listed_shown_retried_and_dropped() {
    let rig = Rig::new();
    rig.journal(&["SET", "later", "v"]).await;
    for seq in 1..=40 {
        rig.bury(seq, &["RPUSH", "l", &seq.to_string()]).await;
    }
    let (_, listed) = rig.ask("GET", "/upstreams/main/dead-letters").await;
    assert_eq!(listed.lines().count(), 40);
    let shown = rig.json("GET", "/upstreams/main/dead-letters/7").await;
    assert_eq!(
        (&shown["reason"], &shown["commands"][0]),
        (&"wrong_type".into(), &"RPUSH l 7".into())
    );
    for (method, target) in [("GET", "0"), ("GET", "99"), ("POST", "99/retry"), ("POST", "99/drop")] {
        let (code, _) = rig.ask(method, &format!("/upstreams/main/dead-letters/{target}")).await;
        assert_eq!(code, StatusCode::NOT_FOUND, "{target}");
    }
    assert_eq!(
        rig.json("POST", "/upstreams/main/dead-letters/8/drop").await["dropped"],
        1
    );
    assert_eq!(
        rig.json("POST", "/upstreams/main/dead-letters/7/retry").await["retried"],
        1
    );
    assert_eq!(
        rig.json("POST", "/upstreams/main/dead-letters/retry").await["retried"],
        38
    );
    let (_, peek) = rig.ask("GET", "/upstreams/main/queue/peek?count=50").await;
    let commands: Vec<Value> = peek.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (commands.len(), &commands[1]["commands"][0]),
        (40, &"RPUSH l 7".into()),
        "behind the backlog"
    );
    assert_eq!(rig.json("GET", "/status").await["upstreams"][0]["dead_letters"], 0);
    rig.bury(1, &["SADD", "l", "x"]).await;
    assert_eq!(
        rig.json("POST", "/upstreams/main/dead-letters/drop").await["dropped"],
        1
    );
}

#[tokio::test]
async fn strangers_see_no_journal_and_headers_forbid_storing() {
    let rig = Rig::new();
    let request = Request::get("/upstreams/main/queue")
        .header("X-Tideover", "1")
        .body(())
        .unwrap();
    let response = respond::respond(Arc::clone(&rig.view), [10, 0, 0, 1].into(), &request).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let request = Request::post("/status").body(()).unwrap();
    let response = respond::respond(Arc::clone(&rig.view), [10, 0, 0, 1].into(), &request).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET, HEAD");
    assert_eq!(response.headers()["cache-control"], "no-store");
}

#[tokio::test]
async fn durations_are_a_cumulative_histogram() {
    let rig = Rig::new();
    for (worker, duration_us) in [(0, 10), (1, 20), (1, 20), (0, 5_000_000), (0, 60_000_000)] {
        let worker = rig.upstream().shared.workers.get(worker).unwrap();
        worker.stats.answered(duration_us);
    }
    let (_, metrics) = rig.ask("GET", "/metrics").await;
    for line in [
        "# TYPE tideover_command_duration_seconds histogram",
        r#"tideover_command_duration_seconds_bucket{upstream="main",le="0.000016"} 1"#,
        r#"tideover_command_duration_seconds_bucket{upstream="main",le="0.000032"} 3"#,
        r#"tideover_command_duration_seconds_bucket{upstream="main",le="8.388608"} 4"#,
        r#"tideover_command_duration_seconds_bucket{upstream="main",le="+Inf"} 5"#,
        r#"tideover_command_duration_seconds_sum{upstream="main"} 65.00005"#,
        r#"tideover_command_duration_seconds_count{upstream="main"} 5"#,
    ] {
        assert!(
            metrics.lines().any(|candidate| candidate == line),
            "{line} is not in\n{metrics}"
        );
    }
}

#[tokio::test]
async fn it_speaks_http_and_reads_no_bodies() {
    let rig = Rig::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Arc::clone(&rig.view)));
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK"),
        ("GET /nonsense HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (
            "POST /upstreams/main/queue/pause HTTP/1.1\r\nHost: x\r\n\r\n",
            "HTTP/1.1 403 Forbidden",
        ),
        (
            "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed",
        ),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with(expected), "{request}: {response}");
        assert!(
            response.to_ascii_lowercase().contains("connection: close"),
            "{response}"
        );
    }
}
