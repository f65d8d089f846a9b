//! The application of the demo: clients that write and read without a break and keep what they were told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::check::{Fate, Told};
use super::resp::{Answer, Connection};

/// Clients at a time.
const CLIENTS: usize = 4;
/// Between two commands of a client.
const PAUSE: Duration = Duration::from_millis(1);

/// What all clients have seen so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commands: AtomicU64,
    /// Reads that were answered as an empty Redis would, though the key had been written.
    pub(super) neutral: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) uncertain: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) connections_lost: AtomicU64,
    pub(super) longest_wait_us: AtomicU64,
}

/// What one client was told, by key.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) client: usize,
    pub(super) sets: Vec<Told>,
    pub(super) pushes: Vec<Told>,
    pub(super) adds: Vec<Told>,
}

/// The keys of a client.
pub(super) struct Keys {
    pub(super) value: String,
    pub(super) list: String,
    pub(super) stream: String,
}

impl Keys {
    pub(super) fn of(client: usize) -> Self {
        let key = |what: &str| format!("demo:{client}:{what}");
        Self {
            value: key("value"),
            list: key("list"),
            stream: key("stream"),
        }
    }
}

/// The running clients; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<History>>,
}

impl Load {
    pub(super) fn start(address: SocketAddr) -> std::io::Result<Self> {
        let mut load = Self {
            counters: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for client in 0..CLIENTS {
            let counters = Arc::clone(&load.counters);
            let stop = Arc::clone(&load.stop);
            let run = move || Client::new(client, address, counters).run(&stop);
            load.threads
                .push(thread::Builder::new().name(format!("client-{client}")).spawn(run)?);
        }
        Ok(load)
    }

    /// Ends after the command under way; nothing when a client panicked.
    pub(super) fn stop(mut self) -> Option<Vec<History>> {
        self.stop.store(true, Relaxed);
        std::mem::take(&mut self.threads)
            .into_iter()
            .map(|thread| thread.join().ok())
            .collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

struct Client {
    address: SocketAddr,
    connection: Option<Connection>,
    keys: Keys,
    counters: Arc<Counters>,
    history: History,
}

impl Client {
    fn new(client: usize, address: SocketAddr, counters: Arc<Counters>) -> Self {
        Self {
            address,
            connection: None,
            keys: Keys::of(client),
            counters,
            history: History {
                client,
                ..History::default()
            },
        }
    }

    fn run(mut self, stop: &AtomicBool) -> History {
        let mut value = 0;
        while !stop.load(Relaxed) {
            value += 1;
            let text = value.to_string();
            let Keys {
                value: key,
                list,
                stream,
            } = Keys::of(self.history.client);
            let set = self.write(&["SET", &key, &text]);
            self.history.sets.push(Told { value, fate: set });
            let push = self.write(&["RPUSH", &list, &text]);
            self.history.pushes.push(Told { value, fate: push });
            let add = self.write(&["XADD", &stream, "*", "n", &text]);
            self.history.adds.push(Told { value, fate: add });
            self.read();
        }
        self.history
    }

    fn write(&mut self, arguments: &[&str]) -> Fate {
        let fate = self.call(arguments).map_or(Fate::Uncertain, |answer| fate(&answer));
        let counter = match fate {
            Fate::Acknowledged => &self.counters.acknowledged,
            Fate::Uncertain => &self.counters.uncertain,
            Fate::Refused => &self.counters.refused,
        };
        counter.fetch_add(1, Relaxed);
        fate
    }

    fn read(&mut self) {
        let key = self.keys.value.clone();
        let is_there = self.history.sets.iter().any(|told| told.fate == Fate::Acknowledged);
        if self.call(&["GET", &key]) == Some(Answer::Bulk(None)) && is_there {
            self.counters.neutral.fetch_add(1, Relaxed);
        }
    }

    /// Nothing when the connection broke: then nobody knows.
    fn call(&mut self, arguments: &[&str]) -> Option<Answer> {
        thread::sleep(PAUSE);
        let begin = Instant::now();
        let answer = self.converse(arguments);
        let waited_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.longest_wait_us.fetch_max(waited_us, Relaxed);
        self.counters.commands.fetch_add(1, Relaxed);
        if answer.is_none() {
            self.connection = None;
            self.counters.connections_lost.fetch_add(1, Relaxed);
        }
        answer
    }

    fn converse(&mut self, arguments: &[&str]) -> Option<Answer> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(self.address).ok()?);
        }
        self.connection.as_mut()?.call(arguments).ok()
    }
}

fn fate(answer: &Answer) -> Fate {
    match answer {
        Answer::Error(text) if text.contains("may or may not have been applied") => Fate::Uncertain,
        Answer::Error(_) => Fate::Refused,
        Answer::Status(_) | Answer::Integer(_) | Answer::Bulk(_) | Answer::Array(_) => Fate::Acknowledged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_refusal_unless_it_says_that_nobody_knows() {
        let error = |text: &str| Answer::Error(text.to_owned());
        for (answer, expected) in [
            (
                error("UNAVAILABLE SET may or may not have been applied: the connection died"),
                Fate::Uncertain,
            ),
            (
                error("UNAVAILABLE SET was not applied: the journal is full"),
                Fate::Refused,
            ),
            (error("OOM command not allowed"), Fate::Refused),
            (Answer::Status("OK".to_owned()), Fate::Acknowledged),
            (Answer::Integer(3), Fate::Acknowledged),
            (Answer::Bulk(Some("1-1".to_owned())), Fate::Acknowledged),
        ] {
            assert_eq!(fate(&answer), expected, "{answer:?}");
        }
    }
}
