//! Opens a connection to the upstream and makes it ready: identity, protocol version, database, and what the fence must know of it.
//!
//! AUTH goes alone: a failing AUTH with replies pending before it gets no reply (redis/redis#15640).

use std::io;
use std::time::Duration;

use tokio::time::{timeout, timeout_at};

pub use super::clock::{mono_ms, wall_ms};
pub use super::connect::DialError;
use super::connect::{Deadline, connect};
use super::connections::Connection;
use super::hello::Hello;
use super::io::{Reader, Writer};
pub use super::said::{Versions, error_text, field_text, value, value_of};
use super::said::{hello_facts, time_ms};
use super::settings::Credentials;
use super::shared::Target;
use super::tls::TlsFault;
use super::transaction::RefusedExec;
use crate::resp::reply::{Found, Kind, Scanner};
use crate::resp::{Protocol, write};
use crate::telemetry::{self, ConnectResult};

/// What the replies of a handshake may take together.
const REPLIES_BYTES_MAX: usize = 1 << 20;

/// How a connection is to be made ready.
#[derive(Clone, Debug)]
pub struct Handshake<'a> {
    pub credentials: Option<&'a Credentials>,
    pub opener: Opener<'a>,
    pub protocol: Protocol,
    pub db: u32,
}

impl<'a> Handshake<'a> {
    /// For questions of our own, in RESP2, as the one whom `credentials` name.
    #[must_use]
    pub fn in_own_name(credentials: Option<&'a Credentials>, db: u32) -> Self {
        Self {
            credentials,
            opener: Opener::Itself,
            protocol: Protocol::Resp2,
            db,
        }
    }
}

/// As whom a connection is made ready. A user with few rights may not even ask for the connection's ID, and a session may have chosen its
/// database before it became that user.
#[derive(Clone, Copy, Debug)]
pub enum Opener<'a> {
    /// As the one whom it will serve.
    Itself,
    /// As sessions that never AUTH, if that can be; it is handed over then. Where a password is asked of them, with what the user `default`
    /// was last let in with.
    Url {
        credentials: Option<&'a Credentials>,
        default: Option<&'a Credentials>,
    },
}

/// What the upstream said of itself on this connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// HELLO's reply, and `version`, `mode` and `role` in it.
    pub hello: Hello,
    pub version: String,
    pub mode: String,
    /// As INFO says them.
    pub versions: Versions,
    pub refused_exec: RefusedExec,
    pub role: Role,
    pub run_id: Option<String>,
    /// The upstream's clock minus ours, in milliseconds.
    pub clock_offset_ms: i64,
    /// The answer to PING: nothing when it was `+PONG`, else the error without its `-`.
    pub ping_error: Option<String>,
    /// `databases` of its configuration; Redis's default where it does not say.
    pub databases: u32,
    /// What HELLO is answered where a password is owed, without its `-`.
    pub hello_refusal: Option<String>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            hello: Hello::default(),
            version: String::new(),
            mode: String::new(),
            versions: Versions::default(),
            refused_exec: RefusedExec::default(),
            role: Role::Unknown,
            run_id: None,
            clock_offset_ms: 0,
            ping_error: None,
            databases: 16,
            hello_refusal: None,
        }
    }
}

/// The upstream's place in replication, from HELLO (which needs no rights).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    Master,
    Replica,
    #[default]
    Unknown,
}

/// A connection that is ready, with nothing unread on it.
#[derive(Debug)]
pub struct Dialled {
    pub reader: Reader,
    pub writer: Writer,
    pub connection: Connection,
    pub facts: Facts,
}

/// Dials an upstream, within `timeouts.connect` for everything, and counts how that went.
///
/// # Errors
/// [`DialError`]; nothing is left open then.
pub async fn dial_counted(target: &Target, handshake: &Handshake<'_>) -> Result<Dialled, DialError> {
    let dialled = dial(target, handshake).await;
    let result = dialled.as_ref().map_or_else(DialError::kind, |_| ConnectResult::Ok);
    telemetry::upstream_connects(&target.name, result);
    dialled
}

