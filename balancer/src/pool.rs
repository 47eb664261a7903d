//! The pool: one upstream's endpoints as a snapshot, and the decisions over all of them.
//!
//! What one endpoint's evidence means is decided in `checks`, `outlier`, `latency` and `adaptive`,
//! who is chosen in `select`, from which group in `pool::groups`, who may be ejected in
//! `pool::ejection`, and what a reload keeps in `pool::carry`. Here they are put together, with one
//! rule: state whose setting is missing is not believed. A pool without checks has no unhealthy
//! endpoints, one without outlier detection no ejected ones.

mod carry;
mod ejection;
mod groups;
mod report;
mod standing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::endpoint::{Endpoint, EndpointIndex};
use crate::load::{Active, Full};
use crate::random::Draws;
use crate::select::{Candidates, Rules};
use crate::settings::{Balance, Checks, OutlierSettings, PoolSettings};
use crate::shared::PoolState;
use crate::stamp::Stamp;

pub use carry::Carry;
use carry::States;
use groups::Groups;

/// How often [`Pool::acquire`] picks anew because another thread took the last room at an endpoint
/// in between.
const MAX_PICKS: usize = 8;
/// Answers below which the recent past gives no percentile.
const MIN_LATENCIES: u64 = 100;

/// One upstream's endpoints. Made at load, shared by all threads, replaced as a whole by a reload.
///
/// Every [`EndpointIndex`] given to a method must come from the same pool. One that lies beyond its
/// endpoints makes the method panic.
#[derive(Debug)]
pub struct Pool {
    endpoints: Box<[Endpoint]>,
    groups: Groups,
    rules: Rules,
    active_checks: Option<Checks>,
    outlier: Option<OutlierSettings>,
    retry_budget: Option<u8>,
    /// Whether the requests of the whole pool are counted.
    counts_total: bool,
    /// What stamps count from.
    epoch: Instant,
    /// Shared by all pools of a line of reloads.
    shared: Arc<PoolState>,
}

/// What choosing depends on besides the pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickContext<'a> {
    /// The hash of the request's key, by [`hash_key`](crate::hash_key()). Only [`Balance::Hash`]
    /// looks at it; a request without a key (no such cookie) goes to a random endpoint.
    pub hash: Option<u64>,
    /// The endpoints that this request has tried.
    pub tried: &'a [EndpointIndex],
    /// The endpoint that this request's session belongs to. It is taken if it can be used.
    pub prefer: Option<EndpointIndex>,
}

/// Why there is no endpoint for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PickError {
    /// Nothing was tried, because no endpoint is in service: the answer is 503, at once.
    #[error("no endpoint is available")]
    NoneAvailable,
    /// Something was tried, and nothing else is in service. The answer is what the last attempt
    /// deserves. A caller that prefers to try an endpoint again picks with an empty `tried`.
    #[error("no endpoint is available that was not tried")]
    Exhausted,
    /// Some endpoint is in service and was not tried, but the limits of all such endpoints, or of
    /// the pool, are reached. The caller may wait until a request ends.
    #[error("every available endpoint is at its limit")]
    Saturated,
}

impl PickError {
    /// The word for logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoneAvailable => "none_available",
            Self::Exhausted => "exhausted",
            Self::Saturated => "saturated",
        }
    }
}

