//! One request to an upstream and its reply: pick, connect, send, read, and
//! again elsewhere where that is safe.
//!
//! A request is sent a second time only if it is idempotent (RFC 9110 section
//! 9.2.2) or no byte of it left this process. A kept connection may have been
//! closed by the other side in the same instant, which looks like a reset:
//! idempotent requests are then repeated on a new connection without blaming
//! the endpoint, and others are never sent on a kept connection at all.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use balancer::{Active, EndpointIndex, Outcome, PickContext, PickError};
use bytes::Bytes;
use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession;
use pingora::{Error, ErrorType};
use tokio::time::timeout;

use super::failure::{ClientFault, Failure, client_fault, connect_failure, read_failure};
use super::respond;
use crate::clock;
use crate::observe::Record;
use crate::upstreams::Upstream;

/// Interim responses that one reply may have: each of them starts the wait anew.
const MOST_INTERIM: u32 = 16;

/// The body of a request on its way up.
pub(crate) enum Upload {
    /// There is none, or it was sent.
    Done,
    /// In memory, so that it can be sent again.
    Buffered(Bytes),
    /// Read from the client as it arrives.
    Streamed {
        /// Bytes that are still allowed.
        left: u64,
        /// Longest wait between two pieces.
        patience: Duration,
    },
}

/// What is sent.
pub(crate) struct Outgoing {
    /// The head as the endpoint sees it, but for the Host of checks.
    pub(crate) head: RequestHeader,
    /// Its body.
    pub(crate) upload: Upload,
    /// Consistent-hash key.
    pub(crate) hash: Option<u64>,
    /// The client asked to change protocols.
    pub(crate) upgrade: bool,
}

impl Outgoing {
    fn is_idempotent(&self) -> bool {
        self.head.method.is_idempotent()
    }

    /// Whether the whole of it can be sent once more.
    fn can_repeat(&self) -> bool {
        !matches!(self.upload, Upload::Streamed { .. })
    }
}

/// A reply whose head has been read: its body, and the connection that it comes on.
pub(crate) struct Incoming {
    upstream: Arc<Upstream>,
    worker: usize,
    endpoint: EndpointIndex,
    session: HttpSession<()>,
    /// The request body was cut short: the connection cannot be used again.
    tainted: bool,
    _active: Active,
}

/// The client's side while a request is carried; `None` for work in the background.
pub(crate) type Client<'c> = Option<&'c mut ServerSession>;

/// Whether a request goes on when its client leaves before the reply: others may wait for it.
pub(crate) type GoesOn<'a> = &'a (dyn Fn() -> bool + Sync);

/// Sends `outgoing` to an endpoint of `upstream` and reads the head of the reply.
///
/// # Errors
/// The last attempt's failure, when no further one is allowed.
pub(crate) async fn open(
    upstream: &Arc<Upstream>,
    worker: usize,
    outgoing: &mut Outgoing,
    mut client: Client<'_>,
    goes_on: GoesOn<'_>,
    record: &mut Record,
) -> Result<(Incoming, Box<ResponseHeader>), Failure> {
    let most = upstream.settings.retry.attempts.get() as usize;
    let mut tried: Vec<EndpointIndex> = Vec::new();
    let mut last = Failure::NoEndpoint;
    while tried.len() < most {
        let context = PickContext {
            hash: outgoing.hash,
            tried: &tried,
        };
        let now = clock::now();
        let endpoint = match upstream.pool.pick(&context, now, crate::random::bits()) {
            Ok(endpoint) => endpoint,
            Err(PickError::Exhausted) => break,
            Err(PickError::NoneAvailable) => {
                last = if tried.is_empty() {
                    Failure::NoEndpoint
                } else {
                    last
                };
                break;
            }
        };
        tried.push(endpoint);
        record
            .attempts
            .begin(u16::try_from(endpoint.as_usize()).unwrap_or(u16::MAX));
        let attempt = Attempt {
            upstream,
            worker,
            endpoint,
            goes_on,
        };
        let result = attempt.make(outgoing, client.as_deref_mut(), record).await;
        match result {
            Ok((incoming, head)) => {
                record.attempts.answered(head.status.as_u16());
                let outcome = if head.status.is_server_error() {
                    Outcome::Status5xx
                } else {
                    Outcome::Success
                };
                upstream.record(endpoint, outcome, clock::now());
                return Ok((incoming, head));
            }
            Err(failure) => {
                last = failure;
                let Some((outcome, counted)) = failure.outcome() else {
                    break;
                };
                record.attempts.failed(counted);
                upstream.record(endpoint, outcome, clock::now());
                let may_repeat = failure.is_unsent()
                    || failure == Failure::Reset
                        && outgoing.is_idempotent()
                        && outgoing.can_repeat();
                if !may_repeat {
                    break;
                }
                tracing::debug!(
                    upstream = upstream.name(),
                    failure = failure.as_str(),
                    attempt = tried.len(),
                    "attempt failed"
                );
            }
        }
    }
    if last == Failure::Connect && tried.len() == upstream.settings.endpoints.len() {
        // Not one of them can be reached: that passes, and the client is told when to come again.
        last = Failure::AllRefused;
    }
    Err(last)
}

