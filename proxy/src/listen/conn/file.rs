//! A reply whose body the kernel takes from a file by itself (sendfile(2)).

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use nix::libc::{MSG_MORE, MSG_NOSIGNAL};
use nix::sys::sendfile::sendfile;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::{Conn, buffers};
use crate::listen::bind::UNSENT;
use crate::listen::pipe::Pipe;

/// Most bytes of one call, so that one connection does not hold up the others.
const CALL: u64 = 1024 * 1024;

/// What of a spliced body may wait in the kernel. With the bound of other replies a MiB costs nearly
/// twice as much, for the wake-ups (`docs/decisions/0013-the-lane.md`).
const SPLICED: u32 = 512 * 1024;

/// Of TCP_NOTSENT_LOWAT: what `net.ipv4.tcp_notsent_lowat` says, which is no bound unless set.
const SYSTEM_DEFAULT: u32 = 0;

impl Conn {
    /// Whether what is written goes out as it is.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    /// Sends what is staged and a stretch of `file` behind it, on a plain connection.
    /// `sent` counts the bytes of the file that were taken.
    pub(crate) async fn send_file(
        &mut self,
        file: &File,
        stretch: Range<u64>,
        sent: &mut u64,
    ) -> io::Result<()> {
        poll_fn(|cx| self.poll_staged_with_more(cx)).await?;
        if stretch.end.saturating_sub(stretch.start) > u64::from(UNSENT) {
            // The bytes are no copy, so they may wait in the kernel as well: each time that it runs
            // dry costs a wake-up, a third of what a file of 5 MiB costs.
            self.set_unsent(SYSTEM_DEFAULT)?;
        }
        let mut at = stretch.start;
        while at < stretch.end {
            let taken = poll_fn(|cx| self.poll_send_file(cx, file, at, stretch.end - at)).await?;
            at += taken as u64;
            *sent += taken as u64;
        }
        Ok(())
    }

    /// Bounds again what may wait in the kernel to be sent, before bytes are written that are copied
    /// there.
    pub(super) fn bound_unsent(&mut self) {
        // It fails where the connection is gone, which the next write says.
        let _ = self.set_unsent(UNSENT);
    }

    fn set_unsent(&mut self, bound: u32) -> io::Result<()> {
        if self.unsent != bound {
            self.socket_ref().set_tcp_notsent_lowat(bound)?;
            self.unsent = bound;
        }
        Ok(())
    }

    fn socket_ref(&self) -> SockRef<'_> {
        SockRef::from(&self.socket)
    }

    /// The head waits in the kernel for the first bytes of the body.
    fn poll_staged_with_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        let mut staged = std::mem::take(&mut self.staged);
        let mut result = Poll::Ready(Ok(()));
        while !staged.is_empty() {
            let flags = MSG_MORE | MSG_NOSIGNAL;
            match self.poll_socket(cx, |socket| {
                SockRef::from(socket).send_with_flags(&staged, flags)
            }) {
                Poll::Ready(Ok(taken)) => drop(staged.drain(..taken)),
                Poll::Ready(Err(error)) => {
                    result = Poll::Ready(Err(error));
                    break;
                }
                Poll::Pending => {
                    result = Poll::Pending;
                    break;
                }
            }
        }
        self.staged = staged;
        if self.staged.is_empty() {
            buffers::release(&mut self.staged);
        }
        result
    }

    /// Gives what `pipe` holds to a plain connection, behind what is staged; the bytes that were
    /// taken.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_staged(cx))?;
        self.set_unsent(SPLICED)?;
        self.poll_socket(cx, |socket| pipe.drain(socket))
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        from: u64,
        left: u64,
    ) -> Poll<io::Result<usize>> {
        let count = usize::try_from(left.min(CALL)).unwrap_or(usize::MAX);
        self.poll_socket(cx, |socket| {
            let mut offset = from.cast_signed();
            Ok(sendfile(socket, file, Some(&mut offset), count)?)
        })
    }

    /// One call that writes, when the socket takes something. Nothing taken is an error: the file
    /// is shorter than was said.
    fn poll_socket(
        &mut self,
        cx: &mut Context<'_>,
        mut call: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(writable) = self.socket.poll_write_ready(cx) else {
                ready!(self.poll_stall(cx))?;
                return Poll::Pending;
            };
            writable?;
            match self
                .socket
                .try_io(Interest::WRITABLE, || call(&self.socket))
            {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.took(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
