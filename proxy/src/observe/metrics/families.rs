//! Every metric family by name, kind, labels and meaning: the one list that the
//! scrape and the manual (`docs/observability.md`) are held to.

use prometheus::proto::MetricType;

/// A metric family.
#[derive(Debug)]
pub(crate) struct Family {
    /// Name, with its unit and `_total` where Prometheus wants them.
    pub(crate) name: &'static str,
    /// Counter, gauge or histogram.
    pub(crate) kind: MetricType,
    /// Label names.
    pub(crate) labels: &'static [&'static str],
    /// What it says, in one line.
    pub(crate) help: &'static str,
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind: MetricType::COUNTER,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family {
        name,
        kind: MetricType::GAUGE,
        labels,
        help,
    }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind: MetricType::HISTOGRAM,
        labels,
        help,
    }
}

/// Declares the families and the list of all of them, so that none is forgotten.
macro_rules! families {
    ($($constant:ident = $kind:ident($name:literal, [$($label:literal),*], $help:literal);)*) => {
        $(
            #[doc = $help]
            pub(crate) const $constant: Family = $kind($name, &[$($label),*], $help);
        )*
        /// Every family, for the tests that hold the manual and the scrape to this list.
        #[cfg(test)]
        pub(crate) const ALL: &[Family] = &[$($constant),*];
    };
}

