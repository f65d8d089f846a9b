//! Clients that ask for something small, one request after the other, and note how long they waited.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::support::{Client, DEADLINE, wait_until};

const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Neighbours {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Neighbours {
    pub(crate) fn start(address: &str, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let threads = (0..count).map(|_| {
            let (stop, answered, client) = (stop.clone(), answered.clone(), Client::connect(address));
            std::thread::spawn(move || ask(client, &stop, &answered))
        });
        let threads = threads.collect();
        Self {
            stop,
            answered,
            threads,
        }
    }

    /// Waits for so many more answers per neighbour, on average.
    #[track_caller]
    pub(crate) fn wait_for_more(&self, more: u64) {
        let wanted = self.answered.load(Ordering::Relaxed) + more * self.threads.len() as u64;
        wait_until(DEADLINE, &format!("{more} more answers for each neighbour"), || {
            self.answered.load(Ordering::Relaxed) >= wanted
        });
    }

    /// The longest wait for an answer, and the number of answers.
    pub(crate) fn finish(self) -> (Duration, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let slowest = self.threads.into_iter().map(|thread| thread.join().unwrap()).max();
        (slowest.unwrap_or_default(), self.answered.load(Ordering::Relaxed))
    }
}

fn ask(mut client: Client, stop: &AtomicBool, answered: &AtomicU64) -> Duration {
    let mut slowest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        assert_eq!(client.call(&["GET", "nothing"]), b"$-1\r\n");
        slowest = slowest.max(asked.elapsed());
        answered.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
    }
    slowest
}
