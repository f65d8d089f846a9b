//! A disk that fails, or is full.

use super::*;

#[test]
fn a_failed_write_is_in_no_segment_and_the_next_append_starts_another() {
    for fsync in [Fsync::Always, Fsync::EverySec, Fsync::No] {
        for short in [0, 10, RECORD as usize - 1, RECORD as usize] {
            let storage = FaultStorage::default();
            let (mut journal, _) = open_with(&storage, settings(fsync));
            put(&mut journal, 0..2);
            journal.sync().unwrap();
            storage.disk().fail_write_after = Some(short);
            assert!(matches!(try_put(&mut journal, 66), Err(AppendError::Io { .. })));
            assert!(matches!(
                journal.status().health,
                Health::Poisoned { records_unsynced: 0 }
            ));
            let seq = put(&mut journal, 2..3);
            journal.sync().unwrap();
            assert_eq!(seq, (1 << 32) + 4, "the failed number is skipped");
            assert_eq!((numbers(&mut journal), segments(&storage).len()), (vec![0, 1, 2], 2));
            kill(journal, &storage);
            let (mut journal, report) = open(&storage);
            assert_eq!(
                (numbers(&mut journal), report.damage, report.missing),
                (vec![0, 1, 2], vec![], vec![])
            );
        }
    }
}

#[test]
fn on_a_full_disk_what_is_replayed_gives_way() {
    for fsync in [Fsync::Always, Fsync::EverySec, Fsync::No] {
        let storage = FaultStorage::default();
        let (mut journal, _) = open_with(&storage, settings(fsync));
        let last_seq = put(&mut journal, 0..20);
        journal.sync().unwrap();
        storage.disk().fill();
        assert!(matches!(try_put(&mut journal, 20), Err(AppendError::Io { .. })));
        assert_eq!(numbers(&mut journal).len(), 20, "what is not replayed stays");
        journal.replayed(last_seq, &Mark::default(), 0).unwrap();
        assert!(matches!(try_put(&mut journal, 20), Err(AppendError::Io { .. })));
        put(&mut journal, 21..22);
        journal.sync().unwrap();
        kill(journal, &storage);
        storage.disk().bytes_max = None;
        let (mut journal, report) = open(&storage);
        assert_eq!((numbers(&mut journal), report.missing), (vec![21], vec![]));
    }
}

#[test]
fn a_failed_sync_withdraws_what_was_never_acknowledged() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open_with(&storage, settings(Fsync::Always));
    let last_seq = put(&mut journal, 0..2);
    journal.sync().unwrap();
    put(&mut journal, 2..4);
    assert_eq!(numbers(&mut journal), [0, 1], "unsynced records are not readable");
    storage.disk().fail_sync = true;
    let error = journal.sync().unwrap_err();
    assert_eq!(
        error.unsynced,
        Unsynced::Withdrawn {
            after_seq: last_seq,
            records: 2
        }
    );
    assert_eq!((journal.status().records, journal.status().acknowledged_total), (2, 2));
    put(&mut journal, 4..5);
    journal.sync().unwrap();
    assert_eq!(numbers(&mut journal), [0, 1, 4]);
    drop(journal);
    storage.disk().crash(&mut |_| 0);
    assert_eq!(numbers(&mut open(&storage).0), [0, 1, 4]);
}

