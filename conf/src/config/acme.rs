//! Certificates that are obtained from a certificate authority by themselves (ACME, RFC 8555).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// `[tls] acme = { ... }`: one certificate, and how it is obtained and renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Names in the certificate, lower-case; wildcards as `*.shop.example`. At least one, each once.
    pub hosts: Vec<String>,
    /// Where the authority may write to; without `mailto:`.
    pub email: Option<String>,
    /// How the names are shown to be ours.
    pub challenge: AcmeChallenge,
    /// Folder for the account and the certificate; need not be there.
    pub storage: PathBuf,
    /// The authority asked first, then the one asked where that fails; one or two.
    pub directories: Vec<AcmeDirectory>,
    /// PEM file with trust anchors for the directories' own TLS, beside those of the system.
    pub ca: Option<PathBuf>,
    /// Which kind of certificate is wanted, where the authority has several.
    pub profile: Option<String>,
    /// The certificate's key.
    pub key_type: AcmeKey,
}

/// An authority and what it wants to know of its customers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeDirectory {
    /// `https://.../directory`, as written.
    pub url: String,
    /// An account that exists there already (RFC 8555 section 7.3.4).
    pub eab: Option<ExternalAccount>,
}

/// `eab = { key_id = "...", hmac_key = { file = "..." } }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// As the authority gave it.
    pub key_id: String,
    /// In base64url, as the authority gave it.
    pub hmac_key: Secret,
}

/// A way of showing that a name is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// A file on port 80 (RFC 8555 section 8.3).
    Http01,
    /// A certificate on port 443 (RFC 8737).
    TlsAlpn01,
    /// A record in the DNS (RFC 8555 section 8.4).
    Dns01 {
        /// Who makes the record.
        records: DnsRecords,
        /// Between the record's making and the authority's look at it.
        wait: Duration,
    },
}

/// Who makes and removes TXT records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsRecords {
    /// A program and its first arguments.
    Hook(Vec<String>),
    /// The zone's own server.
    Update(DnsUpdate),
}

/// `rfc2136 = { ... }`: dynamic updates, signed with a key that is shared with the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsUpdate {
    /// The zone's primary server.
    pub server: SocketAddr,
    /// Lower-case; all names are in it.
    pub zone: String,
    /// What the server calls the key.
    pub key_name: String,
    /// How it is used.
    pub algorithm: TsigAlgorithm,
    /// The key, in base64.
    pub secret: Secret,
}

/// How updates are signed (RFC 8945 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TsigAlgorithm {
    Sha256,
    Sha384,
    Sha512,
}

/// The kind of a certificate's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeKey {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA of 2048 bits.
    Rsa2048,
}

impl AcmeKey {
    /// As it stands in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "ecdsa-p256",
            Self::P384 => "ecdsa-p384",
            Self::Rsa2048 => "rsa-2048",
        }
    }
}
