//! `tidegate upstream`: the app nodes of a running edge, and changes of them by hand.

use std::fmt::Write as _;

use anyhow::{Context, anyhow};
use hyper::Method;
use serde_json::Value;

use crate::admin::{Admin, encoded};
use crate::cli::{ChangeArgs, ListArgs, UpstreamCommand, WeightArgs};
use crate::failure::Failure;
use crate::term;

/// Shows endpoints on standard output, or changes one and shows the upstream as it is then.
///
/// # Errors
/// The configuration is wrong, there is no such endpoint, or the edge cannot be asked.
pub(crate) fn run(command: &UpstreamCommand) -> Result<(), Failure> {
    match command {
        UpstreamCommand::List(args) => list(args),
        UpstreamCommand::Drain(args) => change(args, "mode=drain"),
        UpstreamCommand::Undrain(args) | UpstreamCommand::Up(args) => change(args, "mode=enabled"),
        UpstreamCommand::Down(args) => change(args, "mode=down"),
        UpstreamCommand::Weight(WeightArgs { weight, of }) => {
            change(of, &format!("weight={}", encoded(weight)))
        }
    }
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let config = super::load(&args.config)?;
    let found = Admin::of(&config)?.ask(&Method::GET, "/upstreams")?;
    let all = found.as_array().map_or(&[][..], Vec::as_slice);
    let wanted: Vec<&Value> = all
        .iter()
        .filter(|upstream| {
            args.upstream
                .as_ref()
                .is_none_or(|name| upstream["name"] == name.as_str())
        })
        .collect();
    if let (Some(name), true) = (&args.upstream, wanted.is_empty()) {
        let there: Vec<&str> = all.iter().filter_map(|one| one["name"].as_str()).collect();
        return Err(Failure::wrong(anyhow!(
            "there is no upstream {name:?}; there are {}",
            there.join(", ")
        )));
    }
    let text = match args.json {
        true => format!("{:#}", Value::from_iter(wanted.into_iter().cloned())),
        false => wanted.into_iter().map(table).collect::<Vec<_>>().join("\n"),
    };
    say(&text)
}

fn change(args: &ChangeArgs, what: &str) -> Result<(), Failure> {
    let config = super::load(&args.config)?;
    let target = format!(
        "/upstreams/change?upstream={}&endpoint={}&{what}&keep={}",
        encoded(&args.upstream),
        encoded(&args.endpoint),
        args.keep
    );
    let found = Admin::of(&config)?.ask(&Method::POST, &target)?;
    say(&table(&found))
}

fn say(text: &str) -> Result<(), Failure> {
    term::say(text.trim_end()).context("cannot write to standard output")?;
    Ok(())
}

