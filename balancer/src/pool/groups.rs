//! Groups of endpoints in their order of preference, and how much each of them gets.
//!
//! Endpoints form levels: one for each priority, then the backups in the same way. If the program's own zone is
//! known and the level has endpoints there, the level is two groups: these, then the others. A
//! request goes to one group, chosen at random by the shares below, and if nobody of it can be used
//! to the later ones and then to the earlier ones. So shares decide where load goes and never
//! whether there is an answer.
//!
//! A level gets every request as long as the part of its weight that is in service is not below a
//! threshold. Below it, it gets as much as it can bear by that measure (with half of it in service
//! and a threshold of 80 %: five eighths) and the next level gets the rest, by the same measure.
//! The threshold is where the capacity that was planned as spare is used up; to send everything on
//! only when the last endpoint is gone would bury those that remain. If all levels together cannot
//! bear everything, they share by what they can. Own and other zones share a level's requests in
//! the same way. (The model is that of Envoy's overprovisioning factor, which is one over the
//! threshold.)
//!
//! With no level at the panic threshold, failing checks say more about the checks, or about a load
//! that too few have to bear, than about the endpoints: then all count as in service.
//!
//! Shares are kept in atomics and reckoned anew when health has changed, which is known by a
//! counter that all pools of an upstream share, or when an ejection is over. A pick thus reads three
//! words, however many endpoints there are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::convert::{floor_u32, high_half};
use crate::endpoint::{Endpoint, EndpointIndex};
use crate::random::{Draws, mix};
use crate::select::{Rules, Tier};
use crate::settings::PoolSettings;
use crate::shared::PoolState;
use crate::stamp::Stamp;

/// Attempts to reckon shares while health keeps changing; after that the next pick tries again.
const MAX_ATTEMPTS: usize = 3;

/// All groups of a pool.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Box<[Group]>,
    /// Which groups make up each level.
    levels: Box<[Range<usize>]>,
    overflow_below: u8,
    zone_overflow_below: u8,
    panic_threshold: u8,
    /// The generation of health that the shares are for, plus one; 0: none.
    reckoned: AtomicU64,
    /// When the first ejection ends that the shares count with.
    until: AtomicU64,
    panic: AtomicBool,
}

/// Endpoints that are equal before the algorithm.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tier: Tier,
    key: Key,
    members: Box<[EndpointIndex]>,
    /// Of those that may be used.
    weight: u64,
    /// Of those in service.
    in_service: AtomicU64,
    /// Where the share of this group ends, in parts of 2^32. The last one ends at `u32::MAX`.
    share_end: AtomicU32,
}

/// What tells groups apart, in the order of preference: backups last, by priority, other zones
/// last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    backup: bool,
    priority: u8,
    elsewhere: bool,
}

impl Key {
    fn of(endpoint: &Endpoint, own_zone: Option<&str>) -> Self {
        Self {
            backup: endpoint.backup(),
            priority: endpoint.priority(),
            elsewhere: own_zone.is_some() && endpoint.zone() != own_zone,
        }
    }

    fn level(self) -> (bool, u8) {
        (self.backup, self.priority)
    }
}

