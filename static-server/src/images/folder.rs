//! The folder that variants are kept in: names, and the few things done with files.
//!
//! A file's name says all there is to know: of which content it was made, what it is, how long
//! it is and the hash of its bytes. So a scan of the names finds everything again after a
//! restart, and a file that was damaged since is noticed by its own name. What cannot be made
//! is kept as an empty file, so that it is not tried again and again.
//!
//! Only files with a name like these are ever removed; whatever else lies there is left alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::choice::{Format, Variant};
use super::index::{Fate, Key};
use crate::hash::Hash;

/// Raised when the encoders change so much that what was made before should go.
const GENERATION: u32 = 1;

/// How the names of unfinished files begin.
const UNFINISHED: &str = ".unfinished-";

/// See the module.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Part of every name: what was made in another quality is of no use.
    quality: u8,
}

/// One file that a scan found.
pub(super) struct Seen {
    pub(super) key: Key,
    pub(super) fate: Fate,
    /// When it was last written or, where the file system notes that, read.
    pub(super) used: SystemTime,
}

impl Folder {
    /// The folder at `path`, made where it is missing, and shown to be writable.
    pub(super) fn open(path: PathBuf, quality: u8) -> io::Result<Self> {
        let folder = Self { path, quality };
        let tried = folder
            .create()
            .and_then(|()| folder.unfinished())
            .and_then(|(name, _)| fs::remove_file(name));
        match tried {
            // A disk that is full now may have room later.
            Err(error) if !is_full(&error) => Err(error),
            _ => Ok(folder),
        }
    }

    fn create(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.path)
    }

    /// Everything that can be used, the least recently used first. Files of ours that cannot
    /// are removed.
    pub(super) fn scan(&self) -> io::Result<Vec<Seen>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.path) {
            // It could not be made, for want of room.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let Some((key, fate, current)) = self.parse(name) else {
                if is_abandoned(name) {
                    self.remove_name(name);
                }
                continue;
            };
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let len = match fate {
                Fate::Made { len, .. } => len,
                Fate::Useless | Fate::Whole | Fate::Failed => 0,
            };
            if !current || !metadata.is_file() || metadata.len() != len {
                self.remove_name(name);
                continue;
            }
            let written = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let used = metadata
                .accessed()
                .map_or(written, |read| read.max(written));
            found.push(Seen { key, fate, used });
        }
        found.sort_by_key(|seen| seen.used);
        Ok(found)
    }

    /// Writes a variant, or the note that there is none, whole or not at all.
    pub(super) fn write(&self, key: &Key, fate: Fate, bytes: &[u8]) -> io::Result<()> {
        let (unfinished, mut file) = match self.unfinished() {
            // Somebody cleaned up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create()?;
                self.unfinished()?
            }
            other => other?,
        };
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_data())
            .and_then(|()| fs::rename(&unfinished, self.path.join(self.name(key, fate))));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Opens the file of a variant.
    pub(super) fn file(&self, key: &Key, fate: Fate) -> io::Result<File> {
        File::open(self.path.join(self.name(key, fate)))
    }

    /// Removes the file of a variant, which may be gone already.
    pub(super) fn remove(&self, key: &Key, fate: Fate) {
        self.remove_name(&self.name(key, fate));
    }

    /// Where the names of contents are kept.
    pub(super) fn names(&self) -> PathBuf {
        self.path.join("names")
    }

    fn remove_name(&self, name: &str) {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(name, %error, "a picture's variant cannot be removed");
            }
            _ => {}
        }
    }

    /// A new file under a name that nobody else uses.
    fn unfinished(&self) -> io::Result<(PathBuf, File)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{UNFINISHED}{}-{number}", std::process::id());
        let path = self.path.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        Ok((path, file))
    }

    fn name(&self, key: &Key, fate: Fate) -> String {
        let format = key.variant.format.map_or("same", Format::as_str);
        let width = key.variant.width.unwrap_or(0);
        let head = format!(
            "{}.{format}.{width}.{}.{GENERATION}",
            key.content, self.quality
        );
        match fate {
            Fate::Made { len, tag } => format!("{head}.{len}.{tag}"),
            Fate::Useless => format!("{head}.useless"),
            Fate::Whole => format!("{head}.whole"),
            Fate::Failed => format!("{head}.failed"),
        }
    }

    /// Reads what `name` writes; last comes whether quality and generation are of today.
    fn parse(&self, name: &str) -> Option<(Key, Fate, bool)> {
        let mut parts = name.split('.');
        let content = Hash::parse(parts.next()?)?;
        let format = match parts.next()? {
            "same" => None,
            named => Some(Format::ALL.into_iter().find(|f| f.as_str() == named)?),
        };
        let width: u32 = parts.next()?.parse().ok()?;
        let quality: u8 = parts.next()?.parse().ok()?;
        let generation: u32 = parts.next()?.parse().ok()?;
        let fate = match (parts.next()?, parts.next()) {
            ("useless", None) => Fate::Useless,
            ("whole", None) => Fate::Whole,
            ("failed", None) => Fate::Failed,
            (len, Some(tag)) => Fate::Made {
                len: len.parse().ok()?,
                tag: Hash::parse(tag)?,
            },
            _ => return None,
        };
        let width = (width > 0).then_some(width);
        let variant = Variant { format, width };
        let current = quality == self.quality && generation == GENERATION;
        let key = Key { content, variant };
        parts.next().is_none().then_some((key, fate, current))
    }
}

