//! Expiries as Redis checks them, and as absolute times.

use super::parse::integer;
use super::refusal::ArgumentError;

/// EX, PX, EXAT or PXAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpiryOption {
    Ex,
    Px,
    Exat,
    Pxat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeUnit {
    Milliseconds,
    Seconds,
}

/// When something expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Milliseconds from now.
    After(i64),
    /// An absolute time: kept as the client wrote it.
    At,
}

impl ExpiryOption {
    pub(super) fn parse(word: &[u8]) -> Option<Self> {
        [
            (b"EX".as_slice(), Self::Ex),
            (b"PX", Self::Px),
            (b"EXAT", Self::Exat),
            (b"PXAT", Self::Pxat),
        ]
        .into_iter()
        .find_map(|(name, option)| word.eq_ignore_ascii_case(name).then_some(option))
    }

    /// As Redis's `getExpireMillisecondsOrReply`: positive, and representable in milliseconds since 1970.
    pub(super) fn expiry(self, value: &[u8], wall_ms: u64) -> Result<Expiry, ArgumentError<'static>> {
        let n = integer(value).ok_or(ArgumentError::NotInteger)?;
        let ms = match self {
            Self::Ex | Self::Exat => n.checked_mul(1_000),
            Self::Px | Self::Pxat => Some(n),
        };
        let ms = ms.filter(|ms| *ms > 0).ok_or(ArgumentError::ExpireTime)?;
        match self {
            Self::Exat | Self::Pxat => Ok(Expiry::At),
            Self::Ex | Self::Px => fits_after(ms, wall_ms).map(|()| Expiry::After(ms)),
        }
    }
}

/// As EXPIRE and PEXPIRE check their argument: negative is allowed, overflow is not.
pub(super) fn after_ms(value: &[u8], unit: TimeUnit, wall_ms: u64) -> Result<i64, ArgumentError<'static>> {
    let n = integer(value).ok_or(ArgumentError::NotInteger)?;
    let ms = match unit {
        TimeUnit::Seconds => n.checked_mul(1_000).ok_or(ArgumentError::ExpireTime)?,
        TimeUnit::Milliseconds => n,
    };
    fits_after(ms, wall_ms).map(|()| ms)
}

fn fits_after(ms: i64, wall_ms: u64) -> Result<(), ArgumentError<'static>> {
    let wall_ms = i64::try_from(wall_ms).unwrap_or(i64::MAX);
    ms.checked_add(wall_ms).map(|_| ()).ok_or(ArgumentError::ExpireTime)
}
