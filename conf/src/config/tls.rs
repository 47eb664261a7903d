//! How TLS is spoken with clients.

use std::path::PathBuf;

use super::Acme;

/// `[tls]`
#[derive(Debug, Clone)]
pub struct Tls {
    /// Certificates; the first is the default for names that none carries.
    pub certificates: Vec<Certificate>,
    /// Certificates that are obtained by themselves; one of the two lists is not empty.
    pub acme: Vec<Acme>,
    /// Files with the secrets that session tickets are sealed with; the first seals. Empty: a secret
    /// of the process.
    pub ticket_keys: Vec<PathBuf>,
    /// Handshakes carry OCSP responses for certificates that name a responder.
    pub ocsp_stapling: bool,
}

/// What a listener that speaks TLS offers: the keys of `[tls]`, or its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// Least version accepted.
    pub min_version: TlsVersion,
    /// Greatest version offered.
    pub max_version: TlsVersion,
    /// Cipher suites, the preferred first; `None`: all there are.
    pub ciphers: Option<Vec<CipherSuite>>,
    /// Groups for the key exchange, the preferred first; `None`: all there are.
    pub groups: Option<Vec<KeyExchangeGroup>>,
    /// Whether clients are asked for certificates of their own.
    pub client_auth: Option<ClientAuth>,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            min_version: TlsVersion::V12,
            max_version: TlsVersion::V13,
            ciphers: None,
            groups: None,
            client_auth: None,
        }
    }
}

/// TLS protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V12,
    /// TLS 1.3 (RFC 8446).
    V13,
}

/// A cipher suite, by its name in IANA's registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are named as in the registry")]
pub enum CipherSuite {
    Aes256GcmSha384,
    Aes128GcmSha256,
    Chacha20Poly1305Sha256,
    EcdheEcdsaAes256GcmSha384,
    EcdheEcdsaAes128GcmSha256,
    EcdheEcdsaChacha20Poly1305Sha256,
    EcdheRsaAes256GcmSha384,
    EcdheRsaAes128GcmSha256,
    EcdheRsaChacha20Poly1305Sha256,
}

impl CipherSuite {
    /// The version it belongs to.
    #[must_use]
    pub fn version(self) -> TlsVersion {
        match self {
            Self::Aes256GcmSha384 | Self::Aes128GcmSha256 | Self::Chacha20Poly1305Sha256 => {
                TlsVersion::V13
            }
            _ => TlsVersion::V12,
        }
    }
}

/// A group for the key exchange, by its name in IANA's registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyExchangeGroup {
    /// X25519 together with ML-KEM-768.
    X25519MlKem768,
    /// secp256r1 together with ML-KEM-768.
    Secp256r1MlKem768,
    /// X25519 (RFC 7748).
    X25519,
    /// NIST P-256.
    Secp256r1,
    /// NIST P-384.
    Secp384r1,
}

impl KeyExchangeGroup {
    /// Whether it can be used in TLS 1.2, too.
    #[must_use]
    pub fn is_classical(self) -> bool {
        matches!(self, Self::X25519 | Self::Secp256r1 | Self::Secp384r1)
    }
}

/// `client_auth`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// Files of certificates that a client's must lead to.
    pub ca: Vec<PathBuf>,
    /// Files of revocation lists.
    pub crl: Vec<PathBuf>,
    /// A client without a certificate is refused.
    pub required: bool,
}

/// A PEM chain and its key. Existence is checked at load, content by who reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}
