//! Compressing a directory ahead: the copies that [`crate::Site`] looks for beside its files.
//!
//! What is done once may take its time: Brotli at 11 packs a fifth better than what a server
//! can afford on the fly. A copy is made again when its original is younger, and taken away
//! when it no longer pays. It carries the time and the permissions of its original, and takes
//! its place by renaming, so that a server may run meanwhile.
//!
//! What it does not do: follow links out of the root, touch what a site would not serve, print.

mod deltas;
mod pack;
mod walk;
mod write;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::dictionary::{Delta, Hash};
use crate::encoding::Encoding;
use deltas::Pair;
use walk::{Found, Tree};
use write::{Copy, Outcome};

/// Files of fewer bytes are left alone: they fit into the first packet anyhow.
pub const DEFAULT_MIN_SIZE: u64 = 256;

/// A copy must save this many percent of its original, or it is not worth its place.
const LEAST_PERCENT: u64 = 5;

/// And so many bytes.
const LEAST_BYTES: u64 = 64;

/// How much time may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// About twenty times as fast, and a tenth larger.
    Fast,
    /// The best that the formats give.
    Best,
}

impl Level {
    fn choose<T>(self, fast: T, best: T) -> T {
        match self {
            Self::Fast => fast,
            Self::Best => best,
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Make what is missing.
    Write,
    /// Take away the copies of `formats` and all differences.
    Remove,
}

/// What to compress, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory.
    pub root: PathBuf,
    /// The copies to make.
    pub formats: Vec<Encoding>,
    /// Files that are packed at the same time.
    pub jobs: NonZeroUsize,
    /// Files of fewer bytes get no copies.
    pub min_size: u64,
    /// How much time may be spent.
    pub level: Level,
    /// Directories of former releases, to which differences are made (see [`crate::dictionary`]).
    pub previous: Vec<PathBuf>,
    /// What is to be done.
    pub work: Work,
    /// Pack and measure all the same, but leave everything as it is.
    pub dry: bool,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes are to be packed from now on.
    Begun(u64),
    /// So many more of them are done.
    Done(u64),
}

/// Copies of one format, those that were there already included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub copies: u64,
    /// Bytes of their originals.
    pub before: u64,
    /// Bytes of the copies.
    pub after: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Files that can be packed and are large enough.
    pub files: u64,
    /// Copies that were made, or would be.
    pub written: u64,
    /// Copies that were there.
    pub current: u64,
    /// Copies that would save too little.
    pub useless: u64,
    /// Copies that were taken away, or would be.
    pub removed: u64,
    /// Files that have former releases, of which nobody can say which is which.
    pub unclear: u64,
    /// By the name of the coding.
    pub formats: BTreeMap<&'static str, Sum>,
    /// What failed: the file, and why.
    pub troubles: Vec<String>,
    /// Whether it was told to stop before the end.
    pub stopped: bool,
}

/// Does what `settings` say; what fails for one file stands in the report and stops no other.
///
/// # Errors
///
/// Where one of the directories is none.
pub fn run(
    settings: &Settings,
    progress: &(dyn Fn(Progress) + Sync),
    stop: &AtomicBool,
) -> Result<Report, NoDirectory> {
    let root = real(&settings.root)?;
    let previous = settings.previous.iter().map(|path| real(path));
    let previous = previous.collect::<Result<Vec<_>, _>>()?;
    let tree = walk::tree(&root);
    let job = Job {
        settings,
        progress,
        stop,
        report: Mutex::default(),
    };
    match settings.work {
        Work::Remove => job.remove(&tree),
        Work::Write => job.write(tree, &previous),
    }
    let mut report = job
        .report
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    report.stopped |= stop.load(Ordering::Relaxed);
    report.troubles.sort();
    Ok(report)
}

/// A directory that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .path.display())]
pub struct NoDirectory {
    path: PathBuf,
    error: io::Error,
}

fn real(path: &Path) -> Result<PathBuf, NoDirectory> {
    let real = path.canonicalize().and_then(|real| match real.is_dir() {
        true => Ok(real),
        false => Err(io::ErrorKind::NotADirectory.into()),
    });
    real.map_err(|error| NoDirectory {
        path: path.to_owned(),
        error,
    })
}

struct Job<'a> {
    settings: &'a Settings,
    progress: &'a (dyn Fn(Progress) + Sync),
    stop: &'a AtomicBool,
    report: Mutex<Report>,
}

