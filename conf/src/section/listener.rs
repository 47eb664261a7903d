//! `[[listener]]` and `[tls]`.

use std::path::PathBuf;

use ipnet::IpNet;

use crate::config::{Certificate, Limits, Listener, Tls, TlsOptions};
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
}

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
    let (h1, h2) = protocols(table);
    let limits = match table.table("limits") {
        None => limits.clone(),
        Some(own) => {
            if !h2 {
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
            if !table.flag("tls", false) {
                own.no_effect(
                    "max_handshake_rate_per_ip",
                    "this listener does not speak TLS",
                    "delete it, or add tls = true",
                );
            }
            process::limits(&own, Some(limits))
        }
    };
    let (tls, tls_options) = spoken(table, general);
    let address = address?;
    Some(Listener {
        name: name.unwrap_or_else(|| address.to_string()),
        address,
        tls,
        tls_options,
        h1,
        h2,
        limits,
        proxy_protocol: proxy_protocol(table),
        access_log: table.flag("access_log", true),
        // Read when the names of upstreams are known.
        forward: None,
    })
}

/// Whether TLS is spoken, and how.
fn spoken(table: &Table<'_>, general: &TlsOptions) -> (bool, TlsOptions) {
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

fn protocols(table: &Table<'_>) -> (bool, bool) {
    let (Some(items), Kind::List { of, .. }) = (table.list("protocols"), table.kind("protocols"))
    else {
        return (true, true);
    };
    let spoken = rules::distinct(table.cx, "protocols", items, |item| {
        if let Value::Text(word) = &item.value
            && word == "h3"
        {
            table.cx.error(
                Finding::error(item.place, "protocols: HTTP/3 is not supported")
                    .label("h1 and h2 are"),
            );
            return None;
        }
        let index = table.cx.choice(item, "protocols", of)?;
        [Protocol::H1, Protocol::H2].get(index).copied()
    });
    (
        spoken.contains(&Protocol::H1),
        spoken.contains(&Protocol::H2),
    )
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
