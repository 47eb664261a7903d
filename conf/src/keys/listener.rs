//! Keys of listeners and of the certificates they show.

use super::acme::ACME;
use super::forward::FORWARD;
use super::process::LIMITS;
use super::tls::{
    CIPHERS, CLIENT_AUTH, GROUPS, LISTENER_TLS, MAX_VERSION, MIN_VERSION, TICKET_KEYS,
};
use super::{Form, Kind, NAME, NETWORKS, PATH, Shape, default, optional, required};

const ADDRESS: Form = Form {
    noun: "an IP address and a port",
    example: "0.0.0.0:443",
    pattern: "^.+:[0-9]{1,5}$",
};
const ALT_SVC: Form = Form {
    noun: "the value of an Alt-Svc field",
    example: "h3=\":443\"; ma=86400",
    pattern: "^[ -~]*h3=.*$",
};
const KEY_FILE: Form = Form {
    noun: "a path",
    example: "shop.key",
    pattern: ".",
};

pub(crate) static LISTENER: Shape = Shape {
    title: "[[listener]]",
    id: "listener",
    doc: "An address where clients connect. At least one. Every listener serves every route that does not say otherwise by `match = { listener = ... }`.",
    keys: &[
        optional(
            "name",
            Kind::Text(&NAME),
            "the address",
            "What it is called in metrics and logs, and by routes.",
        ),
        required(
            "address",
            Kind::Text(&ADDRESS),
            "IP address and port. `0.0.0.0` is every IPv4 interface, `[::]` every IPv6 one.",
        ),
        default(
            "tls",
            Kind::Either(&[Kind::Bool, Kind::Table(&LISTENER_TLS)]),
            "false",
            "Whether TLS is spoken here, with the certificates of [tls]; as a table, with what differs here.",
        ),
        default(
            "protocols",
            Kind::List {
                of: &Kind::Choice(&[
                    ("h1", "HTTP/1.1"),
                    ("h2", "HTTP/2: by ALPN with TLS, by prior knowledge without"),
                    (
                        "h3",
                        "HTTP/3: on the UDP port of the same number, with TLS, beside h1 or h2",
                    ),
                ]),
                empty: false,
            },
            "[\"h1\", \"h2\"]",
            "Versions of HTTP that are spoken here.",
        ),
        optional(
            "limits",
            Kind::Table(&LIMITS),
            "those of [limits]",
            "Limits that differ here; the rest is taken from [limits].",
        ),
        optional(
            "alt_svc",
            Kind::Either(&[Kind::Bool, Kind::Text(&ALT_SVC)]),
            "true, with h3",
            "The Alt-Svc field (RFC 7838) of replies over TCP, by which browsers learn that HTTP/3 is spoken. `true` is `h3=\":PORT\"; ma=86400` with the port of the address; where clients see another port, the field is written out. It takes the place of an app's own.",
        ),
        optional(
            "early_data",
            Kind::Bool,
            "true, with h3",
            "Whether GET, HEAD and OPTIONS are served from TLS early data (0-RTT), which a client that was here before sends with its first packet. Apps see `Early-Data: 1` (RFC 8470); other methods get 425.",
        ),
        optional(
            "retry_above",
            Kind::Integer {
                min: 0,
                max: 1_000_000,
            },
            "1000, with h3",
            "QUIC handshakes under way beyond which a client must first show that it gets what is sent to its address (Retry), which costs it a round trip. 0 is always.",
        ),
        optional(
            "proxy_protocol",
            Kind::Table(&PROXY_PROTOCOL),
            "nobody is believed",
            "The PROXY header (version 1 or 2) that load balancers put in front of their connections to say whose they are.",
        ),
        optional(
            "forward",
            Kind::Table(&FORWARD),
            "every connection is HTTP",
            "Connections that are passed on as they are: TCP, or TLS by the name that is asked for.",
        ),
        default(
            "access_log",
            Kind::Bool,
            "true",
            "Whether its requests are written to the access log of [log].",
        ),
    ],
    foreign: &[
        ("listen", "write address = \"0.0.0.0:443\""),
        ("bind", "write address = \"0.0.0.0:443\""),
        (
            "port",
            "the port is part of the address: address = \"0.0.0.0:443\"",
        ),
        (
            "host",
            "hosts are matched by routes: [[route]] match = { host = \"...\" }",
        ),
        (
            "server_name",
            "hosts are matched by routes: [[route]] match = { host = \"...\" }",
        ),
        ("ssl", "write tls = true, and certificates in [tls]"),
        (
            "ssl_certificate",
            "write tls = true here, and in [tls] certificates = [{ cert = \"...\", key = \"...\" }]",
        ),
        (
            "certificates",
            "they stand in [tls]: certificates = [{ cert = \"...\", key = \"...\" }]",
        ),
        (
            "cert",
            "it stands in [tls]: certificates = [{ cert = \"...\", key = \"...\" }]",
        ),
        (
            "accept_proxy",
            "write proxy_protocol = { from = [\"10.0.0.0/8\"] }",
        ),
        (
            "send_proxy",
            "that is for upstreams: [upstream.NAME] proxy_protocol = \"v2\"",
        ),
        ("tcp", "write forward = { upstream = \"db\" }"),
        (
            "proxy_pass",
            "write forward = { upstream = \"db\" } for TCP; for HTTP it belongs in a [[route]]",
        ),
        (
            "ssl_preread",
            "write forward = { names = { \"pay.example\" = \"pay\" } }",
        ),
        (
            "passthrough",
            "write forward = { names = { \"pay.example\" = \"pay\" } }",
        ),
        ("http2", "write protocols = [\"h1\", \"h2\"]"),
        ("http3", "write protocols = [\"h1\", \"h2\", \"h3\"]"),
        ("h3", "write protocols = [\"h1\", \"h2\", \"h3\"]"),
        ("quic", "write protocols = [\"h1\", \"h2\", \"h3\"]"),
        ("zero_rtt", "write early_data = true"),
        ("quic_retry", "write retry_above = 0"),
        ("alpn", "write protocols = [\"h1\", \"h2\"]"),
        ("route", "routes are [[route]] sections of their own"),
        ("routes", "routes are [[route]] sections of their own"),
        ("upstream", "it belongs in a [[route]]"),
    ],
    example: r#"[[listener]]
address = "0.0.0.0:80"

[[listener]]
name = "https"
address = "0.0.0.0:443"
tls = true
limits = { max_body_size = "64MiB" }
"#,
};

