//! By the key of the request.
//!
//! A table (see [`HashTable`]) gives for each key an order in which endpoints are asked, and the
//! first that will do gets the request. That is one mechanism for everything that can stand in the
//! way: an endpoint that is out of service, one that was tried, one in slow start that does not
//! take this key yet, one that is too full.
//!
//! "Too full" is a bound on load: no endpoint gets more than a given multiple of its share of the
//! requests under way, so a popular key cannot bury its endpoint; what is over goes to the next in
//! the key's order. (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads",
//! 2016, arXiv:1608.01350.)

mod ketama;
mod maglev;
mod rendezvous;

use std::sync::Arc;

use crate::endpoint::EndpointIndex;
use crate::hash_key::hash_key;
use crate::random::mix;
use crate::settings::HashTable;

use super::{Candidates, Member};

use ketama::Ring;
use maglev::Lookup;
use rendezvous::Slots;

/// Places of a ring or a table that are looked at before bids decide. Only with nearly all
/// endpoints out of service does a pick get there.
const MAX_STEPS: usize = 64;

/// Hashing with its table and its bound.
#[derive(Debug)]
pub(crate) struct Hashing {
    kind: HashTable,
    table: Arc<Table>,
    /// The bound as a multiple of the share.
    max_load: Option<f64>,
}

/// A table and who is in it.
#[derive(Debug)]
struct Table {
    /// In the order of the pool.
    bidders: Box<[Bidder]>,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Rendezvous(Slots),
    Ketama(Ring),
    Maglev(Lookup),
}

/// An endpoint as hashing sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bidder {
    index: EndpointIndex,
    /// The hash of its id, so neither names nor the order in the file matter, and all instances of
    /// this program with the same endpoints agree.
    identity: u64,
    weight: u32,
    /// One over its weight.
    inverse_weight: f64,
}

impl Hashing {
    /// Lays out keys over `members`, or takes the table of `previous` if it is for the same ones.
    pub(crate) fn new(
        kind: HashTable,
        max_load: Option<u32>,
        members: &[Member<'_>],
        previous: Option<&Self>,
    ) -> Self {
        let bidders: Box<[Bidder]> = members.iter().map(Bidder::new).collect();
        let same = |previous: &&Self| previous.kind == kind && previous.table.bidders == bidders;
        let table = match previous.filter(same) {
            Some(previous) => Arc::clone(&previous.table),
            None => Arc::new(Table::new(kind, bidders)),
        };
        Self {
            kind,
            table,
            max_load: max_load.map(|percent| f64::from(percent) / 100.0),
        }
    }

    /// The endpoint for `key`; `None` if none can be used. `weight` is the sum of the weights in
    /// service.
    pub(crate) fn pick(
        &self,
        key: u64,
        weight: u64,
        candidates: &Candidates<'_>,
    ) -> Option<EndpointIndex> {
        let usable = |index| candidates.can_use(index);
        let Some(max_load) = self.max_load else {
            let first = self.table.find(key, |index| {
                usable(index) && candidates.accepts_key(index, key)
            });
            return if first.is_some() || candidates.rules.slow_start.is_zero() {
                first
            } else {
                self.table.find(key, usable)
            };
        };
        // The new request counts as under way.
        let requests = f64::from(candidates.shared.total.active()) + 1.0;
        let per_weight = max_load * requests / weight.max(1) as f64;
        let fits = |index| {
            let endpoint = candidates.endpoint(index);
            let bound = (per_weight * f64::from(endpoint.weight().get())).ceil();
            f64::from(endpoint.active()) < bound
        };
        self.table
            .find(key, |index| {
                usable(index) && fits(index) && candidates.accepts_key(index, key)
            })
            .or_else(|| self.table.find(key, |index| usable(index) && fits(index)))
            .or_else(|| self.table.find(key, usable))
    }
}

impl Table {
    fn new(kind: HashTable, bidders: Box<[Bidder]>) -> Self {
        let layout = match kind {
            HashTable::Rendezvous => Layout::Rendezvous(Slots::new(&bidders)),
            HashTable::Ketama => Layout::Ketama(Ring::new(&bidders)),
            HashTable::Maglev => Layout::Maglev(Lookup::new(&bidders)),
        };
        Self { bidders, layout }
    }

    /// The first in the order of `key` that will do.
    fn find(&self, key: u64, will_do: impl Fn(EndpointIndex) -> bool) -> Option<EndpointIndex> {
        // Mixed once more, so that a caller's own hash need not be a good one in its upper bits.
        let point = mix(key);
        let found = match &self.layout {
            Layout::Rendezvous(slots) => return slots.find(point, &self.bidders, will_do),
            Layout::Ketama(ring) => ring.walk(point).take(MAX_STEPS).find(|it| will_do(*it)),
            Layout::Maglev(lookup) => lookup.walk(point).take(MAX_STEPS).find(|it| will_do(*it)),
        };
        found.or_else(|| rendezvous::winner(&self.bidders, point, will_do))
    }
}

impl Bidder {
    fn new((index, endpoint): &Member<'_>) -> Self {
        let weight = endpoint.weight().get();
        Self {
            index: *index,
            identity: hash_key(endpoint.id().as_bytes()),
            weight,
            inverse_weight: 1.0 / f64::from(weight),
        }
    }
}
