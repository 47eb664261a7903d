//! `[upstream.NAME]`.

use std::num::NonZeroU32;

use http::StatusCode;

use crate::config::{
    Balance, Endpoint, EndpointAddress, HashKey, HealthCheck, HealthCheckKind, Keepalive,
    OutlierDetection, Upstream, UpstreamProtocol, UpstreamTls,
};
use crate::defaults;
use crate::keys::{self, Kind};
use crate::raw::{Node, Value};
use crate::read::{Finding, Table, not_empty};
use crate::source::Place;
use crate::text::{self, Wrong, quoted};

use super::rules;

pub(super) fn upstream(table: &Table<'_>, name: &str) -> Option<Upstream> {
    let endpoints = endpoints(table);
    let tls = table
        .table("tls")
        .map(|tls| upstream_tls(&tls, endpoints.first()));
    let retry = table.table("retry");
    Some(Upstream {
        name: name.to_owned(),
        balance: balance(table),
        protocol: table.choice(
            "protocol",
            &[UpstreamProtocol::H1, UpstreamProtocol::H2],
            UpstreamProtocol::H1,
        ),
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        connect_timeout: table.duration_or("connect_timeout", defaults::CONNECT_TIMEOUT),
        first_byte_timeout: table.duration_or("first_byte_timeout", defaults::FIRST_BYTE_TIMEOUT),
        read_timeout: table.duration_or("read_timeout", defaults::READ_TIMEOUT),
        keepalive: keepalive(table),
        health_check: table.table("health_check").and_then(|t| health_check(&t)),
        outlier_detection: outlier_detection(table),
        retry: crate::config::Retry {
            attempts: match &retry {
                Some(retry) => retry.count_or("attempts", defaults::RETRY_ATTEMPTS),
                None => rules::count(defaults::RETRY_ATTEMPTS),
            },
            on_connect_failure: true,
            on_reset: true,
            on_timeout: false,
            on_statuses: Vec::new(),
            budget: 20,
            per_try_timeout: None,
            max_body_size: 64 * 1024,
        },
        discovery: None,
        resolve: crate::config::Resolve {
            servers: Vec::new(),
            every: std::time::Duration::from_secs(30),
            family: crate::config::Family::Auto,
        },
        sticky: None,
        overflow_below: 0,
        zone_overflow_below: 70,
        panic_threshold: 0,
        max_concurrent_streams: rules::count(100),
        proxy_protocol: None,
        limits: crate::config::UpstreamLimits::default(),
        queue: None,
        adaptive_concurrency: None,
        slow_start: std::time::Duration::ZERO,
        hedge: None,
        endpoints,
    })
}

fn endpoints(table: &Table<'_>) -> Vec<Endpoint> {
    let cx = table.cx;
    if table.require("endpoints").is_none() {
        return Vec::new();
    }
    let items = table.list("endpoints").unwrap_or_default();
    let mut found: Vec<(Endpoint, Place)> = Vec::new();
    for item in items {
        let Some(endpoint) = endpoint(table, item) else {
            continue;
        };
        let same = |(known, _): &&(Endpoint, Place)| known.address == endpoint.address;
        if let Some((_, first)) = found.iter().find(same) {
            cx.error(
                Finding::error(
                    item.place,
                    format!("the endpoint {} is there twice", endpoint.address),
                )
                .label("for a larger share give it a weight")
                .also("it is there first at", *first),
            );
        }
        found.push((endpoint, item.place));
    }
    let endpoints: Vec<Endpoint> = found.into_iter().map(|(endpoint, _)| endpoint).collect();
    if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.backup) {
        let place = table
            .get("endpoints")
            .map_or(table.place, |node| node.place);
        cx.error(
            Finding::error(
                place,
                "every endpoint is a backup, so there is none to back up",
            )
            .label("take `backup = true` off at least one"),
        );
    }
    endpoints
}

