//! Objects on their way: one fetch for all who ask for the same, and everybody reads it as it
//! arrives.
//!
//! The first to ask for something that is not stored becomes the leader and gets a [`Writer`]; who
//! asks meanwhile follows with a [`Reader`]. The writer takes the body in once, into memory of its
//! own, and never waits for a reader: a slow client reads later what is kept anyhow.
//!
//! **Too large.** When the body outgrows the object limit, or all flights together the budget, the
//! object will not be stored. From then on the flight is a window: nobody new joins, what every
//! reader has read is let go, and [`Writer::push`] waits for the slowest while more than a window is
//! held. When the last reader leaves, the writer is told to stop.
//!
//! **Not to be shared.** When the head says that the response is for one client only, the leader
//! [releases](Writer::release) the followers, who ask for themselves, in parallel and not one after
//! the other. A marker with a lifetime of its own stays at the key; while it holds nobody is made to
//! wait, as each is told to go [`Join::Alone`].
//!
//! **Failure.** A writer that goes without [`Writer::finish`] has failed, and its readers see an
//! error, never an end. A body that is shorter or longer than its Content-Length is a failure.
//!
//! **Purge.** What is on its way when its URL is purged is older than the purge. Its readers get it,
//! but it is not stored, and nobody new joins: [`Flights::purge`]. A purge by tag does not know what
//! is on its way; nobody new joins anything then, and what comes is judged by its tags.
//!
//! A follower must look at the head before it takes the body: does the variant
//! [match](crate::vary::Variant::matches), and is it [usable](crate::reuse::usable) for its own
//! directives? If the variant differs, it joins once more with the hint that the now known Vary gives,
//! and if that leads to another mismatch goes [alone](Flights::alone).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::key::{Key, KeyRef};
use crate::store::{Store, is_below};
use crate::stored::Stored;
use crate::tags::{self, Mode, Tags};

use self::object::Flight;

mod object;
mod reader;
mod writer;

pub use self::reader::{Failed, NoHead, Reader};
pub use self::writer::{Growth, Incomplete, PushError, Writer};

/// Bounds of what is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of body that all flights together hold; beyond it new bytes are not kept.
    pub max_buffered: u64,
    /// Bytes that a flight holds for its slowest reader when the object is not kept.
    pub window: u64,
    /// Bytes for the markers of what is not to be shared.
    pub markers: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_buffered: 256 << 20,
            window: 256 << 10,
            markers: 4 << 20,
        }
    }
}

/// The table of flights. Clones share it.
#[derive(Debug, Clone)]
pub struct Flights(Arc<Table>);

type Flying = HashMap<Key, Vec<Arc<Flight>>, ahash::RandomState>;
type Shard = Mutex<Flying>;

#[derive(Debug)]
struct Table {
    shards: Vec<Shard>,
    hasher: ahash::RandomState,
    markers: moka::sync::Cache<Key, SystemTime, ahash::RandomState>,
    limits: Limits,
    buffered: Arc<AtomicU64>,
    tags: Tags,
}

const SHARDS: usize = 64;

/// A request's part in a fetch.
#[derive(Debug)]
pub enum Join {
    /// Fetch it, for all.
    Lead(Writer),
    /// Fetch it for yourself; what is fetched may be stored, but nobody waits for it.
    Alone(Writer),
    /// Somebody fetches it.
    Follow(Reader),
    /// It was stored while this request was on its way here.
    Found(Arc<Stored>),
}

impl Flights {
    /// An empty table for fetches into the store that `tags` belongs to.
    pub fn new(limits: Limits, tags: Tags) -> Self {
        let markers = moka::sync::Cache::builder()
            .max_capacity(limits.markers)
            .weigher(|key: &Key, _| u32::try_from(key.len() + 128).unwrap_or(u32::MAX))
            .build_with_hasher(ahash::RandomState::new());
        Self(Arc::new(Table {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: ahash::RandomState::new(),
            markers,
            limits,
            buffered: Arc::default(),
            tags,
        }))
    }

