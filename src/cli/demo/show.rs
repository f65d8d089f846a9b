//! What the demo prints: a heading for each phase, a line for each quarter of a second, and the numbers at the end.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde_json::Value;

use super::check::Findings;
use super::load::Counters;

/// Of the backlog's bar: records that make a cell, and cells at most.
const CELL_RECORDS: u64 = 1024;
const CELLS_MAX: usize = 8;

/// Whether escape sequences are welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Terminal,
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    Green,
    Yellow,
    Red,
    Faint,
    Bold,
}

impl Style {
    pub(super) fn of_stdout() -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if io::stdout().is_terminal() && !is_unwanted {
            Self::Terminal
        } else {
            Self::Plain
        }
    }

    fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
            Colour::Faint => 2,
            Colour::Bold => 1,
        };
        match self {
            Self::Terminal => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

/// What one line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) at: Duration,
    pub(super) state: String,
    pub(super) mode: String,
    pub(super) commands_per_s: u64,
    pub(super) neutral: u64,
    pub(super) queued: u64,
    pub(super) replayed: u64,
    pub(super) backlog: u64,
}

impl Moment {
    /// Fills in what `/status` says of the only upstream; before it answers there is nothing to say.
    pub(super) fn with_status(mut self, status: Option<&Value>) -> Self {
        let upstream = status.map(|status| &status["upstreams"][0]);
        let text = |field: &str| {
            upstream
                .and_then(|upstream| upstream[field].as_str())
                .unwrap_or("?")
                .to_owned()
        };
        let number = |field: &str| {
            upstream
                .and_then(|upstream| upstream["queue"][field].as_u64())
                .unwrap_or(0)
        };
        self.state = text("state").to_uppercase();
        self.mode = text("mode");
        self.queued = number("acknowledged_total");
        self.replayed = number("replayed_total");
        self.backlog = number("records");
        self
    }
}

pub(super) struct Show {
    style: Style,
}

impl Show {
    pub(super) fn new(style: Style) -> Self {
        Self { style }
    }

    pub(super) fn say(&self, text: &str) -> io::Result<()> {
        writeln!(io::stdout(), "{text}")
    }

    pub(super) fn phase(&self, text: &str) -> io::Result<()> {
        self.say(&format!("\n{}", self.style.paint(Colour::Bold, &format!("== {text}"))))
    }

    pub(super) fn heading(&self) -> io::Result<()> {
        let heading = format!(
            "{:>5} {:<21} {:>6} {:>8} {:>7} {:>9} {:>8}",
            "time", "breaker", "ops/s", "neutral", "queued", "replayed", "backlog"
        );
        self.say(&self.style.paint(Colour::Faint, &heading))
    }

    pub(super) fn moment(&self, moment: &Moment) -> io::Result<()> {
        self.say(&line(self.style, moment))
    }

    /// The numbers, and the verdict.
    pub(super) fn result(&self, summary: &Summary) -> io::Result<()> {
        let mut out = String::new();
        for (name, value, meaning) in summary.rows() {
            out.push_str(&format!(
                "{name:>22}  {value:>9}  {}\n",
                self.style.paint(Colour::Faint, meaning)
            ));
        }
        let verdict = if summary.holds() {
            self.style
                .paint(Colour::Green, "Every acknowledged write is in Redis once and in order.")
        } else {
            self.style.paint(
                Colour::Red,
                "NOT every acknowledged write is in Redis once and in order.",
            )
        };
        self.say(&format!("{out}\n{verdict}"))
    }
}

fn line(style: Style, moment: &Moment) -> String {
    let breaker = format!("{} {}", moment.state, moment.mode.replace('_', " "));
    let colour = match moment.state.as_str() {
        "CLOSED" => Colour::Green,
        "OPEN" => Colour::Red,
        _ => Colour::Yellow,
    };
    let cells = usize::try_from(moment.backlog.div_ceil(CELL_RECORDS)).unwrap_or(CELLS_MAX);
    let bar = "#".repeat(cells.min(CELLS_MAX));
    let line = format!(
        "{:>2}.{:02} {} {:>6} {:>8} {:>7} {:>9} {:>8} {}",
        moment.at.as_secs(),
        moment.at.subsec_millis() / 10,
        style.paint(colour, &format!("{breaker:<21}")),
        moment.commands_per_s,
        moment.neutral,
        moment.queued,
        moment.replayed,
        moment.backlog,
        bar,
    );
    line.trim_end().to_owned()
}

