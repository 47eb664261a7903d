//! The upstream's connection while a reply is read from it and passed on.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::AsyncWrite;

use crate::carry::failure::{ClientFault, Failure};
use crate::carry::upstream::{EARLY_BODY, EARLY_TIME};
use crate::clock;
use crate::exchange;
use crate::exchange::backward::{ReplyBody, ReplyFacts};
use crate::exchange::chunked::ChunkScanner;
use crate::exchange::rechunk::{CHUNK_HEAD, chunk_head};
use crate::exchange::trailers;
use crate::listen::Conn;
use crate::listen::buffers::{self, CHUNK};
use crate::listen::pipe::Pipe;
use crate::upstreams::Connection;

/// Most bytes of a reply that are read at once, and held while a client does not take them.
const PIECE: usize = 2 * CHUNK;

/// See the module's text.
pub(super) struct Wire {
    pub(super) connection: Box<Connection>,
    /// Read, and passed on up to `at`.
    pub(super) inbox: Vec<u8>,
    pub(super) at: usize,
    /// Bytes of the request that wait on the client's connection.
    pub(super) request_len: usize,
    /// The fields behind a chunked body that was read to its end.
    pub(super) trailers: Option<HeaderMap>,
}

/// Who waits for the reply.
pub(super) trait Client {
    /// Ends when it goes away. `request_len`: octets of its request that wait on its connection.
    fn poll_gone(&mut self, cx: &mut Context<'_>, request_len: usize) -> Poll<()>;

    /// Sets when [`Self::poll_deadline`] ends.
    fn set_deadline(&mut self, deadline: Option<Instant>);

    /// Ends at the deadline.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

impl Client for Conn {
    fn poll_gone(&mut self, cx: &mut Context<'_>, request_len: usize) -> Poll<()> {
        Self::poll_gone(self, cx, request_len)
    }

    fn set_deadline(&mut self, deadline: Option<Instant>) {
        Self::set_deadline(self, deadline);
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll_deadline(self, cx)
    }
}

/// What a wait came to.
pub(super) enum Step {
    Done,
    /// The upstream's connection ended, or failed.
    Ended,
    /// The client's did.
    Gone,
    /// The client's connection has a deadline, which is over.
    Late,
}

/// Why no reply can be begun.
pub(super) enum Early {
    Gone,
    Failed(Failure),
}

impl Wire {
    pub(super) async fn send(&mut self, client: &mut impl Client, bytes: &[u8]) -> Step {
        let mut rest = bytes;
        poll_fn(|cx| {
            while !rest.is_empty() {
                match Pin::new(&mut *self.connection).poll_write(cx, rest) {
                    Poll::Ready(Ok(taken)) if taken > 0 => rest = &rest[taken..],
                    Poll::Ready(_) => return Poll::Ready(Step::Ended),
                    Poll::Pending => return self.poll_interrupted(cx, client),
                }
            }
            match Pin::new(&mut *self.connection).poll_flush(cx) {
                Poll::Ready(Ok(())) => Poll::Ready(Step::Done),
                Poll::Ready(Err(_)) => Poll::Ready(Step::Ended),
                Poll::Pending => self.poll_interrupted(cx, client),
            }
        })
        .await
    }

    /// Reads on behind what is there.
    pub(super) async fn more(&mut self, client: &mut impl Client) -> Step {
        poll_fn(|cx| match self.connection.poll_more(cx, &mut self.inbox) {
            Poll::Ready(Ok(gained)) if gained > 0 => Poll::Ready(Step::Done),
            Poll::Ready(_) => Poll::Ready(Step::Ended),
            Poll::Pending => self.poll_interrupted(cx, client),
        })
        .await
    }

    pub(super) fn can_splice(&self, conn: &Conn) -> bool {
        conn.is_plain() && self.connection.is_plain_tcp()
    }

    /// Moves what is `left` of a body from socket to socket. `patience`: how long the upstream may
    /// give nothing.
    pub(super) async fn splice(
        &mut self,
        conn: &mut Conn,
        left: &mut u64,
        patience: Duration,
        sent: &mut u64,
    ) -> Step {
        let Ok(mut pipe) = Pipe::take() else {
            // Too many files are open: it is copied.
            self.make_room();
            return self.more(conn).await;
        };
        let mut ended = false;
        let step = poll_fn(|cx| {
            loop {
                let mut moved = false;
                if *left > 0 && !ended && pipe.has_room() {
                    match self.connection.poll_fill(cx, &mut pipe, *left) {
                        Poll::Ready(Ok(Some(0)) | Err(_)) => ended = true,
                        Poll::Ready(Ok(taken)) => {
                            *left -= taken.unwrap_or(0) as u64;
                            moved = taken.is_some();
                        }
                        Poll::Pending => {}
                    }
                }
                if pipe.holds() > 0 {
                    match conn.poll_drain(cx, &mut pipe) {
                        Poll::Ready(Ok(taken)) => {
                            *sent += taken as u64;
                            moved = true;
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(Step::Gone),
                        Poll::Pending => {}
                    }
                }
                match pipe.holds() {
                    0 if *left == 0 => return Poll::Ready(Step::Done),
                    // The client gets what there was of it.
                    0 if ended => return Poll::Ready(Step::Ended),
                    _ => {}
                }
                if !moved {
                    break;
                }
                conn.set_deadline(Some(clock::now() + patience));
            }
            // While the client is waited for, its own patience counts.
            match pipe.holds() {
                0 => self.poll_interrupted(cx, conn),
                _ => conn.poll_gone(cx, 0).map(|()| Step::Gone),
            }
        })
        .await;
        pipe.give();
        step
    }

    fn poll_interrupted(&self, cx: &mut Context<'_>, client: &mut impl Client) -> Poll<Step> {
        if client.poll_gone(cx, self.request_len).is_ready() {
            return Poll::Ready(Step::Gone);
        }
        ready!(client.poll_deadline(cx));
        Poll::Ready(Step::Late)
    }

    /// Takes the head off; reads a small body whole, unless that takes its time.
    pub(super) async fn begin_body(
        &mut self,
        client: &mut impl Client,
        reply: &ReplyFacts,
    ) -> Result<Body, Early> {
        self.at = reply.len;
        let length = match reply.body {
            ReplyBody::None => 0,
            ReplyBody::Length(length) => length,
            ReplyBody::Chunked => return self.begin_chunked(),
        };
        if length <= EARLY_BODY {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let mut until: Option<Instant> = None;
            while self.inbox.len() - self.at < length {
                if until.is_none() {
                    client.set_deadline(Some(*until.insert(clock::now() + EARLY_TIME)));
                    self.inbox.reserve(self.at + length - self.inbox.len());
                }
                match self.more(client).await {
                    Step::Done => {}
                    Step::Ended => return Err(Early::Failed(Failure::Reset)),
                    Step::Gone => return Err(Early::Gone),
                    Step::Late => break,
                }
            }
        }
        Ok(Body::Length(length))
    }

    /// What is malformed at once is no reply.
    fn begin_chunked(&self) -> Result<Body, Early> {
        let scanner = ChunkScanner::new();
        match scanner.clone().feed(&self.inbox[self.at..]) {
            Ok(_) => Ok(Body::Chunked(scanner)),
            Err(_) => Err(Early::Failed(Failure::BadReply)),
        }
    }

    /// More of the reply is read at once from now on, as what was read has been passed on.
    pub(super) fn make_room(&mut self) {
        self.inbox.clear();
        self.at = 0;
        if self.inbox.capacity() < PIECE {
            self.inbox.reserve_exact(PIECE);
        }
    }

    /// Takes what there is of the body. What stands behind it stays.
    pub(super) fn take(&mut self, body: &mut Body) -> Result<Bytes, Failure> {
        let rest = &mut self.inbox[self.at..];
        let (taken, data) = match body {
            Body::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= here as u64;
                (here, here)
            }
            Body::Chunked(scanner) => {
                let (progress, data) = unchunk(scanner, rest)?;
                if progress.done {
                    self.trailers = trailers::read(&scanner.take_trailer());
                    *body = Body::Length(0);
                }
                (progress.consumed, data)
            }
        };
        let piece = buffers::copied(&rest[..data]);
        self.at += taken;
        Ok(piece)
    }

    /// Passes on what there is of the body. What stands behind it stays.
    pub(super) async fn pass_on(
        &mut self,
        conn: &mut Conn,
        body: &mut Body,
        sent: &mut u64,
    ) -> Result<(), Failure> {
        let gone = |_| Failure::Client(ClientFault::Gone);
        let taken = match body {
            Body::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX);
                let rest = &self.inbox[self.at..];
                let here = here.min(rest.len());
                conn.write(&rest[..here], sent).await.map_err(gone)?;
                *left -= here as u64;
                here
            }
            Body::Chunked(scanner) => {
                let rest = &mut self.inbox[self.at..];
                let (progress, data) = unchunk(scanner, rest)?;
                if data > 0 {
                    let mut size = [0; CHUNK_HEAD];
                    conn.write(chunk_head(data as u64, &mut size), &mut 0)
                        .await
                        .map_err(gone)?;
                    conn.write(&rest[..data], sent).await.map_err(gone)?;
                    conn.write(b"\r\n", &mut 0).await.map_err(gone)?;
                }
                if progress.done {
                    let last = match trailers::read(&scanner.take_trailer()) {
                        None => Cow::Borrowed(&b"0\r\n\r\n"[..]),
                        Some(fields) => Cow::Owned(trailers::last_chunk(&fields)),
                    };
                    conn.write(&last, &mut 0).await.map_err(gone)?;
                    *body = Body::Length(0);
                }
                progress.consumed
            }
        };
        self.at += taken;
        Ok(())
    }
}

