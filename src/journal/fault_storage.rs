//! A directory in memory that loses what was not synced, tears writes and fails on demand.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::storage::{Storage, StorageFile};

#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Truncate { size: u64 },
}

#[derive(Debug, Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Changes since the last sync.
    pending: Vec<Change>,
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => {
            let offset = *offset as usize;
            if content.len() < offset + bytes.len() {
                content.resize(offset + bytes.len(), 0);
            }
            content[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Change::Truncate { size } => content.resize(*size as usize, 0),
    }
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    inodes: Vec<Inode>,
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    is_locked: bool,
    pub(super) writes: u64,
    /// The next write writes this many bytes and fails.
    pub(super) fail_write_after: Option<usize>,
    pub(super) fail_sync: bool,
    pub(super) fail_sync_dir: bool,
    pub(super) bytes_max: Option<usize>,
}

impl Disk {
    /// A power cut. `choose(n)` picks one of `0..=n`: how many unsynced changes of a file (and bytes of the next one)
    /// and how many unsynced names survive.
    pub(super) fn crash(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        for inode in &mut self.inodes {
            let kept = choose(inode.pending.len());
            let changes = std::mem::take(&mut inode.pending);
            for change in &changes[..kept] {
                apply(&mut inode.durable, change);
            }
            if let Some(Change::Write { offset, bytes }) = changes.get(kept) {
                let torn = choose(bytes.len());
                apply(
                    &mut inode.durable,
                    &Change::Write {
                        offset: *offset,
                        bytes: bytes[..torn].to_vec(),
                    },
                );
            }
            inode.live = inode.durable.clone();
        }
        if choose(1) == 0 {
            self.live = self.durable.clone();
        } else {
            self.durable = self.live.clone();
        }
        self.is_locked = false;
        self.fail_write_after = None;
        self.fail_sync = false;
        self.fail_sync_dir = false;
    }

    /// Nothing more fits.
    pub(super) fn fill(&mut self) {
        self.bytes_max = Some(self.used());
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.live.keys().cloned().collect()
    }

    /// The content of a file, to look at or to damage.
    pub(super) fn content(&mut self, name: &str) -> &mut Vec<u8> {
        let at = self.live[name];
        &mut self.inodes[at].live
    }

    pub(super) fn lose(&mut self, name: &str) {
        self.live.remove(name);
    }

    fn used(&self) -> usize {
        self.live.values().map(|&at| self.inodes[at].live.len()).sum()
    }
}

/// A handle to a [`Disk`].
#[derive(Debug, Clone, Default)]
pub(super) struct FaultStorage {
    disk: Arc<Mutex<Disk>>,
}

impl FaultStorage {
    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.disk()
            .live
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[derive(Debug)]
pub(super) struct FaultFile {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
}

impl Storage for FaultStorage {
    type File = FaultFile;

    fn lock(&mut self) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.is_locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        disk.is_locked = true;
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().names())
    }

    fn create(&self, name: &str) -> io::Result<FaultFile> {
        let mut disk = self.disk();
        if disk.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.inodes.push(Inode::default());
        let inode = disk.inodes.len() - 1;
        disk.live.insert(name.to_owned(), inode);
        Ok(FaultFile {
            disk: Arc::clone(&self.disk),
            inode,
        })
    }

    fn open(&self, name: &str) -> io::Result<FaultFile> {
        Ok(FaultFile {
            disk: Arc::clone(&self.disk),
            inode: self.find(name)?,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.find(from)?;
        let mut disk = self.disk();
        disk.live.remove(from);
        disk.live.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.find(name)?;
        self.disk().live.remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk();
        if std::mem::take(&mut disk.fail_sync) || std::mem::take(&mut disk.fail_sync_dir) {
            return Err(io::Error::other("sync of the directory failed"));
        }
        disk.durable = disk.live.clone();
        Ok(())
    }
}

impl StorageFile for FaultFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock().unwrap().inodes[self.inode].live.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.disk.lock().unwrap();
        let rest = disk.inodes[self.inode].live.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.writes += 1;
        let room = disk
            .bytes_max
            .map_or(usize::MAX, |bytes_max| bytes_max.saturating_sub(disk.used()));
        // What is overwritten has its room.
        let end = disk.inodes[self.inode].live.len();
        let grows = (offset as usize + bytes.len()).saturating_sub(end).min(bytes.len());
        let (written, error) = match disk.fail_write_after.take() {
            Some(short) => (short.min(bytes.len()), Some(io::ErrorKind::Other)),
            None if grows > room => (bytes.len() - (grows - room), Some(io::ErrorKind::StorageFull)),
            None => (bytes.len(), None),
        };
        let change = Change::Write {
            offset,
            bytes: bytes[..written].to_vec(),
        };
        let inode = &mut disk.inodes[self.inode];
        apply(&mut inode.live, &change);
        inode.pending.push(change);
        error.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        let inode = &mut disk.inodes[self.inode];
        let change = Change::Truncate { size };
        apply(&mut inode.live, &change);
        inode.pending.push(change);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        let fails = std::mem::take(&mut disk.fail_sync);
        let inode = &mut disk.inodes[self.inode];
        let pending = std::mem::take(&mut inode.pending);
        if fails {
            // The kernel gives the dirty pages up: a later sync succeeds without them.
            return Err(io::Error::other("sync failed"));
        }
        for change in &pending {
            apply(&mut inode.durable, change);
        }
        Ok(())
    }

    fn duplicate(&self) -> io::Result<Self> {
        Ok(Self {
            disk: Arc::clone(&self.disk),
            inode: self.inode,
        })
    }
}
