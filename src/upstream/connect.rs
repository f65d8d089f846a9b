//! Opens a socket to the upstream, TLS included, and says why there is none.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::io::{Reader, Writer, connect_tls, set_options, split_tcp, split_unix};
use super::settings::Address;
use super::shared::Sign;
use super::tls::TlsFault;
use crate::breaker::ErrorClass;
use crate::telemetry::ConnectResult;

/// Why there is no connection. In none of these cases has an application byte been sent.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("the host's name does not resolve: {0}")]
    Name(io::Error),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no answer within {0:?}")]
    Silence(Duration),
    #[error("no answer to the TLS handshake within {0:?}: does the server speak TLS?")]
    TlsSilence(Duration),
    #[error("TLS: {0}")]
    Tls(TlsFault),
    #[error("the connection broke during the handshake: {0}")]
    Handshake(io::Error),
    /// A server with TLS does so when it reads something else.
    #[error("the server closed the connection before it answered: does it want TLS (rediss://)?")]
    Closed,
    /// The upstream asks for a password that this identity does not have.
    #[error("the upstream asks for a password: {0}")]
    PasswordOwed(String),
    /// The reply to AUTH or SELECT, without its `-`.
    #[error("refused: {0}")]
    Refused(String),
    /// What the upstream says before the first command (`ERR max number of clients reached`, `DENIED …`), or no RESP.
    #[error("not accepted: {0}")]
    NotAccepted(String),
}

impl DialError {
    /// The connection ended, or TLS ended it.
    pub(super) fn broken(error: io::Error) -> Self {
        TlsFault::of(&error).map_or(Self::Handshake(error), Self::Tls)
    }

    /// Under what a failed dial is counted.
    #[must_use]
    pub fn kind(&self) -> ConnectResult {
        match self {
            Self::Connect(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ConnectResult::Refused,
                io::ErrorKind::TimedOut => ConnectResult::Timeout,
                io::ErrorKind::ConnectionReset => ConnectResult::Handshake,
                _ if is_shortage(error) => ConnectResult::Shortage,
                _ => ConnectResult::Unreachable,
            },
            Self::Name(_) => ConnectResult::Name,
            Self::Silence(_) | Self::TlsSilence(_) => ConnectResult::Timeout,
            Self::Tls(TlsFault::Certificate(_)) => ConnectResult::Certificate,
            Self::Tls(TlsFault::ClientCertificate(_)) => ConnectResult::ClientCertificate,
            Self::Tls(TlsFault::NotTls | TlsFault::Wanted | TlsFault::Other(_)) => ConnectResult::Tls,
            Self::Handshake(_) | Self::Closed | Self::PasswordOwed(_) | Self::Refused(_) | Self::NotAccepted(_) => {
                ConnectResult::Handshake
            }
        }
    }

    /// `maxclients` is reached.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::NotAccepted(text) if text.contains("max number of clients"))
    }

    /// The credentials are refused, not the database or a right.
    pub(super) fn is_denial(&self) -> bool {
        matches!(self, Self::Refused(text) if ErrorClass::of(text.as_bytes()) == ErrorClass::Identity)
    }

    /// What a worker's failed dial says of the upstream; nothing when it is the identity that is refused, or when it is we who lack something.
    pub(super) fn sign(&self) -> Option<Sign> {
        match self {
            Self::PasswordOwed(_) | Self::Refused(_) => None,
            Self::NotAccepted(_) if self.is_full() => Some(Sign::Full),
            Self::NotAccepted(_) => Some(Sign::NotAccepted),
            Self::Name(_)
            | Self::Connect(_)
            | Self::Silence(_)
            | Self::TlsSilence(_)
            | Self::Tls(_)
            | Self::Handshake(_)
            | Self::Closed => match self.kind() {
                ConnectResult::Refused => Some(Sign::ConnectionRefused),
                ConnectResult::Timeout => Some(Sign::ConnectTimeout),
                ConnectResult::Name => Some(Sign::NameUnknown),
                ConnectResult::Unreachable
                | ConnectResult::Certificate
                | ConnectResult::ClientCertificate
                | ConnectResult::Tls => Some(Sign::ConnectFailed),
                ConnectResult::Handshake | ConnectResult::Ok => Some(Sign::Reset),
                ConnectResult::Shortage => None,
            },
        }
    }
}

