//! One QUIC connection from its first packet to its end.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::Method;
use http::header::{self, HeaderMap, HeaderValue};
use pingora::http::ResponseHeader;
use pingora::protocols::Digest;
use pingora::protocols::http::ServerSession;
use pingora::protocols::raw_connect::ProxyDigest;
use quinn::{Connecting, Connection, RecvStream, SendStream, ZeroRttAccepted};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Sleep, sleep_until, timeout};

use super::Early;
use super::control::{self, Seen};
use super::session::H3Session;
use super::settings::Quic;
use super::socket::Handshake;
use super::stream::{Fault, Reader, Writer};
use super::wire::code::Code;
use super::wire::settings::{goaway, sign_of_life};
use crate::carry::{Carrier, Refused};
use crate::clock;
use crate::exchange::onward::AddressText;
use crate::listen::ClientCert;
use crate::listen::conn::{ConnInfo, KeptDate, Trailers, conn_info};
use crate::listen::limits::{ListenerSettings, Slot};
use crate::listen::room::SharedPace;
use crate::listen::serve::{MOST_MALFORMED_STREAMS, begins};
use crate::observe::Protocol;
use crate::observe::metrics::TlsHandshake;

/// Requests that a client may give up before it is cut off, if they are more than half of all.
const MOST_GIVEN_UP: u32 = 200;

/// How long it is waited for the word that a request without a length has no body.
const END_TIME: Duration = Duration::from_millis(250);

