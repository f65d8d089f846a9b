//! A client's connection, and the comparison of what arrives on it with what must.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::failure::Failure;
use crate::poll::{Interest, Poll};
use crate::sources::Sources;

const SET_UP_TIMEOUT: Duration = Duration::from_secs(20);
const SHOWN_BYTES_MAX: usize = 100;

/// Does not block once it is in a [`Poll`].
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    token: usize,
    unsent: Vec<u8>,
    interest: Interest,
}

impl Connection {
    /// Connected, and heard out on `greeting`, before it is polled. Servers have a short queue of those who knock: a greeting now and then keeps
    /// us from running ahead of it.
    pub(crate) fn open(address: SocketAddr, token: usize, greeting: Greeting, poll: &Poll) -> Result<Self, Failure> {
        let doing = Failure::io::<std::io::Error>;
        let mut stream = TcpStream::connect_timeout(&address, SET_UP_TIMEOUT).map_err(doing("connecting"))?;
        stream.set_nodelay(true).map_err(doing("connecting"))?;
        stream
            .set_read_timeout(Some(SET_UP_TIMEOUT))
            .map_err(doing("connecting"))?;
        stream.write_all(greeting.request).map_err(doing("greeting"))?;
        let mut reply = vec![0; greeting.reply.len()];
        // Byte by byte: an error is shorter than what is expected, and would be waited for in vain.
        for at in 0..reply.len() {
            stream.read_exact(&mut reply[at..=at]).map_err(doing("greeting"))?;
            if reply[at] != greeting.reply[at] {
                return Err(wrong_reply(&reply[..=at], &[], greeting.reply));
            }
        }
        stream.set_nonblocking(true).map_err(doing("connecting"))?;
        Self::polled(stream, token, poll)
    }

    /// On its way: what is sent meanwhile waits until it is there.
    pub(crate) fn knock(
        address: SocketAddr,
        sources: &mut Sources,
        token: usize,
        poll: &Poll,
    ) -> Result<Self, Failure> {
        let doing = Failure::io::<std::io::Error>;
        let socket =
            Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP)).map_err(doing("connecting"))?;
        socket.set_tcp_nodelay(true).map_err(doing("connecting"))?;
        // What is left of an earlier connection from there does no harm.
        socket.set_reuse_address(true).map_err(doing("connecting"))?;
        while let Err(error) = socket.bind(&sources.next().into()) {
            if error.kind() != ErrorKind::AddrInUse {
                return Err(Failure::Io {
                    doing: "connecting",
                    source: error,
                });
            }
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Err(Failure::Io {
                    doing: "connecting",
                    source: error,
                })
            }
            _ => Self::polled(socket.into(), token, poll),
        }
    }

    fn polled(stream: TcpStream, token: usize, poll: &Poll) -> Result<Self, Failure> {
        poll.add(&stream, token, Interest::Replies)?;
        Ok(Self {
            stream,
            token,
            unsent: Vec::new(),
            interest: Interest::Replies,
        })
    }

    pub(crate) fn send(&mut self, bytes: &[u8], poll: &Poll) -> Result<(), Failure> {
        let written = if self.unsent.is_empty() { self.write(bytes)? } else { 0 };
        self.unsent.extend_from_slice(&bytes[written..]);
        self.want_room(poll)
    }

    /// To be called whenever the poll names it.
    pub(crate) fn send_rest(&mut self, poll: &Poll) -> Result<(), Failure> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let rest = std::mem::take(&mut self.unsent);
        let written = self.write(&rest)?;
        self.unsent = rest;
        self.unsent.drain(..written);
        self.want_room(poll)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Failure::Io {
                        doing: "sending",
                        source,
                    });
                }
            }
        }
        Ok(written)
    }

    fn want_room(&mut self, poll: &Poll) -> Result<(), Failure> {
        let interest = if self.unsent.is_empty() {
            Interest::Replies
        } else {
            Interest::RepliesAndRoom
        };
        if interest != self.interest {
            poll.change(&self.stream, self.token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }

    /// What has arrived, as far as it fits the buffer; nothing, where nothing has.
    pub(crate) fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> Result<&'a [u8], Failure> {
        match self.stream.read(buffer) {
            Ok(0) => Err(Failure::Closed),
            Ok(bytes) => Ok(&buffer[..bytes]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(&[]),
            Err(source) => Err(Failure::Io {
                doing: "receiving",
                source,
            }),
        }
    }
}

/// The first request on a connection and its reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Greeting<'a> {
    pub(crate) request: &'a [u8],
    pub(crate) reply: &'a [u8],
}

impl Greeting<'_> {
    pub(crate) const NONE: Greeting<'static> = Greeting {
        request: b"",
        reply: b"",
    };
    pub(crate) const PING: Greeting<'static> = Greeting {
        request: b"*1\r\n$4\r\nPING\r\n",
        reply: b"+PONG\r\n",
    };

    /// A PING on some of many connections.
    pub(crate) fn of(client: usize) -> Greeting<'static> {
        if client.is_multiple_of(64) {
            Self::PING
        } else {
            Self::NONE
        }
    }
}

/// How much of the awaited bytes has arrived.
#[derive(Debug, Default)]
pub(crate) struct Matched {
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Part,
    Whole,
}

impl Matched {
    /// Takes from the input what belongs to `expected`. Whole, it begins anew.
    pub(crate) fn take(&mut self, input: &mut &[u8], expected: &[u8]) -> Result<Progress, Failure> {
        let bytes = input.len().min(expected.len() - self.bytes);
        let (now, rest) = input.split_at(bytes);
        if now != &expected[self.bytes..self.bytes + bytes] {
            return Err(self.wrong(input, expected));
        }
        *input = rest;
        self.bytes += bytes;
        if self.bytes < expected.len() {
            return Ok(Progress::Part);
        }
        self.bytes = 0;
        Ok(Progress::Whole)
    }

    /// What does not match is shown from the start of its line.
    fn wrong(&self, input: &[u8], expected: &[u8]) -> Failure {
        let differ = input
            .iter()
            .zip(&expected[self.bytes..])
            .take_while(|(one, other)| one == other)
            .count();
        let at = self.bytes + differ;
        let line = expected[..at]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        wrong_reply(&expected[line..at], &input[differ..], &expected[line..])
    }
}

fn wrong_reply(begin: &[u8], rest: &[u8], expected: &[u8]) -> Failure {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]).into_owned();
    Failure::WrongReply {
        got: shown(&[begin, rest].concat()),
        expected: shown(expected),
    }
}
