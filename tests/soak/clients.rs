//! Clients on threads of their own that write unique values through everything that happens, pipelined and not, and note what they were told.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::history::{Deed, Kind, Operation, Outcome, Place};
use super::support::load::UNCERTAIN;
use super::support::{Client, command, error_text, shown};

const CLIENTS: usize = 6;
const PIPELINE_MAX: usize = 16;
/// Longer than any answer may take: silence beyond it is a hang.
const SILENCE: Duration = Duration::from_secs(12);
const RECONNECT: Duration = Duration::from_millis(5);
const PAUSE_MAX_US: u64 = 4000;
/// Too large for a connection that is shared with others.
const LARGE_BYTES: usize = 70_000;
const LARGE_ONE_IN: u16 = 200;
/// Behind a large value.
pub(crate) const PADDING: char = '_';

/// What one client did, and what it was told that nobody may be told.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) operations: Vec<Operation>,
    pub(crate) complaints: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Notes>>,
}

impl Clients {
    /// `answer_max` is how long any command may wait.
    pub(crate) fn start(address: &str, seed: u64, begin: Instant, answer_max: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..CLIENTS).map(|index| {
            let mut writer = Writer {
                index,
                db: u32::from(index % 3 == 2),
                next: 0,
                own: HashMap::new(),
                random: fastrand::Rng::with_seed(seed.wrapping_mul(1000).wrapping_add(index as u64)),
                begin,
                answer_max,
                notes: Notes::default(),
            };
            let (stop, address) = (stop.clone(), address.to_owned());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // The end of a connection is noted where it matters; what follows is a new one.
                    drop(writer.session(&address, &stop));
                    std::thread::sleep(RECONNECT);
                }
                writer.notes
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }

    pub(crate) fn finish(self) -> Notes {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Notes::default();
        for thread in self.threads {
            let notes = thread.join().expect("a client never panics");
            all.operations.extend(notes.operations);
            all.complaints.extend(notes.complaints);
        }
        all
    }
}

/// A command or transaction that is ready to be sent.
struct Wish {
    number: u64,
    deeds: Vec<(Place, Deed)>,
    commands: Vec<Vec<u8>>,
    /// A read, of a string that only this client writes.
    reads: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Pipelined,
    OneByOne,
}

struct Writer {
    index: usize,
    db: u32,
    next: u64,
    /// The newest acknowledged write to each string that nobody else writes.
    own: HashMap<String, u64>,
    random: fastrand::Rng,
    begin: Instant,
    answer_max: Duration,
    notes: Notes,
}

impl Writer {
    fn session(&mut self, address: &str, stop: &AtomicBool) -> io::Result<()> {
        let mut client = Client::try_connect(address, SILENCE)?;
        if self.db != 0 {
            let reply = client.try_call(&["SELECT", &self.db.to_string()])?;
            if reply != b"+OK\r\n" {
                self.complain("SELECT", &reply);
                return Ok(());
            }
        }
        while !stop.load(Ordering::Relaxed) {
            let depth = match self.random.u8(0..10) {
                0..6 => 1,
                _ => self.random.usize(2..=PIPELINE_MAX),
            };
            let pace = if self.random.bool() {
                Pace::Pipelined
            } else {
                Pace::OneByOne
            };
            let wishes: Vec<Wish> = (0..depth).map(|_| self.wish()).collect();
            self.exchange(&mut client, &wishes, pace)?;
            std::thread::sleep(Duration::from_micros(self.random.u64(0..PAUSE_MAX_US)));
        }
        Ok(())
    }

    /// Sends everything and reads the replies; or, one by one, as a program that uses no pipeline does.
    fn exchange(&mut self, client: &mut Client, wishes: &[Wish], pace: Pace) -> io::Result<()> {
        let mut sent_us = self.now_us();
        if pace == Pace::Pipelined {
            client.send_raw(
                &wishes
                    .iter()
                    .flat_map(|wish| wish.commands.concat())
                    .collect::<Vec<u8>>(),
            );
        }
        let mut ended: Option<io::Error> = None;
        for wish in wishes {
            let mut replies = Vec::new();
            let mut waited_us = 0;
            for command in &wish.commands {
                if ended.is_some() {
                    break;
                }
                // In a pipeline a command waits from the reply before it on.
                let asked_us = self.now_us();
                if pace == Pace::OneByOne {
                    client.send_raw(command);
                }
                match client.try_reply() {
                    Ok(reply) => replies.push(reply),
                    Err(error) => ended = Some(error),
                }
                waited_us = waited_us.max(self.now_us() - asked_us);
                // Nobody goes on with a transaction that has not begun.
                if pace == Pace::OneByOne && replies.len() == 1 && error_text(&replies[0]).is_some() {
                    break;
                }
            }
            let outcome = match ended {
                None => self.outcome(wish, &replies),
                Some(_) => Outcome::Lost,
            };
            let operation = Operation {
                client: self.index,
                number: wish.number,
                sent_us,
                settled_us: self.now_us(),
                outcome,
                deeds: wish.deeds.clone(),
            };
            let waited = Duration::from_micros(waited_us);
            if waited > self.answer_max {
                self.notes.complaints.push(format!("waited {waited:?}: {operation}"));
            }
            if operation.outcome == Outcome::Acknowledged {
                self.acknowledged(wish, &replies);
            }
            if pace == Pace::OneByOne {
                sent_us = operation.settled_us;
            }
            if wish.reads.is_none() {
                self.notes.operations.push(operation);
            }
        }
        ended.map_or(Ok(()), Err)
    }

