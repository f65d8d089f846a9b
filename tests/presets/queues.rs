//! Celery, Sidekiq and BullMQ.

use crate::world::{Program, Raised, World};
use crate::{Damages, check};

/// redis-py 8.1's `Lock.release`, as kombu calls it.
const RELEASE: &str = "EVALSHA 1ecf5cb8ee49bbc1dbd8bd7ac2e2dd1ba15ac66c 1 unacked_mutex token";

#[test]
fn celery() {
    check(
        "celery.toml",
        celery_story,
        &[
            "a sweep for abandoned messages raised, which ends a worker that starts",
            "the end of a sweep raised",
            "a queue could not be bound, which ends a worker that starts",
            "a message was dropped in silence",
            "a result was lost",
        ],
    );
}

/// Celery 5.7 with kombu 5.7.
fn celery_story(world: &mut World) -> Damages {
    let mut damages = Damages::new();
    let mut redis = world.elsewhere();
    redis.call("SADD _kombu.binding.reports key\x06\x16\x06\x16reports");
    redis.call("SETEX celery-task-meta-1 600 STARTED");
    // The part of kombu's REFRESH_BINDING that matters; kombu has run it before.
    let bind = redis
        .call("SCRIPT LOAD return(redis.call('SADD',KEYS[1],ARGV[1]))")
        .text();
    world.cut();
    let mut worker = world.program();
    // `QoS.restore_visible`, with `Lock.acquire`: null is "somebody else has it".
    match worker.call("SET unacked_mutex token NX PX 300000") {
        Err(Raised) => damages.push("a sweep for abandoned messages raised, which ends a worker that starts"),
        Ok(reply) => assert!(reply.is_nothing(), "the mutex is not ours: {reply:?}"),
    }
    // `Lock.release` after a sweep that began before the outage: 0 is LockNotOwnedError, which kombu expects.
    match worker.call(RELEASE) {
        Err(Raised) => damages.push("the end of a sweep raised"),
        Ok(reply) => assert_eq!(reply.integer(), 0),
    }
    // `Channel._queue_bind`, of the queue for the replies to what it asks the other workers when it starts.
    let bound = worker.call(&format!(
        "EVALSHA {bind} 2 _kombu.binding.reply _kombu.binding_deadlines queue"
    ));
    // `RedisBackend._set`, of a task that ends now.
    let stored = worker.transaction(&[
        "SETEX celery-task-meta-1 600 SUCCESS",
        "PUBLISH celery-task-meta-1 SUCCESS",
    ]);
    let published = celery_publish(&mut worker, "reports");
    drop(worker);
    world.mend();

    assert_eq!(world.dead_letters(), 0, "what was journaled can be replayed");
    if bound.is_err() {
        damages.push("a queue could not be bound, which ends a worker that starts");
    } else {
        assert!(
            redis.call("SISMEMBER _kombu.binding.reply queue").is_one(),
            "it is bound now"
        );
    }
    if published.is_ok() && !redis.call("LLEN reports").is_one() {
        damages.push("a message was dropped in silence");
    }
    if stored.is_err() && redis.get("celery-task-meta-1").as_deref() == Some("STARTED") {
        damages.push("a result was lost");
    }
    damages
}

/// To an exchange that is not a queue's own: `Channel.get_table`, then one LPUSH for each queue; without any, none.
fn celery_publish(producer: &mut Program<'_>, exchange: &str) -> Result<(), Raised> {
    let bindings = producer.call(&format!("SMEMBERS _kombu.binding.{exchange}"))?;
    if !bindings.is_nothing() {
        producer.call(&format!("LPUSH {exchange} message"))?;
    }
    Ok(())
}

#[test]
fn sidekiq() {
    check(
        "sidekiq.toml",
        sidekiq_story,
        &[
            "a cron job was enqueued twice",
            "a job that somebody else took was taken again",
            "an iterable job began anew",
            "an autoscaler saw an empty queue",
        ],
    );
}

/// Sidekiq 7.3 and 8, sidekiq-cron 2, sidekiq-scheduler 6.
fn sidekiq_story(world: &mut World) -> Damages {
    let mut damages = Damages::new();
    let mut redis = world.elsewhere();
    redis.call("LPUSH queue:default job-1 job-2");
    redis.call("HSET it-4f1 ex 1 c 5000 rt 12");
    redis.call("ZADD retry 100 job-3");
    world.cut();
    let mut processes = [world.program(), world.program()];
    for process in &mut processes {
        // `Sidekiq::Cron::Job#should_enque?`, then `Client#raw_push`.
        let _ = sidekiq_cron(process);
    }
    let process = &mut processes[0];
    // `JobSet#delete_by_value`, in old versions also `Scheduled::Enq`: who removes the job enqueues it.
    let taken = process.call("ZREM retry job-3").is_ok_and(|removed| removed.is_one());
    // Another process, which reaches Redis.
    let taken_elsewhere = redis.call("ZREM retry job-3").is_one();
    // `Job::Iterable#fetch_previous_iteration_state`
    let cursor = process.call("HGETALL it-4f1");
    // `Queue#size`
    let waiting = process.call("LLEN queue:default");
    drop(processes);
    world.mend();

    // Each process that was told `:1` has pushed.
    if redis.call("LLEN queue:cron").integer() > 1 {
        damages.push("a cron job was enqueued twice");
    }
    if taken && taken_elsewhere {
        damages.push("a job that somebody else took was taken again");
    }
    if cursor.is_ok_and(|cursor| cursor.is_nothing()) {
        damages.push("an iterable job began anew");
    }
    if waiting.is_ok_and(|waiting| waiting.integer() == 0) {
        damages.push("an autoscaler saw an empty queue");
    }
    damages
}

fn sidekiq_cron(process: &mut Program<'_>) -> Result<(), Raised> {
    let is_first = process.call("ZADD cron_job:default:report:enqueued 1700000000 2023-11-14T22:13:20Z")?;
    if is_first.is_one() {
        process.call("SADD queues cron")?;
        process.call("LPUSH queue:cron report")?;
    }
    Ok(())
}

#[test]
fn bullmq() {
    check(
        "bullmq.toml",
        bullmq_story,
        &[
            "a job that runs did not exist",
            "a paused queue was not paused",
            "a deduplication key was removed that never was",
        ],
    );
}

/// BullMQ 6.7.
fn bullmq_story(world: &mut World) -> Damages {
    let mut damages = Damages::new();
    let mut redis = world.elsewhere();
    redis.call("HSET bull:pay:42 name pay data {}");
    redis.call("HSET bull:pay:meta paused 1");
    world.cut();
    let mut program = world.program();
    // `Queue.getJob`, with which a program asks whether it has been there before.
    if program.call("HGETALL bull:pay:42").is_ok_and(|job| job.is_nothing()) {
        damages.push("a job that runs did not exist");
    }
    // `Queue.isPaused`
    if program
        .call("HEXISTS bull:pay:meta paused")
        .is_ok_and(|paused| !paused.is_one())
    {
        damages.push("a paused queue was not paused");
    }
    // `Queue.removeDeduplicationKey`
    if program
        .call("DEL bull:pay:de:never")
        .is_ok_and(|removed| removed.is_one())
    {
        damages.push("a deduplication key was removed that never was");
    }
    drop(program);
    world.mend();
    damages
}
