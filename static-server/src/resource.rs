//! What stands behind one path: a file, and its precompressed siblings.
//!
//! A resource never changes. When a representation is read, or the files changed, a new
//! resource takes the place of the old one; whoever still holds the old one finishes with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::encoding::Encoding;
use crate::files::{Facts, Files, Sign};
use crate::representation::Representation;

/// One form that a file lies in.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    /// `None` is the file itself.
    pub(crate) encoding: Option<Encoding>,
    /// Name below the root.
    pub(crate) path: Box<str>,
    pub(crate) facts: Facts,
    /// Made when it is first asked for.
    pub(crate) ready: Option<Arc<Representation>>,
}

/// See the module.
pub(crate) struct Resource {
    /// The tree that the files are in.
    files: Arc<dyn Files>,
    /// The file itself, then its siblings in the order of preference.
    plain: Variant,
    packed: Vec<Variant>,
    named: Named,
    /// They go out when something changes; `None` where nobody tells.
    signs: Option<Vec<Sign>>,
    /// When the facts were last compared, in milliseconds of the site's life.
    checked: AtomicU64,
}

/// How a request came to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// By its name.
    Itself,
    /// As the index of the directory that was named.
    Index,
    /// As what answers for names that do not exist.
    Fallback,
    /// By the name of the original, to which this is the difference from a former release.
    Difference,
}

/// How long facts are believed without a look.
pub(crate) const TRUST_MILLIS: u64 = 1_000;

/// The same where changes are told: for those that cannot be (see [`crate::files`]).
pub(crate) const WATCHED_TRUST_MILLIS: u64 = 60_000;

/// What an entry weighs beside its bytes: names, lists, the cache's own bookkeeping.
const OVERHEAD: u64 = 2_048;

/// What a look found.
pub(crate) struct Seen {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) plain: Variant,
    pub(crate) packed: Vec<Variant>,
    pub(crate) named: Named,
    pub(crate) signs: Option<Vec<Sign>>,
}

impl Resource {
    pub(crate) fn new(seen: Seen, at: u64) -> Self {
        let linked = |variant: &Variant| variant.facts.linked;
        let followed = linked(&seen.plain) || seen.packed.iter().any(linked);
        Self {
            files: seen.files,
            plain: seen.plain,
            packed: seen.packed,
            named: seen.named,
            signs: seen.signs.filter(|_| !followed),
            checked: AtomicU64::new(at),
        }
    }

    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    pub(crate) fn named_as(mut self, named: Named) -> Self {
        self.named = named;
        self
    }

    pub(crate) fn named(&self) -> Named {
        self.named
    }

    pub(crate) fn plain(&self) -> &Variant {
        &self.plain
    }

    pub(crate) fn packed(&self) -> &[Variant] {
        &self.packed
    }

    /// The variant in a coding; the file itself where there is no such sibling.
    pub(crate) fn variant(&self, encoding: Option<Encoding>) -> &Variant {
        let found = self.packed.iter().find(|v| v.encoding == encoding);
        found.unwrap_or(&self.plain)
    }

    /// How long the facts are believed; `None` where they are known to be out of date.
    fn trust(&self) -> Option<u64> {
        match &self.signs {
            Some(signs) if signs.iter().all(Sign::is_lit) => Some(WATCHED_TRUST_MILLIS),
            Some(_) => None,
            None => Some(TRUST_MILLIS),
        }
    }

    /// Whether the facts may be believed at `at`, whoever asks.
    pub(crate) fn is_believed(&self, at: u64) -> bool {
        let checked = self.checked.load(Ordering::Relaxed);
        self.trust()
            .is_some_and(|trust| at < checked.saturating_add(trust))
    }

