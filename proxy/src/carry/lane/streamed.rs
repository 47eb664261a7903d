//! The body of a request that goes up as it comes: one of a known length that is too large to be
//! kept.
//!
//! Between plain sockets it is moved within the kernel, else it is written from where it was
//! decrypted. The endpoint is listened to meanwhile: as soon as it says anything, or ends the
//! connection, the other carrier goes on with what is left of the body, since a reply may come while
//! the rest of the body does. For that the head of the request stays on the connection, and is made
//! one of a request that has no more than the rest ([`Streamed::hand_over`]).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;

use super::wire::Wire;
use crate::carry::failure::{ClientFault, Failure};
use crate::clock;
use crate::exchange::guard::{Framing, HeadFacts};
use crate::exchange::pace::Slow;
use crate::exchange::remainder::head_of_the_rest;
use crate::listen::Conn;
use crate::listen::pipe::Pipe;

/// A body on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streamed {
    length: u64,
    /// The client waits to be told that it may send it.
    expects: bool,
    /// What of it went up, once anything could.
    pub(super) passed: Option<u64>,
}

/// RFC 9110 section 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How far it came.
pub(super) enum Up {
    Whole,
    /// The endpoint has said something, takes no more, or ended the connection.
    Spoke,
    /// The client is gone.
    Gone,
    Failed(Failure),
}

/// How long either side may do nothing.
#[derive(Clone, Copy)]
pub(super) struct Waits {
    pub(super) client: Duration,
    pub(super) endpoint: Duration,
}

impl Streamed {
    pub(super) fn new(length: u64, expects: bool) -> Self {
        Self {
            length,
            expects,
            passed: None,
        }
    }

    pub(super) fn left(&self) -> u64 {
        self.length - self.passed.unwrap_or(0)
    }

    /// Sends it up behind the head of its request, which waits on `conn` and is `head_len` long.
    pub(super) async fn go_up(
        &mut self,
        (wire, conn): (&mut Wire, &mut Conn),
        head_len: usize,
        waits: Waits,
    ) -> Up {
        // Who sends it already need not be told.
        if self.expects && conn.waiting().len() == head_len {
            conn.set_deadline(Some(clock::now() + waits.client));
            if conn.write_reply(CONTINUE).await.is_err() {
                return Up::Gone;
            }
        }
        self.passed = Some(0);
        let pipe = match wire.can_splice(conn) {
            // Where too many files are open it is copied.
            true => Pipe::take().ok(),
            false => None,
        };
        let mut going = Going {
            body: self,
            head_len,
            pipe,
            waits,
            waiting: None,
        };
        conn.begin_body();
        let up = poll_fn(|cx| going.poll(cx, wire, conn)).await;
        let kept = match going.pipe.take() {
            None => Ok(()),
            Some(mut pipe) => {
                let kept = conn.put_back(&mut pipe);
                pipe.give();
                kept
            }
        };
        match (up, kept) {
            (_, Err(_)) => Up::Gone,
            (Up::Whole, Ok(())) => {
                conn.end_body();
                Up::Whole
            }
            (up, Ok(())) => up,
        }
    }

    /// Makes the request whose head waits on `conn` one with the rest of the body, if any of it
    /// went up.
    pub(super) fn hand_over(&self, conn: &mut Conn, facts: &mut HeadFacts) {
        if self.passed.is_none_or(|passed| passed == 0) {
            return;
        }
        let head = conn.waiting().get(..facts.head_len).unwrap_or_default();
        // Its length was found in it before.
        let Some(changed) = head_of_the_rest(head, self.left()) else {
            return;
        };
        conn.replace_head(facts.head_len, &changed);
        facts.head_len = changed.len();
        facts.body = Framing::Length(self.left());
    }
}

/// What [`Streamed::go_up`] works with.
struct Going<'a> {
    body: &'a mut Streamed,
    head_len: usize,
    pipe: Option<Pipe>,
    waits: Waits,
    /// Who is waited for, and when it must have done something.
    waiting: Option<(Side, Instant)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Endpoint,
}

/// What one step came to.
enum Moved {
    Yes,
    /// This one is waited for.
    No(Side),
}