#[test]
fn a_failed_sync_carries_what_was_acknowledged() {
    for (fsync, synced) in [
        (Fsync::EverySec, 0),
        (Fsync::EverySec, 2),
        (Fsync::No, 0),
        (Fsync::No, 2),
    ] {
        let storage = FaultStorage::default();
        let (mut journal, _) = open_with(&storage, settings(fsync));
        put(&mut journal, 0..synced);
        journal.sync().unwrap();
        put(&mut journal, synced..4);
        storage.disk().fail_sync = true;
        let ticket = journal.sync_beside().unwrap().unwrap();
        assert!(journal.sync_beside().unwrap().is_none());
        let error = journal.sync_done(ticket.run()).unwrap_err();
        assert_eq!(error.unsynced, Unsynced::Carried { records: 4 - synced });
        assert_eq!(numbers(&mut journal), [0, 1, 2, 3]);
        put(&mut journal, 4..5);
        journal.sync().unwrap();
        drop(journal);
        storage.disk().crash(&mut |_| 0);
        let (mut journal, report) = open(&storage);
        assert_eq!(
            (numbers(&mut journal), report.damage, report.missing),
            (vec![0, 1, 2, 3, 4], vec![], vec![])
        );
    }
}

#[test]
fn a_full_disk_leaves_acknowledged_records_intact() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open_with(&storage, settings(Fsync::Always));
    storage.disk().bytes_max = Some(1000);
    let mut kept = Vec::new();
    for number in 0..40 {
        if try_put(&mut journal, number).is_ok() && journal.sync().is_ok() {
            kept.push(number);
        }
    }
    assert!(kept.len() > 5 && kept.len() < 30, "{kept:?}");
    assert_eq!(numbers(&mut journal), kept);
    storage.disk().bytes_max = None;
    put(&mut journal, 50..51);
    journal.sync().unwrap();
    kept.push(50);
    drop(journal);
    storage.disk().crash(&mut |_| 0);
    let (mut journal, report) = open(&storage);
    assert_eq!(
        (numbers(&mut journal), report.damage, report.missing),
        (kept, vec![], vec![])
    );
}

#[test]
fn a_disk_that_is_full_at_the_opening_keeps_nothing_from_being_replayed() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    let last_seq = put(&mut journal, 0..8);
    kill(journal, &storage);
    storage.disk().fill();
    let (mut journal, report) = open(&storage);
    assert!(report.damage.is_empty() && journal.not_begun().is_some());
    assert_eq!((journal.status().records, numbers(&mut journal).len()), (8, 8));
    assert!(matches!(try_put(&mut journal, 66), Err(AppendError::Io { .. })));
    assert_eq!(
        journal.incarnations().current_ordinal(),
        2,
        "replay asks which records are this process's"
    );
    drop(journal);
    storage.disk().crash(&mut |_| 0);
    let (mut journal, report) = open(&storage);
    assert!(journal.not_begun().is_some() && report.damage.is_empty() && report.missing.is_empty());
    // What is replayed gives way, though its checkpoint needs a place too.
    journal.replayed(last_seq, &Mark::default(), 0).unwrap();
    let seq = put(&mut journal, 8..9);
    assert_eq!((seq, journal.not_begun()), ((2 << 32) + 1, None));
    journal.sync().unwrap();
    drop(journal);
    storage.disk().crash(&mut |_| 0);
    storage.disk().bytes_max = None;
    let (mut journal, report) = open(&storage);
    assert_eq!((numbers(&mut journal), report.backlog_records), (vec![8], 1));
    assert_eq!(
        (journal.incarnations().current_ordinal(), report.checkpoints_unreadable),
        (3, 0)
    );
}

#[test]
fn retained_records_give_way_to_an_opening_on_a_full_disk() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    let last_seq = put(&mut journal, 0..8);
    journal.replayed(last_seq - 4, &Mark::default(), 0).unwrap();
    journal.save_checkpoint().unwrap();
    kill(journal, &storage);
    storage.disk().fill();
    let (mut journal, _) = open(&storage);
    assert_eq!(
        (journal.not_begun(), journal.incarnations().current_ordinal()),
        (None, 2)
    );
    assert_eq!(numbers(&mut journal), [4, 5, 6, 7]);
}

/// Two records, the backlog done, each an entry of its own. Returns their numbers.
fn set_two_aside(journal: &mut Journal<FaultStorage>) -> [u64; 2] {
    let records = all(journal);
    for record in &records {
        journal.set_aside(b"user", std::slice::from_ref(record)).unwrap();
    }
    journal.replayed(records[1].seq, &Mark::default(), 0).unwrap();
    [records[0].seq, records[1].seq]
}