families! {
    REQUESTS = counter("tidegate_requests_total", ["listener", "route", "class"],
        "Requests finished, by status class of the answer; class none: the client got no answer.");
    REQUEST_DURATION = histogram("tidegate_request_duration_seconds", ["route"],
        "From a request's first byte to the last byte of its answer.");
    REQUEST_BODY = counter("tidegate_request_body_bytes_total", ["listener", "route"],
        "Bytes of request bodies received.");
    RESPONSE_BODY = counter("tidegate_response_body_bytes_total", ["listener", "route"],
        "Bytes of response bodies sent.");
    EARLY_HINTS = counter("tidegate_early_hints_total", ["route"],
        "Requests whose client was sent early hints of the edge's own.");
    REQUESTS_ACTIVE = gauge("tidegate_requests_active", ["listener"],
        "Requests under way.");
    REQUESTS_REJECTED = counter("tidegate_requests_rejected_total", ["listener", "reason"],
        "Requests refused as malformed, or because of a limit of the listener.");
    CONNECTIONS_ACTIVE = gauge("tidegate_connections_active", ["listener"],
        "Client connections open.");
    CONNECTIONS = counter("tidegate_connections_total", ["listener"],
        "Client connections accepted.");
    CONNECTIONS_REFUSED = counter("tidegate_connections_refused_total", ["listener", "reason"],
        "Client connections not taken, or ended, because of a limit.");
    TLS_HANDSHAKES = counter("tidegate_tls_handshakes_total", ["listener", "result"],
        "TLS handshakes with clients.");
    FORWARDED = counter("tidegate_forwarded_connections_total", ["listener", "result"],
        "Client connections that were passed on as they are, by how they ended.");
    UPSTREAM_REQUESTS = counter("tidegate_upstream_requests_total",
        ["upstream", "endpoint", "class"],
        "Attempts on an endpoint, by status class of its answer; class none: it gave none.");
    UPSTREAM_ERRORS = counter("tidegate_upstream_errors_total", ["upstream", "endpoint", "kind"],
        "Attempts on an endpoint that failed.");
    UPSTREAM_RETRIES = counter("tidegate_upstream_retries_total", ["upstream"],
        "Attempts after the first of a request.");
    UPSTREAM_HEDGES = counter("tidegate_upstream_hedges_total", ["upstream", "result"],
        "Second attempts beside a late one, by whether they answered first.");
    UPSTREAM_REFUSED = counter("tidegate_upstream_refused_total", ["upstream", "reason"],
        "Requests, or further attempts, that an upstream did not take, by reason.");
    UPSTREAM_QUEUE = histogram("tidegate_upstream_queue_seconds", ["upstream"],
        "Wait in the queue of requests that waited.");
    UPSTREAM_QUEUED = gauge("tidegate_upstream_queued_requests", ["upstream"],
        "Requests that wait in the queue.");
    UPSTREAM_CONNECTIONS = gauge("tidegate_upstream_connections", ["upstream"],
        "Connections to endpoints, idle ones included.");
    UPSTREAM_IN_SERVICE = gauge("tidegate_upstream_endpoints_in_service", ["upstream"],
        "Endpoints that take requests.");
    UPSTREAM_PANIC = gauge("tidegate_upstream_panic", ["upstream"],
        "1 while so few endpoints are in service that health is ignored.");
    DISCOVERY_AGE = gauge("tidegate_upstream_discovery_age_seconds", ["upstream"],
        "Since the endpoints were last found out, where they can change.");
    DISCOVERY_FAILURES = counter("tidegate_upstream_discovery_failures_total", ["upstream"],
        "Look-ups of the endpoints that failed; the last known ones stay.");
    UPSTREAM_FIRST_BYTE = histogram("tidegate_upstream_first_byte_seconds", ["upstream"],
        "From a request sent upstream to the first byte of its answer.");
    UPSTREAM_CONNECT = histogram("tidegate_upstream_connect_seconds", ["upstream"],
        "Making a new connection to an endpoint, TLS included.");
    ENDPOINT_HEALTHY = gauge("tidegate_upstream_endpoint_healthy", ["upstream", "endpoint"],
        "1 while the endpoint takes requests, 0 while checks or outlier detection keep it out.");
    ENDPOINT_ACTIVE = gauge("tidegate_upstream_endpoint_active_requests",
        ["upstream", "endpoint"],
        "Requests under way on the endpoint.");
    ENDPOINT_PENDING = gauge("tidegate_upstream_endpoint_pending_requests",
        ["upstream", "endpoint"],
        "Requests that wait for a connection to the endpoint.");
    ENDPOINT_CONNECTIONS = gauge("tidegate_upstream_endpoint_connections",
        ["upstream", "endpoint"],
        "Connections to the endpoint, idle ones included.");
    ENDPOINT_WEIGHT = gauge("tidegate_upstream_endpoint_weight", ["upstream", "endpoint"],
        "The endpoint's weight, as configured, discovered or set by hand.");
    ENDPOINT_LATENCY = gauge("tidegate_upstream_endpoint_latency_seconds",
        ["upstream", "endpoint"],
        "Mean time to the first byte, recent answers counting more.");
    ENDPOINT_LIMIT = gauge("tidegate_upstream_endpoint_limit_requests",
        ["upstream", "endpoint"],
        "Requests that the endpoint may have at once, where there is a limit.");
    EJECTIONS = counter("tidegate_upstream_ejections_total", ["upstream", "endpoint", "cause"],
        "Times that outlier detection took the endpoint out.");
    RETURNS = counter("tidegate_upstream_returns_total", ["upstream", "endpoint"],
        "Times that an ejection of the endpoint ended.");
    CACHE_REQUESTS = counter("tidegate_cache_requests_total", ["route", "result"],
        "Requests on routes with a cache, by what the cache had to do with them.");
    CACHE_BYTES = gauge("tidegate_cache_memory_bytes", [],
        "Bytes held by the cache: keys, heads and bodies.");
    CACHE_LIMIT = gauge("tidegate_cache_memory_limit_bytes", [],
        "Bytes that the cache may hold.");
    CACHE_ENTRIES = gauge("tidegate_cache_entries", [],
        "URLs stored in the cache.");
    CACHE_EVICTIONS = counter("tidegate_cache_evictions_total", [],
        "Cache entries evicted for want of room.");
    CACHE_PURGES = counter("tidegate_cache_purges_total", [],
        "Purges that removed something or made it stale.");
    CACHE_DISK_BYTES = gauge("tidegate_cache_disk_bytes", [],
        "Bytes of the cache's disk tier.");
    CACHE_DISK_LIMIT = gauge("tidegate_cache_disk_limit_bytes", [],
        "Bytes that the disk tier may take.");
    CACHE_DISK_OBJECTS = gauge("tidegate_cache_disk_objects", [],
        "Responses stored on the disk.");
    CACHE_DISK_READS = counter("tidegate_cache_disk_reads_total", [],
        "Responses read from the disk.");
    CACHE_DISK_WRITES = counter("tidegate_cache_disk_writes_total", [],
        "Responses written to the disk.");
    CACHE_DISK_ERRORS = counter("tidegate_cache_disk_write_errors_total", [],
        "Writes that failed: a full disk, a folder that was removed.");
    CACHE_DISK_DAMAGED = counter("tidegate_cache_disk_damaged_total", [],
        "Responses and files on the disk that could not be read as they were written.");
    CACHE_DISK_SKIPPED = counter("tidegate_cache_disk_skipped_total", [],
        "Responses not written: the disk did not keep up, or they are too large for it.");
    CACHE_TAGS = gauge("tidegate_cache_tags", [],
        "Tags that stored responses have.");
    CACHE_NOT_STORED = counter("tidegate_cache_not_stored_total", ["reason"],
        "Fetched responses that were not stored, by the reason that Cache-Status gives.");
    CACHE_COMPARED = counter("tidegate_cache_compared_sessions_total", ["route", "result"],
        "Pages fetched with and without a session, by what came of it.");
    IMAGES_MADE = counter("tidegate_images_total", ["static", "result"],
        "Variants of pictures worked on, by what came of it.");
    IMAGES_WANTED = gauge("tidegate_images_wanted", ["static"],
        "Variants of pictures that wait or are being made.");
    IMAGES_FILES = gauge("tidegate_images_files", ["static"],
        "Files kept of variants, those included that say that there is none.");
    IMAGES_BYTES = gauge("tidegate_images_bytes", ["static"],
        "Bytes of disk that variants of pictures take.");
    CERTIFICATE_NOT_AFTER = gauge("tidegate_certificate_not_after_seconds", ["name", "source"],
        "When the certificate for a name ends, in seconds since 1970.");
    OCSP_THIS_UPDATE = gauge("tidegate_ocsp_this_update_timestamp_seconds", ["name", "source"],
        "When the stapled OCSP response was known to be right; no sample: none is stapled.");
    OCSP_NEXT_UPDATE = gauge("tidegate_ocsp_next_update_timestamp_seconds", ["name", "source"],
        "When the stapled OCSP response ends; no sample: none is stapled.");
    OCSP_REVOKED = gauge("tidegate_ocsp_revoked", ["name", "source"],
        "1 if the responder says that the certificate is revoked, for those that name a responder.");
    OCSP_FETCHES = counter("tidegate_ocsp_fetches_total", ["name", "source", "outcome"],
        "Times that a responder was asked about a certificate, by what came of it.");
    ACME_ORDERS = counter("tidegate_acme_orders_total", ["outcome"],
        "Orders of certificates, by what came of them.");
    ACME_FAILURES = gauge("tidegate_acme_failures", ["name"],
        "Orders for a certificate that failed in a row.");
    ACME_NEXT = gauge("tidegate_acme_next_order_timestamp_seconds", ["name"],
        "When a certificate is ordered next.");
    CONFIG_RELOADS = counter("tidegate_config_reloads_total", ["result"],
        "Reloads tried.");
    UPGRADES = counter("tidegate_upgrades_total", ["result"],
        "Upgrades of the binary tried, by this process and those that it took over from.");
    CONFIG_LAST_OK = gauge("tidegate_config_last_reload_successful", [],
        "1 if the last load of the configuration succeeded; 0: an older one is still in force.");
    CONFIG_LAST_TIME = gauge("tidegate_config_last_reload_timestamp_seconds", [],
        "When the configuration in force was loaded.");
    CONFIG_INFO = gauge("tidegate_config_info", ["hash"],
        "The configuration in force; always 1.");
    OVERLOAD_LEVEL = gauge("tidegate_overload_level", [],
        "How overloaded the process is: 0 not at all, to 3.");
    OVERLOAD_LAG = gauge("tidegate_overload_lag_seconds", [],
        "How late the latest event loop is.");
    OVERLOAD_SHED = counter("tidegate_overload_shed_total", ["priority"],
        "Requests given up because the process is overloaded.");
    MAINTENANCE = gauge("tidegate_maintenance", [],
        "1 while the site is closed for maintenance.");
    BUILD_INFO = gauge("tidegate_build_info", ["version"],
        "The program; always 1.");
    START_TIME = gauge("tidegate_start_time_seconds", [],
        "When the process started.");
    LOG_LINES = counter("tidegate_access_log_lines_total", [],
        "Access log lines written.");
    LOG_DROPPED = counter("tidegate_access_log_dropped_total", [],
        "Access log lines dropped because writing failed or was too slow.");
    EVENTS_DROPPED = counter("tidegate_event_log_dropped_total", [],
        "Event log lines dropped because nobody read standard error.");
    PROCESS_CPU = counter("process_cpu_seconds_total", [],
        "CPU time spent, user and system.");
    PROCESS_FDS = gauge("process_open_fds", [],
        "File descriptors open.");
    PROCESS_MAX_FDS = gauge("process_max_fds", [],
        "File descriptors that may be open.");
    PROCESS_RESIDENT = gauge("process_resident_memory_bytes", [],
        "Memory in RAM.");
    PROCESS_VIRTUAL = gauge("process_virtual_memory_bytes", [],
        "Address space.");
    PROCESS_THREADS = gauge("process_threads", [],
        "Threads.");
    PROCESS_START = gauge("process_start_time_seconds", [],
        "When the process started.");
}
