//! What an upstream says becomes what the program runs on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{
    AdaptiveConcurrency, Balance, Discovery, EndpointAddress, Family, HashKey, HashTable,
    HealthCheckKind, Hedge, ProxyVersion, Queue, Upstream, UpstreamLimits, UpstreamProtocol,
};
use crate::environment::Plenty;
use crate::load_with;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// The upstream with these keys, in a file of the folder `etc`; `None`: it is refused.
fn try_upstream(keys: &str) -> Option<Upstream> {
    let text = format!(
        "[[listener]]\naddress = \"127.0.0.1:80\"\n[[route]]\nupstream = \"app\"\n[upstream.app]\n{keys}"
    );
    let mut config = load_with(&text, Path::new("etc/edge.toml"), &Plenty).ok()?;
    config.upstreams.pop()
}

#[track_caller]
fn upstream(keys: &str) -> Upstream {
    try_upstream(keys).unwrap_or_else(|| panic!("refused: {keys}"))
}

/// With two endpoints by address.
#[track_caller]
fn of_two(keys: &str) -> Upstream {
    upstream(&format!(
        "endpoints = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n{keys}"
    ))
}

#[test]
fn what_is_left_out_is_as_the_manual_says() {
    let app = of_two("");
    assert_eq!(app.balance, Balance::RoundRobin);
    assert_eq!(app.protocol, UpstreamProtocol::H1);
    assert_eq!(app.max_concurrent_streams.get(), 100);
    assert_eq!((app.overflow_below, app.zone_overflow_below), (0, 70));
    assert_eq!(app.panic_threshold, 0);
    assert_eq!(app.limits, UpstreamLimits::default());
    assert_eq!(app.slow_start, Duration::ZERO);
    assert_eq!(
        (app.resolve.every, app.resolve.family),
        (MS(30_000), Family::Auto)
    );
    assert!(app.discovery.is_none() && app.sticky.is_none() && app.queue.is_none());
    assert!(app.hedge.is_none() && app.adaptive_concurrency.is_none());
    assert!(app.proxy_protocol.is_none() && app.health_check.is_none());
    let retry = app.retry;
    assert!(retry.on_connect_failure && retry.on_reset && !retry.on_timeout);
    assert_eq!((retry.attempts.get(), retry.budget), (2, 20));
    assert_eq!((retry.max_body_size, retry.per_try_timeout), (65_536, None));
    let ejection = app.outlier_detection.expect("on by itself");
    assert_eq!((ejection.error_rate, ejection.latency_factor), (None, None));
}

#[test]
fn endpoints_have_each_their_own() {
    let app = upstream(
        r#"endpoints = [
  "unix:run/app.sock",
  { address = "App.Internal:80", weight = 7, zone = "eu-1a", priority = 2 },
  { srv = "_http._tcp.app.internal", backup = true },
]"#,
    );
    let addresses: Vec<&EndpointAddress> = app.endpoints.iter().map(|e| &e.address).collect();
    assert_eq!(
        addresses,
        [
            &EndpointAddress::Unix(PathBuf::from("etc/run/app.sock")),
            &EndpointAddress::Name {
                host: "app.internal".into(),
                port: 80
            },
            &EndpointAddress::Srv("_http._tcp.app.internal".into()),
        ],
        "a path is relative to the file that names it"
    );
    let second = &app.endpoints[1];
    assert_eq!((second.weight.get(), second.priority), (7, 2));
    assert_eq!(second.zone.as_deref(), Some("eu-1a"));
    assert!(app.endpoints[2].backup && !second.backup);
}

#[test]
fn endpoints_may_come_from_elsewhere_alone() {
    let file = upstream("discovery = { file = \"nodes.json\" }");
    assert_eq!(file.endpoints, []);
    assert_eq!(
        file.discovery,
        Some(Discovery::File(PathBuf::from("etc/nodes.json")))
    );
    let url = upstream("discovery = { url = \"http://registry/app\", timeout = \"1s\" }");
    assert_eq!(
        url.discovery,
        Some(Discovery::Http {
            url: "http://registry:80/app".into(),
            every: MS(10_000),
            timeout: MS(1000),
        })
    );
    assert!(try_upstream("").is_none(), "from somewhere they must come");
}

