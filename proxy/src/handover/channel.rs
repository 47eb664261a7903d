//! Messages between two processes, with descriptors beside them (`SCM_RIGHTS`, unix(7)).
//!
//! A pair of sockets that keep messages apart. What is sent has a reader who is about to read, so
//! that nothing is queued here.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Descriptors in one message, at most; the kernel takes 253.
pub(super) const MOST: usize = 128;

/// Bytes of a message. Each descriptor is described in some hundred.
const LONGEST: usize = 64 * 1024;

/// Two ends that keep messages apart, and that no other program inherits.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socketpair(kind.0, kind.1, SocketFlags::CLOEXEC, None)?)
}

/// An end within a runtime. What it is called there are datagrams: it is what keeps messages apart
/// and is asked by the same calls.
///
/// # Errors
/// No descriptors are left.
pub(super) fn within_runtime(end: OwnedFd) -> io::Result<tokio::net::UnixDatagram> {
    let end = std::os::unix::net::UnixDatagram::from(end);
    end.set_nonblocking(true)?;
    tokio::net::UnixDatagram::from_std(end)
}

/// Sends `message`, and `descriptors` with it.
///
/// # Errors
/// The other end is gone; [`io::ErrorKind::WouldBlock`] where `flags` say that it is not to wait.
pub(super) fn send(
    end: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let flags = flags | SendFlags::NOSIGNAL;
    sendmsg(end, &[IoSlice::new(&bytes)], &mut beside, flags)?;
    Ok(())
}

/// The next message. `None`: the other end is gone.
///
/// # Errors
/// It is none of those that are known; [`io::ErrorKind::WouldBlock`] where there is none in the
/// socket's time, or `flags` say that it is not to wait.
pub(super) fn receive<M: DeserializeOwned>(
    end: impl AsFd,
    flags: RecvFlags,
) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let mut once = || {
        // Not begun anew by the system where there is a timeout (signal(7)).
        retry_on_intr(|| recvmsg(&end, &mut [IoSliceMut::new(&mut bytes)], &mut beside, flags))
    };
    let received = match once() {
        // The other end is gone with something of ours unread, which is said once. What it said
        // before is still there.
        Err(rustix::io::Errno::CONNRESET) => once()?,
        received => received?,
    };
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    match received.bytes {
        0 => Ok(None),
        length => Ok(Some((
            serde_json::from_slice(&bytes[..length])?,
            descriptors,
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_come_with_their_message_and_work() {
        let (here, there) = pair().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        send(&here, &"first", &[], SendFlags::empty()).unwrap();
        let many: Vec<_> = (0..MOST).map(|_| theirs.as_fd()).collect();
        send(&here, &"second", &many, SendFlags::empty()).unwrap();
        let receive = || receive::<String>(&there, RecvFlags::DONTWAIT);
        let (word, none) = receive().unwrap().unwrap();
        assert_eq!((word.as_str(), none.len()), ("first", 0));
        let (word, mut some) = receive().unwrap().unwrap();
        assert_eq!((word.as_str(), some.len()), ("second", MOST));
        let mut theirs = UnixStream::from(some.pop().unwrap());
        theirs.write_all(b"x").unwrap();
        let mut octet = [0];
        ours.read_exact(&mut octet).unwrap();
        assert_eq!(octet, *b"x");
        let none_yet = receive().unwrap_err();
        assert_eq!(none_yet.kind(), io::ErrorKind::WouldBlock);
        send(&there, &"unread", &[], SendFlags::empty()).unwrap();
        send(&here, &"last", &[], SendFlags::empty()).unwrap();
        drop(here);
        assert_eq!(receive().unwrap().unwrap().0, "last");
        assert!(receive().unwrap().is_none(), "the other end is gone");
    }
}