    /// Whether the facts may be believed at `at`. Of those who ask when they have grown old,
    /// one is told no and must look; the others go on with what there is.
    pub(crate) fn trusted(&self, at: u64) -> bool {
        let checked = self.checked.load(Ordering::Relaxed);
        let Some(trust) = self.trust() else {
            return false;
        };
        if at < checked.saturating_add(trust) {
            return true;
        }
        self.checked
            .compare_exchange(checked, at, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
    }

    /// Whether a new look found every file of `self` as it was.
    pub(crate) fn still(&self, now: &Self) -> bool {
        self.packed.len() == now.packed.len()
            && self
                .variants()
                .zip(now.variants())
                .all(|(old, new)| same(old, new))
    }

    /// Whether a new look gave nothing new: what was seen is the same, and so is what tells of
    /// changes.
    pub(crate) fn is_as_good_as(&self, now: &Self) -> bool {
        let told = match (&self.signs, &now.signs) {
            (Some(signs), Some(_)) => signs.iter().all(Sign::is_lit),
            (None, None) => true,
            _ => false,
        };
        told && Arc::ptr_eq(&self.files, &now.files) && self.still(now)
    }

    /// Takes over what `before` has ready and is still right. `Vary` stands in the lists made
    /// ready, so that a change of negotiability makes all of them anew.
    pub(crate) fn adopt(mut self, before: &Self) -> Self {
        if self.packed.is_empty() != before.packed.is_empty()
            || self.named != before.named
            || !Arc::ptr_eq(&self.files, &before.files)
        {
            return self;
        }
        // A packed form carries the modification time of the plain one.
        let plain_is_same = same(&before.plain, &self.plain);
        if !plain_is_same {
            return self;
        }
        for variant in std::iter::once(&mut self.plain).chain(&mut self.packed) {
            let old = before.variants().find(|old| same(old, variant));
            variant.ready = old.and_then(|old| old.ready.clone());
        }
        self
    }

    /// The same resource with one representation made ready.
    pub(crate) fn with(&self, encoding: Option<Encoding>, ready: &Arc<Representation>) -> Self {
        let set = |variant: &Variant| {
            let mut variant = variant.clone();
            if variant.encoding == encoding {
                variant.facts = *ready.facts();
                variant.ready = Some(Arc::clone(ready));
            }
            variant
        };
        Self {
            files: Arc::clone(&self.files),
            named: self.named,
            signs: self.signs.clone(),
            plain: set(&self.plain),
            packed: self.packed.iter().map(set).collect(),
            checked: AtomicU64::new(self.checked.load(Ordering::Relaxed)),
        }
    }

    /// The same resource with representations that no other thread counts references to, if all that
    /// are ready are in memory and of less than `most` bytes.
    pub(crate) fn of_a_thread(&self, most: u64) -> Option<Self> {
        let of_a_thread = |variant: &Variant| {
            let ready = match &variant.ready {
                Some(ready) => Some(Arc::new(ready.of_a_thread(most)?)),
                None => None,
            };
            Some(Variant {
                ready,
                ..variant.clone()
            })
        };
        Some(Self {
            files: Arc::clone(&self.files),
            named: self.named,
            signs: self.signs.clone(),
            plain: of_a_thread(&self.plain)?,
            packed: self.packed.iter().map(of_a_thread).collect::<Option<_>>()?,
            checked: AtomicU64::new(self.checked.load(Ordering::Relaxed)),
        })
    }

    /// What it counts for in the cache, in bytes.
    pub(crate) fn weight(&self) -> u64 {
        let ready = self
            .variants()
            .filter_map(|variant| variant.ready.as_deref());
        OVERHEAD.saturating_add(ready.map(Representation::weight).sum())
    }

    pub(crate) fn variants(&self) -> impl Iterator<Item = &Variant> {
        std::iter::once(&self.plain).chain(&self.packed)
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resource")
            .field("plain", &self.plain)
            .field("packed", &self.packed)
            .finish_non_exhaustive()
    }
}

fn same(old: &Variant, new: &Variant) -> bool {
    old.encoding == new.encoding && old.path == new.path && old.facts.still(&new.facts)
}
