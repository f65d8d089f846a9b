//! Opens a socket to the upstream, TLS included, and says why there is none.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::io::{Reader, Writer, connect_tls, set_options, split_tcp, split_unix};
use super::settings::Address;
use super::shared::Sign;
use super::tls::TlsFault;
use crate::telemetry::ConnectResult;

/// Why there is no connection. In none of these cases has an application byte been sent.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
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
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ConnectResult::Unreachable,
                io::ErrorKind::TimedOut => ConnectResult::Timeout,
                io::ErrorKind::ConnectionReset => ConnectResult::Handshake,
                _ => ConnectResult::Name,
            },
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

    /// What a worker's failed dial says of the upstream; nothing when it is the identity that is refused.
    pub(super) fn sign(&self) -> Option<Sign> {
        match self {
            Self::PasswordOwed(_) | Self::Refused(_) => None,
            Self::NotAccepted(_) if self.is_full() => Some(Sign::Full),
            Self::NotAccepted(_) => Some(Sign::NotAccepted),
            Self::Connect(_)
            | Self::Silence(_)
            | Self::TlsSilence(_)
            | Self::Tls(_)
            | Self::Handshake(_)
            | Self::Closed => Some(match self.kind() {
                ConnectResult::Refused => Sign::ConnectionRefused,
                ConnectResult::Timeout => Sign::ConnectTimeout,
                ConnectResult::Unreachable
                | ConnectResult::Name
                | ConnectResult::Certificate
                | ConnectResult::ClientCertificate
                | ConnectResult::Tls => Sign::ConnectFailed,
                ConnectResult::Handshake | ConnectResult::Ok => Sign::Reset,
            }),
        }
    }
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
        Address::Tcp { host, port } => tcp(host, *port, limit).await.map(split_tcp),
        Address::Tls { host, port, tls } => {
            let stream = tcp(host, *port, limit).await?;
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

async fn tcp(host: &str, port: u16, limit: Duration) -> Result<TcpStream, DialError> {
    let stream = TcpStream::connect((host, port)).await.map_err(DialError::Connect)?;
    set_options(&stream, limit * 4).map_err(DialError::Connect)?;
    Ok(stream)
}
