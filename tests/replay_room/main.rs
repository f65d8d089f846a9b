//! Replay against a live redis-server: every acknowledged write once and in order, whatever breaks in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::zombie_processes, reason = "tests")]

mod ahead;
mod rig;

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use rig::{Rig, Server, payload, swallow_answer_to_exec, wait_until};
use rustix::process::Signal;
use tideover::breaker::Trouble;
use tideover::journal::owner::Payloads;
use tideover::replay::{Fence, Outcome, Pause, Rate, Settings};
use tideover::upstream::settings::{Credentials, Secret};
use tideover::upstream::shared::Mode;

fn pushes(from: u32, to: u32) -> Vec<String> {
    (from..to).map(|n| format!("RPUSH l {n}")).collect()
}

fn journal_pushes(rig: &Rig, db: u32, from: u32, to: u32) {
    let commands = pushes(from, to);
    rig.journal(db, &commands.iter().map(String::as_str).collect::<Vec<_>>());
}

fn numbers(from: u32, to: u32) -> Vec<String> {
    (from..to).map(|n| n.to_string()).collect()
}

/// The list holds so many numbers, each once and in order; of a long one only the first difference is said.
#[track_caller]
fn assert_all_once(server: &Server, count: u32) {
    let list = server.list(0, "l");
    let differs = list
        .iter()
        .zip(numbers(0, count))
        .position(|(left, right)| *left != right);
    assert_eq!((list.len(), differs), (count as usize, None));
}

#[test]
fn a_plain_backlog_is_applied_once_and_in_order() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    journal_pushes(&rig, 0, 0, 5000);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "l"), numbers(0, 5000));
    assert_eq!(rig.owner.generation(), 2);
    assert_eq!(rig.status().journal.records, 0);
    let marker = server.ask(&format!("GET {}", rig.marker_key()));
    assert!(
        marker.contains(&format!("1:{}", rig.status().journal.replayed_seq)),
        "{marker}"
    );

    rig.trip();
    journal_pushes(&rig, 0, 5000, 5003);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "l"), numbers(0, 5003));
}

#[test]
fn a_batch_whose_answer_is_lost_is_applied_once() {
    for number in 1..=3 {
        let server = Server::start(&[]);
        let mut rig = Rig::new(server.port);
        journal_pushes(&rig, 0, 0, 1000);
        let port = swallow_answer_to_exec(server.port, number);
        assert!(matches!(rig.recover_through(port), Outcome::Failed(_)));
        let after = server.list(0, "l").len();
        assert!(
            after > 0 && rig.status().journal.records > 0,
            "something was applied that is not known to be"
        );
        assert_eq!(rig.recover(), Outcome::CaughtUp);
        assert_eq!(server.list(0, "l"), numbers(0, 1000));
    }
}

#[test]
fn a_frozen_server_that_wakes_applies_a_batch_once() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    journal_pushes(&rig, 0, 0, 50_000);
    std::thread::scope(|scope| {
        let freezing = scope.spawn(|| {
            wait_until("something is replayed", || server.ask("LLEN l") != ":0\r\n");
            server.signal(Signal::STOP);
        });
        let outcome = rig.recover();
        freezing.join().unwrap();
        server.signal(Signal::CONT);
        if outcome != Outcome::CaughtUp {
            assert_eq!(outcome, Outcome::Failed(Trouble::Silence));
            assert_eq!(rig.recover(), Outcome::CaughtUp);
        }
    });
    assert_all_once(&server, 50_000);
}

#[test]
fn what_can_never_succeed_becomes_a_dead_letter_and_the_rest_goes_on() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    server.ask("SET s x");
    rig.journal(0, &["SET a 1", "RPUSH s x", "NOSUCH a", "SET b 2"]);
    rig.transaction(0, &["SET c 3", "WRONG d"]);
    rig.journal(0, &["SET e 5"]);
    rig.journal(99, &["SET f 6"]);
    rig.journal(0, &["SET g 7"]);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(rig.reasons(), ["wrong_type", "refused", "refused", "bad_database"]);
    assert!(rig.letters()[0].error.starts_with("WRONGTYPE"));
    for (key, expected) in [("a", "1"), ("b", "2"), ("e", "5"), ("g", "7")] {
        assert_eq!(server.ask(&format!("GET {key}")), format!("$1\r\n{expected}\r\n"));
    }
    for key in ["c", "f"] {
        assert_eq!(server.ask(&format!("GET {key}")), "$-1\r\n");
    }
}

