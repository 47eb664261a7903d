//! The words of the file to the balancer's types.

use std::num::NonZeroU32;

use balancer::{
    AdaptiveSettings, Balance, Checks, EndpointSettings, HashTable, Limits, Mode, OutlierSettings,
    PoolSettings,
};

use super::by_hand::Hands;
use super::discovery::Found;

/// A pool of `found`, changed as `hands` say.
pub(super) fn pool(
    settings: &conf::Upstream,
    own_zone: Option<&str>,
    found: &[Found],
    hands: &Hands,
) -> PoolSettings {
    PoolSettings {
        endpoints: found.iter().map(|found| endpoint(found, hands)).collect(),
        balance: balance(&settings.balance),
        own_zone: own_zone.map(str::to_owned),
        overflow_below: settings.overflow_below,
        zone_overflow_below: settings.zone_overflow_below,
        panic_threshold: settings.panic_threshold,
        active_checks: settings.health_check.as_ref().map(|check| Checks {
            unhealthy_after: check.unhealthy_after,
            healthy_after: check.healthy_after,
            start_healthy: check.start_healthy,
        }),
        outlier: settings.outlier_detection.as_ref().map(outlier),
        limits: limits(settings),
        adaptive: settings
            .adaptive_concurrency
            .map(|adaptive| AdaptiveSettings {
                min: adaptive.min,
                max: adaptive.max,
            }),
        slow_start: settings.slow_start,
        retry_budget: Some(settings.retry.budget),
    }
}

fn endpoint(found: &Found, hands: &Hands) -> EndpointSettings {
    let id = found.target.id();
    let hand = hands.of(&id);
    EndpointSettings {
        name: found.name.clone(),
        weight: hand.and_then(|hand| hand.weight).unwrap_or(found.weight),
        priority: found.priority,
        backup: found.backup,
        zone: found.zone.clone(),
        mode: hand.map_or(Mode::Enabled, |hand| hand.mode),
        id,
    }
}

fn balance(balance: &conf::Balance) -> Balance {
    match balance {
        conf::Balance::RoundRobin => Balance::RoundRobin,
        conf::Balance::Random => Balance::Random,
        conf::Balance::LeastRequest { choices } => Balance::LeastRequest { choices: *choices },
        conf::Balance::PeakEwma => Balance::PeakEwma,
        conf::Balance::Hash {
            table, max_load, ..
        } => Balance::Hash {
            table: match table {
                conf::HashTable::Rendezvous => HashTable::Rendezvous,
                conf::HashTable::Ketama => HashTable::Ketama,
                conf::HashTable::Maglev => HashTable::Maglev,
            },
            max_load: *max_load,
        },
    }
}

fn outlier(outlier: &conf::OutlierDetection) -> OutlierSettings {
    OutlierSettings {
        consecutive_errors: outlier.consecutive_errors,
        error_rate: outlier.error_rate,
        latency_factor: outlier.latency_factor,
        window: outlier.window,
        min_requests: outlier.min_requests,
        ejection_time: outlier.ejection_time,
        max_ejected_percent: outlier.max_ejected,
    }
}

/// With HTTP/1.1 a request has a connection to itself, so a limit of connections is one of requests
/// too, and requests wait for a connection in the queue rather than at the endpoint. With HTTP/2 a
/// connection carries many.
fn limits(settings: &conf::Upstream) -> Limits {
    let limits = &settings.limits;
    let least = |one: Option<NonZeroU32>, other: Option<NonZeroU32>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let streams = |connections: Option<NonZeroU32>| match settings.protocol {
        conf::UpstreamProtocol::H1 => connections,
        conf::UpstreamProtocol::H2 => {
            connections.map(|count| count.saturating_mul(settings.max_concurrent_streams))
        }
    };
    Limits {
        endpoint_requests: least(limits.max_requests, streams(limits.max_connections)),
        endpoint_pending: limits.max_pending,
        total_requests: least(
            limits.max_total_requests,
            streams(limits.max_total_connections),
        ),
    }
}
