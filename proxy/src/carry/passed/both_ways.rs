//! Bytes that go both ways between two connections. No buffer is held while nothing moves.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

use crate::clock;
use crate::listen::buffers;
use crate::observe::metrics::ForwardEnd;

/// How two connections ended, and what went over them.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) end: ForwardEnd,
    /// Octets from the first to the second.
    pub(super) there: u64,
    /// And the other way.
    pub(super) back: u64,
}

/// One way.
#[derive(Debug, Default)]
struct Way {
    /// Read, and not written yet from `at` on; without capacity while it is empty.
    held: Vec<u8>,
    at: usize,
    /// Octets that were written.
    moved: u64,
    reading: Reading,
    unflushed: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Reading {
    #[default]
    On,
    /// Its source has ended; the other side is yet to be told.
    Ended,
    Done,
}

/// Moves bytes until both sides have ended theirs, one breaks off, or nothing moved for as long
/// as `patience`. `heard` was read from the first already.
pub(super) async fn pass<A, B>(
    first: &mut A,
    heard: Vec<u8>,
    second: &mut B,
    patience: Duration,
) -> Passed
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut there = Way {
        held: heard,
        ..Way::default()
    };
    let mut back = Way::default();
    let mut last = clock::now();
    let mut timer = Box::pin(tokio::time::sleep_until((last + patience).into()));
    let end = poll_fn(|cx| {
        let before = there.moved + back.moved;
        // Both are asked each time: either may be woken.
        let one = there.poll(cx, first, second);
        let other = back.poll(cx, second, first);
        if there.moved + back.moved > before {
            last = clock::now();
        }
        match (one, other) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(ForwardEnd::Broken),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(ForwardEnd::Ended),
            _ => {
                ready!(poll_idle(timer.as_mut(), cx, last + patience));
                Poll::Ready(ForwardEnd::Idle)
            }
        }
    })
    .await;
    Passed {
        end,
        there: there.moved,
        back: back.moved,
    }
}

/// Ready at `until`. The timer is moved only when it has run out, not with every byte.
fn poll_idle(mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
    loop {
        ready!(timer.as_mut().poll(cx));
        if clock::now() >= until {
            return Poll::Ready(());
        }
        timer.as_mut().reset(until.into());
    }
}

impl Way {
    /// Ready when `from` has ended and `to` knows it.
    ///
    /// # Errors
    /// One of the two broke off.
    fn poll<A, B>(&mut self, cx: &mut Context<'_>, from: &mut A, to: &mut B) -> Poll<io::Result<()>>
    where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
    {
        loop {
            while self.at < self.held.len() {
                let some = Pin::new(&mut *to).poll_write(cx, &self.held[self.at..]);
                let count = ready!(some)?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.at += count;
                self.moved += count as u64;
                self.unflushed = true;
            }
            buffers::release(&mut self.held);
            self.at = 0;
            match self.reading {
                Reading::On => {
                    if self.poll_fill(cx, from)?.is_pending() {
                        // What waits for a buffer to fill is sent before we wait.
                        if self.unflushed {
                            ready!(Pin::new(&mut *to).poll_flush(cx))?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                }
                Reading::Ended => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.reading = Reading::Done;
                }
                Reading::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_fill<A: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut A,
    ) -> Poll<io::Result<()>> {
        self.held = buffers::take();
        let read = poll_read_buf(Pin::new(from), cx, &mut self.held);
        if !matches!(read, Poll::Ready(Ok(1..))) {
            buffers::release(&mut self.held);
        }
        if ready!(read)? == 0 {
            self.reading = Reading::Ended;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_way_holds_a_buffer_only_while_bytes_wait_in_it() {
        let (mut client, mut from) = duplex(64);
        let (mut to, mut server) = duplex(4);
        let mut cx = Context::from_waker(Waker::noop());
        let mut way = Way::default();
        assert!(way.poll(&mut cx, &mut from, &mut to).is_pending());
        assert_eq!(way.held.capacity(), 0, "nothing has come yet");

        client.write_all(b"123456").await.unwrap();
        assert!(way.poll(&mut cx, &mut from, &mut to).is_pending());
        assert_eq!((way.moved, &way.held[way.at..]), (4, &b"56"[..]));

        let mut got = [0; 6];
        server.read_exact(&mut got[..4]).await.unwrap();
        assert!(way.poll(&mut cx, &mut from, &mut to).is_pending());
        assert_eq!((way.moved, way.held.capacity()), (6, 0));

        drop(client);
        let ended = way.poll(&mut cx, &mut from, &mut to);
        assert!(matches!(ended, Poll::Ready(Ok(()))));
        server.read_exact(&mut got[4..]).await.unwrap();
        assert_eq!(&got, b"123456");
        assert_eq!(server.read(&mut got).await.unwrap(), 0, "the end is told");
    }

    #[tokio::test]
    async fn what_was_heard_before_goes_first_and_silence_ends_it() {
        let (mut client, mut first) = duplex(64);
        let (mut second, mut server) = duplex(64);
        let patience = Duration::from_millis(30);
        client.write_all(b"b").await.unwrap();
        let passed = pass(&mut first, b"a".to_vec(), &mut second, patience).await;
        assert_eq!(passed.end, ForwardEnd::Idle);
        assert_eq!((passed.there, passed.back), (2, 0));
        let mut got = [0; 2];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ab");
    }

    #[tokio::test]
    async fn a_side_that_is_gone_breaks_it_off() {
        let (mut client, mut first) = duplex(64);
        let (mut second, server) = duplex(64);
        drop(server);
        client.write_all(b"x").await.unwrap();
        let passed = pass(&mut first, Vec::new(), &mut second, Duration::from_secs(20)).await;
        assert_eq!(passed.end, ForwardEnd::Broken);
    }
}
