//! Exactly once: each attack on the fence, the marker, the hand-over, time and retention, live wherever a user could see it.
//!
//! The attacks, and what answers them; `tests/map.rs` makes sure that it is there.
//!
//! **Fence**
//! - Bytes that a frozen Redis has not read, on many connections, and nobody may ask it about them (first proof: the end):
//!   `the_ends_of_many_full_connections_are_proof_without_any_right`, `the_fence_ends_a_frozen_connection_before_replay`
//! - Bytes that a partition kept (second proof: CLIENT KILL): `bytes_that_a_partition_kept_never_run_after_the_fence`
//! - Another process (third proof), and numbers that start again with it: `strangers_with_the_numbers_of_old_connections_live`,
//!   `strangers_live_also_where_redis_does_not_say_which_process_it_is`, `what_counts_as_proof`
//! - No proof: `a_fence_without_any_proof_is_said_to_be_unproven`, `a_connection_without_a_proof_is_said_to_be_unproven`
//! - A connection that nobody knows yet: `a_connection_that_is_being_dialled_at_the_trip_carries_nothing`,
//!   `nothing_is_written_before_the_connection_is_on_file`, `a_generation_that_moves_during_the_dial_takes_everything_back`
//! - Something behind a command that blocks: `nothing_is_sent_behind_a_command_that_blocks`
//! - Connections of an earlier process: `bytes_that_a_partition_kept_of_an_earlier_process_never_run_after_the_fence`,
//!   `bytes_sent_before_the_crash_are_fenced_by_the_next_process`
//!
//! **Marker**
//! - An answer that is lost: `a_batch_whose_answer_is_lost_is_applied_once`, `a_frozen_server_that_wakes_applies_a_batch_once`; with an error in it:
//!   `a_write_that_failed_in_a_batch_whose_answer_a_crash_took_is_a_dead_letter`, `dead_letters_are_durable_and_kept_once`
//! - Databases: `databases_have_markers_of_their_own`, `every_database_gets_its_own_records`, `a_database_that_is_gone_takes_nothing_elsewhere`
//! - Somebody touches it: `a_stranger_who_touches_the_marker_costs_a_batch_and_nothing_more`
//! - Numbers used again: `numbers_that_went_with_the_journals_tail_are_not_used_again`, `each_opening_is_an_incarnation_and_keeps_the_queue_id`
//! - A copied data directory: `of_two_copies_of_a_data_directory_one_is_told_and_skips_nothing`,
//!   `copies_go_on_with_different_incarnations_and_know_their_common_ones`, `a_renewal_is_of_the_opening_and_of_no_copy`,
//!   `copies_with_the_same_numbers_are_told_by_the_markers_name`, `a_forgotten_name_is_not_taken_for_ours_but_what_is_written_in_its_place_is`;
//!   one of the previous version: `a_marker_of_the_previous_version_is_still_ours`; two processes on one:
//!   `a_second_process_on_the_same_data_directory_refuses_to_start`
//! - Crashes: `kill_9_in_the_middle_of_replay_repeats_nothing`, `redis_killed_in_the_middle_of_replay_repeats_nothing`,
//!   `a_crash_before_the_journal_knows_applies_nothing_twice`
//! - Eviction: `an_evicted_marker_and_a_restart_push_nothing_twice`, `an_evicted_marker_without_a_restart_costs_nothing`,
//!   `an_absent_marker_is_judged_by_the_history`
//! - FLUSHALL: `what_was_flushed_on_purpose_stays_away`, `what_was_flushed_in_an_outage_stays_away`,
//!   `a_flush_during_replay_is_of_what_was_there_and_the_rest_follows`,
//!   `what_was_flushed_before_a_restart_comes_back_as_far_as_it_is_absolute`
//! - Errors when queueing, a transaction that must not be split: `what_can_never_succeed_becomes_a_dead_letter_and_the_rest_goes_on`,
//!   `a_transaction_is_one_unit`
//! - A full Redis and deletions that make room: `deletions_make_room_on_a_full_redis_and_what_needs_room_waits_in_its_place`,
//!   `what_only_frees_memory_is_replayed_on_a_full_server`
//!
//! **A replay that cannot go on while Redis answers**: `a_full_redis_is_read`, `a_redis_without_enough_replicas_is_read`,
//! `a_redis_that_cannot_save_is_read`, `a_redis_with_a_marker_that_is_not_ours_is_read`, `a_redis_behind_a_paused_queue_is_read`,
//! `a_redis_that_holds_writes_is_read`, `a_halt_in_mid_replay_goes_on_where_it_stopped_also_after_another_outage`,
//! `a_halted_replay_is_halted_again_after_a_crash_and_its_backlog_is_whole`
//!
//! **Hand-over**: `no_interleaving_loses_overtakes_or_repeats_a_write`, `each_rule_is_needed`,
//! `every_write_is_accounted_for_when_redis_is_killed`, `every_write_is_accounted_for_when_redis_freezes`
//!
//! **Time**
//! - Clocks that differ: `a_time_to_live_is_not_shortened_by_a_clock_that_is_behind`, `a_time_to_live_is_not_lengthened_by_a_clock_that_is_ahead`,
//!   `a_relative_expiry_runs_from_when_it_was_accepted`
//! - Clocks that step: `ages_are_monotonic_within_an_opening_and_never_negative`, `ids_never_go_back_when_the_clock_does`
//! - Times that Redis refuses, KEEPTTL: `what_redis_would_refuse_is_refused_and_not_journaled`
//!
//! **Retention**
//! - `a_replica_that_has_everything_gets_nothing_twice`, `what_replicas_have_confirmed_is_not_kept`
//! - A lost tail: `a_replica_that_lost_the_tail_in_mid_replay_gets_it_all`,
//!   `a_replica_that_lost_the_tail_gets_again_what_is_absolute_once_others_have_written`,
//!   `after_live_writes_only_absolute_records_are_applied_again_and_only_for_a_minute`
//! - No trip: `another_server_is_noticed_before_it_is_written_to`,
//!   `a_server_that_does_not_say_who_it_is_gets_nothing_older_than_live_writes`
//! - A demoted master: `a_demoted_master_behind_the_same_address_is_not_written_to`,
//!   `a_master_that_became_a_replica_is_down_and_its_error_reaches_nobody`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

