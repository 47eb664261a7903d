//! What a thread keeps at hand of a store that all threads share.
//!
//! A look-up in a shared store writes what other cores read: times of access, counts of references.
//! Where several cores ask for the same few things, the lines of memory that these stand on go to and
//! fro between them, which costs more than the look-up. So each thread has a small table of its own
//! ([`Near`]) with values that no other thread refers to, and the store is asked now and then only: it
//! must still learn what is in demand.
//!
//! The store stays the truth. Whatever changes there is told here ([`Near::change`]) after it has
//! changed, and what was kept before is not found any more, by any thread. Of a value that is looked
//! up while it changes, the one who looks keeps the old one under a mark that is out of date by then.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use thread_local::ThreadLocal;

/// Places of a thread's table; a power of two. A key has one place, where the last one kept wins.
pub const PLACES: usize = 64;

/// Of so many uses one is of the store, so that it knows what is in demand.
pub const FAR: u32 = 16;

/// And after so many looks for anything, so that it knows of what is used seldom as soon as it would without
/// this: only what is among so few that all have a place is worth it.
const SELDOM: u32 = 64;

/// Of so many values that come from the store one is kept: where more is asked for than there are
/// places, keeping each would cost more than it spares.
const KEPT: u32 = 4;

/// Changes are counted by groups of keys, so that one does not put an end to all that is kept.
const GROUPS: usize = 256;

/// See the crate's text. `V` is cheap to clone, and of a kept value each clone is counted where only
/// its thread writes: an `Arc` that was made for it.
pub struct Near<V: Send> {
    hasher: ahash::RandomState,
    changes: Box<[AtomicU32]>,
    tables: ThreadLocal<Own<V>>,
}

/// Lines of memory of its own: tables of several threads lie side by side.
#[repr(align(128))]
struct Own<V>(RefCell<Table<V>>);

struct Table<V> {
    places: Box<[Option<Place<V>>]>,
    offered: u32,
    looks: u32,
}

struct Place<V> {
    key: Box<[u8]>,
    mark: Mark,
    uses: u32,
    /// The look with which the store was asked last.
    asked: u32,
    value: V,
}

/// When something was looked for: what has changed since then is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    hash: u64,
    change: u32,
}

/// What a look came to.
#[derive(Debug)]
pub enum Look<V> {
    /// It is at hand.
    Here(V),
    /// The store is to be asked, and what it has may be [kept](Near::keep).
    Ask(Mark),
}

impl<V: Send> Default for Near<V> {
    fn default() -> Self {
        Self {
            hasher: ahash::RandomState::new(),
            changes: (0..GROUPS).map(|_| AtomicU32::new(0)).collect(),
            tables: ThreadLocal::new(),
        }
    }
}

impl<V: Send> fmt::Debug for Near<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Near").finish_non_exhaustive()
    }
}

impl<V: Send + Clone> Near<V> {
    /// Looks for what this thread keeps under `key`. What is not `good` any more is let go of.
    pub fn look(&self, key: &[u8], good: impl FnOnce(&V) -> bool) -> Look<V> {
        let mark = self.mark(key);
        let found = self.with(|table| {
            table.looks = table.looks.wrapping_add(1);
            let kept = &mut table.places[place_of(mark)];
            let place = kept.as_mut()?;
            if *place.key != *key {
                return None;
            }
            if place.mark != mark || !good(&place.value) {
                *kept = None;
                return None;
            }
            place.uses += 1;
            if place.uses >= FAR || table.looks.wrapping_sub(place.asked) > SELDOM {
                (place.uses, place.asked) = (0, table.looks);
                return None;
            }
            Some(place.value.clone())
        });
        found.map_or(Look::Ask(mark), Look::Here)
    }

    /// Offers what the store has under `key`, which was looked for at `mark`. It is made with `make` if
    /// it is to be kept and not kept yet; `None`: it is not to be kept.
    pub fn keep(&self, key: &[u8], mark: Mark, make: impl FnOnce() -> Option<V>) {
        self.with(|table| {
            let place = &mut table.places[place_of(mark)];
            if let Some(kept) = place
                && kept.mark == mark
                && *kept.key == *key
            {
                return;
            }
            table.offered = table.offered.wrapping_add(1);
            if !table.offered.is_multiple_of(KEPT) {
                return;
            }
            match make() {
                Some(value) => {
                    *place = Some(Place {
                        key: key.into(),
                        mark,
                        uses: 0,
                        asked: table.looks,
                        value,
                    });
                }
                // The next one instead, or those whose turn it is might all be such.
                None => table.offered = table.offered.wrapping_sub(1),
            }
        });
    }

    /// What the store has under `key` is not what it was: to be said when that can be seen.
    pub fn change(&self, key: &[u8]) {
        self.changes[group_of(self.hash(key))].fetch_add(1, Ordering::Release);
    }

    /// As [`change`](Self::change), of all that there is or was.
    pub fn change_all(&self) {
        for changes in &self.changes {
            changes.fetch_add(1, Ordering::Release);
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn mark(&self, key: &[u8]) -> Mark {
        let hash = self.hash(key);
        let change = self.changes[group_of(hash)].load(Ordering::Acquire);
        Mark { hash, change }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Table<V>) -> R) -> R {
        let own = self.tables.get_or(|| {
            Own(RefCell::new(Table {
                places: (0..PLACES).map(|_| None).collect(),
                offered: 0,
                looks: 0,
            }))
        });
        work(&mut own.0.borrow_mut())
    }
}

fn place_of(mark: Mark) -> usize {
    usize::try_from(mark.hash >> 32).unwrap_or(0) % PLACES
}

fn group_of(hash: u64) -> usize {
    usize::try_from(hash % GROUPS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests;
