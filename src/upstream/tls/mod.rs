//! TLS in both directions. What the configuration names becomes rustls's configurations at once; files that are replaced later are read again.

mod client;
mod fault;
mod files;
mod server;
mod stream;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::{ClientSettings, ClientTls};
pub use fault::TlsFault;
pub use files::{CertificateFiles, FileFault, Read};
pub use server::{ServerSettings, ServerTls};
pub(super) use stream::{TlsReader, TlsWriter};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
