//! Keys of the process, its admin listener and its log, and the limits of clients.

use super::pages::MAINTENANCE;
use super::{
    Form, Kind, NAME, NETWORKS, SIZE, Shape, TIME, TIME_OR_ZERO, default, optional, required,
};

const ADMIN_ADDRESS: Form = Form {
    noun: "an IP address and a port, or a Unix socket",
    example: "127.0.0.1:9901",
    pattern: "^(unix:.+|.+:[0-9]{1,5})$",
};
const USER: Form = Form {
    noun: "the name of an account",
    example: "tidegate",
    pattern: ".",
};
const TOKEN_FILE: Form = Form {
    noun: "a path",
    example: "admin.token",
    pattern: ".",
};
/// Of things a second.
const RATE: Form = Form {
    noun: "a rate",
    example: "100/s",
    pattern: "^[0-9]+/s$",
};
const BYTE_RATE: Form = Form {
    noun: "a rate",
    example: "500B/s",
    pattern: "^[0-9]+[KMGT]?i?B/s$",
};
const LOG_FILE: Form = Form {
    noun: "a path",
    example: "access.log",
    pattern: ".",
};
const VARIABLE: Form = Form {
    noun: "the name of an environment variable",
    example: "TIDEGATE_TOKEN",
    pattern: "^[^=]+$",
};

pub(crate) static SERVER: Shape = Shape {
    title: "[server]",
    id: "server",
    doc: "The process itself.",
    keys: &[
        optional(
            "workers",
            Kind::Integer { min: 1, max: 1024 },
            "one per core",
            "Event loops, one thread each. Connections are spread over them by the kernel.",
        ),
        optional(
            "user",
            Kind::Text(&USER),
            "stays who it is",
            "Account to change to once every listener is bound and every key is read. Needs a start as root.",
        ),
        default(
            "shutdown_timeout",
            TIME_OR_ZERO,
            "\"30s\"",
            "How long SIGTERM waits for requests in flight before the rest is cut off.",
        ),
        default(
            "upgrade_timeout",
            TIME,
            "\"60s\"",
            "How long a new process, started by SIGUSR2 to take over, may need until it is ready. After that it is ended, and the running one goes on.",
        ),
        optional(
            "trusted_proxies",
            NETWORKS,
            "nobody is believed",
            "Peers whose X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host and Forwarded are believed. List the load balancers in front of this one, and nobody else.",
        ),
        optional(
            "zone",
            Kind::Text(&NAME),
            "every endpoint is equally near",
            "Where this process stands, in words of your own: a data centre, a rack. Upstreams prefer endpoints of the same `zone`.",
        ),
        default(
            "merge_slashes",
            Kind::Bool,
            "true",
            "Whether several slashes in a row in a path count as one, before routes, cache and files see it.",
        ),
        default(
            "lane",
            Kind::Choice(&[
                ("on", "plain requests take the short way"),
                ("off", "every request takes the long way"),
            ]),
            "\"on\"",
            "Plain requests (files, fresh pages, fixed replies, and what an upstream answers over a kept connection, uploads among it; HTTP/1.1 and HTTP/2) take a short way that costs half as much. What they are answered is the same; `off` is for finding out whether it is.",
        ),
        optional(
            "error_pages",
            Kind::Text(&NAME),
            "error replies are plain text",
            "Pages for the error replies of every route that does not say otherwise, and of requests that no route takes, by the name of an [error_pages.NAME].",
        ),
        optional(
            "maintenance",
            Kind::Table(&MAINTENANCE),
            "the site cannot be closed",
            "A file whose presence closes the site.",
        ),
    ],
    foreign: &[
        ("worker_processes", "write workers = 4"),
        ("threads", "write workers = 4"),
        ("listen", "addresses stand in [[listener]] sections"),
        ("address", "addresses stand in [[listener]] sections"),
        (
            "server_name",
            "hosts are matched by routes: match = { host = \"...\" }",
        ),
        ("group", "the account's own groups are taken"),
        (
            "daemon",
            "tidegate stays in the foreground; a service manager puts it behind",
        ),
        (
            "pid",
            "tidegate writes no PID file; a service manager knows the process",
        ),
        ("root", "a directory to serve is [static.NAME] root"),
        ("locality", "write zone = \"eu-1a\""),
        ("region", "write zone = \"eu-1a\""),
        ("availability_zone", "write zone = \"eu-1a\""),
    ],
    example: r#"[server]
workers = 4
user = "tidegate"
trusted_proxies = ["10.0.0.0/8"]
error_pages = "shop"
maintenance = { file = "/run/tidegate/maintenance", page = "maintenance.html", allow = ["10.0.0.0/8"] }
"#,
};

