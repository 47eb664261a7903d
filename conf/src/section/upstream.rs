//! `[upstream.NAME]`.

mod attempts;
mod balance;
mod connection;
mod endpoint;
mod health;
mod load;

use std::num::NonZeroU32;

use crate::config::{ProxyVersion, Upstream, UpstreamProtocol};
use crate::defaults;
use crate::read::{Finding, Table};

use super::rules;

pub(crate) use endpoint::placed;

/// `zoned`: whether `[server]` says where this process stands.
pub(super) fn upstream(table: &Table<'_>, name: &str, zoned: bool) -> Option<Upstream> {
    let members = endpoint::members(table);
    let discovery = endpoint::discovery(table);
    let tls = table
        .table("tls")
        .map(|tls| connection::upstream_tls(&tls, &members));
    let protocol = protocol(table);
    zones(table, &members, zoned);
    if !members.tiers() {
        table.no_effect(
            "overflow_below",
            "every endpoint has the same priority",
            "delete it, or give some endpoints a `priority` or `backup = true`",
        );
    }
    let first_byte_timeout = table.duration_or("first_byte_timeout", defaults::FIRST_BYTE_TIMEOUT);
    Some(Upstream {
        name: name.to_owned(),
        discovery,
        resolve: endpoint::resolve(table, &members),
        balance: balance::balance(table),
        sticky: balance::sticky(table),
        overflow_below: table.share("overflow_below").unwrap_or_default(),
        zone_overflow_below: table
            .share("zone_overflow_below")
            .unwrap_or(defaults::ZONE_OVERFLOW_BELOW),
        panic_threshold: table.share("panic_threshold").unwrap_or_default(),
        max_concurrent_streams: streams(table, protocol),
        proxy_protocol: proxy_protocol(table, protocol),
        connect_timeout: table.duration_or("connect_timeout", defaults::CONNECT_TIMEOUT),
        first_byte_timeout,
        read_timeout: table.duration_or("read_timeout", defaults::READ_TIMEOUT),
        keepalive: connection::keepalive(table),
        limits: load::limits(table),
        queue: load::queue(table),
        adaptive_concurrency: load::adaptive_concurrency(table),
        health_check: table
            .table("health_check")
            .and_then(|inner| health::health_check(&inner, table, protocol)),
        outlier_detection: health::outlier_detection(table),
        slow_start: table.duration("slow_start").unwrap_or_default(),
        retry: attempts::retry(table, first_byte_timeout),
        hedge: attempts::hedge(table, &members),
        protocol: protocol?,
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        endpoints: members.endpoints,
    })
}

/// `None`, reported: it cannot be told, so nothing that depends on it is judged.
fn protocol(table: &Table<'_>) -> Option<UpstreamProtocol> {
    let Some(node) = table.get("protocol") else {
        return Some(UpstreamProtocol::H1);
    };
    let index = table.cx.choice(node, "protocol", table.kind("protocol"))?;
    let known = [UpstreamProtocol::H1, UpstreamProtocol::H2];
    known.get(index).copied()
}

fn streams(table: &Table<'_>, protocol: Option<UpstreamProtocol>) -> NonZeroU32 {
    if protocol == Some(UpstreamProtocol::H1) {
        table.no_effect(
            "max_concurrent_streams",
            "HTTP/1.1 has no streams",
            "delete it, or write protocol = \"h2\"",
        );
    }
    table
        .count("max_concurrent_streams")
        .unwrap_or(rules::count(defaults::UPSTREAM_STREAMS))
}

fn proxy_protocol(table: &Table<'_>, protocol: Option<UpstreamProtocol>) -> Option<ProxyVersion> {
    let node = table.get("proxy_protocol")?;
    if protocol == Some(UpstreamProtocol::H2) {
        table.cx.error(
            Finding::error(
                node.place,
                "`proxy_protocol` tells one client's address for a whole connection, and with HTTP/2 many clients share one",
            )
            .label("delete it, or write protocol = \"h1\""),
        );
    }
    table.no_effect(
        "keepalive",
        "with `proxy_protocol` each request has a connection of its own",
        "delete it",
    );
    let index = table
        .cx
        .choice(node, "proxy_protocol", table.kind("proxy_protocol"))?;
    [ProxyVersion::V1, ProxyVersion::V2].get(index).copied()
}

/// Zones of endpoints and of this process mean something only together.
fn zones(table: &Table<'_>, members: &endpoint::Members, zoned: bool) {
    let key = "zone_overflow_below";
    if !zoned {
        let fix = "delete it, or write [server] zone = \"eu-1a\"";
        table.no_effect(key, "[server] has no zone to compare with", fix);
        if let Some(place) = members.first_zone {
            table.cx.findings.add(
                Finding::warning(
                    place,
                    "zones have no effect: [server] has none to compare with",
                )
                .label("write [server] zone = \"eu-1a\", or delete the zones"),
            );
        }
    } else if !members.zones() {
        table.no_effect(
            key,
            "no endpoint has a zone",
            "delete it, or write { address = \"10.0.0.11:8080\", zone = \"eu-1a\" }",
        );
    }
}

#[cfg(test)]
mod tests;