impl Job<'_> {
    fn write(&self, mut tree: Tree, previous: &[PathBuf]) {
        tree.files.retain(|file| file.len >= self.settings.min_size);
        let mut former = Vec::new();
        for root in previous {
            let old = walk::tree(root);
            former.extend(old.files);
            self.note(|report| report.troubles.extend(old.troubles));
        }
        let (pairs, unclear) = deltas::pairs(&tree.files, &former);
        let formats = &self.settings.formats;
        let copies = tree.files.iter();
        let mut copies: Vec<_> = copies
            .flat_map(|file| formats.iter().map(move |&format| (file, format)))
            .collect();
        let mut deltas: Vec<_> = pairs
            .iter()
            .flat_map(|pair| Delta::ALL.into_iter().map(move |delta| (pair, delta)))
            .filter(|(pair, delta)| fits(pair, *delta))
            .collect();
        let bytes = copies.iter().map(|(file, _)| file.len).sum::<u64>()
            + deltas.iter().map(|(pair, _)| pair.file.len).sum::<u64>();
        (self.progress)(Progress::Begun(bytes));
        self.note(|report| {
            report.files = tree.files.len() as u64;
            report.unclear = unclear as u64;
            report.troubles.append(&mut tree.troubles);
        });
        // The longest first: whoever comes last should be done soon.
        copies.sort_by_key(|(file, _)| Reverse(file.len));
        self.each(&copies, |&(file, format)| {
            self.done(file, format.as_str(), self.copy(file, format));
        });
        // A difference must beat the copies, which therefore come first.
        deltas.sort_by_key(|(pair, _)| Reverse(pair.file.len));
        self.each(&deltas, |&(pair, delta)| {
            self.done(pair.file, delta.as_str(), self.delta(pair, delta));
        });
    }

    /// Hands the work out to the threads.
    fn each<T: Sync>(&self, work: &[T], one: impl Fn(&T) + Sync) {
        let next = AtomicUsize::new(0);
        let worker = || {
            while let Some(item) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                one(item);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.settings.jobs.get().min(work.len()) {
                scope.spawn(worker);
            }
        });
    }

    fn copy(&self, file: &Found, format: Encoding) -> io::Result<Outcome> {
        let copy = Copy {
            original: &file.path,
            place: beside(&file.path, format.suffix()),
            budget: &worthwhile,
            dry: self.settings.dry,
            stop: self.stop,
        };
        let level = self.settings.level;
        copy.make(&|length, source, out| pack::plain(format, level, length, source, out))
    }

    fn delta(&self, pair: &Pair<'_>, delta: Delta) -> io::Result<Outcome> {
        let dictionary = fs::read(pair.dictionary)?;
        let ending = Hash::of(&dictionary).sibling("", delta);
        let best = best_copy(&pair.file.path);
        let copy = Copy {
            original: &pair.file.path,
            place: beside(&pair.file.path, &ending),
            budget: &|length| worthwhile(length).min(best.saturating_sub(1)),
            dry: self.settings.dry,
            stop: self.stop,
        };
        let level = self.settings.level;
        copy.make(&|length, source, out| {
            pack::delta(delta, level, &dictionary, length, source, out)
        })
    }

    fn remove(&self, tree: &Tree) {
        let formats = &self.settings.formats;
        for path in &tree.copies {
            let name = path.to_string_lossy();
            let plain = Encoding::ALL
                .into_iter()
                .find(|it| name.ends_with(it.suffix()));
            if plain.is_some_and(|format| !formats.contains(&format)) {
                continue;
            }
            let removed = match self.settings.dry {
                true => Ok(()),
                false => fs::remove_file(path),
            };
            match removed {
                Ok(()) => self.note(|report| report.removed += 1),
                Err(error) => self.trouble(path, &error),
            }
        }
        self.note(|report| report.troubles.extend_from_slice(&tree.troubles));
    }

    fn done(&self, file: &Found, format: &'static str, outcome: io::Result<Outcome>) {
        self.note(|report| match &outcome {
            Ok(Outcome::Written { before, after }) => {
                report.written += 1;
                report.count(format, *before, *after);
            }
            Ok(Outcome::Current { before, after }) => {
                report.current += 1;
                report.count(format, *before, *after);
            }
            Ok(Outcome::Useless { removed }) => {
                report.useless += 1;
                report.removed += u64::from(*removed);
            }
            Ok(Outcome::Stopped) => report.stopped = true,
            Err(_) => {}
        });
        if let Err(error) = outcome {
            self.trouble(&file.path, &error);
        }
        (self.progress)(Progress::Done(file.len));
    }

    fn trouble(&self, path: &Path, error: &io::Error) {
        let text = format!("{}: {error}", path.display());
        self.note(|report| {
            // An unreadable file fails once for each format.
            if !report.troubles.contains(&text) {
                report.troubles.push(text);
            }
        });
    }

    fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Report {
    fn count(&mut self, format: &'static str, before: u64, after: u64) {
        let sum = self.formats.entry(format).or_default();
        sum.copies += 1;
        sum.before += before;
        sum.after += after;
    }
}

/// The most bytes that a copy of `length` may have.
fn worthwhile(length: u64) -> u64 {
    let saving = (length / 100 * LEAST_PERCENT).max(LEAST_BYTES);
    length.saturating_sub(saving)
}

fn fits(pair: &Pair<'_>, delta: Delta) -> bool {
    let both = pair.dictionary_len.saturating_add(pair.file.len);
    delta == Delta::Zstd || both <= pack::MOST_FOR_BROTLI
}

/// The length of the smallest copy that lies beside a file; its own where there is none.
fn best_copy(path: &Path) -> u64 {
    let copies = Encoding::ALL
        .into_iter()
        .map(|format| beside(path, format.suffix()));
    let lengths = copies
        .chain([path.to_owned()])
        .filter_map(|path| path.metadata().ok());
    lengths.map(|facts| facts.len()).min().unwrap_or(0)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests;
