//! Keys of certificates that are obtained from an authority.

use super::process::SECRET;
use super::{Form, Kind, PATH, Shape, TIME_OR_ZERO, default, optional, required};

const NAME: Form = Form {
    noun: "a host name",
    example: "shop.example",
    pattern: "^[^/:]+$",
};
const STORAGE: Form = Form {
    noun: "a path",
    example: "/var/lib/tidegate/acme",
    pattern: ".",
};
const EMAIL: Form = Form {
    noun: "an e-mail address",
    example: "ops@shop.example",
    pattern: "^[^@\\s]+@[^@\\s]+$",
};
const DIRECTORY: Form = Form {
    noun: "the URL of an ACME directory",
    example: "https://acme-v02.api.letsencrypt.org/directory",
    pattern: "^[Hh][Tt][Tt][Pp][Ss]://",
};
const PROFILE: Form = Form {
    noun: "the name of a profile",
    example: "shortlived",
    pattern: "^\\S+$",
};
const KEY_ID: Form = Form {
    noun: "a key id",
    example: "kid-1",
    pattern: "^\\S+$",
};
const DNS_SERVER: Form = Form {
    noun: "an IP address and a port",
    example: "192.0.2.53:53",
    pattern: "^.+:[0-9]{1,5}$",
};
const ZONE: Form = Form {
    noun: "the name of a zone",
    example: "shop.example",
    pattern: ".",
};
const KEY_NAME: Form = Form {
    noun: "the name of a key",
    example: "tidegate",
    pattern: ".",
};
const WORD: Form = Form {
    noun: "a program or an argument",
    example: "/usr/local/bin/dns-record",
    pattern: "",
};

pub(crate) static ACME: Shape = Shape {
    title: "acme",
    id: "acme",
    doc: "A certificate that Tidegate obtains from an authority by itself, and renews (ACME, RFC 8555). Whoever writes it agrees to the terms of service of the authority. How to begin, and what failures look like: docs/certificates.md.",
    keys: &[
        required(
            "hosts",
            Kind::List {
                of: &Kind::Text(&NAME),
                empty: false,
            },
            "The names of the certificate. `*.shop.example` stands for one label, and needs challenge = \"dns-01\".",
        ),
        required(
            "storage",
            Kind::Text(&STORAGE),
            "Folder for the account's key and the certificates, for nobody else to read. Made if it is not there. Several certificates, and several processes, may share one.",
        ),
        optional(
            "email",
            Kind::Text(&EMAIL),
            "the authority knows no address",
            "Where the authority may write to.",
        ),
        default(
            "challenge",
            Kind::Choice(&[
                (
                    "http-01",
                    "a page below /.well-known/acme-challenge/, answered by every listener; the authority asks port 80",
                ),
                (
                    "tls-alpn-01",
                    "a handshake (RFC 8737), answered by listeners with TLS; the authority asks port 443",
                ),
                (
                    "dns-01",
                    "a TXT record _acme-challenge, made by `hook` or `rfc2136`; the only way to a wildcard",
                ),
            ]),
            "\"http-01\"",
            "How the names are shown to be yours.",
        ),
        default(
            "directory",
            Kind::Text(&DIRECTORY),
            "\"https://acme-v02.api.letsencrypt.org/directory\"",
            "The authority. Try with `https://acme-staging-v02.api.letsencrypt.org/directory` first: it has generous limits, and browsers do not trust its certificates.",
        ),
        optional(
            "fallback_directory",
            Kind::Text(&DIRECTORY),
            "nobody else is asked",
            "An authority that is asked where the first one fails.",
        ),
        optional(
            "ca",
            Kind::Text(&PATH),
            "the system's trust anchors alone",
            "PEM file with further trust anchors for the TLS of the directories: of a private authority.",
        ),
        optional(
            "eab",
            Kind::Table(&EAB),
            "none",
            "The account that exists at the first authority already, where it wants one (RFC 8555 section 7.3.4).",
        ),
        optional(
            "fallback_eab",
            Kind::Table(&EAB),
            "none",
            "The same for `fallback_directory`.",
        ),
        optional(
            "profile",
            Kind::Text(&PROFILE),
            "the authority's default",
            "Which kind of certificate is wanted, where the authority has several: at Let's Encrypt `classic`, `tlsserver` or `shortlived`.",
        ),
        default(
            "key_type",
            Kind::Choice(&[
                ("ecdsa-p256", "every browser of the last ten years"),
                ("ecdsa-p384", "larger and slower"),
                ("rsa-2048", "for very old clients; several times as slow"),
            ]),
            "\"ecdsa-p256\"",
            "The certificate's key. It is made anew for every certificate.",
        ),
        optional(
            "hook",
            Kind::List {
                of: &Kind::Text(&WORD),
                empty: false,
            },
            "with \"dns-01\" `rfc2136` must be there",
            "A program that makes and removes TXT records, and its first arguments. It is called with three more: `present` or `cleanup`, the record's name, and its value.",
        ),
        optional(
            "rfc2136",
            Kind::Table(&RFC2136),
            "with \"dns-01\" `hook` must be there",
            "The zone's own server, which makes and removes TXT records by dynamic updates.",
        ),
        optional(
            "dns_wait",
            TIME_OR_ZERO,
            "30s",
            "How long a record needs to be on all servers of its zone.",
        ),
    ],
    foreign: &[
        ("domains", "write hosts = [\"shop.example\"]"),
        ("domain", "write hosts = [\"shop.example\"]"),
        ("host", "write hosts = [\"shop.example\"]"),
        ("names", "write hosts = [\"shop.example\"]"),
        ("contact", "write email = \"ops@shop.example\""),
        ("mail", "write email = \"ops@shop.example\""),
        ("server", "write directory = \"https://...\""),
        ("ca_server", "write directory = \"https://...\""),
        ("ca_url", "write directory = \"https://...\""),
        ("path", "write storage = \"/var/lib/tidegate/acme\""),
        ("state_path", "write storage = \"/var/lib/tidegate/acme\""),
        ("key", "write key_type = \"ecdsa-p256\""),
        (
            "staging",
            "write directory = \"https://acme-staging-v02.api.letsencrypt.org/directory\"",
        ),
        ("agree_tos", "writing `acme` is the agreement; delete it"),
        (
            "renew_before",
            "the authority says when to renew, else it is at two thirds of the certificate's life; delete it",
        ),
    ],
    example: "",
};

