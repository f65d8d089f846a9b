//! The crate's map (`src/lib.rs`) and the list of attacks (`tests/exactly_once/main.rs`) name tests; they have to be there.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

fn sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The names in a text that stand for tests, of which it has so many at least.
fn check_names(text: &str, at_least: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    for dir in ["src", "tests"] {
        sources(&root.join(dir), &mut code);
    }
    let named = text.split('`').skip(1).step_by(2);
    let tests: Vec<&str> = named.filter(|name| name.matches('_').count() > 1).collect();
    assert!(tests.len() >= at_least, "{tests:?}");
    let missing: Vec<_> = tests
        .iter()
        .filter(|name| !code.contains(&format!("fn {name}(")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_test_that_the_map_names_exists() {
    let map = read("src/lib.rs");
    let (_, after) = map.split_once("# Invariants").unwrap();
    let (invariants, _) = after.split_once("//! # ").unwrap();
    check_names(invariants, 10);
}

#[test]
fn every_test_that_answers_an_attack_exists() {
    let source = read("tests/exactly_once/main.rs");
    let (attacks, _) = source.split_once("\n#!").unwrap();
    check_names(attacks, 50);
}
