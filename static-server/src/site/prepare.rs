//! From a file that was seen to a representation that can be sent: read or opened, hashed,
//! with its header lists made.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use http::header::{ACCEPT, ACCEPT_ENCODING};

use crate::confine::escaped_name;
use crate::dictionary;
use crate::encoding::Encoding;
use crate::files::{Facts, Trouble, pread};
use crate::fingerprint;
use crate::frozen::Allowance;
use crate::hash::Hash;
use crate::images::choice::Original;
use crate::memory::Memory;
use crate::mime;
use crate::representation::{Content, Heading, Representation, Source};
use crate::resource::{Named, Resource, Variant};
use crate::settings::Immutable;
use crate::value;

/// How many hashes of large files are remembered.
const MOST_HASHES: usize = 10_000;

/// The settings that a file meets.
pub(super) struct Rules {
    pub(super) cache_control: Option<HeaderValue>,
    pub(super) immutable: Option<Immutable>,
    /// Whether pictures are sent in the format that the client takes.
    pub(super) by_accept: bool,
    pub(super) dictionaries: bool,
    pub(super) memory: u64,
    pub(super) max_memory_file: u64,
}

/// Makes representations, and keeps what it makes.
pub(crate) struct Preparation {
    memory: Memory,
    rules: Rules,
    /// For second copies of what is in memory.
    twins: Arc<Allowance>,
    /// Of files that are not read whole on the way of a request, by name.
    hashes: Mutex<HashMap<Box<str>, (Facts, Hash)>>,
}

