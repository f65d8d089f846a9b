//! Before the first batch: has the upstream lost records that it had confirmed (a failover, the tail of an AOF)? Then they are backlog again.

use std::collections::BTreeMap;

use super::batch::{bulk_text, command, marker, text_of_error, watch};
use super::dead_letter::DeadLetterReason;
use super::line::trouble_of;
use super::resume::{Continuity, Decision, Local, Marker, Server, There, continuity, decide};
use super::run::{Place, Run, Stop};
use super::source::ask;
use crate::breaker::ErrorClass;
use crate::journal::{Checkpoint, Incarnation, Record, ReplayedError};
use crate::outage::effect::EffectKind;
use crate::outage::payload::decode;
use crate::upstream::clock::wall_ms;
use crate::upstream::dial::value_of;

const READ_RECORDS_MAX: usize = 2048;
const READ_BYTES_MAX: usize = 4 << 20;

/// What a review found to be done again, by database.
#[derive(Clone, Copy, Debug)]
struct Again {
    to_seq: u64,
    absolute_only_upto_seq: u64,
}

/// Reads `INFO replication`.
pub(super) fn server(run_id: Option<&str>, info: &str) -> Server {
    let number = |key| value_of(info, key, '\n').and_then(|text| text.parse().ok());
    let text = |key| value_of(info, key, '\n').unwrap_or_default();
    Server {
        run_id: run_id.unwrap_or_default().to_owned(),
        replid: text("master_replid:"),
        replid2: text("master_replid2:"),
        second_offset: number("second_repl_offset:").unwrap_or(-1),
        offset: number("master_repl_offset:").unwrap_or_default(),
        replicas: number("connected_slaves:")
            .and_then(|n| n.try_into().ok())
            .unwrap_or_default(),
    }
}

