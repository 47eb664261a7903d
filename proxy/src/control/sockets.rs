//! Listeners' sockets: bound at a start, and for what a reload adds.

use std::net::TcpListener;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::assemble::{self, Assembled};
use crate::listen::{self, BindError, Command, ListenerState, quic};
use crate::snapshot::Snapshot;

pub(super) type Bound = Vec<(Arc<ListenerState>, Sockets)>;

/// A listener's sockets, one of each kind for each worker.
pub(super) struct Sockets {
    /// None where it goes on with those that it has.
    tcp: Vec<TcpListener>,
    /// None where it goes on with those that it has, or speaks no HTTP/3.
    udp: Vec<quic::Bound>,
}

pub(super) fn bind_first(
    assembled: Assembled,
    workers: usize,
) -> Result<(Snapshot, Bound), BindError> {
    let Assembled {
        mut snapshot,
        listeners,
    } = assembled;
    let mut bound = Vec::new();
    for (settings, configured) in listeners.into_iter().zip(&snapshot.config.listeners) {
        let sockets = Sockets {
            tcp: listen::bind(&settings.name, configured.address, workers)?,
            udp: bind_udp(configured, workers)?,
        };
        let listener = Arc::new(ListenerState::new(configured.address, settings));
        snapshot.listeners.push(listener.clone());
        bound.push((listener, sockets));
    }
    Ok((snapshot, bound))
}

/// None for a listener that speaks no HTTP/3.
fn bind_udp(listener: &conf::Listener, workers: usize) -> Result<Vec<quic::Bound>, BindError> {
    match listener.h3 {
        Some(_) => quic::bind(&listener.name, listener.address, workers),
        None => Ok(Vec::new()),
    }
}

pub(super) fn hand_out(
    commands: &[mpsc::UnboundedSender<Command>],
    listener: &Arc<ListenerState>,
    sockets: Sockets,
) {
    for (worker, socket) in commands.iter().zip(sockets.tcp) {
        // A worker that is gone is ending with the process.
        let _ = worker.send(Command::Listen(listener.clone(), socket));
    }
    for (worker, socket) in commands.iter().zip(sockets.udp) {
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
                    let tcp = Vec::new();
                    let udp = bind_udp(configured, workers)?;
                    bound.push((listener.clone(), Sockets { tcp, udp }));
                }
                kept.push((listener.clone(), settings));
                listener.clone()
            }
            None => {
                let sockets = Sockets {
                    tcp: listen::bind(&settings.name, address, workers)?,
                    udp: bind_udp(configured, workers)?,
                };
                let listener = Arc::new(ListenerState::new(address, settings));
                bound.push((listener.clone(), sockets));
                listener
            }
        };
        snapshot.listeners.push(listener);
    }
    Ok((Next { snapshot, kept }, bound))
}