struct Attempt<'a> {
    upstream: &'a Arc<Upstream>,
    worker: usize,
    endpoint: EndpointIndex,
    goes_on: GoesOn<'a>,
}

impl Attempt<'_> {
    async fn make(
        &self,
        outgoing: &mut Outgoing,
        mut client: Client<'_>,
        record: &mut Record,
    ) -> Result<(Incoming, Box<ResponseHeader>), Failure> {
        let active = self.upstream.pool.start(self.endpoint);
        let mut fresh = !(outgoing.is_idempotent() && outgoing.can_repeat());
        loop {
            let (session, reused) = self.connect(fresh, record).await?;
            let mut exchange = Exchange {
                session,
                upstream: self.upstream,
                goes_on: self.goes_on,
                tainted: false,
                seen: false,
            };
            let sent = clock::now();
            match exchange.run(outgoing, client.as_deref_mut()).await {
                Ok(head) => {
                    record.first_byte = Some(clock::now().saturating_duration_since(sent));
                    let incoming = Incoming {
                        upstream: self.upstream.clone(),
                        worker: self.worker,
                        endpoint: self.endpoint,
                        tainted: exchange.tainted,
                        session: exchange.session,
                        _active: active,
                    };
                    return Ok((incoming, head));
                }
                Err(Failure::Reset) if reused && !exchange.seen => fresh = true,
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn connect(
        &self,
        fresh: bool,
        record: &mut Record,
    ) -> Result<(HttpSession<()>, bool), Failure> {
        let (Some(link), Some(peer)) = (
            self.upstream.link(self.worker),
            self.upstream.peer(self.endpoint),
        ) else {
            return Err(Failure::NoEndpoint);
        };
        let began = clock::now();
        let connected = link
            .connect(self.endpoint, peer, fresh, began)
            .await
            .map_err(|error| connect_failure(&error))?;
        record.connect = (!connected.reused).then(|| clock::now().saturating_duration_since(began));
        Ok((connected.session, connected.reused))
    }
}

/// One request and the head of its reply on one connection.
struct Exchange<'a> {
    session: HttpSession<()>,
    upstream: &'a Upstream,
    goes_on: GoesOn<'a>,
    tainted: bool,
    /// Something of the reply arrived.
    seen: bool,
}

impl Exchange<'_> {
    async fn run(
        &mut self,
        outgoing: &mut Outgoing,
        client: Client<'_>,
    ) -> Result<Box<ResponseHeader>, Failure> {
        if !matches!(outgoing.upload, Upload::Done) {
            let patience = self.upstream.settings.read_timeout;
            self.session.set_write_timeout(Some(patience));
        }
        let head = Box::new(outgoing.head.clone());
        match &mut self.session {
            // Without a body the stream is ended with its head: no empty frame behind it.
            HttpSession::H2(h2) if matches!(outgoing.upload, Upload::Done) => {
                h2.write_request_header(head, true)
            }
            session => session.write_request_header(head).await,
        }
        .map_err(|_| Failure::Reset)?;
        if let Upload::Buffered(body) = &outgoing.upload {
            let body = body.clone();
            self.session
                .write_request_body(body, true)
                .await
                .map_err(|_| Failure::Reset)?;
            self.finish_upload().await;
        }
        self.read_head(outgoing, client).await
    }

    /// Reads the head of the reply while the body, if there is one, goes up.
    async fn read_head(
        &mut self,
        outgoing: &mut Outgoing,
        mut client: Client<'_>,
    ) -> Result<Box<ResponseHeader>, Failure> {
        let mut interim = 0;
        loop {
            let uploading = matches!(outgoing.upload, Upload::Streamed { .. });
            self.session.set_read_timeout(
                (!uploading).then_some(self.upstream.settings.first_byte_timeout),
            );
            let step = {
                let head = self.session.read_response_header();
                match client.as_deref_mut() {
                    None => Step::Head(head.await),
                    Some(client) => tokio::select! {
                        biased;
                        head = head => Step::Head(head),
                        body = read_client(client, &outgoing.upload) => Step::Body(body),
                    },
                }
            };
            match step {
                Step::Head(Ok(())) => {
                    self.seen = true;
                    if let Some(head) = self.head(outgoing, client.as_deref_mut()).await? {
                        return Ok(head);
                    }
                    interim += 1;
                    if interim > MOST_INTERIM {
                        return Err(Failure::BadReply);
                    }
                }
                Step::Head(Err(error)) => return Err(read_failure(&error)),
                // The client left, and others wait for the same reply.
                Step::Body(Err(_)) if !uploading && (self.goes_on)() => client = None,
                Step::Body(body) => self.take_body(&mut outgoing.upload, body).await?,
            }
        }
    }

    /// The head that was read, unless it is an interim one (RFC 9110 section 15.2).
    async fn head(
        &self,
        outgoing: &Outgoing,
        client: Client<'_>,
    ) -> Result<Option<Box<ResponseHeader>>, Failure> {
        let Some(head) = self.session.response_header() else {
            return Err(Failure::BadReply);
        };
        match head.status {
            StatusCode::SWITCHING_PROTOCOLS if outgoing.upgrade => {}
            // Nobody asked for it, so nobody would understand what follows.
            StatusCode::SWITCHING_PROTOCOLS => return Err(Failure::BadReply),
            StatusCode::EARLY_HINTS => {
                if let Some(client) = client.filter(|client| takes_interim(client)) {
                    let mut hints = Box::new(ResponseHeader::from(head.as_owned_parts()));
                    respond::strip_connection_fields(&mut hints);
                    client
                        .write_response_header(hints)
                        .await
                        .map_err(|_| Failure::Client(ClientFault::Gone))?;
                }
                return Ok(None);
            }
            status if status.is_informational() => return Ok(None),
            _ if has_foreign_coding(head) => return Err(Failure::BadReply),
            _ => {}
        }
        // Without the case of the names: nobody may depend on it, and each change would keep two maps.
        Ok(Some(Box::new(ResponseHeader::from(head.as_owned_parts()))))
    }

    async fn take_body(
        &mut self,
        upload: &mut Upload,
        body: pingora::Result<Option<Bytes>>,
    ) -> Result<(), Failure> {
        if let Sent::Refused = send_body(&mut self.session, upload, body).await? {
            // It may have answered before it stopped reading: its reply counts.
            self.tainted = true;
            *upload = Upload::Done;
        }
        Ok(())
    }

    async fn finish_upload(&mut self) {
        if self.session.finish_request_body().await.is_err() {
            self.tainted = true;
        }
    }
}

