//! Many threads on one pool.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use balancer::{Active, Balance, Health, Outcome, PickContext, Pool, PoolSettings, Transition};

use crate::support::{ALL, Bench, assert_shares, outlier, seconds, settings, weighted};

const THREADS: u64 = 4;

#[test]
fn guards_can_be_sent_and_outlive_their_pool() {
    fn sendable<T: Send + 'static>(value: T) -> T {
        value
    }
    let bench = Bench::new(settings(weighted(&[1]), Balance::Random));
    let guard: Active = sendable(bench.pool.start(bench.index(0)));
    drop(bench);
    drop(guard);
}

#[test]
fn every_active_request_is_counted_and_none_is_left() {
    for balance in ALL {
        let bench = Bench::new(settings(weighted(&[3, 1, 2]), balance));
        let (pool, now) = (&bench.pool, bench.now);
        let kept: Vec<Vec<Active>> = thread::scope(|scope| {
            let work = |thread: u64| {
                let mut kept = Vec::new();
                for turn in 0..5_000_u64 {
                    let picked = pool.pick(&PickContext::default(), now, thread << 32 | turn);
                    let active = pool.start(picked.expect("all are in service"));
                    if turn % 10 == 0 {
                        kept.push(active);
                    }
                }
                kept
            };
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| scope.spawn(move || work(thread)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("the thread ends"))
                .collect()
        });
        let active = || -> u32 { pool.status(now).iter().map(|it| it.active).sum() };
        assert_eq!(active(), 2_000, "{balance:?}");
        drop(kept);
        assert_eq!(active(), 0, "{balance:?}");
    }
}

#[test]
fn threads_share_one_round() {
    let bench = Bench::new(settings(weighted(&[5, 3, 2]), Balance::RoundRobin));
    let (pool, now) = (&bench.pool, bench.now);
    let tallies: Vec<[usize; 3]> = thread::scope(|scope| {
        let work = || {
            let mut tally = [0; 3];
            for _ in 0..10_000 {
                let picked = pool
                    .pick(&PickContext::default(), now, 0)
                    .expect("all are in service");
                tally[picked.as_usize()] += 1;
            }
            tally
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("the thread ends"))
            .collect()
    });
    let sum = tallies.iter().fold([0; 3], |sum, tally| {
        [sum[0] + tally[0], sum[1] + tally[1], sum[2] + tally[2]]
    });
    assert_eq!(
        sum,
        [20_000, 12_000, 8_000],
        "every place was taken by one thread"
    );
}

/// Ejections of a pool in which every request fails, and the greatest share seen meanwhile.
fn storm(pool: &Pool, bench: &Bench) -> (usize, usize) {
    let over = AtomicBool::new(false);
    let count = || {
        pool.status(bench.now)
            .iter()
            .filter(|it| it.health == Health::Ejected)
            .count()
    };
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(count());
            }
            most.max(count())
        });
        let work = |thread: usize| {
            let endpoints: Vec<_> = pool.endpoints().map(|(index, _)| index).collect();
            let outcomes =
                (0..20_000).map(|turn| endpoints[(turn * (thread + 1)) % endpoints.len()]);
            let fail = |index| pool.record(index, Outcome::Reset, None, bench.now);
            outcomes
                .filter_map(fail)
                .filter(|it| matches!(it, Transition::Ejected { .. }))
                .count()
        };
        let threads: Vec<_> = (0..3)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        let ejections = threads
            .into_iter()
            .map(|thread| thread.join().expect("the thread ends"))
            .sum();
        over.store(true, Ordering::Relaxed);
        (ejections, watcher.join().expect("the watcher ends"))
    })
}

#[test]
fn threads_that_all_see_errors_eject_no_more_than_allowed() {
    let outlier = Some(outlier(3, 40));
    let settings = settings(weighted(&[1; 10]), Balance::RoundRobin);
    let mut bench = Bench::new(PoolSettings {
        active_checks: None,
        outlier,
        ..settings
    });
    for _ in 0..3 {
        assert_eq!(
            storm(&bench.pool, &bench),
            (4, 4),
            "four ejections, each reported once"
        );
        bench.now += seconds(200);
    }
}

#[test]
fn threads_that_see_errors_at_the_same_moment_do_not_overrule_each_other() {
    let outlier = Some(outlier(1, 25));
    for _ in 0..500 {
        let settings = settings(weighted(&[1; 4]), Balance::RoundRobin);
        let bench = Bench::new(PoolSettings {
            active_checks: None,
            outlier,
            ..settings
        });
        let together = Barrier::new(4);
        thread::scope(|scope| {
            for (index, _) in bench.pool.endpoints() {
                let (bench, together) = (&bench, &together);
                scope.spawn(move || {
                    together.wait();
                    bench.pool.record(index, Outcome::Reset, None, bench.now)
                });
            }
        });
        let status = bench.pool.status(bench.now);
        let ejected = status
            .iter()
            .filter(|it| it.health == Health::Ejected)
            .count();
        assert_eq!(ejected, 1, "a quarter of four");
    }
}

#[test]
fn picking_while_health_changes_finds_the_endpoint_that_stays() {
    for balance in ALL {
        let bench = Bench::new(settings(weighted(&[1; 6]), balance));
        let (pool, now) = (&bench.pool, bench.now);
        let flapping: Vec<_> = (0..5).map(|position| bench.index(position)).collect();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for passed in [false, true] {
                        for index in &flapping {
                            pool.probed(*index, passed, now);
                        }
                    }
                }
            });
            let missed = (0..50_000).filter(|turn| {
                let context = PickContext {
                    hash: Some(*turn),
                    tried: &[],
                    ..PickContext::default()
                };
                pool.pick(&context, now, *turn).is_err()
            });
            let missed = missed.count();
            // Before the assertion, which would otherwise wait for the other thread for ever.
            over.store(true, Ordering::Relaxed);
            assert_eq!(missed, 0, "{balance:?}");
        });
    }
}

#[test]
fn shares_hold_when_threads_pick_at_random() {
    let bench = Bench::new(settings(weighted(&[2, 1, 1]), Balance::Random));
    let (pool, now) = (&bench.pool, bench.now);
    let picks: Vec<usize> = thread::scope(|scope| {
        let work = move |thread: u64| {
            let pick = |turn: u64| pool.pick(&PickContext::default(), now, thread << 40 | turn);
            (0..10_000)
                .filter_map(|turn| pick(turn).ok())
                .map(balancer::EndpointIndex::as_usize)
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("the thread ends"))
            .collect()
    });
    let tally: Vec<_> = (0..3)
        .map(|position| picks.iter().filter(|picked| **picked == position).count())
        .collect();
    assert_shares(&tally, &[2, 1, 1], 0.05);
}
