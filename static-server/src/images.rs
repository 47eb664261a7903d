//! Pictures in smaller forms: which one a request gets, and how it is made.
//!
//! A request for a picture leads to a [`choice::Variant`], and [`Images::variant`] says whether
//! that is there. If not, it is made in the background by threads of its own and kept on the
//! disk, and until then the original is as good. Nothing here waits for a codec.
//!
//! `choice` is pure; `make` and its helpers turn bytes into bytes; `folder`, `index` and `names`
//! keep what was made; `pool` joins them in threads.

pub mod choice;

mod colour;
mod encode;
mod folder;
mod index;
mod make;
mod names;
mod pixels;
mod pool;
#[cfg(test)]
mod sample;

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use choice::{Format, Original, Variant};
use folder::Folder;
use index::{Fate, Index, Key};
use pool::{Job, Pool};

use crate::fields::Fields;
use crate::files::{self, Age, Facts, Files};
use crate::hash::Hash;

/// Files that are longer are trusted by their length alone when they are opened first: hashing
/// them would hold the request up.
const MAX_CHECKED: u64 = 1_024 * 1_024;

/// Which variants there are, and what making them may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSettings {
    /// The formats offered, the favourite first.
    pub formats: Vec<Format>,
    /// The widths offered, in pixels, rising.
    pub widths: Vec<u32>,
    /// The folder that variants are kept in. It belongs to one site alone.
    pub cache: PathBuf,
    /// How many bytes of it may be used.
    pub size: u64,
    /// Quality of the lossy formats, 1 to 100.
    pub quality: u8,
    /// How many threads make variants.
    pub workers: NonZeroUsize,
    /// Originals of more pixels are served as they are.
    pub max_pixels: u64,
}

/// Why no variants can be made.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// The folder cannot be made, read or written to.
    #[error("{}: {error}", .cache.display())]
    Folder {
        /// The folder.
        cache: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No thread can be started.
    #[error("no thread can be started: {0}")]
    Thread(io::Error),
}

/// What is known of a variant.
#[derive(Debug)]
pub enum Lookup {
    /// It is there.
    Ready(Ready),
    /// It will be made, or asked for again by a later request.
    Making,
    /// It would be no smaller than the original.
    Useless,
    /// The original allows none.
    Failed,
}

/// A variant that is there.
#[derive(Debug)]
pub struct Ready {
    /// Its bytes, all of the file.
    pub file: Arc<File>,
    /// The facts of that file.
    pub facts: Facts,
    /// The first half of the SHA-256 of its bytes.
    pub tag: Hash,
    /// Its media type.
    pub media_type: &'static str,
}

/// What was done since the start, and what is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Variants made.
    pub made: u64,
    /// Variants that were no smaller than their original.
    pub useless: u64,
    /// Variants that could not be made.
    pub failed: u64,
    /// Wishes dropped because too many waited.
    pub dropped: u64,
    /// Variants waiting or being made.
    pub wanted: u64,
    /// Files in the folder, those included that only say that there is no variant.
    pub files: u64,
    /// Bytes that they take.
    pub bytes: u64,
}

/// See the module.
pub struct Images {
    formats: Vec<Format>,
    widths: Vec<u32>,
    pool: Arc<Pool>,
}

impl Images {
    /// Finds what an earlier run kept, and starts the threads.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be used. One that is full can.
    pub fn new(settings: &ImageSettings) -> Result<Self, ImagesError> {
        let trouble = |error| ImagesError::Folder {
            cache: settings.cache.clone(),
            error,
        };
        let folder = Folder::open(settings.cache.clone(), settings.quality).map_err(trouble)?;
        let mut index = Index::new(settings.size);
        for seen in folder.scan().map_err(trouble)? {
            for (key, fate) in index.keep(seen.key, seen.fate, false) {
                folder.remove(&key, fate);
            }
        }
        Ok(Self {
            formats: settings.formats.clone(),
            widths: settings.widths.clone(),
            pool: Pool::start(folder, settings, index).map_err(ImagesError::Thread)?,
        })
    }

