//! Drawing endpoints at random by weight.
//!
//! A draw is one look-up, by the alias method (Walker, "An Efficient Method for Generating Discrete
//! Random Variables with General Distributions", ACM TOMS 3(3), 1977; the table as in Vose, IEEE
//! TSE 17(9), 1991): every member has a cell of equal size, and who has more weight than fills its
//! own fills up the cells of those who have less.
//!
//! An endpoint that cannot be used is put back and another drawn, which leaves the shares of the
//! others exactly as their weights say. After a few vain draws, with most endpoints out of service,
//! one pass over all of them decides instead: it costs more but always ends, and has the same
//! shares.

use crate::convert::{floor_u64, high_half, low_half};
use crate::endpoint::EndpointIndex;
use crate::random::Draws;

use super::{Candidates, Member};

/// Draws before giving up on luck. With half of the endpoints out of service one pick in 256 needs
/// the pass.
const MAX_DRAWS: usize = 8;

/// Parts of a weight in a pass, so that slow start can take a fraction of it.
const PARTS: f64 = 1024.0;

/// Endpoints to draw from.
#[derive(Debug)]
pub(crate) struct Urn {
    cells: Box<[Cell]>,
    mean_weight: f64,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    index: EndpointIndex,
    /// Whose the rest of the cell is.
    alias: EndpointIndex,
    /// How much of the cell is `index`'s own, of 2^32; all of it if `index` is the alias.
    own: u32,
}

impl Urn {
    pub(crate) fn new(members: &[Member<'_>]) -> Self {
        let count = members.len() as u128;
        let weights = members
            .iter()
            .map(|(_, endpoint)| u128::from(endpoint.weight().get()));
        let total: u128 = weights.clone().sum();
        let mut cells: Vec<Cell> = members
            .iter()
            .map(|(index, _)| Cell {
                index: *index,
                alias: *index,
                own: u32::MAX,
            })
            .collect();
        // In units in which a cell holds `total`.
        let mut left: Vec<u128> = weights.map(|weight| weight * count).collect();
        let (mut small, mut large): (Vec<_>, Vec<_>) =
            (0..cells.len()).partition(|at| left[*at] < total);
        while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
            let own = (left[poor] << 32) / total.max(1);
            cells[poor].own = u32::try_from(own).unwrap_or(u32::MAX);
            cells[poor].alias = members[rich].0;
            left[rich] -= total - left[poor];
            if left[rich] < total {
                large.pop();
                small.push(rich);
            }
        }
        Self {
            cells: cells.into(),
            mean_weight: total as f64 / (count as f64).max(1.0),
        }
    }

    /// The mean of the weights.
    pub(crate) fn mean_weight(&self) -> f64 {
        self.mean_weight
    }

    /// Draws one that can be used; `None` if there is none.
    pub(crate) fn draw(
        &self,
        candidates: &Candidates<'_>,
        draws: &mut Draws,
    ) -> Option<EndpointIndex> {
        self.draw_where(candidates, draws, |index| candidates.can_use(index))
    }

    /// Draws one that can be used and is not `other`; `None` if there is none.
    pub(crate) fn draw_another(
        &self,
        candidates: &Candidates<'_>,
        other: EndpointIndex,
        draws: &mut Draws,
    ) -> Option<EndpointIndex> {
        if self.cells.len() < 2 {
            return None;
        }
        self.draw_where(candidates, draws, |index| {
            index != other && candidates.can_use(index)
        })
    }

    fn draw_where(
        &self,
        candidates: &Candidates<'_>,
        draws: &mut Draws,
        wanted: impl Fn(EndpointIndex) -> bool,
    ) -> Option<EndpointIndex> {
        for _ in 0..MAX_DRAWS {
            let index = self.draw_any(draws)?;
            if wanted(index) && candidates.accepts(index, draws) {
                return Some(index);
            }
        }
        self.pass(candidates, draws, wanted)
    }

    fn draw_any(&self, draws: &mut Draws) -> Option<EndpointIndex> {
        let bits = draws.next();
        let at = high_half(u64::from(high_half(bits)) * self.cells.len() as u64);
        let cell = self.cells.get(at as usize)?;
        Some(if low_half(bits) < cell.own {
            cell.index
        } else {
            cell.alias
        })
    }

    /// Looks at each member once: the k-th that is wanted replaces the choice with the probability
    /// of its weight over the weights so far, which gives each of them its share without knowing
    /// their sum beforehand.
    fn pass(
        &self,
        candidates: &Candidates<'_>,
        draws: &mut Draws,
        wanted: impl Fn(EndpointIndex) -> bool,
    ) -> Option<EndpointIndex> {
        let mut chosen = None;
        let mut sum = 0_u64;
        for cell in self.cells.iter().filter(|cell| wanted(cell.index)) {
            let weight = f64::from(candidates.endpoint(cell.index).weight().get());
            let weight = floor_u64(weight * candidates.ramp(cell.index) * PARTS);
            sum = sum.saturating_add(weight);
            if draws.below(sum) < weight {
                chosen = Some(cell.index);
            }
        }
        chosen
    }
}
