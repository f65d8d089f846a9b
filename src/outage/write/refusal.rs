//! What Redis refuses for its arguments alone, in Redis's own words (seen on 7.0.15).

use crate::command::{self, Spec};
use crate::resp::write;

/// An error that needs no keyspace to be known.
#[derive(Debug)]
pub(super) enum ArgumentError<'a> {
    Arity,
    Syntax,
    NotInteger,
    NotFloat,
    ExpireTime,
    StreamId,
    /// EXPIRE's family names the option.
    UnsupportedOption(&'a [u8]),
    /// Longitude and latitude out of the projection's bounds.
    Position(f64, f64),
    /// A container names the subcommand as it was sent.
    Subcommand(&'a [u8]),
    Text(&'static str),
}

impl ArgumentError<'_> {
    pub(super) fn reply(&self, spec: &Spec, out: &mut Vec<u8>) {
        match self {
            Self::Arity => arity(spec, out),
            Self::Syntax => write::error(out, "ERR syntax error"),
            Self::NotInteger => write::error(out, "ERR value is not an integer or out of range"),
            Self::NotFloat => write::error(out, "ERR value is not a valid float"),
            Self::ExpireTime => write::error(
                out,
                &format!(
                    "ERR invalid expire time in '{}' command",
                    command::name_in_errors(spec.name)
                ),
            ),
            Self::StreamId => write::error(out, "ERR Invalid stream ID specified as stream command argument"),
            Self::UnsupportedOption(option) => {
                line(out, b"ERR Unsupported option ", option, b"");
            }
            Self::Position(longitude, latitude) => write::error(
                out,
                &format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}"),
            ),
            Self::Subcommand(subcommand) => {
                let container = spec.name.split(' ').next().unwrap_or_default();
                let tail = format!("'. Try {container} HELP.");
                let shown = subcommand.get(..128).unwrap_or(subcommand);
                line(
                    out,
                    b"ERR unknown subcommand or wrong number of arguments for '",
                    shown,
                    tail.as_bytes(),
                );
            }
            Self::Text(text) => write::error(out, text),
        }
    }
}

/// `-ERR wrong number of arguments for 'xgroup|create' command`
fn arity(spec: &Spec, out: &mut Vec<u8>) {
    write::error(out, &command::wrong_arity("ERR", spec.name));
}

/// An error that quotes the client: up to a NUL (Redis prints a C string), line breaks as blanks.
fn line(out: &mut Vec<u8>, head: &[u8], quoted: &[u8], tail: &[u8]) {
    out.push(b'-');
    out.extend_from_slice(head);
    let start = out.len();
    out.extend(
        quoted
            .iter()
            .take_while(|byte| **byte != 0)
            .map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }),
    );
    if tail.is_empty() {
        // Redis trims line breaks at the end before it replaces the others.
        let breaks = quoted
            .iter()
            .take(out.len() - start)
            .rev()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        out.truncate(out.len() - breaks);
    }
    out.extend_from_slice(tail);
    out.extend_from_slice(b"\r\n");
}

/// `-UNAVAILABLE INCR was not applied: upstream "main" is down`
pub(super) fn unavailable(spec: &Spec, upstream_name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"-UNAVAILABLE ");
    out.extend_from_slice(spec.name.as_bytes());
    out.extend_from_slice(b" was not applied: upstream \"");
    out.extend_from_slice(upstream_name.as_bytes());
    out.extend_from_slice(b"\" is down\r\n");
}