/// What is left of a reply's body.
pub(super) enum Body {
    Length(u64),
    Chunked(ChunkScanner),
}

impl Body {
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Length(0))
    }
}

/// Moves the data of the chunks in `bytes` to its front; how far the scanner came, and how many
/// bytes of data there are.
fn unchunk(
    scanner: &mut ChunkScanner,
    bytes: &mut [u8],
) -> Result<(exchange::chunked::Progress, usize), Failure> {
    let (mut at, mut data) = (0, 0);
    loop {
        let next = scanner.next_data(&bytes[at..]);
        let (progress, stretch) = next.map_err(|_| Failure::BadReply)?;
        let stretch = at + stretch.start..at + stretch.end;
        let len = stretch.len();
        bytes.copy_within(stretch, data);
        data += len;
        at += progress.consumed;
        if progress.done || progress.consumed == 0 {
            let progress = exchange::chunked::Progress {
                consumed: at,
                done: progress.done,
            };
            return Ok((progress, data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_chunks_is_moved_together_wherever_they_are_cut() {
        let wire = b"3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nx: y\r\n\r\nnext";
        for cut in 0..wire.len() {
            let mut scanner = ChunkScanner::new();
            let mut got = Vec::new();
            let mut inbox = wire[..cut].to_vec();
            let (progress, data) = unchunk(&mut scanner, &mut inbox).unwrap();
            got.extend_from_slice(&inbox[..data]);
            inbox.drain(..progress.consumed);
            inbox.extend_from_slice(&wire[cut..]);
            let (progress, data) = unchunk(&mut scanner, &mut inbox).unwrap();
            got.extend_from_slice(&inbox[..data]);
            assert_eq!(got, b"abc0123456789abcdef", "cut at {cut}");
            assert!(progress.done);
            assert_eq!(&inbox[progress.consumed..], b"next");
        }
    }
}
