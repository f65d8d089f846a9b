//! What operators do to a queue: on a running tideover, and on the data directory of a stopped one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, await_down, bulk, integer, wait_until};

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A verb on the data directory.
fn stopped(proxy: &Tideover, args: &[&str]) -> Output {
    let data_dir = proxy.data_dir();
    let args: Vec<&str> = args
        .iter()
        .copied()
        .chain(["--data-dir", data_dir.to_str().unwrap()])
        .collect();
    proxy.run_cli(&args)
}

#[track_caller]
fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn stop(proxy: &mut Tideover) {
    assert!(proxy.terminate(DEADLINE).success());
}

/// A tideover that is down, with a backlog of these commands.
fn with_backlog(redis: &RedisServer, commands: &[&[&str]]) -> Tideover {
    let proxy = Tideover::start(redis);
    proxy.wait_for_mode("down", DEADLINE);
    journal(&mut proxy.client(), commands);
    assert_eq!(proxy.backlog(), commands.len() as u64);
    proxy
}

fn journal(client: &mut Client, commands: &[&[&str]]) {
    for command in commands {
        let reply = client.call(command);
        assert!(!reply.starts_with(b"-"), "{command:?}: {}", support::shown(&reply));
    }
}

/// All files below a directory, with contents and times.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let modified = entry.metadata().unwrap().modified().unwrap();
                files.insert(path.clone(), (fs::read(path).unwrap(), modified));
            }
        }
    }
    files
}

/// Without the column that grows while one looks.
fn without_age(table: &str) -> Vec<Vec<&str>> {
    let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    columns.map(|columns| [&columns[..1], &columns[2..]].concat()).collect()
}

#[test]
fn a_stopped_ones_queue_is_shown_as_it_was_while_running_and_looking_changes_nothing() {
    let redis = RedisServer::absent(Durability::Memory);
    let mut proxy = with_backlog(&redis, &[&["SET", "a", "1"], &["RPUSH", "l", "x y"], &["DEL", "b"]]);
    let running: Vec<String> = ["peek", "export"]
        .map(|verb| done(proxy.run_cli(&["queue", verb])))
        .into();
    // A crash leaves more to recover than an orderly end.
    proxy.kill();
    let newest = snapshot(&proxy.data_dir())
        .into_keys()
        .rfind(|path| path.extension().is_some_and(|extension| extension == "journal"))
        .unwrap();
    fs::File::options()
        .append(true)
        .open(newest)
        .unwrap()
        .write_all(b"torn")
        .unwrap();
    let before = snapshot(&proxy.data_dir());
    assert_eq!(
        without_age(&done(stopped(&proxy, &["queue", "peek"]))),
        without_age(&running[0])
    );
    assert_eq!(done(stopped(&proxy, &["queue", "export"])), running[1]);
    let status = done(stopped(&proxy, &["queue", "status"]));
    let waiting = status.lines().find(|line| line.starts_with("records ")).unwrap();
    assert!(waiting.ends_with(" 3"), "{status}");
    assert_eq!(done(stopped(&proxy, &["dead-letters", "list"])).lines().count(), 1);
    assert_eq!(snapshot(&proxy.data_dir()), before);
}

#[test]
fn what_waits_for_its_user_is_shown_in_its_place_and_said_to_be_whose() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let mut proxy = Tideover::healthy(&redis);
    redis
        .client()
        .call(&["ACL", "SETUSER", "bob", "on", ">word", "+@all", "~*"]);
    let mut bob = proxy.client();
    journal(&mut bob, &[&["AUTH", "bob", "word"]]);
    redis.kill();
    await_down(&proxy);
    journal(&mut bob, &[&["SET", "first", "1"]]);
    journal(&mut proxy.client(), &[&["SET", "replayed", "1"]]);
    journal(&mut bob, &[&["SET", "second", "1"]]);
    // Redis has forgotten bob, too.
    proxy.restart();
    redis.restart();
    wait_until(DEADLINE, "the others are replayed", || {
        proxy.status()["queue"]["records"] == 2 && proxy.mode() == "healthy"
    });
    redis.kill();
    await_down(&proxy);
    journal(&mut proxy.client(), &[&["SET", "third", "1"]]);

    let running = ["peek", "export"].map(|verb| proxy.run_cli(&["queue", verb]));
    let lines = text(&running[0]);
    let rows: Vec<&str> = lines.lines().skip(1).collect();
    for (row, parts) in rows.iter().zip([
        ["bob (waiting)", "first"],
        ["bob (waiting)", "second"],
        [" -  ", "third"],
    ]) {
        assert!(parts.iter().all(|part| row.contains(part)), "{parts:?}: {lines}");
    }
    assert_eq!(rows.len(), 3, "{lines}");
    let exported = text(&running[1]);
    let places = ["first", "second", "third", "that wait for their user: 2 (bob)"].map(|part| exported.find(part));
    assert!(places.is_sorted() && places[0].is_some(), "{exported}");
    assert!(!exported.contains("replayed"), "{exported}");
    let status = done(proxy.run_cli(&["queue", "status"]));
    let row = status.lines().find(|line| line.starts_with("waiting for their user"));
    assert!(row.is_some_and(|row| row.ends_with("2 (bob)")), "{status}");
    assert_eq!(
        done(proxy.run_cli(&["queue", "peek", "--count", "1"])).lines().count(),
        2
    );

    stop(&mut proxy);
    let at_rest = ["peek", "export"].map(|verb| stopped(&proxy, &["queue", verb]));
    assert_eq!(without_age(&text(&at_rest[0])), without_age(&lines));
    assert_eq!(text(&at_rest[1]), exported);
    let status = done(stopped(&proxy, &["queue", "status"]));
    assert!(status.contains("2 (bob)"), "{status}");
}

