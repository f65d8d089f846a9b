use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::command::Name;
use crate::outage::rules::{Reply, WhenDown};

const EXAMPLE: &str = include_str!("../../config/tideover.toml");

fn load_with(flags: &Flags, env: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Settings, LoadError> {
    let env = |name: &str| {
        env.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let read = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found
            .map(|(_, text)| (*text).to_owned())
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let outside = Outside { env: &env, read: &read };
    load(flags, outside)
}

fn file_flags() -> Flags {
    Flags {
        config: Some(PathBuf::from("t.toml")),
        ..Flags::default()
    }
}

fn load_file(text: &str) -> Result<Settings, LoadError> {
    load_with(
        &file_flags(),
        &[],
        &[("t.toml", text), ("secret", "s3cret\n"), ("empty", "\n")],
    )
}

/// The faults of a file, one per line.
fn check_faults(text: &str, expected: &[&str]) {
    let error = load_file(text).expect_err(text);
    assert_eq!(error.exit_code(), 78, "{text}");
    let shown = error.to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines, expected, "{text}");
}

fn upstream(text: &str) -> UpstreamSettings {
    load_file(&format!("[[upstream]]\n{text}"))
        .expect(text)
        .upstreams
        .remove(0)
}

#[test]
fn nothing_at_all_gives_the_defaults() {
    assert_eq!(load_with(&Flags::default(), &[], &[]), Ok(Settings::default()));
    assert_eq!(load_file(""), Ok(Settings::default()));
}

#[test]
fn the_example_file_says_the_defaults() {
    assert_eq!(load_file(EXAMPLE), Ok(Settings::default()));
}

/// Uncommenting must not lead astray: every key of the example is known and every value in it right.
#[test]
fn every_key_that_is_off_in_the_example_can_be_switched_on() {
    let uncommented: Vec<&str> = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.split(' ').nth(1) == Some("=") => rest,
            _ => line,
        })
        .collect();
    let text = uncommented.join("\n").replace("\"redis://", "\"rediss://");
    let made = rcgen::generate_simple_self_signed(["redis.internal".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let files = [
        ("t.toml", text.as_str()),
        ("/run/secrets/redis-password", "s3cret\n"),
        ("/etc/tideover/ca.pem", &certificate),
        ("/etc/tideover/client.pem", &certificate),
        ("/etc/tideover/client.key", &key),
        ("/etc/tideover/server.pem", &certificate),
        ("/etc/tideover/server.key", &key),
    ];
    let settings = load_with(&file_flags(), &[], &files).unwrap();
    let upstream = &settings.upstreams[0];
    assert!(settings.workers.is_some());
    assert!(upstream.client_password.is_some());
    assert!(upstream.listen_tls.is_some());
    assert!(matches!(upstream.url.address, UpstreamAddress::Tls { .. }));
    assert_eq!(upstream.queue.age_max, Some(Duration::from_secs(86_400)));
    assert!(upstream.replay.rate_max.is_some());
    let [rule] = upstream.rules.settings() else {
        panic!("{:?}", upstream.rules)
    };
    assert_eq!(rule.reply.as_deref(), Some(":1"));
}

#[test]
fn the_effective_configuration_loads_as_the_same_settings() {
    let text = "workers = 3\n[log]\nformat = \"json\"\n[limits]\nbulk = \"1000001B\"\n[[upstream]]\nname = \"a\"\n\
        listen = \"unix:/run/a\"\nurl = \"unix:///r%20x?db=3\"\n[upstream.queue]\nfsync = \"no\"\nmax_age = \"1h\"\n\
        [[upstream.rule]]\ncommands = [\"object  freq\"]\nwhen_down = \"neutral\"\nreply = \"$-1\"\nneeds_key = false\n\
        [[upstream.rule]]\nkeys = [\"lock:*\"]\nwhen_down = \"error\"\n[[upstream.rule]]\nkeys = [\"s:*\"]\n\
        in_flight = \"journal\"\nafter_neutral_read = \"refuse\"\nneeds_key = true\nxadd_id = \"accepted\"\n[[upstream]]\nname = \"b\"";
    let settings = load_file(text).unwrap();
    assert_eq!(load_file(&effective(&settings)), Ok(settings));
    assert_eq!(load_file(&effective(&Settings::default())), Ok(Settings::default()));
}

#[test]
fn passwords_are_never_shown() {
    let settings = load_file(
        "[[upstream]]\nurl = \"redis://app:hunter2@h\"\nclient_password = \"hunter2\"\n[[upstream]]\nname = \"b\"\n\
         listen = \"h:1\"\npassword_file = \"pw\"\nurl = \"redis://h\"",
    );
    assert!(settings.is_err(), "the password file is not there");
    let settings = load_file("[[upstream]]\nurl = \"redis://app:hunter2@h\"\nclient_password = \"hunter2\"").unwrap();
    let shown = format!("{} {settings:?}", effective(&settings));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("redis://app:***@h:6379"), "{shown}");
    for wrong in [
        "password = \"hunter2\"",
        "[[upstream]]\nurl = \"redis+sentinel://app:hunter2@h\"",
        "[[upstream]]\nurk = \"redis://:hunter2@h\"",
        "[[upstream]]\nclient_password = [\"hunter2\"]",
        "client_password = \"hunter2",
    ] {
        let shown = load_file(wrong).unwrap_err().to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn every_fault_is_named_at_once() {
    check_faults(
        "data_dri = \"x\"\nworkers = 0\n[log]\nlevel = \"loud\"\nfile = \"x\"\n[limits]\nbulk = \"12 parsecs\"\n\
         [[upstream]]\nname = \"Main\"\nlisten = \"6380\"\nurl = \"redis+cluster://h\"\nhold_timeout = 5\n\
         [upstream.breaker]\nfailure_threshold = 0\n[upstream.queue]\nfsync = \"sometimes\"\nmax_bytes = \"1KiB\"\n\
         [[upstream.rule]]\nwhen_down = \"maybe\"\n[[upstream.rule]]\ncommands = [\"GETT\", \"GET\"]\n\
         when_down = \"neutral\"\nreply = \"1\"\n",
        &[
            "workers = 0: must be at least 1",
            "log.level = \"loud\": must be one of error, warn, info, debug, trace",
            "log.file = \"x\": unknown key (known here: format, level)",
            "limits.bulk = \"12 parsecs\": must be a size like \"256MiB\"",
            "upstream[0].name = \"Main\": must be 1 to 32 of a-z, 0-9, _ and -",
            "upstream[0].listen = \"6380\": must be host:port or unix:/path",
            "upstream[0].url = \"redis+cluster://h\": redis+cluster:// is not built yet",
            "upstream[0].hold_timeout = 5: must be a duration like \"500ms\"",
            "upstream[0].breaker.failure_threshold = 0: must be at least 1",
            "upstream[0].queue.fsync = \"sometimes\": must be one of \"always\", \"everysec\", \"no\"",
            "upstream[0].queue.max_bytes = \"1KiB\": must be at least 1MiB",
            "upstream[0].rule[0].when_down = \"maybe\": must be one of \"neutral\", \"queue\", \"error\", \"hold\"",
            "upstream[0].rule[0].commands: missing: a rule names commands; keys alone are enough where it neither queues \
             nor has a reply",
            "upstream[0].rule[1].commands = \"GETT\": no such command",
            "upstream[0].rule[1].reply = \"1\": a reply is +text, :n, $text, _ or *0",
            "data_dri = \"x\": unknown key (known here: data_dir, admin, workers, shutdown_timeout, busy_poll, io_uring, log, limits, upstream)",
        ],
    );
}

#[test]
fn wrong_kinds_of_values_are_faults() {
    check_faults("log = 1", &["log = 1: must be a table"]);
    check_faults(
        "[upstream]\nname = \"a\"",
        &["upstream = {…}: must be tables, each under [[upstream]]"],
    );
    check_faults("upstream = []", &["upstream = []: must hold at least one upstream"]);
    check_faults("workers = \"2\"", &["workers = \"2\": must be a whole number"]);
    check_faults(
        "shutdown_timeout = \"2h\"",
        &["shutdown_timeout = \"2h\": must be at most 1h"],
    );
    check_faults(
        "admin = \"localhost\"",
        &["admin = \"localhost\": must be address:port, as in \"127.0.0.1:9122\""],
    );
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    let error = load_file("workers = 1\nlog = = 2").unwrap_err();
    assert_eq!(error.exit_code(), 78);
    assert!(error.to_string().starts_with("t.toml line 2: not TOML"), "{error}");
}

#[test]
fn duplicates_and_loops_are_faults() {
    check_faults(
        "[[upstream]]\n[[upstream]]",
        &[
            "upstream[1].name = \"main\": already the name of upstream[0]",
            "upstream[1].listen = \"127.0.0.1:6380\": upstream[0] already listens there",
        ],
    );
    check_faults(
        "admin = \"127.0.0.1:6380\"",
        &["upstream[0].listen = \"127.0.0.1:6380\": admin already listens there"],
    );
    check_faults(
        "[[upstream]]\nlisten = \"127.0.0.1:6379\"",
        &["upstream[0].listen = \"127.0.0.1:6379\": must not be the upstream's own address"],
    );
    let two_chosen_by_the_system = "[[upstream]]\nlisten = \"h:0\"\n[[upstream]]\nname = \"b\"\nlisten = \"h:0\"";
    assert!(load_file(two_chosen_by_the_system).is_ok());
}

#[test]
fn waits_must_fit_each_other() {
    check_faults(
        "[[upstream]]\n[upstream.breaker]\nrecovery_timeout = \"2s\"",
        &["upstream[0].breaker.recovery_timeout = \"2s\": recovery_timeout must be at most recovery_timeout_max"],
    );
}

#[test]
fn flag_stands_above_environment_above_file_above_default() {
    let file = [(
        "t.toml",
        "data_dir = \"file\"\nadmin = \"127.0.0.1:1\"\nworkers = 1\n[[upstream]]\nname = \"x\"\nlisten = \"f:1\"",
    )];
    let env = [
        ("TIDEOVER_CONFIG", "t.toml"),
        ("TIDEOVER_DATA_DIR", "env"),
        ("TIDEOVER_WORKERS", "2"),
        ("TIDEOVER_LISTEN", "e:1"),
        ("TIDEOVER_LOG_FORMAT", "json"),
        ("TIDEOVER_LOG_LEVEL", ""),
    ];
    let flags = Flags {
        listen: Some("g:1".to_owned()),
        upstream: Some("redis://:pw@r:7/2".to_owned()),
        ..Flags::default()
    };
    let settings = load_with(&flags, &env, &file).unwrap();
    assert_eq!(settings.data_dir, PathBuf::from("env"));
    assert_eq!(settings.admin.port(), 1);
    assert_eq!(settings.workers.map(usize::from), Some(2));
    assert_eq!(settings.log.format.as_str(), "json");
    assert_eq!(settings.log.level.as_str(), "info");
    let upstream = &settings.upstreams[0];
    assert_eq!(
        (upstream.name.as_str(), upstream.listen.to_string()),
        ("x", "g:1".to_owned())
    );
    assert_eq!(upstream.url.to_string(), "redis://:***@r:7/2");
}

#[test]
fn what_kubernetes_injects_is_ignored() {
    let asked = RefCell::new(Vec::new());
    let env = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        (name == "TIDEOVER_PORT" || name.starts_with("TIDEOVER_SERVICE")).then(|| "tcp://10.0.0.1:6380".to_owned())
    };
    let read = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    let outside = Outside { env: &env, read: &read };
    assert_eq!(load(&Flags::default(), outside), Ok(Settings::default()));
    assert!(asked.borrow().iter().any(|name| name == "TIDEOVER_LISTEN"));
}

#[test]
fn faults_above_the_file_carry_the_name_of_their_origin() {
    let flags = Flags {
        upstream: Some("redis+cluster://u:p@h".to_owned()),
        ..Flags::default()
    };
    let env = [("TIDEOVER_WORKERS", "many"), ("TIDEOVER_ADMIN", "tcp://10.0.0.1:1")];
    let error = load_with(&flags, &env, &[]).unwrap_err();
    assert_eq!(error.exit_code(), 78);
    assert_eq!(
        error.to_string(),
        "TIDEOVER_ADMIN = \"tcp://10.0.0.1:1\": must be address:port, as in \"127.0.0.1:9122\"\n\
         TIDEOVER_WORKERS = \"many\": must be a whole number\n\
         --upstream = \"redis+cluster://u:***@h\": redis+cluster:// is not built yet"
    );
}

#[test]
fn listen_or_upstream_beside_several_upstreams_is_wrong_usage() {
    let several = [("t.toml", "[[upstream]]\n[[upstream]]\nname = \"b\"\nlisten = \"h:1\"")];
    let flags = Flags {
        listen: Some("h:2".to_owned()),
        ..file_flags()
    };
    let error = load_with(&flags, &[], &several).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    assert!(error.to_string().contains("--listen"), "{error}");
    assert!(load_with(&file_flags(), &[], &several).is_ok());
}

#[test]
fn a_missing_file_is_a_fault_of_the_configuration() {
    let error = load_with(&file_flags(), &[], &[]).unwrap_err();
    assert_eq!(error.exit_code(), 78);
    assert!(
        error.to_string().starts_with("--config = \"t.toml\": cannot be read"),
        "{error}"
    );
}

#[test]
fn a_password_file_completes_the_url() {
    let credentials = upstream("url = \"redis://app@h\"\npassword_file = \"secret\"")
        .url
        .credentials
        .unwrap();
    assert_eq!(
        (credentials.user.as_deref(), credentials.password.expose()),
        (Some("app"), &b"s3cret"[..])
    );
    let credentials = upstream("password_file = \"secret\"").url.credentials.unwrap();
    assert_eq!(
        (credentials.user, credentials.password.expose()),
        (None, &b"s3cret"[..])
    );
    check_faults(
        "[[upstream]]\nurl = \"redis://app@h\"",
        &["upstream[0].url: a user needs a password: user:password@, or password_file"],
    );
    check_faults(
        "[[upstream]]\nurl = \"redis://:p@h\"\npassword_file = \"secret\"",
        &["upstream[0].password_file: must not stand beside a password in the URL"],
    );
    check_faults(
        "[[upstream]]\npassword_file = \"empty\"",
        &["upstream[0].password_file = \"empty\": holds no password"],
    );
}

#[test]
fn rules_become_what_the_program_runs_with() {
    let rules = upstream(
        "[[upstream.rule]]\ncommands = [\"incr\"]\nkeys = [\"stats:*\"]\nwhen_down = \"queue\"\nreply = \":1\"\n\
         [[upstream.rule]]\nkeys = [\"lock:*\"]\nwhen_down = \"error\"\n",
    )
    .rules;
    let check = |name, key: &str, expected: Option<(Option<WhenDown>, Option<Reply>)>| {
        let rule = rules.first_match(name, std::iter::once(key.as_bytes()));
        let got = rule.map(|rule| (rule.when_down, rule.reply.clone()));
        assert_eq!(got, expected, "{name:?} {key}");
    };
    let queued = (Some(WhenDown::Queue), Some(Reply::Integer(1)));
    check(Name::Incr, "stats:a", Some(queued));
    check(Name::Incr, "lock:a", Some((Some(WhenDown::Error), None)));
    check(Name::Get, "lock:a", Some((Some(WhenDown::Error), None)));
    check(Name::Get, "stats:a", None);
}

#[test]
fn rules_that_ask_for_what_cannot_be_are_faults() {
    let rule = |text: &str| format!("[[upstream]]\n[[upstream.rule]]\n{text}");
    check_faults(
        &rule("commands = [\"INCR\", \"LPOP\"]\nwhen_down = \"queue\""),
        &[
            "upstream[0].rule[0].commands = \"INCR\": is queued only with a reply: what it answers decides something, and \
             the table cannot know it",
            "upstream[0].rule[0].commands = \"LPOP\": is never queued: nobody knows while down what it would hand out",
        ],
    );
    check_faults(
        &rule("commands = 1"),
        &["upstream[0].rule[0].commands = 1: must be a list of strings, at least one, none empty"],
    );
    for text in ["when_down = \"error\"", "keys = [\"a\"]\nwhen_down = \"queue\""] {
        let shown = load_file(&rule(text)).unwrap_err().to_string();
        assert!(shown.starts_with("upstream[0].rule[0].commands: missing"), "{shown}");
    }
}

#[test]
fn every_rule_key_that_cannot_work_is_named_with_its_value_and_the_reason() {
    let rule = |text: &str| format!("[[upstream]]\n[[upstream.rule]]\n{text}");
    check_faults(
        &rule("commands = [\"HSET\"]\nin_flight = \"never\"\nneeds_key = 1\nxadd_id = \"x\""),
        &[
            "upstream[0].rule[0].needs_key = 1: must be true or false",
            "upstream[0].rule[0].in_flight = \"never\": must be one of \"error\", \"journal\"",
            "upstream[0].rule[0].xadd_id = \"x\": must be one of \"provisional\", \"accepted\"",
        ],
    );
    check_faults(
        &rule(
            "commands = [\"INCR\"]\nin_flight = \"journal\"\nneeds_key = true\n[[upstream.rule]]\n\
             commands = [\"INCR\"]\nkeys = [\"a\"]\n",
        ),
        &[
            "upstream[0].rule[0].in_flight = \"journal\": INCR is journaled only with when_down = \"queue\" and a reply",
            "upstream[0].rule[0].needs_key = true: INCR is journaled only with when_down = \"queue\" and a reply",
            "upstream[0].rule[1].keys = [\"a\"]: never matches: rule[0] takes everything before it",
        ],
    );
}
