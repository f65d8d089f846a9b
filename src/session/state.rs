//! What a session has said of itself and begun: the state that a connection of its own to Redis would have.

use super::tracking::{Asked, Tracking};
use super::transaction::Gathered;
use crate::resp::Protocol;
use crate::upstream::link::LinkKey;
use crate::upstream::settings::{Identity, Secret};

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    pub(super) key: LinkKey,
    /// Said with CLIENT SETNAME (or HELLO SETNAME), and CLIENT SETINFO.
    pub(super) name: Option<Vec<u8>>,
    pub(super) library_name: Option<Vec<u8>>,
    pub(super) library_version: Option<Vec<u8>>,
    pub(super) transaction: Transaction,
    /// The database of a SELECT inside the transaction.
    pub(super) selected_in_transaction: Option<u32>,
    pub(super) watch: Watch,
    pub(super) tracking: Option<Tracking>,
    /// Of a CLIENT TRACKING that Redis has not answered.
    pub(super) tracking_asked: Option<Asked>,
    /// The dedicated connection is the session's for good: its identity has been asked for, or it tracks, or monitors.
    pub(super) pinned: Pinned,
    pub(super) admission: Admission,
}

/// Whether the session has given what `client_password` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Granted,
    Owed,
}

/// MULTI.
#[derive(Debug, Default)]
pub(super) enum Transaction {
    #[default]
    None,
    /// Begun while the upstream was down.
    Here(Gathered),
    /// Open on the dedicated connection.
    Upstream,
    /// Its connection died before EXEC: nothing of it was applied, nothing will be.
    Cut,
}

/// WATCH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Watch {
    #[default]
    None,
    Upstream,
    /// The connection that watched died: the next EXEC cannot be judged.
    Lost,
}

/// Whether the session keeps its dedicated connection for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pinned {
    #[default]
    No,
    /// Its ID, its name or its like was asked for: another connection can take its place once this one ended.
    Identity,
    /// It is fed by the connection (MONITOR, CLIENT TRACKING with REDIRECT): it ends with it, as it would at Redis.
    Feed,
}

impl State {
    pub(super) fn new(db: u32, client_password: Option<&Secret>) -> Self {
        Self {
            key: LinkKey {
                db,
                identity: Identity::Url,
                protocol: Protocol::Resp2,
            },
            name: None,
            library_name: None,
            library_version: None,
            transaction: Transaction::None,
            selected_in_transaction: None,
            watch: Watch::None,
            tracking: None,
            tracking_asked: None,
            pinned: Pinned::No,
            admission: client_password.map_or(Admission::Granted, |_| Admission::Owed),
        }
    }
}
