//! The limit that is found from latency, against a simulated endpoint.

use std::collections::VecDeque;
use std::time::Duration;

use balancer::{
    Active, AdaptiveSettings, Balance, Carry, Limits, Outcome, PickError, PoolSettings,
};

use crate::support::{Bench, positive, seconds, settings, weighted};

fn adaptive(min: u32, max: u32) -> PoolSettings {
    PoolSettings {
        adaptive: Some(AdaptiveSettings {
            min: positive(min),
            max: positive(max),
        }),
        ..settings(weighted(&[1]), Balance::RoundRobin)
    }
}

/// An endpoint that works on so many requests at once, each for the same time; others wait in it.
struct Node {
    workers: usize,
    time: Duration,
    /// When each worker is free.
    free: VecDeque<Duration>,
}

impl Node {
    fn new(workers: usize, time: Duration) -> Self {
        Self {
            workers,
            time,
            free: VecDeque::new(),
        }
    }

    /// When a request that comes at `at` is answered.
    fn answers(&mut self, at: Duration) -> Duration {
        let begins = if self.free.len() < self.workers {
            at
        } else {
            self.free.pop_front().unwrap_or(at).max(at)
        };
        self.free.push_back(begins + self.time);
        begins + self.time
    }
}

/// What became of the requests of a stretch of time.
#[derive(Debug, Default)]
struct Seen {
    answered: usize,
    refused: usize,
    slowest: Duration,
    limits: Vec<u32>,
}

/// Sends requests to the pool's one endpoint every `pace`, from `from` on for `span`.
fn drive(
    bench: &mut Bench,
    node: &mut Node,
    from: Duration,
    span: Duration,
    pace: Duration,
) -> Seen {
    let begun = bench.now;
    let mut seen = Seen::default();
    let mut under_way: VecDeque<(Duration, Duration, Active)> = VecDeque::new();
    let mut at = Duration::ZERO;
    while at < span {
        while under_way.front().is_some_and(|(end, ..)| *end <= from + at) {
            let Some((end, sent, active)) = under_way.pop_front() else {
                break;
            };
            let now = begun + (end - from);
            let index = bench.index(0);
            bench
                .pool
                .record(index, Outcome::Success, Some(end - sent), now);
            drop(active);
            seen.answered += 1;
            // The beginning is for finding the limit.
            if at > span / 2 {
                seen.slowest = seen.slowest.max(end - sent);
            }
        }
        bench.now = begun + at;
        match bench.acquire() {
            Ok((_, active)) => {
                under_way.push_back((node.answers(from + at), from + at, active));
            }
            Err(error) => {
                assert_eq!(error, PickError::Saturated);
                seen.refused += 1;
            }
        }
        seen.limits.extend(bench.pool.status(bench.now)[0].limit);
        at += pace;
    }
    bench.now = begun + span;
    seen
}

#[test]
fn an_overloaded_endpoint_is_not_buried() {
    // 40 workers at 20 ms bear 2,000 requests a second; there come 4,000.
    let mut bench = Bench::new(adaptive(4, 1_000));
    let mut node = Node::new(40, Duration::from_millis(20));
    let pace = Duration::from_micros(250);
    let seen = drive(&mut bench, &mut node, Duration::ZERO, seconds(60), pace);
    let late = &seen.limits[seen.limits.len() / 2..];
    let (least, most) = (late.iter().min(), late.iter().max());
    let mean = late.iter().map(|limit| f64::from(*limit)).sum::<f64>() / late.len() as f64;
    assert!(
        (40.0..100.0).contains(&mean),
        "40 at once do not queue, 100 wait thrice: {mean:.0}, from {least:?} to {most:?}"
    );
    assert!(
        seen.slowest < Duration::from_millis(80),
        "{:?}",
        seen.slowest
    );
    let throughput = seen.answered as f64 / 60.0;
    assert!(
        throughput > 1_800.0,
        "it has enough to do: {throughput:.0}/s"
    );
    assert!(seen.refused > 100_000, "what is too much is refused");
}

#[test]
fn the_limit_does_not_run_away_in_a_long_overload() {
    let mut bench = Bench::new(adaptive(4, 10_000));
    let mut node = Node::new(10, Duration::from_millis(20));
    let pace = Duration::from_millis(1);
    let seen = drive(&mut bench, &mut node, Duration::ZERO, seconds(400), pace);
    let late = &seen.limits[seen.limits.len() / 2..];
    let most = late.iter().max().copied();
    assert!(most < Some(60), "{most:?} for ten workers");
}

#[test]
fn an_endpoint_that_is_not_busy_does_not_hinder() {
    let mut bench = Bench::new(adaptive(4, 1_000));
    let mut node = Node::new(40, Duration::from_millis(20));
    let pace = Duration::from_millis(1);
    let seen = drive(&mut bench, &mut node, Duration::ZERO, seconds(60), pace);
    assert_eq!(seen.refused, 0, "20 at once, of 40 that it bears");
    let most = seen.limits.iter().max().copied();
    assert!(most < Some(60), "{most:?}: what is not used does not grow");
}

#[test]
fn an_endpoint_that_has_become_slower_for_good_is_measured_anew() {
    let mut bench = Bench::new(adaptive(4, 1_000));
    let mut node = Node::new(1_000, Duration::from_millis(20));
    let pace = Duration::from_millis(1);
    drive(&mut bench, &mut node, Duration::ZERO, seconds(30), pace);
    node.time = Duration::from_millis(60);
    let seen = drive(&mut bench, &mut node, seconds(30), seconds(120), pace);
    let late = &seen.limits[seen.limits.len() * 3 / 4..];
    let least = late.iter().min().copied();
    assert!(least >= Some(60), "60 are under way at once, {least:?} may");
}

#[test]
fn timeouts_shrink_the_limit() {
    let bench = Bench::new(adaptive(2, 1_000));
    let mut now = bench.now;
    for _ in 0..100 {
        now += Duration::from_millis(100);
        let index = bench.index(0);
        bench.pool.record(index, Outcome::Timeout, None, now);
    }
    let limit = bench.pool.status(now)[0].limit;
    assert!(limit <= Some(5), "{limit:?}");
}

#[test]
fn the_limit_stays_within_its_range_and_below_the_fixed_one() {
    let mut settings = adaptive(30, 50);
    let limit = |bench: &Bench| bench.pool.status(bench.now)[0].limit;
    let mut bench = Bench::new(settings.clone());
    assert_eq!(limit(&bench), Some(30), "not below the least");
    settings.limits = Limits {
        endpoint_requests: Some(positive(7)),
        ..Limits::default()
    };
    bench.follow(settings.clone(), Carry::Reload);
    assert_eq!(limit(&bench), Some(7));
    settings.adaptive = None;
    settings.limits = Limits::default();
    bench.follow(settings, Carry::Reload);
    assert_eq!(limit(&bench), None);
}
