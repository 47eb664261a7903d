//! `tidegate maintenance`: closes the site and opens it again, by the file that the edge looks for.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Context, anyhow};
use hyper::Method;

use crate::admin::Admin;
use crate::cli::MaintenanceCommand;
use crate::failure::Failure;
use crate::term;

/// Makes or removes the file, or says how things stand; then says what the running edge makes of it.
///
/// # Errors
/// The configuration is wrong or says nothing of maintenance, the file cannot be made or removed, or
/// the running edge does not follow.
pub(crate) fn run(command: &MaintenanceCommand) -> Result<(), Failure> {
    let (MaintenanceCommand::On(args)
    | MaintenanceCommand::Off(args)
    | MaintenanceCommand::Status(args)) = command;
    let config = super::load(&args.config)?;
    let Some(maintenance) = &config.server.maintenance else {
        return Err(Failure::wrong(anyhow!(
            "this configuration has no maintenance: add maintenance = {{ file = \"/run/tidegate/maintenance\" }} to [server] and reload"
        )));
    };
    let file = maintenance.file.as_path();
    let (wanted, done) = match command {
        MaintenanceCommand::On(_) => (Some(true), on(file)?),
        MaintenanceCommand::Off(_) => (Some(false), off(file)?),
        MaintenanceCommand::Status(_) => (None, status(file)?),
    };
    say(&done)?;
    if config.admin.is_none() {
        return say(
            "The edge looks for the file once a second. Without [admin] it cannot be asked whether it did.",
        );
    }
    match Admin::of(&config)?.ask(&Method::GET, "/maintenance") {
        // The file is as it should be; an edge that does not run yet will find it so.
        Err(failure) => say(&format!("The edge cannot be asked: {}", plain(&failure))),
        Ok(answer) => judged(wanted, answer["on"].as_bool(), answer["trouble"].as_str()),
    }
}

/// Made in one step, so that there is no moment at which half of it is there.
fn on(file: &Path) -> Result<String, Failure> {
    match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(_) => Ok(format!("Made {}.", file.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok(format!("{} is there already.", file.display()))
        }
        Err(error) => Err(refused("make", file, &error)),
    }
}

fn off(file: &Path) -> Result<String, Failure> {
    match fs::remove_file(file) {
        Ok(()) => Ok(format!("Removed {}.", file.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(format!("{} is not there.", file.display()))
        }
        Err(error) => Err(refused("remove", file, &error)),
    }
}

fn status(file: &Path) -> Result<String, Failure> {
    match file.symlink_metadata() {
        Ok(_) => Ok(format!("On: {} is there.", file.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(format!("Off: {} is not there.", file.display()))
        }
        Err(error) => Err(refused("look at", file, &error)),
    }
}

/// Why the file stays as it is, and what helps.
fn refused(what: &str, file: &Path, error: &io::Error) -> Failure {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let (file, folder) = (file.display(), folder.display());
    Failure::failed(match error.kind() {
        ErrorKind::NotFound => {
            anyhow!("cannot {what} {file}: there is no folder {folder}; make it first")
        }
        ErrorKind::PermissionDenied => anyhow!(
            "cannot {what} {file}: you may not write in {folder}; run this as root, or as the user that the folder belongs to"
        ),
        _ => anyhow!("cannot {what} {file}: {error}"),
    })
}

/// What the edge says, against what was wanted of it.
fn judged(wanted: Option<bool>, on: Option<bool>, trouble: Option<&str>) -> Result<(), Failure> {
    if let Some(why) = trouble {
        return Err(Failure::failed(anyhow!(
            "the running edge cannot look at the file: {why}"
        )));
    }
    let Some(on) = on else {
        return Err(Failure::failed(anyhow!(
            "the running edge has no maintenance in its configuration; reload it first"
        )));
    };
    if wanted.is_some_and(|wanted| wanted != on) {
        let state = if on { "closed" } else { "open" };
        return Err(Failure::failed(anyhow!(
            "the running edge is {state}: it looks for another file; reload it first"
        )));
    }
    say(match on {
        true => "The running edge is closed for maintenance.",
        false => "The running edge is open.",
    })
}

fn plain(failure: &Failure) -> String {
    failure.to_string().replacen("error: ", "", 1)
}

fn say(text: &str) -> Result<(), Failure> {
    term::say(text).context("cannot write to standard output")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_made_once_and_removed_once() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = folder.path().join("maintenance");
        let words = |done: Result<String, Failure>| done.expect("done");
        assert!(words(status(&file)).starts_with("Off"));
        assert!(words(on(&file)).starts_with("Made"));
        assert!(words(on(&file)).ends_with("there already."));
        assert!(words(status(&file)).starts_with("On"));
        assert!(words(off(&file)).starts_with("Removed"));
        assert!(words(off(&file)).ends_with("is not there."));
        let missing = on(&folder.path().join("none/file")).expect_err("no folder");
        assert!(missing.to_string().contains("make it first"), "{missing}");
    }

    #[test]
    fn an_edge_that_does_not_follow_is_a_failure() {
        assert!(judged(Some(true), Some(true), None).is_ok());
        assert!(judged(None, Some(true), None).is_ok());
        for (wanted, on, trouble, word) in [
            (Some(true), Some(false), None, "another file"),
            (Some(false), None, None, "reload it first"),
            (None, Some(true), Some("not allowed"), "not allowed"),
        ] {
            let failure = judged(wanted, on, trouble).expect_err(word);
            assert!(failure.to_string().contains(word), "{failure}");
        }
    }
}
