//! One copy beside one file: whether it is needed, whether it pays, and its place taken whole.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::NamedTempFile;

/// What came of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is new, of so many bytes for so many.
    Written { before: u64, after: u64 },
    /// It was there.
    Current { before: u64, after: u64 },
    /// It would save too little; whether an old one was taken away.
    Useless { removed: bool },
    /// Told to stop.
    Stopped,
}

/// A copy to be made.
pub(super) struct Copy<'a> {
    pub(super) original: &'a Path,
    /// Where the copy belongs, in the same folder.
    pub(super) place: PathBuf,
    /// The most bytes that it may have, of the original's length.
    pub(super) budget: &'a dyn Fn(u64) -> u64,
    /// Writes nothing.
    pub(super) dry: bool,
    pub(super) stop: &'a AtomicBool,
}

/// Packs all of a source of so many bytes.
type Pack<'a> = &'a dyn Fn(u64, &mut dyn Read, &mut dyn Write) -> io::Result<()>;

impl Copy<'_> {
    /// Makes it, unless it is there already.
    ///
    /// # Errors
    ///
    /// What the system says, or that the original changed meanwhile.
    pub(super) fn make(&self, pack: Pack<'_>) -> io::Result<Outcome> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(Outcome::Stopped);
        }
        let (source, facts) = open(self.original)?;
        let before = facts.len();
        let there = fs::symlink_metadata(&self.place).ok();
        if let Some(copy) = &there
            && is_current(copy, &facts)
        {
            let after = copy.len();
            return Ok(Outcome::Current { before, after });
        }
        let temporary = match self.dry {
            true => None,
            false => Some(temporary(&self.place)?),
        };
        let mut input = Input {
            file: &source,
            stop: self.stop,
            stopped: false,
            read: 0,
        };
        let mut output = Output {
            file: temporary.as_ref().map(|it| BufWriter::new(it.as_file())),
            budget: (self.budget)(before),
            exceeded: false,
            written: 0,
        };
        let packed = pack(before, &mut input, &mut output).and_then(|()| output.flush());
        if input.stopped {
            return Ok(Outcome::Stopped);
        }
        // An encoder that was promised another length fails by itself, and says less.
        let whole = output.exceeded || packed.is_err() || input.read == before;
        if !whole || !same(&facts, &source.metadata()?) {
            return Err(io::Error::other("it changed while it was read"));
        }
        if output.exceeded {
            let removed = there.is_some_and(|copy| copy.is_file()) && !self.dry;
            if removed {
                fs::remove_file(&self.place)?;
            }
            return Ok(Outcome::Useless { removed });
        }
        packed?;
        let after = output.written;
        drop(output);
        if let Some(temporary) = temporary {
            self.place(temporary, &facts)?;
        }
        Ok(Outcome::Written { before, after })
    }

    /// Puts what is finished in its place, with the original's permissions and time: a copy of
    /// the tree that keeps times then keeps the two together.
    fn place(&self, temporary: NamedTempFile, facts: &Metadata) -> io::Result<()> {
        let file = temporary.as_file();
        let mode = facts.permissions().mode() & 0o777;
        file.set_permissions(PermissionsExt::from_mode(mode))?;
        file.set_modified(facts.modified()?)?;
        let placed = temporary.persist(&self.place);
        placed.map(drop).map_err(|refused| refused.error)
    }
}

/// Opens a regular file. A pipe that took its place since it was seen must not hold us.
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    let facts = file.metadata()?;
    if facts.is_file() {
        Ok((file, facts))
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// A file in the same folder, of a name that is never served, which is gone when dropped.
fn temporary(place: &Path) -> io::Result<NamedTempFile> {
    let folder = place.parent().unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(".tidegate-")
        .suffix(".tmp")
        .tempfile_in(folder)
}

fn same(before: &Metadata, after: &Metadata) -> bool {
    let facts = |of: &Metadata| (of.len(), of.mtime(), of.mtime_nsec());
    facts(before) == facts(after)
}

/// Whether a copy packs what the original is now.
///
/// The server compares seconds. Within one second, a copy that is older to the nanosecond packs
/// what was there before, unless whoever copied it cut the rest off its time.
pub(super) fn is_current(copy: &Metadata, original: &Metadata) -> bool {
    copy.is_file()
        && copy.len() > 0
        && (copy.mtime() > original.mtime()
            || copy.mtime() == original.mtime()
                && (copy.mtime_nsec() >= original.mtime_nsec() || copy.mtime_nsec() == 0))
}

/// The original, as far as the encoder has read it.
struct Input<'a> {
    file: &'a File,
    stop: &'a AtomicBool,
    stopped: bool,
    read: u64,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            self.stopped = true;
            return Err(io::Error::other("stopped"));
        }
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}

