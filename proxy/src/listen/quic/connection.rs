//! One QUIC connection from its first packet to its end.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::Method;
use http::header::{self, HeaderMap, HeaderValue};
use pingora::protocols::Digest;
use pingora::protocols::http::ServerSession;
use quinn::{Connecting, Connection, ConnectionStats, RecvStream, SendStream, ZeroRttAccepted};
use rustls::pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};
use tokio::time::{Sleep, sleep_until, timeout};

use super::Early;
use super::control::{self, Seen};
use super::session;
use super::settings::Quic;
use super::socket::Handshake;
use super::stream::{Fault, Reader, Writer};
use super::tally::{self, Ending, Open, Tally};
use super::wire::code::Code;
use super::wire::settings::{goaway, sign_of_life};
use crate::carry::{Carrier, Refused};
use crate::clock;
use crate::exchange::priority::Wish;
use crate::exchange::websocket;
use crate::listen::ClientCert;
use crate::listen::conn::{ConnInfo, conn_info};
use crate::listen::limits::{ListenerSettings, Slot};
use crate::listen::serve::{MOST_MALFORMED_STREAMS, begins};
use crate::observe::Protocol;
use crate::observe::metrics::TlsHandshake;

/// How often it is looked at what QUIC took.
const LOOK: Duration = Duration::from_secs(5);

/// How long it is waited for the word that a request without a length has no body.
const END_TIME: Duration = Duration::from_millis(250);

/// How long a client that is told to leave may go on: at least, at most.
const LAST_CALL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Messages that may wait for room on the control stream.
const MOST_WAITING: usize = 8;

/// How long a refusal may take to be written.
const REFUSAL: Duration = Duration::from_secs(5);

/// The largest id that a request's stream can have (RFC 9114 section 5.2).
const LAST_ID: u64 = (1 << 62) - 4;

/// What a connection is served with.
pub(super) struct Surroundings {
    pub(super) slot: Slot,
    pub(super) settings: Arc<ListenerSettings>,
    pub(super) quic: Arc<Quic>,
    pub(super) carrier: Arc<Carrier>,
    /// Turns true when the listener, or the process, ends.
    pub(super) leaving: watch::Receiver<bool>,
    pub(super) handshake: Handshake,
    /// The client has shown before that it gets what is sent to its address (RFC 9000 section 8.1).
    pub(super) is_proven: bool,
}

/// Serves a connection until it is closed.
pub(super) async fn serve(connecting: Connecting, surroundings: Surroundings) {
    let Surroundings {
        slot,
        settings,
        quic,
        carrier,
        mut leaving,
        handshake,
        is_proven,
    } = surroundings;
    let deadline = clock::now() + settings.limits.header_timeout;
    let (connection, early) = match begin(connecting, quic.early_data, deadline).await {
        Ok(begun) => begun,
        Err(why) => {
            if why == TlsHandshake::Timeout {
                slot.listener()
                    .noticed("handshake_timeout", slot.peer().ip());
            }
            return settings.metrics.handshake(why);
        }
    };
    let (control, messages) = mpsc::channel(MOST_WAITING);
    tokio::spawn(control::speak(
        connection.clone(),
        settings.limits.max_header_size,
        settings.limits.header_timeout,
        messages,
    ));
    let now = clock::now();
    let ending = Ending {
        connection,
        tally: Tally::new(slot.listener().clone()),
    };
    let mut live = Live {
        digest: digest(&ending.connection, &slot),
        idle_until: now + settings.limits.idle_timeout,
        sign_at: now + sign_every(settings.limits.idle_timeout),
        look_at: now + LOOK,
        looked: ending.connection.stats(),
        handshake: Some((handshake, deadline)),
        is_proven: is_proven || early.is_none(),
        held: Vec::new(),
        next_id: 0,
        goodbye: Goodbye::Not,
        seen: Arc::default(),
        ending,
        slot,
        settings,
        carrier,
        control,
    };
    let mut early = pin!(established(early));
    let mut timer = pin!(sleep_until(live.due().into()));
    let mut calls = live.carrier.load().calls();
    loop {
        tokio::select! {
            biased;
            accepted = live.ending.connection.accept_bi() => match accepted {
                Ok((send, recv)) => live.opened(send, recv),
                Err(_) => break,
            },
            accepted = live.ending.connection.accept_uni() => match accepted {
                Ok(stream) => {
                    let listening = control::listen(live.ending.clone(), stream, live.seen.clone());
                    drop(tokio::spawn(listening));
                }
                Err(_) => break,
            },
            () = &mut early, if live.handshake.is_some() => match live.ending.connection.close_reason() {
                None => live.established(),
                Some(_) => break,
            },
            () = begins(&mut leaving), if live.goodbye == Goodbye::Not => live.leave(),
            () = sheds(&live.carrier, &mut calls), if live.goodbye == Goodbye::Not && live.next_id > 0 => live.leave(),
            () = live.ending.tally.quiet(), if live.goodbye == Goodbye::Said => break,
            () = timer.as_mut() => {
                if live.tick() {
                    break;
                }
            }
        }
        reset(timer.as_mut(), live.due());
    }
    live.end().await;
}

