//! Keys of how an upstream is reached: connections, what it takes at once, further attempts.

use super::{COUNT, Form, Kind, PATH, PERCENT, Shape, TIME, default, optional, required};

const SERVER_NAME: Form = Form {
    noun: "a host name",
    example: "app.internal",
    pattern: "^[^/]+$",
};
const STATUS_WORD: Form = Form {
    noun: "a status from 400 to 599",
    example: "503",
    pattern: "^[45][0-9]{2}$",
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
            "Name that is sent (SNI) and that the certificate must carry. Needed where the first endpoint is not a name with a port.",
        ),
        default(
            "verify",
            Kind::Bool,
            "true",
            "Whether the certificate is verified. Without it anybody on the way can read and change what is sent.",
        ),
        optional(
            "cert",
            Kind::Text(&PATH),
            "none is shown",
            "PEM file with the certificate that is shown to them, and its chain; with `key`.",
        ),
        optional(
            "key",
            Kind::Text(&PATH),
            "see `cert`",
            "PEM file with the private key of `cert`.",
        ),
    ],
    foreign: &[
        ("sni", "write server_name = \"app.internal\""),
        ("insecure", "write verify = false"),
        ("insecure_skip_verify", "write verify = false"),
        ("tls_insecure_skip_verify", "write verify = false"),
        ("proxy_ssl_verify", "write verify = true"),
        ("trusted_ca", "write ca = \"internal.pem\""),
        ("ca_file", "write ca = \"internal.pem\""),
        ("root_cas", "write ca = \"internal.pem\""),
        ("crt", "write cert = \"edge.pem\" and key = \"edge.key\""),
        (
            "certificate",
            "write cert = \"edge.pem\" and key = \"edge.key\"",
        ),
        (
            "client_cert",
            "write cert = \"edge.pem\" and key = \"edge.key\"",
        ),
        (
            "client_auth",
            "write cert = \"edge.pem\" and key = \"edge.key\"",
        ),
        ("client_key", "write key = \"edge.key\""),
        ("certificate_key", "write key = \"edge.key\""),
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
            "How many are kept for each endpoint, by each worker. 0 keeps none.",
        ),
        default(
            "idle_timeout",
            TIME,
            "\"60s\"",
            "When an idle one is closed. Choose it shorter than what the app servers do.",
        ),
        optional(
            "max_age",
            TIME,
            "any age",
            "A connection older than this is not used for another request, so that load spreads anew and what was looked up or rotated since takes hold.",
        ),
    ],
    foreign: &[
        ("timeout", "write idle_timeout = \"60s\""),
        ("max_lifetime", "write max_age = \"1h\""),
        ("max_connection_duration", "write max_age = \"1h\""),
        ("time", "write max_age = \"1h\""),
        ("requests", "connections end by age: max_age = \"1h\""),
        ("max_requests", "connections end by age: max_age = \"1h\""),
        ("max_idle_conns_per_host", "write max_idle = 128"),
        ("connections", "write max_idle = 128"),
    ],
    example: "",
};

pub(crate) static QUEUE: Shape = Shape {
    title: "queue",
    id: "queue",
    doc: "Requests that wait for a turn at an endpoint. One that finds no room here, or has waited too long, gets 503 with Retry-After.",
    keys: &[
        required("size", COUNT, "How many wait at once."),
        default("timeout", TIME, "\"1s\"", "How long one waits."),
    ],
    foreign: &[
        ("max", "write size = 256"),
        ("length", "write size = 256"),
        ("depth", "write size = 256"),
        ("limit", "write size = 256"),
        ("maxqueue", "write size = 256"),
        ("max_wait", "write timeout = \"1s\""),
    ],
    example: "",
};

pub(crate) static ADAPTIVE_CONCURRENCY: Shape = Shape {
    title: "adaptive_concurrency",
    id: "adaptive_concurrency",
    doc: "A limit of requests at each endpoint that follows its latency.",
    keys: &[
        default("min", COUNT, "4", "The limit never falls below."),
        default("max", COUNT, "1000", "Nor does it rise above."),
    ],
    foreign: &[
        ("enabled", "write adaptive_concurrency = true"),
        ("min_limit", "write min = 4"),
        ("min_concurrency", "write min = 4"),
        ("max_limit", "write max = 1000"),
        ("max_concurrency_limit", "write max = 1000"),
        (
            "gradient_controller_config",
            "write min and max, or nothing",
        ),
        (
            "initial",
            "the limit finds its way between `min` and `max` by itself",
        ),
        (
            "initial_limit",
            "the limit finds its way between `min` and `max` by itself",
        ),
    ],
    example: "",
};

