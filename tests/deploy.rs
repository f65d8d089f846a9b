//! What is shipped for containers says what the program understands.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use tideover::cli::{Cli, Command};
use tideover::config::{Flags, Outside, Settings, load};
use tideover::outage::rules::WhenDown;

const MANIFESTS: [&str; 2] = ["deploy/kubernetes.yaml", "deploy/kubernetes-pvc.yaml"];

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The block under `tideover.toml: |`, without its indentation.
fn toml_block(manifest: &str) -> String {
    let (_, after) = manifest.split_once("  tideover.toml: |\n").unwrap();
    let lines = after
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("    "));
    lines
        .map(|line| line.strip_prefix("    ").unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// What follows `key` on its line; every line that has it says the same.
fn only<'t>(text: &'t str, key: &str) -> &'t str {
    let found: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix(key))
        .map(str::trim)
        .collect();
    assert_eq!(found.len(), 1, "{key} {found:?}");
    found.into_iter().next().unwrap()
}

fn settings(manifest: &str) -> Settings {
    let args: Vec<String> = serde_json::from_str(only(manifest, "args:")).unwrap();
    let cli = Cli::try_parse_from(std::iter::once("tideover".to_owned()).chain(args)).unwrap();
    let Some(Command::Run(args)) = cli.command else {
        panic!("not run: {cli:?}");
    };
    let read = |path: &Path| {
        let mounts = only(manifest, "mountPath: /etc");
        if path == Path::new(&format!("/etc{mounts}/tideover.toml")) {
            Ok(toml_block(manifest))
        } else if path == Path::new("/run/secrets/tideover/redis-password") {
            Ok(only(manifest, "redis-password:").to_owned())
        } else {
            Err(io::Error::from(io::ErrorKind::NotFound))
        }
    };
    let outside = Outside {
        env: &|_| None,
        read: &read,
    };
    load(&Flags::from(args), outside).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_configuration_in_a_manifest_loads_and_fits_the_pod_around_it() {
    for path in MANIFESTS {
        let manifest = text(path);
        let settings = settings(&manifest);
        let upstream = &settings.upstreams[0];
        assert!(upstream.url.credentials.is_some(), "{path}");
        let app = format!("value: redis://{}", upstream.listen);
        assert!(manifest.contains(&app), "{path}: {app}");
        // The kubelet comes from outside the pod.
        assert!(settings.admin.ip().is_unspecified(), "{path}");
        let admin = settings.admin.port().to_string();
        assert_eq!(only(&manifest, "containerPort:"), admin, "{path}");
        assert_eq!(only(&manifest, "prometheus.io/port:"), format!("\"{admin}\""), "{path}");
        let data = format!("mountPath: {}\n", settings.data_dir.display());
        assert!(manifest.contains(&data), "{path}: {data}");
        let grace_s: u64 = only(&manifest, "terminationGracePeriodSeconds:").parse().unwrap();
        assert!(settings.shutdown_timeout.as_secs() + 5 < grace_s, "{path}");
        let rule = &upstream.rules.settings()[0];
        assert_eq!(rule.when_down, Some(WhenDown::Error), "{path}");
    }
}

#[test]
fn the_pod_runs_as_the_user_of_the_image() {
    let dockerfile = text("Dockerfile");
    for path in MANIFESTS {
        let user = only(&text(path), "runAsUser:").to_owned();
        assert!(dockerfile.contains(&format!("--chown={user}:{user}")), "{path}: {user}");
    }
}

#[test]
fn every_variable_that_the_documents_name_is_asked_for() {
    let asked = RefCell::new(BTreeSet::from(["TIDEOVER_JSON".to_owned()]));
    let env = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        None
    };
    let read = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    load(&Flags::default(), Outside { env: &env, read: &read }).unwrap();
    for path in MANIFESTS
        .iter()
        .chain(&["Dockerfile", "README.md", "config/tideover.toml"])
    {
        let text = text(path);
        let names = text
            .split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
            .filter(|word| word.starts_with("TIDEOVER_") && word.len() > "TIDEOVER_".len());
        for name in names {
            assert!(asked.borrow().contains(name), "{path}: {name}");
        }
    }
}

/// Lines of the README that are commands for tideover, as in a code block.
#[test]
fn the_commands_in_the_readme_are_understood() {
    let readme = text("README.md");
    let mut seen = 0;
    for line in readme.lines().filter(|line| line.starts_with("tideover ")) {
        let command = line.split(" #").next().unwrap_or(line);
        let parsed = Cli::try_parse_from(command.split_whitespace());
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        seen += 1;
    }
    let subcommands = Cli::command().get_subcommands().count();
    assert!(seen >= subcommands, "{seen} commands, of {subcommands} subcommands");
}

#[test]
fn the_rules_in_the_readme_load() {
    let readme = text("README.md");
    let mut blocks = readme
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let rules = blocks.find(|block| block.contains("[[upstream.rule]]")).unwrap();
    let read = |_: &Path| Ok(format!("[[upstream]]\n{rules}"));
    let flags = Flags {
        config: Some(PathBuf::from("tideover.toml")),
        ..Flags::default()
    };
    let outside = Outside {
        env: &|_| None,
        read: &read,
    };
    let settings = load(&flags, outside).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(settings.upstreams[0].rules.settings().len(), 2);
}

#[test]
fn the_readme_s_links_lead_somewhere() {
    let readme = text("README.md");
    let mut links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    assert!(links.clone().count() > 0);
    let broken = links.find(|link| !link.starts_with('#') && !root.join(link).exists());
    assert_eq!(broken, None);
}
