//! A scrape: the workers' cells added up and named.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use prometheus::proto::MetricFamily;
use static_server::images::Counts as ImageCounts;

use super::cells::{ForwardEnd, HistogramSum, TlsHandshake, level, sum, sum_histogram};
use super::families::{self as f, Family};
use super::page::Page;
use super::table::Table;
use super::upstream::{EndpointGauges, UpstreamGauges};
use super::{CacheMetrics, Metrics, millis, process};
use crate::observe::attempts::UpstreamFailure;
use crate::observe::labels::{EjectionCause, Hedge, Refused};
use crate::observe::logging;
use crate::observe::record::{CacheResult, Class};

/// Every family that has a sample, in the order of the manual.
pub(super) fn scrape(metrics: &Metrics) -> Vec<MetricFamily> {
    let mut page = Page::default();
    let table = metrics.table.load();
    requests(&mut page, &table);
    connections(&mut page, &table);
    upstreams(&mut page, &table);
    upstream_gauges(&mut page, &table);
    endpoints(&mut page, &table);
    cache(&mut page, &metrics.cache);
    images(&mut page, metrics);
    certificates(&mut page, metrics);
    configuration(&mut page, metrics);
    processes(&mut page, metrics);
    page.into_families()
}

fn requests(page: &mut Page, table: &Table) {
    // Pairs that saw no request are left out: listeners x routes is mostly such pairs.
    let seen = || {
        table
            .exchanges()
            .filter(|(_, _, cells)| cells.each().next().is_some())
    };
    page.family(&f::REQUESTS, |samples| {
        for (listener, route, cells) in seen() {
            for class in Class::ALL {
                let count = sum(cells, |cells| &cells.classes[class.index()]);
                if count > 0 || is_common(class) {
                    samples.value(&[listener, route, class.as_str()], count as f64);
                }
            }
        }
    });
    page.family(&f::REQUEST_BODY, |samples| {
        for (listener, route, cells) in seen() {
            let bytes = sum(cells, |cells| &cells.bytes_in);
            samples.value(&[listener, route], bytes as f64);
        }
    });
    page.family(&f::RESPONSE_BODY, |samples| {
        for (listener, route, cells) in seen() {
            let bytes = sum(cells, |cells| &cells.bytes_out);
            samples.value(&[listener, route], bytes as f64);
        }
    });
    by_route(page, table);
}

/// What is not told apart by listener: the cells of all listeners are added up.
fn by_route(page: &mut Page, table: &Table) {
    let mut durations: BTreeMap<&str, HistogramSum> = BTreeMap::new();
    let mut results: BTreeMap<&str, [u64; CacheResult::ALL.len()]> = BTreeMap::new();
    let mut hinted: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, route, cells) in table.exchanges() {
        for cells in cells.each() {
            *hinted.entry(route).or_default() += cells.hinted.value();
            durations.entry(route).or_default().add(&cells.duration);
            let results = results.entry(route).or_default();
            for (result, cell) in results.iter_mut().zip(&cells.cache) {
                *result += cell.value();
            }
        }
    }
    page.family(&f::REQUEST_DURATION, |samples| {
        for (route, sum) in &durations {
            samples.histogram(&[route], sum);
        }
    });
    page.family(&f::EARLY_HINTS, |samples| {
        // Most routes have none.
        for (route, count) in hinted.iter().filter(|(_, count)| **count > 0) {
            samples.value(&[route], *count as f64);
        }
    });
    page.family(&f::CACHE_REQUESTS, |samples| {
        let none = CacheResult::None;
        for (route, counts) in &results {
            let asked: u64 = counts.iter().sum::<u64>() - counts[none.index()];
            if asked == 0 {
                continue;
            }
            for result in CacheResult::ALL {
                if result != none {
                    let count = counts[result.index()];
                    samples.value(&[route, result.as_str()], count as f64);
                }
            }
        }
    });
}

