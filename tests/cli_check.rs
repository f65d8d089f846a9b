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
fn the_rules_in_effect_are_printed() {
    let rules = "[[upstream]]\n[[upstream.rule]]\nkeys = [\"session:*\"]\nafter_neutral_read = \"create_only\"\nneeds_key = true\n\
                 in_flight = \"error\"\n[[upstream.rule]]\ncommands = [\"xadd\"]\nxadd_id = \"accepted\"\nin_flight = \"error\"\n\
                 [[upstream.rule]]\ncommands = [\"SET\", \"DEL\"]\nkeys = [\"own:*\"]\nin_flight = \"journal\"\n";
    let (code, stdout, stderr) = check(rules, &[]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for line in [
        "after_neutral_read = \"create_only\"",
        "needs_key = true",
        "xadd_id = \"accepted\"",
        "in_flight = \"journal\"",
    ] {
        assert_eq!(
            stdout.lines().filter(|known| *known == line).count(),
            1,
            "{line} in\n{stdout}"
        );
    }
    assert!(!stdout.contains("\"error\""), "a default was printed\n{stdout}");
}

#[test]
fn rules_that_cannot_work_are_named_at_once_with_key_value_and_reason() {
    let (code, _, stderr) = check(
        r#"[[upstream]]
[[upstream.rule]]
commands = ["LPOP", "BLPOP", "GET"]
keys = ["q"]
when_down = "queue"
[[upstream.rule]]
commands = ["SET"]
keys = ["n"]
when_down = "neutral"
[[upstream.rule]]
commands = ["DEL"]
keys = ["a:*"]
needs_key = true
after_neutral_read = "refuse"
xadd_id = "accepted"
[[upstream.rule]]
commands = ["RPUSH"]
in_flight = "journal"
[[upstream.rule]]
commands = ["INCR"]
when_down = "queue"
reply = "+OK"
[[upstream.rule]]
commands = ["RPUSH"]
keys = ["jobs"]
when_down = "error"
"#,
        &[],
    );
    assert_eq!(code, Some(78));
    let expected = [
        "rule[0].commands = \"LPOP\": is never queued: nobody knows while down what it would hand out",
        "rule[0].commands = \"BLPOP\": is never queued: its client waits for what it is given",
        "rule[0].commands = \"GET\": is never queued: it writes nothing",
        "rule[1].commands = \"SET\": has no neutral reply: say with `reply` what its client is told, or queue it",
        "rule[2].after_neutral_read = \"refuse\": DEL writes no whole value",
        "rule[2].needs_key = true: DEL adds to no key and changes none that must exist",
        "rule[2].xadd_id = \"accepted\": DEL is not XADD",
        "rule[3].in_flight = \"journal\": RPUSH is never the same when it is done twice, so it is never journaled when it may have been done",
        "rule[4].reply = \"+OK\": INCR answers an integer, and a client that waits for one fails on this",
        "rule[5].keys = [\"jobs\"]: never matches: rule[3] takes everything before it",
    ];
    let lines: Vec<&str> = stderr.lines().collect();
    let expected = expected.map(|line| format!("upstream[0].{line}"));
    assert_eq!(lines, expected);
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