pub(crate) static ADMIN: Shape = Shape {
    title: "[admin]",
    id: "admin",
    doc: "A listener of its own for monitoring and operators: `/metrics`, `/live`, `/ready`, `/upstreams`, `/routes` and purging. Without this section there is none.",
    keys: &[
        required(
            "address",
            Kind::Text(&ADMIN_ADDRESS),
            "Where it listens. Keep it off the public network: everything that is only read needs no token.",
        ),
        optional(
            "token",
            Kind::Table(&SECRET),
            "calls that change state are refused",
            "Bearer token wanted for whatever changes state.",
        ),
    ],
    foreign: &[
        ("listen", "write address = \"127.0.0.1:9901\""),
        (
            "port",
            "the port is part of the address: address = \"127.0.0.1:9901\"",
        ),
        (
            "enabled",
            "the admin listener is on when [admin] has an address",
        ),
        ("metrics", "metrics are always at /metrics of this listener"),
    ],
    example: r#"[admin]
address = "127.0.0.1:9901"
token = { env = "TIDEGATE_TOKEN" }
"#,
};

pub(crate) static SECRET: Shape = Shape {
    title: "a secret",
    id: "secret",
    doc: "Where a secret is found; exactly one of the two. A secret is never written into the configuration, so that the file can be shown and kept in version control.",
    keys: &[
        optional(
            "env",
            Kind::Text(&VARIABLE),
            "see `file`",
            "An environment variable that holds it.",
        ),
        optional(
            "file",
            Kind::Text(&TOKEN_FILE),
            "see `env`",
            "A file that holds it; one line break at its end is cut off.",
        ),
    ],
    foreign: &[
        (
            "value",
            "a secret does not stand in the file: { env = \"NAME\" } or { file = \"PATH\" }",
        ),
        ("path", "write { file = \"PATH\" }"),
    ],
    example: "",
};

pub(crate) static LOG: Shape = Shape {
    title: "[log]",
    id: "log",
    doc: "What is written about the run (to standard error) and about each request (the access log).",
    keys: &[
        default(
            "level",
            Kind::Choice(&[
                ("error", "only what failed"),
                ("warn", "and what is about to"),
                ("info", "and what happened"),
                ("debug", "and why"),
                ("trace", "everything"),
            ]),
            "\"info\"",
            "The least severe events that are written.",
        ),
        default(
            "format",
            Kind::Choice(&[
                ("text", "lines for people"),
                ("json", "one JSON object a line"),
            ]),
            "\"text\"",
            "How events are written.",
        ),
        optional(
            "access",
            Kind::Table(&ACCESS_LOG),
            "no access log",
            "One line for each request.",
        ),
    ],
    foreign: &[
        ("access_log", "write access = { path = \"access.log\" }"),
        (
            "error_log",
            "events go to standard error; a service manager keeps them",
        ),
        (
            "file",
            "events go to standard error; requests to access = { path = \"access.log\" }",
        ),
    ],
    example: r#"[log]
level = "info"
access = { path = "access.log", format = "json" }
"#,
};

pub(crate) static ACCESS_LOG: Shape = Shape {
    title: "access",
    id: "access_log",
    doc: "The access log.",
    keys: &[
        required(
            "path",
            Kind::Text(&LOG_FILE),
            "File that lines are added to, opened anew on SIGUSR1; its directory must exist. `-` is standard output.",
        ),
        default(
            "format",
            Kind::Choice(&[
                ("json", "one JSON object a line, with every field"),
                ("combined", "as nginx and Apache write it"),
            ]),
            "\"json\"",
            "How lines are written.",
        ),
    ],
    foreign: &[("file", "write path = \"access.log\"")],
    example: "",
};

