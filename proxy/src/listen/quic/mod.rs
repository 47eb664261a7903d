//! HTTP/3: QUIC beside TCP on the same address and port.
//!
//! Each worker has an endpoint on a socket of its own ([`socket`]), and serves the connections that
//! come to it as it serves those over TCP: counted by the same limits, their requests by the same
//! carrier. QUIC itself is quinn's; HTTP/3 on it is spoken here ([`wire`]), for what its libraries
//! do with a client that means harm (`docs/decisions/0016-http3.md`).

mod connection;
mod control;
mod ids;
mod keys;
mod ranks;
mod session;
mod settings;
mod socket;
mod stream;
mod tally;
mod wire;

use std::sync::Arc;

use http::request::Parts;
use quinn::{Endpoint, EndpointConfig, Incoming, TokioRuntime};
use tokio::sync::{oneshot, watch};

pub(crate) use keys::Keys;
pub(crate) use settings::Quic;
pub(crate) use socket::{Bound, Shared, bind};

use ids::Ids;
use settings::Quic as Settings;
use socket::Steered;

use super::limits::ListenerState;
use super::serve::begins;
use crate::carry::Carrier;

/// A request came before its client's handshake was done: somebody else may have recorded and sent
/// it (RFC 8470).
#[derive(Debug, Clone, Copy)]
struct Early;

/// Whether a request may be a replay.
pub(crate) fn is_early(head: &Parts) -> bool {
    head.extensions.get::<Early>().is_some()
}

/// Accepts connections on `bound` until the process ends or `forget` says so, and then waits for the
/// last one's end.
pub(super) async fn accept(
    bound: Bound,
    listener: Arc<ListenerState>,
    carrier: Arc<Carrier>,
    mut draining: watch::Receiver<bool>,
    forget: oneshot::Receiver<()>,
) {
    let shared = bound.shared.clone();
    let endpoint = match endpoint(bound, &listener) {
        Ok(Some(endpoint)) => endpoint,
        // Switched off by a reload that came in between.
        Ok(None) => return,
        Err(error) => {
            tracing::error!(address = %listener.address, %error, "UDP socket not usable");
            return;
        }
    };
    let (leave, leaving) = watch::channel(false);
    let mut forget = std::pin::pin!(forget);
    loop {
        let incoming = tokio::select! {
            biased;
            incoming = endpoint.accept() => incoming,
            () = begins(&mut draining) => None,
            _ = &mut forget => None,
        };
        match incoming {
            Some(incoming) => take(incoming, &listener, &carrier, &shared, &leaving),
            None => break,
        }
    }
    // From now on new connections are not answered; their clients take TCP.
    endpoint.set_server_config(None);
    leave.send_replace(true);
    endpoint.wait_idle().await;
}

fn endpoint(bound: Bound, listener: &ListenerState) -> std::io::Result<Option<Endpoint>> {
    let settings = listener.settings.load();
    let Some(quic) = &settings.quic else {
        return Ok(None);
    };
    let runtime = Arc::new(TokioRuntime);
    let ids = Ids {
        key: bound.shared.key(quic.keys.ids()),
        place: bound.place(),
    };
    let mut config = EndpointConfig::new(quic.keys.reset());
    config.cid_generator(move || Box::new(ids));
    let socket = Steered::new(bound, &*runtime, ids.key)?;
    let server = Some(quinn::ServerConfig::clone(&quic.config));
    Endpoint::new_with_abstract_socket(config, server, Arc::new(socket), runtime).map(Some)
}

/// A client's first packet is there.
fn take(
    incoming: Incoming,
    listener: &Arc<ListenerState>,
    carrier: &Arc<Carrier>,
    shared: &Arc<Shared>,
    leaving: &watch::Receiver<bool>,
) {
    let settings = listener.settings.load_full();
    let Some(quic) = settings.quic.clone() else {
        return incoming.ignore();
    };
    // Whose packets a load balancer passes on it cannot say here, and it is not its clients.
    let peer = incoming.remote_address();
    if settings.is_announced(peer.ip()) {
        listener.refused("proxy_header", peer.ip());
        return incoming.refuse();
    }
    if must_prove_its_address(&incoming, listener, &quic, shared) {
        settings.metrics.refused("retry");
        // It fails only for one that was proven.
        let _ = incoming.retry();
        return;
    }
    let slot = match listener.admit(peer) {
        Ok(slot) => slot,
        Err(refusal) => {
            listener.refused(refusal.as_str(), peer.ip());
            return incoming.refuse();
        }
    };
    if let Err(refusal) = listener.may_shake_hands(peer.ip()) {
        listener.refused(refusal.as_str(), peer.ip());
        return incoming.refuse();
    }
    let surroundings = connection::Surroundings {
        slot,
        is_proven: incoming.remote_address_validated(),
        handshake: shared.handshake(),
        carrier: carrier.clone(),
        leaving: leaving.clone(),
        quic: quic.clone(),
        settings,
    };
    match incoming.accept_with(quic.config.clone()) {
        Ok(connecting) => drop(tokio::spawn(connection::serve(connecting, surroundings))),
        Err(error) => tracing::debug!(%peer, %error, "connection not accepted"),
    }
}

/// Whoever writes somebody else's address on its packets costs a handshake each, makes that one get
/// replies, and uses up what that one may do. Under load, and where many come from one address, a client
/// must show first that it gets what is sent to it (RFC 9000 section 8.1.2).
fn must_prove_its_address(
    incoming: &Incoming,
    listener: &ListenerState,
    quic: &Settings,
    shared: &Shared,
) -> bool {
    let is_much = || {
        let client = incoming.remote_address().ip();
        shared.handshakes() >= quic.retry_above || !listener.may_be_unproven(client)
    };
    !incoming.remote_address_validated() && is_much()
}