fn connections(page: &mut Page, table: &Table) {
    page.family(&f::REQUESTS_ACTIVE, |samples| {
        for (name, listener) in table.listeners() {
            let active = level(&listener.cells, |cells| &cells.requests_active);
            samples.value(&[name], active as f64);
        }
    });
    page.family(&f::CONNECTIONS_ACTIVE, |samples| {
        for (name, listener) in table.listeners() {
            let active = level(&listener.cells, |cells| &cells.connections_active);
            samples.value(&[name], active as f64);
        }
    });
    page.family(&f::CONNECTIONS, |samples| {
        for (name, listener) in table.listeners() {
            let count = sum(&listener.cells, |cells| &cells.connections);
            samples.value(&[name], count as f64);
        }
    });
    page.family(&f::FORWARDED, |samples| {
        for (name, listener) in table.listeners() {
            let counts = ForwardEnd::ALL
                .map(|end| sum(&listener.cells, |cells| &cells.forwarded[end as usize]));
            // Most listeners pass none on.
            if counts != [0; 3] {
                for (end, count) in ForwardEnd::ALL.into_iter().zip(counts) {
                    samples.value(&[name, end.as_str()], count as f64);
                }
            }
        }
    });
    page.family(&f::TLS_HANDSHAKES, |samples| {
        for (name, listener) in table.listeners() {
            let counts = TlsHandshake::ALL
                .map(|end| sum(&listener.cells, |cells| &cells.handshakes[end as usize]));
            // A plain listener has none to show.
            if counts != [0; 3] {
                for (end, count) in TlsHandshake::ALL.into_iter().zip(counts) {
                    samples.value(&[name, end.as_str()], count as f64);
                }
            }
        }
    });
    reasons(page, table);
}

fn reasons(page: &mut Page, table: &Table) {
    let pairs = [
        (&f::CONNECTIONS_REFUSED, true),
        (&f::REQUESTS_REJECTED, false),
    ];
    for (family, of_connections) in pairs {
        page.family(family, |samples| {
            for (name, listener) in table.listeners() {
                let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
                for cells in listener.cells.each() {
                    let reasons = if of_connections {
                        &cells.refused
                    } else {
                        &cells.rejected
                    };
                    reasons.each(|reason, count| *counts.entry(reason).or_default() += count);
                }
                for (reason, count) in counts {
                    samples.value(&[name, reason], count as f64);
                }
            }
        });
    }
}

fn upstreams(page: &mut Page, table: &Table) {
    page.family(&f::UPSTREAM_RETRIES, |samples| {
        for (name, upstream) in table.upstreams() {
            let count = sum(&upstream.cells, |cells| &cells.retries);
            samples.value(&[name], count as f64);
        }
    });
    page.family(&f::UPSTREAM_HEDGES, |samples| {
        for (name, upstream) in table.upstreams() {
            for hedge in Hedge::ALL {
                let count = sum(&upstream.cells, |cells| &cells.hedges[hedge.index()]);
                samples.value(&[name, hedge.as_str()], count as f64);
            }
        }
    });
    page.family(&f::UPSTREAM_REFUSED, |samples| {
        for (name, upstream) in table.upstreams() {
            for refused in Refused::ALL {
                let count = sum(&upstream.cells, |cells| &cells.refused[refused.index()]);
                samples.value(&[name, refused.as_str()], count as f64);
            }
        }
    });
    page.family(&f::UPSTREAM_QUEUE, |samples| {
        for (name, upstream) in table.upstreams() {
            let durations = sum_histogram(&upstream.cells, |cells| &cells.queue);
            samples.histogram(&[name], &durations);
        }
    });
    page.family(&f::UPSTREAM_FIRST_BYTE, |samples| {
        for (name, upstream) in table.upstreams() {
            let durations = sum_histogram(&upstream.cells, |cells| &cells.first_byte);
            samples.histogram(&[name], &durations);
        }
    });
    page.family(&f::UPSTREAM_CONNECT, |samples| {
        for (name, upstream) in table.upstreams() {
            let durations = sum_histogram(&upstream.cells, |cells| &cells.connect);
            samples.histogram(&[name], &durations);
        }
    });
}