#[path = "../support/mod.rs"]
mod support;

mod clocks;
mod failover;
mod fence;
mod halted;
mod marker;
mod way;

use support::{DEADLINE, Durability, RedisServer, Settings, Tideover, array, await_down, numbers};
use way::Way;

/// Replays so slowly that a test can come in the middle: `SECOND` records take a second.
fn slow() -> Settings {
    Settings {
        more: format!("rate_max = {SECOND}"),
        ..Settings::default()
    }
}

const SECOND: usize = 4000;

/// A healthy proxy that replays slowly.
fn healthy(redis: &RedisServer) -> Tideover {
    let proxy = Tideover::start_with(redis, &slow());
    proxy.wait_for_mode("healthy", DEADLINE);
    proxy
}

/// A proxy that reaches its Redis over a way, healthy.
fn over(way: &Way, redis: &RedisServer) -> Tideover {
    let settings = Settings {
        url: Some(way.url()),
        ..slow()
    };
    let proxy = Tideover::start_with(redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    proxy
}

/// A proxy whose Redis has been killed, and which knows.
fn down(durability: Durability) -> (RedisServer, Tideover) {
    let mut redis = RedisServer::start(durability);
    let proxy = healthy(&redis);
    redis.kill();
    await_down(&proxy);
    (redis, proxy)
}

/// Nobody reaches Redis any more, and the proxy knows.
fn lose(way: &Way, proxy: &Tideover) {
    way.close();
    await_down(proxy);
}

#[track_caller]
fn list(redis: &RedisServer) -> Vec<String> {
    array(&redis.client().call(&["LRANGE", "l", "0", "-1"]))
}

#[track_caller]
fn assert_list(redis: &RedisServer, expected: std::ops::Range<usize>) {
    let (found, expected) = (list(redis), numbers(expected));
    let differs = found.iter().zip(&expected).position(|(left, right)| left != right);
    assert_eq!((found.len(), differs), (expected.len(), None));
}

/// The dead letters as a person sees them.
fn letters(proxy: &Tideover) -> String {
    String::from_utf8_lossy(&proxy.run_cli(&["dead-letters", "list"]).stdout).into_owned()
}

/// What `/status` says of the fence.
fn fence_status(proxy: &Tideover) -> String {
    proxy.status()["fence"].as_str().unwrap_or_default().to_owned()
}

/// A counter's value on the metrics page, all its labels together.
fn metric(proxy: &Tideover, name: &str) -> u64 {
    let (_, page) = proxy.get("/metrics");
    page.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}
