//! Keys of what happens when there is more to do than can be done.

use super::{Form, Kind, Shape, TIME, default};

const MEMORY: Form = Form {
    noun: "a share of memory or a size",
    example: "80%",
    pattern: "^([0-9]+%|[0-9]+[KMGT]?i?B)$",
};

pub(crate) static OVERLOAD: Shape = Shape {
    title: "[overload]",
    id: "overload",
    doc: "From which marks on the edge is overloaded, and sheds: first it closes connections that wait for their next request, then it refuses requests of routes with `priority = \"sheddable\"` with 503, then those with `\"normal\"`; never those with `\"critical\"`.",
    keys: &[
        default(
            "memory",
            Kind::Either(&[Kind::Text(&MEMORY), Kind::Only(false)]),
            "\"90%\"",
            "Memory that the process has in use: a share of what it may have (its cgroup's limit, or the machine's memory), or a size. `false`: memory is no reason to shed.",
        ),
        default(
            "lag",
            Kind::Either(&[TIME, Kind::Only(false)]),
            "\"500ms\"",
            "How late a worker's event loop is, for a second at least: all that it does for clients is late by so much. `false`: that is no reason to shed.",
        ),
        default(
            "retry_after",
            TIME,
            "\"5s\"",
            "When clients of refused requests are told to come again, in whole seconds.",
        ),
    ],
    foreign: &[
        (
            "max_memory",
            "write memory = \"80%\", or a size: memory = \"2GiB\"",
        ),
        ("latency", "write lag = \"500ms\""),
        ("max_lag", "write lag = \"500ms\""),
        (
            "max_requests",
            "requests are bounded where they go: max_requests in [upstream.NAME]",
        ),
        (
            "cpu",
            "a worker without CPU time is late: write lag = \"500ms\"",
        ),
    ],
    example: r#"[overload]
memory = "80%"
lag = "200ms"

[[route]]
match = { path_prefix = "/checkout" }
upstream = "app"
priority = "critical"
"#,
};
