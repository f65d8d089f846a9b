//! The presets in `config/`: what the built-in table alone damages for a program of that kind, and that nothing is left of it with the preset.
//!
//! A story is what a program does through an outage, told with the commands that its library sends. It says which damages it has seen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod gates;
mod queues;
mod stores;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::path::PathBuf;
use std::process::Command;

use support::Tideover;
use world::{World, folder, rules_of, settings_of};

type Damages = Vec<&'static str>;

/// Tells the story twice. Without the preset it must see exactly these damages, with it none, and no rule may stand idle.
#[track_caller]
fn check(preset: &str, story: fn(&mut World) -> Damages, damages: &[&str]) {
    assert_eq!(story(&mut World::start(None)), damages, "by the built-in table alone");
    let mut world = World::start(Some(preset));
    assert_eq!(story(&mut world), Damages::new(), "with the preset {preset}");
    let idle = world.rules_without_a_command();
    assert!(idle.is_empty(), "{preset}: the story needs no {idle:#?}");
}

fn presets() -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder()).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| name != "tideover.toml"));
    paths.sort();
    paths
}

#[test]
fn every_preset_is_a_valid_configuration_that_says_what_it_is_for() {
    let presets = presets();
    assert!(presets.len() >= 10, "{presets:?}");
    for path in presets {
        let output = Command::new(Tideover::binary())
            .args(["check", "--config"])
            .arg(&path)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {told}", path.display());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{}", path.display());
        assert!(text.lines().count() <= 80, "{}: too long to be read", path.display());
        // A rule is what stands under its comment, so that both are copied together.
        for (line, next) in text.lines().zip(text.lines().skip(1)) {
            let is_rule = next == "[[upstream.rule]]";
            assert!(
                !is_rule || line.starts_with("# "),
                "{}: a rule without a reason",
                path.display()
            );
        }
    }
}

#[test]
fn a_preset_is_one_upstream_and_its_rules_come_last() {
    for path in presets() {
        let settings = settings_of(&path);
        let [upstream] = settings.upstreams.as_slice() else {
            panic!("{}: one upstream", path.display());
        };
        assert!(!upstream.rules.is_empty(), "{}", path.display());
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(rules_of(name).starts_with("[[upstream.rule]]"), "{name}");
        assert!(
            !rules_of(name).contains("\n[upstream"),
            "{name}: only rules behind the first"
        );
    }
}

#[test]
fn every_preset_has_a_story_and_a_line_in_the_readme() {
    let root = folder().parent().unwrap().to_owned();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let stories = [
        include_str!("queues.rs"),
        include_str!("gates.rs"),
        include_str!("stores.rs"),
    ]
    .concat();
    for path in presets() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(stories.contains(&format!("\"{name}\"")), "{name} has no story");
        assert!(
            readme.contains(&format!("](config/{name})")),
            "{name} is not in the README"
        );
    }
}
