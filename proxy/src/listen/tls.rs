//! TLS towards clients: certificates by name, tickets, and the record layer of
//! one connection.
//!
//! rustls' unbuffered connection keeps no buffers of its own, so an idle
//! connection costs its key material and little else; records are decrypted in
//! the thread's scratch space and a reply is encrypted into one write.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, ProducesTickets, ResolvesServerCert, UnbufferedServerConnection,
};
use rustls::sign::CertifiedKey;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ProtocolVersion, ServerConfig};
use x509_parser::extensions::GeneralName;

use super::buffers::CHUNK;

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
    /// The library refused the settings.
    #[error("TLS settings: {0}")]
    Settings(#[from] rustls::Error),
}

/// Certificates by the names they carry; the first is the default.
pub(crate) struct Certificates {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `*.shop.example` as `shop.example`: exactly one label in front (RFC 6125 section 6.4.3).
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("exact", &self.exact.keys())
            .field("wildcard", &self.wildcard.keys())
            .finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads every pair; `None` for an empty list.
    pub(crate) fn load(pairs: &[conf::Certificate]) -> Result<Option<Self>, TlsError> {
        let mut loaded: Option<Self> = None;
        for pair in pairs {
            let key = Arc::new(load_pair(&pair.cert, &pair.key)?);
            let names = names_of(&pair.cert, &key)?;
            let all = loaded.get_or_insert_with(|| Self {
                exact: HashMap::new(),
                wildcard: HashMap::new(),
                default: key.clone(),
            });
            for name in names {
                let (table, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut all.wildcard, parent.to_owned()),
                    None => (&mut all.exact, name),
                };
                // The first pair in the file keeps a name that two carry.
                table.entry(name).or_insert_with(|| key.clone());
            }
        }
        Ok(loaded)
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.exact.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.wildcard.get(parent)
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name validated and in lower case.
        let found = hello.server_name().and_then(|name| self.find(name));
        Some(found.unwrap_or(&self.default).clone())
    }
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

/// DNS names of the leaf: its subject alternative names, as RFC 6125 section 6.4.4 wants.
fn names_of(path: &Path, key: &CertifiedKey) -> Result<Vec<String>, TlsError> {
    let broken = |reason: String| TlsError::Certificate {
        path: path.to_owned(),
        reason,
    };
    let leaf = key
        .cert
        .first()
        .ok_or_else(|| broken("empty chain".into()))?;
    let (_, leaf) =
        x509_parser::parse_x509_certificate(leaf).map_err(|error| broken(error.to_string()))?;
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| broken(error.to_string()))?;
    Ok(names
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect())
}

/// The process-wide provider: aws-lc-rs, which `main` installs before Pingora can install another.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// Session ticket keys. One for the process, so that a reload keeps sessions resumable;
/// rustls changes the key every six hours and honours the one before.
pub(crate) fn ticketer() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    Ok(rustls::crypto::aws_lc_rs::Ticketer::new()?)
}

/// Settings of one listener.
pub(crate) fn server_config(
    certificates: Arc<Certificates>,
    tickets: Arc<dyn ProducesTickets>,
    least: conf::TlsVersion,
    h1: bool,
    h2: bool,
) -> Result<Arc<ServerConfig>, TlsError> {
    static ALL: [&rustls::SupportedProtocolVersion; 2] =
        [&rustls::version::TLS13, &rustls::version::TLS12];
    let versions = match least {
        conf::TlsVersion::V12 => &ALL[..],
        conf::TlsVersion::V13 => &ALL[..1],
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    if h2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    if h1 {
        config.alpn_protocols.push(b"http/1.1".to_vec());
    }
    config.ticketer = tickets;
    config.send_tls13_tickets = 2;
    Ok(Arc::new(config))
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
            match state.map_err(broken)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
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
            grow(out, part.len() + OVERHEAD, |room| {
                traffic.encrypt(part, room).map_err(Refused::from)
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
