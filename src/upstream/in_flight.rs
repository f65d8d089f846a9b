//! What the loss of a connection means for the requests on it.

/// What the loss of a connection means for a request on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlight {
    /// May be sent again.
    Read,
    /// Sent again already.
    ReadAgain,
    /// May have been applied.
    Write,
    /// Queued in a MULTI, or about one: EXEC has the last word on it.
    Queued,
}

/// What becomes of a request whose connection died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A read that may be sent again: it is routed again.
    Again,
    /// What may not be sent again and changed nothing: a read, or a command queued in a transaction.
    Neutral,
    /// A write that may have been applied.
    Uncertain,
}

impl From<crate::command::InFlight> for InFlight {
    fn from(class: crate::command::InFlight) -> Self {
        match class {
            crate::command::InFlight::Read => Self::Read,
            crate::command::InFlight::Write => Self::Write,
        }
    }
}

/// A read that has been sent again is not sent a third time.
#[must_use]
pub fn again(class: InFlight) -> InFlight {
    match class {
        InFlight::Read | InFlight::ReadAgain => InFlight::ReadAgain,
        InFlight::Write => InFlight::Write,
        InFlight::Queued => InFlight::Queued,
    }
}
