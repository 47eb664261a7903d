//! Limits on what is under way, and who is chosen when they are reached.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use balancer::{Balance, Limits, Mode, PickContext, PickError, PoolSettings};

use crate::support::{ALL, Bench, positive, settings, weighted};

fn limited(balance: Balance, endpoints: usize, limits: Limits) -> PoolSettings {
    PoolSettings {
        limits,
        ..settings(weighted(&vec![1; endpoints]), balance)
    }
}

fn requests(limit: u32) -> Limits {
    Limits {
        endpoint_requests: Some(positive(limit)),
        ..Limits::default()
    }
}

fn total(limit: u32) -> Limits {
    Limits {
        total_requests: Some(positive(limit)),
        ..Limits::default()
    }
}

#[test]
fn endpoints_fill_up_to_their_limit_and_then_the_pool_is_saturated() {
    for balance in ALL {
        for hash in [None, Some(5)] {
            let mut bench = Bench::new(limited(balance, 3, requests(4)));
            let context = PickContext {
                hash,
                ..PickContext::default()
            };
            let mut under_way = Vec::new();
            for _ in 0..12 {
                under_way.push(bench.acquire_with(&context).expect("there is room"));
            }
            let active: Vec<_> = bench
                .pool
                .status(bench.now)
                .iter()
                .map(|it| it.active)
                .collect();
            assert_eq!(active, [4; 3], "{balance:?}");
            let refused = bench.acquire_with(&context).map(|(picked, _)| picked);
            assert_eq!(refused, Err(PickError::Saturated), "{balance:?}");
            let (freed, active) = under_way.swap_remove(5);
            drop(active);
            assert_eq!(bench.pick_with(&context), Ok(freed), "{balance:?}");
        }
    }
}

#[test]
fn the_total_is_a_limit_too() {
    let mut bench = Bench::new(limited(Balance::Random, 3, total(5)));
    let mut under_way: Vec<_> = (0..5).map(|_| bench.acquire()).collect();
    assert!(under_way.iter().all(Result::is_ok));
    assert_eq!(bench.pick(), Err(PickError::Saturated));
    under_way.pop();
    assert!(bench.pick().is_ok());
    assert_eq!(bench.pool.summary(bench.now).active, 4);
}

#[test]
fn requests_that_wait_for_a_connection_have_a_limit_of_their_own() {
    let limits = Limits {
        endpoint_pending: Some(positive(2)),
        ..Limits::default()
    };
    let mut bench = Bench::new(limited(Balance::RoundRobin, 1, limits));
    let (_, mut first) = bench.acquire().expect("there is room");
    let (_, _second) = bench.acquire().expect("there is room");
    assert_eq!(bench.pick(), Err(PickError::Saturated));
    first.connected();
    first.connected();
    let status = bench.pool.status(bench.now)[0];
    assert_eq!((status.active, status.pending), (2, 1));
    let (_, third) = bench.acquire().expect("one has its connection");
    drop((first, third));
    let status = bench.pool.status(bench.now)[0];
    assert_eq!((status.active, status.pending), (1, 1));
}

#[test]
fn saturated_means_that_waiting_may_help() {
    let mut settings = limited(Balance::RoundRobin, 3, requests(1));
    settings.endpoints[2].mode = Mode::Drain;
    let mut bench = Bench::new(settings);
    let (first, under_way) = bench.acquire().expect("there is room");
    let tried = [bench.index(first)];
    let context = PickContext {
        tried: &tried,
        ..PickContext::default()
    };
    let (second, _other) = bench.acquire_with(&context).expect("the other one");
    assert_eq!(bench.pick_with(&context), Err(PickError::Saturated));
    bench.take_out(second);
    assert_eq!(
        bench.pick_with(&context),
        Err(PickError::Exhausted),
        "nobody is left that was not tried"
    );
    bench.take_out(first);
    assert_eq!(bench.pick(), Err(PickError::NoneAvailable));
    drop(under_way);
}

#[test]
fn a_session_stays_with_its_endpoint_while_that_can_be_used() {
    for balance in ALL {
        let mut bench = Bench::new(limited(balance, 4, requests(1)));
        let home = Some(bench.index(2));
        let context = PickContext {
            prefer: home,
            hash: Some(9),
            ..PickContext::default()
        };
        assert!((0..50).all(|_| bench.pick_with(&context) == Ok(2)));
        let (_, under_way) = bench.acquire_with(&context).expect("it is free");
        assert_ne!(bench.pick_with(&context), Ok(2), "{balance:?}: it is full");
        drop(under_way);
        assert_eq!(bench.pick_with(&context), Ok(2), "{balance:?}");
        bench.take_out(2);
        assert_ne!(bench.pick_with(&context), Ok(2), "{balance:?}: it is down");
    }
}

#[test]
fn limits_hold_with_many_threads() {
    for balance in ALL {
        let limits = Limits {
            total_requests: Some(positive(7)),
            ..requests(3)
        };
        let bench = Bench::new(limited(balance, 4, limits));
        let (pool, now) = (&bench.pool, bench.now);
        let under_way: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::new(0)).collect();
        let all = AtomicU32::new(0);
        let work = |thread: u64| {
            let mut served = 0;
            for turn in 0..4_000 {
                let random = thread << 32 | turn;
                let context = PickContext {
                    hash: Some(random),
                    ..PickContext::default()
                };
                let Ok((index, active)) = pool.acquire(&context, now, random) else {
                    continue;
                };
                served += 1;
                let here = &under_way[index.as_usize()];
                let at_endpoint = here.fetch_add(1, Ordering::SeqCst);
                let in_pool = all.fetch_add(1, Ordering::SeqCst);
                assert!(
                    at_endpoint < 3,
                    "{balance:?}: {at_endpoint} at one endpoint"
                );
                assert!(in_pool < 7, "{balance:?}: {in_pool} in the pool");
                if turn % 3 == 0 {
                    thread::yield_now();
                }
                all.fetch_sub(1, Ordering::SeqCst);
                here.fetch_sub(1, Ordering::SeqCst);
                drop(active);
            }
            served
        };
        let served: u32 = thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = (0..12)
                .map(|thread| scope.spawn(move || work(thread)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no limit was broken"))
                .sum()
        });
        assert!(served > 1_000, "{balance:?}: only {served} were served");
        assert_eq!(pool.summary(now).active, 0, "{balance:?}");
    }
}
