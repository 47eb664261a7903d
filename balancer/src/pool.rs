//! The pool: one upstream's endpoints as a snapshot, and the decisions over all of them.
//!
//! What one endpoint's evidence means is decided in `checks` and `outlier`, who is chosen in
//! `select`, who may be ejected in `pool::ejection`, and what a reload keeps in `pool::carry`. Here
//! they are put together, with two rules:
//!
//! - A backup is chosen only if no primary can be.
//! - State whose setting is missing is not believed: a pool without checks has no unhealthy
//!   endpoints, one without outlier detection no ejected ones.

mod carry;
mod ejection;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::checks::{Crossed, Report};
use crate::endpoint::{Active, Endpoint, EndpointIndex, EndpointState};
use crate::random::Draws;
use crate::select::{Candidates, Tier};
use crate::settings::{OutlierSettings, PoolSettings, Thresholds};
use crate::stamp::Stamp;
use crate::status::{EndpointStatus, Health};
use crate::transition::{Evidence, Outcome, Transition};

use carry::States;

/// One upstream's endpoints. Made at load, shared by all threads, replaced as a whole by a reload.
///
/// Every [`EndpointIndex`] given to a method must come from the same pool. One that lies beyond its
/// endpoints makes the method panic.
#[derive(Debug)]
pub struct Pool {
    endpoints: Box<[Endpoint]>,
    /// In the order of preference: primaries, backups.
    tiers: [Tier; 2],
    active_checks: Option<Thresholds>,
    outlier: Option<OutlierSettings>,
    /// What stamps count from.
    epoch: Instant,
    /// Held while deciding who may be ejected, by all pools of a line of reloads, since they share
    /// endpoints.
    ejections: Arc<Mutex<()>>,
}

/// What choosing depends on besides the pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickContext<'a> {
    /// The hash of the request's key, by [`hash_key`](crate::hash_key()). Only
    /// [`Balance::Hash`](crate::Balance::Hash) looks at it; a request without a key (no such
    /// cookie) goes to a random endpoint.
    pub hash: Option<u64>,
    /// The endpoints that this request has tried.
    pub tried: &'a [EndpointIndex],
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
}

impl PickError {
    /// The word for logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoneAvailable => "none_available",
            Self::Exhausted => "exhausted",
        }
    }
}

impl Pool {
    /// Prepares a pool. Endpoints that `previous` has under the same address keep their health,
    /// their ejection and their active requests; others start healthy. Everything else follows the
    /// new settings at once.
    ///
    /// `previous` may go on serving: nothing that it shows changes, so a reload can still be given
    /// up. If more are ejected than the new settings allow, the next [`Pool::sweep`] mends it.
    #[must_use]
    pub fn new(settings: PoolSettings, previous: Option<&Self>, now: Instant) -> Self {
        let mut states = States::of(previous, &settings);
        let endpoints: Box<[Endpoint]> = settings
            .endpoints
            .into_iter()
            .map(|endpoint| states.adopt(endpoint))
            .collect();
        let tiers = [false, true].map(|backup| {
            let members: Vec<_> = numbered(&endpoints)
                .filter(|(_, endpoint)| endpoint.backup() == backup)
                .collect();
            let turn = previous.map_or(0, |previous| previous.tiers[usize::from(backup)].turn());
            Tier::new(settings.balance, &members, turn)
        });
        Self {
            endpoints,
            tiers,
            active_checks: settings.active_checks,
            outlier: settings.outlier,
            epoch: previous.map_or(now, |previous| previous.epoch),
            ejections: previous
                .map_or_else(Arc::default, |previous| Arc::clone(&previous.ejections)),
        }
    }

