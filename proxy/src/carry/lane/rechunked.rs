//! The chunks of a client that go up as they come, as chunks of our own.
//!
//! Each chunk of ours is made of what is there, and the client is read on when it is written. What it
//! was made of is gone from the client's connection, where the rest is a body as soon as a size line
//! is put before it ([`crate::exchange::rechunk`]). What is not written of a chunk when somebody else
//! goes on is left with the endpoint's connection, which writes it before all else. So
//! both framings are right wherever the body is cut.
//!
//! What is malformed, has trailers, or would be more than the route allows waits for the other carrier, to
//! judge and to answer. A client that lets the end of a chunk wait is handed over, too: that chunk's last
//! octet waits here, and the other carrier passes it on as it comes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::streamed::{Side, Turns, Up, Waits, broken};
use super::wire::Wire;
use crate::carry::upstream::EARLY_TIME;
use crate::exchange::rechunk::{Piece, Rechunk};
use crate::listen::{Conn, buffers};

/// What one body's way needs.
pub(super) struct Going<'a> {
    body: &'a mut Rechunk,
    /// Octets of data that went up.
    passed: &'a mut u64,
    head_len: usize,
    turns: Turns,
    /// A chunk of ours, written up to `at`.
    chunk: Vec<u8>,
    at: usize,
}

impl<'a> Going<'a> {
    /// Behind the head of its request, which waits and is `head_len` long.
    pub(super) fn new(
        body: &'a mut Rechunk,
        passed: &'a mut u64,
        head_len: usize,
        waits: Waits,
    ) -> Self {
        Self {
            body,
            passed,
            head_len,
            turns: Turns::new(waits),
            chunk: Vec::new(),
            at: 0,
        }
    }

    /// What is to be written before all that somebody else writes.
    pub(super) fn into_rest(mut self) -> Vec<u8> {
        self.chunk.drain(..self.at);
        self.chunk
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        conn: &mut Conn,
    ) -> Poll<Up> {
        loop {
            if wire.connection.poll_more(cx, &mut wire.inbox).is_ready() {
                return Poll::Ready(Up::Spoke);
            }
            let waited = if self.at < self.chunk.len() {
                match Pin::new(&mut *wire.connection).poll_write(cx, &self.chunk[self.at..]) {
                    Poll::Ready(Ok(taken)) if taken > 0 => {
                        self.wrote(taken);
                        continue;
                    }
                    Poll::Ready(_) => return Poll::Ready(Up::Spoke),
                    Poll::Pending => Side::Endpoint,
                }
            } else if self.body.is_done() {
                match Pin::new(&mut *wire.connection).poll_flush(cx) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Up::Whole),
                    Poll::Ready(Err(_)) => return Poll::Ready(Up::Spoke),
                    Poll::Pending => Side::Endpoint,
                }
            } else {
                let held = match self.take(conn) {
                    Piece::Taken { .. } => continue,
                    Piece::None { held } => held,
                    Piece::Other => return Poll::Ready(Up::Other),
                };
                match conn.poll_body(cx) {
                    Poll::Ready(Ok(0)) if conn.ended() => return Poll::Ready(Up::Gone),
                    Poll::Ready(Ok(_)) => {
                        self.turns.did(Side::Client);
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(broken(&error)),
                    Poll::Pending if held => {
                        ready!(self.turns.poll_for(cx, conn, Side::Client, EARLY_TIME));
                        return Poll::Ready(Up::Other);
                    }
                    Poll::Pending => Side::Client,
                }
            };
            return self.turns.poll(cx, conn, waited).map(Up::Failed);
        }
    }

    fn wrote(&mut self, count: usize) {
        self.turns.did(Side::Endpoint);
        self.at += count;
        if self.at == self.chunk.len() {
            buffers::release(&mut self.chunk);
            self.at = 0;
        }
    }

    /// Makes a chunk of what waits on the client's connection.
    fn take(&mut self, conn: &mut Conn) -> Piece {
        let waiting = conn.waiting().get(self.head_len..).unwrap_or_default();
        if waiting.is_empty() {
            return Piece::None { held: false };
        }
        self.chunk = buffers::take();
        let piece = self.body.take(waiting, &mut self.chunk);
        match piece {
            Piece::Taken {
                octets,
                data,
                start,
            } => {
                conn.take_behind(self.head_len, octets);
                // Nothing is read until the chunk is written.
                conn.give_room_back();
                *self.passed += data as u64;
                self.at = start;
            }
            Piece::None { .. } | Piece::Other => buffers::release(&mut self.chunk),
        }
        piece
    }
}
