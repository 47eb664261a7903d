//! Priorities, zones, backups and panic: which group a request goes to.

use balancer::{
    Balance, Carry, EndpointSettings, Limits, Mode, Outcome, PickContext, PickError, PoolSettings,
    Transition,
};

use crate::support::{
    ALL, Bench, assert_shares, backup, endpoint, keyed, outlier, positive, seconds, settings,
};

fn priority(number: u16, priority: u8) -> EndpointSettings {
    EndpointSettings {
        priority,
        ..endpoint(number, 1)
    }
}

fn zoned(number: u16, zone: &str) -> EndpointSettings {
    EndpointSettings {
        zone: Some(zone.to_owned()),
        ..endpoint(number, 1)
    }
}

/// Ten endpoints of priority 0 and two of priority 1.
fn two_levels(balance: Balance, overflow_below: u8) -> PoolSettings {
    let mut endpoints: Vec<_> = (0..10).map(|number| priority(number, 0)).collect();
    endpoints.extend((10..12).map(|number| priority(number, 1)));
    PoolSettings {
        overflow_below,
        ..settings(endpoints, balance)
    }
}

/// Four endpoints in "a" and four in "b".
fn two_zones(own_zone: Option<&str>, zone_overflow_below: u8) -> PoolSettings {
    let mut endpoints: Vec<_> = (0..4).map(|number| zoned(number, "a")).collect();
    endpoints.extend((4..8).map(|number| zoned(number, "b")));
    PoolSettings {
        own_zone: own_zone.map(str::to_owned),
        zone_overflow_below,
        ..settings(endpoints, Balance::Random)
    }
}

fn first_and_rest(tally: &[usize], first: usize) -> [usize; 2] {
    [tally[..first].iter().sum(), tally[first..].iter().sum()]
}

#[test]
fn a_priority_with_enough_in_service_gets_everything() {
    for balance in ALL {
        let mut bench = Bench::new(two_levels(balance, 80));
        bench.take_out(0);
        bench.take_out(1);
        let tally = bench.tally(500);
        assert_eq!(first_and_rest(&tally, 10), [500, 0], "{balance:?}");
    }
}

#[test]
fn below_the_threshold_the_rest_goes_to_the_next_priority() {
    for balance in ALL {
        let mut bench = Bench::new(two_levels(balance, 80));
        (0..4).for_each(|position| bench.take_out(position));
        let tally = bench.tally(8_000);
        assert_shares(&first_and_rest(&tally, 10), &[3, 1], 0.06);
        let keys = first_and_rest(&bench.tally_keys(8_000), 10);
        assert_shares(&keys, &[3, 1], 0.06);
    }
}

#[test]
fn with_a_threshold_of_zero_the_next_priority_waits_for_the_last_endpoint() {
    for balance in ALL {
        let mut bench = Bench::new(two_levels(balance, 0));
        (0..9).for_each(|position| bench.take_out(position));
        assert_eq!(first_and_rest(&bench.tally(200), 10), [200, 0]);
        bench.take_out(9);
        assert_eq!(first_and_rest(&bench.tally(200), 10), [0, 200]);
        bench.pool.probed(bench.index(4), true, bench.now);
        assert_eq!(first_and_rest(&bench.tally(200), 10), [200, 0]);
    }
}

#[test]
fn levels_that_all_are_short_share_by_what_they_bear() {
    let mut bench = Bench::new(two_levels(Balance::Random, 100));
    (0..8).for_each(|position| bench.take_out(position));
    bench.take_out(10);
    // A fifth of one, half of the other.
    let tally = bench.tally(14_000);
    assert_shares(&first_and_rest(&tally, 10), &[2, 5], 0.05);
}

#[test]
fn backups_come_after_every_priority() {
    let endpoints = vec![backup(9), priority(0, 7), priority(1, 3)];
    let mut bench = Bench::new(settings(endpoints, Balance::RoundRobin));
    let mut order = Vec::new();
    while let Ok(picked) = bench.pick() {
        order.push(picked);
        bench.take_out(picked);
    }
    assert_eq!(order, [2, 1, 0]);
}

#[test]
fn a_retry_goes_on_to_later_groups() {
    for balance in ALL {
        let endpoints = vec![priority(0, 0), priority(1, 1), backup(2)];
        let mut bench = Bench::new(settings(endpoints, balance));
        let mut tried = Vec::new();
        for due in 0..3 {
            let context = PickContext {
                tried: &tried,
                hash: Some(1),
                ..PickContext::default()
            };
            let picked = bench.pick_with(&context);
            assert_eq!(picked, Ok(due), "{balance:?}");
            tried.push(bench.index(due));
        }
    }
}

