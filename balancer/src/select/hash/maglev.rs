//! The table of Google's Maglev (Eisenbud et al., "Maglev: A Fast and Reliable Software Network
//! Load Balancer", NSDI 2016, section 3.4).
//!
//! Every endpoint has its own order of the places of a table, and in turn each takes the first of
//! its order that is free; who weighs less takes its turn less often. So endpoints have the same
//! number of places to within one or two, and the look-up is one access. When an endpoint leaves,
//! its places move, and a few others with them.
//!
//! An endpoint that will not do is passed over by going on to the places behind, so a failure moves
//! no other keys than its own.

use crate::convert::high_half;
use crate::endpoint::EndpointIndex;
use crate::random::mix;

use super::Bidder;

/// Places of a table. Primes, so that every step goes through all of them. The paper wants a
/// hundred for each endpoint; the greater one is for pools that need it.
const PLACES: u64 = 65_537;
const MANY_PLACES: u64 = 655_373;
/// Up to so many endpoints the smaller table does.
const FEW_ENDPOINTS: usize = 655;

/// The owner of each place; empty without endpoints.
#[derive(Debug)]
pub(super) struct Lookup(Box<[EndpointIndex]>);

/// Where an endpoint is in its order of the places.
struct Turn {
    owner: EndpointIndex,
    next: u64,
    step: u64,
    /// How many places it takes in a round, at most 1.
    pace: f64,
    /// What it is owed.
    due: f64,
}

impl Lookup {
    pub(super) fn new(bidders: &[Bidder]) -> Self {
        let places = if bidders.len() <= FEW_ENDPOINTS {
            PLACES
        } else {
            MANY_PLACES
        };
        let heaviest = bidders.iter().map(|bidder| bidder.weight).max();
        let heaviest = f64::from(heaviest.unwrap_or(1));
        // In an order that does not depend on the file.
        let mut bidders: Vec<_> = bidders.iter().collect();
        bidders.sort_by_key(|bidder| bidder.identity);
        let mut turns: Vec<Turn> = bidders
            .into_iter()
            .map(|bidder| Turn {
                owner: bidder.index,
                next: bidder.identity % places,
                step: mix(bidder.identity) % (places - 1) + 1,
                pace: f64::from(bidder.weight) / heaviest,
                due: 0.0,
            })
            .collect();
        let mut owners = vec![None; usize::try_from(places).unwrap_or(0)];
        let mut free = if turns.is_empty() { 0 } else { owners.len() };
        while free > 0 {
            for turn in &mut turns {
                turn.due += turn.pace;
                if turn.due < 1.0 || free == 0 {
                    continue;
                }
                turn.due -= 1.0;
                let at = turn.first_free(&owners, places);
                owners[at] = Some(turn.owner);
                free -= 1;
            }
        }
        Self(owners.into_iter().flatten().collect())
    }

    /// The owners of the places from that of `point` on.
    pub(super) fn walk(&self, point: u64) -> impl Iterator<Item = EndpointIndex> {
        let count = self.0.len() as u64;
        let at = high_half(u64::from(high_half(point)) * count) as usize;
        let (before, from) = self.0.split_at(at.min(self.0.len()));
        from.iter().chain(before).copied()
    }
}

impl Turn {
    /// Takes steps until a free place. There is one.
    fn first_free(&mut self, owners: &[Option<EndpointIndex>], places: u64) -> usize {
        loop {
            let at = usize::try_from(self.next).unwrap_or(0);
            self.next = (self.next + self.step) % places;
            if owners[at].is_none() {
                return at;
            }
        }
    }
}
