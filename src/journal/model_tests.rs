//! The journal against a plain list, over a disk that fails and loses what was not synced.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::fault_storage::FaultStorage;
use super::format::SEGMENT_HEADER_BYTES;
use super::*;

#[derive(Debug, Clone)]
enum Action {
    Append { records: u8, payload_bytes: u8 },
    Sync,
    TakeTicket,
    RunTicket,
    Read { part: u8 },
    Replayed { part: u8 },
    SaveCheckpoint,
    Release { part: u8 },
    Rewind { part: u8 },
    SetAside { name: u8, records: u8 },
    BeginWaiting { part: u8 },
    DropWaiting { part: u8 },
    FailWrite { after_bytes: u8 },
    FailSync,
    FailSyncDir,
    Crash { seed: u64 },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => (1..6u8, 0..60u8).prop_map(|(records, payload_bytes)| Action::Append { records, payload_bytes }),
        3 => Just(Action::Sync),
        2 => Just(Action::TakeTicket),
        2 => Just(Action::RunTicket),
        1 => any::<u8>().prop_map(|part| Action::Read { part }),
        3 => any::<u8>().prop_map(|part| Action::Replayed { part }),
        1 => Just(Action::SaveCheckpoint),
        1 => any::<u8>().prop_map(|part| Action::Release { part }),
        1 => any::<u8>().prop_map(|part| Action::Rewind { part }),
        2 => (0..2u8, 1..5u8).prop_map(|(name, records)| Action::SetAside { name, records }),
        1 => any::<u8>().prop_map(|part| Action::BeginWaiting { part }),
        2 => any::<u8>().prop_map(|part| Action::DropWaiting { part }),
        2 => any::<u8>().prop_map(|after_bytes| Action::FailWrite { after_bytes }),
        2 => Just(Action::FailSync),
        1 => Just(Action::FailSyncDir),
        2 => any::<u64>().prop_map(|seed| Action::Crash { seed }),
    ];
    prop::collection::vec(action, 1..60)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Must survive everything.
    Synced,
    /// Appended, and may be lost in a crash.
    Written,
    /// Withdrawn: not readable, but a crash may bring it back.
    Withdrawn,
}

#[derive(Debug, Clone)]
struct Entry {
    seq: u64,
    payload: Vec<u8>,
    fate: Fate,
}

struct Run {
    storage: FaultStorage,
    settings: Settings,
    journal: Option<Journal<FaultStorage>>,
    ticket: Option<SyncTicket<<FaultStorage as Storage>::File>>,
    entries: Vec<Entry>,
    /// Records up to here may have been given up.
    replayed_seq: u64,
    last_seq: u64,
    appends: u64,
    has_rewound: bool,
    /// What stands aside, by number.
    aside: BTreeMap<u64, Aside>,
    /// What a crash may bring there, or take from there, until the next write that succeeds.
    doubtful: Vec<(u64, Aside)>,
    /// The last record of an entry that has gone.
    dropped_seq: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Aside {
    key: u64,
    name: Vec<u8>,
    payload: Vec<u8>,
}

impl Run {
    fn new(fsync: Fsync) -> Self {
        let storage = FaultStorage::default();
        let settings = Settings {
            fsync,
            bytes_max: 3000,
            segment_bytes_max: SEGMENT_HEADER_BYTES + 400,
        };
        let (journal, _) = Journal::open(storage.clone(), settings, [1; 16], 0).unwrap();
        Self {
            storage,
            settings,
            journal: Some(journal),
            ticket: None,
            entries: Vec::new(),
            replayed_seq: 0,
            last_seq: 0,
            appends: 0,
            has_rewound: false,
            aside: BTreeMap::new(),
            doubtful: Vec::new(),
            dropped_seq: 0,
        }
    }