/// Whether an error says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether `name` is an unfinished file of a process other than this one.
fn is_abandoned(name: &str) -> bool {
    let mine = format!("{}-", std::process::id());
    name.strip_prefix(UNFINISHED)
        .is_some_and(|rest| !rest.starts_with(&mine))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        Key {
            content: Hash([number; 16]),
            variant: Variant {
                format: Some(Format::WebP),
                width: Some(640),
            },
        }
    }

    fn made(bytes: &[u8]) -> Fate {
        Fate::Made {
            len: bytes.len() as u64,
            tag: Hash::of(bytes),
        }
    }

    #[test]
    fn a_scan_finds_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().join("deep/er"), 70).unwrap();
        let whole = Key {
            variant: Variant {
                format: None,
                width: Some(1),
            },
            ..key(2)
        };
        folder.write(&key(1), made(b"abc"), b"abc").unwrap();
        folder.write(&whole, Fate::Whole, b"").unwrap();
        let mut seen: Vec<_> = folder.scan().unwrap();
        seen.sort_by_key(|seen| seen.key);
        let seen: Vec<_> = seen.iter().map(|seen| (seen.key, seen.fate)).collect();
        assert_eq!(seen, [(key(1), made(b"abc")), (whole, Fate::Whole)]);
    }

    #[test]
    fn damaged_and_abandoned_files_go_and_those_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned(), 70).unwrap();
        folder.write(&key(1), made(b"abc"), b"ab").unwrap();
        folder.write(&key(2), Fate::Failed, b"x").unwrap();
        let other = Folder::open(dir.path().to_owned(), 80).unwrap();
        other.write(&key(3), made(b"abc"), b"abc").unwrap();
        fs::write(dir.path().join(".unfinished-1-7"), "half").unwrap();
        fs::write(dir.path().join("index.html"), "mine").unwrap();
        fs::write(dir.path().join("names"), "").unwrap();
        assert!(folder.scan().unwrap().is_empty());
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["index.html", "names"]);
    }

    #[test]
    fn names_are_read_strictly() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned(), 70).unwrap();
        let good = folder.name(&key(1), made(b"abc"));
        assert!(folder.parse(&good).is_some(), "{good}");
        for bad in [
            format!("{good}.x"),
            good.replace("webp", "gif"),
            good.replace(".640.", ".."),
            good.to_uppercase(),
            good[1..].to_owned(),
            "names".to_owned(),
            String::new(),
        ] {
            assert!(folder.parse(&bad).is_none(), "{bad}");
        }
    }
}
