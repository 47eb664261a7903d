//! One copy of a value for each worker thread.
//!
//! Two cores that add to one counter spend more time passing its cache line to
//! and fro than adding. So each worker has its own copy, made when it is first
//! used, on cache lines of its own; a reader goes over all of them. A thread
//! that is no worker (admin, prober) shares the first copy with its like.
//!
//! The copies are read one after another: a sum may miss what happens while it
//! is made, never what happened before.

use std::cell::Cell;
use std::sync::OnceLock;

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Says that the calling thread is worker `index` (from 0). Called once, at the
/// start of a worker's thread; without it everything works, on shared copies.
pub(crate) fn enter_worker(index: usize) {
    WORKER.set(index.saturating_add(1));
}

/// `T` for each worker.
#[derive(Debug)]
pub(crate) struct Sharded<T> {
    shards: Box<[OnceLock<Box<Padded<T>>>]>,
}

/// Two cache lines: the adjacent-line prefetcher fetches pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> Sharded<T> {
    /// Room for `workers` workers and one copy for every other thread. Nothing
    /// is allocated for a copy that is never used.
    #[must_use]
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            shards: (0..=workers).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The calling thread's copy. A worker beyond the announced number uses the
    /// shared one: slower, never wrong.
    pub(crate) fn here(&self) -> &T {
        let worker = WORKER.get();
        let index = if worker < self.shards.len() {
            worker
        } else {
            0
        };
        &self.shards[index].get_or_init(Box::default).0
    }

    /// Every copy, those made that were never used: for what must reach them all.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.shards
            .iter()
            .map(|shard| &shard.get_or_init(Box::default).0)
    }

    /// Every copy that was used.
    pub(crate) fn each(&self) -> impl Iterator<Item = &T> {
        self.shards
            .iter()
            .filter_map(|shard| shard.get().map(|padded| &padded.0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn each_worker_has_its_own_copy_and_a_reader_sees_them_all() {
        let sharded: Sharded<AtomicU64> = Sharded::new(2);
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let sharded = &sharded;
                scope.spawn(move || {
                    enter_worker(worker);
                    sharded.here().fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        sharded.here().fetch_add(5, Ordering::Relaxed);
        let mut values: Vec<u64> = sharded
            .each()
            .map(|value| value.load(Ordering::Relaxed))
            .collect();
        values.sort_unstable();
        assert_eq!(values, [1, 1, 5]);
    }

    #[test]
    fn a_worker_beyond_the_announced_number_shares_the_first_copy() {
        let sharded: Sharded<AtomicU64> = Sharded::new(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                enter_worker(7);
                sharded.here().fetch_add(1, Ordering::Relaxed);
            });
        });
        sharded.here().fetch_add(1, Ordering::Relaxed);
        assert_eq!(sharded.each().count(), 1);
    }

    #[test]
    fn a_copy_that_is_never_used_is_never_made() {
        let sharded: Sharded<AtomicU64> = Sharded::new(64);
        assert_eq!(sharded.each().count(), 0);
    }
}