    /// Remembers own writes and compares own reads: nothing, or nothing older than what is acknowledged.
    fn acknowledged(&mut self, wish: &Wish, replies: &[Vec<u8>]) {
        for (place, deed) in &wish.deeds {
            if place.kind == Kind::String && matches!(deed, Deed::Assign | Deed::Erase) {
                self.own.insert(place.name.clone(), wish.number);
            }
        }
        let (Some(name), [reply]) = (&wish.reads, replies) else {
            return;
        };
        let text = String::from_utf8_lossy(reply);
        let number = text
            .trim_end()
            .rsplit('-')
            .next()
            .and_then(|text| text.parse::<u64>().ok());
        let newest = self.own.get(name).copied();
        if reply != b"$-1\r\n" && number < newest {
            self.complain(&format!("GET {name} after the acknowledged {newest:?}"), reply);
        }
    }

    fn outcome(&mut self, wish: &Wish, replies: &[Vec<u8>]) -> Outcome {
        let last = replies.last().map(Vec::as_slice).unwrap_or_default();
        let is_transaction = wish.commands.len() > 1;
        // A transaction that is cut while it is under way is refused from its MULTI on.
        let is_refused = |reply: &Vec<u8>| error_text(reply).is_some();
        let is_whole = |replies: &[Vec<u8>]| match replies {
            [multi, queued @ .., exec] => {
                multi == b"+OK\r\n" && (is_refused(exec) || queued.iter().all(|reply| reply == b"+QUEUED\r\n"))
            }
            [] | [_] => false,
        };
        if is_transaction && !is_whole(replies) && !replies.iter().all(is_refused) {
            self.complain("MULTI", &replies.concat());
        }
        match error_text(last) {
            None if is_transaction && last.first() != Some(&b'*') => {
                self.complain("EXEC", last);
                Outcome::Uncertain
            }
            // An element of EXEC may be an error of its own.
            None if is_transaction && last.windows(3).any(|bytes| bytes == b"\r\n-") => {
                self.complain("EXEC", last);
                Outcome::Uncertain
            }
            None if last == b"+QUEUED\r\n" => {
                self.complain("outside a transaction, a command", last);
                Outcome::Uncertain
            }
            None => Outcome::Acknowledged,
            Some(text) if text.contains(UNCERTAIN) => Outcome::Uncertain,
            Some(text) => {
                if !(text.starts_with("UNAVAILABLE ") || is_transaction && text.starts_with("EXECABORT")) {
                    self.complain("a write", last);
                }
                Outcome::Refused(text)
            }
        }
    }

    fn complain(&mut self, what: &str, reply: &[u8]) {
        let text = format!(
            "client {} after {}: {what} answered {}",
            self.index,
            self.next,
            shown(reply)
        );
        self.notes.complaints.push(text);
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn wish(&mut self) -> Wish {
        let number = self.next;
        self.next += 1;
        let value = format!("{}-{number}", self.index);
        // Shared by all, or this client's own.
        let owner = if self.random.bool() {
            "all".to_owned()
        } else {
            self.index.to_string()
        };
        let name = format!("{owner}:{}", self.random.u8(0..4));
        if self.random.u8(0..10) == 0 {
            let name = format!("{}:{}", self.index, self.random.u8(0..4));
            return Wish {
                number,
                deeds: Vec::new(),
                commands: vec![command(&["GET", &name])],
                reads: Some(name),
            };
        }
        let (deeds, commands) = match self.random.u8(0..12) {
            0..3 => {
                let padding = if self.random.u16(0..LARGE_ONE_IN) == 0 {
                    LARGE_BYTES
                } else {
                    0
                };
                let value = value + &PADDING.to_string().repeat(padding);
                self.single(Kind::List, Deed::Append, "list", &["RPUSH", "list", &value])
            }
            3..5 => self.single(
                Kind::Stream,
                Deed::Append,
                "stream",
                &["XADD", "stream", "*", "v", &value],
            ),
            5 => self.single(Kind::Set, Deed::Add, "set", &["SADD", "set", &value]),
            6..8 => self.single(Kind::String, Deed::Assign, &name, &["SET", &name, &value]),
            8 => self.single(Kind::String, Deed::Erase, &name, &["DEL", &name]),
            9..11 => self.single(Kind::Field, Deed::Assign, &name, &["HSET", "hash", &name, &value]),
            _ => self.transaction(&name, &value),
        };
        Wish {
            number,
            deeds,
            commands,
            reads: None,
        }
    }

    fn place(&self, kind: Kind, name: &str) -> Place {
        Place {
            db: self.db,
            kind,
            name: name.to_owned(),
        }
    }

    fn single(&self, kind: Kind, deed: Deed, name: &str, args: &[&str]) -> (Vec<(Place, Deed)>, Vec<Vec<u8>>) {
        (vec![(self.place(kind, name), deed)], vec![command(args)])
    }

    fn transaction(&self, name: &str, value: &str) -> (Vec<(Place, Deed)>, Vec<Vec<u8>>) {
        let deeds = vec![
            (self.place(Kind::List, "list"), Deed::Append),
            (self.place(Kind::Set, "set"), Deed::Add),
            (self.place(Kind::String, name), Deed::Assign),
        ];
        let commands = vec![
            command(&["MULTI"]),
            command(&["RPUSH", "list", value]),
            command(&["SADD", "set", value]),
            command(&["SET", name, value]),
            command(&["EXEC"]),
        ];
        (deeds, commands)
    }
}