/// The copy, as far as it is written; without a file it is only measured.
struct Output<'a> {
    file: Option<BufWriter<&'a File>>,
    budget: u64,
    exceeded: bool,
    written: u64,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written + bytes.len() as u64 > self.budget {
            self.exceeded = true;
            return Err(io::Error::other("too long"));
        }
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
        }
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// A copy made of the original as it is, after `during` was done to the original.
    fn copy_with(
        content: &str,
        budget: u64,
        during: impl Fn(&Path),
    ) -> (tempfile::TempDir, io::Result<Outcome>) {
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("a.js");
        fs::write(&original, content).unwrap();
        let stop = AtomicBool::new(false);
        let copy = Copy {
            original: &original,
            place: dir.path().join("a.js.br"),
            budget: &|_| budget,
            dry: false,
            stop: &stop,
        };
        let outcome = copy.make(&|_, source, out| {
            let mut text = Vec::new();
            source.read_to_end(&mut text)?;
            during(&original);
            out.write_all(&text)
        });
        (dir, outcome)
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(dir.path()).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        let mut names: Vec<_> = entries.map(|entry| name(entry).unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_copy_has_the_permissions_and_the_time_of_its_original() {
        let past = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("a.js");
        fs::write(&original, "content").unwrap();
        let file = File::options().write(true).open(&original).unwrap();
        file.set_modified(past).unwrap();
        file.set_permissions(PermissionsExt::from_mode(0o640))
            .unwrap();
        let stop = AtomicBool::new(false);
        let copy = Copy {
            original: &original,
            place: dir.path().join("a.js.br"),
            budget: &|_| 100,
            dry: false,
            stop: &stop,
        };
        let pack: Pack<'_> = &|_, source, out| io::copy(source, out).map(drop);
        let (before, after) = (7, 7);
        assert_eq!(copy.make(pack).unwrap(), Outcome::Written { before, after });
        let facts = fs::metadata(&copy.place).unwrap();
        assert_eq!(facts.modified().unwrap(), past);
        assert_eq!(facts.permissions().mode() & 0o7777, 0o640);
        assert_eq!(copy.make(pack).unwrap(), Outcome::Current { before, after });
        // Written again within the same second, it is another file.
        file.set_modified(past + Duration::from_millis(5)).unwrap();
        assert_eq!(copy.make(pack).unwrap(), Outcome::Written { before, after });
        assert_eq!(names(&dir), ["a.js", "a.js.br"]);
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_gets_no_copy() {
        for change in ["longer content", "b", ""] {
            let (dir, outcome) = copy_with("content", 100, |path| fs::write(path, change).unwrap());
            let error = outcome.unwrap_err();
            assert_eq!(error.to_string(), "it changed while it was read");
            assert_eq!(names(&dir), ["a.js"]);
        }
    }

    #[test]
    fn what_is_too_long_leaves_nothing_behind() {
        let (dir, outcome) = copy_with("content", 6, |_| ());
        assert_eq!(outcome.unwrap(), Outcome::Useless { removed: false });
        assert_eq!(names(&dir), ["a.js"]);
    }

    #[test]
    fn an_error_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("a.js");
        fs::write(&original, "content").unwrap();
        let stop = AtomicBool::new(false);
        let mut copy = Copy {
            original: &original,
            place: dir.path().join("a.js.br"),
            budget: &|_| 100,
            dry: false,
            stop: &stop,
        };
        let full: Pack<'_> = &|_, _, _| Err(io::ErrorKind::StorageFull.into());
        assert_eq!(
            copy.make(full).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        // A folder stands where the copy belongs.
        copy.place = dir.path().join("folder");
        fs::create_dir_all(copy.place.join("x")).unwrap();
        let pack: Pack<'_> = &|_, source, out| io::copy(source, out).map(drop);
        assert!(copy.make(pack).is_err());
        assert_eq!(names(&dir), ["a.js", "folder"]);
    }

    #[test]
    fn whoever_is_told_to_stop_in_the_middle_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("a.js");
        fs::write(&original, vec![b'a'; 1_000_000]).unwrap();
        let stop = AtomicBool::new(false);
        let copy = Copy {
            original: &original,
            place: dir.path().join("a.js.br"),
            budget: &|len| len,
            dry: false,
            stop: &stop,
        };
        let pack: Pack<'_> = &|_, source, out| {
            let mut piece = [0; 1_000];
            source.read_exact(&mut piece)?;
            out.write_all(&piece)?;
            stop.store(true, Ordering::Relaxed);
            io::copy(source, out).map(drop)
        };
        assert_eq!(copy.make(pack).unwrap(), Outcome::Stopped);
        assert_eq!(names(&dir), ["a.js"]);
    }
}