pub(crate) static LIMITS: Shape = Shape {
    title: "[limits]",
    id: "limits",
    doc: "What a client may take. They hold for every listener; a listener may set its own, and a route its own max_body_size.",
    keys: &[
        default(
            "header_timeout",
            TIME,
            "\"10s\"",
            "For a whole request head, from its first byte to its last. Then 408.",
        ),
        default(
            "body_timeout",
            TIME,
            "\"30s\"",
            "Between two reads of a request body, then 408; and the longest time that a client takes no byte of its reply, then the connection is closed.",
        ),
        default(
            "request_timeout",
            TIME,
            "\"1h\"",
            "For a whole request body, from the end of the head to the last byte, however steadily it comes. Then 408.",
        ),
        default(
            "min_rate",
            Kind::Either(&[Kind::Text(&BYTE_RATE), Kind::Only(false)]),
            "\"500B/s\"",
            "The least that a client must send of a request body, and take of replies that wait for it, on average over `min_rate_grace`; over HTTP/2 and HTTP/3 all requests of the connection together. Slower ones get 408, or the connection is closed where a reply has begun. `false`: as slowly as they like.",
        ),
        default(
            "min_rate_grace",
            TIME,
            "\"30s\"",
            "How long a client may send or take nothing, or too little, before `min_rate` counts; time in which it is fast earns this anew.",
        ),
        default(
            "idle_timeout",
            TIME,
            "\"75s\"",
            "How long a connection is kept open without a request.",
        ),
        default(
            "max_header_size",
            Kind::Size {
                min: 1024,
                max: 1 << 20,
            },
            "\"32KiB\"",
            "Request line and header fields together. Beyond it 431.",
        ),
        default(
            "max_headers",
            Kind::Integer { min: 1, max: 128 },
            "100",
            "Header fields of a request; cookies that HTTP/2 sends apart count as one. Beyond it 431.",
        ),
        default(
            "max_body_size",
            SIZE,
            "\"16MiB\"",
            "A request body. Beyond it 413.",
        ),
        default(
            "max_connections",
            Kind::Integer {
                min: 1,
                max: 10_000_000,
            },
            "20000",
            "Open connections of one listener.",
        ),
        default(
            "max_connections_per_ip",
            Kind::Integer {
                min: 1,
                max: 10_000_000,
            },
            "2000",
            "Open connections of one client address at one listener.",
        ),
        default(
            "max_connection_rate_per_ip",
            Kind::Either(&[Kind::Text(&RATE), Kind::Only(false)]),
            "\"500/s\"",
            "New connections of one client address (IPv6: of one /64) at one listener; ten times as many may come at once. The rest is closed at once. `false`: any number.",
        ),
        default(
            "max_handshake_rate_per_ip",
            Kind::Either(&[Kind::Text(&RATE), Kind::Only(false)]),
            "\"100/s\"",
            "The same for TLS handshakes, which cost a hundred times as much. The rest is closed before one begins. `false`: any number.",
        ),
        default(
            "max_requests_per_connection",
            Kind::Integer {
                min: 1,
                max: u32::MAX as i64,
            },
            "10000",
            "Requests on one connection before it is closed, so that clients spread anew.",
        ),
        default(
            "max_concurrent_streams",
            Kind::Integer {
                min: 1,
                max: 10_000,
            },
            "128",
            "Requests at the same time on one connection of HTTP/2 or HTTP/3.",
        ),
        default(
            "max_control_frame_rate",
            Kind::Either(&[Kind::Text(&RATE), Kind::Only(false)]),
            "\"100/s\"",
            "Frames of a connection of HTTP/2 or HTTP/3 that carry nothing (PING, SETTINGS, WINDOW_UPDATE, resets, empty ones) beyond those that its requests and their bodies earn; twenty times as many may come at once. A client that sends more is told to calm down (ENHANCE_YOUR_CALM, H3_EXCESSIVE_LOAD) and the connection closed. `false`: any number.",
        ),
    ],
    foreign: &[
        ("client_max_body_size", "write max_body_size = \"16MiB\""),
        ("keepalive_timeout", "write idle_timeout = \"75s\""),
        ("client_header_timeout", "write header_timeout = \"10s\""),
        ("client_body_timeout", "write body_timeout = \"30s\""),
        ("worker_connections", "write max_connections = 20000"),
        (
            "send_timeout",
            "body_timeout is for a client that takes nothing, min_rate for one that takes little",
        ),
        ("min_data_rate", "write min_rate = \"500B/s\""),
        ("limit_conn", "write max_connections_per_ip = 200"),
        (
            "rate_limit",
            "connections: max_connection_rate_per_ip = \"500/s\"",
        ),
        ("max_header_count", "write max_headers = 100"),
        (
            "large_client_header_buffers",
            "write max_header_size = \"32KiB\"",
        ),
        (
            "timeout",
            "there are header_timeout, body_timeout, request_timeout and idle_timeout",
        ),
        (
            "read_timeout",
            "towards clients it is header_timeout and body_timeout; towards app servers read_timeout of [upstream.NAME]",
        ),
    ],
    example: r#"[limits]
header_timeout = "10s"
max_body_size = "16MiB"
max_connections_per_ip = 500
min_rate = "1KiB/s"
"#,
};
