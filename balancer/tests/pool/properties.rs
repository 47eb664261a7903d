//! What holds in any pool after any history.

use std::time::{Duration, Instant};

use balancer::{
    Active, AdaptiveSettings, Balance, Carry, Checks, EndpointIndex, EndpointSettings, HashTable,
    Health, Limits, Mode, Outcome, OutlierSettings, PickContext, PickError, Pool, PoolSettings,
    Transition,
};
use proptest::prelude::*;

use crate::support::{self, outlier, positive, start, thresholds};

/// One thing that happens to a pool. Positions are taken modulo the number of endpoints.
#[derive(Clone, Debug)]
enum Event {
    Probed {
        position: usize,
        passed: bool,
    },
    Recorded {
        position: usize,
        outcome: Outcome,
        millis: Option<u64>,
    },
    Acquired {
        hash: Option<u64>,
        random: u64,
        tried: Vec<bool>,
        prefer: Option<usize>,
    },
    /// One of the requests under way gets its connection, or ends.
    Connected {
        request: usize,
    },
    Ended {
        request: usize,
    },
    Passed {
        time: Duration,
    },
    Swept,
    Reloaded {
        settings: PoolSettings,
        carry: Carry,
    },
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![8 => Just(Mode::Enabled), 1 => Just(Mode::Drain), 1 => Just(Mode::Down)]
}

fn endpoints() -> impl Strategy<Value = Vec<EndpointSettings>> {
    let endpoint = (
        0_u16..12,
        prop_oneof![Just(1), 1_u32..10, 1_u32..],
        prop::bool::weighted(0.3),
        0_u8..3,
        prop::option::of(prop_oneof![Just("a"), Just("b")]),
        mode(),
    );
    prop::collection::vec(endpoint, 0..9).prop_map(|endpoints| {
        let mut settings: Vec<_> = endpoints
            .into_iter()
            .map(
                |(number, weight, backup, priority, zone, mode)| EndpointSettings {
                    backup,
                    priority,
                    zone: zone.map(str::to_owned),
                    mode,
                    ..support::endpoint(number, weight)
                },
            )
            .collect();
        settings.sort_by_key(|endpoint| endpoint.id.clone());
        settings.dedup_by(|one, other| one.id == other.id);
        settings
    })
}

fn outlier_settings() -> impl Strategy<Value = OutlierSettings> {
    let rate = prop::option::of(1_u8..=100);
    let factor = prop::option::of(1_u32..4);
    (1_u32..4, 0_u8..=100, rate, factor).prop_map(|(errors, percent, error_rate, factor)| {
        OutlierSettings {
            error_rate,
            latency_factor: factor.map(positive),
            min_requests: positive(2),
            ..outlier(errors, percent)
        }
    })
}