    fn journal(&mut self) -> &mut Journal<FaultStorage> {
        self.journal.as_mut().unwrap()
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Append { records, payload_bytes } => self.append(records, payload_bytes),
            Action::Sync => self.sync(),
            Action::TakeTicket if self.settings.fsync == Fsync::Always => {}
            Action::TakeTicket => {
                if let Some(ticket) = self.journal().sync_beside().unwrap() {
                    self.ticket = Some(ticket);
                }
            }
            Action::RunTicket => self.run_ticket(),
            Action::Read { part } => {
                let after_seq = self.seq_at(part);
                let got = self.journal().read(after_seq, 2, 1000).unwrap();
                assert!(got.iter().all(|record| record.seq > after_seq));
            }
            Action::Replayed { part } => {
                let seq = self.seq_at(part);
                let readable = self.settings.fsync != Fsync::Always || self.is_synced(seq);
                let outcome = self.journal().replayed(seq, &Mark::default(), 0);
                assert!(outcome.is_ok() || !readable, "{outcome:?}");
                self.replayed_seq = self.journal().status().replayed_seq;
            }
            Action::SaveCheckpoint => drop(self.journal().save_checkpoint()),
            Action::Release { part } => {
                let seq = self.seq_at(part);
                drop(self.journal().release(seq));
            }
            Action::Rewind { part } => {
                self.has_rewound = true;
                self.dropped_seq = 0;
                let seq = self.seq_at(part);
                let before = self.journal().backlog_records();
                if let Ok(moved) = self.journal().rewind(seq) {
                    assert_eq!(self.journal().backlog_records(), before + moved.records);
                }
                let kept: Vec<u64> = self.read_all().iter().map(|record| record.seq).collect();
                let replayed_seq = self.replayed_seq;
                self.entries
                    .retain(|entry| entry.seq > replayed_seq || kept.contains(&entry.seq));
                self.replayed_seq = self.journal().status().replayed_seq;
            }
            Action::SetAside { name, records } => self.set_aside(name, records.into()),
            Action::BeginWaiting { part } => {
                if let Some(key) = self.key_at(part) {
                    drop(self.journal().begin_waiting(key));
                }
            }
            Action::DropWaiting { part } => self.drop_waiting(part),
            Action::FailWrite { after_bytes } => {
                self.storage.disk().fail_write_after = Some(usize::from(after_bytes));
            }
            Action::FailSync => self.storage.disk().fail_sync = true,
            Action::FailSyncDir => self.storage.disk().fail_sync_dir = true,
            Action::Crash { seed } => self.crash(seed),
        }
        self.compare();
    }

    fn seq_at(&self, part: u8) -> u64 {
        let at = self.entries.len() * usize::from(part) / 255;
        at.checked_sub(1).map_or(0, |at| self.entries[at].seq)
    }

