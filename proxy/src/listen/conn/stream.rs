//! The connection as Pingora sees it: a stream.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::end::Closing;
use super::gate::Gate;
use super::{Conn, TLS_WRITE};
use crate::clock;
use crate::exchange::pace::Slow;
use crate::listen::buffers::{self, CHUNK};

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        let read = me.poll_lent(cx, buf).map_err(as_gone);
        let is_behind = !me.staged.is_empty() || !me.out.is_empty();
        if read.is_pending() && is_behind && !matches!(me.gate, Gate::Open) {
            // Who comes to wait for the client has nothing more to say for now: Pingora leaves that
            // to the end of a reply whose length is known.
            if let Poll::Ready(Err(error)) = me.poll_staged(cx) {
                return Poll::Ready(Err(as_gone(error)));
            }
        }
        read
    }
}

/// A client that takes nothing of what is written is gone, where that is found by reading, too: why is
/// counted already.
fn as_gone(error: io::Error) -> io::Error {
    let slow = error.get_ref().and_then(|cause| cause.downcast_ref());
    match slow {
        Some(Slow::Still) => io::ErrorKind::BrokenPipe.into(),
        _ => error,
    }
}

impl Conn {
    /// What the borrower reads.
    fn poll_lent(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self;
        loop {
            if me.request_is_read() {
                // The borrower watches for the client going away; what else comes is the next request.
                if me.pre.len() >= CHUNK {
                    return Poll::Pending;
                }
                if ready!(me.poll_more(cx))? == 0 && me.eof {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if !me.pre.is_empty() {
                let admitted = me.admit(buf.remaining())?;
                if me.is_flooded_by(admitted) {
                    // Who serves the connection ends it; it is asked next.
                    return Poll::Pending;
                }
                buffers::put(buf, &me.pre[..admitted]);
                me.consume(admitted);
                return Poll::Ready(Ok(()));
            }
            if me.reads_straight() && buf.remaining() >= CHUNK {
                let Poll::Ready(read) = me.poll_straight(cx, buf) else {
                    return me.poll_pause(cx);
                };
                return Poll::Ready(read);
            }
            let Poll::Ready(more) = me.poll_more(cx) else {
                return me.poll_pause(cx);
            };
            let more = more?;
            if more == 0 && me.eof {
                return Poll::Ready(Ok(()));
            }
            me.gave(more);
        }
    }

    /// Whether bytes need not be seen here before the borrower has them: a body, not encrypted.
    fn reads_straight(&self) -> bool {
        self.tls.is_none()
            && self.frames.is_none()
            && !self.eof
            && matches!(self.gate, Gate::Length(_) | Gate::Chunked { head: 0, .. })
    }

    /// Reads into the borrower's own memory: large bodies are copied twice less, in larger pieces.
    fn poll_straight(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let came = &buf.filled()[before..];
        if came.is_empty() {
            self.eof = true;
            return Poll::Ready(Ok(()));
        }
        self.gave(came.len());
        let admitted = self.pass(came)?;
        if admitted < came.len() {
            // What stands behind the body.
            self.pre = buffers::take();
            self.pre.extend_from_slice(&came[admitted..]);
            buf.set_filled(before + admitted);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        let written = me.poll_stage(cx, bytes);
        if let (Poll::Ready(Ok(count)), Some(frames)) = (&written, &mut me.frames) {
            frames.send(&bytes[..*count]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_staged(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Who reads without bound, as HTTP/2 does, says goodbye himself. A client that is still
        // sending would lose that to a reset.
        if let (Gate::Open, Closing::No) = (&self.gate, self.closing) {
            ready!(self.poll_staged(cx))?;
            if !self.has_unread(cx) {
                return Pin::new(&mut self.socket).poll_shutdown(cx);
            }
        }
        self.poll_close(cx)
    }
}

impl Conn {
    /// Whether the client's frames, the next `count` octets among them, give work and have none.
    fn is_flooded_by(&mut self, count: usize) -> bool {
        let Some(frames) = &mut self.frames else {
            return false;
        };
        if !frames.receive(&self.pre[..count], clock::now) {
            return false;
        }
        if let Some(info) = self.info() {
            info.flooded.store(true, Ordering::Relaxed);
        }
        true
    }

    fn has_unread(&mut self, cx: &mut Context<'_>) -> bool {
        !self.pre.is_empty()
            || matches!(self.poll_more_plain(cx), Poll::Ready(Ok(count)) if count > 0)
    }

    fn poll_stage(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = self;
        if let Some(last) = me.info().and_then(|info| info.trailers.in_place_of(bytes)) {
            me.staged.extend_from_slice(&last);
            return Poll::Ready(Ok(bytes.len()));
        }
        if me.staged.len() + bytes.len() > CHUNK {
            if me.tls.is_none() {
                me.restore_date(me.staged.len());
                return me.poll_write_plain(cx, bytes);
            }
            ready!(me.poll_out(cx))?;
        }
        if me.staged.capacity() == 0 {
            me.staged = buffers::take();
        }
        let taken = bytes.len().min(TLS_WRITE);
        let start = me.staged.len();
        buffers::append(&mut me.staged, &bytes[..taken]);
        me.restore_date(start);
        if me.staged.len() > CHUNK {
            me.seal()?;
            if let Poll::Ready(Err(error)) = me.poll_out(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(taken))
    }
}

#[async_trait]
impl Shutdown for Conn {
    async fn shutdown(&mut self) {
        self.close().await;
    }
}

impl UniqueID for Conn {
    fn id(&self) -> UniqueIDType {
        self.socket.as_raw_fd()
    }
}

impl Ssl for Conn {
    fn get_ssl(&self) -> Option<&TlsRef> {
        None
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        // What a request needs of TLS is in `ConnInfo`.
        None
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.speaks_h2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Conn {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Conn {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        // Made before the connection was lent.
        self.digest.clone()
    }
}

impl GetSocketDigest for Conn {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

#[async_trait]
impl Peek for Conn {}
