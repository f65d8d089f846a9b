//! TLS towards the clients.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::client::unusable;
use super::files::{CertificateFiles, FileFault, Read, Reloaded, anchors};
use super::provider;
use super::stream::{TlsReader, TlsWriter, split};

/// `[upstream.listen_tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// `cert_file` and `key_file`
    pub certificate: CertificateFiles,
    /// `client_ca_file`: clients must show a certificate that one of these has signed.
    pub client_ca_file: Option<PathBuf>,
}

/// Settings that have been made good. Equal when their settings are.
pub struct ServerTls {
    settings: ServerSettings,
    config: Reloaded<ServerConfig>,
}

impl ServerTls {
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn load(settings: ServerSettings, read: Read<'_>) -> Result<Self, Vec<FileFault>> {
        let paths = settings.certificate.paths().into_iter();
        let paths = paths.chain(settings.client_ca_file.clone());
        let config = Reloaded::new(paths.collect(), || build(&settings, read))?;
        Ok(Self { settings, config })
    }

    #[must_use]
    pub fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    pub(in crate::upstream) async fn accept(&self, stream: TcpStream) -> io::Result<(TlsReader, TlsWriter)> {
        let config = self.config.get(|read| build(&self.settings, read));
        let accepted = TlsAcceptor::from(config).accept(stream).await?;
        let (stream, connection) = accepted.into_inner();
        Ok(split(stream, connection.into()))
    }
}

fn build(settings: &ServerSettings, read: Read<'_>) -> Result<ServerConfig, Vec<FileFault>> {
    let certificate = settings.certificate.load(read);
    let roots = settings.client_ca_file.as_ref();
    let roots = roots.map(|path| anchors("client_ca_file", path, read)).transpose();
    let (certificate, roots) = match (certificate, roots) {
        (Ok(certificate), Ok(roots)) => (certificate, roots),
        (certificate, roots) => {
            let faults = certificate.err().into_iter().flatten();
            return Err(faults.chain(roots.err()).collect());
        }
    };
    let verifier = match roots {
        Some(roots) => WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| vec![unusable(&error)])?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let versions = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| vec![unusable(&error)])?;
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    config.ignore_client_order = true;
    Ok(config)
}

impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Eq for ServerTls {}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}
