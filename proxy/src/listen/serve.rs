//! One connection from its accept to its end.
//!
//! HTTP/1 connections wait here between requests: the head is read whole,
//! under one deadline, and checked before anything else sees it. The lane may
//! answer at once; else the connection is lent to the carrier for that
//! request alone. HTTP/2 connections
//! are accepted here too, stream by stream, so that limits, idle time and the
//! drain are ours.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::h2::Reason;
use ::h2::server::Connection as H2Connection;
use arc_swap::Guard;
use bytes::Bytes;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, handshake};
use pingora::protocols::{Digest, Stream};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::coop::unconstrained;
use tokio::time::{Sleep, sleep_until, timeout};

use super::announced::{self, NotAnnounced};
use super::conn::{Conn, ConnInfo, conn_info};
use super::drain::{self, Drain};
use super::h2;
use super::limits::{ListenerSettings, Slot};
use super::tls::Records;
use crate::carry::{Carrier, Going, LaneStream, Pending, Refused, Taken, TakenStream};
use crate::clock;
use crate::exchange::guard::{self, HeadFacts, Inspect, Reject};
use crate::observe::metrics::TlsHandshake;

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Malformed streams that a connection survives.
pub(super) const MOST_MALFORMED_STREAMS: u32 = 100;

/// Bytes of one stream's request body that HTTP/2 clients may send unasked.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same for all streams of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves `socket` until it is closed.
pub(crate) async fn serve(socket: TcpStream, slot: Slot, carrier: Arc<Carrier>) {
    let settings = slot.listener().settings.load_full();
    let Some(conn) = open(socket, slot, &settings, &carrier).await else {
        return;
    };
    if conn.speaks_h2() {
        Box::pin(serve_h2(conn, settings, carrier)).await;
    } else {
        serve_h1(conn, settings, carrier).await;
    }
}

/// Gets as far as the first request; `None`: there will be none here. What that needs is given back
/// with it, and what is rare in it is boxed: connections are as large as the largest state of theirs.
async fn open(
    mut socket: TcpStream,
    mut slot: Slot,
    settings: &ListenerSettings,
    carrier: &Carrier,
) -> Option<Box<Conn>> {
    if settings.is_announced(slot.peer().ip()) {
        (socket, slot) = Box::pin(announced(socket, slot, settings)).await?;
    }
    let mut heard = Vec::new();
    if let Some(forward) = &settings.forward {
        (socket, heard) = Box::pin(carrier.forwarded(socket, &slot, settings, forward)).await?;
    }
    let records = match &settings.tls {
        None => None,
        Some(config) => match Records::new(config.clone()) {
            Ok(records) => Some(records),
            Err(error) => {
                tracing::error!(listener = settings.name, %error, "TLS connection not started");
                return None;
            }
        },
    };
    let mut conn = Box::new(Conn::new(
        socket,
        records,
        slot,
        settings.limits.body_timeout,
    ));
    if settings.tls.is_some() {
        let client = conn.slot().peer().ip();
        let listener = conn.slot().listener();
        if let Err(refusal) = listener.may_shake_hands(client) {
            listener.refused(refusal.as_str(), client);
            return None;
        }
        if !handshake_done(&mut conn, heard, settings).await {
            return None;
        }
    }
    if conn.was_validation() {
        conn.close().await;
        return None;
    }
    conn.know();
    Some(conn)
}

/// A balancer's header is read before anything else; `None`: it is not there, or names a client who
/// has too many connections.
async fn announced(
    mut socket: TcpStream,
    mut slot: Slot,
    settings: &ListenerSettings,
) -> Option<(TcpStream, Slot)> {
    let balancer = slot.peer();
    let read = announced::read(&mut socket, balancer);
    let (reason, detail) = match timeout(settings.limits.header_timeout, read).await {
        Ok(Ok((client, via))) => match slot.announce(client, via) {
            Ok(()) => return Some((socket, slot)),
            Err(refusal) => (refusal.as_str(), None),
        },
        // A balancer that looks whether the port is open says nothing.
        Ok(Err(NotAnnounced::Silent)) => return None,
        Ok(Err(error)) => ("proxy_header", Some(error.to_string())),
        Err(_) => ("proxy_header_timeout", None),
    };
    slot.listener().refused(reason, slot.peer().ip());
    tracing::debug!(listener = settings.name, %balancer, reason, detail, "connection refused");
    None
}

