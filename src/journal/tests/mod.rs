//! One test per behaviour; what happens to damaged files and on a failing disk is in files of its own.

mod damage;
mod faults;

use std::time::Instant;

use bytes::Bytes;

use super::fault_storage::FaultStorage;
use super::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, encode_small, parse_small};
use super::*;

const ID: [u8; 16] = [7; 16];
const RECORD: u64 = RECORD_HEADER_BYTES as u64 + 8;

fn settings(fsync: Fsync) -> Settings {
    Settings {
        fsync,
        bytes_max: 1 << 20,
        segment_bytes_max: SEGMENT_HEADER_BYTES + 4 * RECORD,
    }
}

fn open_with(storage: &FaultStorage, settings: Settings) -> (Journal<FaultStorage>, OpenReport) {
    Journal::open(storage.clone(), settings, ID, 0).unwrap()
}

fn open(storage: &FaultStorage) -> (Journal<FaultStorage>, OpenReport) {
    open_with(storage, settings(Fsync::EverySec))
}

/// Ends the process without losing what was written.
fn kill(journal: Journal<FaultStorage>, storage: &FaultStorage) {
    drop(journal);
    storage.disk().crash(&mut |most| most);
}

fn put<S: Storage>(journal: &mut Journal<S>, numbers: std::ops::Range<u64>) -> u64 {
    let payloads: Vec<[u8; 8]> = numbers.map(u64::to_le_bytes).collect();
    for payload in &payloads {
        journal.append(&mut std::iter::once(&payload[..]), 1000, 5).unwrap();
    }
    journal.status().last_seq
}

fn try_put<S: Storage>(journal: &mut Journal<S>, number: u64) -> Result<Appended, AppendError> {
    journal.append(&mut std::iter::once(&number.to_le_bytes()[..]), 1000, 5)
}

fn numbers<S: Storage>(journal: &mut Journal<S>) -> Vec<u64> {
    all(journal)
        .iter()
        .map(|record| u64::from_le_bytes(record.payload[..].try_into().unwrap()))
        .collect()
}

fn all<S: Storage>(journal: &mut Journal<S>) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let after_seq = records.last().map_or(0, |record| record.seq);
        let more = journal.read(after_seq, 3, 1 << 20).unwrap();
        if more.is_empty() {
            return records;
        }
        records.extend(more);
    }
}

fn dead(seq: u64, reason: &str, error: &str, payload: &'static [u8]) -> DeadLetter {
    DeadLetter {
        seq,
        wall_ms: 1000 + seq,
        reason: reason.to_owned(),
        error: error.to_owned(),
        payload: Bytes::from_static(payload),
    }
}

fn segments(storage: &FaultStorage) -> Vec<String> {
    storage
        .disk()
        .names()
        .into_iter()
        .filter(|name| name.ends_with(".journal"))
        .collect()
}

#[test]
fn records_come_back_in_order_with_their_times() {
    let storage = FaultStorage::default();
    let (mut journal, report) = open(&storage);
    assert_eq!(report, OpenReport::default());
    let appended = journal
        .append(&mut [&b"a"[..], b"", b"ccc"].into_iter(), 17, 4)
        .unwrap();
    assert_eq!(
        appended,
        Appended {
            last_seq: (1 << 32) + 3,
            records: 3,
            bytes: 3 * 32 + 4
        }
    );
    let records = journal.read(0, 10, 100).unwrap();
    let got: Vec<_> = records
        .iter()
        .map(|r| (r.seq & 0xff, r.wall_ms, r.mono_ms, &r.payload[..]))
        .collect();
    assert_eq!(got, [(1, 17, 4, &b"a"[..]), (2, 17, 4, b""), (3, 17, 4, b"ccc")]);
    let status = journal.status();
    assert_eq!(
        (status.records, status.bytes, status.oldest_wall_ms),
        (3, 100, Some(17))
    );
}

#[test]
fn one_append_is_one_write() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open_with(
        &storage,
        Settings {
            segment_bytes_max: 1 << 20,
            ..settings(Fsync::No)
        },
    );
    put(&mut journal, 0..1);
    let before = storage.disk().writes;
    journal
        .append(&mut std::iter::repeat_n(&b"12345678"[..], 64), 0, 0)
        .unwrap();
    assert_eq!(storage.disk().writes - before, 1);
}

