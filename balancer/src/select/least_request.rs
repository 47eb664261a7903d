//! The least busy of a few endpoints drawn at random.
//!
//! Taking the least busy of all would send every proxy to the same endpoint at the same moment, and
//! costs a look at each; two random choices come close without either (Mitzenmacher, "The Power of
//! Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001). More choices help a little
//! where few endpoints are much slower than the rest.
//!
//! All are drawn by weight, and busy means active requests over weight. On a tie, which is the rule
//! at low load, the first drawn wins, so that an idle pool is shared by weight too rather than by
//! position.

use crate::endpoint::EndpointIndex;
use crate::random::Draws;

use super::{Candidates, Urn};

/// The least busy of `choices`; the only one, if one can be used; else `None`.
pub(crate) fn pick(
    urn: &Urn,
    choices: u32,
    candidates: &Candidates<'_>,
    draws: &mut Draws,
) -> Option<EndpointIndex> {
    let mut best = urn.draw(candidates, draws)?;
    let mut least = candidates.load(best);
    for _ in 1..choices {
        let Some(other) = urn.draw_another(candidates, best, draws) else {
            break;
        };
        let load = candidates.load(other);
        if load < least {
            (best, least) = (other, load);
        }
    }
    Some(best)
}
