//! What a new pool takes over from the previous one.

use balancer::{Balance, Carry, EndpointIndex, Health, Outcome, Pool, PoolSettings, Transition};

use crate::support::{Bench, endpoint, outlier, seconds, settings, thresholds, weighted};

/// The pool that a reload makes of the bench's.
fn reload(bench: &Bench, settings: PoolSettings) -> Pool {
    Pool::new(settings, Some(&bench.pool), Carry::Reload, bench.now)
}

fn health(pool: &Pool, bench: &Bench) -> Vec<Health> {
    pool.status(bench.now).iter().map(|it| it.health).collect()
}

fn both(endpoints: usize, max_ejected_percent: u8) -> PoolSettings {
    let outlier = Some(outlier(1, max_ejected_percent));
    PoolSettings {
        outlier,
        ..settings(weighted(&vec![1; endpoints]), Balance::RoundRobin)
    }
}

#[test]
fn health_and_ejections_follow_the_id() {
    let bench = Bench::new(both(4, 50));
    bench.take_out(0);
    bench.record(2, Outcome::Timeout);
    let mut turned = both(4, 50);
    turned.endpoints.reverse();
    turned
        .endpoints
        .iter_mut()
        .for_each(|endpoint| endpoint.name.push_str(".new"));
    turned.endpoints.push(endpoint(99, 1));
    let pool = reload(&bench, turned);
    use Health::{Ejected, Healthy, Unhealthy};
    assert_eq!(
        health(&pool, &bench),
        [Healthy, Ejected, Healthy, Unhealthy, Healthy]
    );
}

#[test]
fn active_requests_are_counted_across_reloads() {
    let bench = Bench::new(both(2, 50));
    let under_way = bench.pool.start(bench.index(1));
    let pool = reload(&bench, both(2, 50));
    assert_eq!(pool.status(bench.now)[1].active, 1);
    drop(bench.pool);
    drop(under_way);
    assert_eq!(pool.status(bench.now)[1].active, 0);
}

#[test]
fn a_running_count_goes_on_under_the_new_threshold() {
    let three = PoolSettings {
        active_checks: Some(thresholds(3, 1)),
        ..both(2, 50)
    };
    let bench = Bench::new(three.clone());
    bench.take_out(0);
    bench.take_out(0);
    let pool = reload(&bench, three);
    assert!(matches!(
        pool.probed(bench.index(0), false, bench.now),
        Some(Transition::Unhealthy {
            failed_checks: 3,
            ..
        })
    ));
}

#[test]
fn a_reload_that_is_given_up_changes_nothing() {
    let bench = Bench::new(both(4, 50));
    bench.take_out(0);
    bench.record(2, Outcome::Timeout);
    let before = health(&bench.pool, &bench);
    let bare = PoolSettings {
        active_checks: None,
        outlier: None,
        ..both(4, 50)
    };
    drop(reload(&bench, bare));
    drop(reload(&bench, both(1, 1)));
    assert_eq!(health(&bench.pool, &bench), before);
}

#[test]
fn health_ends_with_the_checks_and_begins_anew_with_them() {
    let mut bench = Bench::new(both(3, 50));
    bench.record(1, Outcome::Timeout);
    bench.take_out(0);
    assert_eq!(
        health(&bench.pool, &bench),
        [Health::Unhealthy, Health::Ejected, Health::Healthy]
    );
    let bare = PoolSettings {
        active_checks: None,
        outlier: None,
        ..both(3, 50)
    };
    bench.pool = reload(&bench, bare);
    assert_eq!(
        health(&bench.pool, &bench),
        [Health::Healthy; 3],
        "nothing could bring them back"
    );
    bench.pool = reload(&bench, both(3, 50));
    assert_eq!(
        health(&bench.pool, &bench),
        [Health::Healthy; 3],
        "what was known is out of date"
    );
}

#[test]
fn the_sweep_returns_those_that_are_ejected_beyond_the_new_share() {
    let mut bench = Bench::new(both(8, 50));
    for position in [3, 1, 0, 2] {
        bench.record(position, Outcome::Timeout);
        bench.now += seconds(1);
    }
    bench.pool = reload(&bench, both(4, 50));
    assert_eq!(health(&bench.pool, &bench), [Health::Ejected; 4]);
    let returned: Vec<_> = bench
        .pool
        .sweep(bench.now)
        .iter()
        .filter_map(|it| it.endpoint().map(EndpointIndex::as_usize))
        .collect();
    assert_eq!(returned, [3, 1], "those whose time would have ended first");
    assert!(bench.pool.sweep(bench.now).is_empty());
}

#[test]
fn round_robin_goes_on_where_it_was() {
    let mut bench = Bench::new(both(3, 50));
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(bench.pick().expect("all are in service"));
        bench.pool = reload(&bench, both(3, 50));
    }
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn of_two_endpoints_with_one_id_the_first_takes_over() {
    let bench = Bench::new(both(2, 50));
    bench.take_out(0);
    let mut twice = both(2, 50);
    twice.endpoints.push(endpoint(0, 1));
    let pool = reload(&bench, twice);
    assert_eq!(
        health(&pool, &bench),
        [Health::Unhealthy, Health::Healthy, Health::Healthy]
    );
}