#[test]
fn each_opening_is_an_incarnation_and_keeps_the_queue_id() {
    let storage = FaultStorage::default();
    let mut last_seq = 0;
    for incarnation in 1..4 {
        let (mut journal, _) = Journal::open(storage.clone(), settings(Fsync::No), [incarnation as u8; 16], 0).unwrap();
        assert_eq!(journal.queue_id(), "01".repeat(16));
        let known = journal.incarnations();
        let whose = |ordinal| known.judge(known.name_of(ordinal << 32), ordinal << 32);
        assert_eq!(known.current_ordinal(), incarnation);
        assert_eq!(whose(incarnation), Incarnation::Current);
        for earlier in 1..incarnation {
            assert_eq!(whose(earlier), Incarnation::Past);
        }
        assert_eq!(known.judge(2, 2 << 32), Incarnation::Unknown);
        let seq = put(&mut journal, 0..2);
        assert_eq!(seq, (incarnation << 32) + 2);
        assert!(seq > last_seq);
        last_seq = seq;
        kill(journal, &storage);
    }
}

#[test]
fn the_counter_renews_the_incarnation_before_it_ends() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    put(&mut journal, 0..2);
    journal.next_seq = (2 << 32) - 1000;
    put(&mut journal, 2..3);
    assert_eq!(
        (journal.incarnations().current_ordinal(), journal.status().last_seq),
        (2, (2 << 32) + 1)
    );
    kill(journal, &storage);
    let (mut journal, report) = open(&storage);
    assert_eq!(
        (numbers(&mut journal), journal.incarnations().current_ordinal()),
        (vec![0, 1, 2], 3)
    );
    assert_eq!((report.damage, report.missing), (vec![], vec![]));
}

#[test]
fn a_directory_of_the_previous_version_is_taken_over_and_refused_by_that_from_then_on() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    put(&mut journal, 0..3);
    kill(journal, &storage);
    let mut body = ID.to_vec();
    // The newest incarnation, none that is not kept, and which they were.
    for number in [9_u64, 0, 1, 9] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    *storage.disk().content("queue") = encode_small(b"TIDEQUEU", 1, &body);
    let (mut journal, _) = open(&storage);
    assert_eq!(numbers(&mut journal), [0, 1, 2]);
    assert_eq!(put(&mut journal, 3..4), (10 << 32) + 1);
    let known = journal.incarnations();
    let whose = [1, 5, 9, 10].map(|ordinal| known.judge(ordinal, ordinal << 32));
    let (past, unknown) = (Incarnation::Past, Incarnation::Unknown);
    assert_eq!(whose, [past, unknown, past, unknown]);
    assert_eq!(known.judge(known.name_of(10 << 32), 10 << 32), Incarnation::Current);
    kill(journal, &storage);
    let queue = storage.disk().content("queue").clone();
    assert_eq!(parse_small(b"TIDEQUEU", 1, &queue), None);
    let (mut journal, _) = open(&storage);
    assert_eq!(numbers(&mut journal), [0, 1, 2, 3]);
}

#[test]
fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Journal::open(DiskStorage::new(dir.path()).unwrap(), settings(Fsync::Always), ID, 0);
    let (journal, _) = open().unwrap();
    assert!(matches!(open(), Err(OpenError::Locked)));
    drop(journal);
    assert!(open().is_ok());
}

#[test]
fn the_directory_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let (mut journal, _) = Journal::open(DiskStorage::new(&path).unwrap(), settings(Fsync::Always), ID, 0).unwrap();
    put(&mut journal, 0..10);
    journal.sync().unwrap();
    journal.dead_letter(&dead(1, "r", "e", b"p")).unwrap();
    journal.save_checkpoint().unwrap();
    assert_eq!(numbers(&mut journal), (0..10).collect::<Vec<_>>());
    journal.close().unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn counting_survives_reopening() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    put(&mut journal, 0..10);
    let mark = Mark {
        run_id: "r".repeat(40),
        replid: "p".repeat(40),
        offset: 77,
    };
    let moved = journal.replayed((1 << 32) + 7, &mark, 2000).unwrap();
    assert_eq!(
        moved,
        Moved {
            records: 7,
            bytes: 7 * RECORD
        }
    );
    let before = journal.status();
    journal.close().unwrap();
    storage.disk().crash(&mut |_| 0);
    let (journal, report) = open(&storage);
    let after = journal.status();
    assert_eq!((report.records, report.backlog_records, report.segments), (10, 3, 3));
    assert_eq!(
        (after.records, after.bytes, after.oldest_wall_ms),
        (before.records, before.bytes, before.oldest_wall_ms)
    );
    assert_eq!((after.records, after.retained_bytes), (3, 7 * RECORD));
    assert_eq!(
        journal.checkpoint(),
        Some(&Checkpoint {
            seq: (1 << 32) + 7,
            wall_ms: 2000,
            mark
        })
    );
}