#[test]
fn names_are_looked_up_as_told() {
    let app = upstream(
        "endpoints = [\"app:80\"]\nresolve = { servers = [\"10.0.0.2:53\"], family = \"ipv6\" }",
    );
    let server: SocketAddr = "10.0.0.2:53".parse().expect("an address");
    assert_eq!(app.resolve.servers, [server]);
    assert_eq!(app.resolve.family, Family::Ipv6);
}

#[test]
fn an_endpoint_is_picked_as_told() {
    let balance = |said: &str| of_two(&format!("balance = {said}")).balance;
    let hash = |key, table, max_load| Balance::Hash {
        key,
        table,
        max_load,
    };
    assert_eq!(balance("\"random\""), Balance::Random);
    assert_eq!(balance("\"peak_ewma\""), Balance::PeakEwma);
    let choices = |said| match balance(said) {
        Balance::LeastRequest { choices } => choices.get(),
        other => panic!("{other:?}"),
    };
    assert_eq!(choices("\"least_request\""), 2);
    assert_eq!(choices("{ least_request = { choices = 5 } }"), 5);
    assert_eq!(
        balance("{ hash = \"path\" }"),
        hash(HashKey::Path, HashTable::Rendezvous, None)
    );
    assert_eq!(
        balance("{ hash = { query = \"id\" }, table = \"ketama\", max_load = \"150%\" }"),
        hash(HashKey::Query("id".into()), HashTable::Ketama, Some(150))
    );
    assert_eq!(
        balance("{ hash = { cookie = \"sid\" }, table = \"maglev\" }"),
        hash(HashKey::Cookie("sid".into()), HashTable::Maglev, None)
    );
}

#[test]
fn a_cookie_may_bring_a_client_back_whatever_balances() {
    let app = of_two(
        "balance = { hash = \"client_ip\" }\nsticky = { cookie = \"tg_node\", secret = { env = \"KEY\" } }",
    );
    let sticky = app.sticky.expect("sticky");
    assert_eq!((sticky.cookie.as_str(), sticky.ttl), ("tg_node", None));
    assert_eq!(
        sticky.secret.expect("a secret").expose(),
        "a-word-of-some-length"
    );
}

#[test]
fn load_has_the_bounds_that_are_written() {
    let app = of_two(
        "max_requests = 10\nmax_pending = 5\nmax_total_requests = 15\nqueue = { size = 7 }\nadaptive_concurrency = { max = 50 }",
    );
    let number = |n| std::num::NonZeroU32::new(n);
    assert_eq!(
        app.limits,
        UpstreamLimits {
            max_requests: number(10),
            max_pending: number(5),
            max_total_requests: number(15),
            ..UpstreamLimits::default()
        }
    );
    assert_eq!(
        app.queue
            .map(|Queue { size, timeout }| (size.get(), timeout)),
        Some((7, MS(1000)))
    );
    assert_eq!(
        app.adaptive_concurrency
            .map(|AdaptiveConcurrency { min, max }| (min.get(), max.get())),
        Some((4, 50))
    );
    let switched_on = of_two("adaptive_concurrency = true").adaptive_concurrency;
    assert_eq!(
        switched_on,
        of_two("adaptive_concurrency = {}").adaptive_concurrency
    );
    assert!(switched_on.is_some());
}

#[test]
fn an_endpoint_that_is_out_is_checked_at_least_each_second() {
    let down = |said: &str| {
        let check = of_two(&format!("health_check = {{ type = \"tcp\"{said} }}"));
        check.health_check.expect("a check").down_interval
    };
    assert_eq!(down(""), MS(1000));
    assert_eq!(down(", interval = \"500ms\""), MS(500));
    assert_eq!(down(", interval = \"10s\""), MS(1000));
    assert_eq!(
        down(", interval = \"10s\", down_interval = \"3s\""),
        MS(3000)
    );
}