/// Dials, within `timeouts.connect` for everything.
///
/// # Errors
/// [`DialError`]; nothing is left open then.
pub async fn dial(target: &Target, handshake: &Handshake<'_>) -> Result<Dialled, DialError> {
    let deadline = Deadline::after(target.timeouts.connect);
    timeout_at(deadline.until, ready(target, handshake, deadline))
        .await
        .unwrap_or(Err(DialError::Silence(deadline.limit)))
}

/// Connects, and says nothing yet, within `timeouts.connect`.
///
/// # Errors
/// Those of connecting: [`DialError::Connect`], of TLS, or [`DialError::Silence`].
pub async fn connect_bare(target: &Target) -> Result<Conversation, DialError> {
    let deadline = Deadline::after(target.timeouts.connect);
    timeout_at(deadline.until, bare(target, deadline))
        .await
        .unwrap_or(Err(DialError::Silence(deadline.limit)))
}

async fn bare(target: &Target, deadline: Deadline) -> Result<Conversation, DialError> {
    let (reader, writer) = connect(&target.address, deadline).await?;
    Ok(Conversation {
        reader,
        writer,
        input: Vec::new(),
        connection: None,
    })
}

async fn ready(target: &Target, handshake: &Handshake<'_>, deadline: Deadline) -> Result<Dialled, DialError> {
    let mut conversation = bare(target, deadline).await?;
    let opened = match handshake.opener {
        Opener::Itself => None,
        Opener::Url { credentials, default } => {
            let opened_as_url = opened(&mut conversation, handshake, credentials).await?;
            match (opened_as_url, default) {
                (None, Some(default)) => opened(&mut conversation, handshake, Some(default)).await?,
                (opened, _) => opened,
            }
        }
    };
    authenticate(&mut conversation, handshake.credentials).await?;
    let introduced = match opened {
        Some(introduced) => introduced,
        None => introduce(&mut conversation, handshake).await?,
    };
    let Introduced { replies, wall_mid_ms } = introduced;
    let [hello, client, ping, server, time, select] = replies;

    if let Some(text) = error_text(&hello) {
        if text.starts_with("NOAUTH") {
            return Err(DialError::PasswordOwed(text));
        }
        // Without the right to HELLO the connection is one of RESP2, and of unknown role.
        if handshake.protocol == Protocol::Resp3 {
            return Err(DialError::Refused(text));
        }
    }
    if let Some(text) = error_text(&select) {
        return Err(DialError::Refused(text));
    }
    let client = field_text(&client).unwrap_or_default();
    let mut facts = hello_facts(&hello);
    let server = field_text(&server).unwrap_or_default();
    facts.run_id = value_of(&server, "run_id:", '\n');
    facts.versions = Versions::of(&server);
    facts.refused_exec = RefusedExec::of(&server);
    facts.ping_error = error_text(&ping);
    facts.clock_offset_ms = time_ms(&time).map_or(0, |theirs| theirs.saturating_sub_unsigned(wall_mid_ms));
    let connection = Connection {
        client_id: value_of(&client, "id=", ' ')
            .and_then(|id| id.parse().ok())
            .unwrap_or_default(),
        address: value_of(&client, " addr=", ' '),
        run_id: facts.run_id.clone(),
    };
    Ok(Dialled {
        reader: conversation.reader,
        writer: conversation.writer,
        connection,
        facts,
    })
}

/// The replies to a connection's introduction and SELECT, and our time halfway between question and answer.
struct Introduced {
    replies: [Vec<u8>; 6],
    wall_mid_ms: u64,
}

/// The introduction in the name of sessions that never AUTH; nothing where they may not say it.
async fn opened(
    conversation: &mut Conversation,
    handshake: &Handshake<'_>,
    credentials: Option<&Credentials>,
) -> Result<Option<Introduced>, DialError> {
    match authenticate(conversation, credentials).await {
        Ok(()) => {}
        Err(DialError::Refused(_)) => return Ok(None),
        Err(other) => return Err(other),
    }
    let introduced = introduce(conversation, handshake).await?;
    let [hello, client, .., select] = &introduced.replies;
    let refused = [hello, client, select].iter().any(|reply| reply.first() == Some(&b'-'));
    Ok((!refused).then_some(introduced))
}