pub(crate) static PROXY_PROTOCOL: Shape = Shape {
    title: "proxy_protocol",
    id: "proxy-protocol",
    doc: "Connections from these networks begin with a PROXY header, and the address that it names is the client's for all that follows: limits, filters, logs, X-Forwarded-For. One that does not begin so within `header_timeout`, or otherwise than the specification writes it, is closed. Nobody else may send one. QUIC has no such header: HTTP/3 is for clients that reach the listener themselves, and is refused from these networks.",
    keys: &[required(
        "from",
        NETWORKS,
        "Networks of the load balancers: IP addresses or CIDR.",
    )],
    foreign: &[
        ("trusted", "write from = [\"10.0.0.0/8\"]"),
        ("allow", "write from = [\"10.0.0.0/8\"]"),
        ("version", "both versions are read"),
    ],
    example: r#"[[listener]]
address = "0.0.0.0:443"
tls = true
proxy_protocol = { from = ["10.0.0.0/24"] }
"#,
};

pub(crate) static TLS: Shape = Shape {
    title: "[tls]",
    id: "tls",
    doc: "Certificates for every listener with `tls = true`. The one sent is chosen by the name the client asks for (SNI); names are read from the certificates.",
    keys: &[
        MIN_VERSION,
        MAX_VERSION,
        CIPHERS,
        GROUPS,
        CLIENT_AUTH,
        TICKET_KEYS,
        default(
            "ocsp_stapling",
            Kind::Bool,
            "true",
            "Handshakes carry an OCSP response (RFC 6960) for each certificate that names a responder and whose issuer is in the chain. It is fetched and verified in the background.",
        ),
        optional(
            "certificates",
            Kind::Tables(&CERTIFICATE),
            "`acme` must be there",
            "Certificates and their keys, as PEM files. The first is sent where no name fits. Of two for one name, such as one of an elliptic curve and one of RSA, each client gets the first that it can use. Included files may add theirs.",
        ),
        optional(
            "acme",
            Kind::OneOrMore(&Kind::Table(&ACME)),
            "`certificates` must be there",
            "Certificates that Tidegate obtains and renews by itself, each with names of its own. One is sent in place of a file for the same name once it is there. Included files may add theirs.",
        ),
    ],
    foreign: &[
        (
            "cert",
            "write certificates = [{ cert = \"...\", key = \"...\" }]",
        ),
        (
            "key",
            "write certificates = [{ cert = \"...\", key = \"...\" }]",
        ),
        (
            "ssl_certificate",
            "write certificates = [{ cert = \"...\", key = \"...\" }]",
        ),
        ("ssl_protocols", "write min_version = \"1.2\""),
        ("versions", "write min_version = \"1.2\""),
        (
            "ssl_ciphers",
            "write ciphers = [\"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"], or leave it out",
        ),
        ("curves", "write groups = [\"x25519\"]"),
        ("ssl_ecdh_curve", "write groups = [\"x25519\"]"),
        ("client_ca", "write client_auth = { ca = \"clients.pem\" }"),
        (
            "ssl_client_certificate",
            "write client_auth = { ca = \"clients.pem\" }",
        ),
        (
            "ssl_session_ticket_key",
            "write ticket_keys = \"tickets.key\"",
        ),
        (
            "ssl_stapling",
            "leave it out: ocsp_stapling = true is the default",
        ),
        ("ocsp", "write ocsp_stapling = true or false"),
        (
            "ca",
            "towards app servers it is [upstream.NAME] tls = { ca = \"...\" }",
        ),
    ],
    example: r#"[tls]
min_version = "1.2"
certificates = [
  { cert = "shop.pem", key = "shop.key" },
]
"#,
};

pub(crate) static CERTIFICATE: Shape = Shape {
    title: "a certificate",
    id: "certificate",
    doc: "A certificate chain and its key.",
    keys: &[
        required(
            "cert",
            Kind::Text(&PATH),
            "PEM file: the certificate itself first, then those that lead to the root.",
        ),
        required(
            "key",
            Kind::Text(&KEY_FILE),
            "PEM file with the private key.",
        ),
    ],
    foreign: &[
        ("certificate", "write cert = \"shop.pem\""),
        ("private_key", "write key = \"shop.key\""),
        (
            "chain",
            "put the chain into the same file as the certificate",
        ),
        ("hosts", "names are read from the certificate"),
        ("host", "names are read from the certificate"),
    ],
    example: "",
};
