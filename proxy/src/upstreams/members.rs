//! The endpoints of an upstream as they are for a while.
//!
//! A request takes the set once and keeps it. When endpoints come or go, or somebody changes one by
//! hand, a new set is made from the old one: who is in both keeps health, counts and connections.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use balancer::{EndpointIndex, Outcome, PickContext, PickError, Pool};

use super::common::Common;
use super::dial::{Addresses, Connection, DialError};
use super::discovery::Found;
use super::link::{Connected, EndpointLinks, Purpose, Reuse, Session};
use super::place::Place;
use super::target::Target;
use crate::observe::metrics::{EndpointGauges, Endpoints, UpstreamGauges};
use crate::random;

/// See the module's text.
pub(crate) struct Members {
    common: Arc<Common>,
    pool: Pool,
    /// What to connect to, by endpoint.
    targets: Vec<Target>,
    /// Connections, by endpoint.
    links: Vec<Arc<EndpointLinks>>,
    /// Hashes of addresses, as sticky cookies carry them, by endpoint.
    hashes: Vec<u64>,
    by_hash: HashMap<u64, EndpointIndex>,
    shown: Arc<Endpoints>,
    found: Vec<Found>,
    /// Which of those it is for which requests wait in the queue, counted from one.
    number: u64,
}

impl Members {
    /// The set of `found` with `pool`, which was made for just these. Connections of `previous` to
    /// the same targets go on; what they speak is compared when one is taken.
    pub(super) fn new(
        common: Arc<Common>,
        pool: Pool,
        found: Vec<Found>,
        previous: Option<&Self>,
    ) -> Self {
        let known: HashMap<String, &Arc<EndpointLinks>> = previous
            .into_iter()
            .flat_map(|members| members.targets.iter().map(Target::id).zip(&members.links))
            .collect();
        let links = found
            .iter()
            .map(|found| match known.get(&found.target.id()) {
                // It may be gone from what is in force, and come back with this set.
                Some(links) if !links.is_retired() => Arc::clone(links),
                _ => EndpointLinks::new(common.workers, &common.links),
            })
            .collect();
        let hashes: Vec<u64> = found
            .iter()
            .map(|found| balancer::hash_key(found.target.id().as_bytes()))
            .collect();
        let by_hash = hashes
            .iter()
            .copied()
            .zip(pool.endpoints().map(|(index, _)| index))
            .collect();
        let names = found.iter().map(|found| found.name.clone()).collect();
        Self {
            shown: common.metrics.endpoints(names),
            targets: found.iter().map(|found| found.target.clone()).collect(),
            links,
            hashes,
            by_hash,
            pool,
            found,
            number: common.queue.as_ref().map_or(0, |queue| queue.number_set()),
            common,
        }
    }

    /// Whether no other set was made behind this one for those who wait in the queue.
    pub(crate) fn are_newest(&self) -> bool {
        let queue = self.common.queue.as_ref();
        queue.is_none_or(|queue| queue.is_newest(self.number))
    }

