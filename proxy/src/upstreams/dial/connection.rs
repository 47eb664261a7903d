//! A connection to an endpoint, of one concrete type: TCP or a Unix socket,
//! plain or TLS.
//!
//! It is the stream of Pingora's client sessions. Nothing is buffered above the
//! socket (the sessions read and write whole heads and pieces); under TLS what
//! one read of the socket brought is held until its records are taken, and no
//! buffer is held while there is nothing in it.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_util::io::poll_read_buf;

use super::Wire;
use super::tap::Tap;
use crate::listen::buffers::{self, CHUNK};
use crate::listen::pipe::Pipe;
use crate::upstreams::link::Slot;

/// A goodbye that is not taken by then is not said.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

/// See the module's text.
pub(crate) struct Connection {
    io: Io,
    /// What it was made with.
    wire: Wire,
    born: Instant,
    /// Counted against the endpoint's limits while it lives.
    slot: Option<Arc<Slot>>,
    /// Told when the first bytes arrive.
    listener: Option<oneshot::Sender<()>>,
    /// Read already, by somebody who left it to the next reader.
    unread: Vec<u8>,
    /// What is written before the first read was sent by somebody else.
    is_sent: bool,
    /// Written before all else, in the place of somebody who began it.
    owed: Vec<u8>,
    /// Behind a lock for its session's owner, who sees no more of it than a reference; nobody waits.
    tap: Mutex<Tap>,
}

enum Io {
    Plain(Socket),
    Tls(Box<TlsStream<Ahead>>),
}

pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Hands `$call` to whatever is inside, pinned.
macro_rules! inside {
    ($value:expr, $kind:ident { $($variant:ident),+ }, $inner:ident => $call:expr) => {
        match $value {
            $($kind::$variant(it) => {
                let $inner = Pin::new(it);
                $call
            })+
        }
    };
}

impl Connection {
    pub(super) fn plain(socket: Socket, wire: Wire, now: Instant) -> Self {
        Self {
            io: Io::Plain(socket),
            wire,
            born: now,
            slot: None,
            listener: None,
            unread: Vec::new(),
            is_sent: false,
            owed: Vec::new(),
            tap: Mutex::default(),
        }
    }

    pub(super) fn tls(stream: TlsStream<Ahead>, wire: Wire, now: Instant) -> Self {
        Self {
            io: Io::Tls(Box::new(stream)),
            wire,
            born: now,
            slot: None,
            listener: None,
            unread: Vec::new(),
            is_sent: false,
            owed: Vec::new(),
            tap: Mutex::default(),
        }
    }

    /// What it was made with.
    pub(crate) fn wire(&self) -> Wire {
        self.wire
    }

    /// When it was made.
    pub(crate) fn born(&self) -> Instant {
        self.born
    }

    /// From now on `slot` is held until this is dropped.
    pub(crate) fn hold(&mut self, slot: Arc<Slot>) {
        self.slot = Some(slot);
    }

    /// Ends when the first bytes arrive, and fails when the connection ends before.
    pub(crate) fn first_bytes(&mut self) -> oneshot::Receiver<()> {
        let (listener, arrived) = oneshot::channel();
        self.listener = Some(listener);
        arrived
    }

    /// For a reader who begins anew with a request that was sent, and of whose reply `unread` was
    /// read: the head that it writes once more goes nowhere.
    pub(crate) fn begin_anew(&mut self, unread: Vec<u8>) {
        match unread.is_empty() {
            // It would keep its room until the connection ends.
            true => buffers::give(unread),
            false => self.unread = unread,
        }
        self.is_sent = true;
    }

    /// `rest` is written before all else that is written from the first read on: a part of it was
    /// written, and who goes on knows nothing of that.
    pub(crate) fn owe(&mut self, rest: Vec<u8>) {
        self.owed = rest;
    }

    /// Something of a request is still to be written.
    pub(crate) fn owes(&self) -> bool {
        let holds = match &self.io {
            Io::Plain(_) => false,
            Io::Tls(tls) => tls.get_ref().1.wants_write(),
        };
        holds || !self.owed.is_empty()
    }