    /// Joins the flight for `key` and `hint` ([`Store::hint`]) or starts one whose object may have
    /// `max_object` bytes.
    ///
    /// `recheck` looks into the store once more before a fetch begins: another may just have ended.
    /// It answers only with what this request may use. With it, no fetch is made twice.
    pub fn join(
        &self,
        key: KeyRef<'_>,
        hint: &[u8],
        max_object: u64,
        now: SystemTime,
        recheck: impl FnOnce() -> Option<Arc<Stored>>,
    ) -> Join {
        let mut shard = lock(self.0.shard(key));
        let known = shard
            .get(key.as_bytes())
            .map(Vec::as_slice)
            .unwrap_or_default();
        let joined = known
            .iter()
            .filter(|flight| *flight.hint == *hint)
            .find_map(|flight| flight.follow());
        if let Some(reader) = joined {
            return Join::Follow(reader);
        }
        if let Some(stored) = recheck() {
            return Join::Found(stored);
        }
        let alone = self.is_marked(key, now);
        let writer = self.0.launch(&mut shard, key, hint, max_object, !alone);
        if alone {
            Join::Alone(writer)
        } else {
            Join::Lead(writer)
        }
    }

    /// Joins the flight for `key` and `hint` if there is one.
    pub fn follow(&self, key: KeyRef<'_>, hint: &[u8]) -> Option<Reader> {
        let shard = lock(self.0.shard(key));
        let mut known = shard.get(key.as_bytes())?.iter();
        known.find_map(|flight| (*flight.hint == *hint).then(|| flight.follow())?)
    }

    /// Starts a fetch that nobody joins. What comes of it may be stored.
    pub fn alone(&self, key: KeyRef<'_>, hint: &[u8], max_object: u64) -> Writer {
        self.0
            .launch(&mut lock(self.0.shard(key)), key, hint, max_object, false)
    }

    /// Starts a fetch in the background, for something that is served meanwhile; `None` when one is
    /// under way already, for whomever, or has just ended: `is_current` looks whether what is served is
    /// still what is stored.
    pub fn refresh(
        &self,
        key: KeyRef<'_>,
        hint: &[u8],
        max_object: u64,
        is_current: impl FnOnce() -> bool,
    ) -> Option<Writer> {
        let mut shard = lock(self.0.shard(key));
        let known = shard
            .get(key.as_bytes())
            .map(Vec::as_slice)
            .unwrap_or_default();
        // One that is for a single request alone may come to nothing for the others.
        let under_way = |flight: &Arc<Flight>| flight.shared && *flight.hint == *hint;
        if known.iter().any(under_way) || !is_current() {
            return None;
        }
        Some(self.0.launch(&mut shard, key, hint, max_object, true))
    }

    /// Whether what this key names was not to be shared when it was last seen.
    pub fn is_marked(&self, key: KeyRef<'_>, now: SystemTime) -> bool {
        self.0
            .markers
            .get(key.as_bytes())
            .is_some_and(|until| now < until)
    }

    /// Leaves a marker at a key: for this long, nobody waits for another's fetch.
    pub fn mark(&self, key: KeyRef<'_>, now: SystemTime, lifetime: Duration) {
        self.0.mark(key, now, lifetime);
    }

    /// Purges a key from `store`, with the [parts](crate::part) of it and what is on its way. Returns
    /// how many objects were stored.
    pub fn purge(&self, store: &Store, key: KeyRef<'_>, mode: Mode) -> u64 {
        let part = key.of_part();
        let passing = key.of_passing_parts();
        self.0.markers.invalidate(key.as_bytes());
        self.0.markers.invalidate(passing.as_key().as_bytes());
        [key, part.as_key()]
            .into_iter()
            .map(|key| {
                let shard = lock(self.0.shard(key));
                let flights = shard.get(key.as_bytes()).map_or(&[][..], Vec::as_slice);
                for flight in flights {
                    lock(&flight.state).purge(mode);
                }
                // Under the lock of the shard: what is on its way ends before this or knows of it.
                store.purge(key, mode)
            })
            .sum()
    }

