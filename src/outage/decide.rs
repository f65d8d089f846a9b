//! The kind of answer by a command's name. Exhaustive: a new row of the table does not compile until it stands here.

use super::Answer;
use super::hold;
use super::neutral::{Call, Fault, bits, geo, keyspace, lists, server, sets, streams, strings, zsets};
use crate::command::Name;

pub(super) type Neutral = fn(&Call<'_>, &mut Vec<u8>) -> Result<(), Fault>;
pub(super) type Hold = fn(&Call<'_>, &mut Vec<u8>) -> Result<Answer, Fault>;

/// The kind of answer a command gets.
#[derive(Clone, Copy)]
pub(super) enum Decision {
    Session,
    /// The session answers the name alone; with anything behind it, that is an unknown subcommand.
    SessionIfBare,
    UnknownSubcommand,
    Write,
    NotApplied,
    NotExecuted,
    Neutral(Neutral),
    Hold(Hold),
}

macro_rules! decisions {
    ($($decision:expr => $($name:ident)*;)*) => {
        /// What becomes of a command, by name alone.
        pub(super) fn decision(name: Name) -> Decision {
            match name { $($(Name::$name)|* => $decision,)* }
        }
    };
}

use Decision::{Hold as H, Neutral as N};
use Decision::{NotApplied, NotExecuted, Session, SessionIfBare, UnknownSubcommand, Write};

/// Whether a command is answered without a word of the upstream's, and without a rule's.
pub(super) fn has_neutral_reply(name: Name) -> bool {
    match decision(name) {
        Session | SessionIfBare | N(_) | H(_) => true,
        UnknownSubcommand | Write | NotApplied | NotExecuted => false,
    }
}

decisions! {
    Session =>
        Hello Auth Select Quit Reset Multi Exec Discard Unwatch Ping Echo Time Info Role Readonly Readwrite Asking
        Subscribe Psubscribe Ssubscribe Unsubscribe Punsubscribe Sunsubscribe
        ClientCaching ClientCapa ClientGetname ClientGetredir ClientHelp ClientId ClientInfo ClientList ClientNoEvict
        ClientNoTouch ClientReply ClientSetinfo ClientSetname ClientTracking ClientTrackinginfo
        CommandCount CommandDocs CommandGetkeys CommandGetkeysandflags CommandHelp CommandInfo CommandList
        ConfigGet AclWhoami ClusterInfo ClusterKeyslot ClusterMyid ClusterMyshardid ClusterNodes ClusterShards ClusterSlots;
    SessionIfBare => Command;
    UnknownSubcommand =>
        Acl Client Cluster Commandlog Config Function Latency Memory Module Object Pubsub Script Slowlog Xgroup Xinfo;

    Write =>
        Set Setex Psetex Mset Msetex Del Unlink Delifeq Restore
        Expire Pexpire Expireat Pexpireat Persist Hexpire Hset Hmset Hsetex Hdel Sadd Srem
        Zadd Zrem Zremrangebylex Zremrangebyrank Zremrangebyscore Geoadd Lpush Rpush Ltrim Pfadd Pfmerge
        Xadd Xack Xdel Xtrim XgroupCreate XgroupCreateconsumer;
    // Their reply decides something, they derive from what is stored, or they are relative: only a rule lets them be journaled.
    NotApplied =>
        Setnx Msetnx Hsetnx Getset Getdel Hgetdel Append Setrange Setbit
        Hexpireat Hpexpire Hpexpireat Hpersist
        Incr Decr Incrby Decrby Incrbyfloat Hincrby Hincrbyfloat Zincrby Bitop
        Smove Sunionstore Sinterstore Sdiffstore Zunionstore Zinterstore Zdiffstore Zrangestore Geosearchstore
        Lpushx Rpushx Linsert Lset Lrem Copy Move Rename Renamenx
        Xsetid XgroupSetid XgroupDestroy XgroupDelconsumer Flushall Flushdb Swapdb Migrate RestoreAsking Pfdebug;

    // Scripts have replies of any type; the rest would act on, or tell of, a server that is not there.
    NotExecuted =>
        Eval EvalRo Evalsha EvalshaRo Fcall FcallRo
        FunctionDelete FunctionDump FunctionFlush FunctionHelp FunctionKill FunctionList FunctionLoad FunctionRestore FunctionStats
        ScriptDebug ScriptFlush ScriptHelp ScriptKill ScriptLoad ScriptShow
        Watch XinfoStream XinfoHelp XgroupHelp Lolwut Lastsave
        AclCat AclDeluser AclDryrun AclGenpass AclGetuser AclHelp AclList AclLoad AclLog AclSave AclSetuser AclUsers
        ClientImportSource ClientKill ClientPause ClientUnblock ClientUnpause ConfigHelp ConfigResetstat ConfigRewrite ConfigSet
        ClusterAddslots ClusterAddslotsrange ClusterBumpepoch ClusterCountFailureReports ClusterCountkeysinslot
        ClusterDelslots ClusterDelslotsrange ClusterFailover ClusterFlushslots ClusterForget ClusterGetkeysinslot
        ClusterHelp ClusterLinks ClusterMeet ClusterReplicas ClusterReplicate ClusterReset ClusterSaveconfig
        ClusterSetConfigEpoch ClusterSetslot ClusterSlaves ClusterSlotStats
        LatencyDoctor LatencyGraph LatencyHelp LatencyHistogram LatencyReset
        MemoryDoctor MemoryHelp MemoryMallocStats MemoryPurge MemoryStats
        ModuleHelp ModuleLoad ModuleLoadex ModuleUnload ObjectHelp PubsubHelp SlowlogHelp SlowlogReset CommandlogHelp CommandlogReset
        Monitor Debug Save Bgsave Bgrewriteaof Shutdown Replicaof Slaveof Failover Sync Psync Replconf Pfselftest;

    // PFCOUNT, HLEN and their like: nothing there.
    N(strings::zero) =>
        Strlen Exists Touch Dbsize Hlen Hexists Hstrlen Llen Scard Sismember Zcard Xlen Pfcount Bitcount
        Publish Spublish PubsubNumpat SlowlogLen;
    N(strings::null) =>
        Get Hget Lindex Dump Randomkey ObjectEncoding ObjectFreq ObjectIdletime ObjectRefcount Zscore Rpoplpush;
    N(strings::empty_array) => Keys Hkeys Hvals LatencyLatest LatencyHistory ModuleList XinfoGroups XinfoConsumers;
    N(strings::empty_map) => Hgetall;
    N(strings::empty_set) => Smembers Sinter Sunion Sdiff;
    N(strings::get_range) => Getrange Substr;
    N(strings::type_of) => Type;
    N(strings::no_such_key) => Ttl Pttl Expiretime Pexpiretime;
    N(strings::null_each_from_1) => Mget;
    N(strings::null_each_from_2) => Hmget Zmscore Geohash;
    N(strings::null_array_each_from_2) => Geopos;
    N(strings::zero_each_from_2) => Smismember ScriptExists;
    N(strings::lcs) => Lcs;
    N(strings::getex) => Getex;
    N(strings::hgetex) => Hgetex;
    N(strings::no_such_fields) => Httl Hpttl Hexpiretime Hpexpiretime;
    N(bits::getbit) => Getbit;
    N(bits::bitpos) => Bitpos;
    N(bits::bitfield) => Bitfield;
    N(bits::bitfield_ro) => BitfieldRo;
    N(keyspace::scan) => Scan;
    N(keyspace::scan_key) => Hscan Sscan Zscan;
    N(keyspace::sort) => Sort;
    N(keyspace::sort_ro) => SortRo;
    N(server::memory_usage) => MemoryUsage;
    N(server::channels) => PubsubChannels PubsubShardchannels;
    N(server::channel_counts) => PubsubNumsub PubsubShardnumsub;
    N(server::slowlog_get) => SlowlogGet;
    N(server::commandlog_get) => CommandlogGet;
    N(server::commandlog_len) => CommandlogLen;
    N(lists::lrange) => Lrange;
    N(lists::lpos) => Lpos;
    N(lists::pop) => Lpop Rpop;
    N(lists::mpop) => Lmpop;
    N(lists::lmove) => Lmove;
    N(sets::random_member) => Srandmember;
    N(sets::random_field) => Hrandfield;
    N(sets::random_with_scores) => Zrandmember;
    N(sets::spop) => Spop;
    N(sets::sintercard) => Sintercard;
    N(zsets::zcount) => Zcount;
    N(zsets::zlexcount) => Zlexcount;
    N(zsets::zrange) => Zrange;
    N(zsets::by_rank) => Zrevrange;
    N(zsets::by_score) => Zrangebyscore Zrevrangebyscore;
    N(zsets::by_lex) => Zrangebylex Zrevrangebylex;
    N(zsets::rank) => Zrank Zrevrank;
    N(zsets::combine) => Zunion Zinter;
    N(zsets::zdiff) => Zdiff;
    N(zsets::zintercard) => Zintercard;
    N(zsets::pop) => Zpopmin Zpopmax;
    N(zsets::mpop) => Zmpop;
    N(geo::distance) => Geodist;
    N(geo::search) => Geosearch;
    N(geo::radius) => Georadius GeoradiusRo;
    N(geo::radius_by_member) => Georadiusbymember GeoradiusbymemberRo;
    N(streams::range) => Xrange Xrevrange;
    N(streams::pending) => Xpending;
    N(streams::claim) => Xclaim;
    N(streams::autoclaim) => Xautoclaim;

    H(hold::pop) => Blpop Brpop Bzpopmin Bzpopmax;
    H(hold::brpoplpush) => Brpoplpush;
    H(hold::blmove) => Blmove;
    H(hold::blmpop) => Blmpop;
    H(hold::bzmpop) => Bzmpop;
    H(hold::wait) => Wait;
    H(hold::waitaof) => Waitaof;
    H(streams::read) => Xread Xreadgroup;
}
