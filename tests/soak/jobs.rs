//! A queue of jobs: one client pushes, some pop and block, one listens. Whatever happens, each job is popped once at most, and lost only by a pop
//! whose reply was lost.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::support::load::UNCERTAIN;
use super::support::{Client, array, error_text, integer, shown};

const WORKERS: usize = 3;
const DB: &str = "3";
const QUEUE: &str = "jobs";
const CHANNEL: &str = "news";
/// Longer than any answer may take: silence beyond it is a hang.
const SILENCE: Duration = Duration::from_secs(12);
/// Nothing is heard while Redis is away.
const HEARD_NOTHING: Duration = Duration::from_secs(600);
/// A subscriber hears again this long after all is well.
const DEAF: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);
/// The last message, published until it is heard.
const LAST: &str = "last";

/// What one client saw.
#[derive(Debug, Default)]
struct Seen {
    /// Acknowledged pushes, or pops.
    jobs: Vec<String>,
    /// Pushes that may have been applied.
    uncertain: Vec<String>,
    /// Pops whose reply was lost.
    lost_pops: usize,
    /// Messages published.
    messages: u64,
    complaints: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Jobs {
    stop: Arc<AtomicBool>,
    pusher: JoinHandle<Seen>,
    workers: Vec<JoinHandle<Seen>>,
    listener: JoinHandle<Seen>,
}

impl Jobs {
    pub(crate) fn start(address: &str, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |serve: fn(&mut Seen, &mut fastrand::Rng, &str, &AtomicBool) -> io::Result<()>, index: u64| {
            let (stop, address) = (stop.clone(), address.to_owned());
            let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(77).wrapping_add(index));
            std::thread::spawn(move || {
                let mut seen = Seen::default();
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = serve(&mut seen, &mut random, &address, &stop)
                        && matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
                    {
                        seen.complaints
                            .push(format!("client {index} of the queue: no answer ({error})"));
                    }
                    std::thread::sleep(PAUSE);
                }
                seen
            })
        };
        Self {
            pusher: spawn(push, 0),
            workers: (1..=WORKERS as u64).map(|index| spawn(work, index)).collect(),
            listener: spawn(listen, u64::MAX),
            stop,
        }
    }

    /// To be called when all is well again.
    pub(crate) fn finish(self, redis: &mut Client) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let pushed = self.pusher.join().expect("a client never panics");
        let workers: Vec<Seen> = self
            .workers
            .into_iter()
            .map(|worker| worker.join().expect("nor this one"))
            .collect();
        let well_at = Instant::now();
        while !self.listener.is_finished() && well_at.elapsed() < DEAF {
            redis.call(&["PUBLISH", CHANNEL, LAST]);
            std::thread::sleep(PAUSE);
        }
        let listened = if self.listener.is_finished() {
            self.listener.join().expect("nor this one").complaints
        } else {
            vec!["a subscriber hears nothing any more".into()]
        };
        redis.call(&["SELECT", DB]);
        let left = array(&redis.call(&["LRANGE", QUEUE, "0", "-1"]));
        let mut wrong = pushed.complaints;
        let mut times: HashMap<String, usize> = HashMap::new();
        let popped = workers.iter().flat_map(|worker| &worker.jobs);
        for job in popped.chain(&left) {
            *times.entry(job.clone()).or_default() += 1;
        }
        wrong.extend(
            times
                .iter()
                .filter(|(_, times)| **times > 1)
                .map(|(job, times)| format!("job {job} came {times} times")),
        );
        let known = |job: &String| pushed.jobs.contains(job) || pushed.uncertain.contains(job);
        wrong.extend(
            times
                .keys()
                .filter(|job| !known(job))
                .map(|job| format!("job {job} was never pushed")),
        );
        let missing: Vec<&String> = pushed.jobs.iter().filter(|job| !times.contains_key(*job)).collect();
        let excuses: usize = workers.iter().map(|worker| worker.lost_pops).sum();
        if missing.len() > excuses {
            wrong.push(format!("jobs {missing:?} are missing, and {excuses} pops were lost"));
        }
        eprintln!(
            "{} jobs pushed, {} left, {} missing, {excuses} pops lost",
            pushed.jobs.len(),
            left.len(),
            missing.len()
        );
        wrong.extend(workers.into_iter().flat_map(|worker| worker.complaints));
        wrong.extend(listened);
        wrong
    }
}

