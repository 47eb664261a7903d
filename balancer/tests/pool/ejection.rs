//! Outlier detection: who is ejected, for how long, and how many at once.

use balancer::{Balance, Cause, Health, Outcome, PickError, PoolSettings, Transition};

use crate::support::{Bench, outlier, seconds, settings, weighted};

fn bench(endpoints: usize, consecutive_errors: u32, max_ejected_percent: u8) -> Bench {
    let outlier = Some(outlier(consecutive_errors, max_ejected_percent));
    let settings = settings(weighted(&vec![1; endpoints]), Balance::RoundRobin);
    Bench::new(PoolSettings {
        active_checks: None,
        outlier,
        ..settings
    })
}

fn ejected(bench: &Bench) -> Vec<usize> {
    let status = bench.pool.status(bench.now);
    (0..)
        .zip(status)
        .filter(|(_, it)| it.health == Health::Ejected)
        .map(|(position, _)| position)
        .collect()
}

#[test]
fn errors_in_a_row_eject_and_the_numbers_are_told() {
    let mut bench = bench(4, 3, 50);
    let node = bench.index(2);
    assert_eq!(
        bench.pool.record(node, Outcome::Status5xx, None, bench.now),
        None
    );
    assert_eq!(
        bench.pool.record(node, Outcome::Reset, None, bench.now),
        None
    );
    let transition = bench.pool.record(node, Outcome::Timeout, None, bench.now);
    let expected = Transition::Ejected {
        endpoint: node,
        cause: Cause::Consecutive {
            errors: 3,
            last: Outcome::Timeout,
        },
        times: 1,
        ejected_for: seconds(10),
        ejected: 1,
        endpoints: 4,
    };
    assert_eq!(transition, Some(expected));
    assert_eq!(
        expected.to_string(),
        "ejected for 10s: 3 errors in a row, the last a timeout; 1 of 4 endpoints ejected"
    );
    assert_eq!(bench.tally(30), [10, 10, 0, 10]);
}

#[test]
fn every_kind_of_error_counts() {
    for outcome in [
        Outcome::ConnectFailed,
        Outcome::Reset,
        Outcome::Timeout,
        Outcome::Status5xx,
    ] {
        let bench = bench(2, 1, 50);
        assert!(bench.record(0, outcome).is_some(), "{outcome:?}");
    }
}

#[test]
fn a_success_starts_the_count_anew() {
    let bench = bench(3, 2, 100);
    for outcome in [Outcome::Status5xx, Outcome::Success].repeat(50) {
        assert_eq!(bench.record(0, outcome), None);
    }
}

#[test]
fn an_ejected_endpoint_serves_again_when_its_time_is_over() {
    let mut bench = bench(2, 1, 50);
    bench.record(0, Outcome::Timeout);
    bench.now += seconds(10) - std::time::Duration::from_nanos(1);
    assert_eq!(bench.tally(10), [0, 10]);
    bench.now += std::time::Duration::from_nanos(1);
    assert_eq!(bench.tally(10), [5, 5]);
}

#[test]
fn the_sweep_reports_a_return_once() {
    let mut bench = bench(2, 1, 50);
    let node = bench.index(0);
    bench.pool.record(node, Outcome::Timeout, None, bench.now);
    assert_eq!(bench.pool.sweep(bench.now), []);
    bench.now += seconds(10);
    let returned = Transition::Returned {
        endpoint: node,
        times: 1,
        early: false,
    };
    assert_eq!(bench.pool.sweep(bench.now), [returned]);
    assert_eq!(bench.pool.sweep(bench.now), []);
}