    /// Purges all objects with a tag, the cache's own tags included. Returns how many were stored.
    pub fn purge_tag(&self, store: &Store, name: &[u8], mode: Mode) -> u64 {
        let objects = store.purge_tag(name, mode);
        self.each(&mut |flight| lock(&flight.state).joinable = false);
        objects
    }

    /// Purges a URL that has several keys, which share the tag [`tags::of_url`].
    /// Returns how many objects were stored.
    pub fn purge_url(&self, store: &Store, url: &[u8], mode: Mode) -> u64 {
        self.each(&mut |flight| {
            if flight.key.as_key().url() == url {
                lock(&flight.state).purge(mode);
            }
        });
        let tag = tags::of_url(url);
        // Whoever asks for it, with or without permission, costs nothing where nothing is stored.
        match store.tags().count(&tag) {
            0 => 0,
            _ => store.purge_tag(&tag, mode),
        }
    }

    /// Purges all objects of a host whose path begins with `path`. Returns how many were stored.
    pub fn purge_prefix(&self, store: &Store, host: &[u8], path: &[u8], mode: Mode) -> u64 {
        self.each(&mut |flight| {
            if is_below(flight.key.as_key(), host, path) {
                lock(&flight.state).purge(mode);
            }
        });
        // What ended before it was told of the purge is in the store by now.
        store.purge_prefix(host, path, mode)
    }

    /// The number of the latest purge when the oldest fetch under way began.
    pub fn oldest(&self) -> u64 {
        let mut oldest = self.0.tags.latest();
        self.each(&mut |flight| oldest = oldest.min(flight.since));
        oldest
    }

    fn each(&self, f: &mut dyn FnMut(&Flight)) {
        for shard in &self.0.shards {
            for flight in lock(shard).values().flatten() {
                f(flight);
            }
        }
    }

    /// Flights under way.
    pub fn len(&self) -> usize {
        self.0
            .shards
            .iter()
            .map(|shard| lock(shard).values().map(Vec::len).sum::<usize>())
            .sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of body held by flights.
    pub fn buffered(&self) -> u64 {
        self.0.buffered.load(Ordering::Relaxed)
    }
}

impl Table {
    fn mark(&self, key: KeyRef<'_>, now: SystemTime, lifetime: Duration) {
        let Some(until) = now.checked_add(lifetime) else {
            return;
        };
        // To read is much cheaper than to write, and a page in demand is marked by every request: three
        // quarters of the time are as good as all of it.
        let enough = until - lifetime / 4;
        let known = self.markers.get(key.as_bytes());
        if known.is_none_or(|known| known < enough || known > until) {
            self.markers.insert(key.to_key(), until);
        }
    }

    /// Starts a flight in a shard that is locked.
    fn launch(
        self: &Arc<Self>,
        shard: &mut Flying,
        key: KeyRef<'_>,
        hint: &[u8],
        max_object: u64,
        joinable: bool,
    ) -> Writer {
        let since = self.tags.latest();
        let flight = Flight::new(key.to_key(), hint, since, joinable, &self.buffered);
        let flight = Arc::new(flight);
        shard
            .entry(key.to_key())
            .or_default()
            .push(Arc::clone(&flight));
        Writer::new(flight, self, max_object)
    }

    fn shard(&self, key: KeyRef<'_>) -> &Shard {
        let hash = self.hasher.hash_one(key.as_bytes());
        // The lowest bits; SHARDS is a power of two.
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }

    /// Ends a flight: runs `keep` with the purge that it met, if any, and takes it out of the table. Both under one
    /// lock, so that a purge comes before or after, and a newcomer sees either flight or object.
    fn end(&self, flight: &Arc<Flight>, keep: impl FnOnce(Option<Mode>) -> bool) -> bool {
        let mut shard = lock(self.shard(flight.key.as_key()));
        let purged = lock(&flight.state).purged;
        let kept = keep(purged);
        if let Some(flights) = shard.get_mut(&flight.key) {
            flights.retain(|one| !Arc::ptr_eq(one, flight));
            if flights.is_empty() {
                shard.remove(&flight.key);
            }
        }
        kept
    }
}

/// A panic of another thread leaves these states as whole as any early return would.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
