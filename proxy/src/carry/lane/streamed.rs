//! The body of a request that goes up as it comes: one of a known length that is too large to be
//! kept, or one in chunks that is large or slow ([`super::rechunked`]).
//!
//! One of a known length is moved within the kernel between plain sockets, else it is written from where it was
//! decrypted. The endpoint is listened to meanwhile: as soon as it says anything, or ends the
//! connection, the other carrier goes on with what is left of the body, since a reply may come while
//! the rest of the body does. For that the head of the request stays on the connection, and is made
//! one of a request that has no more than the rest ([`Streamed::hand_over`]).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;

use super::rechunked;
use super::wire::Wire;
use crate::carry::failure::{ClientFault, Failure};
use crate::clock;
use crate::exchange::guard::{Framing, HeadFacts};
use crate::exchange::pace::Slow;
use crate::exchange::rechunk::{CHUNK_HEAD, Rechunk};
use crate::exchange::remainder::head_of_the_rest;
use crate::listen::Conn;
use crate::listen::pipe::Pipe;

/// A body on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streamed {
    framing: Framed,
    /// The client waits to be told that it may send it.
    expects: bool,
    /// What of it went up, once anything could.
    pub(super) passed: Option<u64>,
}

/// How the client says where it ends.
#[derive(Debug, Clone, Copy)]
enum Framed {
    Length(u64),
    Chunks(Rechunk),
}

/// RFC 9110 section 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How far it came.
pub(super) enum Up {
    Whole,
    /// The endpoint has said something, takes no more, or ended the connection.
    Spoke,
    /// The client goes on in a way that is not for here.
    Other,
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
    /// Of `length` octets.
    pub(super) fn of_length(length: u64, expects: bool) -> Self {
        Self {
            framing: Framed::Length(length),
            expects,
            passed: None,
        }
    }

    /// In chunks, with at most so many octets.
    pub(super) fn in_chunks(most: u64, expects: bool) -> Self {
        Self {
            framing: Framed::Chunks(Rechunk::new(most)),
            expects,
            passed: None,
        }
    }

    /// All of it was taken from the client.
    pub(super) fn is_whole(&self) -> bool {
        match &self.framing {
            Framed::Length(length) => self.passed == Some(*length),
            Framed::Chunks(chunks) => chunks.is_done(),
        }
    }

    /// Sends it up behind the head of its request, which waits on `conn` and is `head_len` long.
    pub(super) async fn go_up(
        &mut self,
        (wire, conn): (&mut Wire, &mut Conn),
        head_len: usize,
        waits: Waits,
    ) -> Up {
        // Who sends it already need not be told (RFC 9110 section 10.1.1), and is on the other carrier as well.
        if self.expects {
            conn.set_deadline(Some(clock::now() + waits.client));
            if conn.write_reply(CONTINUE).await.is_err() {
                return Up::Gone;
            }
        }
        let passed = self.passed.insert(0);
        conn.begin_body();
        let up = match &mut self.framing {
            Framed::Length(length) => {
                let going = Going {
                    length: *length,
                    passed,
                    head_len,
                    pipe: None,
                    turns: Turns::new(waits),
                };
                going.run(wire, conn).await
            }
            Framed::Chunks(chunks) => {
                let mut going = rechunked::Going::new(chunks, passed, head_len, waits);
                let up = poll_fn(|cx| going.poll(cx, wire, conn)).await;
                wire.connection.owe(going.into_rest());
                up
            }
        };
        if let Up::Whole = up {
            conn.end_body();
        }
        up
    }

    /// Makes the request whose head waits on `conn` one with the rest of the body, if any of it
    /// went up.
    pub(super) fn hand_over(&self, conn: &mut Conn, facts: &mut HeadFacts) {
        let Some(passed) = self.passed else {
            return;
        };
        let left = match &self.framing {
            Framed::Length(_) if passed == 0 => return,
            Framed::Length(length) => length - passed,
            // Its last chunk went up.
            Framed::Chunks(chunks) if chunks.is_done() => 0,
            Framed::Chunks(chunks) => {
                let room = &mut [0; CHUNK_HEAD];
                conn.put_behind(facts.head_len, chunks.size_of_the_rest(room));
                return;
            }
        };
        let head = conn.waiting().get(..facts.head_len).unwrap_or_default();
        // Its framing was found in it before.
        let Some(changed) = head_of_the_rest(head, left) else {
            return;
        };
        conn.replace_head(facts.head_len, &changed);
        facts.head_len = changed.len();
        facts.body = Framing::Length(left);
    }
}