#[test]
fn requests_stay_in_the_own_zone() {
    let mut bench = Bench::new(two_zones(Some("b"), 70));
    assert_eq!(first_and_rest(&bench.tally(400), 4), [0, 400]);
    bench.take_out(4);
    assert_eq!(first_and_rest(&bench.tally(400), 4), [0, 400], "75 % do");
    bench.take_out(5);
    let tally = bench.tally(14_000);
    assert_shares(&first_and_rest(&tally, 4), &[2, 5], 0.05);
    bench.take_out(6);
    bench.take_out(7);
    assert_eq!(first_and_rest(&bench.tally(400), 4), [400, 0]);
}

#[test]
fn without_an_own_zone_or_anybody_in_it_zones_do_not_matter() {
    for own in [None, Some("elsewhere")] {
        let mut bench = Bench::new(two_zones(own, 70));
        let tally = bench.tally(8_000);
        assert_shares(&first_and_rest(&tally, 4), &[1, 1], 0.05);
    }
}

#[test]
fn zones_are_within_a_priority() {
    let at = |number, priority, zone: &str| EndpointSettings {
        priority,
        ..zoned(number, zone)
    };
    let endpoints = vec![
        at(0, 1, "own"),
        at(1, 0, "other"),
        at(2, 0, "own"),
        at(3, 1, "other"),
    ];
    let mut bench = Bench::new(PoolSettings {
        own_zone: Some("own".to_owned()),
        ..settings(endpoints, Balance::Random)
    });
    let mut order = Vec::new();
    while let Ok(picked) = bench.pick() {
        order.push(picked);
        bench.take_out(picked);
    }
    assert_eq!(order, [2, 1, 0, 3]);
}

#[test]
fn a_key_stays_in_its_group_while_shares_hold() {
    for balance in ALL {
        if balance.as_str() != "hash" {
            continue;
        }
        let mut bench = Bench::new(two_levels(balance, 80));
        (0..4).for_each(|position| bench.take_out(position));
        for key in 0..200 {
            let home = bench.pick_with(&keyed(key));
            assert!((0..5).all(|_| bench.pick_with(&keyed(key)) == home));
        }
    }
}

#[test]
fn shares_follow_an_ejection_that_ends_without_a_sweep() {
    let mut bench = Bench::new(PoolSettings {
        outlier: Some(outlier(1, 100)),
        active_checks: None,
        ..settings(vec![endpoint(0, 1), backup(1)], Balance::Random)
    });
    bench.record(0, Outcome::Timeout);
    assert_eq!(bench.tally(10), [0, 10]);
    bench.now += seconds(10);
    assert_eq!(bench.tally(10), [10, 0]);
}

#[test]
fn shares_follow_an_ejection_that_a_sweep_ends_early() {
    let ejecting = |percent| PoolSettings {
        outlier: Some(outlier(1, percent)),
        active_checks: None,
        ..settings(
            vec![endpoint(0, 1), endpoint(1, 1), backup(2)],
            Balance::RoundRobin,
        )
    };
    let mut bench = Bench::new(ejecting(100));
    bench.record(0, Outcome::Timeout);
    bench.record(1, Outcome::Timeout);
    bench.follow(ejecting(34), Carry::Reload);
    assert_eq!(bench.tally(10), [0, 0, 10]);
    let returned = bench.pool.sweep(bench.now);
    assert_eq!(returned.len(), 1, "one of three may be ejected");
    assert_eq!(bench.tally(10), [10, 0, 0]);
}

#[test]
fn modes_set_by_hand_hold_until_they_are_changed() {
    for balance in ALL {
        let enabled = settings((0..3).map(|number| endpoint(number, 1)).collect(), balance);
        let mut by_hand = enabled.clone();
        by_hand.endpoints[0].mode = Mode::Drain;
        by_hand.endpoints[2].mode = Mode::Down;
        by_hand.panic_threshold = 100;
        let mut bench = Bench::new(enabled.clone());
        let under_way = bench.pool.start(bench.index(0));
        bench.follow(by_hand, Carry::Refresh);
        assert_eq!(bench.tally(60), [0, 60, 0], "{balance:?}");
        assert_eq!(bench.tally_keys(60), [0, 60, 0], "{balance:?}");
        let health: Vec<_> = bench
            .pool
            .status(bench.now)
            .iter()
            .map(|it| it.health.as_str())
            .collect();
        assert_eq!(health, ["drained", "healthy", "down"]);
        assert_eq!(bench.pool.status(bench.now)[0].active, 1, "it finishes");
        bench.take_out(1);
        assert_eq!(
            bench.tally(60),
            [0, 60, 0],
            "{balance:?}: not even in panic"
        );
        drop(under_way);
        bench.follow(enabled, Carry::Refresh);
        assert!(bench.tally(300).iter().all(|count| *count != 300));
    }
}

