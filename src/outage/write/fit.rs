//! Which parts of a rule a command can make use of.

use super::class::{Class, class};
use crate::command::Name;
use crate::outage::effect::EffectKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// It can be done twice and leave the same, in one of its forms at least.
    pub can_be_absolute: bool,
    /// It replaces whatever its keys hold.
    pub writes_whole_value: bool,
    /// It makes a key that is not there anew, with a part of what should be in it, or changes only one that is there.
    pub can_need_key: bool,
    /// It bears an ID of its own.
    pub can_bear_an_id: bool,
}

/// What a command can make use of, if it is journaled at all.
#[must_use]
pub fn fit(name: Name) -> Fit {
    Fit {
        can_be_absolute: can_be_absolute(name),
        writes_whole_value: writes_whole_value(name),
        can_need_key: can_need_key(name),
        can_bear_an_id: name == Name::Xadd,
    }
}

fn can_be_absolute(name: Name) -> bool {
    match class(name) {
        // With an ID of its own XADD does nothing the second time, but says that it failed.
        Class::Blind(_) => !matches!(
            name,
            Name::Lpush | Name::Rpush | Name::Ltrim | Name::Pfmerge | Name::Delifeq | Name::XgroupCreate | Name::Xadd
        ),
        Class::Decides(kind) => kind == EffectKind::Absolute,
        Class::Never => false,
    }
}

/// Not the …STORE commands: what they write comes from the upstream, not from what was read while down.
pub(super) fn writes_whole_value(name: Name) -> bool {
    matches!(
        name,
        Name::Set | Name::Setex | Name::Psetex | Name::Mset | Name::Msetex | Name::Restore | Name::Getset
    )
}

pub(super) fn can_need_key(name: Name) -> bool {
    matches!(
        name,
        Name::Hset
            | Name::Hmset
            | Name::Hsetnx
            | Name::Hsetex
            | Name::Hincrby
            | Name::Hincrbyfloat
            | Name::Hexpire
            | Name::Hexpireat
            | Name::Hpexpireat
            | Name::Hpersist
            | Name::Lpush
            | Name::Rpush
            | Name::Lset
            | Name::Sadd
            | Name::Zadd
            | Name::Zincrby
            | Name::Geoadd
            | Name::Xadd
            | Name::Xsetid
            | Name::XgroupCreate
            | Name::Pfadd
            | Name::Append
            | Name::Setrange
            | Name::Setbit
            | Name::Bitfield
            | Name::Incr
            | Name::Decr
            | Name::Incrby
            | Name::Decrby
            | Name::Incrbyfloat
            | Name::Expire
            | Name::Pexpire
            | Name::Expireat
            | Name::Pexpireat
            | Name::Persist
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::TABLE;
    use crate::outage::write::{Queueing, queueing};

    #[test]
    fn what_a_rule_can_be_of_use_for_is_journaled() {
        for spec in TABLE {
            let Fit {
                can_be_absolute,
                writes_whole_value,
                can_need_key,
                can_bear_an_id,
            } = fit(spec.id);
            if can_be_absolute || writes_whole_value || can_need_key || can_bear_an_id {
                assert_ne!(queueing(spec.id), Queueing::Never, "{}", spec.name);
            }
            assert!(
                !(writes_whole_value && can_need_key),
                "{}: a key that must exist is not created",
                spec.name
            );
        }
    }
}
