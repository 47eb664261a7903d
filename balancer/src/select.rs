//! Choosing among the endpoints of one group.
//!
//! A [`Tier`] holds endpoints that are equal before the algorithm: those of one priority and zone,
//! or the backups. Everything that depends on the configuration alone (sequences, urns, tables for
//! hashing) is made when the tier is; health and load are looked at anew by each pick, through
//! [`Candidates`]. So a change of health costs nothing and moves no more requests than it must.
//!
//! Every algorithm keeps one promise: it returns an endpoint whenever one of the tier can be used.

mod hash;
mod least_request;
mod peak_ewma;
mod round_robin;
mod urn;

use std::sync::Arc;
use std::time::Duration;

use crate::adaptive::Adaptive;
use crate::convert::low_half;
use crate::endpoint::{Endpoint, EndpointIndex, EndpointState};
use crate::load::Ceiling;
use crate::random::{Draws, mix};
use crate::settings::{AdaptiveSettings, Balance, Limits};
use crate::shared::PoolState;
use crate::stamp::Stamp;

use hash::Hashing;
use round_robin::Sequence;
use urn::Urn;

/// Endpoints among which the algorithm chooses, and what it prepared.
#[derive(Debug)]
pub(crate) struct Tier {
    urn: Urn,
    method: Method,
}

/// An algorithm with what it prepared.
#[derive(Debug)]
enum Method {
    RoundRobin(Box<Sequence>),
    Random,
    LeastRequest { choices: u32 },
    PeakEwma,
    Hash(Hashing),
}

/// An endpoint of a tier that is being made.
pub(crate) type Member<'a> = (EndpointIndex, &'a Endpoint);

impl Tier {
    /// Prepares the choice among `members`. Round robin goes on where `previous` is; a hash table
    /// is taken from it if it was made for the same members and `reuse` allows that.
    pub(crate) fn new(
        balance: Balance,
        members: &[Member<'_>],
        previous: Option<&Self>,
        reuse: bool,
    ) -> Self {
        let enabled: Vec<_> = members
            .iter()
            .copied()
            .filter(|(_, endpoint)| endpoint.enabled())
            .collect();
        let method = match balance {
            Balance::RoundRobin => {
                // Without it, reloads in quick succession would favour the first endpoints.
                let turn = previous.map_or(0, Self::turn);
                Method::RoundRobin(Box::new(Sequence::new(&enabled, turn)))
            }
            Balance::Random => Method::Random,
            Balance::LeastRequest { choices } => Method::LeastRequest {
                choices: choices.get(),
            },
            Balance::PeakEwma => Method::PeakEwma,
            // Whoever is drained keeps its place, so that its keys come back with it and no others
            // move.
            Balance::Hash { table, max_load } => {
                let previous = previous.filter(|_| reuse).and_then(Self::hashing);
                Method::Hash(Hashing::new(table, max_load, members, previous))
            }
        };
        Self {
            urn: Urn::new(&enabled),
            method,
        }
    }

    /// Chooses one that can be used; `None` if there is none. `hash` is the key of the request, for
    /// hashing; `weight` the sum of the weights of those in service.
    pub(crate) fn pick(
        &self,
        candidates: &Candidates<'_>,
        hash: Option<u64>,
        weight: u64,
        draws: &mut Draws,
    ) -> Option<EndpointIndex> {
        match &self.method {
            Method::RoundRobin(sequence) => sequence
                .next(candidates, draws)
                .or_else(|| self.urn.draw(candidates, draws)),
            Method::Random => self.urn.draw(candidates, draws),
            Method::LeastRequest { choices } => {
                least_request::pick(&self.urn, *choices, candidates, draws)
            }
            Method::PeakEwma => peak_ewma::pick(&self.urn, candidates, draws),
            Method::Hash(hashing) => match hash {
                Some(hash) => hashing.pick(hash, weight, candidates),
                None => self.urn.draw(candidates, draws),
            },
        }
    }

    fn turn(&self) -> usize {
        match &self.method {
            Method::RoundRobin(sequence) => sequence.turn(),
            _ => 0,
        }
    }

    fn hashing(&self) -> Option<&Hashing> {
        match &self.method {
            Method::Hash(hashing) => Some(hashing),
            _ => None,
        }
    }
}

/// What about an endpoint's state counts, as the configuration says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Whether checks are believed.
    pub(crate) checks: bool,
    /// Whether ejections are believed.
    pub(crate) outlier: bool,
    pub(crate) limits: Limits,
    pub(crate) adaptive: Option<AdaptiveSettings>,
    /// Zero: none.
    pub(crate) slow_start: Duration,
}

