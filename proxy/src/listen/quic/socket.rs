//! UDP sockets beside the TCP ones: one for each worker, all on one address.
//!
//! The kernel gives all packets between two addresses to one socket, so a connection is served by
//! the worker that its first packet came to. What comes for it later from another address may come
//! to any socket; it is handed to the right worker by the id in it ([`super::ids`]). See
//! `docs/decisions/0016-http3.md`.
//!
//! A process that takes over from another one reads the same sockets, and hands over what belongs to
//! connections of that one ([`crate::handover`]). A worker may then have several of them.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

use super::ids::{Place, place_of, place_of_handshake};
use crate::handover::{Envelope, InheritedUdp, Letter, Relay, Relayed};
use crate::listen::bind::BindError;

/// Datagrams that wait for their socket's worker; what comes on top is lost, as on any full queue.
const WAITING: usize = 256;

/// Bytes that the kernel is asked to hold for a socket each way. It grants what
/// `net.core.rmem_max` and `wmem_max` allow.
const BUFFER: usize = 2 * 1024 * 1024;

/// What the workers of one listener share.
pub(crate) struct Shared {
    /// To the worker of each socket.
    inboxes: Vec<mpsc::Sender<Letter>>,
    /// Handshakes under way.
    handshakes: AtomicUsize,
    /// The key of the ids; set with the first endpoint, or before this process.
    key: OnceLock<u128>,
    /// Of this process.
    generation: u8,
    /// To processes whose connections come to these sockets, too.
    relays: Vec<Relay>,
    /// Another process reads the sockets.
    is_handed_over: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
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

    /// The same, where there were connections.
    pub(crate) fn known_key(&self) -> Option<u128> {
        self.key.get().copied()
    }

    /// Ways to processes that are still there.
    pub(crate) fn relays(&self) -> impl Iterator<Item = &Relay> {
        self.relays.iter().filter(|one| one.generation().is_some())
    }

    /// Whether another process reads the sockets from now on, which sends what belongs here.
    pub(crate) fn hand_over(&self, is_handed_over: bool) {
        self.is_handed_over.store(is_handed_over, Ordering::SeqCst);
        for inbox in &self.inboxes {
            // Whoever waits for one of the two looks anew. One with a full queue is awake.
            let _ = inbox.try_send(nothing());
        }
    }

    /// Takes what that process sends, until it ends.
    pub(crate) async fn receive(self: Arc<Self>, relayed: Relayed) {
        relayed
            .deliver(|letter| {
                let key = self.key.get().copied().unwrap_or_default();
                let place = place_of(key, &letter.1).or_else(|| place_of_handshake(key, &letter.1));
                let place = place.filter(|place| place.generation == self.generation);
                let inbox = place.and_then(|place| self.inboxes.get(usize::from(place.socket)));
                if let Some(inbox) = inbox {
                    // Where its queue is full, the packet is lost and is sent again.
                    let _ = inbox.try_send(letter);
                }
            })
            .await;
    }
}

/// Wakes and says nothing.
fn nothing() -> Letter {
    let envelope = Envelope {
        from: SocketAddr::from(([0, 0, 0, 0], 0)),
        to: None,
        ecn: None,
        stride: 0,
    };
    (envelope, Vec::new())
}

/// One worker's socket, not in use yet.
pub(crate) struct Bound {
    socket: UdpSocket,
    /// Which one of the listener's it is.
    number: u16,
    pub(super) shared: Arc<Shared>,
    inbox: mpsc::Receiver<Letter>,
}

impl Bound {
    pub(super) fn place(&self) -> Place {
        Place {
            generation: self.shared.generation,
            socket: self.number,
        }
    }

