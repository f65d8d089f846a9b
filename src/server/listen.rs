//! Listening sockets. Accepted connections are handed to the workers in turn.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use super::StartError;
use super::worker::{NewClient, Socket, ToWorker, Worker};
use crate::config::ListenAddress;
use crate::upstream::io::set_options;
use crate::upstream::shared::Shared;
use crate::upstream::tls::ServerTls;

/// Wait after an accept that failed for want of something (file descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Unacknowledged data towards a client for longer than this means that it is gone.
const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(60);

/// A bound socket.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, Arc<ServerTls>),
    Unix(UnixSocket),
}

impl Listener {
    /// `tls` is for TCP; a unix socket has none.
    pub(super) async fn bind(address: &ListenAddress, tls: Option<&Arc<ServerTls>>) -> Result<Self, StartError> {
        let bound = match address {
            ListenAddress::Tcp { host, port } => {
                let bound = TcpListener::bind((host.as_str(), *port)).await;
                // What it accepts has the options that it has (Linux).
                let set = bound.and_then(|listener| set_options(&listener, CLIENT_SILENCE_MAX).map(|()| listener));
                set.map(|listener| match tls {
                    Some(tls) => Self::Tls(listener, Arc::clone(tls)),
                    None => Self::Tcp(listener),
                })
            }
            ListenAddress::Unix(path) => UnixSocket::bind(path).map(Self::Unix),
        };
        bound.map_err(|error| format!("cannot listen on {address}: {error}"))
    }

    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => listener.accept().await?.0.into_std().map(Socket::Tcp),
            Self::Tls(listener, tls) => {
                let socket = listener.accept().await?.0.into_std()?;
                Ok(Socket::Tls(socket, Arc::clone(tls)))
            }
            Self::Unix(UnixSocket { listener, .. }) => listener.accept().await?.0.into_std().map(Socket::Unix),
        }
    }
}

/// A listener whose file goes with it.
#[derive(Debug)]
pub(super) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The file's own number: nobody else's is removed.
    ino: u64,
}

impl UnixSocket {
    /// A file that a dead process left behind is in the way; one that somebody listens on, or that is no socket, is not touched.
    fn bind(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
                let is_refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
                if !is_socket || !StdUnixStream::connect(path).is_err_and(is_refused) {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        Ok(Self {
            listener,
            ino: std::fs::symlink_metadata(path)?.ino(),
            path: path.to_owned(),
        })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.ino) {
            // One that stays is replaced at the next start.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Accepts for one upstream.
pub(super) struct Acceptor {
    pub(super) upstream: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) workers: Rc<Vec<Worker>>,
    pub(super) clients_max: usize,
}

/// Client IDs are of the process, as Redis's are of the server.
static NEXT_CLIENT_ID: AtomicU64 = AtomicU64::new(1);

impl Acceptor {
    pub(super) async fn run(self, listener: Listener) {
        let mut turn = 0;
        loop {
            let socket = match listener.accept().await {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::warn!(upstream = %self.shared.target.name, %error, "a client could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if self.is_full() {
                refuse(socket);
                continue;
            }
            let client = NewClient {
                upstream: self.upstream,
                id: NEXT_CLIENT_ID.fetch_add(1, Relaxed),
                socket,
            };
            turn = (turn + 1) % self.workers.len();
            let Some(worker) = self.workers.get(turn) else { return };
            if worker.inbox.send(ToWorker::Serve(client)).await.is_err() {
                return;
            }
        }
    }

    fn is_full(&self) -> bool {
        let clients: u64 = self
            .shared
            .workers
            .iter()
            .map(|worker| worker.stats.clients.load(Relaxed))
            .sum();
        clients >= self.clients_max as u64
    }
}

/// As Redis does: an error, then the end.
fn refuse(socket: Socket) {
    use std::io::Write;
    const FULL: &[u8] = b"-ERR max number of clients reached\r\n";
    // The client learns it from the close as well.
    let _ = match socket {
        Socket::Tcp(mut stream) => stream.write(FULL),
        // Before the handshake nothing can be said.
        Socket::Tls(..) => Ok(0),
        Socket::Unix(mut stream) => stream.write(FULL),
    };
}
