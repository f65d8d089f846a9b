//! Where the journal's bytes live: a trait small enough for a test to tear, fill and lose it, and the real directory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// One directory of files.
///
/// Contract: what a call changed is visible to later calls at once, but survives a power cut only after
/// [`StorageFile::sync`] (contents) or [`Storage::sync_dir`] (names). A call that fails may have done nothing, a part,
/// or all of its work, except where said otherwise.
pub trait Storage: Send {
    /// An open file of this directory.
    type File: StorageFile;

    /// Takes the directory for this process until the storage is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another opener holds it.
    fn lock(&mut self) -> io::Result<()>;

    /// The names of all files, in no order.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when there is one; it is not touched.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is none.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file a new name, atomically replacing what had it.
    ///
    /// # Errors
    /// After an error either name may be the file's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name; open files stay usable.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is none.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// After an error none of them may be relied on.
    fn sync_dir(&self) -> io::Result<()>;
}

/// One open file.
pub trait StorageFile: Send + Sized + 'static {
    /// Length in bytes, as written so far.
    ///
    /// # Errors
    /// The file cannot be examined.
    fn size(&self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    ///
    /// # Errors
    /// Nothing in `buffer` may be used.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Any prefix may have been written.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts (or extends with zeros) to `size` bytes.
    ///
    /// # Errors
    /// The size is as before, or as wanted.
    fn truncate(&mut self, size: u64) -> io::Result<()>;

    /// Makes contents and size durable.
    ///
    /// # Errors
    /// None of the bytes written since the last success may be relied on, ever: a later success says nothing about
    /// them, since the kernel may have given them up.
    fn sync(&self) -> io::Result<()>;

    /// A second handle to the same open file, for a sync on another thread. An error of the file is told to one of the
    /// handles only.
    ///
    /// # Errors
    /// No handle is left.
    fn duplicate(&self) -> io::Result<Self>;
}

/// Another opener's hold of so long is waited for: a verb on a stopped tideover's directory is done by then.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// What may be done to a directory on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Everything,
    /// Files are opened for reading, and the lock is only looked at.
    Reading,
}

/// A directory on disk: the directory has mode 0700, its files 0600.
#[derive(Debug)]
pub struct DiskStorage {
    dir: PathBuf,
    access: Access,
    lock: Option<File>,
}

impl DiskStorage {
    /// Uses `dir`, which is created with its parents where it does not exist.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn new(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self {
            dir,
            access: Access::Everything,
            lock: None,
        })
    }

    /// Looks at `dir`, which must be there, and changes nothing; for an [`Overlay`](super::Overlay). [`Storage::lock`] fails
    /// when another process holds the directory, and does not keep it from one that starts later.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn reading(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::read_dir(&dir)?;
        Ok(Self {
            dir,
            access: Access::Reading,
            lock: None,
        })
    }

    fn look_at_lock(&self) -> io::Result<()> {
        let file = match File::open(self.dir.join("lock")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        flock(&file, FlockOperation::NonBlockingLockShared)?;
        Ok(())
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Storage for DiskStorage {
    type File = File;

    fn lock(&mut self) -> io::Result<()> {
        if self.access == Access::Reading {
            return self.look_at_lock();
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.dir.join("lock"))?;
        let mut waited = Duration::ZERO;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            let error = io::Error::from(error);
            if error.kind() != io::ErrorKind::WouldBlock || waited >= LOCK_PATIENCE {
                return Err(error);
            }
            thread::sleep(LOCK_POLL);
            waited += LOCK_POLL;
        }
        self.lock = Some(file);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.dir.join(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(self.access == Access::Everything)
            .open(self.dir.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

impl StorageFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn duplicate(&self) -> io::Result<Self> {
        self.try_clone()
    }
}