/// How upstreams stand, as pushed just before.
fn upstream_gauges(page: &mut Page, table: &Table) {
    type Read = fn(&UpstreamGauges) -> Option<f64>;
    let families: [(&Family, Read); 5] = [
        (&f::UPSTREAM_QUEUED, |gauges| Some(gauges.queued as f64)),
        (&f::UPSTREAM_CONNECTIONS, |gauges| {
            Some(gauges.connections as f64)
        }),
        (&f::UPSTREAM_IN_SERVICE, |gauges| {
            Some(gauges.in_service as f64)
        }),
        (&f::UPSTREAM_PANIC, |gauges| {
            Some(f64::from(u8::from(gauges.panic)))
        }),
        (&f::DISCOVERY_AGE, |gauges| {
            gauges.discovery_age.map(|age| age.as_secs_f64())
        }),
    ];
    for (family, read) in families {
        page.family(family, |samples| {
            for (name, upstream) in table.upstreams() {
                if let Some(value) = read(&upstream.gauges()) {
                    samples.value(&[name], value);
                }
            }
        });
    }
    page.family(&f::DISCOVERY_FAILURES, |samples| {
        for (name, upstream) in table.upstreams() {
            // Of upstreams whose endpoints cannot change there is nothing to show.
            if upstream.gauges().discovery_age.is_some() {
                samples.value(&[name], upstream.discovery_failures.value() as f64);
            }
        }
    });
}

fn endpoints(page: &mut Page, table: &Table) {
    let shown: Vec<_> = table
        .upstreams()
        .map(|(name, upstream)| (name, upstream.shown()))
        .collect();
    let each = || {
        shown.iter().flat_map(|(upstream, endpoints)| {
            endpoints
                .each()
                .map(move |(name, cells)| (*upstream, name, cells))
        })
    };
    page.family(&f::UPSTREAM_REQUESTS, |samples| {
        for (upstream, name, endpoint) in each() {
            for class in Class::ALL {
                let count = sum(&endpoint.cells, |cells| &cells.classes[class.index()]);
                if count > 0 || is_common(class) {
                    samples.value(&[upstream, name, class.as_str()], count as f64);
                }
            }
        }
    });
    page.family(&f::UPSTREAM_ERRORS, |samples| {
        for (upstream, name, endpoint) in each() {
            for failure in UpstreamFailure::ALL {
                let count = sum(&endpoint.cells, |cells| &cells.failures[failure.index()]);
                samples.value(&[upstream, name, failure.as_str()], count as f64);
            }
        }
    });
    page.family(&f::EJECTIONS, |samples| {
        for (upstream, name, endpoint) in each() {
            for cause in EjectionCause::ALL {
                let count = endpoint.ejections[cause.index()].value();
                samples.value(&[upstream, name, cause.as_str()], count as f64);
            }
        }
    });
    page.family(&f::RETURNS, |samples| {
        for (upstream, name, endpoint) in each() {
            samples.value(&[upstream, name], endpoint.returns.value() as f64);
        }
    });
    type Read = fn(&EndpointGauges) -> Option<f64>;
    let families: [(&Family, Read); 7] = [
        (&f::ENDPOINT_HEALTHY, |gauges| {
            Some(f64::from(u8::from(gauges.healthy)))
        }),
        (&f::ENDPOINT_ACTIVE, |gauges| Some(gauges.active as f64)),
        (&f::ENDPOINT_PENDING, |gauges| Some(gauges.pending as f64)),
        (&f::ENDPOINT_CONNECTIONS, |gauges| {
            Some(gauges.connections as f64)
        }),
        (&f::ENDPOINT_WEIGHT, |gauges| Some(gauges.weight as f64)),
        (&f::ENDPOINT_LATENCY, |gauges| {
            gauges.latency.map(|latency| latency.as_secs_f64())
        }),
        (&f::ENDPOINT_LIMIT, |gauges| {
            gauges.limit.map(|limit| limit as f64)
        }),
    ];
    for (family, read) in families {
        page.family(family, |samples| {
            for (upstream, name, endpoint) in each() {
                if let Some(value) = read(&endpoint.gauges()) {
                    samples.value(&[upstream, name], value);
                }
            }
        });
    }
}

