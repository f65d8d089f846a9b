//! One connection that replays: question and answer, one exchange in flight.

use std::time::Duration;

use crate::breaker::{ErrorClass, Failure, HardSign, Transient, Trouble, Unavailable};
use crate::upstream::connections::Connection;
use crate::upstream::dial::{Conversation, DialError};

use super::batch::Frames;

/// What the replies to one exchange may take together.
const REPLIES_BYTES_MAX: usize = 64 << 20;

/// How fast a request can be expected to be taken, at least.
const BYTES_PER_SECOND_MIN: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Line {
    conversation: Conversation,
    silence: Duration,
    /// The database that is selected.
    pub db: Option<u32>,
    /// Something was written since the last WAIT.
    pub has_written: bool,
}

impl Line {
    pub(super) fn new(conversation: Conversation, silence: Duration) -> Self {
        Self {
            conversation,
            silence,
            db: None,
            has_written: false,
        }
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        self.conversation.connection()
    }

    pub(super) async fn send(&mut self, request: &[u8]) -> Result<(), Trouble> {
        let patience =
            self.silence + Duration::from_secs((request.len() / BYTES_PER_SECOND_MIN).try_into().unwrap_or(u64::MAX));
        match tokio::time::timeout(patience, self.conversation.send(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Trouble::Soft(Failure::Reset)),
            Err(_) => Err(Trouble::Silence),
        }
    }

    /// Sends what the connection takes at once; how many bytes that were.
    pub(super) fn send_some(&self, request: &[u8]) -> usize {
        self.conversation.send_some(request)
    }

    /// The next `count` replies, one behind the other.
    pub(super) async fn replies(&mut self, count: usize) -> Result<Vec<u8>, Trouble> {
        self.replies_within(count, self.silence).await
    }

    async fn replies_within(&mut self, count: usize, silence: Duration) -> Result<Vec<u8>, Trouble> {
        self.conversation
            .next_replies(count, REPLIES_BYTES_MAX, silence)
            .await
            .map_err(|error| trouble_of_dial(&error))
    }

    pub(super) async fn ask(&mut self, request: &[u8], count: usize) -> Result<Vec<Vec<u8>>, Trouble> {
        self.ask_within(request, count, self.silence).await
    }

    /// As [`Self::ask`], for what may take the server longer.
    pub(super) async fn ask_within(
        &mut self,
        request: &[u8],
        count: usize,
        silence: Duration,
    ) -> Result<Vec<Vec<u8>>, Trouble> {
        self.send(request).await?;
        frames(&self.replies_within(count, silence).await?, count)
    }

    /// A PING and its reply, whatever that says.
    pub(super) async fn ping(&mut self) -> Result<(), Trouble> {
        self.ask(b"*1\r\n$4\r\nPING\r\n", 1).await.map(drop)
    }
}

/// So many replies, one by one.
pub(super) fn frames(replies: &[u8], count: usize) -> Result<Vec<Vec<u8>>, Trouble> {
    let frames: Vec<Vec<u8>> = Frames(replies).map(<[u8]>::to_vec).collect();
    if frames.len() == count {
        Ok(frames)
    } else {
        Err(Trouble::Soft(Failure::Protocol))
    }
}

pub(super) fn trouble_of_dial(error: &DialError) -> Trouble {
    match error {
        DialError::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Trouble::Hard(HardSign::ConnectionRefused)
        }
        DialError::Name(_) => Trouble::Soft(Failure::NameResolution),
        DialError::Connect(_) | DialError::Tls(_) => Trouble::Hard(HardSign::Unreachable),
        DialError::Silence(_) | DialError::TlsSilence(_) => Trouble::Silence,
        DialError::Handshake(_) | DialError::Closed => Trouble::Soft(Failure::Reset),
        DialError::PasswordOwed(_) => Trouble::Soft(Failure::Denied),
        DialError::Refused(text) => trouble_of(ErrorClass::of(text.as_bytes())),
        DialError::NotAccepted(_) => Trouble::Soft(Failure::Protocol),
    }
}

/// What an error that stops replay says of the upstream.
pub(super) fn trouble_of(class: ErrorClass) -> Trouble {
    match class {
        ErrorClass::NotExecuted(why) => Trouble::Hard(match why {
            Unavailable::Loading => HardSign::Loading,
            Unavailable::Readonly | Unavailable::Unblocked => HardSign::Demoted,
            Unavailable::Masterdown => HardSign::Masterdown,
            Unavailable::Clusterdown => HardSign::Clusterdown,
        }),
        ErrorClass::Transient(Transient::MaxClients) => Trouble::Soft(Failure::MaxClients),
        ErrorClass::Transient(
            Transient::Busy | Transient::Oom | Transient::Misconf | Transient::Noreplicas | Transient::Tryagain,
        ) => Trouble::Soft(Failure::Busy),
        ErrorClass::Identity | ErrorClass::ProtectedMode => Trouble::Soft(Failure::Denied),
        ErrorClass::Permission
        | ErrorClass::Redirected
        | ErrorClass::AlreadyThere
        | ErrorClass::XaddIdTooSmall
        | ErrorClass::Discarded
        | ErrorClass::Protocol
        | ErrorClass::Application => Trouble::Soft(Failure::Protocol),
    }
}
