//! Replies on their way to a client: the one place where an outcome becomes
//! HTTP.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::http::{HttpTask, ServerSession};

use super::failure::{ClientFault, Failure};
use super::request::nominated;
use crate::exchange::guard::Reject;
use crate::exchange::onward::X_REQUEST_ID;
use crate::exchange::{trailers, websocket};
use crate::listen::{conn_info, is_h2};

/// Bytes handed to Pingora in one write, so that the write timeout is one of
/// progress and not of the whole body.
const WRITE: usize = 128 * 1024;

/// Why a connection is refused before it carries a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The head breaks a rule.
    Malformed(Reject),
    /// The head did not come in time.
    HeadTimeout,
    /// It begins like HTTP/2 and goes on otherwise.
    Preface,
    /// HTTP/1.1 is not among the listener's protocols.
    ProtocolOff,
}

impl Refused {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Malformed(reject) => reject.status(),
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Preface => StatusCode::BAD_REQUEST,
            Self::ProtocolOff => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// Whether it would have been served, had it been less, or faster.
    pub(crate) fn is_limit(self) -> bool {
        let too_much = [
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            StatusCode::URI_TOO_LONG,
        ];
        self == Self::HeadTimeout || too_much.contains(&self.status())
    }

    /// Metric label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed(reject) => reject.as_str(),
            Self::HeadTimeout => "header_timeout",
            Self::Preface => "bad_preface",
            Self::ProtocolOff => "protocol_off",
        }
    }

    fn explanation(self) -> &'static str {
        match self {
            Self::Malformed(reject) => reject.explanation(),
            Self::HeadTimeout => "The request head did not arrive in time.",
            Self::Preface => "This begins like HTTP/2 but is not.",
            Self::ProtocolOff => "HTTP/1.1 is not spoken here; use HTTP/2.",
        }
    }

    /// What the client reads.
    pub(crate) fn to_body(self) -> String {
        let status = self.status();
        format!(
            "{} {}\n{}\n",
            status.as_str(),
            status.canonical_reason().unwrap_or(""),
            self.explanation()
        )
    }

    /// The whole reply as bytes: Pingora never sees such a request.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let status = self.status();
        let body = self.to_body();
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            status.as_str(),
            status.canonical_reason().unwrap_or(""),
            body.len(),
        )
        .into_bytes()
    }
}

/// A head with `status` and room for `fields`.
pub(super) fn head(status: StatusCode, fields: usize) -> pingora::Result<Box<ResponseHeader>> {
    Ok(Box::new(ResponseHeader::build_no_case(
        status,
        Some(fields + 4),
    )?))
}

/// An error reply of the edge's own: short, plain, with the id to look for in the log.
pub(super) fn error(
    status: StatusCode,
    explanation: &str,
    id: &HeaderValue,
) -> pingora::Result<(Box<ResponseHeader>, Bytes)> {
    let reason = status.canonical_reason().unwrap_or("");
    let id = id.to_str().unwrap_or("");
    let body = format!(
        "{} {reason}\n{explanation}\nRequest id: {id}\n",
        status.as_str()
    );
    let mut head = head(status, 4)?;
    head.insert_header(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    )?;
    head.insert_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        head.insert_header(header::RETRY_AFTER, HeaderValue::from_static("1"))?;
    }
    Ok((head, Bytes::from(body)))
}

/// What a failed exchange with an upstream is called towards the client.
pub(super) fn explanation(failure: Failure) -> &'static str {
    match failure {
        Failure::NoEndpoint => "No app server is available right now.",
        Failure::Saturated
        | Failure::ConnectionLimit
        | Failure::QueueFull
        | Failure::QueueTimeout => "The app servers are busy.",
        Failure::Unprocessed => "The app server did not take the request.",
        Failure::Connect => "The app server cannot be reached.",
        Failure::AllRefused => "No app server can be reached right now.",
        Failure::ConnectTimeout => "The app server did not accept the connection in time.",
        Failure::Tls => "The app server's TLS certificate or handshake is not acceptable.",
        Failure::Reset => "The app server closed the connection without a reply.",
        Failure::FirstByteTimeout => "The app server did not reply in time.",
        Failure::ReadTimeout => "The app server stopped in the middle of its reply.",
        Failure::NoWebSocket => "The app server takes no WebSockets over HTTP/2.",
        Failure::BadReply => "The app server's reply is not valid HTTP.",
        Failure::Client(ClientFault::BodyTimeout) => "The request body did not arrive in time.",
        Failure::Client(ClientFault::TooSlow(_)) => "The request body came too slowly.",
        Failure::Client(ClientFault::BodyTooLarge) => {
            "The request body is larger than this server accepts."
        }
        Failure::Client(ClientFault::BadBody) => "The request body is malformed.",
        Failure::Client(ClientFault::Gone) => "The client went away.",
    }
}