#[test]
fn a_check_of_http_asks_and_expects_what_is_written() {
    let app = of_two(
        r#"health_check = { type = "http", method = "HEAD", headers = { X-Probe = "1" }, status = 204, start = "unhealthy" }"#,
    );
    let check = app.health_check.expect("a check");
    assert!(!check.start_healthy);
    let HealthCheckKind::Http(http) = check.kind else {
        panic!("an HTTP check")
    };
    assert_eq!((http.method.as_str(), http.path.as_str()), ("HEAD", "/"));
    assert_eq!(http.headers.len(), 1);
    assert_eq!(http.headers[0].0, "x-probe");
    assert_eq!(http.statuses, [204]);
    let app = of_two("health_check = { type = \"http\", status = [200, 302], body = '^ok\\b' }");
    let HealthCheckKind::Http(http) = app.health_check.expect("a check").kind else {
        panic!("an HTTP check")
    };
    assert_eq!(http.statuses.len(), 2);
    let body = http.body.expect("a pattern").0;
    assert!(body.is_match(b"ok \xff") && !body.is_match(b"okay"));
}

#[test]
fn a_check_of_grpc_and_of_tls_needs_what_it_speaks() {
    let app = of_two("protocol = \"h2\"\nhealth_check = { type = \"grpc\" }");
    assert_eq!(
        app.health_check.map(|check| check.kind),
        Some(HealthCheckKind::Grpc {
            service: String::new()
        })
    );
    let tls = "tls = { server_name = \"app\", cert = \"a.pem\", key = \"a.key\" }";
    let app = of_two(&format!("{tls}\nhealth_check = {{ type = \"tls\" }}"));
    assert_eq!(
        app.health_check.map(|check| check.kind),
        Some(HealthCheckKind::Tls)
    );
    let shown = app.tls.and_then(|tls| tls.certificate).expect("both files");
    assert_eq!(shown.cert, PathBuf::from("etc/a.pem"));
}

#[test]
fn a_request_is_sent_again_after_what_is_written() {
    let app = of_two(
        "retry = { on = [\"503\", \"timeout\", \"429\"], per_try_timeout = \"5s\", budget = \"0%\", max_body_size = \"0B\" }\nhedge = {}",
    );
    let retry = app.retry;
    assert!(!retry.on_connect_failure && !retry.on_reset && retry.on_timeout);
    assert_eq!(retry.on_statuses, [503, 429]);
    assert_eq!((retry.budget, retry.max_body_size), (0, 0));
    assert_eq!(retry.per_try_timeout, Some(MS(5000)));
    assert_eq!(
        app.hedge,
        Some(Hedge {
            percentile: 95,
            min_delay: MS(5)
        })
    );
}

#[test]
fn one_name_may_be_several_endpoints() {
    let name = "endpoints = [\"app:80\"]\n";
    assert!(try_upstream(&format!("{name}hedge = {{}}")).is_some());
    assert!(try_upstream("endpoints = [\"10.0.0.1:80\"]\nhedge = {}").is_none());
    assert!(try_upstream(&format!("{name}overflow_below = \"10%\"")).is_none());
    let srv = "endpoints = [{ srv = \"_a._tcp.b\" }]\noverflow_below = \"10%\"";
    assert_eq!(
        upstream(srv).overflow_below,
        10,
        "SRV records have priorities"
    );
}

#[test]
fn the_clients_address_goes_with_a_connection_of_its_own() {
    let app = of_two("proxy_protocol = \"v1\"");
    assert_eq!(app.proxy_protocol, Some(ProxyVersion::V1));
    let h2 = "endpoints = [\"10.0.0.1:80\"]\nprotocol = \"h2\"\nproxy_protocol = \"v1\"";
    assert!(try_upstream(h2).is_none());
}
