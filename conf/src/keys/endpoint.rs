//! Keys of what a pool consists of: endpoints, and where further ones are found.

use super::{Form, Kind, NAME, Shape, TIME, default, optional, required};

const ENDPOINT_ADDRESS: Form = Form {
    noun: "an address and a port",
    example: "10.0.0.11:8080",
    pattern: "^(unix:.+|[^/]+:[0-9]{1,5})$",
};
const SRV: Form = Form {
    noun: "the name of SRV records",
    example: "_http._tcp.app.internal",
    pattern: "^[^/:]+$",
};
const FILE: Form = Form {
    noun: "a path",
    example: "endpoints.toml",
    pattern: "\\.(toml|json)$",
};
const URL: Form = Form {
    noun: "a URL",
    example: "http://10.0.0.5:8500/app",
    pattern: "^https?://",
};
const DNS_SERVER: Form = Form {
    noun: "an IP address and a port",
    example: "10.0.0.2:53",
    pattern: "^.+:[0-9]{1,5}$",
};

/// Also of what a discovery file holds, where there may be none for once.
pub(super) const ENDPOINTS: Kind = Kind::List {
    of: &Kind::Either(&[Kind::Text(&ENDPOINT_ADDRESS), Kind::Table(&ENDPOINT)]),
    empty: true,
};

pub(crate) static ENDPOINT: Shape = Shape {
    title: "an endpoint",
    id: "endpoint",
    doc: "One app server that differs from the others, by its `address`; or all that a name has SRV records of (RFC 2782), by `srv`.",
    keys: &[
        optional(
            "address",
            Kind::Text(&ENDPOINT_ADDRESS),
            "see `srv`",
            "IP address or name, and port; or `unix:` and the path of a socket.",
        ),
        optional(
            "srv",
            Kind::Text(&SRV),
            "see `address`",
            "Name of SRV records, which say hosts, ports, priorities and weights.",
        ),
        default(
            "weight",
            Kind::Integer { min: 1, max: 1000 },
            "1",
            "Its share of requests relative to the others.",
        ),
        default(
            "priority",
            Kind::Integer { min: 0, max: 9 },
            "0",
            "Endpoints of a lower number come first; see `overflow_below`.",
        ),
        default(
            "backup",
            Kind::Bool,
            "false",
            "Whether it is used only while no other is available: after every priority.",
        ),
        optional(
            "zone",
            Kind::Text(&NAME),
            "in no zone",
            "Where it stands. Those in the zone of `[server] zone` are preferred.",
        ),
    ],
    foreign: &[
        (
            "host",
            "host and port together are the address: address = \"app:8080\"",
        ),
        (
            "port",
            "host and port together are the address: address = \"app:8080\"",
        ),
        ("ip", "write address = \"10.0.0.11:8080\""),
        ("url", "write address = \"10.0.0.11:8080\""),
        ("server", "write address = \"10.0.0.11:8080\""),
        ("unix", "write address = \"unix:/run/app.sock\""),
        ("socket", "write address = \"unix:/run/app.sock\""),
        (
            "name",
            "an endpoint is called by its address; SRV records are srv = \"_http._tcp.app.internal\"",
        ),
        ("service", "write srv = \"_http._tcp.app.internal\""),
        ("dns", "write address = \"app.internal:8080\""),
        ("down", "leave the endpoint out, or mark it with `#`"),
        ("drain", "leave the endpoint out, or mark it with `#`"),
        ("disabled", "leave the endpoint out, or mark it with `#`"),
        ("locality", "write zone = \"eu-1a\""),
        ("region", "write zone = \"eu-1a\""),
        (
            "max_conns",
            "limits are the same for each endpoint: [upstream.NAME] max_connections",
        ),
        (
            "max_connections",
            "limits are the same for each endpoint: [upstream.NAME] max_connections",
        ),
        (
            "max_requests",
            "limits are the same for each endpoint: [upstream.NAME] max_requests",
        ),
        (
            "max_fails",
            "it is the same for each endpoint: [upstream.NAME] outlier_detection",
        ),
        (
            "slow_start",
            "it is the same for each endpoint: [upstream.NAME] slow_start",
        ),
        (
            "tls",
            "it is the same for each endpoint: [upstream.NAME] tls",
        ),
    ],
    example: "",
};

