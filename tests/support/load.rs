//! Clients that write unique values without pause through an outage, and the check of what became of every one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Client, DEADLINE, array, bulk, error_text, shown, wait_until};

/// The words that stand in exactly the uncertain replies.
pub const UNCERTAIN: &str = "may or may not have been applied";

/// Keeps a client from filling the lists with more than a check can read in a moment.
const PAUSE_BETWEEN_CYCLES: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Rpush,
    Xadd,
    Set,
    Hset,
    /// A read: answered with the value or neutrally, never with an error.
    Get,
}

const KINDS: [Kind; 5] = [Kind::Rpush, Kind::Xadd, Kind::Set, Kind::Hset, Kind::Get];

impl Kind {
    fn request(self, client: usize, number: u64) -> Vec<String> {
        let value = number.to_string();
        match self {
            Self::Rpush => vec!["RPUSH".into(), format!("list:{client}"), value],
            Self::Xadd => vec!["XADD".into(), format!("stream:{client}"), "*".into(), "v".into(), value],
            Self::Set => vec!["SET".into(), format!("key:{client}:{value}"), value],
            Self::Hset => vec!["HSET".into(), format!("hash:{client}"), value.clone(), value],
            Self::Get => vec!["GET".into(), format!("key:{client}:{value}")],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    /// `-UNAVAILABLE … may or may not have been applied`
    Uncertain,
    /// Any other error: it must not have been applied.
    Refused(String),
    /// The connection died under it; the client stopped there.
    Lost,
}

#[derive(Debug, Clone)]
pub struct Attempt {
    pub client: usize,
    pub kind: Kind,
    pub number: u64,
    pub sent: Instant,
    /// Until it was answered.
    pub waited: Duration,
    pub outcome: Outcome,
}

/// Writing clients on threads of their own, each with one command in flight.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Vec<AtomicU64>>,
    threads: Vec<JoinHandle<Vec<Attempt>>>,
}

impl Load {
    pub fn start(address: &str, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..clients).map(|_| AtomicU64::new(0)).collect());
        let threads = (0..clients).map(|client| {
            let (stop, acknowledged, connection) = (stop.clone(), acknowledged.clone(), Client::connect(address));
            std::thread::spawn(move || write_until_told(connection, client, &stop, &acknowledged[client]))
        });
        let threads = threads.collect();
        Self {
            stop,
            acknowledged,
            threads,
        }
    }

    /// Waits until every client has had `more` further commands answered without an error.
    #[track_caller]
    pub fn wait_for_more(&self, more: u64) {
        let count = || {
            self.acknowledged
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect::<Vec<_>>()
        };
        let begin = count();
        wait_until(
            DEADLINE,
            &format!("{more} more commands answered for each of the clients"),
            || {
                assert!(
                    !self.threads.iter().any(JoinHandle::is_finished),
                    "a client's connection died"
                );
                count().iter().zip(&begin).all(|(now, begin)| now - begin >= more)
            },
        );
    }

    pub fn finish(self) -> Vec<Attempt> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("the client was never cut off"))
            .collect()
    }
}

fn write_until_told(mut connection: Client, client: usize, stop: &AtomicBool, count: &AtomicU64) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for number in 0.. {
        for kind in KINDS {
            let sent = Instant::now();
            let Ok(reply) = connection.try_call(&kind.request(client, number)) else {
                attempts.push(Attempt {
                    client,
                    kind,
                    number,
                    sent,
                    waited: sent.elapsed(),
                    outcome: Outcome::Lost,
                });
                return attempts;
            };
            let waited = sent.elapsed();
            let outcome = match error_text(&reply) {
                None => Outcome::Acknowledged,
                Some(text) if text.contains(UNCERTAIN) => Outcome::Uncertain,
                Some(text) => Outcome::Refused(text),
            };
            if outcome == Outcome::Acknowledged {
                count.fetch_add(1, Ordering::Relaxed);
            }
            if kind == Kind::Get && outcome == Outcome::Acknowledged {
                let value = bulk(number.to_string());
                assert!(reply == value || reply == b"$-1\r\n", "GET invented {}", shown(&reply));
            }
            attempts.push(Attempt {
                client,
                kind,
                number,
                sent,
                waited,
                outcome,
            });
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(PAUSE_BETWEEN_CYCLES);
    }
    attempts
}

