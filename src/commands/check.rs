//! `tidegate check`: is this file right?
//!
//! It uses the very code that `run` and a reload use: the loader, and what looks
//! at certificates, names and folders before anything is served.

use anyhow::Context;

use crate::cli::CheckArgs;
use crate::failure::Failure;
use crate::term;

/// Says `FILE: ok (...)` on standard output.
///
/// # Errors
/// All the mistakes in the file at once.
pub(crate) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let config = super::load(&args.file)?;
    proxy::check(&config).map_err(Failure::wrong)?;
    let summary = format!(
        "{}: ok ({}, {}, {})",
        args.file.display(),
        count(config.listeners.len(), "listener"),
        count(config.routes.len(), "route"),
        count(config.upstreams.len(), "upstream"),
    );
    term::say(&summary).context("cannot write to standard output")?;
    Ok(())
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn one_thing_is_singular() {
        assert_eq!(count(1, "route"), "1 route");
        assert_eq!(count(0, "route"), "0 routes");
        assert_eq!(count(2, "route"), "2 routes");
    }

    #[test]
    fn every_example_loads_without_a_warning() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let mut found = 0;
        for entry in std::fs::read_dir(&folder).expect("examples/") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let config = conf::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
            assert!(
                config.warnings.is_empty(),
                "{}: {:?}",
                path.display(),
                config.warnings
            );
            found += 1;
        }
        assert!(found >= 5, "only {found} examples in {}", folder.display());
    }
}
