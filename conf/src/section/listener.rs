//! `[[listener]]` and `[tls]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use http::HeaderValue;
use ipnet::IpNet;

use crate::config::{
    Certificate, CipherSuite, Http3, Limits, Listener, Tls, TlsOptions, TlsVersion,
};
use crate::defaults;
use crate::keys::{self, Kind};
use crate::raw::Value;
use crate::read::{Finding, Table};
use crate::source::Place;
use crate::text;

use super::entry::Named;
use super::{acme, entry, process, rules, tls};

/// A version of HTTP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    H1,
    H2,
    H3,
}

/// The keys that say how HTTP/3 is spoken.
const HTTP3: [&str; 3] = ["alt_svc", "early_data", "retry_above"];

/// A listener and the place of its header; `None`: reported.
pub(super) type Placed = (Place, Option<Listener>);

/// Listeners in file order, and what routes call them.
pub(super) fn listeners(
    root: &Table<'_>,
    tables: &[Table<'_>],
    limits: &Limits,
    tls: &TlsOptions,
) -> (Named, Vec<Placed>) {
    let (names, listeners) = tables
        .iter()
        .map(|table| {
            let listener = listener(table, limits, tls);
            let name = match &listener {
                Some(listener) => listener.name.clone(),
                None => called(table).unwrap_or_default(),
            };
            ((name, table.place), (table.place, listener))
        })
        .unzip();
    (Named(names, !root.explains("listener")), listeners)
}

/// The name of a listener that has a mistake, so that routes that name it are not blamed.
fn called(table: &Table<'_>) -> Option<String> {
    let node = table.get("name").or_else(|| table.get("address"))?;
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn listener(table: &Table<'_>, limits: &Limits, general: &TlsOptions) -> Option<Listener> {
    table.require("address");
    let address = table.text("address", text::address);
    let name = table.text("name", text::name);
    let spoken = protocols(table);
    let speaks = |protocol| spoken.contains(&protocol);
    let (h1, h2) = (speaks(Protocol::H1), speaks(Protocol::H2));
    let (tls, tls_options) = speaks_tls(table, general);
    let limits = match table.table("limits") {
        None => limits.clone(),
        Some(own) => {
            if !h2 && !speaks(Protocol::H3) {
                own.no_effect(
                    "max_concurrent_streams",
                    "this listener does not speak HTTP/2",
                    "delete it, or add \"h2\" to protocols",
                );
                own.no_effect(
                    "max_control_frame_rate",
                    "this listener does not speak HTTP/2",
                    "delete it, or add \"h2\" to protocols",
                );
            }
            if !tls {
                own.no_effect(
                    "max_handshake_rate_per_ip",
                    "this listener does not speak TLS",
                    "delete it, or add tls = true",
                );
            }
            process::limits(&own, Some(limits))
        }
    };
    let h3 = http3(table, &spoken, tls, address);
    if tls && h3.is_some() {
        suits_quic(table, &tls_options);
    }
    let address = address?;
    Some(Listener {
        name: name.unwrap_or_else(|| address.to_string()),
        address,
        tls,
        tls_options,
        h1,
        h2,
        h3,
        limits,
        proxy_protocol: proxy_protocol(table),
        access_log: table.flag("access_log", true),
        // Read when the names of upstreams are known.
        forward: None,
    })
}

/// Whether TLS is spoken, and how.
fn speaks_tls(table: &Table<'_>, general: &TlsOptions) -> (bool, TlsOptions) {
    let own = match table.get("tls").map(|node| &node.value) {
        None | Some(Value::Bool(_)) => return (table.flag("tls", false), general.clone()),
        // What is neither is reported, and was meant to be TLS.
        Some(_) => table.table("tls"),
    };
    let options = own.map_or_else(|| general.clone(), |own| tls::options(&own, general));
    (true, options)
}

/// Networks whose connections begin with a PROXY header.
fn proxy_protocol(table: &Table<'_>) -> Vec<IpNet> {
    let Some(inner) = table.table("proxy_protocol") else {
        return Vec::new();
    };
    inner.require("from");
    rules::networks(&inner, "from")
}

fn protocols(table: &Table<'_>) -> Vec<Protocol> {
    let (Some(items), Kind::List { of, .. }) = (table.list("protocols"), table.kind("protocols"))
    else {
        return vec![Protocol::H1, Protocol::H2];
    };
    rules::distinct(table.cx, "protocols", items, |item| {
        let index = table.cx.choice(item, "protocols", of)?;
        [Protocol::H1, Protocol::H2, Protocol::H3]
            .get(index)
            .copied()
    })
}

/// QUIC is TLS 1.3, and its first packets are sealed by this suite (RFC 9001 section 5).
fn suits_quic(table: &Table<'_>, options: &TlsOptions) {
    let place = table
        .get("protocols")
        .map_or(table.place, |node| node.place);
    if options.max_version < TlsVersion::V13 {
        table.cx.error(
            Finding::error(place, "protocols: h3 without TLS 1.3")
                .label("write max_version = \"1.3\" for this listener, or leave \"h3\" out"),
        );
    } else if let Some(ciphers) = &options.ciphers
        && !ciphers.contains(&CipherSuite::Aes128GcmSha256)
    {
        table.cx.error(
            Finding::error(place, "protocols: h3 without TLS_AES_128_GCM_SHA256")
                .label("add that suite to `ciphers`, or leave \"h3\" out"),
        );
    }
}

/// How HTTP/3 is spoken, if it is.
fn http3(
    table: &Table<'_>,
    spoken: &[Protocol],
    tls: bool,
    address: Option<SocketAddr>,
) -> Option<Http3> {
    if !spoken.contains(&Protocol::H3) {
        for key in HTTP3 {
            table.no_effect(
                key,
                "this listener does not speak HTTP/3",
                "delete it, or add \"h3\" to protocols",
            );
        }
        return None;
    }
    let place = table
        .get("protocols")
        .map_or(table.place, |node| node.place);
    if !tls {
        table.cx.error(
            Finding::error(place, "protocols: h3 without TLS")
                .label("HTTP/3 is always encrypted")
                .help("write tls = true, or leave \"h3\" out"),
        );
    }
    if spoken == [Protocol::H3] {
        table.cx.error(
            Finding::error(place, "protocols: h3 alone")
                .label("clients learn of it over TCP, and some networks let no UDP through")
                .help("write protocols = [\"h1\", \"h2\", \"h3\"]"),
        );
    }
    Some(Http3 {
        alt_svc: alt_svc(table, address),
        early_data: table.flag("early_data", true),
        retry_above: table.integer_or("retry_above", defaults::RETRY_ABOVE),
    })
}

fn alt_svc(table: &Table<'_>, address: Option<SocketAddr>) -> Option<HeaderValue> {
    match table.get("alt_svc").map(|node| &node.value) {
        Some(Value::Bool(false)) => None,
        Some(Value::Text(_)) => table.text("alt_svc", text::alt_svc),
        Some(Value::Bool(true)) | None => {
            let (port, age) = (address?.port(), defaults::ALT_SVC_MAX_AGE);
            HeaderValue::from_str(&format!("h3=\":{port}\"; ma={age}")).ok()
        }
        Some(_) => {
            let node = table.get("alt_svc")?;
            table.wrong_kind(node, "alt_svc", table.kind("alt_svc"));
            None
        }
    }
}

/// `[tls]`, and what it says of every listener.
pub(super) fn tls(table: &Table<'_>) -> (Tls, TlsOptions) {
    let options = tls::options(table, &TlsOptions::default());
    if table.get("acme").is_none()
        && table.get("certificates").is_none()
        && !table.explains("certificates")
    {
        table.cx.error(
            Finding::error(
                table.place,
                "[tls] has neither `certificates` nor `acme`",
            )
            .label("write certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }]")
            .help("help: acme = { hosts = [\"shop.example\"], storage = \"/var/lib/tidegate/acme\" } obtains one from an authority by itself"),
        );
    }
    let mut certificates: Vec<Certificate> = Vec::new();
    for table in entry::list(table, "certificates", &keys::CERTIFICATE) {
        let Some(certificate) = certificate(&table) else {
            continue;
        };
        if certificates.contains(&certificate) {
            table.cx.error(
                Finding::error(table.place, "this certificate is in the list twice")
                    .label("delete one of them"),
            );
        }
        certificates.push(certificate);
    }
    if let Some(Value::List(items)) = table.get("certificates").map(|node| &node.value)
        && items.is_empty()
    {
        table.missing("certificates");
    }
    let tls = Tls {
        certificates,
        acme: acme::acme(table),
        ticket_keys: tls::files(table, "ticket_keys"),
        ocsp_stapling: table.flag("ocsp_stapling", true),
    };
    (tls, options)
}

fn certificate(table: &Table<'_>) -> Option<Certificate> {
    let file = |name: &'static str| -> Option<PathBuf> {
        table.require(name)?;
        rules::readable_file(table, name)
    };
    let (cert, key) = (file("cert"), file("key"));
    Some(Certificate {
        cert: cert?,
        key: key?,
    })
}
