//! A stream of HTTP/2 as octets both ways, after an extended CONNECT (RFC 8441 section 5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::H2Stream;

/// Octets that are taken before the endpoint has taken those before.
const MOST: usize = 16 * 1024;

/// See the module's text.
pub(crate) struct Octets {
    stream: H2Stream,
    /// Read, and not asked for yet.
    rest: Bytes,
}

impl Octets {
    pub(crate) fn new(stream: H2Stream) -> Self {
        Self {
            stream,
            rest: Bytes::new(),
        }
    }
}

fn broken(error: Box<pingora::Error>) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for Octets {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.stream.poll_data(cx)).map_err(broken)? {
                None => return Poll::Ready(Ok(())),
                Some(piece) => self.rest = piece,
            }
        }
        let now = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..now]);
        self.rest.advance(now);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Octets {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.stream.poll_flush(cx)).map_err(broken)?;
        let now = bytes.len().min(MOST);
        self.stream
            .begin_piece(Bytes::copy_from_slice(&bytes[..now]));
        // What there is no room for waits for the flush.
        self.stream.try_flush().map_err(broken)?;
        Poll::Ready(Ok(now))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.begin_end(None);
        self.stream.poll_flush(cx).map_err(broken)
    }
}