#[test]
fn a_request_reports_the_return_if_it_comes_before_the_sweep() {
    let mut bench = bench(2, 2, 50);
    let node = bench.index(0);
    bench.pool.record(node, Outcome::Timeout, None, bench.now);
    bench.pool.record(node, Outcome::Timeout, None, bench.now);
    bench.now += seconds(11);
    let returned = Transition::Returned {
        endpoint: node,
        times: 1,
        early: false,
    };
    assert_eq!(
        bench.pool.record(node, Outcome::Timeout, None, bench.now),
        Some(returned)
    );
    assert_eq!(bench.pool.sweep(bench.now), []);
    let again = bench.pool.record(node, Outcome::Timeout, None, bench.now);
    assert!(
        matches!(again, Some(Transition::Ejected { times: 2, .. })),
        "{again:?}"
    );
}

#[test]
fn an_endpoint_that_keeps_failing_stays_away_longer() {
    let mut bench = bench(2, 1, 50);
    let mut lasted = Vec::new();
    for _ in 0..12 {
        match bench.record(0, Outcome::Timeout) {
            Some(Transition::Ejected { ejected_for, .. }) => {
                lasted.push(ejected_for.as_secs());
                bench.now += ejected_for;
            }
            other => panic!("expected an ejection, got {other:?}"),
        }
    }
    assert_eq!(lasted, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100, 100]);
    bench.now += seconds(1_000);
    let forgiven = bench.record(0, Outcome::Timeout);
    assert!(
        matches!(forgiven, Some(Transition::Ejected { times: 1, .. })),
        "{forgiven:?}"
    );
}

#[test]
fn errors_of_requests_that_were_under_way_do_not_prolong_an_ejection() {
    let mut bench = bench(2, 1, 50);
    bench.record(0, Outcome::Timeout);
    bench.now += seconds(9);
    assert_eq!(bench.record(0, Outcome::Timeout), None);
    bench.now += seconds(1);
    assert_eq!(ejected(&bench), [0_usize; 0]);
}

#[test]
fn no_more_than_the_allowed_share_is_ejected() {
    for (endpoints, percent, allowed) in [
        (10, 30, 3),
        (10, 39, 3),
        (4, 50, 2),
        (3, 10, 1),
        (3, 0, 0),
        (5, 100, 4),
    ] {
        let bench = bench(endpoints, 1, percent);
        for position in 0..endpoints {
            bench.record(position, Outcome::Status5xx);
        }
        assert_eq!(
            ejected(&bench).len(),
            allowed,
            "{endpoints} endpoints, {percent} %"
        );
    }
}

#[test]
fn the_last_endpoint_in_service_is_never_ejected() {
    let mut bench = bench(1, 1, 100);
    for _ in 0..10 {
        assert_eq!(bench.record(0, Outcome::Status5xx), None);
    }
    assert_eq!(bench.pick(), Ok(0), "a bad answer is better than none");
}

#[test]
fn who_was_spared_for_want_of_room_is_ejected_once_there_is_some() {
    let mut bench = bench(4, 1, 25);
    bench.record(0, Outcome::Timeout);
    assert_eq!(bench.record(1, Outcome::Timeout), None);
    bench.now += seconds(10);
    let ejection = bench.record(1, Outcome::Timeout);
    assert!(
        matches!(
            ejection,
            Some(Transition::Ejected {
                cause: Cause::Consecutive { errors: 2, .. },
                ..
            })
        ),
        "{ejection:?}"
    );
}

#[test]
fn without_outlier_detection_nobody_is_ejected() {
    let mut bench = Bench::new(PoolSettings {
        active_checks: None,
        ..settings(weighted(&[1, 1]), Balance::RoundRobin)
    });
    for _ in 0..100 {
        assert_eq!(bench.record(0, Outcome::ConnectFailed), None);
    }
    assert_eq!(bench.tally(10), [5, 5]);
    assert_eq!(bench.pool.sweep(bench.now), []);
}

#[test]
fn an_ejection_and_a_failed_check_together_leave_nobody() {
    let checks = settings(weighted(&[1, 1]), Balance::RoundRobin);
    let mut bench = Bench::new(PoolSettings {
        outlier: Some(outlier(1, 50)),
        ..checks
    });
    bench.record(0, Outcome::Timeout);
    bench.take_out(1);
    assert_eq!(bench.pick(), Err(PickError::NoneAvailable));
}