#[test]
fn databases_have_markers_of_their_own() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    for n in 0..30 {
        journal_pushes(&rig, n % 3, n, n + 1);
    }
    let port = swallow_answer_to_exec(server.port, 8);
    assert!(matches!(rig.recover_through(port), Outcome::Failed(_)));
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    for db in 0..3 {
        let expected: Vec<String> = (0..30).filter(|n| n % 3 == db).map(|n| n.to_string()).collect();
        assert_eq!(server.list(db, "l"), expected);
    }
}

#[test]
fn a_crash_before_the_journal_knows_applies_nothing_twice() {
    let server = Server::start(&[]);
    let rig = Rig::new(server.port);
    journal_pushes(&rig, 0, 0, 700);
    // Opened again so that the copy, too, knows the incarnation.
    let mut rig = rig.reopen();
    let copy = rig.copy();
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    let mut crashed = Rig::open(copy, server.port, Settings::default());
    assert_eq!(crashed.status().journal.records, 700);
    journal_pushes(&crashed, 0, 700, 710);
    assert_eq!(crashed.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "l"), numbers(0, 710));
}

#[test]
fn a_marker_of_somebody_else_halts() {
    // The last one with the name of a copy, and a number that is our own.
    for value in [
        "nonsense",
        "9:38654705665",
        "1:4294969999",
        "4503599627370499:4294967297",
    ] {
        let server = Server::start(&[]);
        let mut rig = Rig::new(server.port);
        server.ask(&format!("SET {} {value}", rig.marker_key()));
        journal_pushes(&rig, 0, 0, 3);
        assert_eq!(rig.recover_for(Duration::from_millis(300)), None);
        assert_eq!(server.list(0, "l"), Vec::<String>::new());
        assert_eq!(rig.shared.mode(), Mode::Halted);
        assert!(rig.controls.status().last_error.unwrap().contains("marker"));
        server.ask(&format!("DEL {}", rig.marker_key()));
        assert_eq!(rig.recover(), Outcome::CaughtUp);
        assert_eq!(server.list(0, "l"), numbers(0, 3));
        assert_eq!(rig.controls.status().last_error, None);
    }
}

/// Two copies that run at once number their records alike.
#[test]
fn copies_with_the_same_numbers_are_told_by_the_markers_name() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    journal_pushes(&rig, 0, 0, 5);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    let rig = rig.reopen();
    let copy = rig.copy();
    let mut first = rig.reopen();
    let mut second = Rig::open(copy, server.port, Settings::default());
    journal_pushes(&first, 0, 5, 15);
    journal_pushes(&second, 1, 0, 20);
    journal_pushes(&second, 0, 100, 120);
    assert_eq!(first.recover(), Outcome::CaughtUp);
    let marker = server.ask(&format!("GET {}", first.marker_key()));
    let last_seq = first.status().journal.replayed_seq;
    assert!(marker.ends_with(&format!(":{last_seq}\r\n")), "{marker}");
    let of_second = second.status().journal;
    assert_eq!(last_seq >> 32, of_second.last_seq >> 32, "the same numbers");
    assert!(last_seq < of_second.last_seq, "not ahead of what the second has");

    assert_eq!(second.recover_for(Duration::from_millis(300)), None);
    assert_eq!(second.shared.mode(), Mode::Halted);
    let told = second.controls.status().last_error.unwrap();
    assert!(told.contains("marker") && told.contains("copy"), "{told}");
    assert_eq!(second.status().journal.records, 20, "those of the other database went");
    assert_eq!(server.list(0, "l"), numbers(0, 15));

    // A person decides for the second: then the first is told.
    server.ask(&format!("DEL {}", second.marker_key()));
    assert_eq!(second.recover(), Outcome::CaughtUp);
    let both: Vec<String> = [numbers(0, 15), numbers(100, 120)].concat();
    assert_eq!(server.list(0, "l"), both);
    first.trip();
    journal_pushes(&first, 0, 15, 16);
    assert_eq!(first.recover_for(Duration::from_millis(300)), None);
    assert_eq!((first.shared.mode(), first.status().journal.records), (Mode::Halted, 1));
    assert_eq!(server.list(0, "l"), both);
}

