//! Which commands are blind writes, which have a reply that decides, and which are never journaled.

use super::{Outcome, WriteContext, hash, keys, list, members, stream, string, zset};
use crate::command::{Name, Spec};
use crate::outage::effect::EffectKind::{self, Absolute, Relative};
use crate::resp::Request;

pub(super) type Handler = for<'a> fn(&'static Spec, &Request<'a>, &mut WriteContext<'_>) -> Outcome<'a>;

pub(super) enum Class {
    /// Journaled by default; the handler knows effect and acknowledgement.
    Blind(Handler),
    /// Refused unless a rule gives the reply; then journaled as it came.
    Decides(EffectKind),
    Never,
}

pub(super) fn class(name: Name) -> Class {
    match blind(name) {
        Some(handler) => Class::Blind(handler),
        None => deciding(name).map_or(Class::Never, Class::Decides),
    }
}

fn blind(name: Name) -> Option<Handler> {
    Some(match name {
        Name::Set => string::set,
        Name::Setex | Name::Psetex => string::setex,
        Name::Mset => string::mset,
        Name::Msetex => string::msetex,
        Name::Pfadd => string::pfadd,
        Name::Pfmerge => string::pfmerge,
        Name::Del | Name::Unlink => keys::del,
        Name::Delifeq => keys::delifeq,
        Name::Expire | Name::Pexpire | Name::Expireat | Name::Pexpireat => keys::expire,
        Name::Persist => keys::persist,
        Name::Restore => keys::restore,
        Name::Hset => hash::hset,
        Name::Hmset => hash::hmset,
        Name::Hexpire => hash::hexpire,
        Name::Hsetex => hash::hsetex,
        Name::Hdel | Name::Sadd | Name::Srem | Name::Zrem => members::distinct_members,
        Name::Lpush | Name::Rpush => list::push,
        Name::Ltrim => list::trim,
        Name::Zadd => zset::zadd,
        Name::Geoadd => zset::geoadd,
        Name::Zremrangebyscore | Name::Zremrangebylex | Name::Zremrangebyrank => zset::zremrange,
        Name::Xadd => stream::xadd,
        Name::Xack => stream::xack,
        Name::Xdel => stream::xdel,
        Name::Xtrim => stream::xtrim,
        Name::XgroupCreate => stream::xgroup_create,
        Name::XgroupCreateconsumer => stream::xgroup_createconsumer,
        _ => return None,
    })
}

fn deciding(name: Name) -> Option<EffectKind> {
    Some(match name {
        Name::Getset | Name::Getdel | Name::Hgetdel | Name::Setrange | Name::Setbit | Name::Lset => Absolute,
        Name::Flushall | Name::Flushdb | Name::Xsetid => Absolute,
        Name::Hexpireat | Name::Hpexpireat | Name::Hpersist => Absolute,
        Name::XgroupSetid | Name::XgroupDestroy | Name::XgroupDelconsumer => Absolute,
        Name::Setnx | Name::Msetnx | Name::Hsetnx | Name::Append => Relative,
        Name::Incr | Name::Decr | Name::Incrby | Name::Decrby | Name::Incrbyfloat => Relative,
        Name::Hincrby | Name::Hincrbyfloat | Name::Zincrby | Name::Bitfield | Name::Bitop => Relative,
        Name::Smove | Name::Sunionstore | Name::Sinterstore | Name::Sdiffstore => Relative,
        Name::Zunionstore | Name::Zinterstore | Name::Zdiffstore | Name::Zrangestore => Relative,
        Name::Geosearchstore | Name::Georadius | Name::Georadiusbymember | Name::Sort => Relative,
        Name::Lpushx | Name::Rpushx | Name::Linsert | Name::Lrem => Relative,
        Name::Copy | Name::Rename | Name::Renamenx | Name::Move => Relative,
        Name::Eval | Name::Evalsha | Name::Fcall | Name::Publish | Name::Spublish => Relative,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Flags, TABLE};

    /// Writes that no rule can make safe: pops and claims, reads that change a TTL, administration.
    const NEVER: &[Name] = &[
        Name::Blmove,
        Name::Blmpop,
        Name::Blpop,
        Name::Brpop,
        Name::Brpoplpush,
        Name::Bzmpop,
        Name::Bzpopmax,
        Name::Bzpopmin,
        Name::FunctionDelete,
        Name::FunctionFlush,
        Name::FunctionLoad,
        Name::FunctionRestore,
        Name::Getex,
        Name::Hgetex,
        // Relative to when it comes.
        Name::Hpexpire,
        Name::Lmove,
        Name::Lmpop,
        Name::Lpop,
        Name::Migrate,
        Name::Pfdebug,
        Name::RestoreAsking,
        Name::Rpop,
        Name::Rpoplpush,
        Name::Spop,
        Name::Swapdb,
        Name::Xautoclaim,
        Name::Xclaim,
        Name::Xreadgroup,
        Name::Zmpop,
        Name::Zpopmax,
        Name::Zpopmin,
    ];

    #[test]
    fn every_write_of_the_table_was_thought_about_once() {
        for spec in TABLE.iter().filter(|spec| spec.flags.contains(Flags::WRITE)) {
            let places = [
                blind(spec.id).is_some(),
                deciding(spec.id).is_some(),
                NEVER.contains(&spec.id),
            ];
            assert_eq!(places.iter().filter(|place| **place).count(), 1, "{}", spec.name);
        }
    }

    #[test]
    fn a_read_is_never_journaled() {
        for spec in TABLE.iter().filter(|spec| spec.flags.contains(Flags::READONLY)) {
            assert!(matches!(class(spec.id), Class::Never), "{}", spec.name);
        }
    }
}
