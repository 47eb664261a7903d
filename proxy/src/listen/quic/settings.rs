//! What a listener speaks HTTP/3 with: TLS, transport, keys.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{IdleTimeout, TransportConfig, VarInt};
use rustls::ServerConfig;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

use super::keys::Keys;
use crate::listen::TlsError;

/// Bytes of one stream's request body that clients may send unasked.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all streams of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of replies that a connection holds until the client has them: what a client that reads
/// slowly can make this process hold.
const SEND_WINDOW: u64 = 1024 * 1024;

/// Streams that a client may open beside its requests: it needs three, and some open more to see
/// whether that is borne (RFC 9114 section 6.2).
const OTHER_STREAMS: u32 = 8;

/// Sessions that are kept for resumption with early data.
const SESSIONS: usize = 4096;

/// Connections that wait to be accepted, and bytes that may come for each and for all.
const INCOMING: (usize, u64, u64) = (1024, 64 * 1024, 8 * 1024 * 1024);

/// See the module's text.
pub(crate) struct Quic {
    pub(super) config: Arc<quinn::ServerConfig>,
    pub(super) keys: Keys,
    /// Safe requests are served from early data.
    pub(super) early_data: bool,
    /// Handshakes under way beyond which a client must prove its address first.
    pub(super) retry_above: usize,
    /// What early data was sent under must still hold where it is taken (RFC 9114 section 7.2.4.2).
    limits: conf::Limits,
    sessions: Arc<dyn StoresServerSessions>,
}

impl fmt::Debug for Quic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quic").finish_non_exhaustive()
    }
}

impl Quic {
    /// `tls`: what the listener speaks TLS over TCP with. `previous`: what was in force.
    ///
    /// # Errors
    /// The TLS library refuses the settings.
    pub(crate) fn new(
        tls: &ServerConfig,
        listener: &conf::Listener,
        h3: &conf::Http3,
        keys: &Keys,
        previous: Option<&Self>,
    ) -> Result<Self, TlsError> {
        let limits = &listener.limits;
        // Whose a request is must be known when it comes.
        let early_data = h3.early_data && listener.tls_options.client_auth.is_none();
        let kept = previous.filter(|it| it.limits == *limits && it.early_data == early_data);
        let sessions = match kept {
            Some(kept) => kept.sessions.clone(),
            None => ServerSessionMemoryCache::new(SESSIONS),
        };
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        if early_data {
            // A ticket that holds all by itself could be used again and again. A session that is
            // kept here is taken out when it is used: early data is served once (RFC 8446 section
            // 8.1). QUIC knows no other figure than this one (RFC 9001 section 4.6.1).
            tls.max_early_data_size = u32::MAX;
            tls.ticketer = Arc::new(NoTickets);
            tls.session_storage = sessions.clone();
        }
        let crypto = QuicServerConfig::try_from(tls)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = quinn::ServerConfig::new(Arc::new(crypto), keys.token());
        config
            .transport_config(Arc::new(transport(limits)))
            .max_incoming(INCOMING.0)
            .incoming_buffer_size(INCOMING.1)
            .incoming_buffer_size_total(INCOMING.2);
        Ok(Self {
            config: Arc::new(config),
            keys: keys.clone(),
            early_data,
            retry_above: h3.retry_above,
            limits: limits.clone(),
            sessions,
        })
    }
}

fn transport(limits: &conf::Limits) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(limits.max_concurrent_streams.get().into())
        .max_concurrent_uni_streams(OTHER_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(idle_timeout(limits.idle_timeout)))
        // Neither is used by HTTP/3 as it is spoken here.
        .datagram_receive_buffer_size(None);
    transport
}

fn idle_timeout(idle: Duration) -> IdleTimeout {
    IdleTimeout::try_from(idle).unwrap_or(IdleTimeout::from(VarInt::MAX))
}

/// Sessions are kept here instead.
#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}
