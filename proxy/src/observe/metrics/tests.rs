//! What a scrape shows after what happened.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use super::*;
use crate::clock;
use crate::observe::{CacheResult, EjectionCause, Hedge, Record, Refused, UpstreamFailure, shard};

fn names(routes: &[&str]) -> Names {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Names {
        listeners: owned(&["http", "https"]),
        routes: owned(routes),
        upstreams: vec!["app".to_owned()],
    }
}

fn record(listener: u16, route: Option<u16>, status: u16) -> Record {
    let client = IpAddr::from([192, 0, 2, 1]);
    let mut record = Record::new(clock::now(), UNIX_EPOCH, 1, listener, client);
    record.route = route;
    record.status = status;
    record.duration = Duration::from_millis(3);
    record
}

/// The endpoints that the upstream has now.
fn shown(table: &Table) -> Option<Arc<Shown>> {
    let upstream = table.upstream(0)?;
    Some(Arc::new(Shown::of(&upstream.shown())))
}

/// A record of two attempts: the first failed, the second answered.
fn retried(table: &Table, listener: u16, route: Option<u16>) -> Record {
    let mut record = record(listener, route, 200);
    record.endpoints = shown(table);
    record.bytes_in = 10;
    record.bytes_out = 1000;
    record.cache = CacheResult::Miss;
    record.hinted = true;
    record.upstream = Some(0);
    record.attempts.begin(0);
    record.attempts.failed(UpstreamFailure::Connect);
    record.attempts.begin(1);
    record.attempts.answered(200);
    record.connect = Some(Duration::from_micros(300));
    record.first_byte = Some(Duration::from_millis(2));
    record
}

fn metrics() -> Metrics {
    Metrics::new(2, UNIX_EPOCH + Duration::from_secs(1_000))
}

fn published(metrics: &Metrics, names: Names, endpoints: &[&str]) -> Arc<Table> {
    let table = Arc::new(metrics.table(names));
    if let Some(upstream) = table.upstream(0) {
        let names = endpoints.iter().map(|&name| name.to_owned()).collect();
        upstream.show(upstream.endpoints(names));
    }
    metrics.config_loaded(
        Arc::clone(&table),
        0xabc,
        UNIX_EPOCH + Duration::from_millis(2_000_500),
    );
    table
}

/// The value of one series, written as in the text format.
fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.render();
    text.lines().find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == series).then(|| value.parse().expect("a number"))
    })
}

