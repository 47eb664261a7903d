//! HTTP/2 connections of one worker to one endpoint: many requests on each.
//!
//! A request takes a stream of the first connection that has one to spare, so
//! that connections that are not needed become idle and are closed. Where none
//! has, one request connects and the others wait for it, or for a stream that
//! is given back elsewhere. Connections that shall serve no more are simply
//! forgotten: their streams hold them until the last one ends.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{Uri, header};
use pingora::http::RequestHeader;
use tokio::sync::Notify;

use super::count::Slot;
use super::stream::H2Stream;
use crate::upstreams::dial::{Connection as Wired, DialError, Dialer, Wire};

/// Octets of a reply's body that an endpoint may send before they are wanted: what is held for a client that
/// is slow to read.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The largest window there is (RFC 9113 section 6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Largest frame that an endpoint may send, the smallest limit there is (RFC 9113 section 6.5.2): a piece of a body
/// keeps the whole buffer that it was read into, which has room for a frame of this size.
const MAX_FRAME: u32 = 16 * 1024;

/// Octets of a reply's head or trailers, as HTTP/2 counts them (RFC 9113 section 6.5.2).
const MAX_HEAD: u32 = 256 * 1024;

/// See the module's text.
#[derive(Default)]
pub(super) struct Shelf {
    connections: Mutex<Vec<Shared>>,
    /// Held by the one who connects.
    pub(super) connecting: tokio::sync::Mutex<()>,
    /// Told when a stream is given back.
    pub(super) freed: Notify,
    failures: Mutex<Failures>,
}

struct Shared {
    connection: Connection,
    slot: Arc<Slot>,
    wire: Wire,
    born: Instant,
    /// When a sweep found no stream on it.
    idle_since: Option<Instant>,
}

#[derive(Default)]
struct Failures {
    count: u64,
    last: Option<DialError>,
}

impl Shared {
    /// Whether requests may begin on it.
    fn serves(&self, dialer: &Dialer, now: Instant) -> bool {
        !self.connection.is_over()
            && self.wire == dialer.wire()
            && !dialer.keep().is_old(self.born, now)
    }
}

impl Shelf {
    /// Nothing is awaited under it.
    fn connections(&self) -> MutexGuard<'_, Vec<Shared>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream on a connection that is there; `None` when none has one to spare.
    pub(super) async fn spare(&self, dialer: &Dialer, now: Instant) -> Option<H2Stream> {
        loop {
            let connection = self.pick(dialer, now)?;
            // Full or going away by now, it will not be picked again.
            if let Some(stream) = connection.stream().await {
                return Some(stream);
            }
        }
    }

    fn pick(&self, dialer: &Dialer, now: Instant) -> Option<Connection> {
        let mut connections = self.connections();
        connections.retain(|shared| shared.serves(dialer, now));
        let found = connections
            .iter_mut()
            .find(|shared| shared.connection.has_room())?;
        found.idle_since = None;
        Some(found.connection.clone())
    }

    /// The first stream on a new connection; others may share it unless it belongs to one client.
    pub(super) async fn begin(
        &self,
        dialer: &Dialer,
        mut connection: Box<Wired>,
        slot: Arc<Slot>,
    ) -> Result<H2Stream, DialError> {
        connection.hold(slot.clone());
        let (wire, born) = (connection.wire(), connection.born());
        let connection = multiplex(connection, dialer.keep().max_streams).await?;
        let first = first_stream(&connection).await?;
        if !dialer.keep().never_again {
            self.connections().push(Shared {
                connection,
                slot,
                wire,
                born,
                idle_since: None,
            });
        }
        Ok(first)
    }

    /// How many times connecting has failed so far.
    pub(super) fn failures_so_far(&self) -> u64 {
        self.failures().count
    }

    /// The last failure, if there was one since `count` of them.
    pub(super) fn failed_since(&self, count: u64) -> Option<DialError> {
        let failures = self.failures();
        (failures.count > count)
            .then(|| failures.last.clone())
            .flatten()
    }

    /// Those who wait are not to try the same one after the other.
    pub(super) fn failed(&self, error: &DialError) {
        let mut failures = self.failures();
        failures.count += 1;
        failures.last = Some(error.clone());
    }

    /// Forgets what serves no more or was idle for too long.
    pub(super) fn sweep(&self, dialer: &Dialer, now: Instant) {
        self.connections().retain_mut(|shared| {
            if !shared.serves(dialer, now) {
                return false;
            }
            if !shared.connection.is_idle() {
                shared.idle_since = None;
                return true;
            }
            let since = *shared.idle_since.get_or_insert(now);
            !dialer.keep().is_stale(since, now)
        });
    }

    /// Closes one connection without streams.
    pub(super) fn evict(&self) -> bool {
        let mut connections = self.connections();
        let idle = connections
            .iter()
            .position(|shared| shared.connection.is_idle());
        let Some(idle) = idle else {
            return false;
        };
        // What is left of it ends in a task of its own, in a moment.
        connections.swap_remove(idle).slot.give();
        true
    }

