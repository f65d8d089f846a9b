//! The next batch is queued at the server, without its EXEC, while the one before it is in flight. When that one is not applied, or replay stops,
//! what is queued is discarded.

use std::time::{Duration, Instant};

use tideover::replay::{Outcome, Pause};

use super::rig::{PATIENCE, Rig, Server, wait_until};
use super::{assert_all_once, journal_pushes};

const RECORDS: u32 = 20_000;

/// What the look at the rights to MULTI and the marker discards.
const RIGHTS: u64 = 1;

fn discards(server: &Server) -> u64 {
    calls(server, "discard").saturating_sub(RIGHTS)
}

fn calls(server: &Server, command: &str) -> u64 {
    let info = server.ask("INFO commandstats");
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn what_is_queued_behind_a_refused_batch_is_discarded_and_comes_later() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    for thousand in 0..RECORDS / 1000 {
        rig.journal(0, &["NOSUCH a"]);
        journal_pushes(&rig, 0, 1000 * thousand, 1000 * (thousand + 1));
    }
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_all_once(&server, RECORDS);
    assert_eq!(rig.reasons(), ["refused"; (RECORDS / 1000) as usize]);
    assert!(discards(&server) > 0, "something was queued");
}

#[test]
fn what_is_queued_behind_a_batch_that_was_not_executed_is_discarded_and_comes_later() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    journal_pushes(&rig, 0, 0, RECORDS);
    // It has no space: it is one word.
    let script = "local\tv=redis.call('get',KEYS[1])\tif(v)then\tredis.call('set',KEYS[1],v)end";
    let touch = format!("EVAL {script} 1 {}", rig.marker_key());
    std::thread::scope(|scope| {
        let touching = scope.spawn(|| {
            let until = Instant::now() + PATIENCE;
            while discards(&server) == 0 && Instant::now() < until {
                server.ask(&touch);
            }
        });
        assert_eq!(rig.recover_for(PATIENCE), Some(Outcome::CaughtUp));
        touching.join().unwrap();
    });
    assert_all_once(&server, RECORDS);
    assert!(discards(&server) > 0, "something was queued");
    assert!(rig.letters().is_empty());
}

#[test]
fn what_is_queued_when_replay_is_paused_is_not_executed() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    journal_pushes(&rig, 0, 0, RECORDS);
    let controls = std::sync::Arc::clone(&rig.controls);
    std::thread::scope(|scope| {
        let pausing = scope.spawn(|| {
            wait_until("something is replayed", || server.ask("LLEN l") != ":0\r\n");
            controls.set_pause(Pause::Paused).unwrap();
        });
        assert_eq!(rig.recover_for(Duration::from_secs(2)), None);
        pausing.join().unwrap();
    });
    let applied = u32::try_from(server.list(0, "l").len()).unwrap();
    assert!(applied > 0 && applied < RECORDS, "{applied}");
    assert_eq!(
        rig.status().journal.records,
        u64::from(RECORDS - applied),
        "what is not executed is not confirmed"
    );
    assert_eq!(discards(&server), 1);
    rig.controls.set_pause(Pause::Running).unwrap();
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_all_once(&server, RECORDS);
}

/// What follows a refused MULTI is executed: also what was to be queued behind a batch whose EXEC is refused.
#[test]
fn when_the_right_to_multi_is_gone_for_a_moment_nothing_is_lost_or_repeated_in_silence() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    journal_pushes(&rig, 0, 0, RECORDS);
    std::thread::scope(|scope| {
        let revoking = scope.spawn(|| {
            wait_until("something is replayed", || server.ask("LLEN l") != ":0\r\n");
            server.ask("CLIENT PAUSE 10000 WRITE");
            // The first of both batches, behind its MULTI: in a transaction, and blocked.
            wait_until("a batch is held", || server.ask("CLIENT LIST").contains(" flags=xb "));
            server.ask("ACL SETUSER default -@transaction");
            server.ask("CLIENT UNPAUSE");
            let is_refused = || {
                let stats = server.ask("INFO commandstats");
                let discards = stats.lines().find(|line| line.starts_with("cmdstat_discard"));
                discards.is_some_and(|line| !line.contains("rejected_calls=0"))
            };
            wait_until("a DISCARD is refused", is_refused);
            server.ask("ACL SETUSER default +@transaction");
        });
        assert_eq!(rig.recover_for(PATIENCE), Some(Outcome::CaughtUp));
        revoking.join().unwrap();
    });
    let mut list: Vec<u32> = server.list(0, "l").iter().map(|n| n.parse().unwrap()).collect();
    list.sort_unstable();
    assert!(list.iter().copied().eq(0..RECORDS), "{}", list.len());
    let letters = rig.letters();
    assert!(!letters.is_empty());
    for letter in letters {
        assert_eq!(letter.reason, "no_permission");
        assert!(letter.error.starts_with("it may or may not have been applied"));
    }
}
