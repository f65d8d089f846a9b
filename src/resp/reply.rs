//! Finds reply frames in a byte stream, RESP2 and RESP3: resumable, non-recursive, keeps nothing but counts.

use super::scan::{integer, line};

/// The kind of a reply, from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `-` or `!`
    Error,
    /// `>`: out of band, answers no request.
    Push,
    /// Everything else.
    Value,
}

/// The input is no RESP reply: the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAReply;

/// What stands at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The rest of a reply: these many bytes end it.
    End { bytes: usize, kind: Kind },
    /// These many bytes belong to a reply that is not complete; nothing but its header may be missing behind them.
    Part { bytes: usize, kind: Kind },
}

/// Longest header line: a simple string, an error, a number.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Keeps its place between reads. One counter of elements still to come is enough to find the end of any nesting.
#[derive(Debug, Default)]
pub struct Scanner {
    under_way: Option<UnderWay>,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    kind: Kind,
    elements_left: u64,
    /// Bytes of a payload (and its line end) that are passed over.
    skip: u64,
}

impl Scanner {
    /// Whether a reply has been passed on in part.
    #[must_use]
    pub fn is_mid_reply(&self) -> bool {
        self.under_way.is_some()
    }

    /// Bytes still to come of the payload that the last call ended in.
    #[must_use]
    pub fn payload_left(&self) -> u64 {
        self.under_way.map_or(0, |now| now.skip)
    }

    /// Scans on from where the last call ended; the bytes that it reported must have been taken off the input.
    ///
    /// # Errors
    /// [`NotAReply`] for an unknown type byte, a malformed length, or a line without end.
    pub fn scan(&mut self, input: &[u8]) -> Result<Found, NotAReply> {
        let mut now = match self.under_way {
            Some(now) => now,
            None => match input.first() {
                None => {
                    return Ok(Found::Part {
                        bytes: 0,
                        kind: Kind::Value,
                    });
                }
                Some(byte) => UnderWay {
                    kind: kind_of(*byte),
                    elements_left: 1,
                    skip: 0,
                },
            },
        };
        let mut at = 0;
        loop {
            if now.skip > 0 {
                let taken = usize::try_from(now.skip).unwrap_or(usize::MAX).min(input.len() - at);
                at += taken;
                now.skip -= taken as u64;
                if now.skip > 0 {
                    break;
                }
            }
            if now.elements_left == 0 {
                self.under_way = None;
                return Ok(Found::End {
                    bytes: at,
                    kind: now.kind,
                });
            }
            let Some((text, next)) = line(input, at) else {
                if input.len() - at > LINE_BYTES_MAX {
                    return Err(NotAReply);
                }
                break;
            };
            let (elements, skip) = element(text)?;
            now.elements_left = (now.elements_left - 1).checked_add(elements).ok_or(NotAReply)?;
            now.skip = skip;
            at = next;
        }
        // While nothing has been passed on, the next call starts over from the first byte.
        if at > 0 {
            self.under_way = Some(now);
        }
        Ok(Found::Part {
            bytes: at,
            kind: now.kind,
        })
    }
}

/// Whether the input is one whole reply, in which arrays and their like are nested no deeper than `depth_max`.
#[must_use]
pub fn is_shallow(input: &[u8], depth_max: usize) -> bool {
    // Elements still to come, of each that is open.
    let mut open: Vec<u64> = vec![1];
    let mut at = 0;
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let Some((text, next)) = line(input, at) else {
            return false;
        };
        let Ok((elements, skip)) = element(text) else {
            return false;
        };
        at = next.saturating_add(usize::try_from(skip).unwrap_or(usize::MAX));
        if at > input.len() || elements > 0 && open.len() > depth_max {
            return false;
        }
        if elements > 0 {
            open.push(elements);
        }
    }
    at == input.len()
}

fn kind_of(byte: u8) -> Kind {
    match byte {
        b'-' | b'!' => Kind::Error,
        b'>' => Kind::Push,
        _ => Kind::Value,
    }
}

/// The elements that follow a header line, and the payload bytes (line end included) before them.
#[inline]
fn element(text: &[u8]) -> Result<(u64, u64), NotAReply> {
    let (kind, rest) = text.split_first().ok_or(NotAReply)?;
    match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Ok((0, 0)),
        b'$' | b'=' | b'!' => Ok((0, length(rest)?.map_or(0, |bytes| bytes.saturating_add(2)))),
        b'*' | b'~' | b'>' => Ok((length(rest)?.unwrap_or(0), 0)),
        b'%' => Ok((length(rest)?.unwrap_or(0).saturating_mul(2), 0)),
        // Attributes stand before the element that they belong to.
        b'|' => Ok((length(rest)?.unwrap_or(0).saturating_mul(2).saturating_add(1), 0)),
        _ => Err(NotAReply),
    }
}

/// A length; nothing for the null of RESP2 (-1).
fn length(text: &[u8]) -> Result<Option<u64>, NotAReply> {
    match integer(text).ok_or(NotAReply)? {
        -1 => Ok(None),
        n => u64::try_from(n).map(Some).map_err(|_| NotAReply),
    }
}
