//! Active health checks: one task an endpoint, over connections of their own.
//!
//! A check goes the way that a request goes (the same protocol, TLS settings
//! and address), but never over a connection that requests use, and its result
//! goes to the pool alone. What counts as healthy is the pool's to decide.

use std::sync::Arc;
use std::time::Duration;

use balancer::EndpointIndex;
use http::{Method, header};
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Link, Upstream};
use crate::clock;
use crate::random;

/// The checks of one configuration; they end when this is dropped.
pub(crate) struct Probers {
    _tasks: JoinSet<()>,
}

impl Probers {
    /// Starts the checks of `upstreams` on the current runtime.
    pub(crate) fn start(upstreams: &[Arc<Upstream>]) -> Self {
        let mut tasks = JoinSet::new();
        for upstream in upstreams {
            let Some(check) = &upstream.settings.health_check else {
                continue;
            };
            for (endpoint, _) in upstream.pool.endpoints() {
                tasks.spawn(watch(upstream.clone(), endpoint, check.clone()));
            }
        }
        Self { _tasks: tasks }
    }
}

/// Checks one endpoint for ever.
async fn watch(upstream: Arc<Upstream>, endpoint: EndpointIndex, check: conf::HealthCheck) {
    let Some(peer) = upstream.peer(endpoint).cloned() else {
        return;
    };
    let link = Link::new(&upstream.settings, 1);
    // Spread over the interval, so that many endpoints are not checked in one instant.
    sleep(jitter(check.interval, 0, 25)).await;
    loop {
        let ok = probe(&link, &peer, &upstream, &check).await;
        if let Err(reason) = &ok {
            tracing::debug!(upstream = upstream.name(), address = %peer._address, reason, "health check failed");
        }
        if let Some(transition) = upstream.pool.probed(endpoint, ok.is_ok(), clock::now()) {
            upstream.log(&transition, ok.err().unwrap_or("passed"));
        }
        sleep(jitter(check.interval, 90, 100)).await;
    }
}

/// A time between `from` and `to` percent of `interval`.
fn jitter(interval: Duration, from: u64, to: u64) -> Duration {
    let percent = from + random::bits() % (to - from + 1);
    interval.mul_f64(f64::from(u32::try_from(percent).unwrap_or(100)) / 100.0)
}

async fn probe(
    link: &Link,
    peer: &HttpPeer,
    upstream: &Upstream,
    check: &conf::HealthCheck,
) -> Result<(), &'static str> {
    let work = async {
        match &check.kind {
            conf::HealthCheckKind::Http(check) => {
                let host = host_for(check.host.as_deref(), upstream, peer);
                let status = check.statuses.first().copied();
                http(link, peer, &check.path, &host, status).await
            }
            _ => tcp(peer).await,
        }
    };
    timeout(check.timeout, work).await.unwrap_or(Err("timeout"))
}

fn host_for(configured: Option<&str>, upstream: &Upstream, peer: &HttpPeer) -> String {
    match (configured, &upstream.settings.tls) {
        (Some(host), _) => host.to_owned(),
        (None, Some(tls)) => tls.server_name.clone(),
        (None, None) => peer._address.to_string(),
    }
}

async fn tcp(peer: &HttpPeer) -> Result<(), &'static str> {
    let address = peer._address.as_inet().ok_or("no internet address")?;
    TcpStream::connect(address)
        .await
        .map(drop)
        .map_err(|_| "connect")
}

async fn http(
    link: &Link,
    peer: &HttpPeer,
    path: &str,
    host: &str,
    expected: Option<http::StatusCode>,
) -> Result<(), &'static str> {
    let mut session = link.open(peer).await.map_err(|_| "connect")?.session;
    let mut head =
        RequestHeader::build_no_case(Method::GET, path.as_bytes(), Some(3)).map_err(|_| "path")?;
    head.insert_header(header::HOST, host).map_err(|_| "host")?;
    head.insert_header(header::USER_AGENT, "tidegate-health-check")
        .map_err(|_| "user agent")?;
    if let HttpSession::H1(_) = session {
        head.insert_header(header::CONNECTION, "close")
            .map_err(|_| "connection")?;
    }
    session
        .write_request_header(Box::new(head))
        .await
        .map_err(|_| "write")?;
    if let HttpSession::H2(h2) = &mut session {
        h2.finish_request_body().map_err(|_| "write")?;
    }
    session.read_response_header().await.map_err(|_| "read")?;
    let status = session.response_header().ok_or("no reply")?.status;
    let healthy = expected.map_or(status.is_success(), |expected| status == expected);
    healthy.then_some(()).ok_or("status")
}