fn cache(page: &mut Page, cache: &CacheMetrics) {
    for (family, cell) in [
        (&f::CACHE_BYTES, &cache.bytes),
        (&f::CACHE_LIMIT, &cache.limit),
        (&f::CACHE_ENTRIES, &cache.entries),
        (&f::CACHE_EVICTIONS, &cache.evictions),
        (&f::CACHE_TAGS, &cache.tags),
    ] {
        page.single(family, cell.load(Ordering::Relaxed) as f64);
    }
    let disk = *cache.disk.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(disk) = disk {
        for (family, value) in [
            (&f::CACHE_DISK_BYTES, disk.bytes),
            (&f::CACHE_DISK_LIMIT, disk.limit),
            (&f::CACHE_DISK_OBJECTS, disk.objects),
            (&f::CACHE_DISK_READS, disk.hits),
            (&f::CACHE_DISK_WRITES, disk.written),
            (&f::CACHE_DISK_ERRORS, disk.write_errors),
            (&f::CACHE_DISK_DAMAGED, disk.damaged),
            (&f::CACHE_DISK_SKIPPED, disk.not_written),
        ] {
            page.single(family, value as f64);
        }
    }
    page.single(&f::CACHE_PURGES, cache.counts.purges() as f64);
    page.family(&f::CACHE_NOT_STORED, |samples| {
        for (reason, count) in cache.counts.reasons() {
            samples.value(&[reason], count as f64);
        }
    });
    page.family(&f::CACHE_COMPARED, |samples| {
        for (route, result, count) in cache.counts.comparisons() {
            samples.value(&[&route, result], count as f64);
        }
    });
}

/// Nothing is shown of sites that make no variants.
fn images(page: &mut Page, metrics: &Metrics) {
    let sites = metrics.images.lock();
    let sites = sites.unwrap_or_else(PoisonError::into_inner);
    page.family(&f::IMAGES_MADE, |samples| {
        for (site, counts) in &*sites {
            for (result, count) in [
                ("made", counts.made),
                ("useless", counts.useless),
                ("failed", counts.failed),
                ("dropped", counts.dropped),
            ] {
                samples.value(&[site, result], count as f64);
            }
        }
    });
    type Read = fn(&ImageCounts) -> u64;
    let gauges: [(&Family, Read); 3] = [
        (&f::IMAGES_WANTED, |counts| counts.wanted),
        (&f::IMAGES_FILES, |counts| counts.files),
        (&f::IMAGES_BYTES, |counts| counts.bytes),
    ];
    for (family, read) in gauges {
        page.family(family, |samples| {
            for (site, counts) in &*sites {
                samples.value(&[site], read(counts) as f64);
            }
        });
    }
}

fn certificates(page: &mut Page, metrics: &Metrics) {
    let state = metrics.certificates.lock();
    let state = state.unwrap_or_else(PoisonError::into_inner);
    page.family(&f::CERTIFICATE_NOT_AFTER, |samples| {
        for (name, source, not_after) in &state.lives {
            samples.value(&[name, source], *not_after as f64);
        }
    });
    for (family, read) in [
        (
            &f::OCSP_THIS_UPDATE,
            (|life| life.0) as fn((u64, u64)) -> u64,
        ),
        (&f::OCSP_NEXT_UPDATE, |life| life.1),
    ] {
        page.family(family, |samples| {
            for one in &state.staples {
                if let Some(life) = one.response {
                    samples.value(&[&one.name, one.source], read(life) as f64);
                }
            }
        });
    }
    page.family(&f::OCSP_REVOKED, |samples| {
        for one in &state.staples {
            let value = f64::from(u8::from(one.is_revoked));
            samples.value(&[&one.name, one.source], value);
        }
    });
    page.family(&f::OCSP_FETCHES, |samples| {
        for one in &state.staples {
            for (outcome, count) in &one.fetches {
                samples.value(&[&one.name, one.source, outcome], *count as f64);
            }
        }
    });
    page.family(&f::ACME_ORDERS, |samples| {
        for (outcome, count) in &state.orders {
            samples.value(&[outcome], *count as f64);
        }
    });
    page.family(&f::ACME_FAILURES, |samples| {
        for (name, failures, _) in &state.managed {
            samples.value(&[name], f64::from(*failures));
        }
    });
    page.family(&f::ACME_NEXT, |samples| {
        for (name, _, next) in &state.managed {
            if let Some(next) = next {
                samples.value(&[name], *next as f64);
            }
        }
    });
}

