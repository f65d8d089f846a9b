//! Where replay goes on in one database: a pure decision from the marker, what the journal knows and what the server says of itself.

use crate::journal::{Incarnation, Mark};

/// Records confirmed longer ago than this, with live writes since, are the upstream's own to keep.
pub const RETENTION_MS: u64 = 60_000;

/// The marker as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    Absent,
    /// The name of an incarnation, and the number of one of its records.
    At {
        name: u64,
        seq: u64,
    },
    /// Not of our making.
    Garbage,
}

/// What `INFO replication` and DBSIZE say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    pub run_id: String,
    pub replid: String,
    pub replid2: String,
    pub second_offset: i64,
    pub offset: i64,
    pub replicas: u64,
}

/// What became of the data between the last confirmation and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// The same process with the same history: nothing is lost but what somebody removed.
    Same,
    /// Another process that has everything confirmed.
    Survived,
    /// Another process that branched off before the last confirmation.
    Lost,
    /// Nothing connects the two.
    Broken,
    /// The server does not say who it is (no right to INFO): it may have been another one for long, unnoticed, and written to.
    Untold,
}

/// What the journal knows of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Last record confirmed, in whatever database.
    pub acked_seq: u64,
    /// Last record of this database that is confirmed and still kept; nothing where there is none (or nobody looked, the history being the same).
    pub acked_here_seq: Option<u64>,
    /// Last record in the journal.
    pub last_seq: u64,
    /// Live writes may have run since these were confirmed.
    pub live_since_seq: u64,
    /// How long ago the last confirmation was.
    pub acked_age_ms: u64,
}

/// What the database says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct There {
    pub marker: Marker,
    pub incarnation: Incarnation,
    pub continuity: Continuity,
    /// Keys in the database.
    pub keys: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    Garbage,
    UnknownIncarnation,
    /// Ahead of every record known: another journal with the same name writes it.
    Ahead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Records up to this one are done.
    Done { upto_seq: u64 },
    /// Records of this database after `to_seq` were lost with the server. Relative ones up to `absolute_only_upto_seq` must not be applied again.
    Rewind { to_seq: u64, absolute_only_upto_seq: u64 },
    /// Nothing may be replayed.
    Foreign(Foreign),
}

impl Foreign {
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Garbage => "the marker holds something that is not ours",
            Self::UnknownIncarnation => {
                "the marker is of an incarnation that this journal does not know: another process has replayed a copy of this journal"
            }
            Self::Ahead => "the marker is ahead of every record known: another process replays a copy of this journal",
        }
    }
}

/// The marker's value for a record's number and the name of its incarnation.
pub fn marker_value(name: u64, seq: u64, out: &mut String) {
    use std::fmt::Write;
    // Writing to a string cannot fail.
    let _ = write!(out, "{name}:{seq}");
}

/// Reads a marker's value.
#[must_use]
pub fn parse_marker(value: &[u8]) -> Marker {
    let parsed = std::str::from_utf8(value).ok().and_then(|text| {
        let (name, seq) = text.split_once(':')?;
        let (name, seq) = (name.parse().ok()?, seq.parse().ok()?);
        Some(Marker::At { name, seq })
    });
    parsed.unwrap_or(Marker::Garbage)
}

/// Compares who confirmed last with who answers now. What is not known counts as different.
#[must_use]
pub fn continuity(mark: &Mark, now: &Server) -> Continuity {
    let same = |a: &str, b: &str| !a.is_empty() && a == b;
    if now.run_id.is_empty() && now.replid.is_empty() {
        return Continuity::Untold;
    }
    let histories_known = !mark.replid.is_empty() && !now.replid.is_empty();
    if same(&mark.run_id, &now.run_id) && (!histories_known || mark.replid == now.replid) {
        Continuity::Same
    } else if same(&mark.replid, &now.replid) {
        if now.offset >= mark.offset {
            Continuity::Survived
        } else {
            Continuity::Lost
        }
    } else if same(&mark.replid, &now.replid2) {
        if mark.offset < now.second_offset {
            Continuity::Survived
        } else {
            Continuity::Lost
        }
    } else {
        Continuity::Broken
    }
}

/// The decision for one database.
#[must_use]
pub fn decide(local: Local, there: There) -> Decision {
    let as_acked = Decision::Done {
        upto_seq: local.acked_seq,
    };
    match there.marker {
        Marker::Garbage => Decision::Foreign(Foreign::Garbage),
        Marker::At { seq, .. } => match there.incarnation {
            Incarnation::Unknown => Decision::Foreign(Foreign::UnknownIncarnation),
            // It would say of records that they are done.
            Incarnation::Forgotten if seq > local.acked_seq => Decision::Foreign(Foreign::UnknownIncarnation),
            Incarnation::Current if seq > local.last_seq => Decision::Foreign(Foreign::Ahead),
            Incarnation::Forgotten | Incarnation::Past | Incarnation::Current => {
                if seq >= local.acked_seq {
                    Decision::Done { upto_seq: seq }
                } else {
                    behind(local, there, seq).unwrap_or(as_acked)
                }
            }
        },
        Marker::Absent => absent(local, there).unwrap_or(as_acked),
    }
}

