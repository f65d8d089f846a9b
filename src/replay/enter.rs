//! Before a group's first batch: a connection as its user, its database selected, the right to MULTI and the marker, the marker watched.

use super::batch::{Group, command, marker, text_of_error, watch};
use super::dead_letter::DeadLetterReason;
use super::line::{Line, trouble_of_dial};
use super::resume::{Continuity, Decision, Local, Marker, There, decide};
use super::review::refused;
use super::run::{Place, Run, Stop};
use crate::breaker::{ErrorClass, Failure, ReplayEffect, Transient, Trouble};
use crate::upstream::clock::mono_ms;
use crate::upstream::connections::Connection;
use crate::upstream::dial::{DialError, Handshake, dial};
use crate::upstream::rights::ReplayRights;
use crate::upstream::settings::Credentials;

/// What came of making ready for a group's records.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    Ready,
    /// The user cannot have this database: records become dead letters.
    Refused {
        reason: DeadLetterReason,
        error: String,
    },
    /// The user has no right to MULTI or the marker.
    WithoutMarker,
    /// The user's credentials are not known, or not accepted any more.
    Waits,
}

impl Run<'_> {
    pub(super) fn line(&mut self, group: &Group) -> &mut Line {
        match &mut self.named {
            Some((identity, line)) if *identity == group.identity => line,
            Some(_) | None => &mut self.url,
        }
    }

    /// Selects the database and watches the marker, as the group's user.
    pub(super) async fn enter(&mut self, group: &Group) -> Result<Entered, Stop> {
        if self.is_behind(&group.identity) {
            if self.is_known(&group.identity) {
                self.drain(&group.identity).await?;
            }
            if self.is_behind(&group.identity) {
                return Ok(Entered::Waits);
            }
        }
        let marker = match self.watched(group).await? {
            Ok(marker) => marker,
            Err(entered) => return Ok(entered),
        };
        self.settle(group, marker).await?;
        self.current = Some(group.clone());
        Ok(Entered::Ready)
    }

    /// The marker, watched as the group's user in the group's database; else why not.
    pub(super) async fn watched(&mut self, group: &Group) -> Result<Result<Marker, Entered>, Stop> {
        self.current = None;
        if self.unentitled.contains(group) {
            return Ok(Err(Entered::WithoutMarker));
        }
        for entered in [self.connect(&group.identity).await?, self.select(group).await?] {
            if entered != Entered::Ready {
                return Ok(Err(entered));
            }
        }
        let Some(marker) = self.watch(group).await? else {
            self.unentitled.insert(group.clone());
            self.note_rights(&group.identity, ReplayRights::Missing);
            return Ok(Err(Entered::WithoutMarker));
        };
        Ok(Ok(marker))
    }

    fn note_rights(&self, identity: &[u8], rights: ReplayRights) {
        let shared = &self.replay.shared;
        let name = String::from_utf8_lossy(identity);
        let user = shared.user_of(&name);
        shared.rights.note(&shared.target.name, user, rights, mono_ms());
    }

    /// Makes sure that the group's database is selected on its line.
    pub(super) async fn select(&mut self, group: &Group) -> Result<Entered, Stop> {
        let line = self.line(group);
        if line.db == Some(group.db) {
            return Ok(Entered::Ready);
        }
        let mut request = Vec::new();
        command(&mut request, &[b"SELECT", group.db.to_string().as_bytes()]);
        let reply = line.ask(&request, 1).await?.pop().unwrap_or_default();
        let Some(error) = text_of_error(&reply) else {
            line.db = Some(group.db);
            return Ok(Entered::Ready);
        };
        match ErrorClass::of(error.as_bytes()).replay_effect() {
            ReplayEffect::DeadLetter => Ok(Entered::Refused {
                reason: if error.starts_with("NOPERM") {
                    DeadLetterReason::NoPermission
                } else {
                    DeadLetterReason::BadDatabase
                },
                error,
            }),
            ReplayEffect::Retry | ReplayEffect::Stall | ReplayEffect::Halt | ReplayEffect::Done => Err(refused(&error)),
        }
    }

    /// WATCH and GET; the first time after making sure that MULTI and the marker are this user's to use. Nothing where they are not.
    async fn watch(&mut self, group: &Group) -> Result<Option<Marker>, Stop> {
        let marker_key = self.marker_key.clone();
        let mut request = Vec::new();
        if !self.entitled.contains(group) {
            command(&mut request, &[b"MULTI"]);
            // Alone: what follows a refused MULTI is executed.
            let reply = self.line(group).ask(&request, 1).await?.pop().unwrap_or_default();
            if let Some(error) = text_of_error(&reply) {
                return without_rights(&error);
            }
            request.clear();
            command(&mut request, &[b"SET", &marker_key, b""]);
            command(&mut request, &[b"DISCARD"]);
            let replies = self.ask_though_held(group, &request, 2).await?;
            // Rights are looked at first: a full server says nothing about them.
            let error = replies.first().and_then(|reply| text_of_error(reply));
            if let Some(error) = error.filter(|error| !is_out_of_memory(error)) {
                return without_rights(&error);
            }
            request.clear();
        }
        watch(&mut request, &marker_key);
        let own = self.ask_own(group, &mut request);
        let replies = self.line(group).ask(&request, 2 + own).await?;
        let [watched, got, own @ ..] = replies.as_slice() else {
            return Err(Stop::Upstream(Trouble::Soft(Failure::Protocol)));
        };
        if let Some(own) = own.first() {
            self.note_own(group, own);
        }
        let marker = match marker(watched, got) {
            Ok(marker) => marker,
            Err(error) => return without_rights(&error),
        };
        self.entitled.insert(group.clone());
        self.note_rights(&group.identity, ReplayRights::Granted);
        Ok(Some(marker))
    }

    /// Brings what is known of a database in line with its marker.
    pub(super) async fn settle(&mut self, group: &Group, marker: Marker) -> Result<(), Stop> {
        let db = group.db;
        let known = self.places.get(&db).copied();
        if known.is_some_and(|place| place.marker == Some(marker)) {
            return Ok(());
        }
        let local = Local {
            acked_seq: known.map_or(self.reviewed_seq, |place| place.done_seq),
            // What was lost has been found by the review.
            acked_here_seq: None,
            last_seq: self.last_seq().await?,
            live_since_seq: 0,
            acked_age_ms: 0,
        };
        let there = There {
            marker,
            incarnation: self.incarnation_of(marker),
            continuity: Continuity::Same,
            keys: 1,
        };
        match decide(local, there) {
            Decision::Done { upto_seq } => {
                if known.is_none_or(|place| place.marker.is_none()) {
                    self.bury_unanswered(group, self.reviewed_seq, upto_seq).await?;
                }
                let place = Place {
                    done_seq: upto_seq,
                    marker: Some(marker),
                };
                self.places.insert(db, place);
                Ok(())
            }
            // With nothing known to be lost there is no rewind.
            Decision::Rewind { .. } => Ok(()),
            Decision::Foreign(foreign) => Err(Stop::Halt(foreign.text().to_owned())),
        }
    }

    /// Makes sure that there is a connection of this user.
    async fn connect(&mut self, identity: &[u8]) -> Result<Entered, Stop> {
        if !identity.is_empty() {
            self.connect_own(identity).await
        } else if self.is_spoken_as_default() {
            Ok(Entered::Ready)
        } else {
            Ok(Entered::Waits)
        }
    }

    /// Who never authenticates is the default user, and nobody else.
    pub(super) fn is_spoken_as_default(&self) -> bool {
        self.spoken_as.as_deref().is_none_or(|user| user == "default")
    }

    /// Makes sure that there is a connection of this user other than the one that came from the probe.
    pub(super) async fn connect_own(&mut self, identity: &[u8]) -> Result<Entered, Stop> {
        if self.named.as_ref().is_some_and(|(named, _)| named == identity) {
            return Ok(Entered::Ready);
        }
        let user = String::from_utf8_lossy(identity).into_owned();
        let credentials = if identity.is_empty() {
            self.replay.shared.target.own_credentials()
        } else {
            match self.credentials(&user) {
                Some(credentials) => Some(credentials),
                None => return Ok(Entered::Waits),
            }
        };
        if let Some((_, line)) = self.named.take() {
            self.unconfirmable |= line.has_written;
        }
        let shared = self.replay.shared.clone();
        let handshake = Handshake::in_own_name(credentials.as_ref(), 0);
        match dial(&shared.target, &handshake).await {
            // Behind one address there may be several servers.
            Ok(dialled)
                if dialled.facts.run_id != self.run_id && dialled.facts.run_id.is_some() && self.run_id.is_some() =>
            {
                Err(Stop::Upstream(Trouble::Soft(Failure::Reset)))
            }
            Ok(dialled) => {
                self.on_file(dialled.connection.clone())?;
                let line = Line::new(dialled.into(), shared.target.timeouts.command);
                self.named = Some((identity.to_vec(), line));
                Ok(Entered::Ready)
            }
            Err(DialError::Refused(error))
                if !identity.is_empty() && ErrorClass::of(error.as_bytes()) == ErrorClass::Identity =>
            {
                if let Some(credentials) = &credentials {
                    shared.known.refused(credentials);
                }
                Ok(Entered::Waits)
            }
            Err(error) => Err(Stop::Upstream(trouble_of_dial(&error))),
        }
    }

    /// Puts a connection on the connection file. It stays there when this catching up fails, so that the next fence proves its end,
    /// also the one of the same generation: hence as if of an earlier process, whose ends no worker reads.
    pub(super) fn on_file(&mut self, connection: Connection) -> Result<(), Stop> {
        let entered = self.replay.shared.connections.enter(0, connection);
        self.tickets
            .push(entered.map_err(|error| Stop::Halt(format!("the connection file: {error}")))?);
        Ok(())
    }

    pub(super) fn credentials(&self, user: &str) -> Option<Credentials> {
        let target = &self.replay.shared.target;
        let of_url = || {
            let own = target.own_credentials();
            own.filter(|credentials| credentials.user.as_deref().unwrap_or("default") == user)
        };
        self.replay.shared.known.live(user).or_else(of_url)
    }
}

/// No rights, or what else an error to the questions about them means.
fn without_rights(error: &str) -> Result<Option<Marker>, Stop> {
    if ErrorClass::of(error.as_bytes()) == ErrorClass::Permission {
        Ok(None)
    } else {
        Err(refused(error))
    }
}

pub(super) fn is_out_of_memory(error: &str) -> bool {
    ErrorClass::of(error.as_bytes()) == ErrorClass::Transient(Transient::Oom)
}