fn configuration(page: &mut Page, metrics: &Metrics) {
    page.family(&f::CONFIG_RELOADS, |samples| {
        samples.value(&["ok"], metrics.reloads_ok.value() as f64);
        samples.value(&["failed"], metrics.reloads_failed.value() as f64);
    });
    page.family(&f::UPGRADES, |samples| {
        let (ok, failed) = metrics.upgrades();
        samples.value(&["ok"], ok as f64);
        samples.value(&["failed"], failed as f64);
    });
    let last_ok = metrics.last_reload_ok.load(Ordering::Relaxed);
    page.single(&f::CONFIG_LAST_OK, f64::from(u8::from(last_ok)));
    let loaded_millis = metrics.config_loaded_millis.load(Ordering::Relaxed);
    page.single(&f::CONFIG_LAST_TIME, loaded_millis as f64 / 1e3);
    let hash = format!("{:016x}", metrics.config_hash.load(Ordering::Relaxed));
    page.family(&f::CONFIG_INFO, |samples| samples.value(&[&hash], 1.0));
    let load = metrics.load().standing();
    page.single(&f::OVERLOAD_LEVEL, f64::from(load.level as u8));
    page.single(&f::OVERLOAD_LAG, load.signs.lag.as_secs_f64());
    page.family(&f::OVERLOAD_SHED, |samples| {
        for (priority, count) in ["sheddable", "normal"].into_iter().zip(load.shed) {
            samples.value(&[priority], count as f64);
        }
    });
    let closed = metrics.maintenance.load(Ordering::Relaxed);
    page.single(&f::MAINTENANCE, f64::from(u8::from(closed)));
    page.family(&f::BUILD_INFO, |samples| {
        samples.value(&[env!("CARGO_PKG_VERSION")], 1.0);
    });
    let log = &metrics.access_log;
    page.single(&f::LOG_LINES, log.lines.load(Ordering::Relaxed) as f64);
    page.single(&f::LOG_DROPPED, log.dropped.load(Ordering::Relaxed) as f64);
    page.single(&f::EVENTS_DROPPED, logging::dropped() as f64);
}

fn processes(page: &mut Page, metrics: &Metrics) {
    let started = millis(metrics.started) as f64 / 1e3;
    page.single(&f::START_TIME, started);
    page.single(&f::PROCESS_START, started);
    let status = process::Status::read();
    for (family, number) in [
        (&f::PROCESS_FDS, process::open_fds()),
        (&f::PROCESS_MAX_FDS, process::max_fds()),
        (&f::PROCESS_RESIDENT, status.resident),
        (&f::PROCESS_VIRTUAL, status.virtual_size),
        (&f::PROCESS_THREADS, status.threads),
    ] {
        if let Some(number) = number {
            page.single(family, number as f64);
        }
    }
    if let Some(seconds) = process::cpu_seconds() {
        page.single(&f::PROCESS_CPU, seconds);
    }
}

/// Classes that are shown from the start, at zero: an alert on their rate must
/// see the first one. The others appear when they happen.
fn is_common(class: Class) -> bool {
    !matches!(class, Class::None | Class::Informational)
}
