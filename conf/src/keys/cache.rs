//! Keys of the store of responses, and of what a route keeps in it.

use super::{
    FOLDER, Form, HEADER_NAME, Kind, NETWORKS, PERCENT, Shape, TIME, TIME_OR_ZERO, default,
    optional, required,
};

const COOKIE: Form = Form {
    noun: "the name of a cookie",
    example: "sid",
    pattern: "^[^\\s=;,]+$",
};
const PARAMETER: Form = Form {
    noun: "the name of a query parameter, or the beginning of names",
    example: "utm_*",
    pattern: "^[^&=*]+\\*?$",
};
const KEPT_PARAMETER: Form = Form {
    noun: "the name of a query parameter",
    example: "page",
    pattern: "^[^&=*]+$",
};
const LANGUAGE: Form = Form {
    noun: "a language tag",
    example: "de",
    pattern: "^[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8})*$",
};
const COOKIES: Kind = Kind::List {
    of: &Kind::Text(&COOKIE),
    empty: false,
};
const PARAMETERS: Kind = Kind::List {
    of: &Kind::Text(&PARAMETER),
    empty: false,
};
const HEADERS: Kind = Kind::List {
    of: &Kind::Text(&HEADER_NAME),
    empty: false,
};
const CODINGS: Kind = Kind::List {
    of: &Kind::Choice(&[
        ("br", "Brotli (RFC 7932)"),
        ("zstd", "Zstandard (RFC 8878)"),
        ("gzip", "gzip (RFC 1952)"),
    ]),
    empty: false,
};

pub(crate) static CACHE: Shape = Shape {
    title: "[cache]",
    id: "cache",
    doc: "The store of responses that all routes share. Which responses go into it is said by the `cache` of each route.",
    keys: &[
        default(
            "memory",
            Kind::Size {
                min: 1 << 20,
                max: 1 << 50,
            },
            "\"256MiB\"",
            "Memory for stored responses, their heads and keys included.",
        ),
        optional(
            "max_object_size",
            Kind::Size {
                min: 1,
                max: 1 << 50,
            },
            "\"8MiB\", or all of memory where that is less",
            "A larger response is passed on and not stored.",
        ),
        optional(
            "disk",
            Kind::Table(&DISK),
            "memory only",
            "A second tier: what does not fit into memory, or is asked for too rarely, and what a restart finds again.",
        ),
        optional(
            "tags",
            Kind::List {
                of: &Kind::Text(&HEADER_NAME),
                empty: true,
            },
            "[\"surrogate-key\", \"cache-tag\", \"xkey\"]",
            "Response headers whose words are the tags of a response, by which it can be purged. Clients of cached routes do not see them. `[]` reads and removes none.",
        ),
        optional(
            "purge_from",
            NETWORKS,
            "PURGE goes upstream like any method",
            "Clients whose PURGE requests are carried out on cached routes; others get 403.",
        ),
        optional(
            "session_cookies",
            COOKIES,
            "no cookie is special",
            "Cookies that belong to one visitor. A response to a request with one of them is not stored, unless the route says share_sessions.",
        ),
    ],
    foreign: &[
        ("size", "write memory = \"256MiB\""),
        ("max_size", "write memory = \"256MiB\""),
        ("ttl", "it belongs to a route: cache = { ttl = \"60s\" }"),
        ("enabled", "each route says whether it caches: cache = {}"),
        ("keys_zone", "write memory = \"256MiB\""),
        ("path", "write disk = { path = \"...\", size = \"20GiB\" }"),
        ("tag_headers", "write tags = [\"surrogate-key\"]"),
        ("purge_acl", "write purge_from = [\"10.0.0.0/8\"]"),
    ],
    example: r#"[cache]
memory = "512MiB"
disk = { path = "/var/cache/tidegate", size = "20GiB" }
purge_from = ["10.0.0.0/8"]
session_cookies = ["sid"]
"#,
};

static DISK: Shape = Shape {
    title: "disk",
    id: "cache_disk",
    doc: "The disk tier.",
    keys: &[
        required(
            "path",
            Kind::Text(&FOLDER),
            "The directory; it is made where there is none, and belongs to one process.",
        ),
        required(
            "size",
            Kind::Size {
                min: 16 << 20,
                max: 1 << 50,
            },
            "Bytes of disk at the most. The oldest goes first. Its index takes about 400 bytes of memory for each response.",
        ),
    ],
    foreign: &[
        ("dir", "write path = \"/var/cache/tidegate\""),
        ("max_size", "write size = \"20GiB\""),
    ],
    example: "",
};