fn endpoint(table: &Table<'_>, item: &Node) -> Option<Endpoint> {
    let weight = rules::count(defaults::WEIGHT);
    if !matches!(item.value, Value::Table(_)) {
        let Kind::List { of, .. } = table.kind("endpoints") else {
            return None;
        };
        let address = table.cx.parsed(item, "endpoints", of, text::endpoint)?;
        return Some(Endpoint {
            address,
            weight,
            priority: 0,
            backup: false,
            zone: None,
        });
    }
    let table = Table::open(table.cx, &keys::ENDPOINT, item.place, item)?;
    table.require("address");
    let address = table.text("address", text::endpoint);
    let weight = weight_of(&table);
    let backup = table.flag("backup", false);
    Some(Endpoint {
        address: address?,
        weight,
        priority: 0,
        backup,
        zone: None,
    })
}

/// Zero is what some programs take for "switched off".
fn weight_of(table: &Table<'_>) -> NonZeroU32 {
    if let Some(node) = table.get("weight")
        && matches!(node.value, Value::Integer(0))
    {
        table.cx.error(
            Finding::error(node.place, "an endpoint of weight 0 never gets a request")
                .label("delete the endpoint, or write a weight from 1 to 1000"),
        );
        return NonZeroU32::MIN;
    }
    table.count_or("weight", defaults::WEIGHT)
}

fn balance(table: &Table<'_>) -> Balance {
    let Some(entry) = table.entry("balance") else {
        return Balance::RoundRobin;
    };
    if !matches!(entry.node.value, Value::Table(_)) {
        let words = [
            Balance::RoundRobin,
            Balance::Random,
            Balance::LeastRequest {
                choices: rules::count(2),
            },
        ];
        let index = table
            .cx
            .choice(&entry.node, "balance", table.kind("balance"));
        return index
            .and_then(|index| words.get(index).cloned())
            .unwrap_or(Balance::RoundRobin);
    }
    table
        .open_inner(&keys::HASH, entry)
        .and_then(|table| hash(&table))
        .map_or(Balance::RoundRobin, |key| Balance::Hash {
            key,
            table: crate::config::HashTable::Rendezvous,
            max_load: None,
        })
}

fn hash(table: &Table<'_>) -> Option<HashKey> {
    let node = table.require("hash")?;
    let entry = table.entry("hash")?;
    if !matches!(node.value, Value::Table(_)) {
        table.cx.choice(node, "hash", table.kind("hash"))?;
        return Some(HashKey::ClientIp);
    }
    let table = table.open_inner(&keys::HASH_KEY, entry)?;
    let header = table.text("header", text::header_name);
    let cookie = table.text("cookie", text::cookie_name);
    match (table.get("header"), table.get("cookie")) {
        (Some(_), Some(second)) => {
            table.cx.error(
                Finding::error(second.place, "one thing decides: a header or a cookie")
                    .label("delete one of them"),
            );
            None
        }
        (None, None) => {
            table.cx.error(
                Finding::error(node.place, "this does not say what decides")
                    .label("write { header = \"x-user\" } or { cookie = \"sid\" }"),
            );
            None
        }
        _ => header.map(HashKey::Header).or(cookie.map(HashKey::Cookie)),
    }
}

fn upstream_tls(table: &Table<'_>, first: Option<&Endpoint>) -> Option<UpstreamTls> {
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
    let by_name = match first.map(|endpoint| &endpoint.address) {
        Some(EndpointAddress::Name { host, .. }) => Some(host.clone()),
        Some(EndpointAddress::Ip(address)) if table.get("server_name").is_none() => {
            table.cx.error(
                Finding::error(
                    table.place,
                    "tls needs a `server_name`: the first endpoint is an IP address",
                )
                .label(format!("write tls = {{ server_name = \"app.internal\" }} with the name in the certificate of {address}")),
            );
            None
        }
        _ => None,
    };
    Some(UpstreamTls {
        ca,
        server_name: given.or(by_name)?,
        verify,
        certificate: None,
    })
}

fn keepalive(table: &Table<'_>) -> Keepalive {
    let standard = Keepalive {
        max_idle: defaults::KEEPALIVE_MAX_IDLE,
        idle_timeout: defaults::KEEPALIVE_IDLE_TIMEOUT,
        max_age: None,
    };
    let Some(table) = table.table("keepalive") else {
        return standard;
    };
    let max_idle = table.integer_or("max_idle", standard.max_idle);
    if max_idle == 0 {
        table.no_effect(
            "idle_timeout",
            "with max_idle = 0 no connection is kept",
            "delete it",
        );
    }
    Keepalive {
        max_idle,
        idle_timeout: table.duration_or("idle_timeout", standard.idle_timeout),
        max_age: None,
    }
}

