//! `[[upstream.rule]]`: the shape of a rule. What it means for a command is `outage`'s to say.

use toml::Value;

use super::raw::{Section, boolean, one_of, string, strings, word};
use crate::outage::rules::{AfterNeutralRead, Care, CaughtInFlight, NeedsKey, RuleSettings, Rules, WhenDown, XaddId};

const NO_COMMANDS: &str =
    "missing: a rule names commands; keys alone are enough where it neither queues nor has a reply";

/// All rules of an upstream; none when one is wrong, which is then noted.
pub(super) fn rules(sections: Vec<Section<'_>>, parent: &Section<'_>) -> Rules {
    let settings = sections.into_iter().map(rule).collect();
    Rules::new(settings).unwrap_or_else(|errors| {
        for error in errors {
            let key = format!("rule[{}].{}", error.rule, error.key);
            parent.fault(&key, Some(error.value), error.reason);
        }
        Rules::default()
    })
}

fn rule(mut section: Section<'_>) -> RuleSettings {
    let has_commands = section.has("commands");
    let has_keys = section.has("keys");
    let commands = section.optional("commands", strings);
    let keys = section.optional("keys", strings);
    let when_down = section.optional("when_down", one_of(&WhenDown::WORDS));
    let reply = section.optional("reply", |value| string(value).map(str::to_owned));
    if !has_commands && (!has_keys || when_down == Some(WhenDown::Queue) || reply.is_some()) {
        section.fault("commands", None, NO_COMMANDS);
    }
    let care = care(&mut section);
    section.finish();
    RuleSettings {
        commands: commands.unwrap_or_default(),
        keys: keys.unwrap_or_default(),
        when_down,
        reply,
        care,
    }
}

fn care(section: &mut Section<'_>) -> Care {
    let default = Care::default();
    let needs_key = section.get("needs_key", false, boolean);
    Care {
        in_flight: section.get("in_flight", default.in_flight, one_of(&CaughtInFlight::WORDS)),
        after_neutral_read: section.get(
            "after_neutral_read",
            default.after_neutral_read,
            one_of(&AfterNeutralRead::WORDS),
        ),
        needs_key: if needs_key { NeedsKey::Yes } else { NeedsKey::No },
        xadd_id: section.get("xadd_id", default.xadd_id, one_of(&XaddId::WORDS)),
    }
}

/// The words of a rule, for the effective configuration.
pub(super) fn table(rule: &RuleSettings) -> toml::Table {
    let RuleSettings {
        commands,
        keys,
        when_down,
        reply,
        care,
    } = rule;
    let Care {
        in_flight,
        after_neutral_read,
        needs_key,
        xadd_id,
    } = *care;
    let default = Care::default();
    let mut table = toml::Table::new();
    let strings = |texts: &[String]| Value::Array(texts.iter().cloned().map(Value::String).collect());
    for (key, texts) in [("commands", commands), ("keys", keys)] {
        if !texts.is_empty() {
            table.insert(key.to_owned(), strings(texts));
        }
    }
    let when_down = when_down.map(|meaning| word(&WhenDown::WORDS, meaning).to_owned());
    for (key, text) in [("when_down", &when_down), ("reply", reply)] {
        if let Some(text) = text {
            table.insert(key.to_owned(), Value::String(text.clone()));
        }
    }
    let cared = [
        (
            "in_flight",
            word(&CaughtInFlight::WORDS, in_flight),
            in_flight != default.in_flight,
        ),
        (
            "after_neutral_read",
            word(&AfterNeutralRead::WORDS, after_neutral_read),
            after_neutral_read != default.after_neutral_read,
        ),
        ("xadd_id", word(&XaddId::WORDS, xadd_id), xadd_id != default.xadd_id),
    ];
    for (key, text, _) in cared.into_iter().filter(|(_, _, is_said)| *is_said) {
        table.insert(key.to_owned(), Value::String(text.to_owned()));
    }
    if needs_key == NeedsKey::Yes {
        table.insert("needs_key".to_owned(), Value::Boolean(true));
    }
    table
}
