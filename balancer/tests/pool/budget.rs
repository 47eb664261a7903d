//! The retry budget of a pool.

use balancer::{Balance, Carry, PickContext, PoolSettings};

use crate::support::{Bench, seconds, settings, weighted};

fn budget(percent: Option<u8>) -> PoolSettings {
    PoolSettings {
        retry_budget: percent,
        ..settings(weighted(&[1, 1]), Balance::RoundRobin)
    }
}

fn allowed(bench: &Bench, asked: usize) -> usize {
    (0..asked)
        .filter(|_| bench.pool.may_retry(bench.now))
        .count()
}

#[test]
fn without_a_budget_there_is_no_end_of_retries() {
    let bench = Bench::new(budget(None));
    assert_eq!(allowed(&bench, 1_000), 1_000);
    assert_eq!(bench.pool.summary(bench.now).retries_left, None);
}

#[test]
fn retries_stay_a_share_of_first_attempts() {
    let mut bench = Bench::new(budget(Some(20)));
    let reserve = allowed(&bench, 1_000);
    assert!(reserve < 20, "{reserve} without a single request");
    let mut retries = 0;
    for turn in 0..10_000_u32 {
        drop(bench.acquire().expect("both are in service"));
        // Everything fails, so everybody would like to try again.
        retries += usize::from(bench.pool.may_retry(bench.now));
        if turn % 100 == 0 {
            bench.now += std::time::Duration::from_millis(100);
        }
    }
    // A fifth, and the reserve of ten seconds.
    assert!((2_000..=2_040).contains(&retries), "{retries} retries");
}

#[test]
fn only_first_attempts_pay_in() {
    let mut bench = Bench::new(budget(Some(100)));
    allowed(&bench, 1_000);
    let tried = [bench.index(0)];
    let context = PickContext {
        tried: &tried,
        ..PickContext::default()
    };
    for _ in 0..50 {
        drop(bench.acquire_with(&context).expect("the other one"));
    }
    assert_eq!(allowed(&bench, 10), 0, "retries do not pay for retries");
    drop(bench.acquire().expect("both are in service"));
    assert_eq!(allowed(&bench, 10), 1);
}

#[test]
fn the_balance_outlives_a_reload() {
    let mut bench = Bench::new(budget(Some(50)));
    allowed(&bench, 1_000);
    bench.follow(budget(Some(50)), Carry::Reload);
    assert_eq!(allowed(&bench, 10), 0, "a reload is no way to more retries");
    bench.now += seconds(2);
    let left = bench.pool.summary(bench.now).retries_left;
    assert!(left > Some(0), "the reserve fills by time: {left:?}");
}