#[test]
fn what_waited_and_went_is_not_backlog_again_after_a_power_cut() {
    for fsync in [Fsync::Always, Fsync::EverySec, Fsync::No] {
        let storage = FaultStorage::default();
        let (mut journal, _) = open_with(&storage, settings(fsync));
        put(&mut journal, 0..2);
        journal.sync().unwrap();
        // The checkpoint that was durable when entries went the first time is not any more the second time.
        for _ in 0..2 {
            journal.rewind(0).unwrap();
            for key in set_two_aside(&mut journal) {
                assert!(journal.drop_waiting(key).unwrap());
            }
        }
        drop(journal);
        storage.disk().crash(&mut |_| 0);
        let (journal, _) = open_with(&storage, settings(fsync));
        assert_eq!(journal.backlog_records(), 0, "{fsync:?}");
    }
}

#[test]
fn what_waited_and_went_is_not_backlog_again_after_a_rewind_that_failed() {
    for fsync in [Fsync::Always, Fsync::EverySec, Fsync::No] {
        let storage = FaultStorage::default();
        let (mut journal, _) = open_with(&storage, settings(fsync));
        put(&mut journal, 0..2);
        journal.sync().unwrap();
        let [first, second] = set_two_aside(&mut journal);
        assert!(journal.drop_waiting(first).unwrap());
        storage.disk().fail_sync_dir = true;
        assert!(journal.rewind(0).is_err());
        assert!(journal.drop_waiting(second).unwrap());
        // The checkpoint of the failed rewind has its name.
        kill(journal, &storage);
        let (journal, _) = open_with(&storage, settings(fsync));
        assert_eq!(journal.backlog_records(), 0, "{fsync:?}");
    }
}

#[test]
fn a_power_cut_does_not_bring_back_what_could_not_be_set_aside() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    put(&mut journal, 0..2);
    journal.sync().unwrap();
    let records = all(&mut journal);
    journal.set_aside(b"user", &records[..1]).unwrap();
    // The write fails when all of it is on the disk.
    storage.disk().fail_write_after = Some(usize::MAX);
    assert!(journal.set_aside(b"user", &records[1..]).is_err());
    drop(journal);
    storage.disk().crash(&mut |most| most.min(1));
    let (journal, _) = open(&storage);
    assert_eq!(journal.status().waiting_records, 1);
}

#[test]
fn steps_of_the_clocks_change_neither_order_nor_count() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    let times = [(5000, 10), (9_000_000, 20), (1000, 30), (0, 40), (6000, 50)];
    for (number, (wall_ms, mono_ms)) in (0_u64..).zip(times) {
        let payload = number.to_le_bytes();
        journal
            .append(&mut std::iter::once(&payload[..]), wall_ms, mono_ms)
            .unwrap();
    }
    journal.sync().unwrap();
    for _ in 0..2 {
        assert_eq!(
            journal.status().oldest_wall_ms,
            Some(5000),
            "the first, whatever it says"
        );
        let records = all(&mut journal);
        let kept: Vec<_> = records.iter().map(|record| (record.wall_ms, record.mono_ms)).collect();
        assert_eq!((kept, numbers(&mut journal)), (times.to_vec(), vec![0, 1, 2, 3, 4]));
        kill(journal, &storage);
        journal = open(&storage).0;
    }
    // A confirmation that seems older than the record moves the checkpoint all the same.
    let last_seq = journal.status().last_seq;
    assert_eq!(journal.replayed(last_seq, &Mark::default(), 1).unwrap().records, 5);
    assert_eq!(
        journal.release_older(0).unwrap().records,
        0,
        "kept until the clock is there again"
    );
    assert_eq!(journal.release_older(1).unwrap().records, 5);
}
