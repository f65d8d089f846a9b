//! The requests of the workloads as bytes, with holes for keys, and the reply that each must get.

use std::ops::Range;

/// Key names are a word and twelve digits, as redis-benchmark's are; the word is another, for it sets values of its own.
pub(crate) const KEY_WORD: &str = "load:";
pub(crate) const DIGITS: usize = 12;
const MSET_KEYS: usize = 10;
const MULTI_COMMANDS: usize = 5;
const READS_OF_TEN: usize = 9;

/// What a client sends at once.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where the digits of keys stand.
    holes: Vec<Range<usize>>,
    reply: Vec<u8>,
}

/// Each batch is one of some, at random, with random keys.
#[derive(Debug)]
pub(crate) struct Requests {
    batches: Vec<Batch>,
    keys: u64,
    pipeline: u64,
}

impl Requests {
    pub(crate) fn get(keys: u64, value_bytes: usize, pipeline: usize) -> Self {
        let one = Writer::default()
            .command(&["GET"], &[KEY])
            .replied(&get_reply(value_bytes));
        Self::of(vec![one], keys, pipeline)
    }

    pub(crate) fn miss(keys: u64, pipeline: usize) -> Self {
        let one = Writer::default().command(&["GET"], &[KEY]).replied(b"$-1\r\n");
        Self::of(vec![one], keys, pipeline)
    }

    pub(crate) fn set(keys: u64, value_bytes: usize, pipeline: usize) -> Self {
        Self::of(vec![set(value_bytes)], keys, pipeline)
    }

    pub(crate) fn mset(keys: u64, value_bytes: usize, pipeline: usize) -> Self {
        let value = value(value_bytes);
        let arguments = [KEY, Argument::Bytes(&value)].repeat(MSET_KEYS);
        Self::of(
            vec![Writer::default().command(&["MSET"], &arguments).replied(b"+OK\r\n")],
            keys,
            pipeline,
        )
    }

    pub(crate) fn mixed(keys: u64, value_bytes: usize, pipeline: usize) -> Self {
        let get = || {
            Writer::default()
                .command(&["GET"], &[KEY])
                .replied(&get_reply(value_bytes))
        };
        let mut ones: Vec<Batch> = (0..READS_OF_TEN).map(|_| get()).collect();
        ones.push(set(value_bytes));
        Self::of(ones, keys, pipeline)
    }

    pub(crate) fn multi(keys: u64, value_bytes: usize, pipeline: usize) -> Self {
        let value = value(value_bytes);
        let mut writer = Writer::default().command(&["MULTI"], &[]);
        for _ in 0..MULTI_COMMANDS {
            writer = writer.command(&["SET"], &[KEY, Argument::Bytes(&value)]);
        }
        let (queued, done) = ("+QUEUED\r\n".repeat(MULTI_COMMANDS), "+OK\r\n".repeat(MULTI_COMMANDS));
        let reply = format!("+OK\r\n{queued}*{MULTI_COMMANDS}\r\n{done}");
        Self::of(
            vec![writer.command(&["EXEC"], &[]).replied(reply.as_bytes())],
            keys,
            pipeline,
        )
    }

    fn of(ones: Vec<Batch>, keys: u64, pipeline: usize) -> Self {
        let batches = ones.into_iter().map(|one| one.repeat(pipeline)).collect();
        Self {
            batches,
            keys,
            pipeline: pipeline as u64,
        }
    }

    /// How many are in a batch.
    pub(crate) fn pipeline(&self) -> u64 {
        self.pipeline
    }

    /// Which one to send next, and its bytes.
    pub(crate) fn next(&mut self) -> (usize, &[u8]) {
        let which = if self.batches.len() == 1 {
            0
        } else {
            fastrand::usize(..self.batches.len())
        };
        let batch = &mut self.batches[which];
        for hole in &batch.holes {
            write_digits(&mut batch.bytes[hole.clone()], fastrand::u64(..self.keys));
        }
        (which, &batch.bytes)
    }

    pub(crate) fn reply(&self, which: usize) -> &[u8] {
        &self.batches[which].reply
    }
}

impl Batch {
    fn repeat(self, times: usize) -> Self {
        let length = self.bytes.len();
        let shifted = |hole: &Range<usize>, by: usize| hole.start + by * length..hole.end + by * length;
        let holes = (0..times)
            .flat_map(|by| self.holes.iter().map(move |hole| shifted(hole, by)))
            .collect();
        Self {
            bytes: self.bytes.repeat(times),
            holes,
            reply: self.reply.repeat(times),
        }
    }
}

pub(crate) fn value(bytes: usize) -> Vec<u8> {
    vec![b'v'; bytes]
}

/// Right-aligned, with leading zeros.
pub(crate) fn write_digits(into: &mut [u8], mut number: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A request of plain words.
pub(crate) fn request(words: &[&str]) -> Vec<u8> {
    Writer::default().command(words, &[]).bytes
}

fn set(value_bytes: usize) -> Batch {
    let value = value(value_bytes);
    Writer::default()
        .command(&["SET"], &[KEY, Argument::Bytes(&value)])
        .replied(b"+OK\r\n")
}

fn get_reply(value_bytes: usize) -> Vec<u8> {
    let mut reply = format!("${value_bytes}\r\n").into_bytes();
    reply.extend(value(value_bytes));
    reply.extend(b"\r\n");
    reply
}

#[derive(Clone, Copy, Debug)]
enum Argument<'a> {
    Key,
    Bytes(&'a [u8]),
}

const KEY: Argument<'static> = Argument::Key;

#[derive(Debug, Default)]
struct Writer {
    bytes: Vec<u8>,
    holes: Vec<Range<usize>>,
}

impl Writer {
    fn command(mut self, words: &[&str], arguments: &[Argument<'_>]) -> Self {
        self.bytes
            .extend(format!("*{}\r\n", words.len() + arguments.len()).bytes());
        for word in words {
            self.bulk(word.as_bytes());
        }
        for argument in arguments {
            match argument {
                Argument::Bytes(bytes) => self.bulk(bytes),
                Argument::Key => {
                    self.bulk(format!("{KEY_WORD}{:0DIGITS$}", 0).as_bytes());
                    let end = self.bytes.len() - "\r\n".len();
                    self.holes.push(end - DIGITS..end);
                }
            }
        }
        self
    }

    fn bulk(&mut self, bytes: &[u8]) {
        self.bytes.extend(format!("${}\r\n", bytes.len()).bytes());
        self.bytes.extend_from_slice(bytes);
        self.bytes.extend(b"\r\n");
    }

    fn replied(self, reply: &[u8]) -> Batch {
        Batch {
            bytes: self.bytes,
            holes: self.holes,
            reply: reply.to_vec(),
        }
    }
}