/// The marker stands before the last confirmation, which may be one of another database's.
fn behind(local: Local, there: There, seq: u64) -> Option<Decision> {
    let acked_here_seq = local.acked_here_seq.filter(|acked| *acked > seq)?;
    match there.continuity {
        // Somebody set it: what is confirmed stays confirmed.
        Continuity::Same => None,
        Continuity::Untold if has_live_ran(local, acked_here_seq) => None,
        Continuity::Survived | Continuity::Lost | Continuity::Broken | Continuity::Untold => {
            rewind(local, acked_here_seq, seq)
        }
    }
}

/// The marker is gone, or was never there.
fn absent(local: Local, there: There) -> Option<Decision> {
    let acked_here_seq = local.acked_here_seq?;
    match there.continuity {
        // Evicted, or flushed on purpose.
        Continuity::Same => None,
        Continuity::Survived if there.keys > 0 => None,
        Continuity::Lost | Continuity::Survived => rewind(local, acked_here_seq, 0),
        Continuity::Broken | Continuity::Untold if there.keys == 0 => rewind(local, acked_here_seq, 0),
        Continuity::Untold if has_live_ran(local, acked_here_seq) => None,
        // It may have been evicted or lost: what can be applied twice is.
        Continuity::Broken if is_over(local, acked_here_seq) => None,
        Continuity::Broken | Continuity::Untold => Some(Decision::Rewind {
            to_seq: 0,
            absolute_only_upto_seq: acked_here_seq,
        }),
    }
}

fn has_live_ran(local: Local, acked_here_seq: u64) -> bool {
    acked_here_seq <= local.live_since_seq
}

/// Whether the records are the upstream's own to keep: confirmed long ago, with live writes since that may have built on them.
fn is_over(local: Local, acked_here_seq: u64) -> bool {
    has_live_ran(local, acked_here_seq) && local.acked_age_ms > RETENTION_MS
}