impl Rules {
    /// Whether checks and ejections let this endpoint serve.
    pub(crate) fn in_service(&self, state: &EndpointState, now: Stamp) -> bool {
        !(self.checks && state.checks.is_unhealthy()
            || self.outlier && state.outlier.is_ejected(now))
    }

    /// How much may be under way at this endpoint.
    pub(crate) fn ceiling(&self, adaptive: &Adaptive) -> Ceiling {
        let fixed = self.limits.endpoint_requests.map_or(u32::MAX, u32::from);
        let found = self
            .adaptive
            .as_ref()
            .map_or(u32::MAX, |settings| adaptive.limit(settings));
        Ceiling {
            active: fixed.min(found),
            pending: self.limits.endpoint_pending.map_or(u32::MAX, u32::from),
        }
    }

    /// By which factor the weight of this endpoint counts.
    pub(crate) fn ramp(&self, state: &EndpointState, now: Stamp) -> f64 {
        if self.slow_start.is_zero() {
            return 1.0;
        }
        let returned = if self.outlier {
            state.outlier.unnoticed_return(now)
        } else {
            None
        };
        state.ramp.factor(self.slow_start, returned, now)
    }
}

/// The endpoints of a pool as one pick sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidates<'a> {
    pub(crate) endpoints: &'a [Endpoint],
    pub(crate) rules: &'a Rules,
    pub(crate) shared: &'a Arc<PoolState>,
    pub(crate) tried: &'a [EndpointIndex],
    pub(crate) now: Stamp,
    /// Whether too few are in service, so that all of them count as such.
    pub(crate) panic: bool,
}

impl Candidates<'_> {
    /// Whether this endpoint is in service, was not tried by this request, and has room for it.
    pub(crate) fn can_use(&self, index: EndpointIndex) -> bool {
        let endpoint = self.endpoint(index);
        self.serves(endpoint)
            && endpoint
                .state()
                .load
                .has_room(self.rules.ceiling(&endpoint.state().adaptive))
            && !self.tried.contains(&index)
    }

    /// Whether this endpoint would do if it had room.
    pub(crate) fn would_do(&self, index: EndpointIndex) -> bool {
        self.serves(self.endpoint(index)) && !self.tried.contains(&index)
    }

    fn serves(&self, endpoint: &Endpoint) -> bool {
        endpoint.enabled() && (self.panic || self.rules.in_service(endpoint.state(), self.now))
    }

    /// By which factor the weight of this endpoint counts: below 1 during slow start.
    pub(crate) fn ramp(&self, index: EndpointIndex) -> f64 {
        self.rules.ramp(self.endpoint(index).state(), self.now)
    }

    /// Whether a draw of this endpoint holds: during slow start only now and then.
    pub(crate) fn accepts(&self, index: EndpointIndex, draws: &mut Draws) -> bool {
        if self.rules.slow_start.is_zero() {
            return true;
        }
        let factor = self.ramp(index);
        factor >= 1.0 || unit(draws.next()) < factor
    }

    /// The same for a key, which goes to an endpoint in slow start from a certain factor on.
    pub(crate) fn accepts_key(&self, index: EndpointIndex, key: u64) -> bool {
        /// Makes the decision another one than that for a slot of the table.
        const SALT: u64 = 0x243f_6a88_85a3_08d3;
        if self.rules.slow_start.is_zero() {
            return true;
        }
        let factor = self.ramp(index);
        factor >= 1.0 || unit(mix(key ^ SALT)) < factor
    }

    /// Active requests over weight, as it counts now.
    pub(crate) fn load(&self, index: EndpointIndex) -> f64 {
        self.over_ramp(index, self.endpoint(index).load())
    }

    /// A cost, higher by as much as the weight counts less.
    pub(crate) fn over_ramp(&self, index: EndpointIndex, cost: f64) -> f64 {
        if self.rules.slow_start.is_zero() {
            cost
        } else {
            cost / self.ramp(index)
        }
    }

    pub(crate) fn endpoint(&self, index: EndpointIndex) -> &Endpoint {
        &self.endpoints[index.as_usize()]
    }
}

/// Random bits as a number from 0 to below 1.
fn unit(bits: u64) -> f64 {
    const SCALE: f64 = 1.0 / (1_u64 << 32) as f64;
    f64::from(low_half(bits)) * SCALE
}
