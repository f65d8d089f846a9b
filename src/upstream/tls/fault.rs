//! What is wrong with a TLS peer, in words that say what to do.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

/// Names of a certificate that are said.
const NAMES_MAX: usize = 5;

/// Why a TLS connection to the upstream was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// The server's certificate is not accepted.
    #[error("the server's certificate {0}")]
    Certificate(String),
    /// The server wants a certificate of us, or not the one that we have.
    #[error("{0}")]
    ClientCertificate(String),
    #[error("the server does not speak TLS")]
    NotTls,
    #[error("the server speaks TLS: the URL must begin with rediss://")]
    Wanted,
    #[error("{0}")]
    Other(String),
}

impl TlsFault {
    /// Nothing when the error is not one of TLS.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        Some(match error {
            Error::InvalidCertificate(error) => Self::Certificate(certificate(error)),
            Error::AlertReceived(alert) => refused(*alert),
            Error::InvalidMessage(_) => Self::NotTls,
            other => Self::Other(other.to_string()),
        })
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        // An authority of the same name with another key is a stranger as well.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is signed by nobody that is trusted (unknown issuer)".to_owned()
        }
        CertificateError::ExpiredContext { not_after, .. } => format!("expired on {}", date(*not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => format!("is not valid before {}", date(*not_before)),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().take(NAMES_MAX).map(|name| bare(name)).collect();
            let names = match names.as_slice() {
                [] => "no name".to_owned(),
                names => names.join(", "),
            };
            format!("is not for {}, but for {names}", expected.to_str())
        }
        other => format!("is not accepted: {other}"),
    }
}

/// `DnsName("redis.internal")` without what is around it.
fn bare(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"')
}

fn date(time: UnixTime) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs())).to_string()
}

fn refused(alert: AlertDescription) -> TlsFault {
    match alert {
        AlertDescription::CertificateRequired => {
            TlsFault::ClientCertificate("the server wants a client certificate".to_owned())
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => {
            TlsFault::ClientCertificate(format!("the server refuses the client certificate ({alert:?})"))
        }
        // TLS 1.2 says no more than that.
        AlertDescription::HandshakeFailure => TlsFault::ClientCertificate(
            "the server refuses the handshake: it wants a client certificate, or no algorithm of ours".to_owned(),
        ),
        other => TlsFault::Other(format!("the server ends the connection ({other:?})")),
    }
}
