//! The nodes, the requests, and what becomes of them.
//!
//! A node has a few workers and a queue. Requests come by chance and do not wait for each other (an
//! open loop), as those of many visitors do; what a node cannot serve in time therefore piles up
//! instead of slowing its clients down.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use balancer::{
    Active, Balance, Carry, EndpointIndex, EndpointSettings, Limits, Mode, Outcome,
    OutlierSettings, PickContext, Pool, PoolSettings, Transition,
};

const SEED: u64 = 4;
const NODES: usize = 100;
/// The sick one.
const SICK: usize = 17;
/// Requests that a node works on at once.
const WORKERS: usize = 2;
/// What a request takes on average once it is worked on. The single ones are exponentially
/// distributed.
const SERVICE: Duration = Duration::from_millis(10);
/// How many times that on the slow node.
const SLOWER: u32 = 10;
/// How long the failing node takes to fail.
const FAILURE: Duration = Duration::from_millis(1);
/// How much of what all nodes could do together, were they well, is asked of them, in percent.
const UTILISATION: u64 = 65;
const TIMEOUT: Duration = Duration::from_secs(1);
/// Not counted: until queues and figures have settled.
const WARM_UP: Duration = Duration::from_secs(10);
const SPAN: Duration = Duration::from_secs(40);
const SWEEP: Duration = Duration::from_secs(1);

const OUTLIER: OutlierSettings = OutlierSettings {
    consecutive_errors: NonZeroU32::new(5).unwrap(),
    error_rate: Some(30),
    latency_factor: NonZeroU32::new(3),
    window: Duration::from_secs(10),
    min_requests: NonZeroU32::new(20).unwrap(),
    ejection_time: Duration::from_secs(30),
    max_ejected_percent: 10,
};

/// What is wrong with one of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sickness {
    Slow,
    /// Every other request fails, quickly.
    Failing,
}

/// What one run comes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Percentiles of latency, in milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// Failed requests and timeouts, in percent.
    pub(crate) failed: f64,
    /// Requests that went to the sick node, in percent.
    pub(crate) sick: f64,
    pub(crate) ejections: usize,
}

/// What is simulated, for the manual.
pub(crate) fn description() -> String {
    let rate = arrivals_per_second();
    format!(
        "{NODES} nodes with {WORKERS} workers each; a request takes {} ms on average once it is worked \
         on\n(exponentially distributed), and waits in its node's queue before. Requests come at \
         random, {rate} a\nsecond, which is {UTILISATION} % of what all nodes can do, and do not wait \
         for each other. Each has a key of its\nown and {} second; there are no retries. The first \
         {} of {} seconds are not counted. Outlier\ndetection, where on: {} errors in a row, {} % \
         errors or {} times the median latency of the others in\n{} s, and out for {} s. \
         \n\nSeed {SEED}; the same every time.\n",
        SERVICE.as_millis(),
        TIMEOUT.as_secs(),
        WARM_UP.as_secs(),
        SPAN.as_secs(),
        OUTLIER.consecutive_errors,
        OUTLIER.error_rate.unwrap_or(0),
        OUTLIER.latency_factor.map_or(0, u32::from),
        OUTLIER.window.as_secs(),
        OUTLIER.ejection_time.as_secs(),
    )
    .replace(" \n\n", "\n\n")
}

fn arrivals_per_second() -> u64 {
    let at_once = (NODES * WORKERS) as u128;
    let capacity = at_once * 1_000 / SERVICE.as_millis();
    u64::try_from(capacity).unwrap_or(u64::MAX) * UTILISATION / 100
}

/// Simulates one algorithm.
pub(crate) fn run(balance: Balance, sickness: Sickness, outlier: bool) -> Figures {
    let mut world = World::new(balance, sickness, outlier);
    let pause = 1.0 / arrivals_per_second() as f64;
    let mut arrival = Duration::ZERO;
    let mut sweep = SWEEP;
    while arrival < SPAN {
        while let Some(end) = world.next_end().filter(|end| *end <= arrival) {
            if sweep <= end {
                world.sweep(sweep);
                sweep += SWEEP;
            } else {
                world.end();
            }
        }
        world.arrive(arrival);
        arrival += Duration::from_secs_f64(pause * world.random.exponential());
    }
    world.figures()
}

/// A request under way, to end at a certain time.
struct Flight {
    index: EndpointIndex,
    active: Active,
    sent: Duration,
    outcome: Outcome,
}

