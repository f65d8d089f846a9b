//! Scripts that the upstream has taken from clients. One that restarted has forgotten them, and clients that were kept connected do not know;
//! nor does who was started again in the same outage.
//!
//! The file is what gives them back: one SCRIPT LOAD behind the other. It may lack the newest after a power cut.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::dial::command;
use super::small_file;
use crate::resp::Request;
use crate::resp::scan::{Limits, Scan, Scanner};

/// At most so many are kept: an application has few, and one that makes them up is not to fill memory.
const SCRIPTS_MAX: usize = 512;
const BYTES_MAX: usize = 4 << 20;
/// By then SCRIPT FLUSH is answered or lost.
const FLUSH_MAX: Duration = Duration::from_secs(60);
/// What stands around a script's text.
const LOAD_BYTES_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Scripts {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    texts: HashMap<Vec<u8>, Given>,
    bytes: usize,
    flushed_until: Option<Instant>,
    log: Option<Log>,
}

/// When a script was given last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// To an earlier process: it makes room for new ones where there is none, for an application may make them up.
    Before,
    Now,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    /// Behind the last whole entry.
    end: u64,
}

impl Scripts {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what an earlier process kept, and keeps on there. A file that cannot be used is as none.
    pub fn recall(&self, path: &Path) {
        let mut kept = self.lock();
        match Log::open(path, &mut kept) {
            Ok(log) => kept.log = Some(log),
            Err(error) => tracing::warn!(path = %path.display(), %error, "scripts cannot be kept for the next start"),
        }
    }

    /// SCRIPT FLUSH is on its way: what is given behind it is not known any more, though it is kept.
    pub fn flush_sent(&self, now: Instant) {
        self.lock().flushed_until = Some(now + FLUSH_MAX);
    }

    /// Whether this one need not be kept any more: it is, or it is too large.
    #[must_use]
    pub fn has(&self, text: &[u8], now: Instant) -> bool {
        let mut kept = self.lock();
        if text.len() > BYTES_MAX {
            return true;
        }
        if kept.flushed_until.is_some_and(|until| now < until) {
            return false;
        }
        let given = kept.texts.get_mut(text);
        given.map(|given| *given = Given::Now).is_some()
    }

    /// Keeps the text of a script that the upstream has taken, while there is room.
    pub fn keep(&self, text: &[u8]) {
        let mut kept = self.lock();
        if text.len() > BYTES_MAX {
            return;
        }
        if let Some(given) = kept.texts.get_mut(text) {
            *given = Given::Now;
            return;
        }
        if kept.has_room_for(text) {
            kept.take(text, Given::Now);
            kept.write(|log| log.append(&load(text)));
        } else if kept.make_room() {
            if kept.has_room_for(text) {
                kept.take(text, Given::Now);
            }
            let loads = kept.loads();
            kept.write(|log| log.replace(&loads));
        }
    }

    /// After SCRIPT FLUSH.
    pub fn forget(&self) {
        let mut kept = self.lock();
        kept.texts.clear();
        kept.bytes = 0;
        kept.write(|log| log.replace(&[]));
    }

    /// The SCRIPT LOADs that give all of them to an upstream, and their number.
    #[must_use]
    pub fn loads(&self) -> (Vec<u8>, usize) {
        let kept = self.lock();
        (kept.loads(), kept.texts.len())
    }
}

impl Kept {
    fn has_room_for(&self, text: &[u8]) -> bool {
        self.texts.len() < SCRIPTS_MAX && self.bytes + text.len() <= BYTES_MAX
    }

    fn take(&mut self, text: &[u8], given: Given) {
        self.bytes += text.len();
        self.texts.insert(text.to_vec(), given);
    }

    /// Whether there was something of before that nobody has given again.
    fn make_room(&mut self) -> bool {
        let before = self.texts.len();
        self.texts.retain(|_, given| *given == Given::Now);
        self.bytes = self.texts.keys().map(Vec::len).sum();
        self.texts.len() < before
    }

    fn loads(&self) -> Vec<u8> {
        self.texts.keys().flat_map(|text| load(text)).collect()
    }

    fn write(&mut self, write: impl FnOnce(&mut Log) -> io::Result<()>) {
        if let Some(log) = &mut self.log
            && let Err(error) = write(log)
        {
            tracing::warn!(path = %log.path.display(), %error, "a change to the scripts is not kept for the next start");
        }
    }
}

