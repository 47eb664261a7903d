//! Keys of what takes an endpoint out of its pool.

use super::{COUNT, Form, Kind, STATUS, Shape, TIME, URL_PATH, default, optional, required};

/// A Host field, which unlike other hosts may carry a port.
const CHECK_HOST: Form = Form {
    noun: "a host",
    example: "shop.example",
    pattern: "^[^/]+$",
};

pub(crate) static HEALTH_CHECK: Shape = Shape {
    title: "health_check",
    id: "health_check",
    doc: "Active checks of every endpoint.",
    keys: &[
        required(
            "type",
            Kind::Choice(&[
                ("http", "a GET whose status must be the expected one"),
                ("tcp", "a connection is made and closed"),
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
        optional(
            "status",
            STATUS,
            "any from 200 to 299",
            "Status that an HTTP check takes for healthy.",
        ),
        default(
            "interval",
            TIME,
            "\"2s\"",
            "Between two checks of one endpoint.",
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
    ],
    foreign: &[
        ("uri", "write path = \"/healthz\""),
        ("url", "write path = \"/healthz\""),
        ("rise", "write healthy_after = 2"),
        ("fall", "write unhealthy_after = 3"),
        ("passes", "write healthy_after = 2"),
        ("fails", "write unhealthy_after = 3"),
        ("port", "checks go to the endpoint's own port"),
        ("expect", "write status = 200"),
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
        default(
            "ejection_time",
            TIME,
            "\"10s\"",
            "How long it stays out the first time; one that is soon ejected again stays out twice, three times, at most ten times as long. Then it gets requests again, and one success clears its count.",
        ),
        default(
            "max_ejected",
            Kind::Percent,
            "\"50%\"",
            "Share of the endpoints that may be out at once; one always may.",
        ),
    ],
    foreign: &[
        ("max_fails", "write consecutive_errors = 5"),
        ("fail_timeout", "write ejection_time = \"10s\""),
        (
            "enabled",
            "write outlier_detection = false to switch it off",
        ),
    ],
    example: "",
};
