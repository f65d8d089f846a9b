//! Keeps the house rules that the compiler does not: which room knows which, what pure rooms must not touch, sizes, leftovers.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms that a room may know besides itself. Arrows point down; `lib.rs` and `main.rs` are the doors and know all.
const ARROWS: &[(&str, &[&str])] = &[
    ("resp", &[]),
    ("journal", &[]),
    ("breaker", &[]),
    ("telemetry", &[]),
    ("command", &["resp"]),
    ("outage", &["command", "resp"]),
    ("upstream", &["breaker", "command", "resp", "telemetry"]),
    (
        "replay",
        &[
            "upstream",
            "journal",
            "outage",
            "breaker",
            "resp",
            "command",
            "telemetry",
        ],
    ),
    (
        "session",
        &[
            "upstream",
            "journal",
            "outage",
            "command",
            "resp",
            "breaker",
            "telemetry",
        ],
    ),
    ("admin", &BELOW_SERVER),
    ("server", &BELOW_SERVER_WITH_ADMIN),
    // For the settings types that stand beside the code that uses them.
    ("config", &BELOW_SERVER_WITH_ADMIN),
    ("cli", &EVERY_ROOM),
];

/// `config` stands beside `cli` on top, but what it parses is handed down as it is.
const BELOW_SERVER: [&str; 10] = [
    "session",
    "replay",
    "upstream",
    "outage",
    "command",
    "breaker",
    "journal",
    "resp",
    "telemetry",
    "config",
];
const BELOW_SERVER_WITH_ADMIN: [&str; 12] = [
    "session",
    "replay",
    "upstream",
    "outage",
    "command",
    "breaker",
    "journal",
    "resp",
    "telemetry",
    "config",
    "admin",
    "server",
];
const EVERY_ROOM: [&str; 13] = [
    "session",
    "replay",
    "upstream",
    "outage",
    "command",
    "breaker",
    "journal",
    "resp",
    "telemetry",
    "config",
    "admin",
    "server",
    "cli",
];

const LINES_MAX: usize = 500;

/// What makes code depend on the outside world.
const WORLD: &[&str] = &[
    "tokio",
    "std::net",
    "std::fs",
    "Instant::now",
    "SystemTime::now",
    "fastrand",
    "tracing::",
    "metrics::",
];
const PURE_ROOMS: &[&str] = &["resp", "command", "outage", "breaker"];

struct Source {
    /// From the package's root.
    path: String,
    text: String,
    /// Code that only tests compile: a file of tests, or all of it from this line (counted from 0) on.
    tests_from: usize,
}

impl Source {
    /// The room, for files under `src`.
    fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        inside.split_once('/').map(|(room, _)| room)
    }

    /// Lines with their numbers from 1, comments left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.split_once("//").map_or(line, |(code, _)| code)))
    }

    /// As [`Source::code`], with a list that goes over several lines on its first.
    fn statements(&self) -> Vec<(usize, String)> {
        let mut statements: Vec<(usize, String)> = Vec::new();
        for (line, code) in self.code() {
            match statements.last_mut() {
                Some((_, open)) if open.contains("crate::{") && !open.contains(';') => open.push_str(code),
                _ => statements.push((line, code.to_owned())),
            }
        }
        statements
    }

    fn shipped_code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().filter(|(line, _)| *line <= self.tests_from)
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in folders {
        collect(&root.join(folder), &mut paths);
    }
    paths.sort();
    let mut sources: Vec<Source> = paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            Source {
                path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
                tests_from: start_of_tests(&text),
                text,
            }
        })
        .collect();
    let modules: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        if modules
            .iter()
            .any(|module| stem == module || stem.starts_with(&format!("{module}/")))
        {
            source.tests_from = 0;
        }
    }
    sources
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The line of the `#[cfg(test)]` before an inline module of tests; the number of lines where there is none.
fn start_of_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.windows(2).position(|pair| {
        pair[0] == "#[cfg(test)]"
            && pair[1].trim_start_matches("pub(crate) ").starts_with("mod ")
            && pair[1].ends_with('{')
    });
    start.unwrap_or(lines.len())
}