    /// Offers none of them to requests any more.
    pub(super) fn forget(&self) {
        self.connections().clear();
    }

    pub(super) fn clear_idle(&self) {
        self.connections()
            .retain(|shared| !shared.connection.is_idle());
    }

    pub(super) fn idle(&self) -> usize {
        let connections = self.connections();
        let idle = connections
            .iter()
            .filter(|shared| shared.connection.is_idle());
        idle.count()
    }
}

/// A connection to an endpoint; its streams and the shelf refer to it.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Inner>);

struct Inner {
    sender: SendRequest<Bytes>,
    /// Most streams at once, as it is configured; the endpoint may want fewer.
    max_streams: usize,
    streams: AtomicUsize,
    /// No stream begins on it any more.
    over: Arc<AtomicBool>,
}

impl Connection {
    fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.0.streams.load(Ordering::Relaxed) == 0
    }

    fn has_room(&self) -> bool {
        let most = self.0.sender.current_max_send_streams();
        self.0.streams.load(Ordering::Relaxed) < most.min(self.0.max_streams)
    }

    /// One more stream; `None` where there is no room, or no connection any more.
    async fn stream(&self) -> Option<H2Stream> {
        let taken = self.0.streams.fetch_add(1, Ordering::SeqCst);
        let mut sender = self.0.sender.clone();
        let is_ready = taken < self.0.max_streams
            && match poll_fn(|cx| sender.poll_ready(cx)).await {
                Ok(()) => true,
                Err(_) => {
                    self.0.over.store(true, Ordering::Relaxed);
                    false
                }
            };
        if !is_ready {
            self.give_stream();
            return None;
        }
        Some(H2Stream::new(self.clone(), sender))
    }

    /// A stream has ended.
    pub(super) fn give_stream(&self) {
        self.0.streams.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection that speaks HTTP/2 from now on. The peer's SETTINGS, which come before all else
/// (RFC 9113 section 3.4), are waited for: they say how many streams it takes, and that it
/// speaks HTTP/2 at all.
pub(crate) async fn multiplex(
    mut connection: Box<Wired>,
    max_streams: usize,
) -> Result<Connection, DialError> {
    let reset = DialError::Io(io::ErrorKind::ConnectionReset);
    let arrived = connection.first_bytes();
    let (sender, driver) = Builder::new()
        .enable_push(false)
        .initial_max_send_streams(max_streams)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEAD)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(max_streams))
        .handshake(connection)
        .await
        .map_err(|_| reset)?;
    let over = Arc::new(AtomicBool::new(false));
    let told = over.clone();
    tokio::spawn(async move {
        // What ends it is the error of the streams on it.
        let _ = driver.await;
        told.store(true, Ordering::Relaxed);
    });
    match arrived.await {
        Ok(()) => Ok(Connection(Arc::new(Inner {
            sender,
            max_streams,
            streams: AtomicUsize::new(0),
            over,
        }))),
        Err(_) => Err(DialError::NotHttp2),
    }
}

/// Room for all streams: were there less, clients that do not read could take all of it, and nothing would
/// come for the others.
fn connection_window(max_streams: usize) -> u32 {
    let streams = u32::try_from(max_streams).unwrap_or(u32::MAX);
    STREAM_WINDOW.saturating_mul(streams).min(MAX_WINDOW)
}

/// A stream on a connection that has none yet.
pub(crate) async fn first_stream(connection: &Connection) -> Result<H2Stream, DialError> {
    connection.stream().await.ok_or(DialError::NotHttp2)
}

/// Names the host in `:authority`, and there alone, and the scheme that is spoken (RFC 9113 section
/// 8.3.1). Pingora would leave Host beside it, which servers that take the two for the same field
/// refuse as a double one (nginx 1.22 answers 400), and call everything "https".
pub(crate) fn name_authority(head: &mut RequestHeader, encrypted: bool) {
    let (Some(host), Some(path)) = (head.headers.get(header::HOST), head.uri.path_and_query())
    else {
        return;
    };
    let uri = Uri::builder()
        .scheme(if encrypted { "https" } else { "http" })
        .authority(host.as_bytes())
        .path_and_query(path.clone())
        .build();
    if let Ok(uri) = uri {
        head.set_uri(uri);
        head.remove_header(&header::HOST);
    }
}

/// Whether the peer says that it has not processed the request, so that it may be sent again
/// whatever its method: the stream was refused, or is beyond the last one that a GOAWAY names
/// (RFC 9113 section 8.7).
pub(crate) fn unprocessed(error: &pingora::Error) -> bool {
    let Some(error) = error.root_cause().downcast_ref::<h2::Error>() else {
        return false;
    };
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    // A GOAWAY of the peer is the error of those streams only that it does not cover, and of
    // those that are not begun for its sake; the others go on, or end with the connection.
    error.is_remote() && (refused || error.is_go_away())
}
