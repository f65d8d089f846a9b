//! A disk whose syncs fail.

use std::fs::File;

use super::*;

/// The real directory, with a sync that fails while it is told to, and tells when it did.
struct Failing {
    disk: DiskStorage,
    fault: Arc<Fault>,
}

struct Fault {
    is_on: AtomicBool,
    met: SyncSender<()>,
}

struct FailingFile {
    file: File,
    fault: Arc<Fault>,
}

impl Failing {
    fn file(&self, file: io::Result<File>) -> io::Result<FailingFile> {
        file.map(|file| FailingFile {
            file,
            fault: Arc::clone(&self.fault),
        })
    }
}

impl Storage for Failing {
    type File = FailingFile;
    fn lock(&mut self) -> io::Result<()> {
        self.disk.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> io::Result<FailingFile> {
        self.file(self.disk.create(name))
    }
    fn open(&self, name: &str) -> io::Result<FailingFile> {
        self.file(self.disk.open(name))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

impl StorageFile for FailingFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        StorageFile::read_at(&self.file, buffer, offset)
    }
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        StorageFile::write_at(&mut self.file, bytes, offset)
    }
    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.file.truncate(size)
    }
    fn sync(&self) -> io::Result<()> {
        if self.fault.is_on.swap(false, Ordering::SeqCst) {
            self.fault.met.try_send(()).unwrap();
            return Err(io::Error::other("the disk is gone"));
        }
        self.file.sync()
    }
    fn duplicate(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.duplicate()?,
            fault: Arc::clone(&self.fault),
        })
    }
}

fn failing(fsync: Fsync) -> (TempDir, OwnerHandle, Arc<Fault>, Receiver<()>) {
    let dir = tempfile::tempdir().unwrap();
    let (met, meets) = sync_channel(1);
    let fault = Arc::new(Fault {
        is_on: AtomicBool::new(false),
        met,
    });
    let storage = Failing {
        disk: DiskStorage::new(dir.path()).unwrap(),
        fault: Arc::clone(&fault),
    };
    let settings = Settings {
        fsync,
        bytes_max: 1 << 30,
        segment_bytes_max: SEGMENT_BYTES_MAX,
    };
    let (journal, _) = Journal::open(storage, settings, [7; 16], 1).unwrap();
    let (handle, _) = spawn(journal, fsync, vec![Box::new(|| ())]).unwrap();
    handle.confirm(0, 1);
    (dir, handle, fault, meets)
}

#[test]
fn a_failed_sync_fails_its_appends_and_later_ones_go_on() {
    let (_dir, handle, fault, _meets) = failing(Fsync::Always);
    assert_eq!(settled(&append(&handle, 1, 5, &["a"])), Settled::Acknowledged);
    fault.is_on.store(true, Ordering::SeqCst);
    assert!(matches!(settled(&append(&handle, 1, 5, &["b"])), Settled::Failed(why) if why.contains("gone")));
    let failed = ask(|reply| handle.status(reply));
    assert!(failed.last_error.is_some_and(|error| error.contains("gone")));
    assert_eq!(settled(&append(&handle, 1, 5, &["c"])), Settled::Acknowledged);
    let status = ask(|reply| handle.status(reply));
    assert_eq!((status.errors.sync, status.last_error), (1, None));
    let records = ask(|reply| handle.read(0, 10, 1 << 20, reply)).unwrap();
    assert_eq!(texts(&records), ["a", "c"]);
}

#[test]
fn a_sync_that_fails_beside_poisons_the_segment_and_loses_nothing() {
    let (dir, handle, fault, meets) = failing(Fsync::EverySec);
    assert_eq!(settled(&append(&handle, 1, 5, &["a"])), Settled::Acknowledged);
    fault.is_on.store(true, Ordering::SeqCst);
    meets.recv_timeout(PATIENCE).unwrap();
    assert_eq!(settled(&append(&handle, 1, 5, &["b"])), Settled::Acknowledged);
    let ended = ask(|reply| handle.shutdown(reply));
    assert!(ended.result.is_ok());
    assert_eq!(ended.journal.poisoned_total, 1);
    assert_eq!(reopened(dir.path()), ["a", "b"]);
}

#[test]
fn what_fails_of_those_that_wait_is_counted() {
    let (_dir, handle, fault, _meets) = failing(Fsync::No);
    assert_eq!(settled(&append(&handle, 1, 5, &["a"])), Settled::Acknowledged);
    let records = ask(|reply| handle.read(0, 1, 1 << 20, reply)).unwrap();
    fault.is_on.store(true, Ordering::SeqCst);
    assert!(ask(|reply| handle.set_aside(b"bob".to_vec(), records.clone(), reply)).is_err());
    assert_eq!(ask(|reply| handle.status(reply)).errors.waiting, 1);
    ask(|reply| handle.set_aside(b"bob".to_vec(), records, reply)).unwrap();
    let status = ask(|reply| handle.status(reply));
    assert_eq!((status.errors.waiting, status.journal.waiting_records), (1, 1));
}