#[test]
fn a_running_ones_directory_is_left_alone() {
    let redis = RedisServer::absent(Durability::Memory);
    let proxy = with_backlog(&redis, &[&["SET", "a", "1"]]);
    for verb in [
        &["queue", "status"][..],
        &["queue", "peek"],
        &["queue", "pause"],
        &["queue", "rate", "7"],
        &["queue", "drop"],
        &["dead-letters", "list"],
        &["dead-letters", "drop"],
    ] {
        let output = stopped(&proxy, verb);
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        assert!(text(&output).contains("running"), "{verb:?}: {}", text(&output));
    }
    assert_eq!(proxy.backlog(), 1);
    assert_eq!(proxy.status()["queue"]["paused"], false);
}

#[test]
fn when_nothing_listens_the_other_way_is_named() {
    let redis = RedisServer::absent(Durability::Memory);
    let proxy = Tideover::prepare(&redis, &Settings::default());
    let output = Command::new(Tideover::binary())
        .args(["queue", "status"])
        .env("TIDEOVER_ADMIN", proxy.admin_address())
        .env("TIDEOVER_DATA_DIR", "/somewhere")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(
        said.contains(&proxy.admin_address()) && said.contains("--data-dir /somewhere"),
        "{said}"
    );
    let output = stopped(&proxy, &["queue", "status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!proxy.data_dir().exists(), "looking creates nothing");
}

#[test]
fn with_several_upstreams_one_must_be_named() {
    let redis = RedisServer::absent(Durability::Memory);
    let mut proxy = with_backlog(&redis, &[&["SET", "a", "1"]]);
    stop(&mut proxy);
    let copied = Command::new("cp")
        .arg("-r")
        .args(["main", "other"])
        .current_dir(proxy.data_dir())
        .status();
    assert!(copied.unwrap().success());
    let output = stopped(&proxy, &["queue", "status"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("main, other"), "{}", text(&output));
    done(stopped(&proxy, &["queue", "drop", "--upstream", "other"]));
    for (name, records) in [("main", 2), ("other", 1)] {
        let peek = done(stopped(&proxy, &["queue", "peek", "--upstream", name]));
        assert_eq!(peek.lines().count(), records, "{name}: {peek}");
    }
    assert_eq!(
        stopped(&proxy, &["queue", "peek", "--upstream", "third"]).status.code(),
        Some(1)
    );
}

#[test]
fn a_stopped_ones_backlog_can_be_dropped() {
    let mut redis = RedisServer::absent(Durability::Memory);
    let mut proxy = with_backlog(&redis, &[&["SET", "dropped", "1"], &["SET", "dropped too", "1"]]);
    stop(&mut proxy);
    let said = done(stopped(&proxy, &["queue", "drop"]));
    assert!(said.contains("2 records dropped"), "{said}");
    redis.restart();
    proxy.launch();
    proxy.wait_until_listening();
    proxy.wait_for_recovery();
    let mut client = proxy.client();
    assert_eq!(integer(&client.call(&["EXISTS", "dropped", "dropped too"])), 0);
    assert_eq!(client.call(&["SET", "k", "v"]), b"+OK\r\n");
}

#[test]
fn an_export_can_be_fed_to_another_redis() {
    let redis = RedisServer::absent(Durability::Memory);
    let mut proxy = with_backlog(&redis, &[&["SET", "a", "1"], &["HSET", "h", "f", "line\r\nline"]]);
    let mut client = proxy.client();
    for command in [&["MULTI"][..], &["SET", "b", "2"], &["RPUSH", "l", "x"], &["EXEC"]] {
        client.call(command);
    }
    client.call(&["SELECT", "3"]);
    client.call(&["SET", "elsewhere", "3"]);
    stop(&mut proxy);
    let export = done(stopped(&proxy, &["queue", "export"]));
    let other = RedisServer::start(Durability::Memory);
    let (host, port) = other
        .address()
        .rsplit_once(':')
        .map(|(h, p)| (h.to_owned(), p.to_owned()))
        .unwrap();
    let mut pipe = Command::new("redis-cli")
        .args(["-h", &host, "-p", &port, "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    pipe.stdin.take().unwrap().write_all(export.as_bytes()).unwrap();
    let output = pipe.wait_with_output().unwrap();
    assert!(text(&output).contains("errors: 0"), "{}", text(&output));
    let mut direct = other.client();
    assert_eq!(direct.call(&["GET", "a"]), bulk("1"));
    assert_eq!(direct.call(&["HGET", "h", "f"]), bulk("line\r\nline"));
    assert_eq!(direct.call(&["GET", "b"]), bulk("2"));
    assert_eq!(integer(&direct.call(&["LLEN", "l"])), 1);
    direct.call(&["SELECT", "3"]);
    assert_eq!(direct.call(&["GET", "elsewhere"]), bulk("3"));
}

#[test]
fn a_pause_outlives_the_process() {
    let mut redis = RedisServer::absent(Durability::Memory);
    let mut proxy = with_backlog(&redis, &[&["RPUSH", "l", "a"]]);
    done(proxy.run_cli(&["queue", "pause"]));
    proxy.kill();
    assert!(done(stopped(&proxy, &["queue", "status"])).contains("paused"));
    redis.restart();
    proxy.launch();
    proxy.wait_until_listening();
    proxy.wait_for_mode("catching_up", DEADLINE);
    wait_until(DEADLINE, "replay says that it is paused", || {
        proxy.log_text().contains("replay is halted")
    });
    assert!(done(proxy.run_cli(&["status"])).contains("paused"));
    let mut client = proxy.client();
    journal(&mut client, &[&["RPUSH", "l", "b"]]);
    assert_eq!((proxy.backlog(), integer(&redis.client().call(&["LLEN", "l"]))), (2, 0));
    // And ends while it is stopped.
    proxy.kill();
    done(stopped(&proxy, &["queue", "resume"]));
    proxy.launch();
    proxy.wait_until_listening();
    proxy.wait_for_recovery();
    assert_eq!(integer(&redis.client().call(&["LLEN", "l"])), 2);
}

#[test]
fn a_pause_without_a_backlog_keeps_nobody_from_a_redis_that_is_well() {
    let mut redis = RedisServer::start(Durability::Memory);
    let mut proxy = Tideover::healthy(&redis);
    done(proxy.run_cli(&["queue", "pause"]));
    proxy.kill();
    proxy.launch();
    proxy.wait_until_listening();
    proxy.wait_for_recovery();
    let mut client = proxy.client();
    assert_eq!(client.call(&["INCR", "n"]), b":1\r\n");
    // From the first write on there is one.
    redis.kill();
    await_down(&proxy);
    journal(&mut client, &[&["RPUSH", "l", "a"]]);
    redis.restart();
    wait_until(DEADLINE, "replay is halted", || {
        proxy.log_text().contains("replay is halted")
    });
    assert_eq!(proxy.backlog(), 1);
    done(proxy.run_cli(&["queue", "drop"]));
    proxy.wait_for_recovery();
    assert_eq!(client.call(&["INCR", "n"]), b":1\r\n");
}

#[test]
fn a_rate_holds_while_a_replay_runs_and_after_a_restart() {
    let mut redis = RedisServer::absent(Durability::Memory);
    let commands: Vec<[&str; 3]> = (0..60).map(|_| ["RPUSH", "l", "x"]).collect();
    let commands: Vec<&[&str]> = commands.iter().map(|command| &command[..]).collect();
    let mut proxy = with_backlog(&redis, &commands);
    assert!(proxy.status()["queue"]["rate_max"].is_null());
    done(proxy.run_cli(&["queue", "rate", "1"]));
    assert_eq!(proxy.status()["queue"]["rate_max"], 1);
    proxy.kill();
    assert!(done(stopped(&proxy, &["queue", "status"])).contains("at most 1/s"));
    redis.restart();
    proxy.launch();
    proxy.wait_until_listening();
    wait_until(DEADLINE, "replay goes on", || {
        let left = proxy.backlog();
        assert!(left > 0, "60 records at one a second take longer");
        left < 59
    });
    let begin = Instant::now();
    done(proxy.run_cli(&["queue", "rate", "off"]));
    proxy.wait_for_recovery();
    assert!(
        begin.elapsed() < Duration::from_secs(40),
        "what was left at one a second"
    );
    assert_eq!(integer(&redis.client().call(&["LLEN", "l"])), 60);
    done(proxy.run_cli(&["queue", "rate", "configured"]));
    assert!(proxy.status()["queue"]["rate_max"].is_null());
}

#[test]
fn a_stopped_ones_dead_letters_are_listed_shown_retried_and_dropped() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    redis.client().call(&["SET", "text", "v"]);
    let mut proxy = Tideover::healthy(&redis);
    redis.kill();
    await_down(&proxy);
    journal(
        &mut proxy.client(),
        &[
            &["RPUSH", "text", "x"],
            &["SADD", "text", "x"],
            &["ZADD", "text", "1", "x"],
        ],
    );
    redis.restart();
    proxy.wait_for_recovery();
    let running = done(proxy.run_cli(&["dead-letters", "list"]));
    let seqs: Vec<&str> = running
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(seqs.len(), 3, "{running}");
    let shown = done(proxy.run_cli(&["dead-letters", "show", seqs[0]]));
    stop(&mut proxy);
    assert_eq!(done(stopped(&proxy, &["dead-letters", "list"])), running);
    assert_eq!(done(stopped(&proxy, &["dead-letters", "show", seqs[0]])), shown);
    for verb in ["show", "retry", "drop"] {
        let output = stopped(&proxy, &["dead-letters", verb, "1"]);
        assert_eq!(output.status.code(), Some(1), "{verb}");
        assert!(
            text(&output).contains("no dead letter has this number"),
            "{}",
            text(&output)
        );
    }
    done(stopped(&proxy, &["dead-letters", "drop", seqs[1]]));
    done(stopped(&proxy, &["dead-letters", "retry", seqs[0]]));
    assert_eq!(done(stopped(&proxy, &["dead-letters", "list"])).lines().count(), 2);
    assert_eq!(done(stopped(&proxy, &["queue", "peek"])).lines().count(), 2);
    redis.client().call(&["DEL", "text"]);
    proxy.launch();
    proxy.wait_until_listening();
    proxy.wait_for_recovery();
    assert_eq!(integer(&redis.client().call(&["LLEN", "text"])), 1);
    assert_eq!(proxy.dead_letters(), 1);
    stop(&mut proxy);
    assert!(done(stopped(&proxy, &["dead-letters", "drop"])).contains("1 dropped"));
}

#[test]
fn a_letter_that_is_retried_expires_as_if_it_had_been_applied_at_once() {
    let mut redis = RedisServer::absent(Durability::Memory);
    let mut proxy = Tideover::prepare(&redis, &Settings::default());
    let config = fs::read_to_string(proxy.config()).unwrap();
    let queue = "[upstream.queue]\n";
    fs::write(
        proxy.config(),
        config.replacen(queue, &format!("{queue}max_age = \"1s\"\n"), 1),
    )
    .unwrap();
    proxy.launch();
    proxy.wait_until_listening();
    proxy.wait_for_mode("down", DEADLINE);
    let accepted = Instant::now();
    journal(
        &mut proxy.client(),
        &[&["SET", "one", "v", "EX", "1000"], &["SET", "two", "v", "EX", "1000"]],
    );
    wait_until(DEADLINE, "some time has passed", || {
        accepted.elapsed() > Duration::from_millis(1200)
    });
    redis.restart();
    proxy.wait_for_recovery();
    assert_eq!(proxy.dead_letters(), 2);
    let listed = done(proxy.run_cli(&["dead-letters", "list"]));
    let seq = listed.lines().nth(1).unwrap().split_whitespace().next().unwrap();
    wait_until(DEADLINE, "more time has passed", || {
        accepted.elapsed() > Duration::from_secs(2)
    });
    done(proxy.run_cli(&["dead-letters", "retry", seq]));
    wait_until(DEADLINE, "the first is there", || {
        integer(&redis.client().call(&["EXISTS", "one"])) == 1
    });
    stop(&mut proxy);
    done(stopped(&proxy, &["dead-letters", "retry"]));
    proxy.launch();
    proxy.wait_until_listening();
    proxy.wait_for_recovery();
    for key in ["one", "two"] {
        let left_ms = integer(&redis.client().call(&["PTTL", key]));
        assert!((0..=998_000).contains(&left_ms), "{key}: {left_ms}");
    }
}

#[test]
fn a_second_tideover_on_one_data_directory_does_not_start() {
    let redis = RedisServer::absent(Durability::Memory);
    let first = with_backlog(&redis, &[&["SET", "a", "1"]]);
    let settings = Settings {
        data_dir: Some(first.data_dir()),
        ..Settings::default()
    };
    let mut second = Tideover::prepare(&redis, &settings);
    second.launch();
    let status = second.process().wait_for_exit(DEADLINE);
    assert_eq!(status.code(), Some(1));
    let said = second.log_text();
    let dir = first.data_dir().join("main");
    assert!(
        said.contains("in use by another process") && said.contains(dir.to_str().unwrap()),
        "{said}"
    );
    journal(&mut first.client(), &[&["SET", "b", "2"]]);
    assert_eq!(first.backlog(), 2, "the first goes on");
}