#[test]
fn the_checkpoint_moves_forward_only_and_never_beyond_what_is_written() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    let last_seq = put(&mut journal, 0..6);
    assert!(matches!(
        journal.replayed(last_seq + 1, &Mark::default(), 0),
        Err(ReplayedError::Ahead { .. })
    ));
    for (seq, records) in [
        (last_seq - 3, 3),
        (last_seq - 4, 0),
        (last_seq - 1, 2),
        (last_seq, 1),
        (last_seq, 0),
    ] {
        assert_eq!(
            journal.replayed(seq, &Mark::default(), 0).unwrap().records,
            records,
            "at {seq}"
        );
    }
    assert_eq!(
        (
            journal.status().records,
            journal.status().bytes,
            journal.status().oldest_wall_ms
        ),
        (0, 0, None)
    );
}

#[test]
fn a_rewind_makes_retained_records_backlog_again() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    let last_seq = put(&mut journal, 0..10);
    journal.replayed(last_seq, &Mark::default(), 5).unwrap();
    journal.release(last_seq - 6).unwrap();
    assert_eq!(journal.rewind(last_seq - 3).unwrap().records, 3);
    assert_eq!(journal.status().oldest_wall_ms, Some(1000));
    assert_eq!(journal.rewind(0).unwrap().records, 3, "one segment of four is gone");
    drop(journal);
    storage.disk().crash(&mut |_| 0);
    let (journal, _) = open(&storage);
    assert_eq!(journal.status().replayed_seq, last_seq - 6);
}

#[test]
fn retained_segments_go_when_they_are_released_or_old() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    let last_seq = put(&mut journal, 0..12);
    journal.replayed(last_seq - 2, &Mark::default(), 100).unwrap();
    assert_eq!(journal.release_older(99).unwrap().records, 0);
    assert_eq!(journal.release_older(100).unwrap().records, 8);
    assert_eq!(
        journal.release(u64::MAX).unwrap().records,
        0,
        "the last segment has backlog"
    );
    journal.replayed(last_seq, &Mark::default(), 200).unwrap();
    assert_eq!(journal.release_older(150).unwrap().records, 0);
    assert_eq!(journal.release_older(200).unwrap().records, 4);
    assert_eq!((segments(&storage).len(), journal.status().disk_bytes), (0, 0));
    let next = put(&mut journal, 12..13);
    assert_eq!((next, numbers(&mut journal)), (last_seq + 1, vec![12]));
    kill(journal, &storage);
    let (mut journal, report) = open(&storage);
    assert_eq!((numbers(&mut journal), report.missing), (vec![12], vec![]));
}

#[test]
fn a_full_journal_refuses_and_retained_records_give_way_first() {
    let storage = FaultStorage::default();
    let bytes_max = 3 * (SEGMENT_HEADER_BYTES + 4 * RECORD);
    let (mut journal, _) = open_with(
        &storage,
        Settings {
            bytes_max,
            ..settings(Fsync::Always)
        },
    );
    let last_seq = put(&mut journal, 0..12);
    journal.sync().unwrap();
    assert!(matches!(try_put(&mut journal, 12), Err(AppendError::Full { .. })));
    assert_eq!(numbers(&mut journal), (0..12).collect::<Vec<_>>());
    journal.replayed(last_seq - 5, &Mark::default(), 0).unwrap();
    assert_eq!(try_put(&mut journal, 12).unwrap().last_seq, last_seq + 1);
    journal.sync().unwrap();
    assert_eq!(numbers(&mut journal), (4..13).collect::<Vec<_>>());
    assert!(journal.status().disk_bytes <= bytes_max);
    let huge = vec![0; bytes_max as usize];
    let refused = journal.append(&mut std::iter::once(&huge[..]), 0, 0);
    assert!(matches!(refused, Err(AppendError::Full { .. })));
}

