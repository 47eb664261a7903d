//! TLS towards an upstream, and connections kept.

use crate::config::{Certificate, EndpointAddress, Keepalive, UpstreamTls};
use crate::defaults;
use crate::read::{Finding, Table};
use crate::section::rules;
use crate::text::{self, Wrong};

use super::endpoint::Members;

pub(super) fn upstream_tls(table: &Table<'_>, members: &Members) -> Option<UpstreamTls> {
    let verify = table.flag("verify", true);
    let ca = rules::readable_file(table, "ca");
    if !verify {
        table.no_effect(
            "ca",
            "with `verify = false` no certificate is verified",
            "delete one of the two",
        );
        if let Some(node) = table.get("verify") {
            table.cx.findings.add(
                Finding::warning(
                    node.place,
                    "the certificates of this upstream are not verified",
                )
                .label("better: ca = \"internal.pem\"")
                .help(
                    "help: anybody on the way to the app servers can read and change what is sent",
                ),
            );
        }
    }
    let given = table.text("server_name", |text| {
        if rules::is_ip(text) {
            return Ok(text.to_owned());
        }
        text::host_name(text).map_err(|wrong| {
            let fix = text.rsplit_once(':').map(|(host, _)| host);
            Wrong::new(
                wrong.what,
                fix.map_or(wrong.fix, |host| format!("without port: \"{host}\"")),
            )
        })
    });
    let certificate = certificate(table);
    let server_name = match table.get("server_name") {
        Some(_) => given,
        None => by_name(table, members),
    };
    Some(UpstreamTls {
        ca,
        server_name: server_name?,
        verify,
        certificate: certificate?,
    })
}

/// The host of the first endpoint, where it has one that a certificate can name.
fn by_name(table: &Table<'_>, members: &Members) -> Option<String> {
    if members.damaged {
        return None;
    }
    let (what, of) = match members.endpoints.first().map(|endpoint| &endpoint.address) {
        Some(EndpointAddress::Name { host, .. }) => return Some(host.clone()),
        Some(EndpointAddress::Ip(address)) => {
            ("the first endpoint is an IP address", address.to_string())
        }
        Some(EndpointAddress::Unix(path)) => (
            "the first endpoint is a Unix socket",
            format!("the app server at {}", path.display()),
        ),
        Some(EndpointAddress::Srv(name)) => (
            "the first endpoint is a name of SRV records",
            format!("the hosts of {name}"),
        ),
        None => (
            "the endpoints are found while it runs",
            "the app servers".to_owned(),
        ),
    };
    table.cx.error(
        Finding::error(table.place, format!("tls needs a `server_name`: {what}")).label(format!(
            "write tls = {{ server_name = \"app.internal\" }} with the name in the certificate of {of}"
        )),
    );
    None
}

/// What is shown to the app servers; outer `None`: reported.
fn certificate(table: &Table<'_>) -> Option<Option<Certificate>> {
    let (cert, key) = (table.entry("cert"), table.entry("key"));
    let (entry, has, lacks, fix) = match (cert, key) {
        (None, None) => return Some(None),
        (Some(_), Some(_)) => {
            let cert = rules::readable_file(table, "cert");
            let key = rules::readable_file(table, "key");
            return Some(Some(Certificate {
                cert: cert?,
                key: key?,
            }));
        }
        (Some(entry), None) => (entry, "cert", "key", "key = \"edge.key\""),
        (None, Some(entry)) => (entry, "key", "cert", "cert = \"edge.pem\""),
    };
    if !table.explains(lacks) {
        table.cx.error(
            Finding::error(entry.place, format!("`{has}` is there without `{lacks}`"))
                .label(format!("add {fix}")),
        );
    }
    None
}

pub(super) fn keepalive(parent: &Table<'_>) -> Keepalive {
    let standard = Keepalive {
        max_idle: defaults::KEEPALIVE_MAX_IDLE,
        idle_timeout: defaults::KEEPALIVE_IDLE_TIMEOUT,
        max_age: None,
    };
    let Some(table) = parent.table("keepalive") else {
        return standard;
    };
    let max_idle = table.integer_or("max_idle", standard.max_idle);
    if max_idle == 0 {
        for name in ["idle_timeout", "max_age"] {
            let why = "with max_idle = 0 no connection is kept";
            table.no_effect(name, why, "delete it");
        }
    }
    Keepalive {
        max_idle,
        idle_timeout: table.duration_or("idle_timeout", standard.idle_timeout),
        max_age: table.duration("max_age"),
    }
}