fn enter(client: &mut Client, seen: &mut Seen) -> io::Result<()> {
    let reply = client.try_call(&["SELECT", DB])?;
    if reply != b"+OK\r\n" {
        seen.complaints.push(format!("SELECT answered {}", shown(&reply)));
    }
    Ok(())
}

fn push(seen: &mut Seen, random: &mut fastrand::Rng, address: &str, stop: &AtomicBool) -> io::Result<()> {
    let mut client = Client::try_connect(address, SILENCE)?;
    enter(&mut client, seen)?;
    while !stop.load(Ordering::Relaxed) {
        let job = format!("{:x}", random.u64(..));
        let reply = client
            .try_call(&["RPUSH", QUEUE, &job])
            .inspect_err(|_| seen.uncertain.push(job.clone()))?;
        match error_text(&reply) {
            None => seen.jobs.push(job),
            Some(text) if text.contains(UNCERTAIN) => seen.uncertain.push(job),
            Some(text) if text.starts_with("UNAVAILABLE ") => {}
            Some(text) => seen.complaints.push(format!("RPUSH answered {text}")),
        }
        seen.messages += 1;
        client.try_call(&["PUBLISH", CHANNEL, &seen.messages.to_string()])?;
        std::thread::sleep(Duration::from_micros(random.u64(0..4000)));
    }
    Ok(())
}

/// Pops from a session that is like any other, is known by its ID, or speaks RESP3.
fn work(seen: &mut Seen, random: &mut fastrand::Rng, address: &str, stop: &AtomicBool) -> io::Result<()> {
    let mut client = Client::try_connect(address, SILENCE)?;
    if random.bool() {
        let greeting = client.try_call(&["HELLO", "3"])?;
        if greeting.first() != Some(&b'%') {
            seen.complaints.push(format!("HELLO 3 answered {}", shown(&greeting)));
        }
    }
    enter(&mut client, seen)?;
    if random.bool() && integer(&client.try_call(&["CLIENT", "ID"])?) <= 0 {
        seen.complaints.push("CLIENT ID answered no ID".into());
    }
    while !stop.load(Ordering::Relaxed) {
        let timeout = format!("0.{:02}", random.u8(1..100));
        let reply = client
            .try_call(&["BLPOP", QUEUE, &timeout])
            .inspect_err(|_| seen.lost_pops += 1)?;
        match (error_text(&reply), reply.as_slice()) {
            (None, b"*-1\r\n" | b"_\r\n") => {}
            (None, _) => seen.jobs.extend(array(&reply).pop()),
            (Some(text), _) if text.contains(UNCERTAIN) => seen.lost_pops += 1,
            (Some(text), _) if text.starts_with("UNAVAILABLE ") => {}
            (Some(text), _) => seen.complaints.push(format!("BLPOP answered {text}")),
        }
    }
    Ok(())
}

/// Numbers rise: a message that came twice came over two connections.
fn listen(seen: &mut Seen, _: &mut fastrand::Rng, address: &str, _: &AtomicBool) -> io::Result<()> {
    let mut client = Client::try_connect(address, HEARD_NOTHING)?;
    let confirmed = client.try_call(&["SUBSCRIBE", CHANNEL])?;
    if !confirmed.starts_with(b"*3\r\n$9\r\nsubscribe\r\n") {
        seen.complaints
            .push(format!("SUBSCRIBE answered {}", shown(&confirmed)));
        return Ok(());
    }
    let mut newest = 0;
    loop {
        let message = array(&client.try_reply()?);
        let number = message.last().and_then(|text| text.parse::<u64>().ok());
        match (message.first().map(String::as_str), number) {
            (Some("message"), Some(number)) if number > newest => newest = number,
            (Some("message"), None) if message.last().is_some_and(|text| text == LAST) => return Ok(()),
            _ => seen.complaints.push(format!("after message {newest} came {message:?}")),
        }
    }
}
