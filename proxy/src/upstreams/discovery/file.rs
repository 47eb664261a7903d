//! A list of endpoints in a file that somebody else writes.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use conf::discovered::Format;

use super::document::{self, LARGEST};
use super::error::Part;
use super::{DiscoveryError, Trouble};
use crate::clock;

/// Age of the last change from which on another one cannot hide behind the same time. Clocks of
/// file systems step by milliseconds (Linux), or by two seconds (FAT).
const SETTLED: Duration = Duration::from_secs(3);

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// The file, and its state when it was read last.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    may_be_empty: bool,
    read: Option<Stamp>,
    /// What was wrong with it then.
    error: Option<DiscoveryError>,
}

impl Watched {
    /// `may_be_empty`: there are endpoints beside it.
    pub(super) fn new(path: &Path, may_be_empty: bool) -> Self {
        Self {
            path: path.to_owned(),
            may_be_empty,
            read: None,
            error: None,
        }
    }

    /// The list, unless the file is as it was when a call gave one last.
    ///
    /// A file that was replaced by a rename is another inode; one that is written in place may be
    /// seen half written: an error, and it is read again as soon as more is there.
    ///
    /// # Errors
    /// It cannot be read, or is not a list of endpoints.
    pub(super) async fn changed(&mut self) -> Result<Option<Vec<conf::Endpoint>>, DiscoveryError> {
        let (path, before) = (self.path.clone(), self.read);
        let wall = clock::wall();
        let read = tokio::task::spawn_blocking(move || read_if_changed(&path, before)).await;
        let text = match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(None) => return self.error.clone().map_or(Ok(None), Err),
            Ok(Some((stamp, modified, text))) => {
                let settled = modified
                    .ok()
                    .and_then(|modified| wall.duration_since(modified).ok())
                    .is_some_and(|age| age >= SETTLED);
                self.read = settled.then_some(stamp);
                text
            }
            Err(error) => {
                self.read = None;
                return Err(self.unreadable(&error));
            }
        };
        // The configuration takes no other ending than these two.
        let format = Format::of(&self.path).unwrap_or(Format::Toml);
        let list = document::read(&text, format, self.may_be_empty)
            .map_err(|(kind, reason)| self.failed(kind, reason));
        self.error = list.as_ref().err().cloned();
        list.map(Some)
    }

    fn unreadable(&self, error: &io::Error) -> DiscoveryError {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Trouble::NotFound,
            io::ErrorKind::PermissionDenied => Trouble::Denied,
            io::ErrorKind::InvalidData => Trouble::BadDocument,
            _ => Trouble::Io,
        };
        self.failed(kind, error.to_string())
    }

    fn failed(&self, kind: Trouble, reason: impl Into<String>) -> DiscoveryError {
        DiscoveryError::new(Part::File(self.path.clone()), kind, reason)
    }
}

type Contents = (Stamp, io::Result<SystemTime>, String);

fn read_if_changed(path: &Path, before: Option<Stamp>) -> io::Result<Option<Contents>> {
    // Asked before it is opened: to open a pipe would wait for somebody to write.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not a regular file",
        ));
    }
    if before == Some(Stamp::new(&metadata)) {
        return Ok(None);
    }
    let file = File::open(path)?;
    // What is open may be another file than what was asked about.
    let metadata = file.metadata()?;
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LARGEST) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is larger than {} MiB", LARGEST >> 20),
        ));
    }
    Ok(Some((Stamp::new(&metadata), metadata.modified(), text)))
}
