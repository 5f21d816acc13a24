//! TLS towards endpoints: one client configuration per service, built when the config is applied.

use crate::model::topology::{Protocol, ServiceTls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// How a service's endpoints are spoken to.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// Where both protocols are offered: the offer for a request that needs HTTP/1.1.
    http1: Option<Arc<ClientConfig>>,
    sni: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Reads the files a service names. The error says which file, and what is wrong with it.
    pub fn build(tls: &ServiceTls, protocol: Protocol) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(|e| format!("tls: {e}"))?;
        let builder = if tls.verify {
            builder.with_root_certificates(roots(tls.ca.as_deref())?)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        };
        let mut config = match &tls.client {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|e| format!("{}: no private key: {e}", pair.key.display()))?;
                builder
                    .with_client_auth_cert(certificates(&pair.cert)?, key)
                    .map_err(|e| format!("{}: certificate and key do not fit: {e}", pair.cert.display()))?
            }
        };
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::H2 => vec![b"h2".to_vec()],
            Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        let sni = match tls.sni.clone().map(ServerName::try_from) {
            None => None,
            Some(Ok(name)) => Some(name),
            Some(Err(_)) => return Err(format!("tls.sni: {:?} is neither a host name nor an address", tls.sni.as_deref().unwrap_or(""))),
        };
        let http1 = (protocol == Protocol::Auto).then(|| {
            let mut config = config.clone();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Arc::new(config)
        });
        Ok(Self { config: Arc::new(config), http1, sni })
    }

    /// The name to ask for: the configured one, else the request's host, else the endpoint's address.
    pub fn name(&self, host: &str, address: std::net::IpAddr) -> ServerName<'static> {
        let asked = || ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok();
        self.sni.clone().or_else(asked).unwrap_or_else(|| ServerName::from(address))
    }

    pub(super) fn connector(&self, protocol: Protocol) -> TlsConnector {
        let config = self.http1.as_ref().filter(|_| protocol == Protocol::Http1).unwrap_or(&self.config);
        TlsConnector::from(config.clone())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |e| format!("{}: {e}", path.display());
    let certs: Vec<_> = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)?;
    if certs.is_empty() { Err(format!("{}: no certificate in it", path.display())) } else { Ok(certs) }
}

/// Own trust anchors must all be sound; of the system's, those that are.
fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match ca {
        Some(path) => {
            for cert in certificates(path)? {
                store.add(cert).map_err(|e| format!("{}: {e}", path.display()))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs().map_err(|e| format!("the system's trust anchors: {e}; set tls.ca"))?;
            let (good, _) = store.add_parsable_certificates(found);
            if good == 0 {
                return Err("the system has no trust anchors; set tls.ca".into());
            }
        }
    }
    Ok(store)
}

/// `verify: false`: any certificate will do, but the peer must hold its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