/// Paths, without ending, of the files that `#[cfg(test)] mod NAME;` of this file names.
fn test_modules(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    lines
        .windows(2)
        .filter(|pair| pair[0] == "#[cfg(test)]")
        .filter_map(|pair| {
            let (_, name) = pair[1].strip_suffix(';')?.rsplit_once("mod ")?;
            Some(format!("{folder}/{name}"))
        })
        .collect()
}

/// Rooms named in `crate::room` and `crate::{room, other::thing}`.
fn rooms_named(code: &str) -> Vec<&str> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let whole_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        let rest = &code[at + "crate::".len()..];
        if !whole_word {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(members(group).into_iter().map(first_word)),
            None => rooms.push(first_word(rest)),
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

/// The members of a `{…}` list whose opening brace is taken off; nested lists stay with their member.
fn members(group: &str) -> Vec<&str> {
    let mut members = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(group[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    members
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

fn report(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn rooms_know_only_the_rooms_below_them() {
    let mut violations = Vec::new();
    for source in sources(&["src"]) {
        let Some(room) = source.room() else { continue };
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            violations.push(format!("{}:1: `{room}` is no room of the plan", source.path));
            continue;
        };
        for (line, code) in source.statements() {
            for named in rooms_named(&code) {
                if named != room && !allowed.contains(&named) {
                    violations.push(format!("{}:{line}: `{room}` knows `{named}`", source.path));
                }
            }
        }
    }
    report(&violations);
}

#[test]
fn the_table_of_arrows_has_no_circle_below_the_configuration() {
    for (room, allowed) in ARROWS {
        for other in allowed.iter().filter(|other| **other != "config") {
            let (_, back) = ARROWS.iter().find(|(name, _)| name == other).unwrap();
            assert!(
                *room == *other || *room == "config" || !back.contains(room),
                "{room} and {other} know each other"
            );
        }
    }
}

#[test]
fn rooms_are_found_in_every_way_of_naming_them() {
    for (code, expected) in [
        ("use crate::resp::Request;", vec!["resp"]),
        ("use crate::{breaker, telemetry::Event};", vec!["breaker", "telemetry"]),
        (
            "let x = crate::upstream::again(crate::session::X);",
            vec!["upstream", "session"],
        ),
        ("use crate::{resp::{self, Request}, command};", vec!["resp", "command"]),
        ("pub(crate) fn f() {}", vec![]),
        ("use othercrate::resp;", vec![]),
    ] {
        assert_eq!(rooms_named(code), expected, "{code}");
    }
}

#[test]
fn pure_rooms_do_not_touch_the_world() {
    let mut violations = Vec::new();
    for source in sources(&["src"]) {
        let Some(room) = source.room() else { continue };
        let is_storage = source.path == "src/journal/storage.rs";
        let is_owner = source.path.starts_with("src/journal/owner/");
        let forbidden = |word: &str| match room {
            "journal" => match word {
                "std::fs" => !is_storage,
                "Instant::now" => !is_owner,
                _ => true,
            },
            _ => PURE_ROOMS.contains(&room),
        };
        for (line, code) in source.shipped_code() {
            for word in WORLD.iter().filter(|word| code.contains(**word) && forbidden(word)) {
                violations.push(format!("{}:{line}: `{word}` in `{room}`", source.path));
            }
        }
    }
    report(&violations);
}

#[test]
fn files_are_not_longer_than_a_reader_bears() {
    let mut violations = Vec::new();
    for source in sources(&["src"]) {
        let lines = source.text.lines().count();
        if source.tests_from > 0 && lines > LINES_MAX {
            violations.push(format!("{}:{LINES_MAX}: {lines} lines", source.path));
        }
    }
    report(&violations);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let leftovers = [
        concat!("to", "do!"),
        concat!("db", "g!"),
        concat!("#[ig", "nore"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("unimple", "mented!"),
    ];
    let mut violations = Vec::new();
    for source in sources(&["src", "tests"]) {
        for (index, text) in source.text.lines().enumerate() {
            for word in leftovers.iter().filter(|word| text.contains(**word)) {
                violations.push(format!("{}:{}: {word}", source.path, index + 1));
            }
        }
    }
    report(&violations);
}
