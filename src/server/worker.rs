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

use crate::journal::owner::OwnerHandle;
use crate::session::{self, Appender};
use crate::upstream::burst::Uring;
use crate::upstream::io::{Reader, Writer, accept_tls, split_tcp, split_unix};
use crate::upstream::local::{Local, Turn};
use crate::upstream::shared::Shared;
use crate::upstream::stats::{add, sub};
use crate::upstream::tls::ServerTls;

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

/// A connection as the listener accepted it.
#[derive(Debug)]
pub enum Socket {
    Tcp(std::net::TcpStream),
    Tls(std::net::TcpStream, Arc<ServerTls>),
    Unix(std::os::unix::net::UnixStream),
}

/// A client for the worker to serve.
#[derive(Debug)]
pub struct NewClient {
    pub upstream: usize,
    pub id: u64,
    pub socket: Socket,
}

/// What a worker is told.
#[derive(Debug)]
pub enum ToWorker {
    Serve(NewClient),
    /// Take no more requests, answer those in flight, and end.
    Stop,
}

/// What a worker is given of each upstream.
pub struct Part {
    pub shared: Arc<Shared>,
    pub owner: OwnerHandle,
    pub session: session::Settings,
    pub confirm: Box<dyn Fn(u64) + Send>,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part")
            .field("upstream", &self.shared.target.name)
            .finish_non_exhaustive()
    }
}

/// The listener's end of a worker.
#[derive(Debug)]
pub struct Worker {
    pub inbox: mpsc::Sender<ToWorker>,
    is_ended: Arc<AtomicBool>,
}

impl Worker {
    /// Asks it to end. A worker whose inbox is full is ended with the process.
    pub fn stop(&self) {
        let _ = self.inbox.try_send(ToWorker::Stop);
    }

    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.is_ended.load(Acquire)
    }
}

/// Starts worker number `index`.
///
/// # Errors
/// Those of starting a thread or a runtime.
pub fn start(index: usize, uring: Uring, parts: Vec<Part>) -> io::Result<Worker> {
    let (inbox, receiver) = mpsc::channel(NEW_CLIENTS_MAX);
    let owners: Vec<OwnerHandle> = parts.iter().map(|part| part.owner.clone()).collect();
    let is_ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_ended);
    let runtime = move || {
        Builder::new_current_thread()
            .enable_all()
            .event_interval(EVENT_INTERVAL)
            .build_local(LocalOptions::default())
    };
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        match runtime() {
            Ok(runtime) => {
                runtime.block_on(work(index, uring, parts, receiver));
                // The resolver may be waiting for a name server on a thread of its own.
                runtime.shutdown_background();
            }
            Err(error) => tracing::error!(%error, "a worker has no runtime"),
        }
        flag.store(true, Release);
        stand_aside(index, &owners);
    })?;
    Ok(Worker { inbox, is_ended })
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

async fn work(index: usize, uring: Uring, parts: Vec<Part>, mut receiver: mpsc::Receiver<ToWorker>) {
    let turn = Rc::new(Turn::new(uring));
    tokio::task::spawn_local(Rc::clone(&turn).flush_each_turn());
    let upstreams: Vec<(Rc<Appender>, Rc<session::Settings>)> = parts
        .into_iter()
        .map(|part| {
            let confirm: Box<dyn Fn(u64)> = part.confirm;
            let local = Local::new(part.shared, index, Rc::clone(&turn), confirm);
            tokio::task::spawn_local(Rc::clone(&local).listen());
            tokio::task::spawn_local(tick(Rc::clone(&local)));
            (Appender::start(local, part.owner), Rc::new(part.session))
        })
        .collect();
    while let Some(message) = receiver.recv().await {
        let client = match message {
            ToWorker::Serve(client) => client,
            ToWorker::Stop => break,
        };
        let Some((appender, settings)) = upstreams.get(client.upstream) else {
            continue;
        };
        let (appender, settings) = (Rc::clone(appender), Rc::clone(settings));
        let split = match client.socket {
            Socket::Tcp(socket) => TcpStream::from_std(socket).map(split_tcp),
            Socket::Unix(socket) => UnixStream::from_std(socket).map(split_unix),
            Socket::Tls(socket, tls) => {
                tokio::task::spawn_local(async move {
                    if let Some((reader, writer)) = shake_hands(appender.local(), socket, &tls).await {
                        session::serve(appender, settings, client.id, reader, writer).await;
                    }
                });
                continue;
            }
        };
        match split {
            Ok((reader, writer)) => {
                tokio::task::spawn_local(session::serve(appender, settings, client.id, reader, writer));
            }
            Err(error) => tracing::debug!(%error, "a client was gone before it was served"),
        }
    }
    for (appender, _) in &upstreams {
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

/// One that has not finished counts as a client already.
async fn shake_hands(local: &Local, socket: std::net::TcpStream, tls: &ServerTls) -> Option<(Reader, Writer)> {
    let clients = &local.worker().stats.clients;
    add(clients, 1);
    let shaken = match TcpStream::from_std(socket) {
        Ok(stream) => timeout(HANDSHAKE_MAX, Box::pin(accept_tls(stream, tls)))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        Err(error) => Err(error),
    };
    sub(clients, 1);
    shaken
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