/// How long a client that is told to leave may go on: at least, at most.
const LAST_CALL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

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
    } = surroundings;
    let deadline = clock::now() + settings.limits.header_timeout;
    let (connection, early) = match begin(connecting, quic.early_data, deadline).await {
        Ok(begun) => begun,
        Err(why) => return settings.metrics.handshake(why),
    };
    let (control, messages) = mpsc::unbounded_channel();
    tokio::spawn(control::speak(
        connection.clone(),
        settings.limits.max_header_size,
        messages,
    ));
    let mut live = Live {
        digest: digest(&connection, &slot),
        idle_until: clock::now() + settings.limits.idle_timeout,
        sign_at: clock::now() + settings.limits.idle_timeout / 3,
        handshake: Some((handshake, deadline)),
        next_id: 0,
        goodbye: Goodbye::Not,
        streams: Arc::default(),
        seen: Arc::default(),
        connection,
        slot,
        settings,
        carrier,
        control,
    };
    let mut early = pin!(established(early));
    let mut timer = pin!(sleep_until(live.due().into()));
    loop {
        tokio::select! {
            biased;
            accepted = live.connection.accept_bi() => match accepted {
                Ok((send, recv)) => live.request(send, recv),
                Err(_) => break,
            },
            accepted = live.connection.accept_uni() => match accepted {
                Ok(stream) => drop(tokio::spawn(control::listen(live.connection.clone(), stream, live.seen.clone()))),
                Err(_) => break,
            },
            () = &mut early, if live.handshake.is_some() => match live.connection.close_reason() {
                None => live.established(),
                Some(_) => break,
            },
            () = begins(&mut leaving), if live.goodbye == Goodbye::Not => live.leave(),
            () = live.streams.quiet(), if live.goodbye == Goodbye::Said => break,
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
    connection: Connection,
    slot: Slot,
    settings: Arc<ListenerSettings>,
    carrier: Arc<Carrier>,
    /// What its requests know of it.
    digest: Arc<Digest>,
    streams: Arc<Streams>,
    seen: Arc<Seen>,
    control: mpsc::UnboundedSender<BytesMut>,
    /// Until it is done, and by when it must be.
    handshake: Option<(Handshake, Instant)>,
    idle_until: Instant,
    sign_at: Instant,
    /// Of the first stream that was not taken.
    next_id: u64,
    goodbye: Goodbye,
}

impl Live {
    fn established(&mut self) {
        self.handshake = None;
        self.settings.metrics.handshake(TlsHandshake::Ok);
    }

    /// A stream for a request was opened.
    fn request(&mut self, mut send: SendStream, mut recv: RecvStream) {
        let id = u64::from(send.id());
        if self.goodbye == Goodbye::Said && id >= self.next_id {
            // The client may send it again, to whom it wants.
            let _ = send.reset(Code::RequestRejected.into());
            let _ = recv.stop(Code::RequestRejected.into());
            return;
        }
        let served = self.streams.all.fetch_add(1, Ordering::Relaxed) + 1;
        if self.is_a_nuisance(served) {
            return self.connection.close(Code::ExcessiveLoad.into(), b"");
        }
        self.next_id = self.next_id.max(id + 4);
        self.idle_until = clock::now() + self.settings.limits.idle_timeout;
        self.follow_client();
        let request = Request {
            carrier: self.carrier.clone(),
            digest: self.digest.clone(),
            settings: self.settings.clone(),
            ending: Ending {
                connection: self.connection.clone(),
                streams: self.streams.clone(),
            },
            _open: self.streams.open(),
        };
        tokio::spawn(request.serve(send, recv));
        if served >= self.settings.limits.max_requests_per_connection.get() {
            self.say_goodbye();
        }
    }

    /// Requests that were malformed were answered, and one may change one's mind; who does much of
    /// either is cut off.
    fn is_a_nuisance(&self, all: u32) -> bool {
        let given_up = self.streams.given_up.load(Ordering::Relaxed);
        let malformed =
            info_of(&self.digest).map_or(0, |info| info.malformed.load(Ordering::Relaxed));
        malformed > MOST_MALFORMED_STREAMS || (given_up > MOST_GIVEN_UP && given_up > all / 2)
    }

    /// A client may have gone to another address (RFC 9000 section 9).
    fn follow_client(&mut self) {
        let Some(info) = info_of(&self.digest) else {
            return;
        };
        if info.peer != self.connection.remote_address() {
            let malformed = info.malformed.load(Ordering::Relaxed);
            self.digest = digest(&self.connection, &self.slot);
            if let Some(info) = info_of(&self.digest) {
                info.malformed.store(malformed, Ordering::Relaxed);
            }
        }
    }

    /// Asks the client to leave. What is on its way until it hears of it is served.
    fn leave(&mut self) {
        self.tell(goaway(LAST_ID));
        let patience = (self.connection.rtt() * 2).clamp(LAST_CALL.0, LAST_CALL.1);
        self.goodbye = Goodbye::LastCall(clock::now() + patience);
    }

    fn say_goodbye(&mut self) {
        self.tell(goaway(self.next_id));
        self.goodbye = Goodbye::Said;
    }

    fn tell(&self, message: BytesMut) {
        // Whoever writes it is gone only with the connection.
        let _ = self.control.send(message);
    }

    /// When there is something to do next.
    fn due(&self) -> Instant {
        let mut due = self.idle_until.min(self.sign_at);
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
            self.settings.metrics.handshake(TlsHandshake::Timeout);
            return true;
        }
        if let Goodbye::LastCall(at) = self.goodbye
            && now >= at
        {
            self.say_goodbye();
        }
        let is_busy = self.streams.open.load(Ordering::Relaxed) > 0;
        if now >= self.sign_at {
            self.sign_at = now + idle / 3;
            // While a reply is waited for nothing is sent either way, and QUIC closes what is
            // silent. One of the two has to break the silence.
            if is_busy {
                self.tell(sign_of_life());
            }
        }
        if now >= self.idle_until {
            self.idle_until = now + idle;
            return !is_busy;
        }
        false
    }

    async fn end(self) {
        if self.handshake.is_some() {
            self.settings.metrics.handshake(TlsHandshake::Failed);
        }
        self.connection.close(Code::None.into(), b"");
        // So that the last packet leaves before this connection counts as closed, which may be the
        // end of the process: whoever sends it is a task of the same thread.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
}

/// A connection's requests.
#[derive(Debug, Default)]
struct Streams {
    /// Under way.
    open: AtomicUsize,
    all: AtomicU32,
    /// By the client, before its reply was whole.
    given_up: AtomicU32,
    /// Told when the last one is over.
    over: Notify,
}

impl Streams {
    fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// Waits until none is under way.
    async fn quiet(&self) {
        while self.open.load(Ordering::Relaxed) > 0 {
            self.over.notified().await;
        }
    }
}

struct Open(Arc<Streams>);

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.over.notify_one();
        }
    }
}

