//! What holds in any pool after any history.

use std::time::{Duration, Instant};

use balancer::{
    Balance, EndpointIndex, EndpointSettings, Health, Outcome, OutlierSettings, PickContext,
    PickError, Pool, PoolSettings, Transition,
};
use proptest::prelude::*;

use crate::support::{self, outlier, start, thresholds};

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
    },
    Picked {
        hash: Option<u64>,
        random: u64,
        tried: Vec<bool>,
    },
    Passed {
        time: Duration,
    },
    Swept,
    Reloaded {
        settings: PoolSettings,
    },
}

fn endpoints() -> impl Strategy<Value = Vec<EndpointSettings>> {
    let endpoint = (
        0_u16..12,
        prop_oneof![Just(1), 1_u32..10, 1_u32..],
        prop::bool::weighted(0.3),
    );
    prop::collection::vec(endpoint, 0..9).prop_map(|endpoints| {
        let mut settings: Vec<_> = endpoints
            .into_iter()
            .map(|(number, weight, backup)| EndpointSettings {
                backup,
                ..support::endpoint(number, weight)
            })
            .collect();
        settings.sort_by_key(|endpoint| endpoint.address);
        settings.dedup_by_key(|endpoint| endpoint.address);
        settings
    })
}

fn outlier_settings() -> impl Strategy<Value = OutlierSettings> {
    (1_u32..4, 0_u8..=100).prop_map(|(errors, percent)| outlier(errors, percent))
}

fn pool_settings() -> impl Strategy<Value = PoolSettings> {
    let balance = prop_oneof![
        3 => Just(Balance::RoundRobin),
        3 => Just(Balance::Random),
        3 => Just(Balance::LeastRequest),
        1 => Just(Balance::Hash),
    ];
    let checks = prop::option::of((1_u32..4, 1_u32..3).prop_map(|(down, up)| thresholds(down, up)));
    (
        endpoints(),
        balance,
        checks,
        prop::option::of(outlier_settings()),
    )
        .prop_map(
            |(endpoints, balance, active_checks, outlier)| PoolSettings {
                endpoints,
                balance,
                active_checks,
                outlier,
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
        8 => (any::<usize>(), outcome())
            .prop_map(|(position, outcome)| Event::Recorded { position, outcome }),
        8 => (any::<Option<u64>>(), any::<u64>(), tried)
            .prop_map(|(hash, random, tried)| Event::Picked { hash, random, tried }),
        3 => (0_u64..30_000)
            .prop_map(|millis| Event::Passed { time: Duration::from_millis(millis) }),
        1 => Just(Event::Swept),
        1 => pool_settings().prop_map(|settings| Event::Reloaded { settings }),
    ]
}

/// A pool with its history's time, and the settings it was last made from.
struct History {
    pool: Pool,
    settings: PoolSettings,
    now: Instant,
}

impl History {
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
            Event::Recorded { position, outcome } => {
                if let Some(index) = self.index(position) {
                    let others = self.in_service().iter().any(|other| *other != index);
                    let transition = self.pool.record(index, outcome, self.now);
                    if let Some(Transition::Ejected { .. }) = transition {
                        prop_assert!(others, "the last endpoint in service was ejected");
                    }
                }
            }
            Event::Picked {
                hash,
                random,
                tried,
            } => self.pick(hash, random, &tried)?,
            Event::Passed { time } => self.now += time,
            Event::Swept => drop(self.pool.sweep(self.now)),
            Event::Reloaded { settings } => {
                self.pool = Pool::new(settings.clone(), Some(&self.pool), self.now);
                self.settings = settings;
                self.pool.sweep(self.now);
            }
        }
        self.ejected_share_is_allowed()
    }

    fn in_service(&self) -> Vec<EndpointIndex> {
        let status = self.pool.status(self.now);
        let both = self.pool.endpoints().zip(status);
        both.filter(|(_, status)| status.health == Health::Healthy)
            .map(|((index, _), _)| index)
            .collect()
    }

    fn pick(&self, hash: Option<u64>, random: u64, tried: &[bool]) -> Result<(), TestCaseError> {
        let tried: Vec<_> = self
            .pool
            .endpoints()
            .zip(tried)
            .filter(|(_, it)| **it)
            .map(|((index, _), _)| index)
            .collect();
        let usable: Vec<_> = self
            .in_service()
            .into_iter()
            .filter(|index| !tried.contains(index))
            .collect();
        let primaries = usable
            .iter()
            .any(|index| !self.pool.endpoint(*index).backup());
        let context = PickContext {
            hash,
            tried: &tried,
        };
        let picked = self.pool.pick(&context, self.now, random);
        match picked {
            Ok(picked) => {
                prop_assert!(
                    usable.contains(&picked),
                    "{picked:?} is out of service or was tried"
                );
                prop_assert!(
                    !(primaries && self.pool.endpoint(picked).backup()),
                    "a backup before a primary"
                );
            }
            Err(error) => {
                prop_assert!(usable.is_empty(), "{error:?} though {usable:?} can be used");
                let expected = if tried.is_empty() {
                    PickError::NoneAvailable
                } else {
                    PickError::Exhausted
                };
                prop_assert_eq!(error, expected);
            }
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
        let now = start();
        let pool = Pool::new(settings.clone(), None, now);
        let mut history = History { pool, settings, now };
        for event in events {
            history.happens(event)?;
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_answer(
        settings in pool_settings(),
        hash: Option<u64>,
        random: u64,
    ) {
        let now = start();
        let context = PickContext { hash, tried: &[] };
        let pick = || Pool::new(settings.clone(), None, now).pick(&context, now, random);
        prop_assert_eq!(pick(), pick());
    }
}
