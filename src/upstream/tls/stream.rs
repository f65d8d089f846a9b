//! A TLS connection behind the same calls as a plain socket. Reader and writer live on one thread.
//!
//! What the writer takes is encrypted at once and counts as sent, as bytes in a socket's buffer do; what the socket does not take yet waits
//! here ([`TlsWriter::try_flush`]), at most [`SEALED_BYTES_MAX`].

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::Connection;
use socket2::SockRef;
use tokio::net::TcpStream;

/// What may be encrypted and not taken by the socket.
const SEALED_BYTES_MAX: usize = 64 << 10;

struct Stream {
    socket: TcpStream,
    connection: RefCell<Connection>,
}

/// The receiving side.
#[derive(Debug)]
pub struct TlsReader(Rc<Stream>);

/// The sending side. Dropping it shuts the sending direction down.
#[derive(Debug)]
pub struct TlsWriter(Rc<Stream>);

/// Takes over after the handshake.
pub(in crate::upstream) fn split(socket: TcpStream, mut connection: Connection) -> (TlsReader, TlsWriter) {
    connection.set_buffer_limit(Some(SEALED_BYTES_MAX));
    let stream = Rc::new(Stream {
        socket,
        connection: RefCell::new(connection),
    });
    (TlsReader(Rc::clone(&stream)), TlsWriter(stream))
}

/// The socket as rustls wants it: `WouldBlock` instead of waiting.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.socket.fmt(f)
    }
}

impl Stream {
    fn flush(&self, connection: &mut Connection) -> io::Result<()> {
        while connection.wants_write() {
            connection.write_tls(&mut Socket(&self.socket))?;
        }
        Ok(())
    }

    /// Decrypts what has come.
    fn open(&self, connection: &mut Connection) -> io::Result<()> {
        let opened = connection.process_new_packets();
        // An alert, or the answer to a change of keys; what the socket does not take goes with the next write.
        drop(self.flush(connection));
        opened
            .map(drop)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn close(&self, connection: &mut Connection) {
        connection.send_close_notify();
        // An error means that the connection is gone already, which the reader learns. What a full socket does not take is cut off:
        // the peer cannot use the record that it lies in.
        drop(self.flush(connection));
        drop(SockRef::from(&self.socket).shutdown(Shutdown::Write));
    }

    /// The upstream has said that nothing follows. Only the end of the stream proves that it reads nothing more either.
    fn poll_end(
        &self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.close(connection);
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match self.socket.try_read(buffer) {
                Ok(0) => return Poll::Ready(Ok(0)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl TlsReader {
    pub(in crate::upstream) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let stream = &*self.0;
        let mut connection = stream.connection.borrow_mut();
        loop {
            match connection.reader().read(buffer) {
                Ok(0) => {
                    return match &*connection {
                        Connection::Client(_) => stream.poll_end(cx, &mut connection, buffer),
                        // It may be waiting for replies.
                        Connection::Server(_) => Poll::Ready(Ok(0)),
                    };
                }
                Ok(read) => return Poll::Ready(Ok(read)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Without a word before it: whether a reply, or a request, is whole is seen by its framing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(stream.socket.poll_read_ready(cx))?;
            match connection.read_tls(&mut Socket(&stream.socket)) {
                Ok(_) => stream.open(&mut connection)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl TlsWriter {
    pub(in crate::upstream) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut connection = self.0.connection.borrow_mut();
        self.0.flush(&mut connection)?;
        let taken = connection.writer().write(bytes)?;
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        match self.0.flush(&mut connection) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Ok(()) | Err(_) => Ok(taken),
        }
    }

    pub(in crate::upstream) fn try_flush(&self) -> io::Result<()> {
        self.0.flush(&mut self.0.connection.borrow_mut())
    }

    pub(in crate::upstream) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.socket.poll_write_ready(cx)
    }

    pub(in crate::upstream) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_ready(cx))?;
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                tried => return Poll::Ready(tried),
            }
        }
    }

    pub(in crate::upstream) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_ready(cx))?,
                tried => return Poll::Ready(tried),
            }
        }
    }

    pub(in crate::upstream) fn shutdown(&self) {
        self.0.close(&mut self.0.connection.borrow_mut());
    }

    pub(in crate::upstream) fn reset_on_close(&self) {
        // An error means that there is nothing left to reset.
        drop(SockRef::from(&self.0.socket).set_linger(Some(Duration::ZERO)));
    }
}

impl Drop for TlsWriter {
    fn drop(&mut self) {
        self.shutdown();
    }
}