/// The whole handshake has the time that a request head has.
async fn handshake_done(conn: &mut Conn, heard: Vec<u8>, settings: &ListenerSettings) -> bool {
    conn.set_deadline(Some(clock::now() + settings.limits.header_timeout));
    let result = match conn.take_heard(heard) {
        Ok(()) => conn.handshake().await,
        Err(error) => Err(error),
    };
    if result.is_err() && conn.ended() && !conn.heard() {
        // A port that was looked at and left is no failed handshake.
        return false;
    }
    settings.metrics.handshake(match &result {
        Ok(()) => TlsHandshake::Ok,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => TlsHandshake::Timeout,
        Err(_) => TlsHandshake::Failed,
    });
    if let Err(error) = result {
        let slot = conn.slot();
        if error.kind() == io::ErrorKind::TimedOut {
            slot.listener()
                .noticed("handshake_timeout", slot.peer().ip());
        }
        tracing::debug!(peer = %slot.peer(), %error, "TLS handshake failed");
        return false;
    }
    !conn.ended()
}

/// What the wait for a request came to.
enum Next {
    Request(HeadFacts),
    H2,
    Refuse(Refused),
    /// The client ended the connection, or was idle for too long: nothing to say.
    Quiet,
}

async fn serve_h1(mut conn: Box<Conn>, mut settings: Arc<ListenerSettings>, carrier: Arc<Carrier>) {
    let listener = conn.slot().listener().clone();
    let mut served: u32 = 0;
    let mut over: Option<Instant> = None;
    let calls = pin!(drain::calls(carrier.load().calls()));
    let mut drain = Drain::new(&carrier, calls);
    loop {
        match next(&mut conn, &settings, (served == 0, over.take()), &mut drain).await {
            Next::Request(mut facts) => {
                served += 1;
                let last = served >= settings.limits.max_requests_per_connection.get()
                    || carrier.ends_connections();
                drain.is_served = true;
                let left = match carrier.take(&mut conn, &mut facts, last, &settings).await {
                    Taken::Served(now) => {
                        over = Some(now);
                        None
                    }
                    Taken::Last => return conn.close().await,
                    Taken::Broken => return,
                    Taken::Begun(pending) => Some(Some(pending)),
                    Taken::No => Some(None),
                };
                if let Some(pending) = left {
                    match Box::pin(lend(conn, &facts, last, &carrier, pending)).await {
                        Some(back) => conn = back,
                        None => return,
                    }
                }
            }
            Next::H2 => {
                conn.set_h2();
                return Box::pin(serve_h2(conn, settings, carrier)).await;
            }
            Next::Refuse(refused) => return refuse(&mut conn, &carrier, refused).await,
            Next::Quiet => return conn.close().await,
        }
        let in_force = listener.settings.load();
        if !Arc::ptr_eq(&in_force, &settings) {
            settings = Guard::into_inner(in_force);
        }
    }
}

/// Waits until a whole request head is there. `now`: the time, if the clock was just asked.
async fn next(
    conn: &mut Conn,
    settings: &ListenerSettings,
    (first, mut now): (bool, Option<Instant>),
    drain: &mut Drain<'_, impl Future<Output = ()>>,
) -> Next {
    let limits = &settings.limits;
    let mut head_deadline: Option<Instant> = None;
    let mut last_call: Option<Instant> = None;
    let mut inspected_to = 0;
    loop {
        let waiting = conn.waiting();
        let worth_a_look = waiting.len() > limits.max_header_size
            || memchr::memchr(b'\n', &waiting[inspected_to.min(waiting.len())..]).is_some();
        if worth_a_look {
            if first && settings.h2 && waiting.starts_with(b"PRI * HTTP/2.0\r\n") {
                if waiting.len() >= PREFACE.len() {
                    return match waiting.starts_with(PREFACE) {
                        true => Next::H2,
                        false => Next::Refuse(Refused::Preface),
                    };
                }
            } else {
                match guard::inspect(waiting, limits.max_header_size) {
                    Inspect::Head(_) if !settings.h1 => return Next::Refuse(Refused::ProtocolOff),
                    Inspect::Head(facts) if facts.fields > limits.max_headers => {
                        return Next::Refuse(Refused::Malformed(Reject::TooManyFields));
                    }
                    Inspect::Head(facts) => return Next::Request(facts),
                    Inspect::Reject(reject) => return Next::Refuse(Refused::Malformed(reject)),
                    Inspect::Partial => {}
                }
            }
        }
        inspected_to = waiting.len();
        let idle = waiting.is_empty();
        if conn.ended() {
            return Next::Quiet;
        }
        let deadline = match (idle, head_deadline) {
            (true, _) if first => clock::now() + limits.header_timeout,
            (true, _) => match last_call {
                None => now.take().unwrap_or_else(clock::now) + limits.idle_timeout,
                Some(until) => until.min(clock::now() + limits.idle_timeout),
            },
            (false, Some(deadline)) => deadline,
            (false, None) => *head_deadline.insert(clock::now() + limits.header_timeout),
        };
        conn.set_deadline(Some(deadline));
        let read = poll_fn(|cx| match conn.poll_more_in_time(cx) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            // A connection without a request has nothing to wait for in a drain.
            Poll::Pending if idle && last_call.is_none() => drain.poll(cx).map(|()| None),
            Poll::Pending => Poll::Pending,
        });
        match read.await {
            None => match drain.last_call() {
                None => return Next::Quiet,
                // Its client cannot know that the process has changed, and may be about to send.
                until => last_call = until,
            },
            Some(Ok(_)) => {}
            Some(Err(error)) if error.kind() == io::ErrorKind::TimedOut && !idle => {
                return Next::Refuse(Refused::HeadTimeout);
            }
            Some(Err(_)) => return Next::Quiet,
        }
    }
}

