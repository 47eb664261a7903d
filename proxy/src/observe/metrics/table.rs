//! The cells of one configuration, found by the indexes that a record carries.

use std::collections::HashMap;
use std::sync::Arc;

use super::cells::{Counter, ExchangeCells};
use super::handles::ListenerMetrics;
use super::upstream::UpstreamMetrics;
use crate::observe::names::{NO_ROUTE, Names};
use crate::observe::record::Record;
use crate::observe::shard::Sharded;

/// Cells of every listener, route and upstream of one configuration; an upstream has those of its
/// endpoints.
///
/// Part of the snapshot that a request takes, so that its record's indexes and
/// these always belong together.
#[derive(Debug, Default)]
pub(crate) struct Table {
    names: Names,
    listeners: Vec<Arc<ListenerMetrics>>,
    /// Listener by listener, each with all routes and, last, no route.
    exchanges: Vec<Arc<Exchange>>,
    upstreams: Vec<Arc<UpstreamMetrics>>,
}

/// One listener and route, or no route.
pub(super) type Exchange = Sharded<ExchangeCells>;

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
            .map(|name| match known.upstreams.get(name.as_str()) {
                Some(metrics) => Arc::clone(metrics),
                None => Arc::new(UpstreamMetrics::new(workers)),
            })
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

    /// The upstream at this place in the configuration.
    #[must_use]
    pub(crate) fn upstream(&self, index: u16) -> Option<&Arc<UpstreamMetrics>> {
        self.upstreams.get(usize::from(index))
    }

    /// Counts a request that has ended ([`Record::end`]): the one way by which
    /// requests, bytes, durations, cache results and attempts are counted.
    pub(crate) fn finish(&self, record: &Record) {
        if let Some(exchange) = self.exchange(record.listener, record.route) {
            let cells = exchange.here();
            cells.classes[record.class().index()].add(1);
            cells.duration.observe(record.duration);
            cells.cache[record.cache.index()].add(1);
            add(&cells.hinted, u64::from(record.hinted));
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
        let names = self.names.upstreams.iter().map(String::as_str);
        names.zip(self.upstreams.iter().map(Arc::as_ref))
    }
}

/// Most requests have no body: an addition of nothing would still cost one.
fn add(counter: &Counter, count: u64) {
    if count > 0 {
        counter.add(count);
    }
}

/// The cells of a table by their names.
struct Known<'a> {
    listeners: HashMap<&'a str, &'a Arc<ListenerMetrics>>,
    exchanges: HashMap<(&'a str, &'a str), &'a Arc<Exchange>>,
    upstreams: HashMap<&'a str, &'a Arc<UpstreamMetrics>>,
}

impl<'a> Known<'a> {
    fn of(table: &'a Table) -> Self {
        let names = &table.names;
        let pairs = names.listeners.iter().flat_map(|listener| {
            let routes = names.routes.iter().map(String::as_str).chain([NO_ROUTE]);
            routes.map(move |route| (listener.as_str(), route))
        });
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
                .map(String::as_str)
                .zip(&table.upstreams)
                .collect(),
        }
    }
}
