//! What is counted on an upstream and on its endpoints, which may come and go
//! while the edge runs.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::cells::{Counter, EndpointCells, UpstreamCells};
use crate::observe::labels::EjectionCause;
use crate::observe::record::{Class, Record};
use crate::observe::shard::Sharded;

/// The endpoints of an upstream at one time: their names and cells by the indexes that a
/// record's attempts carry. Immutable; a record keeps the set that its request ran on.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    names: Vec<String>,
    cells: Vec<Arc<EndpointMetrics>>,
}

impl Endpoints {
    /// The endpoint's name; empty for an index that is not of this set.
    #[must_use]
    pub(crate) fn name(&self, index: u16) -> &str {
        self.names
            .get(usize::from(index))
            .map_or("", String::as_str)
    }

    /// Its cells.
    #[must_use]
    pub(crate) fn cells(&self, index: usize) -> Option<&Arc<EndpointMetrics>> {
        self.cells.get(index)
    }

    /// Names and cells in order, each name once.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, &EndpointMetrics)> {
        let pairs = self.names.iter().zip(&self.cells).enumerate();
        pairs
            .filter(|(place, (name, _))| !self.names[..*place].contains(name))
            .map(|(_, (name, cells))| (name.as_str(), cells.as_ref()))
    }
}

/// The same as one worker refers to it, whose records' references are counted here, on lines of
/// memory that nobody else writes.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Shown(Arc<Endpoints>);

impl Shown {
    pub(crate) fn of(endpoints: &Arc<Endpoints>) -> Self {
        Self(Arc::clone(endpoints))
    }
}

impl Deref for Shown {
    type Target = Endpoints;

    fn deref(&self) -> &Endpoints {
        &self.0
    }
}

/// What is counted on an upstream.
#[derive(Debug)]
pub(crate) struct UpstreamMetrics {
    workers: usize,
    pub(super) cells: Sharded<UpstreamCells>,
    /// The endpoints that a scrape shows.
    shown: ArcSwap<Endpoints>,
    pub(super) discovery_failures: Counter,
    gauges: Mutex<UpstreamGauges>,
}

/// How an upstream stands; pushed before a scrape.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UpstreamGauges {
    /// Requests that wait in its queue.
    pub(crate) queued: u64,
    /// Endpoints in service.
    pub(crate) in_service: u64,
    /// Whether too few are, so that health is ignored.
    pub(crate) panic: bool,
    /// Connections to its endpoints, idle ones included.
    pub(crate) connections: u64,
    /// Since its endpoints were last found out; `None` where they cannot change.
    pub(crate) discovery_age: Option<Duration>,
}

impl UpstreamMetrics {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            cells: Sharded::new(workers),
            shown: ArcSwap::default(),
            discovery_failures: Counter::default(),
            gauges: Mutex::default(),
        }
    }

    /// A set of endpoints of these names; those that are shown now keep their cells. Two of one
    /// name share theirs. Nothing of it shows before [`UpstreamMetrics::show`].
    #[must_use]
    pub(crate) fn endpoints(&self, names: Vec<String>) -> Arc<Endpoints> {
        let shown = self.shown.load();
        let mut known: HashMap<&str, Arc<EndpointMetrics>> = shown
            .names
            .iter()
            .map(String::as_str)
            .zip(shown.cells.iter().cloned())
            .collect();
        let cells = names
            .iter()
            .map(|name| {
                let cells = known
                    .entry(name)
                    .or_insert_with(|| Arc::new(EndpointMetrics::new(self.workers)));
                Arc::clone(cells)
            })
            .collect();
        Arc::new(Endpoints { names, cells })
    }

    /// From now on a scrape shows these.
    pub(crate) fn show(&self, endpoints: Arc<Endpoints>) {
        self.shown.store(endpoints);
    }

    /// What a scrape shows.
    #[must_use]
    pub(super) fn shown(&self) -> Arc<Endpoints> {
        self.shown.load_full()
    }

    /// A look-up of its endpoints failed.
    pub(crate) fn discovery_failed(&self) {
        self.discovery_failures.add(1);
    }

    /// Pushed before a scrape.
    pub(crate) fn set(&self, gauges: UpstreamGauges) {
        *self.gauges.lock().unwrap_or_else(PoisonError::into_inner) = gauges;
    }

    pub(super) fn gauges(&self) -> UpstreamGauges {
        *self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the part of a record that is about this upstream.
    pub(super) fn finish(&self, record: &Record) {
        if let Some(endpoints) = &record.endpoints {
            for attempt in record.attempts.iter() {
                let Some(endpoint) = endpoints.cells(usize::from(attempt.endpoint)) else {
                    continue;
                };
                let cells = endpoint.cells.here();
                cells.classes[Class::of(attempt.status).index()].add(1);
                if let Some(failure) = attempt.failure {
                    cells.failures[failure.index()].add(1);
                }
            }
        }
        let cells = self.cells.here();
        let further = record.attempts.count().saturating_sub(1);
        if further > 0 {
            cells.retries.add(further);
        }
        if let Some(connect) = record.connect {
            cells.connect.observe(connect);
        }
        if let Some(first_byte) = record.first_byte {
            cells.first_byte.observe(first_byte);
        }
        if let Some(queued) = record.queued {
            cells.queue.observe(queued);
        }
        if let Some(hedge) = record.hedge {
            cells.hedges[hedge.index()].add(1);
        }
        if let Some(refused) = record.refused {
            cells.refused[refused.index()].add(1);
        }
    }
}

/// What is counted on an endpoint.
#[derive(Debug)]
pub(crate) struct EndpointMetrics {
    pub(super) cells: Sharded<EndpointCells>,
    pub(super) ejections: [Counter; EjectionCause::ALL.len()],
    pub(super) returns: Counter,
    gauges: Mutex<EndpointGauges>,
}

/// How an endpoint stands; pushed before a scrape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndpointGauges {
    /// Whether it takes requests.
    pub(crate) healthy: bool,
    /// Requests under way.
    pub(crate) active: u64,
    /// Those of them that wait for a connection.
    pub(crate) pending: u64,
    /// Connections, idle ones included.
    pub(crate) connections: u64,
    /// Its weight, set by hand or by the file.
    pub(crate) weight: u64,
    /// Mean time to the first byte, recent answers counting more.
    pub(crate) latency: Option<Duration>,
    /// Requests that it may have at once.
    pub(crate) limit: Option<u64>,
}

impl EndpointMetrics {
    fn new(workers: usize) -> Self {
        Self {
            cells: Sharded::new(workers),
            ejections: Default::default(),
            returns: Counter::default(),
            gauges: Mutex::new(EndpointGauges {
                healthy: true,
                active: 0,
                pending: 0,
                connections: 0,
                weight: 1,
                latency: None,
                limit: None,
            }),
        }
    }

    /// Outlier detection took it out.
    pub(crate) fn ejected(&self, cause: EjectionCause) {
        self.ejections[cause.index()].add(1);
    }

    /// An ejection ended.
    pub(crate) fn returned(&self) {
        self.returns.add(1);
    }

    /// Pushed before a scrape.
    pub(crate) fn set(&self, gauges: EndpointGauges) {
        *self.gauges.lock().unwrap_or_else(PoisonError::into_inner) = gauges;
    }

    pub(super) fn gauges(&self) -> EndpointGauges {
        *self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
