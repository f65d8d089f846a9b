//! Tables for people. Pure.

use std::fmt::Write;

use serde_json::Value;

/// Columns as wide as their widest cell; numbers stand right. The first row is the heading.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let mut text = String::new();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .map(|row| cell(row, column).chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let is_number = |column: usize| {
        let mut cells = rows.iter().skip(1).map(|row| cell(row, column)).peekable();
        cells.peek().is_some() && cells.all(|text| text.starts_with(|first: char| first.is_ascii_digit()))
    };
    let numbers: Vec<bool> = (0..columns).map(is_number).collect();
    for row in rows {
        let mut line = String::new();
        for (column, (width, is_number)) in widths.iter().zip(&numbers).enumerate() {
            let text = cell(row, column);
            // Writing to a string does not fail.
            let _ = if *is_number {
                write!(line, "{text:>width$}  ")
            } else {
                write!(line, "{text:<width$}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What `/status` says.
pub(super) fn status(status: &Value) -> String {
    let heading = [
        "NAME",
        "STATE",
        "MODE",
        "BACKLOG",
        "SIZE",
        "OLDEST",
        "DEAD LETTERS",
        "CLIENTS",
        "LISTEN",
        "UPSTREAM",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let mut notes = String::new();
    for upstream in status["upstreams"].as_array().into_iter().flatten() {
        let queue = &upstream["queue"];
        rows.push(vec![
            text(&upstream["name"]),
            text(&upstream["state"]).to_uppercase(),
            text(&upstream["mode"]),
            text(&queue["records"]),
            size(&queue["bytes"]),
            age(&queue["oldest_age_ms"]),
            text(&upstream["dead_letters"]),
            text(&upstream["clients"]),
            text(&upstream["listen"]),
            text(&upstream["url"]),
        ]);
        let mut note = |what: &str| {
            let _ = writeln!(notes, "{}: {what}", text(&upstream["name"]));
        };
        for error in ["last_error", "journal_error"] {
            if upstream[error].is_string() {
                note(&text(&upstream[error]));
            }
        }
        if upstream["fence"] == "unproven" {
            note("fence unproven: what was sent before the failure may still be applied");
        }
        if queue["paused"] == true {
            note("replay is paused (tideover queue resume)");
        }
    }
    table(&rows) + &notes
}

/// What `/upstreams/NAME/queue` says.
pub(super) fn queue(queue: &Value) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = [
        row("records", text(&queue["records"])),
        row("waiting for their user", waiting(queue)),
        row("size", size(&queue["bytes"])),
        row("oldest", age(&queue["oldest_age_ms"])),
        row("acknowledged", text(&queue["acknowledged_total"])),
        row("replayed", text(&queue["replayed_total"])),
        row("kept after replay", size(&queue["retained_bytes"])),
        row("on disk", size(&queue["disk_bytes"])),
        row(
            "replay",
            if queue["paused"] == true { "paused" } else { "on" }.to_owned(),
        ),
        row(
            "rate",
            queue["rate_max"]
                .as_u64()
                .map_or_else(|| "not limited".to_owned(), |max| format!("at most {max}/s")),
        ),
    ];
    table(&rows)
}

/// How many records wait, and for whom.
fn waiting(queue: &Value) -> String {
    let users = queue["identities_waiting"].as_array().into_iter().flatten();
    let users: Vec<String> = users.map(user).collect();
    let records = text(&queue["waiting_records"]);
    if users.is_empty() {
        records
    } else {
        format!("{records} ({})", users.join(", "))
    }
}

/// The user of the upstream's URL has no name.
fn user(identity: &Value) -> String {
    match identity.as_str() {
        None | Some("") => "-".to_owned(),
        Some(_) => text(identity),
    }
}

/// What is to be known of what `export` has written; nothing where it is all backlog.
pub(super) fn exported(queue: &Value) -> Option<String> {
    let is_waiting = queue["waiting_records"].as_u64() > Some(0);
    is_waiting.then(|| format!("records among them that wait for their user: {}", waiting(queue)))
}

/// Lines of records, as `peek` gives them.
pub(super) fn records(lines: &str) -> String {
    let heading = ["SEQ", "AGE", "DB", "IDENTITY", "COMMAND"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for record in values(lines) {
        let whose = user(&record["identity"]);
        let is_waiting = record["stands"] == "waiting";
        rows.push(vec![
            text(&record["seq"]),
            age(&record["age_ms"]),
            text(&record["db"]),
            if is_waiting {
                format!("{whose} (waiting)")
            } else {
                whose
            },
            commands(&record),
        ]);
    }
    table(&rows)
}

/// Lines of dead letters.
pub(super) fn letters(lines: &str) -> String {
    let heading = ["SEQ", "REASON", "COMMAND", "ERROR"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for letter in values(lines) {
        rows.push(vec![
            text(&letter["seq"]),
            text(&letter["reason"]),
            commands(&letter),
            text(&letter["error"]),
        ]);
    }
    table(&rows)
}

/// One dead letter, whole.
pub(super) fn letter(letter: &Value) -> String {
    let mut out = String::new();
    for field in ["seq", "reason", "error", "db", "identity", "bytes"] {
        let _ = writeln!(out, "{field:<9} {}", text(&letter[field]));
    }
    for command in letter["commands"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "command   {}", text(command));
    }
    out
}

fn values(lines: &str) -> impl Iterator<Item = Value> {
    lines.lines().filter_map(|line| serde_json::from_str(line).ok())
}

fn commands(record: &Value) -> String {
    let commands: Vec<String> = record["commands"].as_array().into_iter().flatten().map(text).collect();
    let more = record["count"]
        .as_u64()
        .unwrap_or(0)
        .saturating_sub(commands.len() as u64);
    let mut shown = commands.join("; ");
    if more > 0 {
        let _ = write!(shown, "; and {more} more");
    }
    shown
}

/// A value without quotes, and without what a terminal would obey.
fn text(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    text.replace(char::is_control, "?")
}

fn size(value: &Value) -> String {
    value
        .as_u64()
        .map_or_else(|| "-".to_owned(), |bytes| bytesize::ByteSize::b(bytes).to_string())
}

fn age(value: &Value) -> String {
    match value.as_u64() {
        None | Some(0) => "-".to_owned(),
        Some(age_ms @ 1..60_000) => format!("{}.{}s", age_ms / 1000, age_ms % 1000 / 100),
        Some(age_ms) => humantime::format_duration(std::time::Duration::from_secs(age_ms / 1000)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_numbers_stand_right() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["NAME", "COUNT", "X"]),
            row(["a", "7", ""]),
            row(["longer", "123456", "y"]),
        ];
        assert_eq!(table(&rows), "NAME     COUNT  X\na            7\nlonger  123456  y\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn status_is_one_row_for_each_upstream_and_a_line_for_each_worry() {
        let queue = json!({"records": 12, "bytes": 2048, "oldest_age_ms": 1500, "paused": true});
        let main = json!({"name": "main", "state": "half_open", "mode": "catching_up", "queue": queue, "dead_letters": 3,
            "clients": 4, "listen": "127.0.0.1:1", "url": "redis://h", "last_error": "gone\u{1b}[31m", "fence": "unproven"});
        let other =
            json!({"name": "b", "state": "closed", "mode": "healthy", "queue": {"records": 0}, "last_error": null});
        let shown = status(&json!({"upstreams": [main, other]}));
        let lines: Vec<&str> = shown.lines().collect();
        let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            words(1),
            "main HALF_OPEN catching_up 12 2.0 KiB 1.5s 3 4 127.0.0.1:1 redis://h"
        );
        assert_eq!(words(2), "b CLOSED healthy 0 - - - - - -");
        assert_eq!(lines[3], "main: gone?[31m");
        assert!(lines[4].contains("unproven") && lines[5].contains("paused"), "{shown}");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn records_and_letters_are_lines() {
        let record =
            json!({"seq": 7, "age_ms": 90_000, "db": 0, "identity": "", "count": 3, "commands": ["DEL a", "DEL b"]});
        let shown = records(&format!("{record}\n"));
        assert!(
            shown.contains("7  1m 30s   0  -         DEL a; DEL b; and 1 more"),
            "{shown}"
        );
        let dead = json!({"seq": 7, "reason": "wrong_type", "error": "WRONGTYPE", "count": 1, "commands": ["DEL a"]});
        assert!(letters(&format!("{dead}\n")).contains("7  wrong_type  DEL a    WRONGTYPE"));
        assert!(letter(&dead).contains("command   DEL a\n"));
    }
}