/// One request through Pingora; gives the connection back when another may follow.
async fn lend(
    mut conn: Box<Conn>,
    facts: &HeadFacts,
    last: bool,
    carrier: &Arc<Carrier>,
    pending: Option<Box<Pending>>,
) -> Option<Box<Conn>> {
    let under_way = pending.as_ref().is_some_and(|it| it.is_under_way());
    conn.lend(facts, under_way);
    let mut session = ServerSession::new_http1(conn as Stream);
    // The seconds only matter to Pingora's own wait between requests, which never happens.
    session.set_keepalive(Some(60));
    let last = last || !facts.keep_alive;
    let stream = carrier.serve(session, last, pending).await?;
    let conn = stream.into_any().downcast::<Conn>().ok()?;
    conn.request_is_read().then_some(conn)
}

/// Answers what never becomes a request, and closes.
async fn refuse(conn: &mut Conn, carrier: &Carrier, refused: Refused) {
    let reply = carrier.refuse(conn.slot(), refused);
    conn.set_deadline(Some(clock::now() + Duration::from_secs(5)));
    if conn.write_reply(&reply).await.is_ok() {
        conn.close().await;
    }
}

async fn serve_h2(mut conn: Box<Conn>, settings: Arc<ListenerSettings>, carrier: Arc<Carrier>) {
    let limits = &settings.limits;
    let digest = Arc::new(Digest {
        proxy_digest: conn.digest(),
        ..Digest::default()
    });
    if let Some(rate) = limits.max_control_frame_rate {
        conn.count_frames(rate);
    }
    let handshake = handshake(conn as Stream, Some(h2_options(limits)));
    let Ok(Ok(mut h2)) = timeout(limits.header_timeout, handshake).await else {
        return;
    };
    let active = Arc::new(());
    let calls = pin!(drain::calls(carrier.load().calls()));
    let mut drain = Drain::new(&carrier, calls);
    let mut is_leaving = false;
    let mut last_call = None;
    let mut idle = Idle::new(limits.idle_timeout);
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(accepted) = h2.poll_accept(cx) {
                return Poll::Ready(match accepted {
                    Some(Ok((request, reply))) => {
                        Event::Stream(Box::new(LaneStream::new(request, reply)))
                    }
                    Some(Err(error)) if error.is_library() => Event::End(error.reason()),
                    Some(Err(_)) | None => Event::End(None),
                });
            }
            if let Some(info) = info(&digest)
                && info.flooded.load(Ordering::Relaxed)
            {
                return Poll::Ready(Event::Flood);
            }
            if !is_leaving && drain.poll(cx).is_ready() {
                // Where it was accepted just before another process took over, a first request is on its
                // way.
                let called = drain
                    .last_call()
                    .filter(|_| !drain.is_served)
                    .is_none_or(|at| {
                        let call =
                            last_call.get_or_insert_with(|| Box::pin(sleep_until(at.into())));
                        call.as_mut().poll(cx).is_ready()
                    });
                if called {
                    return Poll::Ready(Event::Drain);
                }
            }
            idle.poll(cx).map(|()| Event::Idle)
        });
        match event.await {
            // Malformed ones were answered; who sends many of them is cut off.
            Event::Stream(_) if malformed(&digest) > MOST_MALFORMED_STREAMS => {
                refused(&digest, "h2_malformed");
                h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                return say_goodbye(h2).await;
            }
            Event::Flood => {
                refused(&digest, "h2_control_frames");
                h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                return say_goodbye(h2).await;
            }
            Event::Stream(stream) => {
                drain.is_served = true;
                dispatch(stream, &carrier, &digest, &active);
                idle.restart();
            }
            // The library found that it was attacked, and said so to the client.
            Event::End(Some(Reason::ENHANCE_YOUR_CALM)) => return refused(&digest, "h2_abuse"),
            Event::End(_) => return,
            Event::Drain => {
                // GOAWAY, then what is open is served to its end (RFC 9113 section 6.8).
                h2.graceful_shutdown();
                is_leaving = true;
            }
            Event::Idle if Arc::strong_count(&active) > 1 => idle.restart(),
            Event::Idle => {
                h2.abrupt_shutdown(Reason::NO_ERROR);
                return say_goodbye(h2).await;
            }
        }
    }
}

