//! What is counted, and how it shows as Prometheus metrics.
//!
//! A request adds to cells that were found when its configuration was loaded
//! ([`Table`]): no look-up by label, no lock, no cache line shared with another
//! worker. A scrape adds the workers' cells up and gives them their names.
//!
//! Labels are configured names and values of enums, so the number of series is
//! bounded by the configuration file: (listeners x routes x 6) status classes,
//! of which only pairs that saw a request are shown. After a reload, series of
//! names that are gone are gone; those of names that stayed go on counting.
//!
//! The families themselves are listed in [`families`]. Gauges that belong to
//! someone else (endpoint health, bytes in the cache) are pushed before a scrape.
//!
//! Of the `prometheus` crate it uses the model and the text encoder. Its registry
//! and counters would share each cell between all workers, and look labels up.

mod cells;
mod collect;
pub(crate) mod families;
mod handles;
mod page;
mod process;
mod table;
mod upstream;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use cache::disk::Figures as DiskFigures;
use prometheus::TextEncoder;
use static_server::images::Counts as ImageCounts;

use self::cells::Counter;
pub(crate) use self::cells::{ForwardEnd, TlsHandshake};
pub(crate) use self::handles::{ListenerMetrics, OpenConnection};
pub(crate) use self::table::Table;
pub(crate) use self::upstream::{
    EndpointGauges, Endpoints, Shown, UpstreamGauges, UpstreamMetrics,
};
use super::names::Names;
use super::{CacheCounts, access_log};
use crate::clock;
use crate::overload::Load;

/// Content-Type of [`Metrics::render`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    workers: usize,
    started: SystemTime,
    table: ArcSwap<Table>,
    config_hash: AtomicU64,
    config_loaded_millis: AtomicU64,
    reloads_ok: Counter,
    reloads_failed: Counter,
    last_reload_ok: AtomicBool,
    upgrades_ok: Counter,
    upgrades_failed: Counter,
    maintenance: AtomicBool,
    /// Whoever asks how overloaded the process is has it from here.
    load: Arc<Load>,
    cache: CacheMetrics,
    /// By the name of the site.
    images: Mutex<Vec<(String, ImageCounts)>>,
    access_log: Arc<access_log::Counts>,
    certificates: Mutex<CertificateState>,
}

impl Metrics {
    /// Nothing counted yet, no names; `workers` threads will count, each in cells of its own.
    #[must_use]
    pub(crate) fn new(workers: usize, started: SystemTime) -> Self {
        Self {
            workers,
            started,
            table: ArcSwap::from_pointee(Table::default()),
            config_hash: AtomicU64::new(0),
            config_loaded_millis: AtomicU64::new(millis(started)),
            reloads_ok: Counter::default(),
            reloads_failed: Counter::default(),
            last_reload_ok: AtomicBool::new(true),
            upgrades_ok: Counter::default(),
            upgrades_failed: Counter::default(),
            maintenance: AtomicBool::new(false),
            load: Arc::new(Load::new(workers, clock::now())),
            cache: CacheMetrics::default(),
            images: Mutex::default(),
            access_log: Arc::default(),
            certificates: Mutex::default(),
        }
    }

    /// Cells for a configuration; those of names that the one in force has are the same cells.
    /// Nothing of it shows before [`Metrics::config_loaded`], so a configuration that fails
    /// leaves no trace.
    #[must_use]
    pub(crate) fn table(&self, names: Names) -> Table {
        Table::new(names, &self.table.load(), self.workers)
    }

    /// A configuration is in force: its series are the ones shown from now on.
    pub(crate) fn config_loaded(&self, table: Arc<Table>, hash: u64, at: SystemTime) {
        self.table.store(table);
        self.config_hash.store(hash, Ordering::Relaxed);
        self.config_loaded_millis
            .store(millis(at), Ordering::Relaxed);
    }

    /// A reload was tried. The first load is none.
    pub(crate) fn reloaded(&self, ok: bool) {
        let counter = if ok {
            &self.reloads_ok
        } else {
            &self.reloads_failed
        };
        counter.add(1);
        self.last_reload_ok.store(ok, Ordering::Relaxed);
    }

    /// Another process was to take over. One that did counts those of its predecessors, too.
    pub(crate) fn upgraded(&self, ok: u64, failed: u64) {
        self.upgrades_ok.add(ok);
        self.upgrades_failed.add(failed);
    }

