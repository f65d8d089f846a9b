//! A directory that is read as it stands: what opening would change is kept in memory and forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::storage::{Storage, StorageFile};

/// The files of `base`, with changes that nobody else sees. A file of `base` can be cut, but not written to: opening writes
/// to none, and whoever looks appends nothing.
#[derive(Debug)]
pub struct Overlay<S> {
    base: S,
    changes: Mutex<Changes>,
}

#[derive(Debug, Default)]
struct Changes {
    /// Names given here, with what has them.
    names: BTreeMap<String, Named>,
    /// Names taken away here.
    gone: BTreeSet<String>,
}

#[derive(Debug, Clone)]
enum Named {
    Memory(Arc<Mutex<Vec<u8>>>),
    /// A file that `base` has under this name.
    Base(String),
}

/// A file of an [`Overlay`].
#[derive(Debug)]
pub struct OverlayFile<F>(Content<F>);

#[derive(Debug)]
enum Content<F> {
    Memory(Arc<Mutex<Vec<u8>>>),
    /// Read as far as `size`.
    Base {
        file: F,
        size: u64,
    },
}

impl<S: Storage> Overlay<S> {
    /// Over `base`, whose [`Storage::lock`] is asked too.
    pub fn new(base: S) -> Self {
        Self {
            base,
            changes: Mutex::default(),
        }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn named(&self, name: &str) -> io::Result<Named> {
        let changes = self.changes();
        match changes.names.get(name) {
            Some(named) => Ok(named.clone()),
            None if changes.gone.contains(name) => Err(io::ErrorKind::NotFound.into()),
            None => Ok(Named::Base(name.to_owned())),
        }
    }
}

impl<S: Storage> Storage for Overlay<S> {
    type File = OverlayFile<S::File>;

    fn lock(&mut self) -> io::Result<()> {
        self.base.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names: BTreeSet<String> = self.base.list()?.into_iter().collect();
        let changes = self.changes();
        names.retain(|name| !changes.gone.contains(name));
        names.extend(changes.names.keys().cloned());
        Ok(names.into_iter().collect())
    }

    fn create(&self, name: &str) -> io::Result<Self::File> {
        match self.open(name) {
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let bytes = Arc::default();
        let named = Named::Memory(Arc::clone(&bytes));
        self.changes().names.insert(name.to_owned(), named);
        Ok(OverlayFile(Content::Memory(bytes)))
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        match self.named(name)? {
            Named::Memory(bytes) => Ok(OverlayFile(Content::Memory(bytes))),
            Named::Base(name) => {
                let file = self.base.open(&name)?;
                let size = file.size()?;
                Ok(OverlayFile(Content::Base { file, size }))
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        drop(self.open(from)?);
        let named = self.named(from)?;
        let mut changes = self.changes();
        changes.names.remove(from);
        changes.gone.insert(from.to_owned());
        changes.names.insert(to.to_owned(), named);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        drop(self.open(name)?);
        let mut changes = self.changes();
        changes.names.remove(name);
        changes.gone.insert(name.to_owned());
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: StorageFile> StorageFile for OverlayFile<F> {
    fn size(&self) -> io::Result<u64> {
        match &self.0 {
            Content::Memory(bytes) => Ok(lock(bytes).len() as u64),
            Content::Base { size, .. } => Ok(*size),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.0 {
            Content::Memory(bytes) => {
                let bytes = lock(bytes);
                let rest = bytes.get(offset as usize..).unwrap_or_default();
                let read = rest.len().min(buffer.len());
                buffer[..read].copy_from_slice(&rest[..read]);
                Ok(read)
            }
            Content::Base { file, size } => {
                let left = size.saturating_sub(offset).min(buffer.len() as u64);
                file.read_at(&mut buffer[..left as usize], offset)
            }
        }
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match &self.0 {
            Content::Memory(content) => {
                let mut content = lock(content);
                let end = offset as usize + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[offset as usize..end].copy_from_slice(bytes);
                Ok(())
            }
            Content::Base { .. } => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    fn truncate(&mut self, wanted: u64) -> io::Result<()> {
        match &mut self.0 {
            Content::Memory(bytes) => lock(bytes).resize(wanted as usize, 0),
            Content::Base { size, .. } if wanted <= *size => *size = wanted,
            Content::Base { .. } => return Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn duplicate(&self) -> io::Result<Self> {
        match &self.0 {
            Content::Memory(bytes) => Ok(Self(Content::Memory(Arc::clone(bytes)))),
            Content::Base { file, size } => Ok(Self(Content::Base {
                file: file.duplicate()?,
                size: *size,
            })),
        }
    }
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}
