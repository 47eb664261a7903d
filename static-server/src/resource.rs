//! What stands behind one path: a file, and its precompressed siblings.
//!
//! A resource never changes. When a representation is read, or the files changed, a new
//! resource takes the place of the old one; whoever still holds the old one finishes with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::encoding::Encoding;
use crate::files::Facts;
use crate::representation::{Content, Representation};

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
#[derive(Debug)]
pub(crate) struct Resource {
    /// The file itself, then its siblings in the order of preference.
    plain: Variant,
    packed: Vec<Variant>,
    /// When the facts were last compared, in milliseconds of the site's life.
    checked: AtomicU64,
}

/// How long facts are believed without a look.
pub(crate) const TRUST_MILLIS: u64 = 1_000;

/// What an entry weighs beside its bytes: names, lists, the cache's own bookkeeping.
const OVERHEAD: u64 = 1_024;

/// What an open descriptor weighs: there are far fewer of them than bytes.
const DESCRIPTOR: u64 = 64 * 1_024;

impl Resource {
    pub(crate) fn new(plain: Variant, packed: Vec<Variant>, at: u64) -> Self {
        Self {
            plain,
            packed,
            checked: AtomicU64::new(at),
        }
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

    /// Whether the facts may be believed at `at`. Of those who ask when they have grown old,
    /// one is told no and must look; the others go on with what there is.
    pub(crate) fn trusted(&self, at: u64) -> bool {
        let checked = self.checked.load(Ordering::Relaxed);
        if at < checked.saturating_add(TRUST_MILLIS) {
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

    /// Takes over what `before` has ready and is still right. `Vary` stands in the lists made
    /// ready, so that a change of negotiability makes all of them anew.
    pub(crate) fn adopt(mut self, before: &Self) -> Self {
        if self.packed.is_empty() != before.packed.is_empty() {
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
            plain: set(&self.plain),
            packed: self.packed.iter().map(set).collect(),
            checked: AtomicU64::new(self.checked.load(Ordering::Relaxed)),
        }
    }

    /// What it counts for in the cache, in bytes.
    pub(crate) fn weight(&self) -> u64 {
        let ready = self
            .variants()
            .filter_map(|variant| variant.ready.as_deref());
        let content: u64 = ready
            .map(|ready| match ready.content() {
                Content::Memory(bytes) => bytes.len() as u64,
                Content::File(_) => DESCRIPTOR,
            })
            .sum();
        OVERHEAD.saturating_add(content)
    }

    fn variants(&self) -> impl Iterator<Item = &Variant> {
        std::iter::once(&self.plain).chain(&self.packed)
    }
}

fn same(old: &Variant, new: &Variant) -> bool {
    old.encoding == new.encoding && old.path == new.path && old.facts.still(&new.facts)
}
