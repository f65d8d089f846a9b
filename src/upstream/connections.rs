//! The connection file: which connections of ours the upstream may still read from. It survives our own crash, so that the next process can fence them.
//!
//! ```text
//! slot 0      "<client id> <address> <run_id>" padded with blanks to SLOT_BYTES - 1, then "\n"
//! slot 1      blank when free
//! …
//! ```
//! A slot is written before the connection carries an application byte and blanked when the connection is proven dead.
//! Slots are blanked in advance, so that a full disk does not keep connections from being made while the upstream is well.
//! Where there is no room for a slot, the file says by its length that connections are not on it: it has not the slots of a new file, or
//! breaks off in one. This process has them in memory and fences them by that; to the next one they are one connection that nothing is known
//! of, whose end nothing proves. All are put on file as soon as there is room.
//! Not synced: it must outlive the process, not the host (whose death also ends the connections).

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SLOT_BYTES: usize = 160;
const SLOTS_MAX: usize = 65_536;
/// Slots that a new file has room for at once.
const SLOTS_READY: usize = 256;
/// So many connections that were reset are asked about at once: one connection, and a look at all its clients for each, is what that costs the
/// upstream.
const RESET_READY: RangeInclusive<usize> = 64..=256;

/// A connection as the upstream knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub client_id: u64,
    /// Our address as the upstream sees it (`CLIENT INFO`, field `addr`); nothing where it does not say.
    pub address: Option<String>,
    /// The upstream process (`INFO server`, field `run_id`); nothing where it does not say.
    pub run_id: Option<String>,
}

/// A connection on the file, with the generation in which it was dialled (0: by an earlier process).
#[derive(Clone, Debug)]
pub struct Entry {
    pub ticket: Ticket,
    pub generation: u64,
    pub connection: Connection,
}

/// Names a connection in its slot; says nothing of the one that has the slot after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    slot: usize,
    /// Unique in its process.
    serial: u64,
}

/// Whether all connections are on the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Extent {
    Whole,
    /// The length says so.
    #[default]
    Partial,
}

#[derive(Debug, Default)]
struct Slots {
    entries: Vec<Option<Entry>>,
    next_serial: u64,
    extent: Extent,
    /// Of connections that ended without a proof, and about which nobody is asked yet.
    reset: Vec<Ticket>,
}

#[derive(Debug)]
pub struct ConnectionFile {
    file: File,
    slots: Mutex<Slots>,
}

impl Slots {
    fn entry(&mut self, slot: usize, generation: u64, connection: Connection) -> Entry {
        let serial = self.next_serial;
        self.next_serial += 1;
        Entry {
            ticket: Ticket { slot, serial },
            generation,
            connection,
        }
    }
}

