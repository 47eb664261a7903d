//! The connections to an endpoint that are open, kept by worker.
//!
//! Each worker has a shelf of its own, so taking a kept connection touches
//! nothing that another core writes. Another worker's shelf is looked into only
//! where a limit is met: then an idle connection there has to go, so that one
//! can be made here.
//!
//! [`EndpointLinks`] belong to an endpoint as long as it exists, and go from one
//! configuration to the next with it: connections that no longer fit what is
//! configured ([`Wire`](super::dial::Wire)) are dropped when they are met.

mod count;
mod h2;
mod octets;
mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::header;
use pingora::http::ResponseHeader;
use tokio::time::timeout;

pub(crate) use count::Slot;
pub(crate) use h2::{first_stream, multiplex, name_authority, unprocessed};
pub(crate) use octets::Octets;
pub(crate) use session::{Came, Session};
pub(crate) use stream::H2Stream;

use super::Target;
use super::dial::{Addresses, Connection, DialError, Dialer, Keep, Limit};
use crate::clock;
use count::Open;

/// How often a place is fought for with other workers before the limit is taken for met.
const TRIES: usize = 16;

/// A connection that was used so short a while ago is not one that its server gave up: they keep
/// them for seconds at least.
pub(crate) const RECENT: Duration = Duration::from_millis(500);

/// How long a server is not taken at that word after it broke it.
const CAREFUL: Duration = Duration::from_secs(60);

/// Which kept HTTP/1.1 connections will do for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Any: should it be closed in the same instant, the request is sent again.
    Any,
    /// One in use less than [`RECENT`] ago: the request cannot be sent again.
    Recent,
    /// None.
    Never,
}

/// Of all endpoints of an upstream.
#[derive(Default)]
pub(crate) struct UpstreamLinks {
    open: Arc<Open>,
    /// Looked at only where `max_total_connections` is met.
    endpoints: Mutex<Vec<Weak<EndpointLinks>>>,
}

/// Of one endpoint. Dropping it closes what is idle; what is in use ends with its request.
pub(crate) struct EndpointLinks {
    shelves: Box<[Shelf]>,
    open: Arc<Open>,
    upstream: Arc<UpstreamLinks>,
    /// Until then no connection is [`Reuse::Recent`]; milliseconds after `made`. Written only when
    /// one ends too early.
    careful_until: AtomicU64,
    made: Instant,
    /// The endpoint is none any more: requests that know it end, and nothing is kept for others.
    retired: AtomicBool,
}

/// One worker's; aligned, so that no two of them share a cache line.
#[derive(Default)]
#[repr(align(128))]
struct Shelf {
    /// HTTP/1.1, the one used last at the back.
    idle: Mutex<VecDeque<Idle>>,
    h2: h2::Shelf,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// A session on a connection, and whether that had served before.
pub(crate) struct Connected {
    pub(crate) session: Session,
    pub(crate) reused: bool,
    /// How long it had been idle.
    pub(crate) rested: Duration,
}

/// For whom a connection is made.
#[derive(Clone, Copy)]
pub(crate) struct Purpose<'a> {
    /// Of the upstream.
    pub(crate) dialer: &'a Dialer,
    /// Where the endpoint is.
    pub(crate) target: &'a Target,
    /// The client; for the PROXY header only.
    pub(crate) from: Option<Addresses>,
}

impl Connected {
    /// A session on a kept HTTP/1.1 connection that had been idle for `rested`.
    pub(crate) fn kept(connection: Box<Connection>, rested: Duration) -> Self {
        Self {
            session: Session::h1(connection),
            reused: true,
            rested,
        }
    }
}

impl Connected {
    /// A session on an HTTP/1.1 connection that never served.
    pub(crate) fn made(connection: Box<Connection>) -> Self {
        Self {
            session: Session::h1(connection),
            reused: false,
            rested: Duration::ZERO,
        }
    }
}

impl UpstreamLinks {
    /// Connections that are open or being made, to all endpoints.
    pub(crate) fn open(&self) -> u32 {
        self.open.count()
    }