/// How a stream reaches its connection.
pub(super) struct Ending {
    connection: Connection,
    streams: Arc<Streams>,
}

impl Ending {
    /// The client broke a rule that all its streams depend on.
    pub(super) fn end_connection(&self, code: Code) {
        self.connection.close(code.into(), b"");
    }

    /// The client gave a request up.
    pub(super) fn given_up(&self) {
        self.streams.given_up.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a request's task needs.
struct Request {
    carrier: Arc<Carrier>,
    digest: Arc<Digest>,
    settings: Arc<ListenerSettings>,
    ending: Ending,
    /// Counts it among those that are under way.
    _open: Open,
}

impl Request {
    async fn serve(self, send: SendStream, recv: RecvStream) {
        let limits = &self.settings.limits;
        let mut reader = Reader::new(recv, limits.max_header_size);
        let mut writer = Writer::new(send);
        let begun = async {
            let mut head = reader.head().await?;
            if !has_body(&head) {
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
            Ok(Err(Fault::Cut)) => return writer.abandon(Code::RequestIncomplete),
            Ok(Err(Fault::Gone)) => return self.ending.given_up(),
        };
        // A connection that is closed takes with it what is not delivered: so a reply counts as under
        // way until it is, unless the client takes too long to fetch the end of it.
        let delivered = writer.left();
        let patience = limits.idle_timeout;
        let streams = (reader, writer);
        let session = H3Session::new(head, streams, self.digest, self.ending);
        let session = ServerSession::new_custom(Box::new(session));
        self.carrier.serve(session, false, None).await;
        let _ = timeout(patience, delivered).await;
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
            writer.head(refused.status(), &fields, None).await?;
            writer.data(body.into(), None).await
        };
        if let Ok(Ok(())) = timeout(REFUSAL, written).await {
            writer.end();
        }
    }
}

/// Whether a body is expected, so that nothing is gained by waiting for it.
fn has_body(head: &http::request::Parts) -> bool {
    head.headers.contains_key(header::CONTENT_LENGTH)
        || matches!(head.method, Method::POST | Method::PUT | Method::PATCH)
}

/// What requests know of their connection.
fn digest(connection: &Connection, slot: &Slot) -> Arc<Digest> {
    let listener = slot.listener();
    let address = listener.address;
    let local = connection
        .local_ip()
        .map_or(address, |ip| SocketAddr::new(ip, address.port()));
    let peer = connection.remote_address();
    let (limits, now) = (&listener.settings.load().limits, clock::now());
    let info = Arc::new(ConnInfo {
        listener: listener.clone(),
        peer,
        peer_text: AddressText::new(peer.ip()),
        local,
        via: None,
        tls: Some("TLSv1.3"),
        client_cert: client_cert(connection),
        bad_chunk: AtomicBool::new(false),
        malformed: AtomicU32::new(0),
        broke_off: AtomicBool::new(false),
        flooded: AtomicBool::new(false),
        up: SharedPace::new(limits, now),
        down: SharedPace::new(limits, now),
        date: KeptDate::default(),
        trailers: Trailers::default(),
    });
    let head = ResponseHeader::build_no_case(200, Some(0)).ok();
    let proxy_digest =
        head.map(|head| Arc::new(ProxyDigest::new(Box::new(head), Some(Box::new(info)))));
    Arc::new(Digest {
        proxy_digest,
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
