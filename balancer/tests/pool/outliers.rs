//! Ejection by error rate and by latency.

use std::time::Duration;

use balancer::{Balance, Carry, Cause, Health, Outcome, OutlierSettings, PoolSettings, Transition};

use crate::support::{Bench, outlier, positive, seconds, settings, weighted};

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn bench(endpoints: usize, outlier: OutlierSettings) -> Bench {
    Bench::new(PoolSettings {
        active_checks: None,
        outlier: Some(outlier),
        ..settings(weighted(&vec![1; endpoints]), Balance::RoundRobin)
    })
}

fn by_rate(percent: u8, min_requests: u32) -> OutlierSettings {
    OutlierSettings {
        error_rate: Some(percent),
        min_requests: positive(min_requests),
        ..outlier(1_000, 50)
    }
}

fn by_latency(factor: u32) -> OutlierSettings {
    OutlierSettings {
        latency_factor: Some(positive(factor)),
        ..outlier(1_000, 50)
    }
}

/// The position of the first failed request that ejects, if one of so many does; every `nth` fails.
fn ejected_after(bench: &mut Bench, nth: u32, requests: u32, pause: Duration) -> Option<u32> {
    (1..=requests).find(|request| {
        bench.now += pause;
        let outcome = if request % nth == 0 {
            Outcome::Status5xx
        } else {
            Outcome::Success
        };
        bench.record(0, outcome).is_some()
    })
}

#[test]
fn too_many_errors_eject_though_some_requests_succeed() {
    let mut bench = bench(4, by_rate(50, 10));
    let mut last = None;
    for _ in 0..5 {
        bench.record(0, Outcome::Success);
        last = bench.record(0, Outcome::Timeout);
    }
    let expected = Transition::Ejected {
        endpoint: bench.index(0),
        cause: Cause::ErrorRate {
            errors: 5,
            requests: 10,
            window: seconds(10),
        },
        times: 1,
        ejected_for: seconds(10),
        ejected: 1,
        endpoints: 4,
    };
    assert_eq!(last, Some(expected));
    assert_eq!(
        expected.to_string(),
        "ejected for 10s: 5 of 10 requests failed in 10s; 1 of 4 endpoints ejected"
    );
    assert_eq!(bench.tally(30), [0, 10, 10, 10]);
}

#[test]
fn fewer_errors_than_the_rate_do_not_eject() {
    let mut bench = bench(4, by_rate(50, 10));
    assert_eq!(ejected_after(&mut bench, 3, 3_000, millis(5)), None);
    assert!(ejected_after(&mut bench, 2, 4_000, millis(5)).is_some());
}

#[test]
fn few_requests_say_nothing_about_a_rate() {
    let mut bench = bench(4, by_rate(20, 100));
    assert_eq!(ejected_after(&mut bench, 1, 99, millis(1)), None);
    assert_eq!(ejected_after(&mut bench, 1, 1, millis(1)), Some(1));
}

#[test]
fn errors_beyond_the_window_are_forgotten() {
    let mut bench = bench(4, by_rate(20, 10));
    assert_eq!(ejected_after(&mut bench, 1, 9, millis(1)), None);
    bench.now += seconds(11);
    assert_eq!(bench.pool.status(bench.now)[0].requests, 0);
    assert_eq!(ejected_after(&mut bench, 1, 9, millis(1)), None);
    let status = bench.pool.status(bench.now)[0];
    assert_eq!((status.requests, status.errors), (9, 9));
}

#[test]
fn an_endpoint_that_comes_back_is_judged_anew() {
    // Back before its errors are too old to count.
    let mut bench = bench(
        4,
        OutlierSettings {
            ejection_time: seconds(2),
            ..by_rate(50, 10)
        },
    );
    assert_eq!(ejected_after(&mut bench, 1, 20, millis(1)), Some(10));
    bench.now += seconds(2);
    bench.pool.sweep(bench.now);
    assert_eq!(
        ejected_after(&mut bench, 1, 20, millis(1)),
        Some(10),
        "not by the errors from before"
    );
    assert_eq!(bench.pool.status(bench.now)[0].ejections, 2);
}

