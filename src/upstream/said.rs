//! What the upstream's replies to a handshake say.

use redis_protocol::resp3::decode::complete::decode as decode_resp3;
use redis_protocol::resp3::types::{OwnedFrame, Resp3Frame};

use super::dial::{Facts, Role};
use super::hello::Hello;
use crate::resp::reply::is_shallow;

/// COMMAND's is the deepest reply that is decoded, where subcommands have key specifications.
const REPLY_DEPTH_MAX: usize = 16;
const VERSION_LINE_BYTES_MAX: usize = 128;

/// The text of an error reply without its `-` and line end.
#[must_use]
pub fn error_text(reply: &[u8]) -> Option<String> {
    let text = reply.strip_prefix(b"-")?;
    Some(String::from_utf8_lossy(text.strip_suffix(b"\r\n").unwrap_or(text)).into_owned())
}

/// A whole reply as a value; nothing where it is nested deeper than any that is asked for.
#[must_use]
pub fn value(reply: &[u8]) -> Option<OwnedFrame> {
    // The decoder recurses on nesting.
    if !is_shallow(reply, REPLY_DEPTH_MAX) {
        return None;
    }
    decode_resp3(reply).ok().flatten().map(|(frame, _)| frame)
}

/// The text of a string reply of any kind.
#[must_use]
pub fn field_text(reply: &[u8]) -> Option<String> {
    match value(reply)? {
        OwnedFrame::BlobString { data, .. } => Some(String::from_utf8_lossy(&data).into_owned()),
        OwnedFrame::SimpleString { data, .. } => Some(String::from_utf8_lossy(&data).into_owned()),
        OwnedFrame::VerbatimString { data, .. } => Some(String::from_utf8_lossy(&data).into_owned()),
        _ => None,
    }
}

/// The value behind `key` up to `end` in a text such as CLIENT INFO's or INFO's.
#[must_use]
pub fn value_of(text: &str, key: &str, end: char) -> Option<String> {
    let (_, rest) = text.split_once(key)?;
    let value = rest.split(end).next()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// What INFO says of a server's kind and versions, in its order: a server that is not Redis says which Redis it is like, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions(String);

impl Versions {
    pub(super) fn of(info: &str) -> Self {
        const FIELDS: [&str; 5] = [
            "redis_version",
            "server_name",
            "valkey_version",
            "valkey_release_stage",
            "dragonfly_version",
        ];
        let lines = info.lines().filter(|line| {
            let field = line.split_once(':').map(|(field, _)| field);
            field.is_some_and(|field| FIELDS.contains(&field)) && line.len() <= VERSION_LINE_BYTES_MAX
        });
        Self(lines.take(FIELDS.len()).map(|line| format!("{line}\r\n")).collect())
    }

    /// Lines of INFO; empty where they are not known.
    #[must_use]
    pub fn lines(&self) -> &str {
        &self.0
    }
}

pub(super) fn hello_facts(reply: &[u8]) -> Facts {
    let Some(reply) = value(reply) else {
        return Facts::default();
    };
    let mut facts = Facts {
        hello: Hello::of(&reply),
        ..Facts::default()
    };
    let pairs: Vec<(OwnedFrame, OwnedFrame)> = match reply {
        OwnedFrame::Map { data, .. } => data.into_iter().collect(),
        OwnedFrame::Array { data, .. } => data
            .chunks_exact(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect(),
        _ => Vec::new(),
    };
    for (key, value) in pairs {
        let (Some(key), Some(value)) = (key.as_str().map(str::to_owned), value.as_str().map(str::to_owned)) else {
            continue;
        };
        match key.as_str() {
            "version" => facts.version = value,
            "mode" => facts.mode = value,
            "role" if value == "master" => facts.role = Role::Master,
            "role" => facts.role = Role::Replica,
            _ => {}
        }
    }
    facts
}

pub(super) fn time_ms(reply: &[u8]) -> Option<i64> {
    let Some(OwnedFrame::Array { data, .. }) = value(reply) else {
        return None;
    };
    let [seconds, microseconds] = data.as_slice() else {
        return None;
    };
    let seconds: i64 = seconds.as_str()?.parse().ok()?;
    let microseconds: i64 = microseconds.as_str()?.parse().ok()?;
    Some(seconds * 1000 + microseconds / 1000)
}
