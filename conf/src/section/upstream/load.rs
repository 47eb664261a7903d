//! How much an upstream takes at once, and what happens to the rest.

use crate::config::{AdaptiveConcurrency, Queue, UpstreamLimits};
use crate::defaults;
use crate::raw::Value;
use crate::read::{Finding, Table};
use crate::section::rules;

/// What makes requests wait.
const BOUNDS: [&str; 5] = [
    "max_connections",
    "max_requests",
    "max_total_connections",
    "max_total_requests",
    "adaptive_concurrency",
];

pub(super) fn limits(table: &Table<'_>) -> UpstreamLimits {
    let limits = UpstreamLimits {
        max_connections: table.count("max_connections"),
        max_requests: table.count("max_requests"),
        max_pending: table.count("max_pending"),
        max_total_connections: table.count("max_total_connections"),
        max_total_requests: table.count("max_total_requests"),
    };
    let pairs = [
        (
            ("max_connections", limits.max_connections),
            ("max_total_connections", limits.max_total_connections),
        ),
        (
            ("max_requests", limits.max_requests),
            ("max_total_requests", limits.max_total_requests),
        ),
    ];
    for ((name, each), (total, all)) in pairs {
        if let (Some(each), Some(all)) = (each, all)
            && each > all
        {
            table.no_effect(
                name,
                &format!("{total} = {all} is reached before"),
                &format!("write less than {all}, or delete it"),
            );
        }
    }
    limits
}

pub(super) fn queue(parent: &Table<'_>) -> Option<Queue> {
    let table = parent.table("queue")?;
    if BOUNDS.iter().all(|name| parent.get(name).is_none()) && !parent.has_unknown() {
        parent.no_effect(
            "queue",
            "nothing bounds what the endpoints take at once, so nobody waits",
            "delete it, or add max_requests = 100",
        );
    }
    table.require("size");
    let timeout = table.duration_or("timeout", defaults::QUEUE_TIMEOUT);
    Some(Queue {
        size: table.count("size")?,
        timeout,
    })
}

pub(super) fn adaptive_concurrency(parent: &Table<'_>) -> Option<AdaptiveConcurrency> {
    let standard = AdaptiveConcurrency {
        min: rules::count(defaults::ADAPTIVE_MIN),
        max: rules::count(defaults::ADAPTIVE_MAX),
    };
    let entry = parent.entry("adaptive_concurrency")?;
    match entry.node.value {
        Value::Bool(true) => return Some(standard),
        Value::Bool(false) => {
            parent.cx.error(
                Finding::error(
                    entry.node.place,
                    "adaptive concurrency is off unless it is switched on",
                )
                .label("delete the key"),
            );
            return None;
        }
        _ => {}
    }
    let table = parent.table("adaptive_concurrency")?;
    let min = table.count_or("min", defaults::ADAPTIVE_MIN);
    let max = table.count_or("max", defaults::ADAPTIVE_MAX);
    if min > max {
        let (node, fix) = match (table.get("min"), table.get("max")) {
            (Some(node), _) => (node, format!("write at most {max}")),
            (None, Some(node)) => (node, format!("write at least {min}")),
            (None, None) => return Some(standard),
        };
        table.cx.error(
            Finding::error(
                node.place,
                format!("the least limit, {min}, is above the largest, {max}"),
            )
            .label(fix),
        );
    }
    Some(AdaptiveConcurrency { min, max })
}
