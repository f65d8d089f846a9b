//! Appends, reading back, and the way to the journal's owner and back.

use std::sync::mpsc::sync_channel;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tempfile::TempDir;
use tideover::journal::owner::{self, Batch, OwnerHandle, Payloads, Settled};
use tideover::journal::{DiskStorage, Fsync, Journal, SEGMENT_BYTES_MAX, Settings};

use super::WALL_MS;
use super::outage::payload_of;

const BATCHES: &[usize] = &[1, 16, 256];
const FSYNC: Fsync = Fsync::EverySec;

fn open(dir: &TempDir) -> Journal<DiskStorage> {
    let settings = Settings {
        fsync: FSYNC,
        bytes_max: 4 << 30,
        segment_bytes_max: SEGMENT_BYTES_MAX,
    };
    let storage = DiskStorage::new(dir.path()).unwrap();
    Journal::open(storage, settings, [7; 16], WALL_MS).unwrap().0
}

fn payload() -> Vec<u8> {
    payload_of("SET user:1000:profile some-ordinary-value EX 60")
}

/// One write to the file; `everysec` syncs on another thread, see `append_by_owner`.
#[divan::bench(args = BATCHES, sample_count = 100, sample_size = 32)]
fn append(bencher: Bencher<'_, '_>, records: usize) {
    let dir = TempDir::new().unwrap();
    let mut journal = open(&dir);
    let payload = payload();
    bencher.counter(ItemsCount::new(records)).bench_local(|| {
        let mut payloads = std::iter::repeat_n(payload.as_slice(), records);
        journal.append(black_box(&mut payloads), WALL_MS, 0).unwrap()
    });
}

/// From a worker's thread to the owner's and back, as a session waits for it, with the rhythm of `everysec`.
#[divan::bench(args = BATCHES, sample_count = 100, sample_size = 32)]
fn append_by_owner(bencher: Bencher<'_, '_>, records: usize) {
    let dir = TempDir::new().unwrap();
    let (owner, thread) = owner::spawn(open(&dir), FSYNC, vec![Box::new(|| {})]).unwrap();
    let generation = owner.generation();
    owner.confirm(0, generation);
    let payload = payload();
    let mut payloads = Payloads::default();
    bencher.counter(ItemsCount::new(records)).bench_local(|| {
        payloads.clear();
        for _ in 0..records {
            payloads.push(&payload);
        }
        payloads = journal_one(&owner, generation, std::mem::take(&mut payloads));
    });
    owner.shutdown(Box::new(drop)).unwrap();
    drop(owner);
    thread.join().unwrap();
}

fn journal_one(owner: &OwnerHandle, generation: u64, payloads: Payloads) -> Payloads {
    let (done, settled) = sync_channel(1);
    let batch = Batch {
        generation,
        payloads,
        wall_ms: WALL_MS,
        mono_ms: 0,
        done: Box::new(move |settled, payloads| done.send((settled, payloads)).unwrap()),
    };
    owner.append(batch).unwrap();
    let (settled, payloads) = settled.recv().unwrap();
    assert_eq!(settled, Settled::Acknowledged);
    payloads
}

/// Reads a backlog from its beginning to its end, in batches as large as replay's.
#[divan::bench(args = [16, 256])]
fn read_4096_records(bencher: Bencher<'_, '_>, records_max: usize) {
    const RECORDS: usize = 4096;
    let dir = TempDir::new().unwrap();
    let mut journal = open(&dir);
    let payload = payload();
    let mut payloads = std::iter::repeat_n(payload.as_slice(), RECORDS);
    journal.append(&mut payloads, WALL_MS, 0).unwrap();
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        let (mut after_seq, mut read) = (0, 0);
        while let Some(last) = journal.read(after_seq, records_max, usize::MAX).unwrap().last() {
            after_seq = last.seq;
            read += 1;
        }
        assert_eq!(read, RECORDS / records_max);
    });
}
