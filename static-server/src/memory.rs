//! The resources held in memory, bounded by bytes.
//!
//! The store decides what stays; how long an entry is believed is the resource's own affair,
//! reckoned from the caller's `now` and not from a clock in here.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use moka::sync::Cache;
use near::{Look, Near};

use crate::resource::Resource;

/// Most bytes of one representation in a resource of which each thread keeps one of its own: what a
/// thread keeps so is at most [`near::PLACES`] times as much for each form of a file, part of which the
/// store may have let go of.
const MOST_NEAR: u64 = 16 * 1_024;

/// See the module.
pub(crate) struct Memory {
    cache: Cache<Arc<str>, Arc<Resource>>,
    /// Small ones that are in demand, of each thread.
    near: Arc<Near<Arc<Resource>>>,
    born: OnceLock<Instant>,
}

impl Memory {
    /// A store of at most `bytes`; with 0 it keeps nothing.
    pub(crate) fn new(bytes: u64) -> Self {
        let near = Arc::new(Near::default());
        let told = Arc::clone(&near);
        let cache = Cache::builder()
            .max_capacity(bytes)
            .weigher(|path: &Arc<str>, resource: &Arc<Resource>| {
                let weight = resource.weight().saturating_add(path.len() as u64);
                u32::try_from(weight).unwrap_or(u32::MAX)
            })
            .eviction_listener(move |path: Arc<Arc<str>>, _, _| told.change(path.as_bytes()))
            .build();
        Self {
            cache,
            near,
            born: OnceLock::new(),
        }
    }

    /// `now` in milliseconds since the first request.
    pub(crate) fn millis(&self, now: Instant) -> u64 {
        let born = *self.born.get_or_init(|| now);
        u64::try_from(now.saturating_duration_since(born).as_millis()).unwrap_or(u64::MAX)
    }

    /// The resource under `path`. One that is small and in demand is found without writing what
    /// other threads write, too, as long as it may be believed at `at`.
    pub(crate) fn find(&self, path: &str, at: u64) -> Option<Arc<Resource>> {
        let is_good = |resource: &Arc<Resource>| resource.is_believed(at);
        let mark = match self.near.look(path.as_bytes(), is_good) {
            Look::Here(resource) => return Some(resource),
            Look::Ask(mark) => mark,
        };
        let found = self.cache.get(path)?;
        self.near.keep(path.as_bytes(), mark, || {
            let own = found.of_a_thread(MOST_NEAR)?;
            Some(Arc::new(own))
        });
        Some(found)
    }

    /// The resource under `path`, as all threads see it.
    pub(crate) fn find_shared(&self, path: &str) -> Option<Arc<Resource>> {
        self.cache.get(path)
    }

    pub(crate) fn keep(&self, path: &str, resource: &Arc<Resource>) {
        self.cache.insert(path.into(), Arc::clone(resource));
    }

    pub(crate) fn forget(&self, path: &str) {
        self.cache.invalidate(path);
    }

    pub(crate) fn held(&self) -> (u64, u64) {
        (self.cache.entry_count(), self.cache.weighted_size())
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (entries, bytes) = self.held();
        write!(f, "Memory {{ entries: {entries}, bytes: {bytes} }}")
    }
}