pub(crate) static ROUTE_CACHE: Shape = Shape {
    title: "cache",
    id: "route_cache",
    doc: "Responses to GET and HEAD are stored as RFC 9111 allows. What the origin says comes before what stands here.",
    keys: &[
        optional(
            "ttl",
            TIME_OR_ZERO,
            "such responses are not stored",
            "Lifetime of responses that state none themselves. It never overrides one that is stated.",
        ),
        default(
            "stale_while_revalidate",
            TIME_OR_ZERO,
            "\"0s\"",
            "How long after its lifetime a response is still served while it is fetched anew behind the scenes (RFC 5861 section 3).",
        ),
        default(
            "stale_if_error",
            TIME_OR_ZERO,
            "\"0s\"",
            "How long after its lifetime a response is still served where the origin fails (RFC 5861 section 4).",
        ),
        default(
            "offline",
            Kind::Choice(&[
                ("fail", "stale_if_error decides"),
                (
                    "serve_stale",
                    "what is stored is served however old it is, unless the origin forbids stale use",
                ),
            ]),
            "\"fail\"",
            "What happens when no app server of the upstream can be reached or answers.",
        ),
        default(
            "early_refresh",
            TIME_OR_ZERO,
            "\"0s\"",
            "The last part of a lifetime, in which a request may fetch the response anew behind the scenes while it is served: the nearer the end, the likelier. So a response in demand never grows stale.",
        ),
        optional(
            "collapse_timeout",
            TIME,
            "the upstream's first_byte_timeout",
            "How long a request waits for the head of the same response that another request fetches; then it fetches for itself.",
        ),
        default(
            "background_timeout",
            TIME,
            "\"60s\"",
            "How long the body of a response may take to come while no client reads it: what is left of it when the last client leaves, or all of it where it is fetched behind the scenes. Then the fetch is given up.",
        ),
        default(
            "hit_for_miss",
            TIME_OR_ZERO,
            "\"10s\"",
            "After a response that turned out not to be for all, requests for it do not wait for each other for this long.",
        ),
        default(
            "min_uses",
            Kind::Integer { min: 1, max: 100 },
            "1",
            "A response is stored when it is asked for this often within a while.",
        ),
        optional(
            "vary",
            HEADERS,
            "only the origin's Vary",
            "Request headers for whose values separate responses are stored, beside those of the origin's Vary.",
        ),
        optional(
            "accept_encoding",
            CODINGS,
            "as the client sends it",
            "Accept-Encoding is reduced to the best of these that the client takes, for the origin and for Vary.",
        ),
        optional(
            "accept_language",
            Kind::List {
                of: &Kind::Text(&LANGUAGE),
                empty: false,
            },
            "as the client sends it",
            "Accept-Language is reduced to the best of these that the client reads, for the origin and for Vary.",
        ),
        optional(
            "compress",
            CODINGS,
            "responses stay as they are",
            "What is stored uncompressed and pays to compress is compressed once for each of these and stored so. The origin is asked for uncompressed responses.",
        ),
        default(
            "sort_query",
            Kind::Bool,
            "false",
            "Whether the order of query parameters with different names makes no difference.",
        ),
        optional(
            "keep_query",
            Kind::List {
                of: &Kind::Text(&KEPT_PARAMETER),
                empty: false,
            },
            "all",
            "Only these query parameters make a difference, by their exact names; the others are part of the request, not of the key.",
        ),
        optional(
            "drop_query",
            PARAMETERS,
            "none",
            "These query parameters make no difference.",
        ),
        optional(
            "key_headers",
            HEADERS,
            "none",
            "Request headers that are part of the key: any number of values, unlike those of `vary`.",
        ),
        optional(
            "key_cookies",
            COOKIES,
            "none",
            "Cookies that are part of the key.",
        ),
        default(
            "share_authorized",
            Kind::Bool,
            "false",
            "Whether responses to requests with Authorization are stored where the origin allows it in words (RFC 9111 section 3.5).",
        ),
        default(
            "share_sessions",
            Kind::Bool,
            "false",
            "Whether responses to requests with one of the session_cookies are stored.",
        ),
        optional(
            "compare_sessions",
            PERCENT,
            "no request",
            "Of this share of the hits with a session cookie or Authorization, the response is fetched once with and once without; where they differ though no Vary says so, it is counted and logged.",
        ),
        default(
            "show_key",
            Kind::Bool,
            "false",
            "Whether Cache-Status shows the key.",
        ),
    ],
    foreign: &[
        ("max_age", "write ttl = \"60s\""),
        ("valid", "write ttl = \"60s\""),
        ("memory", "it belongs in the section [cache]"),
        ("disk", "it belongs in the section [cache]"),
        ("tags", "it belongs in the section [cache]"),
        ("session_cookies", "it belongs in the section [cache]"),
        ("max_object_size", "it belongs in the section [cache]"),
        (
            "enabled",
            "write cache = {} to cache, and no `cache` not to",
        ),
        (
            "key",
            "the key is scheme, host, path and query; see sort_query, keep_query, drop_query, key_headers and key_cookies",
        ),
        ("grace", "write stale_while_revalidate or stale_if_error"),
        ("lock_timeout", "write collapse_timeout"),
        ("gzip", "write compress = [\"br\", \"zstd\", \"gzip\"]"),
        (
            "use_stale",
            "write stale_if_error, or offline = \"serve_stale\"",
        ),
        ("ignore_query", "write drop_query = [\"utm_*\"]"),
    ],
    example: "",
};
