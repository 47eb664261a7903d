//! Drawing endpoints at random by weight.
//!
//! The sums of weights are made once, so a draw is a binary search. An endpoint that cannot be used
//! is put back and another drawn, which leaves the shares of the others exactly as their weights
//! say. After a few vain draws, with most endpoints out of service, one pass over all of them
//! decides instead: it costs more but always ends, and has the same shares.

use crate::endpoint::{Endpoint, EndpointIndex};
use crate::random::Draws;

use super::Candidates;

/// Draws before giving up on luck. With half of the endpoints out of service one pick in 256 needs
/// the pass.
const MAX_DRAWS: usize = 8;

/// Endpoints to draw from.
#[derive(Debug)]
pub(crate) struct Urn {
    members: Box<[Member]>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    index: EndpointIndex,
    weight: u32,
    /// The sum of the weights up to and including this one.
    sum: u64,
}

impl Urn {
    pub(crate) fn new(members: &[(EndpointIndex, &Endpoint)]) -> Self {
        let mut sum = 0;
        let member = |(index, endpoint): &(EndpointIndex, &Endpoint)| {
            let weight = endpoint.weight().get();
            sum += u64::from(weight);
            Member {
                index: *index,
                weight,
                sum,
            }
        };
        Self {
            members: members.iter().map(member).collect(),
        }
    }

    /// Draws one that can be used; `None` if there is none.
    pub(crate) fn draw(
        &self,
        candidates: &Candidates<'_>,
        draws: &mut Draws,
    ) -> Option<EndpointIndex> {
        self.draw_where(draws, |index| candidates.can_use(index))
    }

    /// Draws one that can be used and is not `first`; `None` if there is none.
    pub(crate) fn draw_second(
        &self,
        candidates: &Candidates<'_>,
        first: EndpointIndex,
        draws: &mut Draws,
    ) -> Option<EndpointIndex> {
        if self.members.len() < 2 {
            return None;
        }
        self.draw_where(draws, |index| index != first && candidates.can_use(index))
    }

    fn draw_where(
        &self,
        draws: &mut Draws,
        wanted: impl Fn(EndpointIndex) -> bool,
    ) -> Option<EndpointIndex> {
        let lucky =
            (0..MAX_DRAWS).find_map(|_| self.draw_any(draws).filter(|index| wanted(*index)));
        lucky.or_else(|| self.pass(draws, wanted))
    }

    fn draw_any(&self, draws: &mut Draws) -> Option<EndpointIndex> {
        let total = self.members.last()?.sum;
        let point = draws.below(total);
        let at = self.members.partition_point(|member| member.sum <= point);
        self.members.get(at).map(|member| member.index)
    }

    /// Looks at each member once: the k-th that is wanted replaces the choice with the probability
    /// of its weight over the weights so far, which gives each of them its share without knowing
    /// their sum beforehand.
    fn pass(
        &self,
        draws: &mut Draws,
        wanted: impl Fn(EndpointIndex) -> bool,
    ) -> Option<EndpointIndex> {
        let mut chosen = None;
        let mut sum = 0;
        for member in self.members.iter().filter(|member| wanted(member.index)) {
            sum += u64::from(member.weight);
            if draws.below(sum) < u64::from(member.weight) {
                chosen = Some(member.index);
            }
        }
        chosen
    }
}