    pub(crate) fn common(&self) -> &Arc<Common> {
        &self.common
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn len(&self) -> usize {
        self.targets.len()
    }

    /// As they were found.
    pub(super) fn found(&self) -> &[Found] {
        &self.found
    }

    /// Names and counters, for records.
    pub(crate) fn shown(&self) -> &Arc<Endpoints> {
        &self.shown
    }

    pub(crate) fn name(&self, endpoint: EndpointIndex) -> &str {
        self.pool.endpoint(endpoint).name()
    }

    /// Where the endpoint is.
    pub(crate) fn target(&self, endpoint: EndpointIndex) -> Option<&Target> {
        self.targets.get(endpoint.as_usize())
    }

    /// Connections to it, and how many of them are idle.
    pub(crate) fn connections(&self, endpoint: EndpointIndex) -> (u32, usize) {
        let links = self.links.get(endpoint.as_usize());
        links.map_or((0, 0), |links| (links.open(), links.idle()))
    }

    /// The hash of its address for a sticky cookie.
    pub(crate) fn hash(&self, endpoint: EndpointIndex) -> Option<u64> {
        self.hashes.get(endpoint.as_usize()).copied()
    }

    /// The endpoint that a sticky cookie names, if it is still there.
    pub(crate) fn sticky(&self, hash: u64) -> Option<EndpointIndex> {
        self.by_hash.get(&hash).copied()
    }

    /// Picks an endpoint and counts the request there.
    ///
    /// # Errors
    /// There is none to be had now.
    pub(crate) fn acquire(
        &self,
        context: &PickContext<'_>,
        now: Instant,
    ) -> Result<Place, PickError> {
        let (endpoint, active) = self.pool.acquire(context, now, random::bits())?;
        Ok(Place::new(endpoint, active, self.common.queue.clone()))
    }

    /// A connection to `endpoint`; a kept one where there is one that will do.
    ///
    /// # Errors
    /// None came about.
    pub(crate) async fn connect(
        &self,
        endpoint: EndpointIndex,
        worker: usize,
        reuse: Reuse,
        from: Option<Addresses>,
        now: Instant,
    ) -> Result<Connected, DialError> {
        let at = endpoint.as_usize();
        let (links, target) = (&self.links[at], &self.targets[at]);
        let purpose = Purpose {
            dialer: &self.common.dialer,
            target,
            from,
        };
        links.connect(worker, purpose, reuse, now).await
    }

    /// A new connection to `endpoint` for whatever is spoken on it; `from`: on whose behalf, for the
    /// PROXY header.
    ///
    /// # Errors
    /// None came about.
    pub(crate) async fn connect_raw(
        &self,
        endpoint: EndpointIndex,
        worker: usize,
        from: Option<Addresses>,
    ) -> Result<Box<Connection>, DialError> {
        let at = endpoint.as_usize();
        let (links, target) = (&self.links[at], &self.targets[at]);
        let purpose = Purpose {
            dialer: &self.common.dialer,
            target,
            from,
        };
        links.dial(worker, purpose).await
    }

    /// A kept HTTP/1.1 connection to `endpoint` and how long it was idle, if `worker` has one that
    /// will do.
    pub(crate) fn take(
        &self,
        endpoint: EndpointIndex,
        worker: usize,
        reuse: Reuse,
        now: Instant,
    ) -> Option<(Box<Connection>, Duration)> {
        let links = self.links.get(endpoint.as_usize())?;
        links.take(worker, &self.common.dialer, reuse, now)
    }

    /// A kept connection to `endpoint` ended sooner than servers let go of them.
    pub(crate) fn be_careful(&self, endpoint: EndpointIndex, now: Instant) {
        if let Some(links) = self.links.get(endpoint.as_usize()) {
            links.be_careful(now);
        }
    }

    /// Takes it back after a whole exchange.
    pub(crate) fn put(
        &self,
        endpoint: EndpointIndex,
        worker: usize,
        connection: Box<Connection>,
        now: Instant,
    ) {
        if let Some(links) = self.links.get(endpoint.as_usize()) {
            links.put(worker, &self.common.dialer, connection, now);
        }
    }

    /// Takes a session's connection back after a whole exchange.
    pub(crate) async fn release(
        &self,
        endpoint: EndpointIndex,
        worker: usize,
        session: Session,
        now: Instant,
    ) {
        if let Some(links) = self.links.get(endpoint.as_usize()) {
            let dialer = &self.common.dialer;
            links.release(worker, dialer, session, now).await;
        }
    }

    /// Tells the pool how an attempt ended, and the log what came of it.
    pub(crate) fn record(
        &self,
        endpoint: EndpointIndex,
        outcome: Outcome,
        latency: Option<Duration>,
        now: Instant,
    ) {
        if let Some(transition) = self.pool.record(endpoint, outcome, latency, now) {
            self.log(&transition, outcome.as_str());
        }
    }

    /// What is due about once a second: ejections end, idle connections close, the line moves.
    pub(super) fn tick(&self, now: Instant) {
        for links in &self.links {
            links.sweep(&self.common.dialer, now);
        }
        for transition in self.pool.sweep(now) {
            self.log(&transition, "time");
        }
        if let Some(queue) = &self.common.queue {
            queue.wake();
        }
    }

    /// This set is in force no more; `next`, if anything, is. Of endpoints that are not in that one no
    /// connection is kept, however long a request refers to this one.
    pub(super) fn retire(&self, next: Option<&Self>) {
        if let Some(next) = next {
            // One may have gone from the set before while this one was made.
            next.links.iter().for_each(|links| links.revive());
        }
        let kept = next.map(|next| next.links.iter().map(Arc::as_ptr));
        let kept: HashSet<_> = kept.into_iter().flatten().collect();
        for links in &self.links {
            if !kept.contains(&Arc::as_ptr(links)) {
                links.retire();
            }
        }
    }

    /// Closes connections to `endpoint` that nobody uses.
    pub(super) fn close_idle(&self, endpoint: EndpointIndex) {
        if let Some(links) = self.links.get(endpoint.as_usize()) {
            links.close_idle();
        }
    }

    /// Brings the gauges up to date.
    pub(super) fn show(&self, now: Instant) {
        let summary = self.pool.summary(now);
        self.common.metrics.set(UpstreamGauges {
            queued: self.common.queue.as_ref().map_or(0, |queue| queue.len()) as u64,
            in_service: summary.in_service as u64,
            panic: summary.panic,
            connections: u64::from(self.common.links.open()),
            discovery_age: self.common.discovery_age(now),
        });
        for ((at, status), links) in self.pool.status(now).iter().enumerate().zip(&self.links) {
            let Some(metrics) = self.shown.cells(at) else {
                continue;
            };
            metrics.set(EndpointGauges {
                healthy: status.health == balancer::Health::Healthy,
                active: u64::from(status.active),
                pending: u64::from(status.pending),
                connections: u64::from(links.open()),
                weight: u64::from(status.weight.get()),
                latency: status.latency,
                limit: status.limit.map(u64::from),
            });
        }
    }
}