/// All that counts at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) acknowledged: u64,
    pub(super) queued: u64,
    pub(super) replayed: u64,
    pub(super) neutral: u64,
    pub(super) uncertain: u64,
    pub(super) refused: u64,
    pub(super) connections_lost: u64,
    pub(super) dead_letters: u64,
    pub(super) findings: Findings,
    pub(super) longest_wait: Duration,
}

impl Summary {
    pub(super) fn new(counters: &Counters, status: &Value, findings: Findings) -> Self {
        use std::sync::atomic::Ordering::Relaxed;
        let upstream = &status["upstreams"][0];
        let queue = |field: &str| upstream["queue"][field].as_u64().unwrap_or(0);
        Self {
            acknowledged: counters.acknowledged.load(Relaxed),
            queued: queue("acknowledged_total"),
            replayed: queue("replayed_total"),
            neutral: counters.neutral.load(Relaxed),
            uncertain: counters.uncertain.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            connections_lost: counters.connections_lost.load(Relaxed),
            dead_letters: upstream["dead_letters"].as_u64().unwrap_or(0),
            findings,
            longest_wait: Duration::from_micros(counters.longest_wait_us.load(Relaxed)),
        }
    }

    /// Whether what clients were told holds. A demo in which nothing was queued has shown nothing.
    pub(super) fn holds(&self) -> bool {
        self.findings.is_clean() && self.acknowledged > 0 && self.queued > 0
    }

    fn rows(&self) -> Vec<(&'static str, String, &'static str)> {
        let Findings {
            lost,
            doubled,
            out_of_order,
            unasked,
        } = self.findings;
        let longest = format!("{:.1} ms", self.longest_wait.as_secs_f64() * 1000.0);
        let mut rows = vec![
            (
                "writes acknowledged",
                self.acknowledged.to_string(),
                "to the 4 clients, by Redis or by the journal",
            ),
            (
                "of them queued",
                self.queued.to_string(),
                "kept on disk while Redis was away",
            ),
            (
                "replayed",
                self.replayed.to_string(),
                "from disk to Redis when it was back",
            ),
            (
                "neutral reads",
                self.neutral.to_string(),
                "answered as an empty Redis would",
            ),
            (
                "uncertain",
                self.uncertain.to_string(),
                "in flight at the kill; clients were told",
            ),
            ("refused", self.refused.to_string(), "error that says: not applied"),
            ("connections lost", self.connections_lost.to_string(), "by the clients"),
            ("longest wait", longest, "of any command, kill and recovery included"),
            ("lost", lost.to_string(), "acknowledged, but not in Redis"),
            ("doubled", doubled.to_string(), "in Redis more than once"),
            ("out of order", out_of_order.to_string(), "in Redis behind a later one"),
        ];
        if unasked > 0 {
            rows.push(("unasked", unasked.to_string(), "in Redis, though refused or never sent"));
        }
        if self.dead_letters > 0 {
            rows.push((
                "dead letters",
                self.dead_letters.to_string(),
                "refused by Redis at replay",
            ));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn moment() -> Moment {
        let queue = json!({"records": 600, "acknowledged_total": 70, "replayed_total": 20});
        let status = json!({"upstreams": [{"state": "half_open", "mode": "catching_up", "queue": queue}]});
        Moment {
            at: Duration::from_millis(5250),
            state: String::new(),
            mode: String::new(),
            commands_per_s: 3400,
            neutral: 9,
            queued: 0,
            replayed: 0,
            backlog: 0,
        }
        .with_status(Some(&status))
    }

    #[test]
    fn a_line_says_time_breaker_and_numbers_and_is_plain_where_nobody_sees_colours() {
        let plain = line(Style::Plain, &moment());
        let words: Vec<&str> = plain.split_whitespace().collect();
        let expected = "5.25 HALF_OPEN catching up 3400 9 70 20 600 #";
        assert_eq!(words.join(" "), expected);
        assert!(!plain.contains('\x1b'));
        assert!(line(Style::Terminal, &moment()).contains("\x1b[33mHALF_OPEN catching up"));
    }

    #[test]
    fn the_check_holds_only_for_clean_findings_of_a_demo_that_queued_something() {
        let summary = |queued, lost| Summary {
            acknowledged: 10,
            queued,
            replayed: queued,
            neutral: 1,
            uncertain: 1,
            refused: 1,
            connections_lost: 0,
            dead_letters: 0,
            findings: Findings {
                lost,
                ..Findings::default()
            },
            longest_wait: Duration::ZERO,
        };
        assert!(summary(5, 0).holds());
        assert!(!summary(5, 1).holds());
        assert!(!summary(0, 0).holds());
    }
}
