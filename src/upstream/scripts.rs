//! Scripts that clients have given to the upstream. One that restarted has forgotten them, and clients that were kept connected do not know;
//! nor does who was started again in the same outage.
//!
//! The file is what gives them back: one SCRIPT LOAD behind the other. It may lack the newest after a power cut.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::dial::command;
use super::small_file;
use crate::resp::Request;
use crate::resp::scan::{Limits, Scan, Scanner};

/// At most so many are kept: an application has few, and one that makes them up is not to fill memory.
const SCRIPTS_MAX: usize = 512;
const BYTES_MAX: usize = 4 << 20;
/// What stands around a script's text.
const LOAD_BYTES_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Scripts {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bodies: HashSet<Vec<u8>>,
    bytes: usize,
    /// For as long as it can be written to.
    file: Option<File>,
}

impl Scripts {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what an earlier process kept, and keeps on there. A file that cannot be used is as none.
    pub fn recall(&self, path: &Path) {
        let mut kept = self.lock();
        match recall(path, &mut kept) {
            Ok(file) => kept.file = Some(file),
            Err(error) => tracing::warn!(path = %path.display(), %error, "scripts cannot be kept for the next start"),
        }
    }

    /// Keeps a script's text while there is room.
    pub fn keep(&self, body: &[u8]) {
        let mut kept = self.lock();
        if !kept.take(body) {
            return;
        }
        if let Some(file) = &mut kept.file
            && let Err(error) = file.write_all(&load(body))
        {
            tracing::warn!(%error, "scripts are no longer kept for the next start");
            kept.file = None;
        }
    }

    /// After SCRIPT FLUSH.
    pub fn forget(&self) {
        let mut kept = self.lock();
        let file = kept.file.take();
        *kept = Kept {
            file: file.filter(|file| file.set_len(0).is_ok()),
            ..Kept::default()
        };
    }

    /// The SCRIPT LOADs that give all of them to an upstream, and their number.
    #[must_use]
    pub fn loads(&self) -> (Vec<u8>, usize) {
        let kept = self.lock();
        (
            kept.bodies.iter().flat_map(|body| load(body)).collect(),
            kept.bodies.len(),
        )
    }
}

impl Kept {
    /// Whether it is kept now and was not before.
    fn take(&mut self, body: &[u8]) -> bool {
        let is_new =
            self.bodies.len() < SCRIPTS_MAX && self.bytes + body.len() <= BYTES_MAX && !self.bodies.contains(body);
        if is_new {
            self.bytes += body.len();
            self.bodies.insert(body.to_vec());
        }
        is_new
    }

    /// An application that makes scripts up fills it: the next ones are as good.
    fn is_full(&self) -> bool {
        self.bodies.len() >= SCRIPTS_MAX || self.bytes > BYTES_MAX / 2
    }
}

fn load(body: &[u8]) -> Vec<u8> {
    command(&[b"SCRIPT", b"LOAD".as_slice(), body])
}

fn recall(path: &Path, kept: &mut Kept) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    let mut bytes = Vec::new();
    let file_bytes_max = BYTES_MAX + SCRIPTS_MAX * LOAD_BYTES_MAX;
    options
        .open(path)?
        .take(file_bytes_max as u64)
        .read_to_end(&mut bytes)?;
    let (mut at, mut scanner) = (0, Scanner::default());
    while let Ok(Scan::Request { len }) = scanner.scan(&bytes[at..], &Limits::default()) {
        let request = Request::new(&bytes[at..], scanner.spans());
        kept.take(request.arg(2));
        at += len;
        scanner = Scanner::default();
    }
    if kept.is_full() {
        *kept = Kept::default();
        at = 0;
    }
    if at < bytes.len() {
        small_file::replace(path, &bytes[..at])?;
    }
    options.open(path)
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

    fn recalled(path: &Path) -> Scripts {
        let scripts = Scripts::default();
        scripts.recall(path);
        scripts
    }

    #[test]
    fn scripts_are_known_after_a_restart_until_they_are_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scripts");
        recalled(&path).keep(b"return 1");
        let scripts = recalled(&path);
        scripts.keep(b"return 1");
        scripts.keep(b"return '\r\n'");
        assert_eq!(
            std::fs::read(&path).unwrap().len(),
            load(b"return 1").len() + load(b"return '\r\n'").len()
        );
        let scripts = recalled(&path);
        assert_eq!(scripts.loads().1, 2);
        scripts.forget();
        scripts.keep(b"return 3");
        assert_eq!(recalled(&path).loads(), (load(b"return 3"), 1));
    }

    #[test]
    fn a_torn_file_gives_what_is_whole_and_is_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scripts");
        let scripts = recalled(&path);
        scripts.keep(b"return 1");
        scripts.keep(b"return 2");
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let scripts = recalled(&path);
            assert_eq!(scripts.loads().1, usize::from(len >= whole.len() / 2), "{len}");
            scripts.keep(b"return 2");
            assert!(recalled(&path).loads().0.ends_with(b"return 2\r\n") || recalled(&path).loads().1 == 2);
        }
        std::fs::write(&path, b"\xff\0 no RESP").unwrap();
        assert_eq!(recalled(&path).loads().1, 0);
    }

    #[test]
    fn a_full_file_is_begun_afresh() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scripts");
        let scripts = recalled(&path);
        for number in 0..SCRIPTS_MAX {
            scripts.keep(format!("return {number}").as_bytes());
        }
        recalled(&path).keep(b"return 'new'");
        assert_eq!(recalled(&path).loads(), (load(b"return 'new'"), 1));
    }
}