impl Pool {
    /// Prepares a pool. Endpoints that `previous` has under the same id keep what is known of them:
    /// health, ejection, active requests, latency. Everything else follows the new settings at
    /// once.
    ///
    /// `previous` may go on serving: nothing that it shows changes, so a reload can still be given
    /// up. If more are ejected than the new settings allow, the next [`Pool::sweep`] mends it.
    #[must_use]
    pub fn new(
        settings: PoolSettings,
        previous: Option<&Self>,
        carry: Carry,
        now: Instant,
    ) -> Self {
        let epoch = previous.map_or(now, |previous| previous.epoch);
        let mut states = States::of(previous, &settings, Stamp::new(epoch, now));
        let mut settings = settings;
        let endpoints: Box<[Endpoint]> = std::mem::take(&mut settings.endpoints)
            .into_iter()
            .map(|endpoint| states.adopt(endpoint))
            .collect();
        let groups = Groups::new(
            &settings,
            &endpoints,
            previous.map(|previous| &previous.groups),
            carry == Carry::Refresh,
        );
        let bounded = |balance| {
            matches!(
                balance,
                Balance::Hash {
                    max_load: Some(_),
                    ..
                }
            )
        };
        Self {
            endpoints,
            groups,
            rules: Rules {
                checks: settings.active_checks.is_some(),
                outlier: settings.outlier.is_some(),
                limits: settings.limits,
                adaptive: settings.adaptive,
                slow_start: settings.slow_start,
            },
            active_checks: settings.active_checks,
            outlier: settings.outlier,
            retry_budget: settings.retry_budget,
            counts_total: settings.limits.total_requests.is_some() || bounded(settings.balance),
            epoch,
            shared: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.shared)),
        }
    }

    /// Chooses an endpoint that is in service, not in `context.tried`, and not at its limit. Takes
    /// no lock and allocates nothing. `random` is 64 fresh random bits.
    ///
    /// The choice holds nothing: see [`Pool::acquire`].
    ///
    /// # Errors
    /// [`PickError`] if there is no such endpoint.
    pub fn pick(
        &self,
        context: &PickContext<'_>,
        now: Instant,
        random: u64,
    ) -> Result<EndpointIndex, PickError> {
        self.choose(context, self.stamp(now), &mut Draws::new(random))
    }

    /// Chooses an endpoint like [`Pool::pick`] and counts the request there, in one: with several
    /// threads at it, limits are kept exactly. The first attempt of a request, which is the one
    /// with nothing in `context.tried`, pays into the retry budget.
    ///
    /// # Errors
    /// [`PickError`] if there is no such endpoint. Where many threads are after the same few places,
    /// [`PickError::Saturated`] may also mean that others were faster several times in a row.
    pub fn acquire(
        &self,
        context: &PickContext<'_>,
        now: Instant,
        random: u64,
    ) -> Result<(EndpointIndex, Active), PickError> {
        let now = self.stamp(now);
        let mut draws = Draws::new(random);
        let total = self.rules.limits.total_requests;
        for _ in 0..MAX_PICKS {
            let index = self.choose(context, now, &mut draws)?;
            let state = self.endpoint(index).state();
            let ceiling = self.rules.ceiling(&state.adaptive);
            match Active::enter(state, ceiling, self.counted(), total) {
                Ok(active) => {
                    if let Some(percent) = self.retry_budget
                        && context.tried.is_empty()
                    {
                        self.shared.retries.deposit(percent);
                    }
                    return Ok((index, active));
                }
                Err(Full::Endpoint) => {}
                Err(Full::Pool) => break,
            }
        }
        Err(PickError::Saturated)
    }

    /// Counts a request as under way at `index`, whatever the limits, until the guard is dropped.
    pub fn start(&self, index: EndpointIndex) -> Active {
        Active::start(self.endpoint(index).state(), self.counted())
    }

    /// Whether a request may be tried again, as far as the retry budget goes; takes one retry out
    /// of it. Without [`PoolSettings::retry_budget`] always true.
    #[must_use]
    pub fn may_retry(&self, now: Instant) -> bool {
        self.retry_budget.is_none() || self.shared.retries.withdraw(self.stamp(now))
    }

    /// The time to the first byte that `percent` of the requests of the last half minute or so did
    /// not exceed, over all endpoints, as of the last [`Pool::sweep`]. `None` while too few
    /// requests were answered to tell.
    #[must_use]
    pub fn latency_percentile(&self, percent: u8) -> Option<Duration> {
        self.shared.latencies.percentile(percent, MIN_LATENCIES)
    }

    /// The endpoint at `index`.
    #[must_use]
    pub fn endpoint(&self, index: EndpointIndex) -> &Endpoint {
        &self.endpoints[index.as_usize()]
    }

    /// All endpoints, in the order of the configuration.
    pub fn endpoints(&self) -> impl Iterator<Item = (EndpointIndex, &Endpoint)> {
        numbered(&self.endpoints)
    }

    fn choose(
        &self,
        context: &PickContext<'_>,
        now: Stamp,
        draws: &mut Draws,
    ) -> Result<EndpointIndex, PickError> {
        self.refresh(now);
        let candidates = self.candidates(context.tried, now);
        let total = self.rules.limits.total_requests;
        if total.is_some_and(|limit| self.shared.total.active() >= limit.get()) {
            return Err(self.nobody(&candidates));
        }
        if let Some(preferred) = context.prefer
            && candidates.can_use(preferred)
        {
            return Ok(preferred);
        }
        for group in self.groups.in_turn(context.hash, draws) {
            let weight = group.weight_in_service();
            let picked = group.tier.pick(&candidates, context.hash, weight, draws);
            if let Some(picked) = picked {
                return Ok(picked);
            }
        }
        Err(self.nobody(&candidates))
    }

    /// Why nobody could be chosen.
    #[cold]
    fn nobody(&self, candidates: &Candidates<'_>) -> PickError {
        if self
            .endpoints()
            .any(|(index, _)| candidates.would_do(index))
        {
            PickError::Saturated
        } else if candidates.tried.is_empty() {
            PickError::NoneAvailable
        } else {
            PickError::Exhausted
        }
    }

    fn refresh(&self, now: Stamp) {
        self.groups
            .refresh(&self.endpoints, &self.rules, &self.shared, now);
    }

    fn candidates<'a>(&'a self, tried: &'a [EndpointIndex], now: Stamp) -> Candidates<'a> {
        Candidates {
            endpoints: &self.endpoints,
            rules: &self.rules,
            shared: &self.shared,
            tried,
            now,
            panic: self.groups.panic(),
        }
    }

    fn counted(&self) -> Option<&Arc<PoolState>> {
        self.counts_total.then_some(&self.shared)
    }

    fn stamp(&self, now: Instant) -> Stamp {
        Stamp::new(self.epoch, now)
    }
}

fn numbered(endpoints: &[Endpoint]) -> impl Iterator<Item = (EndpointIndex, &Endpoint)> {
    EndpointIndex::first(endpoints.len()).zip(endpoints)
}
