//! Packets of QUIC connections that another process serves: sent to it, with whence they came.
//!
//! All processes of a chain of upgrades hold the same UDP sockets, and the last one reads them. What
//! belongs to a connection of one before goes to that one through a Unix socket, as it goes to
//! another worker within a process. A full queue loses packets, as a full UDP socket does.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use quinn::udp::EcnCodepoint;
use rustix::net::{SendFlags, send};

use super::channel;

/// Octets in front of a datagram.
const FRONT: usize = 1 + 16 + 2 + 4 + 1 + 16 + 1 + 4;

/// Octets of what came at once, at most.
const LONGEST: usize = 64 * 1024;

/// What is known of a datagram, or of several of one sender, beside their octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) from: SocketAddr,
    /// The address of ours that it came to.
    pub(crate) to: Option<IpAddr>,
    pub(crate) ecn: Option<EcnCodepoint>,
    /// Octets of each but the last.
    pub(crate) stride: usize,
}

/// A datagram with its envelope.
pub(crate) type Letter = (Envelope, Vec<u8>);

/// The way to the process of a generation.
#[derive(Debug)]
pub(crate) struct Relay {
    generation: u8,
    end: OwnedFd,
    /// The other process has ended.
    is_over: AtomicBool,
}

impl Relay {
    pub(super) fn new(generation: u8, end: OwnedFd) -> Self {
        Self {
            generation,
            end,
            is_over: AtomicBool::new(false),
        }
    }

    /// Whether it leads to a process of this generation that is still there.
    pub(crate) fn leads_to(&self, generation: u8) -> bool {
        self.generation == generation && !self.is_over.load(Ordering::Relaxed)
    }

    /// For the next process, where there is still somebody at the other end.
    pub(crate) fn generation(&self) -> Option<u8> {
        self.leads_to(self.generation).then_some(self.generation)
    }

    /// Sends it on. Does not wait; a process that does not keep up loses it.
    pub(crate) fn send(&self, envelope: &Envelope, datagram: &[u8]) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut letter = Vec::with_capacity(FRONT + datagram.len());
        letter.extend_from_slice(&envelope.to_octets());
        letter.extend_from_slice(datagram);
        if let Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) =
            send(&self.end, &letter, flags)
        {
            self.is_over.store(true, Ordering::Relaxed);
        }
    }
}

impl AsFd for Relay {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.end.as_fd()
    }
}

/// The end that letters come out of.
#[derive(Debug)]
pub(crate) struct Relayed(OwnedFd);

impl Relayed {
    /// A way to this process, and its end.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(crate) fn new() -> io::Result<(OwnedFd, Self)> {
        let (theirs, ours) = channel::pair()?;
        Ok((theirs, Self(ours)))
    }

    /// Gives every letter to `deliver`, until nobody is left who could send one.
    pub(crate) async fn deliver(self, mut deliver: impl FnMut(Letter)) {
        let Ok(end) = channel::within_runtime(self.0) else {
            tracing::warn!("packets of HTTP/3 that come to the new process are lost");
            return;
        };
        let mut room = vec![0; FRONT + LONGEST];
        while let Ok(length @ 1..) = end.recv(&mut room).await {
            if let Some(letter) = Envelope::opened(&room[..length]) {
                deliver(letter);
            }
        }
    }
}

impl Envelope {
    fn to_octets(self) -> [u8; FRONT] {
        let mut octets = [0; FRONT];
        let scope = match self.from {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(from) => from.scope_id(),
        };
        let mut at = 0;
        let mut put = |some: &[u8]| {
            octets[at..at + some.len()].copy_from_slice(some);
            at += some.len();
        };
        put(&[u8::from(self.from.is_ipv4()) | u8::from(self.to.is_some()) << 1]);
        put(&wide(self.from.ip()).octets());
        put(&self.from.port().to_be_bytes());
        put(&scope.to_be_bytes());
        put(&[u8::from(self.to.is_some_and(|to| to.is_ipv4()))]);
        put(&self.to.map_or(Ipv6Addr::UNSPECIFIED, wide).octets());
        put(&[self.ecn.map_or(0, |ecn| ecn as u8)]);
        put(&u32::try_from(self.stride).unwrap_or(u32::MAX).to_be_bytes());
        octets
    }

    /// `None` for what no process of ours has sent.
    fn opened(letter: &[u8]) -> Option<Letter> {
        let (front, datagram) = letter.split_first_chunk::<FRONT>()?;
        let (flags, rest) = front.split_first()?;
        let (from, rest) = rest.split_first_chunk::<16>()?;
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let (scope, rest) = rest.split_first_chunk::<4>()?;
        let (to_is_v4, rest) = rest.split_first()?;
        let (to, rest) = rest.split_first_chunk::<16>()?;
        let (ecn, stride) = rest.split_first()?;
        let port = u16::from_be_bytes(*port);
        let scope = u32::from_be_bytes(*scope);
        let from = match flags & 1 == 1 {
            true => SocketAddr::new(narrow(*from)?, port),
            false => SocketAddrV6::new((*from).into(), port, 0, scope).into(),
        };
        let to = match (flags & 2 == 2, *to_is_v4 == 1) {
            (false, _) => None,
            (true, true) => Some(narrow(*to)?),
            (true, false) => Some(Ipv6Addr::from(*to).into()),
        };
        let stride = u32::from_be_bytes(stride.try_into().ok()?);
        let envelope = Self {
            from,
            to,
            ecn: EcnCodepoint::from_bits(*ecn),
            stride: usize::try_from(stride).ok()?,
        };
        Some((envelope, datagram.to_vec()))
    }
}

fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn narrow(octets: [u8; 16]) -> Option<IpAddr> {
    Ipv6Addr::from(octets).to_ipv4_mapped().map(IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_comes_out_as_it_went_in() {
        let of = |from: &str, to: Option<&str>, ecn| Envelope {
            from: from.parse().unwrap(),
            to: to.map(|to| to.parse().unwrap()),
            ecn,
            stride: 1452,
        };
        for envelope in [
            of("192.0.2.1:4433", Some("127.0.0.1"), None),
            of("[2001:db8::1]:1", Some("::1"), Some(EcnCodepoint::Ce)),
            of("[fe80::1%7]:9", None, Some(EcnCodepoint::Ect0)),
            of("[::ffff:192.0.2.1]:5", Some("::ffff:1.2.3.4"), None),
        ] {
            let letter = [&envelope.to_octets()[..], b"packet"].concat();
            let opened = Envelope::opened(&letter).unwrap();
            assert_eq!(opened, (envelope, b"packet".to_vec()));
        }
        assert!(Envelope::opened(&[0; FRONT - 1]).is_none());
    }
}
