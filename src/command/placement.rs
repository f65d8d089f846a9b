//! Where a command goes while the breaker is CLOSED, and what its loss in flight means. Exhaustive by name: a new row of the table does not compile until it stands here.

use super::{Name, Spec, TABLE, sort_destination};
use crate::resp::Request;

/// Where a command goes while the breaker is CLOSED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Complete in itself: does not block, needs no identity of the connection, cannot make Redis close, change or block it.
    Lane,
    /// A connection of the session's own: blocking, administrative, about the connection itself, or unknown to the table.
    Dedicated,
    /// A connection for scripts, which may run for long.
    Script,
    /// The session's own state machine: handshake, transactions, subscriptions.
    Session,
}

/// What is to be done about a command whose connection died before its reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlight {
    /// Provably without side effects (or with ones that nobody can see, as PFCOUNT's cache): may be sent again.
    Read,
    /// Everything else: may have been applied.
    Write,
}

#[derive(Clone, Copy)]
enum Route {
    To(Placement),
    /// XREAD, XREADGROUP: Dedicated where they block.
    DedicatedIfBlocking,
}

#[derive(Clone, Copy)]
enum Loss {
    Is(InFlight),
    /// A write where a destination is named.
    WriteIfStored,
    /// A write where any argument from a position on is one of these words.
    WriteIfAny(usize, &'static [&'static str]),
    /// A write where the argument at a position is there and is not this word.
    WriteUnless(usize, &'static str),
}

#[derive(Clone, Copy)]
struct Facts {
    route: Route,
    loss: Loss,
}

static FACTS: [Facts; TABLE.len()] = {
    let mut facts = [Facts {
        route: DEDICATED,
        loss: WRITE,
    }; TABLE.len()];
    let mut row = 0;
    while row < facts.len() {
        facts[row] = Facts {
            route: route(TABLE[row].id),
            loss: loss(TABLE[row].id),
        };
        row += 1;
    }
    facts
};

/// Where a request goes while the breaker is CLOSED. `None` is a command unknown to the table.
#[must_use]
pub fn placement(spec: Option<&'static Spec>, request: &Request<'_>) -> Placement {
    let Some(spec) = spec else {
        return Placement::Dedicated;
    };
    match FACTS[spec.id as usize].route {
        Route::To(placement) => placement,
        Route::DedicatedIfBlocking if blocks(request) != Blocks::No => Placement::Dedicated,
        Route::DedicatedIfBlocking => Placement::Lane,
    }
}

/// What the loss of a request in flight means. `None` is a command unknown to the table.
#[must_use]
pub fn in_flight(spec: Option<&'static Spec>, request: &Request<'_>) -> InFlight {
    let Some(spec) = spec else {
        return InFlight::Write;
    };
    let is_write = match FACTS[spec.id as usize].loss {
        Loss::Is(in_flight) => return in_flight,
        Loss::WriteIfStored => sort_destination(request).is_some(),
        Loss::WriteIfAny(from, words) => request
            .args_from(from)
            .any(|arg| words.iter().any(|word| arg.eq_ignore_ascii_case(word.as_bytes()))),
        Loss::WriteUnless(at, word) => request
            .get(at)
            .is_some_and(|arg| !arg.eq_ignore_ascii_case(word.as_bytes())),
    };
    if is_write { InFlight::Write } else { InFlight::Read }
}

/// Whether an XREAD or XREADGROUP asks to block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    No,
    /// The argument with the time is there.
    For(usize),
    /// Its options are not understood: to be safe, it may.
    Perhaps,
}

/// Looks at the options of an XREAD or XREADGROUP, not at names that look like them.
#[must_use]
pub fn blocks(request: &Request<'_>) -> Blocks {
    let mut at = 1;
    while let Some(word) = request.get(at) {
        at += if word.eq_ignore_ascii_case(b"STREAMS") {
            return Blocks::No;
        } else if word.eq_ignore_ascii_case(b"BLOCK") {
            return Blocks::For(at + 1);
        } else if word.eq_ignore_ascii_case(b"GROUP") {
            3
        } else if word.eq_ignore_ascii_case(b"COUNT") {
            2
        } else if word.eq_ignore_ascii_case(b"NOACK") {
            1
        } else {
            return Blocks::Perhaps;
        };
    }
    Blocks::No
}

