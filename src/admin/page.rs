//! The page for people: self-contained, no script, reloads itself.

use std::fmt::{self, Display, Write};

use super::status::{Status, UpstreamStatus};

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tideover</title>
<style>
:root { color-scheme: light dark; --line: #8884; --closed: #1a7f37; --open: #cf222e; --half_open: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --closed: #3fb950; --open: #ff7b72; --half_open: #d29922; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 56rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h1 small, .muted { font-weight: normal; opacity: .65; }
section { border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0; padding: 1rem 1.25rem; }
h2 { font-size: 1.1rem; margin: 0 0 .25rem; }
.state { border: 1px solid; border-radius: 1rem; font-size: .85rem; margin-left: .5rem; padding: .1rem .6rem; }
.closed { color: var(--closed); } .open { color: var(--open); } .half_open { color: var(--half_open); }
dl { display: grid; gap: .5rem 1.5rem; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); margin: 1rem 0 0; }
dt { font-size: .8rem; opacity: .65; } dd { font-size: 1.15rem; font-variant-numeric: tabular-nums; margin: 0; }
.error { color: var(--open); margin: .75rem 0 0; overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
</style></head><body>
"#;

/// Text for HTML, also inside quotes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                other => out.write_char(other)?,
            }
        }
        Ok(())
    }
}

pub(super) fn page(status: &Status) -> String {
    let mut page = HEAD.to_owned();
    // Writing to a string does not fail.
    let _ = writeln!(page, "<h1>tideover <small>{}</small></h1>", Escaped(status.version));
    for upstream in &status.upstreams {
        let _ = section(&mut page, upstream);
    }
    page.push_str(
        "<p class=\"muted\">As data: <a href=\"/status\">/status</a>, <a href=\"/metrics\">/metrics</a>. \
         To steer: <code>tideover queue</code>, <code>tideover dead-letters</code>.</p>\n</body></html>\n",
    );
    page
}

/// What the mode means for the application.
fn meaning(upstream: &UpstreamStatus) -> &'static str {
    match upstream.mode {
        "healthy" => "Traffic flows to Redis.",
        "catching_up" if upstream.queue.paused => {
            "Redis answers; replay is paused. Reads go upstream, writes are kept behind the backlog."
        }
        "catching_up" if upstream.halted => {
            "Redis answers, but replay cannot go on. Reads go upstream, writes are kept behind the backlog."
        }
        "catching_up" => "Redis is back: kept writes are being replayed.",
        _ => "Redis is away: reads get neutral answers, writes are kept on disk.",
    }
}

fn section(page: &mut String, upstream: &UpstreamStatus) -> fmt::Result {
    let (name, listen, url) = (
        Escaped(&upstream.name),
        Escaped(&upstream.listen),
        Escaped(&upstream.url),
    );
    writeln!(
        page,
        "<section><h2>{name} <span class=\"state {state}\">{label} · {mode}</span></h2>\n\
         <div class=\"muted\"><code>{listen}</code> → <code>{url}</code></div>\n<div>{meaning}</div>\n<dl>",
        state = upstream.state,
        label = upstream.state.to_uppercase(),
        mode = upstream.mode.replace('_', " "),
        meaning = meaning(upstream),
    )?;
    let queue = &upstream.queue;
    let facts = [
        ("Waiting for replay", queue.records.to_string()),
        ("Their size", bytes(queue.bytes)),
        ("Oldest", age(queue.oldest_age_ms)),
        ("Acknowledged", queue.acknowledged_total.to_string()),
        ("Replayed", queue.replayed_total.to_string()),
        ("Dead letters", upstream.dead_letters.to_string()),
        ("Clients", upstream.clients.to_string()),
        ("Connections to Redis", upstream.connections.to_string()),
        ("Fence", upstream.fence.to_owned()),
    ];
    for (term, value) in facts {
        writeln!(page, "<div><dt>{term}</dt><dd>{value}</dd></div>")?;
    }
    page.push_str("</dl>\n");
    let notes = [
        (
            "Journaled writes wait until these users authenticate",
            &upstream.identities_waiting,
        ),
        (
            "Without rights to MULTI or the marker",
            &upstream.identities_without_replay_rights,
        ),
    ];
    for (note, users) in notes {
        if !users.is_empty() {
            writeln!(page, "<p class=\"error\">{note}: {}</p>", Escaped(&users.join(", ")))?;
        }
    }
    for error in upstream.last_error.iter().chain(&upstream.journal_error) {
        writeln!(page, "<p class=\"error\">{}</p>", Escaped(error))?;
    }
    page.push_str("</section>\n");
    Ok(())
}

fn bytes(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).to_string()
}

fn age(age_ms: u64) -> String {
    match age_ms {
        0 => "–".to_owned(),
        1..10_000 => format!("{}.{} s", age_ms / 1000, age_ms % 1000 / 100),
        _ => humantime::format_duration(std::time::Duration::from_secs(age_ms / 1000)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::QueueStatus;
    use super::*;

    fn upstream(name: &str) -> UpstreamStatus {
        UpstreamStatus {
            name: name.to_owned(),
            listen: "127.0.0.1:6380".to_owned(),
            url: "redis://127.0.0.1:6379".to_owned(),
            state: "half_open",
            mode: "catching_up",
            queue: QueueStatus {
                records: 12,
                waiting_records: 0,
                bytes: 2048,
                oldest_age_ms: 1_500,
                acknowledged_total: 20,
                replayed_total: 8,
                retained_bytes: 0,
                disk_bytes: 0,
                paused: false,
                rate_max: None,
            },
            dead_letters: 3,
            clients: 4,
            last_error: Some("<b>\"refused\" & 'gone'</b>".to_owned()),
            fence: "proven",
            identities_waiting: vec!["<alice>".to_owned()],
            identities_without_replay_rights: Vec::new(),
            generation: 3,
            connections: 2,
            halted: false,
            journal_error: None,
        }
    }

    #[test]
    fn names_and_errors_are_escaped() {
        let status = Status {
            version: "1",
            upstreams: vec![upstream("<script>x</script>"), upstream("b")],
        };
        let page = page(&status);
        assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
        assert!(page.contains("&lt;script&gt;x&lt;/script&gt;"), "{page}");
        assert!(
            page.contains("&lt;b&gt;&quot;refused&quot; &amp; &#39;gone&#39;&lt;/b&gt;"),
            "{page}"
        );
        assert_eq!(page.matches("<section>").count(), 2);
    }

    #[test]
    fn it_says_state_backlog_and_dead_letters_and_needs_nothing_from_elsewhere() {
        let page = page(&Status {
            version: "1",
            upstreams: vec![upstream("main")],
        });
        for text in [
            "HALF_OPEN",
            "catching up",
            "<dd>12</dd>",
            "<dd>1.5 s</dd>",
            "<dd>3</dd>",
            "<dd>2.0 KiB</dd>",
        ] {
            assert!(page.contains(text), "{text} is not in {page}");
        }
        assert!(!page.contains("src=") && !page.contains("http://") && !page.contains("https://"));
    }
}