impl Going<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, wire: &mut Wire, conn: &mut Conn) -> Poll<Up> {
        loop {
            if wire.connection.poll_more(cx, &mut wire.inbox).is_ready() {
                return Poll::Ready(Up::Spoke);
            }
            if self.body.left() == 0 {
                return self.poll_flush(cx, wire, conn);
            }
            let step = match self.behind_head(conn) {
                0 => self.poll_through(cx, wire, conn),
                here => self.poll_write(cx, wire, conn, here),
            };
            match step {
                Ok(Moved::Yes) => {}
                Ok(Moved::No(side)) => {
                    ready!(self.poll_patience(cx, conn, side));
                    return Poll::Ready(Up::Failed(match side {
                        Side::Client => Failure::Client(ClientFault::BodyTimeout),
                        Side::Endpoint => Failure::FirstByteTimeout,
                    }));
                }
                Err(up) => return Poll::Ready(up),
            }
        }
    }

    /// Octets of the body that wait on the client's connection.
    fn behind_head(&self, conn: &Conn) -> usize {
        let here = conn.waiting().len().saturating_sub(self.head_len);
        usize::try_from(self.body.left()).map_or(here, |left| left.min(here))
    }

    fn did(&mut self, side: Side) {
        self.waiting.take_if(|(waited, _)| *waited == side);
    }

    fn passed(&mut self, count: usize) {
        self.did(Side::Endpoint);
        self.body.passed = Some(self.body.passed.unwrap_or(0) + count as u64);
    }

    /// From the client's connection to the endpoint's.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        conn: &mut Conn,
        here: usize,
    ) -> Result<Moved, Up> {
        let bytes = &conn.waiting()[self.head_len..self.head_len + here];
        match Pin::new(&mut *wire.connection).poll_write(cx, bytes) {
            Poll::Ready(Ok(taken)) if taken > 0 => {
                conn.take_behind(self.head_len, taken);
                self.passed(taken);
                Ok(Moved::Yes)
            }
            Poll::Ready(_) => Err(Up::Spoke),
            Poll::Pending => Ok(Moved::No(Side::Endpoint)),
        }
    }

    /// From socket to socket, or from the client's socket to where [`Self::poll_write`] finds it.
    fn poll_through(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        conn: &mut Conn,
    ) -> Result<Moved, Up> {
        let Some(pipe) = &mut self.pipe else {
            return match conn.poll_body(cx) {
                Poll::Ready(Ok(0)) if conn.ended() => Err(Up::Gone),
                Poll::Ready(Ok(_)) => {
                    self.did(Side::Client);
                    Ok(Moved::Yes)
                }
                Poll::Ready(Err(error)) => Err(broken(&error)),
                Poll::Pending => Ok(Moved::No(Side::Client)),
            };
        };
        let mut moved = false;
        let unread = self.body.left() - pipe.holds() as u64;
        if unread > 0 && pipe.has_room() {
            match conn.poll_fill(cx, pipe, unread) {
                Poll::Ready(Ok(Some(0))) => return Err(Up::Gone),
                Poll::Ready(Ok(taken)) => moved = taken.is_some(),
                Poll::Ready(Err(error)) => return Err(broken(&error)),
                Poll::Pending => {}
            }
        }
        if pipe.holds() == 0 {
            return Ok(Moved::No(Side::Client));
        }
        let drained = wire.connection.poll_drain(cx, pipe);
        if moved {
            self.did(Side::Client);
        }
        match drained {
            Poll::Ready(Ok(taken)) => {
                self.passed(taken);
                Ok(Moved::Yes)
            }
            Poll::Ready(Err(_)) => Err(Up::Spoke),
            Poll::Pending if moved => Ok(Moved::Yes),
            Poll::Pending => Ok(Moved::No(Side::Endpoint)),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, wire: &mut Wire, conn: &mut Conn) -> Poll<Up> {
        match Pin::new(&mut *wire.connection).poll_flush(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Up::Whole),
            Poll::Ready(Err(_)) => Poll::Ready(Up::Spoke),
            Poll::Pending => {
                ready!(self.poll_patience(cx, conn, Side::Endpoint));
                Poll::Ready(Up::Failed(Failure::FirstByteTimeout))
            }
        }
    }

    /// Ends when who is waited for has done nothing for too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>, conn: &mut Conn, side: Side) -> Poll<()> {
        let patience = match side {
            Side::Client => self.waits.client,
            Side::Endpoint => self.waits.endpoint,
        };
        let (_, until) = match self.waiting {
            Some(waiting) if waiting.0 == side => waiting,
            _ => *self.waiting.insert((side, clock::now() + patience)),
        };
        conn.set_deadline(Some(until));
        conn.poll_deadline(cx)
    }
}

/// What a client is whose connection fails within its body.
fn broken(error: &io::Error) -> Up {
    match error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<Slow>())
    {
        Some(slow) => Up::Failed(Failure::Client(ClientFault::TooSlow(*slow))),
        None => Up::Gone,
    }
}
