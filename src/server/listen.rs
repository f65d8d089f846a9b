//! Listening sockets. The first worker accepts, for all workers in turn: what it serves itself needs no hand-over.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use super::StartError;
use super::worker::{Accepted, Clients, NewClient, ToWorker};
use crate::config::ListenAddress;
use crate::upstream::io::set_options;
use crate::upstream::shared::Shared;
use crate::upstream::tls::ServerTls;

/// Wait after an accept that failed for want of something (file descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Unacknowledged data towards a client for longer than this means that it is gone.
const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(60);

/// A socket that listens or is connected, by what it speaks.
#[derive(Debug)]
pub(super) enum Socket<T, U> {
    Tcp(T),
    Tls(T, Arc<ServerTls>),
    Unix(U),
}

impl<T, U> Socket<T, U> {
    /// The same one, given into other hands.
    ///
    /// # Errors
    /// Those of the functions.
    pub(super) fn try_map<A, B>(
        self,
        tcp: impl FnOnce(T) -> io::Result<A>,
        unix: impl FnOnce(U) -> io::Result<B>,
    ) -> io::Result<Socket<A, B>> {
        Ok(match self {
            Self::Tcp(socket) => Socket::Tcp(tcp(socket)?),
            Self::Tls(socket, tls) => Socket::Tls(tcp(socket)?, tls),
            Self::Unix(socket) => Socket::Unix(unix(socket)?),
        })
    }
}

/// A bound one, of whoever will accept.
pub(super) type Bound = Socket<std::net::TcpListener, (StdUnixListener, UnixFile)>;

impl Bound {
    /// `tls` is for TCP; a unix socket has none.
    pub(super) async fn bind(address: &ListenAddress, tls: Option<&Arc<ServerTls>>) -> Result<Self, StartError> {
        let bound = match address {
            ListenAddress::Tcp { host, port } => {
                let bound = TcpListener::bind((host.as_str(), *port)).await;
                // What it accepts has the options that it has (Linux).
                let set = bound.and_then(|listener| set_options(&listener, CLIENT_SILENCE_MAX).map(|()| listener));
                set.and_then(TcpListener::into_std).map(|listener| match tls {
                    Some(tls) => Self::Tls(listener, Arc::clone(tls)),
                    None => Self::Tcp(listener),
                })
            }
            ListenAddress::Unix(path) => bind_unix(path).map(Self::Unix),
        };
        bound.map_err(|error| format!("cannot listen on {address}: {error}"))
    }
}

/// One that the runtime it was made in looks after.
type Listener = Socket<TcpListener, (UnixListener, UnixFile)>;

impl Listener {
    fn new(bound: Bound) -> io::Result<Self> {
        bound.try_map(TcpListener::from_std, |(listener, file)| {
            Ok((UnixListener::from_std(listener)?, file))
        })
    }

    async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => Socket::Tcp(listener.accept().await?.0),
            Self::Tls(listener, tls) => Socket::Tls(listener.accept().await?.0, Arc::clone(tls)),
            Self::Unix((listener, _)) => Socket::Unix(listener.accept().await?.0),
        })
    }
}

/// A unix socket's file, which goes with it.
#[derive(Debug)]
pub(super) struct UnixFile {
    path: PathBuf,
    /// The file's own number: nobody else's is removed.
    ino: u64,
}

/// A file that a dead process left behind is in the way; one that somebody listens on, or that is no socket, is not touched.
fn bind_unix(path: &Path) -> io::Result<(StdUnixListener, UnixFile)> {
    let listener = match StdUnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            let is_refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            if !is_socket || !StdUnixStream::connect(path).is_err_and(is_refused) {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            StdUnixListener::bind(path)?
        }
        bound => bound?,
    };
    listener.set_nonblocking(true)?;
    let file = UnixFile {
        ino: std::fs::symlink_metadata(path)?.ino(),
        path: path.to_owned(),
    };
    Ok((listener, file))
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.ino) {
            // One that stays is replaced at the next start.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// What the first worker accepts from, and for whom besides itself.
pub(super) struct Door {
    /// One of each upstream.
    pub(super) bound: Vec<Bound>,
    pub(super) others: Vec<mpsc::Sender<ToWorker>>,
    pub(super) clients_max: usize,
}

impl Door {
    /// Ready to accept in the runtime that this is called in.
    ///
    /// # Errors
    /// Those of asking the system to look after the listeners.
    pub(super) fn open(self, clients: &Rc<Clients>) -> io::Result<Vec<Acceptor>> {
        let acceptor = |(upstream, bound)| {
            Ok(Acceptor {
                listener: Listener::new(bound)?,
                upstream,
                clients: Rc::clone(clients),
                others: self.others.clone(),
                under_way: Arc::default(),
                clients_max: self.clients_max,
            })
        };
        self.bound.into_iter().enumerate().map(acceptor).collect()
    }
}

/// Accepts for one upstream.
pub(super) struct Acceptor {
    listener: Listener,
    upstream: usize,
    clients: Rc<Clients>,
    others: Vec<mpsc::Sender<ToWorker>>,
    /// Each client on its way to another worker has one: that worker counts it when it serves it.
    under_way: Arc<()>,
    clients_max: usize,
}

/// Client IDs are of the process, as Redis's are of the server.
static NEXT_CLIENT_ID: AtomicU64 = AtomicU64::new(1);

impl Acceptor {
    pub(super) async fn run(self) {
        let shared = Arc::clone(self.clients.shared(self.upstream));
        let mut turns = (0..=self.others.len()).cycle();
        loop {
            let socket = match self.listener.accept().await {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::warn!(upstream = %shared.target.name, %error, "a client could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if self.is_full(&shared) {
                refuse(&socket);
                continue;
            }
            let client = NewClient {
                upstream: self.upstream,
                id: NEXT_CLIENT_ID.fetch_add(1, Relaxed),
                socket,
            };
            match turns.next().and_then(|turn| self.others.get(turn)) {
                None => self.clients.serve(client),
                Some(other) => match client.handed_over() {
                    // It takes none any more when it stops, and then so do we.
                    Ok(client) => {
                        let under_way = Arc::clone(&self.under_way);
                        drop(other.send(ToWorker::Serve { client, under_way }).await);
                    }
                    Err(error) => tracing::debug!(%error, "a client was gone before it was served"),
                },
            }
        }
    }

    fn is_full(&self, shared: &Shared) -> bool {
        let workers = shared.workers.iter();
        let served: u64 = workers.map(|worker| worker.stats.clients.load(Relaxed)).sum();
        let under_way = Arc::strong_count(&self.under_way) - 1;
        served + under_way as u64 >= self.clients_max as u64
    }
}

/// As Redis does: an error, then the end.
fn refuse(socket: &Accepted) {
    const FULL: &[u8] = b"-ERR max number of clients reached\r\n";
    // The client learns it from the close as well.
    let _ = match socket {
        Socket::Tcp(stream) => stream.try_write(FULL),
        // Before the handshake nothing can be said.
        Socket::Tls(..) => Ok(0),
        Socket::Unix(stream) => stream.try_write(FULL),
    };
}
