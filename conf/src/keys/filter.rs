//! Keys of filters: the steps between a route and its action.

use super::route::REDIRECT_KIND;
use super::{
    Form, HEADER_NAME, HEADER_VALUE, Kind, NETWORKS, REGEX, RESPOND, Shape, URL_PATH, optional,
    required,
};

const REPLACEMENT: Form = Form {
    noun: "a path",
    example: "/new",
    pattern: "^[/$]",
};

pub(crate) static FILTER: Shape = Shape {
    title: "[filter.NAME]",
    id: "filter",
    doc: "A named set of steps; routes name it. The steps run in the order in which they are listed here, whatever the order in the file.",
    keys: &[
        optional(
            "allow",
            NETWORKS,
            "everybody not denied",
            "Client networks that are let in; all others get 403. Where a client is in several networks of `allow` and `deny`, the smallest decides.",
        ),
        optional("deny", NETWORKS, "nobody", "Client networks that get 403."),
        optional(
            "rewrite",
            Kind::Table(&REWRITE),
            "the path is kept",
            "Changes the path that the upstream sees or that is looked up in the directory.",
        ),
        optional(
            "redirect",
            REDIRECT_KIND,
            "none",
            "Ends the request with a redirect.",
        ),
        optional(
            "respond",
            Kind::Table(&RESPOND),
            "none",
            "Ends the request with a fixed reply.",
        ),
        optional(
            "request_headers",
            Kind::Table(&HEADER_OPS),
            "none are changed",
            "Changes headers of the request on its way to the upstream.",
        ),
        optional(
            "response_headers",
            Kind::Table(&HEADER_OPS),
            "none are changed",
            "Changes headers of the response on its way to the client, behind the cache: what is stored stays as the origin sent it, and a Cache-Control set here is for browsers alone.",
        ),
    ],
    foreign: &[
        ("headers", "write request_headers or response_headers"),
        ("header", "write request_headers or response_headers"),
        (
            "add_header",
            "write response_headers = { add = { x-name = \"value\" } }",
        ),
        (
            "proxy_set_header",
            "write request_headers = { set = { x-name = \"value\" } }",
        ),
        (
            "set",
            "write request_headers = { set = ... } or response_headers = { set = ... }",
        ),
        (
            "add",
            "write request_headers = { add = ... } or response_headers = { add = ... }",
        ),
        (
            "remove",
            "write request_headers = { remove = ... } or response_headers = { remove = ... }",
        ),
        ("return", "write redirect = \"...\" or respond = { ... }"),
        ("whitelist", "write allow = [\"10.0.0.0/8\"]"),
        ("blacklist", "write deny = [\"192.0.2.0/24\"]"),
        ("ip", "write allow = [\"10.0.0.0/8\"]"),
    ],
    example: r#"[filter.site]
response_headers = { set = { strict-transport-security = "max-age=31536000" }, remove = ["server"] }
"#,
};

pub(crate) static REWRITE: Shape = Shape {
    title: "rewrite",
    id: "rewrite",
    doc: "`{ prefix = \"/old\", to = \"/new\" }`, or `{ regex = '^/p/(\\d+)$', to = \"/product?id=$1\" }`. One of `prefix` and `regex`. A path that does not fit is left as it is.",
    keys: &[
        optional(
            "prefix",
            Kind::Text(&URL_PATH),
            "see `regex`",
            "Taken off the path, at a segment's end.",
        ),
        optional(
            "regex",
            Kind::Text(&REGEX),
            "see `prefix`",
            "Found in the path; then `to` takes the place of the whole path. Write it in single quotes.",
        ),
        required(
            "to",
            Kind::Text(&REPLACEMENT),
            "With `prefix`: what takes its place. With `regex`: the new path, which may have a query; `$1` or `${name}` is what a group caught, `$$` a dollar sign.",
        ),
    ],
    foreign: &[
        ("from", "write prefix = \"/old\" or regex = '...'"),
        ("strip_prefix", "write prefix = \"/old\", to = \"/\""),
        ("path", "write prefix = \"/old\" or regex = '...'"),
        ("replacement", "write to = \"/new\""),
        ("pattern", "write regex = '...'"),
    ],
    example: "",
};

pub(crate) static HEADER_OPS: Shape = Shape {
    title: "header changes",
    id: "header_ops",
    doc: "Applied in this order. Headers that belong to the connection or to the framing of a message cannot be touched.",
    keys: &[
        optional(
            "remove",
            Kind::List {
                of: &Kind::Text(&HEADER_NAME),
                empty: false,
            },
            "none",
            "Taken out.",
        ),
        optional(
            "set",
            Kind::Map {
                what: "header names",
                of: &Kind::Text(&HEADER_VALUE),
            },
            "none",
            "Put in place of what is there, or added.",
        ),
        optional(
            "add",
            Kind::Map {
                what: "header names",
                of: &Kind::OneOrMore(&Kind::Text(&HEADER_VALUE)),
            },
            "none",
            "Added beside what is there; a list adds several.",
        ),
    ],
    foreign: &[
        ("delete", "write remove = [\"server\"]"),
        ("unset", "write remove = [\"server\"]"),
        ("hide", "write remove = [\"server\"]"),
        ("replace", "write set = { x-name = \"value\" }"),
        ("append", "write add = { x-name = \"value\" }"),
    ],
    example: "",
};
