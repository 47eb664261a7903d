//! `tidegate cert`: the certificates of an edge, and orders by hand.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, anyhow};
use hyper::Method;
use serde_json::Value;

use crate::admin::{Admin, encoded};
use crate::cli::{CertCommand, CertListArgs, OrderArgs};
use crate::failure::Failure;
use crate::term;

/// Between two looks at how an order goes.
const LOOK: Duration = Duration::from_millis(500);

/// Shows certificates, or orders some and waits for what comes of it.
///
/// # Errors
/// The configuration is wrong, the edge cannot be asked, or an order failed.
pub(crate) fn run(command: &CertCommand) -> Result<(), Failure> {
    match command {
        CertCommand::List(args) => list(args),
        CertCommand::Issue(args) => order(args, true),
        CertCommand::Renew(args) => order(args, false),
    }
}

fn list(args: &CertListArgs) -> Result<(), Failure> {
    let config = super::load(&args.config)?;
    let asked = Admin::of(&config).and_then(|admin| admin.ask(&Method::GET, "/certificates"));
    let found = match asked {
        Ok(found) => found,
        // What lies on the disk is what an edge would begin with.
        Err(failure) => {
            term::complain(&format!("{failure}; this is what lies on the disk"));
            proxy::certificates(&config).map_err(Failure::failed)?
        }
    };
    match args.json {
        true => say(&format!("{found:#}")),
        false => say(&table(&found)),
    }
}

fn order(args: &OrderArgs, missing: bool) -> Result<(), Failure> {
    let config = super::load(&args.config)?;
    let admin = Admin::of(&config)?;
    let mut target = format!("/certificates/order?missing={missing}");
    if let Some(name) = &args.name {
        let _ = write!(target, "&name={}", encoded(name));
    }
    let begun = admin.ask(&Method::POST, &target)?;
    let begun = entries(&begun);
    if begun.is_empty() {
        return say(
            "nothing to issue: every certificate is there; `tidegate cert renew` orders new ones",
        );
    }
    let mut patience = Duration::from_secs(args.timeout);
    let mut failed = 0;
    for before in &begun {
        let after = ended(&admin, before, &mut patience)?;
        let error = after["error"].as_str();
        say(&match error {
            None => format!("{}: issued, {}", names(&after), life(&after)),
            Some(error) => format!("{}: failed: {error}", names(&after)),
        })?;
        failed += usize::from(error.is_some());
    }
    match failed {
        0 => Ok(()),
        failed => Err(Failure::failed(anyhow!(
            "{failed} of {} orders failed",
            begun.len()
        ))),
    }
}

/// Waits until an order that began after `before` was looked at is over.
fn ended(admin: &Admin, before: &Value, patience: &mut Duration) -> Result<Value, Failure> {
    loop {
        let found = admin.ask(&Method::GET, "/certificates")?;
        let all = entries(&found);
        let now = all
            .into_iter()
            .find(|one| one["source"] == "acme" && one["names"] == before["names"]);
        let now =
            now.ok_or_else(|| Failure::failed(anyhow!("{}: no longer configured", names(before))))?;
        if now["orders"].as_u64() > before["orders"].as_u64() && now["ordering"] == false {
            return Ok(now);
        }
        let left = patience.checked_sub(LOOK).ok_or_else(|| {
            Failure::failed(anyhow!(
                "{}: not done yet; it goes on, see `tidegate cert list`",
                names(before)
            ))
        })?;
        *patience = left;
        pause()?;
    }
}

fn pause() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .context("cannot start")?;
    runtime.block_on(async { tokio::time::sleep(LOOK).await });
    Ok(())
}

