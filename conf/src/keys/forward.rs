//! Keys of connections that are passed on as they are.

use super::{Kind, NAME, Shape, default, optional};

pub(crate) static FORWARD: Shape = Shape {
    title: "forward",
    id: "forward",
    doc: "Connections are passed on as they are, byte for byte: TCP that is not HTTP, or TLS that an upstream terminates. They are balanced as requests are, with `balance`, health checks, limits and `retry.attempts` of the upstream, and get a PROXY header if the upstream has `proxy_protocol`.",
    keys: &[
        optional(
            "upstream",
            Kind::Text(&NAME),
            "connections that `names` does not cover are terminated here, with `tls`; without, they are refused",
            "Where connections go that `names` does not cover.",
        ),
        optional(
            "names",
            Kind::Map {
                what: "host names",
                of: &Kind::Text(&NAME),
            },
            "none",
            "Upstreams by the name that a TLS client asks for (SNI): `\"pay.example\"`, or `\"*.pay.example\"` for every name below it. TLS is not terminated: certificates are the upstream's.",
        ),
        default(
            "idle_timeout",
            Kind::Duration { zero: false },
            "\"10m\"",
            "A connection on which nothing moves for so long is closed.",
        ),
    ],
    foreign: &[
        ("sni", "write names = { \"pay.example\" = \"pay\" }"),
        ("proxy_pass", "write upstream = \"db\""),
        ("timeout", "write idle_timeout = \"10m\""),
        ("proxy_timeout", "write idle_timeout = \"10m\""),
    ],
    example: r#"[[listener]]
address = "0.0.0.0:443"
tls = true
forward = { names = { "pay.example" = "pay" } }

[[listener]]
address = "10.0.0.1:5432"
forward = { upstream = "db", idle_timeout = "1h" }
"#,
};
