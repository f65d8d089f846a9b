//! `tideover check` from outside: exit codes 0, 2 and 78, and every fault at once.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::PathBuf;
use std::process::{Command, Output};

fn tideover(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tideover"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEOVER_")) {
        command.env_remove(name);
    }
    command.args(args).envs(env.iter().copied()).output().unwrap()
}

/// Runs `tideover check` on a file with this text.
fn check(text: &str, env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    outcome(&tideover(&["check", "--config", path.to_str().unwrap()], env))
}

fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_right_configuration_is_printed_and_exits_0() {
    let (code, stdout, stderr) = check(
        "[[upstream]]\nurl = \"redis://app:hunter2@h/2\"\nclient_password = \"hunter2\"\n",
        &[
            ("TIDEOVER_PORT", "tcp://10.0.0.1:6380"),
            ("TIDEOVER_SERVICE_HOST", "10.0.0.1"),
        ],
    );
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("url = \"redis://app:***@h:6379/2\""), "{stdout}");
    assert!(stdout.contains("failure_threshold = 5"), "{stdout}");
    assert!(!stdout.contains("hunter2"), "{stdout}");
}

#[test]
fn the_shipped_file_is_right_and_so_is_none() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/tideover.toml");
    let with_file = outcome(&tideover(&["check", "--config", path.to_str().unwrap()], &[]));
    let without = outcome(&tideover(&["check"], &[]));
    assert_eq!(with_file.0, Some(0));
    assert_eq!(with_file, without);
}

#[test]
fn a_wrong_configuration_names_every_fault_at_once_and_exits_78() {
    let (code, stdout, stderr) = check(
        "nonsense = true\n[[upstream]]\nurl = \"redis+cluster://h\"\n[upstream.breaker]\nfailure_threshold = 0\ntypo = 1\n",
        &[("TIDEOVER_WORKERS", "0")],
    );
    assert_eq!((code, stdout.as_str()), (Some(78), ""));
    for fault in [
        "nonsense = true: unknown key",
        "upstream[0].url = \"redis+cluster://h\": redis+cluster:// is not built yet",
        "upstream[0].breaker.failure_threshold = 0: must be at least 1",
        "upstream[0].breaker.typo = 1: unknown key",
        "TIDEOVER_WORKERS = 0: must be at least 1",
    ] {
        assert!(
            stderr.lines().any(|line| line.starts_with(fault)),
            "{fault} is not in\n{stderr}"
        );
    }
    assert_eq!(stderr.lines().count(), 5, "{stderr}");
}

#[test]
fn run_refuses_a_wrong_configuration_too() {
    for args in [
        ["run", "--upstream", "redis+sentinel://h"].as_slice(),
        &["--config", "/nowhere/t.toml"],
    ] {
        let (code, _, stderr) = outcome(&tideover(args, &[]));
        assert_eq!(code, Some(78), "{args:?}: {stderr}");
        assert!(
            stderr.contains("not built yet") || stderr.contains("cannot be read"),
            "{stderr}"
        );
    }
}

#[test]
fn wrong_usage_exits_2() {
    for args in [
        ["--nonsense"].as_slice(),
        &["check", "--workers", "x"],
        &["queue", "walk"],
        &["--log-format", "xml"],
    ] {
        let (code, _, stderr) = outcome(&tideover(args, &[]));
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(
        &path,
        "[[upstream]]\n[[upstream]]\nname = \"b\"\nlisten = \"127.0.0.1:6381\"\n",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    for flag in [["--listen", "127.0.0.1:1"], ["--upstream", "redis://h"]] {
        let (code, _, stderr) = outcome(&tideover(&["run", "--config", path, flag[0], flag[1]], &[]));
        assert_eq!(code, Some(2), "{flag:?}: {stderr}");
    }
    assert_eq!(tideover(&["check", "--config", path], &[]).status.code(), Some(0));
}