fn rewind(local: Local, acked_here_seq: u64, to_seq: u64) -> Option<Decision> {
    if is_over(local, acked_here_seq) {
        return None;
    }
    Some(Decision::Rewind {
        to_seq,
        absolute_only_upto_seq: local.live_since_seq.min(acked_here_seq),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Local = Local {
        acked_seq: 100,
        acked_here_seq: Some(90),
        last_seq: 200,
        live_since_seq: 0,
        acked_age_ms: 1000,
    };

    fn at(seq: u64) -> Marker {
        Marker::At { name: 3, seq }
    }

    fn there(marker: Marker, continuity: Continuity) -> There {
        There {
            marker,
            incarnation: Incarnation::Current,
            continuity,
            keys: 5,
        }
    }

    fn check(local: Local, there: There, expected: Decision) {
        assert_eq!(decide(local, there), expected, "{local:?} {there:?}");
    }

    fn done(upto_seq: u64) -> Decision {
        Decision::Done { upto_seq }
    }

    fn back(to_seq: u64, absolute_only_upto_seq: u64) -> Decision {
        Decision::Rewind {
            to_seq,
            absolute_only_upto_seq,
        }
    }

    #[test]
    fn a_marker_ahead_of_the_local_confirmation_is_the_truth() {
        for continuity in [
            Continuity::Same,
            Continuity::Survived,
            Continuity::Lost,
            Continuity::Broken,
        ] {
            check(LOCAL, there(at(100), continuity), done(100));
            check(LOCAL, there(at(150), continuity), done(150));
            check(LOCAL, there(at(200), continuity), done(200));
        }
    }

    #[test]
    fn a_marker_behind_is_a_loss_only_for_records_of_its_database_and_another_history() {
        use Continuity::{Broken, Lost, Same, Survived};
        check(LOCAL, there(at(90), Lost), done(100));
        check(LOCAL, there(at(95), Lost), done(100));
        check(LOCAL, there(at(50), Same), done(100));
        for continuity in [Lost, Broken, Survived] {
            check(LOCAL, there(at(50), continuity), back(50, 0));
        }
        let unseen = Local {
            acked_here_seq: None,
            ..LOCAL
        };
        check(unseen, there(at(50), Lost), done(100));
    }

    #[test]
    fn after_live_writes_only_absolute_records_are_applied_again_and_only_for_a_minute() {
        let live = Local {
            live_since_seq: 100,
            ..LOCAL
        };
        check(live, there(at(50), Continuity::Lost), back(50, 90));
        check(live, there(Marker::Absent, Continuity::Lost), back(0, 90));
        let partly = Local {
            live_since_seq: 70,
            ..LOCAL
        };
        check(partly, there(at(50), Continuity::Lost), back(50, 70));
        let old = Local {
            acked_age_ms: RETENTION_MS + 1,
            ..live
        };
        check(old, there(at(50), Continuity::Lost), done(100));
        for continuity in [Continuity::Lost, Continuity::Broken] {
            check(old, there(Marker::Absent, continuity), done(100));
        }
        let old_but_same_catch_up = Local {
            acked_age_ms: RETENTION_MS + 1,
            ..LOCAL
        };
        check(old_but_same_catch_up, there(at(50), Continuity::Lost), back(50, 0));
    }

    #[test]
    fn an_absent_marker_is_judged_by_the_history() {
        use Continuity::{Broken, Lost, Same, Survived};
        check(LOCAL, there(Marker::Absent, Same), done(100));
        check(LOCAL, there(Marker::Absent, Survived), done(100));
        check(LOCAL, there(Marker::Absent, Lost), back(0, 0));
        check(LOCAL, there(Marker::Absent, Broken), back(0, 90));
        let empty = |continuity| There {
            keys: 0,
            ..there(Marker::Absent, continuity)
        };
        check(LOCAL, empty(Broken), back(0, 0));
        check(LOCAL, empty(Same), done(100));
        let first_time = Local {
            acked_seq: 0,
            acked_here_seq: None,
            ..LOCAL
        };
        for continuity in [Same, Survived, Lost, Broken] {
            check(first_time, there(Marker::Absent, continuity), done(0));
        }
    }

    #[test]
    fn a_server_that_does_not_say_who_it_is_gets_nothing_again_that_live_writes_may_have_replaced() {
        let live = Local {
            live_since_seq: 100,
            ..LOCAL
        };
        let untold = |marker| there(marker, Continuity::Untold);
        check(live, untold(at(50)), done(100));
        check(live, untold(Marker::Absent), done(100));
        check(LOCAL, untold(at(50)), back(50, 0));
        check(LOCAL, untold(Marker::Absent), back(0, 90));
        let empty = There {
            keys: 0,
            ..untold(Marker::Absent)
        };
        check(live, empty, back(0, 90));
        check(LOCAL, empty, back(0, 0));
    }

    #[test]
    fn a_foreign_marker_stops() {
        check(
            LOCAL,
            there(Marker::Garbage, Continuity::Same),
            Decision::Foreign(Foreign::Garbage),
        );
        check(
            LOCAL,
            there(at(201), Continuity::Same),
            Decision::Foreign(Foreign::Ahead),
        );
        let of = |incarnation, seq| There {
            incarnation,
            ..there(at(seq), Continuity::Same)
        };
        check(
            LOCAL,
            of(Incarnation::Unknown, 150),
            Decision::Foreign(Foreign::UnknownIncarnation),
        );
        check(
            LOCAL,
            of(Incarnation::Forgotten, 101),
            Decision::Foreign(Foreign::UnknownIncarnation),
        );
        check(LOCAL, of(Incarnation::Forgotten, 100), done(100));
        check(LOCAL, of(Incarnation::Forgotten, 7), done(100));
        check(LOCAL, of(Incarnation::Past, 201), done(201));
    }

    #[test]
    fn markers_are_read_as_written() {
        let seq = (7 << 32) | 12;
        let mut text = String::new();
        let name = (1 << 53) - 1;
        marker_value(name, seq, &mut text);
        assert_eq!(text, format!("9007199254740991:{seq}"));
        assert_eq!(parse_marker(text.as_bytes()), Marker::At { name, seq });
        for garbage in ["", "7", "7:", "x:1", "7:1:2", "-1:5"] {
            assert_eq!(parse_marker(garbage.as_bytes()), Marker::Garbage, "{garbage}");
        }
    }

    #[test]
    fn histories_are_compared_by_replication_id_and_offset() {
        let mark = Mark {
            run_id: "a".into(),
            replid: "r1".into(),
            offset: 100,
        };
        let check = |run_id: &str, replid: &str, replid2: &str, second_offset, offset, expected| {
            let now = Server {
                run_id: run_id.into(),
                replid: replid.into(),
                replid2: replid2.into(),
                second_offset,
                offset,
                replicas: 0,
            };
            assert_eq!(continuity(&mark, &now), expected, "{now:?}");
        };
        check("a", "r1", "", -1, 100, Continuity::Same);
        check("a", "", "", -1, 0, Continuity::Same);
        check("a", "r2", "r1", 101, 300, Continuity::Survived);
        check("b", "r2", "r1", 101, 300, Continuity::Survived);
        check("b", "r2", "r1", 100, 300, Continuity::Lost);
        check("b", "r1", "", -1, 100, Continuity::Survived);
        check("b", "r1", "", -1, 99, Continuity::Lost);
        check("b", "r2", "0000", -1, 300, Continuity::Broken);
        check("b", "", "", -1, 0, Continuity::Broken);
        check("", "", "", -1, 0, Continuity::Untold);
    }
}
