//! Active health checks, over connections of their own.
//!
//! A check goes the way that a request goes (the same protocol, TLS settings
//! and PROXY header), but never over a connection that requests use. What its
//! result means is for others to decide: it is reported, and the answer says
//! whether the endpoint counts as healthy, which sets the pace.
//!
//! Where several upstreams check one address in the same way it is checked
//! once, and all of them are told. A reload or a discovery hands in the whole
//! list anew: checks that go on keep their pace, so that none is missed and no
//! endpoint is asked by all at once.

mod check;
mod grpc;
mod http;
mod reason;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

pub(crate) use reason::Reason;

use super::Target;
use super::dial::{Dialer, Wire};
use crate::clock;
use crate::random;

/// First checks are spread over a quarter of the interval, but over no more than this: an
/// endpoint that is not used before it is checked does not wait for long.
const SPREAD: Duration = Duration::from_millis(500);

/// Takes a result; says whether the endpoint counts as healthy then.
pub(crate) type Report = Arc<dyn Fn(&Result<(), Reason>) -> bool + Send + Sync>;

/// One endpoint that one upstream wants to be checked.
pub(crate) struct Probe {
    /// Names the upstream in the log.
    pub(crate) upstream: String,
    /// Names the endpoint in the log.
    pub(crate) endpoint: String,
    /// Where it is.
    pub(crate) target: Target,
    /// What is done and how often. The thresholds are the pool's.
    pub(crate) check: conf::HealthCheck,
    /// Makes the connections.
    pub(crate) dialer: Arc<Dialer>,
    /// Is told every result.
    pub(crate) report: Report,
}

/// The checks that are running; they end when this is dropped.
#[derive(Default)]
pub(crate) struct Probers {
    by_target: HashMap<Target, Vec<Watch>>,
}

/// What makes two checks of one target the same.
#[derive(Debug, Clone, PartialEq)]
struct Manner {
    kind: conf::HealthCheckKind,
    interval: Duration,
    down_interval: Duration,
    timeout: Duration,
    /// Protocol, TLS and PROXY header.
    wire: Wire,
}

/// One check that runs.
struct Watch {
    manner: Manner,
    job: Arc<Mutex<Job>>,
    task: JoinHandle<()>,
}

/// Who wants to know.
struct Job {
    dialer: Arc<Dialer>,
    listeners: Vec<Listener>,
}

#[derive(Clone)]
struct Listener {
    upstream: String,
    endpoint: String,
    report: Report,
}

impl Probers {
    /// Starts these checks on the current runtime.
    pub(crate) fn start(probes: Vec<Probe>) -> Self {
        let mut probers = Self::default();
        probers.update(probes);
        probers
    }

    /// From now on there are these checks and no others; those that were there go on.
    pub(crate) fn update(&mut self, probes: Vec<Probe>) {
        let mut wanted: HashMap<Target, Vec<(Manner, Job)>> = HashMap::new();
        for probe in probes {
            let manner = Manner::of(&probe);
            let of_target = wanted.entry(probe.target).or_default();
            let listener = Listener {
                upstream: probe.upstream,
                endpoint: probe.endpoint,
                report: probe.report,
            };
            match of_target.iter_mut().find(|(known, _)| *known == manner) {
                Some((_, job)) => job.listeners.push(listener),
                None => {
                    let job = Job {
                        dialer: probe.dialer,
                        listeners: vec![listener],
                    };
                    of_target.push((manner, job));
                }
            }
        }
        let mut before = std::mem::take(&mut self.by_target);
        for (target, checks) in wanted {
            let mut running = before.remove(&target).unwrap_or_default();
            let watches = checks
                .into_iter()
                .map(|(manner, job)| {
                    match running.iter().position(|watch| watch.manner == manner) {
                        Some(place) => running.swap_remove(place).go_on(job),
                        None => Watch::begin(target.clone(), manner, job),
                    }
                })
                .collect();
            self.by_target.insert(target, watches);
        }
    }
}

impl Manner {
    fn of(probe: &Probe) -> Self {
        Self {
            kind: probe.check.kind.clone(),
            interval: probe.check.interval,
            down_interval: probe.check.down_interval,
            timeout: probe.check.timeout,
            wire: probe.dialer.wire(),
        }
    }
}

impl Watch {
    fn begin(target: Target, manner: Manner, job: Job) -> Self {
        let job = Arc::new(Mutex::new(job));
        Self {
            task: tokio::spawn(watch(target, manner.clone(), job.clone())),
            manner,
            job,
        }
    }

    fn go_on(self, next: Job) -> Self {
        *lock(&self.job) = next;
        self
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nothing is awaited under it, and nobody is told.
fn lock(job: &Mutex<Job>) -> MutexGuard<'_, Job> {
    job.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks one target for ever.
async fn watch(target: Target, manner: Manner, job: Arc<Mutex<Job>>) {
    sleep((manner.interval / 4).min(SPREAD).mul_f64(random::share())).await;
    loop {
        let began = clock::now();
        let dialer = lock(&job).dialer.clone();
        let result = check::run(&dialer, &target, &manner.kind, manner.timeout).await;
        let period = match tell(&job, &target, &result) {
            true => manner.interval,
            false => manner.down_interval,
        };
        let took = clock::now().saturating_duration_since(began);
        sleep(pause(period, took, random::share())).await;
    }
}

/// Whether it is healthy for all who were told.
fn tell(job: &Mutex<Job>, target: &Target, result: &Result<(), Reason>) -> bool {
    let listeners = lock(job).listeners.clone();
    let mut healthy = true;
    for listener in listeners {
        if let Err(reason) = result {
            let (upstream, endpoint) = (&listener.upstream, &listener.endpoint);
            tracing::debug!(upstream, endpoint, %target, %reason, "health check failed");
        }
        healthy &= (listener.report)(result);
    }
    healthy
}

/// From the end of a check that took so long to the start of the next: the period, less up to a
/// tenth of it by `chance` (0 to 1), so that checks which began together drift apart. A check
/// that took longer than the period is given a moment's rest.
fn pause(period: Duration, took: Duration, chance: f64) -> Duration {
    let jittered = period.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 10.0);
    jittered.saturating_sub(took).max(period / 10)
}