/// Every endpoint answers so many requests in the given times.
fn answer(bench: &Bench, requests: usize, times: &[Duration]) {
    for (position, time) in times.iter().enumerate() {
        for _ in 0..requests {
            let index = bench.index(position);
            let told = bench
                .pool
                .record(index, Outcome::Success, Some(*time), bench.now);
            assert_eq!(told, None);
        }
    }
}

fn ejected(bench: &Bench) -> Vec<usize> {
    let status = bench.pool.status(bench.now);
    let ejected = status.iter().enumerate();
    ejected
        .filter(|(_, status)| status.health == Health::Ejected)
        .map(|(position, _)| position)
        .collect()
}

#[test]
fn an_endpoint_far_slower_than_the_others_is_ejected() {
    let bench = bench(4, by_latency(3));
    answer(
        &bench,
        10,
        &[millis(10), millis(12), millis(40), millis(14)],
    );
    let transitions = bench.pool.sweep(bench.now);
    let expected = Transition::Ejected {
        endpoint: bench.index(2),
        cause: Cause::Latency {
            mean: millis(40),
            median: millis(12),
            factor: 3,
        },
        times: 1,
        ejected_for: seconds(10),
        ejected: 1,
        endpoints: 4,
    };
    assert_eq!(transitions, [expected]);
    assert_eq!(
        expected.to_string(),
        "ejected for 10s: mean latency 40ms, more than 3 times the others' median of 12ms; 1 of 4 \
         endpoints ejected"
    );
}

#[test]
fn endpoints_that_are_all_slow_stay() {
    let bench = bench(4, by_latency(2));
    answer(
        &bench,
        10,
        &[millis(900), millis(1_000), millis(1_100), millis(1_700)],
    );
    assert_eq!(bench.pool.sweep(bench.now), []);
}

#[test]
fn of_two_there_is_no_telling_who_is_odd() {
    let bench = bench(4, by_latency(2));
    answer(&bench, 10, &[millis(1), millis(1_000)]);
    assert_eq!(bench.pool.sweep(bench.now), []);
    answer(&bench, 10, &[millis(1), millis(1_000), millis(1)]);
    bench.pool.sweep(bench.now);
    assert_eq!(ejected(&bench), [1]);
}

#[test]
fn few_slow_answers_do_not_eject() {
    let bench = bench(4, by_latency(2));
    answer(&bench, 10, &[millis(1); 3]);
    answer(&bench, 9, &[millis(1), millis(1), millis(1), millis(100)]);
    assert_eq!(bench.pool.sweep(bench.now), []);
}

#[test]
fn the_slowest_are_ejected_first_and_no_more_than_allowed() {
    let mut settings = by_latency(2);
    settings.max_ejected_percent = 30;
    let bench = bench(8, settings);
    let times = [10, 100, 10, 300, 10, 200, 10, 10].map(millis);
    answer(&bench, 20, &times);
    bench.pool.sweep(bench.now);
    assert_eq!(ejected(&bench), [3, 5]);
}

#[test]
fn errors_are_no_measure_of_latency() {
    let bench = bench(4, by_latency(2));
    for position in 0..4 {
        for _ in 0..20 {
            let time = if position == 0 {
                millis(100)
            } else {
                millis(10)
            };
            let outcome = if position == 0 {
                Outcome::Status5xx
            } else {
                Outcome::Success
            };
            bench
                .pool
                .record(bench.index(position), outcome, Some(time), bench.now);
        }
    }
    assert_eq!(bench.pool.sweep(bench.now), []);
}

#[test]
fn a_drained_endpoint_is_not_ejected() {
    let mut bench = bench(4, outlier(1, 50));
    let mut drained = PoolSettings {
        active_checks: None,
        outlier: Some(outlier(1, 50)),
        ..settings(weighted(&[1; 4]), Balance::RoundRobin)
    };
    drained.endpoints[1].mode = balancer::Mode::Drain;
    bench.follow(drained, Carry::Refresh);
    assert_eq!(bench.record(1, Outcome::Reset), None);
    assert_eq!(bench.pool.status(bench.now)[1].health, Health::Drained);
}
