//! Keys of how TLS is spoken, which `[tls]` and a listener's own `tls` share.

use super::{Form, Key, Kind, PATH, Shape, default, optional, required};

const VERSIONS: Kind =
    Kind::Choice(&[("1.2", "TLS 1.2 (RFC 5246)"), ("1.3", "TLS 1.3 (RFC 8446)")]);

pub(super) const MIN_VERSION: Key = default(
    "min_version",
    VERSIONS,
    "\"1.2\"",
    "The least version accepted.",
);

pub(super) const MAX_VERSION: Key = default(
    "max_version",
    VERSIONS,
    "\"1.3\"",
    "The greatest version offered.",
);

pub(super) const CIPHERS: Key = optional(
    "ciphers",
    Kind::List {
        of: &Kind::Choice(&[
            ("TLS_AES_256_GCM_SHA384", "TLS 1.3"),
            ("TLS_AES_128_GCM_SHA256", "TLS 1.3"),
            ("TLS_CHACHA20_POLY1305_SHA256", "TLS 1.3"),
            (
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "TLS 1.2, with a certificate of an elliptic curve",
            ),
            (
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                "TLS 1.2, with a certificate of an elliptic curve",
            ),
            (
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS 1.2, with a certificate of an elliptic curve",
            ),
            (
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
                "TLS 1.2, with a certificate of RSA",
            ),
            (
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "TLS 1.2, with a certificate of RSA",
            ),
            (
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS 1.2, with a certificate of RSA",
            ),
        ]),
        empty: false,
    },
    "all of these",
    "Cipher suites, by their names in IANA's registry. Of those that a client offers the one is taken that it prefers.",
);

pub(super) const GROUPS: Key = optional(
    "groups",
    Kind::List {
        of: &Kind::Choice(&[
            (
                "X25519MLKEM768",
                "X25519 with ML-KEM-768: safe from quantum computers; TLS 1.3",
            ),
            ("SecP256r1MLKEM768", "P-256 with ML-KEM-768; TLS 1.3"),
            ("x25519", "X25519 (RFC 7748)"),
            ("secp256r1", "NIST P-256"),
            ("secp384r1", "NIST P-384"),
        ]),
        empty: false,
    },
    "all but SecP256r1MLKEM768, in this order",
    "Groups for the key exchange, the preferred one first.",
);

pub(super) const CLIENT_AUTH: Key = optional(
    "client_auth",
    Kind::Table(&CLIENT_AUTH_SHAPE),
    "clients are not asked",
    "Clients are asked for a certificate of their own.",
);

/// One file, or several.
pub(super) const FILES: Kind = Kind::OneOrMore(&Kind::Text(&PATH));

pub(super) const TICKET_KEYS: Key = optional(
    "ticket_keys",
    Kind::OneOrMore(&Kind::Text(&TICKET_FILE)),
    "a secret that each process makes for itself",
    "Files with secrets of 32 bytes or more (`openssl rand 80 > tickets.key`), for servers that resume each other's sessions and for sessions that outlive a restart. Keys for tickets are made from them, new ones every 12 hours. The first seals, all open: for a change put the new one in front and reload.",
);

const TICKET_FILE: Form = Form {
    noun: "a path",
    example: "tickets.key",
    pattern: ".",
};

pub(crate) static LISTENER_TLS: Shape = Shape {
    title: "tls of a listener",
    id: "listener-tls",
    doc: "How TLS is spoken here; what is left out is taken from [tls].",
    keys: &[MIN_VERSION, MAX_VERSION, CIPHERS, GROUPS, CLIENT_AUTH],
    foreign: &[
        ("certificates", "they stand in [tls], for all listeners"),
        ("versions", "write min_version = \"1.2\""),
        ("curves", "write groups = [\"x25519\"]"),
        ("client_ca", "write client_auth = { ca = \"clients.pem\" }"),
    ],
    example: r#"[[listener]]
address = "0.0.0.0:8443"
tls = { min_version = "1.3", client_auth = { ca = "partners.pem" } }
"#,
};

pub(crate) static CLIENT_AUTH_SHAPE: Shape = Shape {
    title: "client_auth",
    id: "client-auth",
    doc: "Clients are asked for a certificate. Of one that was accepted, upstreams get `X-Client-Cert-Subject`, `X-Client-Cert-Fingerprint` (SHA-256) and `Client-Cert` (RFC 9440); nobody else can send these fields.",
    keys: &[
        required(
            "ca",
            FILES,
            "PEM files of the certificates that a client's certificate must lead to.",
        ),
        optional(
            "crl",
            FILES,
            "none is revoked",
            "PEM files of revocation lists (RFC 5280) of each issuer. They are read when the configuration is.",
        ),
        default(
            "mode",
            Kind::Choice(&[
                (
                    "required",
                    "a client without one is refused in the handshake",
                ),
                (
                    "optional",
                    "a client without one is let in, without those fields; one that is not accepted is refused",
                ),
            ]),
            "\"required\"",
            "Whether a client must have one.",
        ),
    ],
    foreign: &[
        ("required", "write mode = \"required\""),
        ("verify", "write mode = \"required\" or mode = \"optional\""),
        ("roots", "write ca = \"clients.pem\""),
        ("crls", "write crl = \"revoked.pem\""),
    ],
    example: r#"[tls]
certificates = [{ cert = "shop.pem", key = "shop.key" }]
client_auth = { ca = "partners.pem", crl = "revoked.pem" }
"#,
};