    fn endpoints(&self) -> MutexGuard<'_, Vec<Weak<EndpointLinks>>> {
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes an idle connection to any endpoint, `worker`'s own first.
    fn evict(&self, worker: usize) -> bool {
        let endpoints: Vec<_> = self.endpoints().iter().filter_map(Weak::upgrade).collect();
        let mine = |links: &Arc<EndpointLinks>| {
            links
                .shelves
                .get(worker)
                .is_some_and(|shelf| shelf.evict_h1() || shelf.h2.evict())
        };
        endpoints.iter().any(mine) || endpoints.iter().any(|links| links.evict(worker))
    }
}

impl EndpointLinks {
    /// For `workers` workers; counted in `upstream` too.
    pub(crate) fn new(workers: usize, upstream: &Arc<UpstreamLinks>) -> Arc<Self> {
        let links = Arc::new(Self {
            shelves: (0..workers).map(|_| Shelf::default()).collect(),
            open: Arc::default(),
            upstream: upstream.clone(),
            careful_until: AtomicU64::new(0),
            made: clock::now(),
            retired: AtomicBool::new(false),
        });
        let mut endpoints = upstream.endpoints();
        endpoints.retain(|known| known.strong_count() > 0);
        endpoints.push(Arc::downgrade(&links));
        drop(endpoints);
        links
    }

    /// Connections that are open or being made.
    pub(crate) fn open(&self) -> u32 {
        self.open.count()
    }

    /// Those of them on which nothing happens.
    pub(crate) fn idle(&self) -> usize {
        let idle = |shelf: &Shelf| shelf.idle().len() + shelf.h2.idle();
        self.shelves.iter().map(idle).sum()
    }

    /// A session for one request of `worker`: on a kept connection where there is one that will do.
    ///
    /// # Errors
    /// See [`DialError`].
    pub(crate) async fn connect(
        &self,
        worker: usize,
        purpose: Purpose<'_>,
        reuse: Reuse,
        now: Instant,
    ) -> Result<Connected, DialError> {
        let dialer = purpose.dialer;
        let Some(shelf) = self.shelves.get(worker) else {
            return Err(DialError::Limit(Limit::Endpoint));
        };
        match dialer.protocol() {
            conf::UpstreamProtocol::H1 => {
                if let Some((connection, rested)) = self.take(worker, dialer, reuse, now) {
                    return Ok(Connected::kept(connection, rested));
                }
                // Boxed: seldom taken, and a future is as large as its largest branch.
                Box::pin(self.open_h1(worker, purpose)).await
            }
            conf::UpstreamProtocol::H2 => {
                if let Some(session) = shelf.h2.spare(dialer, now).await {
                    return Ok(shared(session));
                }
                let work = Box::pin(self.open_h2(worker, &shelf.h2, purpose));
                timeout(dialer.connect_timeout(), work)
                    .await
                    .unwrap_or(Err(DialError::Timeout))
            }
        }
    }

    /// A kept HTTP/1.1 connection and how long it was idle, if `worker` has one that will do.
    pub(crate) fn take(
        &self,
        worker: usize,
        dialer: &Dialer,
        reuse: Reuse,
        now: Instant,
    ) -> Option<(Box<Connection>, Duration)> {
        if reuse == Reuse::Never || (reuse == Reuse::Recent && self.is_careful(now)) {
            return None;
        }
        let mut idle = self.shelves.get(worker)?.idle();
        loop {
            let rested = |one: &Idle| now.saturating_duration_since(one.since);
            // The one used last is the first.
            if reuse == Reuse::Recent && idle.back().is_none_or(|last| rested(last) >= RECENT) {
                return None;
            }
            let mut last = idle.pop_back()?;
            let rested = rested(&last);
            if last.serves(dialer, now) {
                return Some((last.connection, rested));
            }
            if rested < RECENT && !last.connection.is_quiet() {
                self.be_careful(now);
                if reuse == Reuse::Recent {
                    return None;
                }
            }
        }
    }

