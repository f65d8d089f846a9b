//! TLS towards the upstream.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::files::{CertificateFiles, FileFault, Read, Reloaded, anchors, system_anchors};
use super::provider;
use super::stream::{TlsReader, TlsWriter, split};

/// `[upstream.tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientSettings {
    /// `ca_file`: the trust anchors; without it those of the system.
    pub ca_file: Option<PathBuf>,
    /// `cert_file` and `key_file`
    pub certificate: Option<CertificateFiles>,
    /// `server_name`: what is asked for and checked; without it the host of the URL.
    pub server_name: Option<ServerName<'static>>,
}

/// Settings that have been made good. Equal when their settings are.
pub struct ClientTls {
    settings: ClientSettings,
    name: ServerName<'static>,
    config: Reloaded<ClientConfig>,
}

impl ClientTls {
    /// `host` is the name of the server where the settings have none.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn load(settings: ClientSettings, host: ServerName<'static>, read: Read<'_>) -> Result<Self, Vec<FileFault>> {
        let paths = settings.ca_file.iter().cloned();
        let paths = paths.chain(settings.certificate.iter().flat_map(CertificateFiles::paths));
        let config = Reloaded::new(paths.collect(), || build(&settings, read))?;
        let name = settings.server_name.clone().unwrap_or(host);
        Ok(Self { settings, name, config })
    }

    #[must_use]
    pub fn settings(&self) -> &ClientSettings {
        &self.settings
    }

    pub(in crate::upstream) async fn connect(&self, stream: TcpStream) -> io::Result<(TlsReader, TlsWriter)> {
        let config = self.config.get(|read| build(&self.settings, read));
        let connected = TlsConnector::from(config).connect(self.name.clone(), stream).await?;
        let (stream, connection) = connected.into_inner();
        Ok(split(stream, connection.into()))
    }
}

fn build(settings: &ClientSettings, read: Read<'_>) -> Result<ClientConfig, Vec<FileFault>> {
    let roots = match &settings.ca_file {
        Some(path) => anchors("ca_file", path, read),
        None => system_anchors("ca_file"),
    };
    let certificate = settings.certificate.as_ref().map(|files| files.load(read)).transpose();
    let (roots, certificate) = match (roots, certificate) {
        (Ok(roots), Ok(certificate)) => (roots, certificate),
        (roots, certificate) => {
            let faults = roots.err().into_iter();
            return Err(faults.chain(certificate.err().into_iter().flatten()).collect());
        }
    };
    let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = versions
        .map_err(|error| vec![unusable(&error)])?
        .with_root_certificates(roots);
    Ok(match certificate {
        Some(certificate) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate))),
        None => builder.with_no_client_auth(),
    })
}

/// rustls's own defaults do not go together: never seen, and no reason to panic.
pub(super) fn unusable(error: &dyn fmt::Display) -> FileFault {
    FileFault {
        key: "cert_file",
        path: None,
        rule: error.to_string(),
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        (&self.settings, &self.name) == (&other.settings, &other.name)
    }
}

impl Eq for ClientTls {}

impl Hash for ClientTls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.settings, &self.name).hash(state);
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}
