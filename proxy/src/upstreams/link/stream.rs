//! One request on an HTTP/2 connection to an endpoint.
//!
//! Pingora's stream ends requests without trailers, leaves out interim replies, and lets the reply
//! wait while a piece of the request waits for room, so that a call which streams both ways can stand
//! still (`docs/decisions/0018-streams-both-ways.md`). Here one piece of the request waits beside the
//! reply, and whoever reads the reply pushes it on.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap};
use http::{Request, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, OrErr};
use tokio::time::timeout;

use super::h2::Connection;
use super::session::Came;

/// See the module's text. Counts among its connection's streams while it lives.
pub(crate) struct H2Stream {
    connection: Connection,
    sender: SendRequest<Bytes>,
    upload: Option<SendStream<Bytes>>,
    /// Of the request's body, what waits for room.
    pending: Bytes,
    ending: Ending,
    reply: Option<ResponseFuture>,
    /// The head that was read last.
    head: Option<ResponseHeader>,
    download: Option<RecvStream>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

/// How far the request's end is.
enum Ending {
    No,
    /// It comes behind what is pending.
    Asked(Option<HeaderMap>),
    Sent,
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        self.connection.give_stream();
    }
}

impl H2Stream {
    /// The next stream on `connection`, which has counted it.
    pub(super) fn new(connection: Connection, sender: SendRequest<Bytes>) -> Self {
        Self {
            connection,
            sender,
            upload: None,
            pending: Bytes::new(),
            ending: Ending::No,
            reply: None,
            head: None,
            download: None,
            read_timeout: None,
            write_timeout: None,
        }
    }

    /// Longest wait in each reading call; `None`: for ever.
    pub(crate) fn set_read_timeout(&mut self, patience: Option<Duration>) {
        self.read_timeout = patience;
    }

    /// Longest wait in each writing call.
    pub(crate) fn set_write_timeout(&mut self, patience: Option<Duration>) {
        self.write_timeout = patience;
    }