pub(crate) static DISCOVERY: Shape = Shape {
    title: "discovery",
    id: "discovery",
    doc: "Where further endpoints are read from while Tidegate runs; exactly one of `file` and `url`. A TOML file has the one key `endpoints`, as above. JSON is a list, or an object with that key: `[\"10.0.0.11:8080\", { \"address\": \"10.0.0.12:8080\", \"weight\": 2 }]`. What cannot be read leaves those in place that were read last.",
    keys: &[
        optional(
            "file",
            Kind::Text(&FILE),
            "see `url`",
            "A file that ends in `.toml` or `.json`. It is watched: put a new one in its place by a rename, so that nobody reads half of it.",
        ),
        optional(
            "url",
            Kind::Text(&URL),
            "see `file`",
            "A URL that answers with JSON, asked again and again (with If-None-Match, where it sends an ETag).",
        ),
        default(
            "every",
            TIME,
            "\"10s\"",
            "Only with `url`: between two questions.",
        ),
        default(
            "timeout",
            TIME,
            "\"2s\"",
            "Only with `url`: a question that takes longer has failed.",
        ),
    ],
    foreign: &[
        ("path", "write { file = \"endpoints.toml\" }"),
        ("watch", "a file is always watched"),
        ("http", "write { url = \"http://10.0.0.5:8500/app\" }"),
        ("consul", "write { url = \"http://10.0.0.5:8500/app\" }"),
        (
            "dns",
            "names stand among the endpoints, and are looked up as `resolve` says",
        ),
        (
            "srv",
            "it belongs to an endpoint: endpoints = [{ srv = \"_http._tcp.app.internal\" }]",
        ),
        ("interval", "write every = \"10s\""),
        ("refresh", "write every = \"10s\""),
        ("poll", "write every = \"10s\""),
    ],
    example: "",
};

pub(crate) static RESOLVE: Shape = Shape {
    title: "resolve",
    id: "resolve",
    doc: "Looking up the names among the endpoints.",
    keys: &[
        optional(
            "servers",
            Kind::List {
                of: &Kind::Text(&DNS_SERVER),
                empty: false,
            },
            "those of the system",
            "DNS servers that are asked.",
        ),
        default(
            "every",
            TIME,
            "\"30s\"",
            "Longest time between two look-ups of a name; a record's TTL may make it shorter.",
        ),
        default(
            "family",
            Kind::Choice(&[
                (
                    "auto",
                    "both; where a host has both, the one that connects first",
                ),
                ("ipv4", "A records only"),
                ("ipv6", "AAAA records only"),
            ]),
            "\"auto\"",
            "Which addresses are taken.",
        ),
    ],
    foreign: &[
        ("nameserver", "write servers = [\"10.0.0.2:53\"]"),
        ("nameservers", "write servers = [\"10.0.0.2:53\"]"),
        ("resolver", "write servers = [\"10.0.0.2:53\"]"),
        ("resolvers", "write servers = [\"10.0.0.2:53\"]"),
        ("interval", "write every = \"30s\""),
        ("refresh", "write every = \"30s\""),
        ("valid", "write every = \"30s\""),
        (
            "ttl",
            "write every = \"30s\"; a shorter TTL of a record is heeded",
        ),
        ("hold", "what was found last stays while a look-up fails"),
        ("ipv4", "write family = \"ipv4\""),
        ("ipv6", "write family = \"ipv6\""),
        ("versions", "write family = \"ipv4\""),
    ],
    example: "",
};

/// What a discovery file or URL gives.
pub(crate) static DISCOVERED: Shape = Shape {
    title: "this file",
    id: "discovered",
    doc: "",
    keys: &[required("endpoints", ENDPOINTS, "The app servers.")],
    foreign: &[
        ("servers", "write endpoints = [\"10.0.0.11:8080\"]"),
        ("hosts", "write endpoints = [\"10.0.0.11:8080\"]"),
        ("targets", "write endpoints = [\"10.0.0.11:8080\"]"),
        (
            "upstream",
            "only endpoints stand here: endpoints = [\"10.0.0.11:8080\"]",
        ),
    ],
    example: "",
};
