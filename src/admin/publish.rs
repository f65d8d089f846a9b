//! From the workers' plain numbers to metrics. The durations are rendered here: a log2 histogram that workers count
//! themselves has no place in the exporter, which wants every sample.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::status::{oldest_age_ms, state, sum};
use super::view::{News, UpstreamView, View};
use crate::telemetry::{self, QueueLevel, UncertainAction};
use crate::upstream::stats::{DURATION_BUCKETS, Route, bucket_bound_s};

const COMMAND_DURATION: &str = "tideover_command_duration_seconds";

/// What there is at a time, of all upstreams: connected clients, and records of their backlogs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub clients: u64,
    pub records: u64,
}

/// Publishes all numbers and looks at the workers' beats. To be called each second, by the control thread.
pub async fn publish(view: &View) -> Load {
    let _ = view.stuck_workers(Instant::now());
    let mut load = Load::default();
    for upstream in &view.upstreams {
        counts(upstream);
        load.clients += sum(upstream, |stats| stats.clients.load(Relaxed));
        if let Some(numbers) = upstream.journal_status().await {
            let name = upstream.name();
            load.records += numbers.journal.records;
            let level = QueueLevel {
                records: numbers.journal.records,
                bytes: numbers.journal.bytes,
                oldest_age: Duration::from_millis(oldest_age_ms(&numbers.journal)),
            };
            telemetry::queue_level(name, level);
            telemetry::queue_acknowledged(name, numbers.journal.acknowledged_total);
            telemetry::replayed(name, numbers.journal.replayed_total);
            for (kind, total) in numbers.errors.by_kind() {
                telemetry::journal_errors(name, kind, total);
            }
            telemetry::journal_writable(name, numbers.last_error.is_none());
            match upstream.news_of_journal(&numbers) {
                Some(News::Failed(error)) => telemetry::journal_failed(name, &error),
                Some(News::WorksAgain) => telemetry::journal_works_again(name),
                None => {}
            }
        }
    }
    load
}

fn counts(upstream: &UpstreamView) {
    let name = upstream.name();
    telemetry::identities_waiting(name, upstream.controls.status().identities_waiting.len());
    telemetry::identities_without_replay_rights(name, upstream.shared.rights.users_without().len());
    telemetry::set_breaker_state(name, state(upstream.shared.mode()));
    for route in Route::ALL {
        telemetry::commands(name, route.label(), sum(upstream, |stats| stats.route_total(route)));
    }
    let answered = sum(upstream, |stats| stats.uncertain_answered.load(Relaxed));
    telemetry::uncertain_writes(name, UncertainAction::Answered, answered);
    let resent = sum(upstream, |stats| stats.uncertain_resent.load(Relaxed));
    telemetry::uncertain_writes(name, UncertainAction::Resent, resent);
    let journaled = sum(upstream, |stats| stats.uncertain_journaled.load(Relaxed));
    telemetry::uncertain_writes(name, UncertainAction::Journaled, journaled);
    telemetry::upstream_connections(name, sum(upstream, |stats| stats.connections.load(Relaxed)));
    telemetry::clients(name, sum(upstream, |stats| stats.clients.load(Relaxed)));
}

/// The whole of `/metrics`, up to date.
pub(super) async fn metrics(view: &View) -> String {
    publish(view).await;
    let mut text = view.metrics.render();
    let _ = writeln!(
        text,
        "# HELP {COMMAND_DURATION} Time from a command's being sent to its reply\n# TYPE {COMMAND_DURATION} histogram"
    );
    for upstream in &view.upstreams {
        durations(upstream, &mut text);
    }
    text
}

fn durations(upstream: &UpstreamView, text: &mut String) {
    let name = upstream.name();
    let mut count = 0;
    for bucket in 0..DURATION_BUCKETS {
        count += sum(upstream, |stats| {
            stats.durations.get(bucket).map_or(0, |count| count.load(Relaxed))
        });
        let bound = bucket_bound_s(bucket).map_or_else(|| "+Inf".to_owned(), |bound| bound.to_string());
        // Names have no character that a label must escape.
        let _ = writeln!(
            text,
            "{COMMAND_DURATION}_bucket{{upstream=\"{name}\",le=\"{bound}\"}} {count}"
        );
    }
    let total_us = sum(upstream, |stats| stats.duration_us_total.load(Relaxed));
    let total_s = Duration::from_micros(total_us).as_secs_f64();
    let _ = writeln!(text, "{COMMAND_DURATION}_sum{{upstream=\"{name}\"}} {total_s}");
    let _ = writeln!(text, "{COMMAND_DURATION}_count{{upstream=\"{name}\"}} {count}");
}
