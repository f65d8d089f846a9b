//! What a rule makes of a write that is to be journaled: what it asks for at replay, or a refusal now.

use super::expiry::{Expiry, ExpiryOption};
use super::fit::{can_need_key, writes_whole_value};
use super::parse::integer;
use crate::command::{self, Name, Spec};
use crate::outage::effect::{Effect, EffectKind, Guard, Rewrite};
use crate::outage::rules::{AfterNeutralRead, Care, NeedsKey};
use crate::resp::Request;

/// A write that is to be journaled, with what it asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Guarded<'a> {
    One(Effect<'a>, Guard),
    /// One SET for each key: of MSET or MSETEX, where some keys were answered neutrally. Each has a fate of its own.
    Each(Vec<(Effect<'static>, Guard)>),
    /// A key was answered neutrally, and the rule says `refuse`.
    Refused,
}

/// Applies the part of a rule that is about replay. `effect` is what the request became; `is_tainted` says of a key whether it was answered
/// neutrally in this outage.
pub fn guarded<'a>(
    spec: &'static Spec,
    request: &Request<'a>,
    effect: Effect<'a>,
    care: Care,
    wall_ms: u64,
    is_tainted: impl Fn(&[u8]) -> bool,
) -> Guarded<'a> {
    if care.needs_key == NeedsKey::Yes && can_need_key(spec.id) {
        return Guarded::One(effect, Guard::NeedsKey);
    }
    // Where no rule asks, nobody looks the keys up.
    if care.after_neutral_read == AfterNeutralRead::Overwrite || !writes_whole_value(spec.id) {
        return Guarded::One(effect, Guard::None);
    }
    let mut keys: Vec<&[u8]> = Vec::new();
    command::for_each_key(spec, request, |key| keys.push(key));
    let tainted = keys.iter().filter(|key| is_tainted(key)).count();
    match (care.after_neutral_read, tainted) {
        (AfterNeutralRead::Overwrite, _) | (AfterNeutralRead::Refuse, 0) => Guarded::One(effect, Guard::None),
        (AfterNeutralRead::Refuse, _) => Guarded::Refused,
        (AfterNeutralRead::CreateOnly, 0) => Guarded::One(effect, Guard::Claims),
        (AfterNeutralRead::CreateOnly, _) => match singles(spec.id, request, wall_ms) {
            Some(singles) if singles.len() == keys.len() => Guarded::Each(
                singles
                    .into_iter()
                    .zip(keys)
                    .map(|(effect, key)| {
                        let guard = if is_tainted(key) {
                            Guard::CreateOnly
                        } else {
                            Guard::Claims
                        };
                        (effect, guard)
                    })
                    .collect(),
            ),
            Some(_) | None => Guarded::One(effect, Guard::CreateOnly),
        },
    }
}

