//! `[[upstream.rule]]`: what the user says about commands and keys while the upstream is not well. First match wins.

mod check;
mod reply_kinds;

use thiserror::Error;

use super::glob::Glob;
use crate::command::Name;
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
    pub care: Care,
}

/// What a rule asks for the writes that are journaled. Each part matters to the commands that it is about, and to no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Care {
    pub in_flight: CaughtInFlight,
    pub after_neutral_read: AfterNeutralRead,
    pub needs_key: NeedsKey,
    pub xadd_id: XaddId,
}

/// What becomes of an absolute write that the breaker's opening caught in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaughtInFlight {
    /// The uncertain error.
    #[default]
    Error,
    /// For keys with a single writer.
    Journal,
}

/// What becomes of a whole-value write to a key that was answered neutrally in this outage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterNeutralRead {
    #[default]
    Overwrite,
    /// Replayed only where the key does not exist; else it becomes a dead letter.
    CreateOnly,
    /// `-UNAVAILABLE`
    Refuse,
}

/// Whether HSET, RPUSH, EXPIRE and their like are replayed only onto a key that still exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NeedsKey {
    #[default]
    No,
    Yes,
}

/// Which ID a journaled `XADD *` gets at replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XaddId {
    /// The upstream gives another one.
    #[default]
    Provisional,
    /// The one that was returned: for streams with a single producer.
    Accepted,
}

