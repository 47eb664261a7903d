//! A listener's state beside its sockets: settings in force, connections open.
//!
//! It is shared by all workers and outlives reloads: a connection keeps the
//! state it was accepted under, a reload puts new settings into it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use http::HeaderValue;
use ipnet::IpNet;
use rustls::ServerConfig;

use super::quic::Quic;
use super::rates::{Rates, client_key};
use crate::carry::Forward;
use crate::clock;
use crate::exchange::proxy_header::Via;
use crate::observe::Notices;
use crate::observe::metrics::{ListenerMetrics, OpenConnection};

/// First packets of QUIC a second from one address whose owner may be another one. A client that is
/// asked to prove it loses a round trip and nothing else.
const UNPROVEN: NonZeroU64 = NonZeroU64::new(2).expect("it is not zero");

/// The place of a listener whose connections outlive it.
pub(crate) const NO_PLACE: u16 = u16::MAX;

/// What a reload may change.
#[derive(Debug)]
pub(crate) struct ListenerSettings {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// Its place in the configuration; [`NO_PLACE`] once it is no longer in it.
    pub(crate) place: u16,
    /// Its counters.
    pub(crate) metrics: Arc<ListenerMetrics>,
    /// TLS is terminated with this; `None`: plain.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// HTTP/1.1 is spoken.
    pub(crate) h1: bool,
    /// HTTP/2 is spoken.
    pub(crate) h2: bool,
    /// HTTP/3 is spoken with this.
    pub(crate) quic: Option<Arc<Quic>>,
    /// What replies over TCP say of HTTP/3.
    pub(crate) alt_svc: Option<HeaderValue>,
    /// Connections from these networks begin with a PROXY header.
    pub(crate) announced: Vec<IpNet>,
    /// Connections that are passed on as they are.
    pub(crate) forward: Option<Arc<Forward>>,
    /// Its requests are written to the access log.
    pub(crate) access_log: bool,
    /// Limits in force.
    pub(crate) limits: conf::Limits,
}

impl ListenerSettings {
    /// Whether a connection from there begins with a PROXY header.
    pub(crate) fn is_announced(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.announced.iter().any(|network| network.contains(&peer))
    }
}

/// One listener of the configuration.
pub(crate) struct ListenerState {
    /// Where it listens; what it is known by across reloads.
    pub(crate) address: SocketAddr,
    /// In force now.
    pub(crate) settings: ArcSwap<ListenerSettings>,
    open: AtomicUsize,
    by_client: Mutex<HashMap<IpAddr, usize>>,
    connections: Rates,
    handshakes: Rates,
    /// First packets of QUIC whose sender may be somebody else.
    unproven: Rates,
    notices: Notices,
}

impl std::fmt::Debug for ListenerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerState")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Why a connection was not taken; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `max_connections` are open.
    Listener,
    /// `max_connections_per_ip` are open from this client.
    Client,
    /// This client opens more than `max_connection_rate_per_ip`.
    Rate,
    /// It begins more TLS handshakes than `max_handshake_rate_per_ip`.
    Handshakes,
}

impl Refusal {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "max_connections",
            Self::Client => "max_connections_per_ip",
            Self::Rate => "max_connection_rate_per_ip",
            Self::Handshakes => "max_handshake_rate_per_ip",
        }
    }
}

impl ListenerState {
    pub(crate) fn new(address: SocketAddr, settings: ListenerSettings) -> Self {
        Self {
            address,
            settings: ArcSwap::from_pointee(settings),
            open: AtomicUsize::new(0),
            by_client: Mutex::new(HashMap::new()),
            connections: Rates::new(),
            handshakes: Rates::new(),
            unproven: Rates::new(),
            notices: Notices::default(),
        }
    }

    /// Counts a connection that is not taken, or ended, for this reason, and says so in the log now
    /// and then.
    pub(crate) fn refused(&self, reason: &'static str, client: IpAddr) {
        self.settings.load().metrics.refused(reason);
        self.noticed(reason, client);
    }