impl Groups {
    pub(super) fn new(
        settings: &PoolSettings,
        endpoints: &[Endpoint],
        previous: Option<&Self>,
        reuse: bool,
    ) -> Self {
        let mut members: BTreeMap<Key, Vec<(EndpointIndex, &Endpoint)>> = BTreeMap::new();
        for (index, endpoint) in super::numbered(endpoints) {
            let key = Key::of(endpoint, settings.own_zone.as_deref());
            members.entry(key).or_default().push((index, endpoint));
        }
        let groups: Box<[Group]> = members
            .into_iter()
            .map(|(key, members)| {
                let previous = previous.and_then(|previous| previous.find(key));
                let tier = Tier::new(settings.balance, &members, previous, reuse);
                let enabled = members.iter().filter(|(_, endpoint)| endpoint.enabled());
                Group {
                    tier,
                    key,
                    members: members.iter().map(|(index, _)| *index).collect(),
                    weight: enabled.map(|(_, it)| u64::from(it.weight().get())).sum(),
                    in_service: AtomicU64::new(0),
                    share_end: AtomicU32::new(u32::MAX),
                }
            })
            .collect();
        let mut levels: Vec<Range<usize>> = Vec::new();
        for (at, group) in groups.iter().enumerate() {
            match levels.last_mut() {
                Some(level) if groups[level.start].key.level() == group.key.level() => {
                    level.end = at + 1;
                }
                _ => levels.push(at..at + 1),
            }
        }
        Self {
            groups,
            levels: levels.into(),
            overflow_below: settings.overflow_below,
            zone_overflow_below: settings.zone_overflow_below,
            panic_threshold: settings.panic_threshold,
            reckoned: AtomicU64::new(0),
            until: AtomicU64::new(0),
            panic: AtomicBool::new(false),
        }
    }

    fn find(&self, key: Key) -> Option<&Tier> {
        let group = self.groups.iter().find(|group| group.key == key)?;
        Some(&group.tier)
    }

