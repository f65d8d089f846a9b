//! TCP, TLS and unix sockets behind one pair of types, split so that a reader and a writer can have different owners.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use super::busy_poll;
use super::tls::{ClientTls, ServerTls, TlsReader, TlsWriter};

/// Idle time before, and between, keepalive probes of a TCP connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The receiving side of a connection.
#[derive(Debug)]
pub enum Reader {
    Tcp(tcp::OwnedReadHalf),
    Tls(TlsReader),
    Unix(unix::OwnedReadHalf),
}

/// The sending side of a connection. Dropping it shuts the sending direction down.
#[derive(Debug)]
pub enum Writer {
    Tcp(tcp::OwnedWriteHalf),
    Tls(TlsWriter),
    Unix(unix::OwnedWriteHalf),
}

/// What every TCP connection of ours has: no delay, keepalive, a bound on unacknowledged data. What a listener accepts has what it has.
///
/// # Errors
/// Those of `setsockopt`.
pub fn set_options(socket: &impl AsFd, unacknowledged_max: Duration) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    socket.set_tcp_user_timeout(Some(unacknowledged_max))
}

#[must_use]
pub fn split_tcp(stream: TcpStream) -> (Reader, Writer) {
    let (reader, writer) = stream.into_split();
    (Reader::Tcp(reader), Writer::Tcp(writer))
}

/// Shakes hands with the server.
///
/// # Errors
/// Those of the socket, and of TLS: [`super::tls::TlsFault::of`].
pub async fn connect_tls(stream: TcpStream, tls: &ClientTls) -> io::Result<(Reader, Writer)> {
    let (reader, writer) = tls.connect(stream).await?;
    Ok((Reader::Tls(reader), Writer::Tls(writer)))
}

/// Shakes hands with a client.
///
/// # Errors
/// Those of the socket, and of TLS.
pub async fn accept_tls(stream: TcpStream, tls: &ServerTls) -> io::Result<(Reader, Writer)> {
    let (reader, writer) = tls.accept(stream).await?;
    Ok((Reader::Tls(reader), Writer::Tls(writer)))
}

#[must_use]
pub fn split_unix(stream: UnixStream) -> (Reader, Writer) {
    let (reader, writer) = stream.into_split();
    (Reader::Unix(reader), Writer::Unix(writer))
}

impl Reader {
    /// Reads once into `buffer`; `Ok(0)` is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let polled = match self {
            Self::Tcp(half) => poll_plain(half, cx, buffer),
            Self::Tls(half) => half.poll_read(cx, buffer),
            Self::Unix(half) => poll_plain(half, cx, buffer),
        };
        if let Poll::Ready(Ok(bytes)) = polled {
            busy_poll::has_read(bytes);
        }
        polled
    }
}

fn poll_plain(half: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut target = ReadBuf::new(buffer);
    let polled = Pin::new(half).poll_read(cx, &mut target);
    polled.map(|done| done.map(|()| target.filled().len()))
}

impl Writer {
    /// Writes what the socket takes at once.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing: see [`Writer::poll_ready`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_write(bytes),
            Self::Tls(half) => half.try_write(bytes),
            Self::Unix(half) => half.try_write(bytes),
        }
    }

    /// The socket, if what is written to it goes out as it is.
    #[must_use]
    pub fn plain_socket(&self) -> Option<RawFd> {
        match self {
            Self::Tcp(half) => Some(half.as_ref().as_raw_fd()),
            Self::Unix(half) => Some(half.as_ref().as_raw_fd()),
            Self::Tls(_) => None,
        }
    }

    /// Hands the socket what a write has taken before and the socket has not.
    ///
    /// # Errors
    /// `WouldBlock` when something is left.
    pub fn try_flush(&self) -> io::Result<()> {
        match self {
            Self::Tls(half) => half.try_flush(),
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }

    /// As [`Writer::try_flush`], and waits until nothing is left.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(half) => half.poll_flush(cx),
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    /// Waits until a write may succeed.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(half) => half.as_ref().poll_write_ready(cx),
            Self::Tls(half) => half.poll_ready(cx),
            Self::Unix(half) => half.as_ref().poll_write_ready(cx),
        }
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(half) => Pin::new(half).poll_write(cx, bytes),
            Self::Tls(half) => half.poll_write(cx, bytes),
            Self::Unix(half) => Pin::new(half).poll_write(cx, bytes),
        }
    }

    /// Half-closes: the peer reads an end of file behind what was written.
    pub fn shutdown(&self) {
        let half = match self {
            Self::Tcp(half) => SockRef::from(half.as_ref()).shutdown(std::net::Shutdown::Write),
            Self::Tls(half) => return half.shutdown(),
            Self::Unix(half) => SockRef::from(half.as_ref()).shutdown(std::net::Shutdown::Write),
        };
        // An error means that the connection is gone already, which the reader learns.
        drop(half);
    }

    /// Makes the close that follows a reset: what was written and not acknowledged is not sent again.
    pub fn reset_on_close(&self) {
        match self {
            // As above: an error means that there is nothing left to reset.
            Self::Tcp(half) => drop(SockRef::from(half.as_ref()).set_linger(Some(Duration::ZERO))),
            Self::Tls(half) => half.reset_on_close(),
            Self::Unix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_options(stream: TcpStream, unacknowledged_max: Duration) {
        let (reader, _writer) = split_tcp(stream);
        let Reader::Tcp(half) = reader else { panic!("not TCP") };
        let socket = SockRef::from(half.as_ref());
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(unacknowledged_max));
    }

    #[tokio::test]
    async fn a_tcp_connection_has_no_delay_and_is_kept_alive_also_where_it_is_accepted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        set_options(&listener, Duration::from_secs(9)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        set_options(&stream, Duration::from_secs(7)).unwrap();
        check_options(stream, Duration::from_secs(7));
        check_options(listener.accept().await.unwrap().0, Duration::from_secs(9));
    }
}
