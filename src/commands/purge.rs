//! `tidegate purge`: takes pages out of the cache of a running edge, or makes them stale.

use anyhow::{Context, anyhow};
use hyper::Method;

use crate::admin::{Admin, encoded};
use crate::cli::PurgeArgs;
use crate::failure::Failure;
use crate::term;

/// Says on standard output how many objects were purged, or would be.
///
/// # Errors
/// Nothing was named, the configuration is wrong, or the edge cannot be asked.
pub(crate) fn run(args: &PurgeArgs) -> Result<(), Failure> {
    let query = query(args)?;
    let config = super::load(&args.config)?;
    let answer = Admin::of(&config)?.ask(&Method::POST, &format!("/cache/purge?{query}"))?;
    let count = |key: &str| answer[key].as_u64();
    let line = match (count("purged"), count("would_purge"), args.soft) {
        (Some(objects), _, false) => format!("purged {}", counted(objects)),
        (Some(objects), _, true) => format!("made {} stale", counted(objects)),
        (_, Some(objects), false) => format!("would purge {}", counted(objects)),
        (_, Some(objects), true) => format!("would make {} stale", counted(objects)),
        _ => return Err(Failure::failed(anyhow!("the edge answers {answer}"))),
    };
    term::say(&line).context("cannot write to standard output")?;
    Ok(())
}

fn query(args: &PurgeArgs) -> Result<String, Failure> {
    let named = |name: &str, values: &[String]| -> Vec<String> {
        let pair = |value: &String| format!("{name}={}", encoded(value));
        values.iter().map(pair).collect()
    };
    let mut parts = named("url", &args.urls);
    parts.extend(named("tag", &args.tags));
    parts.extend(named("prefix", &args.prefixes));
    parts.extend(named("host", &args.hosts));
    if args.all {
        parts.push("all=true".into());
    }
    if parts.is_empty() {
        return Err(Failure::wrong(anyhow!(
            "nothing to purge: name URLs, or use --tag, --prefix, --host or --all"
        )));
    }
    if args.soft {
        parts.push("soft=true".into());
    }
    if args.dry_run {
        parts.push("dry_run=true".into());
    }
    Ok(parts.join("&"))
}

fn counted(objects: u64) -> String {
    let plural = if objects == 1 { "" } else { "s" };
    format!("{objects} object{plural}")
}
