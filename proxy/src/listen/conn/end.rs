//! The end of a connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;

use super::Conn;
use crate::clock;
use crate::listen::buffers;

/// How long a closing connection is read on, so that the client sees the reply
/// before a reset (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_millis(1000);

impl Conn {
    /// Says goodbye and closes; reads on for a moment when the client may still be sending.
    pub(crate) async fn close(&mut self) {
        if let Some(tls) = self.tls.as_mut().filter(|tls| tls.records.established()) {
            tls.records.close(&mut self.out);
        }
        let unread = !self.pre.is_empty() || !self.request_is_read();
        self.deadline = Some(clock::now() + LINGER);
        let ended = poll_fn(|cx| {
            let flushed = ready_or_deadline(self.poll_staged(cx), || self.poll_deadline(cx));
            ready!(flushed)?;
            Pin::new(&mut self.socket).poll_shutdown(cx)
        })
        .await;
        if ended.is_ok() && unread && !self.eof {
            self.linger().await;
        }
    }

    async fn linger(&mut self) {
        while !self.eof {
            buffers::release(&mut self.pre);
            let read = poll_fn(|cx| {
                let read = match self.poll_more_plain(cx) {
                    Poll::Ready(read) => Poll::Ready(read.is_ok()),
                    Poll::Pending => Poll::Pending,
                };
                if read.is_pending() && self.poll_deadline(cx).is_ready() {
                    return Poll::Ready(false);
                }
                read
            })
            .await;
            if !read {
                return;
            }
        }
    }
}

fn ready_or_deadline(
    write: Poll<io::Result<()>>,
    deadline: impl FnOnce() -> Poll<()>,
) -> Poll<io::Result<()>> {
    if write.is_pending() && deadline().is_ready() {
        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
    }
    write
}
