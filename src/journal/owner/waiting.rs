//! Requests about records that wait for their identity.

use std::io;

use super::super::{Journal, Record, Storage, WaitingEntry, WaitingName};
use super::inbox::{OwnerHandle, Reply, Request, Unsent};

pub(super) enum WaitingRequest {
    SetAside {
        name: Vec<u8>,
        records: Vec<Record>,
        reply: Reply<io::Result<()>>,
    },
    Names(Reply<Vec<WaitingName>>),
    Entry {
        after_key: u64,
        name: Option<Vec<u8>>,
        reply: Reply<io::Result<Option<WaitingEntry>>>,
    },
    Begin {
        key: u64,
        reply: Reply<io::Result<()>>,
    },
    Drop {
        key: u64,
        reply: Reply<io::Result<bool>>,
    },
    Age {
        before_wall_ms: u64,
        reason: &'static str,
        error: &'static str,
        reply: Reply<io::Result<u64>>,
    },
}

/// `failed` counts the writes and reads that failed.
pub(super) fn answer<S: Storage>(journal: &mut Journal<S>, failed: &mut u64, request: WaitingRequest) {
    match request {
        WaitingRequest::SetAside { name, records, reply } => say(reply, failed, journal.set_aside(&name, &records)),
        WaitingRequest::Names(reply) => reply(journal.waiting_names()),
        WaitingRequest::Entry { after_key, name, reply } => {
            say(reply, failed, journal.waiting_entry(after_key, name.as_deref()));
        }
        WaitingRequest::Begin { key, reply } => say(reply, failed, journal.begin_waiting(key)),
        WaitingRequest::Drop { key, reply } => say(reply, failed, journal.drop_waiting(key)),
        WaitingRequest::Age {
            before_wall_ms,
            reason,
            error,
            reply,
        } => say(reply, failed, journal.age_waiting(before_wall_ms, reason, error)),
    }
}

/// Replies, and counts what failed.
pub(super) fn say<T>(reply: Reply<io::Result<T>>, failed: &mut u64, outcome: io::Result<T>) {
    *failed += u64::from(outcome.is_err());
    reply(outcome);
}

/// Records that wait for their identity. All fail with [`Unsent`] when the request was not taken.
#[allow(clippy::missing_errors_doc, reason = "the one error is explained above")]
impl OwnerHandle {
    /// Records of one name, in order, wait from now on; durable at the reply.
    pub fn set_aside(&self, name: Vec<u8>, records: Vec<Record>, reply: Reply<io::Result<()>>) -> Result<(), Unsent> {
        self.request(Request::Waiting(WaitingRequest::SetAside { name, records, reply }))
    }

    /// Who waits, and which records.
    pub fn waiting_names(&self, reply: Reply<Vec<WaitingName>>) -> Result<(), Unsent> {
        self.request(Request::Waiting(WaitingRequest::Names(reply)))
    }

    /// The first entry after number `after_key`, of `name` or of anybody.
    pub fn waiting_entry(
        &self,
        after_key: u64,
        name: Option<Vec<u8>>,
        reply: Reply<io::Result<Option<WaitingEntry>>>,
    ) -> Result<(), Unsent> {
        self.request(Request::Waiting(WaitingRequest::Entry { after_key, name, reply }))
    }

    /// Records of an entry may be applied from now on; durable at the reply.
    pub fn begin_waiting(&self, key: u64, reply: Reply<io::Result<()>>) -> Result<(), Unsent> {
        self.request(Request::Waiting(WaitingRequest::Begin { key, reply }))
    }

    /// An entry has been replayed, and goes; `false` where it stays, since the checkpoint has yet to pass it.
    pub fn drop_waiting(&self, key: u64, reply: Reply<io::Result<bool>>) -> Result<(), Unsent> {
        self.request(Request::Waiting(WaitingRequest::Drop { key, reply }))
    }

    /// Makes dead letters of one entry whose records were all accepted before; says of how many.
    pub fn age_waiting(
        &self,
        before_wall_ms: u64,
        reason: &'static str,
        error: &'static str,
        reply: Reply<io::Result<u64>>,
    ) -> Result<(), Unsent> {
        self.request(Request::Waiting(WaitingRequest::Age {
            before_wall_ms,
            reason,
            error,
            reply,
        }))
    }
}