fn balance() -> impl Strategy<Value = Balance> {
    let table = prop::sample::select(&HashTable::ALL[..]);
    prop_oneof![
        2 => Just(Balance::RoundRobin),
        2 => Just(Balance::Random),
        2 => (2_u32..=10).prop_map(|n| Balance::LeastRequest { choices: positive(n) }),
        2 => Just(Balance::PeakEwma),
        1 => (table, prop::option::of(101_u32..300))
            .prop_map(|(table, max_load)| Balance::Hash { table, max_load }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let limit = || prop::option::of((1_u32..4).prop_map(positive));
    (limit(), limit(), limit()).prop_map(|(requests, pending, total)| Limits {
        endpoint_requests: requests,
        endpoint_pending: pending,
        total_requests: total.map(|total| total.saturating_mul(positive(3))),
    })
}

fn pool_settings() -> impl Strategy<Value = PoolSettings> {
    let checks = (1_u32..4, 1_u32..3, any::<bool>()).prop_map(|(down, up, start_healthy)| Checks {
        start_healthy,
        ..thresholds(down, up)
    });
    let preference = (
        prop::option::of(Just("a".to_owned())),
        0_u8..=100,
        0_u8..=100,
        prop_oneof![Just(0_u8), 1_u8..=100],
    );
    let adaptive = (1_u32..4, 1_u32..9).prop_map(|(min, more)| AdaptiveSettings {
        min: positive(min),
        max: positive(min + more),
    });
    let capacity = (
        prop_oneof![Just(Limits::default()), limits()],
        prop::option::of(adaptive),
        prop_oneof![Just(0_u64), 1_u64..40],
    );
    (
        endpoints(),
        balance(),
        prop::option::of(checks),
        prop::option::of(outlier_settings()),
        preference,
        capacity,
    )
        .prop_map(
            |(endpoints, balance, active_checks, outlier, preference, capacity)| {
                let (own_zone, overflow_below, zone_overflow_below, panic_threshold) = preference;
                let (limits, adaptive, slow_start) = capacity;
                PoolSettings {
                    active_checks,
                    outlier,
                    own_zone,
                    overflow_below,
                    zone_overflow_below,
                    panic_threshold,
                    limits,
                    adaptive,
                    slow_start: Duration::from_secs(slow_start),
                    ..support::settings(endpoints, balance)
                }
            },
        )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Success),
        Just(Outcome::ConnectFailed),
        Just(Outcome::Reset),
        Just(Outcome::Timeout),
        Just(Outcome::Status5xx),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let tried = prop::collection::vec(prop::bool::weighted(0.4), 0..9);
    prop_oneof![
        4 => (any::<usize>(), any::<bool>())
            .prop_map(|(position, passed)| Event::Probed { position, passed }),
        8 => (any::<usize>(), outcome(), prop::option::of(0_u64..2_000))
            .prop_map(|(position, outcome, millis)| Event::Recorded { position, outcome, millis }),
        8 => (any::<Option<u64>>(), any::<u64>(), tried, any::<Option<usize>>())
            .prop_map(|(hash, random, tried, prefer)| Event::Acquired { hash, random, tried, prefer }),
        3 => any::<usize>().prop_map(|request| Event::Connected { request }),
        3 => any::<usize>().prop_map(|request| Event::Ended { request }),
        3 => (0_u64..30_000)
            .prop_map(|millis| Event::Passed { time: Duration::from_millis(millis) }),
        1 => Just(Event::Swept),
        1 => (pool_settings(), prop_oneof![Just(Carry::Reload), Just(Carry::Refresh)])
            .prop_map(|(settings, carry)| Event::Reloaded { settings, carry }),
    ]
}

/// A pool with its history's time, the settings it was last made from, and what is under way.
struct History {
    pool: Pool,
    settings: PoolSettings,
    now: Instant,
    under_way: Vec<Active>,
}

impl History {
    fn new(settings: PoolSettings) -> Self {
        let now = start();
        Self {
            pool: Pool::new(settings.clone(), None, Carry::Reload, now),
            settings,
            now,
            under_way: Vec::new(),
        }
    }

    fn index(&self, position: usize) -> Option<EndpointIndex> {
        let count = self.pool.endpoints().count();
        self.pool
            .endpoints()
            .nth(position.checked_rem(count)?)
            .map(|(index, _)| index)
    }

    fn happens(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Probed { position, passed } => {
                if let Some(index) = self.index(position) {
                    self.pool.probed(index, passed, self.now);
                }
            }
            Event::Recorded {
                position,
                outcome,
                millis,
            } => {
                if let Some(index) = self.index(position) {
                    let others = self.healthy().iter().any(|other| *other != index);
                    let latency = millis.map(Duration::from_millis);
                    let transition = self.pool.record(index, outcome, latency, self.now);
                    if let Some(Transition::Ejected { .. }) = transition {
                        prop_assert!(others, "the last endpoint in service was ejected");
                    }
                }
            }
            Event::Acquired {
                hash,
                random,
                tried,
                prefer,
            } => self.acquire(hash, random, &tried, prefer)?,
            Event::Connected { request } => {
                let count = self.under_way.len();
                if let Some(active) = request
                    .checked_rem(count)
                    .and_then(|at| self.under_way.get_mut(at))
                {
                    active.connected();
                }
            }
            Event::Ended { request } => {
                if let Some(at) = request.checked_rem(self.under_way.len()) {
                    drop(self.under_way.swap_remove(at));
                }
            }
            Event::Passed { time } => self.now += time,
            Event::Swept => drop(self.pool.sweep(self.now)),
            Event::Reloaded { settings, carry } => {
                self.pool = Pool::new(settings.clone(), Some(&self.pool), carry, self.now);
                self.settings = settings;
                self.pool.sweep(self.now);
                // The count of the pool may begin with this one.
                self.under_way.clear();
            }
        }
        self.ejected_share_is_allowed()
    }

    /// Those in service.
    fn healthy(&self) -> Vec<EndpointIndex> {
        let status = self.pool.status(self.now);
        let both = self.pool.endpoints().zip(status);
        both.filter(|(_, status)| status.health == Health::Healthy)
            .map(|((index, _), _)| index)
            .collect()
    }

    /// Those that a request may go to, as far as health goes.
    fn in_service(&self) -> Vec<EndpointIndex> {
        if self.pool.summary(self.now).panic {
            let all = self.pool.endpoints();
            all.filter(|(_, endpoint)| endpoint.mode() == Mode::Enabled)
                .map(|(index, _)| index)
                .collect()
        } else {
            self.healthy()
        }
    }

    fn has_room(&self, index: EndpointIndex) -> bool {
        let status = self.pool.status(self.now)[index.as_usize()];
        let pending = self.settings.limits.endpoint_pending;
        status.limit.is_none_or(|limit| status.active < limit)
            && pending.is_none_or(|limit| status.pending < limit.get())
    }

    fn acquire(
        &mut self,
        hash: Option<u64>,
        random: u64,
        tried: &[bool],
        prefer: Option<usize>,
    ) -> Result<(), TestCaseError> {
        let tried: Vec<_> = self
            .pool
            .endpoints()
            .zip(tried)
            .filter(|(_, it)| **it)
            .map(|((index, _), _)| index)
            .collect();
        let mut will_do = self.in_service();
        will_do.retain(|index| !tried.contains(index));
        let total = self.settings.limits.total_requests;
        let full = total.is_some_and(|limit| self.under_way.len() >= limit.get() as usize);
        let usable: Vec<_> = will_do
            .iter()
            .copied()
            .filter(|index| !full && self.has_room(*index))
            .collect();
        let prefer = prefer.and_then(|position| self.index(position));
        let context = PickContext {
            hash,
            tried: &tried,
            prefer,
        };
        match self.pool.acquire(&context, self.now, random) {
            Ok((picked, active)) => {
                self.under_way.push(active);
                prop_assert!(usable.contains(&picked), "{picked:?} cannot be used");
                if let Some(prefer) = prefer.filter(|prefer| usable.contains(prefer)) {
                    prop_assert_eq!(picked, prefer);
                } else {
                    self.in_order(&usable, picked)?;
                }
            }
            Err(error) => {
                prop_assert!(usable.is_empty(), "{error:?} though {usable:?} can be used");
                let expected = if !will_do.is_empty() {
                    PickError::Saturated
                } else if tried.is_empty() {
                    PickError::NoneAvailable
                } else {
                    PickError::Exhausted
                };
                prop_assert_eq!(error, expected);
            }
        }
        Ok(())
    }

    /// Nobody is chosen while an earlier level has enough in service and somebody with room.
    fn in_order(
        &self,
        usable: &[EndpointIndex],
        picked: EndpointIndex,
    ) -> Result<(), TestCaseError> {
        let level = |index: EndpointIndex| {
            let endpoint = self.pool.endpoint(index);
            (endpoint.backup(), endpoint.priority())
        };
        let in_service = self.in_service();
        for earlier in usable.iter().filter(|it| level(**it) < level(picked)) {
            let members = |only: &[EndpointIndex]| -> u64 {
                let all = self.pool.endpoints();
                let same = all.filter(|(index, endpoint)| {
                    level(*index) == level(*earlier)
                        && endpoint.mode() == Mode::Enabled
                        && (only.is_empty() || only.contains(index))
                });
                same.map(|(_, endpoint)| u64::from(endpoint.weight().get()))
                    .sum()
            };
            let (serving, all) = (members(&in_service), members(&[]));
            let below = u64::from(self.settings.overflow_below);
            prop_assert!(
                serving * 100 < below * all,
                "{picked:?} before {earlier:?}: {serving} of {all} in service"
            );
        }
        Ok(())
    }

    fn ejected_share_is_allowed(&self) -> Result<(), TestCaseError> {
        let status = self.pool.status(self.now);
        let ejected = status.iter().filter(|it| it.ejected_for.is_some()).count();
        let allowed = self.settings.outlier.map_or(0, |outlier| {
            let percent = usize::from(outlier.max_ejected_percent);
            (status.len() * percent / 100).max(usize::from(percent > 0))
        });
        prop_assert!(
            ejected <= allowed,
            "{} of {} ejected, {} allowed",
            ejected,
            status.len(),
            allowed
        );
        Ok(())
    }
}

proptest! {
    #[test]
    fn picks_and_ejections_are_right_after_any_history(
        settings in pool_settings(),
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut history = History::new(settings);
        for event in events {
            history.happens(event)?;
        }
        history.under_way.clear();
        prop_assert_eq!(history.pool.summary(history.now).active, 0);
    }

    #[test]
    fn the_same_inputs_give_the_same_answer(
        settings in pool_settings(),
        hash: Option<u64>,
        random: u64,
    ) {
        let now = start();
        let context = PickContext { hash, ..PickContext::default() };
        let pick = || {
            let pool = Pool::new(settings.clone(), None, Carry::Reload, now);
            pool.pick(&context, now, random)
        };
        prop_assert_eq!(pick(), pick());
    }
}
