//! What is wrong with certificates in a configuration is named at once; `tideover check` shows what is right.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::path::Path;

use support::certificates::{Authority, Issued};
use tideover::config::{Flags, LoadError, Outside, Settings, effective, load};

fn load_text(text: &str, env: &[(&str, &str)]) -> Result<Settings, LoadError> {
    let env = |name: &str| {
        let found = env.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let read = |path: &Path| {
        if path == Path::new("t.toml") {
            Ok(text.to_owned())
        } else {
            std::fs::read_to_string(path)
        }
    };
    let flags = Flags {
        config: Some("t.toml".into()),
        ..Flags::default()
    };
    load(&flags, Outside { env: &env, read: &read })
}

/// The faults, one per line.
#[track_caller]
fn check_faults(text: &str, expected: &[&str]) {
    let error = load_text(text, &[]).expect_err(text);
    assert_eq!(error.exit_code(), 78, "{text}");
    let shown = error.to_string();
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected, "{text}");
}

#[test]
fn the_effective_configuration_with_tls_loads_as_the_same_settings() {
    let authority = Authority::new();
    let files = authority.local("a");
    let text = format!(
        "[[upstream]]\nurl = \"rediss://u:hunter2@h:1/2\"\n[upstream.tls]\nca_file = {ca:?}\n{files}server_name = \"s\"\n\
         [upstream.listen_tls]\n{files}client_ca_file = {ca:?}\n",
        ca = authority.ca(),
        files = files.toml(),
    );
    let settings = load_text(&text, &[]).unwrap();
    let shown = effective(&settings);
    assert!(shown.contains("rediss://u:***@h:1/2"), "{shown}");
    for key in [
        "ca_file",
        "client_ca_file",
        "server_name = \"s\"",
        "[upstream.listen_tls]",
    ] {
        assert!(shown.contains(key), "{key} is not in\n{shown}");
    }
    assert_eq!(load_text(&shown.replace("***", "hunter2"), &[]).unwrap(), settings);
}

#[test]
fn a_url_above_the_file_takes_the_files_tls() {
    let authority = Authority::new();
    let text = format!("[[upstream]]\n[upstream.tls]\nca_file = {:?}\n", authority.ca());
    let settings = load_text(&text, &[("TIDEOVER_UPSTREAM", "rediss://h")]).unwrap();
    assert!(effective(&settings).contains("ca_file"));
    check_faults(
        &text,
        &["upstream[0].tls: is there, but the URL does not begin with rediss://"],
    );
}

#[test]
fn every_fault_of_the_files_is_named_at_once() {
    let authority = Authority::new();
    let (one, other) = (authority.local("one"), authority.local("other"));
    let empty = one.cert.with_file_name("empty");
    std::fs::write(&empty, "no PEM").unwrap();
    let mixed = Issued {
        cert: one.cert.clone(),
        key: other.key,
    };
    let text = format!(
        "[[upstream]]\nurl = \"rediss://h\"\n[upstream.tls]\nca_file = {empty:?}\ncert_file = \"/nowhere/c.pem\"\n\
         key_file = {empty:?}\nserver_name = \"a b\"\nverify = false\n[upstream.listen_tls]\n{}client_ca_file = {empty:?}\n",
        mixed.toml(),
    );
    let mismatch = format!(
        "upstream[0].listen_tls.key_file = {:?}: is not the key to the certificate in {:?}",
        mixed.key, mixed.cert
    );
    check_faults(
        &text,
        &[
            &mismatch,
            &format!("upstream[0].listen_tls.client_ca_file = {empty:?}: holds no certificate (PEM)"),
            "upstream[0].tls.server_name = \"a b\": must be a DNS name or an IP address",
            &format!("upstream[0].tls.ca_file = {empty:?}: holds no certificate (PEM)"),
            "upstream[0].tls.cert_file = \"/nowhere/c.pem\": cannot be read: No such file or directory (os error 2)",
            &format!("upstream[0].tls.key_file = {empty:?}: holds no private key (PEM)"),
            "upstream[0].tls.verify = false: unknown key (known here: ca_file, cert_file, key_file, server_name)",
        ],
    );
}

