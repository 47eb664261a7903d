//! The one of two endpoints that will probably answer sooner: latency times load.
//!
//! Least-request sees a slow node only by the requests that pile up at it; one whose answers take
//! ten times as long gets a tenth of the requests, which all are slow. Here the latency itself
//! counts (see `latency` for what that is), times the requests under way with the new one, as in
//! Finagle's and Linkerd's balancers.
//!
//! Two things are done so that a node of which little is known is neither starved nor flooded. Its
//! latency is taken to be the typical one of the pool, as far as its own samples are few or old. And
//! it is left alone while [`FEW`] requests are under way at it, unless the other one is such a node
//! too: a figure that is only a guess must not draw a crowd before the first answers are in.
//!
//! Nor does a small difference decide: endpoints whose costs are within [`LIKE`] of each other count
//! as equal, and the first drawn wins. Otherwise, in a pool that is not busy, the one that is slower
//! by a hair would lose every comparison and get next to nothing.
//!
//! Both are drawn by weight. The load of a heavier endpoint is divided by its weight, but the one
//! that the new request adds is not: at low load, where it is all there is, every request would go
//! to the heavier one of two, and the draw has given it its share already.

use crate::endpoint::EndpointIndex;
use crate::random::Draws;

use super::{Candidates, Urn};

/// Requests that may be under way at an endpoint of which little is known.
const FEW: u32 = 4;

/// How many times the cost of one endpoint that of another has to be, to be more.
const LIKE: f64 = 1.2;

/// What a request to an endpoint would cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Little known and with enough to do. Compared first.
    unsure: bool,
    micros: f64,
}

impl Cost {
    fn clearly_below(self, other: Self) -> bool {
        if self.unsure == other.unsure {
            self.micros * LIKE < other.micros
        } else {
            other.unsure
        }
    }
}

/// The cheaper of two; the only one, if one can be used; else `None`.
pub(crate) fn pick(
    urn: &Urn,
    candidates: &Candidates<'_>,
    draws: &mut Draws,
) -> Option<EndpointIndex> {
    let first = urn.draw(candidates, draws)?;
    match urn.draw_another(candidates, first, draws) {
        Some(second)
            if cost(second, urn, candidates).clearly_below(cost(first, urn, candidates)) =>
        {
            Some(second)
        }
        _ => Some(first),
    }
}

fn cost(index: EndpointIndex, urn: &Urn, candidates: &Candidates<'_>) -> Cost {
    let state = candidates.endpoint(index).state();
    let known = state
        .latency
        .known(candidates.shared.typical(), candidates.now);
    let load = candidates.load(index) * urn.mean_weight() + 1.0;
    Cost {
        unsure: !known.well && state.load.active() >= FEW,
        // Before anything is known of anybody, load alone decides.
        micros: candidates.over_ramp(index, f64::from(known.micros.max(1.0)) * load),
    }
}