fn panicking(threshold: u8, endpoints: Vec<EndpointSettings>, balance: Balance) -> PoolSettings {
    PoolSettings {
        panic_threshold: threshold,
        ..settings(endpoints, balance)
    }
}

#[test]
fn with_too_few_in_service_all_are_used() {
    for balance in ALL {
        let endpoints = (0..10).map(|number| endpoint(number, 1)).collect();
        let mut bench = Bench::new(panicking(40, endpoints, balance));
        assert_eq!(bench.pool.sweep(bench.now), []);
        (0..6).for_each(|position| bench.take_out(position));
        let tally = bench.tally(2_000);
        assert!(
            tally[..6].iter().all(|count| *count == 0),
            "{balance:?}: 40 % do"
        );
        assert_eq!(bench.pool.sweep(bench.now), []);
        bench.take_out(6);
        assert_shares(&bench.tally(4_000), &[1; 10], 0.20);
        assert!(bench.pool.summary(bench.now).panic);
        let panic = Transition::Panic {
            in_service: 3,
            endpoints: 10,
        };
        assert_eq!(bench.pool.sweep(bench.now), [panic]);
        assert_eq!(bench.pool.sweep(bench.now), [], "it is told once");
        bench.pool.probed(bench.index(0), true, bench.now);
        let tally = bench.tally(2_000);
        assert!(tally[1..7].iter().all(|count| *count == 0), "{balance:?}");
        let over = Transition::PanicOver {
            in_service: 4,
            endpoints: 10,
        };
        assert_eq!(bench.pool.sweep(bench.now), [over]);
    }
    let told = Transition::Panic {
        in_service: 3,
        endpoints: 10,
    };
    assert_eq!(
        told.to_string(),
        "panic: 3 of 10 endpoints in service, health is ignored"
    );
    assert_eq!((told.endpoint(), told.as_str()), (None, "panic"));
}

#[test]
fn with_nobody_in_service_all_are_used_unless_panic_is_off() {
    for (threshold, due) in [(1, Ok(())), (0, Err(PickError::NoneAvailable))] {
        let endpoints = vec![endpoint(0, 1), endpoint(1, 1)];
        let mut bench = Bench::new(panicking(threshold, endpoints, Balance::RoundRobin));
        bench.take_out(0);
        bench.take_out(1);
        assert_eq!(bench.pick().map(|_| ()), due);
    }
}

#[test]
fn a_backup_that_serves_is_better_than_panic() {
    let endpoints = vec![endpoint(0, 1), endpoint(1, 1), endpoint(2, 1), backup(3)];
    let mut bench = Bench::new(panicking(50, endpoints, Balance::RoundRobin));
    (0..3).for_each(|position| bench.take_out(position));
    assert_eq!(bench.tally(30), [0, 0, 0, 30]);
    bench.take_out(3);
    assert_eq!(
        bench.tally(30),
        [10, 10, 10, 0],
        "now there is no other way"
    );
}

#[test]
fn panic_ignores_ejections_but_no_limits() {
    let limits = Limits {
        endpoint_requests: Some(positive(1)),
        ..Limits::default()
    };
    let endpoints = (0..4).map(|number| endpoint(number, 1)).collect();
    let mut bench = Bench::new(PoolSettings {
        limits,
        outlier: Some(outlier(1, 100)),
        active_checks: None,
        ..panicking(60, endpoints, Balance::Random)
    });
    bench.record(0, Outcome::Timeout);
    bench.record(1, Outcome::Timeout);
    let mut under_way = Vec::new();
    let mut picked: Vec<_> = (0..4)
        .map(|_| {
            let (picked, active) = bench.acquire().expect("there is room");
            under_way.push(active);
            picked
        })
        .collect();
    picked.sort_unstable();
    assert_eq!(picked, [0, 1, 2, 3]);
    assert_eq!(bench.pick(), Err(PickError::Saturated));
}

#[test]
fn panic_is_a_matter_of_weight() {
    let endpoints = vec![endpoint(0, 8), endpoint(1, 1), endpoint(2, 1)];
    let bench = Bench::new(panicking(50, endpoints, Balance::Random));
    bench.take_out(1);
    bench.take_out(2);
    assert!(!bench.pool.summary(bench.now).panic);
    bench.pool.probed(bench.index(1), true, bench.now);
    bench.pool.probed(bench.index(2), true, bench.now);
    bench.take_out(0);
    assert!(bench.pool.summary(bench.now).panic);
}
