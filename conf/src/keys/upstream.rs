//! Keys of pools of app servers: what concerns a pool as a whole.

use super::balance::{BALANCE, STICKY};
use super::connection::{ADAPTIVE_CONCURRENCY, HEDGE, KEEPALIVE, QUEUE, RETRY, UPSTREAM_TLS};
use super::endpoint::{DISCOVERY, ENDPOINTS, RESOLVE};
use super::health::{HEALTH_CHECK, OUTLIER_DETECTION};
use super::{COUNT, Kind, PERCENT, Shape, TIME, default, optional};

pub(crate) static UPSTREAM: Shape = Shape {
    title: "[upstream.NAME]",
    id: "upstream",
    doc: "A pool of app servers that give the same answers. Routes name it.",
    keys: &[
        optional(
            "endpoints",
            ENDPOINTS,
            "those of `discovery`",
            "The app servers: `\"host:port\"`, `\"unix:/path\"`, or a table where one differs. Must be there unless `discovery` is. A name stands for every address it has, and is looked up again and again; see `resolve`.",
        ),
        optional(
            "discovery",
            Kind::Table(&DISCOVERY),
            "only `endpoints`",
            "A file or a URL from which further endpoints are read while Tidegate runs.",
        ),
        optional(
            "resolve",
            Kind::Table(&RESOLVE),
            "the system's servers, every 30s",
            "How names among the endpoints are looked up.",
        ),
        default(
            "balance",
            Kind::Either(&[
                Kind::Choice(&[
                    ("round_robin", "one after the other, by weight"),
                    ("random", "at random, by weight"),
                    (
                        "least_request",
                        "of two random ones the one with fewer requests in flight",
                    ),
                    (
                        "peak_ewma",
                        "of two random ones the one with the lower latency times requests in flight",
                    ),
                ]),
                Kind::Table(&BALANCE),
            ]),
            "\"round_robin\"",
            "Which endpoint gets a request.",
        ),
        optional(
            "sticky",
            Kind::Table(&STICKY),
            "each request goes where `balance` sends it",
            "Keeps a client on its endpoint by a cookie.",
        ),
        default(
            "overflow_below",
            PERCENT,
            "\"0%\"",
            "Where less than this share of the weight of a priority is in service, the next priority (at last the backups) takes what is missing. `\"0%\"`: only when none of it is left.",
        ),
        optional(
            "zone_overflow_below",
            PERCENT,
            "`\"70%\"`",
            "Requests stay in the zone of `[server] zone` while at least this share of its weight is in service; below it, other zones take what is missing.",
        ),
        default(
            "panic_threshold",
            PERCENT,
            "\"0%\"",
            "When no priority, nor the backups, has at least this share of its weight in service, health is ignored and every endpoint gets requests: better some errors than all load on the last ones. `\"0%\"`: never.",
        ),
        default(
            "protocol",
            Kind::Choice(&[
                ("h1", "HTTP/1.1"),
                ("h2", "HTTP/2, without TLS by prior knowledge"),
            ]),
            "\"h1\"",
            "What is spoken to them.",
        ),
        optional(
            "max_concurrent_streams",
            Kind::Integer {
                min: 1,
                max: 10_000,
            },
            "100",
            "Only with `\"h2\"`: requests at the same time on one connection. What the app server allows may be less.",
        ),
        optional(
            "tls",
            Kind::Table(&UPSTREAM_TLS),
            "no TLS",
            "TLS towards them; `{}` is enough where the first endpoint is a name.",
        ),
        optional(
            "proxy_protocol",
            Kind::Choice(&[("v1", "text"), ("v2", "binary")]),
            "not sent",
            "Header in front of each connection that tells the client's address (HAProxy's PROXY protocol). Each request then has a connection of its own, so it goes with `\"h1\"` only.",
        ),
        default(
            "connect_timeout",
            TIME,
            "\"1s\"",
            "For a connection, TLS included. Then another endpoint is tried.",
        ),
        default(
            "first_byte_timeout",
            TIME,
            "\"15s\"",
            "From the request sent, its body included, to the first byte of the reply, further attempts included. Then 504.",
        ),
        default(
            "read_timeout",
            TIME,
            "\"30s\"",
            "Between two reads of a reply; and how long the app may take nothing of a body.",
        ),
        default(
            "keepalive",
            Kind::Table(&KEEPALIVE),
            "{ max_idle = 128, idle_timeout = \"60s\" }",
            "Connections kept for the next request.",
        ),
        optional(
            "max_connections",
            COUNT,
            "no limit",
            "Connections to each endpoint.",
        ),
        optional(
            "max_requests",
            COUNT,
            "no limit",
            "Requests under way at each endpoint.",
        ),
        optional(
            "max_pending",
            COUNT,
            "no limit",
            "Requests that wait for a connection to each endpoint.",
        ),
        optional(
            "max_total_connections",
            COUNT,
            "no limit",
            "Connections to all endpoints together.",
        ),
        optional(
            "max_total_requests",
            COUNT,
            "no limit",
            "Requests under way at all endpoints together.",
        ),
        optional(
            "queue",
            Kind::Table(&QUEUE),
            "503 at once",
            "Where requests wait while every endpoint is at one of its limits.",
        ),
        optional(
            "adaptive_concurrency",
            Kind::Either(&[Kind::Only(true), Kind::Table(&ADAPTIVE_CONCURRENCY)]),
            "off",
            "Learns from latency how many requests at once each endpoint can bear, and sends no more, so that one that slows down is not buried. `true` takes the defaults.",
        ),
        optional(
            "health_check",
            Kind::Table(&HEALTH_CHECK),
            "endpoints are taken for healthy",
            "Checks that run beside the requests and take an endpoint out of the pool before a request fails on it.",
        ),
        default(
            "outlier_detection",
            Kind::Either(&[Kind::Only(false), Kind::Table(&OUTLIER_DETECTION)]),
            "{ consecutive_errors = 5, ejection_time = \"10s\", max_ejected = \"50%\" }",
            "Takes an endpoint out for a while after errors on real requests; `false` switches it off.",
        ),
        optional(
            "slow_start",
            TIME,
            "the whole share at once",
            "How long the share of an endpoint grows that comes back or is added.",
        ),
        default(
            "retry",
            Kind::Table(&RETRY),
            "{ attempts = 2, on = [\"connect_failure\", \"reset\"], budget = \"20%\", max_body_size = \"64KiB\" }",
            "Sending a request again, to another endpoint, where nothing of it can have been done yet or its method is idempotent.",
        ),
        optional(
            "hedge",
            Kind::Table(&HEDGE),
            "one attempt at a time",
            "For GET: a second attempt at another endpoint while the first is late; the faster one is the answer.",
        ),
    ],
    foreign: &[
        ("server", "write endpoints = [\"10.0.0.11:8080\"]"),
        ("servers", "write endpoints = [\"10.0.0.11:8080\"]"),
        ("url", "write endpoints = [\"10.0.0.11:8080\"]"),
        ("address", "write endpoints = [\"10.0.0.11:8080\"]"),
        ("hosts", "write endpoints = [\"10.0.0.11:8080\"]"),
        ("targets", "write endpoints = [\"10.0.0.11:8080\"]"),
        ("nodes", "write endpoints = [\"10.0.0.11:8080\"]"),
        ("load_assignment", "write endpoints = [\"10.0.0.11:8080\"]"),
        ("proxy_pass", "write endpoints = [\"10.0.0.11:8080\"]"),
        ("lb_policy", "write balance = \"least_request\""),
        ("algorithm", "write balance = \"least_request\""),
        ("load_balancing", "write balance = \"least_request\""),
        ("least_conn", "write balance = \"least_request\""),
        ("ip_hash", "write balance = { hash = \"client_ip\" }"),
        ("hash", "write balance = { hash = \"client_ip\" }"),
        ("cookie", "write sticky = { cookie = \"tg_node\" }"),
        ("stick_table", "write sticky = { cookie = \"tg_node\" }"),
        (
            "session_affinity",
            "write sticky = { cookie = \"tg_node\" }",
        ),
        (
            "weight",
            "it belongs to one endpoint: { address = \"10.0.0.12:8080\", weight = 2 }",
        ),
        (
            "backup",
            "it belongs to one endpoint: { address = \"10.0.0.12:8080\", backup = true }",
        ),
        (
            "priority",
            "it belongs to one endpoint: { address = \"10.0.0.12:8080\", priority = 1 }",
        ),
        (
            "zone",
            "it belongs to one endpoint, { address = \"10.0.0.12:8080\", zone = \"eu-1a\" }, and to [server]",
        ),
        (
            "srv",
            "it belongs to an endpoint: endpoints = [{ srv = \"_http._tcp.app.internal\" }]",
        ),
        (
            "dynamic",
            "write endpoints = [{ srv = \"_http._tcp.app.internal\" }], or a name and a port",
        ),
        (
            "resolver",
            "write resolve = { servers = [\"10.0.0.2:53\"] }",
        ),
        (
            "resolvers",
            "write resolve = { servers = [\"10.0.0.2:53\"] }",
        ),
        ("dns_refresh_rate", "write resolve = { every = \"30s\" }"),
        ("dns_lookup_family", "write resolve = { family = \"ipv4\" }"),
        ("healthy_panic_threshold", "write panic_threshold = \"50%\""),
        (
            "timeout",
            "there are connect_timeout, first_byte_timeout and read_timeout",
        ),
        ("proxy_connect_timeout", "write connect_timeout = \"1s\""),
        (
            "proxy_read_timeout",
            "write first_byte_timeout for the first byte, read_timeout for the rest",
        ),
        ("send_proxy", "write proxy_protocol = \"v1\""),
        ("send_proxy_v2", "write proxy_protocol = \"v2\""),
        (
            "keepalive_timeout",
            "write keepalive = { idle_timeout = \"60s\" }",
        ),
        ("keepalive_time", "write keepalive = { max_age = \"1h\" }"),
        (
            "keepalive_requests",
            "write keepalive = { max_age = \"1h\" }",
        ),
        ("max_conns", "write max_connections = 512"),
        ("maxconn", "write max_connections = 512"),
        ("maxqueue", "write queue = { size = 256 }"),
        (
            "timeout_queue",
            "write queue = { size = 256, timeout = \"1s\" }",
        ),
        ("max_pending_requests", "write max_pending = 256"),
        (
            "circuit_breakers",
            "there are max_connections, max_requests and max_pending, for all endpoints together max_total_connections and max_total_requests",
        ),
        (
            "circuit_breaker",
            "there are outlier_detection for errors, max_requests and adaptive_concurrency for load",
        ),
        (
            "max_fails",
            "write outlier_detection = { consecutive_errors = 5 }",
        ),
        (
            "fail_timeout",
            "write outlier_detection = { ejection_time = \"10s\" }",
        ),
        (
            "check",
            "write health_check = { type = \"http\", path = \"/healthz\" }",
        ),
        (
            "health_uri",
            "write health_check = { type = \"http\", path = \"/healthz\" }",
        ),
        (
            "health_checks",
            "write health_check = { type = \"http\", path = \"/healthz\" }",
        ),
        ("interval", "it belongs in health_check"),
        ("slowstart", "write slow_start = \"30s\""),
        ("retries", "write retry = { attempts = 2 }"),
        ("lb_retries", "write retry = { attempts = 2 }"),
        ("retry_policy", "write retry = { attempts = 2 }"),
        (
            "proxy_next_upstream_tries",
            "write retry = { attempts = 2 }",
        ),
        (
            "proxy_next_upstream",
            "write retry = { on = [\"connect_failure\", \"reset\", \"503\"] }",
        ),
        (
            "retry_on",
            "write retry = { on = [\"connect_failure\", \"reset\", \"503\"] }",
        ),
        ("hedge_policy", "write hedge = { percentile = 95 }"),
        (
            "retry_non_idempotent",
            "it belongs in a [[route]], where it is known which requests may come twice",
        ),
        (
            "max_body_size",
            "it is a key of [limits] or [[route]]; here, retry = { max_body_size = ... } is what is kept to be sent again",
        ),
        ("path_prefix", "it belongs in the match of a [[route]]"),
        ("cache", "it belongs in a [[route]]"),
    ],
    example: r#"[upstream.app]
endpoints = [
  "10.0.0.11:8080",
  { address = "10.0.0.12:8080", weight = 2 },
  { address = "10.0.1.11:8080", backup = true },
]
balance = "least_request"
max_requests = 200
queue = { size = 500, timeout = "1s" }
health_check = { type = "http", path = "/healthz" }
slow_start = "30s"
retry = { on = ["connect_failure", "reset", "503"] }
"#,
};