impl CaughtInFlight {
    /// As the configuration says it.
    pub const WORDS: [(&'static str, Self); 2] = [("error", Self::Error), ("journal", Self::Journal)];
}

impl AfterNeutralRead {
    /// As the configuration says it.
    pub const WORDS: [(&'static str, Self); 3] = [
        ("overwrite", Self::Overwrite),
        ("create_only", Self::CreateOnly),
        ("refuse", Self::Refuse),
    ];
}

impl XaddId {
    /// As the configuration says it.
    pub const WORDS: [(&'static str, Self); 2] = [("provisional", Self::Provisional), ("accepted", Self::Accepted)];
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
    pub care: Care,
}

impl Rule {
    fn minds_neutral_reads(&self) -> bool {
        self.care.after_neutral_read != AfterNeutralRead::Overwrite
    }

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
#[error("rule[{rule}].{key} = {value}: {reason}")]
pub struct RuleError {
    /// Position of the rule in its upstream, from 0.
    pub rule: usize,
    pub key: &'static str,
    /// As in TOML.
    pub value: String,
    pub reason: String,
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
        let rules: Vec<Rule> = settings
            .iter()
            .enumerate()
            .map(|(rule, settings)| check::understand(rule, settings, &mut errors))
            .collect();
        check::never_reached(&rules, &settings, &mut errors);
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

    /// Whether any rule asks what was answered neutrally.
    #[must_use]
    pub fn mind_neutral_reads(&self) -> bool {
        self.rules.iter().any(Rule::minds_neutral_reads)
    }

    /// Whether a rule asks whether this key was answered neutrally.
    #[must_use]
    pub fn mind_neutral_reads_of(&self, key: &[u8]) -> bool {
        let is_about = |rule: &Rule| rule.keys.is_empty() || rule.keys.iter().any(|glob| glob.matches(key));
        self.rules
            .iter()
            .any(|rule| rule.minds_neutral_reads() && is_about(rule))
    }

    /// Whether any rule journals what is caught in flight.
    #[must_use]
    pub fn mind_in_flight(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.care.in_flight == CaughtInFlight::Journal)
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
            care: Care::default(),
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
            rule(&["RPUSH", "INCR", "LPOP", "BLPOP"], &[], Some(WhenDown::Queue), None),
            rule(&["SET", "GET"], &["a:*"], Some(WhenDown::Neutral), None),
            rule(&["HLEN", "EVAL"], &[], Some(WhenDown::Neutral), Some("+OK")),
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
                "rule[2].commands = \"INCR\": is queued only with a reply: what it answers decides something, and the table cannot know it",
                "rule[2].commands = \"LPOP\": is never queued: nobody knows while down what it would hand out",
                "rule[2].commands = \"BLPOP\": is never queued: its client waits for what it is given",
                "rule[3].commands = \"SET\": has no neutral reply: say with `reply` what its client is told, or queue it",
                "rule[4].reply = \"+OK\": HLEN answers an integer, and a client that waits for one fails on this",
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

    fn cared(commands: &[&str], when_down: Option<WhenDown>, care: Care) -> RuleSettings {
        RuleSettings {
            care,
            ..rule(commands, &[], when_down, None)
        }
    }

    const ALL: Care = Care {
        in_flight: CaughtInFlight::Journal,
        after_neutral_read: AfterNeutralRead::CreateOnly,
        needs_key: NeedsKey::Yes,
        xadd_id: XaddId::Accepted,
    };

    #[track_caller]
    fn check_errors(settings: Vec<RuleSettings>, expected: &[&str]) {
        let errors = Rules::new(settings).err().unwrap_or_default();
        let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_a_command_can_make_no_use_of_is_refused_with_the_reason() {
        check_errors(
            vec![cared(&["RPUSH"], None, ALL)],
            &[
                "rule[0].in_flight = \"journal\": RPUSH is never the same when it is done twice, so it is never journaled when it may have been done",
                "rule[0].after_neutral_read = \"create_only\": RPUSH writes no whole value",
                "rule[0].xadd_id = \"accepted\": RPUSH is not XADD",
            ],
        );
        check_errors(
            vec![cared(&["GET"], None, ALL)],
            &[
                "rule[0].in_flight = \"journal\": GET is never journaled",
                "rule[0].after_neutral_read = \"create_only\": GET is never journaled",
                "rule[0].needs_key = true: GET is never journaled",
                "rule[0].xadd_id = \"accepted\": GET is never journaled",
            ],
        );
        let whole = Care {
            after_neutral_read: AfterNeutralRead::Refuse,
            ..Care::default()
        };
        check_errors(
            vec![cared(&["SET", "SETEX", "GETSET"], None, whole)],
            &[
                "rule[0].after_neutral_read = \"refuse\": GETSET is journaled only with when_down = \"queue\" and a reply",
            ],
        );
        check_errors(
            vec![cared(&["SET"], Some(WhenDown::Error), whole)],
            &["rule[0].after_neutral_read = \"refuse\": nothing is journaled where when_down = \"error\""],
        );
    }

    #[test]
    fn a_rule_for_keys_alone_may_ask_for_everything() {
        let settings = RuleSettings {
            care: ALL,
            ..rule(&[], &["session:*"], None, None)
        };
        let rules = Rules::new(vec![settings]).unwrap();
        assert!(rules.mind_in_flight() && rules.mind_neutral_reads());
        assert!(rules.mind_neutral_reads_of(b"session:1"));
        assert!(!rules.mind_neutral_reads_of(b"other"));
    }

    #[test]
    fn a_rule_that_earlier_ones_leave_nothing_for_is_refused() {
        let error = Some(WhenDown::Error);
        check_errors(
            vec![
                rule(&["SET"], &["a:*"], error, None),
                rule(&["GET"], &[], error, None),
                rule(&["SET", "GET"], &["a:b:*", "a:[cd]"], error, None),
                rule(&["SET", "DEL"], &["a:b"], error, None),
                rule(&["SET"], &["a*"], error, None),
                rule(&[], &["a:*"], error, None),
                rule(&["DEL"], &["a:1"], error, None),
            ],
            &[
                "rule[2].keys = [\"a:b:*\", \"a:[cd]\"]: never matches: rule[0] and rule[1] take everything before it",
                "rule[6].keys = [\"a:1\"]: never matches: rule[5] takes everything before it",
            ],
        );
        check_errors(
            vec![
                rule(&[], &["*"], error, None),
                rule(&["FLUSHALL", "GET"], &[], error, None),
            ],
            &[],
        );
    }
}
