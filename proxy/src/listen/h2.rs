//! One HTTP/2 request as Pingora's session type carries it.
//!
//! Pingora's own HTTP/2 session leaves out every interim response, and hands out
//! nothing by which one could be sent past it. So streams are taken from the `h2`
//! connection here and put behind Pingora's trait for sessions of other protocols
//! ([`ServerSession::Custom`]); the loops that move bytes see no difference
//! (`docs/decisions/0011-own-http2-streams.md`). What is to be checked of a head
//! is checked by the guard, as for HTTP/1.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream, SendStream};
use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream as Messages;
use http::header::{self, HeaderMap, HeaderName};
use http::{Extensions, Response};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::{HttpTask, ServerSession, v2};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, OrErr};

use super::conn::{ConnInfo, conn_info};
use super::room;
use crate::carry::LaneStream;
use crate::clock;
use crate::exchange::{trailers, websocket};

/// The fields behind a request's body, where it was read to its end; only those that may cross.
pub(crate) fn request_trailers(session: &ServerSession) -> Option<HeaderMap> {
    if is_h2(session) {
        let came = session.req_header().extensions.get::<CameBehind>()?;
        return trailers::crossing(&came.0);
    }
    let digest = session.digest()?.proxy_digest.as_deref()?;
    trailers::read(&conn_info(digest)?.trailers.take_request())
}

/// A request's trailers, in the extensions of its head.
#[derive(Clone)]
struct CameBehind(HeaderMap);

/// Keeps trailers that were read before a session has the stream, for [`request_trailers`].
pub(crate) fn keep_trailers(extensions: &mut Extensions, came: HeaderMap) {
    extensions.insert(CameBehind(came));
}

/// Whether a session is one of HTTP/2, or of HTTP/3, which differs from it in nothing that matters
/// behind its framing; sessions of this process are that, or HTTP/1.
pub(crate) fn is_h2(session: &ServerSession) -> bool {
    session.is_custom()
}

/// See the module's text.
pub(super) struct H2Session {
    head: RequestHeader,
    /// Of the body, what was read before.
    given: Bytes,
    body: RecvStream,
    reply: SendResponse<Bytes>,
    writer: Option<SendStream<Bytes>>,
    /// A piece of the body that waits for room.
    pending: Bytes,
    written: Option<Box<ResponseHeader>>,
    /// The stream was ended by us.
    ended: bool,
    read: usize,
    sent: usize,
    digest: Arc<Digest>,
    write_timeout: Option<Duration>,
    /// When the body must have come whole; `None`: it comes for as long as it likes.
    until: Option<Instant>,
}

impl H2Session {
    pub(super) fn new(stream: LaneStream, digest: Arc<Digest>) -> Self {
        let (head, given, body, reply) = stream.into_parts();
        Self {
            head: head.into(),
            given,
            body,
            reply,
            writer: None,
            pending: Bytes::new(),
            written: None,
            ended: false,
            read: 0,
            sent: 0,
            until: None,
            digest,
            write_timeout: None,
        }
        .with_limits()
    }

    /// What sends messages now and then sends no body that is late (gRPC, WebSockets).
    fn with_limits(mut self) -> Self {
        let kind = self.head.headers.get(header::CONTENT_TYPE);
        let is_messages = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if let Some(info) = self.info()
            && !self.body.is_end_stream()
            && !is_messages
            && !websocket::is_over_h2(&self.head.extensions)
        {
            let limits = &info.listener.settings.load().limits;
            self.until = Some(clock::now() + limits.request_timeout);
        }
        self
    }

    fn info(&self) -> Option<&Arc<ConnInfo>> {
        self.digest.proxy_digest.as_deref().and_then(conn_info)
    }

    /// Ends when the client resets the stream, or its connection is gone.
    async fn left(&mut self) -> pingora::Result<Reason> {
        let left = poll_fn(|cx| match &mut self.writer {
            Some(writer) => writer.poll_reset(cx),
            None => self.reply.poll_reset(cx),
        });
        left.await
            .or_err(ErrorType::H2Error, "while the client is watched")
    }