pub(crate) static RETRY: Shape = Shape {
    title: "retry",
    id: "retry",
    doc: "Further attempts, at another endpoint while there is one. A request whose method is not idempotent is sent again only where no endpoint can have read it, unless its route has `retry_non_idempotent`.",
    keys: &[
        default(
            "attempts",
            Kind::Integer { min: 1, max: 10 },
            "2",
            "Attempts for one request, the first included; 1 never sends it again.",
        ),
        default(
            "on",
            Kind::List {
                of: &Kind::Either(&[
                    Kind::Choice(&[
                        ("connect_failure", "no connection came about"),
                        ("reset", "the connection broke before the head of the reply"),
                        ("timeout", "the reply did not begin within per_try_timeout"),
                    ]),
                    Kind::Text(&STATUS_WORD),
                ]),
                empty: false,
            },
            "[\"connect_failure\", \"reset\"]",
            "What a request is sent again after.",
        ),
        default(
            "budget",
            PERCENT,
            "\"20%\"",
            "Share of the requests that may be sent again, so that retries do not multiply an outage. Those that no endpoint can have read do not count.",
        ),
        optional(
            "per_try_timeout",
            TIME,
            "first_byte_timeout, for all attempts together",
            "How long one attempt may take to the first byte of its reply.",
        ),
        default(
            "max_body_size",
            Kind::Size {
                min: 0,
                max: 64 << 20,
            },
            "\"64KiB\"",
            "Request bodies up to this size are kept to be sent again. `\"0B\"` keeps none.",
        ),
    ],
    foreign: &[
        ("count", "write attempts = 2 (the first included)"),
        ("max", "write attempts = 2 (the first included)"),
        ("tries", "write attempts = 2 (the first included)"),
        ("retries", "write attempts = 2 (the first included)"),
        ("num_retries", "write attempts = 2 (the first included)"),
        ("max_retries", "write attempts = 2 (the first included)"),
        (
            "retry_on",
            "write on = [\"connect_failure\", \"reset\", \"503\"]",
        ),
        (
            "statuses",
            "write on = [\"connect_failure\", \"reset\", \"503\"]",
        ),
        (
            "status",
            "write on = [\"connect_failure\", \"reset\", \"503\"]",
        ),
        (
            "codes",
            "write on = [\"connect_failure\", \"reset\", \"503\"]",
        ),
        ("timeout", "write per_try_timeout = \"5s\""),
        ("try_timeout", "write per_try_timeout = \"5s\""),
        ("budget_percent", "write budget = \"20%\""),
        ("retry_budget", "write budget = \"20%\""),
        (
            "backoff",
            "the next attempt goes to another endpoint, so it need not wait",
        ),
        (
            "interval",
            "the next attempt goes to another endpoint, so it need not wait",
        ),
        (
            "methods",
            "idempotent ones are sent again; others with retry_non_idempotent = true in a [[route]]",
        ),
        (
            "non_idempotent",
            "write retry_non_idempotent = true in a [[route]]",
        ),
        (
            "retry_non_idempotent",
            "it belongs in a [[route]], where it is known which requests may come twice",
        ),
        ("buffer", "write max_body_size = \"64KiB\""),
    ],
    example: "",
};

pub(crate) static HEDGE: Shape = Shape {
    title: "hedge",
    id: "hedge",
    doc: "When the second attempt begins.",
    keys: &[
        default(
            "percentile",
            Kind::Integer { min: 50, max: 99 },
            "95",
            "It begins when the first has taken longer than this percentile of the times to the first byte.",
        ),
        default("min_delay", TIME, "\"5ms\"", "But not before."),
    ],
    foreign: &[
        ("delay", "write min_delay = \"5ms\""),
        ("after", "write min_delay = \"5ms\""),
        ("hedge_on_per_try_timeout", "write percentile = 95"),
        ("quantile", "write percentile = 95"),
        ("p", "write percentile = 95"),
    ],
    example: "",
};
