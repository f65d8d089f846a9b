//! Why a record is a dead letter.

use crate::breaker::ErrorClass;

/// What letters say of [`DeadLetterReason::TooOld`].
pub(super) const TOO_OLD: &str = "older than queue.max_age";
/// What letters say of [`DeadLetterReason::Unreadable`].
pub(super) const UNREADABLE: &str = "the record cannot be read by this version";

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterReason {
    TooOld,
    /// By this version.
    Unreadable,
    /// The key was read neutrally, and holds something that this backlog did not put there.
    WouldOverwriteUnseen,
    /// The key that it needs does not exist any more.
    KeyGone,
    NoPermission,
    /// The upstream does not have its database.
    BadDatabase,
    /// Its marker is gone, and it may have been applied.
    MarkerLost,
    /// The upstream had it and lost it, and live writes have run since.
    LostByFailover,
    IdTooSmall,
    WrongType,
    /// The upstream's error says why.
    Refused,
}

impl DeadLetterReason {
    pub const ALL: [Self; 11] = [
        Self::TooOld,
        Self::Unreadable,
        Self::WouldOverwriteUnseen,
        Self::KeyGone,
        Self::NoPermission,
        Self::BadDatabase,
        Self::MarkerLost,
        Self::LostByFailover,
        Self::IdTooSmall,
        Self::WrongType,
        Self::Refused,
    ];

    /// As metrics and dead letters have it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TooOld => "too_old",
            Self::Unreadable => "unreadable",
            Self::WouldOverwriteUnseen => "would_overwrite_unseen",
            Self::KeyGone => "key_gone",
            Self::NoPermission => "no_permission",
            Self::BadDatabase => "bad_database",
            Self::MarkerLost => "marker_lost",
            Self::LostByFailover => "lost_by_failover",
            Self::IdTooSmall => "id_too_small",
            Self::WrongType => "wrong_type",
            Self::Refused => "refused",
        }
    }

    /// Of a command that drew this error.
    pub(super) fn of(class: ErrorClass, error: &str) -> Self {
        match class {
            ErrorClass::Permission => Self::NoPermission,
            ErrorClass::XaddIdTooSmall => Self::IdTooSmall,
            ErrorClass::Application if error.starts_with("WRONGTYPE") => Self::WrongType,
            ErrorClass::NotExecuted(_)
            | ErrorClass::Transient(_)
            | ErrorClass::Identity
            | ErrorClass::ProtectedMode
            | ErrorClass::Redirected
            | ErrorClass::AlreadyThere
            | ErrorClass::Discarded
            | ErrorClass::Protocol
            | ErrorClass::Application => Self::Refused,
        }
    }
}
