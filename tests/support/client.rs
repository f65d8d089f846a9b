//! A blocking client that sends any bytes and returns replies as the bytes they are.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::{DEADLINE, shown};

#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    input: BufReader<TcpStream>,
}

impl Client {
    /// # Panics
    /// When nobody accepts.
    #[track_caller]
    pub fn connect(address: &str) -> Self {
        Self::try_connect(address, DEADLINE).unwrap_or_else(|error| panic!("connecting to {address}: {error}"))
    }

    /// `timeout` is how long a single read waits, from then on.
    pub fn try_connect(address: &str, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let input = BufReader::with_capacity(64 * 1024, stream.try_clone()?);
        Ok(Self { stream, input })
    }

    /// Switches to RESP3 and drops the greeting.
    #[track_caller]
    pub fn hello3(mut self) -> Self {
        let greeting = self.call(&["HELLO", "3"]);
        assert_eq!(greeting.first(), Some(&b'%'), "HELLO 3 answered {}", shown(&greeting));
        self
    }

    pub fn set_timeout(&self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).unwrap();
    }

    /// Errors are left to the read that follows: a peer may close while we write.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        self.send_raw(&command(args));
    }

    /// One reply as raw bytes; a RESP3 attribute is returned together with the reply it belongs to.
    #[track_caller]
    pub fn reply(&mut self) -> Vec<u8> {
        self.try_reply()
            .unwrap_or_else(|error| panic!("reading a reply: {error}"))
    }

    pub fn try_reply(&mut self) -> io::Result<Vec<u8>> {
        let mut frame = Vec::new();
        read_frame(&mut self.input, &mut frame)?;
        Ok(frame)
    }

    #[track_caller]
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        self.send(args);
        self.reply()
    }

    pub fn try_call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Vec<u8>> {
        self.stream.write_all(&command(args))?;
        self.try_reply()
    }

    /// Everything until the peer closes.
    ///
    /// # Panics
    /// When it does not close within the timeout.
    #[track_caller]
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.input.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            // A peer that closes with our bytes unread resets; what it sent before counts.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => bytes,
            Err(error) => panic!("not closed ({error}); read so far: {}", shown(&bytes)),
        }
    }

    /// What has arrived, at least one byte of it: of what is no RESP.
    #[track_caller]
    pub fn some_bytes(&mut self) -> Vec<u8> {
        let bytes = self.input.fill_buf().unwrap().to_vec();
        self.input.consume(bytes.len());
        bytes
    }

    /// A second handle on the same connection, to send from another thread.
    pub fn sender(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// Errors are left to the read that follows: a peer that has closed with our bytes unread has reset.
    pub fn finish_sending(&self) {
        match self.stream.shutdown(Shutdown::Write) {
            // The peer has closed already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            shut => shut.unwrap(),
        }
    }
}

/// A request in its multibulk form.
pub fn command<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend(bulk(arg.as_ref()));
    }
    bytes
}

/// `$5\r\nhello\r\n`
pub fn bulk(payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = format!("${}\r\n", payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The text of an error reply, without its `-` and line end.
pub fn error_text(reply: &[u8]) -> Option<String> {
    let text = reply.strip_prefix(b"-")?;
    Some(String::from_utf8_lossy(text).trim_end().to_owned())
}

#[track_caller]
pub fn integer(reply: &[u8]) -> i64 {
    let text = reply
        .strip_prefix(b":")
        .unwrap_or_else(|| panic!("not an integer: {}", shown(reply)));
    std::str::from_utf8(text).unwrap().trim_end().parse().unwrap()
}

/// The bulk strings of a flat or nested array reply, in order, as text; nulls are left out.
#[track_caller]
pub fn array(reply: &[u8]) -> Vec<String> {
    assert_eq!(reply.first(), Some(&b'*'), "not an array: {}", shown(reply));
    let mut input = reply;
    let mut strings = Vec::new();
    while !input.is_empty() {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line).unwrap();
        if line[0] == b'$' {
            // A null bulk has the length -1 and no payload: it is left out.
            let Ok(length) = String::from_utf8_lossy(&line[1..]).trim_end().parse::<usize>() else {
                continue;
            };
            strings.push(String::from_utf8_lossy(&input[..length]).into_owned());
            input = &input[length + 2..];
        }
    }
    strings
}

/// Copies exactly one frame from `input` to `frame`. Iterative: replies may be nested as deeply as they like.
fn read_frame(input: &mut impl BufRead, frame: &mut Vec<u8>) -> io::Result<()> {
    let mut pending = 1_u64;
    while pending > 0 {
        pending -= 1;
        let start = frame.len();
        if input.read_until(b'\n', frame)? == 0 || !frame.ends_with(b"\r\n") {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("closed after {}", shown(frame)),
            ));
        }
        let line = &frame[start..];
        let count = || {
            let text = std::str::from_utf8(&line[1..line.len() - 2]).map_err(invalid)?;
            text.parse::<i64>()
                .map_err(|error| invalid(format!("{error} in {}", shown(line))))
        };
        match line[0] {
            b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => {}
            b'$' | b'=' | b'!' => {
                if let Ok(length) = usize::try_from(count()?) {
                    let payload = frame.len();
                    frame.resize(payload + length + 2, 0);
                    input.read_exact(&mut frame[payload..])?;
                }
            }
            b'*' | b'~' | b'>' => pending += u64::try_from(count()?).unwrap_or(0),
            b'%' => pending += 2 * u64::try_from(count()?).unwrap_or(0),
            b'|' => pending += 2 * u64::try_from(count()?).unwrap_or(0) + 1,
            _ => return Err(invalid(format!("no reply starts like {}", shown(line)))),
        }
    }
    Ok(())
}

fn invalid(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