    /// The same for a request.
    pub(crate) fn rejected(&self, reason: &'static str, client: IpAddr) {
        self.settings.load().metrics.rejected(reason);
        self.noticed(reason, client);
    }

    /// The same for what has a metric of its own.
    pub(crate) fn noticed(&self, reason: &'static str, client: IpAddr) {
        if let Some(line) = self.notices.note(reason, client, clock::now()) {
            line.write(&self.settings.load().name);
        }
    }

    /// Says in the log what was not worth a line of its own when it happened.
    pub(crate) fn say_rest(&self, now: Instant) {
        for line in self.notices.due(now) {
            line.write(&self.settings.load().name);
        }
    }

    /// Whether this client may begin one more TLS handshake.
    pub(crate) fn may_shake_hands(&self, client: IpAddr) -> Result<(), Refusal> {
        let rate = self.settings.load().limits.max_handshake_rate_per_ip;
        match rate {
            Some(rate)
                if !self
                    .handshakes
                    .admits(client_key(client), rate, clock::now()) =>
            {
                Err(Refusal::Handshakes)
            }
            _ => Ok(()),
        }
    }

    /// Whether one more first packet from this address may be believed to be of it. Else whoever forges
    /// it would use up what its owner may do.
    pub(crate) fn may_be_unproven(&self, client: IpAddr) -> bool {
        self.unproven
            .admits(client_key(client), UNPROVEN, clock::now())
    }

    /// Counts a connection in, or says which limit it meets.
    pub(crate) fn admit(self: &Arc<Self>, peer: SocketAddr) -> Result<Slot, Refusal> {
        let settings = self.settings.load();
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        if open >= settings.limits.max_connections {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Listener);
        }
        let of = match settings.is_announced(peer.ip()) {
            // Whose it is, a balancer is about to say.
            true => None,
            false => match self.count(peer, &settings) {
                Ok(client) => Some(client),
                Err(refusal) => {
                    self.open.fetch_sub(1, Ordering::Relaxed);
                    return Err(refusal);
                }
            },
        };
        Ok(Slot {
            listener: self.clone(),
            peer,
            of,
            via: None,
            _counted: settings.metrics.connection(),
        })
    }

    /// Counts a connection for its client.
    fn count(&self, peer: SocketAddr, settings: &ListenerSettings) -> Result<IpAddr, Refusal> {
        let client = client_key(peer.ip());
        let rate = settings.limits.max_connection_rate_per_ip;
        if rate.is_some_and(|rate| !self.connections.admits(client, rate, clock::now())) {
            return Err(Refusal::Rate);
        }
        let mut by_client = self.by_client();
        let count = by_client.entry(client).or_insert(0);
        if *count >= settings.limits.max_connections_per_ip {
            return Err(Refusal::Client);
        }
        *count += 1;
        Ok(client)
    }

    fn by_client(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// A counted connection; given back when dropped.
pub(crate) struct Slot {
    listener: Arc<ListenerState>,
    peer: SocketAddr,
    /// The client that it is counted for.
    of: Option<IpAddr>,
    via: Option<Arc<Via>>,
    _counted: OpenConnection,
}

impl Slot {
    pub(crate) fn listener(&self) -> &Arc<ListenerState> {
        &self.listener
    }

    /// Who connected, or for whom a balancer did.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What a balancer said of it.
    pub(crate) fn via(&self) -> Option<&Arc<Via>> {
        self.via.as_ref()
    }

    /// A balancer has said whose it is; that may be one too many.
    pub(crate) fn announce(&mut self, peer: SocketAddr, via: Arc<Via>) -> Result<(), Refusal> {
        let settings = self.listener.settings.load();
        // Its own checks are nobody's.
        let is_its_own = via.local.is_none();
        (self.peer, self.via) = (peer, Some(via));
        if !is_its_own {
            self.of = Some(self.listener.count(peer, &settings)?);
        }
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.listener.open.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.of else {
            return;
        };
        let mut by_client = self.listener.by_client();
        if let Some(count) = by_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                by_client.remove(&client);
            }
        }
    }
}
