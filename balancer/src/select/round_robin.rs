//! In turn, by weight, smoothly.
//!
//! "Smoothly" as nginx does it: an endpoint of weight 5 beside two of weight 1 gets a a b a c a a,
//! not five in a row. nginx keeps running sums under a lock. Here one full round of them is played
//! when the tier is made, and a pick takes the next place of that sequence with one atomic
//! addition.
//!
//! An endpoint that cannot be used is skipped *by taking further places*, not by looking at the
//! neighbour while the place stays where it is. The difference matters: looking at the neighbour
//! would give the whole share of a dead endpoint to the one behind it, whereas taking places leaves
//! the sequence as if the dead endpoint were not in it, and the others share its load by weight. An
//! endpoint in slow start is skipped now and then in the same way.
//! Long stretches of unusable places end in `None`; the caller then draws at random by weight,
//! which has the same shares.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::endpoint::EndpointIndex;
use crate::random::Draws;

use super::{Candidates, Member};

/// The longest sequence for weights without a small common measure. Shares are then off by at most
/// one place in it. A pool with more endpoints than this has a sequence with one place for each.
const MAX_PLACES: u64 = 4096;

/// Places that one pick may take before it gives up.
const MAX_SKIPS: usize = 16;

/// One full round, and where it stands.
#[derive(Debug)]
pub(crate) struct Sequence {
    places: Box<[EndpointIndex]>,
    turn: Turn,
}

/// Written by every pick on every core: alone on its cache lines, so that what lies beside it stays
/// readable.
#[derive(Debug)]
#[repr(align(128))]
struct Turn(AtomicUsize);

impl Sequence {
    /// Plays one round for `members`, to be continued at `turn`.
    pub(crate) fn new(members: &[Member<'_>], turn: usize) -> Self {
        let weights: Vec<u32> = members
            .iter()
            .map(|(_, endpoint)| endpoint.weight().get())
            .collect();
        let places = interleave(&bounded(&weights))
            .into_iter()
            .map(|position| members[position].0)
            .collect();
        Self {
            places,
            turn: Turn(AtomicUsize::new(turn)),
        }
    }

    /// The next endpoint that can be used, unless that is too far away.
    pub(crate) fn next(
        &self,
        candidates: &Candidates<'_>,
        draws: &mut Draws,
    ) -> Option<EndpointIndex> {
        (0..self.places.len().min(MAX_SKIPS)).find_map(|_| {
            let turn = self.turn.0.fetch_add(1, Ordering::Relaxed);
            let index = self.places[turn % self.places.len()];
            (candidates.can_use(index) && candidates.accepts(index, draws)).then_some(index)
        })
    }

    pub(crate) fn turn(&self) -> usize {
        self.turn.0.load(Ordering::Relaxed)
    }
}

/// Weights in the same ratios, exactly if their sum can be brought to [`MAX_PLACES`], else as
/// closely as that allows.
fn bounded(weights: &[u32]) -> Vec<u64> {
    let exact = reduced(weights.iter().map(|weight| u64::from(*weight)).collect());
    let sum: u64 = exact.iter().sum();
    if sum <= MAX_PLACES {
        return exact;
    }
    let scaled = |weight: &u64| {
        let rounded =
            (u128::from(*weight) * u128::from(MAX_PLACES) + u128::from(sum / 2)) / u128::from(sum);
        u64::try_from(rounded).unwrap_or(MAX_PLACES).max(1)
    };
    reduced(exact.iter().map(scaled).collect())
}

/// The smallest whole numbers in the same ratios.
fn reduced(weights: Vec<u64>) -> Vec<u64> {
    let measure = weights.iter().copied().fold(0, common_measure).max(1);
    weights.into_iter().map(|weight| weight / measure).collect()
}

/// Euclid's algorithm.
fn common_measure(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// The order of one round, as positions into `weights`. In every step each position earns its
/// weight, and the richest one (the earlier, on a tie) gets the place and pays the sum of all
/// weights.
fn interleave(weights: &[u64]) -> Vec<usize> {
    if weights.iter().all(|weight| *weight == 1) {
        return (0..weights.len()).collect();
    }
    let sum: u64 = weights.iter().sum();
    let mut earned = vec![0_i128; weights.len()];
    let mut order = Vec::new();
    for _ in 0..sum {
        let mut richest = 0;
        for (position, weight) in weights.iter().enumerate() {
            earned[position] += i128::from(*weight);
            if earned[position] > earned[richest] {
                richest = position;
            }
        }
        earned[richest] -= i128::from(sum);
        order.push(richest);
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_heavy_endpoint_is_interleaved_with_light_ones() {
        assert_eq!(interleave(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn equal_weights_go_around() {
        assert_eq!(interleave(&bounded(&[7, 7, 7])), [0, 1, 2]);
    }

    #[test]
    fn nobody_makes_an_empty_sequence() {
        assert!(interleave(&bounded(&[])).is_empty());
    }

    #[test]
    fn weights_of_any_size_make_a_bounded_sequence_that_everybody_is_in() {
        let weights = bounded(&[u32::MAX, u32::MAX - 1, 1]);
        let sum: u64 = weights.iter().sum();
        assert!(sum <= MAX_PLACES + 2, "a round of {sum}");
        assert_eq!(weights, [2048, 2048, 1]);
    }

    proptest! {
        #[test]
        fn every_stretch_of_a_sequence_is_close_to_the_weights(
            weights in prop::collection::vec(1_u32..40, 1..8),
        ) {
            let weights = bounded(&weights);
            let sum: u64 = weights.iter().sum();
            let order = interleave(&weights);
            prop_assert_eq!(order.len() as u64, sum);
            let mut got = vec![0_u64; weights.len()];
            for (taken, position) in order.iter().enumerate() {
                got[*position] += 1;
                for (got, weight) in got.iter().zip(&weights) {
                    let due = (taken as f64 + 1.0) * *weight as f64 / sum as f64;
                    prop_assert!(
                        (*got as f64 - due).abs() < weights.len() as f64,
                        "after {} places {} instead of {}", taken + 1, got, due
                    );
                }
            }
            prop_assert_eq!(got, weights, "a full round is exact");
        }

        #[test]
        fn bounded_weights_keep_their_ratios(weights in prop::collection::vec(1_u32.., 1..50)) {
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            let places = bounded(&weights);
            let total: u64 = places.iter().sum();
            for (weight, places) in weights.iter().zip(&places) {
                let (wanted, got) = (f64::from(*weight) / sum, *places as f64 / total as f64);
                let step = 1.0 / MAX_PLACES as f64;
                prop_assert!((wanted - got).abs() <= step * 1.05, "wanted {wanted}, got {got}");
            }
        }
    }
}