#[test]
fn a_marker_of_the_previous_version_is_still_ours() {
    let server = Server::start(&[]);
    let rig = Rig::new(server.port).reopen_unnamed(&[1, 6]);
    journal_pushes(&rig, 0, 0, 700);
    let mut rig = rig.reopen_unnamed(&[1, 6, 7]);
    // As that version did, before it crashed.
    for command in pushes(0, 300) {
        server.ask(&command);
    }
    server.ask(&format!("SET {} 7:{}", rig.marker_key(), (7_u64 << 32) + 300));
    journal_pushes(&rig, 0, 700, 710);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "l"), numbers(0, 710));
    assert_eq!(rig.status().journal.last_seq, (8 << 32) + 10);
    assert_eq!(rig.reasons(), Vec::<String>::new());
}

#[test]
fn what_was_flushed_on_purpose_stays_away() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    journal_pushes(&rig, 0, 0, 10);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    server.ask("FLUSHALL");
    rig.trip();
    journal_pushes(&rig, 0, 10, 12);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "l"), numbers(10, 12));
}

#[test]
fn a_server_that_lost_everything_in_mid_replay_gets_everything_again() {
    let mut server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    journal_pushes(&rig, 0, 0, 1000);
    let port = swallow_answer_to_exec(server.port, 3);
    assert!(matches!(rig.recover_through(port), Outcome::Failed(_)));
    assert!(rig.status().journal.replayed_seq > 0);
    server.restart();
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "l"), numbers(0, 1000));
}

#[test]
fn after_live_writes_only_absolute_records_are_replayed_again() {
    let mut server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    rig.journal(0, &["SET a 1", "RPUSH l 1"]);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    server.restart();
    rig.trip();
    rig.journal(0, &["SET b 2"]);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.ask("MGET a b"), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    assert_eq!(server.list(0, "l"), Vec::<String>::new());
    assert_eq!(rig.reasons(), ["lost_by_failover"]);
}

/// A server that was put back to when its list held 0 to 9.
fn put_back(rig: &mut Rig, server: &Server) {
    journal_pushes(rig, 0, 0, 10);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    server.ask("SAVE");
    rig.trip();
}

#[test]
fn a_server_that_lost_the_tail_in_mid_replay_gets_the_tail_again() {
    let mut server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    put_back(&mut rig, &server);
    journal_pushes(&rig, 0, 10, 1010);
    let port = swallow_answer_to_exec(server.port, 3);
    assert!(matches!(rig.recover_through(port), Outcome::Failed(_)));
    server.restart();
    assert_eq!(server.list(0, "l"), numbers(0, 10));
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "l"), numbers(0, 1010));
    assert!(rig.letters().is_empty());
}

#[test]
fn a_tail_lost_after_live_writes_comes_back_as_far_as_it_is_absolute() {
    let mut server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    put_back(&mut rig, &server);
    rig.journal(0, &["SET a 1", "RPUSH l 10", "SET b 2"]);
    rig.journal(1, &["SET c 3"]);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    server.restart();
    rig.trip();
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "l"), numbers(0, 10));
    assert_eq!(server.ask("MGET a b"), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    assert_eq!(rig.reasons(), ["lost_by_failover"]);
}

