//! Checks, and requests that count as checks: who is out when, and who is back.

use balancer::{Balance, Evidence, Health, Outcome, PoolSettings, Transition};

use crate::support::{ALL, Bench, outlier, seconds, settings, thresholds, weighted};

fn checked(unhealthy_after: u32, healthy_after: u32) -> PoolSettings {
    let active_checks = Some(thresholds(unhealthy_after, healthy_after));
    PoolSettings {
        active_checks,
        ..settings(weighted(&[1; 3]), Balance::RoundRobin)
    }
}

#[test]
fn endpoints_serve_until_a_check_says_otherwise() {
    let mut bench = Bench::new(checked(2, 2));
    assert_eq!(bench.tally(30), [10, 10, 10]);
}

#[test]
fn checks_take_an_endpoint_out_and_bring_it_back_by_their_thresholds() {
    let mut bench = Bench::new(checked(3, 2));
    let node = bench.index(1);
    assert_eq!(bench.pool.probed(node, false, bench.now), None);
    assert_eq!(bench.pool.probed(node, false, bench.now), None);
    let unhealthy = Transition::Unhealthy {
        endpoint: node,
        failed_checks: 3,
        evidence: Evidence::Check,
    };
    assert_eq!(bench.pool.probed(node, false, bench.now), Some(unhealthy));
    assert_eq!(bench.tally(30)[1], 0);
    assert_eq!(bench.pool.probed(node, true, bench.now), None);
    assert_eq!(bench.tally(30)[1], 0, "one passed check is not yet enough");
    let healthy = Transition::Healthy {
        endpoint: node,
        passed_checks: 2,
    };
    assert_eq!(bench.pool.probed(node, true, bench.now), Some(healthy));
    assert_eq!(bench.tally(30)[1], 10);
}

#[test]
fn a_dead_endpoint_costs_as_many_attempts_as_the_threshold_and_then_none() {
    for balance in ALL {
        let mut bench = Bench::new(PoolSettings {
            balance,
            ..checked(3, 2)
        });
        let dead = 1;
        let mut failures = 0;
        for _ in 0..5_000 {
            let picked = bench.pick().expect("two others are in service");
            let outcome = if picked == dead {
                Outcome::ConnectFailed
            } else {
                Outcome::Success
            };
            failures += usize::from(picked == dead);
            bench.record(picked, outcome);
        }
        assert_eq!(failures, 3, "{balance:?}");
    }
}

#[test]
fn requests_that_count_as_checks_say_so() {
    let bench = Bench::new(checked(2, 1));
    let node = bench.index(0);
    let refused = || {
        bench
            .pool
            .record(node, Outcome::ConnectFailed, None, bench.now)
    };
    assert_eq!(refused(), None);
    let unhealthy = Transition::Unhealthy {
        endpoint: node,
        failed_checks: 2,
        evidence: Evidence::Request,
    };
    assert_eq!(refused(), Some(unhealthy));
}

#[test]
fn only_a_connection_that_does_not_come_about_is_a_failed_check() {
    let bench = Bench::new(checked(1, 1));
    let others = [
        Outcome::Success,
        Outcome::Status5xx,
        Outcome::Timeout,
        Outcome::Reset,
    ];
    for outcome in others {
        assert_eq!(bench.record(0, outcome), None, "{outcome:?}");
    }
    assert_eq!(bench.pool.status(bench.now)[0].health, Health::Healthy);
}

#[test]
fn without_checks_nobody_is_unhealthy() {
    let mut bench = Bench::new(PoolSettings {
        active_checks: None,
        ..checked(1, 1)
    });
    let node = bench.index(0);
    assert_eq!(bench.pool.probed(node, false, bench.now), None);
    assert_eq!(
        bench
            .pool
            .record(node, Outcome::ConnectFailed, None, bench.now),
        None
    );
    assert_eq!(bench.tally(30), [10, 10, 10]);
}

#[test]
fn an_unhealthy_endpoint_is_not_ejected_too() {
    let bench = Bench::new(PoolSettings {
        outlier: Some(outlier(2, 100)),
        ..checked(2, 1)
    });
    let node = bench.index(0);
    bench
        .pool
        .record(node, Outcome::ConnectFailed, None, bench.now);
    let second = bench
        .pool
        .record(node, Outcome::ConnectFailed, None, bench.now);
    assert!(
        matches!(second, Some(Transition::Unhealthy { .. })),
        "{second:?}"
    );
    for _ in 0..5 {
        assert_eq!(
            bench
                .pool
                .record(node, Outcome::ConnectFailed, None, bench.now),
            None
        );
    }
    let healthy = bench.pool.probed(node, true, bench.now);
    assert!(
        matches!(healthy, Some(Transition::Healthy { .. })),
        "{healthy:?}"
    );
    assert_eq!(
        bench.pool.status(bench.now)[0].consecutive_errors,
        0,
        "it starts with a clean slate"
    );
}

#[test]
fn the_status_tells_how_things_stand() {
    let mut bench = Bench::new(PoolSettings {
        outlier: Some(outlier(1, 50)),
        ..checked(1, 1)
    });
    bench.take_out(0);
    let ejected = bench.record(1, Outcome::Status5xx);
    assert!(
        matches!(ejected, Some(Transition::Ejected { .. })),
        "{ejected:?}"
    );
    let _under_way = bench.pool.start(bench.index(2));
    bench.now += seconds(4);
    let status = bench.pool.status(bench.now);
    let health: Vec<_> = status.iter().map(|it| it.health.as_str()).collect();
    assert_eq!(health, ["unhealthy", "ejected", "healthy"]);
    let ejected_for: Vec<_> = status.iter().map(|it| it.ejected_for).collect();
    assert_eq!(ejected_for, [None, Some(seconds(6)), None]);
    let since: Vec<_> = status.iter().map(|it| it.since_transition).collect();
    assert_eq!(since, [Some(seconds(4)), Some(seconds(4)), None]);
    let active: Vec<_> = status.iter().map(|it| it.active).collect();
    assert_eq!(active, [0, 0, 1]);
    assert_eq!(status[0].consecutive_failed_checks, 1);
    assert_eq!(
        (status[2].id, status[2].weight.get(), status[2].backup),
        ("10.0.0.2:8080", 1, false)
    );
}
