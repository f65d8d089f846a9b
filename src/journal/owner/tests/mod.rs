mod faults;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TryRecvError};

use tempfile::TempDir;

use super::super::{DeadLetter, DiskStorage, Mark, Record, SEGMENT_BYTES_MAX, Settings, StorageFile};
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn open(dir: &Path, fsync: Fsync, bytes_max: u64) -> Journal<DiskStorage> {
    let storage = DiskStorage::new(dir).unwrap();
    let settings = Settings {
        fsync,
        bytes_max,
        segment_bytes_max: SEGMENT_BYTES_MAX,
    };
    Journal::open(storage, settings, [7; 16], 1).unwrap().0
}

struct Rig {
    dir: TempDir,
    handle: OwnerHandle,
    thread: thread::JoinHandle<()>,
    wakes: Arc<AtomicUsize>,
}

impl Rig {
    fn new(fsync: Fsync, workers: usize) -> Self {
        Self::with_bytes_max(fsync, workers, 1 << 30)
    }

    fn with_bytes_max(fsync: Fsync, workers: usize, bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let wakes = Arc::new(AtomicUsize::new(0));
        let waker = |_| -> Waker {
            let wakes = Arc::clone(&wakes);
            Box::new(move || {
                wakes.fetch_add(1, Ordering::SeqCst);
            })
        };
        let wakers = (0..workers).map(waker).collect();
        let (handle, thread) = spawn(open(dir.path(), fsync, bytes_max), fsync, wakers).unwrap();
        Self {
            dir,
            handle,
            thread,
            wakes,
        }
    }

    fn confirmed(fsync: Fsync) -> Self {
        let rig = Self::new(fsync, 1);
        rig.handle.confirm(0, 1);
        rig
    }

    fn append(&self, generation: u64, payloads: &[&str]) -> Receiver<Settled> {
        append(&self.handle, generation, 5, payloads)
    }

    fn status(&self) -> OwnerStatus {
        ask(|reply| self.handle.status(reply))
    }

    fn close(&self) -> Close {
        ask(|reply| self.handle.close(reply))
    }

    fn records(&self) -> Vec<Record> {
        ask(|reply| self.handle.read(0, 1000, 1 << 20, reply)).unwrap()
    }

    fn replay_all(&self) {
        let last = self.records().last().unwrap().seq;
        ask(|reply| self.handle.replayed(last, Mark::default(), 9, reply)).unwrap();
    }

    /// Ends the thread and returns the backlog that a new opening finds.
    fn shutdown(self) -> (Ended, Vec<String>) {
        let ended = ask(|reply| self.handle.shutdown(reply));
        self.thread.join().unwrap();
        (ended, reopened(self.dir.path()))
    }
}

fn append(handle: &OwnerHandle, generation: u64, mono_ms: u64, payloads: &[&str]) -> Receiver<Settled> {
    let (sender, receiver) = sync_channel(1);
    let mut buffer = Payloads::default();
    payloads.iter().for_each(|payload| buffer.push(payload.as_bytes()));
    let done = Box::new(move |settled, _payloads| sender.send(settled).unwrap_or_default());
    handle
        .append(Batch {
            generation,
            payloads: buffer,
            wall_ms: 5,
            mono_ms,
            done,
        })
        .unwrap();
    receiver
}

fn ask<T: Send + 'static>(request: impl FnOnce(Reply<T>) -> Result<(), Unsent>) -> T {
    let (sender, receiver) = sync_channel(1);
    request(Box::new(move |answer| drop(sender.send(answer)))).unwrap();
    receiver.recv_timeout(PATIENCE).unwrap()
}

fn settled(receiver: &Receiver<Settled>) -> Settled {
    receiver.recv_timeout(PATIENCE).unwrap()
}

fn texts(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| String::from_utf8(record.payload.to_vec()).unwrap())
        .collect()
}

fn reopened(dir: &Path) -> Vec<String> {
    let mut journal = open(dir, Fsync::Always, 1 << 30);
    let replayed_seq = journal.status().replayed_seq;
    texts(&journal.read(replayed_seq, 1000, 1 << 20).unwrap())
}

#[test]
fn acknowledges_under_each_policy_and_keeps_the_order() {
    for fsync in [Fsync::Always, Fsync::EverySec, Fsync::No] {
        let rig = Rig::confirmed(fsync);
        let receivers = [
            rig.append(1, &["a", "b"]),
            rig.append(1, &["c"]),
            rig.append(1, &["d", "", "e"]),
        ];
        for receiver in &receivers {
            assert_eq!(settled(receiver), Settled::Acknowledged, "{fsync:?}");
        }
        assert_eq!(texts(&rig.records()), ["a", "b", "c", "d", "", "e"], "{fsync:?}");
    }
}

