//! One request and the head of its reply on one connection.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType};
use tokio::time::timeout;

use super::{Client, GoesOn, Outgoing, Upload};
use crate::carry::failure::{ClientFault, Failure, client_fault, read_failure};
use crate::carry::respond;
use crate::clock;
use crate::exchange::websocket;
use crate::listen::{is_h2, request_trailers};
use crate::upstreams::{Came, Session, name_authority};

/// Interim responses that one reply may have.
const MOST_INTERIM: u32 = 16;

/// How long the reply of an endpoint that takes no more of a body is read at the least.
const LAST_WORD: Duration = Duration::from_secs(1);

/// One request and the head of its reply on one connection.
pub(super) struct Exchange<'a> {
    pub(super) session: Session,
    pub(super) settings: &'a conf::Upstream,
    pub(super) goes_on: GoesOn<'a>,
    /// When the request was sent: set anew when the whole of a body that is streamed has gone up.
    pub(super) sent: Instant,
    /// When the head must be there, unless a body is going up.
    pub(super) until: Instant,
    /// The request body was cut short: the connection cannot be used again.
    pub(super) tainted: bool,
    /// Something of the reply arrived.
    pub(super) seen: bool,
}

impl Exchange<'_> {
    pub(super) async fn run(
        &mut self,
        outgoing: &mut Outgoing,
        client: Client<'_>,
    ) -> Result<Box<ResponseHeader>, Failure> {
        if !matches!(outgoing.upload, Upload::Done) {
            let patience = self.settings.read_timeout;
            self.session.set_write_timeout(Some(patience));
        }
        let mut head = Box::new(outgoing.head.clone());
        if self.session.is_h2() {
            name_authority(&mut head, self.settings.tls.is_some());
        }
        if outgoing.upgrade
            && let Session::H2(h2) = &self.session
        {
            if !h2.takes_extended_connect() {
                return Err(Failure::NoWebSocket);
            }
            for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY] {
                head.remove_header(&name);
            }
            head.set_method(Method::CONNECT);
            websocket::leave(head.extensions_mut());
        }
        // Without a body the stream is ended with its head: no empty frame behind it.
        let ends =
            matches!(outgoing.upload, Upload::Done) && !(outgoing.upgrade && self.session.is_h2());
        self.session
            .write_request_header(head, ends)
            .await
            .map_err(|error| send_failure(&error))?;
        if let Upload::Buffered(body) = &outgoing.upload {
            let (body, trailers) = (body.clone(), outgoing.trailers.clone());
            self.session
                .write_request_body(body, trailers.is_none())
                .await
                .map_err(|error| send_failure(&error))?;
            if self.session.finish_request_body(trailers).await.is_err() {
                self.tainted = true;
            }
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
            let left = self.until.saturating_duration_since(clock::now());
            if left.is_zero() && !uploading {
                return Err(Failure::FirstByteTimeout);
            }
            let pending = self.session.holds();
            let patience = match (uploading, pending) {
                (false, _) => Some(left),
                (true, true) => Some(self.settings.read_timeout),
                (true, false) => None,
            };
            self.session.set_read_timeout(patience);
            // Where the endpoint did not take all of the body, the rest of it would be read as
            // something that comes after the request, and the client blamed for it.
            let watched = client.as_deref_mut().filter(|_| !self.tainted);
            let step = {
                let head = self.session.head_or_taken();
                match watched {
                    None => Step::Head(head.await),
                    Some(client) => tokio::select! {
                        biased;
                        head = head => Step::Head(head),
                        body = read_client(client, &outgoing.upload, pending) => Step::Body(body),
                    },
                }
            };
            match step {
                Step::Head(Came::Taken) => {}
                Step::Head(Came::Refused) => self.stop_upload(outgoing),
                Step::Head(Came::Reply(Ok(()))) => {
                    self.seen = true;
                    if let Some(head) = self.head(outgoing, client.as_deref_mut()).await? {
                        return Ok(head);
                    }
                    interim += 1;
                    if interim > MOST_INTERIM {
                        return Err(Failure::BadReply);
                    }
                }
                Step::Head(Came::Reply(Err(error))) => return Err(read_failure(&error)),
                // The client left, and others wait for the same reply.
                Step::Body(Err(_)) if !uploading && (self.goes_on)() => client = None,
                Step::Body(body) => {
                    outgoing.taken = true;
                    let sent = send_body(&mut self.session, &mut outgoing.upload, body).await?;
                    if let Sent::Refused = sent {
                        self.stop_upload(outgoing);
                    }
                }
            }
            if uploading && matches!(outgoing.upload, Upload::Done) {
                let now = clock::now();
                if self.tainted {
                    // It has been silent for long enough; but what it said may not have been read.
                    self.until = self.until.max(now + LAST_WORD);
                } else {
                    // The time that the client took is not the endpoint's.
                    self.sent = now;
                    self.until = now + first_byte_patience(self.settings);
                }
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
            StatusCode::SWITCHING_PROTOCOLS if outgoing.upgrade && !self.session.is_h2() => {
                return match is_granted(outgoing, head) {
                    true => Ok(Some(Box::new(ResponseHeader::from(head.as_owned_parts())))),
                    false => Err(Failure::BadReply),
                };
            }
            // The stream is open both ways (RFC 8441 section 5).
            status if outgoing.upgrade && self.session.is_h2() && status.is_success() => {
                let mut granted = ResponseHeader::from(head.as_owned_parts());
                let set = granted.set_status(StatusCode::SWITCHING_PROTOCOLS);
                set.map_err(|_| Failure::BadReply)?;
                return Ok(Some(Box::new(granted)));
            }
            // Nobody asked for it, so nobody would understand what follows.
            StatusCode::SWITCHING_PROTOCOLS => return Err(Failure::BadReply),
            // Asked for by nobody: what a client expects is answered here.
            StatusCode::CONTINUE => return Ok(None),
            status if status.is_informational() => {
                if let Some(client) = client.filter(|client| takes_interim(client)) {
                    let mut hints = Box::new(ResponseHeader::from(head.as_owned_parts()));
                    // Its own, whatever the endpoint speaks (RFC 9110 section 2.5).
                    hints.set_version(http::Version::HTTP_11);
                    respond::strip_connection_fields(&mut hints);
                    respond::interim(client, hints)
                        .await
                        .map_err(|_| Failure::Client(ClientFault::Gone))?;
                }
                return Ok(None);
            }
            _ if has_foreign_coding(head) => return Err(Failure::BadReply),
            _ => {}
        }
        // Without the case of the names: nobody may depend on it, and each change would keep two maps.
        Ok(Some(Box::new(ResponseHeader::from(head.as_owned_parts()))))
    }

    /// The endpoint takes no more of the request. It may have answered before: its reply counts.
    fn stop_upload(&mut self, outgoing: &mut Outgoing) {
        self.tainted = true;
        outgoing.upload = Upload::Done;
    }
}

