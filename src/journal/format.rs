//! The journal's formats. Little-endian throughout; no change of a byte without another version number.
//!
//! ```text
//! segment   magic "TIDESEGM" 8 | version u32 | queue id 16 | first seq u64 | prior last seq u64 | crc u32 | records
//!           prior last seq: the last valid number before this segment. Records of earlier files beyond it do not
//!           count: they belong to an append or a sync that failed.
//! record    crc u32 | payload length u32 | seq u64 | wall_ms u64 | mono_ms u64 | payload
//!           crc: of all that follows it, started from the crc of the queue id
//! small     magic 8 | version u32 | body length u32 | body | crc u32 (of all before it)
//!   queue       "TIDEQUEU", version 2: queue id 16 | ordinal u64: the names of the incarnations up to it are not kept |
//!               the later ones, ordinal u64 and name u64 each
//!               version 1: queue id 16 | newest ordinal u64 | ordinal u64, as above | the later ones, ordinal u64 each;
//!               or up to the newest only. The ordinal is the name, also in the marker, so who knows version 1 alone must
//!               not read version 2, and refuses to start.
//!   checkpoint  "TIDECHKP": queue id 16 | generation u64 | seq u64 | wall_ms u64 | offset i64 | run_id | replid,
//!               both as length u16 and bytes
//! log       magic 8 | version u32 | queue id 16 | entries
//! entry     a record whose wall_ms is its kind (1 entry, 2 dropped, 3 begun); its payload
//!   dead-letters  "TIDEDEAD": reason length u32 | error length u32 | reason | error | payload of the record;
//!                 mono_ms is the wall_ms of the letter's record (0: not known)
//!   waiting       "TIDEWAIT": name length u32 | name | records without a checksum of their own:
//!                 payload length u32 | seq u64 | wall_ms u64 | mono_ms u64 | payload
//! ```

use crc32fast::Hasher;

pub(super) const VERSION: u32 = 1;
pub(super) const SEGMENT_HEADER_BYTES: u64 = 48;
pub(super) const RECORD_HEADER_BYTES: usize = 32;
const SEGMENT_MAGIC: &[u8; 8] = b"TIDESEGM";

pub(super) type QueueId = [u8; 16];

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Encodes and checks the records of one queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Codec {
    seed: u32,
}

/// The head of a record, not yet checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) payload_bytes: u32,
    pub(super) seq: u64,
    pub(super) wall_ms: u64,
    pub(super) mono_ms: u64,
}

impl Head {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            payload_bytes: u32_at(bytes, 4)?,
            seq: u64_at(bytes, 8)?,
            wall_ms: u64_at(bytes, 16)?,
            mono_ms: u64_at(bytes, 24)?,
        })
    }

    /// Bytes of the whole record.
    pub(super) fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }
}

impl Codec {
    pub(super) fn new(queue_id: &QueueId) -> Self {
        Self {
            seed: crc32fast::hash(queue_id),
        }
    }

    fn crc(self, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.seed);
        hasher.update(bytes);
        hasher.finalize()
    }

    /// Appends a record to `out`; `false`, and nothing appended, when the payload is too long for the format.
    #[must_use]
    pub(super) fn encode(self, out: &mut Vec<u8>, seq: u64, wall_ms: u64, mono_ms: u64, payload: &[&[u8]]) -> bool {
        let payload_bytes: usize = payload.iter().map(|part| part.len()).sum();
        let Ok(payload_bytes) = u32::try_from(payload_bytes) else {
            return false;
        };
        let start = out.len();
        let mut head = [0; RECORD_HEADER_BYTES];
        head[4..8].copy_from_slice(&payload_bytes.to_le_bytes());
        head[8..16].copy_from_slice(&seq.to_le_bytes());
        head[16..24].copy_from_slice(&wall_ms.to_le_bytes());
        head[24..32].copy_from_slice(&mono_ms.to_le_bytes());
        out.extend_from_slice(&head);
        for part in payload {
            out.extend_from_slice(part);
        }
        let crc = self.crc(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        true
    }

    /// Whether `record`, head and payload, is what was once encoded.
    pub(super) fn is_valid(self, record: &[u8]) -> bool {
        record.len() >= RECORD_HEADER_BYTES && u32_at(record, 0) == Some(self.crc(&record[4..]))
    }
}

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) version: u32,
    pub(super) queue_id: QueueId,
    pub(super) first_seq: u64,
    pub(super) prior_last_seq: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        out.extend_from_slice(SEGMENT_MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.queue_id);
        out.extend_from_slice(&self.first_seq.to_le_bytes());
        out.extend_from_slice(&self.prior_last_seq.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// `None` when the bytes are no valid header.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let body = bytes.get(..44)?;
        if !body.starts_with(SEGMENT_MAGIC) || u32_at(bytes, 44)? != crc32fast::hash(body) {
            return None;
        }
        Some(Self {
            version: u32_at(bytes, 8)?,
            queue_id: *bytes.get(12..)?.first_chunk()?,
            first_seq: u64_at(bytes, 28)?,
            prior_last_seq: u64_at(bytes, 36)?,
        })
    }
}

/// The file name of the segment that begins with `first_seq`.
pub(super) fn segment_name(first_seq: u64) -> String {
    format!("seg-{first_seq:020}.journal")
}

/// The reverse of [`segment_name`].
pub(super) fn segment_first_seq(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("seg-")?.strip_suffix(".journal")?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

/// Wraps the body of a small file.
pub(super) fn encode_small(magic: &[u8; 8], version: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 20);
    out.extend_from_slice(magic);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out
}

/// The body of a small file; `None` when it is not whole or not of this version. Bytes after it do not matter.
pub(super) fn parse_small<'a>(magic: &[u8; 8], version: u32, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let body_bytes = u32_at(bytes, 12)? as usize;
    let whole = bytes.get(..16usize.checked_add(body_bytes)?)?;
    let sound = whole.starts_with(magic)
        && u32_at(bytes, 8)? == version
        && u32_at(bytes, whole.len())? == crc32fast::hash(whole);
    if sound { whole.get(16..) } else { None }
}
