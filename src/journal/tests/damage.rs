//! Files that are not what was written.

use super::*;

#[test]
fn a_tail_cut_at_any_byte_loses_the_last_record_only() {
    for cut in 0..RECORD {
        let storage = FaultStorage::default();
        let (mut journal, _) = open(&storage);
        put(&mut journal, 0..3);
        kill(journal, &storage);
        let name = segments(&storage).pop().unwrap();
        storage
            .disk()
            .content(&name)
            .truncate((SEGMENT_HEADER_BYTES + 2 * RECORD + cut) as usize);
        let (mut journal, report) = open(&storage);
        assert_eq!((report.torn_bytes, report.damage.len()), (cut, 0));
        assert_eq!(numbers(&mut journal), [0, 1], "cut at {cut}");
        put(&mut journal, 7..8);
        kill(journal, &storage);
        let (mut journal, report) = open(&storage);
        assert_eq!((numbers(&mut journal), report.torn_bytes), (vec![0, 1, 7], 0));
    }
}

#[test]
fn a_flipped_bit_costs_one_record_and_is_reported() {
    for (segment, bytes) in [
        (0, SEGMENT_HEADER_BYTES + RECORD..SEGMENT_HEADER_BYTES + 2 * RECORD),
        (1, SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES + RECORD),
    ] {
        for byte in bytes.clone() {
            let storage = FaultStorage::default();
            let (mut journal, _) = open(&storage);
            put(&mut journal, 0..8);
            kill(journal, &storage);
            let name = segments(&storage)[segment].clone();
            storage.disk().content(&name)[byte as usize] ^= 1 << (byte % 8);
            let (mut journal, report) = open(&storage);
            let lost = if segment == 0 { 1 } else { 4 };
            assert_eq!(
                numbers(&mut journal),
                (0..8).filter(|&n| n != lost).collect::<Vec<_>>(),
                "byte {byte}"
            );
            assert_eq!(
                report.damage,
                [Damage {
                    file: name.clone(),
                    offset: bytes.start,
                    bytes: RECORD
                }]
            );
            let last_seq = journal.status().last_seq;
            assert_eq!(journal.replayed(last_seq, &Mark::default(), 0).unwrap().records, 7);
            journal.release(last_seq).unwrap();
            assert_eq!(
                storage
                    .disk()
                    .names()
                    .iter()
                    .filter(|n| **n == format!("{name}.corrupt"))
                    .count(),
                1
            );
        }
    }
}

#[test]
fn a_damaged_tail_before_another_segment_is_not_taken_for_a_torn_one() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    let last_seq = put(&mut journal, 0..8);
    kill(journal, &storage);
    let name = segments(&storage).remove(0);
    storage.disk().content(&name)[(SEGMENT_HEADER_BYTES + 4 * RECORD - 1) as usize] ^= 1;
    let (mut journal, report) = open(&storage);
    assert_eq!(numbers(&mut journal), [0, 1, 2, 4, 5, 6, 7]);
    assert_eq!((report.torn_bytes, report.damage.len()), (0, 1));
    assert_eq!(
        report.missing,
        [Missing {
            after_seq: last_seq - 5,
            upto_seq: last_seq - 4
        }]
    );
}

#[test]
fn a_damaged_segment_header_costs_no_record() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    put(&mut journal, 0..8);
    kill(journal, &storage);
    for name in segments(&storage) {
        storage.disk().content(&name)[20] ^= 1;
    }
    let (mut journal, report) = open(&storage);
    assert_eq!(
        (numbers(&mut journal), report.damage.len()),
        ((0..8).collect::<Vec<_>>(), 2)
    );
}

#[test]
fn a_last_segment_that_was_only_created_is_no_damage() {
    for size in 0..=SEGMENT_HEADER_BYTES {
        let storage = FaultStorage::default();
        let (mut journal, _) = open(&storage);
        put(&mut journal, 0..5);
        kill(journal, &storage);
        let name = segments(&storage).pop().unwrap();
        storage.disk().content(&name).truncate(size as usize);
        let (mut journal, report) = open(&storage);
        assert_eq!(
            (numbers(&mut journal), report.damage, report.missing),
            (vec![0, 1, 2, 3], vec![], vec![])
        );
    }
}

#[test]
fn a_vanished_segment_is_reported() {
    for (lost, missing_after, missing_upto) in [(0, 0, 4), (1, 4, 8)] {
        let storage = FaultStorage::default();
        let (mut journal, _) = open(&storage);
        put(&mut journal, 0..12);
        kill(journal, &storage);
        let name = segments(&storage).remove(lost);
        storage.disk().lose(&name);
        let (_, report) = open(&storage);
        let seq = |n: u64| if n == 0 { 0 } else { (1u64 << 32) + n };
        assert_eq!(
            report.missing,
            [Missing {
                after_seq: seq(missing_after),
                upto_seq: seq(missing_upto)
            }]
        );
    }
}

#[test]
fn a_queue_file_that_is_gone_or_damaged_stops() {
    for damage in ["gone", "flipped"] {
        let storage = FaultStorage::default();
        let (mut journal, _) = open(&storage);
        put(&mut journal, 0..1);
        kill(journal, &storage);
        match damage {
            "gone" => storage.disk().lose("queue"),
            _ => storage.disk().content("queue")[20] ^= 1,
        }
        let error = Journal::open(storage, settings(Fsync::No), ID, 0)
            .map(|_| ())
            .unwrap_err();
        assert!(
            matches!(error, OpenError::Corrupt { ref file, .. } if file == "queue"),
            "{damage}: {error}"
        );
    }
}

