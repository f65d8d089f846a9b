//! `[[upstream.rule]]`: the shape of a rule. What it means for a command is `outage`'s to say.

use toml::Value;

use super::raw::{Section, one_of, only_built, string, strings, word};
use crate::outage::rules::{RuleSettings, Rules, WhenDown};

const NO_COMMANDS: &str =
    "missing: a rule names commands; keys alone are enough where it neither queues nor has a reply";

/// All rules of an upstream; none when one is wrong, which is then noted.
pub(super) fn rules(sections: Vec<Section<'_>>, parent: &Section<'_>) -> Rules {
    let settings = sections.into_iter().map(rule).collect();
    Rules::new(settings).unwrap_or_else(|errors| {
        for error in errors {
            let key = format!("rule[{}].{}", error.rule, error.key);
            parent.fault(&key, Some(format!("{:?}", error.value)), error.reason);
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
    not_built(&mut section);
    section.finish();
    RuleSettings {
        commands: commands.unwrap_or_default(),
        keys: keys.unwrap_or_default(),
        when_down,
        reply,
    }
}

/// Keys whose defaults may be said, so that nobody believes in what is not there yet.
fn not_built(section: &mut Section<'_>) {
    let text = |text: &str| Value::String(text.to_owned());
    section.optional("in_flight", only_built(&text("error"), &[text("journal")]));
    let others = [text("create_only"), text("refuse")];
    section.optional("after_neutral_read", only_built(&text("overwrite"), &others));
    section.optional("needs_key", only_built(&Value::Boolean(false), &[Value::Boolean(true)]));
    section.optional("xadd_id", only_built(&text("provisional"), &[text("accepted")]));
}

/// The words of a rule, for the effective configuration.
pub(super) fn table(rule: &RuleSettings) -> toml::Table {
    let RuleSettings {
        commands,
        keys,
        when_down,
        reply,
    } = rule;
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
    table
}