#[test]
fn what_replicas_have_confirmed_is_not_kept() {
    let server = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", server.port)]);
    wait_until("the replica is up", || {
        server.ask("INFO replication").contains("state=online")
    });
    let mut rig = Rig::new(server.port);
    journal_pushes(&rig, 0, 0, 100);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(rig.status().journal.retained_bytes, 0);
    assert_eq!(replica.list(0, "l"), numbers(0, 100));

    drop(replica);
    rig.trip();
    journal_pushes(&rig, 0, 100, 101);
    while server.ask("INFO replication").contains("state=online") {
        std::thread::yield_now();
    }
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert!(rig.status().journal.retained_bytes > 0, "nobody has confirmed it");
}

#[test]
fn a_transaction_is_one_unit() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    let commands = pushes(0, 1500);
    rig.transaction(0, &commands.iter().map(String::as_str).collect::<Vec<_>>());
    journal_pushes(&rig, 0, 1500, 1501);
    let port = swallow_answer_to_exec(server.port, 1);
    assert!(matches!(rig.recover_through(port), Outcome::Failed(_)));
    let length = server.list(0, "l").len();
    assert!(length == 1500 || length == 1501, "{length}");
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "l"), numbers(0, 1501));
}

#[test]
fn a_full_server_halts_replay_and_is_not_taken_for_dead() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    rig.journal(0, &["SET a 1", "SET b 2"]);
    server.ask("CONFIG SET maxmemory 1");
    assert_eq!(rig.recover_for(Duration::from_millis(300)), None);
    assert_eq!(rig.shared.mode(), Mode::Halted);
    assert!(rig.controls.status().last_error.unwrap().starts_with("OOM"));
    assert!(rig.letters().is_empty());
    server.ask("CONFIG SET maxmemory 0");
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.ask("MGET a b"), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
}

#[test]
fn what_only_frees_memory_is_replayed_on_a_full_server() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    server.ask("MSET a 1 b 2 c 3");
    rig.journal(0, &["DEL a", "UNLINK b", "SET c 4", "DEL c"]);
    server.ask("CONFIG SET maxmemory 1");
    assert_eq!(rig.recover_for(Duration::from_millis(500)), None);
    assert_eq!(server.ask("EXISTS a b"), ":0\r\n");
    assert_eq!(server.ask("GET c"), "$1\r\n3\r\n", "nothing overtakes what has to wait");
    assert_eq!(rig.status().journal.records, 2);
    server.ask("SET a 5");
    server.ask("CONFIG SET maxmemory 0");
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.ask("EXISTS c"), ":0\r\n");
}

fn credentials(user: &str, password: &str) -> Credentials {
    Credentials {
        user: Some(user.into()),
        password: Secret::new(password),
    }
}

/// Records of several users, in order.
fn journal_as(rig: &Rig, records: &[(&str, u32, &str)]) {
    let mut payloads = Payloads::default();
    for (identity, db, command) in records {
        payloads.push_with(|out| payload(*db, identity, &[command], out));
    }
    rig.append(payloads);
}

/// 2,000 records of alice, each behind one of the URL's; another user with `RPUSH a n` for each n.
fn journal_interleaved(rig: &Rig, from: u32, to: u32) {
    let commands: Vec<(String, String)> = (from..to)
        .map(|n| (format!("RPUSH l {n}"), format!("RPUSH a {n}")))
        .collect();
    let records: Vec<(&str, u32, &str)> = commands
        .iter()
        .flat_map(|(url, alice)| [("", 0, url.as_str()), ("alice", 0, alice.as_str())])
        .collect();
    journal_as(rig, &records);
}

const ALICE: &str = "ACL SETUSER alice on >secret +@all ~*";

