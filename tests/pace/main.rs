//! Many sidecars in front of one Redis that comes back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

#[path = "../support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, bulk, command};

const SIDECARS: usize = 20;
const WRITES: usize = 300;

/// One after the other they would take no longer than this.
const ALL_DEADLINE: Duration = Duration::from_secs(60);

fn journal(client: &mut Client, sidecar: usize) {
    let mut pipeline = Vec::new();
    for write in 0..WRITES {
        let value = format!("{sidecar}:{write}");
        pipeline.extend(command(&["RPUSH", "all", &value]));
        pipeline.extend(command(&["SET", &format!("last:{sidecar}"), &value]));
    }
    client.send_raw(&pipeline);
    for _ in 0..2 * WRITES {
        let reply = client.reply();
        assert!(!reply.starts_with(b"-"), "{}", support::shown(&reply));
    }
}

#[test]
fn twenty_sidecars_replay_at_once_and_each_keeps_its_order() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    redis.client().call(&["SET", "direct", "v"]);
    let settings = Settings {
        workers: 1,
        ..Settings::default()
    };
    let mut sidecars: Vec<Tideover> = (0..SIDECARS).map(|_| Tideover::prepare(&redis, &settings)).collect();
    sidecars.iter_mut().for_each(Tideover::launch);
    for sidecar in &mut sidecars {
        sidecar.wait_until_listening();
        sidecar.wait_for_mode("healthy", DEADLINE);
    }
    redis.kill();
    for (number, sidecar) in sidecars.iter().enumerate() {
        sidecar.wait_for_mode("down", DEADLINE);
        journal(&mut sidecar.client(), number);
    }
    redis.restart();
    let (latencies, has_recovered) = (std::sync::Mutex::new(Vec::new()), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut direct = redis.client();
            while !has_recovered.load(Ordering::Relaxed) {
                let begin = Instant::now();
                assert_eq!(direct.call(&["GET", "direct"]), bulk("v"));
                latencies.lock().unwrap().push(begin.elapsed());
                thread::sleep(Duration::from_millis(1));
            }
        });
        for sidecar in &sidecars {
            sidecar.wait_for_mode("healthy", ALL_DEADLINE);
        }
        has_recovered.store(true, Ordering::Relaxed);
    });
    let mut latencies = latencies.into_inner().unwrap();
    latencies.sort_unstable();
    let at = |share: usize| latencies[latencies.len().saturating_sub(1) * share / 1000];
    println!(
        "a direct client's GET beside {SIDECARS} replays: median {:?}, 99 % {:?}, longest {:?} of {}",
        at(500),
        at(990),
        at(1000),
        latencies.len()
    );
    let mut direct = redis.client();
    let mut next = [0; SIDECARS];
    let all = array(&direct.call(&["LRANGE", "all", "0", "-1"]));
    assert_eq!(all.len(), SIDECARS * WRITES);
    for value in all {
        let (number, write) = value.split_once(':').unwrap();
        let next = &mut next[number.parse::<usize>().unwrap()];
        assert_eq!(write.parse::<usize>().unwrap(), *next, "sidecar {number}");
        *next += 1;
    }
    for (number, sidecar) in sidecars.iter().enumerate() {
        let last = format!("{number}:{}", WRITES - 1);
        assert_eq!(direct.call(&["GET", &format!("last:{number}")]), bulk(&last));
        let status = sidecar.status();
        assert_eq!(
            (&status["state"], &status["queue"]["records"]),
            (&"closed".into(), &0.into())
        );
        assert_eq!(status["queue"]["replayed_total"], 2 * WRITES);
    }
}
