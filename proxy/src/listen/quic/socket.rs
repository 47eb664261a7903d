//! UDP sockets beside the TCP ones: one for each worker, all on one address.
//!
//! The kernel gives all packets between two addresses to one socket, so a connection is served by
//! the worker that its first packet came to. What comes for it later from another address may come
//! to any socket; it is handed to the right worker by the id in it ([`super::ids`]). See
//! `docs/decisions/0016-http3.md`.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

use super::ids::worker_of;
use crate::listen::bind::BindError;

/// Datagrams that wait for their worker; what comes on top is lost, as on any full queue.
const WAITING: usize = 256;

/// Bytes that the kernel is asked to hold for a socket each way. It grants what
/// `net.core.rmem_max` and `wmem_max` allow.
const BUFFER: usize = 2 * 1024 * 1024;

/// What the workers of one listener share.
pub(crate) struct Shared {
    workers: Vec<mpsc::Sender<Strayed>>,
    /// Handshakes under way.
    handshakes: AtomicUsize,
    /// The key of the ids; set with the first endpoint.
    key: std::sync::OnceLock<u128>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A datagram, or several of one sender, on the way to its worker.
struct Strayed {
    from: SocketAddr,
    to: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    stride: usize,
    bytes: Vec<u8>,
}

/// A handshake under way; counted until it is dropped.
pub(super) struct Handshake(Arc<Shared>);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Handshakes under way.
    pub(super) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// One more.
    pub(super) fn handshake(self: &Arc<Self>) -> Handshake {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        Handshake(self.clone())
    }

    /// The key of the ids: that of whoever came first.
    pub(super) fn key(&self, key: u128) -> u128 {
        *self.key.get_or_init(|| key)
    }
}

/// One worker's socket, not in use yet.
pub(crate) struct Bound {
    socket: UdpSocket,
    pub(super) worker: u16,
    pub(super) shared: Arc<Shared>,
    inbox: mpsc::Receiver<Strayed>,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// One socket for each worker.
///
/// # Errors
/// The address is taken, forbidden, or not of this machine.
pub(crate) fn bind(
    name: &str,
    address: SocketAddr,
    workers: usize,
) -> Result<Vec<Bound>, BindError> {
    bind_all(address, workers).map_err(|cause| BindError {
        name: name.to_owned(),
        address,
        udp: true,
        cause,
    })
}

fn bind_all(address: SocketAddr, workers: usize) -> io::Result<Vec<Bound>> {
    // As for TCP: SO_REUSEPORT would let a second process share the port unseen.
    drop(socket(address, false)?);
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(WAITING)).unzip();
    let shared = Arc::new(Shared {
        workers: senders,
        handshakes: AtomicUsize::new(0),
        key: std::sync::OnceLock::new(),
    });
    inboxes
        .into_iter()
        .zip(0_u16..)
        .map(|(inbox, worker)| {
            Ok(Bound {
                socket: socket(address, workers > 1)?,
                worker,
                shared: shared.clone(),
                inbox,
            })
        })
        .collect()
}

fn socket(address: SocketAddr, is_shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A socket in use.
pub(super) struct Steered {
    socket: Arc<dyn AsyncUdpSocket>,
    worker: u16,
    key: u128,
    shared: Arc<Shared>,
    inbox: Mutex<mpsc::Receiver<Strayed>>,
}

impl fmt::Debug for Steered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steered")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

impl Steered {
    /// Within the worker's runtime.
    pub(super) fn new(bound: Bound, runtime: &dyn quinn::Runtime, key: u128) -> io::Result<Self> {
        Ok(Self {
            socket: runtime.wrap_udp_socket(bound.socket)?,
            worker: bound.worker,
            key,
            shared: bound.shared,
            inbox: Mutex::new(bound.inbox),
        })
    }

    /// What other workers received for this one.
    fn poll_inbox(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<usize> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let strayed = match inbox.poll_recv(cx) {
                Poll::Ready(Some(strayed)) => strayed,
                Poll::Ready(None) | Poll::Pending => break,
            };
            // All workers' buffers have one size.
            let Some(room) = buf.get_mut(..strayed.bytes.len()) else {
                continue;
            };
            room.copy_from_slice(&strayed.bytes);
            meta.addr = strayed.from;
            meta.len = strayed.bytes.len();
            meta.stride = strayed.stride;
            meta.ecn = strayed.ecn;
            meta.dst_ip = strayed.to;
            count += 1;
        }
        match count {
            0 => Poll::Pending,
            _ => Poll::Ready(count),
        }
    }

    /// Hands what is another worker's to that one; whether it was.
    fn hand_over(&self, buf: &[u8], meta: &RecvMeta) -> bool {
        let Some(bytes) = buf.get(..meta.len) else {
            return false;
        };
        let Some(worker) = worker_of(self.key, bytes).filter(|worker| *worker != self.worker)
        else {
            return false;
        };
        // An id of before a restart may name a worker that there is not.
        let Some(worker) = self.shared.workers.get(usize::from(worker)) else {
            return false;
        };
        // Where its queue is full, the packet is lost and is sent again.
        let _ = worker.try_send(Strayed {
            from: meta.addr,
            to: meta.dst_ip,
            ecn: meta.ecn,
            stride: meta.stride,
            bytes: bytes.to_vec(),
        });
        true
    }
}

impl AsyncUdpSocket for Steered {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.shared.workers.len() == 1 {
            return self.socket.poll_recv(cx, bufs, meta);
        }
        if let Poll::Ready(count) = self.poll_inbox(cx, bufs, meta) {
            return Poll::Ready(Ok(count));
        }
        loop {
            let count = ready!(self.socket.poll_recv(cx, bufs, meta))?;
            let mut own = 0;
            for (buf, meta) in bufs.iter().zip(meta.iter_mut()).take(count) {
                match self.hand_over(buf, meta) {
                    // Nothing is left of it for whoever reads on here.
                    true => meta.len = 0,
                    false => own += 1,
                }
            }
            if own > 0 {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn workers_share_a_port_that_nobody_else_gets() {
        let first = bind("web", (Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
        let address = first[0].socket.local_addr().unwrap();
        let error = bind("web", address, 2).unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("UDP"), "{error}");
        drop(first);
        let workers = bind("web", address, 2).unwrap();
        assert_eq!(workers.len(), 2);
        assert!(bind("web", address, 2).is_err());
    }
}
