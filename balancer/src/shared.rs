//! What the pools of successive configurations share besides their endpoints.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::histogram::Histogram;
use crate::load::Total;
use crate::retry::RetryBudget;
use crate::stamp::Stamp;

/// The part of a pool that outlives a reload.
///
/// What requests write (the count of requests, the retry budget) stands on cache lines of its own;
/// the rest is written about once a second or when health changes.
#[derive(Debug, Default)]
pub(crate) struct PoolState {
    pub(crate) total: Total,
    pub(crate) retries: RetryBudget,
    /// Latencies of all endpoints, as of the last sweep.
    pub(crate) latencies: Histogram,
    health: Health,
    /// Held while deciding who may be ejected.
    ejections: Mutex<()>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Health {
    /// Counts the changes of health of any endpoint.
    generation: AtomicU64,
    /// What an endpoint of this pool typically takes, in microseconds, as the bits of an `f32`;
    /// zero if that is not known.
    typical: AtomicU32,
    /// Whether the log was told that the pool panics.
    panic_told: AtomicBool,
    /// When latencies were last left to fade.
    faded: AtomicU64,
}

impl PoolState {
    /// Notes that the health of an endpoint has changed, after it has.
    pub(crate) fn health_changed(&self) {
        self.health.generation.fetch_add(1, Ordering::Release);
    }

    /// How often health has changed.
    pub(crate) fn generation(&self) -> u64 {
        self.health.generation.load(Ordering::Acquire)
    }

    /// What an endpoint typically takes, in microseconds; zero if not known.
    pub(crate) fn typical(&self) -> f32 {
        f32::from_bits(self.health.typical.load(Ordering::Relaxed))
    }

    pub(crate) fn set_typical(&self, micros: f32) {
        self.health
            .typical
            .store(micros.to_bits(), Ordering::Relaxed);
    }

    /// Notes whether the pool panics; true if the log has not been told.
    pub(crate) fn panics(&self, panics: bool) -> bool {
        self.health.panic_told.swap(panics, Ordering::Relaxed) != panics
    }

    /// When latencies were last left to fade.
    pub(crate) fn faded(&self) -> Stamp {
        Stamp::from_nanos(self.health.faded.load(Ordering::Relaxed))
    }

    pub(crate) fn set_faded(&self, now: Stamp) {
        self.health.faded.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// The mutex guards no data that a panic could leave half written.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.ejections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
