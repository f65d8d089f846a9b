//! A worker: one thread with a runtime of its own. Its sessions and lanes live and die on it and share nothing with other workers.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::listen::{Door, Socket};
use crate::journal::owner::OwnerHandle;
use crate::session::{self, Appender};
use crate::upstream::burst::Uring;
use crate::upstream::busy_poll::{self, BusyPoll};
use crate::upstream::give_way;
use crate::upstream::io::{Reader, Writer, accept_tls, split_tcp, split_unix};
use crate::upstream::local::Local;
use crate::upstream::shared::Shared;
use crate::upstream::stats::{add, sub};
use crate::upstream::tls::ServerTls;
use crate::upstream::turn::Turn;

/// Accepted connections that wait for their worker.
const NEW_CLIENTS_MAX: usize = 1024;
/// How often the age of the oldest unanswered command is looked at.
const TICK: Duration = Duration::from_millis(50);
/// A lane that was not used for so many ticks (a minute) ends.
const IDLE_LANE_TICKS: u32 = 1200;
/// Memory that was not needed for so many ticks (a second) is given back.
const SHED_TICKS: u32 = 20;
/// Between two looks at what is still in flight while stopping.
const STOP_LOOK: Duration = Duration::from_millis(5);
/// How long a client may take for its TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// A client's connection.
pub(super) type Accepted = Socket<TcpStream, UnixStream>;
/// One that no runtime looks after, on its way to another worker.
pub(super) type HandedOver = Socket<std::net::TcpStream, std::os::unix::net::UnixStream>;

/// A client to be served.
#[derive(Debug)]
pub(super) struct NewClient<S> {
    pub(super) upstream: usize,
    pub(super) id: u64,
    pub(super) socket: S,
}

impl NewClient<Accepted> {
    /// For another worker.
    ///
    /// # Errors
    /// Those of taking the socket away from the runtime.
    pub(super) fn handed_over(self) -> io::Result<NewClient<HandedOver>> {
        let Self { upstream, id, socket } = self;
        let socket = socket.try_map(TcpStream::into_std, UnixStream::into_std)?;
        Ok(NewClient { upstream, id, socket })
    }
}

impl NewClient<HandedOver> {
    fn accepted(self) -> io::Result<NewClient<Accepted>> {
        let Self { upstream, id, socket } = self;
        let socket = socket.try_map(TcpStream::from_std, UnixStream::from_std)?;
        Ok(NewClient { upstream, id, socket })
    }
}

/// What a worker is told.
#[derive(Debug)]
pub(super) enum ToWorker {
    Serve {
        client: NewClient<HandedOver>,
        /// Dropped when the client is served, or never will be.
        under_way: Arc<()>,
    },
    /// Take no more clients and requests, answer those in flight, and end.
    Stop,
}

/// What a worker is given of each upstream.
pub(super) struct Part {
    pub(super) shared: Arc<Shared>,
    pub(super) owner: OwnerHandle,
    pub(super) session: session::Settings,
    pub(super) confirm: Box<dyn Fn(u64) + Send>,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part")
            .field("upstream", &self.shared.target.name)
            .finish_non_exhaustive()
    }
}

/// The others' end of a worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) inbox: mpsc::Sender<ToWorker>,
    is_ended: Arc<AtomicBool>,
}

impl Worker {
    /// Asks it to end. A worker whose inbox is full is ended with the process.
    pub(super) fn stop(&self) {
        let _ = self.inbox.try_send(ToWorker::Stop);
    }

    #[must_use]
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Acquire)
    }
}

/// Starts worker number `index`, and returns once it serves. The first one has the door.
///
/// # Errors
/// Those of starting a thread or a runtime, and of listening.
pub(super) fn start(
    index: usize,
    uring: Uring,
    busy_poll: BusyPoll,
    parts: Vec<Part>,
    door: Option<Door>,
) -> io::Result<Worker> {
    let (inbox, receiver) = mpsc::channel(NEW_CLIENTS_MAX);
    let (is_serving, serving) = std::sync::mpsc::sync_channel(1);
    let owners: Vec<OwnerHandle> = parts.iter().map(|part| part.owner.clone()).collect();
    let is_ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_ended);
    let runtime = move || {
        Builder::new_current_thread()
            .enable_all()
            .event_interval(EVENT_INTERVAL)
            .on_thread_park(before_sleep)
            .build_local(LocalOptions::default())
    };
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        // Nobody hears it where the starting thread is gone, which is the end of the process.
        let say = |begun: io::Result<()>| drop(is_serving.send(begun));
        match runtime() {
            Ok(runtime) => {
                runtime.block_on(work(index, uring, busy_poll, parts, door, receiver, say));
                // The resolver may be waiting for a name server on a thread of its own.
                runtime.shutdown_background();
            }
            Err(error) => say(Err(error)),
        }
        flag.store(true, Release);
        stand_aside(index, &owners);
    })?;
    serving.recv().map_err(io::Error::other)??;
    Ok(Worker { inbox, is_ended })
}

/// What is done when there is nothing to do.
fn before_sleep() {
    give_way::before_sleep();
    busy_poll::before_sleep();
}

