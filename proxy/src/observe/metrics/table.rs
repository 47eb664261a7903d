//! The cells of one configuration, found by the indexes that a record carries.

use std::collections::HashMap;
use std::sync::Arc;

use super::cells::{Counter, ExchangeCells};
use super::handles::{EndpointMetrics, ListenerMetrics, UpstreamMetrics};
use crate::observe::names::{NO_ROUTE, Names};
use crate::observe::record::{Class, Record};
use crate::observe::shard::Sharded;

/// Cells of every listener, route, upstream and endpoint of one configuration.
///
/// Part of the snapshot that a request takes, so that its record's indexes and
/// these always belong together.
#[derive(Debug, Default)]
pub(crate) struct Table {
    names: Names,
    listeners: Vec<Arc<ListenerMetrics>>,
    /// Listener by listener, each with all routes and, last, no route.
    exchanges: Vec<Arc<Exchange>>,
    upstreams: Vec<UpstreamEntry>,
}

/// One listener and route, or no route.
pub(super) type Exchange = Sharded<ExchangeCells>;

#[derive(Debug)]
struct UpstreamEntry {
    metrics: Arc<UpstreamMetrics>,
    endpoints: Vec<Arc<EndpointMetrics>>,
}

impl Table {
    /// Takes over what `previous` has under the same names; makes the rest.
    pub(super) fn new(names: Names, previous: &Self, workers: usize) -> Self {
        let known = Known::of(previous);
        let listeners = names
            .listeners
            .iter()
            .map(|name| match known.listeners.get(name.as_str()) {
                Some(listener) => Arc::clone(listener),
                None => Arc::new(ListenerMetrics::new(workers)),
            })
            .collect();
        let mut exchanges = Vec::new();
        for listener in &names.listeners {
            for route in names.routes.iter().map(String::as_str).chain([NO_ROUTE]) {
                exchanges.push(match known.exchanges.get(&(listener.as_str(), route)) {
                    Some(exchange) => Arc::clone(exchange),
                    None => Arc::new(Sharded::new(workers)),
                });
            }
        }
        let upstreams = names
            .upstreams
            .iter()
            .map(|upstream| known.upstream(&upstream.name, &upstream.endpoints, workers))
            .collect();
        Self {
            names,
            listeners,
            exchanges,
            upstreams,
        }
    }

    /// The names behind the indexes.
    #[must_use]
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// The listener at this place in the configuration.
    #[must_use]
    pub(crate) fn listener(&self, index: u16) -> Option<&Arc<ListenerMetrics>> {
        self.listeners.get(usize::from(index))
    }

    /// An endpoint of the upstream at this place in the configuration.
    #[must_use]
    pub(crate) fn endpoint(&self, upstream: u16, endpoint: u16) -> Option<&Arc<EndpointMetrics>> {
        let entry = self.upstreams.get(usize::from(upstream))?;
        entry.endpoints.get(usize::from(endpoint))
    }

    /// Counts a request that has ended ([`Record::end`]): the one way by which
    /// requests, bytes, durations, cache results and attempts are counted.
    pub(crate) fn finish(&self, record: &Record) {
        if let Some(exchange) = self.exchange(record.listener, record.route) {
            let cells = exchange.here();
            cells.classes[record.class().index()].add(1);
            cells.duration.observe(record.duration);
            cells.cache[record.cache.index()].add(1);
            add(&cells.bytes_in, record.bytes_in);
            add(&cells.bytes_out, record.bytes_out);
        }
        if let Some(entry) = record
            .upstream
            .and_then(|index| self.upstreams.get(usize::from(index)))
        {
            entry.finish(record);
        }
    }

    pub(super) fn exchange(&self, listener: u16, route: Option<u16>) -> Option<&Arc<Exchange>> {
        let width = self.names.routes.len() + 1;
        let column = match route {
            Some(route) if usize::from(route) < width - 1 => usize::from(route),
            _ => width - 1,
        };
        self.exchanges.get(usize::from(listener) * width + column)
    }

