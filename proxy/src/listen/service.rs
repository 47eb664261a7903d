//! A worker: one thread, one event loop, one socket of each listener.
//!
//! It is a Pingora service of its own kind. A reload tells it which listeners
//! it gains and loses; the end of the process tells it to stop accepting.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::bind;
use super::limits::ListenerState;
use super::quic;
use super::serve::{begins, serve};
use crate::carry::Carrier;
use crate::clock;
use crate::observe::shard::enter_worker;
use crate::overload::beat;

/// Pause after the system refused to accept (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// When the drain begins, what is queued is taken, and not for longer than this: under a flood the
/// queue is never empty.
const LAST_ACCEPTED: Duration = Duration::from_millis(200);
/// After so many connections without a pause it is asked whether the drain has begun.
const IN_A_ROW: u32 = 64;
/// A listener that cannot accept says so this often at most.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What ends an endpoint of HTTP/3, and its task.
type Endpoint = (oneshot::Sender<()>, JoinHandle<()>);

/// What a reload asks of a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept on this socket.
    Listen(Arc<ListenerState>, StdListener),
    /// Stop accepting on this address; its connections go on.
    Forget(SocketAddr),
    /// Speak HTTP/3 on this socket.
    ListenQuic(Arc<ListenerState>, quic::Bound),
    /// Speak HTTP/3 no more on this address; its connections finish what they have begun.
    ForgetQuic(SocketAddr),
}

/// See the module's text.
pub(crate) struct Worker {
    index: usize,
    name: String,
    carrier: Arc<Carrier>,
    commands: mpsc::UnboundedReceiver<Command>,
    draining: watch::Receiver<bool>,
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        carrier: Arc<Carrier>,
        commands: mpsc::UnboundedReceiver<Command>,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self {
            index,
            name: format!("worker-{index}"),
            carrier,
            commands,
            draining,
        }
    }

    async fn run(&mut self) {
        // One thread runs all of this worker's tasks, this one among them.
        enter_worker(self.index);
        tokio::spawn(beat(self.carrier.load().clone(), self.index));
        // Several of an address where another process had more workers.
        let mut listening: HashMap<SocketAddr, Vec<JoinHandle<()>>> = HashMap::new();
        let mut quic: HashMap<SocketAddr, Vec<Endpoint>> = HashMap::new();
        loop {
            let command = tokio::select! {
                command = self.commands.recv() => command,
                () = begins(&mut self.draining) => None,
            };
            match command {
                Some(Command::Listen(listener, socket)) => {
                    match bind::listen(&socket).and_then(|()| TcpListener::from_std(socket)) {
                        Ok(socket) => {
                            let address = listener.address;
                            let carrier = self.carrier.clone();
                            let draining = self.draining.clone();
                            let task = tokio::spawn(accept(socket, listener, carrier, draining));
                            listening.entry(address).or_default().push(task);
                        }
                        Err(error) => {
                            tracing::error!(address = %listener.address, %error, "socket not usable");
                        }
                    }
                }
                Some(Command::Forget(address)) => {
                    for task in listening.remove(&address).into_iter().flatten() {
                        task.abort();
                    }
                }
                Some(Command::ListenQuic(listener, bound)) => {
                    let address = listener.address;
                    let carrier = self.carrier.clone();
                    let draining = self.draining.clone();
                    let (forget, forgotten) = oneshot::channel();
                    let accept = quic::accept(bound, listener, carrier, draining, forgotten);
                    let endpoint = (forget, tokio::spawn(accept));
                    quic.entry(address).or_default().push(endpoint);
                }
                Some(Command::ForgetQuic(address)) => drop(quic.remove(&address)),
                None => break,
            }
        }
        // Connections are tasks of this loop's runtime and go on until it is shut down.
        for task in listening.into_values().flatten() {
            // Ends by itself: it watches `draining` too, and takes what was queued.
            let _ = task.await;
        }
        for (_forget, task) in quic.into_values().flatten() {
            let _ = task.await;
        }
    }
}

#[async_trait]
impl Service for Worker {
    async fn start_service(
        &mut self,
        _inherited: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        self.run().await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

async fn accept(
    socket: TcpListener,
    listener: Arc<ListenerState>,
    carrier: Arc<Carrier>,
    mut draining: watch::Receiver<bool>,
) {
    let mut warned: Option<Instant> = None;
    let mut in_a_row = 0;
    let mut until: Option<Instant> = None;
    loop {
        // What is queued is not lost: the other process has the same socket.
        if carrier.handed_over().is_set() {
            return;
        }
        in_a_row += 1;
        if in_a_row >= IN_A_ROW {
            in_a_row = 0;
            if *draining.borrow() {
                let now = clock::now();
                if now > *until.get_or_insert(now + LAST_ACCEPTED) {
                    return;
                }
            }
        }
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            () = begins(&mut draining) => return,
        };
        match accepted {
            Ok((stream, peer)) => take(stream, peer, &listener, &carrier),
            Err(error) if is_of_one_client(&error) => {}
            Err(error) => {
                listener.settings.load().metrics.refused("accept");
                // Each is counted; the log is for people, and its disk may be as full as the table.
                let now = clock::now();
                if warned.is_none_or(|at| now.duration_since(at) >= WARN_EVERY) {
                    warned = Some(now);
                    tracing::warn!(address = %listener.address, %error, "cannot accept connections; is the limit of open files (ulimit -n) high enough?");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn take(
    stream: TcpStream,
    peer: SocketAddr,
    listener: &Arc<ListenerState>,
    carrier: &Arc<Carrier>,
) {
    match listener.admit(peer) {
        Ok(slot) => {
            tokio::spawn(serve(stream, slot, carrier.clone()));
        }
        Err(refusal) => {
            listener.refused(refusal.as_str(), peer.ip());
            tracing::debug!(address = %listener.address, %peer, reason = refusal.as_str(), "connection refused");
        }
    }
}

/// Errors of a connection that was gone before it was accepted (accept(2)).
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
