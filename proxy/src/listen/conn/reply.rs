//! Replies that are written on the connection itself, past Pingora's session.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::Conn;
use super::gate::Gate;
use crate::listen::buffers::{self, CHUNK};

impl Conn {
    /// Where the head of a reply is to be written, before [`Self::send`] or [`Self::write`].
    pub(crate) fn staged(&mut self) -> &mut Vec<u8> {
        if self.staged.capacity() == 0 {
            self.staged = buffers::take();
        }
        &mut self.staged
    }

    /// The same where the head is written already.
    pub(crate) fn stage(&mut self, head: Vec<u8>) {
        match self.staged.is_empty() {
            true => buffers::give(std::mem::replace(&mut self.staged, head)),
            false => {
                self.staged.extend_from_slice(&head);
                buffers::give(head);
            }
        }
    }

    /// Takes a request that ends with its head off [`Self::waiting`]: it has its reply.
    pub(crate) fn take_request(&mut self, head_len: usize) {
        self.gate = Gate::Done(Vec::new());
        self.consume(head_len);
    }

    /// Sends what is staged and `body` behind it: a small body in one piece with the head, a
    /// larger one from where it stands. `sent` counts the bytes of it that were taken.
    pub(crate) async fn send(&mut self, body: &[Bytes], sent: &mut u64) -> io::Result<()> {
        for piece in body {
            self.write(piece, sent).await?;
        }
        self.flush().await
    }

    /// Writes `bytes` behind what is staged; they may wait there for [`Self::flush`]. `sent`
    /// counts those of them that were taken.
    pub(crate) async fn write(&mut self, bytes: &[u8], sent: &mut u64) -> io::Result<()> {
        self.bound_unsent();
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = poll_fn(|cx| Pin::new(&mut *self).poll_write(cx, rest)).await?;
            rest = &rest[taken..];
            *sent += taken as u64;
        }
        Ok(())
    }

    /// Sends what is staged.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.bound_unsent();
        poll_fn(|cx| self.poll_staged(cx)).await
    }

    /// Ends when the client goes away. What it sends meanwhile waits, up to a bound, behind the
    /// `head_len` bytes of the request that is being served.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>, head_len: usize) -> Poll<()> {
        while self.pre.len() < head_len + CHUNK {
            match self.poll_more(cx) {
                Poll::Ready(Ok(_)) if !self.eof => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }
}
