//! The stream of an HTTP/2 request, as [`super::session`] serves it: taken from the `h2` connection,
//! which gives and takes as Pingora's own session does not
//! (`docs/decisions/0011-own-http2-streams.md`).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use http::Response;
use http::header::HeaderMap;
use pingora::http::ResponseHeader;
use pingora::protocols::Digest;
use pingora::{Error, ErrorType, OrErr};
use tokio_util::sync::PollSemaphore;

use super::conn::conn_info;
use super::room;
use super::session::{Step, Stream, StreamSession, without_connection_fields};
use crate::carry::LaneStream;

/// See the module's text.
pub(super) struct H2Stream {
    /// Of the body, what was read before.
    given: Bytes,
    body: RecvStream,
    reply: SendResponse<Bytes>,
    writer: Option<SendStream<Bytes>>,
    /// A piece of the body that waits for room, and whether it is the last one.
    pending: Option<(Bytes, bool)>,
    /// What the streams of the connection may have waiting.
    waiting: PollSemaphore,
    /// The stream was ended by us.
    ended: bool,
}

/// `None`: nothing is known of the connection.
pub(super) fn session(stream: LaneStream, digest: Arc<Digest>) -> Option<StreamSession<H2Stream>> {
    let (head, given, body, reply) = stream.into_parts();
    let info = digest.proxy_digest.as_deref().and_then(conn_info)?;
    let waiting = info.paces().waiting();
    let stream = H2Stream {
        given,
        body,
        reply,
        writer: None,
        pending: None,
        waiting,
        ended: false,
    };
    StreamSession::new(head.into(), stream, digest)
}

impl H2Stream {
    fn writer(&mut self) -> pingora::Result<&mut SendStream<Bytes>> {
        self.writer
            .as_mut()
            .ok_or_else(|| Error::explain(ErrorType::H2Error, "a body without a head"))
    }
}

impl Stream for H2Stream {
    async fn data(&mut self) -> pingora::Result<Option<Bytes>> {
        if !self.given.is_empty() {
            return Ok(Some(std::mem::take(&mut self.given)));
        }
        let piece = self.body.data().await.transpose();
        let piece = piece.or_err(ErrorType::ReadError, "while reading a request body")?;
        if let Some(piece) = &piece {
            // Fails only for more than was received.
            let _ = self.body.flow_control().release_capacity(piece.len());
        }
        Ok(piece)
    }

    async fn trailers(&mut self) -> pingora::Result<Option<HeaderMap>> {
        let came = self.body.trailers().await;
        came.or_err(ErrorType::ReadError, "while reading a request's trailers")
    }

    fn all_read(&self) -> bool {
        self.given.is_empty() && self.body.is_end_stream()
    }

    async fn interim(&mut self, head: &ResponseHeader) -> pingora::Result<()> {
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

    fn head(&mut self, head: &ResponseHeader, end: bool) -> pingora::Result<()> {
        let mut parts = head.as_owned_parts();
        without_connection_fields(&mut parts.headers);
        let writer = self
            .reply
            .send_response(Response::from_parts(parts, ()), end)
            .or_err(ErrorType::WriteError, "while writing a response head")?;
        self.writer = Some(writer);
        self.ended = end;
        Ok(())
    }

    fn piece(&mut self, piece: Bytes, end: bool) -> pingora::Result<()> {
        if !piece.is_empty() {
            self.pending = Some((piece, end));
            return Ok(());
        }
        match end {
            true => self.end(),
            false => Ok(()),
        }
    }

    fn last_fields(&mut self, fields: HeaderMap) -> pingora::Result<()> {
        self.writer()?
            .send_trailers(fields)
            .or_err(ErrorType::WriteError, "while writing trailers")?;
        self.ended = true;
        Ok(())
    }

    fn end(&mut self) -> pingora::Result<()> {
        self.writer()?
            .send_data(Bytes::new(), true)
            .or_err(ErrorType::WriteError, "while ending a response")?;
        self.ended = true;
        Ok(())
    }

    fn abandon(&mut self, is_cancelled: bool) {
        self.reply.send_reset(match is_cancelled {
            true => Reason::CANCEL,
            false => Reason::INTERNAL_ERROR,
        });
        self.pending = None;
        self.ended = true;
    }

    fn is_ended(&self) -> bool {
        self.ended
    }

    fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Step>> {
        const WHILE: &str = "while writing a response body";
        let (Some(writer), Some((piece, end))) = (&mut self.writer, &mut self.pending) else {
            self.pending = None;
            return Poll::Ready(Ok(Step::default()));
        };
        writer.reserve_capacity(piece.len());
        let room = match ready!(room::poll_room(writer, cx)) {
            Some(room) => room.or_err(ErrorType::H2Error, WHILE)?,
            None => return Poll::Ready(Error::e_explain(ErrorType::H2Error, WHILE)),
        };
        let length = room::at_once(piece.len(), room);
        let count = u32::try_from(length).unwrap_or(u32::MAX);
        let permit = ready!(self.waiting.poll_acquire_many(cx, count));
        let mut part = piece.split_to(length);
        if let Some(permit) = permit {
            part = room::held(part, permit);
        }
        let is_last = piece.is_empty();
        let ends = is_last && *end;
        writer
            .send_data(part, ends)
            .or_err(ErrorType::H2Error, WHILE)?;
        self.ended = ends;
        if is_last {
            self.pending = None;
        }
        Poll::Ready(Ok(Step {
            octets: length,
            body: length,
        }))
    }

    /// Ends when the client resets the stream, or its connection is gone.
    async fn left(&mut self) -> Box<Error> {
        let left = poll_fn(|cx| match &mut self.writer {
            Some(writer) => writer.poll_reset(cx),
            None => self.reply.poll_reset(cx),
        });
        match left.await {
            Ok(reason) => {
                let what = format!("the client reset the stream: {reason}");
                Error::explain(ErrorType::H2Error, what)
            }
            Err(error) => Error::because(ErrorType::H2Error, "while the client is watched", error),
        }
    }
}