#[test]
fn a_request_is_counted_on_its_listener_route_and_endpoints() {
    let metrics = metrics();
    let table = published(&metrics, names(&["catalog"]), &["a:1", "b:1"]);
    table.finish(&retried(&table, 1, Some(0)));
    for (series, expected) in [
        (
            r#"tidegate_requests_total{listener="https",route="catalog",class="2xx"}"#,
            1.0,
        ),
        (
            r#"tidegate_requests_total{listener="https",route="catalog",class="5xx"}"#,
            0.0,
        ),
        (
            r#"tidegate_request_body_bytes_total{listener="https",route="catalog"}"#,
            10.0,
        ),
        (
            r#"tidegate_response_body_bytes_total{listener="https",route="catalog"}"#,
            1000.0,
        ),
        (
            r#"tidegate_request_duration_seconds_bucket{route="catalog",le="0.0025"}"#,
            0.0,
        ),
        (
            r#"tidegate_request_duration_seconds_bucket{route="catalog",le="0.005"}"#,
            1.0,
        ),
        (
            r#"tidegate_request_duration_seconds_bucket{route="catalog",le="+Inf"}"#,
            1.0,
        ),
        (
            r#"tidegate_request_duration_seconds_sum{route="catalog"}"#,
            0.003,
        ),
        (
            r#"tidegate_request_duration_seconds_count{route="catalog"}"#,
            1.0,
        ),
        (
            r#"tidegate_cache_requests_total{route="catalog",result="miss"}"#,
            1.0,
        ),
        (
            r#"tidegate_upstream_requests_total{upstream="app",endpoint="a:1",class="none"}"#,
            1.0,
        ),
        (
            r#"tidegate_upstream_requests_total{upstream="app",endpoint="b:1",class="2xx"}"#,
            1.0,
        ),
        (
            r#"tidegate_upstream_errors_total{upstream="app",endpoint="a:1",kind="connect"}"#,
            1.0,
        ),
        (
            r#"tidegate_upstream_errors_total{upstream="app",endpoint="b:1",kind="connect"}"#,
            0.0,
        ),
        (r#"tidegate_upstream_retries_total{upstream="app"}"#, 1.0),
        (
            r#"tidegate_upstream_first_byte_seconds_count{upstream="app"}"#,
            1.0,
        ),
        (
            r#"tidegate_upstream_connect_seconds_bucket{upstream="app",le="0.0005"}"#,
            1.0,
        ),
    ] {
        assert_eq!(value(&metrics, series), Some(expected), "{series}");
    }
}

#[test]
fn counts_of_all_workers_and_listeners_are_added_up() {
    let metrics = metrics();
    let table = published(&metrics, names(&["catalog"]), &["a:1"]);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let table = &table;
            scope.spawn(move || {
                shard::enter_worker(worker);
                for _ in 0..1000 {
                    table.finish(&record(0, Some(0), 200));
                    table.finish(&record(1, Some(0), 404));
                }
            });
        }
    });
    let of = |series| value(&metrics, series);
    assert_eq!(
        of(r#"tidegate_requests_total{listener="http",route="catalog",class="2xx"}"#),
        Some(2000.0)
    );
    assert_eq!(
        of(r#"tidegate_requests_total{listener="https",route="catalog",class="4xx"}"#),
        Some(2000.0)
    );
    assert_eq!(
        of(r#"tidegate_request_duration_seconds_count{route="catalog"}"#),
        Some(4000.0)
    );
}

#[test]
fn a_request_without_a_route_or_an_answer_is_counted_too() {
    let metrics = metrics();
    let table = published(&metrics, names(&["catalog"]), &["a:1"]);
    table.finish(&record(0, None, 404));
    table.finish(&record(0, Some(0), 0));
    let of = |series| value(&metrics, series);
    assert_eq!(
        of(r#"tidegate_requests_total{listener="http",route="(none)",class="4xx"}"#),
        Some(1.0)
    );
    assert_eq!(
        of(r#"tidegate_requests_total{listener="http",route="catalog",class="none"}"#),
        Some(1.0)
    );
}

#[test]
fn indexes_that_are_not_of_this_configuration_do_no_harm() {
    let metrics = metrics();
    let table = published(&metrics, names(&["catalog"]), &["a:1"]);
    let mut record = retried(&table, 700, Some(700));
    record.upstream = Some(700);
    table.finish(&record);
    table.finish(&retried(&table, 0, Some(700)));
    table.finish(&retried(&table, 0, None));
    assert!(table.listener(700).is_none() && table.upstream(700).is_none());
    assert_eq!(
        value(
            &metrics,
            r#"tidegate_requests_total{listener="http",route="(none)",class="2xx"}"#
        ),
        Some(2.0)
    );
}

#[test]
fn after_a_reload_names_that_stayed_go_on_and_names_that_went_are_gone() {
    let metrics = metrics();
    let old = published(&metrics, names(&["gone", "stays"]), &["a:1", "b:1"]);
    old.finish(&retried(&old, 0, Some(0)));
    old.finish(&retried(&old, 0, Some(1)));
    let new = published(&metrics, names(&["new", "stays"]), &["b:1", "c:1"]);
    // A request that began before the reload ends after it, by its own indexes.
    old.finish(&record(0, Some(1), 200));
    new.finish(&record(0, Some(1), 200));
    let of = |series: String| value(&metrics, &series);
    let route =
        |name| format!(r#"tidegate_requests_total{{listener="http",route="{name}",class="2xx"}}"#);
    let endpoint = |name| {
        format!(
            r#"tidegate_upstream_requests_total{{upstream="app",endpoint="{name}",class="2xx"}}"#
        )
    };
    assert_eq!(of(route("gone")), None);
    assert_eq!(of(route("stays")), Some(3.0));
    assert_eq!(of(route("new")), None, "no request yet");
    assert_eq!(of(endpoint("a:1")), None);
    assert_eq!(of(endpoint("b:1")), Some(2.0));
    assert_eq!(of(endpoint("c:1")), Some(0.0));
}

#[test]
fn a_configuration_that_is_never_in_force_leaves_no_trace() {
    let metrics = metrics();
    published(&metrics, names(&["catalog"]), &["a:1"]);
    let failed = metrics.table(names(&["broken"]));
    if let Some(upstream) = failed.upstream(0) {
        // Made, and never shown.
        drop(upstream.endpoints(vec!["z:1".to_owned()]));
    }
    failed.finish(&record(0, Some(0), 200));
    metrics.reloaded(false);
    let text = metrics.render();
    assert!(!text.contains("broken") && !text.contains("z:1"), "{text}");
    let of = |series| value(&metrics, series);
    assert_eq!(of("tidegate_config_last_reload_successful"), Some(0.0));
    assert_eq!(
        of("tidegate_config_last_reload_timestamp_seconds"),
        Some(2000.5)
    );
    assert_eq!(
        of(r#"tidegate_config_reloads_total{result="failed"}"#),
        Some(1.0)
    );
    assert_eq!(
        of(r#"tidegate_config_info{hash="0000000000000abc"}"#),
        Some(1.0)
    );
}

#[test]
fn two_endpoints_of_one_name_share_one_series() {
    let metrics = metrics();
    let table = published(&metrics, names(&["catalog"]), &["a:1", "a:1"]);
    table.finish(&retried(&table, 0, Some(0)));
    let text = metrics.render();
    let series = r#"tidegate_upstream_requests_total{upstream="app",endpoint="a:1",class="2xx"}"#;
    assert_eq!(text.matches(series).count(), 1, "{text}");
    assert_eq!(value(&metrics, series), Some(1.0));
}

#[test]
fn connections_and_requests_are_active_until_they_end_on_whichever_thread() {
    let metrics = metrics();
    let table = published(&metrics, names(&[]), &["a:1"]);
    let listener = table.listener(1).expect("there");
    let connection = listener.connection();
    listener.request_begins();
    let of = |series| value(&metrics, series);
    assert_eq!(
        of(r#"tidegate_connections_active{listener="https"}"#),
        Some(1.0)
    );
    assert_eq!(
        of(r#"tidegate_requests_active{listener="https"}"#),
        Some(1.0)
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            shard::enter_worker(0);
            listener.request_ends();
            drop(connection);
        });
    });
    assert_eq!(
        of(r#"tidegate_connections_active{listener="https"}"#),
        Some(0.0)
    );
    assert_eq!(
        of(r#"tidegate_requests_active{listener="https"}"#),
        Some(0.0)
    );
    assert_eq!(
        of(r#"tidegate_connections_total{listener="https"}"#),
        Some(1.0)
    );
}

/// Metrics in which every family has a sample.
fn full() -> Metrics {
    let metrics = metrics();
    let table = published(&metrics, names(&["catalog"]), &["[::1]:80", "b\"\\:1"]);
    let mut all = retried(&table, 0, Some(0));
    all.queued = Some(Duration::from_millis(3));
    all.hedge = Some(Hedge::Won);
    all.refused = Some(Refused::RetryBudget);
    table.finish(&all);
    if let Some(upstream) = table.upstream(0) {
        upstream.discovery_failed();
        upstream.set(UpstreamGauges {
            discovery_age: Some(Duration::from_secs(3)),
            ..UpstreamGauges::default()
        });
    }
    if let Some(listener) = table.listener(0) {
        listener.refused("max_connections");
        listener.rejected("bad_host");
        for end in TlsHandshake::ALL {
            listener.handshake(end);
        }
        listener.forwarded(ForwardEnd::Ended);
    }
    if let Some(endpoint) = shown(&table).as_ref().and_then(|shown| shown.cells(0)) {
        endpoint.ejected(EjectionCause::Latency);
        endpoint.returned();
        endpoint.set(EndpointGauges {
            healthy: false,
            active: 3,
            pending: 1,
            connections: 2,
            weight: 1,
            latency: Some(Duration::from_millis(2)),
            limit: Some(7),
        });
    }
    let counts = metrics.cache().counts();
    counts.purged();
    counts.not_stored(cache::storable::NotStored::NoStore);
    counts.compared("catalog", crate::observe::Compared::Same);
    metrics.cache().set(CacheState {
        bytes: 5,
        limit: 10,
        entries: 1,
        evictions: 2,
        tags: 3,
        disk: Some(cache::disk::Figures::default()),
    });
    metrics.reloaded(true);
    let made = static_server::images::Counts {
        made: 1,
        ..Default::default()
    };
    metrics.set_certificates(CertificateState {
        lives: vec![("shop.example".to_owned(), "acme", 1)],
        managed: vec![("shop.example".to_owned(), 0, Some(1))],
        orders: vec![("issued", 1)],
        staples: vec![StapleState {
            name: "shop.example".to_owned(),
            source: "file",
            response: Some((1, 2)),
            is_revoked: false,
            fetches: vec![("good", 1)],
        }],
    });
    metrics.set_images(vec![("shop".to_owned(), made)]);
    metrics
}

#[test]
fn every_family_has_a_sample_with_its_labels() {
    let gathered = collect::scrape(&full());
    for family in families::ALL {
        let found = gathered
            .iter()
            .find(|found| found.name() == family.name)
            .unwrap_or_else(|| panic!("{} has no sample", family.name));
        for metric in found.get_metric() {
            let labels: Vec<&str> = metric.get_label().iter().map(|pair| pair.name()).collect();
            assert_eq!(labels, family.labels, "{}", family.name);
        }
    }
    assert_eq!(gathered.len(), families::ALL.len());
}

#[test]
fn gauges_of_others_show_what_was_pushed() {
    let metrics = full();
    for (series, expected) in [
        (
            r#"tidegate_upstream_endpoint_healthy{upstream="app",endpoint="[::1]:80"}"#,
            0.0,
        ),
        (
            r#"tidegate_upstream_endpoint_active_requests{upstream="app",endpoint="[::1]:80"}"#,
            3.0,
        ),
        (
            r#"tidegate_upstream_ejections_total{upstream="app",endpoint="[::1]:80",cause="latency_factor"}"#,
            1.0,
        ),
        ("tidegate_cache_memory_bytes", 5.0),
        ("tidegate_cache_evictions_total", 2.0),
        (
            r#"tidegate_tls_handshakes_total{listener="http",result="timeout"}"#,
            1.0,
        ),
        (
            r#"tidegate_requests_rejected_total{listener="http",reason="bad_host"}"#,
            1.0,
        ),
        (
            r#"tidegate_connections_refused_total{listener="http",reason="max_connections"}"#,
            1.0,
        ),
        ("tidegate_start_time_seconds", 1000.0),
    ] {
        assert_eq!(value(&metrics, series), Some(expected), "{series}");
    }
}

#[test]
fn every_family_stands_in_the_manual_with_its_labels() {
    let manual = include_str!("../../../../docs/observability.md");
    for family in families::ALL {
        let row = manual
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", family.name)))
            .unwrap_or_else(|| panic!("{} is not in docs/observability.md", family.name));
        for label in family.labels {
            assert!(
                row.contains(&format!("`{label}`")),
                "{label} is not in: {row}"
            );
        }
        let kind = format!("{:?}", family.kind).to_lowercase();
        assert!(row.contains(&kind), "{kind} is not in: {row}");
    }
}

/// What `promtool ARGS` says of `input`, and whether it is content; `None` with a
/// visible line where it is not installed.
fn promtool(args: &[&str], input: &str) -> Option<(bool, String)> {
    let child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        let required = std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_some_and(|value| value == "1");
        assert!(!required, "promtool is missing: apt-get install prometheus");
        eprintln!("SKIPPED: needs promtool (apt-get install prometheus)");
        return None;
    };
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

#[test]
fn promtool_finds_nothing_to_say() {
    let text = full().render();
    if let Some((content, said)) = promtool(&["check", "metrics"], &text) {
        assert!(content && said.is_empty(), "{said}\n{text}");
    }
}

#[test]
fn the_alerts_of_the_manual_are_rules_about_metrics_that_exist() {
    let manual = include_str!("../../../../docs/observability.md");
    let (_, rules) = manual.split_once("```yaml\ngroups:").expect("rules");
    let (rules, _) = rules.split_once("```").expect("an end");
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: Vec<&str> = words.filter(|word| word.starts_with("tidegate_")).collect();
    assert!(named.len() >= 3, "{named:?}");
    for name in named {
        assert!(
            families::ALL.iter().any(|family| family.name == name),
            "{name}"
        );
    }
    let rules = format!("groups:{rules}");
    if let Some((content, said)) = promtool(&["check", "rules", "/dev/stdin"], &rules) {
        assert!(content && said.contains("SUCCESS"), "{said}");
    }
}

#[test]
#[ignore = "a measurement; run with --release -- --ignored --nocapture what_a_request_costs"]
fn what_a_request_costs() {
    let metrics = metrics();
    let table = published(&metrics, names(&["catalog"]), &["a:1", "b:1"]);
    let mut record = retried(&table, 0, Some(0));
    record.attempts = crate::observe::attempts::Attempts::default();
    record.attempts.begin(0);
    record.attempts.answered(200);
    shard::enter_worker(0);
    let requests = 5_000_000_u32;
    let begun = clock::now();
    for _ in 0..requests {
        table.finish(std::hint::black_box(&record));
    }
    println!("{:?} a request", begun.elapsed() / requests);
}
