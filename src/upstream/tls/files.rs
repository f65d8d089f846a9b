//! PEM files: what is in them, what is wrong with them, and whether they were replaced since.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, RootCertStore};

use super::provider;
use crate::telemetry;

/// Files are looked at again after this, at the next handshake.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Gives the text of a file.
pub type Read<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// What is wrong with a file that the configuration names under `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    pub key: &'static str,
    /// Nothing where the file was not named.
    pub path: Option<PathBuf>,
    pub rule: String,
}

impl FileFault {
    fn new(key: &'static str, path: &Path, rule: impl Into<String>) -> Self {
        Self {
            key,
            path: Some(path.to_owned()),
            rule: rule.into(),
        }
    }
}

/// A certificate chain, its own certificate first, and the private key to it; PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

impl CertificateFiles {
    pub(super) fn paths(&self) -> [PathBuf; 2] {
        [self.cert_file.clone(), self.key_file.clone()]
    }

    pub(super) fn load(&self, read: Read<'_>) -> Result<Arc<CertifiedKey>, Vec<FileFault>> {
        let chain = certificates("cert_file", &self.cert_file, read);
        let key = text("key_file", &self.key_file, read).and_then(|text| self.key(&text));
        let (chain, key) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        CertifiedKey::from_der(chain, key, &provider())
            .map(Arc::new)
            .map_err(|error| vec![self.mismatch(&error)])
    }

    fn key(&self, text: &str) -> Result<PrivateKeyDer<'static>, FileFault> {
        PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
            let rule = if text.contains("ENCRYPTED") {
                "is encrypted: the key must stand there without a passphrase"
            } else {
                "holds no private key (PEM)"
            };
            FileFault::new("key_file", &self.key_file, rule)
        })
    }

    fn mismatch(&self, error: &Error) -> FileFault {
        match error {
            Error::InconsistentKeys(_) => {
                let rule = format!("is not the key to the certificate in {:?}", self.cert_file);
                FileFault::new("key_file", &self.key_file, rule)
            }
            Error::InvalidCertificate(error) => {
                let rule = format!("holds a certificate that cannot be read: {error}");
                FileFault::new("cert_file", &self.cert_file, rule)
            }
            other => FileFault::new("key_file", &self.key_file, format!("cannot be used: {other}")),
        }
    }
}

fn text(key: &'static str, path: &Path, read: Read<'_>) -> Result<String, FileFault> {
    read(path).map_err(|error| FileFault::new(key, path, format!("cannot be read: {error}")))
}

fn certificates(key: &'static str, path: &Path, read: Read<'_>) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    let text = text(key, path, read)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match parsed {
        Ok(certificates) if certificates.is_empty() => Err(FileFault::new(key, path, "holds no certificate (PEM)")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(FileFault::new(key, path, format!("is not PEM: {error}"))),
    }
}

/// The trust anchors in a file.
pub(super) fn anchors(key: &'static str, path: &Path, read: Read<'_>) -> Result<RootCertStore, FileFault> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(key, path, read)?);
    if added == 0 {
        return Err(FileFault::new(key, path, "holds no certificate that can be trusted in"));
    }
    Ok(roots)
}

/// The system's trust anchors.
pub(super) fn system_anchors(key: &'static str) -> Result<RootCertStore, FileFault> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(FileFault {
            key,
            path: None,
            rule: "missing, and the system has no trust store".to_owned(),
        });
    }
    Ok(roots)
}

/// What tells a file from the one that was there before.
type Stamp = (SystemTime, u64, u64);

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.ino(), metadata.len()))
    };
    paths.iter().map(stamp).collect()
}

/// A configuration made of files; made anew when they have changed. One that cannot be made leaves the one before in its place.
pub(super) struct Reloaded<C> {
    paths: Vec<PathBuf>,
    current: Mutex<Current<C>>,
}

struct Current<C> {
    config: Arc<C>,
    /// Taken before the files were read.
    stamps: Vec<Option<Stamp>>,
    looked_at: Instant,
}

impl<C> Reloaded<C> {
    pub(super) fn new(
        paths: Vec<PathBuf>,
        build: impl FnOnce() -> Result<C, Vec<FileFault>>,
    ) -> Result<Self, Vec<FileFault>> {
        let current = Current {
            stamps: stamps(&paths),
            config: Arc::new(build()?),
            looked_at: Instant::now(),
        };
        Ok(Self {
            paths,
            current: Mutex::new(current),
        })
    }

    /// A few small local files are read at most once a second: less than the handshake that follows costs.
    pub(super) fn get(&self, build: impl FnOnce(Read<'_>) -> Result<C, Vec<FileFault>>) -> Arc<C> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked_at.elapsed() >= LOOK_INTERVAL {
            current.looked_at = Instant::now();
            let stamps = stamps(&self.paths);
            if stamps != current.stamps {
                current.stamps = stamps;
                match build(&|path| std::fs::read_to_string(path)) {
                    Ok(config) => {
                        current.config = Arc::new(config);
                        telemetry::certificates_reloaded(&self.paths);
                    }
                    Err(faults) => {
                        for FileFault { path, rule, .. } in faults {
                            telemetry::certificates_kept(path.as_deref(), &rule);
                        }
                    }
                }
            }
        }
        Arc::clone(&current.config)
    }
}
