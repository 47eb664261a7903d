//! What loading asks of the machine.
//!
//! A trait, because tests and fuzzers must not depend on what lies on the disk
//! or stands in the environment, and because a mutated file must not make the
//! loader read a pipe or walk the whole disk.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

/// Files, variables and cores, as loading sees them.
pub trait Environment {
    /// The whole content of a regular file.
    ///
    /// # Errors
    /// Whatever the system says; [`io::ErrorKind::InvalidInput`] where it is not a regular file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// What is there, symbolic links followed.
    ///
    /// # Errors
    /// Whatever the system says, [`io::ErrorKind::NotFound`] first of all.
    fn kind(&self, path: &Path) -> io::Result<FileKind>;
    /// Whether the path itself is a symbolic link.
    fn is_link(&self, path: &Path) -> bool;
    /// Whether a file could be opened for reading now.
    ///
    /// # Errors
    /// Why it cannot.
    fn open(&self, path: &Path) -> io::Result<()>;
    /// Paths that match a shell pattern (`*`, `?`, `[...]`, `**`), sorted.
    ///
    /// # Errors
    /// What is wrong with the pattern, or what could not be read.
    fn glob(&self, directory: &Path, pattern: &str) -> Result<Vec<PathBuf>, String>;
    /// An environment variable; `None`: not set, or not UTF-8.
    fn variable(&self, name: &str) -> Option<String>;
    /// Cores this process may use.
    fn cores(&self) -> NonZeroUsize;
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A pipe, socket or device.
    Other,
}

/// The machine this runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

impl Environment for Machine {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if self.kind(path)? != FileKind::File {
            return Err(not_regular());
        }
        fs::read(path)
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let kind = fs::metadata(path)?.file_type();
        Ok(if kind.is_file() {
            FileKind::File
        } else if kind.is_dir() {
            FileKind::Directory
        } else {
            FileKind::Other
        })
    }

    fn is_link(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
    }

    fn open(&self, path: &Path) -> io::Result<()> {
        if self.kind(path)? != FileKind::File {
            return Err(not_regular());
        }
        fs::File::open(path).map(drop)
    }

    fn glob(&self, directory: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let inside = glob::Pattern::escape(&directory.to_string_lossy());
        let whole = if Path::new(pattern).is_absolute() || inside.is_empty() {
            pattern.to_owned()
        } else {
            format!("{inside}/{pattern}")
        };
        let found = glob::glob(&whole).map_err(|wrong| wrong.msg.to_owned())?;
        let mut paths = found
            .collect::<Result<Vec<_>, _>>()
            .map_err(|wrong| format!("{}: {}", wrong.path().display(), wrong.error()))?;
        paths.sort();
        Ok(paths)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn cores(&self) -> NonZeroUsize {
        thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Why the system refused, without the error number that its own text carries.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => {
            "permission denied for the user that runs tidegate".into()
        }
        io::ErrorKind::NotADirectory => "a part of the path is not a directory".into(),
        io::ErrorKind::InvalidInput => "it is not a regular file".into(),
        _ => error.to_string(),
    }
}

/// An environment for tests: every file is there, nothing else is.
#[cfg(test)]
pub(crate) struct Plenty;

#[cfg(test)]
impl Environment for Plenty {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(match path.extension().and_then(|end| end.to_str()) {
            Some("toml") => b"endpoints = [\"192.0.2.1:80\"]\n".to_vec(),
            Some("json") => b"[\"192.0.2.1:80\"]\n".to_vec(),
            _ => b"a-word-of-some-length\n".to_vec(),
        })
    }
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        Ok(match path.extension() {
            Some(_) => FileKind::File,
            None => FileKind::Directory,
        })
    }
    fn is_link(&self, _: &Path) -> bool {
        true
    }
    fn open(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn glob(&self, _: &Path, _: &str) -> Result<Vec<PathBuf>, String> {
        Ok(Vec::new())
    }
    fn variable(&self, _: &str) -> Option<String> {
        Some("a-word-of-some-length".into())
    }
    fn cores(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }
}
