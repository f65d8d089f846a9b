//! The verbs on the data directory of a stopped tideover. What only looks changes nothing there; what changes something holds the
//! lock meanwhile, as a running tideover does.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::client::VerbError;
use super::verbs::choose;
use crate::admin::in_order::{InOrder, Wanted};
use crate::admin::letters::times;
use crate::admin::queue::{Form, PAGE_BYTES, PAGE_RECORDS, page};
use crate::admin::record::{self, Clocks, Detail};
use crate::admin::route::{self, Verb, Which};
use crate::admin::status::QueueStatus;
use crate::journal::{
    DeadLetter, DiskStorage, Fsync, Journal, OpenError, Overlay, SEGMENT_BYTES_MAX, Settings, Storage,
};
use crate::replay::{Kept, Pause};
use crate::server::random_id;
use crate::upstream::clock::wall_ms;

/// Letters in memory at a time.
const PAGE_LETTERS: usize = 16;
/// The configuration's limit is not known here; what a verb adds is what was in the directory before.
const SETTINGS: Settings = Settings {
    fsync: Fsync::Always,
    bytes_max: u64::MAX,
    segment_bytes_max: SEGMENT_BYTES_MAX,
};

/// One upstream's part of a data directory.
#[derive(Debug)]
pub(super) struct Stopped {
    dir: PathBuf,
}

impl Stopped {
    /// Finds the upstream that is meant, and its name.
    pub(super) fn find(data_dir: &Path, named: Option<&str>) -> Result<(Self, String), VerbError> {
        let entries = fs::read_dir(data_dir).map_err(|error| at(data_dir, &error))?;
        let mut names: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().join("journal").is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        if names.is_empty() {
            return Err(at(data_dir, &"no tideover has kept anything there"));
        }
        let name = choose(&names, named)?;
        let dir = data_dir.join(&name);
        Ok((Self { dir }, name))
    }

    /// Does as a running tideover would, and writes what it would answer.
    pub(super) fn answer(&self, verb: Verb, sink: &mut dyn Write) -> Result<(), VerbError> {
        let value = match verb {
            Verb::QueueStatus => self.queue_status()?,
            Verb::Peek { records_max } => return self.read_out(Form::Lines { records_max }, sink),
            Verb::Export => return self.read_out(Form::Commands, sink),
            Verb::Pause => self.pause(Pause::Paused)?,
            Verb::Resume => self.pause(Pause::Running)?,
            Verb::Rate(rate) => {
                let kept = self.kept_for_change()?;
                let wishes = kept.load().unwrap_or_default();
                self.said(kept.save(crate::replay::Wishes { rate, ..wishes }))?;
                json!({"rate": route::rate_text(rate)})
            }
            Verb::DropBacklog => {
                let mut journal = self.journal_for_change()?;
                let moved = self.said(journal.drop_backlog())?;
                self.said(journal.close())?;
                json!({"dropped_records": moved.records, "dropped_bytes": moved.bytes})
            }
            Verb::Letters => return self.letters(sink),
            Verb::Letter { seq } => {
                let letters = self.which(&mut self.journal()?, Which::One(seq), 0)?;
                let letter = letters.first().ok_or_else(no_letter)?;
                json!(record::letter(letter, Detail::Whole))
            }
            Verb::Retry(which) => json!({"retried": self.retry(which)?}),
            Verb::DropLetters(which) => json!({"dropped": self.drop_letters(which)?}),
        };
        Ok(sink.write_all(record::line(&value).as_bytes())?)
    }

    fn queue_status(&self) -> Result<Value, VerbError> {
        let journal = self.journal()?;
        let wishes = self.said(Kept::new(&self.dir).load())?;
        let mut status = json!(QueueStatus {
            paused: wishes.pause == Pause::Paused,
            rate_max: wishes.rate.max(None),
            ..QueueStatus::of(&journal.status())
        });
        // They count since a start.
        status["acknowledged_total"] = Value::Null;
        status["replayed_total"] = Value::Null;
        let users = journal.waiting_names().into_iter().map(|waiting| waiting.name);
        let users = users.map(|name| String::from_utf8_lossy(&name).into_owned());
        status["identities_waiting"] = users.collect();
        Ok(status)
    }

    fn read_out(&self, form: Form, sink: &mut dyn Write) -> Result<(), VerbError> {
        let mut journal = self.journal()?;
        let clocks = Clocks {
            wall_ms: wall_ms(),
            // Nobody has asked the upstream for its time.
            offset_ms: 0,
        };
        let numbers = journal.status();
        let mut queue = InOrder::new(numbers.replayed_seq, numbers.last_seq);
        let mut left = form.records_max();
        let mut db = None;
        while left > 0 {
            match queue.wants() {
                Some(Wanted::Records { after_seq }) => {
                    let records = journal.read(after_seq, left.min(PAGE_RECORDS), PAGE_BYTES);
                    queue.feed_records(self.said(records)?);
                }
                Some(Wanted::Entry { after_key }) => {
                    queue.feed_entry(self.said(journal.waiting_entry(after_key, None))?)
                }
                None => {
                    let page = page(&mut queue, &mut left, form, clocks, &mut db).map_err(VerbError::Refused)?;
                    if page.is_empty() {
                        break;
                    }
                    sink.write_all(&page)?;
                }
            }
        }
        Ok(())
    }