impl Run<'_> {
    /// See the module.
    pub(super) async fn review(&mut self) -> Result<(), Stop> {
        let owner = &self.replay.owner;
        let checkpoint = ask(|reply| owner.checkpoint(reply)).await?.unwrap_or_default();
        self.replay.live_since_seq.get_or_insert(checkpoint.seq);
        self.acked_seq = checkpoint.seq;
        self.reviewed_seq = checkpoint.seq;
        if self.url.connection().is_none() {
            // The upstream asks a password that nobody has said yet: it tells nothing.
            return Ok(());
        }
        let now = self.read_server().await?;
        let continuity = continuity(&checkpoint.mark, &now);
        self.server = now;
        if checkpoint.seq == 0 || continuity == Continuity::Same {
            return Ok(());
        }
        let mut kept: BTreeMap<u32, u64> = BTreeMap::new();
        let mut after_seq = 0;
        while let Some(records) = self.read_confirmed(after_seq, &checkpoint).await? {
            for record in records {
                after_seq = record.seq;
                if let Ok(payload) = decode(&record.payload)
                    && !self.went_aside(&payload, record.seq).await?
                {
                    kept.insert(payload.db(), record.seq);
                }
            }
        }
        let mut again: BTreeMap<u32, Again> = BTreeMap::new();
        for (db, acked_here_seq) in kept {
            match self.look(db, acked_here_seq, &checkpoint, continuity).await? {
                Decision::Done { upto_seq } => {
                    self.places.insert(db, Place::done(upto_seq));
                }
                Decision::Rewind {
                    to_seq,
                    absolute_only_upto_seq,
                } => {
                    self.places.insert(db, Place::done(to_seq));
                    again.insert(
                        db,
                        Again {
                            to_seq,
                            absolute_only_upto_seq,
                        },
                    );
                }
                Decision::Foreign(foreign) => return Err(Stop::Halt(foreign.text().to_owned())),
            }
        }
        self.rewind(&checkpoint, &again).await
    }

    async fn rewind(&mut self, checkpoint: &Checkpoint, again: &BTreeMap<u32, Again>) -> Result<(), Stop> {
        let Some(to_seq) = again.values().map(|again| again.to_seq).min() else {
            return Ok(());
        };
        tracing::warn!(
            upstream = self.replay.shared.target.name,
            to_seq,
            from_seq = checkpoint.seq,
            "the upstream has lost confirmed writes: they are replayed again"
        );
        // Durable before the rewind, so that a crash in between cannot apply them again.
        let mut after_seq = to_seq;
        while let Some(records) = self.read_confirmed(after_seq, checkpoint).await? {
            for record in &records {
                after_seq = record.seq;
                let went_aside = match decode(&record.payload) {
                    Ok(payload) => self.went_aside(&payload, record.seq).await?,
                    Err(_) => false,
                };
                if !went_aside && is_lost_for_good(record, again) {
                    self.bury(
                        record,
                        DeadLetterReason::LostByFailover,
                        "the upstream lost it, and live writes have run since",
                    )
                    .await?;
                }
            }
        }
        let owner = &self.replay.owner;
        match ask(|reply| owner.rewind(to_seq, reply)).await? {
            Ok(_) => {
                self.acked_seq = to_seq;
                Ok(())
            }
            // The upstream lost what it had confirmed, as it does without us: that must not keep everything else waiting.
            Err(ReplayedError::Io(error)) => {
                tracing::error!(
                    upstream = self.replay.shared.target.name,
                    %error,
                    "the journal cannot be rewound: writes that the upstream lost after it had confirmed them are not replayed again"
                );
                self.places.clear();
                Ok(())
            }
            Err(error) => Err(Stop::Halt(format!("the journal cannot be rewound: {error}"))),
        }
    }

    /// The next records that are confirmed and kept; nothing after the last.
    async fn read_confirmed(&self, after_seq: u64, checkpoint: &Checkpoint) -> Result<Option<Vec<Record>>, Stop> {
        let owner = &self.replay.owner;
        let mut records = ask(|reply| owner.read(after_seq, READ_RECORDS_MAX, READ_BYTES_MAX, reply))
            .await?
            .map_err(|error| Stop::Halt(error.to_string()))?;
        records.retain(|record| record.seq <= checkpoint.seq);
        Ok((!records.is_empty()).then_some(records))
    }

    /// Reads one database's marker and decides.
    async fn look(
        &mut self,
        db: u32,
        acked_here_seq: u64,
        checkpoint: &Checkpoint,
        continuity: Continuity,
    ) -> Result<Decision, Stop> {
        let mut request = Vec::new();
        command(&mut request, &[b"SELECT", db.to_string().as_bytes()]);
        watch(&mut request, &self.replay.marker_key);
        command(&mut request, &[b"DBSIZE"]);
        self.url.db = None;
        let replies = self.url.ask(&request, 4).await?;
        let [selected, watched, got, keys] = replies.as_slice() else {
            return Err(Stop::Halt("an incomplete answer".to_owned()));
        };
        let marker = match text_of_error(selected).map_or_else(|| marker(watched, got), Err) {
            Ok(marker) => marker,
            // Without the right to look nothing is known to be lost.
            Err(error) if ErrorClass::of(error.as_bytes()) == ErrorClass::Permission => {
                return Ok(Decision::Done {
                    upto_seq: checkpoint.seq,
                });
            }
            Err(error) => return Err(refused(&error)),
        };
        let keys = std::str::from_utf8(keys)
            .ok()
            .and_then(|text| text.strip_prefix(':')?.trim_end().parse().ok());
        let incarnation = self.incarnation_of(marker);
        let local = Local {
            acked_seq: checkpoint.seq,
            acked_here_seq: Some(acked_here_seq),
            last_seq: self.last_seq().await?,
            live_since_seq: self.replay.live_since_seq.unwrap_or(checkpoint.seq),
            acked_age_ms: wall_ms().saturating_sub(checkpoint.wall_ms),
        };
        let there = There {
            marker,
            incarnation,
            continuity,
            // Where it may not be asked, the database is not taken for empty.
            keys: keys.unwrap_or(1),
        };
        let decision = decide(local, there);
        if continuity == Continuity::Untold
            && matches!(decision, Decision::Done { upto_seq } if !matches!(marker, Marker::At { seq, .. } if seq == upto_seq))
        {
            tracing::warn!(
                upstream = self.replay.shared.target.name,
                db,
                "the marker is not where it was left, and the upstream does not say whether it is the same: nothing is replayed again"
            );
        }
        Ok(decision)
    }

    pub(super) fn incarnation_of(&self, marker: Marker) -> Incarnation {
        match marker {
            Marker::At { name, seq } => self.incarnations.judge(name, seq),
            Marker::Absent | Marker::Garbage => Incarnation::Unknown,
        }
    }

    /// The marker that says that records up to this one are done.
    pub(super) fn marker_at(&self, seq: u64) -> Marker {
        let name = self.incarnations.name_of(seq);
        Marker::At { name, seq }
    }

    pub(super) async fn last_seq(&self) -> Result<u64, Stop> {
        let owner = &self.replay.owner;
        Ok(ask(|reply| owner.status(reply)).await?.journal.last_seq)
    }

    pub(super) async fn read_server(&mut self) -> Result<Server, Stop> {
        let mut request = Vec::new();
        command(&mut request, &[b"INFO", b"replication"]);
        let replies = self.url.ask(&request, 1).await?;
        let info = replies.first().map(|reply| bulk_text(reply)).unwrap_or_default();
        Ok(server(self.run_id.as_deref(), &info))
    }
}

/// Whether a record was lost and must not be applied again.
fn is_lost_for_good(record: &Record, again: &BTreeMap<u32, Again>) -> bool {
    decode(&record.payload).is_ok_and(|payload| {
        payload.kind() == EffectKind::Relative
            && again
                .get(&payload.db())
                .is_some_and(|again| record.seq > again.to_seq && record.seq <= again.absolute_only_upto_seq)
    })
}

/// What an error to a question of ours means: nothing was written.
pub(super) fn refused(error: &str) -> Stop {
    use crate::breaker::ReplayEffect;
    let class = ErrorClass::of(error.as_bytes());
    match class.replay_effect() {
        ReplayEffect::Retry => Stop::Upstream(trouble_of(class)),
        ReplayEffect::Stall | ReplayEffect::DeadLetter | ReplayEffect::Halt | ReplayEffect::Done => {
            Stop::Halt(error.to_owned())
        }
    }
}
