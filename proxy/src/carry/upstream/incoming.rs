//! A reply whose head has been read: its body, piece by piece.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use balancer::EndpointIndex;
use bytes::Bytes;
use http::{StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::{HttpTask, ServerSession};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::exchange::{Fed, Sent, read_client, send_body};
use super::{Client, Upload};
use crate::carry::failure::{ClientFault, Failure, read_failure};
use crate::clock;
use crate::listen::is_h2;
use crate::upstreams::{Came, Octets, Place, Session, Share, Sticky};

/// Bytes of an answer that nobody wants which are read so that its connection can be kept.
const DISCARDED_BODY: usize = 64 * 1024;
/// And how long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// A body up to this is read before the client hears of the reply: if the endpoint breaks off, the
/// request can still be sent to another one, or be told so.
pub(crate) const EARLY_BODY: u64 = 64 * 1024;
/// And how long that may take: an app that is slow with its body keeps the client waiting for the
/// whole of it, and the client gets what there is.
pub(crate) const EARLY_TIME: Duration = Duration::from_millis(50);

/// See the module's text. Holds the place at the endpoint until the reply is over.
pub(crate) struct Incoming {
    members: Arc<Share>,
    worker: usize,
    session: Session,
    /// The request body was cut short: the connection cannot be used again.
    tainted: bool,
    /// The reply came before the whole of the request went up. What is left of that would be taken for
    /// the beginning of the next one.
    owes: bool,
    /// Read before anybody asked; most bodies are one piece.
    first: Option<Bytes>,
    more: VecDeque<Bytes>,
    place: Place,
}

impl Incoming {
    pub(super) fn new(
        members: Arc<Share>,
        worker: usize,
        place: Place,
        session: Session,
        (tainted, owes): (bool, bool),
    ) -> Self {
        Self {
            members,
            worker,
            session,
            tainted,
            owes,
            first: None,
            more: VecDeque::new(),
            place,
        }
    }

    /// How long the endpoint may be silent, and how long it may take nothing.
    pub(in crate::carry) fn read_timeout(&self) -> Duration {
        self.members.common().settings.read_timeout
    }

    /// Reads a small body before anybody asks for it.
    ///
    /// # Errors
    /// It breaks off, and nobody has been told of the reply yet.
    pub(super) async fn read_early(&mut self, head: &ResponseHeader) -> Result<(), Failure> {
        let length = head.headers.get(header::CONTENT_LENGTH);
        let length: Option<u64> = length
            .and_then(|length| length.to_str().ok())
            .and_then(|length| length.parse().ok());
        let is_switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if length.is_none() && !is_switched && !self.session.response_done() {
            // A first chunk that is malformed, and came with the head, makes no reply.
            match at_once(self.session.read_response_body()).await {
                Some(Ok(Some(piece))) => self.keep(piece),
                Some(Err(error)) => return Err(read_failure(&error)),
                Some(Ok(None)) | None => {}
            }
        }
        if length.is_none_or(|length| length > EARLY_BODY) {
            return Ok(());
        }
        // Nearly always it came with the head: no clock is needed to find that out.
        while !self.session.response_done() {
            match at_once(self.session.read_response_body()).await {
                Some(Ok(Some(piece))) => self.keep(piece),
                Some(Ok(None)) => return Ok(()),
                Some(Err(error)) => return Err(read_failure(&error)),
                None => return Box::pin(self.wait_early()).await,
            }
        }
        Ok(())
    }

    async fn wait_early(&mut self) -> Result<(), Failure> {
        let read = async {
            while !self.session.response_done() {
                match self.session.read_response_body().await {
                    Ok(Some(piece)) => self.keep(piece),
                    Ok(None) => break,
                    Err(error) => return Err(read_failure(&error)),
                }
            }
            Ok(())
        };
        // Dropped, it loses nothing: what it has read is kept.
        timeout(EARLY_TIME, read).await.unwrap_or(Ok(()))
    }

    fn keep(&mut self, piece: Bytes) {
        match &self.first {
            None if self.more.is_empty() => self.first = Some(piece),
            _ => self.more.push_back(piece),
        }
    }

    /// Where it comes from.
    pub(super) fn endpoint(&self) -> EndpointIndex {
        self.place.endpoint()
    }

    /// Who writes cookies for its upstream.
    pub(crate) fn sticky_cookies(&self) -> Option<&Sticky> {
        self.members.common().sticky.as_ref()
    }

    /// The sticky cookie's hash of the endpoint that it comes from.
    pub(crate) fn sticky(&self) -> Option<u64> {
        self.members.hash(self.place.endpoint())
    }

    /// The reply's next piece; `None` at its end. `client` is watched meanwhile, and what is
    /// left of its body goes up.
    pub(crate) async fn next(
        &mut self,
        upload: &mut Upload,
        mut client: Client<'_>,
    ) -> Result<Option<Bytes>, Failure> {
        if let Some(piece) = self.first.take().or_else(|| self.more.pop_front()) {
            return Ok(Some(piece));
        }
        loop {
            self.session
                .set_read_timeout(Some(self.members.common().settings.read_timeout));
            // See `Exchange::read_head`.
            let watched = client.as_deref_mut().filter(|_| !self.tainted);
            let pending = self.session.holds();
            let step = {
                let piece = self.session.piece_or_taken();
                match watched {
                    None => Piece::Reply(piece.await),
                    Some(client) => tokio::select! {
                        biased;
                        piece = piece => Piece::Reply(piece),
                        body = read_client(client, upload, pending) => Piece::Body(body),
                    },
                }
            };
            match step {
                Piece::Reply(Came::Taken) => {}
                Piece::Reply(Came::Refused) => self.stop_upload(upload),
                Piece::Reply(Came::Reply(Ok(piece))) => return Ok(piece),
                Piece::Reply(Came::Reply(Err(error))) => {
                    let failure = match read_failure(&error) {
                        Failure::FirstByteTimeout => Failure::ReadTimeout,
                        other => other,
                    };
                    self.blame(failure);
                    return Err(failure);
                }
                Piece::Body(body) => {
                    if let Sent::Refused = send_body(&mut self.session, upload, body).await? {
                        self.stop_upload(upload);
                    }
                    self.owes &= matches!(upload, Upload::Streamed { .. });
                }
            }
        }
    }

    fn stop_upload(&mut self, upload: &mut Upload) {
        self.tainted = true;
        *upload = Upload::Done;
    }

    /// Writes a piece to a client of HTTP/2, while what it sends still goes up: one that takes nothing
    /// before all that it says was heard is heard. `patience`: how long neither may go on.
    pub(crate) async fn write(
        &mut self,
        piece: Bytes,
        upload: &mut Upload,
        client: &mut ServerSession,
        patience: Option<Duration>,
    ) -> Result<(), Failure> {
        let gone = Failure::Client(ClientFault::Gone);
        if !is_h2(client) || !matches!(upload, Upload::Streamed { .. }) {
            let written = client.write_response_body(piece, false).await;
            return written.map_err(|_| gone);
        }
        client.send_downstream_proxy_task(HttpTask::Body(Some(piece), false));
        loop {
            let step = poll_fn(|cx| self.poll_both(client, upload, cx));
            let step = timeout(patience.unwrap_or(Duration::MAX), step).await;
            match step.map_err(|_| gone)? {
                Beside::Written(written) => return written.map(|_| ()).map_err(|_| gone),
                Beside::Taken(Ok(())) => {}
                Beside::Taken(Err(_)) => self.stop_upload(upload),
                Beside::Body(body) => {
                    if let Sent::Refused = send_body(&mut self.session, upload, body).await? {
                        self.stop_upload(upload);
                    }
                    self.owes &= matches!(upload, Upload::Streamed { .. });
                }
            }
        }
    }

    fn poll_both(
        &mut self,
        client: &mut ServerSession,
        upload: &Upload,
        cx: &mut Context<'_>,
    ) -> Poll<Beside> {
        // Dropped while it waits, it is resumed.
        if let Poll::Ready(written) = pin!(client.write_downstream_proxy_tasks()).poll(cx) {
            return Poll::Ready(Beside::Written(written));
        }
        if self.session.holds() {
            return self.session.poll_flush(cx).map(Beside::Taken);
        }
        match upload {
            Upload::Streamed { .. } => pin!(read_client(client, upload, false))
                .poll(cx)
                .map(Beside::Body),
            _ => Poll::Pending,
        }
    }

    /// Whether the whole reply has been read.
    pub(crate) fn is_done(&mut self) -> bool {
        self.first.is_none() && self.more.is_empty() && self.session.response_done()
    }

    /// The fields behind the body, after its last piece (RFC 9110 section 6.5).
    ///
    /// # Errors
    /// The reply breaks off in their place.
    pub(crate) async fn trailers(&mut self) -> Result<Option<http::HeaderMap>, Failure> {
        let trailers = self.session.trailers().await;
        trailers.map_err(|error| {
            let failure = match read_failure(&error) {
                Failure::FirstByteTimeout => Failure::ReadTimeout,
                other => other,
            };
            self.blame(failure);
            failure
        })
    }

    fn blame(&self, failure: Failure) {
        if let Some((outcome, _)) = failure.outcome() {
            let endpoint = self.place.endpoint();
            self.members.record(endpoint, outcome, None, clock::now());
        }
    }

    /// After a 101: the bare connection, what was read from it behind the head, and the place that
    /// it takes at the endpoint until it ends.
    pub(crate) fn into_stream(self) -> Option<(Box<dyn BothWays>, Option<Bytes>, Place)> {
        let mut h1 = match self.session {
            Session::H1 { h1, .. } => h1,
            Session::H2(h2) => return Some((Box::new(Octets::new(h2)), None, self.place)),
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
        Some((Box::new(h1.into_inner()), first, self.place))
    }

    /// Ends an exchange whose reply is whole; the connection is kept where that is allowed.
    pub(crate) async fn finish(self) {
        if self.tainted || self.owes {
            // Dropped, it ends at once; whatever it could be told would have to be taken first.
            return;
        }
        self.members
            .release(
                self.place.endpoint(),
                self.worker,
                self.session,
                clock::now(),
            )
            .await;
    }

    /// Reads what is left of an answer that nobody wants, if that is little, so that the connection
    /// can be used again.
    pub(crate) async fn discard(mut self) {
        let mut left = DISCARDED_BODY;
        let read = async {
            while let Ok(Some(piece)) = self.next(&mut Upload::Done, None).await {
                left = left.checked_sub(piece.len())?;
                if self.is_done() {
                    break;
                }
            }
            Some(())
        };
        match timeout(DISCARD_TIME, read).await {
            Ok(Some(())) if self.is_done() => self.finish().await,
            _ => self.abandon().await,
        }
    }

    /// Breaks the exchange off.
    pub(crate) async fn abandon(mut self) {
        self.session.shutdown().await;
    }
}

/// What carries octets both ways.
pub(crate) trait BothWays: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> BothWays for T {}

/// What `work` comes to if it need not wait; it is dropped otherwise.
async fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        Poll::Ready(match work.as_mut().poll(cx) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        })
    })
    .await
}

enum Piece {
    Reply(Came<pingora::Result<Option<Bytes>>>),
    Body(pingora::Result<Fed>),
}

/// What happens while a piece is written.
enum Beside {
    Written(pingora::Result<bool>),
    Taken(pingora::Result<()>),
    Body(pingora::Result<Fed>),
}
