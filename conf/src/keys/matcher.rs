//! Keys of what a route matches.

use super::{Form, Kind, METHOD, REGEX, Shape, URL_PATH, optional, required};

const LISTENER_NAME: Form = Form {
    noun: "the name of a listener",
    example: "https",
    pattern: ".",
};
const HOST: Form = Form {
    noun: "a host",
    example: "shop.example",
    pattern: "^(\\*\\.)?[^*/]+$",
};
const VALUE: Form = Form {
    noun: "a value",
    example: "1",
    pattern: "",
};

const CONDITION: Kind = Kind::Either(&[Kind::Text(&VALUE), Kind::Bool, Kind::Table(&VALUE_REGEX)]);

pub(crate) static MATCH: Shape = Shape {
    title: "match",
    id: "match",
    doc: "What a request must be. Paths are compared as they are after normalising: percent-encoded letters decoded, `.` and `..` resolved, slashes merged. One of `path`, `path_prefix` and `path_regex` at the most.",
    keys: &[
        optional(
            "listener",
            Kind::OneOrMore(&Kind::Text(&LISTENER_NAME)),
            "every listener",
            "Listener on which the request came in, by its name (without one, its address); any of these.",
        ),
        optional(
            "host",
            Kind::OneOrMore(&Kind::Text(&HOST)),
            "every host",
            "Host without port, any of these. `*.` in front stands for one or more labels.",
        ),
        optional(
            "path",
            Kind::Text(&URL_PATH),
            "every path",
            "Exactly this path, and nothing below it; for that there is `path_prefix`.",
        ),
        optional(
            "path_prefix",
            Kind::Text(&URL_PATH),
            "every path",
            "This path and those below it: `/catalog` takes `/catalog` and `/catalog/x`, not `/catalogue`. A slash at its end makes no difference.",
        ),
        optional(
            "path_regex",
            Kind::Text(&REGEX),
            "every path",
            "A regular expression found anywhere in the path; `^` and `$` tie it to its ends. Write it in single quotes.",
        ),
        optional(
            "method",
            Kind::OneOrMore(&Kind::Text(&METHOD)),
            "every method",
            "Any of these. GET does not include HEAD.",
        ),
        optional(
            "headers",
            Kind::Map {
                what: "header names",
                of: &CONDITION,
            },
            "none",
            "Request headers, all of them: a string is the exact value, `true` wants the header there and `false` not there, `{ regex = '...' }` is a regular expression.",
        ),
        optional(
            "query",
            Kind::Map {
                what: "parameter names",
                of: &CONDITION,
            },
            "none",
            "Query parameters, all of them, in the same way.",
        ),
    ],
    foreign: &[
        ("hosts", "write host = [\"a.example\", \"b.example\"]"),
        ("domain", "write host = \"shop.example\""),
        ("prefix", "write path_prefix = \"/...\""),
        ("regex", "write path_regex = '...'"),
        ("uri", "write path = \"/...\" or path_prefix = \"/...\""),
        ("url", "write host = \"...\" and path_prefix = \"/...\""),
        ("verb", "write method = \"GET\""),
        ("header", "write headers = { x-beta = \"1\" }"),
        (
            "cookie",
            "write headers = { cookie = { regex = '(^|; )name=value' } }",
        ),
        ("port", "write listener = \"NAME\""),
    ],
    example: "",
};

pub(crate) static VALUE_REGEX: Shape = Shape {
    title: "a condition",
    id: "value_regex",
    doc: "A condition on a value.",
    keys: &[required(
        "regex",
        Kind::Text(&REGEX),
        "A regular expression found anywhere in the value.",
    )],
    foreign: &[],
    example: "",
};