    /// Chooses an endpoint that is in service and not in `context.tried`: a primary if there is
    /// one, else a backup. Takes no lock and allocates nothing. `random` is 64 fresh random bits.
    ///
    /// # Errors
    /// [`PickError`] if there is no such endpoint.
    pub fn pick(
        &self,
        context: &PickContext<'_>,
        now: Instant,
        random: u64,
    ) -> Result<EndpointIndex, PickError> {
        let candidates = self.candidates(context.tried, self.stamp(now));
        let mut draws = Draws::new(random);
        self.tiers
            .iter()
            .find_map(|tier| tier.pick(&candidates, context.hash, &mut draws))
            .ok_or(if context.tried.is_empty() {
                PickError::NoneAvailable
            } else {
                PickError::Exhausted
            })
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

    /// Counts a request as under way at `index` until the guard is dropped.
    pub fn start(&self, index: EndpointIndex) -> Active {
        Active::new(self.endpoint(index).state())
    }

    /// Takes note of how a request went. Any error counts towards ejection; a failed or broken
    /// connection also counts as a failed check, if there are checks. A success costs two or three
    /// relaxed loads.
    pub fn record(
        &self,
        index: EndpointIndex,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Transition> {
        let report = match outcome {
            Outcome::ConnectFailed | Outcome::Reset => Some(Report::RequestRefused),
            Outcome::Success | Outcome::Status5xx => Some(Report::RequestAnswered),
            Outcome::Timeout => None,
        };
        let now = self.stamp(now);
        let by_checks = report.and_then(|report| self.report(index, report, now));
        if self.is_unhealthy(index) {
            return by_checks;
        }
        by_checks.or_else(|| self.judge(index, outcome, now))
    }

    /// Takes note of a health check's result. Without [`PoolSettings::active_checks`] it means
    /// nothing.
    pub fn probed(&self, index: EndpointIndex, passed: bool, now: Instant) -> Option<Transition> {
        let report = if passed {
            Report::ProbePassed
        } else {
            Report::ProbeFailed
        };
        self.report(index, report, self.stamp(now))
    }

    /// How every endpoint stands, in the order of the configuration.
    #[must_use]
    pub fn status(&self, now: Instant) -> Vec<EndpointStatus<'_>> {
        let now = self.stamp(now);
        self.endpoints()
            .map(|(index, endpoint)| self.endpoint_status(index, endpoint, now))
            .collect()
    }

    fn endpoint_status<'a>(
        &self,
        index: EndpointIndex,
        endpoint: &'a Endpoint,
        now: Stamp,
    ) -> EndpointStatus<'a> {
        let state = endpoint.state();
        let ejected_for = self.outlier.and_then(|_| state.outlier.ejected_for(now));
        let health = match (self.is_unhealthy(index), ejected_for) {
            (true, _) => Health::Unhealthy,
            (false, Some(_)) => Health::Ejected,
            (false, None) => Health::Healthy,
        };
        EndpointStatus {
            name: endpoint.name(),
            address: endpoint.address(),
            weight: endpoint.weight(),
            backup: endpoint.backup(),
            health,
            ejected_for,
            since_transition: self.since_transition(state, now),
            active: endpoint.active(),
            consecutive_errors: self.outlier.map_or(0, |_| state.outlier.errors()),
            consecutive_failed_checks: self.active_checks.map_or(0, |_| state.checks.failed()),
        }
    }

    /// An ejection that is over has ended when its time was, whoever noticed.
    fn since_transition(&self, state: &EndpointState, now: Stamp) -> Option<Duration> {
        let outlier = &state.outlier;
        if self.outlier.is_some() && outlier.has_ejection() && !outlier.is_ejected(now) {
            return Some(now.since(outlier.until()));
        }
        state.since_change(now)
    }

    /// Counts evidence for or against an endpoint's health.
    fn report(&self, endpoint: EndpointIndex, report: Report, now: Stamp) -> Option<Transition> {
        let state = self.endpoint(endpoint).state();
        let crossed = state.checks.apply(report, self.active_checks.as_ref()?)?;
        state.changed(now);
        Some(match crossed {
            Crossed::Healthy { passed } => {
                // Errors from before the outage say nothing about the node that came back.
                state.outlier.forget_errors();
                Transition::Healthy {
                    endpoint,
                    passed_checks: passed,
                }
            }
            Crossed::Unhealthy { failed } => {
                let evidence = if report == Report::ProbeFailed {
                    Evidence::Check
                } else {
                    Evidence::Request
                };
                Transition::Unhealthy {
                    endpoint,
                    failed_checks: failed,
                    evidence,
                }
            }
        })
    }

    fn is_unhealthy(&self, index: EndpointIndex) -> bool {
        self.active_checks.is_some() && self.endpoint(index).state().checks.is_unhealthy()
    }

    fn candidates<'a>(&'a self, tried: &'a [EndpointIndex], now: Stamp) -> Candidates<'a> {
        Candidates {
            endpoints: &self.endpoints,
            tried,
            now,
            checks: self.active_checks.is_some(),
            outlier: self.outlier.is_some(),
        }
    }

    fn stamp(&self, now: Instant) -> Stamp {
        Stamp::new(self.epoch, now)
    }
}

fn numbered(endpoints: &[Endpoint]) -> impl Iterator<Item = (EndpointIndex, &Endpoint)> {
    EndpointIndex::first(endpoints.len()).zip(endpoints)
}
