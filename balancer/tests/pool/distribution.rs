//! Who gets how much, by algorithm: weights, uneven pools, nodes that are down, backups, retries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use balancer::{Balance, PickContext, PickError};

use crate::support::{
    ALL, Bench, LEAST_REQUEST, RENDEZVOUS, assert_shares, backup, endpoint, settings, weighted,
};

#[test]
fn round_robin_shares_exactly_by_weight() {
    let mut bench = Bench::new(settings(weighted(&[5, 1, 1]), Balance::RoundRobin));
    assert_eq!(bench.tally(700), [500, 100, 100]);
}

#[test]
fn round_robin_interleaves_smoothly() {
    let mut bench = Bench::new(settings(weighted(&[5, 1, 1]), Balance::RoundRobin));
    let order: Vec<_> = (0..7)
        .map(|_| bench.pick().expect("all are in service"))
        .collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn round_robin_does_not_pile_the_load_of_a_dead_endpoint_onto_its_successor() {
    for dead in 0..5 {
        let mut bench = Bench::new(settings(weighted(&[1; 5]), Balance::RoundRobin));
        bench.take_out(dead);
        let mut due = [250; 5];
        due[dead] = 0;
        assert_eq!(bench.tally(1_000), due, "the four others share alike");
    }
}

#[test]
fn round_robin_keeps_uneven_weights_when_the_heaviest_is_down() {
    let mut bench = Bench::new(settings(weighted(&[8, 3, 2, 1]), Balance::RoundRobin));
    bench.take_out(0);
    assert_eq!(bench.tally(600), [0, 300, 200, 100]);
}

#[test]
fn a_long_row_of_dead_endpoints_favours_nobody() {
    for balance in ALL {
        let mut bench = Bench::new(settings(weighted(&[1; 60]), balance));
        (5..55).for_each(|position| bench.take_out(position));
        let tally = bench.tally(20_000);
        let alive: Vec<_> = tally[..5].iter().chain(&tally[55..]).copied().collect();
        assert!(
            tally[5..55].iter().all(|count| *count == 0),
            "{balance:?}: a dead one was picked"
        );
        assert_shares(&alive, &[1; 10], 0.10);
    }
}

#[test]
fn random_shares_by_weight() {
    let mut bench = Bench::new(settings(weighted(&[6, 3, 1]), Balance::Random));
    assert_shares(&bench.tally(50_000), &[6, 3, 1], 0.05);
}

#[test]
fn random_keeps_the_shares_of_the_others_when_one_is_down() {
    let mut bench = Bench::new(settings(weighted(&[6, 3, 1]), Balance::Random));
    bench.take_out(0);
    assert_shares(&bench.tally(40_000), &[0, 3, 1], 0.05);
}

#[test]
fn an_idle_pool_under_least_request_is_shared_by_weight() {
    let mut bench = Bench::new(settings(weighted(&[6, 3, 1]), LEAST_REQUEST));
    assert_shares(&bench.tally(50_000), &[6, 3, 1], 0.05);
}

#[test]
fn least_request_fills_endpoints_in_proportion_to_their_weights() {
    let weights = [4, 2, 1, 1];
    let mut bench = Bench::new(settings(weighted(&weights), LEAST_REQUEST));
    let mut under_way = Vec::new();
    for _ in 0..8_000 {
        let picked = bench.pick().expect("all are in service");
        under_way.push(bench.pool.start(bench.index(picked)));
    }
    let active: Vec<_> = bench
        .pool
        .status(bench.now)
        .iter()
        .map(|it| it.active as usize)
        .collect();
    assert_shares(&active, &weights, 0.02);
}

/// Requests at a steady rate, one every tick, to `count` endpoints of which the first takes ten
/// times as long. Gives how many each got.
fn with_a_slow_endpoint(balance: Balance, count: usize) -> Vec<usize> {
    let mut bench = Bench::new(settings(weighted(&vec![1; count]), balance));
    let mut tally = vec![0; count];
    let mut ends = BinaryHeap::new();
    let mut under_way = Vec::new();
    for tick in 0..20_000_u64 {
        while ends.peek().is_some_and(|Reverse((end, _))| *end <= tick) {
            let Some(Reverse((_, request))) = ends.pop() else {
                break;
            };
            under_way[request] = None;
        }
        let picked = bench.pick().expect("all are in service");
        tally[picked] += 1;
        ends.push(Reverse((
            tick + if picked == 0 { 100 } else { 10 },
            under_way.len(),
        )));
        under_way.push(Some(bench.pool.start(bench.index(picked))));
    }
    tally
}

#[test]
fn least_request_spares_a_slow_endpoint() {
    let blind = with_a_slow_endpoint(Balance::RoundRobin, 5)[0];
    let seeing = with_a_slow_endpoint(LEAST_REQUEST, 5);
    assert_eq!(blind, 4_000);
    assert!(
        seeing[0] < 1_200,
        "ten times slower, it should get far less than a fifth: {seeing:?}"
    );
    assert_shares(&seeing[1..], &[1; 4], 0.10);
}

#[test]
fn of_two_endpoints_least_request_always_takes_the_less_busy() {
    let mut bench = Bench::new(settings(weighted(&[1, 1]), LEAST_REQUEST));
    let _under_way = bench.pool.start(bench.index(0));
    assert_eq!(bench.tally(1_000), [0, 1_000]);
}

#[test]
fn hashing_without_a_key_shares_by_weight() {
    let mut bench = Bench::new(settings(weighted(&[3, 1]), RENDEZVOUS));
    assert_shares(&bench.tally(40_000), &[3, 1], 0.05);
}

#[test]
fn backups_get_nothing_while_a_primary_is_in_service() {
    for balance in ALL {
        let endpoints = vec![backup(10), endpoint(0, 1), endpoint(1, 1), backup(11)];
        let mut bench = Bench::new(settings(endpoints, balance));
        bench.take_out(1);
        assert_eq!(bench.tally(200), [0, 0, 200, 0], "{balance:?}");
        bench.take_out(2);
        let tally = bench.tally(2_000);
        assert_shares(&[tally[0], tally[3]], &[1, 1], 0.10);
        bench.pool.probed(bench.index(1), true, bench.now);
        assert_eq!(
            bench.tally(200),
            [0, 200, 0, 0],
            "{balance:?}: the primary is back"
        );
    }
}

#[test]
fn a_request_tries_every_endpoint_once_and_backups_last() {
    for balance in ALL {
        for hash in [None, Some(77)] {
            let endpoints = vec![backup(10), endpoint(0, 9), endpoint(1, 1), endpoint(2, 1)];
            let mut bench = Bench::new(settings(endpoints, balance));
            let mut tried = Vec::new();
            while let Ok(picked) = bench.pick_with(&PickContext {
                hash,
                tried: &tried,
                ..PickContext::default()
            }) {
                tried.push(bench.index(picked));
            }
            let mut order: Vec<_> = tried.iter().map(|index| index.as_usize()).collect();
            assert_eq!(order.pop(), Some(0), "{balance:?}: the backup comes last");
            order.sort_unstable();
            assert_eq!(order, [1, 2, 3], "{balance:?}");
            let context = PickContext {
                hash,
                tried: &tried,
                ..PickContext::default()
            };
            assert_eq!(
                bench.pick_with(&context),
                Err(PickError::Exhausted),
                "{balance:?}"
            );
        }
    }
}

#[test]
fn with_all_endpoints_down_there_is_none() {
    for balance in ALL {
        let mut bench = Bench::new(settings(
            vec![endpoint(0, 1), endpoint(1, 5), backup(2)],
            balance,
        ));
        (0..3).for_each(|position| bench.take_out(position));
        assert_eq!(bench.pick(), Err(PickError::NoneAvailable), "{balance:?}");
        let keyed = PickContext {
            hash: Some(1),
            tried: &[],
            ..PickContext::default()
        };
        assert_eq!(
            bench.pick_with(&keyed),
            Err(PickError::NoneAvailable),
            "{balance:?}"
        );
    }
}

#[test]
fn a_pool_without_endpoints_has_none() {
    for balance in ALL {
        let mut bench = Bench::new(settings(Vec::new(), balance));
        assert_eq!(bench.pick(), Err(PickError::NoneAvailable));
        assert_eq!(
            bench.pick_with(&PickContext {
                hash: Some(1),
                tried: &[],
                ..PickContext::default()
            }),
            Err(PickError::NoneAvailable)
        );
    }
}