/// Waits until connections that have served are to end, as there is more to do than can be done.
async fn sheds(carrier: &Carrier, calls: &mut watch::Receiver<u32>) {
    while !carrier.load().shedding().ends_connections() {
        if calls.changed().await.is_err() {
            // Nobody is left who could say so.
            std::future::pending::<()>().await;
        }
    }
}

/// Only to an earlier moment: a later one is set when it fires.
fn reset(timer: Pin<&mut Sleep>, due: Instant) {
    if timer.is_elapsed() || due < timer.deadline().into_std() {
        timer.reset(due.into());
    }
}

/// Waits for the handshake, if what comes before its end is not wanted.
async fn begin(
    connecting: Connecting,
    early_data: bool,
    deadline: Instant,
) -> Result<(Connection, Option<ZeroRttAccepted>), TlsHandshake> {
    let connecting = match early_data {
        false => connecting,
        true => match connecting.into_0rtt() {
            Ok((connection, accepted)) => return Ok((connection, Some(accepted))),
            Err(connecting) => connecting,
        },
    };
    let patience = deadline.saturating_duration_since(clock::now());
    match timeout(patience, connecting).await {
        Ok(Ok(connection)) => Ok((connection, None)),
        Ok(Err(_)) => Err(TlsHandshake::Failed),
        Err(_) => Err(TlsHandshake::Timeout),
    }
}

/// Waits until the handshake has come to its end, a good one or not.
async fn established(early: Option<ZeroRttAccepted>) {
    if let Some(early) = early {
        // Whether early data came; not whether there is a connection.
        early.await;
    }
}

/// How far the connection's end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    Not,
    /// The client was asked to leave; what it has sent until then is served.
    LastCall(Instant),
    /// It knows what is served and what is not (RFC 9114 section 5.2).
    Said,
}

/// A connection under way.
struct Live {
    ending: Ending,
    /// Counts it.
    slot: Slot,
    settings: Arc<ListenerSettings>,
    carrier: Arc<Carrier>,
    /// What its requests know of it.
    digest: Arc<Digest>,
    seen: Arc<Seen>,
    control: mpsc::Sender<BytesMut>,
    /// Until it is done, and by when it must be.
    handshake: Option<(Handshake, Instant)>,
    /// Whose address it is that the client's packets bear is known; at the latest when the handshake is done.
    is_proven: bool,
    /// Requests that came before that.
    held: Vec<(SendStream, RecvStream)>,
    idle_until: Instant,
    sign_at: Instant,
    /// When QUIC's frames are looked at next, and what they were.
    look_at: Instant,
    looked: ConnectionStats,
    /// Of the first stream that was not taken.
    next_id: u64,
    goodbye: Goodbye,
}

impl Live {
    fn established(&mut self) {
        self.handshake = None;
        self.is_proven = true;
        self.settings.metrics.handshake(TlsHandshake::Ok);
        for (send, recv) in std::mem::take(&mut self.held) {
            self.request(send, recv);
        }
    }

    /// A stream for a request was opened. With a forged address, early data could ask for what only that
    /// address may have, and in the name of a trusted proxy: so it waits for the handshake, unless the client
    /// brought what it was given for the next time (RFC 9000 section 8.1.3).
    fn opened(&mut self, send: SendStream, recv: RecvStream) {
        match self.is_proven {
            true => self.request(send, recv),
            false => self.held.push((send, recv)),
        }
    }

    fn request(&mut self, mut send: SendStream, mut recv: RecvStream) {
        let id = u64::from(send.id());
        if self.goodbye == Goodbye::Said && id >= self.next_id {
            // The client may send it again, to whom it wants.
            let _ = send.reset(Code::RequestRejected.into());
            let _ = recv.stop(Code::RequestRejected.into());
            return self.ending.put(-tally::REQUEST);
        }
        if self.is_a_nuisance() {
            return self.ending.end_for("h3_malformed");
        }
        let (open, served) = self.ending.tally.open(id);
        self.ending.put(tally::REQUEST);
        self.next_id = self.next_id.max(id + 4);
        self.idle_until = clock::now() + self.settings.limits.idle_timeout;
        self.follow_client();
        let request = Request {
            carrier: self.carrier.clone(),
            digest: self.digest.clone(),
            settings: self.settings.clone(),
            ending: self.ending.clone(),
            open,
        };
        tokio::spawn(request.serve(send, recv));
        if served >= self.settings.limits.max_requests_per_connection.get() {
            self.say_goodbye();
        }
    }

