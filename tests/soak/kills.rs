//! kill -9 of tideover at random moments while it journals: the backlog is whole after each.

use std::io;
use std::time::{Duration, Instant};

use super::number_of;
use super::support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, wait_until};

const KILLS: u64 = 6;
const SEED: u64 = 3;
const WRITERS: usize = 4;
/// Longest life between two kills.
const LIFE_MS_MAX: u64 = 120;

/// One client's numbers, ascending: each is pushed once, and after a cut the next one follows.
struct Writer {
    client: Option<Client>,
    list: String,
    next: u64,
    acknowledged: Vec<u64>,
}

impl Writer {
    fn push(&mut self, address: &str) -> io::Result<()> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::try_connect(address, DEADLINE)?,
        };
        let number = self.next;
        self.next += 1;
        let reply = client.try_call(&["RPUSH", &self.list, &number.to_string()])?;
        if reply.starts_with(b":") {
            self.acknowledged.push(number);
        }
        self.client = Some(client);
        Ok(())
    }

    fn push_until(&mut self, address: &str, end: Instant) {
        while Instant::now() < end {
            // A cut: what was under way is in doubt, and the next number follows.
            if self.push(address).is_err() {
                self.client = None;
            }
        }
    }
}

#[test]
fn the_backlog_is_whole_after_each_of_many_kills() {
    let (kills, seed) = (number_of("SOAK_KILLS", KILLS), number_of("SOAK_SEED", SEED));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let mut proxy = Tideover::start_with(&redis, &Settings::default());
    proxy.wait_for_mode("healthy", DEADLINE);
    redis.kill();
    proxy.wait_for_mode("down", DEADLINE);
    let address = proxy.address();
    let mut writers: Vec<Writer> = (0..WRITERS)
        .map(|number| Writer {
            client: None,
            list: format!("list:{number}"),
            next: 0,
            acknowledged: Vec::new(),
        })
        .collect();
    for kill in 1..=kills {
        let end = Instant::now() + Duration::from_millis(random.u64(1..=LIFE_MS_MAX));
        std::thread::scope(|scope| {
            for writer in &mut writers {
                scope.spawn(|| writer.push_until(&address, end + Duration::from_millis(30)));
            }
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
            proxy.kill();
        });
        proxy.restart();
        wait_until(DEADLINE, "the journal is open", || proxy.try_status().is_some());
        let acknowledged: u64 = writers.iter().map(|writer| writer.acknowledged.len() as u64).sum();
        let backlog = proxy.backlog();
        let in_doubt = kill * WRITERS as u64;
        assert!(
            (acknowledged..=acknowledged + in_doubt).contains(&backlog),
            "after kill {kill} (seed {seed}): {acknowledged} acknowledged, {backlog} in the backlog"
        );
    }
    redis.restart();
    proxy.wait_for_recovery();
    let mut client = redis.client();
    let mut total = 0;
    for writer in &writers {
        let found: Vec<u64> = array(&client.call(&["LRANGE", &writer.list, "0", "-1"]))
            .iter()
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(found.is_sorted_by(|a, b| a < b), "{}: once each, in order", writer.list);
        let lost: Vec<&u64> = writer
            .acknowledged
            .iter()
            .filter(|number| found.binary_search(number).is_err())
            .collect();
        assert!(lost.is_empty(), "{}: lost {lost:?}", writer.list);
        total += writer.acknowledged.len();
    }
    eprintln!("{kills} kills, {total} acknowledged, all there once and in order");
}
