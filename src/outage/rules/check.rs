//! What is wrong with rules, before anybody relies on them.

use super::super::decide::has_neutral_reply;
use super::super::glob::Glob;
use super::super::write::{Fit, Queueing, fit, queueing};
use super::reply_kinds::{Kind, reply_kind};
use super::{AfterNeutralRead, Care, CaughtInFlight, NeedsKey, Reply, Rule, RuleError, RuleSettings, WhenDown, XaddId};
use crate::command::{Flags, Spec, TABLE};

/// One rule by itself.
pub(super) fn understand(rule: usize, settings: &RuleSettings, errors: &mut Vec<RuleError>) -> Rule {
    let mut wrong = |key, value: String, reason: String| {
        errors.push(RuleError {
            rule,
            key,
            value,
            reason,
        });
    };
    let mut specs: Vec<&'static Spec> = Vec::with_capacity(settings.commands.len());
    for command in &settings.commands {
        let words: Vec<String> = command.split_whitespace().map(str::to_ascii_uppercase).collect();
        let name = words.join(" ");
        match TABLE.iter().find(|spec| spec.name == name) {
            None => wrong("commands", format!("{command:?}"), "no such command".to_owned()),
            Some(spec) => {
                if let Some(reason) = cannot_be_answered(spec, settings) {
                    wrong("commands", format!("{command:?}"), reason.to_owned());
                }
                specs.push(spec);
            }
        }
    }
    let reply = settings.reply.as_deref().and_then(|text| {
        let reply = Reply::parse(text);
        match &reply {
            None => wrong(
                "reply",
                format!("{text:?}"),
                "a reply is +text, :n, $text, _ or *0".to_owned(),
            ),
            Some(_) if !matches!(settings.when_down, Some(WhenDown::Queue | WhenDown::Neutral)) => {}
            Some(reply) => {
                for (spec, kind) in specs
                    .iter()
                    .filter_map(|spec| Some((spec, reply_kind(spec.id)?)))
                    .filter(|(_, kind)| !kind.takes(reply))
                {
                    let name = spec.name;
                    let reason = match kind {
                        Kind::Integer => {
                            format!("{name} answers an integer, and a client that waits for one fails on this")
                        }
                        Kind::Text => format!("{name} answers a string, and a client that waits for one fails on this"),
                        Kind::Array => {
                            format!("{name} answers an array, and a client that waits for one fails on this")
                        }
                    };
                    wrong("reply", format!("{text:?}"), reason);
                }
            }
        }
        reply
    });
    if let (Some(WhenDown::Error | WhenDown::Hold) | None, Some(text)) = (settings.when_down, &settings.reply) {
        let reason = "only when_down = \"queue\" or \"neutral\" has a reply";
        wrong("reply", format!("{text:?}"), reason.to_owned());
    }
    for (key, value, part) in asked(settings.care) {
        for reason in of_no_use(&specs, settings.when_down, part) {
            wrong(key, value.clone(), reason);
        }
    }
    Rule {
        commands: specs.iter().map(|spec| spec.id).collect(),
        keys: settings.keys.iter().map(|glob| Glob::new(glob.as_bytes())).collect(),
        when_down: settings.when_down,
        reply,
        care: settings.care,
    }
}

/// Why a command cannot be answered as the rule says.
fn cannot_be_answered(spec: &Spec, settings: &RuleSettings) -> Option<&'static str> {
    match (settings.when_down?, queueing(spec.id)) {
        (WhenDown::Queue, Queueing::Never) => Some(if spec.flags.contains(Flags::BLOCKING) {
            "is never queued: its client waits for what it is given"
        } else if spec.flags.contains(Flags::READONLY) {
            "is never queued: it writes nothing"
        } else if spec.flags.contains(Flags::WRITE) && has_neutral_reply(spec.id) {
            "is never queued: nobody knows while down what it would hand out"
        } else {
            "is never queued: what it does depends on the server that it meets"
        }),
        (WhenDown::Queue, Queueing::WithReply) if settings.reply.is_none() => {
            Some("is queued only with a reply: what it answers decides something, and the table cannot know it")
        }
        // A few that can be queued also have a neutral reply (SORT, BITFIELD, PUBLISH).
        (WhenDown::Neutral, _) if settings.reply.is_some() || has_neutral_reply(spec.id) => None,
        (WhenDown::Neutral, Queueing::ByDefault | Queueing::WithReply) => {
            Some("has no neutral reply: say with `reply` what its client is told, or queue it")
        }
        (WhenDown::Neutral, Queueing::Never) => Some("has no neutral reply: say with `reply` what its client is told"),
        (WhenDown::Queue | WhenDown::Error | WhenDown::Hold, _) => None,
    }
}

/// One part of [`Care`] that is not at its default.
#[derive(Clone, Copy)]
enum Part {
    InFlight,
    AfterNeutralRead,
    NeedsKey,
    XaddId,
}

