//! Scripts that clients have given to the upstream. One that restarted has forgotten them, and clients that were kept connected do not know.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::resp::write;

/// At most so many are kept: an application has few, and one that makes them up is not to fill memory.
const SCRIPTS_MAX: usize = 512;
const BYTES_MAX: usize = 4 << 20;

/// See the module.
#[derive(Debug, Default)]
pub struct Scripts {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bodies: HashSet<Vec<u8>>,
    bytes: usize,
}

impl Scripts {
    /// Keeps a script's text while there is room.
    pub fn keep(&self, body: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bodies.len() < SCRIPTS_MAX && kept.bytes + body.len() <= BYTES_MAX && !kept.bodies.contains(body) {
            kept.bytes += body.len();
            kept.bodies.insert(body.to_vec());
        }
    }

    /// After SCRIPT FLUSH.
    pub fn forget(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Kept::default();
    }

    /// The SCRIPT LOADs that give all of them to an upstream, and their number.
    #[must_use]
    pub fn loads(&self) -> (Vec<u8>, usize) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = Vec::new();
        for body in &kept.bodies {
            write::array(&mut out, 3);
            for word in [b"SCRIPT", b"LOAD".as_slice(), body] {
                write::bulk(&mut out, word);
            }
        }
        (out, kept.bodies.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_kept_once_and_within_bounds() {
        let scripts = Scripts::default();
        scripts.keep(b"return 1");
        scripts.keep(b"return 1");
        let load = b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$8\r\nreturn 1\r\n";
        assert_eq!(scripts.loads(), (load.to_vec(), 1));
        scripts.keep(&vec![b' '; BYTES_MAX]);
        assert_eq!(scripts.loads().1, 1);
        for number in 0..SCRIPTS_MAX * 2 {
            scripts.keep(format!("return {number}").as_bytes());
        }
        assert_eq!(scripts.loads().1, SCRIPTS_MAX);
        scripts.forget();
        assert_eq!(scripts.loads(), (Vec::new(), 0));
    }
}