#[test]
fn batches_of_many_threads_keep_each_threads_order() {
    let rig = Rig::confirmed(Fsync::EverySec);
    let write = |thread: usize| {
        let handle = rig.handle.clone();
        move || {
            for number in 0..100_u64 {
                let receiver = append(&handle, 1, number / 7, &[&format!("{thread}:{number}")]);
                assert_eq!(settled(&receiver), Settled::Acknowledged);
            }
        }
    };
    let threads: Vec<_> = (0..4).map(|thread| thread::spawn(write(thread))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let records = texts(&rig.records());
    assert_eq!(records.len(), 400);
    for thread in 0..4 {
        let own: Vec<_> = records
            .iter()
            .filter(|text| text.starts_with(&format!("{thread}:")))
            .collect();
        let expected: Vec<_> = (0..100).map(|number| format!("{thread}:{number}")).collect();
        assert_eq!(own, expected.iter().collect::<Vec<_>>());
    }
}

#[test]
fn records_keep_the_time_of_their_own_batch() {
    let rig = Rig::confirmed(Fsync::EverySec);
    let receivers = [10, 10, 11, 10].map(|mono_ms| append(&rig.handle, 1, mono_ms, &["x"]));
    receivers
        .iter()
        .for_each(|receiver| assert_eq!(settled(receiver), Settled::Acknowledged));
    let times: Vec<_> = rig.records().iter().map(|record| record.mono_ms).collect();
    assert_eq!(times, [10, 10, 11, 10]);
}

#[test]
fn acknowledges_nothing_before_every_worker_has_confirmed() {
    let rig = Rig::new(Fsync::Always, 2);
    let receiver = rig.append(1, &["a"]);
    rig.handle.confirm(0, 1);
    rig.status();
    assert_eq!(rig.status().unacknowledged_records, 1);
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(texts(&rig.records()), ["a"], "written at once all the same");
    rig.handle.confirm(1, 1);
    assert_eq!(settled(&receiver), Settled::Acknowledged);
}

#[test]
fn a_stale_append_is_refused_and_leaves_nothing() {
    let rig = Rig::confirmed(Fsync::Always);
    for generation in [0, 2, 3] {
        assert_eq!(settled(&rig.append(generation, &["x"])), Settled::Refused);
    }
    assert_eq!(rig.close(), Close::Closed { generation: 2 });
    for generation in [1, 2] {
        assert_eq!(settled(&rig.append(generation, &["x"])), Settled::Refused);
    }
    assert!(rig.records().is_empty());
}

#[test]
fn closes_only_when_nothing_is_left_and_wakes_the_workers() {
    let rig = Rig::new(Fsync::EverySec, 2);
    assert_eq!(rig.close(), Close::Unsettled);
    rig.handle.confirm(0, 1);
    rig.handle.confirm(1, 1);
    let receiver = rig.append(1, &["a", "b"]);
    assert_eq!(rig.close(), Close::NotEmpty { records: 2 });
    assert_eq!(settled(&receiver), Settled::Acknowledged);
    assert_eq!((rig.handle.generation(), rig.wakes.load(Ordering::SeqCst)), (1, 0));
    rig.replay_all();
    assert_eq!(rig.close(), Close::Closed { generation: 2 });
    assert_eq!((rig.handle.generation(), rig.wakes.load(Ordering::SeqCst)), (2, 2));
}

#[test]
fn a_trip_is_answered_when_every_worker_has_confirmed_it() {
    let rig = Rig::new(Fsync::EverySec, 2);
    rig.handle.confirm(0, 1);
    rig.handle.confirm(1, 1);
    assert_eq!(ask(|reply| rig.handle.trip(reply)), 1, "journaling already");
    assert_eq!(rig.close(), Close::Closed { generation: 2 });
    let (sender, tripped) = sync_channel(1);
    rig.handle
        .trip(Box::new(move |generation| sender.send(generation).unwrap_or_default()))
        .unwrap();
    rig.status();
    assert_eq!((rig.handle.generation(), rig.wakes.load(Ordering::SeqCst)), (3, 4));
    rig.handle.confirm(0, 3);
    rig.handle.confirm(1, 2);
    rig.status();
    assert_eq!(tripped.try_recv(), Err(TryRecvError::Empty));
    let early = rig.append(3, &["a"]);
    rig.handle.confirm(1, 3);
    assert_eq!(tripped.recv_timeout(PATIENCE), Ok(3));
    assert_eq!(settled(&early), Settled::Acknowledged);
}

#[test]
fn what_does_not_fit_is_full_and_the_rest_goes_on() {
    let rig = Rig::with_bytes_max(Fsync::EverySec, 1, 64 * 1024);
    rig.handle.confirm(0, 1);
    let large = "x".repeat(200 * 1024);
    let receivers = [rig.append(1, &["a"]), rig.append(1, &[&large]), rig.append(1, &["b"])];
    assert_eq!(
        receivers.each_ref().map(settled),
        [Settled::Acknowledged, Settled::Full, Settled::Acknowledged]
    );
    assert_eq!(texts(&rig.records()), ["a", "b"]);
}

#[test]
fn payloads_come_back_for_reuse() {
    let rig = Rig::confirmed(Fsync::No);
    let (sender, receiver) = sync_channel(1);
    let mut payloads = Payloads::default();
    payloads.push(b"one");
    payloads.push_with(|bytes| bytes.extend_from_slice(b"two"));
    let sent = payloads.clone();
    let done = Box::new(move |_, payloads| drop(sender.send(payloads)));
    rig.handle
        .append(Batch {
            generation: 1,
            payloads,
            wall_ms: 1,
            mono_ms: 1,
            done,
        })
        .unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), sent);
}