    /// Whether the endpoint said that it takes the extended CONNECT (RFC 8441 section 3).
    pub(crate) fn takes_extended_connect(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// Sends the head; `end`: nothing follows.
    pub(crate) fn write_request_header(
        &mut self,
        mut head: Box<RequestHeader>,
        end: bool,
    ) -> pingora::Result<()> {
        head.set_version(Version::HTTP_2);
        let authority = head.uri.authority().map(|it| it.as_str());
        // RFC 9113 section 8.3.1.
        if authority.is_none_or(|authority| authority.contains('@')) {
            let what = "no host to name in :authority";
            return Error::e_explain(ErrorType::InvalidHTTPHeader, what);
        }
        let request = Request::from_parts(head.as_owned_parts(), ());
        let (reply, upload) = self
            .sender
            .send_request(request, end)
            .or_err(ErrorType::H2Error, "while sending a request")?;
        self.reply = Some(reply);
        self.upload = Some(upload);
        if end {
            self.ending = Ending::Sent;
        }
        Ok(())
    }

    /// Sends a piece of the body; `end`: the last.
    pub(crate) async fn write_request_body(
        &mut self,
        piece: Bytes,
        end: bool,
    ) -> pingora::Result<()> {
        self.begin_piece(piece);
        if end {
            self.begin_end(None);
        }
        self.flush().await
    }

    /// The request is whole.
    pub(crate) async fn finish_request_body(
        &mut self,
        trailers: Option<HeaderMap>,
    ) -> pingora::Result<()> {
        self.begin_end(trailers);
        self.flush().await
    }

    async fn flush(&mut self) -> pingora::Result<()> {
        let patience = self.write_timeout;
        let flush = poll_fn(|cx| self.poll_flush(cx));
        match patience {
            None => flush.await,
            Some(patience) => match timeout(patience, flush).await {
                Ok(flushed) => flushed,
                Err(_) => Error::e_explain(ErrorType::WriteTimedout, "a request body waits"),
            },
        }
    }

    /// Takes a piece of the body, which [`Self::poll_flush`] sends. None may be pending.
    pub(crate) fn begin_piece(&mut self, piece: Bytes) {
        self.pending = piece;
    }

    /// The request ends behind what is pending.
    pub(crate) fn begin_end(&mut self, trailers: Option<HeaderMap>) {
        if let Ending::No = self.ending {
            self.ending = Ending::Asked(trailers);
        }
    }

    /// Whether something of the request waits to be sent.
    pub(crate) fn holds(&self) -> bool {
        !self.pending.is_empty() || matches!(self.ending, Ending::Asked(_))
    }

    /// Sends what is pending as far as there is room for it now.
    ///
    /// # Errors
    /// The endpoint takes no more of the request.
    pub(crate) fn try_flush(&mut self) -> pingora::Result<()> {
        match self.poll_flush(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    /// Sends what is pending as the endpoint makes room for it; after an error nothing is pending.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        let flushed = ready!(self.poll_send(cx)).or_err(ErrorType::H2Error, "sending a request");
        if flushed.is_err() {
            self.pending = Bytes::new();
            self.ending = Ending::Sent;
        }
        Poll::Ready(flushed)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let Some(upload) = &mut self.upload else {
            return Poll::Ready(Ok(()));
        };
        while !self.pending.is_empty() {
            upload.reserve_capacity(self.pending.len());
            let room = match upload.capacity() {
                0 => match ready!(upload.poll_capacity(cx)) {
                    Some(room) => room?,
                    None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
                },
                room => room,
            };
            let piece = self.pending.split_to(room.min(self.pending.len()));
            let is_last = self.pending.is_empty() && matches!(self.ending, Ending::Asked(None));
            upload.send_data(piece, is_last)?;
            if is_last {
                self.ending = Ending::Sent;
            }
        }
        Poll::Ready(match std::mem::replace(&mut self.ending, Ending::Sent) {
            Ending::Sent => Ok(()),
            Ending::Asked(None) => upload.send_data(Bytes::new(), true),
            Ending::Asked(Some(trailers)) => upload.send_trailers(trailers),
            Ending::No => {
                self.ending = Ending::No;
                Ok(())
            }
        })
    }

    /// Reads the next head: interim ones, then the final one.
    pub(crate) async fn read_response_header(&mut self) -> pingora::Result<()> {
        let patience = self.read_timeout;
        let head = poll_fn(|cx| self.poll_head(cx));
        match patience {
            None => head.await,
            Some(patience) => match timeout(patience, head).await {
                Ok(head) => head,
                Err(_) => Error::e_explain(ErrorType::ReadTimedout, "while reading a head"),
            },
        }
    }

    /// Waits for the next head, or until nothing is pending.
    pub(super) async fn head_or_taken(&mut self) -> Came<pingora::Result<()>> {
        self.beside_pending(Self::poll_head).await
    }

    /// Waits for the next piece of the body, or until nothing is pending.
    pub(super) async fn piece_or_taken(&mut self) -> Came<pingora::Result<Option<Bytes>>> {
        self.beside_pending(Self::poll_data).await
    }

    async fn beside_pending<T>(
        &mut self,
        mut read: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<pingora::Result<T>>,
    ) -> Came<pingora::Result<T>> {
        let patience = self.read_timeout.unwrap_or(Duration::MAX);
        let either = poll_fn(|cx| {
            if let Poll::Ready(read) = read(self, cx) {
                return Poll::Ready(Came::Reply(read));
            }
            self.poll_flush(cx).map(|flushed| match flushed {
                Ok(()) => Came::Taken,
                Err(_) => Came::Refused,
            })
        });
        match timeout(patience, either).await {
            Ok(came) => came,
            Err(_) => {
                let what = "neither takes the request nor answers it";
                Came::Reply(Error::e_explain(ErrorType::ReadTimedout, what))
            }
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        const WHILE: &str = "while reading a reply's head";
        let Some(reply) = &mut self.reply else {
            return Poll::Ready(Error::e_explain(ErrorType::H2Error, "no reply to come"));
        };
        if let Poll::Ready(Some(interim)) = reply.poll_informational(cx) {
            let interim = interim.or_err(ErrorType::H2Error, WHILE)?;
            self.head = Some(ResponseHeader::from(interim.into_parts().0));
            return Poll::Ready(Ok(()));
        }
        let reply = ready!(Pin::new(reply).poll(cx)).map_err(|error| {
            let is_malformed = error.is_library() && error.reason() == Some(Reason::PROTOCOL_ERROR);
            let kind = match is_malformed {
                true => ErrorType::InvalidH2,
                false => ErrorType::H2Error,
            };
            Error::because(kind, WHILE, error)
        });
        self.reply = None;
        let (head, download) = reply?.into_parts();
        if !has_one_length(&head.headers) {
            let what = "more than one Content-Length";
            return Poll::Ready(Error::e_explain(ErrorType::InvalidHTTPHeader, what));
        }
        self.head = Some(ResponseHeader::from(head));
        self.download = Some(download);
        Poll::Ready(Ok(()))
    }

    /// The head that was read last.
    pub(crate) fn response_header(&self) -> Option<&ResponseHeader> {
        self.head.as_ref()
    }

    /// The next piece of the reply's body; `None` at its end.
    pub(crate) async fn read_response_body(&mut self) -> pingora::Result<Option<Bytes>> {
        let patience = self.read_timeout;
        let piece = poll_fn(|cx| self.poll_data(cx));
        match patience {
            None => piece.await,
            Some(patience) => match timeout(patience, piece).await {
                Ok(piece) => piece,
                Err(_) => Error::e_explain(ErrorType::ReadTimedout, "while reading a body"),
            },
        }
    }

    /// See [`Self::read_response_body`].
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<pingora::Result<Option<Bytes>>> {
        let Some(download) = &mut self.download else {
            return Poll::Ready(Ok(None));
        };
        let piece = match ready!(download.poll_data(cx)) {
            None => return Poll::Ready(Ok(None)),
            Some(piece) => piece.or_err(ErrorType::ReadError, "while reading a reply's body")?,
        };
        // Fails only for more than was received.
        let _ = download.flow_control().release_capacity(piece.len());
        Poll::Ready(Ok(Some(piece)))
    }

    /// The fields behind the body, when it has been read.
    ///
    /// # Errors
    /// The stream broke off in their place.
    pub(crate) async fn read_trailers(&mut self) -> pingora::Result<Option<HeaderMap>> {
        let Some(download) = &mut self.download else {
            return Ok(None);
        };
        let trailers = poll_fn(|cx| download.poll_trailers(cx));
        let trailers = match self.read_timeout {
            None => trailers.await,
            Some(patience) => match timeout(patience, trailers).await {
                Ok(trailers) => trailers,
                Err(_) => return Error::e_explain(ErrorType::ReadTimedout, "reading trailers"),
            },
        };
        match trailers {
            // The reply is whole, and the rest of the request not wanted (RFC 9113 section 8.1).
            Err(error) if error.is_remote() && error.reason() == Some(Reason::NO_ERROR) => Ok(None),
            trailers => trailers.or_err(ErrorType::ReadError, "while reading trailers"),
        }
    }

    /// Whether the reply has been read to its end, with no trailers behind it.
    pub(crate) fn response_done(&mut self) -> bool {
        let Some(download) = &mut self.download else {
            return false;
        };
        // A stream that broke is at its end, too; what comes next tells.
        download.is_end_stream()
            && matches!(
                download.poll_trailers(&mut Context::from_waker(Waker::noop())),
                Poll::Ready(Ok(None))
            )
    }

    /// Gives the exchange up: the endpoint is told that nobody wants the reply (RFC 9113 section 7).
    pub(crate) fn shutdown(&mut self) {
        let is_whole = matches!(self.ending, Ending::Sent) && self.response_done();
        if let Some(upload) = self.upload.as_mut().filter(|_| !is_whole) {
            upload.send_reset(Reason::CANCEL);
        }
    }
}

/// Whether all values of Content-Length are the same number (RFC 9110 section 8.6).
fn has_one_length(fields: &HeaderMap) -> bool {
    let lines = fields.get_all(header::CONTENT_LENGTH).iter();
    let mut values = lines
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii);
    let Some(first) = values.next() else {
        return true;
    };
    !first.is_empty() && first.iter().all(u8::is_ascii_digit) && values.all(|value| value == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_differ_are_found() {
        for (lines, wanted) in [
            (&[][..], true),
            (&["5"], true),
            (&["5", "5"], true),
            (&["5, 5"], true),
            (&["5, 6"], false),
            (&["5", "6"], false),
            (&[""], false),
            (&["+5"], false),
            (&["5,"], false),
        ] {
            let mut fields = HeaderMap::new();
            for line in lines {
                fields.append(header::CONTENT_LENGTH, line.parse().unwrap());
            }
            assert_eq!(has_one_length(&fields), wanted, "{lines:?}");
        }
    }
}
