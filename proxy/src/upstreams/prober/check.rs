//! One check, from its connection to its result.

use std::time::Duration;

use tokio::time::timeout;

use super::{Reason, grpc, http};
use crate::upstreams::Target;
use crate::upstreams::dial::Dialer;

/// Names the checker to who is checked.
pub(super) const USER_AGENT: &str = "tidegate-health-check";

/// Checks `target` once, within `patience`.
///
/// # Errors
/// What is wrong.
pub(super) async fn run(
    dialer: &Dialer,
    target: &Target,
    kind: &conf::HealthCheckKind,
    patience: Duration,
) -> Result<(), Reason> {
    let work = async {
        match kind {
            conf::HealthCheckKind::Tcp => Ok(dialer.reach(target).await?),
            conf::HealthCheckKind::Tls => tls(dialer, target).await,
            conf::HealthCheckKind::Http(check) => http::run(dialer, target, check).await,
            conf::HealthCheckKind::Grpc { service } => grpc::run(dialer, target, service).await,
        }
    };
    match timeout(patience, work).await {
        Ok(result) => result,
        Err(_) => Err(Reason::timeout(patience)),
    }
}

/// The handshake, with everything that it verifies.
async fn tls(dialer: &Dialer, target: &Target) -> Result<(), Reason> {
    if dialer.server_name().is_none() {
        let words = "tls: the upstream has no tls settings; add them, or write type = \"tcp\"";
        return Err(Reason::new(words));
    }
    dialer.dial(target, None).await?;
    Ok(())
}

/// Whom a request is for: as configured, or what TLS names, or the address.
pub(super) fn host(configured: Option<&str>, dialer: &Dialer, target: &Target) -> String {
    let named = configured.map(str::to_owned).or(dialer.server_name());
    named.unwrap_or_else(|| match target {
        Target::Inet { first, .. } => first.to_string(),
        Target::Unix(_) => "localhost".to_owned(),
    })
}
