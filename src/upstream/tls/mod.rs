//! TLS in both directions. What the configuration names becomes rustls's configurations at once; files that are replaced later are read again.

mod client;
mod fault;
mod files;
mod server;
mod stream;

use std::sync::Arc;

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

pub use client::{ClientSettings, ClientTls};
pub use fault::TlsFault;
pub use files::{CertificateFiles, FileFault, Read};
pub use server::{ServerSettings, ServerTls};
pub(super) use stream::{TlsReader, TlsWriter};

/// In TLS 1.2 AES comes last: keys cannot be changed there, and with AES a connection ends after 2²⁴ records, which a lane reaches.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        _ if suite.tls13().is_some() => 0,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => 1,
        _ => 2,
    });
    Arc::new(provider)
}
