//! Finds request frames in a byte stream: resumable, non-recursive, bounded, as `processInputBuffer` of Redis's networking.c.
//!
//! Sources: the RESP specification and the observed behaviour of redis-server 7.0 (limits and error texts).

use super::{Span, write};

/// Bounds of what a client may send; each defaults to Redis's own.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Arguments of one command (Redis: `INT_MAX`).
    pub args_max: u32,
    /// Bytes of one bulk string (`proto-max-bulk-len`).
    pub bulk_bytes_max: u64,
    /// Bytes of an inline command, or of any header line.
    pub inline_bytes_max: usize,
    pub asker: Asker,
}

/// Whose requests they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    Admitted,
    /// Owes a password: Redis takes no more from it than an AUTH needs.
    Unauthenticated,
}

const UNAUTHENTICATED_ARGS_MAX: i64 = 10;
const UNAUTHENTICATED_BULK_BYTES_MAX: u64 = 16 << 10;

impl Default for Limits {
    fn default() -> Self {
        Self {
            args_max: i32::MAX as u32,
            bulk_bytes_max: 512 << 20,
            inline_bytes_max: 64 << 10,
            asker: Asker::Admitted,
        }
    }
}

/// Malformed input. The reply is `-ERR Protocol error: …`, then the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    TooBigInline,
    TooBigCountLine,
    TooBigBulkLine,
    InvalidCount,
    InvalidBulkLength,
    ExpectedBulk(u8),
    UnbalancedQuotes,
    UnauthenticatedCount,
    UnauthenticatedBulkLength,
}

impl ProtocolError {
    /// Appends the reply that Redis gives.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"-ERR Protocol error: ");
        match self {
            Self::TooBigInline => out.extend_from_slice(b"too big inline request"),
            Self::TooBigCountLine => out.extend_from_slice(b"too big mbulk count string"),
            Self::TooBigBulkLine => out.extend_from_slice(b"too big bulk count string"),
            Self::InvalidCount => out.extend_from_slice(b"invalid multibulk length"),
            Self::InvalidBulkLength => out.extend_from_slice(b"invalid bulk length"),
            Self::ExpectedBulk(byte) => {
                out.extend_from_slice(b"expected '$', got '");
                // Redis sanitises line breaks in error texts.
                out.push(if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte });
                out.push(b'\'');
            }
            Self::UnbalancedQuotes => out.extend_from_slice(b"unbalanced quotes in request"),
            Self::UnauthenticatedCount => out.extend_from_slice(b"unauthenticated multibulk length"),
            Self::UnauthenticatedBulkLength => out.extend_from_slice(b"unauthenticated bulk length"),
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// What stands at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Not complete yet.
    Incomplete,
    /// A request in array form of `len` bytes; its arguments are `Scanner::spans`.
    Request { len: usize },
    /// An inline command of `len` bytes; its array form is `Scanner::inline`, its arguments `Scanner::spans` therein.
    Inline { len: usize },
    /// `len` bytes that ask for nothing (an empty line, `*0`, `*-1`).
    Nothing { len: usize },
}

/// Keeps its place between reads, so that a request that arrives in many pieces is scanned once.
#[derive(Debug, Default)]
pub struct Scanner {
    state: State,
    spans: Vec<Span>,
    inline: Vec<u8>,
}

/// Offsets are relative to the start of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    /// `at` stands before the header line of the next argument.
    Header { at: usize, args_left: u32 },
    /// `at` stands at the payload of the current argument.
    Payload { at: usize, bytes: u64, args_left: u32 },
}

impl Scanner {
    /// Arguments of the request found last.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The array form of the inline command found last.
    #[must_use]
    pub fn inline(&self) -> &[u8] {
        &self.inline
    }

