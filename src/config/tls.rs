//! `[upstream.tls]` and `[upstream.listen_tls]`: the files are read here, so that what is wrong with them is said at start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use toml::{Table, Value};

use super::raw::{Section, string, text};
use crate::upstream::tls::{CertificateFiles, ClientSettings, ClientTls, FileFault, Read, ServerSettings, ServerTls};

const BOTH_OR_NONE: &str = "missing: cert_file and key_file go together";

fn path(value: &Value) -> Result<PathBuf, String> {
    text(value).map(PathBuf::from)
}

pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned()).map_err(|_| "must be a DNS name or an IP address".to_owned())
}

/// A certificate and its key; nothing when there is none, or it is not right.
fn certificate(section: &mut Section<'_>) -> Option<CertificateFiles> {
    for (key, other) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
        if section.has(other) && !section.has(key) {
            section.fault(key, None, BOTH_OR_NONE);
        }
    }
    let cert_file = section.optional("cert_file", path);
    let key_file = section.optional("key_file", path);
    Some(CertificateFiles {
        cert_file: cert_file?,
        key_file: key_file?,
    })
}

fn note(section: &Section<'_>, faults: Vec<FileFault>) {
    for FileFault { key, path, rule } in faults {
        section.fault(key, path.map(|path| format!("{:?}", path.display().to_string())), rule);
    }
}

/// `[upstream.tls]` as typed.
pub(super) fn client_settings(section: &mut Section<'_>) -> ClientSettings {
    ClientSettings {
        ca_file: section.optional("ca_file", path),
        certificate: certificate(section),
        server_name: section.optional("server_name", |value| server_name(string(value)?)),
    }
}

/// With the files read; nothing when something is wrong with them, which is then noted.
pub(super) fn client(
    section: &Section<'_>,
    settings: ClientSettings,
    host: ServerName<'static>,
    read: Read<'_>,
) -> Option<Arc<ClientTls>> {
    ClientTls::load(settings, host, read)
        .map(Arc::new)
        .map_err(|faults| note(section, faults))
        .ok()
}

/// `[upstream.listen_tls]`; nothing when something is wrong with it, which is then noted.
pub(super) fn server(mut section: Section<'_>, read: Read<'_>) -> Option<Arc<ServerTls>> {
    if !section.has("cert_file") && !section.has("key_file") {
        section.fault("cert_file", None, "missing: a listener needs cert_file and key_file");
    }
    let certificate = certificate(&mut section);
    let client_ca_file = section.optional("client_ca_file", path);
    let settings = certificate.map(|certificate| ServerSettings {
        certificate,
        client_ca_file,
    });
    let loaded = settings.and_then(|settings| {
        ServerTls::load(settings, read)
            .map(Arc::new)
            .map_err(|faults| note(&section, faults))
            .ok()
    });
    section.finish();
    loaded
}

fn put(table: &mut Table, key: &str, path: &Path) {
    table.insert(key.to_owned(), Value::String(path.display().to_string()));
}

fn put_certificate(table: &mut Table, files: &CertificateFiles) {
    let CertificateFiles { cert_file, key_file } = files;
    put(table, "cert_file", cert_file);
    put(table, "key_file", key_file);
}

/// For the effective configuration; empty where nothing is said.
pub(super) fn client_table(tls: &ClientTls) -> Table {
    let ClientSettings {
        ca_file,
        certificate,
        server_name,
    } = tls.settings();
    let mut table = Table::new();
    if let Some(ca_file) = ca_file {
        put(&mut table, "ca_file", ca_file);
    }
    if let Some(certificate) = certificate {
        put_certificate(&mut table, certificate);
    }
    if let Some(name) = server_name {
        table.insert("server_name".to_owned(), Value::String(name.to_str().into_owned()));
    }
    table
}

pub(super) fn server_table(tls: &ServerTls) -> Table {
    let ServerSettings {
        certificate,
        client_ca_file,
    } = tls.settings();
    let mut table = Table::new();
    put_certificate(&mut table, certificate);
    if let Some(file) = client_ca_file {
        put(&mut table, "client_ca_file", file);
    }
    table
}