enum Step {
    Head(pingora::Result<()>),
    Body(pingora::Result<Option<Bytes>>),
}

/// The next piece of what the client sends up. Without anything left to send this never ends
/// but by the client going away.
async fn read_client(
    client: &mut ServerSession,
    upload: &Upload,
) -> pingora::Result<Option<Bytes>> {
    match upload {
        Upload::Done | Upload::Buffered(_) => client.read_body_or_idle(true).await,
        // Asked for more, Pingora would wait for the client to go away.
        Upload::Streamed { .. } if client.is_body_done() => Ok(None),
        // Pingora knows no read timeout for HTTP/2 bodies.
        Upload::Streamed { patience, .. } => {
            match timeout(*patience, client.read_body_or_idle(false)).await {
                Ok(body) => body,
                Err(_) => Err(Error::new_down(ErrorType::ReadTimedout)),
            }
        }
    }
}

enum Sent {
    Yes,
    Refused,
}

/// One piece of the client's body to the endpoint.
async fn send_body(
    session: &mut HttpSession<()>,
    upload: &mut Upload,
    body: pingora::Result<Option<Bytes>>,
) -> Result<Sent, Failure> {
    let body = body.map_err(|error| Failure::Client(client_fault(&error)))?;
    let sent = match body {
        None => {
            *upload = Upload::Done;
            session.finish_request_body().await
        }
        // An empty piece would end a chunked body; an HTTP/2 client's empty DATA frame
        // at the end of its stream arrives as one.
        Some(bytes) if bytes.is_empty() => return Ok(Sent::Yes),
        Some(bytes) => {
            if let Upload::Streamed { left, .. } = upload {
                *left = left
                    .checked_sub(bytes.len() as u64)
                    .ok_or(Failure::Client(ClientFault::BodyTooLarge))?;
            }
            session.write_request_body(bytes, false).await
        }
    };
    Ok(if sent.is_ok() {
        Sent::Yes
    } else {
        Sent::Refused
    })
}