#[test]
fn each_users_writes_are_replayed_as_that_user_once_it_is_known() {
    let server = Server::start(&[]);
    server.ask("ACL SETUSER alice on >secret +@all ~a:* ~tideover:*");
    let mut rig = Rig::new(server.port);
    journal_as(
        &rig,
        &[
            ("", 0, "SET x 1"),
            ("alice", 0, "SET a:1 1"),
            ("alice", 0, "SET b:1 1"),
            ("", 0, "SET y 1"),
        ],
    );
    assert_eq!(rig.recover(), Outcome::CaughtUp, "others do not wait");
    assert_eq!(server.ask("EXISTS x a:1 b:1 y"), ":2\r\n");
    assert!(rig.controls.status().identities_waiting.contains("alice"));
    let journal = rig.status().journal;
    assert_eq!(
        (journal.records, journal.waiting_records, journal.replayed_total),
        (2, 2, 2)
    );
    assert!(journal.oldest_wall_ms.is_some() && journal.bytes > 0);
    rig.shared.known.keep_live(&credentials("alice", "secret"));
    rig.trip();
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.ask("EXISTS x a:1 b:1 y"), ":3\r\n");
    assert_eq!(rig.reasons(), ["no_permission"]);
    assert!(rig.controls.status().identities_waiting.is_empty());
    let journal = rig.status().journal;
    assert_eq!(
        (journal.records, journal.waiting_records, journal.replayed_total),
        (0, 0, 4)
    );
}

#[test]
fn what_waited_is_applied_once_and_in_order_whatever_breaks() {
    for number in 2..=6 {
        let server = Server::start(&[]);
        server.ask(ALICE);
        let mut rig = Rig::new(server.port);
        journal_interleaved(&rig, 0, 2000);
        assert_eq!(rig.recover(), Outcome::CaughtUp);
        assert_eq!(server.list(0, "l"), numbers(0, 2000));
        assert_eq!(rig.status().journal.waiting_records, 2000);
        let relay = swallow_answer_to_exec(server.port, number);
        let mut rig = Rig::open(rig.close(), relay, Settings::default());
        journal_interleaved(&rig, 2000, 2100);
        rig.shared.known.keep_live(&credentials("alice", "secret"));
        assert!(matches!(rig.recover(), Outcome::Failed(_)));
        let applied = server.list(0, "a").len();
        assert!(applied > 0 && rig.status().journal.waiting_records > 0, "{applied}");
        let mut rig = Rig::open(rig.close(), server.port, Settings::default());
        rig.shared.known.keep_live(&credentials("alice", "secret"));
        assert_eq!(rig.recover(), Outcome::CaughtUp);
        assert_eq!(server.list(0, "a"), numbers(0, 2100), "cut at answer {number}");
        assert_eq!(server.list(0, "l"), numbers(0, 2100));
        assert_eq!(rig.status().journal.records, 0);
        assert!(rig.letters().is_empty());
    }
}

#[test]
fn what_waits_is_set_aside_many_at_a_time() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    journal_interleaved(&rig, 0, 10_000);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(rig.status().journal.waiting_records, 10_000);
    let names = rig::ask(|reply| rig.owner.waiting_names(reply));
    assert!(names[0].ranges.len() < 50, "{} entries", names[0].ranges.len());
}

#[test]
fn a_crash_between_setting_aside_and_the_checkpoint_neither_repeats_nor_loses() {
    let server = Server::start(&[]);
    server.ask(ALICE);
    let rig = Rig::new(server.port);
    journal_interleaved(&rig, 0, 700);
    let mut rig = rig.reopen();
    // The checkpoint of before, with what has been set aside since.
    let copy = rig.copy();
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    std::fs::copy(
        rig.dir.path().join("journal/waiting"),
        copy.path().join("journal/waiting"),
    )
    .unwrap();
    let mut crashed = Rig::open(copy, server.port, Settings::default());
    let journal = crashed.status().journal;
    assert_eq!(
        (journal.records, journal.waiting_records),
        (1400, 700),
        "none counts twice"
    );
    assert_eq!(crashed.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "l"), numbers(0, 700));
    assert_eq!(crashed.status().journal.records, 700);
    crashed.shared.known.keep_live(&credentials("alice", "secret"));
    crashed.trip();
    assert_eq!(crashed.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "a"), numbers(0, 700));
}