#[test]
fn tls_that_does_not_fit_its_place_is_a_fault() {
    let authority = Authority::new();
    let files = authority.local("a");
    let ca = format!("ca_file = {:?}\n", authority.ca());
    let url = "[[upstream]]\nurl = \"rediss://h\"\n[upstream.tls]\n";
    check_faults(
        &format!("{url}{ca}cert_file = {:?}\n", files.cert),
        &["upstream[0].tls.key_file: missing: cert_file and key_file go together"],
    );
    check_faults(
        &format!("[[upstream]]\nurl = \"unix:///run/r\"\n[upstream.tls]\n{ca}"),
        &["upstream[0].tls: is there, but the URL does not begin with rediss://"],
    );
    check_faults(
        &format!(
            "[[upstream]]\nlisten = \"unix:/run/t\"\n[upstream.listen_tls]\n{}",
            files.toml()
        ),
        &["upstream[0].listen = \"unix:/run/t\": a unix socket takes no listen_tls"],
    );
    check_faults(
        "[[upstream]]\n[upstream.listen_tls]\n",
        &["upstream[0].listen_tls.cert_file: missing: a listener needs cert_file and key_file"],
    );
    let encrypted = files.key.with_file_name("encrypted");
    std::fs::write(
        &encrypted,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    check_faults(
        &format!("{url}{ca}cert_file = {:?}\nkey_file = {encrypted:?}\n", files.cert),
        &[&format!(
            "upstream[0].tls.key_file = {encrypted:?}: is encrypted: the key must stand there without a passphrase"
        )],
    );
}

/// In the README as they stand there; in the example behind a `# `.
#[test]
fn the_documented_keys_load_and_are_all_there_are() {
    let authority = Authority::new();
    let (server, client) = (authority.local("server"), authority.local("client"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let mut blocks = readme.split("```toml\n").map(|rest| rest.split("```").next().unwrap());
    let in_readme = blocks.find(|block| block.contains("listen_tls")).unwrap();
    let example = std::fs::read_to_string(root.join("config/tideover.toml")).unwrap();
    let (_, tls) = example.split_once("# [upstream.tls]\n").unwrap();
    let (tls, _) = tls.split_once("\n[upstream.breaker]").unwrap();
    let lines = tls.lines().filter_map(|line| line.strip_prefix("# "));
    let keys: Vec<&str> = lines
        .filter(|line| line.contains(" = ") || line.starts_with('['))
        .collect();
    let in_example = format!(
        "[[upstream]]\nurl = \"rediss://h\"\n[upstream.tls]\n{}\n",
        keys.join("\n")
    );
    for text in [in_readme, &in_example] {
        let read = |path: &Path| match path.to_str().unwrap() {
            "t.toml" => Ok(text.to_owned()),
            "/etc/tideover/ca.pem" => std::fs::read_to_string(authority.ca()),
            "/etc/tideover/server.pem" => std::fs::read_to_string(&server.cert),
            "/etc/tideover/server.key" => std::fs::read_to_string(&server.key),
            "/etc/tideover/client.pem" => std::fs::read_to_string(&client.cert),
            "/etc/tideover/client.key" => std::fs::read_to_string(&client.key),
            other => panic!("{other} is read"),
        };
        let flags = Flags {
            config: Some("t.toml".into()),
            ..Flags::default()
        };
        let outside = Outside {
            env: &|_| None,
            read: &read,
        };
        let shown = effective(&load(&flags, outside).unwrap_or_else(|error| panic!("{error}\n{text}")));
        for key in ["ca_file", "cert_file", "key_file", "server_name", "client_ca_file"] {
            assert!(shown.contains(&format!("\n{key} = ")), "{key} is not in\n{shown}");
        }
    }
}