fn asked(care: Care) -> impl Iterator<Item = (&'static str, String, Part)> {
    let Care {
        in_flight,
        after_neutral_read,
        needs_key,
        xadd_id,
    } = care;
    let after_neutral_read = match after_neutral_read {
        AfterNeutralRead::Overwrite => None,
        AfterNeutralRead::CreateOnly => Some("\"create_only\""),
        AfterNeutralRead::Refuse => Some("\"refuse\""),
    };
    [
        (
            "in_flight",
            (in_flight == CaughtInFlight::Journal).then_some("\"journal\""),
            Part::InFlight,
        ),
        ("after_neutral_read", after_neutral_read, Part::AfterNeutralRead),
        (
            "needs_key",
            (needs_key == NeedsKey::Yes).then_some("true"),
            Part::NeedsKey,
        ),
        (
            "xadd_id",
            (xadd_id == XaddId::Accepted).then_some("\"accepted\""),
            Part::XaddId,
        ),
    ]
    .into_iter()
    .filter_map(|(key, value, part)| Some((key, value?.to_owned(), part)))
}

/// Why a part can do nothing for this rule, or for some of its commands.
fn of_no_use(specs: &[&Spec], when_down: Option<WhenDown>, part: Part) -> Vec<String> {
    match when_down {
        Some(WhenDown::Error) => return vec!["nothing is journaled where when_down = \"error\"".to_owned()],
        Some(WhenDown::Neutral) => return vec!["nothing is journaled where when_down = \"neutral\"".to_owned()],
        Some(WhenDown::Queue | WhenDown::Hold) | None => {}
    }
    let unfit = |spec: &&Spec| {
        let Fit {
            can_be_absolute,
            writes_whole_value,
            can_need_key,
            can_bear_an_id,
        } = fit(spec.id);
        let name = spec.name;
        match queueing(spec.id) {
            Queueing::Never => return Some(format!("{name} is never journaled")),
            Queueing::WithReply if when_down != Some(WhenDown::Queue) => {
                return Some(format!(
                    "{name} is journaled only with when_down = \"queue\" and a reply"
                ));
            }
            Queueing::WithReply | Queueing::ByDefault => {}
        }
        match part {
            Part::InFlight => (!can_be_absolute).then(|| {
                format!(
                    "{name} is never the same when it is done twice, so it is never journaled when it may have been done"
                )
            }),
            Part::AfterNeutralRead => (!writes_whole_value).then(|| format!("{name} writes no whole value")),
            Part::NeedsKey => (!can_need_key).then(|| format!("{name} adds to no key and changes none that must exist")),
            Part::XaddId => (!can_bear_an_id).then(|| format!("{name} is not XADD")),
        }
    };
    specs.iter().filter_map(unfit).collect()
}

/// Rules that earlier ones leave nothing for, as far as that is plain to see.
pub(super) fn never_reached(rules: &[Rule], settings: &[RuleSettings], errors: &mut Vec<RuleError>) {
    // What is wrong in another way says nothing of what it takes.
    let is_understood = |(rule, typed): &(&Rule, &RuleSettings)| {
        rule.commands.len() == typed.commands.len() && !(rule.commands.is_empty() && rule.keys.is_empty())
    };
    for (at, (rule, typed)) in rules.iter().zip(settings).enumerate() {
        if !is_understood(&(rule, typed)) {
            continue;
        }
        let taken_by = |name| {
            let mut earlier = rules.iter().zip(settings).take(at);
            earlier.position(|one| is_understood(&one) && one.0.takes_all(name, &rule.keys))
        };
        let takers: Option<Vec<usize>> = if rule.commands.is_empty() {
            taken_by(None).map(|taker| vec![taker])
        } else {
            rule.commands.iter().map(|name| taken_by(Some(*name))).collect()
        };
        let Some(mut takers) = takers else { continue };
        takers.sort_unstable();
        takers.dedup();
        let shown: Vec<String> = takers.iter().map(|taker| format!("rule[{taker}]")).collect();
        let takes = if shown.len() == 1 { "takes" } else { "take" };
        let (key, value) = if typed.keys.is_empty() {
            ("commands", &typed.commands)
        } else {
            ("keys", &typed.keys)
        };
        errors.push(RuleError {
            rule: at,
            key,
            value: format!("{value:?}"),
            reason: format!("never matches: {} {takes} everything before it", shown.join(" and ")),
        });
    }
}

impl Rule {
    /// Whether it matches a command (`None`: every one) whenever its keys all match one of these globs; without globs: always.
    fn takes_all(&self, name: Option<crate::command::Name>, keys: &[Glob]) -> bool {
        let takes_name = self.commands.is_empty() || name.is_some_and(|name| self.commands.contains(&name));
        let takes_key = |key: &Glob| self.keys.iter().any(|glob| glob.covers(key));
        takes_name && (self.keys.is_empty() || !keys.is_empty() && keys.iter().all(takes_key))
    }
}