#[test]
fn an_unreadable_checkpoint_is_reported_and_an_older_one_counts() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    let last_seq = put(&mut journal, 0..12);
    journal.replayed(last_seq - 6, &Mark::default(), 0).unwrap();
    journal.release(last_seq - 8).unwrap();
    journal.replayed(last_seq - 1, &Mark::default(), 0).unwrap();
    journal.save_checkpoint().unwrap();
    kill(journal, &storage);
    storage.disk().content("checkpoint.recent")[30] ^= 1;
    let (journal, report) = open(&storage);
    assert_eq!((report.checkpoints_unreadable, journal.status().records), (1, 6));
}

#[test]
fn damage_among_dead_letters_costs_one_and_keeps_the_file_aside() {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    for seq in 1..=3 {
        journal.dead_letter(&dead(seq, "r", "e", b"payload")).unwrap();
    }
    kill(journal, &storage);
    storage.disk().content("dead-letters")[28 + 49 + 40] ^= 1;
    let (mut journal, report) = open(&storage);
    assert_eq!(report.dead_letter_bytes_unreadable, 49);
    assert_eq!(
        journal
            .dead_letters()
            .unwrap()
            .iter()
            .map(|letter| letter.seq)
            .collect::<Vec<_>>(),
        [1, 3]
    );
    assert!(storage.disk().names().contains(&"dead-letters.corrupt".to_owned()));
}

/// A journal with everything in it; two of its records are replayed.
fn varied() -> (FaultStorage, Vec<Record>, Vec<DeadLetter>) {
    let storage = FaultStorage::default();
    let (mut journal, _) = open(&storage);
    put(&mut journal, 0..6);
    let records = all(&mut journal);
    journal.dead_letter(&dead(1, "r", "e", b"one")).unwrap();
    journal.dead_letter(&dead(2, "r", "e", b"two")).unwrap();
    journal.replayed(records[0].seq, &Mark::default(), 7).unwrap();
    journal.save_checkpoint().unwrap();
    let letters = journal.dead_letters().unwrap();
    journal.close().unwrap();
    storage.disk().crash(&mut |most| most);
    (storage, records, letters)
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_never_read_as_something_else() {
    let names = varied().0.disk().names();
    assert_eq!(names.len(), 6, "{names:?}");
    for name in names {
        let bytes = varied().0.disk().content(&name).len();
        for byte in 0..bytes {
            let (storage, records, letters) = varied();
            storage.disk().content(&name)[byte] ^= 1 << (byte % 8);
            let opened = Journal::open(storage.clone(), settings(Fsync::EverySec), ID, 0);
            let (mut journal, report) = match opened {
                Ok(opened) => opened,
                Err(OpenError::Corrupt { file, .. }) if file == name && name == "queue" => continue,
                Err(error) => panic!("{name} byte {byte}: {error}"),
            };
            assert_ne!(name, "queue", "byte {byte} does not matter");
            let found = all(&mut journal);
            assert!(
                found.iter().all(|record| records.contains(record)),
                "{name} byte {byte}"
            );
            let kept = journal.dead_letters().unwrap();
            assert!(kept.iter().all(|letter| letters.contains(letter)), "{name} byte {byte}");
            let lost = records.len() - found.len() + letters.len() - kept.len();
            let is_reported = report.torn_bytes > 0
                || !report.damage.is_empty()
                || report.checkpoints_unreadable > 0
                || report.dead_letter_bytes_unreadable > 0;
            // The header of the dead letters says nothing that is not known.
            let is_needless = name == "dead-letters" && lost == 0;
            assert!(is_reported || is_needless, "{name} byte {byte}: {report:?}");
            assert!(lost <= 1, "{name} byte {byte}: {lost}");
        }
    }
}

#[test]
fn an_overlay_recovers_in_memory_and_leaves_the_directory_as_it_is() {
    let (storage, ..) = varied();
    let torn = segments(&storage).pop().unwrap();
    for name in [&torn, "dead-letters"] {
        // A torn tail, and a damaged first entry.
        storage.disk().content(name).extend_from_slice(b"torn");
    }
    storage.disk().content("dead-letters")[40] ^= 1;
    let content = |storage: &FaultStorage| {
        let names = storage.disk().names();
        let contents = names.iter().map(|name| storage.disk().content(name).clone());
        names.iter().cloned().zip(contents).collect::<Vec<_>>()
    };
    let before = content(&storage);
    let (mut journal, report) = Journal::open(Overlay::new(storage.clone()), settings(Fsync::EverySec), ID, 0).unwrap();
    assert_eq!((report.torn_bytes, report.records), (4, 6));
    assert_eq!(numbers(&mut journal), [0, 1, 2, 3, 4, 5]);
    assert_eq!(
        (
            journal.incarnations().current_ordinal(),
            journal.dead_letters().unwrap().len()
        ),
        (2, 1)
    );
    journal.drop_backlog().unwrap();
    journal.drop_dead_letter(2).unwrap();
    assert_eq!((journal.status().records, journal.status().dead_letters), (0, 0));
    drop(journal);
    assert_eq!(content(&storage), before);
}
