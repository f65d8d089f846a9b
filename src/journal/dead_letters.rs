//! Records that the upstream refused for good, each an entry of a log of its own.

use std::io;

use bytes::Bytes;

use super::Journal;
use super::format::u32_at;
use super::keyed_log::{Entry, Names};
use super::storage::Storage;
use super::types::DeadLetter;

pub(super) const NAMES: Names = Names {
    file: "dead-letters",
    temporary: "dead-letters.tmp",
    corrupt: "dead-letters.corrupt",
    magic: b"TIDEDEAD",
};

impl<S: Storage> Journal<S> {
    /// Keeps a record that the upstream refused for good, durably. `false` when it is kept already.
    ///
    /// # Errors
    /// It may or may not be kept; asking again is safe.
    pub fn dead_letter(&mut self, letter: &DeadLetter) -> io::Result<bool> {
        if self.letters.contains(letter.seq) {
            return Ok(false);
        }
        self.letters.add(&self.storage, &[entry(letter)?])?;
        Ok(true)
    }

    /// All dead letters, by number. Prefer [`Journal::dead_letters_after`] where there may be many.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn dead_letters(&mut self) -> io::Result<Vec<DeadLetter>> {
        self.dead_letters_after(0, usize::MAX)
    }

    /// The next dead letters by number.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn dead_letters_after(&mut self, after_seq: u64, letters_max: usize) -> io::Result<Vec<DeadLetter>> {
        let seqs = self.letters.seqs_after(after_seq).take(letters_max);
        seqs.map(|seq| {
            let (wall_ms, payload) = self.letters.read(seq)?;
            let letter = parse(seq, wall_ms, &payload);
            letter.ok_or_else(|| io::ErrorKind::InvalidData.into())
        })
        .collect()
    }

    /// Gives up a dead letter, durably. `false` when there is none of that number.
    ///
    /// # Errors
    /// It may or may not be kept; asking again is safe.
    pub fn drop_dead_letter(&mut self, seq: u64) -> io::Result<bool> {
        Ok(self.letters.drop_entries(&self.storage, &[seq])? > 0)
    }
}

/// The entry of a letter.
pub(super) fn entry(letter: &DeadLetter) -> io::Result<Entry> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let (reason, error) = (letter.reason.as_bytes(), letter.error.as_bytes());
    let mut payload = u32::try_from(reason.len()).map_err(too_long)?.to_le_bytes().to_vec();
    payload.extend_from_slice(&u32::try_from(error.len()).map_err(too_long)?.to_le_bytes());
    for part in [reason, error, &letter.payload] {
        payload.extend_from_slice(part);
    }
    Ok(Entry {
        seq: letter.seq,
        wall_ms: letter.wall_ms,
        payload,
    })
}

fn parse(seq: u64, wall_ms: u64, payload: &Bytes) -> Option<DeadLetter> {
    let reason_end = 8usize.checked_add(u32_at(payload, 0)? as usize)?;
    let error_end = reason_end.checked_add(u32_at(payload, 4)? as usize)?;
    let text = |range| Some(String::from_utf8_lossy(payload.get(range)?).into_owned());
    let (reason, error) = (text(8..reason_end)?, text(reason_end..error_end)?);
    Some(DeadLetter {
        seq,
        wall_ms,
        reason,
        error,
        payload: payload.slice(error_end..),
    })
}