    /// The socket once more, for a process that takes over, and what its workers share.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(crate) fn held(&self) -> io::Result<(OwnedFd, Arc<Shared>)> {
        Ok((self.socket.try_clone()?.into(), self.shared.clone()))
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// One socket for each worker, or as many as were `inherited` if those are more. `generation`: of
/// this process.
///
/// # Errors
/// The address is taken, forbidden, or not of this machine.
pub(crate) fn bind(
    name: &str,
    address: SocketAddr,
    workers: usize,
    inherited: InheritedUdp,
    generation: u8,
) -> Result<Vec<Bound>, BindError> {
    bind_all(address, workers, inherited, generation).map_err(|cause| BindError {
        name: name.to_owned(),
        address,
        udp: true,
        cause,
    })
}

fn bind_all(
    address: SocketAddr,
    workers: usize,
    inherited: InheritedUdp,
    generation: u8,
) -> io::Result<Vec<Bound>> {
    let mut sockets = inherited.sockets;
    if sockets.is_empty() {
        // As for TCP: SO_REUSEPORT would let a second process share the port unseen.
        drop(socket(address, false)?);
    }
    while sockets.len() < workers {
        match socket(address, true) {
            Ok(socket) => sockets.push(socket),
            Err(error) if sockets.is_empty() => return Err(error),
            Err(error) => {
                tracing::warn!(%address, %error, "HTTP/3 has fewer sockets than there are workers, and goes on with those");
                break;
            }
        }
    }
    let (inboxes, letters): (Vec<_>, Vec<_>) =
        sockets.iter().map(|_| mpsc::channel(WAITING)).unzip();
    let shared = Arc::new(Shared {
        inboxes,
        handshakes: AtomicUsize::new(0),
        key: inherited.key.map_or_else(OnceLock::new, OnceLock::from),
        generation,
        relays: inherited.relays,
        is_handed_over: AtomicBool::new(false),
    });
    let bound = sockets.into_iter().zip(letters).zip(0_u16..);
    Ok(bound
        .map(|((socket, inbox), number)| Bound {
            socket,
            number,
            shared: shared.clone(),
            inbox,
        })
        .collect())
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
    number: u16,
    key: u128,
    shared: Arc<Shared>,
    inbox: Mutex<mpsc::Receiver<Letter>>,
}

impl fmt::Debug for Steered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steered")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Steered {
    /// Within the worker's runtime.
    pub(super) fn new(bound: Bound, runtime: &dyn quinn::Runtime, key: u128) -> io::Result<Self> {
        Ok(Self {
            socket: runtime.wrap_udp_socket(bound.socket)?,
            number: bound.number,
            key,
            shared: bound.shared,
            inbox: Mutex::new(bound.inbox),
        })
    }

    /// What other workers, or another process, received for this one.
    fn poll_inbox(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<usize> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let (envelope, bytes) = match inbox.poll_recv(cx) {
                Poll::Ready(Some(letter)) => letter,
                Poll::Ready(None) | Poll::Pending => break,
            };
            // All workers' buffers have one size; those of another process may be larger.
            let room = buf.get_mut(..bytes.len());
            meta.len = room.as_ref().map_or(0, |room| room.len());
            if let Some(room) = room {
                room.copy_from_slice(&bytes);
            }
            meta.addr = envelope.from;
            meta.stride = envelope.stride;
            meta.ecn = envelope.ecn;
            meta.dst_ip = envelope.to;
            count += 1;
        }
        match count {
            0 => Poll::Pending,
            _ => Poll::Ready(count),
        }
    }

    /// Whose `packet` is, if another worker or process has its connection.
    fn other(&self, packet: &[u8]) -> Option<Place> {
        let place = place_of(self.key, packet);
        if !self.shared.relays.is_empty()
            && let Some(place) = place.or_else(|| place_of_handshake(self.key, packet))
            && place.generation != self.shared.generation
            && self.relay_to(place.generation).is_some()
        {
            return Some(place);
        }
        // An id of before a restart may name a socket that there is not.
        place.filter(|place| {
            place.generation == self.shared.generation
                && place.socket != self.number
                && usize::from(place.socket) < self.shared.inboxes.len()
        })
    }

    fn hand_over(&self, place: Place, packets: &[u8], meta: &RecvMeta) {
        let envelope = Envelope {
            from: meta.addr,
            to: meta.dst_ip,
            ecn: meta.ecn,
            stride: meta.stride,
        };
        if place.generation == self.shared.generation {
            if let Some(inbox) = self.shared.inboxes.get(usize::from(place.socket)) {
                // Where its queue is full, the packets are lost and are sent again.
                let _ = inbox.try_send((envelope, packets.to_vec()));
            }
        } else if let Some(relay) = self.relay_to(place.generation) {
            relay.send(&envelope, packets);
        }
    }

    fn relay_to(&self, generation: u8) -> Option<&Relay> {
        let mut relays = self.shared.relays.iter();
        relays.find(|relay| relay.leads_to(generation))
    }
}

