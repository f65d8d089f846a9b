//! `[[upstream.rule]]`: the shape of a rule. What it means for a command is `outage`'s to say.

use toml::Value;

use super::raw::{Section, one_of, string, strings};
use super::settings::{AfterNeutralRead, InFlight, NeedsKey, RuleSettings, WhenDown, XaddId};

const WHEN_DOWN: [(&str, WhenDown); 4] = [
    ("neutral", WhenDown::Neutral),
    ("queue", WhenDown::Queue),
    ("error", WhenDown::Error),
    ("hold", WhenDown::Hold),
];
const IN_FLIGHT: [(&str, InFlight); 2] = [("error", InFlight::Error), ("journal", InFlight::Journal)];
const AFTER_NEUTRAL_READ: [(&str, AfterNeutralRead); 3] = [
    ("overwrite", AfterNeutralRead::Overwrite),
    ("create_only", AfterNeutralRead::CreateOnly),
    ("refuse", AfterNeutralRead::Refuse),
];
const XADD_ID: [(&str, XaddId); 2] = [("provisional", XaddId::Provisional), ("accepted", XaddId::Accepted)];

/// Nothing when the rule names no command, which is a fault.
pub(super) fn rule(mut section: Section<'_>) -> Option<RuleSettings> {
    let mut has_commands = false;
    let commands = section.optional("commands", |value| {
        has_commands = true;
        strings(value).map(|commands| commands.iter().map(|command| upper_case_words(command)).collect())
    });
    if !has_commands {
        section.fault("commands", None, "missing: a rule names the commands it is for");
    }
    let keys = section.optional("keys", strings);
    let when_down = section.optional("when_down", one_of(&WHEN_DOWN));
    let reply = section.optional("reply", wire_reply);
    if reply.is_some() && matches!(when_down, Some(WhenDown::Error | WhenDown::Hold)) {
        section.fault("reply", None, "only goes with when_down = \"queue\" or \"neutral\"");
    }
    let in_flight = section.optional("in_flight", one_of(&IN_FLIGHT));
    let after_neutral_read = section.optional("after_neutral_read", one_of(&AFTER_NEUTRAL_READ));
    let needs_key = section.optional("needs_key", |value| match value.as_bool() {
        Some(true) => Ok(NeedsKey::Yes),
        Some(false) => Ok(NeedsKey::No),
        None => Err("must be true or false".to_owned()),
    });
    let xadd_id = section.optional("xadd_id", one_of(&XADD_ID));
    section.finish();
    Some(RuleSettings {
        commands: commands?,
        keys: keys.unwrap_or_default(),
        when_down,
        reply,
        in_flight: in_flight.unwrap_or_default(),
        after_neutral_read: after_neutral_read.unwrap_or_default(),
        needs_key: needs_key.unwrap_or_default(),
        xadd_id: xadd_id.unwrap_or_default(),
    })
}

fn upper_case_words(command: &str) -> String {
    let words: Vec<String> = command.split_whitespace().map(str::to_ascii_uppercase).collect();
    words.join(" ")
}

/// A reply as it goes over the wire; the last line end may be left out, as in ":1".
fn wire_reply(value: &Value) -> Result<Vec<u8>, String> {
    let text = string(value)?;
    let line = text.strip_suffix("\r\n").unwrap_or(text);
    let (kind, rest) = line.split_at_checked(1).unwrap_or_default();
    let has_line_break = rest.contains(['\r', '\n']);
    let fits = match kind {
        ":" => rest.parse::<i64>().is_ok(),
        "+" | "-" => !rest.is_empty() && !has_line_break,
        "_" => rest.is_empty(),
        "," | "#" | "(" => !rest.is_empty() && !has_line_break,
        "$" | "*" | "%" | "~" | "=" | "!" => rest.starts_with(|first: char| first == '-' || first.is_ascii_digit()),
        _ => false,
    };
    if !fits {
        return Err("must be a reply as Redis would send it, like \":1\", \"+OK\" or \"$-1\"".to_owned());
    }
    Ok(format!("{line}\r\n").into_bytes())
}

/// The words of a rule, for the effective configuration.
pub(super) fn table(rule: &RuleSettings) -> toml::Table {
    let mut table = toml::Table::new();
    let mut put = |key: &str, value: Value| {
        table.insert(key.to_owned(), value);
    };
    let strings = |texts: &[String]| Value::Array(texts.iter().cloned().map(Value::String).collect());
    put("commands", strings(&rule.commands));
    if !rule.keys.is_empty() {
        put("keys", strings(&rule.keys));
    }
    if let Some(when_down) = rule.when_down {
        put("when_down", word(&WHEN_DOWN, when_down));
    }
    if let Some(reply) = &rule.reply {
        let text = String::from_utf8_lossy(reply);
        put(
            "reply",
            Value::String(text.strip_suffix("\r\n").unwrap_or(&text).to_owned()),
        );
    }
    put("in_flight", word(&IN_FLIGHT, rule.in_flight));
    put("after_neutral_read", word(&AFTER_NEUTRAL_READ, rule.after_neutral_read));
    put("needs_key", Value::Boolean(rule.needs_key == NeedsKey::Yes));
    put("xadd_id", word(&XADD_ID, rule.xadd_id));
    table
}

fn word<T: Copy + PartialEq>(words: &[(&str, T)], meaning: T) -> Value {
    let word = words
        .iter()
        .find(|(_, candidate)| *candidate == meaning)
        .map_or("", |(word, _)| word);
    Value::String(word.to_owned())
}
