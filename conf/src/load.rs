//! From files to a [`Config`]: read all, then understand all, then decide.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::diagnostic::{Diagnostic, LoadError, Severity};
use crate::environment::{Environment, Machine};
use crate::include::Reading;
use crate::keys::ROOT;
use crate::read::{Cx, Findings, Table};
use crate::section;
use crate::source::{FileId, Place, Sources};

/// Loads a configuration file and what it includes.
///
/// Files that the configuration names (certificates, directories, secrets) must
/// be there; they are looked for relative to the file that names them.
///
/// # Errors
/// Every mistake of every file, in file order. Only where a file is not TOML at
/// all are the mistakes of meaning left for the next time.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    run(&Machine, |reading| reading.main(path))
}

/// The same for a text that is not read from a file; `path` is what messages
/// call it, and what relative paths in it are relative to.
///
/// # Errors
/// As [`load`].
pub fn load_str(text: &str, path: &Path) -> Result<Config, LoadError> {
    load_with(text, path, &Machine)
}

/// The same with another view of files, variables and cores.
///
/// # Errors
/// As [`load`].
pub fn load_with(
    text: &str,
    path: &Path,
    environment: &dyn Environment,
) -> Result<Config, LoadError> {
    run(environment, |reading| {
        reading.take(path, text.as_bytes().to_vec());
    })
}

fn run(
    environment: &dyn Environment,
    read: impl FnOnce(&mut Reading<'_>),
) -> Result<Config, LoadError> {
    let findings = Findings::default();
    let mut reading = Reading {
        environment,
        findings: &findings,
        sources: Sources::default(),
        documents: Vec::new(),
        bytes: Vec::new(),
    };
    read(&mut reading);
    let (config, _) = understand(&reading);
    let Reading { sources, .. } = reading;
    let (mut errors, warnings) = findings.finish(&sources);
    match config {
        Some(config) if errors.is_empty() => return Ok(Config { warnings, ..config }),
        None if errors.is_empty() => errors.push(unexplained(&sources)),
        _ => {}
    }
    Err(LoadError {
        diagnostics: errors,
    })
}

/// Everything but the warnings (`None`: there are errors), and the keys that were looked up.
///
/// Where the tree of a file cannot be trusted, sections may be missing from it
/// that are there; every finding about names would be a guess, so none is made.
fn understand(reading: &Reading<'_>) -> (Option<Config>, BTreeSet<String>) {
    let whole = reading.documents.iter().all(|document| document.sound);
    if !whole || reading.documents.is_empty() {
        return (None, BTreeSet::new());
    }
    let cx = Cx {
        sources: &reading.sources,
        environment: reading.environment,
        findings: reading.findings,
        used: RefCell::default(),
    };
    let mut root = Table::absent(&cx, &ROOT, Place::whole(FileId(0)));
    for document in &reading.documents {
        root.join(document.root.place, &document.root);
    }
    let config = section::read(&root).map(|config| Config {
        hash: hash(&reading.bytes),
        ..config
    });
    (config, cx.used.take())
}

/// A promise of [`LoadError`] that no reader can break by forgetting to report.
fn unexplained(sources: &Sources) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: sources.path(FileId(0)).to_owned(),
        line: 0,
        column: 0,
        message: "this configuration was refused without a reason; please report it".into(),
        excerpt: None,
        label: None,
        help: Vec::new(),
    }
}

/// First 64 bits of SHA-256 over every file, each with its length in front.
fn hash(files: &[Vec<u8>]) -> u64 {
    let mut digest = Sha256::new();
    for file in files {
        digest.update((file.len() as u64).to_be_bytes());
        digest.update(file);
    }
    let digest = digest.finalize();
    digest
        .iter()
        .take(8)
        .fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests;