    /// How many upgrades went well, and how many failed.
    pub(crate) fn upgrades(&self) -> (u64, u64) {
        (self.upgrades_ok.value(), self.upgrades_failed.value())
    }

    /// Whether the site is closed for maintenance; pushed before a scrape.
    pub(crate) fn closed(&self, closed: bool) {
        self.maintenance.store(closed, Ordering::Relaxed);
    }

    /// How overloaded the process is.
    #[must_use]
    pub(crate) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// Where the cache reports.
    #[must_use]
    pub(crate) fn cache(&self) -> &CacheMetrics {
        &self.cache
    }

    /// What became of the pictures of each site that makes variants, pushed before a scrape.
    pub(crate) fn set_images(&self, sites: Vec<(String, ImageCounts)>) {
        *self.images.lock().unwrap_or_else(PoisonError::into_inner) = sites;
    }

    /// How long certificates last, and how the next ones come; pushed before a scrape.
    pub(crate) fn set_certificates(&self, state: CertificateState) {
        *self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Where each access log counts, one after another.
    #[must_use]
    pub(crate) fn access_log(&self) -> Arc<access_log::Counts> {
        Arc::clone(&self.access_log)
    }

    /// All metrics in Prometheus' text format ([`CONTENT_TYPE`]).
    #[must_use]
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&collect::scrape(self), &mut text) {
            // It refuses families without a name or a sample, and there are none.
            tracing::error!(%error, "metrics are not whole");
        }
        text
    }
}

/// Certificates, as of now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CertificateState {
    /// Name, source, end in seconds since 1970.
    pub(crate) lives: Vec<(String, &'static str, u64)>,
    /// Those that are obtained by themselves: first name, failures in a row, next order in seconds
    /// since 1970.
    pub(crate) managed: Vec<(String, u32, Option<u64>)>,
    /// Orders by what came of them.
    pub(crate) orders: Vec<(&'static str, u64)>,
    /// Those that name an OCSP responder.
    pub(crate) staples: Vec<StapleState>,
}

/// The staple of a certificate, as of now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StapleState {
    /// First name of the certificate.
    pub(crate) name: String,
    /// "file" or "acme".
    pub(crate) source: &'static str,
    /// thisUpdate and nextUpdate of what is stapled, in seconds since 1970.
    pub(crate) response: Option<(u64, u64)>,
    pub(crate) is_revoked: bool,
    /// How often asking ended so.
    pub(crate) fetches: Vec<(&'static str, u64)>,
}

/// The cache's own numbers.
#[derive(Debug, Default)]
pub(crate) struct CacheMetrics {
    bytes: AtomicU64,
    limit: AtomicU64,
    entries: AtomicU64,
    evictions: AtomicU64,
    tags: AtomicU64,
    /// Nothing is shown of a tier that there is not.
    disk: Mutex<Option<DiskFigures>>,
    counts: Arc<CacheCounts>,
}

/// What the cache holds, as of now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CacheState {
    /// Bytes held: keys, heads and bodies.
    pub(crate) bytes: u64,
    /// Bytes that it may hold.
    pub(crate) limit: u64,
    /// URLs stored.
    pub(crate) entries: u64,
    /// Evictions since the start; never falls.
    pub(crate) evictions: u64,
    /// Tags that stored responses have.
    pub(crate) tags: u64,
    /// The disk tier, where there is one.
    pub(crate) disk: Option<DiskFigures>,
}

impl CacheMetrics {
    /// Pushed before a scrape.
    pub(crate) fn set(&self, state: CacheState) {
        self.bytes.store(state.bytes, Ordering::Relaxed);
        self.limit.store(state.limit, Ordering::Relaxed);
        self.entries.store(state.entries, Ordering::Relaxed);
        self.tags.store(state.tags, Ordering::Relaxed);
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner) = state.disk;
        self.evictions.fetch_max(state.evictions, Ordering::Relaxed);
    }

    /// What each store adds to, one after another.
    pub(crate) fn counts(&self) -> Arc<CacheCounts> {
        Arc::clone(&self.counts)
    }
}

/// Milliseconds since 1970.
fn millis(at: SystemTime) -> u64 {
    let since: Duration = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
