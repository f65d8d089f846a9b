//! The kind of reply that clients wait for, where the command has one kind only. A client library turns replies into types by the command's
//! name, and fails on another kind.

use super::Reply;
use crate::command::Name;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    /// A simple or a bulk string, which clients do not tell apart here, or nothing.
    Text,
    Array,
}

impl Kind {
    pub(super) fn takes(self, reply: &Reply) -> bool {
        match (self, reply) {
            (_, Reply::Null) | (Self::Integer, Reply::Integer(_)) | (Self::Array, Reply::EmptyArray) => true,
            (Self::Text, Reply::Simple(_) | Reply::Bulk(_)) => true,
            (Self::Integer, Reply::Simple(_) | Reply::Bulk(_) | Reply::EmptyArray)
            | (Self::Text, Reply::Integer(_) | Reply::EmptyArray)
            | (Self::Array, Reply::Simple(_) | Reply::Bulk(_) | Reply::Integer(_)) => false,
        }
    }
}

macro_rules! kinds {
    ($($kind:ident => $($name:ident)*;)*) => {
        pub(super) fn reply_kind(name: Name) -> Option<Kind> {
            match name { $($(Name::$name)|* => Some(Kind::$kind),)* _ => None }
        }
    };
}

kinds! {
    Integer =>
        Incr Incrby Decr Decrby Hincrby Append Setrange Setbit Setnx Msetnx Hsetnx Strlen Exists Touch Dbsize Hlen Hexists Llen
        Scard Sismember Zcard Zcount Zlexcount Xlen Pfcount Bitcount Getbit Del Unlink Expire Pexpire Expireat Pexpireat Persist
        Ttl Pttl Hset Hdel Sadd Srem Zrem Lpush Rpush Lpushx Rpushx Linsert Lrem Renamenx Move Smove Copy Publish Spublish
        Xack Xdel Xtrim Bitop Pfadd Sunionstore Sinterstore Sdiffstore Zunionstore Zinterstore Zdiffstore Zrangestore
        Zremrangebyscore Zremrangebylex Zremrangebyrank Geoadd;
    Text =>
        Get Getset Getdel Getex Hget Lindex Set Setex Psetex Mset Hmset Lset Ltrim Rename Restore Flushall Flushdb Type
        Incrbyfloat Hincrbyfloat Xadd Pfmerge XgroupCreate XgroupSetid;
    Array =>
        Mget Hmget Keys Hkeys Hvals Lrange Smismember Sort SortRo Xrange Xrevrange Sinter Sunion Sdiff Smembers;
}