    /// Requests that were malformed were answered; who sends many is cut off.
    fn is_a_nuisance(&self) -> bool {
        let malformed =
            info_of(&self.digest).map_or(0, |info| info.malformed.load(Ordering::Relaxed));
        malformed > MOST_MALFORMED_STREAMS
    }

    /// A client may have gone to another address (RFC 9000 section 9). Only another port is believed: the
    /// address is the one on the last packet, which anybody can write, and whether that path was validated is
    /// not to be known here. So who a client was when its connection began, it is until the end.
    fn follow_client(&mut self) {
        let Some(info) = info_of(&self.digest) else {
            return;
        };
        let peer = self.ending.connection.remote_address();
        if info.peer != peer && info.peer.ip() == peer.ip() {
            self.digest = digest_of(info.moved(peer));
        }
    }

    /// Asks the client to leave. What is on its way until it hears of it is served.
    fn leave(&mut self) {
        self.tell(goaway(LAST_ID));
        let patience = (self.ending.connection.rtt() * 2).clamp(LAST_CALL.0, LAST_CALL.1);
        self.goodbye = Goodbye::LastCall(clock::now() + patience);
    }

    fn say_goodbye(&mut self) {
        self.tell(goaway(self.next_id));
        self.goodbye = Goodbye::Said;
    }

    fn tell(&self, message: BytesMut) {
        // Whoever writes it is gone only with the connection. Where so many wait, the client takes none.
        let _ = self.control.try_send(message);
    }

    /// When there is something to do next.
    fn due(&self) -> Instant {
        let mut due = self.idle_until.min(self.sign_at).min(self.look_at);
        if let Some((_, deadline)) = &self.handshake {
            due = due.min(*deadline);
        }
        if let Goodbye::LastCall(at) = self.goodbye {
            due = due.min(at);
        }
        due
    }

    /// Does what is due; true: the connection is over.
    fn tick(&mut self) -> bool {
        let now = clock::now();
        let idle = self.settings.limits.idle_timeout;
        if let Some((_, deadline)) = &self.handshake
            && now >= *deadline
        {
            self.handshake = None;
            let slot = &self.slot;
            slot.listener()
                .noticed("handshake_timeout", slot.peer().ip());
            self.settings.metrics.handshake(TlsHandshake::Timeout);
            return true;
        }
        if let Goodbye::LastCall(at) = self.goodbye
            && now >= at
        {
            self.say_goodbye();
        }
        if now >= self.look_at {
            self.look_at = now + LOOK;
            self.ending.weigh_packets(&mut self.looked);
        }
        let is_busy = self.ending.tally.is_busy();
        if now >= self.sign_at {
            self.sign_at = now + sign_every(idle);
            // While a reply is waited for nothing is sent either way, and QUIC closes what is
            // silent. One of the two has to break the silence.
            if is_busy {
                self.tell(sign_of_life());
            }
        }
        if now >= self.idle_until {
            let rested_from = self.ending.tally.over_at().filter(|_| !is_busy);
            self.idle_until = match rested_from {
                Some(from) if from + idle > now => from + idle,
                _ if is_busy => now + idle,
                _ => return true,
            };
        }
        false
    }

    async fn end(self) {
        if self.handshake.is_some() {
            self.settings.metrics.handshake(TlsHandshake::Failed);
        }
        self.ending.connection.close(Code::None.into(), b"");
        // So that the last packet leaves before this connection counts as closed, which may be the
        // end of the process: whoever sends it is a task of the same thread.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
}

/// What a request's task needs.
struct Request {
    carrier: Arc<Carrier>,
    digest: Arc<Digest>,
    settings: Arc<ListenerSettings>,
    ending: Ending,
    /// Counts it among those that are under way.
    open: Open,
}

impl Request {
    async fn serve(self, send: SendStream, recv: RecvStream) {
        let limits = &self.settings.limits;
        let mut reader = Reader::new(recv, limits.max_header_size, self.ending.clone());
        let mut writer = Writer::new(send, self.open.rank.clone());
        let begun = async {
            let mut head = reader.head().await?;
            if head.method == Method::CONNECT {
                // What has ended already cannot carry one.
                if let Ok(looked) = timeout(Duration::ZERO, reader.look_ahead()).await {
                    looked?;
                }
                websocket::enter(&mut head, reader.is_done());
                if websocket::is_on_stream(&head.extensions) {
                    reader.carries_tunnel();
                }
            } else if !has_body(&head) {
                // Where the word does not come, there may be one.
                if let Ok(looked) = timeout(END_TIME, reader.look_ahead()).await {
                    looked?;
                }
            }
            if reader.is_early() {
                head.extensions.insert(Early);
            }
            Ok(head)
        };
        let head = match timeout(limits.header_timeout, begun).await {
            Ok(Ok(head)) => head,
            Ok(Err(Fault::Malformed(reject))) => {
                return self
                    .refuse(reader, writer, Refused::Malformed(reject))
                    .await;
            }
            Err(_) => return self.refuse(reader, writer, Refused::HeadTimeout).await,
            Ok(Err(Fault::Connection(code))) => return self.ending.end_connection(code),
            Ok(Err(Fault::Cut)) => {
                self.ending.given_up();
                return writer.abandon(Code::RequestIncomplete);
            }
            Ok(Err(Fault::Gone)) => return self.ending.given_up(),
        };
        self.open.rank.asked(Wish::of(&head.headers));
        let delivered = writer.left();
        let (patience, rate) = (limits.idle_timeout, limits.min_rate);
        let (rank, connection) = (self.open.rank.clone(), self.ending.connection.clone());
        let streams = (reader, writer);
        let Some(session) = session::session(head, streams, self.digest, self.ending) else {
            return;
        };
        let session = ServerSession::new_custom(Box::new(session));
        self.carrier.serve(session, false, None).await;
        // A connection that is closed takes with it what is not delivered, so a reply counts as under
        // way until it is. Of one that was reset there is nothing to wait for, nor is its end told.
        if !rank.is_abandoned() {
            fetched(&connection, delivered, patience, rate).await;
        }
    }