#[test]
fn records_that_a_marker_says_are_done_are_not_set_aside() {
    let server = Server::start(&[]);
    server.ask(ALICE);
    let rig = Rig::new(server.port);
    journal_interleaved(&rig, 0, 300);
    let mut rig = rig.reopen();
    let copy = rig.copy();
    rig.shared.known.keep_live(&credentials("alice", "secret"));
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    // All is applied, nothing of it known, and alice is not known either.
    let mut crashed = Rig::open(copy, server.port, Settings::default());
    assert_eq!(crashed.recover(), Outcome::CaughtUp);
    assert_eq!(crashed.status().journal.records, 0);
    assert_eq!(server.list(0, "a"), numbers(0, 300));
    assert_eq!(server.list(0, "l"), numbers(0, 300));
}

#[test]
fn what_waited_in_several_databases_is_applied_in_each() {
    let server = Server::start(&[]);
    server.ask(ALICE);
    let mut rig = Rig::new(server.port);
    for n in 0..30 {
        journal_as(&rig, &[("alice", n % 3, &format!("RPUSH a {n}")), ("", 0, "SET x 1")]);
    }
    journal_as(&rig, &[("alice", 99, "SET f 6")]);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    rig.shared.known.keep_live(&credentials("alice", "secret"));
    rig.trip();
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    for db in 0..3 {
        let expected: Vec<String> = (0..30).filter(|n| n % 3 == db).map(|n| n.to_string()).collect();
        assert_eq!(server.list(db, "a"), expected);
    }
    assert_eq!(rig.reasons(), ["bad_database"]);
}

#[test]
fn a_password_that_is_withdrawn_lets_the_records_wait_again() {
    let server = Server::start(&[]);
    server.ask(ALICE);
    let mut rig = Rig::new(server.port);
    rig.shared.known.keep_live(&credentials("alice", "rotated"));
    journal_interleaved(&rig, 0, 100);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(rig.status().journal.waiting_records, 100);
    rig.shared.known.keep_live(&credentials("alice", "as wrong"));
    rig.trip();
    journal_interleaved(&rig, 100, 200);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "l"), numbers(0, 200));
    assert_eq!(rig.status().journal.waiting_records, 200);
    rig.shared.known.keep_live(&credentials("alice", "secret"));
    rig.trip();
    journal_interleaved(&rig, 200, 250);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "a"), numbers(0, 250));
}

#[test]
fn a_server_that_came_back_empty_gets_what_waited_and_a_lost_marker_is_said() {
    let mut server = Server::start(&[]);
    server.ask(ALICE);
    let mut rig = Rig::new(server.port);
    let pushes: Vec<String> = (0..500).map(|n| format!("RPUSH a {n}")).collect();
    let records: Vec<(&str, u32, &str)> = pushes.iter().map(|push| ("alice", 0, push.as_str())).collect();
    journal_as(&rig, &records);
    journal_as(&rig, &[("alice", 0, "SET last 1")]);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    server.restart();
    server.ask(ALICE);
    let relay = swallow_answer_to_exec(server.port, 1);
    let mut rig = Rig::open(rig.close(), relay, Settings::default());
    rig.shared.known.keep_live(&credentials("alice", "secret"));
    assert!(matches!(rig.recover(), Outcome::Failed(_)));
    assert!(!server.list(0, "a").is_empty());
    // Nobody can tell now which of them the server had.
    server.restart();
    server.ask(ALICE);
    let mut rig = Rig::open(rig.close(), server.port, Settings::default());
    rig.shared.known.keep_live(&credentials("alice", "secret"));
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "a"), Vec::<String>::new());
    assert_eq!(server.ask("GET last"), "$1\r\n1\r\n", "it may be applied again");
    assert_eq!(rig.letters().len(), 500);
    assert!(rig.reasons().iter().all(|reason| reason == "marker_lost"));
    assert_eq!(rig.status().journal.records, 0);
}

#[test]
fn what_was_replayed_after_waiting_is_not_replayed_by_a_rewind_unless_it_is_lost() {
    let mut server = Server::start(&[]);
    server.ask(ALICE);
    let mut rig = Rig::new(server.port);
    journal_interleaved(&rig, 0, 50);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    rig.shared.known.keep_live(&credentials("alice", "secret"));
    rig.trip();
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    server.ask("SAVE");
    rig.trip();
    rig.journal(0, &["SET tail 1"]);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    // The tail is lost: everything that is retained is looked at again.
    server.restart();
    server.ask(ALICE);
    rig.trip();
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "a"), numbers(0, 50));
    assert_eq!(server.list(0, "l"), numbers(0, 50));
    assert_eq!(server.ask("GET tail"), "$1\r\n1\r\n");
    assert!(rig.letters().is_empty());
}

