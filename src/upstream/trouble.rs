//! What signs, failed dials and answers to PING mean for the breaker.

use std::time::Duration;

use super::dial::DialError;
use super::shared::Sign;
use super::speaker::{Speaker, speaker};
use crate::breaker::{
    Breaker, ClientEffect, ErrorClass, Failure, HardSign, Transition, Trouble, Unavailable, UpstreamRole,
    is_said_by_servers,
};
use crate::telemetry::ConnectResult;

/// Tells the breaker what a sign means.
pub(super) fn apply(breaker: &mut Breaker, sign: Sign, now: Duration) -> Option<Transition> {
    match sign {
        Sign::ConnectionRefused => breaker.hard(HardSign::ConnectionRefused, now),
        Sign::ConnectFailed => breaker.hard(HardSign::Unreachable, now),
        Sign::ConnectTimeout => breaker.failure(Failure::ConnectTimeout, now),
        Sign::NameUnknown => breaker.failure(Failure::NameResolution, now),
        Sign::Denied | Sign::SaidByScript => None,
        Sign::Full => breaker.failure(Failure::MaxClients, now),
        Sign::NotAccepted => breaker.failure(Failure::Protocol, now),
        Sign::Reset => breaker.failure(Failure::Reset, now),
        Sign::Loading => breaker.hard(HardSign::Loading, now),
        Sign::Demoted => breaker.hard(HardSign::Demoted, now),
        Sign::MasterDown => breaker.hard(HardSign::Masterdown, now),
        Sign::ClusterDown => breaker.hard(HardSign::Clusterdown, now),
        Sign::Replaced => breaker.hard(HardSign::Replaced, now),
    }
}

/// Whether an error in answer to PING says that commands would not be executed.
pub(super) fn unusable(text: &str) -> Option<Trouble> {
    match ErrorClass::of(text.as_bytes()) {
        ErrorClass::NotExecuted(Unavailable::Loading) => Some(Trouble::Hard(HardSign::Loading)),
        ErrorClass::NotExecuted(Unavailable::Masterdown) => Some(Trouble::Hard(HardSign::Masterdown)),
        ErrorClass::NotExecuted(Unavailable::Clusterdown) => Some(Trouble::Hard(HardSign::Clusterdown)),
        _ => None,
    }
}

/// What a failed dial of the health owner says.
pub(super) fn trouble_of(error: &DialError) -> Trouble {
    match error {
        DialError::Name(_)
        | DialError::Connect(_)
        | DialError::Silence(_)
        | DialError::TlsSilence(_)
        | DialError::Tls(_)
        | DialError::Handshake(_)
        | DialError::Closed => match error.kind() {
            ConnectResult::Refused => Trouble::Hard(HardSign::ConnectionRefused),
            ConnectResult::Unreachable
            | ConnectResult::Certificate
            | ConnectResult::ClientCertificate
            | ConnectResult::Tls => Trouble::Hard(HardSign::Unreachable),
            ConnectResult::Timeout => Trouble::Soft(Failure::ConnectTimeout),
            ConnectResult::Name => Trouble::Soft(Failure::NameResolution),
            ConnectResult::Shortage => Trouble::Soft(Failure::Shortage),
            ConnectResult::Handshake | ConnectResult::Ok => Trouble::Soft(Failure::Reset),
        },
        DialError::NotAccepted(_) if error.is_full() => Trouble::Soft(Failure::MaxClients),
        DialError::NotAccepted(_) => Trouble::Soft(Failure::Protocol),
        DialError::Refused(_) if error.is_denial() => Trouble::Hard(HardSign::Denied),
        DialError::PasswordOwed(_) | DialError::Refused(_) => Trouble::Soft(Failure::Denied),
    }
}

/// An error that says that the upstream, not the command, is at fault.
pub(super) fn sign_of(error: &[u8], request: &[u8], role: UpstreamRole) -> Option<Sign> {
    let text = error.strip_prefix(b"-")?;
    let text = text.strip_suffix(b"\r\n").unwrap_or(text);
    let class = ErrorClass::of(text);
    if class.client_effect(role) != ClientEffect::AnswerAsDown {
        return None;
    }
    match speaker(request) {
        Speaker::Server => {}
        Speaker::Script if is_said_by_servers(text) => return Some(Sign::SaidByScript),
        Speaker::Script | Speaker::Client => return None,
    }
    match class {
        ErrorClass::NotExecuted(Unavailable::Loading) => Some(Sign::Loading),
        ErrorClass::NotExecuted(Unavailable::Readonly | Unavailable::Unblocked) => Some(Sign::Demoted),
        ErrorClass::NotExecuted(Unavailable::Masterdown) => Some(Sign::MasterDown),
        ErrorClass::NotExecuted(Unavailable::Clusterdown) => Some(Sign::ClusterDown),
        _ => None,
    }
}