    /// The variant that a request gets, or `None` for the original.
    pub fn choose(
        &self,
        original: Original,
        fields: &dyn Fields,
        query: Option<&str>,
    ) -> Option<Variant> {
        choice::choose(original, fields, query, &self.formats, &self.widths)
    }

    /// Looks for a variant of the file at `path` in `files`, and has it made if it is not there.
    /// Opens a file at most; the first time in a run, a short one is read to see that it is
    /// undamaged. `at` are milliseconds of any clock that goes on steadily.
    pub fn variant(
        &self,
        files: &Arc<dyn Files>,
        path: &str,
        facts: &Facts,
        original: Original,
        mut variant: Variant,
        at: u64,
    ) -> Lookup {
        if facts.len > make::MAX_FILE {
            return Lookup::Failed;
        }
        // It may still be being written, and change without another time stamp.
        if facts.age == Age::Fresh {
            return Lookup::Making;
        }
        let identity = names::identity(path, facts);
        match self.find(&identity, variant) {
            Found::Made(key, fate, checked) => {
                if let Some(ready) = self.open(key, fate, checked, original) {
                    return Lookup::Ready(ready);
                }
            }
            Found::Useless => return Lookup::Useless,
            Found::Failed => return Lookup::Failed,
            Found::Nothing(left) => variant = left,
        }
        let job = Job {
            files: Arc::clone(files),
            path: path.to_owned(),
            original,
            identity,
            variant,
        };
        self.pool.ask(job, at);
        Lookup::Making
    }

    /// See [`Counts`].
    pub fn counts(&self) -> Counts {
        let tally = &self.pool.tally;
        let wanted = self.pool.wanted() as u64;
        let state = self.pool.state();
        Counts {
            made: tally.made.load(Ordering::Relaxed),
            useless: tally.useless.load(Ordering::Relaxed),
            failed: tally.failed.load(Ordering::Relaxed),
            dropped: tally.dropped.load(Ordering::Relaxed),
            wanted,
            files: state.index.len() as u64,
            bytes: state.index.bytes(),
        }
    }

    fn find(&self, identity: &Hash, variant: Variant) -> Found {
        let mut state = self.pool.state();
        let Some(content) = state.names.content(identity) else {
            return Found::Nothing(variant);
        };
        let mut key = Key { content, variant };
        let mut found = state.index.find(&key);
        if matches!(found, Some((Fate::Whole, _))) {
            key.variant.width = None;
            if key.variant.is_original() {
                return Found::Useless;
            }
            found = state.index.find(&key);
        }
        match found {
            Some((fate @ Fate::Made { .. }, checked)) => Found::Made(key, fate, checked),
            Some((Fate::Useless, _)) => Found::Useless,
            Some((Fate::Failed, _)) => Found::Failed,
            Some((Fate::Whole, _)) | None => Found::Nothing(key.variant),
        }
    }

    /// Opens what is said to be there. What is gone or damaged is forgotten.
    fn open(&self, key: Key, fate: Fate, checked: bool, original: Original) -> Option<Ready> {
        let Fate::Made { len, tag } = fate else {
            return None;
        };
        let file = self.pool.folder.file(&key, fate).ok();
        let facts = file.as_ref().and_then(|file| files::facts_of(file).ok());
        let whole = file
            .zip(facts)
            .filter(|(_, facts)| facts.len == len)
            .filter(|(file, _)| checked || len > MAX_CHECKED || hash_of(file, len) == Some(tag));
        let Some((file, facts)) = whole else {
            self.pool.state().index.forget(&key);
            self.pool.folder.remove(&key, fate);
            return None;
        };
        if !checked {
            self.pool.state().index.checked(&key);
        }
        Some(Ready {
            file: Arc::new(file),
            facts,
            tag,
            media_type: key.variant.media_type(original),
        })
    }
}

enum Found {
    Made(Key, Fate, bool),
    Useless,
    Failed,
    /// This is to be made.
    Nothing(Variant),
}

fn hash_of(file: &File, len: u64) -> Option<Hash> {
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(Hash::of(&bytes))
}

impl Drop for Images {
    /// The threads end by themselves: whoever drops this must not wait for a codec.
    fn drop(&mut self) {
        self.pool.stop();
    }
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
