//! Listeners, workers, shutdown: puts the rooms together and runs them.

mod edges;
mod give_back;
mod limits;
mod listen;
mod open;
mod worker;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::admin::{self, Phase, Readiness, UpstreamView, View};
use crate::config::{Settings, UpstreamSettings};
use crate::journal::owner::OwnerHandle;
use crate::replay::{Controls, DeadLetterReason, Pause};
use crate::telemetry;
use crate::upstream::busy_poll::BusyPoll;
use crate::upstream::health::Health;
use crate::upstream::shared::{Mode, Shared};

use edges::Edges;
use give_back::GiveBack;
use listen::{Bound, Door};
use open::{Opened, ask};
use worker::{Part, Worker};

pub(crate) use open::random_id;

/// Between two publications of the workers' numbers.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

/// An error at start, for people.
type StartError = String;

/// Serves until SIGTERM or SIGINT. Exits 0 after an orderly shutdown, 1 when it cannot start.
#[must_use]
pub fn run(settings: &Settings) -> ExitCode {
    match start(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "tideover cannot start");
            ExitCode::FAILURE
        }
    }
}

fn start(settings: &Settings) -> Result<(), StartError> {
    telemetry::init_logging(settings.log).map_err(|error| error.to_string())?;
    let metrics = telemetry::install().map_err(|error| error.to_string())?;
    limits::raise_open_files();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| format!("no runtime: {error}"))?;
    let served = runtime.block_on(serve(settings, metrics));
    // The resolver may be waiting for a name server on a thread of its own.
    runtime.shutdown_background();
    served
}

/// One upstream with all that serves it.
struct Served {
    shared: Arc<Shared>,
    owner: OwnerHandle,
    controls: Arc<Controls>,
}

async fn serve(settings: &Settings, metrics: telemetry::Metrics) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let workers_count = settings
        .workers
        .map_or_else(limits::workers, std::num::NonZeroUsize::get);
    let busy_poll = if limits::may_be_busy(workers_count) {
        settings.busy_poll
    } else {
        BusyPoll::Off
    };
    // First: whoever sees an upstream's port open may ask on the admin address.
    let admin_listener = TcpListener::bind(settings.admin)
        .await
        .map_err(|error| format!("cannot listen on {} (admin): {error}", settings.admin))?;
    let mut bound = Vec::new();
    for upstream in &settings.upstreams {
        bound.push(Bound::bind(&upstream.listen, upstream.listen_tls.as_ref()).await?);
    }
    let (opened, parts) = open::all(settings, workers_count)?;
    let (mut served, mut views) = (Vec::new(), Vec::new());
    for (upstream, opened) in settings.upstreams.iter().zip(opened) {
        let (upstream, view) = attach(settings, upstream, opened);
        served.push(upstream);
        views.push(view);
    }
    let workers =
        start_workers(settings, busy_poll, parts, bound).map_err(|error| format!("a worker cannot start: {error}"))?;
    let ready = Arc::new(Readiness::default());
    let view = Arc::new(View {
        upstreams: views,
        ready: Arc::clone(&ready),
        metrics,
    });
    tokio::task::spawn_local(admin::serve(admin_listener, Arc::clone(&view)));
    tokio::task::spawn_local(publish(view));
    ready.set(Phase::Serving);
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    telemetry::stopping(name);
    ready.set(Phase::Stopping);
    stop(&workers, &served, settings.shutdown_timeout).await;
    Ok(())
}

/// The first one last: it accepts for the others.
fn start_workers(
    settings: &Settings,
    busy_poll: BusyPoll,
    parts: Vec<Vec<Part>>,
    bound: Vec<Bound>,
) -> io::Result<Vec<Worker>> {
    let start = |(index, parts), door| worker::start(index, settings.io_uring, busy_poll, parts, door);
    let mut parts = parts.into_iter().enumerate();
    let first = parts.next();
    let mut workers = parts.map(|parts| start(parts, None)).collect::<io::Result<Vec<_>>>()?;
    let door = Door {
        bound,
        others: workers.iter().map(|worker| worker.inbox.clone()).collect(),
        clients_max: settings.limits.clients_max,
    };
    if let Some(first) = first {
        workers.push(start(first, Some(door))?);
    }
    Ok(workers)
}

/// Starts what serves one upstream on the control thread: its health owner.
fn attach(settings: &Settings, upstream: &UpstreamSettings, opened: Opened) -> (Served, UpstreamView) {
    telemetry::started(&upstream.name, &upstream.listen, &upstream.url, &settings.data_dir);
    telemetry::start_at_zero(&upstream.name, DeadLetterReason::ALL.map(DeadLetterReason::label));
    let Opened {
        shared,
        owner,
        signs,
        replay,
        controls,
    } = opened;
    let edges = Edges {
        owner: owner.clone(),
        replay,
    };
    tokio::task::spawn_local(Health::new(Arc::clone(&shared), signs, upstream.breaker.clone(), edges).run());
    let mut view = UpstreamView::new(
        Arc::clone(&shared),
        owner.clone(),
        Arc::clone(&controls),
        upstream.listen.to_string(),
        upstream.url.to_string(),
    );
    view.rate_max = upstream.replay.rate_max;
    (
        Served {
            shared,
            owner,
            controls,
        },
        view,
    )
}

/// Publishes the workers' numbers each second, and gives memory back that they need no more.
async fn publish(view: Arc<View>) {
    let mut give_back = GiveBack::new(std::time::Instant::now());
    loop {
        let load = admin::publish(&view).await;
        give_back.look(load, std::time::Instant::now());
        sleep(PUBLISH_INTERVAL).await;
    }
}

/// Answers what is in flight, replays while the upstream answers, leaves the rest safely on disk.
async fn stop(workers: &[Worker], served: &[Served], limit: Duration) {
    let deadline = Instant::now() + limit;
    for worker in workers {
        worker.stop();
    }
    while workers.iter().any(|worker| !worker.is_ended()) && Instant::now() < deadline {
        sleep(Duration::from_millis(5)).await;
    }
    for upstream in served {
        // An upstream that is down takes nothing more, and one whose replay a person has paused gets nothing.
        let is_replayed = || match (upstream.shared.mode(), upstream.controls.pause()) {
            (Mode::Down | Mode::Probing, _) | (_, Pause::Paused) => false,
            (Mode::Starting | Mode::Healthy | Mode::CatchingUp | Mode::Halted, Pause::Running) => true,
        };
        while Instant::now() < deadline && is_replayed() {
            match ask(|reply| upstream.owner.status(reply)).await {
                Some(status) if status.journal.records > status.journal.waiting_records => {
                    sleep(Duration::from_millis(20)).await
                }
                Some(_) | None => break,
            }
        }
    }
    for Served { shared, owner, .. } in served {
        let name = &shared.target.name;
        let Ok(Some(ended)) = timeout(Duration::from_secs(5), ask(|reply| owner.shutdown(reply))).await else {
            tracing::error!(upstream = %name, "the journal did not end in time");
            continue;
        };
        if let Err(error) = ended.result {
            tracing::error!(upstream = %name, %error, "the journal could not be synced");
        }
        if ended.journal.records > 0 {
            tracing::error!(
                upstream = %name,
                records = ended.journal.records,
                bytes = ended.journal.bytes,
                "acknowledged writes remain in the journal: they are replayed after the next start with the same data directory"
            );
        }
    }
}
