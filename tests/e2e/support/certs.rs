//! Certificates made for a test: one authority a process, leaves for any names.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};

static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "Test authority");
        let certificate = params.self_signed(&key).expect("an authority");
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }
}

/// Writes `STEM.pem` and `STEM.key` for these names into the folder; both paths.
pub(crate) fn write(folder: &Path, stem: &str, names: &[&str]) -> (PathBuf, PathBuf) {
    write_until(folder, stem, names, 4096)
}

/// The same with a certificate that nobody takes any more.
pub(crate) fn write_expired(folder: &Path, stem: &str, names: &[&str]) -> (PathBuf, PathBuf) {
    write_until(folder, stem, names, 2001)
}

fn write_until(folder: &Path, stem: &str, names: &[&str], year: i32) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names.clone()).expect("valid names");
    params.distinguished_name.push(
        DnType::CommonName,
        names.first().cloned().unwrap_or_default(),
    );
    params.not_after = date_time_ymd(year, 1, 1);
    let leaf = params
        .signed_by(&key, &AUTHORITY.issuer)
        .expect("a certificate");
    let paths = (
        folder.join(format!("{stem}.pem")),
        folder.join(format!("{stem}.key")),
    );
    std::fs::write(&paths.0, leaf.pem()).expect("write the certificate");
    std::fs::write(&paths.1, key.serialize_pem()).expect("write the key");
    paths
}

/// Writes the authority's certificate into the folder as `ca.pem`.
pub(crate) fn write_authority(folder: &Path) -> PathBuf {
    let path = folder.join("ca.pem");
    std::fs::write(&path, &AUTHORITY.pem).expect("write the authority");
    path
}

/// A client that trusts the authority and offers these protocols.
pub(crate) fn client(
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(AUTHORITY.der.clone())
        .expect("a usable authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("known versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A client that takes any certificate: for servers that made their own.
pub(crate) fn client_of_anyone(protocols: &[&str]) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("known versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider, Arc::default())))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// The same, and what was stapled to the last certificate is kept.
pub(crate) fn client_of_staples(protocols: &[&str]) -> (ClientConfig, Arc<Mutex<Vec<u8>>>) {
    let mut config = ClientConfig::clone(&client_of_anyone(protocols));
    let stapled = Arc::new(Mutex::default());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Anyone(provider, Arc::clone(&stapled));
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(verifier));
    (config, stapled)
}

/// Believes every certificate, but checks that the peer holds its key. Keeps what was stapled.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>, Arc<Mutex<Vec<u8>>>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        stapled: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.1.lock().expect("nobody panicked") = stapled.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

pub(crate) fn name(host: &str) -> ServerName<'static> {
    ServerName::try_from(host.to_owned()).expect("a host name")
}