impl Preparation {
    pub(super) fn new(memory: Memory, rules: Rules) -> Self {
        /// What the copies may take, beside the site's memory: this share of it.
        const TWINS_SHARE: u64 = 8;
        Self {
            memory,
            twins: Arc::new(Allowance::new(rules.memory / TWINS_SHARE)),
            rules,
            hashes: Mutex::default(),
        }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The largest file of which a copy may be made that is sent without copying: the copies count
    /// as memory of the site, and one must not drive out all others.
    pub(crate) fn most_frozen(&self) -> u64 {
        const LARGEST: u64 = 16 * 1_024 * 1_024;
        LARGEST.min(self.rules.memory / 4)
    }

    /// Reads or opens a variant, and keeps it for the next request under `key`.
    pub(crate) fn prepare(
        &self,
        key: &str,
        resource: &Resource,
        variant: &Variant,
    ) -> Result<Arc<Representation>, Trouble> {
        let (content, facts) = self.content(resource, variant)?;
        let hash = self.known_hash(&variant.path, &facts);
        Ok(self.keep(key, resource, variant, (content, facts, hash)))
    }

    /// Makes the representation of a variant whose bytes are at hand, and keeps it.
    pub(crate) fn keep(
        &self,
        key: &str,
        resource: &Resource,
        variant: &Variant,
        (content, facts, hash): (Content, Facts, Option<Hash>),
    ) -> Arc<Representation> {
        let plain = resource.plain();
        let (original, encoding) = match resource.named() {
            Named::Difference => match dictionary::original(&plain.path) {
                Some((original, delta)) => (original, Some(delta.as_str())),
                None => (&*plain.path, None),
            },
            _ => (&*plain.path, variant.encoding.map(Encoding::as_str)),
        };
        let ready = Arc::new(Representation::new(Source {
            content,
            facts,
            content_type: HeaderValue::from_static(mime::of(original)),
            encoding,
            modified: if variant.encoding.is_some() {
                plain.facts
            } else {
                facts
            },
            hash,
            heading: self.heading(resource, variant, original),
        }));
        let kept = resource.with(variant.encoding, &ready);
        self.memory.keep(key, &Arc::new(kept));
        ready
    }

    /// Makes the representation of a picture's variant, which lives as long and is as old as the
    /// picture itself. `None` where its bytes cannot be read.
    pub(super) fn picture(
        &self,
        original: &Resource,
        content_type: HeaderValue,
        (file, facts, hash): (Arc<File>, Facts, Hash),
    ) -> Option<Representation> {
        let content = match usize::try_from(facts.len) {
            Ok(len) if facts.len <= self.rules.max_memory_file => {
                let bytes = pread(&file, 0, len).ok()?;
                let bytes = Some(bytes).filter(|bytes| bytes.len() == len)?;
                Content::memory(bytes, Arc::clone(&self.twins))
            }
            _ => Content::File(file),
        };
        let plain = original.plain();
        Some(Representation::new(Source {
            content,
            facts,
            content_type,
            encoding: None,
            modified: plain.facts,
            hash: Some(hash),
            heading: Heading {
                location: None,
                ..self.heading(original, plain, &plain.path)
            },
        }))
    }

    /// Remembers the hash of a file.
    pub(crate) fn learn(&self, path: &str, facts: &Facts, hash: Hash) {
        let mut hashes = self.hashes();
        if hashes.len() >= MOST_HASHES {
            hashes.clear();
        }
        hashes.insert(path.into(), (*facts, hash));
    }

    fn known_hash(&self, path: &str, facts: &Facts) -> Option<Hash> {
        let hashes = self.hashes();
        let (of, hash) = hashes.get(path)?;
        of.still(facts).then_some(*hash)
    }

    fn hashes(&self) -> MutexGuard<'_, HashMap<Box<str>, (Facts, Hash)>> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a small file, the descriptor of a large one.
    fn content(&self, resource: &Resource, variant: &Variant) -> Result<(Content, Facts), Trouble> {
        let limit = self.rules.max_memory_file;
        if variant.facts.len <= limit {
            match resource.files().read(&variant.path, limit) {
                Ok((bytes, facts)) => {
                    return Ok((Content::memory(bytes, Arc::clone(&self.twins)), facts));
                }
                // It has grown beyond the limit since it was looked at, or keeps changing.
                Err(Trouble::Unstable) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        let (file, facts) = resource.files().open(&variant.path)?;
        Ok((Content::File(file), facts))
    }

    /// Whether differences of the file at `path` may be sent.
    pub(super) fn has_differences(&self, named: Named, path: &str) -> bool {
        self.rules.dictionaries
            && matches!(named, Named::Itself | Named::Difference)
            && mime::packs(mime::of(path))
            && dictionary::use_as(name(path)).is_some()
    }

    fn heading(&self, resource: &Resource, variant: &Variant, original: &str) -> Heading {
        let vary = if !resource.packed().is_empty() {
            Some(ACCEPT_ENCODING)
        } else if self.rules.by_accept && Original::of(mime::of(original)).is_some() {
            Some(ACCEPT)
        } else {
            None
        };
        let chosen = match resource.named() {
            Named::Itself => variant.encoding.is_some(),
            Named::Index | Named::Difference => true,
            // A relative name would lead elsewhere from each page that it answers for.
            Named::Fallback => false,
        };
        let differs = self.has_differences(resource.named(), original);
        Heading {
            vary: match differs {
                true => Some(dictionary::VARY),
                false => vary.map(HeaderValue::from),
            },
            cache_control: self.cache_control(original),
            location: chosen.then(|| value::visible(&escaped_name(name(&variant.path)))),
            dictionary: dictionary::use_as(name(original)).filter(|_| differs),
        }
    }

    /// What says how long clients may keep the file at `path`.
    fn cache_control(&self, path: &str) -> Option<HeaderValue> {
        match &self.rules.immutable {
            Some(immutable) if is_immutable(immutable, path) => {
                Some(immutable.cache_control.clone())
            }
            _ => self.rules.cache_control.clone(),
        }
    }
}

/// The last segment of a path.
fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn is_immutable(immutable: &Immutable, path: &str) -> bool {
    fingerprint::of(name(path)).is_some() || immutable.patterns.iter().any(|all| all.matches(path))
}
