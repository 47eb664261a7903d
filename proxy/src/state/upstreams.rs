//! What the admin server says of upstreams.

use std::time::{Duration, Instant};

use balancer::EndpointStatus;
use serde_json::{Value, json};

use crate::upstreams::Upstream;

/// One upstream with its endpoints.
pub(super) fn overview(upstream: &Upstream, now: Instant) -> Value {
    let members = upstream.members();
    let common = upstream.common();
    let summary = members.pool().summary(now);
    let endpoints: Vec<Value> = members
        .pool()
        .status(now)
        .iter()
        .zip(members.pool().endpoints())
        .map(|(status, (index, _))| endpoint(upstream, status, members.connections(index)))
        .collect();
    let seconds = |duration: Duration| duration.as_secs_f64();
    json!({
        "name": upstream.name(),
        "balance": balance(&upstream.settings().balance),
        "in_service": summary.in_service,
        "active_requests": summary.active,
        "panic": summary.panic,
        "queued_requests": common.queue.as_ref().map(|queue| queue.len()),
        "connections": common.links.open(),
        "retries_left": summary.retries_left,
        "discovery_age_seconds": common.discovery_age(now).map(seconds),
        "endpoints": endpoints,
    })
}

fn endpoint(
    upstream: &Upstream,
    status: &EndpointStatus<'_>,
    (connections, idle): (u32, usize),
) -> Value {
    let seconds = |duration: Duration| duration.as_secs_f64();
    let by_hand = upstream.by_hand(status.id).map(|hand| {
        json!({
            "mode": hand.mode.as_str(),
            "weight": hand.weight,
            "keep": hand.keep,
        })
    });
    json!({
        "name": status.name,
        "address": status.id,
        "weight": status.weight,
        "priority": status.priority,
        "backup": status.backup,
        "zone": status.zone,
        "health": status.health.as_str(),
        "by_hand": by_hand,
        "ejected_for_seconds": status.ejected_for.map(seconds),
        "ejections": status.ejections,
        "since_transition_seconds": status.since_transition.map(seconds),
        "active_requests": status.active,
        "pending_requests": status.pending,
        "limit_requests": status.limit,
        "connections": connections,
        "idle_connections": idle,
        "latency_seconds": status.latency.map(seconds),
        "slow_start_percent": status.slow_start_percent,
        "window_requests": status.requests,
        "window_errors": status.errors,
        "consecutive_errors": status.consecutive_errors,
        "consecutive_failed_checks": status.consecutive_failed_checks,
    })
}

fn balance(balance: &conf::Balance) -> &'static str {
    match balance {
        conf::Balance::RoundRobin => "round_robin",
        conf::Balance::Random => "random",
        conf::Balance::LeastRequest { .. } => "least_request",
        conf::Balance::PeakEwma => "peak_ewma",
        conf::Balance::Hash { .. } => "hash",
    }
}