    fn pause(&self, pause: Pause) -> Result<Value, VerbError> {
        let kept = self.kept_for_change()?;
        let wishes = kept.load().unwrap_or_default();
        self.said(kept.save(crate::replay::Wishes { pause, ..wishes }))?;
        Ok(json!({"paused": pause == Pause::Paused}))
    }

    fn letters(&self, sink: &mut dyn Write) -> Result<(), VerbError> {
        let mut journal = self.journal()?;
        let mut after_seq = 0;
        loop {
            let letters = self.which(&mut journal, Which::All, after_seq)?;
            let Some(last) = letters.last() else { return Ok(()) };
            after_seq = last.seq;
            for letter in &letters {
                sink.write_all(record::line(&record::letter(letter, Detail::Summary)).as_bytes())?;
            }
        }
    }

    /// Puts letters behind the backlog; a crash in between leaves both.
    fn retry(&self, which: Which) -> Result<u64, VerbError> {
        self.for_each(which, |journal, letter| {
            let (wall_ms, mono_ms) = times(letter);
            journal
                .append(&mut std::iter::once(&letter.payload[..]), wall_ms, mono_ms)
                .map_err(|error| error.to_string())?;
            journal.sync().map_err(|error| error.to_string())?;
            journal.drop_dead_letter(letter.seq).map_err(|error| error.to_string())
        })
    }

    fn drop_letters(&self, which: Which) -> Result<u64, VerbError> {
        self.for_each(which, |journal, letter| {
            journal.drop_dead_letter(letter.seq).map_err(|error| error.to_string())
        })
    }

    fn for_each(
        &self,
        which: Which,
        mut act: impl FnMut(&mut Journal<DiskStorage>, &DeadLetter) -> Result<bool, String>,
    ) -> Result<u64, VerbError> {
        let mut journal = self.journal_for_change()?;
        let (mut done, mut after_seq) = (0, 0);
        loop {
            let letters = self.which(&mut journal, which, after_seq)?;
            let Some(last) = letters.last() else { break };
            after_seq = last.seq;
            for letter in &letters {
                done += u64::from(act(&mut journal, letter).map_err(|error| at(&self.dir, &error))?);
            }
        }
        self.said(journal.close())?;
        match which {
            Which::One(_) if done == 0 => Err(no_letter()),
            Which::One(_) | Which::All => Ok(done),
        }
    }

    /// The next of the letters that are meant.
    fn which<S: Storage>(
        &self,
        journal: &mut Journal<S>,
        which: Which,
        after_seq: u64,
    ) -> Result<Vec<DeadLetter>, VerbError> {
        match which {
            Which::All => self.said(journal.dead_letters_after(after_seq, PAGE_LETTERS)),
            Which::One(seq) if seq <= after_seq => Ok(Vec::new()),
            Which::One(seq) => {
                let mut letters = self.said(journal.dead_letters_after(seq - 1, 1))?;
                letters.retain(|letter| letter.seq == seq);
                Ok(letters)
            }
        }
    }

    /// To look at.
    fn journal(&self) -> Result<Journal<Overlay<DiskStorage>>, VerbError> {
        let storage = self.said(DiskStorage::reading(self.dir.join("journal")))?;
        self.open(Overlay::new(storage))
    }

    /// To change, under the lock.
    fn journal_for_change(&self) -> Result<Journal<DiskStorage>, VerbError> {
        self.is_ours()?;
        let storage = self.said(DiskStorage::new(self.dir.join("journal")))?;
        self.open(storage)
    }

    fn open<S: Storage>(&self, storage: S) -> Result<Journal<S>, VerbError> {
        match Journal::open(storage, SETTINGS, random_id(), wall_ms()) {
            Ok((journal, _)) => Ok(journal),
            Err(OpenError::Locked) => Err(self.is_held()),
            Err(error) => Err(at(&self.dir, &error)),
        }
    }

    fn kept_for_change(&self) -> Result<Kept, VerbError> {
        self.is_ours()?;
        let mut storage = self.said(DiskStorage::reading(self.dir.join("journal")))?;
        match storage.lock() {
            Ok(()) => Ok(Kept::new(&self.dir)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(self.is_held()),
            Err(error) => Err(at(&self.dir, &error)),
        }
    }

    fn is_held(&self) -> VerbError {
        at(
            &self.dir,
            &"a running tideover holds it: ask that one (the same command without --data-dir)",
        )
    }

    /// Files of another user's making would keep tideover from starting.
    fn is_ours(&self) -> Result<(), VerbError> {
        let owner = self.said(fs::metadata(&self.dir))?.uid();
        if owner == rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        let why = format!("it belongs to user {owner}: run this as that user (sudo -u '#{owner}' …)");
        Err(at(&self.dir, &why))
    }

    fn said<T>(&self, result: Result<T, impl std::fmt::Display>) -> Result<T, VerbError> {
        result.map_err(|error| at(&self.dir, &error))
    }
}

fn at(dir: &Path, why: &dyn std::fmt::Display) -> VerbError {
    VerbError::Refused(format!("{}: {why}", dir.display()))
}

fn no_letter() -> VerbError {
    VerbError::Refused("no dead letter has this number".to_owned())
}
