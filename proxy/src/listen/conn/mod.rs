//! A client's connection: plain TCP or TLS, of one concrete type.
//!
//! It outlives the requests on it. Between two requests it waits in
//! [`super::serve`], holding no buffer; the lane answers there what it can, and for
//! any other request it is lent to Pingora's session as its stream and comes back. [`Gate`] makes that safe: the
//! borrower can read the bytes of its own request and not one more, so what a
//! client pipelined stays here.
//!
//! Replies are collected until a flush or a full record, so that head and body
//! of a small reply leave in one write (and one TLS record).

mod body;
mod date;
mod end;
mod file;
mod gate;
mod info;
mod patience;
mod reply;
mod stream;
mod trailers;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use pingora::protocols::raw_connect::ProxyDigest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::Sleep;

use end::Closing;
use gate::Gate;
pub(crate) use info::{ConnInfo, conn_info};
use patience::Patience;

use super::bind::UNSENT;
use super::buffers::{self, CHUNK};
use super::limits::Slot;
use super::tls::Records;
use crate::clock;
use crate::exchange::frames::Frames;
use crate::exchange::guard::{Framing, HeadFacts};

/// Most plaintext taken from the borrower in one write over TLS.
const TLS_WRITE: usize = 2 * CHUNK;

/// See the module's text.
pub(crate) struct Conn {
    socket: TcpStream,
    tls: Option<Box<Tls>>,
    /// Plaintext that arrived and nobody consumed.
    pre: Vec<u8>,
    /// Bytes that the socket did not take yet.
    out: Vec<u8>,
    /// Plaintext of a reply, until it is flushed.
    staged: Vec<u8>,
    gate: Gate,
    eof: bool,
    closing: Closing,
    heard: bool,
    speaks_h2: bool,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    patience: Patience,
    /// TCP_NOTSENT_LOWAT as it is set: the bound on what waits in the kernel to be sent.
    unsent: u32,
    /// Of a connection of HTTP/2: what its frames cost.
    frames: Option<Box<Frames>>,
    info: Option<Arc<ConnInfo>>,
    /// The same as Pingora has it, once it is lent.
    digest: Option<Arc<ProxyDigest>>,
    /// Counted against the listener's limits while it lives.
    slot: Slot,
}

struct Tls {
    records: Records,
    /// The start of a record whose end did not arrive yet.
    unfinished: Vec<u8>,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("peer", &self.slot.peer())
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if !self.staged.is_empty() || !self.out.is_empty() {
            // A reply that broke off: the client sees as much of it as there was, and that it is
            // not whole, instead of nothing. What the socket does not take at once is lost.
            let _ = self.poll_staged(&mut Context::from_waker(Waker::noop()));
        }
        if self
            .info()
            .is_some_and(|info| info.broke_off.load(Ordering::Relaxed))
        {
            // Where it fails, the connection is gone already.
            let _ = self.socket.set_zero_linger();
        }
    }
}

impl Conn {
    /// `patience`: longest time that the client may take no byte of what is written to it.
    pub(crate) fn new(
        socket: TcpStream,
        records: Option<Records>,
        slot: Slot,
        patience: Duration,
    ) -> Self {
        let tls = records.map(|records| {
            Box::new(Tls {
                records,
                unfinished: Vec::new(),
            })
        });
        Self {
            socket,
            tls,
            pre: Vec::new(),
            out: Vec::new(),
            staged: Vec::new(),
            gate: Gate::Open,
            eof: false,
            closing: Closing::No,
            heard: false,
            speaks_h2: false,
            deadline: None,
            timer: None,
            patience: Patience::new(patience),
            unsent: UNSENT,
            frames: None,
            info: None,
            digest: None,
            slot,
        }
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Plaintext that waits to be consumed.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.pre
    }

    /// Whether the peer has ended its side.
    pub(crate) fn ended(&self) -> bool {
        self.eof
    }

    /// Whether a byte ever came.
    pub(crate) fn heard(&self) -> bool {
        self.heard
    }

