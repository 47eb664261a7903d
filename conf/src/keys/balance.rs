//! Keys of how an endpoint is picked, where one word does not say it.

use super::process::SECRET;
use super::{Form, HEADER_NAME, Kind, Shape, TIME, default, optional, required};

const COOKIE: Form = Form {
    noun: "a cookie name",
    example: "sid",
    pattern: "^[^\\s;=]+$",
};
const STICKY_COOKIE: Form = Form {
    noun: "a cookie name",
    example: "tg_node",
    pattern: "^[^\\s;=]+$",
};
const PARAMETER: Form = Form {
    noun: "the name of a query parameter",
    example: "id",
    pattern: "^[^&=#]+$",
};

pub(crate) static BALANCE: Shape = Shape {
    title: "balance",
    id: "balance",
    doc: "Where a word does not say it; exactly one of `least_request` and `hash`. Hashing is consistent: the same client, path, header, cookie or parameter gets the same endpoint while it is there, and few move when one comes or goes.",
    keys: &[
        optional(
            "least_request",
            Kind::Table(&LEAST_REQUEST),
            "see `hash`",
            "Fewest requests in flight, in proportion to weight, of some random endpoints.",
        ),
        optional(
            "hash",
            Kind::Either(&[
                Kind::Choice(&[
                    ("client_ip", "the client's address"),
                    ("path", "the path, without query"),
                ]),
                Kind::Table(&HASH_KEY),
            ]),
            "see `least_request`",
            "What decides.",
        ),
        optional(
            "table",
            Kind::Choice(&[
                (
                    "rendezvous",
                    "fewest move; each pick looks at every endpoint",
                ),
                ("ketama", "a ring of points; spread less evenly"),
                ("maglev", "a table; spread most evenly, a few more move"),
            ]),
            "`\"rendezvous\"`",
            "Only with `hash`: how keys are spread over endpoints.",
        ),
        optional(
            "max_load",
            Kind::Percent {
                min: 101,
                max: 1000,
            },
            "no bound",
            "Only with `hash`: no endpoint gets more than this percentage of the mean number of requests in flight; what is above goes to the next one, so that a key that many ask for does not bury its endpoint.",
        ),
    ],
    foreign: &[
        ("header", "write { hash = { header = \"x-user\" } }"),
        ("cookie", "write { hash = { cookie = \"sid\" } }"),
        ("query", "write { hash = { query = \"id\" } }"),
        ("client_ip", "write { hash = \"client_ip\" }"),
        ("path", "write { hash = \"path\" }"),
        (
            "type",
            "write \"round_robin\", \"random\", \"least_request\", \"peak_ewma\" or { hash = ... }",
        ),
        (
            "policy",
            "write one word, as \"least_request\", or { hash = ... }",
        ),
        ("round_robin", "write balance = \"round_robin\""),
        ("random", "write balance = \"random\""),
        ("peak_ewma", "write balance = \"peak_ewma\""),
        ("choices", "write { least_request = { choices = 3 } }"),
        ("choice_count", "write { least_request = { choices = 3 } }"),
        (
            "ring_hash",
            "write { hash = \"client_ip\", table = \"ketama\" }",
        ),
        (
            "ketama",
            "write { hash = \"client_ip\", table = \"ketama\" }",
        ),
        (
            "maglev",
            "write { hash = \"client_ip\", table = \"maglev\" }",
        ),
        ("consistent", "hashing is always consistent: leave it out"),
        ("hash_type", "write table = \"ketama\""),
        ("balance_factor", "write max_load = \"125%\""),
        ("hash_balance_factor", "write max_load = \"125%\""),
    ],
    example: "",
};

pub(crate) static LEAST_REQUEST: Shape = Shape {
    title: "least_request",
    id: "least_request",
    doc: "Random choices, of which the least busy is taken.",
    keys: &[default(
        "choices",
        Kind::Integer { min: 2, max: 10 },
        "2",
        "How many endpoints are compared. Two avoid the busy ones without every edge running to the same idle one; more hardly help.",
    )],
    foreign: &[
        ("choice_count", "write choices = 2"),
        ("draws", "write choices = 2"),
        ("n", "write choices = 2"),
    ],
    example: "",
};

pub(crate) static HASH_KEY: Shape = Shape {
    title: "hash",
    id: "hash_key",
    doc: "Exactly one of these. Requests that lack it are spread evenly.",
    keys: &[
        optional(
            "header",
            Kind::Text(&HEADER_NAME),
            "see above",
            "A request header whose value decides.",
        ),
        optional(
            "cookie",
            Kind::Text(&COOKIE),
            "see above",
            "A cookie whose value decides.",
        ),
        optional(
            "query",
            Kind::Text(&PARAMETER),
            "see above",
            "A parameter of the query whose value decides.",
        ),
    ],
    foreign: &[
        ("client_ip", "write hash = \"client_ip\""),
        ("ip", "write hash = \"client_ip\""),
        ("source", "write hash = \"client_ip\""),
        ("path", "write hash = \"path\""),
        ("uri", "write hash = \"path\""),
        ("url_param", "write { query = \"id\" }"),
        ("query_parameter", "write { query = \"id\" }"),
        ("arg", "write { query = \"id\" }"),
        ("param", "write { query = \"id\" }"),
    ],
    example: "",
};

pub(crate) static STICKY: Shape = Shape {
    title: "sticky",
    id: "sticky",
    doc: "A cookie that brings a client back to its endpoint, and shows nobody which one that is. Where that one is gone, `balance` picks another and the cookie follows.",
    keys: &[
        required(
            "cookie",
            Kind::Text(&STICKY_COOKIE),
            "Its name. Upstreams that one host uses side by side need one each.",
        ),
        optional(
            "ttl",
            TIME,
            "until the browser is closed",
            "How long the browser keeps it.",
        ),
        optional(
            "secret",
            Kind::Table(&SECRET),
            "a random key, made at start",
            "What it is encrypted with, at least 16 bytes. Without it, clients may come to another endpoint after a restart, and when another node of the edge answers them.",
        ),
    ],
    foreign: &[
        ("name", "write cookie = \"tg_node\""),
        ("expires", "write ttl = \"1h\""),
        ("max_age", "write ttl = \"1h\""),
        ("maxlife", "write ttl = \"1h\""),
        ("maxidle", "write ttl = \"1h\""),
        (
            "key",
            "write secret = { env = \"NAME\" } or { file = \"PATH\" }",
        ),
        (
            "domain",
            "delete it: the cookie is for the host that was asked",
        ),
        ("path", "delete it: the cookie is for the whole host"),
        (
            "secure",
            "delete it: that is set as the connection needs it",
        ),
        ("httponly", "delete it: no script sees the cookie"),
        ("http_only", "delete it: no script sees the cookie"),
        (
            "samesite",
            "delete it: that is set as the connection needs it",
        ),
        (
            "same_site",
            "delete it: that is set as the connection needs it",
        ),
        (
            "header",
            "a cookie does it; for a header write balance = { hash = { header = \"x-user\" } }",
        ),
    ],
    example: "",
};
