//! TLS towards clients: certificates by name, tickets, and the record layer of
//! one connection.
//!
//! rustls' unbuffered connection keeps no buffers of its own, so an idle
//! connection costs its key material and little else; records are decrypted in
//! the thread's scratch space and a reply is encrypted into one write.

mod clients;
mod tickets;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoClientAuth, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ProtocolVersion, ServerConfig, SupportedCipherSuite};

use super::buffers::{self, CHUNK};
use super::certificates::Certificates;
use crate::acme::ALPN;
use clients::Admission;
pub(crate) use clients::ClientCert;
use tickets::Audience;
pub(crate) use tickets::Tickets;

/// Why a certificate cannot be used. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The chain holds no certificate or broken PEM.
    #[error("{}: no usable PEM certificate: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key file holds no private key that the library reads.
    #[error("{}: no usable PEM private key (PKCS#8, PKCS#1 or SEC1): {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Key and certificate do not belong together, or the key type is not supported.
    #[error("{} and {} do not fit: {reason}", cert.display(), key.display())]
    Mismatch {
        /// The chain.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file of revocation lists is of no use.
    #[error("{}: no usable revocation list (PEM): {reason}", path.display())]
    Revocations {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A secret for session tickets is too short to be one.
    #[error("{}: {len} bytes are too few for a secret: it needs 32 at least, such as `openssl rand 80` writes", path.display())]
    TicketKey {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// The library refused the settings.
    #[error("TLS settings: {0}")]
    Settings(#[from] rustls::Error),
}

/// A chain and its key, found to belong together.
pub(crate) fn load_pair(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = read(cert)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Certificate {
            path: cert.to_owned(),
            reason: error.to_string(),
        })?;
    if chain.is_empty() {
        return Err(TlsError::Certificate {
            path: cert.to_owned(),
            reason: "the file has no CERTIFICATE section".into(),
        });
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| TlsError::Key {
        path: key.to_owned(),
        reason: error.to_string(),
    })?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| TlsError::Mismatch {
        cert: cert.to_owned(),
        key: key.to_owned(),
        reason: error.to_string(),
    })
}

/// The private key in `path` as octets, for keys that are derived from it.
pub(crate) fn private_octets(path: &Path) -> Result<Vec<u8>, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| TlsError::Key {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(key.secret_der().to_vec())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The process-wide provider: aws-lc-rs, which `main` installs before Pingora can install another.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// Settings of one listener. `validates`: authorities may look here whether a name is ours.
///
/// # Errors
/// A file that `options` or `ticket_keys` name cannot be used.
pub(crate) fn server_config(
    certificates: Arc<Certificates>,
    tickets: &Tickets,
    ticket_keys: &[PathBuf],
    options: &conf::TlsOptions,
    (h1, h2): (bool, bool),
    validates: bool,
) -> Result<Arc<ServerConfig>, TlsError> {
    let versions: Vec<_> = [
        (conf::TlsVersion::V13, &rustls::version::TLS13),
        (conf::TlsVersion::V12, &rustls::version::TLS12),
    ]
    .into_iter()
    .filter(|(version, _)| (options.min_version..=options.max_version).contains(version))
    .map(|(_, version)| version)
    .collect();
    let (verifier, audience) = match &options.client_auth {
        None => (Arc::new(NoClientAuth) as _, Audience::default()),
        Some(settings) => {
            let admission = Admission::new(settings)?;
            (admission.verifier, admission.audience)
        }
    };
    let mut config = ServerConfig::builder_with_provider(offering(options))
        .with_protocol_versions(&versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificates);
    if h2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    if h1 {
        config.alpn_protocols.push(b"http/1.1".to_vec());
    }
    if validates {
        // Last: who offers it beside others gets one of those.
        config.alpn_protocols.push(ALPN.to_vec());
    }
    config.ticketer = tickets.sealer(audience, ticket_keys)?;
    config.send_tls13_tickets = 2;
    Ok(Arc::new(config))
}

/// The process's provider, with no more than `options` want.
fn offering(options: &conf::TlsOptions) -> Arc<CryptoProvider> {
    let whole = provider();
    if options.ciphers.is_none() && options.groups.is_none() {
        return whole;
    }
    let mut some = (*whole).clone();
    if let Some(ciphers) = &options.ciphers {
        some.cipher_suites = ciphers.iter().copied().map(suite).collect();
    }
    if let Some(groups) = &options.groups {
        some.kx_groups = groups.iter().copied().map(group).collect();
    }
    Arc::new(some)
}

fn suite(named: conf::CipherSuite) -> SupportedCipherSuite {
    use conf::CipherSuite as Named;
    match named {
        Named::Aes256GcmSha384 => cipher_suite::TLS13_AES_256_GCM_SHA384,
        Named::Aes128GcmSha256 => cipher_suite::TLS13_AES_128_GCM_SHA256,
        Named::Chacha20Poly1305Sha256 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        Named::EcdheEcdsaAes256GcmSha384 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Named::EcdheEcdsaAes128GcmSha256 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Named::EcdheEcdsaChacha20Poly1305Sha256 => {
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        Named::EcdheRsaAes256GcmSha384 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Named::EcdheRsaAes128GcmSha256 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Named::EcdheRsaChacha20Poly1305Sha256 => {
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
    }
}

fn group(named: conf::KeyExchangeGroup) -> &'static dyn SupportedKxGroup {
    use conf::KeyExchangeGroup as Named;
    match named {
        Named::X25519MlKem768 => kx_group::X25519MLKEM768,
        Named::Secp256r1MlKem768 => kx_group::SECP256R1MLKEM768,
        Named::X25519 => kx_group::X25519,
        Named::Secp256r1 => kx_group::SECP256R1,
        Named::Secp384r1 => kx_group::SECP384R1,
    }
}

/// Whether clients that `options` ask for certificates can be told apart by them.
///
/// # Errors
/// A file that is named is of no use.
pub(crate) fn verify(tls: &conf::Tls, options: &conf::TlsOptions) -> Result<(), TlsError> {
    if let Some(settings) = &options.client_auth {
        Admission::new(settings)?;
    }
    Tickets::default()
        .sealer(Audience::default(), &tls.ticket_keys)
        .map(drop)
}

/// What one turn of [`Records::process`] did.
pub(crate) struct Processed {
    /// Bytes of the input that were used; the rest is an unfinished record.
    pub(crate) used: usize,
    /// The peer said that it sends no more (close_notify).
    pub(crate) closed: bool,
}

/// The record layer of one connection.
pub(crate) struct Records {
    connection: UnbufferedServerConnection,
    established: bool,
}

impl Records {
    /// A connection before its first byte.
    pub(crate) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let connection = UnbufferedServerConnection::new(config).map_err(broken)?;
        Ok(Self {
            connection,
            established: false,
        })
    }

    /// Whether application data may be written.
    pub(crate) fn established(&self) -> bool {
        self.established
    }

    /// Whether ALPN chose HTTP/2.
    pub(crate) fn chose_h2(&self) -> bool {
        self.connection.alpn_protocol() == Some(b"h2")
    }

    /// The certificate of a client that was asked for one and has one.
    pub(crate) fn client_cert(&self) -> Option<Arc<ClientCert>> {
        let chain = self.connection.peer_certificates()?;
        ClientCert::new(chain.first()?).map(Arc::new)
    }

    /// Whether ALPN chose the protocol of a validation, which says nothing after the handshake
    /// (RFC 8737 section 3).
    pub(crate) fn chose_validation(&self) -> bool {
        self.connection.alpn_protocol() == Some(ALPN)
    }

    /// `TLSv1.3` or `TLSv1.2`.
    pub(crate) fn version(&self) -> &'static str {
        match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        }
    }

    /// Takes received `bytes`: application data goes to `plain`, what must be
    /// answered (handshake, alerts, tickets) to `out`.
    pub(crate) fn process(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> io::Result<Processed> {
        let mut used = 0;
        loop {
            let UnbufferedStatus {
                mut discard, state, ..
            } = self.connection.process_tls_records(&mut bytes[used..]);
            let mut end = None;
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    self.say_why(out);
                    return Err(broken(error));
                }
            };
            match state {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        discard += record.discard;
                        buffers::append(plain, record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => grow(out, 4096, |room| {
                    data.encode(room).map_err(|error| match error {
                        EncodeError::InsufficientSize(size) => Refused::Room(size.required_size),
                        other => Refused::Broken(broken(other)),
                    })
                })?,
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::WriteTraffic(_) => {
                    self.established = true;
                    end = Some(false);
                }
                ConnectionState::BlockedHandshake => end = Some(false),
                ConnectionState::PeerClosed | ConnectionState::Closed => end = Some(true),
                // Early data is off (no `max_early_data_size`); anything else is new to us.
                _ => return Err(broken("unexpected TLS state")),
            }
            used += discard;
            if let Some(closed) = end {
                return Ok(Processed { used, closed });
            }
        }
    }

    /// Appends the alert that the library has for the peer after an error (RFC 8446 section 6.2): it
    /// is given out by the calls that follow.
    fn say_why(&mut self, out: &mut Vec<u8>) {
        loop {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else {
                return;
            };
            let said = grow(out, 256, |room| {
                data.encode(room).map_err(|error| match error {
                    EncodeError::InsufficientSize(size) => Refused::Room(size.required_size),
                    other => Refused::Broken(broken(other)),
                })
            });
            if said.is_err() {
                return;
            }
        }
    }

    /// Encrypts `plain` into records at the end of `out`.
    pub(crate) fn encrypt(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        /// Header, content type and tag of a record, rounded up.
        const OVERHEAD: usize = 64;
        // To the point: with room that doubles, a client that does not read would hold twice as much.
        let records = plain.len().div_ceil(CHUNK);
        out.reserve_exact(plain.len() + records * OVERHEAD);
        for part in plain.chunks(CHUNK) {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
            let ConnectionState::WriteTraffic(mut traffic) = state.map_err(broken)? else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            // The library copies it to behind the head of a record.
            buffers::apart(part, |part| {
                grow(out, part.len() + OVERHEAD, |room| {
                    traffic.encrypt(part, room).map_err(Refused::from)
                })
            })?;
        }
        Ok(())
    }

    /// Appends a close_notify, so that the client can tell the end from a cut (RFC 8446 section 6.1).
    pub(crate) fn close(&mut self, out: &mut Vec<u8>) {
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            // A connection that cannot say goodbye is closed all the same.
            let _ = grow(out, 64, |room| {
                traffic.queue_close_notify(room).map_err(Refused::from)
            });
        }
    }
}

/// Why nothing was written.
enum Refused {
    /// This much room is needed.
    Room(usize),
    /// It will not work with more room either.
    Broken(io::Error),
}

impl From<EncryptError> for Refused {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self::Room(size.required_size),
            other @ EncryptError::EncryptExhausted => Self::Broken(broken(other)),
        }
    }
}

/// Lets `write` fill new space at the end of `out`, with as much room as it asks for.
fn grow(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Refused>,
) -> io::Result<()> {
    let start = out.len();
    loop {
        out.resize(start + room, 0);
        let error = match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(Refused::Room(needed)) if needed > room => {
                room = needed;
                continue;
            }
            Err(Refused::Room(_)) => broken("the TLS library asked for less room than it had"),
            Err(Refused::Broken(error)) => error,
        };
        out.truncate(start);
        return Err(error);
    }
}

fn broken(error: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
