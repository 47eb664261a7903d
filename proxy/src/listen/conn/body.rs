//! The body of a request that is passed on as it comes, while the head of the request waits on the
//! connection: whoever goes on with the rest of it reads the head first.

use std::io;
use std::task::{Context, Poll};

use super::Conn;
use crate::listen::buffers::{self, CHUNK};
use crate::listen::pipe::Pipe;

impl Conn {
    /// A body has its time from now on, as [`Self::lend`] says of one that is lent.
    pub(crate) fn begin_body(&mut self) {
        self.expect_body(true);
    }

    /// It is whole.
    pub(crate) fn end_body(&mut self) {
        self.expect_body(false);
    }

    /// More of a body behind [`Self::waiting`]; 0 at the connection's end.
    ///
    /// # Errors
    /// The connection is broken, or the client too slow.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Poll::Ready(more) = self.poll_more(cx) else {
            return self.poll_pause(cx).map_ok(|()| 0);
        };
        let more = more?;
        self.gave(more);
        Poll::Ready(Ok(more))
    }

    /// Moves up to `most` octets of a body that comes on a plain connection into `pipe`; 0 at the
    /// connection's end, `None` where it is to be drained first.
    ///
    /// # Errors
    /// The connection is broken, or the client too slow.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        most: u64,
    ) -> Poll<io::Result<Option<usize>>> {
        let Poll::Ready(taken) = pipe.poll_fill(cx, &self.socket, most) else {
            return self.poll_pause(cx).map_ok(|()| None);
        };
        let taken = taken?;
        match taken {
            Some(0) => self.eof = true,
            Some(count) => self.gave(count),
            None => {}
        }
        Poll::Ready(Ok(taken))
    }

    /// Drops `count` octets behind the head, which is `head_len` long: they were passed on.
    pub(crate) fn take_behind(&mut self, head_len: usize, count: usize) {
        self.pre.drain(head_len..head_len + count);
    }

    /// Gives back most of the room that is not used now.
    pub(crate) fn give_room_back(&mut self) {
        self.pre.shrink_to(CHUNK);
    }

    /// Puts `bytes` behind the head, which is `head_len` long, and before the rest of the body.
    pub(crate) fn put_behind(&mut self, head_len: usize, bytes: &[u8]) {
        self.pre.splice(head_len..head_len, bytes.iter().copied());
    }

    /// Puts what `pipe` holds of the body behind the head: somebody else goes on with it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn put_back(&mut self, pipe: &mut Pipe) -> io::Result<()> {
        pipe.empty(&mut self.pre)
    }

    /// Puts another head in the place of the one that waits, which is `head_len` long.
    pub(crate) fn replace_head(&mut self, head_len: usize, head: &[u8]) {
        let mut changed = buffers::take();
        changed.extend_from_slice(head);
        changed.extend_from_slice(&self.pre[head_len..]);
        buffers::give(std::mem::replace(&mut self.pre, changed));
    }
}
