//! From the addresses of a name to the nodes behind it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::Target;

/// The addresses of one name, each family sorted and without repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) v4: Vec<Ipv4Addr>,
    pub(super) v6: Vec<Ipv6Addr>,
}

impl Addresses {
    pub(super) fn new(mut v4: Vec<Ipv4Addr>, mut v6: Vec<Ipv6Addr>) -> Self {
        v4.sort_unstable();
        v4.dedup();
        v6.sort_unstable();
        v6.dedup();
        Self { v4, v6 }
    }

    /// The nodes behind the name.
    ///
    /// One address in each family is one node that can be reached both ways. With more than that
    /// nothing tells which IPv4 address belongs to which IPv6 one, and to take both families would
    /// count each node twice; so one family is taken: of those that `has_route` says can be
    /// reached from here, the one with more addresses (nodes that have got only one of them yet
    /// must not be lost), and IPv6 where they are even.
    pub(super) fn targets(&self, port: u16, has_route: impl Fn(SocketAddr) -> bool) -> Vec<Target> {
        let v4 = self.v4.iter().map(|ip| SocketAddr::from((*ip, port)));
        let v6 = self.v6.iter().map(|ip| SocketAddr::from((*ip, port)));
        if let ([v4], [v6]) = (self.v4.as_slice(), self.v6.as_slice()) {
            return vec![Target::Inet {
                first: (*v6, port).into(),
                second: Some((*v4, port).into()),
            }];
        }
        let one = |first| Target::Inet {
            first,
            second: None,
        };
        let reached = |mut family: Box<dyn Iterator<Item = SocketAddr> + '_>| {
            family.next().is_some_and(&has_route)
        };
        if self.v6.is_empty() {
            return v4.map(one).collect();
        }
        if self.v4.is_empty() {
            return v6.map(one).collect();
        }
        let take_v6 = match (reached(Box::new(v6.clone())), reached(Box::new(v4.clone()))) {
            (true, false) => true,
            (false, true) => false,
            (true, true) | (false, false) => self.v6.len() >= self.v4.len(),
        };
        match take_v6 {
            true => v6.map(one).collect(),
            false => v4.map(one).collect(),
        }
    }
}

/// Whether this machine has a route there. Connecting a UDP socket looks one up and sends nothing.
pub(super) fn has_route(to: SocketAddr) -> bool {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect(to).is_ok())
}
