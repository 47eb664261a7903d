//! `forward` of a listener: connections that are passed on as they are.

use crate::config::{Forward, HostPattern, Listener, Upstream, UpstreamId};
use crate::defaults;
use crate::read::{Finding, Table};
use crate::text;

use super::listener::Placed;
use super::names::Names;

/// Puts into each listener what its table says of forwarding.
pub(super) fn forwards(
    tables: &[Table<'_>],
    listeners: &mut [Placed],
    names: &Names,
    upstreams: &[Option<Upstream>],
) {
    for (table, (_, listener)) in tables.iter().zip(listeners) {
        let Some(inner) = table.table("forward") else {
            continue;
        };
        let forward = forward(&inner, names, upstreams);
        if let Some(listener) = listener {
            agree(table, &inner, listener);
            listener.forward = Some(forward);
        }
    }
}

fn forward(table: &Table<'_>, names: &Names, upstreams: &[Option<Upstream>]) -> Forward {
    let cx = table.cx;
    let upstream = table
        .get("upstream")
        .and_then(|node| names.upstreams.find(cx, node))
        .map(UpstreamId);
    let mut by_name: Vec<(HostPattern, UpstreamId)> = Vec::new();
    for entry in table.map("names") {
        let pattern = match text::host_pattern(&entry.key) {
            Ok(pattern) => pattern,
            Err(wrong) => {
                cx.error(
                    Finding::error(entry.place, format!("names: {}", wrong.what)).label(wrong.fix),
                );
                continue;
            }
        };
        let Some(index) = names.upstreams.find(cx, &entry.node) else {
            continue;
        };
        if let Some(Some(upstream)) = upstreams.get(index)
            && upstream.tls.is_some()
        {
            cx.error(
                Finding::error(
                    entry.node.place,
                    format!(
                        "[upstream.{}] has `tls`, and what is passed on here is TLS already",
                        upstream.name
                    ),
                )
                .label("name an upstream without `tls`"),
            );
        }
        by_name.push((pattern, UpstreamId(index)));
    }
    if table.get("upstream").is_none() && table.get("names").is_none() && !table.has_unknown() {
        cx.error(
            Finding::error(table.place, "`forward` does not say where connections go")
                .label("write { upstream = \"db\" } or { names = { \"pay.example\" = \"pay\" } }"),
        );
    }
    Forward {
        upstream,
        names: by_name,
        idle_timeout: table.duration_or("idle_timeout", defaults::FORWARD_IDLE_TIMEOUT),
    }
}

/// What is passed on is not terminated, and what is not HTTP has no versions of it.
fn agree(table: &Table<'_>, inner: &Table<'_>, listener: &Listener) {
    if listener.tls {
        inner.no_effect(
            "upstream",
            "with `tls`, connections for other names are terminated here",
            "delete it, or leave `tls` out to pass all connections on",
        );
        return;
    }
    table.no_effect(
        "protocols",
        "without `tls`, `forward` leaves no connection to HTTP",
        "delete it",
    );
}
