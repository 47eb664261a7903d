//! The end of a connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;

use super::Conn;
use crate::clock;
use crate::listen::buffers;

/// How long a closing connection is read on, so that the client sees the reply
/// before a reset (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_millis(1000);

/// How far a connection's end came.
#[derive(Debug, Clone, Copy)]
pub(super) enum Closing {
    No,
    /// Goodbye is on its way. `unread`: the client may still be sending.
    Flushing {
        unread: bool,
    },
    Lingering,
    Done,
}

impl Conn {
    /// Says goodbye and closes; reads on for a moment when the client may still be sending.
    pub(crate) async fn close(&mut self) {
        // Who is gone already needs no goodbye.
        let _ = poll_fn(|cx| self.poll_close(cx)).await;
    }

    /// See [`Self::close`].
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Closing::No = self.closing {
            if let Some(tls) = self.tls.as_mut().filter(|tls| tls.records.established()) {
                tls.records.close(&mut self.out);
            }
            let unread = !self.pre.is_empty() || !self.request_is_read();
            self.closing = Closing::Flushing { unread };
            self.deadline = Some(clock::now() + LINGER);
        }
        if let Closing::Flushing { unread } = self.closing {
            let flushed = ready_or_deadline(self.poll_staged(cx), || self.poll_deadline(cx));
            ready!(flushed)?;
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            self.closing = match unread {
                true => Closing::Lingering,
                false => Closing::Done,
            };
        }
        while let (Closing::Lingering, false) = (self.closing, self.eof) {
            buffers::release(&mut self.pre);
            match self.poll_more_plain(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => self.closing = Closing::Done,
                Poll::Pending => {
                    ready!(self.poll_deadline(cx));
                    self.closing = Closing::Done;
                }
            }
        }
        self.closing = Closing::Done;
        Poll::Ready(Ok(()))
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
