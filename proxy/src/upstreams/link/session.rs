//! One request to an endpoint and its reply, whatever the endpoint speaks.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession as H1Session;
use pingora::{Error, ErrorType};
use tokio::time::timeout;

use super::stream::H2Stream;
use crate::exchange::trailers;
use crate::upstreams::dial::{Connection, GOODBYE};

/// As Pingora calls what it does not take for a chunk.
const INVALID_CHUNK: ErrorType = ErrorType::new("InvalidChunk");

/// See the module's text.
pub(crate) enum Session {
    /// HTTP/1.1, by Pingora. `sends_chunks`: its request's body is framed by them.
    H1 { h1: H1Session, sends_chunks: bool },
    /// A stream of HTTP/2.
    H2(H2Stream),
}

/// What came of a wait for the reply.
pub(crate) enum Came<T> {
    /// This of the reply.
    Reply(T),
    /// Nothing, but the endpoint has taken what was pending of the request.
    Taken,
    /// Nothing, and the endpoint takes no more of the request.
    Refused,
}

impl Session {
    /// Of HTTP/1.1 on `connection`.
    pub(crate) fn h1(connection: Box<Connection>) -> Self {
        connection.watch_trailers();
        Self::H1 {
            h1: H1Session::new(connection),
            sends_chunks: false,
        }
    }

    /// Whether it shares its connection with others.
    pub(crate) fn is_h2(&self) -> bool {
        matches!(self, Self::H2(_))
    }

    pub(crate) async fn write_request_header(
        &mut self,
        head: Box<RequestHeader>,
        end: bool,
    ) -> pingora::Result<()> {
        match self {
            Self::H1 { h1, sends_chunks } => {
                *sends_chunks = head.headers.contains_key(header::TRANSFER_ENCODING);
                h1.write_request_header(head).await.map(|_| ())
            }
            Self::H2(h2) => h2.write_request_header(head, end),
        }
    }

    /// Sends a piece of the body and waits until it is out.
    pub(crate) async fn write_request_body(
        &mut self,
        piece: Bytes,
        end: bool,
    ) -> pingora::Result<()> {
        match self {
            Self::H1 { h1, .. } => h1.write_body(&piece).await.map(|_| ()),
            Self::H2(h2) => h2.write_request_body(piece, end).await,
        }
    }

    /// Sends a piece of the body; over HTTP/2 it may wait in here ([`Self::holds`]).
    pub(crate) async fn begin_piece(&mut self, piece: Bytes) -> pingora::Result<()> {
        match self {
            Self::H1 { h1, .. } => h1.write_body(&piece).await.map(|_| ()),
            Self::H2(h2) => {
                h2.begin_piece(piece);
                h2.try_flush()
            }
        }
    }

    /// Ends the request; over HTTP/2 the end may wait in here. Trailers that the framing has no place
    /// for are left out.
    pub(crate) async fn begin_end(&mut self, trailers: Option<HeaderMap>) -> pingora::Result<()> {
        match self {
            Self::H1 { h1, sends_chunks } => {
                if let Some(fields) = trailers.filter(|_| *sends_chunks)
                    && let Some(connection) = connection_of(h1)
                {
                    connection.end_with(trailers::last_chunk(&fields));
                }
                finish_h1(h1).await
            }
            Self::H2(h2) => {
                h2.begin_end(trailers);
                h2.try_flush()
            }
        }
    }

    /// Ends the request and waits until that is out.
    pub(crate) async fn finish_request_body(
        &mut self,
        trailers: Option<HeaderMap>,
    ) -> pingora::Result<()> {
        match self {
            Self::H1 { .. } => self.begin_end(trailers).await,
            Self::H2(h2) => h2.finish_request_body(trailers).await,
        }
    }

    /// Whether something of the request waits in here: then no more may be given, and reading the
    /// reply pushes it on.
    pub(crate) fn holds(&self) -> bool {
        match self {
            Self::H1 { .. } => false,
            Self::H2(h2) => h2.holds(),
        }
    }

