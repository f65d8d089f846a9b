//! What the upstream said of itself, kept beyond this process: client libraries ask for it when they connect, also during an outage, and some
//! refuse a server that is older than theirs is.
//!
//! The file: HELLO's reply in RESP2, a bulk string with lines of INFO, and the number of databases.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redis_protocol::resp3::types::OwnedFrame;

use super::dial::{Facts, field_text, value};
use super::said::{Versions, hello_facts};
use super::small_file;
use crate::resp::reply::{Found, Scanner};
use crate::resp::{Protocol, write};

/// Modules take some hundred bytes each.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub struct LastSaid {
    path: PathBuf,
    kept: Mutex<Vec<u8>>,
}

impl LastSaid {
    /// Opens the file, which need not be there; one that cannot be read is as none. Returns also what it holds.
    #[must_use]
    pub fn open(path: &Path) -> (Self, Facts) {
        let read = read(path).and_then(|bytes| {
            let facts = decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
            Ok((bytes, facts))
        });
        let (bytes, facts) = read.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "what the upstream last said of itself cannot be read");
            }
            (Vec::new(), Facts::default())
        });
        let this = Self {
            path: path.to_owned(),
            kept: Mutex::new(bytes),
        };
        (this, facts)
    }

    /// Writes what is new in this; nothing where it says nothing.
    pub(super) fn keep(&self, facts: &Facts) {
        let Some(bytes) = encode(facts) else { return };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if *kept == bytes {
            return;
        }
        match small_file::replace(&self.path, &bytes) {
            Ok(()) => *kept = bytes,
            Err(error) => {
                tracing::warn!(%error, "what the upstream says of itself could not be remembered for the next start");
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn encode(facts: &Facts) -> Option<Vec<u8>> {
    let mut bytes = facts.hello.reply(Protocol::Resp2, 0)?;
    write::bulk(&mut bytes, facts.versions.lines().as_bytes());
    write::integer(&mut bytes, i64::from(facts.databases));
    Some(bytes).filter(|bytes| bytes.len() as u64 <= FILE_BYTES_MAX)
}

fn decode(bytes: &[u8]) -> Option<Facts> {
    let (hello, rest) = frame(bytes)?;
    let (versions, rest) = frame(rest)?;
    let (databases, rest) = frame(rest)?;
    let facts = hello_facts(hello);
    let OwnedFrame::Number { data: databases, .. } = value(databases)? else {
        return None;
    };
    if !rest.is_empty() || facts.version.is_empty() || facts.hello.reply(Protocol::Resp2, 0).is_none() {
        return None;
    }
    Some(Facts {
        versions: Versions::of(&field_text(versions)?),
        databases: u32::try_from(databases).ok().filter(|databases| *databases > 0)?,
        ..facts
    })
}

/// The first reply, and what is behind it.
fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match Scanner::default().scan(bytes) {
        Ok(Found::End { bytes: end, .. }) => bytes.split_at_checked(end),
        Ok(Found::Part { .. }) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    const HELLO: &[u8] = b"*8\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$7\r\nversion\r\n$5\r\n8.1.0\r\n$2\r\nid\r\n:0\r\n\
        $7\r\nmodules\r\n*1\r\n*4\r\n$4\r\nname\r\n$2\r\nbf\r\n$3\r\nver\r\n:20\r\n";

    fn facts() -> Facts {
        Facts {
            versions: Versions::of("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\n"),
            databases: 32,
            ..hello_facts(HELLO)
        }
    }

    #[test]
    fn what_was_said_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last-said");
        let (said, none) = LastSaid::open(&path);
        assert_eq!(none, Facts::default());
        said.keep(&Facts::default());
        assert!(!path.exists(), "nothing was said");
        said.keep(&facts());
        let (said, known) = LastSaid::open(&path);
        assert_eq!(known, facts());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        said.keep(&facts());
        assert!(!path.exists(), "written when it changes");
        fs::write(&path, b"*1\r\n").unwrap();
        assert_eq!(LastSaid::open(&path).1, Facts::default());
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_no_panic(at: prop::sample::Index, byte: u8, end: prop::sample::Index) {
            let mut bytes = encode(&facts()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode(&bytes);
            bytes.truncate(end.index(bytes.len()));
            prop_assert_eq!(decode(&bytes), None);
        }
    }
}
