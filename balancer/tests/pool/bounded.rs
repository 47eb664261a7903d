//! Consistent hashing with bounded loads: no endpoint is buried by a popular key.

use balancer::{Balance, HashTable, PoolSettings};

use crate::support::{Bench, keyed, settings, weighted};

fn bounded(table: HashTable, percent: u32, weights: &[u32]) -> PoolSettings {
    let balance = Balance::Hash {
        table,
        max_load: Some(percent),
    };
    settings(weighted(weights), balance)
}

#[test]
fn no_endpoint_gets_more_than_its_bound() {
    for table in HashTable::ALL {
        for percent in [101, 125, 200] {
            let weights = [2, 1, 1, 4];
            let mut bench = Bench::new(bounded(table, percent, &weights));
            let mut under_way = Vec::new();
            for total in 1..=400_u32 {
                let (picked, active) = bench.acquire_with(&keyed(7)).expect("there is room");
                under_way.push(active);
                let share = f64::from(weights[picked]) / 8.0;
                let bound = (f64::from(percent) / 100.0 * share * f64::from(total)).ceil();
                let active = bench.pool.endpoint(bench.index(picked)).active();
                assert!(
                    f64::from(active) <= bound,
                    "{table:?} {percent}: {active} of {total} at {picked}, not {bound}"
                );
            }
        }
    }
}

#[test]
fn a_popular_key_spills_over_and_the_others_stay() {
    for table in HashTable::ALL {
        let mut bench = Bench::new(bounded(table, 150, &[1; 8]));
        let homes: Vec<_> = (0..1_000)
            .map(|key| bench.pick_with(&keyed(key)).expect("there is room"))
            .collect();
        let mut under_way = Vec::new();
        let mut at_home = [0; 8];
        for _ in 0..64 {
            let (picked, active) = bench.acquire_with(&keyed(0)).expect("there is room");
            at_home[picked] += 1;
            under_way.push(active);
        }
        let used = at_home.iter().filter(|count| **count > 0).count();
        assert!(used >= 6, "{table:?}: at most 150 % each, {at_home:?}");
        assert_eq!(at_home[homes[0]], 12, "{table:?}: its home is full");
        let light = at_home.iter().position(|count| *count < 8);
        let light = light.expect("somebody has less than the mean");
        let stays = |key: &u32| homes[*key as usize] == light;
        for key in (0..1_000).filter(stays) {
            let picked = bench.pick_with(&keyed(key));
            assert_eq!(picked, Ok(light), "{table:?}: there is room at its home");
        }
    }
}

#[test]
fn an_idle_pool_lets_every_key_home() {
    for table in HashTable::ALL {
        let mut bench = Bench::new(bounded(table, 110, &[1; 5]));
        let mut free = Bench::new(settings(weighted(&[1; 5]), crate::support::hash(table)));
        for key in 0..1_000 {
            assert_eq!(bench.pick_with(&keyed(key)), free.pick_with(&keyed(key)));
        }
    }
}

#[test]
fn shares_count_only_those_in_service() {
    let mut bench = Bench::new(bounded(HashTable::Ketama, 120, &[1; 4]));
    bench.take_out(0);
    bench.take_out(1);
    let mut under_way = Vec::new();
    for _ in 0..100 {
        under_way.push(bench.acquire_with(&keyed(3)).expect("two are in service"));
    }
    let most = bench
        .pool
        .status(bench.now)
        .iter()
        .map(|it| it.active)
        .max();
    assert!(most <= Some(60), "{most:?} of 100 at one of two");
}