macro_rules! by_name {
    ($(#[$doc:meta])* $function:ident -> $result:ty { $($value:expr => $($name:ident)*;)* }) => {
        $(#[$doc])*
        const fn $function(name: Name) -> $result {
            match name { $($(Name::$name)|* => $value,)* }
        }
    };
}

const LANE: Route = Route::To(Placement::Lane);
const DEDICATED: Route = Route::To(Placement::Dedicated);
const SCRIPT: Route = Route::To(Placement::Script);
const SESSION: Route = Route::To(Placement::Session);
const READ: Loss = Loss::Is(InFlight::Read);
const WRITE: Loss = Loss::Is(InFlight::Write);

by_name! {
    /// KILL and STATS stand beside a script that runs, so they go where none can be before them. CONFIG GET is the one
    /// administrative command on a lane: clients ask for it when they connect.
    route -> Route {
        LANE =>
            AclCat AclGenpass AclHelp AclWhoami Append Bitcount Bitfield BitfieldRo Bitop Bitpos ClientHelp
            ClusterHelp Command CommandCount CommandDocs CommandGetkeys CommandGetkeysandflags CommandHelp
            CommandInfo CommandList CommandlogHelp ConfigGet ConfigHelp Copy Dbsize Decr Decrby Del Delifeq Dump Echo Exists
            Expire Expireat Expiretime FunctionHelp Geoadd Geodist Geohash Geopos Georadius Georadiusbymember
            GeoradiusbymemberRo GeoradiusRo Geosearch Geosearchstore Get Getbit Getdel Getex Getrange Getset
            Hdel Hexists Hexpire Hexpireat Hexpiretime Hpersist Hpexpire Hpexpireat Hpexpiretime Hpttl Httl Hget Hgetall Hgetdel Hgetex Hincrby Hincrbyfloat Hkeys Hlen Hmget Hmset
            Hrandfield Hscan Hset Hsetex Hsetnx Hstrlen Hvals Incr Incrby Incrbyfloat Info Keys Lastsave
            LatencyHelp Lcs Lindex Linsert Llen Lmove Lmpop Lolwut Lpop Lpos Lpush Lpushx Lrange Lrem Lset Ltrim
            MemoryDoctor MemoryHelp MemoryMallocStats MemoryStats MemoryUsage Mget ModuleHelp Move Mset Msetex
            Msetnx ObjectEncoding ObjectFreq ObjectHelp ObjectIdletime ObjectRefcount Persist Pexpire Pexpireat
            Pexpiretime Pfadd Pfcount Pfmerge Ping Psetex Pttl Publish PubsubChannels PubsubHelp PubsubNumpat
            PubsubNumsub PubsubShardchannels PubsubShardnumsub Randomkey Rename Renamenx Restore Role Rpop
            Rpoplpush Rpush Rpushx Sadd Scan Scard ScriptExists ScriptHelp ScriptShow Sdiff
            Sdiffstore Set Setbit Setex Setnx Setrange Sinter Sintercard Sinterstore Sismember SlowlogHelp
            Smembers Smismember Smove Sort SortRo Spop Spublish Srandmember Srem Sscan Strlen Substr Sunion
            Sunionstore Time Touch Ttl Type Unlink Xack Xadd Xautoclaim Xclaim Xdel XgroupCreate
            XgroupCreateconsumer XgroupDelconsumer XgroupDestroy XgroupHelp XgroupSetid XinfoConsumers
            XinfoGroups XinfoHelp XinfoStream Xlen Xpending Xrange Xrevrange Xsetid Xtrim Zadd Zcard Zcount
            Zdiff Zdiffstore Zincrby Zinter Zintercard Zinterstore Zlexcount Zmpop Zmscore Zpopmax Zpopmin
            Zrandmember Zrange Zrangebylex Zrangebyscore Zrangestore Zrank Zrem Zremrangebylex Zremrangebyrank
            Zremrangebyscore Zrevrange Zrevrangebylex Zrevrangebyscore Zrevrank Zscan Zscore Zunion Zunionstore;
        SESSION =>
            Auth ClientReply ClientSetinfo ClientSetname Discard Exec Hello Multi Psubscribe Punsubscribe Quit
            Reset Select Ssubscribe Subscribe Sunsubscribe Unsubscribe Unwatch Watch;
        DEDICATED =>
            Acl AclDeluser AclDryrun AclGetuser AclList AclLoad AclLog AclSave AclSetuser AclUsers Asking
            Bgrewriteaof Bgsave Blmove Blmpop Blpop Brpop Brpoplpush Bzmpop Bzpopmax Bzpopmin Client
            ClientCaching ClientCapa ClientGetname ClientGetredir ClientId ClientInfo ClientKill ClientList
            ClientNoEvict ClientNoTouch ClientPause ClientTracking ClientTrackinginfo ClientUnblock
            ClientImportSource ClientUnpause Cluster ClusterAddslots ClusterAddslotsrange ClusterBumpepoch
            Commandlog CommandlogGet CommandlogLen CommandlogReset
            ClusterCountFailureReports ClusterCountkeysinslot ClusterDelslots ClusterDelslotsrange
            ClusterFailover ClusterFlushslots ClusterForget ClusterGetkeysinslot ClusterInfo ClusterKeyslot
            ClusterLinks ClusterMeet ClusterMyid ClusterMyshardid ClusterNodes ClusterReplicas ClusterReplicate
            ClusterReset ClusterSaveconfig ClusterSetConfigEpoch ClusterSetslot ClusterShards ClusterSlaves
            ClusterSlotStats ClusterSlots Config ConfigResetstat ConfigRewrite ConfigSet Debug Failover Flushall
            Flushdb Function FunctionKill FunctionStats Latency LatencyDoctor LatencyGraph LatencyHistogram
            LatencyHistory LatencyLatest LatencyReset Memory MemoryPurge Migrate Module ModuleList ModuleLoad
            ModuleLoadex ModuleUnload Monitor Object Pfdebug Pfselftest Psync Pubsub Readonly Readwrite Replconf
            Replicaof RestoreAsking Save Script ScriptDebug ScriptKill Shutdown Slaveof Slowlog SlowlogGet
            SlowlogLen SlowlogReset Swapdb Sync Wait Waitaof Xgroup Xinfo;
        SCRIPT =>
            Eval Evalsha EvalshaRo EvalRo Fcall FcallRo FunctionDelete FunctionDump FunctionFlush FunctionList
            FunctionLoad FunctionRestore ScriptFlush ScriptLoad;
        Route::DedicatedIfBlocking => Xread Xreadgroup;
    }
}

by_name! {
    loss -> Loss {
        READ =>
            AclCat AclDryrun AclGenpass AclGetuser AclHelp AclList AclLog AclUsers AclWhoami Bitcount BitfieldRo
            Bitpos ClientGetname ClientGetredir ClientHelp ClientId ClientInfo ClientList ClientTrackinginfo
            ClusterCountFailureReports ClusterCountkeysinslot ClusterGetkeysinslot ClusterHelp ClusterInfo
            ClusterKeyslot ClusterLinks ClusterMyid ClusterMyshardid ClusterNodes ClusterReplicas ClusterShards
            ClusterSlaves ClusterSlotStats ClusterSlots Command CommandCount CommandDocs CommandGetkeys
            CommandGetkeysandflags CommandHelp CommandInfo CommandList CommandlogGet CommandlogHelp CommandlogLen ConfigGet ConfigHelp Dbsize Dump Echo
            EvalshaRo EvalRo Exists Expiretime FcallRo FunctionDump FunctionHelp FunctionList FunctionStats
            Geodist Geohash Geopos GeoradiusbymemberRo GeoradiusRo Geosearch Get Getbit Getrange Hexists Hexpiretime Hpexpiretime Hpttl Httl Hget
            Hgetall Hkeys Hlen Hmget Hrandfield Hscan Hstrlen Hvals Info Keys Lastsave LatencyDoctor
            LatencyGraph LatencyHelp LatencyHistogram LatencyHistory LatencyLatest Lcs Lindex Llen Lolwut Lpos
            Lrange MemoryDoctor MemoryHelp MemoryMallocStats MemoryStats MemoryUsage Mget ModuleHelp ModuleList
            ObjectEncoding ObjectFreq ObjectHelp ObjectIdletime ObjectRefcount Pexpiretime Pfcount Pfselftest
            Ping Pttl PubsubChannels PubsubHelp PubsubNumpat PubsubNumsub PubsubShardchannels PubsubShardnumsub
            Randomkey Role Scan Scard ScriptExists ScriptHelp ScriptShow Sdiff Sinter Sintercard Sismember
            SlowlogGet SlowlogHelp SlowlogLen Smembers Smismember SortRo Srandmember Sscan Strlen Substr Sunion
            Time Touch Ttl Type XgroupHelp XinfoConsumers XinfoGroups XinfoHelp XinfoStream Xlen Xpending Xrange
            Xread Xrevrange Zcard Zcount Zdiff Zinter Zintercard Zlexcount Zmscore Zrandmember Zrange
            Zrangebylex Zrangebyscore Zrank Zrevrange Zrevrangebylex Zrevrangebyscore Zrevrank Zscan Zscore
            Zunion;
        Loss::WriteIfStored => Sort;
        Loss::WriteIfAny(5, &["STORE", "STOREDIST"]) => Georadius Georadiusbymember;
        Loss::WriteIfAny(2, &["SET", "INCRBY"]) => Bitfield;
        // Without an option they change nothing; FIELDS is where HGETEX has none.
        Loss::WriteUnless(2, "") => Getex;
        Loss::WriteUnless(2, "FIELDS") => Hgetex;
        WRITE =>
            Acl AclDeluser AclLoad AclSave AclSetuser Append Asking Auth Bgrewriteaof Bgsave Bitop Blmove Blmpop
            Blpop Brpop Brpoplpush Bzmpop Bzpopmax Bzpopmin Client ClientCaching ClientCapa ClientKill
            ClientNoEvict ClientNoTouch ClientPause ClientReply ClientSetinfo ClientSetname ClientTracking
            ClientImportSource ClientUnblock ClientUnpause Cluster Commandlog CommandlogReset ClusterAddslots ClusterAddslotsrange ClusterBumpepoch
            ClusterDelslots ClusterDelslotsrange ClusterFailover ClusterFlushslots ClusterForget ClusterMeet
            ClusterReplicate ClusterReset ClusterSaveconfig ClusterSetConfigEpoch ClusterSetslot Config
            ConfigResetstat ConfigRewrite ConfigSet Copy Debug Decr Decrby Del Delifeq Discard Eval Evalsha Exec
            Expire Expireat Failover Fcall Flushall Flushdb Function FunctionDelete FunctionFlush FunctionKill
            FunctionLoad FunctionRestore Geoadd Geosearchstore Getdel Getset Hdel Hello Hexpire Hexpireat Hpersist Hpexpire Hpexpireat Hgetdel Hincrby
            Hincrbyfloat Hmset Hset Hsetex Hsetnx Incr Incrby Incrbyfloat Latency LatencyReset Linsert Lmove
            Lmpop Lpop Lpush Lpushx Lrem Lset Ltrim Memory MemoryPurge Migrate Module ModuleLoad ModuleLoadex
            ModuleUnload Monitor Move Mset Msetex Msetnx Multi Object Persist Pexpire Pexpireat Pfadd Pfdebug
            Pfmerge Psetex Psubscribe Psync Publish Pubsub Punsubscribe Quit Readonly Readwrite Rename Renamenx
            Replconf Replicaof Reset Restore RestoreAsking Rpop Rpoplpush Rpush Rpushx Sadd Save Script
            ScriptDebug ScriptFlush ScriptKill ScriptLoad Sdiffstore Select Set Setbit Setex Setnx Setrange
            Shutdown Sinterstore Slaveof Slowlog SlowlogReset Smove Spop Spublish Srem Ssubscribe Subscribe
            Sunionstore Sunsubscribe Swapdb Sync Unlink Unsubscribe Unwatch Wait Waitaof Watch Xack Xadd
            Xautoclaim Xclaim Xdel Xgroup XgroupCreate XgroupCreateconsumer XgroupDelconsumer XgroupDestroy
            XgroupSetid Xinfo Xreadgroup Xsetid Xtrim Zadd Zdiffstore Zincrby Zinterstore Zmpop Zpopmax Zpopmin
            Zrangestore Zrem Zremrangebylex Zremrangebyrank Zremrangebyscore Zunionstore;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Flags, KeySpec, lookup};
    use crate::resp::request::OwnedRequest;

    #[track_caller]
    fn check(line: &str, expected_placement: Placement, expected_in_flight: InFlight) {
        let args: Vec<&str> = line.split(' ').collect();
        let owned = OwnedRequest::new(&args);
        let request = owned.as_request();
        let spec = lookup(&request);
        assert_eq!(placement(spec, &request), expected_placement, "{line}");
        assert_eq!(in_flight(spec, &request), expected_in_flight, "{line}");
    }

    #[test]
    fn commands_go_where_they_cannot_hurt_a_neighbour() {
        use InFlight::{Read, Write};
        use Placement::{Dedicated, Lane, Script, Session};
        check("get a", Lane, Read);
        check("SET a 1", Lane, Write);
        check("PING", Lane, Read);
        check("CONFIG GET maxmemory", Lane, Read);
        check("PUBLISH a b", Lane, Write);
        check("PFCOUNT a", Lane, Read);
        check("SORT a", Lane, Read);
        check("SORT a BY STORE", Lane, Read);
        check("SORT a STORE d", Lane, Write);
        check("GETEX a", Lane, Read);
        check("GETEX a PERSIST", Lane, Write);
        check("HGETEX a FIELDS 1 f", Lane, Read);
        check("HGETEX a EX 1 FIELDS 1 f", Lane, Write);
        check("BITFIELD a GET u8 0", Lane, Read);
        check("BITFIELD a GET u8 0 incrby u8 0 1", Lane, Write);
        check("GEORADIUS a 1 1 1 km", Lane, Read);
        check("GEORADIUS a 1 1 1 km STORE d", Lane, Write);
        check("XREAD COUNT 1 STREAMS a 0", Lane, Read);
        check("XREAD BLOCK 0 STREAMS a 0", Dedicated, Read);
        check("XREADGROUP GROUP g c STREAMS block >", Lane, Write);
        check("XREADGROUP GROUP STREAMS c BLOCK 0 STREAMS s >", Dedicated, Write);
        check("XREAD WHAT STREAMS a 0", Dedicated, Read);
        check("BLPOP a 0", Dedicated, Write);
        check("LPOP a", Lane, Write);
        check("CLIENT ID", Dedicated, Read);
        check("CLIENT NONSENSE", Dedicated, Write);
        check("CLIENT SETNAME a", Session, Write);
        check("HELLO 3", Session, Write);
        check("SUBSCRIBE a", Session, Write);
        check("EVAL return 0", Script, Write);
        check("EVAL_RO return 0", Script, Read);
        check("SCRIPT KILL", Dedicated, Write);
        check("SCRIPT FLUSH", Script, Write);
        check("JSON.GET a", Dedicated, Write);
    }

    #[test]
    fn nothing_blocking_or_administrative_is_on_a_lane() {
        for spec in TABLE {
            let args: Vec<&str> = spec.name.split(' ').collect();
            let on_lane = placement(Some(spec), &OwnedRequest::new(&args).as_request()) == Placement::Lane;
            if spec.flags.contains(Flags::BLOCKING) && !matches!(spec.id, Name::Xread | Name::Xreadgroup)
                || spec.flags.contains(Flags::ADMIN) && spec.id != Name::ConfigGet
                || spec.flags.contains(Flags::NO_MULTI)
            {
                assert!(!on_lane, "{}", spec.name);
            }
        }
    }

    #[test]
    fn a_lost_read_is_never_a_write_by_the_table() {
        for spec in TABLE {
            if let Loss::Is(InFlight::Read) = loss(spec.id) {
                assert!(!spec.flags.contains(Flags::WRITE), "{}", spec.name);
            } else {
                assert!(!spec.flags.contains(Flags::READONLY), "{}", spec.name);
            }
        }
    }

    #[test]
    fn only_sort_has_keys_that_no_rule_finds() {
        for spec in TABLE {
            let unknown = spec.keys.contains(&KeySpec::Unknown);
            assert_eq!(unknown, matches!(spec.id, Name::Sort | Name::SortRo), "{}", spec.name);
        }
    }
}
