//! Connections that are passed on as they are: TCP, and TLS that an upstream terminates.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use balancer::{EndpointIndex, Outcome, PickContext, PickError, hash_key};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes,
};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

use super::Carrier;
use crate::clock;
use crate::listen::sni::{Peek, Peeked};
use crate::listen::{ListenerSettings, Slot};
use crate::observe::metrics::ForwardEnd;
use crate::upstreams::{Addresses, Connection, Place, Upstream};

/// Bytes moved at a time in each direction, held while a connection is open.
const PIECE: usize = 16 * 1024;

/// A fatal alert: the name is not known here (RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Where a listener's connections go.
pub(crate) struct Forward {
    exact: HashMap<String, Arc<Upstream>>,
    /// With the dot in front, the longest first.
    suffixes: Vec<(String, Arc<Upstream>)>,
    rest: Option<Arc<Upstream>>,
    idle_timeout: Duration,
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").finish_non_exhaustive()
    }
}

impl Forward {
    pub(crate) fn new(settings: &conf::Forward, upstreams: &[Arc<Upstream>]) -> Self {
        let find = |id: &conf::UpstreamId| upstreams.get(id.0).cloned();
        let mut exact = HashMap::new();
        let mut suffixes = Vec::new();
        for (pattern, id) in &settings.names {
            let Some(upstream) = find(id) else { continue };
            match pattern {
                conf::HostPattern::Exact(name) => drop(exact.insert(name.clone(), upstream)),
                conf::HostPattern::Suffix(suffix) => suffixes.push((suffix.clone(), upstream)),
            }
        }
        suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        Self {
            exact,
            suffixes,
            rest: settings.upstream.as_ref().and_then(find),
            idle_timeout: settings.idle_timeout,
        }
    }

    /// Whether it depends on the name that a client asks for.
    pub(crate) fn peeks(&self) -> bool {
        !self.exact.is_empty() || !self.suffixes.is_empty()
    }

    fn find(&self, name: Option<&str>) -> Option<&Arc<Upstream>> {
        let named = name.and_then(|name| {
            self.exact.get(name).or_else(|| {
                let fits = |(suffix, _): &&(String, _)| {
                    name.len() > suffix.len() && name.ends_with(suffix)
                };
                self.suffixes
                    .iter()
                    .find(fits)
                    .map(|(_, upstream)| upstream)
            })
        });
        named.or(self.rest.as_ref())
    }
}

impl Carrier {
    /// Passes the connection on to its end, or gives it back, with what was read of it, to be
    /// terminated.
    pub(crate) async fn forwarded(
        &self,
        mut socket: TcpStream,
        slot: &Slot,
        settings: &ListenerSettings,
        forward: &Forward,
    ) -> Option<(TcpStream, Vec<u8>)> {
        let mut heard = Vec::new();
        let mut name = None;
        if forward.peeks() {
            let peeked = peek(&mut socket, &mut heard);
            name = match timeout(settings.limits.header_timeout, peeked).await {
                Ok(Ok(name)) => name,
                // A port that was looked at and left.
                Ok(Err(_)) if heard.is_empty() => return None,
                Ok(Err(_)) if settings.tls.is_some() => return Some((socket, heard)),
                Ok(Err(_)) => {
                    // What speaks first and is no TLS goes where all goes that has no name.
                    if forward.rest.is_none() {
                        slot.listener().refused("not_tls", slot.peer().ip());
                        return None;
                    }
                    None
                }
                Err(_) => {
                    slot.listener().refused("hello_timeout", slot.peer().ip());
                    return None;
                }
            };
        }
        let Some(upstream) = forward.find(name.as_deref()) else {
            if settings.tls.is_some() {
                return Some((socket, heard));
            }
            slot.listener().refused("unknown_name", slot.peer().ip());
            // Whether it arrives or not, the connection is closed.
            let _ = socket.try_write(&UNRECOGNIZED_NAME);
            return None;
        };
        let addresses = Addresses {
            client: slot.peer(),
            local: slot
                .via()
                .and_then(|via| via.local)
                .or_else(|| socket.local_addr().ok())
                .unwrap_or(slot.listener().address),
        };
        let end = match connect(upstream, addresses, self.worker).await {
            Err(reason) => {
                tracing::debug!(
                    listener = settings.name,
                    upstream = upstream.name(),
                    client = %slot.peer(),
                    reason,
                    "connection not passed on"
                );
                slot.listener().refused(reason, slot.peer().ip());
                return None;
            }
            Ok((_place, endpoint)) => pass(socket, heard, endpoint, forward.idle_timeout).await,
        };
        settings.metrics.forwarded(end);
        None
    }
}