impl ConnectionFile {
    /// Opens the file; what an earlier process left on it stays there until proven dead.
    ///
    /// # Errors
    /// Those of opening, or reading, the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let was_there = path.try_exists()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let text = std::fs::read(path)?;
        let mut slots = Slots::default();
        for (slot, bytes) in text.chunks(SLOT_BYTES).enumerate() {
            let entry = parse(bytes).map(|connection| slots.entry(slot, 0, connection));
            slots.entries.push(entry);
        }
        if was_there && extent(text.len() as u64) == Extent::Partial {
            let unknown = Connection {
                client_id: 0,
                address: None,
                run_id: None,
            };
            let entry = slots.entry(slots.entries.len(), 0, unknown);
            slots.entries.push(Some(entry));
        }
        let this = Self {
            file,
            slots: Mutex::default(),
        };
        if let Err(error) = this.write_all(&mut slots) {
            tracing::warn!(%error, "the connection file has no room: connections are used that are not on it");
        }
        *this.lock() = slots;
        Ok(this)
    }

    /// Puts all slots on the file, where some are not.
    fn write_all(&self, slots: &mut Slots) -> io::Result<()> {
        if slots.extent == Extent::Whole {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for slot in 0..slots.entries.len().max(SLOTS_READY) {
            match slots.entries.get(slot).and_then(Option::as_ref) {
                Some(entry) => bytes.extend_from_slice(&render(&entry.connection)?),
                None => bytes.extend_from_slice(&blank()),
            }
        }
        if let Err(error) = self.file.write_all_at(&bytes, 0) {
            self.break_off()?;
            return Err(error);
        }
        slots.extent = Extent::Whole;
        Ok(())
    }

    /// Makes the length say that connections are not on the file.
    fn break_off(&self) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        match extent(len) {
            Extent::Partial => Ok(()),
            Extent::Whole => self.file.set_len(len - 1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a connection on the file; only then may it carry application bytes.
    ///
    /// # Errors
    /// When the file can neither hold it nor say so, or is full. The connection must not be used then.
    pub fn enter(&self, generation: u64, connection: Connection) -> io::Result<Ticket> {
        let mut slots = self.lock();
        let end = slots.entries.len();
        let slot = slots.entries.iter().position(Option::is_none).unwrap_or(end);
        if slot >= SLOTS_MAX {
            return Err(io::Error::other("the connection file is full"));
        }
        let bytes = render(&connection)?;
        let written = match slots.extent {
            Extent::Whole => self.file.write_all_at(&bytes, (slot * SLOT_BYTES) as u64),
            Extent::Partial => Ok(()),
        };
        if let Err(error) = written {
            self.break_off()?;
            slots.extent = Extent::Partial;
            tracing::warn!(%error, "the connection file has no room: connections are used that are not on it");
        }
        let entry = slots.entry(slot, generation, connection);
        let ticket = entry.ticket;
        match slots.entries.get_mut(slot) {
            Some(place) => *place = Some(entry),
            None => slots.entries.push(Some(entry)),
        }
        // Until there is room, the length says it.
        drop(self.write_all(&mut slots));
        Ok(ticket)
    }

    /// Takes a connection off the file that is proven dead: the upstream has read all of it that it ever will. Nothing happens
    /// when it was taken off before, whoever has its slot now.
    pub fn closed(&self, ticket: Ticket) {
        let mut slots = self.lock();
        let Some(place) = slots.entries.get_mut(ticket.slot) else {
            return;
        };
        if place.as_ref().is_some_and(|entry| entry.ticket == ticket) {
            *place = None;
            // An entry left behind by a failed write costs the next process one needless proof.
            drop(match slots.extent {
                Extent::Whole => self.file.write_all_at(&blank(), (ticket.slot * SLOT_BYTES) as u64),
                Extent::Partial => self.write_all(&mut slots),
            });
        }
    }

    /// A connection on the file has ended, and not in a way that proves it dead.
    pub fn was_reset(&self, ticket: Ticket) {
        let mut slots = self.lock();
        if slots.reset.len() < SLOTS_MAX {
            slots.reset.push(ticket);
        }
    }

    /// Those that were reset, once they are many; none of them a second time. Forgets those that are off the file.
    #[must_use]
    pub fn take_reset(&self) -> Vec<Entry> {
        let mut slots = self.lock();
        if slots.reset.len() < *RESET_READY.start() {
            return Vec::new();
        }
        let left = slots.reset.len().saturating_sub(*RESET_READY.end());
        let reset = slots.reset.split_off(left);
        let on_file = |ticket: &Ticket| {
            slots
                .entries
                .get(ticket.slot)?
                .clone()
                .filter(|entry| entry.ticket == *ticket)
        };
        reset.iter().filter_map(on_file).collect()
    }

    /// Connections dialled before `generation`.
    #[must_use]
    pub fn older_than(&self, generation: u64) -> Vec<Entry> {
        self.lock()
            .entries
            .iter()
            .flatten()
            .filter(|entry| entry.generation < generation)
            .cloned()
            .collect()
    }

    /// Open connections on the file.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().entries.iter().flatten().count()
    }
}

/// What a file's length says.
fn extent(len: u64) -> Extent {
    let slot = SLOT_BYTES as u64;
    if len.is_multiple_of(slot) && len / slot >= SLOTS_READY as u64 {
        Extent::Whole
    } else {
        Extent::Partial
    }
}

fn blank() -> [u8; SLOT_BYTES] {
    let mut bytes = [b' '; SLOT_BYTES];
    bytes[SLOT_BYTES - 1] = b'\n';
    bytes
}

fn render(connection: &Connection) -> io::Result<[u8; SLOT_BYTES]> {
    let Connection {
        client_id,
        address,
        run_id,
    } = connection;
    let text = format!(
        "{client_id} {} {}",
        address.as_deref().unwrap_or("-"),
        run_id.as_deref().unwrap_or("-")
    );
    let mut bytes = blank();
    match bytes.get_mut(..text.len()) {
        Some(place) if text.len() < SLOT_BYTES => place.copy_from_slice(text.as_bytes()),
        Some(_) | None => return Err(io::Error::other("an address too long for the connection file")),
    }
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Option<Connection> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.split_ascii_whitespace();
    let client_id = words.next()?.parse().ok()?;
    let known = |word: &str| (word != "-").then(|| word.to_owned());
    let address = known(words.next()?);
    let run_id = known(words.next()?);
    Some(Connection {
        client_id,
        address,
        run_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(client_id: u64) -> Connection {
        Connection {
            client_id,
            address: Some("127.0.0.1:40000".into()),
            run_id: Some("a".repeat(40)),
        }
    }

    #[test]
    fn a_connection_survives_the_process_until_it_is_proven_dead() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("connections");
        let file = ConnectionFile::open(&path).unwrap();
        let first = file.enter(1, connection(7)).unwrap();
        file.enter(
            1,
            Connection {
                client_id: 8,
                address: None,
                run_id: None,
            },
        )
        .unwrap();
        file.closed(first);
        drop(file);

        let file = ConnectionFile::open(&path).unwrap();
        let left = file.older_than(1);
        assert_eq!(left.len(), 1);
        assert_eq!(
            left[0].connection,
            Connection {
                client_id: 8,
                address: None,
                run_id: None
            }
        );
        let ticket = file.enter(3, connection(9)).unwrap();
        assert_eq!(ticket.slot, 0, "free slots are used again");
        assert_eq!(file.older_than(3).len(), 1);
        assert_eq!(file.older_than(4).len(), 2);
        file.closed(left[0].ticket);
        assert_eq!(file.count(), 1);
    }

    #[test]
    fn a_proof_that_comes_twice_does_not_strike_the_next_in_the_slot() {
        let dir = tempfile::tempdir().unwrap();
        let file = ConnectionFile::open(&dir.path().join("connections")).unwrap();
        let old = file.enter(2, connection(7)).unwrap();
        file.closed(old);
        file.enter(4, connection(8)).unwrap();
        file.closed(old);
        let left = file.older_than(5);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].connection.client_id, 8);
    }

    #[test]
    fn those_that_were_reset_are_asked_about_once_and_by_the_many() {
        let dir = tempfile::tempdir().unwrap();
        let file = ConnectionFile::open(&dir.path().join("connections")).unwrap();
        let (least, most) = (*RESET_READY.start(), *RESET_READY.end());
        let mut tickets: Vec<Ticket> = (0..=most as u64)
            .map(|id| file.enter(2, connection(id)).unwrap())
            .collect();
        let last = tickets.pop().unwrap();
        for ticket in &tickets[..least - 1] {
            file.was_reset(*ticket);
        }
        assert!(file.take_reset().is_empty(), "too few");
        for ticket in &tickets[least - 1..] {
            file.was_reset(*ticket);
        }
        file.was_reset(last);
        file.closed(last);
        assert_eq!(file.take_reset().len(), most - 1, "one is off the file");
        file.was_reset(last);
        assert!(file.take_reset().is_empty(), "one is left, and the one off the file");
        assert_eq!(file.count(), most, "until there is a proof");
    }

    #[test]
    fn a_file_that_breaks_off_stands_for_a_connection_that_nothing_is_known_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("connections");
        let reopened = || ConnectionFile::open(&path).unwrap().older_than(1);
        assert!(reopened().is_empty(), "a first start");
        assert!(reopened().is_empty(), "all of it is there");
        for len in [0, 7, (SLOTS_READY * SLOT_BYTES - 1) as u64] {
            File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
            let file = ConnectionFile::open(&path).unwrap();
            let unknown = file.older_than(1);
            assert_eq!(unknown.len(), 1, "{len}");
            assert_eq!((unknown[0].connection.client_id, file.count()), (0, 1));
            assert_eq!(reopened().len(), 1, "until it is taken for proven: {len}");
            file.closed(unknown[0].ticket);
            assert!(reopened().is_empty(), "{len}");
        }
    }

    #[test]
    fn garbage_in_the_file_is_no_connection() {
        assert_eq!(parse(b"x y z"), None);
        assert_eq!(parse(b"\xff\xfe"), None);
        assert_eq!(parse(&blank()), None);
    }
}