/// The pool, the nodes, and the requests between them.
struct World {
    pool: Pool,
    epoch: Instant,
    sickness: Sickness,
    random: Random,
    /// When each worker of each node is free, the earliest first.
    nodes: Vec<VecDeque<Duration>>,
    flights: Vec<Option<Flight>>,
    /// Places in `flights` that are free again.
    free: Vec<usize>,
    ends: BinaryHeap<Reverse<(Duration, usize)>>,
    latencies: Vec<Duration>,
    failed: usize,
    sick: usize,
    ejections: usize,
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "some instant to count from; nothing depends on which"
    )]
    fn new(balance: Balance, sickness: Sickness, outlier: bool) -> Self {
        let epoch = Instant::now();
        Self {
            pool: Pool::new(settings(balance, outlier), None, Carry::Reload, epoch),
            epoch,
            sickness,
            random: Random(SEED),
            nodes: vec![VecDeque::from(vec![Duration::ZERO; WORKERS]); NODES],
            flights: Vec::new(),
            free: Vec::new(),
            ends: BinaryHeap::new(),
            latencies: Vec::new(),
            failed: 0,
            sick: 0,
            ejections: 0,
        }
    }

    fn next_end(&self) -> Option<Duration> {
        self.ends.peek().map(|Reverse((end, _))| *end)
    }

    fn sweep(&mut self, at: Duration) {
        let transitions = self.pool.sweep(self.epoch + at);
        transitions.iter().for_each(|it| self.note(it));
    }

    fn note(&mut self, transition: &Transition) {
        self.ejections += usize::from(matches!(transition, Transition::Ejected { .. }));
    }

    fn arrive(&mut self, at: Duration) {
        let context = PickContext {
            hash: Some(self.random.next()),
            ..PickContext::default()
        };
        let bits = self.random.next();
        // The same draws for every algorithm, whatever they choose.
        let work = SERVICE.mul_f64(self.random.exponential());
        let fails = self.random.next() & 1 == 0;
        let Ok((index, active)) = self.pool.acquire(&context, self.epoch + at, bits) else {
            self.failed += usize::from(at >= WARM_UP);
            return;
        };
        let sick = index.as_usize() == SICK;
        self.sick += usize::from(sick && at >= WARM_UP);
        let (end, outcome) = match (sick, self.sickness) {
            (true, Sickness::Failing) if fails => (at + FAILURE, Outcome::Status5xx),
            (true, Sickness::Slow) => self.work(index, at, work * SLOWER),
            _ => self.work(index, at, work),
        };
        let flight = Some(Flight {
            index,
            active,
            sent: at,
            outcome,
        });
        let place = match self.free.pop() {
            Some(place) => {
                self.flights[place] = flight;
                place
            }
            None => {
                self.flights.push(flight);
                self.flights.len() - 1
            }
        };
        self.ends.push(Reverse((end, place)));
    }

    /// Gives a request to the first free worker of a node. One that nobody has begun with when its
    /// time is over leaves the queue; one that was begun is worked on to its end for nobody.
    fn work(&mut self, index: EndpointIndex, at: Duration, work: Duration) -> (Duration, Outcome) {
        let workers = &mut self.nodes[index.as_usize()];
        let deadline = at + TIMEOUT;
        let begins = workers.front().copied().unwrap_or_default().max(at);
        if begins >= deadline {
            return (deadline, Outcome::Timeout);
        }
        let end = begins + work;
        workers.pop_front();
        let later = workers.partition_point(|free| *free <= end);
        workers.insert(later, end);
        if end > deadline {
            (deadline, Outcome::Timeout)
        } else {
            (end, Outcome::Success)
        }
    }

    /// The next request under way ends.
    fn end(&mut self) {
        let Some(Reverse((at, place))) = self.ends.pop() else {
            return;
        };
        let Some(flight) = self.flights[place].take() else {
            return;
        };
        self.free.push(place);
        let took = at - flight.sent;
        let answered = (flight.outcome != Outcome::Timeout).then_some(took);
        let now = self.epoch + at;
        let told = self
            .pool
            .record(flight.index, flight.outcome, answered, now);
        if let Some(transition) = told {
            self.note(&transition);
        }
        drop(flight.active);
        if flight.sent >= WARM_UP {
            self.failed += usize::from(flight.outcome.is_error());
            self.latencies.push(took);
        }
    }

    fn figures(mut self) -> Figures {
        self.latencies.sort_unstable();
        let count = self.latencies.len();
        let at = |permille: usize| {
            self.latencies[(count - 1) * permille / 1_000].as_secs_f64() * 1_000.0
        };
        let percent = |part: usize| part as f64 * 100.0 / count as f64;
        Figures {
            p50: at(500),
            p99: at(990),
            p999: at(999),
            failed: percent(self.failed),
            sick: percent(self.sick),
            ejections: self.ejections,
        }
    }
}

fn settings(balance: Balance, outlier: bool) -> PoolSettings {
    let endpoints = (1..=NODES)
        .map(|node| EndpointSettings {
            id: format!("10.0.0.{node}:8080"),
            name: format!("node-{node}"),
            weight: NonZeroU32::MIN,
            priority: 0,
            backup: false,
            zone: None,
            mode: Mode::Enabled,
        })
        .collect();
    PoolSettings {
        endpoints,
        balance,
        own_zone: None,
        overflow_below: 70,
        zone_overflow_below: 70,
        panic_threshold: 0,
        active_checks: None,
        outlier: outlier.then_some(OUTLIER),
        limits: Limits::default(),
        adaptive: None,
        slow_start: Duration::ZERO,
        retry_budget: None,
    }
}

/// A xorshift generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Exponentially distributed, with a mean of 1.
    fn exponential(&mut self) -> f64 {
        const SCALE: f64 = 1.0 / (1_u64 << 53) as f64;
        -logarithm(((self.next() >> 11) + 1) as f64 * SCALE)
    }
}

/// The natural logarithm of a number above 0, up to 1. The one of the standard library is that of
/// the system, whose last digits differ from one to the next, and with them every queue.
fn logarithm(value: f64) -> f64 {
    let mut value = value;
    let mut halvings = 0.0;
    while value < 0.75 {
        value *= 2.0;
        halvings += 1.0;
    }
    let ratio = (value - 1.0) / (value + 1.0);
    let square = ratio * ratio;
    let series = (0..12_u32).rev().fold(0.0, |sum, term| {
        sum * square + 1.0 / f64::from(2 * term + 1)
    });
    2.0 * ratio * series - halvings * std::f64::consts::LN_2
}