fn health_check(table: &Table<'_>) -> Option<HealthCheck> {
    /// The words of `type`.
    #[derive(Clone, Copy)]
    enum Kinds {
        Http,
        Tcp,
    }
    table.require("type")?;
    let path = table.text("path", health_path);
    let host = table.text("host", |text| match text.parse() {
        // A Host field may carry a port; a check is the one place where it is wanted.
        Ok::<http::uri::Authority, _>(authority) if !text.contains('@') => {
            Ok(authority.as_str().to_owned())
        }
        _ => Err(Wrong::new(
            format!("{} is not a host", quoted(text)),
            "such as \"shop.example\"",
        )),
    });
    let status = table
        .integer("status")
        .and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
    let kind = match table.choice("type", &[Kinds::Http, Kinds::Tcp], Kinds::Http) {
        Kinds::Http => HealthCheckKind::Http(crate::config::HttpCheck {
            method: http::Method::GET,
            path: path.unwrap_or_else(|| defaults::HEALTH_PATH.to_owned()),
            host,
            headers: Vec::new(),
            statuses: status.into_iter().collect(),
            body: None,
        }),
        Kinds::Tcp => {
            for name in ["path", "host", "status"] {
                table.no_effect(
                    name,
                    "a check of type \"tcp\" sends no request",
                    "delete it, or write type = \"http\"",
                );
            }
            HealthCheckKind::Tcp
        }
    };
    Some(HealthCheck {
        kind,
        interval: table.duration_or("interval", defaults::HEALTH_INTERVAL),
        down_interval: table.duration_or("interval", defaults::HEALTH_INTERVAL),
        start_healthy: true,
        timeout: table.duration_or("timeout", defaults::HEALTH_TIMEOUT),
        unhealthy_after: table.count_or("unhealthy_after", defaults::UNHEALTHY_AFTER),
        healthy_after: table.count_or("healthy_after", defaults::HEALTHY_AFTER),
    })
}

/// Unlike what a route matches, what a check asks for may have a query.
fn health_path(text: &str) -> Result<String, Wrong> {
    let text = not_empty(text)?;
    let path = text.split('?').next().unwrap_or(&text);
    text::path(path)?;
    match text.chars().find(|c| !c.is_ascii_graphic()) {
        None => Ok(text),
        Some(odd) => Err(Wrong::new(
            format!("{odd:?} never stands in a path as it is"),
            "write it percent-encoded",
        )),
    }
}

fn outlier_detection(table: &Table<'_>) -> Option<OutlierDetection> {
    let standard = OutlierDetection {
        consecutive_errors: rules::count(defaults::CONSECUTIVE_ERRORS),
        ejection_time: defaults::EJECTION_TIME,
        max_ejected: defaults::MAX_EJECTED,
        error_rate: None,
        latency_factor: None,
        window: defaults::EJECTION_TIME,
        min_requests: rules::count(20),
    };
    let Some(entry) = table.entry("outlier_detection") else {
        return Some(standard);
    };
    match entry.node.value {
        Value::Bool(false) => return None,
        Value::Bool(true) => {
            table.cx.error(
                Finding::error(
                    entry.node.place,
                    "outlier detection is on unless it is switched off",
                )
                .label("delete the key, write false, or a table with other figures"),
            );
            return Some(standard);
        }
        _ => {}
    }
    let table = table.open_inner(&keys::OUTLIER_DETECTION, entry)?;
    Some(OutlierDetection {
        consecutive_errors: table.count_or("consecutive_errors", defaults::CONSECUTIVE_ERRORS),
        ejection_time: table.duration_or("ejection_time", standard.ejection_time),
        max_ejected: table
            .text("max_ejected", text::percent)
            .unwrap_or(standard.max_ejected),
        ..standard
    })
}