#[test]
fn a_shutdown_leaves_everything_durable_and_ends_the_thread() {
    let rig = Rig::confirmed(Fsync::EverySec);
    let handle = rig.handle.clone();
    assert_eq!(settled(&rig.append(1, &["a", "b", "c"])), Settled::Acknowledged);
    let first = rig.records()[0].seq;
    ask(|reply| rig.handle.replayed(first, Mark::default(), 9, reply)).unwrap();
    let (ended, kept) = rig.shutdown();
    assert!(ended.result.is_ok());
    assert_eq!(ended.journal.records, 2);
    assert_eq!(kept, ["b", "c"].map(str::to_owned), "the checkpoint is saved, too");
    assert!(!handle.is_running());
    let done = Box::new(|_, _| panic!("the batch is handed back"));
    let batch = Batch {
        generation: 1,
        payloads: Payloads::default(),
        wall_ms: 1,
        mono_ms: 1,
        done,
    };
    assert!(handle.append(batch).is_err());
    assert_eq!(handle.status(Box::new(drop)), Err(Unsent::Ended));
}

#[test]
fn what_was_not_acknowledged_is_dropped_uncalled_at_a_shutdown() {
    let rig = Rig::new(Fsync::EverySec, 1);
    let receiver = rig.append(1, &["a"]);
    let (_, kept) = rig.shutdown();
    assert_eq!(
        receiver.recv_timeout(PATIENCE).ok(),
        None,
        "neither kept nor failed may be claimed"
    );
    assert_eq!(kept, ["a"]);
}

#[test]
fn a_kill_keeps_what_was_acknowledged() {
    for fsync in [Fsync::Always, Fsync::EverySec, Fsync::No] {
        let rig = Rig::confirmed(fsync);
        assert_eq!(settled(&rig.append(1, &["a", "b"])), Settled::Acknowledged);
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(rig.dir.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        assert_eq!(
            reopened(copy.path()),
            ["a", "b"],
            "{fsync:?}: the directory as a killed process leaves it"
        );
    }
}

#[test]
fn the_last_handle_dropped_ends_the_thread_in_good_order() {
    let Rig {
        dir, handle, thread, ..
    } = Rig::new(Fsync::EverySec, 1);
    handle.confirm(0, 1);
    let receiver = append(&handle, 1, 5, &["a"]);
    drop(handle);
    thread.join().unwrap();
    assert_eq!(settled(&receiver), Settled::Acknowledged);
    assert_eq!(reopened(dir.path()), ["a"]);
}

#[test]
fn a_panic_hangs_nobody() {
    let rig = Rig::new(Fsync::EverySec, 1);
    let receiver = rig.append(1, &["a"]);
    rig.handle.status(Box::new(|_| panic!("on purpose"))).unwrap();
    assert!(rig.thread.join().is_err());
    assert_eq!(receiver.recv_timeout(PATIENCE).ok(), None, "dropped uncalled");
    assert!(!rig.handle.is_running());
    assert_eq!(rig.handle.trip(Box::new(drop)), Err(Unsent::Ended));
}

#[test]
fn dead_letters_and_the_backlog_pass_through() {
    let rig = Rig::confirmed(Fsync::Always);
    assert_eq!(settled(&rig.append(1, &["a", "b"])), Settled::Acknowledged);
    let record = rig.records().remove(0);
    let letter = DeadLetter {
        seq: record.seq,
        wall_ms: 1,
        reason: "wrong_type".to_owned(),
        error: "WRONGTYPE".to_owned(),
        payload: record.payload,
    };
    assert!(ask(|reply| rig.handle.dead_letter(letter.clone(), reply)).unwrap());
    assert_eq!(ask(|reply| rig.handle.dead_letters(0, 10, reply)).unwrap(), [letter]);
    assert!(ask(|reply| rig.handle.drop_dead_letter(record.seq, reply)).unwrap());
    assert_eq!(ask(|reply| rig.handle.drop_backlog(reply)).unwrap().records, 2);
    assert_eq!(rig.close(), Close::Closed { generation: 2 });
}

#[test]
fn a_rewind_brings_back_what_is_retained() {
    let rig = Rig::confirmed(Fsync::Always);
    assert_eq!(settled(&rig.append(1, &["a", "b"])), Settled::Acknowledged);
    let first = rig.records()[0].seq;
    rig.replay_all();
    assert_eq!(rig.status().journal.records, 0);
    ask(|reply| rig.handle.rewind(first, reply)).unwrap();
    assert_eq!(texts(&rig.records()[1..]), ["b"], "everything that is kept can be read");
    assert_eq!(rig.close(), Close::NotEmpty { records: 1 });
}