/// A worker that has ended writes to no connection any more, and goes on saying so: others wait for its confirmation.
fn stand_aside(index: usize, owners: &[OwnerHandle]) {
    while owners.iter().any(OwnerHandle::is_running) {
        for owner in owners {
            owner.confirm(index, owner.generation());
        }
        thread::sleep(STOP_LOOK);
    }
}

/// Tasks run between two looks at the sockets: many, so that what one look brought is written together.
const EVENT_INTERVAL: u32 = 256;

/// Serves the clients of all upstreams on this worker.
pub(super) struct Clients {
    upstreams: Vec<(Rc<Appender>, Rc<session::Settings>)>,
}

impl Clients {
    #[must_use]
    pub(super) fn shared(&self, upstream: usize) -> &Arc<Shared> {
        &self.upstreams[upstream].0.local().shared
    }

    /// The client counts from now on, so that of those accepted together there are not more than may be.
    pub(super) fn serve(&self, client: NewClient<Accepted>) {
        let (appender, settings) = &self.upstreams[client.upstream];
        let (appender, settings) = (Rc::clone(appender), Rc::clone(settings));
        let local = Rc::clone(appender.local());
        add(&local.worker().stats.clients, 1);
        tokio::task::spawn_local(async move {
            let split = match client.socket {
                Socket::Tcp(stream) => Some(split_tcp(stream)),
                Socket::Unix(stream) => Some(split_unix(stream)),
                Socket::Tls(stream, tls) => shake_hands(stream, &tls).await,
            };
            if let Some((reader, writer)) = split {
                session::serve(appender, settings, client.id, reader, writer).await;
            }
            sub(&local.worker().stats.clients, 1);
        });
    }
}

async fn work(
    index: usize,
    uring: Uring,
    busy_poll: BusyPoll,
    parts: Vec<Part>,
    door: Option<Door>,
    mut receiver: mpsc::Receiver<ToWorker>,
    say: impl FnOnce(io::Result<()>),
) {
    let turn = Rc::new(Turn::new(uring));
    tokio::task::spawn_local(Rc::clone(&turn).flush_each_turn());
    match busy_poll {
        BusyPoll::Auto => drop(tokio::task::spawn_local(busy_poll::look_before_sleep())),
        BusyPoll::Off => {}
    }
    let upstreams = parts
        .into_iter()
        .map(|part| {
            let confirm: Box<dyn Fn(u64)> = part.confirm;
            let local = Local::new(part.shared, index, Rc::clone(&turn), confirm);
            tokio::task::spawn_local(Rc::clone(&local).listen());
            tokio::task::spawn_local(tick(Rc::clone(&local)));
            (Appender::start(local, part.owner), Rc::new(part.session))
        })
        .collect();
    let clients = Rc::new(Clients { upstreams });
    let acceptors = match door.map_or_else(|| Ok(Vec::new()), |door| door.open(&clients)) {
        Ok(acceptors) => acceptors,
        Err(error) => return say(Err(error)),
    };
    let acceptors = acceptors
        .into_iter()
        .map(|acceptor| tokio::task::spawn_local(acceptor.run()));
    let acceptors: Vec<_> = acceptors.collect();
    say(Ok(()));
    while let Some(ToWorker::Serve { client, under_way }) = receiver.recv().await {
        match client.accepted() {
            Ok(client) => clients.serve(client),
            Err(error) => tracing::debug!(%error, "a client was gone before it was served"),
        }
        drop(under_way);
    }
    // Who comes now is turned away at once, here and where clients are handed over.
    drop(receiver);
    acceptors.iter().for_each(tokio::task::JoinHandle::abort);
    let upstreams = &clients.upstreams;
    for (appender, _) in upstreams {
        appender.local().stop();
    }
    while upstreams
        .iter()
        .any(|(appender, _)| appender.local().is_busy() || !appender.is_empty())
    {
        tokio::time::sleep(STOP_LOOK).await;
    }
    // What was answered last is on its way to the clients.
    tokio::time::sleep(STOP_LOOK).await;
}

async fn shake_hands(stream: TcpStream, tls: &ServerTls) -> Option<(Reader, Writer)> {
    timeout(HANDSHAKE_MAX, Box::pin(accept_tls(stream, tls)))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| tracing::debug!(%error, "a client's TLS handshake failed"))
        .ok()
}

async fn tick(local: Rc<Local>) {
    let mut ticks: u32 = 0;
    loop {
        tokio::time::sleep(TICK).await;
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(SHED_TICKS) {
            local.turn.buffers.shed();
            local.shed();
        }
        if ticks.is_multiple_of(IDLE_LANE_TICKS) {
            local.end_idle_lanes();
        }
        local.look();
        local.tend_spares();
        local.look_at_lanes();
        local.prove_blocked();
        let age_ms = u64::try_from(local.oldest_unanswered().as_millis()).unwrap_or(u64::MAX);
        let stats = &local.worker().stats;
        stats.oldest_unanswered_ms.store(age_ms, Relaxed);
        add(&stats.beats, 1);
    }
}