/// Reads until it is known for which name the client asks.
///
/// # Errors
/// It is not TLS, or the connection ended.
async fn peek(socket: &mut TcpStream, heard: &mut Vec<u8>) -> io::Result<Option<String>> {
    let mut peek = Peek::new();
    loop {
        let before = heard.len();
        heard.reserve(2048);
        if socket.read_buf(heard).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match peek.feed(&heard[before..]) {
            Peeked::Partial => {}
            Peeked::Name(name) => return Ok(name),
            Peeked::Other => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A connection to an endpoint; several are tried, as for requests.
///
/// # Errors
/// The reason, as a metric's label, why there is none.
async fn connect(
    upstream: &Upstream,
    from: Addresses,
    worker: usize,
) -> Result<(Place, Box<Connection>), &'static str> {
    let settings = upstream.settings();
    let members = upstream.members();
    let hash = match from.client.ip().to_canonical() {
        IpAddr::V4(address) => hash_key(&address.octets()),
        IpAddr::V6(address) => hash_key(&address.octets()),
    };
    let mut tried: Vec<EndpointIndex> = Vec::new();
    loop {
        let began = clock::now();
        let context = PickContext {
            hash: Some(hash),
            tried: &tried,
            prefer: None,
        };
        let mut place = members
            .acquire(&context, began)
            .map_err(|error| match error {
                PickError::NoneAvailable => "no_endpoint",
                PickError::Saturated => "upstream_limit",
                PickError::Exhausted => "connect_failure",
            })?;
        let endpoint = place.endpoint();
        let connected = members.connect_raw(endpoint, worker, from).await;
        let now = clock::now();
        match connected {
            Ok(connection) => {
                place.connected();
                let latency = now.saturating_duration_since(began);
                members.record(endpoint, Outcome::Success, Some(latency), now);
                return Ok((place, connection));
            }
            Err(error) => {
                tracing::debug!(
                    upstream = upstream.name(),
                    endpoint = members.name(endpoint),
                    %error,
                    "no connection"
                );
                members.record(endpoint, Outcome::ConnectFailed, None, now);
                tried.push(endpoint);
                if tried.len() >= settings.retry.attempts.get() as usize {
                    return Err("connect_failure");
                }
            }
        }
    }
}

/// Moves bytes both ways until both sides have ended theirs, one breaks off, or nothing moves.
async fn pass(
    socket: TcpStream,
    heard: Vec<u8>,
    mut endpoint: Box<Connection>,
    patience: Duration,
) -> ForwardEnd {
    let began = clock::now();
    let last = AtomicU64::new(0);
    let mut client = Noticed {
        socket,
        began,
        last: &last,
    };
    let moved = async {
        endpoint.write_all(&heard).await?;
        endpoint.flush().await?;
        drop(heard);
        copy_bidirectional_with_sizes(&mut client, &mut *endpoint, PIECE, PIECE).await
    };
    let mut moved = Box::pin(moved);
    loop {
        let until = began + Duration::from_millis(last.load(Ordering::Relaxed)) + patience;
        if clock::now() >= until {
            return ForwardEnd::Idle;
        }
        tokio::select! {
            done = &mut moved => return match done {
                Ok(_) => ForwardEnd::Ended,
                Err(_) => ForwardEnd::Broken,
            },
            () = sleep_until(until.into()) => {}
        }
    }
}

/// A client's connection, and when bytes moved on it last: all that moves passes it.
struct Noticed<'a> {
    socket: TcpStream,
    began: Instant,
    /// Milliseconds after `began`.
    last: &'a AtomicU64,
}

impl Noticed<'_> {
    fn notice(&self) {
        let since = clock::now().saturating_duration_since(self.began);
        let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
    }
}

impl AsyncRead for Noticed<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_ready() {
            self.notice();
        }
        read
    }
}

impl AsyncWrite for Noticed<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        if written.is_ready() {
            self.notice();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