/// MSET and MSETEX, whose arguments are known to be right, as one SET for each key.
fn singles(name: Name, request: &Request<'_>, wall_ms: u64) -> Option<Vec<Effect<'static>>> {
    let (first, pairs) = match name {
        Name::Mset => (1, (request.len() - 1) / 2),
        Name::Msetex => (2, usize::try_from(integer(request.arg(1))?).ok()?),
        _ => return None,
    };
    let option_at = first + 2 * pairs;
    let option = request.get(option_at).and_then(ExpiryOption::parse);
    let expiry = match option {
        None => None,
        Some(option) => Some(option.expiry(request.arg(option_at + 1), wall_ms).ok()?),
    };
    let single = |at: usize| {
        let set = [b"SET".as_slice(), request.arg(at), request.arg(at + 1)];
        let bytes = set.iter().map(|arg| arg.len() + 16).sum();
        match expiry {
            None => Rewrite::new(3, bytes).args(set.into_iter()),
            Some(Expiry::After(after_ms)) => Rewrite::new(5, bytes + 16)
                .args(set.into_iter())
                .arg(b"PXAT")
                .deadline(after_ms),
            Some(Expiry::At) => Rewrite::new(5, bytes + 32)
                .args(set.into_iter())
                .args(request.args_from(option_at)),
        }
        .finish(EffectKind::Absolute)
    };
    Some((0..pairs).map(|pair| single(first + 2 * pair)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::lookup;
    use crate::outage::rules::Care;
    use crate::resp::request::OwnedRequest;

    fn text(effect: &Effect<'_>) -> String {
        String::from_utf8(effect.command.to_vec())
            .unwrap()
            .split("\r\n")
            .filter(|line| !line.is_empty() && !line.starts_with(['*', '$']))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Keys that begin with `t` are tainted.
    #[track_caller]
    fn check(line: &str, after_neutral_read: AfterNeutralRead, needs_key: NeedsKey, expected: &str) {
        let args: Vec<&str> = line.split(' ').collect();
        let owned = OwnedRequest::new(&args);
        let request = owned.as_request();
        let care = Care {
            after_neutral_read,
            needs_key,
            ..Care::default()
        };
        let effect = Effect::verbatim(EffectKind::Absolute, &request);
        let guarded = guarded(lookup(&request).unwrap(), &request, effect, care, 0, |key| {
            key.starts_with(b"t")
        });
        let shown = match guarded {
            Guarded::One(_, guard) => format!("{guard:?}"),
            Guarded::Each(all) => all
                .iter()
                .map(|(effect, guard)| format!("{guard:?} {}{}", text(effect), effect.deadline.map_or("", |_| " …")))
                .collect::<Vec<_>>()
                .join("; "),
            Guarded::Refused => "Refused".to_owned(),
        };
        assert_eq!(shown, expected, "{line}");
    }

    #[test]
    fn whole_value_writes_are_guarded_by_what_was_answered() {
        use AfterNeutralRead::{CreateOnly, Overwrite, Refuse};
        for line in [
            "SET t v",
            "SETEX t 5 v",
            "PSETEX t 5 v",
            "RESTORE t 0 x REPLACE",
            "GETSET t v",
        ] {
            check(line, Overwrite, NeedsKey::Yes, "None");
            check(line, CreateOnly, NeedsKey::No, "CreateOnly");
            check(line, Refuse, NeedsKey::No, "Refused");
            let other = line.replacen(" t", " o", 1);
            check(&other, CreateOnly, NeedsKey::No, "Claims");
            check(&other, Refuse, NeedsKey::No, "None");
        }
        check("MSET o 1 p 2", CreateOnly, NeedsKey::No, "Claims");
        check("MSET o 1 t 2", Refuse, NeedsKey::No, "Refused");
        check(
            "MSET o 1 t 2",
            CreateOnly,
            NeedsKey::No,
            "Claims SET o 1; CreateOnly SET t 2",
        );
        check(
            "MSETEX 2 t 1 o 2",
            CreateOnly,
            NeedsKey::No,
            "CreateOnly SET t 1; Claims SET o 2",
        );
        check(
            "MSETEX 1 t 1 EX 9",
            CreateOnly,
            NeedsKey::No,
            "CreateOnly SET t 1 PXAT …",
        );
        check(
            "MSETEX 1 t 1 EXAT 9",
            CreateOnly,
            NeedsKey::No,
            "CreateOnly SET t 1 EXAT 9",
        );
        for line in ["HSET t f v", "DEL t", "RPUSH t v", "EXPIRE t 5"] {
            check(line, Refuse, NeedsKey::No, "None");
        }
    }

    #[test]
    fn writes_into_a_key_need_it_where_a_rule_says_so() {
        for line in [
            "HSET k f v",
            "RPUSH k v",
            "SADD k v",
            "ZADD k 1 v",
            "XADD k * f v",
            "EXPIRE k 5",
            "HINCRBY k f 1",
        ] {
            check(line, AfterNeutralRead::Overwrite, NeedsKey::Yes, "NeedsKey");
        }
        for line in ["DEL k", "SREM k v", "LTRIM k 0 1"] {
            check(line, AfterNeutralRead::Overwrite, NeedsKey::Yes, "None");
        }
    }
}