pub(crate) static EAB: Shape = Shape {
    title: "eab",
    id: "eab",
    doc: "What an authority gives to its customers, so that they can open an ACME account (external account binding).",
    keys: &[
        required("key_id", Kind::Text(&KEY_ID), "The key's name."),
        required(
            "hmac_key",
            Kind::Table(&SECRET),
            "The key, in base64url as the authority shows it.",
        ),
    ],
    foreign: &[
        ("kid", "write key_id = \"...\""),
        ("hmac", "write hmac_key = { file = \"PATH\" }"),
        ("key", "write hmac_key = { file = \"PATH\" }"),
        ("hmac_key_file", "write hmac_key = { file = \"PATH\" }"),
    ],
    example: "",
};

pub(crate) static RFC2136: Shape = Shape {
    title: "rfc2136",
    id: "rfc2136",
    doc: "Dynamic updates of a zone (RFC 2136), over TCP, signed with a key that is shared with its server (TSIG, RFC 8945). The server must allow the key to change TXT records below `_acme-challenge`.",
    keys: &[
        required(
            "server",
            Kind::Text(&DNS_SERVER),
            "The zone's primary server.",
        ),
        required(
            "zone",
            Kind::Text(&ZONE),
            "The zone; all `hosts` are in it.",
        ),
        required(
            "key_name",
            Kind::Text(&KEY_NAME),
            "What the server calls the key.",
        ),
        default(
            "algorithm",
            Kind::Choice(&[
                ("hmac-sha256", "what `tsig-keygen` makes"),
                ("hmac-sha384", "longer"),
                ("hmac-sha512", "longer still"),
            ]),
            "\"hmac-sha256\"",
            "How messages are signed; what the server has for the key.",
        ),
        required(
            "secret",
            Kind::Table(&SECRET),
            "The key, in base64 as in the server's configuration.",
        ),
    ],
    foreign: &[
        ("nameserver", "write server = \"192.0.2.53:53\""),
        ("host", "write server = \"192.0.2.53:53\""),
        (
            "key",
            "write key_name = \"...\" and secret = { file = \"PATH\" }",
        ),
        ("tsig_key", "write key_name = \"...\""),
        ("tsig_secret", "write secret = { file = \"PATH\" }"),
        ("tsig_algorithm", "write algorithm = \"hmac-sha256\""),
    ],
    example: "",
};
