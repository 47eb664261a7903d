//! A request's endpoint, from the choice to the end.

use std::num::NonZeroU32;
use std::time::Duration;

use balancer::{
    Balance, Carry, EndpointSettings, Limits, Mode, Outcome, PickContext, Pool, PoolSettings,
};

use crate::{Part, now, ready};

/// Picks one of ten endpoints, counts the request there and records its end.
#[must_use]
pub fn request_to_one_of_ten(balance: Balance) -> Part {
    let now = now();
    let pool = Pool::new(settings(balance), None, Carry::Reload, now);
    let mut random = 1_u64;
    ready(move || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let context = PickContext {
            hash: Some(random),
            ..PickContext::default()
        };
        let Ok((endpoint, mut active)) = pool.acquire(&context, now, random) else {
            return false;
        };
        active.connected();
        let latency = Some(Duration::from_micros(random >> 54));
        pool.record(endpoint, Outcome::Success, latency, now);
        true
    })
}

fn settings(balance: Balance) -> PoolSettings {
    let endpoint = |n| EndpointSettings {
        id: format!("10.0.0.{n}:8080"),
        name: format!("10.0.0.{n}:8080"),
        weight: NonZeroU32::MIN,
        priority: 0,
        backup: false,
        zone: None,
        mode: Mode::Enabled,
    };
    PoolSettings {
        endpoints: (1..=10).map(endpoint).collect(),
        balance,
        own_zone: None,
        overflow_below: 70,
        zone_overflow_below: 70,
        panic_threshold: 0,
        active_checks: None,
        outlier: None,
        limits: Limits::default(),
        adaptive: None,
        slow_start: Duration::ZERO,
        retry_budget: Some(20),
    }
}
