//! How many connections are open, and the limits to that.
//!
//! Counted where connections are made and dropped, never on a request's way
//! over a kept one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Connections that are open or being made.
#[derive(Debug, Default)]
pub(super) struct Open(AtomicU32);

impl Open {
    pub(super) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more, unless there are `most` already.
    pub(super) fn take(&self, most: Option<u32>) -> bool {
        let Some(most) = most else {
            self.0.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < most).then_some(open + 1)
            })
            .is_ok()
    }

    pub(super) fn give(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's place among those that are counted: for its endpoint, and for the upstream.
#[derive(Debug)]
pub(crate) struct Slot {
    endpoint: Arc<Open>,
    upstream: Arc<Open>,
    given: AtomicBool,
}

impl Slot {
    /// Both have counted it already.
    pub(super) fn taken(endpoint: Arc<Open>, upstream: Arc<Open>) -> Self {
        Self {
            endpoint,
            upstream,
            given: AtomicBool::new(false),
        }
    }

    /// The connection is closed, or about to be and of no more use; later calls do nothing.
    pub(crate) fn give(&self) {
        if !self.given.swap(true, Ordering::Relaxed) {
            self.endpoint.give();
            self.upstream.give();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.give();
    }
}