    /// A connection ended on which a request had gone less than [`RECENT`] before: for a while no
    /// request goes on a kept one that cannot be sent again.
    pub(crate) fn be_careful(&self, now: Instant) {
        let until = now.saturating_duration_since(self.made) + CAREFUL;
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.careful_until.store(until, Ordering::Relaxed);
    }

    fn is_careful(&self, now: Instant) -> bool {
        let until = self.careful_until.load(Ordering::Relaxed);
        until > 0 && now.saturating_duration_since(self.made).as_millis() < u128::from(until)
    }

    /// Takes it back after a whole exchange.
    pub(crate) fn put(
        &self,
        worker: usize,
        dialer: &Dialer,
        connection: Box<Connection>,
        now: Instant,
    ) {
        let Some(shelf) = self.shelves.get(worker) else {
            return;
        };
        // The endpoint did not want all of what was to be sent.
        if connection.owes() {
            return;
        }
        let one = Idle {
            connection,
            since: now,
        };
        // Whether it ended meanwhile is seen when it is taken.
        if !dialer.keep().never_again && one.fits(dialer, now) {
            shelf.put(dialer, one);
            self.keep_none_if_retired(shelf);
        }
    }

    /// A new connection, which is not kept.
    ///
    /// # Errors
    /// See [`DialError`].
    pub(crate) async fn dial(
        &self,
        worker: usize,
        to: Purpose<'_>,
    ) -> Result<Box<Connection>, DialError> {
        let slot = self.reserve(worker, to.dialer.keep())?;
        let mut connection = to.dialer.dial(to.target, to.from).await?;
        connection.hold(slot);
        Ok(connection)
    }

    async fn open_h1(&self, worker: usize, to: Purpose<'_>) -> Result<Connected, DialError> {
        self.dial(worker, to).await.map(Connected::made)
    }

    async fn open_h2(
        &self,
        worker: usize,
        shelf: &h2::Shelf,
        to: Purpose<'_>,
    ) -> Result<Connected, DialError> {
        if to.dialer.keep().never_again {
            return self.make_h2(worker, shelf, to).await;
        }
        let failures = shelf.failures_so_far();
        loop {
            // Before the look, so that what is given back after it is not missed.
            let freed = shelf.freed.notified();
            if let Some(session) = shelf.spare(to.dialer, clock::now()).await {
                return Ok(shared(session));
            }
            let turn = tokio::select! {
                biased;
                turn = shelf.connecting.lock() => turn,
                () = freed => continue,
            };
            if let Some(session) = shelf.spare(to.dialer, clock::now()).await {
                return Ok(shared(session));
            }
            if let Some(error) = shelf.failed_since(failures) {
                return Err(error);
            }
            let made = self.make_h2(worker, shelf, to).await;
            if let Err(error) = &made {
                shelf.failed(error);
            }
            drop(turn);
            return made;
        }
    }

    async fn make_h2(
        &self,
        worker: usize,
        shelf: &h2::Shelf,
        to: Purpose<'_>,
    ) -> Result<Connected, DialError> {
        let slot = self.reserve(worker, to.dialer.keep())?;
        let connection = to.dialer.dial(to.target, to.from).await?;
        let session = shelf.begin(to.dialer, connection, slot).await?;
        if let Some(shelf) = self.shelves.get(worker) {
            self.keep_none_if_retired(shelf);
        }
        Ok(Connected {
            session: Session::H2(session),
            reused: false,
            rested: Duration::ZERO,
        })
    }

    /// A place for one more connection; where there is none, an idle one is closed for it.
    fn reserve(&self, worker: usize, keep: &Keep) -> Result<Arc<Slot>, DialError> {
        let mut met = Limit::Endpoint;
        for _ in 0..TRIES {
            if !self.open.take(keep.max_connections) {
                met = Limit::Endpoint;
                if self.evict(worker) {
                    continue;
                }
                break;
            }
            let upstream = &self.upstream.open;
            if upstream.take(keep.max_total_connections) {
                let slot = Slot::taken(self.open.clone(), upstream.clone());
                return Ok(Arc::new(slot));
            }
            self.open.give();
            met = Limit::Upstream;
            if !self.upstream.evict(worker) {
                break;
            }
        }
        Err(DialError::Limit(met))
    }

