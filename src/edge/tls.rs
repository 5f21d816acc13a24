//! TLS towards clients: certificates by SNI, ALPN, resumption, client certificates.
//!
//! A listener holds one [`Terminator`]; it is replaced as a whole when certificates change, so that a handshake sees either
//! all old or all new files. Connections that are up keep what they have.

use crate::model::topology::ListenerTls;
use pingora_core::listeners::tls::Acceptor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Sessions kept for stateful resumption (TLS 1.2 ids; TLS 1.3 uses tickets). About 200 bytes each.
const SESSIONS: usize = 20_480;

/// A ready TLS configuration of one listener.
pub struct Terminator {
    pub(crate) acceptor: Acceptor,
    /// What the files looked like when they were read: tells a change from a touch.
    pub(crate) fingerprint: u64,
    /// First name and expiry of each certificate, seconds since 1970 (`evenkeel_certificate_expiry_seconds`).
    pub expiries: Vec<(String, i64)>,
}

impl std::fmt::Debug for Terminator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminator").field("expiries", &self.expiries).finish_non_exhaustive()
    }
}

/// Picks the certificate: exact name, then the wildcard one level up, then the first one of the file.
#[derive(Debug)]
struct BySni {
    names: HashMap<String, Arc<CertifiedKey>>,
    first: Arc<CertifiedKey>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = hello.server_name() else { return Some(self.first.clone()) };
        let name = name.to_ascii_lowercase();
        let wildcard = || name.split_once('.').and_then(|(_, parent)| self.names.get(&format!("*.{parent}")));
        Some(self.names.get(&name).or_else(wildcard).unwrap_or(&self.first).clone())
    }
}

/// Read a listener's certificates. The error names the file and what is wrong with it.
pub(crate) fn load(tls: &ListenerTls) -> Result<Terminator, String> {
    // Installed once per process; "already there" is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let provider = rustls::crypto::CryptoProvider::get_default().ok_or("no crypto provider")?;
    let (mut names, mut first, mut expiries) = (HashMap::new(), None, Vec::new());
    for pair in &tls.certificates {
        let chain = certificates(&pair.cert)?;
        let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|e| {
            format!("{}: no private key in PEM form: {e}; give an unencrypted PKCS#8, PKCS#1 or SEC1 key", pair.key.display())
        })?;
        let certified = Arc::new(
            CertifiedKey::from_der(chain.clone(), key, provider)
                .map_err(|e| format!("{} and {} do not belong together: {e}", pair.cert.display(), pair.key.display()))?,
        );
        let (leaf_names, not_after) = describe(&chain[0]).map_err(|e| format!("{}: {e}", pair.cert.display()))?;
        expiries.push((leaf_names.first().cloned().unwrap_or_else(|| pair.cert.display().to_string()), not_after));
        first.get_or_insert_with(|| certified.clone());
        for name in leaf_names {
            names.entry(name).or_insert_with(|| certified.clone());
        }
    }
    let resolver = Arc::new(BySni { names, first: first.ok_or("tls.certificates is empty")? });
    let builder = ServerConfig::builder();
    let mut config = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(client_verifier(path)?),
    }
    .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSIONS);
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|e| format!("no session ticketer: {e}"))?;
    Ok(Terminator { acceptor: Acceptor::from_server_config(Arc::new(config)), fingerprint: fingerprint(tls), expiries })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let chain = read.collect::<Result<Vec<_>, _>>().map_err(|e| format!("{}: not a PEM certificate: {e}", path.display()))?;
    if chain.is_empty() { Err(format!("{}: holds no certificate (expected BEGIN CERTIFICATE)", path.display())) } else { Ok(chain) }
}

/// The names a certificate is for (lower case), and when it ends, seconds since 1970.
fn describe(cert: &CertificateDer<'_>) -> Result<(Vec<String>, i64), String> {
    let (_, cert) = x509_parser::parse_x509_certificate(cert).map_err(|e| format!("not an X.509 certificate: {e}"))?;
    let mut names = Vec::new();
    if let Ok(Some(alternatives)) = cert.subject_alternative_name() {
        names.extend(alternatives.value.general_names.iter().filter_map(|n| match n {
            x509_parser::extensions::GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        }));
    }
    if names.is_empty() {
        names.extend(cert.subject().iter_common_name().filter_map(|n| n.as_str().ok()).map(str::to_ascii_lowercase));
    }
    Ok((names, cert.validity().not_after.timestamp()))
}

fn client_verifier(path: &Path) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for cert in certificates(path)? {
        roots.add(cert).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|e| format!("{}: {e}", path.display()))
}

/// FNV-1a over the names, sizes and contents of all files; unreadable ones count as empty.
pub(crate) fn fingerprint(tls: &ListenerTls) -> u64 {
    let files = tls.certificates.iter().flat_map(|p| [&p.cert, &p.key]).chain(&tls.client_ca);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        for b in std::fs::read(file).unwrap_or_default().iter().chain(b"|") {
            hash = (hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
        }
    }
    hash
}
