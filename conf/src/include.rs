//! Reading the file and what it includes.
//!
//! Files are read in the order in which they are named, each before those that
//! it includes itself. No file is read twice: that would only repeat every name
//! in it, so it is an error.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::environment::{Environment, reason};
use crate::raw::{self, Node, Value};
use crate::read::{Finding, Findings};
use crate::source::{FileId, Place, Sources};
use crate::suggest::nearest;

/// More is not a configuration but a mistake.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Includes are followed no further.
const MAX_FILES: usize = 10_000;

/// A file's tree.
pub(crate) struct Document {
    pub(crate) root: Node,
    /// Whether the tree says what the file says.
    pub(crate) sound: bool,
}

/// Everything read so far.
pub(crate) struct Reading<'a> {
    pub(crate) environment: &'a dyn Environment,
    pub(crate) findings: &'a Findings,
    pub(crate) sources: Sources,
    pub(crate) documents: Vec<Document>,
    /// Bytes as they were read, for the hash.
    pub(crate) bytes: Vec<Vec<u8>>,
}

impl Reading<'_> {
    /// Reads the main file from the disk, and what it includes.
    pub(crate) fn main(&mut self, path: &Path) {
        match self.environment.read(path) {
            Ok(bytes) => self.take(path, bytes),
            Err(error) => {
                let file = self.sources.add(path.to_owned(), String::new());
                let mut finding = Finding::error(
                    Place::whole(file),
                    format!("cannot read the file: {}", reason(&error)),
                );
                if let Some(near) = self.neighbour(path, &error) {
                    finding = finding.help(format!("help: did you mean {}?", near.display()));
                }
                self.findings.add(finding);
            }
        }
    }

    /// A file of nearly the same name in the same directory.
    fn neighbour(&self, path: &Path, error: &io::Error) -> Option<PathBuf> {
        if error.kind() != io::ErrorKind::NotFound {
            return None;
        }
        let directory = path.parent()?;
        let wanted = path.file_name()?.to_str()?;
        let found = self.environment.glob(directory, "*.toml").ok()?;
        let names = found.iter().filter_map(|path| path.file_name()?.to_str());
        nearest(wanted, names).map(|name| directory.join(name))
    }

    /// Takes the content of a file, and reads what it includes.
    pub(crate) fn take(&mut self, path: &Path, bytes: Vec<u8>) {
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
        let bad = std::str::from_utf8(&bytes).err().map(|e| e.valid_up_to());
        let too_large = bytes.len() > MAX_BYTES;
        let file = self.sources.add(
            path.to_owned(),
            if too_large { String::new() } else { text },
        );
        self.bytes.push(bytes);
        if too_large {
            self.refuse(Finding::error(
                Place::whole(file),
                "the file is larger than 16 MiB: this is no configuration",
            ));
            return;
        }
        if let Some(at) = bad {
            self.refuse(
                Finding::error(Place::new(file, at..at + 1), "the file is not UTF-8 text")
                    .label("save it as UTF-8"),
            );
            return;
        }
        let parsed = raw::parse(&mut self.sources, file);
        for mistake in parsed.mistakes {
            let mut finding = Finding::syntax(mistake.place, mistake.message);
            if let Some(label) = mistake.label {
                finding = finding.label(label);
            }
            if let Some(help) = mistake.help {
                finding = finding.help(help);
            }
            self.findings.add(finding);
        }
        let wanted = includes(&parsed.root);
        self.documents.push(Document {
            root: parsed.root,
            sound: parsed.sound,
        });
        for (place, pattern) in wanted {
            self.include(file, place, &pattern);
        }
    }

    /// Reports it, and marks the tree as incomplete.
    fn refuse(&mut self, finding: Finding) {
        let place = finding.place;
        self.findings.add(finding);
        self.documents.push(Document {
            root: Node {
                place,
                value: Value::Table(Vec::new()),
            },
            sound: false,
        });
    }

    fn include(&mut self, from: FileId, place: Place, pattern: &str) {
        if pattern.trim().is_empty() {
            return;
        }
        let directory = match self.sources.path(from).parent() {
            Some(directory) => directory.to_owned(),
            None => PathBuf::new(),
        };
        let wild = pattern.contains(['*', '?', '[']);
        let found = if wild {
            self.environment.glob(&directory, pattern)
        } else {
            Ok(vec![directory.join(pattern)])
        };
        match found {
            Ok(paths) => {
                for path in paths {
                    self.include_file(place, &path);
                }
            }
            Err(why) => self.refuse(
                Finding::error(
                    place,
                    format!("include: this pattern cannot be used: {why}"),
                )
                .label("such as \"sites/*.toml\""),
            ),
        }
    }

    fn include_file(&mut self, place: Place, path: &Path) {
        let same = |known: &crate::source::Source| tidy(&known.path) == tidy(path);
        if let Some(known) = self.sources.0.iter().position(same) {
            let message = if known == place.file.0 {
                format!("include: {} includes itself", path.display())
            } else {
                format!("include: {} is included a second time", path.display())
            };
            self.refuse(Finding::error(place, message).label("name or match it once only"));
            return;
        }
        if self.sources.0.len() >= MAX_FILES {
            self.refuse(Finding::error(place, "include: there are too many files"));
            return;
        }
        match self.environment.read(path) {
            Ok(bytes) => self.take(path, bytes),
            Err(error) => self.refuse(
                Finding::error(
                    place,
                    format!(
                        "include: cannot read {}: {}",
                        path.display(),
                        reason(&error)
                    ),
                )
                .label("a path here is relative to this file"),
            ),
        }
    }
}

/// The strings of `include`; what else is there is reported when the tree is read.
fn includes(root: &Node) -> Vec<(Place, String)> {
    let Value::Table(entries) = &root.value else {
        return Vec::new();
    };
    let Some(entry) = entries.iter().find(|entry| entry.key == "include") else {
        return Vec::new();
    };
    let Value::List(items) = &entry.node.value else {
        return Vec::new();
    };
    items
        .iter()
        .filter_map(|item| match &item.value {
            Value::Text(text) => Some((item.place, text.clone())),
            _ => None,
        })
        .collect()
}

/// Without `.` and, as far as that can be told without the disk, without `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(tidied.components().next_back(), Some(Component::Normal(_))) =>
            {
                tidied.pop();
            }
            part => tidied.push(part),
        }
    }
    tidied
}
