//! tideover: a sidecar proxy that tides an application over a Redis outage. This page is the project's map.
//!
//! # Words
//! *client* (the app) · *session* (one client connection) · *upstream* (the Redis behind us) · *lane* (an upstream connection that the
//! sessions of a worker share) · *dedicated connection* (one session's own; a *spare* until a session needs it) · *journal* of *records*
//! (acknowledged writes) · *backlog* (records not replayed yet) · *marker* (the key in Redis that says how far replay got) · *dead letter* (a record that Redis refuses for good) · *waiting* (of records: set aside
//! until their user is known again).
//! Breaker and mode go in pairs: CLOSED `healthy` · OPEN `down` or `probing` · HALF_OPEN `catching_up`.
//!
//! # Rooms
//! A room may know those below it, never those above; `tests/tidy.rs` keeps it so, and the pure rooms pure.
//!
//! - [`cli`] takes arguments and gives exit codes; asks a running tideover over HTTP; runs the demo. [`config`] makes settings of flags,
//!   environment and file: every fault at once, valid from then on. Both know every room's settings and none's inside.
//! - [`server`] puts the rooms together: listeners, workers, shutdown. [`admin`] is HTTP: metrics, health, status, page, verbs; it owns nothing
//!   but the last numbers it saw.
//! - [`session`] is one client connection: reads, routes, answers in order; database, identity, MULTI, subscriptions. It must not know sockets of
//!   the upstream, nor what a neutral reply looks like.
//! - [`replay`] takes the journal to Redis: fence, marker, batches, pace, dead letters. It must not know sessions.
//! - [`upstream`] dials and owns lanes, dedicated connections, the connection file and the health owner; plain sockets and TLS, also the
//!   clients', look the same from outside. It must not know what a command means beyond what its loss means. Of the journal it knows the
//!   generation's counter.
//! - [`outage`] (pure) decides what is told to a client while the upstream is down, what a write becomes in the journal, and what rules change.
//!   It knows [`command`] (pure: the table, what was learned beyond it, key positions, placement) and [`resp`] (pure: frames, limits, writers).
//! - [`breaker`] (pure) has states, window, backoff, and what an outcome means. Time and randomness are arguments.
//! - [`journal`] keeps bytes in order on disk and knows no Redis; its owner thread also owns the generation (below). Synchronous.
//! - [`telemetry`] has the names of metrics and events.
//!
//! ```text
//! cli ─ config
//! server ─ admin
//! session   replay
//! upstream
//! outage → command → resp        breaker   journal   telemetry   (know nobody)
//! ```
//!
//! # Threads
//! - *Control* (the main thread): admin, and per upstream the health owner (the only one that drives the breaker) and replay.
//! - *Workers*: a thread and a current-thread runtime each. Sessions and lanes live and die on one worker and share nothing with others, so
//!   the path of a forwarded command has no lock. Counters are per worker and are summed when somebody asks. The first one accepts, for all.
//! - *Journal owner*, one per upstream: takes all waiting appends, writes once, syncs as the policy says, acknowledges.
//!
//! A GET while CLOSED: socket → frame → table → lane's buffer, a place in the order of replies → one write per turn (or 8 KiB) → reply boundary →
//! one system call for the replies to all clients of the turn. A SET while OPEN: → `outage` makes its effect and its reply → append → acknowledged → reply.
//!
//! # Hand-over
//! One generation counter per upstream, odd while journaling, written by the journal's owner alone ([`journal::handover`]).
//! 1. A trip makes it odd. A worker loads it before each write; on a change it writes nothing more to older connections, at the end of the
//!    turn takes back what was not sent, and confirms.
//! 2. Appends are written at once, but acknowledged only when every worker has confirmed.
//! 3. Back to even: in one step, when nothing is unreplayed and the inbox is empty. Appends of an older generation are refused and routed again.
//!
//! Recovery: a probe succeeds → HALF_OPEN → fence (each connection of the connection file is proven dead) → review (did the upstream lose what it
//! had confirmed?) → batches with the watched marker → the owner closes. When replay cannot go on although Redis answers (paused, OOM), the mode is
//! *halted*: reads go upstream, writes behind the backlog. Records of a user whose credentials are not known are set aside, and nobody else waits; a
//! connection of that user that comes up while CLOSED begins a catching up and serves nobody before it.
//!
//! # Invariants, each with its tests
//! 1. Replies leave a session in the order of its requests.
//!    `replies_leave_in_the_order_of_the_requests`, `ten_thousand_pipelined_commands_keep_their_order`
//! 2. A journaled write is acknowledged only after the write that its fsync policy promises; after a failed write or sync the segment is poisoned.
//!    `acknowledges_under_each_policy_and_keeps_the_order`, `a_failed_sync_withdraws_what_was_never_acknowledged`,
//!    `a_sync_that_fails_beside_poisons_the_segment_and_loses_nothing`
//! 3. Every write ends as exactly one of: answered by Redis, journaled, or an error that says so.
//!    `every_write_is_accounted_for_when_redis_is_killed`, `every_write_is_accounted_for_when_redis_freezes`,
//!    `every_write_is_accounted_for_when_nothing_arrives_either_way` (each way of failing: `tests/failing`),
//!    `a_pop_that_redis_may_have_executed_ends_with_its_connection`
//! 4. No write starts being forwarded after a journaled write was acknowledged, until the backlog is gone. Waiting records keep back only the
//!    writes of their own user.
//!    `no_interleaving_loses_overtakes_or_repeats_a_write`, `each_rule_is_needed`, `writes_that_arrive_during_replay_stay_behind_the_backlog`,
//!    `a_user_who_comes_back_finds_its_records_replayed_before_anything_new`, `several_sessions_of_a_user_who_comes_back_all_stay_behind`
//! 5. A session settles all its forwarded commands, in order, before its first append.
//!    `a_session_that_moves_between_outage_and_health_keeps_its_order`
//! 6. The checkpoint never passes a record that is not confirmed, a dead letter, or waiting, durably; a torn tail is cut only at the end of the last segment.
//!    `the_checkpoint_moves_forward_only_and_never_beyond_what_is_written`, `a_crash_before_the_journal_knows_applies_nothing_twice`,
//!    `a_damaged_tail_before_another_segment_is_not_taken_for_a_torn_one`,
//!    `a_crash_between_setting_aside_and_the_checkpoint_neither_repeats_nor_loses`, `what_waited_is_applied_once_and_in_order_whatever_breaks`
//! 7. After a start with a backlog the mode is never `healthy` before the backlog is gone, waiting records aside.
//!    `records_of_a_user_who_is_not_known_again_wait_and_only_they`,
//!    `mode_is_never_healthy_before_the_backlog_of_an_earlier_process_is_gone`
//! 8. Nothing sent before a failure can be applied after replay began; a connection is on file before it carries an application byte, or the
//!    file says that connections are not on it (a disk without room).
//!    `bytes_sent_before_the_crash_are_fenced_by_the_next_process`, `the_fence_ends_a_frozen_connection_before_replay`,
//!    `a_connection_without_a_proof_is_said_to_be_unproven`, `a_first_start_on_a_full_disk_keeps_nobody_from_redis`
//! 9. No session that owes a password journals anything. Whether the upstream asks for one is remembered in the data directory.
//!    `a_session_that_owes_a_password_journals_nothing_also_after_a_restart`
//! 10. The pure rooms cannot fail because of the outside world.
//!     `pure_rooms_do_not_touch_the_world`, `no_request_panics`, `no_arguments_make_a_write_panic_and_every_outcome_has_one_reply`
//!
//! # On disk
//! ```text
//! data_dir/UPSTREAM/               mode 0700, files 0600
//!   connections                    connections that Redis may still read from: outlives our crash
//!   known                          salted hashes of credentials that Redis has accepted
//!   last-said                      what the upstream last said of itself: version, modules, databases
//!   scripts                        what clients gave to the upstream: SCRIPT LOADs
//!   password-owed                  there while Redis asks a password of sessions that have none
//!   replay-wishes                  what people asked of replay: a pause, a rate
//!   journal/lock                   one process at a time
//!   journal/queue                  queue id (part of the marker's key), incarnations (their names: part of its value)
//!   journal/checkpoint[.recent]    how far replay got
//!   journal/seg-<seq>.journal      records; formats in src/journal/format.rs, payloads in src/outage/payload.rs
//!   journal/dead-letters
//!   journal/waiting                records that wait for their user
//! ```
//!
//! # Where it departs from what one might expect
//! - A session has requests in flight in one place only, its *home*: a lane, its dedicated connection, or the journal. A request for another
//!   place waits until they are settled. That keeps execution in order across places.
//! - Replies are ordered by the request's number, not by a queue of slots: whoever knows a reply first hands it in with the number, and early
//!   ones wait in [`session`]'s output.
//! - A link's outgoing buffer keeps every request until its reply is there, not until it is written: a dying connection can then say of each
//!   whether it was sent, and hand back the rest.
//! - A transaction with a write that comes as a whole goes on the lane, where nothing comes between its commands: behind an EXEC the connection is
//!   what it was, also where Redis refuses it (not known of servers that are not Redis or Valkey, or have no EXEC). Others need a connection
//!   of their own; what only reads would wait behind writes that Redis holds.
//! - What costs is not the work but the switches between processes. Before a lane writes, others on this core run once and the sockets are looked
//!   at again, unless that brings nothing; what is gathered beyond 8 KiB is written in mid-turn, so that the upstream works meanwhile; small
//!   replies of a turn, and small requests on its dedicated connections, leave with one system call each where the kernel has an io_uring
//!   (`upstream::{gather, outgoing, leaving, burst}`). When requests have left, or a subscriber was told something, and nothing is left to do,
//!   others on this core run once before the worker sleeps (`upstream::give_way`); and it looks at the sockets for some 50 µs before it does, where
//!   short trials of both ways say that more goes through (`upstream::busy_poll`). A session is on the list of those to be flushed once, and off
//!   it when it is written to or offered to the burst; so is a dedicated connection, from which a new generation takes back what has not left.
//! - Unsafe code is where a burst enters the io_uring and where freed memory is given back (`server::give_back`), and nowhere else.
//! - A part of a large value passes from the read buffer to the other socket, and only what that does not take is kept. Buffers of replies belong
//!   to the worker and are lent to sessions while there is something in them.
//! - A dead connection is half-closed and read to its end before its requests are judged: a frozen server that wakes answers all.
//! - Behind a client that does not read, a lane hands the reads of others back to their sessions, which ask elsewhere; writes wait, and after
//!   `timeouts.command` that client is closed. Alone on its lane it may take its time.
//! - Behind a command that Redis holds while it answers others (CLIENT PAUSE) reads are handed back likewise; what Redis would hold, too, goes on
//!   joining that lane.
//! - A blocking command lost in flight goes on waiting only if Redis answered something that was asked after it (a PING on a spare follows each);
//!   else it may have been given something, and its client is closed, as by Redis. It is sent again once Redis has answered something that was asked
//!   after the loss: what took its connection may have taken the spares.
//! - The connection of a lone blocking command is not half-closed while Redis is silent: one that wakes serves the command first, and drops the reply
//!   if it reads an end of file behind it. It ends with the command's own timeout, or when Redis serves others again; and its client with it, for
//!   nothing proves then that nothing was taken.
//! - A script is kept for a Redis that forgets when its reply says that it was taken, not when it is asked for.
//! - CLIENT TRACKING outlives an outage: the client is told to drop all it has cached when the connection is lost, and again once it is tracked
//!   anew. MONITOR and tracking with REDIRECT (to an ID that is another one then) end with their connection, as at Redis.
//! - Subscriptions outlive an outage, not a Redis that closes their connection and takes the next one: that was meant for the client.
//! - Never `+OK` unchecked: AUTH while down takes only what Redis accepted before or the configuration names.
//! - Replies come from Redis or [`outage`], bytes in and bytes out: what passes through is framed, never decoded.
//! - A record stores the effect, not the wish: relative expiries are absolute from acceptance on, in the upstream's time at replay. What a rule
//!   asks for at replay (create only, needs its key) stands in it as a *guard*, judged under WATCH before its batch is sent.
//! - The incarnation in the marker's value is a name, drawn at each opening, not the upper half of the number behind it: two copies of a data
//!   directory go on with the same numbers, and never take each other's marker for their own (`journal::incarnations`).
//! - Keys answered neutrally are *tainted* until the outage ends, where a rule asks: one bounded set per upstream, behind a lock that no
//!   forwarded command meets.
//! - What keeps the next connection from coming up (a name that does not resolve, refused credentials of the URL, `maxclients`, a lack of our own)
//!   is no outage while those that are there are answered: who needs one more waits for `hold_timeout` and is told. With none left it is.
//! - Silence begins when somebody waits and nobody is answered: the health owner asks then, not in its time. It asks for the role, too.
//! - A script is believed to say `LOADING` and the like only in the words of a server, and the health owner asks before it opens the breaker.
//! - Not an error: `LOADING`, `READONLY` after a demotion, `MASTERDOWN`, `CLUSTERDOWN` mean "not executed"; the client gets what it gets when down.

pub mod admin;
pub mod breaker;
pub mod cli;
pub mod command;
pub mod config;
pub mod journal;
pub mod outage;
pub mod replay;
pub mod resp;
pub mod server;
pub mod session;
pub mod telemetry;
pub mod upstream;