/// File descriptors, ephemeral ports, memory: of this process or this machine.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const SHORTAGES: [Errno; 5] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::ADDRNOTAVAIL,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    Errno::from_io_error(error).is_some_and(|errno| SHORTAGES.contains(&errno))
}

/// When a dial gives up, and how long it has taken then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    pub(super) limit: Duration,
    pub(super) until: Instant,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        Self {
            limit,
            until: Instant::now() + limit,
        }
    }
}

pub(super) async fn connect(address: &Address, deadline: Deadline) -> Result<(Reader, Writer), DialError> {
    let Deadline { limit, until } = deadline;
    match address {
        Address::Tcp { host, port } => tcp(host, *port, deadline).await.map(split_tcp),
        Address::Tls { host, port, tls } => {
            let stream = tcp(host, *port, deadline).await?;
            // Whoever waits for all of it has the same deadline, and looks here first.
            let shaken = timeout_at(until, connect_tls(stream, tls)).await;
            shaken
                .map_err(|_| DialError::TlsSilence(limit))?
                .map_err(DialError::broken)
        }
        Address::Unix(path) => UnixStream::connect(path)
            .await
            .map(split_unix)
            .map_err(DialError::Connect),
    }
}

/// The resolver runs on a thread of its own, which a dial does not wait for beyond its deadline.
async fn tcp(host: &str, port: u16, deadline: Deadline) -> Result<TcpStream, DialError> {
    let resolved = timeout_at(deadline.until, lookup_host((host, port))).await;
    let addresses = resolved.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = first_of(addresses.map_err(DialError::Name)?.collect(), deadline).await?;
    set_options(&stream, deadline.limit * 4).map_err(DialError::Connect)?;
    Ok(stream)
}

/// The first address that accepts. One that does not answer leaves the others their share of the time.
async fn first_of(addresses: Vec<SocketAddr>, deadline: Deadline) -> Result<TcpStream, DialError> {
    let mut failed = DialError::Name(io::ErrorKind::NotFound.into());
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let share = deadline.until.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = DialError::Connect(error),
            Err(_) => failed = DialError::Silence(deadline.limit),
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_address_that_does_not_answer_leaves_the_next_one_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = full.listen(1).unwrap();
        let silent = full.local_addr().unwrap();
        // The kernel drops what comes once the queue of those not accepted is full.
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(100), TcpStream::connect(silent)).await {
            queued.push(stream);
        }
        let deadline = Deadline::after(Duration::from_millis(600));
        let answering = listener.local_addr().unwrap();
        let stream = first_of(vec![silent, answering], deadline).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answering);
        let failed = first_of(vec![silent], Deadline::after(Duration::from_millis(50))).await;
        assert!(matches!(failed, Err(DialError::Silence(_))), "{failed:?}");
        let failed = first_of(Vec::new(), deadline).await;
        assert!(matches!(failed, Err(DialError::Name(_))), "{failed:?}");
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_no_unreachable_host() {
        let deadline = Deadline::after(Duration::from_secs(20));
        let failed = tcp("no-such-host.invalid", 1, deadline).await.unwrap_err();
        assert_eq!(failed.kind(), ConnectResult::Name);
        assert_eq!(failed.sign(), Some(Sign::NameUnknown));
    }

    #[test]
    fn what_we_lack_ourselves_says_nothing_of_the_upstream() {
        let lacking = DialError::Connect(rustix::io::Errno::MFILE.into());
        assert_eq!((lacking.kind(), lacking.sign()), (ConnectResult::Shortage, None));
        let far = DialError::Connect(rustix::io::Errno::HOSTUNREACH.into());
        assert_eq!(far.sign(), Some(Sign::ConnectFailed));
    }
}