/// A transfer coding other than `chunked`: what comes cannot be told apart from what it means
/// (RFC 9112 section 6.1).
fn has_foreign_coding(head: &ResponseHeader) -> bool {
    let mut lines = head.headers.get_all(http::header::TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => false,
        (Some(coding), None) => !coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    }
}

/// HTTP/1.0 has no interim responses; in HTTP/2 Pingora cannot send them.
fn takes_interim(client: &ServerSession) -> bool {
    !client.is_http2() && client.req_header().version == http::Version::HTTP_11
}

impl Incoming {
    /// The reply's next piece; `None` at its end. `client` is watched meanwhile, and what is
    /// left of its body goes up.
    pub(crate) async fn next(
        &mut self,
        upload: &mut Upload,
        mut client: Client<'_>,
    ) -> Result<Option<Bytes>, Failure> {
        loop {
            self.session
                .set_read_timeout(Some(self.upstream.settings.read_timeout));
            let step = {
                let piece = self.session.read_response_body();
                match client.as_deref_mut() {
                    None => Piece::Reply(piece.await),
                    Some(client) => tokio::select! {
                        biased;
                        piece = piece => Piece::Reply(piece),
                        body = read_client(client, upload) => Piece::Body(body),
                    },
                }
            };
            match step {
                Piece::Reply(Ok(piece)) => return Ok(piece),
                Piece::Reply(Err(error)) => {
                    let failure = match read_failure(&error) {
                        Failure::FirstByteTimeout => Failure::ReadTimeout,
                        other => other,
                    };
                    let now = clock::now();
                    if let Some((outcome, _)) = failure.outcome() {
                        self.upstream.record(self.endpoint, outcome, now);
                    }
                    return Err(failure);
                }
                Piece::Body(body) => {
                    if let Sent::Refused = send_body(&mut self.session, upload, body).await? {
                        self.tainted = true;
                        *upload = Upload::Done;
                    }
                }
            }
        }
    }

    /// Whether the whole reply has been read.
    pub(crate) fn is_done(&mut self) -> bool {
        self.session.response_done()
    }

    /// Trailer fields of an HTTP/2 reply, after its last piece (RFC 9113 section 8.1).
    pub(crate) async fn trailers(&mut self) -> Option<http::HeaderMap> {
        match &mut self.session {
            HttpSession::H2(h2) => h2.read_trailers().await.ok().flatten(),
            _ => None,
        }
    }

    /// After a 101: the bare connection, and what was read from it behind the head.
    pub(crate) fn into_stream(self) -> Option<(Stream, Option<Bytes>)> {
        let HttpSession::H1(mut h1) = self.session else {
            return None;
        };
        h1.maybe_upgrade_body_writer();
        let first = {
            // What is buffered is there at the first poll; a read that would wait takes nothing.
            let read = pin!(h1.read_body_bytes());
            match read.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(first)) => first,
                Poll::Ready(Err(_)) => return None,
                Poll::Pending => None,
            }
        };
        Some((h1.into_inner(), first))
    }

    /// Ends a whole exchange; the connection is kept where that is allowed.
    pub(crate) async fn finish(self) {
        if self.tainted {
            return;
        }
        let (Some(link), Some(peer)) = (
            self.upstream.link(self.worker),
            self.upstream.peer(self.endpoint),
        ) else {
            return;
        };
        link.release(self.endpoint, peer, self.session, clock::now())
            .await;
    }

    /// Breaks the exchange off.
    pub(crate) async fn abandon(mut self) {
        self.session.shutdown().await;
    }
}

enum Piece {
    Reply(pingora::Result<Option<Bytes>>),
    Body(pingora::Result<Option<Bytes>>),
}
