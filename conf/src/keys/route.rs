//! Keys of routes: what they match and what they do.

use super::cache::ROUTE_CACHE;
use super::matcher::MATCH;
use super::pages::EARLY_HINTS;
use super::{Form, Kind, NAME, SIZE, STATUS, Shape, URL_PATH, default, optional, required};

pub(super) const LOCATION: Form = Form {
    noun: "a location",
    example: "https://{host}{path}{query}",
    pattern: "^(/|http://|https://|\\{scheme\\}://|\\{path\\})",
};
const BODY: Form = Form {
    noun: "a text",
    example: "gone",
    pattern: "",
};
const MEDIA_TYPE: Form = Form {
    noun: "a media type",
    example: "text/html; charset=utf-8",
    pattern: "^[^/]+/[^/]+",
};

/// Statuses that a client follows (RFC 9110 section 15.4).
pub(super) const REDIRECT_STATUS: Kind = Kind::Integer { min: 301, max: 308 };

pub(super) const REDIRECT_KIND: Kind =
    Kind::Either(&[Kind::Text(&LOCATION), Kind::Table(&REDIRECT)]);

pub(crate) static ROUTE: Shape = Shape {
    title: "[[route]]",
    id: "route",
    doc: "Which request goes where. Of all routes that match, the most specific is taken: an exact host before a wildcard before none; then an exact path before the longest prefix before a regular expression; then more conditions before fewer; then the first in the file.\n\nA route does exactly one thing: `upstream`, `static`, `redirect` or `respond`.",
    keys: &[
        optional(
            "name",
            Kind::Text(&NAME),
            "route-N, N being its place",
            "What it is called in metrics and logs.",
        ),
        optional(
            "match",
            Kind::Table(&MATCH),
            "every request",
            "What a request must be; all of it.",
        ),
        optional(
            "upstream",
            Kind::Text(&NAME),
            "see above",
            "The pool of app servers that answers.",
        ),
        optional(
            "static",
            Kind::Text(&NAME),
            "see above",
            "The directory that answers.",
        ),
        optional(
            "redirect",
            REDIRECT_KIND,
            "see above",
            "Another location, or a table where the status differs.",
        ),
        optional(
            "respond",
            Kind::Table(&RESPOND),
            "see above",
            "A fixed reply.",
        ),
        optional(
            "strip_prefix",
            Kind::Text(&URL_PATH),
            "the path is kept",
            "Only with `static`: taken off the path before a file is looked up.",
        ),
        optional(
            "cache",
            Kind::Table(&ROUTE_CACHE),
            "nothing is cached",
            "Only with `upstream`: responses are stored and served again. `{}` caches what the origin's headers allow, and nothing more.",
        ),
        optional(
            "filters",
            Kind::List {
                of: &Kind::Text(&NAME),
                empty: false,
            },
            "none",
            "Filters that run before the action, in this order.",
        ),
        optional(
            "error_pages",
            Kind::Either(&[Kind::Text(&NAME), Kind::Only(false)]),
            "those of [server]",
            "Pages for the error replies of this route, by the name of an [error_pages.NAME]. `false`: none.",
        ),
        optional(
            "early_hints",
            Kind::Table(&EARLY_HINTS),
            "none are sent",
            "Only with `upstream`: browsers are told what a page will want before the app is asked. `{}` tells what was learned.",
        ),
        default(
            "maintenance",
            Kind::Bool,
            "true",
            "Whether `maintenance` of [server] closes this route, too. `false` for what must always answer: a health check, the answers to a certificate authority.",
        ),
        optional(
            "max_body_size",
            SIZE,
            "that of the listener",
            "A request body. Beyond it 413.",
        ),
        default(
            "priority",
            Kind::Choice(&[
                ("critical", "never: what earns the money, health checks"),
                ("normal", "last"),
                ("sheddable", "first: what nobody misses for a minute"),
            ]),
            "\"normal\"",
            "Whether, and when, requests of this route are given up under [overload]: they get 503. Which route takes a request has nothing to do with it.",
        ),
        default(
            "retry_non_idempotent",
            Kind::Bool,
            "false",
            "Only with `upstream`: whether a request whose method is not idempotent (POST, PATCH) may be sent again as others are, though the app may have done it already. Only where the app tells twice the same from two.",
        ),
        default(
            "grpc_web",
            Kind::Bool,
            "false",
            "Only with an `upstream` of protocol = \"h2\": calls of gRPC-Web, which browsers make, go up as gRPC, and the answers come back as gRPC-Web. All else passes as it is.",
        ),
    ],
    foreign: &[
        ("location", "write match = { path_prefix = \"/...\" }"),
        ("server_name", "write match = { host = \"shop.example\" }"),
        (
            "hosts",
            "write match = { host = [\"a.example\", \"b.example\"] }",
        ),
        ("prefix", "write match = { path_prefix = \"/...\" }"),
        ("when", "write match = { ... }"),
        ("matches", "write match = { ... }"),
        ("rule", "write match = { ... }"),
        (
            "proxy_pass",
            "write upstream = \"NAME\", and [upstream.NAME] endpoints = [...]",
        ),
        (
            "reverse_proxy",
            "write upstream = \"NAME\", and [upstream.NAME] endpoints = [...]",
        ),
        ("backend", "write upstream = \"NAME\""),
        ("service", "write upstream = \"NAME\""),
        (
            "file_server",
            "write static = \"NAME\", and [static.NAME] root = \"...\"",
        ),
        (
            "root",
            "write static = \"NAME\", and [static.NAME] root = \"...\"",
        ),
        ("return", "write redirect = \"...\" or respond = { ... }"),
        (
            "rewrite",
            "it belongs in a filter: [filter.NAME] rewrite = { ... }, and filters = [\"NAME\"] here",
        ),
        (
            "request_headers",
            "it belongs in a filter: [filter.NAME], and filters = [\"NAME\"] here",
        ),
        (
            "response_headers",
            "it belongs in a filter: [filter.NAME], and filters = [\"NAME\"] here",
        ),
        (
            "headers",
            "conditions stand in match = { headers = ... }; changes in a filter",
        ),
        (
            "allow",
            "it belongs in a filter: [filter.NAME], and filters = [\"NAME\"] here",
        ),
        (
            "deny",
            "it belongs in a filter: [filter.NAME], and filters = [\"NAME\"] here",
        ),
        (
            "retry",
            "it belongs in [upstream.NAME]; what a route says is retry_non_idempotent = true",
        ),
        (
            "timeout",
            "there are connect_timeout, first_byte_timeout and read_timeout in [upstream.NAME]",
        ),
        (
            "error_page",
            "write error_pages = \"NAME\", and [error_pages.NAME] pages = { \"404\" = \"404.html\" }",
        ),
        (
            "grpc",
            "gRPC passes by itself: write protocol = \"h2\" in [upstream.NAME]",
        ),
        ("middlewares", "write filters = [\"NAME\"]"),
        (
            "order",
            "the more specific route wins; ties go by the order in the file",
        ),
        (
            "listener",
            "it belongs in match: match = { listener = \"https\" }",
        ),
    ],
    example: r#"[[route]]
name = "catalog"
match = { host = ["shop.example", "*.shop.example"], path_prefix = "/catalog", method = ["GET", "HEAD"] }
upstream = "app"
cache = { ttl = "60s", stale_while_revalidate = "5m", stale_if_error = "1h" }
filters = ["site"]

[[route]]
match = { path_prefix = "/assets" }
static = "assets"
strip_prefix = "/assets"

[[route]]
match = { host = "www.shop.example" }
redirect = "https://shop.example{path}{query}"
"#,
};

