//! `tidegate cache`: what the cache of a running edge holds, and why it does what it does.

use std::fmt::Write as _;

use anyhow::Context;
use hyper::Method;
use serde_json::Value;

use crate::admin::{Admin, encoded};
use crate::cli::{CacheCommand, InspectArgs, StatusArgs};
use crate::failure::Failure;
use crate::term;

/// Shows it on standard output.
///
/// # Errors
/// The configuration is wrong, or the edge cannot be asked.
pub(crate) fn run(command: &CacheCommand) -> Result<(), Failure> {
    match command {
        CacheCommand::Inspect(args) => inspect(args),
        CacheCommand::Status(args) => status(args),
    }
}

fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let config = super::load(&args.config)?;
    let mut query = format!("url={}", encoded(&args.url));
    for header in &args.headers {
        let _ = write!(query, "&header={}", encoded(header));
    }
    let found = Admin::of(&config)?.ask(&Method::GET, &format!("/cache/inspect?{query}"))?;
    say(&found, args.json, inspected)
}

fn status(args: &StatusArgs) -> Result<(), Failure> {
    let config = super::load(&args.config)?;
    let found = Admin::of(&config)?.ask(&Method::GET, "/cache")?;
    say(&found, args.json, overview)
}

fn say(found: &Value, json: bool, show: fn(&Value) -> String) -> Result<(), Failure> {
    let text = match json {
        true => format!("{found:#}"),
        false => show(found),
    };
    term::say(text.trim_end()).context("cannot write to standard output")?;
    Ok(())
}

fn inspected(found: &Value) -> String {
    let mut text = String::new();
    for (title, key) in [("route", "route"), ("key", "key")] {
        if let Some(value) = found[key].as_str() {
            let _ = writeln!(text, "{title:<9} {value}");
        }
    }
    let word = |key: &str| found[key].as_str().unwrap_or("?").to_owned();
    let _ = writeln!(
        text,
        "{:<9} {}: {}",
        "decision",
        word("decision"),
        word("why")
    );
    let stored = found["stored"].as_array().map_or(&[][..], Vec::as_slice);
    let _ = writeln!(text, "{:<9} {}", "stored", variants(stored.len()));
    for one in stored {
        text.push_str(&variant(one));
    }
    if found["not_shared"] == true {
        text.push_str(
            "          the last reply was not for all: requests do not wait for each other\n",
        );
    }
    text
}

fn variants(count: usize) -> String {
    match count {
        0 => "nothing".to_owned(),
        1 => "1 variant".to_owned(),
        count => format!("{count} variants"),
    }
}

fn variant(one: &Value) -> String {
    let number = |key: &str| one[key].as_i64().unwrap_or_default();
    let text = |key: &str| one[key].as_str();
    let mut lines = format!(
        "  {} {} bytes, {} hits, age {} s of {} s (lifetime from {})\n",
        number("status"),
        number("bytes"),
        number("hits"),
        number("age_seconds"),
        number("lifetime_seconds"),
        text("lifetime_from").unwrap_or("?"),
    );
    if let Some(ago) = one["soft_purged_seconds_ago"].as_u64() {
        let _ = writeln!(lines, "      purged softly {ago} s ago");
    }
    if let Some(tier) = text("tier") {
        let _ = writeln!(lines, "      tier: {tier}");
    }
    for header in one["varies_by"].as_array().into_iter().flatten() {
        let name = header["header"].as_str().unwrap_or("?");
        let value = header["value"].as_str().unwrap_or("(absent)");
        let _ = writeln!(lines, "      for {name}: {value}");
    }
    for key in ["etag", "last_modified"] {
        if let Some(value) = text(key) {
            let _ = writeln!(lines, "      {key}: {value}");
        }
    }
    let tags: Vec<&str> = one["tags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !tags.is_empty() {
        let _ = writeln!(lines, "      tags: {}", tags.join(" "));
    }
    lines
}

fn overview(found: &Value) -> String {
    let mut text = String::new();
    let memory = &found["memory"];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let _ = writeln!(
        text,
        "memory    {} of {} bytes, {} URLs, {} evicted",
        number(&memory["bytes"]),
        number(&memory["limit"]),
        number(&memory["entries"]),
        number(&memory["evictions"]),
    );
    if let Some(disk) = found["disk"].as_object() {
        let _ = writeln!(
            text,
            "disk      {} of {} bytes, {} objects",
            number(&disk["bytes"]),
            number(&disk["limit"]),
            number(&disk["objects"]),
        );
    }
    let _ = writeln!(text, "fetches   {} under way", number(&found["fetches"]));
    let _ = writeln!(text, "tags      {}", number(&found["tags"]["distinct"]));
    for tag in found["tags"]["top"].as_array().into_iter().flatten() {
        let name = tag["tag"].as_str().unwrap_or("?");
        let _ = writeln!(text, "  {:>9}  {name}", number(&tag["objects"]));
    }
    let _ = writeln!(text, "most used");
    for object in found["top"].as_array().into_iter().flatten() {
        let key = object["key"].as_str().unwrap_or("?");
        let _ = writeln!(
            text,
            "  {:>9}  {key} ({} bytes)",
            number(&object["hits"]),
            number(&object["bytes"])
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_inspection_says_what_and_why() {
        let found = json!({
            "route": "catalog", "key": "https://shop.example/p", "decision": "serve",
            "why": "fresh for 42 s more (lifetime from s-maxage)", "not_shared": false,
            "stored": [{
                "status": 200, "bytes": 12, "hits": 3, "age_seconds": 18, "lifetime_seconds": 60,
                "lifetime_from": "s-maxage", "soft_purged_seconds_ago": null, "etag": "\"a\"",
                "last_modified": null, "tags": ["p1", "home"],
                "varies_by": [{ "header": "accept-language", "value": "de" }],
            }],
        });
        assert_eq!(
            inspected(&found),
            "route     catalog\n\
             key       https://shop.example/p\n\
             decision  serve: fresh for 42 s more (lifetime from s-maxage)\n\
             stored    1 variant\n\
             \x20 200 12 bytes, 3 hits, age 18 s of 60 s (lifetime from s-maxage)\n\
             \x20     for accept-language: de\n\
             \x20     etag: \"a\"\n\
             \x20     tags: p1 home\n"
        );
    }

    #[test]
    fn nothing_stored_is_said_too() {
        let found = json!({ "stored": [], "decision": "fetch", "why": "nothing is stored" });
        let text = inspected(&found);
        assert!(text.contains("stored    nothing"), "{text}");
    }
}