/// How long who is waited for may still do nothing.
pub(super) struct Turns {
    waits: Waits,
    /// Who is waited for, and when it must have done something.
    waiting: Option<(Side, Instant)>,
}

/// Who may be waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Endpoint,
}

impl Turns {
    pub(super) fn new(waits: Waits) -> Self {
        Self {
            waits,
            waiting: None,
        }
    }

    /// It did something.
    pub(super) fn did(&mut self, side: Side) {
        self.waiting.take_if(|(waited, _)| *waited == side);
    }

    /// What it is when `side`, which is waited for, has done nothing for too long.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn,
        side: Side,
    ) -> Poll<Failure> {
        let (patience, late) = match side {
            Side::Client => (self.waits.client, Failure::Client(ClientFault::BodyTimeout)),
            Side::Endpoint => (self.waits.endpoint, Failure::FirstByteTimeout),
        };
        self.poll_for(cx, conn, side, patience).map(|()| late)
    }

    /// Ends when `side`, which is waited for, has done nothing for so long.
    pub(super) fn poll_for(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn,
        side: Side,
        patience: Duration,
    ) -> Poll<()> {
        let (_, until) = match self.waiting {
            Some(waiting) if waiting.0 == side => waiting,
            _ => *self.waiting.insert((side, clock::now() + patience)),
        };
        conn.set_deadline(Some(until));
        conn.poll_deadline(cx)
    }
}

/// What the way of a body of a known length needs.
struct Going<'a> {
    length: u64,
    /// What of it went up.
    passed: &'a mut u64,
    head_len: usize,
    pipe: Option<Pipe>,
    turns: Turns,
}

/// What one step came to.
enum Moved {
    Yes,
    /// This one is waited for.
    No(Side),
}

impl Going<'_> {
    async fn run(mut self, wire: &mut Wire, conn: &mut Conn) -> Up {
        if wire.can_splice(conn) {
            // Where too many files are open it is copied.
            self.pipe = Pipe::take().ok();
        }
        let up = poll_fn(|cx| self.poll(cx, wire, conn)).await;
        if let Some(mut pipe) = self.pipe {
            let kept = conn.put_back(&mut pipe);
            pipe.give();
            if kept.is_err() {
                return Up::Gone;
            }
        }
        up
    }

    fn poll(&mut self, cx: &mut Context<'_>, wire: &mut Wire, conn: &mut Conn) -> Poll<Up> {
        loop {
            if wire.connection.poll_more(cx, &mut wire.inbox).is_ready() {
                return Poll::Ready(Up::Spoke);
            }
            if self.left() == 0 {
                return self.poll_flush(cx, wire, conn);
            }
            let step = match self.behind_head(conn) {
                0 => self.poll_through(cx, wire, conn),
                here => self.poll_write(cx, wire, conn, here),
            };
            match step {
                Ok(Moved::Yes) => {}
                Ok(Moved::No(side)) => return self.turns.poll(cx, conn, side).map(Up::Failed),
                Err(up) => return Poll::Ready(up),
            }
        }
    }

    fn left(&self) -> u64 {
        self.length - *self.passed
    }

    /// Octets of the body that wait on the client's connection.
    fn behind_head(&self, conn: &Conn) -> usize {
        let here = conn.waiting().len().saturating_sub(self.head_len);
        usize::try_from(self.left()).map_or(here, |left| left.min(here))
    }

    fn passed(&mut self, count: usize) {
        self.turns.did(Side::Endpoint);
        *self.passed += count as u64;
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
        let left = self.left();
        let Some(pipe) = &mut self.pipe else {
            return match conn.poll_body(cx) {
                Poll::Ready(Ok(0)) if conn.ended() => Err(Up::Gone),
                Poll::Ready(Ok(_)) => {
                    self.turns.did(Side::Client);
                    Ok(Moved::Yes)
                }
                Poll::Ready(Err(error)) => Err(broken(&error)),
                Poll::Pending => Ok(Moved::No(Side::Client)),
            };
        };
        let mut moved = false;
        let unread = left - pipe.holds() as u64;
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
            self.turns.did(Side::Client);
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
            Poll::Pending => self.turns.poll(cx, conn, Side::Endpoint).map(Up::Failed),
        }
    }
}

/// What a client is whose connection fails within its body.
pub(super) fn broken(error: &io::Error) -> Up {
    match error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<Slow>())
    {
        Some(slow) => Up::Failed(Failure::Client(ClientFault::TooSlow(*slow))),
        None => Up::Gone,
    }
}