#[test]
fn a_record_larger_than_a_segment_has_one_of_its_own() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    put(&mut journal, 0..1);
    let large = vec![9; 600_000];
    journal.append(&mut std::iter::once(&large[..]), 0, 0).unwrap();
    put(&mut journal, 1..2);
    let records = all(&mut journal);
    assert_eq!(
        records.iter().map(|record| record.payload.len()).collect::<Vec<_>>(),
        [8, 600_000, 8]
    );
    assert_eq!(segments(&storage).len(), 3);
}

#[test]
fn reading_is_bounded_by_records_and_bytes() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    let last_seq = put(&mut journal, 0..10);
    for (after_seq, records_max, bytes_max, expected) in [
        (0, 3, 1000, 3),
        (0, 100, 17, 2),
        (0, 100, 1, 1),
        (last_seq - 2, 10, 1000, 2),
        (last_seq, 10, 10, 0),
        (0, 0, 9, 0),
    ] {
        let got = journal.read(after_seq, records_max, bytes_max).unwrap();
        assert_eq!(
            got.len(),
            expected,
            "after {after_seq}, {records_max} records, {bytes_max} bytes"
        );
        assert!(got.iter().all(|record| record.seq > after_seq));
    }
}

#[test]
fn dropping_the_backlog_is_final() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    put(&mut journal, 0..10);
    assert_eq!(journal.drop_backlog().unwrap().records, 10);
    assert_eq!((journal.status().records, numbers(&mut journal)), (0, vec![]));
    drop(journal);
    storage.disk().crash(&mut |_| 0);
    let (mut journal, report) = open(&storage);
    assert_eq!((numbers(&mut journal), report.missing), (vec![], vec![]));
}

#[test]
fn dead_letters_are_durable_and_kept_once() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    assert!(
        journal
            .dead_letter(&dead(5, "wrong_type", "WRONGTYPE …", b"five"))
            .unwrap()
    );
    assert!(!journal.dead_letter(&dead(5, "other", "", b"")).unwrap());
    storage.disk().fail_sync = true;
    assert!(journal.dead_letter(&dead(6, "r", "e", b"six")).is_err());
    assert!(journal.dead_letter(&dead(6, "r", "e", b"six")).unwrap());
    assert!(journal.dead_letter(&dead(3, "r", "e", b"three")).unwrap());
    drop(journal);
    storage.disk().crash(&mut |_| 0);
    let (mut journal, _) = open(&storage);
    let letters = journal.dead_letters().unwrap();
    assert_eq!(letters.iter().map(|letter| letter.seq).collect::<Vec<_>>(), [3, 5, 6]);
    assert_eq!((letters[1].wall_ms, &letters[1].reason[..]), (1005, "wrong_type"));
    assert_eq!(
        (&letters[1].error[..], &letters[1].payload[..]),
        ("WRONGTYPE …", &b"five"[..])
    );
    assert_eq!(journal.dead_letters_after(3, 1).unwrap()[0].seq, 5);
    assert!(journal.drop_dead_letter(5).unwrap() && !journal.drop_dead_letter(5).unwrap());
    drop(journal);
    storage.disk().crash(&mut |_| 0);
    assert_eq!(open(&storage).0.status().dead_letters, 2);
}

#[test]
fn a_million_records_are_written_and_read_without_growing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        fsync: Fsync::No,
        bytes_max: 1 << 30,
        segment_bytes_max: SEGMENT_BYTES_MAX,
    };
    let (mut journal, _) = Journal::open(DiskStorage::new(dir.path()).unwrap(), settings, ID, 0).unwrap();
    let payload = [42; 100];
    let started = Instant::now();
    for _ in 0..1_000_000 / 64 {
        journal
            .append(&mut std::iter::repeat_n(&payload[..], 64), 0, 0)
            .unwrap();
    }
    let appended = started.elapsed();
    let (mut after_seq, mut records) = (0, 0);
    loop {
        let batch = journal.read(after_seq, 128, 1 << 20).unwrap();
        let Some(last) = batch.last() else { break };
        after_seq = last.seq;
        records += batch.len();
        journal.replayed(after_seq, &Mark::default(), 0).unwrap();
    }
    println!(
        "append {appended:?}, read and replayed {:?}",
        started.elapsed() - appended
    );
    assert_eq!((records, journal.status().records), (1_000_000, 0));
}
