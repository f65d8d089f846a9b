//! `[[upstream.rule]]`: what the user says about commands and keys while the upstream is not well. First match wins.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::glob::Glob;
use super::write::{Queueing, queueing};
use crate::command::{Name, TABLE};
use crate::resp::{Protocol, write};

/// A rule as it stands in the configuration; [`Rules::new`] makes sense of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSettings {
    /// Names as in `COMMAND`, subcommands with a space (`XGROUP CREATE`); none: every command.
    #[serde(default)]
    pub commands: Vec<String>,
    /// Globs as in KEYS; none: any keys, and commands without keys.
    #[serde(default)]
    pub keys: Vec<String>,
    pub when_down: Option<WhenDown>,
    /// `+text`, `:n`, `$text`, `_` (null) or `*0` (the empty array).
    pub reply: Option<String>,
    pub in_flight: Option<InFlight>,
    pub after_neutral_read: Option<AfterNeutralRead>,
    pub needs_key: Option<bool>,
    pub xadd_id: Option<XaddId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
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

/// What becomes of an absolute write that was in flight when the breaker opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InFlight {
    /// An error that says it is uncertain.
    #[default]
    Error,
    /// Journaled: right for keys with a single writer only.
    Journal,
}

/// A whole-value write to a key that was answered neutrally in this outage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterNeutralRead {
    #[default]
    Overwrite,
    CreateOnly,
    Refuse,
}

/// Which ID `XADD *` has when it is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum XaddId {
    /// One that the upstream gives at replay.
    #[default]
    Upstream,
    /// The one that the client was given: for streams with a single producer.
    Accepted,
}

/// Whether growing writes are replayed onto a key that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingKey {
    #[default]
    Created,
    /// `needs_key = true`: they become dead letters.
    DeadLetter,
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
    pub in_flight: InFlight,
    pub after_neutral_read: AfterNeutralRead,
    pub missing_key: MissingKey,
    pub xadd_id: XaddId,
}

impl Rule {
    /// A rule with globs wants at least one key, each matched by one of the globs.
    fn matches<'k>(&self, name: Name, keys: impl Iterator<Item = &'k [u8]>) -> bool {
        if !self.commands.is_empty() && !self.commands.contains(&name) {
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
pub struct Rules(Vec<Rule>);

impl Rules {
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn new(settings: &[RuleSettings]) -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        let rules = settings
            .iter()
            .enumerate()
            .map(|(rule, settings)| understand(rule, settings, &mut errors))
            .collect();
        if errors.is_empty() {
            Ok(Self(rules))
        } else {
            Err(errors)
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first rule for this command on these keys.
    pub fn first_match<'k>(&self, name: Name, keys: impl Iterator<Item = &'k [u8]> + Clone) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.matches(name, keys.clone()))
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
        match TABLE.iter().find(|spec| spec.name.eq_ignore_ascii_case(command)) {
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
        in_flight: settings.in_flight.unwrap_or_default(),
        after_neutral_read: settings.after_neutral_read.unwrap_or_default(),
        missing_key: match settings.needs_key {
            Some(true) => MissingKey::DeadLetter,
            Some(false) | None => MissingKey::Created,
        },
        xadd_id: settings.xadd_id.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Rules, Vec<RuleError>> {
        #[derive(Deserialize)]
        struct File {
            rule: Vec<RuleSettings>,
        }
        Rules::new(&toml::from_str::<File>(text).unwrap().rule)
    }

    fn keys<'k>(keys: &'k [&'k str]) -> impl Iterator<Item = &'k [u8]> + Clone {
        keys.iter().map(|key| key.as_bytes())
    }

    #[test]
    fn the_first_rule_that_matches_every_key_wins() {
        let rules = rules(
            r#"
            [[rule]]
            commands = ["incr", "DEL"]
            keys = ["stats:*", "count:?"]
            when_down = "queue"
            reply = ":1"
            [[rule]]
            commands = ["DEL"]
            when_down = "error"
            [[rule]]
            keys = ["lock:*"]
            when_down = "hold"
            in_flight = "journal"
            after_neutral_read = "create_only"
            needs_key = true
            xadd_id = "accepted"
            "#,
        )
        .unwrap();
        let when_down = |name, list: &[&str]| rules.first_match(name, keys(list)).and_then(|rule| rule.when_down);
        assert_eq!(when_down(Name::Incr, &["stats:a"]), Some(WhenDown::Queue));
        assert_eq!(when_down(Name::Incr, &["other"]), None);
        assert_eq!(when_down(Name::Del, &["stats:a", "count:1"]), Some(WhenDown::Queue));
        assert_eq!(when_down(Name::Del, &["stats:a", "count:12"]), Some(WhenDown::Error));
        assert_eq!(when_down(Name::Get, &["lock:a"]), Some(WhenDown::Hold));
        assert_eq!(when_down(Name::Flushall, &[]), None);
        let rule = rules.first_match(Name::Get, keys(&["lock:a"])).unwrap();
        assert_eq!(rule.in_flight, InFlight::Journal);
        assert_eq!(rule.after_neutral_read, AfterNeutralRead::CreateOnly);
        assert_eq!(rule.missing_key, MissingKey::DeadLetter);
        assert_eq!(rule.xadd_id, XaddId::Accepted);
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let errors = rules(
            r#"
            [[rule]]
            commands = ["GETT", "SETT"]
            when_down = "queue"
            reply = "OK"
            [[rule]]
            when_down = "error"
            reply = ":1"
            [[rule]]
            commands = ["RPUSH", "INCR", "LPOP"]
            when_down = "queue"
            "#,
        )
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
