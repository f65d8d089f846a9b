//! What the scanners make of an input that arrives in pieces, for the tests of this room and for `fuzz/`, which includes this file.

use super::Request;
use super::reply::{self, Found, Kind, NotAReply};
use super::scan::{Limits, ProtocolError, Scan, Scanner};

/// What a byte stream is made of: requests as their arguments, blanks, and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Request(Vec<Vec<u8>>),
    Nothing,
    Error(ProtocolError),
    Incomplete(usize),
}

/// Gives the scanner growing prefixes, as a session does, each `step` bytes longer than the last.
pub(super) fn requests_in_steps(input: &[u8], steps: &[usize], limits: &Limits) -> Vec<Seen> {
    let mut scanner = Scanner::default();
    let mut seen = Vec::new();
    let mut steps = steps.iter().copied().cycle();
    let (mut start, mut end) = (0, 0);
    loop {
        let rest = &input[start..end];
        match scanner.scan(rest, limits) {
            Err(error) => {
                seen.push(Seen::Error(error));
                return seen;
            }
            Ok(Scan::Incomplete) if end == input.len() => {
                seen.push(Seen::Incomplete(rest.len()));
                return seen;
            }
            Ok(Scan::Incomplete) => end = input.len().min(end + steps.next().unwrap_or(1)),
            Ok(Scan::Nothing { len }) => {
                seen.push(Seen::Nothing);
                start += len;
            }
            Ok(Scan::Request { len }) => {
                seen.push(Seen::Request(arguments(&rest[..len], &scanner)));
                start += len;
            }
            Ok(Scan::Inline { len }) => {
                seen.push(Seen::Request(arguments(scanner.inline(), &scanner)));
                start += len;
            }
        }
    }
}

pub(super) fn arguments(frame: &[u8], scanner: &Scanner) -> Vec<Vec<u8>> {
    let request = Request::new(frame, scanner.spans());
    request.args_from(0).map(<[u8]>::to_vec).collect()
}

/// Gives the reply scanner what it has not used, plus the next bytes; each frame is its bytes and kind.
pub(super) fn replies_in_steps(input: &[u8], steps: &[usize]) -> (Vec<(Vec<u8>, Kind)>, Option<NotAReply>) {
    let mut scanner = reply::Scanner::default();
    let mut frames = Vec::new();
    let mut frame = Vec::new();
    let mut steps = steps.iter().copied().cycle();
    let (mut start, mut end) = (0, 0);
    loop {
        match scanner.scan(&input[start..end]) {
            Err(error) => return (frames, Some(error)),
            Ok(Found::End { bytes, kind }) => {
                frame.extend_from_slice(&input[start..start + bytes]);
                start += bytes;
                assert!(!scanner.is_mid_reply());
                frames.push((std::mem::take(&mut frame), kind));
            }
            Ok(Found::Part { bytes, .. }) => {
                frame.extend_from_slice(&input[start..start + bytes]);
                start += bytes;
                assert_eq!(scanner.is_mid_reply(), !frame.is_empty());
                if end == input.len() {
                    return (frames, None);
                }
                end = input.len().min(end + steps.next().unwrap_or(1));
            }
        }
    }
}
