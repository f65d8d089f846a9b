//! What the upstream room is configured with, validated.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use super::tls::ClientTls;

/// A password. Any bytes, as Redis takes them; `Debug` hides them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Box<[u8]>);

impl Secret {
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into().into_boxed_slice())
    }

    /// The password in a file, without the line end that editors leave.
    ///
    /// # Errors
    /// Those of reading; `InvalidData` for a file that holds none.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::of_file(&std::fs::read_to_string(path)?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "holds no password"))
    }

    /// The password in the text of a file.
    #[must_use]
    pub fn of_file(text: &str) -> Option<Self> {
        let password = text.trim_end_matches(['\r', '\n']);
        (!password.is_empty()).then(|| Self::new(password))
    }

    /// The password itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What `AUTH` is called with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Nothing for the one-argument form (user `default`).
    pub user: Option<String>,
    pub password: Secret,
}

/// Where a Redis listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Resolved again at every dial.
    Tcp {
        host: String,
        port: u16,
    },
    /// As `Tcp`.
    Tls {
        host: String,
        port: u16,
        tls: Arc<ClientTls>,
    },
    Unix(PathBuf),
}

/// `redis://[user:password@]host[:port][/db]`, `rediss://` likewise, or `unix:///path[?db=N]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamUrl {
    pub address: Address,
    pub db: u32,
    pub credentials: Option<Credentials>,
    /// Where the password of `credentials` stands, if not in the URL.
    pub password_file: Option<PathBuf>,
}

/// `[upstream.timeouts]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For dialling and the handshake.
    pub connect: Duration,
    /// Silence this long means trouble.
    pub command: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            command: Duration::from_secs(2),
        }
    }
}

/// Who a connection acts as. The URL's credentials (or none) serve every session that never AUTHs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    Url,
    Client(Arc<Credentials>),
}

impl Identity {
    /// The name under which a journaled write is kept; empty for the URL's.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Url => "",
            Self::Client(credentials) => credentials.user.as_deref().unwrap_or("default"),
        }
    }
}