/// Writes head and body of a reply that is wholly in memory.
pub(super) async fn write(
    session: &mut ServerSession,
    head: Box<ResponseHeader>,
    body: Bytes,
    id: &HeaderValue,
) -> pingora::Result<()> {
    let status = head.status;
    if body.is_empty() && ends_with_head(session, status) {
        return only(session, head, id).await;
    }
    begin(session, head, id).await?;
    if body.is_empty() || !may_have_body(session, status) {
        return finish(session).await;
    }
    write_body(session, body, true).await
}

/// Writes the head of a reply.
pub(super) async fn begin(
    session: &mut ServerSession,
    mut head: Box<ResponseHeader>,
    id: &HeaderValue,
) -> pingora::Result<()> {
    head.insert_header(&X_REQUEST_ID, id.clone())?;
    offer_http3(session, &mut head)?;
    keep_date(session, &head);
    session.write_response_header(head).await
}

/// Tells the client to send its body (RFC 9110 section 15.2.1).
pub(super) async fn proceed(session: &mut ServerSession) -> pingora::Result<()> {
    session.set_close_on_response_before_downstream_finish(false);
    let written = session.write_continue_response().await;
    session.set_close_on_response_before_downstream_finish(true);
    written
}

/// Writes an interim response (RFC 9110 section 15.2). What of the request's body is still to come does
/// not end the connection then, as it does behind a final one.
pub(super) async fn interim(
    session: &mut ServerSession,
    head: Box<ResponseHeader>,
) -> pingora::Result<()> {
    session.set_close_on_response_before_downstream_finish(false);
    let written = session.write_response_header(head).await;
    session.set_close_on_response_before_downstream_finish(true);
    written
}

/// Where HTTP/3 is spoken beside what the client speaks, its reply says so (RFC 7838). What an app
/// says of its own ways to be reached is not true of this server.
fn offer_http3(session: &ServerSession, head: &mut ResponseHeader) -> pingora::Result<()> {
    let digest = session.digest().and_then(|all| all.proxy_digest.as_deref());
    let Some(info) = digest.and_then(conn_info) else {
        return Ok(());
    };
    let settings = info.listener.settings.load();
    let Some(offer) = &settings.alt_svc else {
        return Ok(());
    };
    if session.req_header().version == Version::HTTP_3 || head.status.is_informational() {
        head.remove_header(&header::ALT_SVC);
        return Ok(());
    }
    head.insert_header(header::ALT_SVC, offer.clone())
}

/// A reply that was originated elsewhere, or earlier, keeps its Date ([`ConnInfo::date`]).
///
/// [`ConnInfo::date`]: crate::listen::ConnInfo::date
fn keep_date(session: &ServerSession, head: &ResponseHeader) {
    // HTTP/2 sessions are ours and leave it alone.
    if is_h2(session) {
        return;
    }
    let digest = session.digest().and_then(|all| all.proxy_digest.as_deref());
    if let Some(info) = digest.and_then(conn_info)
        && let Some(date) = head.headers.get(header::DATE)
    {
        info.date.keep(date.as_bytes());
    }
}

