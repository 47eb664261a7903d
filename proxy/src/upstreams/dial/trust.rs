//! TLS towards an upstream: whom it trusts, and who it is itself.
//!
//! Everything is read and checked when the configuration is loaded, once: the
//! library's settings are kept with the dialer, and so are the sessions to
//! resume.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hash;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use crate::listen;
use crate::upstreams::UpstreamError;

/// Sessions kept to be resumed: the endpoints of an upstream share one name, and a worker may
/// open many connections at once.
const SESSIONS: usize = 256;

/// What a handshake needs.
pub(super) struct Trust {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
}

impl Trust {
    /// Reads what `tls` names. What the files say is mixed into `wire`.
    pub(super) fn new(
        upstream: &str,
        tls: &conf::UpstreamTls,
        wire: &mut DefaultHasher,
    ) -> Result<Self, UpstreamError> {
        let name = ServerName::try_from(tls.server_name.clone()).map_err(|_| {
            UpstreamError::ServerName {
                upstream: upstream.to_owned(),
                name: tls.server_name.clone(),
            }
        })?;
        let provider = listen::provider();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| UpstreamError::Tls {
                upstream: upstream.to_owned(),
                reason: error.to_string(),
            })?;
        let builder = match anchors(upstream, tls)? {
            Some(anchors) => {
                for anchor in &anchors.roots {
                    anchor.subject_public_key_info.as_ref().hash(wire);
                }
                builder.with_root_certificates(anchors)
            }
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone(provider))),
        };
        let mut config = match &tls.certificate {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = listen::load_pair(&pair.cert, &pair.key).map_err(|error| {
                    UpstreamError::Certificate {
                        upstream: upstream.to_owned(),
                        source: error,
                    }
                })?;
                for certificate in &key.cert {
                    certificate.as_ref().hash(wire);
                }
                builder.with_client_cert_resolver(ours(key))
            }
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name,
        })
    }
}

fn ours(key: CertifiedKey) -> Arc<dyn ResolvesClientCert> {
    Arc::new(SingleCertAndKey::from(key))
}

/// `None`: the certificate is not verified.
fn anchors(
    upstream: &str,
    tls: &conf::UpstreamTls,
) -> Result<Option<RootCertStore>, UpstreamError> {
    // A file that is named is read even if nothing is verified, so that it is right when it counts.
    let named = tls.ca.as_deref().map(|path| {
        from_file(path).map_err(|reason| UpstreamError::Ca {
            upstream: upstream.to_owned(),
            path: path.to_owned(),
            reason,
        })
    });
    match (named.transpose()?, tls.verify) {
        (_, false) => Ok(None),
        (Some(anchors), true) => Ok(Some(anchors)),
        (None, true) => from_system()
            .map(Some)
            .map_err(|reason| UpstreamError::Anchors {
                upstream: upstream.to_owned(),
                reason,
            }),
    }
}

fn from_file(path: &Path) -> Result<RootCertStore, String> {
    let pem = fs::read(path).map_err(|error| error.to_string())?;
    let mut anchors = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        anchors
            .add(certificate)
            .map_err(|error| error.to_string())?;
    }
    match anchors.is_empty() {
        true => Err("the file has no CERTIFICATE section".into()),
        false => Ok(anchors),
    }
}

fn from_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs().map_err(|error| error.to_string())?;
    let mut anchors = RootCertStore::empty();
    // Systems carry some that no library reads any more.
    anchors.add_parsable_certificates(found);
    match anchors.is_empty() {
        true => Err("the system has none".into()),
        false => Ok(anchors),
    }
}

/// `verify = false`: whoever answers is believed. The handshake's signatures are still checked,
/// so that a fault of the other side shows.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
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
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
