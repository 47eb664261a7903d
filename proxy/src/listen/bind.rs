//! Sockets to listen on: one a worker, all on one address by SO_REUSEPORT, so
//! that the kernel spreads connections and no worker waits for another.
//!
//! Binding happens before anything else runs; a failure is an error that names
//! the address, never a listener that is silently missing.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Connections that the kernel completes before a worker takes them.
const BACKLOG: i32 = 4096;

/// Bytes that wait in the kernel beyond what is on its way.
pub(super) const UNSENT: u32 = 128 * 1024;

/// Silence after which the kernel asks whether a client is still there: long-lived WebSockets
/// have no other limit.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listener {name:?}: cannot listen on {address}{}: {}", if *.udp { " (UDP, for HTTP/3)" } else { "" }, reason(.cause, *.udp))]
pub struct BindError {
    /// The listener's name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// Whether it is the UDP port.
    pub udp: bool,
    /// The system's answer.
    pub cause: io::Error,
}

fn reason(error: &io::Error, udp: bool) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse if udp => {
            "the port is in use by another process (`ss -lunp` shows which)".into()
        }
        io::ErrorKind::AddrInUse => {
            "the port is in use by another process (`ss -ltnp` shows which)".into()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE".into()
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address".into(),
        _ => error.to_string(),
    }
}

/// One bound socket for each worker, or as many as were `inherited` if those are more: connections wait
/// in each of them. Those that are bound beside inherited ones get connections only from [`listen`] on: the
/// process may still give up, and they would be reset.
///
/// # Errors
/// The address is taken, forbidden, or not of this machine.
pub(crate) fn bind(
    name: &str,
    address: SocketAddr,
    workers: usize,
    inherited: Vec<TcpListener>,
) -> Result<Vec<TcpListener>, BindError> {
    bind_all(address, workers, inherited).map_err(|cause| BindError {
        name: name.to_owned(),
        address,
        udp: false,
        cause,
    })
}

/// From now on connections come to it; for one that listens nothing changes.
///
/// # Errors
/// Somebody else listens there by now.
pub(super) fn listen(socket: &TcpListener) -> io::Result<()> {
    Ok(rustix::net::listen(socket, BACKLOG)?)
}

fn bind_all(
    address: SocketAddr,
    workers: usize,
    mut sockets: Vec<TcpListener>,
) -> io::Result<Vec<TcpListener>> {
    let inherited = sockets.len();
    if inherited == 0 {
        // SO_REUSEPORT would let a second process of the same user share the port
        // unseen, so a first socket without it asks whether anybody listens there.
        socket(address, false)?;
    }
    while sockets.len() < workers {
        // All have it, even one alone: a process that takes over may have more workers.
        let own = socket(address, true).and_then(|socket| {
            if inherited == 0 {
                socket.listen(BACKLOG)?;
            }
            Ok(socket.into())
        });
        sockets.push(match (own, inherited) {
            (Ok(socket), _) => socket,
            (Err(error), 0) => return Err(error),
            // Bound by another account before: several workers accept on one socket then.
            (Err(_), _) => sockets[sockets.len() % inherited].try_clone()?,
        });
    }
    Ok(sockets)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two listeners, on every system alike.
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit both on Linux (tcp(7)), so that they cost no call each.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE),
    )?;
    // Without it a socket with megabytes to send counts as full until a third of them has left,
    // and a client that reads slowly but steadily would look as if it did not read at all.
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn bind(address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, BindError> {
        super::bind("web", address, workers, Vec::new())
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_refused_with_its_reason() {
        let taken = TcpListener::bind(any()).unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address, 2).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        assert!(error.contains(&address.to_string()), "{error}");
    }

    #[test]
    fn a_second_process_cannot_share_the_port_by_reuseport() {
        let first = bind(any(), 1).unwrap();
        let address = first[0].local_addr().unwrap();
        drop(first);
        let workers = bind(address, 2).unwrap();
        assert_eq!(workers.len(), 2);
        assert!(bind(address, 2).is_err());
    }

    #[test]
    fn what_was_inherited_is_all_used_and_more_bound_beside_it() {
        let any = bind(any(), 1).unwrap();
        let address = any[0].local_addr().unwrap();
        drop(any);
        let first = bind(address, 2).unwrap();
        for (workers, sockets) in [(1, 2), (2, 2), (4, 4)] {
            let inherited = first.iter().map(|one| one.try_clone().unwrap()).collect();
            let next = super::bind("web", address, workers, inherited).unwrap();
            assert_eq!(next.len(), sockets);
            for socket in next {
                assert_eq!(socket.local_addr().unwrap(), address);
            }
        }
    }
}