/// One upstream: a line about it, and one for each endpoint.
fn table(upstream: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let endpoints = upstream["endpoints"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let mut text = format!(
        "{}  {}, {} of {} endpoints in service, {} requests",
        upstream["name"].as_str().unwrap_or("?"),
        upstream["balance"].as_str().unwrap_or("?"),
        number(&upstream["in_service"]),
        endpoints.len(),
        number(&upstream["active_requests"]),
    );
    if let Some(queued) = upstream["queued_requests"].as_u64() {
        let _ = write!(text, ", {queued} queued");
    }
    if upstream["panic"] == true {
        text.push_str(", too few in service: health is ignored");
    }
    if let Some(age) = upstream["discovery_age_seconds"].as_f64() {
        let _ = write!(text, ", found {age:.0} s ago");
    }
    text.push('\n');
    let rows: Vec<[String; 6]> = endpoints.iter().map(row).collect();
    let heads = [
        "endpoint", "state", "weight", "requests", "latency", "remarks",
    ];
    let mut widths = heads.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in std::iter::once(&heads.map(str::to_owned)).chain(&rows) {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, " {cell:<width$} ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(endpoint: &Value) -> [String; 6] {
    let text = |key: &str| endpoint[key].as_str().unwrap_or("?").to_owned();
    let requests = match endpoint["limit_requests"].as_u64() {
        Some(limit) => format!("{} of {limit}", endpoint["active_requests"]),
        None => endpoint["active_requests"].to_string(),
    };
    let latency = endpoint["latency_seconds"].as_f64().map_or_else(
        || "-".to_owned(),
        |latency| format!("{:.1} ms", latency * 1e3),
    );
    [
        text("name"),
        text("health"),
        endpoint["weight"].to_string(),
        requests,
        latency,
        remarks(endpoint).join(", "),
    ]
}

fn remarks(endpoint: &Value) -> Vec<String> {
    let mut remarks = Vec::new();
    if endpoint["name"] != endpoint["address"]
        && let Some(address) = endpoint["address"].as_str()
    {
        remarks.push(address.to_owned());
    }
    if endpoint["backup"] == true {
        remarks.push("backup".to_owned());
    }
    if let Some(priority) = endpoint["priority"].as_u64().filter(|one| *one > 0) {
        remarks.push(format!("priority {priority}"));
    }
    if let Some(zone) = endpoint["zone"].as_str() {
        remarks.push(format!("zone {zone}"));
    }
    let hand = &endpoint["by_hand"];
    if hand.is_object() {
        let kept = match hand["keep"] == true {
            true => "by hand, kept over reloads",
            false => "by hand, until the next reload",
        };
        remarks.push(kept.to_owned());
    }
    if let Some(left) = endpoint["ejected_for_seconds"].as_f64() {
        remarks.push(format!("ejected for {left:.0} s more"));
    }
    if let Some(count) = endpoint["ejections"].as_u64().filter(|one| *one > 0) {
        remarks.push(format!("ejected {count} times lately"));
    }
    if let Some(share) = endpoint["slow_start_percent"]
        .as_u64()
        .filter(|one| *one < 100)
    {
        remarks.push(format!("slow start at {share} %"));
    }
    if let Some(failed) = endpoint["consecutive_failed_checks"]
        .as_u64()
        .filter(|one| *one > 0)
    {
        remarks.push(format!("{failed} checks failed"));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_says_how_each_endpoint_stands_and_why() {
        let upstream = json!({
            "name": "app", "balance": "least_request", "in_service": 1, "active_requests": 3,
            "queued_requests": 2, "panic": false, "discovery_age_seconds": null,
            "endpoints": [
                {
                    "name": "10.0.0.1:80", "address": "10.0.0.1:80", "health": "healthy",
                    "weight": 2, "active_requests": 3, "limit_requests": 8,
                    "latency_seconds": 0.0123, "priority": 0, "backup": false, "zone": "a",
                    "by_hand": { "mode": "enabled", "weight": 2, "keep": true },
                    "slow_start_percent": 50, "ejections": 1, "consecutive_failed_checks": 0,
                },
                {
                    "name": "app:80", "address": "10.0.0.2:80", "health": "drained",
                    "weight": 1, "active_requests": 0, "limit_requests": null,
                    "latency_seconds": null, "priority": 0, "backup": true, "zone": null,
                    "by_hand": { "mode": "drain", "weight": null, "keep": false },
                    "slow_start_percent": 100, "ejections": 0, "consecutive_failed_checks": 2,
                },
            ],
        });
        assert_eq!(
            table(&upstream),
            "app  least_request, 1 of 2 endpoints in service, 3 requests, 2 queued\n\
             \x20 endpoint     state    weight  requests  latency  remarks\n\
             \x20 10.0.0.1:80  healthy  2       3 of 8    12.3 ms  zone a, by hand, kept over reloads, ejected 1 times lately, slow start at 50 %\n\
             \x20 app:80       drained  1       0         -        10.0.0.2:80, backup, by hand, until the next reload, 2 checks failed\n"
        );
    }
}
