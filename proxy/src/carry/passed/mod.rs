//! Connections that are passed on as they are: TCP, and TLS that an upstream terminates.

mod both_ways;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use balancer::{EndpointIndex, Outcome, PickContext, PickError, hash_key};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Carrier, account, failure};
use crate::clock;
use crate::listen::sni::{Peek, Peeked};
use crate::listen::{ListenerSettings, Slot};
use crate::observe::metrics::ForwardEnd;
use crate::observe::{Captured, Protocol, Record, Text};
use crate::upstreams::{Addresses, Connection, Place, Upstream};

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
        let peer = slot.peer().ip();
        let id = crate::random::id();
        let client = peer.to_canonical();
        let mut record = Record::new(clock::now(), clock::wall(), id, settings.place, client);
        record.protocol = Protocol::Tcp;
        let refuse = |reason, record, name: Option<&str>| {
            slot.listener().refused(reason, peer);
            self.note_passed(
                slot,
                settings,
                name,
                Record {
                    why: Some(reason),
                    ..record
                },
            );
        };
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
                        refuse("not_tls", record, None);
                        return None;
                    }
                    None
                }
                Err(_) => {
                    refuse("hello_timeout", record, None);
                    return None;
                }
            };
        }
        let Some(upstream) = forward.find(name.as_deref()) else {
            if settings.tls.is_some() {
                return Some((socket, heard));
            }
            refuse("unknown_name", record, name.as_deref());
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
        match connect(upstream, addresses, self.worker, &mut record).await {
            Err(reason) => {
                tracing::debug!(
                    listener = settings.name,
                    upstream = upstream.name(),
                    client = %slot.peer(),
                    reason,
                    "connection not passed on"
                );
                record.upstream = self.place_of(upstream);
                refuse(reason, record, name.as_deref());
            }
            Ok((_place, mut endpoint)) => {
                let patience = forward.idle_timeout;
                let passed = both_ways::pass(&mut socket, heard, &mut *endpoint, patience).await;
                settings.metrics.forwarded(passed.end);
                record.upstream = self.place_of(upstream);
                record.bytes_in = passed.there;
                record.bytes_out = passed.back;
                record.why = match passed.end {
                    ForwardEnd::Ended => None,
                    end => Some(end.as_str()),
                };
                self.note_passed(slot, settings, name.as_deref(), record);
            }
        }
        None
    }

    /// The upstream's place among those that are in force now: the connection may be hours old.
    fn place_of(&self, upstream: &Upstream) -> Option<u16> {
        let snapshot = self.snapshot();
        let mut names = snapshot.table.names().upstreams.iter();
        let place = names.position(|name| name == upstream.name())?;
        u16::try_from(place).ok()
    }

    /// Logs a connection that was passed on, or could not be: it is no request, and counts as none.
    fn note_passed(
        &self,
        slot: &Slot,
        settings: &ListenerSettings,
        name: Option<&str>,
        mut record: Record,
    ) {
        let snapshot = self.snapshot();
        let Some(log) = snapshot.access.as_ref().filter(|_| settings.access_log) else {
            return;
        };
        record.listener = account::place_of(&snapshot, slot.listener());
        record.via = slot.via().cloned();
        record.captured = Captured::new(Text {
            host: name.unwrap_or_default().as_bytes(),
            ..Text::default()
        });
        record.end(clock::now());
        log.write(&record, snapshot.table.names());
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
    record: &mut Record,
) -> Result<(Place, Box<Connection>), &'static str> {
    let settings = upstream.settings();
    let members = upstream.share(worker);
    let hash = match from.client.ip().to_canonical() {
        IpAddr::V4(address) => hash_key(&address.octets()),
        IpAddr::V6(address) => hash_key(&address.octets()),
    };
    let mut tried: Vec<EndpointIndex> = Vec::new();
    record.endpoints = Some(members.shown().clone());
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
        record.attempts.begin(place.number());
        let connected = members.connect_raw(endpoint, worker, Some(from)).await;
        let now = clock::now();
        match connected {
            Ok(connection) => {
                place.connected();
                let latency = now.saturating_duration_since(began);
                record.connect = Some(latency);
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
                // One that has as many connections as it may is not at fault.
                if let Some((outcome, counted)) = failure::dial_failure(&error).outcome() {
                    record.attempts.failed(counted);
                    members.record(endpoint, outcome, None, now);
                }
                tried.push(endpoint);
                if tried.len() >= settings.retry.attempts.get() as usize {
                    return Err("connect_failure");
                }
            }
        }
    }
}