    /// The groups for a request in the order in which they are asked. The choice is the key's, if
    /// there is one, so that a key stays where it is.
    pub(super) fn in_turn<'a>(
        &'a self,
        hash: Option<u64>,
        draws: &mut Draws,
    ) -> impl Iterator<Item = &'a Group> + use<'a> {
        /// Makes the choice of a group another one than that of an endpoint.
        const SALT: u64 = 0x1319_8a2e_0370_7344;
        let chosen = match self.groups.first() {
            Some(first) if first.share_end.load(Ordering::Relaxed) != u32::MAX => {
                let point = high_half(hash.map_or_else(|| draws.next(), |hash| mix(hash ^ SALT)));
                let ends = |group: &Group| {
                    let end = group.share_end.load(Ordering::Relaxed);
                    point < end || end == u32::MAX
                };
                self.groups.iter().position(ends).unwrap_or(0)
            }
            _ => 0,
        };
        let level = self.levels.iter().find(|level| level.contains(&chosen));
        let level = level.cloned().unwrap_or(chosen..chosen + 1);
        // Then the rest of its level, for what is of one priority stands in for each other; then
        // all others in their order.
        let same = level.clone().filter(move |at| *at != chosen);
        let others = (0..self.groups.len()).filter(move |at| !level.contains(at));
        let order = std::iter::once(chosen).chain(same).chain(others);
        order.filter_map(|at| self.groups.get(at))
    }

    /// Whether health and ejections are ignored.
    pub(super) fn panic(&self) -> bool {
        self.panic.load(Ordering::Relaxed)
    }

    /// Reckons the shares if they are out of date.
    pub(super) fn refresh(
        &self,
        endpoints: &[Endpoint],
        rules: &Rules,
        shared: &PoolState,
        now: Stamp,
    ) {
        let generation = shared.generation();
        let current = self.reckoned.load(Ordering::Relaxed) == generation + 1;
        if !current || now.as_nanos() >= self.until.load(Ordering::Relaxed) {
            self.reckon(endpoints, rules, shared, now);
        }
    }

    /// Threads may do this at the same time, with different views of health. Each looks at the
    /// counter again when it is done, so whoever is the last to write has seen the last change.
    #[cold]
    fn reckon(&self, endpoints: &[Endpoint], rules: &Rules, shared: &PoolState, now: Stamp) {
        for _ in 0..MAX_ATTEMPTS {
            let generation = shared.generation();
            self.survey(endpoints, rules, now);
            let panic = self.panics();
            self.panic.store(panic, Ordering::Relaxed);
            self.share_out(panic);
            self.reckoned.store(generation + 1, Ordering::Relaxed);
            if shared.generation() == generation {
                return;
            }
        }
        self.reckoned.store(0, Ordering::Relaxed);
    }

    /// Adds up who is in service, and finds out until when that holds.
    fn survey(&self, endpoints: &[Endpoint], rules: &Rules, now: Stamp) {
        let mut until = u64::MAX;
        for group in &self.groups {
            let mut in_service = 0;
            for index in &group.members {
                let endpoint = &endpoints[index.as_usize()];
                let state = endpoint.state();
                if !endpoint.enabled() {
                    continue;
                }
                if rules.in_service(state, now) {
                    in_service += u64::from(endpoint.weight().get());
                } else if rules.outlier && state.outlier.is_ejected(now) {
                    until = until.min(state.outlier.until().as_nanos());
                }
            }
            group.in_service.store(in_service, Ordering::Relaxed);
        }
        self.until.store(until, Ordering::Relaxed);
    }

    fn panics(&self) -> bool {
        let threshold = u128::from(self.panic_threshold.min(100));
        let mut any = false;
        for level in &self.levels {
            let groups = &self.groups[level.clone()];
            let (in_service, weight) = sum(groups);
            if weight > 0 {
                any = true;
                if u128::from(in_service) * 100 >= threshold * u128::from(weight) {
                    return false;
                }
            }
        }
        any && threshold > 0
    }

    fn share_out(&self, panic: bool) {
        if panic {
            for group in &self.groups {
                group.in_service.store(group.weight, Ordering::Relaxed);
            }
        }
        let bears = |level: &Range<usize>| {
            let (in_service, weight) = sum(&self.groups[level.clone()]);
            capacity(in_service, weight, self.overflow_below)
        };
        // What the levels bear together, which is less than 1 if it is not enough.
        let together: f64 = self.levels.iter().map(bears).sum::<f64>().min(1.0);
        let mut left = together;
        let mut end = 0.0;
        for level in &self.levels {
            let takes = bears(level).min(left);
            left -= takes;
            let share = if together > 0.0 {
                takes / together
            } else {
                1.0
            };
            self.share_level(&self.groups[level.clone()], end, share);
            end += share;
        }
        if let Some(last) = self.groups.last() {
            last.share_end.store(u32::MAX, Ordering::Relaxed);
        }
    }

    /// Shares a level's requests out between the own zone and the others.
    fn share_level(&self, groups: &[Group], begin: f64, share: f64) {
        let bears = |group: &Group| {
            let in_service = group.in_service.load(Ordering::Relaxed);
            capacity(in_service, group.weight, self.zone_overflow_below)
        };
        let together = groups.iter().map(bears).sum::<f64>().min(1.0);
        let mut left = together;
        let mut end = begin;
        for group in groups {
            let takes = bears(group).min(left);
            left -= takes;
            end += if together > 0.0 {
                share * takes / together
            } else {
                share / groups.len() as f64
            };
            // A sum of fractions may fall short of 1 by a hair.
            let parts = floor_u32((end + 1e-12) * (1_u64 << 32) as f64);
            group.share_end.store(parts, Ordering::Relaxed);
        }
    }
}

impl Group {
    /// The weight of those in service.
    pub(super) fn weight_in_service(&self) -> u64 {
        self.in_service.load(Ordering::Relaxed)
    }
}

/// The weight in service and all of it.
fn sum(groups: &[Group]) -> (u64, u64) {
    groups.iter().fold((0, 0), |(in_service, weight), group| {
        let more = group.in_service.load(Ordering::Relaxed);
        (in_service + more, weight + group.weight)
    })
}

/// Which part of all requests a group bears.
fn capacity(in_service: u64, weight: u64, below: u8) -> f64 {
    if in_service == 0 {
        return 0.0;
    }
    let percent = in_service as f64 * 100.0 / weight.max(1) as f64;
    let below = f64::from(below.min(100));
    if percent >= below {
        1.0
    } else {
        percent / below
    }
}
