//! What the cache counts beside requests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use cache::storable::NotStored;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct CacheCounts {
    purges: AtomicU64,
    not_stored: [AtomicU64; NotStored::ALL.len()],
    /// By route: bounded by the routes that there ever were.
    compared: Mutex<BTreeMap<String, [u64; Compared::ALL.len()]>>,
}

/// What came of fetching a page for a session and without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// The same.
    Same,
    /// Another, though two fetches without the session gave the same.
    Different,
    /// Each fetch gave another page.
    Unstable,
    /// There were not two answers with 200 to compare.
    Failed,
}

impl Compared {
    /// Every result; the discriminant is the place in it.
    const ALL: [Self; 4] = [Self::Same, Self::Different, Self::Unstable, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::Unstable => "unstable",
            Self::Failed => "failed",
        }
    }
}

impl CacheCounts {
    /// A purge removed something or made it stale.
    pub(crate) fn purged(&self) {
        self.purges.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn purges(&self) -> u64 {
        self.purges.load(Ordering::Relaxed)
    }

    /// A response was not stored, for this reason.
    pub(crate) fn not_stored(&self, reason: NotStored) {
        self.not_stored[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// A page of this route was compared.
    pub(crate) fn compared(&self, route: &str, result: Compared) {
        let mut routes = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = match routes.get_mut(route) {
            Some(counts) => counts,
            None => routes.entry(route.to_owned()).or_default(),
        };
        counts[result as usize] += 1;
    }

    /// Reasons and how often.
    pub(super) fn reasons(&self) -> Vec<(&'static str, u64)> {
        let counts = NotStored::ALL.iter().zip(&self.not_stored);
        counts
            .map(|(reason, count)| (reason.as_str(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Routes, results and how often.
    pub(super) fn comparisons(&self) -> Vec<(String, &'static str, u64)> {
        let routes = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        let each = routes.iter().flat_map(|(route, counts)| {
            let results = Compared::ALL.iter().zip(counts);
            results.map(|(result, count)| (route.clone(), result.as_str(), *count))
        });
        each.collect()
    }
}
