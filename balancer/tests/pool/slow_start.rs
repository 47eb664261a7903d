//! Slow start: what an endpoint gets while it comes back.

use std::time::Duration;

use balancer::{Balance, Carry, Checks, Mode, Outcome, Pool, PoolSettings};

use crate::support::{
    ALL, Bench, assert_shares, endpoint, keyed, outlier, seconds, settings, thresholds, weighted,
};

const SPAN: Duration = Duration::from_secs(20);

fn ramped(endpoints: usize, balance: Balance) -> PoolSettings {
    PoolSettings {
        slow_start: SPAN,
        ..settings(weighted(&vec![1; endpoints]), balance)
    }
}

/// Takes an endpoint out and lets it come back at once.
fn bounce(bench: &Bench, position: usize) {
    bench.take_out(position);
    bench.pool.probed(bench.index(position), true, bench.now);
}

/// The share of endpoint 0 without keys, in percent of that of another one.
fn share(bench: &mut Bench) -> f64 {
    let tally = bench.tally(8_000);
    let others: usize = tally[1..].iter().sum();
    tally[0] as f64 * 100.0 / (others as f64 / (tally.len() - 1) as f64)
}

#[test]
fn the_share_of_an_endpoint_that_comes_back_grows_with_time() {
    for balance in ALL {
        let mut bench = Bench::new(ramped(4, balance));
        bounce(&bench, 0);
        for (after, due) in [(0, 10.0), (5, 25.0), (10, 50.0), (15, 75.0), (20, 100.0)] {
            let at = bench.now;
            bench.now += seconds(after);
            let share = share(&mut bench);
            // Where cost or load is divided by the factor as well, it is less.
            let floor = if balance == Balance::PeakEwma {
                0.0
            } else {
                due * 0.8
            };
            assert!(
                (floor..=due * 1.2).contains(&share),
                "{balance:?}: {share:.0} % after {after} s instead of {due} %"
            );
            let percent = bench.pool.status(bench.now)[0].slow_start_percent;
            assert_eq!(f64::from(percent), due);
            bench.now = at;
        }
    }
}

#[test]
fn keys_come_back_one_after_the_other_and_stay() {
    for balance in ALL {
        if balance.as_str() != "hash" {
            continue;
        }
        let mut bench = Bench::new(ramped(4, balance));
        let homes: Vec<_> = (0..4_000).map(|key| bench.pick_with(&keyed(key))).collect();
        let all = homes.iter().filter(|home| **home == Ok(0)).count();
        bounce(&bench, 0);
        let mut back = vec![false; homes.len()];
        for step in 0..=10_u32 {
            for (key, home) in (0..).zip(&homes) {
                let picked = bench.pick_with(&keyed(key));
                let at = key as usize;
                assert!(
                    picked == *home || *home == Ok(0),
                    "{balance:?}: {key} moved"
                );
                assert!(
                    !back[at] || picked == Ok(0),
                    "{balance:?}: {key} left again"
                );
                back[at] = picked == Ok(0);
            }
            let count = back.iter().filter(|back| **back).count() as f64;
            let due = all as f64 * (f64::from(step) / 10.0).max(0.1);
            assert!(
                (count - due).abs() < all as f64 * 0.06,
                "{balance:?}: {count}, not {due}"
            );
            bench.now += SPAN / 10;
        }
    }
}

#[test]
fn an_ejected_endpoint_comes_back_slowly_too() {
    let mut bench = Bench::new(PoolSettings {
        outlier: Some(outlier(1, 50)),
        ..ramped(4, Balance::RoundRobin)
    });
    bench.record(0, Outcome::Timeout);
    bench.now += seconds(20);
    let unnoticed = share(&mut bench);
    assert!(
        (40.0..60.0).contains(&unnoticed),
        "{unnoticed:.0} %, ten seconds after it ended"
    );
    bench.pool.sweep(bench.now);
    let swept = share(&mut bench);
    assert!(
        (40.0..60.0).contains(&swept),
        "{swept:.0} %: whoever noticed when"
    );
}

#[test]
fn an_endpoint_that_joins_a_pool_starts_slowly_and_a_whole_pool_does_not() {
    let mut bench = Bench::new(ramped(3, Balance::Random));
    assert_shares(&bench.tally(6_000), &[1; 3], 0.10);
    for carry in [Carry::Reload, Carry::Refresh] {
        let mut more = ramped(3, Balance::Random);
        let number = if carry == Carry::Reload { 50 } else { 51 };
        more.endpoints.insert(0, endpoint(number, 1));
        bench.follow(more, carry);
        let share = share(&mut bench);
        assert!((5.0..15.0).contains(&share), "{carry:?}: {share:.0} %");
        bench.now += seconds(100);
    }
    bench.follow(ramped(0, Balance::Random), Carry::Refresh);
    bench.follow(ramped(3, Balance::Random), Carry::Refresh);
    let percent: Vec<_> = bench
        .pool
        .status(bench.now)
        .iter()
        .map(|it| it.slow_start_percent)
        .collect();
    assert_eq!(percent, [100; 3], "after a pool of nobody, all are equal");
}

#[test]
fn an_endpoint_enabled_by_hand_starts_slowly() {
    for mode in [Mode::Drain, Mode::Down] {
        let mut bench = Bench::new(ramped(4, Balance::RoundRobin));
        let mut by_hand = ramped(4, Balance::RoundRobin);
        by_hand.endpoints[0].mode = mode;
        bench.follow(by_hand, Carry::Refresh);
        bench.now += seconds(100);
        bench.follow(ramped(4, Balance::RoundRobin), Carry::Refresh);
        let share = share(&mut bench);
        assert!((5.0..15.0).contains(&share), "{mode:?}: {share:.0} %");
    }
}

#[test]
fn a_reload_does_not_begin_it_anew() {
    let mut bench = Bench::new(ramped(4, Balance::Random));
    bounce(&bench, 0);
    bench.now += seconds(10);
    for carry in [Carry::Reload, Carry::Refresh] {
        bench.follow(ramped(4, Balance::Random), carry);
        let share = share(&mut bench);
        assert!((40.0..60.0).contains(&share), "{carry:?}: {share:.0} %");
    }
}

#[test]
fn checks_that_pass_at_the_start_are_no_return() {
    let waiting = PoolSettings {
        active_checks: Some(Checks {
            start_healthy: false,
            ..thresholds(1, 1)
        }),
        ..ramped(2, Balance::Random)
    };
    let mut bench = Bench::new(waiting);
    assert!(bench.pick().is_err(), "nobody has passed a check");
    bench.pool.probed(bench.index(0), true, bench.now);
    assert_eq!(bench.tally(10), [10, 0]);
    let percent = |pool: &Pool| pool.status(bench.now)[0].slow_start_percent;
    assert_eq!(percent(&bench.pool), 100);
    bounce(&bench, 0);
    assert_eq!(percent(&bench.pool), 10);
}

#[test]
fn endpoints_that_all_come_back_together_share_alike() {
    for balance in ALL {
        let mut bench = Bench::new(ramped(3, balance));
        (0..3).for_each(|position| bounce(&bench, position));
        assert_shares(&bench.tally(6_000), &[1; 3], 0.12);
        assert!(bench.tally_keys(3_000).iter().all(|count| *count > 500));
    }
}

#[test]
fn it_counts_where_most_are_down_too() {
    let mut bench = Bench::new(ramped(100, Balance::Random));
    bounce(&bench, 0);
    (3..100).for_each(|position| bench.take_out(position));
    bench.now += SPAN / 4;
    assert_shares(&bench.tally(9_000)[..3], &[1, 4, 4], 0.12);
}
