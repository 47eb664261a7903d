//! Choosing among the endpoints of one tier.
//!
//! A [`Tier`] holds endpoints that are equal before the algorithm: today the primaries are one and
//! the backups another. Everything that depends on the configuration alone (sequences, sums of
//! weights, the table for hashing) is made when the tier is; health is looked at anew by each pick,
//! through [`Candidates`]. So a change of health costs nothing and moves no more requests than it
//! must.
//!
//! Every algorithm keeps one promise: it returns an endpoint whenever one of the tier can be used.

mod hash;
mod least_request;
mod round_robin;
mod urn;

use std::cmp::Ordering;

use crate::endpoint::{Endpoint, EndpointIndex};
use crate::random::Draws;
use crate::settings::Balance;
use crate::stamp::Stamp;

use hash::Table;
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
    LeastRequest,
    Hash(Table),
}

impl Tier {
    /// Prepares the choice among `members`. `turn` is where round robin goes on, see
    /// [`Tier::turn`].
    pub(crate) fn new(
        balance: Balance,
        members: &[(EndpointIndex, &Endpoint)],
        turn: usize,
    ) -> Self {
        let method = match balance {
            Balance::RoundRobin => Method::RoundRobin(Box::new(Sequence::new(members, turn))),
            Balance::Random => Method::Random,
            Balance::LeastRequest => Method::LeastRequest,
            Balance::Hash => Method::Hash(Table::new(members)),
        };
        Self {
            urn: Urn::new(members),
            method,
        }
    }

    /// Chooses one that can be used; `None` if there is none. `hash` is the key of the request, for
    /// hashing.
    pub(crate) fn pick(
        &self,
        candidates: &Candidates<'_>,
        hash: Option<u64>,
        draws: &mut Draws,
    ) -> Option<EndpointIndex> {
        match &self.method {
            Method::RoundRobin(sequence) => sequence
                .next(candidates)
                .or_else(|| self.urn.draw(candidates, draws)),
            Method::Random => self.urn.draw(candidates, draws),
            Method::LeastRequest => least_request::pick(&self.urn, candidates, draws),
            Method::Hash(table) => match hash {
                Some(hash) => table.pick(hash, candidates),
                None => self.urn.draw(candidates, draws),
            },
        }
    }

    /// Where round robin stands, for the tier that comes after a reload: without it, reloads in
    /// quick succession would favour the first endpoints.
    pub(crate) fn turn(&self) -> usize {
        match &self.method {
            Method::RoundRobin(sequence) => sequence.turn(),
            Method::Random | Method::LeastRequest | Method::Hash(_) => 0,
        }
    }
}

/// The endpoints of a pool as one pick sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidates<'a> {
    pub(crate) endpoints: &'a [Endpoint],
    pub(crate) tried: &'a [EndpointIndex],
    pub(crate) now: Stamp,
    /// Whether the pool believes checks.
    pub(crate) checks: bool,
    /// Whether the pool believes ejections.
    pub(crate) outlier: bool,
}

impl Candidates<'_> {
    /// Whether this endpoint is in service and was not tried by this request.
    pub(crate) fn can_use(&self, index: EndpointIndex) -> bool {
        self.in_service(index) && !self.tried.contains(&index)
    }

    /// Whether this endpoint is healthy and not ejected, as far as the pool looks at that.
    pub(crate) fn in_service(&self, index: EndpointIndex) -> bool {
        let state = self.endpoint(index).state();
        !(self.checks && state.checks.is_unhealthy()
            || self.outlier && state.outlier.is_ejected(self.now))
    }

    /// Compares how busy two endpoints are: active requests over weight.
    fn compare_load(&self, one: EndpointIndex, other: EndpointIndex) -> Ordering {
        let (one, other) = (self.endpoint(one), self.endpoint(other));
        // a / v < b / w, without dividing: a * w < b * v
        let cross = |endpoint: &Endpoint, divisor: &Endpoint| {
            u64::from(endpoint.active()) * u64::from(divisor.weight().get())
        };
        cross(one, other).cmp(&cross(other, one))
    }

    fn endpoint(&self, index: EndpointIndex) -> &Endpoint {
        &self.endpoints[index.as_usize()]
    }
}
