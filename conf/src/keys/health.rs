//! Keys of what takes an endpoint out of its pool.

use super::{
    COUNT, Form, HEADER_VALUE, Kind, METHOD, PERCENT, REGEX, STATUS, Shape, TIME, URL_PATH,
    default, optional, required,
};

/// A Host field, which unlike other hosts may carry a port.
const CHECK_HOST: Form = Form {
    noun: "a host",
    example: "shop.example",
    pattern: "^[^/]+$",
};

const SERVICE: Form = Form {
    noun: "the name of a gRPC service",
    example: "shop.Catalog",
    pattern: ".",
};

pub(crate) static HEALTH_CHECK: Shape = Shape {
    title: "health_check",
    id: "health_check",
    doc: "Active checks of every endpoint, over connections of their own.",
    keys: &[
        required(
            "type",
            Kind::Choice(&[
                ("http", "a request whose status must be the expected one"),
                ("tcp", "a connection is made and closed"),
                ("tls", "a TLS handshake is made, as `tls` says"),
                (
                    "grpc",
                    "the gRPC health protocol, grpc.health.v1.Health/Check",
                ),
            ]),
            "What is done.",
        ),
        default(
            "path",
            Kind::Text(&URL_PATH),
            "\"/\"",
            "What an HTTP check asks for. Let it be a page that fails when the app cannot serve.",
        ),
        optional(
            "host",
            Kind::Text(&CHECK_HOST),
            "tls.server_name, or the endpoint's address",
            "Host field of an HTTP check.",
        ),
        default(
            "method",
            Kind::Text(&METHOD),
            "\"GET\"",
            "Method of an HTTP check.",
        ),
        optional(
            "headers",
            Kind::Map {
                what: "header names",
                of: &Kind::Text(&HEADER_VALUE),
            },
            "none",
            "Further fields of an HTTP check, such as `{ x-probe = \"1\" }`.",
        ),
        optional(
            "status",
            Kind::OneOrMore(&STATUS),
            "any from 200 to 299",
            "Statuses that an HTTP check takes for healthy.",
        ),
        optional(
            "body",
            Kind::Text(&REGEX),
            "the body is not looked at",
            "What the first 64 KiB of the body of an HTTP check must contain.",
        ),
        optional(
            "service",
            Kind::Text(&SERVICE),
            "the whole server",
            "What a gRPC check asks about.",
        ),
        default(
            "interval",
            TIME,
            "\"2s\"",
            "Between two checks of one endpoint. Each time is varied a little, so that not all are checked at once.",
        ),
        optional(
            "down_interval",
            TIME,
            "`interval`, but at most 1s",
            "The same while it is out, before it returns.",
        ),
        default(
            "timeout",
            TIME,
            "\"1s\"",
            "A check that takes longer has failed.",
        ),
        default(
            "unhealthy_after",
            COUNT,
            "3",
            "Failures in a row until it is out.",
        ),
        default(
            "healthy_after",
            COUNT,
            "2",
            "Successes in a row until it is back.",
        ),
        default(
            "start",
            Kind::Choice(&[
                ("healthy", "it gets requests at once"),
                ("unhealthy", "it gets none before its checks succeed"),
            ]),
            "\"healthy\"",
            "What an endpoint is taken for that was not checked yet.",
        ),
    ],
    foreign: &[
        ("uri", "write path = \"/healthz\""),
        ("url", "write path = \"/healthz\""),
        ("http_health_check", "write type = \"http\""),
        ("rise", "write healthy_after = 2"),
        ("fall", "write unhealthy_after = 3"),
        ("passes", "write healthy_after = 2"),
        ("fails", "write unhealthy_after = 3"),
        ("healthy_threshold", "write healthy_after = 2"),
        ("unhealthy_threshold", "write unhealthy_after = 3"),
        ("inter", "write interval = \"2s\""),
        ("fastinter", "write down_interval = \"1s\""),
        ("downinter", "write down_interval = \"1s\""),
        ("unhealthy_interval", "write down_interval = \"1s\""),
        ("interval_jitter", "intervals are always varied a little"),
        ("jitter", "intervals are always varied a little"),
        ("port", "checks go to the endpoint's own port"),
        ("expect", "write status = 200, or body = 'ok'"),
        ("expected_statuses", "write status = [200, 204]"),
        ("expect_status", "write status = 200"),
        ("expect_body", "write body = 'ok'"),
        ("codes", "write status = [200, 204]"),
        ("match", "write status = 200, or body = 'ok'"),
        ("service_name", "write service = \"shop.Catalog\""),
        ("grpc_service", "write service = \"shop.Catalog\""),
        ("mandatory", "write start = \"unhealthy\""),
        ("initial_state", "write start = \"unhealthy\""),
        ("hostname", "write host = \"shop.example\""),
    ],
    example: "",
};

pub(crate) static OUTLIER_DETECTION: Shape = Shape {
    title: "outlier_detection",
    id: "outlier_detection",
    doc: "Passive ejection: connect failures, resets, timeouts and 5xx on real requests are counted.",
    keys: &[
        default(
            "consecutive_errors",
            COUNT,
            "5",
            "Errors in a row until an endpoint is ejected.",
        ),
        optional(
            "error_rate",
            Kind::Percent { min: 1, max: 100 },
            "not looked at",
            "Share of its requests in the window that fail until an endpoint is ejected.",
        ),
        optional(
            "latency_factor",
            Kind::Integer { min: 2, max: 100 },
            "not looked at",
            "An endpoint is ejected that takes this many times as long to the first byte as the others do (by the median).",
        ),
        default(
            "window",
            TIME,
            "\"10s\"",
            "What `error_rate` and `latency_factor` look back on.",
        ),
        default(
            "min_requests",
            COUNT,
            "20",
            "With fewer requests in the window, an endpoint is judged by neither.",
        ),
        default(
            "ejection_time",
            TIME,
            "\"10s\"",
            "How long it stays out the first time; one that is soon ejected again stays out twice, three times, at most ten times as long. Then it gets requests again, and one success clears its count.",
        ),
        default(
            "max_ejected",
            PERCENT,
            "\"50%\"",
            "Share of the endpoints that may be out at once; one always may.",
        ),
    ],
    foreign: &[
        ("max_fails", "write consecutive_errors = 5"),
        ("error_limit", "write consecutive_errors = 5"),
        ("consecutive_5xx", "write consecutive_errors = 5"),
        (
            "consecutive_gateway_failure",
            "write consecutive_errors = 5",
        ),
        ("fail_timeout", "write ejection_time = \"10s\""),
        ("fail_duration", "write ejection_time = \"10s\""),
        ("base_ejection_time", "write ejection_time = \"10s\""),
        ("max_ejection_percent", "write max_ejected = \"50%\""),
        ("failure_percentage_threshold", "write error_rate = \"50%\""),
        ("error_ratio", "write error_rate = \"50%\""),
        ("request_volume", "write min_requests = 20"),
        ("success_rate_request_volume", "write min_requests = 20"),
        ("interval", "write window = \"10s\""),
        ("unhealthy_latency", "write latency_factor = 5"),
        (
            "enabled",
            "write outlier_detection = false to switch it off",
        ),
    ],
    example: "",
};
