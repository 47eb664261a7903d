//! A ring of points, the consistent hashing that most balancers and memcached clients know as
//! ketama (Karger et al., "Consistent Hashing and Random Trees", STOC 1997).
//!
//! Every endpoint has a number of points on a circle, and a key belongs to the next point. If an
//! endpoint leaves, each of its stretches goes to the owner of the point behind it.
//!
//! Points and keys are hashed as in the rest of this crate and not by MD5, so keys are not where
//! another ketama would put them.
//!
//! Finding the next point by binary search would touch a dozen places in memory. Points are spread
//! evenly, so the upper bits of a key tell nearly where it is: an index by these bits says where to
//! begin, and from there it is a step or two.

use crate::convert::{floor_u64, high_half};
use crate::endpoint::EndpointIndex;
use crate::random::mix;

use super::Bidder;

/// Points of the lightest endpoint.
const POINTS: f64 = 160.0;
/// About as many points as a ring may have; with more weight than that, all get fewer.
const MAX_POINTS: f64 = (1_u32 << 17) as f64;

/// The points in their order.
#[derive(Debug)]
pub(super) struct Ring {
    points: Box<[Point]>,
    /// For each value of the upper bits, the first point that is not below it.
    starts: Box<[u32]>,
    /// How far to shift a position to get these bits.
    shift: u32,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    position: u32,
    owner: EndpointIndex,
}

impl Ring {
    pub(super) fn new(bidders: &[Bidder]) -> Self {
        let lightest = bidders.iter().map(|bidder| bidder.weight).min();
        let lightest = f64::from(lightest.unwrap_or(1));
        let units: f64 = bidders
            .iter()
            .map(|bidder| f64::from(bidder.weight) / lightest)
            .sum();
        let each = POINTS.min(MAX_POINTS / units.max(1.0));
        let mut points: Vec<(u32, u64, EndpointIndex)> = bidders
            .iter()
            .flat_map(|bidder| {
                let count = (f64::from(bidder.weight) / lightest * each).round();
                let position = |number| high_half(mix(bidder.identity ^ mix(number)));
                (0..floor_u64(count).max(1))
                    .map(move |number| (position(number), bidder.identity, bidder.index))
            })
            .collect();
        // Two points on one spot are ordered by identity, which does not depend on the file.
        points.sort_unstable_by_key(|(position, identity, _)| (*position, *identity));

        let bits = points.len().max(2).ilog2();
        let shift = u32::BITS - bits;
        let mut starts = vec![0; 1 << bits];
        let mut at = 0;
        for (upper, start) in (0_u32..).zip(&mut starts) {
            let below = |point: &(u32, u64, EndpointIndex)| point.0 >> shift < upper;
            at += points[at..].iter().take_while(|point| below(point)).count();
            *start = u32::try_from(at).unwrap_or(u32::MAX);
        }
        let points = points
            .into_iter()
            .map(|(position, _, owner)| Point { position, owner })
            .collect();
        Self {
            points,
            starts: starts.into(),
            shift,
        }
    }

    /// The owners of the points from `point` on, once around.
    pub(super) fn walk(&self, point: u64) -> impl Iterator<Item = EndpointIndex> {
        let position = high_half(point);
        let start = self.starts[(position >> self.shift) as usize] as usize;
        let (before, from) = self.points.split_at(start.min(self.points.len()));
        let skipped = from
            .iter()
            .take_while(|point| point.position < position)
            .count();
        let (passed, ahead) = from.split_at(skipped);
        ahead
            .iter()
            .chain(before)
            .chain(passed)
            .map(|point| point.owner)
    }
}
