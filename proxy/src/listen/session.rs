//! A request of HTTP/2 or HTTP/3 as Pingora's session type carries it.
//!
//! Pingora's own HTTP/2 session leaves out every interim response, and hands out nothing by which one
//! could be sent past it; HTTP/3 it does not speak. So streams are put behind its trait for sessions of
//! other protocols ([`ServerSession::Custom`]), and the loops that move bytes see no difference
//! (`docs/decisions/0011-own-http2-streams.md`). What the two versions have in common is here: the
//! order of a reply's parts, and how long a client is waited for. What they say on the wire is behind
//! [`Stream`]. What is to be checked of a head is checked by the guard, as for HTTP/1.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream as Messages;
use http::Extensions;
use http::header::{self, HeaderMap, HeaderName};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, OrErr};

use super::conn::{ConnInfo, conn_info};
use super::room::Waiting;
use crate::clock;
use crate::exchange::pace::Slow;
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

/// RFC 9113 section 8.2.2, RFC 9114 section 4.2.
static CONNECTION_FIELDS: [HeaderName; 5] = [
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether a field speaks of the connection, which a stream is not.
pub(super) fn is_of_connection(name: &HeaderName) -> bool {
    CONNECTION_FIELDS.contains(name)
}

pub(super) fn without_connection_fields(fields: &mut HeaderMap) {
    for name in &CONNECTION_FIELDS {
        fields.remove(name);
    }
}

/// What one step forward took to the client, in octets.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    /// Of frames.
    pub(super) octets: usize,
    /// Of the body among them.
    pub(super) body: usize,
}

/// A request's stream, and the reply's: what it is in one version of HTTP. What is written waits in it
/// until [`Self::poll_step`] took it to the client.
pub(super) trait Stream: Send + Sync + Unpin + 'static {
    /// The next piece of the body, `None` at its end. Given up while it waits, it loses nothing.
    fn data(&mut self) -> impl Future<Output = pingora::Result<Option<Bytes>>> + Send;

    /// The fields behind a body that was read to its end.
    fn trailers(&mut self) -> impl Future<Output = pingora::Result<Option<HeaderMap>>> + Send;

    /// All of the body was handed out.
    fn all_read(&self) -> bool;

    /// The head of an interim response.
    fn interim(
        &mut self,
        head: &ResponseHeader,
    ) -> impl Future<Output = pingora::Result<()>> + Send;

    /// The head of the reply; `end`: it is all.
    fn head(&mut self, head: &ResponseHeader, end: bool) -> pingora::Result<()>;

    /// A piece of the body; `end`: the last one. Nothing waits.
    fn piece(&mut self, piece: Bytes, end: bool) -> pingora::Result<()>;

    /// The fields behind the body, and the end.
    fn last_fields(&mut self, fields: HeaderMap) -> pingora::Result<()>;

    /// The reply is whole.
    fn end(&mut self) -> pingora::Result<()>;

    /// It will not become whole. `is_cancelled`: not because this side failed.
    fn abandon(&mut self, is_cancelled: bool);

    /// The reply was ended.
    fn is_ended(&self) -> bool;

    /// Something waits for the client to take it.
    fn has_pending(&self) -> bool;

    /// Takes some of what waits to the client. Given up while it waits, it is resumed.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Step>>;

    /// Whether nothing was taken of it because others come first, which is no fault of the client's.
    fn was_passed_over(&mut self) -> bool {
        false
    }

    /// Ends when the client wants no more of the reply or is gone, with how that is said.
    fn left(&mut self) -> impl Future<Output = Box<Error>> + Send;
}

/// See the module's text.
pub(super) struct StreamSession<S> {
    head: RequestHeader,
    stream: S,
    info: Arc<ConnInfo>,
    digest: Arc<Digest>,
    written: Option<Box<ResponseHeader>>,
    read: usize,
    sent: usize,
    write_timeout: Option<Duration>,
    /// When the body must have come whole; `None`: it comes for as long as it likes.
    until: Option<Instant>,
    /// Runs while the client takes nothing.
    stall: Option<Waiting>,
}

impl<S: Stream> StreamSession<S> {
    /// `None`: nothing is known of the connection.
    pub(super) fn new(head: RequestHeader, stream: S, digest: Arc<Digest>) -> Option<Self> {
        let info = digest.proxy_digest.as_deref().and_then(conn_info)?.clone();
        // What sends messages now and then sends no body that is late (gRPC, WebSockets).
        let kind = head.headers.get(header::CONTENT_TYPE);
        let is_messages = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
            || websocket::is_on_stream(&head.extensions);
        let until = (!is_messages && !stream.all_read())
            .then(|| clock::now() + info.listener.settings.load().limits.request_timeout);
        Some(Self {
            head,
            stream,
            info,
            digest,
            written: None,
            read: 0,
            sent: 0,
            write_timeout: None,
            until,
            stall: None,
        })
    }

    async fn next_piece(&mut self) -> pingora::Result<Option<Bytes>> {
        let piece = match self.until {
            None => self.stream.data().await?,
            Some(_) => {
                let waited = self
                    .info
                    .paces()
                    .up
                    .wait(None, self.until, self.stream.data());
                let piece = waited
                    .await
                    .or_err(ErrorType::ReadTimedout, "while reading a request body")??;
                self.info
                    .paces()
                    .up
                    .took(piece.as_ref().map_or(0, Bytes::len));
                piece
            }
        };
        let Some(piece) = piece else {
            if let Some(came) = self.stream.trailers().await? {
                keep_trailers(self.head.extensions_mut(), came);
            }
            return Ok(None);
        };
        self.read += piece.len();
        Ok(Some(piece))
    }