    /// Looks for a whole request at the start of `input`, which must start with the bytes given before when that was incomplete.
    ///
    /// # Errors
    /// [`ProtocolError`] for input that Redis closes the connection for.
    pub fn scan(&mut self, input: &[u8], limits: &Limits) -> Result<Scan, ProtocolError> {
        let (mut at, mut args_left) = match self.state {
            State::Start => match self.start(input, limits)? {
                Started::Done(scan) => return Ok(scan),
                Started::Array { at, args } => (at, args),
            },
            State::Header { at, args_left } => (at, args_left),
            State::Payload { at, bytes, args_left } => match self.payload(input, at, bytes, args_left) {
                None => return Ok(Scan::Incomplete),
                Some(next) => (next, args_left - 1),
            },
        };
        while args_left > 0 {
            let Some((bytes, start)) = header(input, at, limits)? else {
                self.state = State::Header { at, args_left };
                return Ok(Scan::Incomplete);
            };
            let Some(next) = self.payload(input, start, bytes, args_left) else {
                return Ok(Scan::Incomplete);
            };
            at = next;
            args_left -= 1;
        }
        self.state = State::Start;
        Ok(Scan::Request { len: at })
    }

    /// Records one argument and gives the place behind it, or remembers to wait for the rest of it.
    fn payload(&mut self, input: &[u8], start: usize, bytes: u64, args_left: u32) -> Option<usize> {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let end = start.saturating_add(len).saturating_add(2);
        if input.len() < end {
            self.state = State::Payload {
                at: start,
                bytes,
                args_left,
            };
            return None;
        }
        self.spans.push(Span {
            start: start as u32,
            len: len as u32,
        });
        Some(end)
    }

    fn start(&mut self, input: &[u8], limits: &Limits) -> Result<Started, ProtocolError> {
        self.spans.clear();
        match input.first() {
            None => Ok(Started::Done(Scan::Incomplete)),
            Some(b'*') => match request_line(input, 0) {
                None if is_endless(input, limits) => Err(ProtocolError::TooBigCountLine),
                None => Ok(Started::Done(Scan::Incomplete)),
                Some((text, next)) => match integer(&text[1..]) {
                    Some(n)
                        if limits.asker == Asker::Unauthenticated
                            && n > UNAUTHENTICATED_ARGS_MAX
                            && n <= i64::from(limits.args_max) =>
                    {
                        Err(ProtocolError::UnauthenticatedCount)
                    }
                    Some(n) if n <= i64::from(limits.args_max) => Ok(match u32::try_from(n) {
                        Ok(args) if args > 0 => Started::Array { at: next, args },
                        Ok(_) | Err(_) => Started::Done(Scan::Nothing { len: next }),
                    }),
                    Some(_) | None => Err(ProtocolError::InvalidCount),
                },
            },
            Some(_) => self.inline_command(input, limits).map(Started::Done),
        }
    }

    fn inline_command(&mut self, input: &[u8], limits: &Limits) -> Result<Scan, ProtocolError> {
        let Some(newline) = position_in_c(input, b'\n') else {
            return if input.len() > limits.inline_bytes_max {
                Err(ProtocolError::TooBigInline)
            } else {
                Ok(Scan::Incomplete)
            };
        };
        let text = &input[..newline];
        let args = split_inline(text.strip_suffix(b"\r").unwrap_or(text)).ok_or(ProtocolError::UnbalancedQuotes)?;
        if args.is_empty() {
            return Ok(Scan::Nothing { len: newline + 1 });
        }
        self.inline.clear();
        write::array(&mut self.inline, args.len());
        for arg in &args {
            write::bulk(&mut self.inline, arg);
            let start = self.inline.len() - arg.len() - 2;
            self.spans.push(Span {
                start: start as u32,
                len: arg.len() as u32,
            });
        }
        Ok(Scan::Inline { len: newline + 1 })
    }

