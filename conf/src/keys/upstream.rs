//! Keys of pools of app servers.

use super::health::{HEALTH_CHECK, OUTLIER_DETECTION};
use super::{Form, HEADER_NAME, Kind, PATH, Shape, TIME, default, optional, required};

const ENDPOINT_ADDRESS: Form = Form {
    noun: "an address and a port",
    example: "10.0.0.11:8080",
    pattern: "^[^/]+:[0-9]{1,5}$",
};
const COOKIE: Form = Form {
    noun: "a cookie name",
    example: "sid",
    pattern: "^[^\\s;=]+$",
};
const SERVER_NAME: Form = Form {
    noun: "a host name",
    example: "app.internal",
    pattern: "^[^/]+$",
};

pub(crate) static UPSTREAM: Shape = Shape {
    title: "[upstream.NAME]",
    id: "upstream",
    doc: "A pool of app servers that give the same answers. Routes name it.",
    keys: &[
        required(
            "endpoints",
            Kind::List {
                of: &Kind::Either(&[Kind::Text(&ENDPOINT_ADDRESS), Kind::Table(&ENDPOINT)]),
                empty: false,
            },
            "The app servers: `\"host:port\"`, or a table where one differs. A name is looked up when the file is loaded.",
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
                ]),
                Kind::Table(&HASH),
            ]),
            "\"round_robin\"",
            "Which endpoint gets a request.",
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
            "tls",
            Kind::Table(&UPSTREAM_TLS),
            "no TLS",
            "TLS towards them; `{}` is enough where the endpoints are names.",
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
            "From the request sent to the first byte of the reply. Then 504.",
        ),
        default(
            "read_timeout",
            TIME,
            "\"30s\"",
            "Between two reads of a reply.",
        ),
        default(
            "keepalive",
            Kind::Table(&KEEPALIVE),
            "{ max_idle = 128, idle_timeout = \"60s\" }",
            "Connections kept for the next request.",
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
        default(
            "retry",
            Kind::Table(&RETRY),
            "{ attempts = 2 }",
            "Sending a request again, to another endpoint, where nothing of it can have been done yet or its method is idempotent.",
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
        ("proxy_pass", "write endpoints = [\"10.0.0.11:8080\"]"),
        ("lb_policy", "write balance = \"least_request\""),
        ("algorithm", "write balance = \"least_request\""),
        ("load_balancing", "write balance = \"least_request\""),
        ("least_conn", "write balance = \"least_request\""),
        ("ip_hash", "write balance = { hash = \"client_ip\" }"),
        ("hash", "write balance = { hash = \"client_ip\" }"),
        (
            "weight",
            "it belongs to one endpoint: { address = \"10.0.0.12:8080\", weight = 2 }",
        ),
        (
            "backup",
            "it belongs to one endpoint: { address = \"10.0.0.12:8080\", backup = true }",
        ),
        (
            "timeout",
            "there are connect_timeout, first_byte_timeout and read_timeout",
        ),
        (
            "proxy_read_timeout",
            "write first_byte_timeout for the first byte, read_timeout for the rest",
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
        ("interval", "it belongs in health_check"),
        ("retries", "write retry = { attempts = 2 }"),
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
health_check = { type = "http", path = "/healthz" }
"#,
};

pub(crate) static ENDPOINT: Shape = Shape {
    title: "an endpoint",
    id: "endpoint",
    doc: "One app server that differs from the others.",
    keys: &[
        required(
            "address",
            Kind::Text(&ENDPOINT_ADDRESS),
            "IP address or name, and port.",
        ),
        default(
            "weight",
            Kind::Integer { min: 1, max: 1000 },
            "1",
            "Its share of requests relative to the others.",
        ),
        default(
            "backup",
            Kind::Bool,
            "false",
            "Whether it is used only while no other is available.",
        ),
    ],
    foreign: &[
        (
            "host",
            "host and port together are the address: address = \"app:8080\"",
        ),
        (
            "port",
            "host and port together are the address: address = \"app:8080\"",
        ),
        ("url", "write address = \"10.0.0.11:8080\""),
        ("down", "leave the endpoint out, or mark it with `#`"),
    ],
    example: "",
};

pub(crate) static HASH: Shape = Shape {
    title: "balance",
    id: "hash",
    doc: "Consistent hashing: the same client, header or cookie gets the same endpoint while it is there, and few move when one comes or goes.",
    keys: &[required(
        "hash",
        Kind::Either(&[
            Kind::Choice(&[("client_ip", "the client's address")]),
            Kind::Table(&HASH_KEY),
        ]),
        "What decides.",
    )],
    foreign: &[
        ("header", "write { hash = { header = \"x-user\" } }"),
        ("cookie", "write { hash = { cookie = \"sid\" } }"),
        (
            "type",
            "write \"round_robin\", \"random\", \"least_request\" or { hash = ... }",
        ),
    ],
    example: "",
};

pub(crate) static HASH_KEY: Shape = Shape {
    title: "hash",
    id: "hash_key",
    doc: "A header or a cookie; exactly one of the two.",
    keys: &[
        optional(
            "header",
            Kind::Text(&HEADER_NAME),
            "see `cookie`",
            "A request header whose value decides.",
        ),
        optional(
            "cookie",
            Kind::Text(&COOKIE),
            "see `header`",
            "A cookie whose value decides.",
        ),
    ],
    foreign: &[],
    example: "",
};

pub(crate) static UPSTREAM_TLS: Shape = Shape {
    title: "tls",
    id: "upstream_tls",
    doc: "TLS towards an upstream.",
    keys: &[
        optional(
            "ca",
            Kind::Text(&PATH),
            "the system's",
            "PEM file with the certificates that are trusted.",
        ),
        optional(
            "server_name",
            Kind::Text(&SERVER_NAME),
            "host of the first endpoint",
            "Name that is sent (SNI) and that the certificate must carry. Needed where the first endpoint is an IP address.",
        ),
        default(
            "verify",
            Kind::Bool,
            "true",
            "Whether the certificate is verified. Without it anybody on the way can read and change what is sent.",
        ),
    ],
    foreign: &[
        ("sni", "write server_name = \"app.internal\""),
        ("insecure", "write verify = false"),
        ("insecure_skip_verify", "write verify = false"),
        (
            "cert",
            "client certificates towards an upstream are not supported",
        ),
        (
            "key",
            "client certificates towards an upstream are not supported",
        ),
    ],
    example: "",
};

pub(crate) static KEEPALIVE: Shape = Shape {
    title: "keepalive",
    id: "keepalive",
    doc: "Idle connections to an upstream.",
    keys: &[
        default(
            "max_idle",
            Kind::Integer {
                min: 0,
                max: 1_000_000,
            },
            "128",
            "How many are kept for the whole upstream, by each worker. 0 keeps none.",
        ),
        default(
            "idle_timeout",
            TIME,
            "\"60s\"",
            "When an idle one is closed. Choose it shorter than what the app servers do.",
        ),
    ],
    foreign: &[("timeout", "write idle_timeout = \"60s\"")],
    example: "",
};

pub(crate) static RETRY: Shape = Shape {
    title: "retry",
    id: "retry",
    doc: "Further attempts.",
    keys: &[default(
        "attempts",
        Kind::Integer { min: 1, max: 10 },
        "2",
        "Attempts for one request, the first included; 1 never sends it again.",
    )],
    foreign: &[
        ("count", "write attempts = 2 (the first included)"),
        ("max", "write attempts = 2 (the first included)"),
    ],
    example: "",
};
