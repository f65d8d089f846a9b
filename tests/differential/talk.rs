//! Conversations: several clients that talk in turns, written as text.
//!
//! ```text
//! # a title; a blank line ends the conversation
//! a SET k v          client a sends, and reads one reply
//! a> SET k v         sends, reads nothing
//! a< 2               reads two frames
//! a! PING\r\n        sends these bytes, reads nothing
//! a.                 reads until the server closes
//! a~ CLIENT ID       as the first, but only the shape is compared
//! a* 2 SMEMBERS s    sends, reads two frames, whose parts may be in any order
//! ```
//!

use std::io::ErrorKind;

use crate::compare::Compared;
use crate::line::Line;
use crate::support::{Client, shown};

/// What stands for a reply that did not come.
const SILENT: &[u8] = b"<nothing>";

pub(crate) struct Talk {
    title: &'static str,
    turns: Vec<Turn>,
}

struct Turn {
    text: &'static str,
    client: char,
    bytes: Vec<u8>,
    read: Read,
    compared: Compared,
}

enum Read {
    Frames(usize),
    ToEnd,
}

pub(crate) fn talks(text: &'static str) -> Vec<Talk> {
    let blocks = text.split("\n\n").map(str::trim).filter(|block| !block.is_empty());
    blocks
        .map(|block| {
            let mut lines = block.lines();
            let title = lines.next().and_then(|line| line.strip_prefix("# ")).expect(block);
            Talk {
                title,
                turns: lines.map(turn).collect(),
            }
        })
        .collect()
}

fn turn(text: &'static str) -> Turn {
    let mut letters = text.chars();
    let client = letters.next().expect("a client");
    let (how, rest) = (letters.next().expect(text), letters.as_str().trim_start_matches(' '));
    let typed = || Line::typed(rest).framed();
    let (bytes, read, compared) = match how {
        ' ' => (typed(), Read::Frames(1), Compared::Bytes),
        '>' => (typed(), Read::Frames(0), Compared::Bytes),
        '<' => (Vec::new(), Read::Frames(rest.parse().expect(text)), Compared::Bytes),
        '!' => (unescaped(rest), Read::Frames(0), Compared::Bytes),
        '.' => (Vec::new(), Read::ToEnd, Compared::Bytes),
        '~' => (typed(), Read::Frames(1), Compared::Shape),
        '*' => {
            let (count, rest) = rest.split_once(' ').expect(text);
            (
                Line::typed(rest).framed(),
                Read::Frames(count.parse().expect(text)),
                Compared::Parts,
            )
        }
        _ => panic!("how is this to be sent: {text}"),
    };
    Turn {
        text,
        client,
        bytes,
        read,
        compared,
    }
}

/// `\r`, `\n`, `\0`; no quotes.
fn unescaped(text: &str) -> Vec<u8> {
    text.replace("\\r", "\r")
        .replace("\\n", "\n")
        .replace("\\0", "\0")
        .into_bytes()
}

impl Talk {
    /// Holds the conversation on both sides in lock-step; gives what differs first, for what follows differs with it.
    pub(crate) fn hold(&self, connect: &dyn Fn() -> [Client; 2]) -> Option<String> {
        let mut clients: Vec<(char, [Client; 2])> = Vec::new();
        for (number, turn) in self.turns.iter().enumerate() {
            if !clients.iter().any(|(name, _)| *name == turn.client) {
                clients.push((turn.client, connect()));
            }
            let (_, sides) = clients.iter_mut().find(|(name, _)| *name == turn.client)?;
            sides.iter_mut().for_each(|side| side.send_raw(&turn.bytes));
            let [expected, got] = sides.each_mut().map(|side| read(side, &turn.read));
            assert!(
                !expected.ends_with(SILENT),
                "{}, turn {}: Redis says nothing more",
                self.title,
                number + 1
            );
            if !turn.compared.is_same(&expected, &got) {
                return Some(format!(
                    "{}, turn {}: {}\n  redis answers    {}\n  tideover answers {}",
                    self.title,
                    number + 1,
                    turn.text,
                    shown(&expected),
                    shown(&got)
                ));
            }
        }
        None
    }

    pub(crate) fn turns(&self) -> usize {
        self.turns.len()
    }
}

fn read(side: &mut Client, read: &Read) -> Vec<u8> {
    let (frames_max, at_end) = match read {
        Read::ToEnd => (usize::MAX, &b""[..]),
        Read::Frames(count) => (*count, &b"<closed>"[..]),
    };
    let mut all = Vec::new();
    let mut frames = 0;
    while frames < frames_max {
        match side.try_reply() {
            // MONITOR shows whatever others do, and begins with the time.
            Ok(frame) if frame.starts_with(b"+") && frame[1].is_ascii_digit() => {}
            Ok(frame) => {
                frames += 1;
                all.extend(frame);
            }
            Err(error) => {
                let is_closed = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset);
                all.extend_from_slice(if is_closed { at_end } else { SILENT });
                break;
            }
        }
    }
    all
}