    /// When [`Self::more`] gives up; `None`: never.
    pub(crate) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Takes what was read of a TLS connection before it was known to end here.
    ///
    /// # Errors
    /// It is not TLS.
    pub(crate) fn take_heard(&mut self, mut bytes: Vec<u8>) -> io::Result<()> {
        let Some(tls) = self.tls.as_mut().filter(|_| !bytes.is_empty()) else {
            return Ok(());
        };
        self.heard = true;
        let done = tls
            .records
            .process(&mut bytes, &mut self.pre, &mut self.out);
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                // The alert that tells the peer why.
                let _ = self.socket.try_write(&self.out);
                return Err(error);
            }
        };
        let rest = &bytes[done.used..];
        if rest.len() > 2 * CHUNK {
            return Err(io::ErrorKind::InvalidData.into());
        }
        tls.unfinished.extend_from_slice(rest);
        self.eof |= done.closed;
        Ok(())
    }

    /// The TLS handshake to its end. Fails with `TimedOut` at the deadline.
    pub(crate) async fn handshake(&mut self) -> io::Result<()> {
        while !self.established() {
            self.more().await?;
            if self.eof && !self.established() {
                // What the library wants to say (an alert) is on its way in `out`.
                let _ = poll_fn(|cx| self.poll_out(cx)).await;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        // What is left in `out` (tickets) leaves with the first reply.
        self.speaks_h2 = self.tls.as_ref().is_some_and(|tls| tls.records.chose_h2());
        Ok(())
    }

    fn established(&self) -> bool {
        self.tls
            .as_ref()
            .is_none_or(|tls| tls.records.established())
    }

    /// HTTP/2 is spoken: by ALPN, or because [`Self::set_h2`] said so.
    pub(crate) fn speaks_h2(&self) -> bool {
        self.speaks_h2
    }

    /// It was a certificate authority that looked whether a name is ours, and now it knows.
    pub(crate) fn was_validation(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|tls| tls.records.chose_validation())
    }

    /// The client proved prior knowledge of HTTP/2 by its preface.
    pub(crate) fn set_h2(&mut self) {
        self.speaks_h2 = true;
    }

    /// Waits for more plaintext behind [`Self::waiting`]; 0 is the end (or, during the
    /// handshake, progress). Fails with `TimedOut` at the deadline.
    pub(crate) async fn more(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_more_in_time(cx)).await
    }

    /// See [`Self::more`].
    pub(crate) fn poll_more_in_time(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = self.poll_more(cx) {
            return Poll::Ready(result);
        }
        self.poll_deadline(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The timer is not moved for each request: it fires at some earlier deadline, sees
    /// that there is a later one, and is set anew. Nor is it asked each time: it knows whom to wake
    /// since it was set, for a connection stays in its task.
    pub(crate) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        if let Some(timer) = &self.timer
            && !timer.is_elapsed()
            && timer.deadline().into_std() <= deadline
        {
            return Poll::Pending;
        }
        loop {
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
            if timer.deadline().into_std() > deadline {
                timer.as_mut().reset(deadline.into());
            }
            // Without the runtime's budget: where that is used up the timer would not be set, and be
            // believed to be.
            ready!(Pin::new(&mut unconstrained(timer.as_mut())).poll(cx));
            if clock::now() >= deadline {
                self.timer = None;
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline.into());
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        match self.tls {
            None => self.poll_more_plain(cx),
            Some(_) => self.poll_more_tls(cx),
        }
    }

    fn poll_more_plain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        buffers::with_scratch(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            let bytes = read.filled();
            if bytes.is_empty() {
                self.eof = true;
            } else {
                if self.pre.capacity() == 0 {
                    self.pre = buffers::take();
                }
                buffers::append(&mut self.pre, bytes);
            }
            Poll::Ready(Ok(bytes.len()))
        })
    }

    fn poll_more_tls(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if !self.out.is_empty() {
                ready!(self.poll_out(cx))?;
            }
            let was_established = self.established();
            let got = ready!(self.poll_records(cx))?;
            if got > 0 || self.eof || self.established() != was_established {
                return Poll::Ready(Ok(got));
            }
        }
    }

    /// One read of the socket through the record layer; gives the plaintext bytes gained.
    fn poll_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(tls) = self.tls.as_mut() else {
            return Poll::Ready(Ok(0));
        };
        buffers::with_scratch(|scratch| {
            let kept = tls.unfinished.len();
            scratch[..kept].copy_from_slice(&tls.unfinished);
            let mut read = ReadBuf::new(&mut scratch[kept..]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            let total = kept + read.filled().len();
            if total == kept {
                self.eof = true;
                return Poll::Ready(Ok(0));
            }
            self.heard = true;
            let before = self.pre.len();
            if self.pre.capacity() == 0 {
                self.pre = buffers::take();
            }
            let done = tls
                .records
                .process(&mut scratch[..total], &mut self.pre, &mut self.out);
            let gained = self.pre.len() - before;
            if self.pre.is_empty() {
                buffers::release(&mut self.pre);
            }
            let done = match done {
                Ok(done) => done,
                Err(error) => {
                    // The alert that tells the peer why.
                    self.eof = true;
                    let _ = self.socket.try_write(&self.out);
                    return Poll::Ready(Err(error));
                }
            };
            let rest = &scratch[done.used..total];
            if rest.is_empty() {
                tls.unfinished = Vec::new();
            } else if rest.len() > 2 * CHUNK {
                // Records are at most 16 KiB + 256 bytes: this is not TLS.
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            } else {
                tls.unfinished.clear();
                buffers::append(&mut tls.unfinished, rest);
            }
            self.eof |= done.closed;
            Poll::Ready(Ok(gained))
        })
    }

    fn consume(&mut self, count: usize) {
        if count == self.pre.len() {
            buffers::release(&mut self.pre);
        } else {
            self.pre.drain(..count);
        }
    }

    /// Opens the gate for the request whose head waits, and no further. `under_way`: part of its
    /// body was passed on, and the rest of it has no more time than the whole had.
    pub(crate) fn lend(&mut self, facts: &HeadFacts, under_way: bool) {
        self.bound_unsent();
        self.digest();
        self.gate = Gate::for_request(facts);
        if !under_way {
            self.expect_body(facts.body != Framing::None && !matches!(self.gate, Gate::Open));
        }
        if let Some(info) = self.info() {
            info.trailers.clear();
        }
    }

    /// Counts what the frames of HTTP/2 cost, from the preface on: so many a second may carry nothing.
    pub(crate) fn count_frames(&mut self, rate: NonZeroU64) {
        self.frames = Some(Box::new(Frames::new(rate, clock::now())));
    }

    /// Whether the borrower read its request to the end, so that the next one can begin.
    pub(crate) fn request_is_read(&self) -> bool {
        self.gate.is_closed()
    }

    /// The listener's address, or the very one where that stands for all of the machine's.
    fn local(&self) -> SocketAddr {
        let address = self.slot.listener().address;
        match address.ip().is_unspecified() {
            true => self.socket.local_addr().unwrap_or(address),
            false => address,
        }
    }

    /// Prepares what [`Self::info`] gives; before the first request, and after the handshake.
    pub(crate) fn know(&mut self) {
        let tls = self.tls.as_ref().map(|tls| tls.records.version());
        let cert = self.tls.as_ref().and_then(|tls| tls.records.client_cert());
        let info = ConnInfo::new(&self.slot, self.local(), tls, cert);
        self.info = Some(Arc::new(info));
    }

    /// The same as Pingora carries it along; made once.
    pub(crate) fn digest(&mut self) -> Option<Arc<ProxyDigest>> {
        if self.digest.is_none() {
            self.digest = self.info.clone().and_then(ConnInfo::digest);
        }
        self.digest.clone()
    }

    /// What a request of this connection can know of it.
    pub(crate) fn info(&self) -> Option<&ConnInfo> {
        self.info.as_deref()
    }

    /// Puts a kept Date into the head that begins at `start` of what is staged.
    fn restore_date(&mut self, start: usize) {
        if let Some(info) = self.info.as_deref() {
            info.date.restore(&mut self.staged[start..]);
        }
    }

    /// Writes a whole reply of our own.
    pub(crate) async fn write_reply(&mut self, reply: &[u8]) -> io::Result<()> {
        self.staged.extend_from_slice(reply);
        poll_fn(|cx| {
            let written = self.poll_staged(cx);
            if written.is_pending() && self.poll_deadline(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            written
        })
        .await
    }

    /// `staged` to the socket.
    fn poll_staged(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        if self.staged.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.seal()?;
        self.poll_out(cx)
    }

    /// `staged` becomes `out`, encrypted where the connection is.
    fn seal(&mut self) -> io::Result<()> {
        match self.tls.as_mut() {
            None if self.out.is_empty() => std::mem::swap(&mut self.out, &mut self.staged),
            None => buffers::append(&mut self.out, &self.staged),
            Some(tls) => {
                if self.out.capacity() == 0 {
                    self.out = buffers::take();
                }
                tls.records.encrypt(&self.staged, &mut self.out)?;
            }
        }
        buffers::release(&mut self.staged);
        Ok(())
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            // No progress either: a stall that is under way goes on.
            return Poll::Ready(Ok(()));
        }
        let mut done = 0;
        let result = loop {
            if done == self.out.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.socket).poll_write(cx, &self.out[done..]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => done += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if done == self.out.len() {
            buffers::release(&mut self.out);
        } else {
            self.out.drain(..done);
        }
        if done > 0 {
            self.took(done);
        }
        match result.is_pending() {
            true => self.poll_stall(cx),
            false => result,
        }
    }

    /// A write past a chunk on a plain connection: straight from the caller's bytes.
    fn poll_write_plain(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_out(cx))?;
            let parts = [IoSlice::new(&self.staged), IoSlice::new(bytes)];
            let Poll::Ready(written) = Pin::new(&mut self.socket).poll_write_vectored(cx, &parts)
            else {
                ready!(self.poll_stall(cx))?;
                return Poll::Pending;
            };
            let written = written?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.took(written);
            if written < self.staged.len() {
                self.staged.drain(..written);
                continue;
            }
            let taken = written - self.staged.len();
            buffers::release(&mut self.staged);
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
        }
    }

    /// How many of the bytes that wait the borrower may have now.
    fn admit(&mut self, room: usize) -> io::Result<usize> {
        let waiting = std::mem::take(&mut self.pre);
        let admitted = self.pass(&waiting[..waiting.len().min(room)]);
        self.pre = waiting;
        admitted
    }

    /// How many of `bytes`, which came behind those before, the borrower may have.
    fn pass(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let admitted = self.gate.admit(bytes).map_err(|_| {
            if let Some(info) = self.info() {
                info.bad_chunk.store(true, Ordering::Relaxed);
            }
            io::Error::new(io::ErrorKind::InvalidData, "malformed chunked body")
        })?;
        if let Some(section) = self.gate.take_trailer()
            && let Some(info) = self.info()
        {
            info.trailers.came(section);
        }
        Ok(admitted)
    }
}
