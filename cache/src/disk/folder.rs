//! The folder of a log: that one process at a time uses it, and which files in it are segments.
//!
//! The lock is an advisory one (`flock`) on a file of its own. The kernel lets it go when the process
//! ends, however it ends, so there is no stale lock to clear away. Any file whose name is not that
//! of a segment is left alone.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The name of the lock file.
const LOCK: &str = "lock";
const BEFORE: &str = "segment-";
const AFTER: &str = ".tglog";

/// A folder that is ours as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    lock: File,
}

/// Why a folder cannot be had.
#[derive(Debug)]
pub(super) enum Taken {
    ByAnother,
    Io(io::Error),
}

/// A file with the name of a segment.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    /// Bytes.
    pub(super) length: u64,
}

impl Folder {
    /// Makes the folder where it is missing, for its owner only, and takes the lock.
    pub(super) fn take(path: &Path) -> Result<Self, Taken> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(Taken::Io)?;
        let lock = take_lock(path)?;
        Ok(Self {
            path: path.to_owned(),
            lock,
        })
    }

    /// Lets another process have the folder.
    pub(super) fn leave(&self) -> io::Result<()> {
        self.lock.unlock()
    }

    /// Takes it again after [`Folder::leave`].
    pub(super) fn take_back(&mut self) -> Result<(), Taken> {
        self.lock = take_lock(&self.path)?;
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the folder once more if it was removed, and perhaps made again, since: then the lock is
    /// on a file that nobody else sees, and would keep nobody out.
    pub(super) fn hold(&mut self) -> Result<(), Taken> {
        let held = self.lock.metadata().map_err(Taken::Io)?;
        let there = fs::metadata(self.path.join(LOCK));
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino())) {
            return Ok(());
        }
        *self = Self::take(&self.path)?;
        Ok(())
    }

    /// The files that have names of segments, the oldest first.
    pub(super) fn segments(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(number_in) else {
                continue;
            };
            // Not followed: a link of that name is not ours.
            let metadata = match entry.metadata() {
                Ok(metadata) if metadata.is_file() => metadata,
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => continue,
            };
            found.push(Found {
                number,
                path: entry.path(),
                length: metadata.len(),
            });
        }
        found.sort_by_key(|one| one.number);
        Ok(found)
    }

    /// Where the segment of this number stands.
    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{BEFORE}{number:016x}{AFTER}"))
    }

    /// Has the names in the folder written to the disk.
    pub(super) fn sync(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl Drop for Folder {
    /// Closing the file is not always enough: a process that is just being started shares it until
    /// it has become another program.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

fn take_lock(folder: &Path) -> Result<File, Taken> {
    let lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(LOCK))
        .map_err(Taken::Io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Taken::ByAnother),
        Err(TryLockError::Error(error)) => Err(Taken::Io(error)),
    }
}

/// The number in the name of a segment. The upper half of the numbers is left out, so that there is
/// always a next one.
fn number_in(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
    let ours = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 16 || !digits.bytes().all(ours) {
        return None;
    }
    let number = u64::from_str_radix(digits, 16).ok()?;
    (number <= u64::MAX / 2).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_that_we_give_are_names_of_segments() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::take(home.path()).unwrap_or_else(|e| panic!("{e:?}"));
        for number in [0, 1, 0xabc, u64::MAX / 2] {
            let path = folder.segment(number);
            let name = path.file_name().and_then(|name| name.to_str()).unwrap();
            assert_eq!(number_in(name), Some(number));
        }
        for name in [
            "lock",
            "segment-1.tglog",
            "segment-000000000000000A.tglog",
            "segment-+000000000000001.tglog",
            "segment-0000000000000001.tglog.bak",
            "segment-ffffffffffffffff.tglog",
        ] {
            assert_eq!(number_in(name), None, "{name}");
        }
    }

    #[test]
    fn a_folder_that_was_removed_is_taken_anew() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        let mut first = Folder::take(&path).unwrap_or_else(|e| panic!("{e:?}"));
        fs::remove_dir_all(&path).unwrap();
        assert!(first.hold().is_ok());
        assert!(
            matches!(Folder::take(&path), Err(Taken::ByAnother)),
            "the lock is a real one again"
        );
        fs::remove_dir_all(&path).unwrap();
        let _other = Folder::take(&path).unwrap_or_else(|e| panic!("{e:?}"));
        assert!(
            matches!(first.hold(), Err(Taken::ByAnother)),
            "another process was faster"
        );
    }

    #[test]
    fn the_folder_is_for_its_owner_only() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("new");
        let _folder = Folder::take(&path).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let lock = fs::metadata(path.join(LOCK)).unwrap();
        assert_eq!(lock.mode() & 0o777, 0o600);
    }
}
