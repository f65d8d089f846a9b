//! How a link comes up, or why it does not.

use std::rc::Rc;
use std::time::Instant;

use tokio::time::sleep_until;

use super::admit::{NotWanted, stay_behind};
use super::connections::Ticket;
use super::dial::{DialError, Dialled, Facts, Handshake, Opener, Role, dial_counted};
use super::link::{Link, LinkKind, LinkState};
use super::local::Local;
use super::rights;
use super::settings::{Credentials, Identity};
use super::shared::{Shared, Sign};
use super::trouble::unusable;
use crate::breaker::{HardSign, Trouble};

/// Why a link never came up.
pub(super) enum Failure {
    Dial(DialError),
    /// The connection file took no entry.
    NotOnFile,
    /// Abandoned, or of an older generation by now.
    NotWanted,
}

pub(super) async fn open(link: &Rc<Link>, local: &Rc<Local>) -> Result<(Dialled, Ticket), Failure> {
    if let Some(at) = local.dial_not_before() {
        sleep_until(at.into()).await;
    }
    let shared = &local.shared;
    let credentials = shared.credentials(&link.key.identity);
    let own = match &link.key.identity {
        Identity::Url => None,
        Identity::Client(_) => shared.target.own_credentials(),
    };
    // Where it is this one that is refused, it need not be tried twice.
    let default = shared
        .known
        .live("default")
        .filter(|default| credentials.as_ref() != Some(default));
    let handshake = Handshake {
        credentials: credentials.as_ref(),
        opener: opener(shared, &link.key.identity, own.as_ref(), default.as_ref()),
        protocol: link.key.protocol,
        db: link.key.db,
    };
    let dialled = dial_counted(&shared.target, &handshake).await;
    // The generation may have moved on meanwhile; nothing has been sent then, and nothing will be.
    local.look();
    let dialled = dialled.map_err(Failure::Dial)?;
    if !link.is_open() || link.generation != local.generation() {
        return Err(Failure::NotWanted);
    }
    if let Some(sign) = unfit(&dialled.facts, shared) {
        shared.report(sign);
        local.dial_failed();
        return Err(Failure::NotWanted);
    }
    shared.complete_facts(&dialled.facts);
    stay_behind(link, local).await.map_err(|NotWanted| Failure::NotWanted)?;
    let ticket = shared
        .connections
        .enter(link.generation, dialled.connection.clone())
        .map_err(|error| {
            tracing::error!(upstream = shared.target.name, %error, "the connection file cannot be written");
            Failure::NotOnFile
        })?;
    link.client_id.set(dialled.connection.client_id);
    link.refused_exec.set(dialled.facts.refused_exec);
    link.state.set(LinkState::Up);
    wake_watchers(link);
    rights::look(link, shared);
    if link.kind == LinkKind::Lane {
        // Its sessions may need a connection of their own next.
        local.dial_spares(Instant::now());
    }
    Ok((dialled, ticket))
}

/// Sessions that never AUTH open the connections of those that do; where they would be asked for a password, the user `default`, if it has
/// been let in.
pub(super) fn opener<'a>(
    shared: &Shared,
    identity: &Identity,
    own: Option<&'a Credentials>,
    default: Option<&'a Credentials>,
) -> Opener<'a> {
    match identity {
        Identity::Url => Opener::Itself,
        Identity::Client(_) => match (own, default) {
            (None, None) if shared.password_owed() => Opener::Itself,
            (None, Some(_)) if shared.password_owed() => Opener::Url {
                credentials: default,
                default: None,
            },
            (credentials, default) => Opener::Url { credentials, default },
        },
    }
}

/// A server that would refuse everything, or is not the one that was caught up with, gets no application byte.
fn unfit(facts: &Facts, shared: &Shared) -> Option<Sign> {
    let known = shared.facts();
    if matches!((&known.run_id, &facts.run_id), (Some(known), Some(now)) if known != now) {
        return Some(Sign::Replaced);
    }
    if known.role == Role::Master && facts.role == Role::Replica {
        return Some(Sign::Demoted);
    }
    match unusable(facts.ping_error.as_deref()?)? {
        Trouble::Hard(HardSign::Loading) => Some(Sign::Loading),
        Trouble::Hard(HardSign::Masterdown) => Some(Sign::MasterDown),
        _ => Some(Sign::ClusterDown),
    }
}

pub(super) fn wake_watchers(link: &Link) {
    for waker in link.watchers.take() {
        waker.wake();
    }
}

impl Failure {
    pub(super) fn tell(self, link: &Rc<Link>, local: &Rc<Local>) {
        let mut refusal = None;
        match self {
            // Nobody waits for it, and what it says may be its own doing: with the last places at the upstream taken, one less was needed.
            Self::Dial(_) | Self::NotOnFile if link.is_spare() => local.spare_failed(&link.key),
            // Nobody has said the URL's credentials: whether they are still good is for the breaker to find out.
            Self::Dial(error) if error.is_denial() && link.key.identity == Identity::Url => {
                local.dial_failed();
                local.shared.report(Sign::Denied);
            }
            Self::Dial(DialError::PasswordOwed(text) | DialError::Refused(text)) => refusal = Some(text),
            Self::Dial(error) => {
                local.dial_failed();
                if let Some(sign) = error.sign() {
                    local.shared.report(sign);
                }
            }
            Self::NotOnFile => local.dial_failed(),
            Self::NotWanted => {}
        }
        link.refusal.replace(refusal.clone());
        match refusal {
            Some(text) => {
                link.state.set(LinkState::Dead);
                link.deny_all(&text);
            }
            None => link.retire(),
        }
        link.state.set(LinkState::Dead);
        if let Some(owner) = link.owner.take() {
            owner.ended();
        }
        wake_watchers(link);
    }
}
