//! `[[upstream.rule]]`: what the user says about commands and keys while the upstream is not well. First match wins.

use thiserror::Error;

use super::glob::Glob;
use super::write::{Queueing, queueing};
use crate::command::{Name, TABLE};
use crate::resp::{Protocol, write};

/// A rule as typed; [`Rules::new`] makes sense of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSettings {
    /// Names as in `COMMAND`, in any case, subcommands with a space (`XGROUP CREATE`); none: every command.
    pub commands: Vec<String>,
    /// Globs as in KEYS; none: any keys, and commands without keys.
    pub keys: Vec<String>,
    /// Nothing: as the built-in table says.
    pub when_down: Option<WhenDown>,
    /// `+text`, `:n`, `$text`, `_` (null) or `*0` (the empty array).
    pub reply: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenDown {
    /// The neutral reply, or the rule's.
    Neutral,
    /// Journaled; acknowledged with the rule's reply or the table's.
    Queue,
    /// `-UNAVAILABLE`
    Error,
    /// Waits for the upstream as long as `hold_timeout`, then is answered as the table says.
    Hold,
}

impl WhenDown {
    /// As the configuration says it.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("neutral", Self::Neutral),
        ("queue", Self::Queue),
        ("error", Self::Error),
        ("hold", Self::Hold),
    ];
}

/// A reply that the user wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Simple(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    EmptyArray,
}

impl Reply {
    /// Reads RESP-like text without its line end; nothing when it is no reply.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains(['\r', '\n']) {
            return None;
        }
        match text {
            "_" | "$-1" => return Some(Self::Null),
            "*0" => return Some(Self::EmptyArray),
            _ => {}
        }
        match text.split_at_checked(1)? {
            ("+", rest) => Some(Self::Simple(rest.to_owned())),
            (":", rest) => rest.parse().ok().map(Self::Integer),
            ("$", rest) => Some(Self::Bulk(rest.as_bytes().to_vec())),
            _ => None,
        }
    }

    pub fn write(&self, protocol: Protocol, out: &mut Vec<u8>) {
        match self {
            Self::Simple(text) => write::simple(out, text),
            Self::Integer(n) => write::integer(out, *n),
            Self::Bulk(payload) => write::bulk(out, payload),
            Self::Null => write::null(out, protocol),
            Self::EmptyArray => write::array(out, 0),
        }
    }
}

/// One rule, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    commands: Vec<Name>,
    keys: Vec<Glob>,
    pub when_down: Option<WhenDown>,
    pub reply: Option<Reply>,
}

impl Rule {
    /// A rule with globs wants at least one key, each matched by one of the globs.
    fn matches<'k>(&self, name: Option<Name>, keys: impl Iterator<Item = &'k [u8]>) -> bool {
        if !self.commands.is_empty() && !name.is_some_and(|name| self.commands.contains(&name)) {
            return false;
        }
        if self.keys.is_empty() {
            return true;
        }
        let mut keys = keys.peekable();
        keys.peek().is_some() && keys.all(|key| self.keys.iter().any(|glob| glob.matches(key)))
    }
}

/// What is wrong with one value of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("rule[{rule}].{key} = {value:?}: {reason}")]
pub struct RuleError {
    /// Position of the rule in its upstream, from 0.
    pub rule: usize,
    pub key: &'static str,
    pub value: String,
    pub reason: &'static str,
}

/// The rules of one upstream, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Rule>,
    /// What they were made of.
    settings: Vec<RuleSettings>,
}

impl Rules {
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn new(settings: Vec<RuleSettings>) -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        let rules = settings
            .iter()
            .enumerate()
            .map(|(rule, settings)| understand(rule, settings, &mut errors))
            .collect();
        if errors.is_empty() {
            Ok(Self { rules, settings })
        } else {
            Err(errors)
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules as typed.
    #[must_use]
    pub fn settings(&self) -> &[RuleSettings] {
        &self.settings
    }

    /// The first rule for this command on these keys. No rule can name a command that the table does not have (`None`); one without names
    /// is for it, too.
    pub fn first_match<'k>(
        &self,
        name: impl Into<Option<Name>>,
        keys: impl Iterator<Item = &'k [u8]> + Clone,
    ) -> Option<&Rule> {
        let name = name.into();
        self.rules.iter().find(|rule| rule.matches(name, keys.clone()))
    }
}

