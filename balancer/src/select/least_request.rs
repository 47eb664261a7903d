//! The less busy of two endpoints drawn at random.
//!
//! Taking the least busy of all would send every proxy to the same endpoint at the same moment, and
//! costs a look at each; two random choices come close without either (Mitzenmacher, "The Power of
//! Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001).
//!
//! Both are drawn by weight, and busy means active requests over weight. On a tie, which is the
//! rule at low load, the first drawn wins, so that an idle pool is shared by weight too rather than
//! by position.

use crate::endpoint::EndpointIndex;
use crate::random::Draws;

use super::{Candidates, Urn};

/// The less busy of two; the only one, if one can be used; else `None`.
pub(crate) fn pick(
    urn: &Urn,
    candidates: &Candidates<'_>,
    draws: &mut Draws,
) -> Option<EndpointIndex> {
    let first = urn.draw(candidates, draws)?;
    match urn.draw_second(candidates, first, draws) {
        Some(second) if candidates.compare_load(second, first).is_lt() => Some(second),
        _ => Some(first),
    }
}
