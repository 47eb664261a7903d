//! A connection that is never waited for alone.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// A socket with what came and what is to go.
pub(super) struct Socket {
    stream: TcpStream,
    /// All that came and was not taken.
    pub(super) inbox: Vec<u8>,
    outbox: Vec<u8>,
    sent: usize,
    finishes: bool,
    /// The other side sends no more. Whether it said so or broke off depends on whether it had
    /// read all, which is a matter of time.
    pub(super) ended: bool,
}

impl Socket {
    pub(super) fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).expect("the edge accepts connections"))
    }

    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        // Ports of connections that ended in peace would be blocked for a minute, and run out.
        let at_once = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, sockopt::Linger, &at_once).expect("a socket");
        Self {
            stream,
            inbox: Vec::new(),
            outbox: Vec::new(),
            sent: 0,
            finishes: false,
            ended: false,
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.outbox.extend_from_slice(bytes);
        self.write();
    }

    /// Says that no more is sent, once all is.
    pub(super) fn finish(&mut self) {
        self.finishes = true;
        self.write();
    }

    /// Moves what can be moved; whether something was.
    pub(super) fn pump(&mut self) -> bool {
        let wrote = self.write();
        self.read() || wrote
    }

    fn write(&mut self) -> bool {
        let before = self.sent;
        while self.sent < self.outbox.len() {
            match self.stream.write(&self.outbox[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Nobody takes it any more.
                Err(_) => self.sent = self.outbox.len(),
            }
        }
        if self.finishes && self.sent == self.outbox.len() {
            self.finishes = false;
            // It may be gone.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        self.sent > before
    }

    fn read(&mut self) -> bool {
        let mut moved = false;
        while !self.ended {
            let mut room = [0; 16 * 1024];
            match self.stream.read(&mut room) {
                Ok(0) => self.ended = true,
                Ok(count) => self.inbox.extend_from_slice(&room[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return moved,
                Err(_) => self.ended = true,
            }
            moved = true;
        }
        moved
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether octets wait until the other side takes some.
    pub(super) fn is_full(&self) -> bool {
        self.sent < self.outbox.len()
    }
}
