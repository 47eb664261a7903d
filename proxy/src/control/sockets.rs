//! Listeners' sockets: bound at a start, and for what a reload adds.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::assemble::{self, Assembled};
use crate::handover::{Inheritance, InheritedUdp};
use crate::listen::{self, BindError, Command, ListenerState, quic};
use crate::snapshot::Snapshot;

pub(super) type Bound = Vec<(Arc<ListenerState>, Sockets)>;

/// A listener's sockets, one of each kind for each worker.
pub(super) struct Sockets {
    /// None where it goes on with those that it has.
    tcp: Vec<TcpListener>,
    /// None where it goes on with those that it has, or speaks no HTTP/3.
    udp: Vec<quic::Bound>,
    /// The same once more.
    pub(super) held: Vec<Held>,
}

/// A socket that another process could take over.
pub(super) struct Held {
    pub(super) address: SocketAddr,
    pub(super) socket: OwnedFd,
    /// What the workers share of HTTP/3, for a UDP socket.
    pub(super) quic: Option<Arc<quic::Shared>>,
}

impl Sockets {
    fn new(
        listener: &conf::Listener,
        tcp: Vec<TcpListener>,
        udp: Vec<quic::Bound>,
    ) -> Result<Self, BindError> {
        let address = listener.address;
        let of_tcp = tcp.iter().map(|socket| {
            let socket = socket.try_clone()?.into();
            let quic = None;
            Ok(Held {
                address,
                socket,
                quic,
            })
        });
        let of_udp = udp.iter().map(|bound| {
            let (socket, quic) = bound.held()?;
            let quic = Some(quic);
            Ok(Held {
                address,
                socket,
                quic,
            })
        });
        let held = of_tcp.chain(of_udp).collect::<io::Result<_>>();
        let held = held.map_err(|cause| BindError {
            name: listener.name.clone(),
            address,
            udp: false,
            cause,
        })?;
        Ok(Self { tcp, udp, held })
    }
}

pub(super) fn bind_first(
    assembled: Assembled,
    workers: usize,
    inheritance: &mut Inheritance,
) -> Result<(Snapshot, Bound), BindError> {
    let Assembled {
        mut snapshot,
        listeners,
    } = assembled;
    let mut bound = Vec::new();
    for (settings, configured) in listeners.into_iter().zip(&snapshot.config.listeners) {
        let address = configured.address;
        let tcp = listen::bind(&settings.name, address, workers, inheritance.tcp(address))?;
        let inherited = match configured.h3 {
            Some(_) => inheritance.udp(address),
            None => InheritedUdp::default(),
        };
        let udp = bind_udp(configured, workers, inherited, inheritance.generation)?;
        let sockets = Sockets::new(configured, tcp, udp)?;
        let listener = Arc::new(ListenerState::new(address, settings));
        snapshot.listeners.push(listener.clone());
        bound.push((listener, sockets));
    }
    Ok((snapshot, bound))
}

/// None for a listener that speaks no HTTP/3.
fn bind_udp(
    listener: &conf::Listener,
    workers: usize,
    inherited: InheritedUdp,
    generation: u8,
) -> Result<Vec<quic::Bound>, BindError> {
    match listener.h3 {
        Some(_) => quic::bind(
            &listener.name,
            listener.address,
            workers,
            inherited,
            generation,
        ),
        None => Ok(Vec::new()),
    }
}

pub(super) fn hand_out(
    commands: &[mpsc::UnboundedSender<Command>],
    listener: &Arc<ListenerState>,
    sockets: Sockets,
) {
    // Where there are more sockets than workers, some have several.
    for (worker, socket) in commands.iter().cycle().zip(sockets.tcp) {
        // A worker that is gone is ending with the process.
        let _ = worker.send(Command::Listen(listener.clone(), socket));
    }
    for (worker, socket) in commands.iter().cycle().zip(sockets.udp) {
        let _ = worker.send(Command::ListenQuic(listener.clone(), socket));
    }
}

pub(super) struct Next {
    pub(super) snapshot: Snapshot,
    /// Listeners that go on, with the settings that they get.
    pub(super) kept: Vec<(Arc<ListenerState>, listen::ListenerSettings)>,
}

/// Binds the addresses that are new; the others go on with their sockets.
pub(super) fn bind_next(
    assembled: Assembled,
    previous: &Snapshot,
    workers: usize,
    generation: u8,
) -> Result<(Next, Bound), BindError> {
    let Assembled {
        mut snapshot,
        listeners,
    } = assembled;
    let mut kept = Vec::new();
    let mut bound = Vec::new();
    for (settings, configured) in listeners.into_iter().zip(&snapshot.config.listeners) {
        let address = configured.address;
        let listener = match assemble::listening(Some(previous), address) {
            Some(listener) => {
                if listener.settings.load().quic.is_none() {
                    let none = InheritedUdp::default();
                    let udp = bind_udp(configured, workers, none, generation)?;
                    let sockets = Sockets::new(configured, Vec::new(), udp)?;
                    bound.push((listener.clone(), sockets));
                }
                kept.push((listener.clone(), settings));
                listener.clone()
            }
            None => {
                let tcp = listen::bind(&settings.name, address, workers, Vec::new())?;
                let none = InheritedUdp::default();
                let udp = bind_udp(configured, workers, none, generation)?;
                let sockets = Sockets::new(configured, tcp, udp)?;
                let listener = Arc::new(ListenerState::new(address, settings));
                bound.push((listener.clone(), sockets));
                listener
            }
        };
        snapshot.listeners.push(listener);
    }
    Ok((Next { snapshot, kept }, bound))
}