    /// Writes what is owed.
    fn poll_pay(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.owed.is_empty() {
            let written =
                inside!(&mut self.io, Io { Plain, Tls }, io => io.poll_write(cx, &self.owed));
            let count = ready!(written)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.owed.drain(..count);
            if self.owed.is_empty() {
                buffers::release(&mut self.owed);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The reply that comes next is looked at: for trailers, and for chunks that are none.
    pub(crate) fn watch_trailers(&self) {
        self.tap().watch();
    }

    /// A head of so many octets was read, and another one follows.
    pub(crate) fn interim_read(&self, head: usize) {
        self.tap().interim(head);
    }

    /// The last head was read, so many octets; `chunked`: trailers can follow its body.
    pub(crate) fn head_read(&self, head: usize, chunked: bool) {
        match chunked {
            true => self.tap().chunked(head),
            false => self.tap().ignore(),
        }
    }

    /// Whether what was read of a chunked body is none.
    pub(crate) fn is_malformed(&self) -> bool {
        self.tap().is_malformed()
    }

    /// The lines behind a chunked body that was read to its end.
    pub(crate) fn take_trailer(&self) -> Option<Vec<u8>> {
        self.tap().take_trailer()
    }

    /// The chunked request is ended by this, which is what is written next.
    pub(crate) fn end_with(&self, last_chunk: Vec<u8>) {
        self.tap().end_with(last_chunk);
    }

    fn tap(&self) -> MutexGuard<'_, Tap> {
        self.tap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tap_mut(&mut self) -> &mut Tap {
        self.tap.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its bytes are in the kernel as they are, so that they can be moved there.
    pub(crate) fn is_plain_tcp(&self) -> bool {
        matches!(self.io, Io::Plain(Socket::Tcp(_))) && self.unread.is_empty()
    }

    /// Moves up to `most` bytes of a plain TCP connection into `pipe`; 0 at the end, `None` where
    /// it is to be drained first.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        most: u64,
    ) -> Poll<io::Result<Option<usize>>> {
        let Io::Plain(Socket::Tcp(socket)) = &self.io else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        pipe.poll_fill(cx, socket, most)
    }

    /// Gives what `pipe` holds to a plain TCP connection; the bytes that were taken.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        let Io::Plain(Socket::Tcp(socket)) = &self.io else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        loop {
            ready!(socket.poll_write_ready(cx))?;
            match socket.try_io(Interest::WRITABLE, || pipe.drain(socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Reads into the room behind what `into` holds; the bytes gained, 0 at the end.
    pub(crate) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        poll_read_buf(Pin::new(self), cx, into)
    }

    /// Nothing to read: neither the end nor bytes that nobody asked for. Costs no system call
    /// while the kernel has no news of the connection.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        if let Io::Plain(Socket::Tcp(socket)) = &self.io {
            let read = socket.try_read(&mut byte);
            let is_pending = read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            return is_pending && self.unread.is_empty();
        }
        let mut read = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(self).poll_read(&mut cx, &mut read).is_pending()
    }

    /// Whether ALPN chose HTTP/2.
    pub(super) fn chose_h2(&self) -> bool {
        match &self.io {
            Io::Plain(_) => false,
            Io::Tls(tls) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    #[cfg(test)]
    pub(crate) fn resumed(&self) -> bool {
        match &self.io {
            Io::Plain(_) => false,
            Io::Tls(tls) => {
                tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
            }
        }
    }

    fn socket(&self) -> &Socket {
        match &self.io {
            Io::Plain(socket) => socket,
            Io::Tls(tls) => &tls.get_ref().0.socket,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            // Others hold it too.
            slot.give();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("fd", &self.id())
            .field("tls", &matches!(self.io, Io::Tls(_)))
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        self.is_sent = false;
        // Who waits for a reply need not have more to write. That it fails is seen by reading.
        let _ = self.poll_pay(cx);
        if !self.unread.is_empty() {
            let now = self.unread.len().min(buf.remaining());
            buffers::put(buf, &self.unread[..now]);
            self.unread.drain(..now);
            self.tap_mut().pass(&buf.filled()[before..]);
            if self.unread.is_empty() {
                buffers::release(&mut self.unread);
            }
            return Poll::Ready(Ok(()));
        }
        let read = inside!(&mut self.io, Io { Plain, Tls }, io => io.poll_read(cx, buf));
        if let (Poll::Pending, Io::Tls(tls)) = (&read, &mut self.io)
            && tls.get_ref().1.wants_write()
        {
            // What was written is encrypted, and waits here: who waits for a reply has nothing more to
            // push it out with. That it fails is seen by reading.
            let _ = Pin::new(tls).poll_flush(cx);
        }
        self.tap_mut().pass(&buf.filled()[before..]);
        if self.listener.is_some()
            && buf.filled().len() > before
            && let Some(listener) = self.listener.take()
        {
            // Who asked may have given up.
            let _ = listener.send(());
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_sent {
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_pay(cx))?;
        while let Some(last) = self.tap_mut().in_place_of(bytes) {
            let written = inside!(&mut self.io, Io { Plain, Tls }, io => io.poll_write(cx, &last));
            let count = ready!(written)?;
            if self.tap_mut().wrote(count) {
                return Poll::Ready(Ok(bytes.len()));
            }
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
        }
        inside!(&mut self.io, Io { Plain, Tls }, io => io.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_sent {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        ready!(self.poll_pay(cx))?;
        inside!(&mut self.io, Io { Plain, Tls }, io => io.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_sent {
            // Who writes what was sent has nothing to wait for: the reply may be there.
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_pay(cx))?;
        inside!(&mut self.io, Io { Plain, Tls }, io => io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inside!(&mut self.io, Io { Plain, Tls }, io => io.poll_shutdown(cx))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        inside!(&mut *self, Socket { Tcp, Unix }, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        inside!(&mut *self, Socket { Tcp, Unix }, io => io.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        inside!(&mut *self, Socket { Tcp, Unix }, io => io.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inside!(&mut *self, Socket { Tcp, Unix }, io => io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inside!(&mut *self, Socket { Tcp, Unix }, io => io.poll_shutdown(cx))
    }
}

/// A socket that is read in large pieces for a reader that takes small ones: rustls asks for
/// 4 KiB at a time, a quarter of a record.
pub(super) struct Ahead {
    socket: Socket,
    /// Read from the socket and not taken yet.
    waiting: Vec<u8>,
    taken: usize,
}

impl Ahead {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            waiting: Vec::new(),
            taken: 0,
        }
    }
}

impl AsyncRead for Ahead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if me.waiting.is_empty() {
            return buffers::with_scratch(|scratch| {
                let mut read = ReadBuf::new(&mut scratch[..CHUNK]);
                ready!(Pin::new(&mut me.socket).poll_read(cx, &mut read))?;
                let bytes = read.filled();
                let now = bytes.len().min(buf.remaining());
                buffers::put(buf, &bytes[..now]);
                if now < bytes.len() {
                    me.waiting = buffers::take();
                    buffers::append(&mut me.waiting, &bytes[now..]);
                    me.taken = 0;
                }
                Poll::Ready(Ok(()))
            });
        }
        let rest = &me.waiting[me.taken..];
        let now = rest.len().min(buf.remaining());
        buffers::put(buf, &rest[..now]);
        me.taken += now;
        if me.taken == me.waiting.len() {
            buffers::release(&mut me.waiting);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        // The other side may be gone or read nothing: then it is closed without.
        let _ = timeout(GOODBYE, AsyncWriteExt::shutdown(self)).await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        match self.socket() {
            Socket::Tcp(socket) => socket.as_raw_fd(),
            Socket::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

impl Ssl for Connection {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.chose_h2().then_some(ALPN::H2)
    }
}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

#[async_trait]
impl Peek for Connection {}
