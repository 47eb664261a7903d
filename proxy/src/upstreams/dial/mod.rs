//! Connecting to endpoints: sockets, the PROXY header, TLS.
//!
//! A [`Dialer`] holds all that an upstream's connections have in common and is
//! made when the configuration is loaded, so that files are read, and found
//! wrong, then. It keeps no connection: that is [`super::link`]'s.

mod connection;
mod error;
mod proxy_header;
mod race;
mod tap;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

pub(crate) use connection::{Connection, GOODBYE};
pub(crate) use error::{DialError, Limit, refused_certificate};
pub(crate) use proxy_header::Addresses;

use connection::{Ahead, Socket};
use trust::Trust;

use super::{Target, UpstreamError};
use crate::clock;

/// Sent bytes that nobody acknowledges end a connection after `read_timeout`, but not sooner
/// than this: a host that is being moved may be silent for a while.
const SILENCE: Duration = Duration::from_secs(30);

/// What was agreed on when a connection was made: protocol, TLS with all its files, PROXY
/// header. Connections of equal values can stand in for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Wire(u64);

/// What the connections to one upstream have in common.
pub(crate) struct Dialer {
    protocol: conf::UpstreamProtocol,
    tls: Option<Trust>,
    proxy: Option<conf::ProxyVersion>,
    connect_timeout: Duration,
    silence: Duration,
    wire: Wire,
    keep: Keep,
}

/// How many connections there may be, and how long they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Idle HTTP/1.1 connections to an endpoint, for each worker.
    pub(crate) max_idle: usize,
    /// After which an idle connection is closed.
    pub(crate) idle_timeout: Duration,
    /// Age after which a connection gets no further request.
    pub(crate) max_age: Option<Duration>,
    /// Streams on one HTTP/2 connection.
    pub(crate) max_streams: usize,
    /// Connections to an endpoint.
    pub(crate) max_connections: Option<u32>,
    /// Connections to all endpoints.
    pub(crate) max_total_connections: Option<u32>,
    /// Each connection belongs to one client, and serves once.
    pub(crate) never_again: bool,
}

impl Dialer {
    /// Reads the files that `settings` names.
    ///
    /// # Errors
    /// A file or a name that TLS cannot use.
    pub(crate) fn new(settings: &conf::Upstream) -> Result<Self, UpstreamError> {
        let mut wire = DefaultHasher::new();
        (settings.protocol == conf::UpstreamProtocol::H2).hash(&mut wire);
        (settings.proxy_protocol == Some(conf::ProxyVersion::V1)).hash(&mut wire);
        settings.proxy_protocol.is_some().hash(&mut wire);
        let tls = match &settings.tls {
            None => None,
            Some(tls) => {
                tls.server_name.hash(&mut wire);
                tls.verify.hash(&mut wire);
                Some(Trust::new(&settings.name, tls, &mut wire)?)
            }
        };
        Ok(Self {
            protocol: settings.protocol,
            tls,
            proxy: settings.proxy_protocol,
            connect_timeout: settings.connect_timeout,
            silence: settings.read_timeout.max(SILENCE),
            wire: Wire(wire.finish()),
            keep: Keep::new(settings),
        })
    }

    /// What is spoken on its connections.
    pub(crate) fn protocol(&self) -> conf::UpstreamProtocol {
        self.protocol
    }

    /// Whether its connections are encrypted.
    pub(crate) fn encrypts(&self) -> bool {
        self.tls.is_some()
    }

    /// The name that endpoints are verified by, where its connections are encrypted.
    pub(crate) fn server_name(&self) -> Option<String> {
        let trust = self.tls.as_ref()?;
        Some(trust.name.to_str().into_owned())
    }

    /// See [`Wire`].
    pub(crate) fn wire(&self) -> Wire {
        self.wire
    }

    /// See [`Keep`].
    pub(crate) fn keep(&self) -> &Keep {
        &self.keep
    }

    /// Longest time that [`Self::dial`] takes.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// A new connection to `target` on behalf of the client at `from`; `None`: of nobody.
    ///
    /// # Errors
    /// See [`DialError`]; never its limit.
    pub(crate) async fn dial(
        &self,
        target: &Target,
        from: Option<Addresses>,
    ) -> Result<Box<Connection>, DialError> {
        self.dial_for(self.protocol, target, from).await
    }

