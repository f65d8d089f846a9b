//! How two replies are compared: byte for byte, but for the commands whose answer two servers cannot share.

use std::collections::BTreeSet;

use tideover::command::{Name, Spec};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    Bytes,
    /// The same parts in any order.
    Parts,
    /// The same types, and of texts the names of their fields.
    Shape,
}

/// All the commands that are not compared byte for byte. Errors always are.
const EXCEPTIONS: &[(Compared, &str, &[Name])] = &[
    (
        Compared::Parts,
        "each server draws its own seed for the order of its hash tables",
        &[
            Name::AclCat,
            Name::Command,
            Name::CommandDocs,
            Name::CommandInfo,
            Name::CommandList,
            Name::ConfigGet,
            Name::FunctionList,
            Name::Hgetall,
            Name::Hkeys,
            Name::Hscan,
            Name::Hvals,
            Name::Keys,
            Name::PubsubChannels,
            Name::PubsubShardchannels,
            Name::Scan,
            Name::Sdiff,
            Name::Sinter,
            Name::Smembers,
            Name::Sort,
            Name::SortRo,
            Name::Sscan,
            Name::Sunion,
        ],
    ),
    (
        Compared::Shape,
        "chance",
        &[
            Name::AclGenpass,
            Name::Hrandfield,
            Name::Lolwut,
            Name::Randomkey,
            Name::Spop,
            Name::Srandmember,
            Name::Zrandmember,
        ],
    ),
    (
        Compared::Shape,
        "time",
        &[
            Name::AclLog,
            Name::Expiretime,
            Name::Lastsave,
            Name::LatencyHistogram,
            Name::LatencyHistory,
            Name::LatencyLatest,
            Name::ObjectIdletime,
            Name::Pexpiretime,
            Name::Pttl,
            Name::SlowlogGet,
            Name::Time,
            Name::Ttl,
            Name::Xadd,
            Name::XinfoConsumers,
            Name::XinfoStream,
            Name::Xpending,
        ],
    ),
    (
        Compared::Shape,
        "a connection's or a server's own ids, addresses and sizes",
        &[
            Name::ClientId,
            Name::ClientInfo,
            Name::ClientList,
            Name::Debug,
            Name::Hello,
            Name::Info,
            Name::MemoryDoctor,
            Name::MemoryMallocStats,
            Name::MemoryStats,
        ],
    ),
];

pub(crate) fn compared(spec: Option<&Spec>) -> Compared {
    EXCEPTIONS
        .iter()
        .find(|(_, _, names)| spec.is_some_and(|spec| names.contains(&spec.id)))
        .map_or(Compared::Bytes, |(compared, ..)| *compared)
}

impl Compared {
    pub(crate) fn is_same(self, expected: &[u8], got: &[u8]) -> bool {
        if expected == got {
            return true;
        }
        match self {
            Self::Bytes => false,
            Self::Parts => {
                let (mut expected, mut got) = (parts(expected), parts(got));
                expected.sort_unstable();
                got.sort_unstable();
                expected == got
            }
            Self::Shape => shape(expected) == shape(got),
        }
    }
}

/// The lines of the types, and the payloads.
fn parts(reply: &[u8]) -> Vec<&[u8]> {
    let mut rest = reply;
    let mut parts = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let (line, behind) = (&rest[..end], &rest[end + 2..]);
        parts.push(line);
        rest = behind;
        if matches!(line.first(), Some(b'$' | b'=' | b'!'))
            && let Ok(len) = String::from_utf8_lossy(&line[1..]).parse::<usize>()
        {
            parts.push(&rest[..len]);
            rest = &rest[len + 2..];
        }
    }
    parts
}

/// Of numbers, only -1 and -2 are answers (no expiry, no key). Sizes fall below zero too: `rss-overhead.bytes` does when the allocator counts pages
/// that the system has taken.
fn shape(reply: &[u8]) -> Vec<String> {
    let mut is_payload = false;
    let parts = parts(reply).into_iter();
    parts
        .map(|part| {
            let text = String::from_utf8_lossy(part);
            let is_text = std::mem::replace(&mut is_payload, false);
            match part.first() {
                _ if is_text => field_names(&text),
                Some(b'$' | b'=') if text != "$-1" => {
                    is_payload = true;
                    text[..1].to_owned()
                }
                Some(b':' | b',') if !["-1", "-2"].contains(&&text[1..]) => text[..1].to_owned(),
                _ => text.into_owned(),
            }
        })
        .collect()
}

/// `id=3 addr=…` and `redis_version:7.0.15`: what stands before the value. Each once, since a lane is a line of CLIENT LIST; without the statistics
/// of commands, since the servers have not had the same ones.
fn field_names(text: &str) -> String {
    // In RESP3 the format of a text stands before it.
    let words = text.trim_start_matches("txt:").split_ascii_whitespace();
    let names = words.filter_map(|word| word.split_once(['=', ':']).map(|(name, _)| name));
    let names = names.filter(|name| {
        !["cmdstat_", "errorstat_", "latency_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    });
    names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
}