impl Log {
    fn open(path: &Path, kept: &mut Kept) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let bytes_max = BYTES_MAX + SCRIPTS_MAX * LOAD_BYTES_MAX;
        open(path)?.take(bytes_max as u64).read_to_end(&mut bytes)?;
        let mut end = 0;
        while let Some((text, len)) = bytes.get(end..).and_then(first_load) {
            if !kept.texts.contains_key(&text) {
                kept.take(&text, Given::Before);
            }
            end += len;
        }
        if end < bytes.len() {
            // Needs no room on the disk.
            open(path)?.set_len(end as u64)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file: open(path)?,
            end: end as u64,
        })
    }

    /// Nothing stays behind of an entry that could not be written whole.
    fn append(&mut self, entry: &[u8]) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.file.write_all(entry)?;
        self.end += entry.len() as u64;
        Ok(())
    }

    fn replace(&mut self, entries: &[u8]) -> io::Result<()> {
        small_file::replace(&self.path, entries)?;
        self.file = open(&self.path)?;
        self.end = entries.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600).open(path)
}

fn load(text: &[u8]) -> Vec<u8> {
    command(&[b"SCRIPT", b"LOAD".as_slice(), text])
}

/// The text of the SCRIPT LOAD that the bytes begin with, and that one's length.
fn first_load(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut scanner = Scanner::default();
    let Ok(Scan::Request { len }) = scanner.scan(bytes, &Limits::default()) else {
        return None;
    };
    let mut words = Request::new(bytes, scanner.spans()).args_from(0);
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(b"SCRIPT"), Some(b"LOAD"), Some(text), None) => Some((text.to_vec(), len)),
        _ => None,
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

    /// A folder, which goes with it, and the file there.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scripts");
        (dir, path)
    }

    fn recalled(path: &Path) -> Scripts {
        let scripts = Scripts::default();
        scripts.recall(path);
        scripts
    }

    #[test]
    fn scripts_are_known_after_a_restart_until_they_are_flushed() {
        let (_dir, path) = place();
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
        let (_dir, path) = place();
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
    fn what_is_given_behind_a_flush_on_its_way_is_to_be_kept_again() {
        let scripts = Scripts::default();
        let now = Instant::now();
        scripts.keep(b"return 1");
        assert!(scripts.has(b"return 1", now));
        scripts.flush_sent(now);
        assert!(!scripts.has(b"return 1", now));
        scripts.forget();
        scripts.keep(b"return 1");
        assert_eq!(scripts.loads().1, 1);
        assert!(scripts.has(b"return 1", now + FLUSH_MAX));
    }

    #[test]
    fn a_script_that_is_too_large_takes_nothing_from_others() {
        let (_dir, path) = place();
        recalled(&path).keep(b"return 1");
        let scripts = recalled(&path);
        let large = vec![b' '; BYTES_MAX + 1];
        assert!(scripts.has(&large, Instant::now()), "nothing is noted of it");
        scripts.keep(&large);
        assert_eq!(scripts.loads().1, 1);
    }

    #[test]
    fn what_an_earlier_process_was_given_makes_room_for_what_is_new() {
        let (_dir, path) = place();
        let scripts = recalled(&path);
        for number in 0..SCRIPTS_MAX {
            scripts.keep(format!("return {number}").as_bytes());
        }
        scripts.keep(b"return 'no room'");
        let scripts = recalled(&path);
        assert_eq!(scripts.loads().1, SCRIPTS_MAX);
        assert!(scripts.has(b"return 7", Instant::now()) && !scripts.has(b"return 'no room'", Instant::now()));
        scripts.keep(b"return 'new'");
        let scripts = recalled(&path);
        assert_eq!(scripts.loads().1, 2);
        assert!(scripts.has(b"return 7", Instant::now()) && scripts.has(b"return 'new'", Instant::now()));
    }

    #[test]
    fn an_entry_that_could_not_be_written_whole_leaves_nothing() {
        let (_dir, path) = place();
        let scripts = recalled(&path);
        scripts.keep(b"return 1");
        // As after a write that the disk had no room for.
        open(&path).unwrap().write_all(b"*3\r\n$6\r\nSCR").unwrap();
        scripts.keep(b"return 2");
        assert_eq!(recalled(&path).loads().1, 2);
    }
}