fn entries(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn names(entry: &Value) -> String {
    let names: Vec<&str> = entry["names"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    names.join(" ")
}

fn life(entry: &Value) -> String {
    match (entry["not_after"].as_str(), entry["days_left"].as_f64()) {
        (Some(until), Some(days)) if days < 0.0 => format!("over since {until}"),
        (Some(until), Some(days)) => format!("until {until} ({days} days left)"),
        _ => "none yet".to_owned(),
    }
}

/// A line for each certificate, and more for those that are obtained by themselves.
fn table(found: &Value) -> String {
    let mut text = String::new();
    for entry in entries(found) {
        let _ = writeln!(text, "{}", names(&entry));
        let from = match entry["source"].as_str() {
            Some("file") => format!("file {}", entry["file"].as_str().unwrap_or("?")),
            _ => format!("acme {}", entry["directory"].as_str().unwrap_or("-")),
        };
        let _ = writeln!(text, "  source    {from}");
        let _ = writeln!(text, "  valid     {}", life(&entry));
        if let Some(state) = staple(&entry["ocsp"]) {
            let _ = writeln!(text, "  ocsp      {state}");
        }
        if entry["ordering"] == true {
            text.push_str("  renewal   under way\n");
        } else if let Some(next) = entry["next_order"].as_str() {
            let why = match entry["next_order_by"].as_str() {
                Some("failure") => "tried again after a failure",
                Some("authority") => "as the authority wishes",
                Some("missing") => "there is none yet",
                _ => "at two thirds of its life",
            };
            let _ = writeln!(text, "  renewal   {next}, {why}");
        }
        if let Some(error) = entry["error"].as_str() {
            let _ = writeln!(text, "  failures  {}, the last: {error}", entry["failures"]);
        }
    }
    if text.is_empty() {
        text.push_str("no certificates: no listener has tls = true\n");
    }
    text
}

/// What is stapled, or why nothing is; `None`: there is no certificate.
fn staple(ocsp: &Value) -> Option<String> {
    let why_not = ocsp["why_not"].as_str();
    let because = |why: &str| match ocsp["next_try"].as_str() {
        Some(next) => format!("{why}; asked again {next}"),
        None => why.to_owned(),
    };
    match (ocsp["next_update"].as_str(), why_not) {
        (Some(until), None) => Some(format!("stapled, until {until}")),
        (Some(until), Some(why)) => Some(format!(
            "stapled, until {until}; no newer one: {}",
            because(why)
        )),
        (None, Some(why)) if ocsp["must_staple"] == true => Some(format!(
            "not stapled, AND CLIENTS WANT IT (must-staple): {}",
            because(why)
        )),
        (None, Some(why)) => Some(format!("not stapled: {}", because(why))),
        (None, None) => None,
    }
}

fn say(text: &str) -> Result<(), Failure> {
    term::say(text.trim_end()).context("cannot write to standard output")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn certificates_are_shown_with_their_life_and_what_comes_next() {
        let found = json!([
            {
                "source": "file", "names": ["old.example"], "file": "/etc/old.pem",
                "not_after": "Sun, 06 Nov 1994 08:49:37 GMT", "days_left": -3.0,
                "ocsp": { "next_update": "Sun, 06 Nov 1994 08:49:37 GMT", "why_not": null },
            },
            {
                "source": "acme", "names": ["shop.example", "www.shop.example"], "directory": "https://acme.example/dir",
                "not_after": "Sun, 06 Nov 2044 08:49:37 GMT", "days_left": 61.0,
                "next_order": "Sun, 06 Oct 2044 08:49:37 GMT", "next_order_by": "authority",
                "ordering": false, "failures": 2, "error": "no answer",
            },
        ]);
        assert_eq!(
            table(&found),
            "old.example\n\
             \x20 source    file /etc/old.pem\n\
             \x20 valid     over since Sun, 06 Nov 1994 08:49:37 GMT\n\
             \x20 ocsp      stapled, until Sun, 06 Nov 1994 08:49:37 GMT\n\
             shop.example www.shop.example\n\
             \x20 source    acme https://acme.example/dir\n\
             \x20 valid     until Sun, 06 Nov 2044 08:49:37 GMT (61 days left)\n\
             \x20 renewal   Sun, 06 Oct 2044 08:49:37 GMT, as the authority wishes\n\
             \x20 failures  2, the last: no answer\n"
        );
        assert!(table(&json!([])).contains("no certificates"));
    }

    #[test]
    fn staples_are_shown_with_why_there_is_none() {
        let shown = |must_staple, until: Option<&str>, why: Option<&str>, next: Option<&str>| {
            staple(&json!({
                "must_staple": must_staple, "next_update": until, "why_not": why, "next_try": next,
            }))
            .expect("a line")
        };
        assert_eq!(
            shown(false, Some("noon"), None, None),
            "stapled, until noon"
        );
        assert_eq!(
            shown(false, Some("noon"), Some("silence"), Some("ten")),
            "stapled, until noon; no newer one: silence; asked again ten"
        );
        assert_eq!(
            shown(false, None, Some("no responder"), None),
            "not stapled: no responder"
        );
        assert_eq!(
            shown(true, None, Some("silence"), Some("ten")),
            "not stapled, AND CLIENTS WANT IT (must-staple): silence; asked again ten"
        );
        assert_eq!(staple(&json!(null)), None);
    }
}