    /// Listeners with their names, in order.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (&str, &ListenerMetrics)> {
        let names = self.names.listeners.iter().map(String::as_str);
        names.zip(self.listeners.iter().map(Arc::as_ref))
    }

    /// Pairs of listener and route with their names, in order.
    pub(super) fn exchanges(&self) -> impl Iterator<Item = (&str, &str, &Exchange)> {
        let pairs = self.names.listeners.iter().flat_map(|listener| {
            let routes = self.names.routes.iter().map(String::as_str);
            routes
                .chain([NO_ROUTE])
                .map(move |route| (listener.as_str(), route))
        });
        pairs
            .zip(&self.exchanges)
            .map(|((listener, route), cells)| (listener, route, cells.as_ref()))
    }

    /// Upstreams with their names, in order.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = (&str, &UpstreamMetrics)> {
        let names = self
            .names
            .upstreams
            .iter()
            .map(|upstream| upstream.name.as_str());
        names.zip(self.upstreams.iter().map(|entry| entry.metrics.as_ref()))
    }

    /// Endpoints with their upstreams' names and their own, each name once.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&str, &str, &EndpointMetrics)> {
        let upstreams = self.names.upstreams.iter().zip(&self.upstreams);
        upstreams.flat_map(|(names, entry)| {
            let endpoints = names.endpoints.iter().zip(&entry.endpoints);
            let each = endpoints
                .enumerate()
                .filter(|(place, (name, _))| !names.endpoints[..*place].contains(name));
            each.map(|(_, (name, cells))| (names.name.as_str(), name.as_str(), cells.as_ref()))
        })
    }
}

/// Most requests have no body: an addition of nothing would still cost one.
fn add(counter: &Counter, count: u64) {
    if count > 0 {
        counter.add(count);
    }
}

impl UpstreamEntry {
    fn finish(&self, record: &Record) {
        for attempt in record.attempts.iter() {
            let Some(endpoint) = self.endpoints.get(usize::from(attempt.endpoint)) else {
                continue;
            };
            let cells = endpoint.cells.here();
            cells.classes[Class::of(attempt.status).index()].add(1);
            if let Some(failure) = attempt.failure {
                cells.failures[failure.index()].add(1);
            }
        }
        let cells = self.metrics.cells.here();
        add(&cells.retries, record.attempts.count().saturating_sub(1));
        if let Some(connect) = record.connect {
            cells.connect.observe(connect);
        }
        if let Some(first_byte) = record.first_byte {
            cells.first_byte.observe(first_byte);
        }
    }
}

/// The cells of a table by their names.
struct Known<'a> {
    listeners: HashMap<&'a str, &'a Arc<ListenerMetrics>>,
    exchanges: HashMap<(&'a str, &'a str), &'a Arc<Exchange>>,
    upstreams: HashMap<&'a str, &'a Arc<UpstreamMetrics>>,
    endpoints: HashMap<(&'a str, &'a str), &'a Arc<EndpointMetrics>>,
}

impl<'a> Known<'a> {
    fn of(table: &'a Table) -> Self {
        let names = &table.names;
        let pairs = names.listeners.iter().flat_map(|listener| {
            let routes = names.routes.iter().map(String::as_str).chain([NO_ROUTE]);
            routes.map(move |route| (listener.as_str(), route))
        });
        let mut endpoints = HashMap::new();
        for (upstream, entry) in names.upstreams.iter().zip(&table.upstreams) {
            for (endpoint, cells) in upstream.endpoints.iter().zip(&entry.endpoints) {
                endpoints.insert((upstream.name.as_str(), endpoint.as_str()), cells);
            }
        }
        Self {
            listeners: names
                .listeners
                .iter()
                .map(String::as_str)
                .zip(&table.listeners)
                .collect(),
            exchanges: pairs.zip(&table.exchanges).collect(),
            upstreams: names
                .upstreams
                .iter()
                .map(|upstream| upstream.name.as_str())
                .zip(table.upstreams.iter().map(|entry| &entry.metrics))
                .collect(),
            endpoints,
        }
    }

    fn upstream(&self, name: &str, endpoints: &[String], workers: usize) -> UpstreamEntry {
        let metrics = match self.upstreams.get(name) {
            Some(metrics) => Arc::clone(metrics),
            None => Arc::new(UpstreamMetrics::new(workers)),
        };
        let mut made: HashMap<&str, Arc<EndpointMetrics>> = HashMap::new();
        let endpoints = endpoints
            .iter()
            .map(
                |endpoint| match self.endpoints.get(&(name, endpoint.as_str())) {
                    Some(known) => Arc::clone(known),
                    None => Arc::clone(
                        made.entry(endpoint)
                            .or_insert_with(|| Arc::new(EndpointMetrics::new(workers))),
                    ),
                },
            )
            .collect();
        UpstreamEntry { metrics, endpoints }
    }
}
