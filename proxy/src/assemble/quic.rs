//! HTTP/3's settings of each listener.

use std::sync::Arc;

use rustls::ServerConfig;

use super::listening;
use crate::listen::quic::{Keys, Quic};
use crate::listen::{TlsError, private_octets};
use crate::snapshot::Snapshot;

/// By the listeners' places; `None` where HTTP/3 is not spoken.
pub(super) fn listeners(
    config: &conf::Config,
    tls: &[Option<Arc<ServerConfig>>],
    previous: Option<&Snapshot>,
) -> Result<Vec<Option<Arc<Quic>>>, TlsError> {
    let speaks = |listener: &conf::Listener| listener.h3.is_some();
    let keys = match config.listeners.iter().any(speaks) {
        true => Some(keys(config)?),
        false => None,
    };
    config
        .listeners
        .iter()
        .zip(tls)
        .map(|(listener, tls)| {
            let (Some(h3), Some(tls), Some(keys)) = (&listener.h3, tls, &keys) else {
                return Ok(None);
            };
            let before = listening(previous, listener.address);
            let before = before.and_then(|listener| listener.settings.load().quic.clone());
            let quic = Quic::new(tls, listener, h3, keys, before.as_deref())?;
            Ok(Some(Arc::new(quic)))
        })
        .collect()
}

/// Of the first certificate's private key, so that they outlive the process; of nothing that lasts
/// where there is no such file.
fn keys(config: &conf::Config) -> Result<Keys, TlsError> {
    let first = config.tls.iter().find_map(|tls| tls.certificates.first());
    let keys = match first {
        Some(certificate) => Keys::derive(&private_octets(&certificate.key)?),
        None => Keys::random(),
    };
    keys.map_err(|error| rustls::Error::General(error.to_string()).into())
}