#[test]
fn what_waits_for_too_long_becomes_dead_letters() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    journal_interleaved(&rig, 0, 10);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    let dir = rig.close();
    let settings = Settings {
        age_max: Some(Duration::ZERO),
        ..Settings::default()
    };
    let mut rig = Rig::open(dir, server.port, settings);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(rig.letters().len(), 10);
    assert_eq!(rig.status().journal.records, 0);
    assert!(rig.controls.status().identities_waiting.is_empty());
}

#[test]
fn without_rights_to_the_marker_only_absolute_writes_are_replayed_and_nobody_waits() {
    for rights in ["-multi", "resetkeys ~a ~b ~l"] {
        let server = Server::start(&[]);
        let mut rig = Rig::new(server.port);
        rig.journal(0, &["SET a 1", "DEL b", "SET other 1"]);
        server.ask("SET b 2");
        journal_pushes(&rig, 0, 0, 2);
        rig.journal(0, &["SET b 3"]);
        server.ask(&format!("ACL SETUSER default {rights}"));
        assert_eq!(rig.recover(), Outcome::CaughtUp);
        server.ask("ACL SETUSER default +multi allkeys");
        assert_eq!(server.ask("MGET a b"), "*2\r\n$1\r\n1\r\n$1\r\n3\r\n");
        assert_eq!(server.list(0, "l"), Vec::<String>::new());
        let letters = rig.letters();
        let relative = letters
            .iter()
            .filter(|letter| letter.error.contains("must not be applied twice"));
        assert_eq!(relative.count(), 2);
        assert!(rig.reasons().iter().all(|reason| reason == "no_permission"));
        assert_eq!(rig.shared.connections.count(), 0, "everything on them is answered");
    }
}

#[test]
fn a_user_without_dangerous_commands_is_fenced_and_replayed() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    journal_pushes(&rig, 0, 0, 300);
    server.ask("ACL SETUSER default -@dangerous");
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(rig.controls.status().fence, Fence::Proven);
    assert_eq!(server.list(0, "l"), numbers(0, 300));
}

#[test]
fn an_upstream_that_asks_a_password_is_spoken_to_as_a_user_who_authenticated() {
    let server = Server::start(&[]);
    server.ask("CONFIG SET requirepass secret");
    let mut rig = Rig::new(server.port);
    let journal = |rig: &Rig, n: u32| {
        let mut payloads = Payloads::default();
        payloads.push_with(|out| payload(0, "default", &[&format!("RPUSH l {n}")], out));
        rig.append(payloads);
    };
    journal(&rig, 0);
    assert_eq!(rig.recover_bare_for(Duration::from_millis(300)), None);
    assert_eq!(rig.shared.mode(), Mode::Halted);
    rig.shared.known.keep_live(&Credentials {
        user: None,
        password: Secret::new("secret"),
    });
    for n in 1..4 {
        // Also while what was replayed before is kept.
        assert_eq!(rig.recover_bare_for(rig::PATIENCE), Some(Outcome::CaughtUp));
        assert_eq!(rig.controls.status().fence, Fence::Proven);
        rig.trip();
        journal(&rig, n);
    }
}

#[test]
fn a_pause_halts_until_it_is_lifted() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    journal_pushes(&rig, 0, 0, 3);
    rig.controls.set_pause(Pause::Paused).unwrap();
    assert_eq!(rig.recover_for(Duration::from_millis(200)), None);
    assert_eq!(server.list(0, "l"), Vec::<String>::new());
    rig.controls.set_pause(Pause::Running).unwrap();
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(server.list(0, "l"), numbers(0, 3));
}