fn understand(rule: usize, settings: &RuleSettings, errors: &mut Vec<RuleError>) -> Rule {
    let mut wrong = |key, value: &str, reason| {
        errors.push(RuleError {
            rule,
            key,
            value: value.to_owned(),
            reason,
        });
    };
    let mut commands = Vec::with_capacity(settings.commands.len());
    for command in &settings.commands {
        let words: Vec<String> = command.split_whitespace().map(str::to_ascii_uppercase).collect();
        let name = words.join(" ");
        match TABLE.iter().find(|spec| spec.name == name) {
            None => wrong("commands", command, "no such command"),
            Some(spec) => {
                commands.push(spec.id);
                match (settings.when_down, queueing(spec.id)) {
                    (Some(WhenDown::Queue), Queueing::Never) => wrong("commands", command, "is never queued"),
                    (Some(WhenDown::Queue), Queueing::WithReply) if settings.reply.is_none() => {
                        wrong("commands", command, "is queued only with a reply");
                    }
                    _ => {}
                }
            }
        }
    }
    let reply = settings.reply.as_deref().and_then(|text| {
        let reply = Reply::parse(text);
        if reply.is_none() {
            wrong("reply", text, "a reply is +text, :n, $text, _ or *0");
        }
        reply
    });
    if let (Some(WhenDown::Error | WhenDown::Hold) | None, Some(text)) = (settings.when_down, &settings.reply) {
        wrong("reply", text, "only when_down = \"queue\" or \"neutral\" has a reply");
    }
    Rule {
        commands,
        keys: settings.keys.iter().map(|glob| Glob::new(glob.as_bytes())).collect(),
        when_down: settings.when_down,
        reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(commands: &[&str], keys: &[&str], when_down: Option<WhenDown>, reply: Option<&str>) -> RuleSettings {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        RuleSettings {
            commands: owned(commands),
            keys: owned(keys),
            when_down,
            reply: reply.map(str::to_owned),
        }
    }

    fn keys<'k>(keys: &'k [&'k str]) -> impl Iterator<Item = &'k [u8]> + Clone {
        keys.iter().map(|key| key.as_bytes())
    }

    #[test]
    fn the_first_rule_that_matches_every_key_wins() {
        let rules = Rules::new(vec![
            rule(
                &["incr", "DEL", "object  freq"],
                &["stats:*", "count:?"],
                Some(WhenDown::Neutral),
                Some(":1"),
            ),
            rule(&["DEL"], &[], Some(WhenDown::Error), None),
            rule(&[], &["lock:*"], Some(WhenDown::Hold), None),
        ])
        .unwrap();
        let when_down = |name, list: &[&str]| rules.first_match(name, keys(list)).and_then(|rule| rule.when_down);
        assert_eq!(when_down(Name::Incr, &["stats:a"]), Some(WhenDown::Neutral));
        assert_eq!(when_down(Name::ObjectFreq, &["stats:a"]), Some(WhenDown::Neutral));
        assert_eq!(when_down(Name::Incr, &["other"]), None);
        assert_eq!(when_down(Name::Del, &["stats:a", "count:1"]), Some(WhenDown::Neutral));
        assert_eq!(when_down(Name::Del, &["stats:a", "count:12"]), Some(WhenDown::Error));
        assert_eq!(when_down(Name::Get, &["lock:a"]), Some(WhenDown::Hold));
        assert_eq!(when_down(Name::Flushall, &[]), None);
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let errors = Rules::new(vec![
            rule(&["GETT", "SETT"], &[], Some(WhenDown::Queue), Some("OK")),
            rule(&["GET"], &[], Some(WhenDown::Error), Some(":1")),
            rule(&["RPUSH", "INCR", "LPOP"], &[], Some(WhenDown::Queue), None),
        ])
        .unwrap_err();
        let shown = errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            shown,
            [
                "rule[0].commands = \"GETT\": no such command",
                "rule[0].commands = \"SETT\": no such command",
                "rule[0].reply = \"OK\": a reply is +text, :n, $text, _ or *0",
                "rule[1].reply = \":1\": only when_down = \"queue\" or \"neutral\" has a reply",
                "rule[2].commands = \"INCR\": is queued only with a reply",
                "rule[2].commands = \"LPOP\": is never queued",
            ]
        );
    }

    #[test]
    fn replies_are_written_as_the_protocol_wants() {
        for (text, protocol, expected) in [
            ("+OK", Protocol::Resp2, "+OK\r\n"),
            (":-3", Protocol::Resp2, ":-3\r\n"),
            ("$ab", Protocol::Resp3, "$2\r\nab\r\n"),
            ("_", Protocol::Resp2, "$-1\r\n"),
            ("_", Protocol::Resp3, "_\r\n"),
            ("*0", Protocol::Resp3, "*0\r\n"),
        ] {
            let mut out = Vec::new();
            Reply::parse(text).unwrap().write(protocol, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        for text in ["", "OK", ":x", ":", "-ERR no", "+a\r\n+b", "é"] {
            assert_eq!(Reply::parse(text), None, "{text:?}");
        }
    }
}