    /// Pushes on what waits in here.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        match self {
            Self::H1 { .. } => Poll::Ready(Ok(())),
            Self::H2(h2) => h2.poll_flush(cx),
        }
    }

    pub(crate) fn set_read_timeout(&mut self, patience: Option<Duration>) {
        match self {
            Self::H1 { h1, .. } => h1.read_timeout = patience,
            Self::H2(h2) => h2.set_read_timeout(patience),
        }
    }

    pub(crate) fn set_write_timeout(&mut self, patience: Option<Duration>) {
        match self {
            Self::H1 { h1, .. } => h1.write_timeout = patience,
            Self::H2(h2) => h2.set_write_timeout(patience),
        }
    }

    /// Reads the next head, interim or final.
    pub(crate) async fn read_response_header(&mut self) -> pingora::Result<()> {
        match self {
            Self::H2(h2) => h2.read_response_header().await,
            Self::H1 { h1, .. } => {
                let length = h1.read_response().await?;
                if let (Some(head), Some(connection)) = (h1.resp_header(), connection_of(h1)) {
                    match head.status {
                        // What follows is neither a head nor a body.
                        StatusCode::SWITCHING_PROTOCOLS => connection.head_read(length, false),
                        status if status.is_informational() => connection.interim_read(length),
                        _ => connection.head_read(length, is_chunked(head)),
                    }
                }
                Ok(())
            }
        }
    }

    /// The same, and what waits of the request is pushed on meanwhile.
    pub(crate) async fn head_or_taken(&mut self) -> Came<pingora::Result<()>> {
        match self {
            Self::H2(h2) if h2.holds() => h2.head_or_taken().await,
            _ => Came::Reply(self.read_response_header().await),
        }
    }

    /// The next piece of the reply's body, and what waits of the request is pushed on meanwhile.
    pub(crate) async fn piece_or_taken(&mut self) -> Came<pingora::Result<Option<Bytes>>> {
        match self {
            Self::H2(h2) if h2.holds() => h2.piece_or_taken().await,
            _ => Came::Reply(self.read_response_body().await),
        }
    }

    pub(crate) fn response_header(&self) -> Option<&ResponseHeader> {
        match self {
            Self::H1 { h1, .. } => h1.resp_header(),
            Self::H2(h2) => h2.response_header(),
        }
    }

    /// The next piece of the reply's body; `None` at its end.
    pub(crate) async fn read_response_body(&mut self) -> pingora::Result<Option<Bytes>> {
        match self {
            Self::H1 { h1, .. } => {
                let piece = h1.read_body_bytes().await?;
                match connection_of(h1).is_some_and(Connection::is_malformed) {
                    true => Error::e_explain(INVALID_CHUNK, "a body by chunks that is none"),
                    false => Ok(piece),
                }
            }
            Self::H2(h2) => h2.read_response_body().await,
        }
    }

    /// The fields behind a body that has been read; only those that may cross.
    ///
    /// # Errors
    /// The reply broke off in their place.
    pub(crate) async fn trailers(&mut self) -> pingora::Result<Option<HeaderMap>> {
        match self {
            Self::H1 { h1, .. } => {
                let section = connection_of(h1).and_then(Connection::take_trailer);
                Ok(section.and_then(|section| trailers::read(&section)))
            }
            Self::H2(h2) => {
                let fields = h2.read_trailers().await?;
                Ok(fields.as_ref().and_then(trailers::crossing))
            }
        }
    }

    /// Whether the reply was read to its end.
    pub(crate) fn response_done(&mut self) -> bool {
        match self {
            Self::H1 { h1, .. } => h1.is_body_done(),
            Self::H2(h2) => h2.response_done(),
        }
    }

    /// Gives the exchange up.
    pub(crate) async fn shutdown(&mut self) {
        match self {
            // It is closed without a goodbye where that is not taken.
            Self::H1 { h1, .. } => drop(timeout(GOODBYE, h1.shutdown()).await),
            Self::H2(h2) => h2.shutdown(),
        }
    }

    /// The connection of its own.
    #[cfg(test)]
    pub(crate) fn stream(&self) -> Option<&Stream> {
        match self {
            Self::H1 { h1, .. } => Some(h1.stream()),
            Self::H2(_) => None,
        }
    }
}

/// Writes the end of a body, and waits no longer for it than for a piece, which Pingora does by itself: the
/// endpoint may have said something and take no more.
async fn finish_h1(h1: &mut H1Session) -> pingora::Result<()> {
    let patience = h1.write_timeout.unwrap_or(Duration::MAX);
    let finished = timeout(patience, h1.finish_body()).await;
    finished
        .map_err(|_| Error::explain(ErrorType::WriteTimedout, "the end of a request's body"))?
        .map(|_| ())
}

/// The connection that the session reads.
fn connection_of(h1: &H1Session) -> Option<&Connection> {
    let stream: &Stream = h1.stream();
    (**stream).as_any().downcast_ref()
}

fn is_chunked(head: &ResponseHeader) -> bool {
    head.headers.contains_key(header::TRANSFER_ENCODING)
}