/// How long one attempt has to the first byte of its reply, from the moment when its request was sent.
pub(super) fn first_byte_patience(settings: &conf::Upstream) -> Duration {
    let whole = settings.first_byte_timeout;
    match settings.retry.per_try_timeout {
        Some(patience) => whole.min(patience),
        None => whole,
    }
}

enum Step {
    Head(Came<pingora::Result<()>>),
    Body(pingora::Result<Fed>),
}

/// What a client sends up.
pub(super) enum Fed {
    Piece(Bytes),
    /// The request is whole; the fields behind its body.
    End(Option<HeaderMap>),
}

/// The next of what the client sends up. Without anything left to send, and while the endpoint has
/// not taken the piece before (`pending`), this never ends but by the client going away.
pub(super) async fn read_client(
    client: &mut ServerSession,
    upload: &Upload,
    pending: bool,
) -> pingora::Result<Fed> {
    match upload {
        Upload::Done | Upload::Buffered(_) => client.read_body_or_idle(true).await?,
        // Nothing more may be read; who goes away over HTTP/1.1 is seen behind it.
        Upload::Streamed { .. } if pending && !is_h2(client) => std::future::pending().await,
        Upload::Streamed { .. } if pending => client.read_body_or_idle(true).await?,
        // Asked for more, Pingora would wait for the client to go away.
        Upload::Streamed { .. } if client.is_body_done() => None,
        // Pingora knows no read timeout for HTTP/2 bodies.
        Upload::Streamed { patience, .. } => {
            match timeout(*patience, client.read_body_or_idle(false)).await {
                Ok(body) => body?,
                Err(_) => return Err(Error::new_down(ErrorType::ReadTimedout)),
            }
        }
    }
    .map_or_else(
        || Ok(Fed::End(request_trailers(client))),
        |piece| Ok(Fed::Piece(piece)),
    )
}

pub(super) enum Sent {
    Yes,
    Refused,
}

/// What came of the client to the endpoint.
pub(super) async fn send_body(
    session: &mut Session,
    upload: &mut Upload,
    body: pingora::Result<Fed>,
) -> Result<Sent, Failure> {
    let bad_body = Failure::Client(ClientFault::BadBody);
    let body = body.map_err(|error| Failure::Client(client_fault(&error)))?;
    let sent = match body {
        Fed::End(trailers) => {
            if let Upload::Streamed {
                text: Some(text), ..
            } = upload
            {
                text.finish().map_err(|_| bad_body)?;
            }
            *upload = Upload::Done;
            session.begin_end(trailers).await
        }
        Fed::Piece(mut piece) => {
            if let Upload::Streamed { left, text, .. } = upload {
                *left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or(Failure::Client(ClientFault::BodyTooLarge))?;
                if let Some(text) = text {
                    piece = text.decode(&piece).map_err(|_| bad_body)?;
                }
            }
            // An empty piece would end a chunked body; an HTTP/2 client's empty DATA frame
            // at the end of its stream arrives as one.
            if piece.is_empty() {
                return Ok(Sent::Yes);
            }
            session.begin_piece(piece).await
        }
    };
    Ok(if sent.is_ok() {
        Sent::Yes
    } else {
        Sent::Refused
    })
}

/// Whether a 101 shows that the endpoint has understood the key that was made here (RFC 6455 section
/// 4.1). A client's own key is its own affair.
fn is_granted(outgoing: &Outgoing, head: &ResponseHeader) -> bool {
    if !outgoing.made_key {
        return true;
    }
    let key = outgoing.head.headers.get(SEC_WEBSOCKET_KEY);
    let wanted = key.map(|key| websocket::accept(key.as_bytes()));
    head.headers.get(SEC_WEBSOCKET_ACCEPT) == wanted.as_ref()
}

/// A transfer coding other than `chunked`, or one in HTTP/1.0, which has none: what comes cannot be told apart
/// from what it means (RFC 9112 section 6.1).
fn has_foreign_coding(head: &ResponseHeader) -> bool {
    let mut lines = head.headers.get_all(http::header::TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => false,
        (Some(_), _) if head.version < http::Version::HTTP_11 => true,
        (Some(coding), None) => !coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    }
}

/// HTTP/1.0 has no interim responses.
fn takes_interim(client: &ServerSession) -> bool {
    is_h2(client) || client.req_header().version == http::Version::HTTP_11
}

fn send_failure(error: &Error) -> Failure {
    match read_failure(error) {
        known @ (Failure::Unprocessed | Failure::Tls) => known,
        _ => Failure::Reset,
    }
}
