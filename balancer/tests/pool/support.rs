//! Short ways to make pools and to look at who was picked.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use balancer::{
    Active, Balance, Carry, Checks, EndpointIndex, EndpointSettings, HashTable, Limits, Mode,
    Outcome, OutlierSettings, PickContext, PickError, Pool, PoolSettings, Transition, hash_key,
};

/// Two choices.
pub(crate) const LEAST_REQUEST: Balance = Balance::LeastRequest {
    choices: NonZeroU32::new(2).unwrap(),
};

/// Rendezvous hashing without a bound.
pub(crate) const RENDEZVOUS: Balance = hash(HashTable::Rendezvous);

/// Every algorithm.
pub(crate) const ALL: [Balance; 7] = [
    Balance::RoundRobin,
    Balance::Random,
    LEAST_REQUEST,
    Balance::PeakEwma,
    RENDEZVOUS,
    hash(HashTable::Ketama),
    hash(HashTable::Maglev),
];

pub(crate) const fn hash(table: HashTable) -> Balance {
    Balance::Hash {
        table,
        max_load: None,
    }
}

/// Some instant; tests count from it.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can be had in no other way; every later one is computed"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(crate) fn positive(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}

/// The endpoint 10.0.x.y:8080 with that number.
pub(crate) fn endpoint(number: u16, weight: u32) -> EndpointSettings {
    let [upper, lower] = number.to_be_bytes();
    let id = format!("10.0.{upper}.{lower}:8080");
    EndpointSettings {
        name: id.clone(),
        id,
        weight: positive(weight),
        priority: 0,
        backup: false,
        zone: None,
        mode: Mode::Enabled,
    }
}

pub(crate) fn backup(number: u16) -> EndpointSettings {
    EndpointSettings {
        backup: true,
        ..endpoint(number, 1)
    }
}

/// Endpoints numbered from 0 with these weights.
pub(crate) fn weighted(weights: &[u32]) -> Vec<EndpointSettings> {
    (0..)
        .zip(weights)
        .map(|(number, weight)| endpoint(number, *weight))
        .collect()
}

/// Settings in which one failed check takes out, one passed check brings back, and nothing is
/// ejected.
pub(crate) fn settings(endpoints: Vec<EndpointSettings>, balance: Balance) -> PoolSettings {
    PoolSettings {
        endpoints,
        balance,
        own_zone: None,
        overflow_below: 0,
        zone_overflow_below: 0,
        panic_threshold: 0,
        active_checks: Some(thresholds(1, 1)),
        outlier: None,
        limits: Limits::default(),
        adaptive: None,
        slow_start: Duration::ZERO,
        retry_budget: None,
    }
}

pub(crate) fn thresholds(unhealthy_after: u32, healthy_after: u32) -> Checks {
    Checks {
        unhealthy_after: positive(unhealthy_after),
        healthy_after: positive(healthy_after),
        start_healthy: true,
    }
}

pub(crate) fn outlier(consecutive_errors: u32, max_ejected_percent: u8) -> OutlierSettings {
    OutlierSettings {
        consecutive_errors: positive(consecutive_errors),
        error_rate: None,
        latency_factor: None,
        window: seconds(10),
        min_requests: positive(10),
        ejection_time: seconds(10),
        max_ejected_percent,
    }
}

/// A pool with a time and a source of random bits of its own.
pub(crate) struct Bench {
    pub(crate) pool: Pool,
    pub(crate) now: Instant,
    seed: u64,
}

impl Bench {
    pub(crate) fn new(settings: PoolSettings) -> Self {
        let now = start();
        Self {
            pool: Pool::new(settings, None, Carry::Reload, now),
            now,
            seed: 1,
        }
    }

    pub(crate) fn index(&self, position: usize) -> EndpointIndex {
        self.pool
            .endpoints()
            .nth(position)
            .expect("the pool has that many endpoints")
            .0
    }

    /// A request ends that was answered at once or failed.
    pub(crate) fn record(&self, position: usize, outcome: Outcome) -> Option<Transition> {
        self.pool
            .record(self.index(position), outcome, None, self.now)
    }

    /// One failed check, which in `settings` is enough.
    pub(crate) fn take_out(&self, position: usize) {
        self.pool.probed(self.index(position), false, self.now);
    }

    /// Settings for a pool that follows this one.
    pub(crate) fn follow(&mut self, settings: PoolSettings, carry: Carry) {
        self.pool = Pool::new(settings, Some(&self.pool), carry, self.now);
    }

    pub(crate) fn acquire_with(
        &mut self,
        context: &PickContext<'_>,
    ) -> Result<(usize, Active), PickError> {
        let random = self.random();
        self.pool
            .acquire(context, self.now, random)
            .map(|(index, active)| (index.as_usize(), active))
    }

    pub(crate) fn acquire(&mut self) -> Result<(usize, Active), PickError> {
        self.acquire_with(&PickContext::default())
    }

    /// How often each endpoint is picked for so many keys.
    pub(crate) fn tally_keys(&mut self, keys: u32) -> Vec<usize> {
        let mut tally = vec![0; self.pool.endpoints().count()];
        for key in 0..keys {
            let context = keyed(key);
            tally[self.pick_with(&context).expect("somebody is in service")] += 1;
        }
        tally
    }

    /// A xorshift generator: good enough, and none of the crate's own.
    pub(crate) fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    pub(crate) fn pick_with(&mut self, context: &PickContext<'_>) -> Result<usize, PickError> {
        let random = self.random();
        self.pool
            .pick(context, self.now, random)
            .map(EndpointIndex::as_usize)
    }

    pub(crate) fn pick(&mut self) -> Result<usize, PickError> {
        self.pick_with(&PickContext::default())
    }

    /// How often each endpoint is picked in so many picks without a key.
    pub(crate) fn tally(&mut self, picks: usize) -> Vec<usize> {
        let mut tally = vec![0; self.pool.endpoints().count()];
        for _ in 0..picks {
            tally[self.pick().expect("somebody is in service")] += 1;
        }
        tally
    }
}

/// A request with that key.
pub(crate) fn keyed(key: u32) -> PickContext<'static> {
    PickContext {
        hash: Some(hash_key(&key.to_be_bytes())),
        ..PickContext::default()
    }
}

/// Asserts that each count is within `tolerance` (0.05 is 5 %) of its share by weight.
pub(crate) fn assert_shares(tally: &[usize], weights: &[u32], tolerance: f64) {
    let picks: usize = tally.iter().sum();
    let sum: u32 = weights.iter().sum();
    for (position, (count, weight)) in tally.iter().zip(weights).enumerate() {
        let due = picks as f64 * f64::from(*weight) / f64::from(sum);
        let off = (*count as f64 - due).abs();
        assert!(
            off <= due * tolerance,
            "endpoint {position} got {count} instead of {due:.0}: {tally:?} for {weights:?}"
        );
    }
}
