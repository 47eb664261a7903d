//! A set of endpoints as one worker refers to it.
//!
//! Each request keeps the set that it took, and its record the names in it. Were these references to
//! the set itself, every request of every worker would write the same two counts.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Members;
use crate::observe::metrics::Shown;

/// See the module's text. Its counts stand on lines of memory of their own.
#[repr(align(128))]
pub(crate) struct Share {
    members: Arc<Members>,
    shown: Arc<Shown>,
}

impl Share {
    pub(super) fn of(members: &Arc<Members>) -> Self {
        Self {
            shown: Arc::new(Shown::of(members.shown())),
            members: Arc::clone(members),
        }
    }

    /// Names and counters, for records.
    pub(crate) fn shown(&self) -> &Arc<Shown> {
        &self.shown
    }
}

impl Deref for Share {
    type Target = Members;

    fn deref(&self) -> &Members {
        &self.members
    }
}

/// The set that is in use, and each worker's share of it.
pub(super) struct Shares {
    members: ArcSwap<Members>,
    of_workers: Box<[OfWorker]>,
}

/// Each on lines of its own, as a worker writes there while it takes its share.
#[repr(align(128))]
struct OfWorker(ArcSwap<Share>);

impl Shares {
    pub(super) fn new(members: Members, workers: usize) -> Self {
        let members = Arc::new(members);
        let own = |_| OfWorker(ArcSwap::from_pointee(Share::of(&members)));
        Self {
            of_workers: (0..workers).map(own).collect(),
            members: ArcSwap::new(members),
        }
    }

    /// The set, for all but requests.
    pub(super) fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// The share of `worker`.
    pub(super) fn of(&self, worker: usize) -> Arc<Share> {
        match self.of_workers.get(worker) {
            Some(own) => own.0.load_full(),
            None => Arc::new(Share::of(&self.members.load())),
        }
    }

    /// Requests that come from now on take this one.
    pub(super) fn replace(&self, members: Members) {
        let members = Arc::new(members);
        for own in &self.of_workers {
            own.0.store(Arc::new(Share::of(&members)));
        }
        self.members.store(members);
    }
}