/// Gives away what of `packets` is somebody else's, and closes the gaps: how many octets stay. They
/// are what one address sent, `stride` octets each but for the last (GRO), which may be of several
/// connections. Neighbours of one owner are given together.
fn sift<Owner: Copy + PartialEq>(
    packets: &mut [u8],
    stride: usize,
    owner_of: impl Fn(&[u8]) -> Option<Owner>,
    mut give: impl FnMut(Owner, &[u8]),
) -> usize {
    let stride = match stride {
        0 => packets.len().max(1),
        stride => stride,
    };
    let mut kept = 0;
    let mut at = 0;
    while at < packets.len() {
        let owner = owner_of(&packets[at..packets.len().min(at + stride)]);
        let mut end = packets.len().min(at + stride);
        while end < packets.len()
            && owner_of(&packets[end..packets.len().min(end + stride)]) == owner
        {
            end = packets.len().min(end + stride);
        }
        match owner {
            Some(owner) => give(owner, &packets[at..end]),
            None => {
                packets.copy_within(at..end, kept);
                kept += end - at;
            }
        }
        at = end;
    }
    kept
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
        if let Poll::Ready(count) = self.poll_inbox(cx, bufs, meta) {
            return Poll::Ready(Ok(count));
        }
        if self.shared.is_handed_over.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        let is_alone = self.shared.inboxes.len() == 1 && self.shared.relays.is_empty();
        if is_alone {
            return self.socket.poll_recv(cx, bufs, meta);
        }
        loop {
            let count = ready!(self.socket.poll_recv(cx, bufs, meta))?;
            let mut own = 0;
            for (buf, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(count) {
                let kept = sift(
                    buf.get_mut(..meta.len).unwrap_or_default(),
                    meta.stride,
                    |packet| self.other(packet),
                    |place, packets| self.hand_over(place, packets, meta),
                );
                meta.len = kept;
                own += usize::from(kept > 0);
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

    fn bind(address: SocketAddr, workers: usize) -> Result<Vec<Bound>, BindError> {
        super::bind("web", address, workers, InheritedUdp::default(), 0)
    }

    /// Packets of two octets, the first of which says whose they are: 0 is of nobody else.
    fn sifted(packets: &[u8], stride: usize) -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
        let mut packets = packets.to_vec();
        let mut given = Vec::new();
        let kept = sift(
            &mut packets,
            stride,
            |packet| Some(packet[0]).filter(|owner| *owner > 0),
            |owner, packets| given.push((owner, packets.to_vec())),
        );
        packets.truncate(kept);
        (packets, given)
    }

    #[test]
    fn a_batch_goes_to_each_whose_packets_are_in_it() {
        assert_eq!(sifted(&[], 2), (vec![], vec![]));
        assert_eq!(sifted(&[0, 1, 0, 2, 0], 2), (vec![0, 1, 0, 2, 0], vec![]));
        assert_eq!(
            sifted(&[7, 1, 7, 2, 7], 2),
            (vec![], vec![(7, vec![7, 1, 7, 2, 7])])
        );
        assert_eq!(
            sifted(&[0, 1, 7, 2, 7, 3, 0, 4, 8, 5, 0], 2),
            (
                vec![0, 1, 0, 4, 0],
                vec![(7, vec![7, 2, 7, 3]), (8, vec![8, 5])]
            )
        );
        // Not a batch.
        assert_eq!(sifted(&[0, 7, 8], 0), (vec![0, 7, 8], vec![]));
        assert_eq!(sifted(&[7, 0], 9), (vec![], vec![(7, vec![7, 0])]));
    }

    #[test]
    fn workers_share_a_port_that_nobody_else_gets() {
        let first = bind((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
        let address = first[0].socket.local_addr().unwrap();
        let error = bind(address, 2).unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("UDP"), "{error}");
        drop(first);
        let workers = bind(address, 2).unwrap();
        assert_eq!(workers.len(), 2);
        assert!(bind(address, 2).is_err());
    }

    #[test]
    fn what_was_inherited_is_all_used_and_more_bound_beside_it() {
        let first = bind((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
        let address = first[0].socket.local_addr().unwrap();
        for (workers, sockets) in [(1, 1), (3, 3)] {
            let inherited = InheritedUdp {
                sockets: vec![first[0].socket.try_clone().unwrap()],
                key: Some(9),
                relays: Vec::new(),
            };
            let next = super::bind("web", address, workers, inherited, 1).unwrap();
            assert_eq!(next.len(), sockets);
            assert_eq!(next[0].shared.known_key(), Some(9));
        }
    }
}
