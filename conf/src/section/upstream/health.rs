//! What takes an endpoint out of its pool.

use http::{Method, StatusCode};
use regex::bytes::Regex;

use crate::config::{
    BodyPattern, HealthCheck, HealthCheckKind, HttpCheck, OutlierDetection, UpstreamProtocol,
};
use crate::defaults;
use crate::keys::{self, Kind};
use crate::raw::Value;
use crate::read::{Finding, Table, not_empty};
use crate::section::{filter, rules};
use crate::text::{self, Wrong, quoted};

/// The words of `type`.
#[derive(Clone, Copy, PartialEq)]
enum Kinds {
    Http,
    Tcp,
    Tls,
    Grpc,
}

/// The keys of an HTTP check.
const HTTP_KEYS: [&str; 6] = ["path", "host", "method", "headers", "status", "body"];

pub(super) fn health_check(
    table: &Table<'_>,
    upstream: &Table<'_>,
    protocol: Option<UpstreamProtocol>,
) -> Option<HealthCheck> {
    const KINDS: [Kinds; 4] = [Kinds::Http, Kinds::Tcp, Kinds::Tls, Kinds::Grpc];
    let node = table.require("type")?;
    let http = http_check(table);
    let service = table.text("service", not_empty);
    let index = table.cx.choice(node, "type", table.kind("type"))?;
    let kind = *KINDS.get(index)?;
    if kind != Kinds::Http {
        let why = match kind {
            Kinds::Grpc => "a check of type \"grpc\" asks in its own way",
            Kinds::Tls => "a check of type \"tls\" sends no request",
            _ => "a check of type \"tcp\" sends no request",
        };
        for name in HTTP_KEYS {
            table.no_effect(name, why, "delete it, or write type = \"http\"");
        }
    }
    if kind != Kinds::Grpc {
        table.no_effect(
            "service",
            "only a check of type \"grpc\" asks about a service",
            "delete it, or write type = \"grpc\"",
        );
    }
    let unfit = match kind {
        Kinds::Tls if upstream.get("tls").is_none() && !upstream.explains("tls") => Some((
            "a check of type \"tls\" needs `tls`, which this upstream does not have",
            "write type = \"tcp\", or add tls = { server_name = \"app.internal\" }",
        )),
        Kinds::Grpc if protocol == Some(UpstreamProtocol::H1) => Some((
            "a check of type \"grpc\" needs HTTP/2, and this upstream speaks HTTP/1.1",
            "add protocol = \"h2\" to the upstream",
        )),
        _ => None,
    };
    if let Some((what, fix)) = unfit {
        table.cx.error(Finding::error(node.place, what).label(fix));
    }
    let interval = table.duration_or("interval", defaults::HEALTH_INTERVAL);
    Some(HealthCheck {
        kind: match kind {
            Kinds::Http => HealthCheckKind::Http(http),
            Kinds::Tcp => HealthCheckKind::Tcp,
            Kinds::Tls => HealthCheckKind::Tls,
            Kinds::Grpc => HealthCheckKind::Grpc {
                service: service.unwrap_or_default(),
            },
        },
        interval,
        down_interval: table
            .duration("down_interval")
            .unwrap_or(interval.min(defaults::HEALTH_DOWN_INTERVAL)),
        timeout: table.duration_or("timeout", defaults::HEALTH_TIMEOUT),
        unhealthy_after: table.count_or("unhealthy_after", defaults::UNHEALTHY_AFTER),
        healthy_after: table.count_or("healthy_after", defaults::HEALTHY_AFTER),
        start_healthy: table.choice("start", &[true, false], true),
    })
}

fn http_check(table: &Table<'_>) -> HttpCheck {
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
    let method = table.text("method", |text| match text::method(text)? {
        Method::CONNECT => Err(Wrong::new(
            "CONNECT asks for a tunnel, not for a page",
            "write \"GET\" or \"HEAD\"",
        )),
        method => Ok(method),
    });
    let method = method.unwrap_or(Method::GET);
    if method == Method::HEAD {
        table.no_effect(
            "body",
            "a reply to HEAD has no body",
            "delete it, or write method = \"GET\"",
        );
    }
    let body = table
        .get("body")
        .and_then(|node| rules::regex(table.cx, node, "body", table.kind("body")))
        // What is valid over text is valid over bytes.
        .and_then(|regex| Regex::new(regex.as_str()).ok());
    HttpCheck {
        method,
        path: path.unwrap_or_else(|| defaults::HEALTH_PATH.to_owned()),
        host,
        headers: filter::own_fields(table, "headers"),
        statuses: statuses(table),
        body: body.map(BodyPattern),
    }
}

fn statuses(table: &Table<'_>) -> Vec<StatusCode> {
    let Kind::OneOrMore(of) = table.kind("status") else {
        return Vec::new();
    };
    let nodes = table.one_or_more("status");
    rules::distinct(table.cx, "status", nodes, |node| {
        if let Value::Text(text) = &node.value
            && text.to_ascii_lowercase().ends_with("xx")
        {
            let what = format!("status: {} is a class of statuses", quoted(text));
            table.cx.error(Finding::error(node.place, what).label(
                "name each, such as [200, 204]; without `status` it is any from 200 to 299",
            ));
            return None;
        }
        let number = table.cx.integer(node, "status", of)?;
        StatusCode::from_u16(u16::try_from(number).ok()?).ok()
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

pub(super) fn outlier_detection(table: &Table<'_>) -> Option<OutlierDetection> {
    let standard = OutlierDetection {
        consecutive_errors: rules::count(defaults::CONSECUTIVE_ERRORS),
        error_rate: None,
        latency_factor: None,
        window: defaults::OUTLIER_WINDOW,
        min_requests: rules::count(defaults::OUTLIER_MIN_REQUESTS),
        ejection_time: defaults::EJECTION_TIME,
        max_ejected: defaults::MAX_EJECTED,
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
    let windowed = ["error_rate", "latency_factor"];
    if windowed.iter().all(|name| table.get(name).is_none()) && !table.has_unknown() {
        for name in ["window", "min_requests"] {
            table.no_effect(
                name,
                "it belongs to `error_rate` and `latency_factor`, and there is neither",
                "delete it, or add error_rate = \"50%\"",
            );
        }
    }
    Some(OutlierDetection {
        consecutive_errors: table.count_or("consecutive_errors", defaults::CONSECUTIVE_ERRORS),
        error_rate: table.share("error_rate"),
        latency_factor: table.count("latency_factor"),
        window: table.duration_or("window", standard.window),
        min_requests: table.count_or("min_requests", defaults::OUTLIER_MIN_REQUESTS),
        ejection_time: table.duration_or("ejection_time", standard.ejection_time),
        max_ejected: table.share("max_ejected").unwrap_or(standard.max_ejected),
    })
}