async fn authenticate(conversation: &mut Conversation, credentials: Option<&Credentials>) -> Result<(), DialError> {
    let Some(credentials) = credentials else { return Ok(()) };
    let reply = conversation.ask(&auth(credentials), 1).await?.pop();
    match reply.as_deref().and_then(error_text) {
        Some(text) => Err(DialError::Refused(text)),
        None => Ok(()),
    }
}

async fn introduce(conversation: &mut Conversation, handshake: &Handshake<'_>) -> Result<Introduced, DialError> {
    let wall_before_ms = wall_ms();
    let mut replies = conversation.ask(&introduction(handshake), 5).await?;
    // A connection starts in database 0; not everybody has the right to SELECT.
    if handshake.db != 0 {
        replies.extend(
            conversation
                .ask(&command(&["SELECT", handshake.db.to_string().as_str()]), 1)
                .await?,
        );
    } else {
        replies.push(b"+OK\r\n".to_vec());
    }
    Ok(Introduced {
        replies: replies
            .try_into()
            .map_err(|_| DialError::NotAccepted("an incomplete handshake".into()))?,
        wall_mid_ms: u64::midpoint(wall_before_ms, wall_ms()),
    })
}

/// The AUTH that these credentials are given with.
#[must_use]
pub fn auth(credentials: &Credentials) -> Vec<u8> {
    let mut args: Vec<&[u8]> = vec![b"AUTH"];
    args.extend(credentials.user.as_deref().map(str::as_bytes));
    args.push(credentials.password.expose());
    command(&args)
}

fn introduction(handshake: &Handshake<'_>) -> Vec<u8> {
    let protocol = handshake.protocol.number().to_string();
    let mut out = command(&["HELLO", protocol.as_str()]);
    out.extend(command(&["CLIENT", "INFO"]));
    out.extend(command(&["PING"]));
    out.extend(command(&["INFO", "server"]));
    out.extend(command(&["TIME"]));
    out
}

/// Encodes a command.
#[must_use]
pub fn command<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = Vec::new();
    write::array(&mut out, args.len());
    for arg in args {
        write::bulk(&mut out, arg.as_ref());
    }
    out
}

/// A connection used for question and answer, by one owner.
#[derive(Debug)]
pub struct Conversation {
    reader: Reader,
    writer: Writer,
    input: Vec<u8>,
    connection: Option<Connection>,
}

impl From<Dialled> for Conversation {
    fn from(dialled: Dialled) -> Self {
        Self {
            reader: dialled.reader,
            writer: dialled.writer,
            input: Vec::new(),
            connection: Some(dialled.connection),
        }
    }
}

impl Conversation {
    /// What the connection file needs to know of it; nothing where nothing has been said on it yet ([`connect_bare`]).
    #[must_use]
    pub fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// Sends `request` and reads `count` replies, each a raw frame. Push frames are passed over.
    ///
    /// # Errors
    /// [`DialError::Handshake`] when the connection ends, [`DialError::NotAccepted`] when that is preceded by an error, or for what is no RESP.
    pub async fn ask(&mut self, request: &[u8], count: usize) -> Result<Vec<Vec<u8>>, DialError> {
        if let Err(error) = self.send(request).await {
            // A server that refuses says so before it closes.
            return Err(match self.next_reply(REPLIES_BYTES_MAX).await {
                Err(said @ DialError::Tls(_)) => said,
                Ok(_) | Err(_) => self.unanswered(DialError::Handshake(error)),
            });
        }
        let mut replies = Vec::with_capacity(count);
        while replies.len() < count {
            match self.next_reply(REPLIES_BYTES_MAX).await {
                Ok(reply) => replies.push(reply),
                Err(error) if replies.is_empty() => return Err(self.unanswered(error)),
                Err(DialError::Handshake(error)) => {
                    // The error is said once, before the close, whatever was asked.
                    return Err(match replies.first().and_then(|reply: &Vec<u8>| error_text(reply)) {
                        Some(text) => DialError::NotAccepted(text),
                        None => DialError::Handshake(error),
                    });
                }
                Err(other) => return Err(other),
            }
        }
        Ok(replies)
    }

