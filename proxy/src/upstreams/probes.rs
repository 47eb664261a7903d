//! Which endpoints are to be checked, and who is told.

use std::sync::Arc;

use balancer::Mode;

use super::Upstream;
use super::prober::{Probe, Reason, Report};

/// The checks of all endpoints but those that were forced down.
pub(crate) fn probes(upstreams: &[Arc<Upstream>]) -> Vec<Probe> {
    let mut probes = Vec::new();
    for upstream in upstreams {
        let Some(check) = &upstream.settings().health_check else {
            continue;
        };
        let members = upstream.members();
        for (index, endpoint) in members.pool().endpoints() {
            if endpoint.mode() == Mode::Down {
                continue;
            }
            let Some(target) = members.target(index) else {
                continue;
            };
            probes.push(Probe {
                upstream: upstream.name().to_owned(),
                endpoint: endpoint.name().to_owned(),
                target: target.clone(),
                check: check.clone(),
                dialer: upstream.common().dialer.clone(),
                report: report(upstream, endpoint.id()),
            });
        }
    }
    probes
}

/// By the endpoint's id: its place may be another by the time that a result is there.
fn report(upstream: &Arc<Upstream>, id: &str) -> Report {
    let (upstream, id) = (upstream.clone(), id.to_owned());
    Arc::new(move |result: &Result<(), Reason>| upstream.probed(&id, result))
}