    fn nothing_to_read(&self) -> bool {
        let length = self.head.headers.get(header::CONTENT_LENGTH);
        self.read == 0 && (self.stream.all_read() || length.is_some_and(|length| length == "0"))
    }

    /// Writes what waits, as the client makes room for it.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        while self.stream.has_pending() {
            let Poll::Ready(step) = self.stream.poll_step(cx) else {
                let slow = ready!(self.stall().poll(cx));
                self.stall = None;
                if slow == Slow::Still && self.stream.was_passed_over() {
                    continue;
                }
                self.stream.abandon(true);
                let client = self.info.peer.ip();
                self.info.listener.refused(slow.as_str(), client);
                let error = Error::because(ErrorType::WriteTimedout, "while writing a reply", slow);
                return Poll::Ready(Err(error.into_down()));
            };
            self.stall = None;
            let step = step.map_err(|error| error.into_down())?;
            self.info.paces().down.took(step.octets);
            self.sent += step.body;
        }
        Poll::Ready(Ok(()))
    }

    fn stall(&mut self) -> &mut Waiting {
        let (info, timeout) = (&self.info, self.write_timeout);
        self.stall.get_or_insert_with(|| {
            // WebSockets may be silent, but take what is written to them.
            let most = || info.listener.settings.load().limits.body_timeout;
            Waiting::new(&info.paces().down, Some(timeout.unwrap_or_else(most)), None)
        })
    }

    async fn flush(&mut self) -> pingora::Result<()> {
        poll_fn(|cx| self.poll_pending(cx)).await
    }

    /// RFC 9113 section 8.1: any number of these, then the final one.
    async fn interim(&mut self, head: &ResponseHeader) -> pingora::Result<()> {
        if self.written.is_some() || self.stream.is_ended() {
            return Ok(());
        }
        self.stream.interim(head).await?;
        self.flush().await
    }

    async fn last(&mut self, mut head: Box<ResponseHeader>, end: bool) -> pingora::Result<()> {
        if self.written.is_some() || self.stream.is_ended() {
            return Ok(());
        }
        if !head.headers.contains_key(header::DATE) {
            head.insert_header(header::DATE, get_cached_date())?;
        }
        self.stream.head(&head, end)?;
        self.written = Some(head);
        self.flush().await
    }

    async fn piece(&mut self, piece: Bytes, end: bool) -> pingora::Result<()> {
        // What was given up half way is resumed.
        self.flush().await?;
        if self.stream.is_ended() {
            return Ok(());
        }
        if self.written.is_none() {
            return Err(Error::explain(ErrorType::H2Error, "a body without a head"));
        }
        self.stream.piece(piece, end)?;
        self.flush().await
    }

    /// Without a head there is nothing to end: dropped, the stream is reset.
    async fn end(&mut self) -> pingora::Result<()> {
        self.flush().await?;
        match self.written.is_some() && !self.stream.is_ended() {
            true => self.stream.end(),
            false => Ok(()),
        }
    }

    async fn last_fields(&mut self, fields: HeaderMap) -> pingora::Result<()> {
        self.flush().await?;
        if self.stream.is_ended() || self.written.is_none() {
            return Ok(());
        }
        self.stream.last_fields(fields)?;
        self.flush().await
    }
}

#[async_trait]
impl<S: Stream> Session for StreamSession<S> {
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
        while !self.stream.all_read() && self.next_piece().await?.is_some() {}
        Ok(())
    }

    async fn write_response_header(
        &mut self,
        head: Box<ResponseHeader>,
        end: bool,
    ) -> pingora::Result<()> {
        match head.status.is_informational() {
            true => self.interim(&head).await,
            false => self.last(head, end).await,
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
        self.last_fields(fields).await
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
                        self.last_fields(*fields).await?;
                    }
                    ends = true;
                }
                HttpTask::Done => ends = true,
                HttpTask::Failed(error) => return Err(error),
            }
        }
        if ends {
            self.end().await?;
        }
        Ok(ends)
    }

    fn proxy_tasks_enabled(&self) -> bool {
        true
    }

    /// One piece at a time.
    fn send_proxy_task(&mut self, task: HttpTask) {
        if let HttpTask::Body(Some(piece), _) | HttpTask::UpgradedBody(Some(piece), _) = task
            && self.written.is_some()
            && !self.stream.is_ended()
        {
            // It fails where there is no head, and there is one.
            let _ = self.stream.piece(piece, false);
        }
    }

    fn has_pending_proxy_tasks(&self) -> bool {
        self.stream.has_pending()
    }

    async fn write_proxy_tasks(&mut self) -> pingora::Result<bool> {
        self.flush().await.map(|()| false)
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
        if !self.stream.is_ended() {
            // RFC 8441 section 5, RFC 9220 section 3.
            let is_tunnel = websocket::is_on_stream(&self.head.extensions);
            self.stream.abandon(is_tunnel && self.written.is_some());
        }
    }

    fn is_body_done(&mut self) -> bool {
        self.nothing_to_read() || self.stream.all_read()
    }

    async fn finish(&mut self) -> pingora::Result<()> {
        self.end().await
    }

    fn is_body_empty(&mut self) -> bool {
        self.nothing_to_read()
    }

    async fn read_body_or_idle(&mut self, idle: bool) -> pingora::Result<Option<Bytes>> {
        if idle || self.nothing_to_read() || self.stream.all_read() {
            return Err(self.stream.left().await);
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
