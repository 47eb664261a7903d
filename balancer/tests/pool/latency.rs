//! Balancing by latency, and percentiles for who hedges.

use std::time::Duration;

use balancer::{Active, Balance, Outcome, PickContext, PoolSettings};

use crate::support::{ALL, Bench, assert_shares, seconds, settings, weighted};

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn pool(endpoints: usize) -> PoolSettings {
    settings(weighted(&vec![1; endpoints]), Balance::PeakEwma)
}

/// What an endpoint does with a request.
type Node = fn(usize) -> (Outcome, Duration);

/// Requests every `pace` for so many seconds of virtual time; gives how many each endpoint got.
/// Sweeps every second.
fn run(bench: &mut Bench, node: Node, pace: Duration, span: Duration) -> Vec<usize> {
    let mut tally = vec![0; bench.pool.endpoints().count()];
    let mut under_way: Vec<(Duration, usize, Active)> = Vec::new();
    let begun = bench.now;
    let mut swept = Duration::ZERO;
    let mut at = Duration::ZERO;
    while at < span {
        bench.now = begun + at;
        if at >= swept + seconds(1) {
            swept = at;
            bench.pool.sweep(bench.now);
        }
        let (over, left): (Vec<_>, Vec<_>) =
            under_way.into_iter().partition(|(end, ..)| *end <= at);
        under_way = left;
        for (_, position, active) in over {
            let (outcome, latency) = node(position);
            let index = bench.index(position);
            bench.pool.record(index, outcome, Some(latency), bench.now);
            drop(active);
        }
        let (picked, active) = bench.acquire().expect("all are in service");
        tally[picked] += 1;
        under_way.push((at + node(picked).1, picked, active));
        at += pace;
    }
    tally
}

#[test]
fn a_slow_endpoint_gets_next_to_nothing() {
    let slow: Node = |position| {
        (
            Outcome::Success,
            millis(if position == 0 { 100 } else { 10 }),
        )
    };
    let mut bench = Bench::new(pool(10));
    let tally = run(&mut bench, slow, millis(2), seconds(30));
    let all: usize = tally.iter().sum();
    assert!(tally[0] * 200 < all, "{tally:?}");
    assert!(tally[0] > 0, "it is tried now and then: {tally:?}");
    assert_shares(&tally[1..], &[1; 9], 0.40);
}

#[test]
fn an_endpoint_that_fails_fast_is_no_black_hole() {
    let failing: Node = |position| match position {
        0 => (Outcome::Status5xx, millis(1)),
        _ => (Outcome::Success, millis(10)),
    };
    let mut bench = Bench::new(pool(10));
    let tally = run(&mut bench, failing, millis(2), seconds(30));
    let all: usize = tally.iter().sum();
    assert!(tally[0] * 100 < all, "{tally:?}");
}

#[test]
fn an_endpoint_that_was_slow_is_tried_again() {
    let slow: Node = |position| {
        (
            Outcome::Success,
            millis(if position == 0 { 400 } else { 10 }),
        )
    };
    let well: Node = |_| (Outcome::Success, millis(10));
    let mut bench = Bench::new(pool(5));
    run(&mut bench, slow, millis(4), seconds(20));
    run(&mut bench, well, millis(4), seconds(120));
    let tally = run(&mut bench, well, millis(4), seconds(20));
    assert_shares(&tally, &[1; 5], 0.30);
}

#[test]
fn an_idle_pool_of_equals_is_shared_by_weight() {
    let mut bench = Bench::new(settings(weighted(&[6, 3, 1]), Balance::PeakEwma));
    assert_shares(&bench.tally(30_000), &[6, 3, 1], 0.05);
    for position in 0..3 {
        for _ in 0..20 {
            let index = bench.index(position);
            bench
                .pool
                .record(index, Outcome::Success, Some(millis(7)), bench.now);
        }
    }
    bench.pool.sweep(bench.now);
    assert_shares(&bench.tally(30_000), &[6, 3, 1], 0.05);
}

#[test]
fn a_stranger_draws_no_crowd() {
    // Nine that take a second, and one that nothing is known of: before its first answer it must
    // not get everything that comes.
    let mut bench = Bench::new(pool(10));
    for position in 1..10 {
        for _ in 0..20 {
            let index = bench.index(position);
            bench
                .pool
                .record(index, Outcome::Success, Some(seconds(1)), bench.now);
        }
    }
    bench.pool.sweep(bench.now);
    let mut under_way = Vec::new();
    let mut strangers = 0;
    for _ in 0..300 {
        let (picked, active) = bench.acquire().expect("all are in service");
        strangers += usize::from(picked == 0);
        under_way.push(active);
    }
    assert_eq!(strangers, 4, "of 300");
}

#[test]
fn every_endpoint_of_a_cold_pool_gets_its_share() {
    let mut bench = Bench::new(pool(4));
    let under_way: Vec<_> = (0..400)
        .map(|_| bench.acquire().expect("all are in service"))
        .collect();
    let active: Vec<_> = bench
        .pool
        .status(bench.now)
        .iter()
        .map(|it| it.active as usize)
        .collect();
    assert_shares(&active, &[1; 4], 0.05);
    drop(under_way);
}

#[test]
fn the_status_shows_latencies() {
    let bench = Bench::new(pool(2));
    let index = bench.index(1);
    bench
        .pool
        .record(index, Outcome::Success, Some(millis(25)), bench.now);
    let status = bench.pool.status(bench.now);
    assert_eq!(status[0].latency, None);
    let shown = status[1]
        .latency
        .expect("there was an answer")
        .as_secs_f64();
    assert!((shown - 0.025).abs() < 1e-6, "{shown}");
    // Nobody measures that, but nothing may come of it either.
    let endless = Some(Duration::MAX);
    bench
        .pool
        .record(index, Outcome::Success, endless, bench.now);
    bench.pool.sweep(bench.now);
    assert!(bench.pool.status(bench.now)[1].latency > Some(seconds(1)));
    assert!(
        bench
            .pool
            .pick(&PickContext::default(), bench.now, 1)
            .is_ok()
    );
}

#[test]
fn percentiles_are_of_the_recent_past() {
    for balance in ALL {
        let mut bench = Bench::new(settings(weighted(&[1; 4]), balance));
        let answer = |bench: &Bench, range: std::ops::Range<u64>| {
            for number in range {
                let index = bench.index(usize::try_from(number % 4).expect("below four"));
                let latency = Some(millis(number));
                bench
                    .pool
                    .record(index, Outcome::Success, latency, bench.now);
            }
        };
        answer(&bench, 1..50);
        bench.pool.sweep(bench.now);
        assert_eq!(bench.pool.latency_percentile(95), None, "too few");
        answer(&bench, 50..1_001);
        bench.pool.sweep(bench.now);
        let percentile = |bench: &Bench, percent| {
            let found = bench.pool.latency_percentile(percent);
            found.expect("a thousand answers").as_secs_f64()
        };
        for (percent, due) in [(50, 0.5), (95, 0.95), (99, 0.99)] {
            let found = percentile(&bench, percent);
            assert!((found / due - 1.0).abs() < 0.06, "p{percent}: {found}");
        }
        for _ in 0..90 {
            bench.now += seconds(1);
            (0..20).for_each(|_| answer(&bench, 9..15));
            bench.pool.sweep(bench.now);
        }
        assert!(percentile(&bench, 99) < 0.017, "old ones are forgotten");
    }
}