    async fn next_piece(&mut self) -> pingora::Result<Option<Bytes>> {
        if !self.given.is_empty() {
            self.read += self.given.len();
            return Ok(Some(std::mem::take(&mut self.given)));
        }
        let (until, info) = (self.until, self.info().cloned());
        let piece = match info.filter(|_| until.is_some()) {
            None => self.body.data().await,
            Some(info) => {
                let data = self.body.data();
                let piece = info.up.wait(None, until, data).await;
                let piece =
                    piece.or_err(ErrorType::ReadTimedout, "while reading a request body")?;
                let length = piece.as_ref().and_then(|piece| piece.as_ref().ok());
                info.up.took(length.map_or(0, Bytes::len));
                piece
            }
        };
        let piece = piece.transpose();
        let piece = piece.or_err(ErrorType::ReadError, "while reading a request body")?;
        let Some(piece) = piece else {
            let came = self.body.trailers().await;
            let came = came.or_err(ErrorType::ReadError, "while reading a request's trailers")?;
            if let Some(came) = came {
                self.head.extensions_mut().insert(CameBehind(came));
            }
            return Ok(None);
        };
        self.read += piece.len();
        // Fails only for more than was received.
        let _ = self.body.flow_control().release_capacity(piece.len());
        Ok(Some(piece))
    }

    fn all_read(&self) -> bool {
        self.nothing_to_read() || (self.given.is_empty() && self.body.is_end_stream())
    }

    fn nothing_to_read(&self) -> bool {
        let length = self.head.headers.get(header::CONTENT_LENGTH);
        self.read == 0
            && self.given.is_empty()
            && (self.body.is_end_stream() || length.is_some_and(|length| length == "0"))
    }

    /// RFC 9113 section 8.1: any number of these, then the final one.
    async fn interim(&mut self, head: &ResponseHeader) -> pingora::Result<()> {
        if self.written.is_some() || self.ended {
            return Ok(());
        }
        let is_reset = poll_fn(|cx| Poll::Ready(self.reply.poll_reset(cx).is_ready())).await;
        if is_reset {
            return Err(Error::explain(ErrorType::H2Error, "the client has left"));
        }
        let mut parts = head.as_owned_parts();
        without_connection_fields(&mut parts.headers);
        self.reply
            .send_informational(Response::from_parts(parts, ()))
            .or_err(ErrorType::WriteError, "while writing an interim response")
    }

    fn last(&mut self, mut head: Box<ResponseHeader>, end: bool) -> pingora::Result<()> {
        if self.written.is_some() || self.ended {
            return Ok(());
        }
        if !head.headers.contains_key(header::DATE) {
            head.insert_header(header::DATE, get_cached_date())?;
        }
        let mut parts = head.as_owned_parts();
        without_connection_fields(&mut parts.headers);
        let writer = self
            .reply
            .send_response(Response::from_parts(parts, ()), end)
            .or_err(ErrorType::WriteError, "while writing a response head")?;
        self.written = Some(head);
        self.writer = Some(writer);
        self.ended = end;
        Ok(())
    }

    fn writer(&mut self) -> pingora::Result<&mut SendStream<Bytes>> {
        self.writer
            .as_mut()
            .ok_or_else(|| Error::explain(ErrorType::H2Error, "a body without a head"))
    }

    async fn piece(&mut self, piece: Bytes, end: bool) -> pingora::Result<()> {
        if self.ended {
            return Ok(());
        }
        let (patience, info) = (self.write_timeout, self.info().cloned());
        let (Some(patience), Some(info)) = (patience, info) else {
            let length = piece.len();
            v2::write_body(self.writer()?, piece, end, patience)
                .await
                .map_err(|error| error.into_down())?;
            self.sent += length;
            self.ended = end;
            return Ok(());
        };
        let mut sent = 0;
        let done = room::send(self.writer()?, piece, end, (patience, &info), &mut sent).await;
        self.sent += usize::try_from(sent).unwrap_or(usize::MAX);
        if done.is_err() {
            let why = "the client has left, or takes too little";
            return Err(Error::explain(ErrorType::WriteError, why).into_down());
        }
        self.ended = end;
        Ok(())
    }

    /// Writes what is pending as the client makes room for it.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        const WHILE: &str = "while writing a response body";
        let Some(writer) = self.writer.as_mut().filter(|_| !self.ended) else {
            self.pending = Bytes::new();
            return Poll::Ready(Ok(()));
        };
        while !self.pending.is_empty() {
            writer.reserve_capacity(self.pending.len());
            let room = match writer.capacity() {
                0 => match ready!(writer.poll_capacity(cx)) {
                    Some(room) => room.or_err(ErrorType::H2Error, WHILE)?,
                    None => return Poll::Ready(Error::e_explain(ErrorType::H2Error, WHILE)),
                },
                room => room,
            };
            let piece = self.pending.split_to(room.min(self.pending.len()));
            self.sent += piece.len();
            writer
                .send_data(piece, false)
                .or_err(ErrorType::H2Error, WHILE)?;
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self) -> pingora::Result<()> {
        // Without a head there is nothing to end: dropped, the stream is reset.
        if let Some(writer) = self.writer.as_mut().filter(|_| !self.ended) {
            writer
                .send_data(Bytes::new(), true)
                .or_err(ErrorType::WriteError, "while ending a response")?;
            self.ended = true;
        }
        Ok(())
    }

