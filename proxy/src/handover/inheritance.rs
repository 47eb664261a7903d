//! What a process has from the one before it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use super::{Described, Kind, Relay, Taken};

/// Nothing, for a process that nobody was before.
#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    /// Of this process.
    pub(crate) generation: u8,
    pub(crate) cookie_key: Option<[u8; 32]>,
    /// Upgrades so far that went well, and that failed.
    pub(crate) upgrades: (u64, u64),
    pub(super) sockets: Vec<(Described, OwnedFd)>,
    pub(super) taken: Taken,
}

/// The UDP sockets of a listener.
#[derive(Debug, Default)]
pub(crate) struct InheritedUdp {
    pub(crate) sockets: Vec<UdpSocket>,
    /// Of the ids of its connections.
    pub(crate) key: Option<u128>,
    /// Processes whose connections come to these sockets, too.
    pub(crate) relays: Vec<Relay>,
}

impl Inheritance {
    /// Those of a listener; none where nobody listened there.
    pub(crate) fn tcp(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        let found = self.remove(|one| one.kind == Kind::Tcp && is_at(one, address));
        found.into_iter().map(|(_, socket)| socket.into()).collect()
    }

    /// The same for HTTP/3.
    pub(crate) fn udp(&mut self, address: SocketAddr) -> InheritedUdp {
        let mut udp = InheritedUdp::default();
        for (one, end) in
            self.remove(|one| matches!(one.kind, Kind::Udp | Kind::Relay(_)) && is_at(one, address))
        {
            match one.kind {
                Kind::Relay(generation) => udp.relays.push(Relay::new(generation, end)),
                _ => {
                    let key = one.key.as_deref();
                    udp.key = key.and_then(|key| u128::from_str_radix(key, 16).ok());
                    udp.sockets.push(end.into());
                }
            }
        }
        if !udp.sockets.is_empty() {
            self.taken.udp.push(address.to_string());
        }
        udp
    }

    /// The admin listener's, if it is at this address.
    pub(crate) fn admin(&mut self, address: &conf::AdminAddress) -> Option<OwnedFd> {
        let address = address.to_string();
        let found = self.remove(|one| one.kind == Kind::Admin && one.address == address);
        let (_, socket) = found.into_iter().next()?;
        self.taken.admin = true;
        Some(socket)
    }

    /// What was taken; what was not is closed.
    pub(crate) fn into_taken(self) -> Taken {
        self.taken
    }

    fn remove(&mut self, wanted: impl Fn(&Described) -> bool) -> Vec<(Described, OwnedFd)> {
        let all = std::mem::take(&mut self.sockets);
        let (found, left) = all.into_iter().partition(|(one, _)| wanted(one));
        self.sockets = left;
        found
    }
}

fn is_at(one: &Described, address: SocketAddr) -> bool {
    one.address.parse() == Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listener_gets_its_own_and_the_rest_is_left() {
        let udp = |key: &str, kind| Described {
            kind,
            address: "127.0.0.1:443".into(),
            key: Some(key.into()),
        };
        let tcp = |address: &str| Described {
            kind: Kind::Tcp,
            address: address.into(),
            key: None,
        };
        let end = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let all = [
            tcp("127.0.0.1:443"),
            tcp("[::]:443"),
            tcp("127.0.0.1:443"),
            udp("2a", Kind::Udp),
            udp("", Kind::Relay(3)),
        ];
        let mut inheritance = Inheritance {
            sockets: all.into_iter().map(|one| (one, end())).collect(),
            ..Inheritance::default()
        };
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(inheritance.tcp(at("127.0.0.1:443")).len(), 2);
        assert_eq!(inheritance.tcp(at("127.0.0.1:443")).len(), 0, "taken");
        let found = inheritance.udp(at("127.0.0.1:443"));
        assert_eq!((found.sockets.len(), found.key), (1, Some(42)));
        assert!(found.relays.iter().all(|relay| relay.leads_to(3)));
        assert_eq!(found.relays.len(), 1);
        assert_eq!(inheritance.sockets.len(), 1);
        assert_eq!(inheritance.into_taken().udp, ["127.0.0.1:443"]);
    }
}
