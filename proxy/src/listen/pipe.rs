//! Bytes that go from one socket to another without passing through this process (splice(2)).
//!
//! A pipe stands between the two. It holds references to the kernel's own pages, and never more
//! than [`MOST`] bytes of them, so that a client that takes nothing stops the upstream.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use tokio::net::TcpStream;

/// Most bytes that wait in a pipe: what is moved at once. Less makes more calls, more lets the
/// upstream run dry meanwhile; measured in `docs/decisions/0013-the-lane.md`.
const MOST: usize = 32 * 1024;

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

    /// Takes up to `most` bytes from `socket`; 0 at its end, `None` where the pipe is full.
    ///
    /// # Errors
    /// `WouldBlock` while the socket has nothing.
    pub(crate) fn fill(&mut self, socket: &TcpStream, most: u64) -> io::Result<Option<usize>> {
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
