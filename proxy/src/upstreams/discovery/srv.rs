//! SRV records (RFC 2782): from priorities and weights of the DNS to those of a pool.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// Lowest rank; what stands behind it shares it.
const LAST_PRIORITY: u8 = 9;

/// Largest weight of an endpoint.
const LARGEST_WEIGHT: u64 = 1000;

/// Parts of a weight above which what an address gets is rounded.
const FINEST: u64 = 1_000_000;

/// One SRV record that names a target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Service {
    /// Lower ones are used first.
    pub(super) priority: u16,
    /// Share among those of one priority; 0: "when there isn't any server selection to do", or a
    /// very small chance beside others.
    pub(super) weight: u16,
    /// Host name.
    pub(super) target: String,
    /// Port.
    pub(super) port: u16,
}

/// Rank and weight of each address behind each record; `addresses` tells how many a record's
/// target has.
///
/// Priorities are ranked from 0. A weight belongs to a record, so the addresses of its target
/// share it; what comes out is scaled so that no priority's largest one is above 1000 and none is
/// 0 (a record of weight 0 counts as 1).
pub(super) fn rank(services: &[Service], addresses: &[usize]) -> Vec<(u8, NonZeroU32)> {
    let counted = || services.iter().zip(addresses.iter().copied());
    let mut levels: BTreeMap<u16, Level> = BTreeMap::new();
    for (service, addresses) in counted() {
        let level = levels.entry(service.priority).or_default();
        level.parts = common_multiple(level.parts, count_of(addresses)).min(FINEST);
    }
    for (service, addresses) in counted() {
        if let Some(level) = levels.get_mut(&service.priority) {
            level.largest = level.largest.max(level.share(service, addresses));
        }
    }
    for (rank, level) in levels.values_mut().enumerate() {
        level.rank = u8::try_from(rank).map_or(LAST_PRIORITY, |rank| rank.min(LAST_PRIORITY));
    }
    counted()
        .map(|(service, addresses)| {
            levels
                .get(&service.priority)
                .map_or((LAST_PRIORITY, NonZeroU32::MIN), |level| {
                    (level.rank, level.weight(service, addresses))
                })
        })
        .collect()
}

/// The records of one priority.
struct Level {
    rank: u8,
    /// Into how many parts a weight of 1 is cut, so that every target's addresses get whole ones.
    parts: u64,
    /// The largest share of an address.
    largest: u64,
}

impl Default for Level {
    fn default() -> Self {
        Self {
            rank: LAST_PRIORITY,
            parts: 1,
            largest: 1,
        }
    }
}

impl Level {
    fn share(&self, service: &Service, addresses: usize) -> u64 {
        u64::from(service.weight.max(1)) * self.parts / count_of(addresses)
    }

    fn weight(&self, service: &Service, addresses: usize) -> NonZeroU32 {
        let mut share = self.share(service, addresses);
        if self.largest > LARGEST_WEIGHT {
            share = (share * LARGEST_WEIGHT + self.largest / 2) / self.largest;
        }
        u32::try_from(share)
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MIN)
    }
}

fn count_of(addresses: usize) -> u64 {
    u64::try_from(addresses).unwrap_or(u64::MAX).max(1)
}

fn common_multiple(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1)).saturating_mul(b)
}