    /// Bytes of the request so far scanned, and what is left, for a request too large to be held: see [`Stream`].
    /// Nothing where no request in array form is under way.
    #[must_use]
    pub fn to_stream(&self) -> Option<Stream> {
        match self.state {
            State::Start => None,
            State::Header { at, args_left } => Some(Stream {
                skip: at as u64,
                args_left,
            }),
            State::Payload { at, bytes, args_left } => Some(Stream {
                skip: at as u64 + bytes + 2,
                args_left: args_left - 1,
            }),
        }
    }

    /// Bytes of memory that are kept between requests, for tests of the bounds.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.inline.capacity()
    }

    /// Forgets the request under way, and memory that an ordinary request does not need.
    pub fn reset(&mut self) {
        self.state = State::Start;
        self.spans.clear();
        self.spans.shrink_to(16);
        self.inline.clear();
        self.inline.shrink_to(0);
    }
}

enum Started {
    Done(Scan),
    Array { at: usize, args: u32 },
}

/// Finds the end of a request that is passed on while it arrives: counts, keeps nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Bytes that belong to the request before the next header line.
    skip: u64,
    args_left: u32,
}

/// How much of the input a [`Stream`] passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// These bytes; more of the request is to come.
    More(usize),
    /// These bytes end the request.
    End(usize),
}

impl Stream {
    /// Tells how many of the bytes at the start of `input` belong to the request. A header line that is not complete is left for the next call.
    ///
    /// # Errors
    /// [`ProtocolError`] for input that Redis closes the connection for.
    pub fn pass(&mut self, input: &[u8], limits: &Limits) -> Result<Passed, ProtocolError> {
        let mut at = 0;
        loop {
            let taken = usize::try_from(self.skip).unwrap_or(usize::MAX).min(input.len() - at);
            at += taken;
            self.skip -= taken as u64;
            if self.skip > 0 {
                return Ok(Passed::More(at));
            }
            if self.args_left == 0 {
                return Ok(Passed::End(at));
            }
            match header(input, at, limits)? {
                None => return Ok(Passed::More(at)),
                Some((bytes, start)) => {
                    self.skip = (start - at) as u64 + bytes + 2;
                    self.args_left -= 1;
                }
            }
        }
    }
}

/// The header of one argument at `at`: its payload's length and place.
#[inline]
fn header(input: &[u8], at: usize, limits: &Limits) -> Result<Option<(u64, usize)>, ProtocolError> {
    // The common header is `$` and one or two digits: no search needed.
    if let Some([b'$', a @ b'0'..=b'9', b'\r', _]) = input.get(at..at + 4) {
        return Ok(Some((u64::from(a - b'0'), at + 4)));
    }
    let Some((text, next)) = request_line(input, at) else {
        return if is_endless(input.get(at..).unwrap_or_default(), limits) {
            Err(ProtocolError::TooBigBulkLine)
        } else {
            Ok(None)
        };
    };
    match text.first() {
        Some(b'$') => match integer(&text[1..]).map(u64::try_from) {
            Some(Ok(bytes)) if bytes <= limits.bulk_bytes_max => match limits.asker {
                Asker::Unauthenticated if bytes > UNAUTHENTICATED_BULK_BYTES_MAX => {
                    Err(ProtocolError::UnauthenticatedBulkLength)
                }
                Asker::Unauthenticated | Asker::Admitted => Ok(Some((bytes, next))),
            },
            Some(_) | None => Err(ProtocolError::InvalidBulkLength),
        },
        // Redis looks at the byte where the `$` should be, which is the `\r` when the line is empty.
        Some(other) => Err(ProtocolError::ExpectedBulk(*other)),
        None => Err(ProtocolError::ExpectedBulk(b'\r')),
    }
}

/// The line at `at` without its ending, and the place behind it. As in Redis only `\r` is looked for; the byte behind it is skipped.
#[inline]
pub(super) fn line(input: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = input.get(at..)?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    (end + 2 <= rest.len()).then(|| (&rest[..end], at + end + 2))
}