    fn is_synced(&self, seq: u64) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.seq == seq && entry.fate == Fate::Synced)
    }

    fn append(&mut self, records: u8, payload_bytes: u8) {
        self.appends += 1;
        let payloads: Vec<Vec<u8>> = (0..records)
            .map(|at| [&self.appends.to_le_bytes()[..], &vec![at; usize::from(payload_bytes)]].concat())
            .collect();
        let outcome = self.journal().append(&mut payloads.iter().map(Vec::as_slice), 1, 1);
        if let Ok(appended) = outcome {
            let first_seq = appended.last_seq + 1 - appended.records;
            assert!(first_seq > self.last_seq, "a number is used again");
            self.last_seq = appended.last_seq;
            let entries = payloads.into_iter().zip(first_seq..);
            self.entries.extend(entries.map(|(payload, seq)| Entry {
                seq,
                payload,
                fate: Fate::Written,
            }));
        }
        if self.settings.fsync == Fsync::Always {
            self.sync();
        }
    }

    fn sync(&mut self) {
        let last_seq = self.last_seq;
        let outcome = self.journal().sync();
        self.settle(outcome, last_seq);
    }

    fn run_ticket(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let covered = ticket.covers.last_seq;
        let outcome = self.journal().sync_done(ticket.run());
        if self.journal().status().health != Health::Sound {
            return;
        }
        self.settle(outcome, covered);
    }

    fn settle(&mut self, outcome: Result<(), SyncError>, covered_seq: u64) {
        let synced_seq = match outcome.map_err(|error| error.unsynced) {
            Ok(()) | Err(Unsynced::Carried { .. }) => covered_seq,
            Err(Unsynced::Waiting { .. } | Unsynced::TicketOut) => return,
            Err(Unsynced::Withdrawn { after_seq, records }) => {
                let written = self.entries.iter_mut().filter(|entry| entry.fate == Fate::Written);
                let withdrawn = written.filter(|entry| entry.seq > after_seq);
                assert_eq!(
                    withdrawn.map(|entry| entry.fate = Fate::Withdrawn).count() as u64,
                    records
                );
                return;
            }
        };
        if self.settings.fsync == Fsync::No {
            return;
        }
        for entry in self
            .entries
            .iter_mut()
            .filter(|entry| entry.seq <= synced_seq && entry.fate == Fate::Written)
        {
            entry.fate = Fate::Synced;
        }
    }

    /// Records of a name, as replay sets them aside: in order, and not around others.
    fn set_aside(&mut self, name: u8, records: usize) {
        let replayed_seq = self.replayed_seq;
        let backlog = self.read_all();
        let of_name = backlog
            .into_iter()
            .filter(|record| record.seq > replayed_seq && record.seq & 1 == u64::from(name));
        let is_aside = |record: &Record| self.aside.contains_key(&record.seq);
        let records: Vec<Record> = of_name
            .skip_while(is_aside)
            .take_while(|record| !is_aside(record))
            .take(records)
            .collect();
        let Some(key) = records.first().map(|record| record.seq) else {
            return;
        };
        let done = self.journal().set_aside(&[name], &records);
        let records = records.into_iter().map(|record| {
            let aside = Aside {
                key,
                name: vec![name],
                payload: record.payload.to_vec(),
            };
            (record.seq, aside)
        });
        match done {
            Ok(()) => {
                self.doubtful.clear();
                self.aside.extend(records);
            }
            Err(_) => self.doubtful.extend(records),
        }
    }

    fn key_at(&self, part: u8) -> Option<u64> {
        let at = self.aside.len().saturating_sub(1) * usize::from(part) / 255;
        self.aside.values().nth(at).map(|aside| aside.key)
    }

    fn drop_waiting(&mut self, part: u8) {
        let Some(key) = self.key_at(part) else { return };
        let of_entry: BTreeMap<u64, Aside> = self
            .aside
            .iter()
            .filter(|(_, aside)| aside.key == key)
            .map(|(seq, aside)| (*seq, aside.clone()))
            .collect();
        let last_seq = of_entry.keys().next_back().copied().unwrap_or_default();
        match self.journal().drop_waiting(key) {
            Ok(true) => {
                self.doubtful.clear();
                self.aside.retain(|_, aside| aside.key != key);
                if last_seq <= self.replayed_seq {
                    self.dropped_seq = self.dropped_seq.max(last_seq);
                }
            }
            Ok(false) => assert!(last_seq > self.replayed_seq, "{key} is done and stays"),
            Err(_) => self.doubtful.extend(of_entry),
        }
    }

    fn read_aside(&mut self) -> BTreeMap<u64, Aside> {
        let mut all = BTreeMap::new();
        let mut after_key = 0;
        while let Some(entry) = self.journal().waiting_entry(after_key, None).unwrap() {
            after_key = entry.key;
            for record in entry.records {
                let aside = Aside {
                    key: entry.key,
                    name: entry.name.clone(),
                    payload: record.payload.to_vec(),
                };
                assert_eq!(all.insert(record.seq, aside), None, "{} waits twice", record.seq);
            }
        }
        all
    }

    fn read_all(&mut self) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        loop {
            let after_seq = records.last().map_or(0, |record| record.seq);
            let more = self.journal().read(after_seq, 7, 300).unwrap();
            if more.is_empty() {
                return records;
            }
            records.extend(more);
        }
    }

    /// What is readable is what the list says.
    fn compare(&mut self) {
        let replayed_seq = self.replayed_seq;
        let got: Vec<_> = self
            .read_all()
            .into_iter()
            .filter(|r| r.seq > replayed_seq)
            .map(|r| (r.seq, r.payload.to_vec()))
            .collect();
        let expected: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| entry.seq > replayed_seq && entry.fate != Fate::Withdrawn)
            .map(|entry| (entry.seq, entry.payload.clone()))
            .collect();
        assert_eq!(got, expected);
        assert_eq!(self.read_aside(), self.aside);
        let mut all: BTreeMap<u64, Vec<u8>> = expected.into_iter().collect();
        assert_eq!(self.journal().backlog_records(), all.len() as u64);
        all.extend(self.aside.iter().map(|(seq, aside)| (*seq, aside.payload.clone())));
        let status = self.journal().status();
        assert_eq!(status.waiting_records, self.aside.len() as u64);
        assert_eq!(status.records, all.len() as u64, "each counts once");
        assert_eq!(
            status.bytes,
            all.values().map(|payload| 32 + payload.len() as u64).sum::<u64>()
        );
        assert_eq!(status.oldest_wall_ms.is_some(), !all.is_empty());
        let waiting_bytes = self.journal().waiting.bytes();
        assert!(status.disk_bytes <= self.settings.bytes_max + waiting_bytes + 2 * SEGMENT_HEADER_BYTES);
    }

    fn crash(&mut self, seed: u64) {
        self.ticket = None;
        self.journal = None;
        let mut random = fastrand::Rng::with_seed(seed);
        self.storage.disk().crash(&mut |most| random.usize(0..=most));
        let (journal, report) = Journal::open(self.storage.clone(), self.settings, [2; 16], 0).unwrap();
        self.journal = Some(journal);
        let replayed_seq = self.journal().status().replayed_seq;
        assert!(
            replayed_seq <= self.replayed_seq,
            "the checkpoint is ahead of what was confirmed"
        );
        assert!(
            replayed_seq >= self.dropped_seq,
            "what waited and went would be met again"
        );
        let aside = self.read_aside();
        for (seq, there) in &aside {
            let is_doubtful = (self.doubtful.iter()).any(|(doubtful_seq, aside)| (doubtful_seq, aside) == (seq, there));
            assert!(
                self.aside.get(seq) == Some(there) || is_doubtful,
                "{seq} waits and should not"
            );
        }
        for seq in self.aside.keys() {
            let is_doubtful = self.doubtful.iter().any(|(doubtful_seq, _)| doubtful_seq == seq);
            assert!(is_doubtful || aside.contains_key(seq), "{seq} waited and is lost");
        }
        self.aside = aside;
        self.doubtful.clear();
        let got = self.read_all();
        assert!(got.is_sorted_by(|a, b| a.seq < b.seq));
        for record in &got {
            let entry = self.entries.iter().find(|entry| entry.seq == record.seq);
            assert_eq!(
                entry.map(|entry| &entry.payload[..]),
                Some(&record.payload[..]),
                "{} is invented",
                record.seq
            );
        }
        let survived = |entry: &Entry| got.iter().any(|record| record.seq == entry.seq);
        for entry in self.entries.iter().filter(|entry| entry.seq > self.replayed_seq) {
            assert!(
                entry.fate != Fate::Synced || survived(entry),
                "{} was synced and is lost",
                entry.seq
            );
        }
        if self.settings.fsync != Fsync::No {
            assert_eq!(report.damage, []);
            // A rewind can ask again for replayed records that a crash has taken; saying so is right.
            assert!(self.has_rewound || report.missing.is_empty(), "{:?}", report.missing);
            let backlog = self.entries.iter().filter(|entry| entry.seq > self.replayed_seq);
            let lost = backlog
                .filter(|entry| entry.fate == Fate::Written)
                .skip_while(|entry| survived(entry));
            assert!(
                !lost.into_iter().any(survived),
                "a later record survived an earlier one"
            );
        }
        self.entries.retain(survived);
        for entry in &mut self.entries {
            entry.fate = Fate::Synced;
        }
        self.replayed_seq = replayed_seq;
        assert!(self.journal().incarnations().current_ordinal() > self.last_seq >> 32);
    }
}

fn run(fsync: Fsync, actions: &[Action]) {
    let mut run = Run::new(fsync);
    for action in actions {
        run.act(action);
    }
    run.crash(actions.len() as u64);
    run.compare();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_a_sync_per_append_the_journal_is_a_list(actions in actions()) {
        run(Fsync::Always, &actions);
    }

    #[test]
    fn with_a_sync_now_and_then_the_journal_is_a_list(actions in actions()) {
        run(Fsync::EverySec, &actions);
    }

    #[test]
    fn without_syncs_the_journal_is_a_list(actions in actions()) {
        run(Fsync::No, &actions);
    }
}