    /// Answers what never becomes a request.
    async fn refuse(self, mut reader: Reader, mut writer: Writer, refused: Refused) {
        let Some(info) = info_of(&self.digest) else {
            return;
        };
        if let Refused::Malformed(_) = refused {
            info.malformed.fetch_add(1, Ordering::Relaxed);
            // RFC 9114 section 4.1.2.
            reader.part_with(Code::Message);
        }
        let body = self.carrier.refuse_stream(info, refused, Protocol::Http3);
        let mut fields = HeaderMap::new();
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        fields.insert(header::CONTENT_TYPE, text);
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let written = async {
            writer.head(refused.status(), &fields);
            writer.flush().await?;
            writer.data(body.into());
            writer.flush().await
        };
        if let Ok(Ok(())) = timeout(REFUSAL, written).await {
            writer.end();
            drop(reader);
            let _ = timeout(REFUSAL, writer.left()).await;
        }
    }
}

/// Between two signs of life: clients may have less patience than the listener, and few have less than
/// half a minute.
fn sign_every(idle: Duration) -> Duration {
    (idle / 3).min(Duration::from_secs(10))
}

/// Waits until the client has `delivered` all, as long as the connection takes at least `rate` octets a
/// second: so long a line may be slow, and no longer may a client hold what it does not fetch.
async fn fetched(
    connection: &Connection,
    delivered: impl Future,
    patience: Duration,
    rate: Option<NonZeroU64>,
) {
    // Signs of life are some tens of octets.
    let rate = rate.map_or(SLOWEST, NonZeroU64::get);
    let least = rate.saturating_mul(patience.as_secs().max(1));
    let mut delivered = pin!(delivered);
    loop {
        let before = connection.stats().udp_tx.bytes;
        let is_delivered = timeout(patience, &mut delivered).await.is_ok();
        if is_delivered || connection.stats().udp_tx.bytes - before < least {
            return;
        }
    }
}

/// Octets a second, where there is no `min_rate`.
const SLOWEST: u64 = 100;

/// Whether a body is expected, so that nothing is gained by waiting for it.
fn has_body(head: &http::request::Parts) -> bool {
    head.headers.contains_key(header::CONTENT_LENGTH)
        || matches!(head.method, Method::POST | Method::PUT | Method::PATCH)
}

/// What requests know of their connection.
fn digest(connection: &Connection, slot: &Slot) -> Arc<Digest> {
    let address = slot.listener().address;
    let local = connection
        .local_ip()
        .map_or(address, |ip| SocketAddr::new(ip, address.port()));
    digest_of(ConnInfo::new(
        slot,
        local,
        Some("TLSv1.3"),
        client_cert(connection),
    ))
}

fn digest_of(info: ConnInfo) -> Arc<Digest> {
    Arc::new(Digest {
        proxy_digest: Arc::new(info).digest(),
        ..Digest::default()
    })
}

/// The certificate of a client that was asked for one; early data is not taken from such clients, so
/// that the handshake is done.
fn client_cert(connection: &Connection) -> Option<Arc<ClientCert>> {
    let chain = connection.peer_identity()?;
    let chain = chain.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    ClientCert::new(chain.first()?).map(Arc::new)
}

fn info_of(digest: &Digest) -> Option<&Arc<ConnInfo>> {
    digest.proxy_digest.as_deref().and_then(conn_info)
}