/// As [`line`], for what clients send: Redis searches it as a C string, so a zero byte hides every `\r` behind it.
#[inline]
fn request_line(input: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = input.get(at..)?;
    let end = position_in_c(rest, b'\r')?;
    (end + 2 <= rest.len()).then(|| (&rest[..end], at + end + 2))
}

/// Whether a header line that is not complete is too long already. One that lacks nothing but its last byte is not.
#[cold]
fn is_endless(line: &[u8], limits: &Limits) -> bool {
    line.len() > limits.inline_bytes_max && position_in_c(line, b'\r').is_none()
}

/// As C's `strchr`: nothing behind a zero byte is found.
#[inline]
fn position_in_c(text: &[u8], wanted: u8) -> Option<usize> {
    let at = text.iter().position(|byte| *byte == wanted || *byte == 0)?;
    (text.get(at) == Some(&wanted)).then_some(at)
}

/// A decimal as Redis's `string2ll` takes it: no sign but `-`, no leading zero, no blank.
#[inline]
#[must_use]
pub fn integer(text: &[u8]) -> Option<i64> {
    let (digits, negative) = match text.strip_prefix(b"-") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    match digits {
        [] => None,
        [b'0'] => (!negative).then_some(0),
        [b'0', ..] => None,
        _ => {
            let mut n: i64 = 0;
            for byte in digits {
                let digit = i64::from(byte.wrapping_sub(b'0'));
                if !(0..=9).contains(&digit) {
                    return None;
                }
                n = n.checked_mul(10)?.checked_sub(digit)?;
            }
            if negative { Some(n) } else { n.checked_neg() }
        }
    }
}

/// Splits a line into arguments as `sdssplitargs`: blanks separate, double quotes with escapes, single quotes; nothing when quotes do not balance.
fn split_inline(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut args = Vec::new();
    let mut at = 0;
    loop {
        while text.get(at).is_some_and(|byte| is_space(*byte)) {
            at += 1;
        }
        if at >= text.len() {
            return Some(args);
        }
        let mut arg = Vec::new();
        while let Some(byte) = text.get(at).copied() {
            match byte {
                b'"' => at = double_quoted(text, at + 1, &mut arg)?,
                b'\'' => at = single_quoted(text, at + 1, &mut arg)?,
                // Unlike elsewhere, a vertical tab or form feed inside a word belongs to it.
                b' ' | b'\t' | b'\r' | b'\n' => break,
                _ => {
                    arg.push(byte);
                    at += 1;
                    continue;
                }
            }
            // A closing quote must be followed by a blank or the end.
            if text.get(at).is_some_and(|byte| !is_space(*byte)) {
                return None;
            }
            break;
        }
        args.push(arg);
    }
}

fn double_quoted(text: &[u8], mut at: usize, arg: &mut Vec<u8>) -> Option<usize> {
    loop {
        match *text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match (
                text.get(at + 1),
                text.get(at + 2).and_then(hex),
                text.get(at + 3).and_then(hex),
            ) {
                (Some(b'x'), Some(high), Some(low)) => {
                    arg.push(high * 16 + low);
                    at += 4;
                }
                (Some(escaped), _, _) => {
                    arg.push(match escaped {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'a' => 7,
                        other => *other,
                    });
                    at += 2;
                }
                (None, _, _) => {
                    arg.push(b'\\');
                    at += 1;
                }
            },
            byte => {
                arg.push(byte);
                at += 1;
            }
        }
    }
}

fn single_quoted(text: &[u8], mut at: usize, arg: &mut Vec<u8>) -> Option<usize> {
    loop {
        match (*text.get(at)?, text.get(at + 1)) {
            (b'\'', _) => return Some(at + 1),
            (b'\\', Some(b'\'')) => {
                arg.push(b'\'');
                at += 2;
            }
            (byte, _) => {
                arg.push(byte);
                at += 1;
            }
        }
    }
}

fn hex(byte: &u8) -> Option<u8> {
    char::from(*byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}