/// What a connection of HTTP/2 waits for.
enum Event {
    Stream(Box<LaneStream>),
    /// The client ended the connection, or broke it; what the library called that.
    End(Option<Reason>),
    /// Its frames give work and have none.
    Flood,
    Drain,
    /// For so long no stream came.
    Idle,
}

/// Lets the GOAWAY out, for a client that still reads.
async fn say_goodbye(mut h2: H2Connection<Stream, Bytes>) {
    let _ = timeout(GOODBYE, h2.accept()).await;
}

/// Longer than what a connection lingers.
const GOODBYE: Duration = Duration::from_secs(2);

/// Counts a connection that is ended for this reason.
fn refused(digest: &Digest, reason: &'static str) {
    if let Some(info) = info(digest) {
        info.listener.refused(reason, info.peer.ip());
    }
}

fn info(digest: &Digest) -> Option<&Arc<ConnInfo>> {
    digest.proxy_digest.as_deref().and_then(conn_info)
}

/// The time without a new stream. Its timer is set anew when it fires, not for each stream, and
/// asked when it is set: a connection stays in its task.
struct Idle {
    timer: Pin<Box<Sleep>>,
    is_set: bool,
    patience: Duration,
    until: Instant,
}

impl Idle {
    fn new(patience: Duration) -> Self {
        let until = clock::now() + patience;
        Self {
            timer: Box::pin(sleep_until(until.into())),
            is_set: false,
            patience,
            until,
        }
    }

    fn restart(&mut self) {
        self.until = clock::now() + self.patience;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_set && !self.timer.is_elapsed() {
            return Poll::Pending;
        }
        self.is_set = true;
        loop {
            // See [`Drain::poll`].
            ready!(Pin::new(&mut unconstrained(self.timer.as_mut())).poll(cx));
            if clock::now() >= self.until {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.until.into());
        }
    }
}

/// Waits for the drain.
pub(super) async fn begins(draining: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could begin one: the process ends.
    let _ = draining.wait_for(|draining| *draining).await;
}

fn h2_options(limits: &conf::Limits) -> H2Options {
    let mut options = H2Options::new();
    options
        .max_concurrent_streams(limits.max_concurrent_streams.get())
        .max_header_list_size(u32::try_from(limits.max_header_size).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_reset_streams(limits.max_concurrent_streams.get() as usize)
        .max_pending_accept_reset_streams(20)
        .max_send_buffer_size(256 * 1024)
        // For WebSockets (RFC 8441 section 3).
        .enable_connect_protocol();
    options
}

/// Requests of this connection that were refused as malformed.
fn malformed(digest: &Digest) -> u32 {
    info(digest).map_or(0, |info| info.malformed.load(Ordering::Relaxed))
}

/// Serves a stream: at once, or in a task of its own.
fn dispatch(
    stream: Box<LaneStream>,
    carrier: &Arc<Carrier>,
    digest: &Arc<Digest>,
    active: &Arc<()>,
) {
    let taken = match info(digest) {
        Some(info) => carrier.take_stream(stream, info),
        None => TakenStream::No(stream),
    };
    let task = Task {
        carrier: carrier.clone(),
        digest: digest.clone(),
        _active: active.clone(),
    };
    match taken {
        TakenStream::Served => {}
        TakenStream::No(stream) => drop(tokio::spawn(task.serve(stream, None))),
        TakenStream::Begun(going) => drop(tokio::spawn(task.go_on(going))),
    }
}

/// What a stream's task needs.
struct Task {
    carrier: Arc<Carrier>,
    digest: Arc<Digest>,
    /// Counts it among those that are under way.
    _active: Arc<()>,
}

impl Task {
    async fn serve(self, stream: Box<LaneStream>, pending: Option<Box<Pending>>) {
        let Some(session) = h2::session(*stream, self.digest.clone()) else {
            return;
        };
        let session = ServerSession::new_custom(Box::new(session));
        self.carrier.serve(session, false, pending).await;
    }

    async fn go_on(self, going: Box<Going>) {
        if let Some((stream, pending)) = self.carrier.go_on(going).await {
            // Boxed: most tasks end before, and need no room for it.
            Box::pin(self.serve(stream, Some(pending))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Idle connections are the most of what a busy edge holds. What is rare is boxed, and what only
    /// some need is made when they do.
    #[test]
    fn an_idle_connection_is_small() {
        // With the runtime's 144 bytes the next size of the allocator's.
        assert!(size(serve) <= 880, "a task: {}", size(serve));
        let conn = size_of::<Conn>();
        assert!(conn <= 384, "a connection: {conn}");
        let info = size_of::<ConnInfo>();
        assert!(info <= 240, "what is known of one: {info}");
    }
}