    /// The same, to speak `protocol` instead of the upstream's own.
    ///
    /// # Errors
    /// See [`Self::dial`].
    pub(crate) async fn dial_for(
        &self,
        protocol: conf::UpstreamProtocol,
        target: &Target,
        from: Option<Addresses>,
    ) -> Result<Box<Connection>, DialError> {
        let work = self.connect(protocol, target, from);
        timeout(self.connect_timeout, work)
            .await
            .unwrap_or(Err(DialError::Timeout))
    }

    /// Whether a connection to `target` comes about, short of TLS.
    ///
    /// # Errors
    /// See [`Self::dial`].
    pub(crate) async fn reach(&self, target: &Target) -> Result<(), DialError> {
        match timeout(self.connect_timeout, self.open(target, None)).await {
            Ok(reached) => reached.map(drop),
            Err(_) => Err(DialError::Timeout),
        }
    }

    async fn connect(
        &self,
        protocol: conf::UpstreamProtocol,
        target: &Target,
        from: Option<Addresses>,
    ) -> Result<Box<Connection>, DialError> {
        let socket = self.open(target, from).await?;
        let now = clock::now();
        match &self.tls {
            None => Ok(Box::new(Connection::plain(socket, self.wire, now))),
            Some(trust) => self.encrypt(trust, protocol, socket, now).await,
        }
    }

    /// A socket on which the PROXY header, where there is one, has been written.
    async fn open(&self, target: &Target, from: Option<Addresses>) -> Result<Socket, DialError> {
        let mut socket = match target {
            Target::Inet { first, second } => {
                Socket::Tcp(race::connect(*first, *second, self.silence).await?)
            }
            Target::Unix(path) => Socket::Unix(unix(path).await?),
        };
        if let Some(version) = self.proxy {
            let header = proxy_header::header(version, from);
            socket
                .write_all(&header)
                .await
                .map_err(|error| DialError::Io(error.kind()))?;
        }
        Ok(socket)
    }

    async fn encrypt(
        &self,
        trust: &Trust,
        protocol: conf::UpstreamProtocol,
        socket: Socket,
        now: Instant,
    ) -> Result<Box<Connection>, DialError> {
        let h2 = protocol == conf::UpstreamProtocol::H2;
        let offered = if h2 { &b"h2"[..] } else { b"http/1.1" };
        let stream = trust
            .connector
            .clone()
            .with_alpn(vec![offered.to_vec()])
            .connect(trust.name.clone(), Ahead::new(socket))
            .await
            .map_err(|error| DialError::handshaking(&error))?;
        let connection = Box::new(Connection::tls(stream, self.wire, now));
        // RFC 9113 section 3.2: HTTP/2 over TLS is agreed on by ALPN. For HTTP/1.1 servers
        // without ALPN are common.
        match h2 && !connection.chose_h2() {
            true => Err(DialError::Alpn),
            false => Ok(connection),
        }
    }
}

async fn unix(path: &Path) -> Result<UnixStream, DialError> {
    UnixStream::connect(path)
        .await
        .map_err(|error| DialError::connecting(&error))
}

impl Keep {
    fn new(settings: &conf::Upstream) -> Self {
        let streams = settings.max_concurrent_streams.get();
        Self {
            max_idle: settings.keepalive.max_idle,
            idle_timeout: settings.keepalive.idle_timeout,
            max_age: settings.keepalive.max_age,
            max_streams: usize::try_from(streams).unwrap_or(usize::MAX),
            max_connections: settings.limits.max_connections.map(Into::into),
            max_total_connections: settings.limits.max_total_connections.map(Into::into),
            never_again: settings.proxy_protocol.is_some(),
        }
    }

    /// Whether a connection that was made at `born` is past its time.
    pub(crate) fn is_old(&self, born: Instant, now: Instant) -> bool {
        self.max_age
            .is_some_and(|most| now.saturating_duration_since(born) >= most)
    }

    /// Whether a connection that is idle since `since` is past its time.
    pub(crate) fn is_stale(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) >= self.idle_timeout
    }
}
