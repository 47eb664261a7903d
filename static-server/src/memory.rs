//! The resources held in memory, bounded by bytes.
//!
//! The store decides what stays; how long an entry is believed is the resource's own affair,
//! reckoned from the caller's `now` and not from a clock in here.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use moka::sync::Cache;

use crate::resource::Resource;

/// See the module.
pub(crate) struct Memory {
    cache: Cache<Arc<str>, Arc<Resource>>,
    born: OnceLock<Instant>,
}

impl Memory {
    /// A store of at most `bytes`; with 0 it keeps nothing.
    pub(crate) fn new(bytes: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(bytes)
            .weigher(|path: &Arc<str>, resource: &Arc<Resource>| {
                let weight = resource.weight().saturating_add(path.len() as u64);
                u32::try_from(weight).unwrap_or(u32::MAX)
            })
            .build();
        Self {
            cache,
            born: OnceLock::new(),
        }
    }

    /// `now` in milliseconds since the first request.
    pub(crate) fn millis(&self, now: Instant) -> u64 {
        let born = *self.born.get_or_init(|| now);
        u64::try_from(now.saturating_duration_since(born).as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn find(&self, path: &str) -> Option<Arc<Resource>> {
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
