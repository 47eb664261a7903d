//! Whether each listener takes a connection, asked as a client would.
//!
//! A process can believe that it listens while its accept loop is stuck or its
//! socket is gone; connecting is the one question that finds out. A probe sends
//! nothing and closes at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ListenerAddress, Readiness};

/// A listener that takes longer than this takes no connections.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The verdict and its account: `{ready, detail, listeners: [{name, address, ok, detail}]}`.
pub(super) async fn report(readiness: Readiness) -> (bool, Value) {
    let mut probes = JoinSet::new();
    for (place, listener) in readiness.listeners.into_iter().enumerate() {
        probes.spawn(async move { (place, probe(listener).await) });
    }
    // A probe cannot panic; one that did would be missing, and missing is not ready.
    let expected = probes.len();
    let mut found = probes.join_all().await;
    found.sort_by_key(|(place, _)| *place);
    let ready = readiness.ok && found.len() == expected && found.iter().all(|(_, (ok, _))| *ok);
    let listeners: Vec<Value> = found.into_iter().map(|(_, (_, line))| line).collect();
    let report = json!({
        "ready": ready,
        "detail": readiness.detail,
        "listeners": listeners,
    });
    (ready, report)
}

async fn probe(listener: ListenerAddress) -> (bool, Value) {
    let address = reachable(listener.address);
    let (ok, detail) = match timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => (true, "accepts connections".to_owned()),
        Ok(Err(error)) => (false, error.to_string()),
        Err(_) => (false, format!("no connection within {PROBE_TIMEOUT:?}")),
    };
    let line = json!({
        "name": listener.name,
        "address": listener.address.to_string(),
        "ok": ok,
        "detail": detail,
    });
    (ok, line)
}

/// A listener on every address is reached on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}
