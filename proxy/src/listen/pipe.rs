//! Bytes that go from one socket to another without passing through this process (splice(2)).
//!
//! A pipe stands between the two. It holds references to the kernel's own pages, and never more
//! than [`MOST`] bytes of them, so that a client that takes nothing stops the upstream.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Most bytes that wait in a pipe: what is moved at once. Less makes more calls, more lets the
/// upstream run dry meanwhile; measured in `docs/decisions/0013-the-lane.md`.
const MOST: usize = 128 * 1024;

/// Room for a pipe's pages: a piece of a socket's queue takes one, however small it is.
const PAGES: i32 = 64 * 4096;

/// Empty pipes kept by a thread.
const KEEP: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    holds: usize,
}

impl Pipe {
    /// An empty one.
    ///
    /// # Errors
    /// There are too many open files.
    pub(crate) fn take() -> io::Result<Self> {
        if let Some(pipe) = FREE.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // An account may have so many pages in pipes; without them it is slower, no more.
        let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(PAGES));
        Ok(Self {
            out,
            into,
            holds: 0,
        })
    }

    /// Gives it back; one that is not empty is closed.
    pub(crate) fn give(self) {
        if self.holds == 0 {
            FREE.with_borrow_mut(|free| {
                if free.len() < KEEP {
                    free.push(self);
                }
            });
        }
    }

    /// Bytes in it.
    pub(crate) fn holds(&self) -> usize {
        self.holds
    }

    /// Whether it takes more.
    pub(crate) fn has_room(&self) -> bool {
        self.holds < MOST
    }

    /// Takes up to `most` bytes from `socket`; 0 at its end, `None` where the pipe holds some, and is
    /// full or the socket has nothing.
    ///
    /// # Errors
    /// `WouldBlock` while the socket has nothing.
    fn fill(&mut self, socket: &TcpStream, most: u64) -> io::Result<Option<usize>> {
        let room = MOST - self.holds;
        let most = usize::try_from(most).unwrap_or(room).min(room);
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        match splice(socket, None, &self.into, None, most, flags) {
            Ok(taken) => {
                self.holds += taken;
                Ok(Some(taken))
            }
            // It does not say which of the two would block.
            Err(nix::Error::EAGAIN) if self.holds > 0 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The same, waiting for the socket.
    ///
    /// # Errors
    /// The socket is broken.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
        most: u64,
    ) -> Poll<io::Result<Option<usize>>> {
        loop {
            ready!(socket.poll_read_ready(cx))?;
            match socket.try_io(Interest::READABLE, || self.fill(socket, most)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Appends what it holds to `to`.
    ///
    /// # Errors
    /// It cannot be read, which nothing accounts for.
    pub(crate) fn empty(&mut self, to: &mut Vec<u8>) -> io::Result<()> {
        while self.holds > 0 {
            let end = to.len();
            to.resize(end + self.holds, 0);
            let taken = nix::unistd::read(&self.out, &mut to[end..]);
            to.truncate(end + *taken.as_ref().unwrap_or(&0));
            match taken? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                taken => self.holds -= taken,
            }
        }
        Ok(())
    }

    /// Gives what it holds to `socket`; the bytes that were taken.
    ///
    /// # Errors
    /// `WouldBlock` while the socket takes nothing.
    pub(crate) fn drain(&mut self, socket: &TcpStream) -> io::Result<usize> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let taken = splice(&self.out, None, socket, None, self.holds, flags)?;
        self.holds -= taken;
        Ok(taken)
    }
}
