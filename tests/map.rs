//! The crate's map (`src/lib.rs`) names tests; they have to be there.

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

#[test]
fn every_test_that_the_map_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let (_, after) = map.split_once("# Invariants").unwrap();
    let (invariants, _) = after.split_once("//! # ").unwrap();
    let mut code = String::new();
    for dir in ["src", "tests"] {
        sources(&root.join(dir), &mut code);
    }
    let named = invariants.split('`').skip(1).step_by(2);
    let tests: Vec<&str> = named.filter(|name| name.matches('_').count() > 1).collect();
    assert!(tests.len() >= 10, "{tests:?}");
    let missing: Vec<_> = tests
        .iter()
        .filter(|name| !code.contains(&format!("fn {name}(")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
