//! Certificates made for one test, as files.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::Port;

/// Whether a certificate may be used today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Valid,
    /// On 2 January 2020.
    Expired,
}

/// One that signs certificates.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let name = format!("authority {}", dir.path().display());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    /// Its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// For these names, in files called `file`; what is there is replaced.
    pub fn issue(&self, file: &str, names: &[&str], validity: Validity) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        if validity == Validity::Expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 2);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let issued = Issued {
            cert: self.dir.path().join(format!("{file}.pem")),
            key: self.dir.path().join(format!("{file}.key")),
        };
        std::fs::write(&issued.cert, certificate.pem()).unwrap();
        std::fs::write(&issued.key, key.serialize_pem()).unwrap();
        issued
    }

    /// For `localhost` and its address.
    pub fn local(&self, file: &str) -> Issued {
        self.issue(file, &["localhost", "127.0.0.1"], Validity::Valid)
    }
}

impl Issued {
    /// `cert_file` and `key_file`, for a table of the configuration.
    pub fn toml(&self) -> String {
        format!("cert_file = {:?}\nkey_file = {:?}\n", self.cert, self.key)
    }

    pub fn copy_over(&self, other: &Self) {
        std::fs::copy(&self.cert, &other.cert).unwrap();
        std::fs::copy(&self.key, &other.key).unwrap();
    }
}

/// redis-server's options for a port with TLS beside the other one.
pub fn redis_options(port: &Port, server: &Issued, clients_ca: &Path, auth_clients: &str) -> Vec<String> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let options = [
        ("--tls-port", port.number().to_string()),
        ("--tls-cert-file", text(&server.cert)),
        ("--tls-key-file", text(&server.key)),
        ("--tls-ca-cert-file", text(clients_ca)),
        ("--tls-auth-clients", auth_clients.to_owned()),
    ];
    options
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
}