    /// Closes an idle connection, `worker`'s own first.
    fn evict(&self, worker: usize) -> bool {
        let (before, from) = self.shelves.split_at(worker.min(self.shelves.len()));
        from.iter()
            .chain(before)
            .any(|shelf| shelf.evict_h1() || shelf.h2.evict())
    }

    /// Takes a session back after a whole exchange; its connection is kept where the protocol
    /// and the settings allow.
    pub(crate) async fn release(
        &self,
        worker: usize,
        dialer: &Dialer,
        session: Session,
        now: Instant,
    ) {
        let Some(shelf) = self.shelves.get(worker) else {
            return;
        };
        match session {
            Session::H1 {
                h1: mut session, ..
            } => {
                session.respect_keepalive();
                if session.will_keepalive()
                    && !session.resp_header().is_some_and(closes)
                    && let Some(stream) = session.reuse().await
                    && let Ok(connection) = stream.into_any().downcast()
                {
                    self.put(worker, dialer, connection, now);
                }
            }
            Session::H2(session) => {
                drop(session);
                shelf.h2.freed.notify_waiters();
            }
        }
    }

    /// Closes connections that were idle for too long, are too old or no longer fit; called
    /// about once a second.
    pub(crate) fn sweep(&self, dialer: &Dialer, now: Instant) {
        for shelf in &self.shelves {
            shelf.idle().retain_mut(|idle| idle.serves(dialer, now));
            shelf.h2.sweep(dialer, now);
        }
    }

    /// The endpoint is gone for good: what is idle is closed, and what is in use when its requests end,
    /// however long others refer to the set that it was in.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        for shelf in &self.shelves {
            shelf.forget();
        }
    }

    /// It is in force again, or still.
    pub(crate) fn revive(&self) {
        self.retired.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Called behind the lock under which something was put there: who retires the endpoint takes that lock
    /// after the word is out, so one of the two finds it.
    fn keep_none_if_retired(&self, shelf: &Shelf) {
        if self.is_retired() {
            shelf.forget();
        }
    }

    /// Closes all on which nothing happens: the endpoint is drained, or forced down.
    pub(crate) fn close_idle(&self) {
        for shelf in &self.shelves {
            shelf.idle().clear();
            shelf.h2.clear_idle();
        }
    }
}

/// Whether any line of Connection ends the connection (RFC 9112 section 9.6); Pingora goes by the
/// first.
fn closes(head: &ResponseHeader) -> bool {
    let lines = head.headers.get_all(header::CONNECTION);
    lines.iter().any(|line| {
        let mut options = line.as_bytes().split(|&byte| byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}

fn shared(session: H2Stream) -> Connected {
    Connected {
        session: Session::H2(session),
        reused: true,
        rested: Duration::ZERO,
    }
}

impl Shelf {
    /// The lock is this worker's alone but for sweeps and evictions; nothing is awaited under it.
    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, dialer: &Dialer, one: Idle) {
        let mut idle = self.idle();
        if idle.len() < dialer.keep().max_idle {
            idle.push_back(one);
        }
    }

    /// Keeps none for requests to come.
    fn forget(&self) {
        self.idle().clear();
        self.h2.forget();
    }

    /// Closes the one that has been idle for longest.
    fn evict_h1(&self) -> bool {
        self.idle().pop_front().is_some()
    }
}

impl Idle {
    /// Whether a request may go over it.
    fn serves(&mut self, dialer: &Dialer, now: Instant) -> bool {
        self.fits(dialer, now)
            && !dialer.keep().is_stale(self.since, now)
            && self.connection.is_quiet()
    }

    /// Whether it is what would be made now.
    fn fits(&self, dialer: &Dialer, now: Instant) -> bool {
        self.connection.wire() == dialer.wire()
            && !dialer.keep().is_old(self.connection.born(), now)
    }
}