pub(crate) static REDIRECT: Shape = Shape {
    title: "redirect",
    id: "redirect",
    doc: "Another location. A string is the same as a table with `to` alone.",
    keys: &[
        required(
            "to",
            Kind::Text(&LOCATION),
            "The location. `{scheme}`, `{host}` (without port), `{path}` and `{query}` (with its `?`) are those of the request; what is not named is lost, the query too.",
        ),
        default(
            "status",
            REDIRECT_STATUS,
            "308",
            "301, 302, 303, 307 or 308. 308 and 307 keep the method; 301 and 308 are remembered by clients.",
        ),
    ],
    foreign: &[
        ("url", "write to = \"https://...\""),
        ("location", "write to = \"https://...\""),
        ("code", "write status = 308"),
        (
            "permanent",
            "write status = 308; 302 or 307 is not permanent",
        ),
    ],
    example: "",
};

pub(crate) static RESPOND: Shape = Shape {
    title: "respond",
    id: "respond",
    doc: "A fixed reply.",
    keys: &[
        default("status", STATUS, "200", "Its status."),
        default(
            "body",
            Kind::Text(&BODY),
            "\"\"",
            "Its body. 204 and 304 have none.",
        ),
        default(
            "content_type",
            Kind::Text(&MEDIA_TYPE),
            "\"text/plain; charset=utf-8\"",
            "Media type of the body.",
        ),
    ],
    foreign: &[
        ("code", "write status = 200"),
        ("text", "write body = \"...\""),
        ("content", "write body = \"...\""),
        (
            "headers",
            "set them in a filter: [filter.NAME] response_headers = { set = { ... } }",
        ),
        ("type", "write content_type = \"text/html; charset=utf-8\""),
    ],
    example: "",
};