#[test]
fn old_records_become_dead_letters() {
    let server = Server::start(&[]);
    let settings = Settings {
        age_max: Some(Duration::ZERO),
        ..Settings::default()
    };
    let mut rig = Rig::open(tempfile::tempdir().unwrap(), server.port, settings);
    journal_pushes(&rig, 0, 0, 2);
    let then = Instant::now();
    while then.elapsed() < Duration::from_millis(3) {
        std::thread::yield_now();
    }
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(rig.reasons(), ["too_old", "too_old"]);
    assert_eq!(server.list(0, "l"), Vec::<String>::new());
}

#[test]
fn replay_starts_after_a_random_wait() {
    let server = Server::start(&[]);
    let settings = Settings {
        start_delay_max: Duration::from_millis(200),
        ..Settings::default()
    };
    let waits: Vec<Duration> = (0..8)
        .map(|n| {
            let mut rig = Rig::open(tempfile::tempdir().unwrap(), server.port, settings);
            journal_pushes(&rig, 0, n, n + 1);
            let start = Instant::now();
            assert_eq!(rig.recover(), Outcome::CaughtUp);
            start.elapsed()
        })
        .collect();
    // Uniform waits add up to less once in ten million times.
    assert!(waits.iter().sum::<Duration>() > Duration::from_millis(100), "{waits:?}");
    assert_eq!(server.list(0, "l"), numbers(0, 8));
}

#[test]
fn the_rate_is_bounded() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    rig.controls
        .set_rate(Rate::Limited(NonZeroU32::new(1000).unwrap()))
        .unwrap();
    journal_pushes(&rig, 0, 0, 500);
    let start = Instant::now();
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert!(start.elapsed() > Duration::from_millis(350), "{:?}", start.elapsed());
    assert_eq!(server.list(0, "l"), numbers(0, 500));
}

#[test]
fn the_fence_ends_a_frozen_connection_before_replay() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    let old = rig.block_on(rig.dial());
    rig.shared.connections.enter(0, old.connection.clone()).unwrap();
    let mut old = tideover::upstream::dial::Conversation::from(old);
    journal_pushes(&rig, 0, 1, 3);
    server.signal(Signal::STOP);
    let mut pending = Vec::new();
    for _ in 0..20_000 {
        pending.extend(tideover::upstream::dial::command(&["RPUSH", "l", "old"]));
    }
    rig.block_on(old.send(&pending)).unwrap();
    server.signal(Signal::CONT);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(rig.controls.status().fence, Fence::Proven);
    assert_eq!(rig.shared.connections.count(), 0);
    let list = server.list(0, "l");
    let replayed: Vec<&String> = list.iter().skip_while(|element| *element == "old").collect();
    assert_eq!(
        replayed,
        ["1", "2"],
        "what was sent before the failure ran before replay, or never"
    );
    assert_eq!(server.list(0, "l"), list);
}

#[test]
fn a_connection_without_a_proof_is_said_to_be_unproven() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    let mut connection = rig.block_on(rig.dial()).connection;
    connection.address = None;
    rig.shared.connections.enter(0, connection).unwrap();
    journal_pushes(&rig, 0, 0, 2);
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    assert_eq!(rig.controls.status().fence, Fence::Unproven);
    assert_eq!(rig.shared.connections.count(), 0);
    assert_eq!(server.list(0, "l"), numbers(0, 2));
}

/// `cargo test --release --test replay_room -- --nocapture half_a_million`
#[test]
fn half_a_million_small_writes() {
    let server = Server::start(&[]);
    let mut rig = Rig::new(server.port);
    let count: u32 = if cfg!(debug_assertions) { 20_000 } else { 500_000 };
    let mut payloads = Payloads::default();
    for n in 0..count {
        payloads.push_with(|out| payload(0, "", &[&format!("SET key:{n} value:{n}")], out));
        if payloads.len() == 10_000 {
            rig.append(std::mem::take(&mut payloads));
        }
    }
    let start = Instant::now();
    assert_eq!(rig.recover(), Outcome::CaughtUp);
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    println!("{rate:.0} records/s");
    assert_eq!(server.ask("DBSIZE"), format!(":{}\r\n", count + 1));
}
