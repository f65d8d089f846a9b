//! The password of the upstream becomes another one.

use std::path::PathBuf;

use crate::load_through;
use crate::reasons;
use crate::support::load;
use crate::support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, bulk, wait_until};

struct Scene {
    redis: RedisServer,
    settings: Settings,
    proxy: Tideover,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let redis = RedisServer::start_with(Durability::AppendOnly, &["--requirepass", "old"]);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "old\n").unwrap();
        let settings = Settings {
            own: format!("password_file = {file:?}"),
            ..Settings::default()
        };
        let proxy = Tideover::start_with(&redis, &settings);
        proxy.wait_for_mode("healthy", DEADLINE);
        Self {
            redis,
            settings,
            proxy,
            file,
            _dir: dir,
        }
    }

    fn direct(&self, password: &str) -> Client {
        let mut client = self.redis.client();
        assert_eq!(client.call(&["AUTH", password]), b"+OK\r\n");
        client
    }

    fn rotate(&self) {
        let mut direct = self.direct("old");
        assert_eq!(direct.call(&["CONFIG", "SET", "requirepass", "new"]), b"+OK\r\n");
    }

    /// Everybody has to come again.
    fn disconnect_all(&self) {
        self.direct("new")
            .call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }

    fn write_file(&self) {
        std::fs::write(&self.file, "new\n").unwrap();
    }
}

#[test]
fn a_password_that_is_refused_is_an_outage_until_its_file_holds_the_new_one() {
    let scene = Scene::new();
    let attempts = load_through(
        &scene.proxy,
        &scene.settings,
        &["denied", "consecutive_failures"],
        || {
            scene.rotate();
            scene.disconnect_all();
        },
        || {
            wait_until(DEADLINE, "the reason in /status", || {
                let status = scene.proxy.status();
                status["last_error"]
                    .as_str()
                    .is_some_and(|text| text.contains("WRONGPASS"))
            });
            scene.write_file();
        },
    );
    load::assert_applied(&mut scene.direct("new"), &attempts);
}

#[test]
fn a_password_that_is_rotated_in_the_file_first_is_no_outage() {
    let scene = Scene::new();
    let (mut connected, mut other) = (scene.proxy.client(), scene.proxy.client());
    assert_eq!(connected.call(&["SET", "k", "v"]), b"+OK\r\n");
    scene.rotate();
    scene.write_file();
    assert_eq!(connected.call(&["GET", "k"]), bulk("v"));
    // Another database wants another connection.
    assert_eq!(other.call(&["SELECT", "3"]), b"+OK\r\n");
    assert_eq!(other.call(&["SET", "k", "3"]), b"+OK\r\n");
    assert_eq!(reasons(&scene.proxy), [""; 0]);
}

/// Those who are connected are served: the others wait for `hold_timeout`, and are told.
#[test]
fn a_password_that_is_refused_troubles_nobody_who_is_connected() {
    let scene = Scene::new();
    let (mut connected, mut other) = (scene.proxy.client(), scene.proxy.client());
    assert_eq!(connected.call(&["SET", "k", "v"]), b"+OK\r\n");
    scene.rotate();
    let refused = other.call(&["SELECT", "3"]);
    assert!(
        refused.starts_with(b"-UNAVAILABLE "),
        "{}",
        crate::support::shown(&refused)
    );
    assert_eq!(connected.call(&["GET", "k"]), bulk("v"));
    assert_eq!(reasons(&scene.proxy), [""; 0]);
    scene.write_file();
    assert_eq!(other.call(&["SELECT", "3"]), b"+OK\r\n");
}

#[test]
fn a_redis_that_holds_writes_is_read_also_after_its_password_became_another() {
    let scene = Scene::new();
    scene.rotate();
    scene.write_file();
    let mut direct = scene.direct("new");
    assert_eq!(direct.call(&["SET", "read", "me"]), b"+OK\r\n");
    assert_eq!(direct.call(&["CLIENT", "PAUSE", "60000", "WRITE"]), b"+OK\r\n");
    scene.redis.stop();
    scene.proxy.wait_for_mode("down", DEADLINE);
    let mut client = scene.proxy.client();
    assert_eq!(client.call(&["RPUSH", "l", "a"]), b":1\r\n");
    scene.redis.cont();
    wait_until(DEADLINE, "reads go upstream", || {
        client.call(&["GET", "read"]) == bulk("me")
    });
    assert_eq!(direct.call(&["CLIENT", "UNPAUSE"]), b"+OK\r\n");
    scene.proxy.wait_for_recovery();
    assert_eq!(direct.call(&["LLEN", "l"]), b":1\r\n");
}

#[test]
fn a_password_from_a_pipe_is_read_once() {
    let redis = RedisServer::start_with(Durability::Memory, &["--requirepass", "old"]);
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("password");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let settings = Settings {
        own: format!("password_file = {pipe:?}"),
        ..Settings::default()
    };
    let writer = std::thread::spawn(move || std::fs::write(pipe, "old\n").unwrap());
    let proxy = Tideover::start_with(&redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    assert_eq!(proxy.client().call(&["SET", "k", "v"]), b"+OK\r\n");
    writer.join().unwrap();
}