/// Whether nothing can follow the head of such a reply on this session, so that it ends the stream: a
/// frame less, and a caller of gRPC takes a head for trailers only then.
pub(super) fn ends_with_head(session: &ServerSession, status: StatusCode) -> bool {
    is_h2(session) && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Writes a reply over HTTP/2 that is a head alone.
pub(super) async fn only(
    session: &mut ServerSession,
    mut head: Box<ResponseHeader>,
    id: &HeaderValue,
) -> pingora::Result<()> {
    head.insert_header(&X_REQUEST_ID, id.clone())?;
    let whole = vec![HttpTask::Header(head, true)];
    session.response_duplex_vec(whole).await.map(|_| ())
}

/// Writes `body` in pieces; `end` with the last.
pub(super) async fn write_body(
    session: &mut ServerSession,
    mut body: Bytes,
    end: bool,
) -> pingora::Result<()> {
    while body.len() > WRITE {
        let piece = body.split_to(WRITE);
        session.write_response_body(piece, false).await?;
    }
    session.write_response_body(body, end).await
}

/// Ends the reply.
pub(super) async fn finish(session: &mut ServerSession) -> pingora::Result<()> {
    session.finish_body().await
}

/// Ends the reply, with these fields behind its body where its framing has a place for them.
pub(super) async fn finish_with(
    session: &mut ServerSession,
    trailers: Option<HeaderMap>,
) -> pingora::Result<()> {
    let Some(trailers) = trailers else {
        return finish(session).await;
    };
    if is_h2(session) {
        return session.write_response_trailers(trailers).await;
    }
    let is_chunked = session
        .response_written()
        .is_some_and(|head| head.headers.contains_key(header::TRANSFER_ENCODING));
    let digest = session.digest().and_then(|all| all.proxy_digest.as_deref());
    if is_chunked && let Some(info) = digest.and_then(conn_info) {
        info.trailers.end_with(trailers::last_chunk(&trailers));
    }
    finish(session).await
}

/// Whether a reply of this status to this request has a body on the wire (RFC 9112 section 6.3).
pub(super) fn may_have_body(session: &ServerSession, status: StatusCode) -> bool {
    session.req_header().method != http::Method::HEAD
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
        && !status.is_informational()
}

/// Makes an upstream's head fit for this client: fields of the upstream's connection go,
/// framing becomes this connection's.
pub(super) fn adapt(head: &mut ResponseHeader, session: &ServerSession) -> pingora::Result<()> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return switch(head, session);
    }
    let announced = head.headers.get(header::TRAILER).cloned();
    strip_connection_fields(head);
    one_length(head)?;
    let length_known = head.headers.contains_key(header::CONTENT_LENGTH);
    let request = session.req_header();
    if !length_known
        && !is_h2(session)
        && request.version == Version::HTTP_11
        && may_have_body(session, head.status)
    {
        head.insert_header(
            header::TRANSFER_ENCODING,
            HeaderValue::from_static("chunked"),
        )?;
    }
    // What it announces can come only where the framing has a place for it.
    if let Some(announced) = announced
        && (is_h2(session) || head.headers.contains_key(header::TRANSFER_ENCODING))
    {
        head.insert_header(header::TRAILER, announced)?;
    }
    head.set_version(Version::HTTP_11);
    Ok(())
}

/// What grants a WebSocket, in the words of the client's version.
fn switch(head: &mut ResponseHeader, session: &ServerSession) -> pingora::Result<()> {
    let request = session.req_header();
    if websocket::is_on_stream(&request.extensions) {
        for name in [
            header::CONNECTION,
            header::UPGRADE,
            header::SEC_WEBSOCKET_ACCEPT,
            header::CONTENT_LENGTH,
        ] {
            head.remove_header(&name);
        }
        return head.set_status(StatusCode::OK);
    }
    if !head.headers.contains_key(header::UPGRADE) {
        // The endpoint granted it over HTTP/2.
        let key = request.headers.get(header::SEC_WEBSOCKET_KEY);
        let accept = websocket::accept(key.map_or(b"", HeaderValue::as_bytes));
        head.insert_header(header::CONNECTION, "upgrade")?;
        head.insert_header(header::UPGRADE, "websocket")?;
        head.insert_header(header::SEC_WEBSOCKET_ACCEPT, accept)?;
        head.remove_header(&header::CONTENT_LENGTH);
        head.set_version(Version::HTTP_11);
    }
    Ok(())
}

/// A 204 has no Content-Length, any other reply at most one (RFC 9110 section 8.6). Pingora has
/// refused values that differ; equal ones may still come as a list or as several lines.
fn one_length(head: &mut ResponseHeader) -> pingora::Result<()> {
    if head.status == StatusCode::NO_CONTENT {
        head.remove_header(&header::CONTENT_LENGTH);
        return Ok(());
    }
    let mut lines = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else {
        return Ok(());
    };
    if lines.next().is_none() && first.as_bytes().iter().all(u8::is_ascii_digit) {
        return Ok(());
    }
    let first = first.as_bytes().split(|&byte| byte == b',').next();
    let length = HeaderValue::from_bytes(first.unwrap_or_default().trim_ascii());
    head.remove_header(&header::CONTENT_LENGTH);
    if let Ok(length) = length {
        head.insert_header(header::CONTENT_LENGTH, length)?;
    }
    Ok(())
}

/// RFC 9110 section 7.6.1.
pub(super) fn strip_connection_fields(head: &mut ResponseHeader) {
    static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    if head.headers.contains_key(header::CONNECTION) {
        for name in nominated(&head.headers) {
            head.remove_header(&name);
        }
        head.remove_header(&header::CONNECTION);
    }
    for name in [
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &header::TRANSFER_ENCODING,
        &header::UPGRADE,
        &header::TRAILER,
    ] {
        head.remove_header(name);
    }
}

/// Fields that are added to nearly every reply: x-request-id, Date, Connection, Age.
pub(super) const ADDED: usize = 4;

/// A head with these fields. Names are sent as they stand in the map, in lower case.
pub(super) fn from_fields(status: StatusCode, fields: HeaderMap) -> Box<ResponseHeader> {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = status;
    parts.headers = fields;
    Box::new(ResponseHeader::from(parts))
}