    /// What a server with TLS does to those who speak without it: an alert, or the end.
    fn unanswered(&self, error: DialError) -> DialError {
        const ALERT: &[u8] = &[21, 3];
        match (&self.reader, &self.connection, error) {
            (Reader::Tcp(_), None, DialError::NotAccepted(_)) if self.input.starts_with(ALERT) => {
                DialError::Tls(TlsFault::Wanted)
            }
            (Reader::Tcp(_), None, DialError::Handshake(_)) if self.input.is_empty() => DialError::Closed,
            (_, _, other) => other,
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = std::future::poll_fn(|cx| self.writer.poll_write(cx, bytes)).await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        std::future::poll_fn(|cx| self.writer.poll_flush(cx)).await
    }

    /// Writes what the socket takes at once, and says how many bytes that were. Of a connection that is broken it takes none; who writes next
    /// learns it.
    #[must_use]
    pub fn send_some(&self, bytes: &[u8]) -> usize {
        self.writer.try_write(bytes).unwrap_or(0)
    }

    /// The next reply, of at most `bytes_max`, as a raw frame.
    ///
    /// # Errors
    /// [`DialError::Handshake`] for the end of the connection, [`DialError::NotAccepted`] for no RESP or too much of it.
    pub async fn next_reply(&mut self, bytes_max: usize) -> Result<Vec<u8>, DialError> {
        let mut scanner = Scanner::default();
        let mut scanned = 0;
        let mut buffer = vec![0; 16 << 10];
        loop {
            let rest = self.input.get(scanned..).unwrap_or_default();
            match scanner.scan(rest) {
                Ok(Found::End { bytes, .. }) => {
                    let rest = self.input.split_off(scanned + bytes);
                    let reply = std::mem::replace(&mut self.input, rest);
                    if reply.first() == Some(&b'>') {
                        scanned = 0;
                        continue;
                    }
                    return Ok(reply);
                }
                Ok(Found::Part { bytes, .. }) => scanned += bytes,
                Err(_) => return Err(DialError::NotAccepted("the answer is not RESP".into())),
            }
            if self.input.len() > bytes_max {
                return Err(DialError::NotAccepted(format!(
                    "an answer of more than {bytes_max} bytes"
                )));
            }
            let read = std::future::poll_fn(|cx| self.reader.poll_read(cx, &mut buffer)).await;
            match read.map_err(DialError::broken)? {
                0 => return Err(DialError::Handshake(io::ErrorKind::UnexpectedEof.into())),
                read => self.input.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            }
        }
    }

    /// The next `count` replies as they came, one behind the other; push frames are passed over.
    ///
    /// # Errors
    /// As [`Self::next_reply`], and [`DialError::Silence`] when nothing arrives for so long.
    pub async fn next_replies(
        &mut self,
        count: usize,
        bytes_max: usize,
        silence: Duration,
    ) -> Result<Vec<u8>, DialError> {
        let mut scanner = Scanner::default();
        let mut buffer = vec![0; 32 << 10];
        let (mut scanned, mut start, mut left) = (0, 0, count);
        loop {
            while left > 0 {
                match scanner.scan(self.input.get(scanned..).unwrap_or_default()) {
                    Ok(Found::End {
                        bytes,
                        kind: Kind::Push,
                    }) => {
                        self.input.drain(start..scanned + bytes);
                        scanned = start;
                    }
                    Ok(Found::End {
                        bytes,
                        kind: Kind::Value | Kind::Error,
                    }) => {
                        scanned += bytes;
                        start = scanned;
                        left -= 1;
                    }
                    Ok(Found::Part { bytes, .. }) => {
                        scanned += bytes;
                        break;
                    }
                    Err(_) => return Err(DialError::NotAccepted("the answer is not RESP".into())),
                }
            }
            if left == 0 {
                let rest = self.input.split_off(scanned);
                return Ok(std::mem::replace(&mut self.input, rest));
            }
            if self.input.len() > bytes_max {
                return Err(DialError::NotAccepted(format!(
                    "answers of more than {bytes_max} bytes"
                )));
            }
            let read = std::future::poll_fn(|cx| self.reader.poll_read(cx, &mut buffer));
            match timeout(silence, read).await.map_err(|_| DialError::Silence(silence))? {
                Ok(0) => return Err(DialError::Handshake(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => self.input.extend_from_slice(buffer.get(..read).unwrap_or_default()),
                Err(error) => return Err(DialError::broken(error)),
            }
        }
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.writer.reset_on_close();
    }
}