/// No error at all for anything sent after `from`.
#[track_caller]
pub fn assert_no_error_after(attempts: &[Attempt], from: Instant) {
    let failed: Vec<_> = attempts
        .iter()
        .filter(|attempt| attempt.sent >= from && attempt.outcome != Outcome::Acknowledged)
        .collect();
    assert!(
        failed.is_empty(),
        "{} errors after the allowed time, the first: {:?}",
        failed.len(),
        failed[0]
    );
}

/// No client waited longer for an answer of any kind.
#[track_caller]
pub fn assert_answered_within(attempts: &[Attempt], bound: Duration) {
    let slowest = attempts.iter().max_by_key(|attempt| attempt.waited);
    let slowest = slowest.expect("something was asked");
    assert!(slowest.waited <= bound, "longer than {bound:?}: {slowest:?}");
}

/// No client was ever cut off.
#[track_caller]
pub fn assert_none_lost(attempts: &[Attempt]) {
    assert!(
        attempts.iter().all(|attempt| attempt.outcome != Outcome::Lost),
        "a client's connection died"
    );
}

/// Each session may have no more uncertain writes than it had commands in flight, here one per outage.
#[track_caller]
pub fn assert_uncertain_at_most(attempts: &[Attempt], per_client_max: usize) {
    let mut uncertain: HashMap<usize, usize> = HashMap::new();
    for attempt in attempts.iter().filter(|attempt| attempt.outcome == Outcome::Uncertain) {
        *uncertain.entry(attempt.client).or_default() += 1;
        assert_ne!(attempt.kind, Kind::Get, "a read is never uncertain");
    }
    for (client, count) in uncertain {
        assert!(count <= per_client_max, "client {client} got {count} uncertain replies");
    }
}

/// Everything acknowledged is in Redis, in order, once; nothing refused is.
#[track_caller]
pub fn assert_applied(redis: &mut Client, attempts: &[Attempt]) {
    let mut by_client: BTreeMap<(usize, Kind), Vec<&Attempt>> = BTreeMap::new();
    for attempt in attempts {
        by_client
            .entry((attempt.client, attempt.kind))
            .or_default()
            .push(attempt);
    }
    for ((client, kind), attempts) in by_client {
        let found = match kind {
            Kind::Rpush => array(&redis.call(&["LRANGE", &format!("list:{client}"), "0", "-1"])),
            Kind::Xadd => stream_values(&redis.call(&["XRANGE", &format!("stream:{client}"), "-", "+"])),
            Kind::Hset => sorted(array(&redis.call(&["HKEYS", &format!("hash:{client}")]))),
            Kind::Set => values_of_keys(redis, client, &attempts),
            Kind::Get => continue,
        };
        assert_sequence(&format!("{kind:?} of client {client}"), &found, &attempts);
    }
}

#[track_caller]
fn assert_sequence(what: &str, found: &[String], attempts: &[&Attempt]) {
    let found: Vec<u64> = found
        .iter()
        .map(|value| value.parse().expect("only our values are there"))
        .collect();
    for pair in found.windows(2) {
        assert!(
            pair[0] < pair[1],
            "{what}: {} stands before {}: twice or out of order",
            pair[0],
            pair[1]
        );
    }
    for attempt in attempts {
        let there = found.binary_search(&attempt.number).is_ok();
        match &attempt.outcome {
            Outcome::Acknowledged => assert!(there, "{what}: acknowledged {} is lost", attempt.number),
            Outcome::Refused(text) => assert!(!there, "{what}: {} is there, refused with {text}", attempt.number),
            Outcome::Uncertain | Outcome::Lost => {}
        }
    }
    assert!(
        found.last() <= attempts.last().map(|attempt| &attempt.number),
        "{what}: invented"
    );
}

/// The numbers whose key holds exactly its own value.
fn values_of_keys(redis: &mut Client, client: usize, attempts: &[&Attempt]) -> Vec<String> {
    const KEYS_PER_REQUEST: usize = 1000;
    let mut found = Vec::new();
    for attempts in attempts.chunks(KEYS_PER_REQUEST) {
        let keys = attempts
            .iter()
            .map(|attempt| format!("key:{client}:{}", attempt.number));
        let request: Vec<String> = std::iter::once("MGET".to_owned()).chain(keys).collect();
        found.extend(array(&redis.call(&request)));
    }
    found
}

/// XRANGE's strings are, per entry, the ID, the field `v` and the value.
fn stream_values(reply: &[u8]) -> Vec<String> {
    array(reply).chunks(3).map(|entry| entry[2].clone()).collect()
}

fn sorted(mut values: Vec<String>) -> Vec<String> {
    values.sort_by_key(|value| value.parse::<u64>().ok());
    values
}