    fn last_fields(&mut self, fields: HeaderMap) -> pingora::Result<()> {
        if self.ended {
            return Ok(());
        }
        self.writer()?
            .send_trailers(fields)
            .or_err(ErrorType::WriteError, "while writing trailers")?;
        self.ended = true;
        Ok(())
    }
}

/// RFC 9113 section 8.2.2, RFC 9114 section 4.2.
static CONNECTION_FIELDS: [HeaderName; 5] = [
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

fn without_connection_fields(fields: &mut HeaderMap) {
    for name in &CONNECTION_FIELDS {
        fields.remove(name);
    }
}

/// Whether a field speaks of the connection, which a stream is not.
pub(super) fn is_of_connection(name: &HeaderName) -> bool {
    CONNECTION_FIELDS.contains(name)
}

#[async_trait]
impl Session for H2Session {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> pingora::Result<Option<Bytes>> {
        self.next_piece().await
    }

    async fn drain_request_body(&mut self) -> pingora::Result<()> {
        while !self.all_read() && self.next_piece().await?.is_some() {}
        Ok(())
    }

    async fn write_response_header(
        &mut self,
        head: Box<ResponseHeader>,
        end: bool,
    ) -> pingora::Result<()> {
        match head.status.is_informational() {
            true => self.interim(&head).await,
            false => self.last(head, end),
        }
    }

    async fn write_response_header_ref(
        &mut self,
        head: &ResponseHeader,
        end: bool,
    ) -> pingora::Result<()> {
        self.write_response_header(Box::new(head.clone()), end)
            .await
    }

    async fn write_body(&mut self, piece: Bytes, end: bool) -> pingora::Result<()> {
        self.piece(piece, end).await
    }

    async fn write_trailers(&mut self, fields: HeaderMap) -> pingora::Result<()> {
        self.last_fields(fields)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> pingora::Result<bool> {
        let mut ends = false;
        for task in tasks {
            match task {
                HttpTask::Header(head, end) => {
                    self.write_response_header(head, end).await?;
                    ends |= end;
                }
                HttpTask::Body(piece, end) | HttpTask::UpgradedBody(piece, end) => {
                    if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
                        self.piece(piece, end).await?;
                    }
                    ends |= end;
                }
                HttpTask::Trailer(fields) => {
                    if let Some(fields) = fields {
                        self.last_fields(*fields)?;
                    }
                    ends = true;
                }
                HttpTask::Done => ends = true,
                HttpTask::Failed(error) => return Err(error),
            }
        }
        if ends {
            self.end()?;
        }
        Ok(ends)
    }

    fn proxy_tasks_enabled(&self) -> bool {
        true
    }

    /// One piece at a time.
    fn send_proxy_task(&mut self, task: HttpTask) {
        if let HttpTask::Body(Some(piece), _) | HttpTask::UpgradedBody(Some(piece), _) = task {
            self.pending = piece;
        }
    }

    fn has_pending_proxy_tasks(&self) -> bool {
        !self.pending.is_empty()
    }

    async fn write_proxy_tasks(&mut self) -> pingora::Result<bool> {
        poll_fn(|cx| self.poll_pending(cx)).await.map(|()| false)
    }

    /// Reading has its clock where it is waited for.
    fn set_read_timeout(&mut self, _: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, _: Option<Duration>) {}

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        None
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.head.method, self.head.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        if !self.ended {
            self.reply.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    fn is_body_done(&mut self) -> bool {
        self.all_read()
    }

    async fn finish(&mut self) -> pingora::Result<()> {
        self.end()
    }

    fn is_body_empty(&mut self) -> bool {
        self.nothing_to_read()
    }

    async fn read_body_or_idle(&mut self, idle: bool) -> pingora::Result<Option<Bytes>> {
        if idle || self.all_read() {
            let reason = self.left().await?;
            let what = format!("the client reset the stream: {reason}");
            return Err(Error::explain(ErrorType::H2Error, what));
        }
        self.next_piece().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.read
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    /// For subrequests of Pingora's own proxy, which is not used.
    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {}

    fn retry_buffer_truncated(&self) -> bool {
        false
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        None
    }

    async fn finish_custom(&mut self) -> pingora::Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Messages<Item = pingora::Result<Bytes>> + Unpin + Send + Sync + 'static>>
    {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Messages<Item = pingora::Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> pingora::Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(
        &mut self,
        _: Box<dyn CustomMessageWrite>,
    ) -> pingora::Result<()> {
        Ok(())
    }
}
