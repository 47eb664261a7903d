//! Where finished objects stand: moka, bounded by bytes, one entry for each key.
//!
//! An entry holds all variants of its URL, so purging the URL purges them all, and finding one costs
//! a single look-up. An entry is never changed in place: a new one takes its position, and whoever
//! reads the old one goes on reading it. A look-up takes no lock.
//!
//! moka decides what has to go (TinyLFU: a scan does not push out what is in demand) and counts
//! weights. It knows nothing of freshness, as its clock cannot be set; what is stale stays until
//! room is needed, since it can still be validated or stand in for a failing origin.
//!
//! A purge by tag, host or everything takes effect by the [tags] at once; the memory is
//! given back by [`Store::sweep`], which goes through all entries and holds up nobody.
//!
//! With a [`Disk`], what is put in goes there, too, and purges and counts are over both tiers. A
//! look-up asks memory alone; what only the disk has is [found](Store::find_on_disk) and
//! [read](Store::read_from_disk) by whoever may wait for it.

mod entry;
mod page;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderName, StatusCode};
use moka::notification::RemovalCause;
use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;
use near::Near;

use crate::disk::{self, Disk};
use crate::fields::Fields;
use crate::key::{Key, KeyRef};
use crate::stored::Stored;
use crate::tags::{self, Life, Mode, State, Tags};
use crate::vary::Spec;

use self::entry::{Entry, Lives};
use self::page::Kept;
pub use self::page::Page;

/// Variants that are kept of one URL; when one more comes, the oldest goes.
pub const MAX_VARIANTS: usize = 64;

/// What an entry costs in the index beside key and variants: bucket, counters and queues of moka, as
/// measured by the resident size of a process with 100,000 small objects.
const ENTRY_OVERHEAD: u64 = 300;

/// The store. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Store {
    entries: Cache<Key, Arc<Entry>, ahash::RandomState>,
    /// Small entries that are in demand, of each thread.
    near: Arc<Near<Arc<Kept>>>,
    tags: Tags,
    disk: Option<Disk>,
    /// Larger objects go to the disk alone.
    most_in_memory: u64,
    counters: Arc<Counters>,
    /// Bytes inserted since moka last made room, and how many may be.
    unsettled: AtomicU64,
    slack: u64,
    /// The number of the latest purge that was swept out.
    swept: AtomicU64,
}

/// What was found for a request, as a `P`.
#[derive(Debug, Clone)]
pub enum Lookup<P = Arc<Stored>> {
    /// The variant that fits. Whether it may be used is for [`crate::reuse`] to say.
    Found(P),
    /// The URL has variants, but none that fits.
    VaryMiss,
    /// Nothing is stored for the URL.
    UriMiss,
}

#[derive(Debug, Default)]
struct Counters {
    inserts: AtomicU64,
    evictions: AtomicU64,
    purges: AtomicU64,
    refused: AtomicU64,
}

/// Counters since the start, and sizes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Bytes held, overheads included.
    pub bytes: u64,
    /// URLs held.
    pub entries: u64,
    /// Objects put in, those renewed by a 304 included.
    pub inserts: u64,
    /// Objects that had to go for want of room.
    pub evictions: u64,
    /// Objects removed or made stale by a purge or an unsafe request.
    pub purges: u64,
    /// Objects that alone are too large for the store.
    pub refused: u64,
}

/// One object, for people who look into the store.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its key.
    pub key: Arc<Key>,
    /// The object.
    pub stored: Arc<Stored>,
}

impl Store {
    /// A store that holds about `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let near = Arc::new(Near::default());
        let told = Arc::clone(&near);
        let entries = Cache::builder()
            .max_capacity(capacity)
            .weigher(|key: &Key, entry: &Arc<Entry>| entry.weight(key))
            .eviction_listener(move |key: Arc<Key>, entry: Arc<Entry>, cause| {
                // Before lives end: a purge does not find them from then on.
                told.change(key.as_key().as_bytes());
                if cause == RemovalCause::Size {
                    counted
                        .evictions
                        .fetch_add(entry.variants.len() as u64, Ordering::Relaxed);
                }
                // What takes its place holds for itself what it took over.
                entry.release();
            })
            .build_with_hasher(ahash::RandomState::new());
        Self {
            entries,
            near,
            tags: Tags::new(),
            disk: None,
            most_in_memory: u64::MAX,
            counters,
            unsettled: AtomicU64::new(0),
            slack: capacity / 64,
            swept: AtomicU64::new(0),
        }
    }

    /// The store with a second tier. An object that would take more than an eighth of the memory then
    /// stays on the disk alone.
    ///
    /// # Errors
    /// The folder cannot be had.
    pub fn with_disk(self, settings: &disk::Settings) -> Result<Self, disk::OpenError> {
        let disk = Disk::open(settings, &self.tags)?;
        let capacity = self.entries.policy().max_capacity().unwrap_or(u64::MAX);
        Ok(Self {
            disk: Some(disk),
            most_in_memory: capacity / 8,
            ..self
        })
    }

    /// The second tier.
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// The index of tags.
    pub fn tags(&self) -> &Tags {
        &self.tags
    }

    /// The life of an object to be stored under `key` with the origin's tags, whose fetch began after
    /// the purge `since`. `several` says that other keys may name the same URL.
    pub fn life(
        &self,
        key: KeyRef<'_>,
        names: &[Box<[u8]>],
        since: u64,
        several: bool,
    ) -> Arc<Life> {
        let host = tags::of_host(key.parts().map_or(&[], |parts| parts.host));
        let url = several.then(|| tags::of_url(key.url()));
        let own = [tags::ALL, &host].into_iter().chain(url.as_deref());
        let life = self
            .tags
            .bind(own.chain(names.iter().map(|name| &**name)), since);
        Arc::new(life)
    }

    /// Finds the variant that a request selects (RFC 9111 section 4.1). `extra` are the names that
    /// the route adds to Vary now; what was stored without them does not fit.
    pub fn lookup(&self, key: KeyRef<'_>, request: &dyn Fields, extra: &[HeaderName]) -> Lookup {
        let Some(entry) = self.entries.get(key.as_bytes()) else {
            return Lookup::UriMiss;
        };
        match entry.select(request, extra, self.tags.latest()) {
            Some(stored) => Lookup::Found(Arc::clone(stored)),
            None => missed(&entry, self.tags.latest()),
        }
    }

    /// Whether a request selects this very object, wherever it is stored.
    pub fn is_current(
        &self,
        key: KeyRef<'_>,
        request: &dyn Fields,
        extra: &[HeaderName],
        stored: &Arc<Stored>,
    ) -> bool {
        match self.lookup(key, request, extra) {
            Lookup::Found(found) => Arc::ptr_eq(&found, stored),
            Lookup::UriMiss | Lookup::VaryMiss => {
                let on_disk = self.find_on_disk(key, request, extra);
                on_disk.is_some_and(|found| Arc::ptr_eq(found.life(), stored.life()))
            }
        }
    }

    /// Whether memory has this very object.
    pub fn is_in_memory(&self, key: KeyRef<'_>, stored: &Arc<Stored>) -> bool {
        let entry = self.entries.get(key.as_bytes());
        entry.is_some_and(|entry| entry.has(stored))
    }

    /// Finds what only the disk has. Reads nothing from it.
    pub fn find_on_disk(
        &self,
        key: KeyRef<'_>,
        request: &dyn Fields,
        extra: &[HeaderName],
    ) -> Option<disk::Found> {
        self.disk.as_ref()?.find(key, request, extra)
    }

    /// Reads what was found, and takes it into memory if it is not too large for that. Blocks.
    /// `None`: it is not there any more.
    pub fn read_from_disk(&self, found: &disk::Found) -> Option<Arc<Stored>> {
        let stored = self.disk.as_ref()?.read(found)?;
        // Whether it was purged meanwhile.
        if stored.state(self.tags.latest()) == State::Gone {
            return None;
        }
        self.keep_in_memory(found.key(), Arc::clone(&stored));
        Some(stored)
    }

    /// What the request says to the names by which this URL's variants differ, as far as is known:
    /// requests with the same hint are worth one fetch ([`crate::flight`]).
    pub fn hint(&self, key: KeyRef<'_>, request: &dyn Fields, extra: &[HeaderName]) -> Vec<u8> {
        let mut hint = Vec::new();
        match self
            .entries
            .get(key.as_bytes())
            .as_ref()
            .and_then(|entry| entry.variants.last())
        {
            Some(newest) if newest.head().variant().spec().covers(extra) => {
                newest
                    .head()
                    .variant()
                    .spec()
                    .write_values(request, &mut hint);
            }
            _ => Spec::new(&http::HeaderMap::new(), extra).write_values(request, &mut hint),
        }
        hint
    }

    /// Puts an object in, in place of the same variant. Returns whether it can be held at all: it is
    /// not too large, and was not purged while it was on its way.
    pub fn insert(&self, key: KeyRef<'_>, stored: Arc<Stored>) -> bool {
        let latest = self.tags.latest();
        if stored.state(latest) == State::Gone {
            return false;
        }
        let Some(disk) = self.disk_for(&stored) else {
            return self.keep_in_memory(key, stored);
        };
        disk.insert(key, &stored);
        if !self.keep_in_memory(key, Arc::clone(&stored)) {
            // What stands in its place is older.
            let variant = stored.head().variant();
            self.keep_only(key, |one| one.head().variant() != variant);
        }
        true
    }

    /// The disk, for what is to be found there: parts of pages are not.
    fn disk_for(&self, stored: &Stored) -> Option<&Disk> {
        let whole = stored.head().status() != StatusCode::PARTIAL_CONTENT;
        self.disk.as_ref().filter(|_| whole)
    }

    fn keep_in_memory(&self, key: KeyRef<'_>, stored: Arc<Stored>) -> bool {
        let weight = stored.weight() + key.as_bytes().len() as u64 + ENTRY_OVERHEAD;
        let capacity = self.entries.policy().max_capacity().unwrap_or(u64::MAX);
        if weight > capacity.min(u64::from(u32::MAX)).min(self.most_in_memory) {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let latest = self.tags.latest();
        let (new, mut kept) = (Arc::as_ptr(&stored), false);
        self.entries.entry(key.to_key()).and_compute_with(|known| {
            let known = known.as_ref().map(|known| &**known.value());
            let entry = Entry::with(known, |_| true, stored, latest);
            kept = entry
                .variants
                .last()
                .is_some_and(|one| Arc::as_ptr(one) == new);
            put(entry)
        });
        self.counters.inserts.fetch_add(1, Ordering::Relaxed);
        self.settle(weight);
        kept
    }

    /// Puts `new` in the place of `old`, if that still stands there. Returns whether it did.
    pub fn replace(&self, key: KeyRef<'_>, old: &Arc<Stored>, new: Arc<Stored>) -> bool {
        let latest = self.tags.latest();
        let renewed = Arc::clone(&new);
        let result = self.entries.entry(key.to_key()).and_compute_with(|known| {
            let Some(known) = known else { return Op::Nop };
            let entry = known.value();
            if !entry.has(old) || old.state(latest) == State::Gone {
                return Op::Nop;
            }
            let stays = |one: &Arc<Stored>| !Arc::ptr_eq(one, old);
            put(Entry::with(Some(entry), stays, new, latest))
        });
        let replaced = matches!(result, CompResult::ReplacedWith(_));
        if replaced {
            self.counters.inserts.fetch_add(1, Ordering::Relaxed);
            if let Some(disk) = self.disk_for(&renewed) {
                disk.insert(key, &renewed);
            }
        }
        replaced
    }

    /// Counts the weight of an object anew, after it gained a compressed representation.
    pub fn weigh(&self, key: KeyRef<'_>, stored: &Arc<Stored>) {
        self.entries
            .entry(key.to_key())
            .and_compute_with(|known| match known {
                Some(known) if known.value().has(stored) => put(known.value().filtered(|_| true)),
                _ => Op::Nop,
            });
    }

    /// Removes this one object, if it still stands there.
    pub fn remove(&self, key: KeyRef<'_>, stored: &Arc<Stored>) {
        self.keep_only(key, |one| !Arc::ptr_eq(one, stored));
        if let Some(disk) = &self.disk {
            disk.remove(key, stored.life());
        }
    }

    fn keep_only(&self, key: KeyRef<'_>, keep: impl Fn(&Arc<Stored>) -> bool) {
        self.entries.entry(key.to_key()).and_compute_with(|known| {
            let Some(known) = known else { return Op::Nop };
            match known.value().variants.iter().all(&keep) {
                true => Op::Nop,
                false => put(known.value().filtered(&keep)),
            }
        });
    }

    /// Purges a key with all its variants. Returns how many objects there were. What is on its way
    /// at the same time needs [`crate::Flights::purge`].
    pub fn purge(&self, key: KeyRef<'_>, mode: Mode) -> u64 {
        let on_disk = self.disk.as_ref().map(|disk| disk.purge(key, mode));
        let entry = match mode {
            Mode::Hard => self.entries.remove(key.as_bytes()),
            Mode::Soft(_) => self.entries.get(key.as_bytes()),
        };
        // What somebody else is taking out just now is not found, and may still be at hand.
        self.near.change(key.as_bytes());
        let mut lives = Lives::of(on_disk.unwrap_or_default());
        if let Some(entry) = entry {
            lives.add(&entry, self.tags.latest());
        }
        lives.purge(mode);
        self.count_purged(lives.count())
    }

    /// Purges all objects with this tag. Returns how many there were.
    pub fn purge_tag(&self, name: &[u8], mode: Mode) -> u64 {
        let (objects, number) = self.tags.purge(name, mode);
        // What is on its way is judged when it comes; only what is there could come back.
        if let Some(disk) = self.disk.as_ref().filter(|_| objects > 0) {
            disk.note_tag(name, mode, number);
        }
        self.count_purged(objects)
    }

    /// Purges all objects of a host whose path begins with `path`. Returns how many there were. It goes
    /// through the whole store, and holds up nobody.
    pub fn purge_prefix(&self, host: &[u8], path: &[u8], mode: Mode) -> u64 {
        let on_disk = self
            .disk
            .as_ref()
            .map(|disk| disk.purge_prefix(host, path, mode));
        let mut lives = Lives::of(on_disk.unwrap_or_default());
        let latest = self.tags.latest();
        let mut keys = Vec::new();
        for (key, entry) in &self.entries {
            if is_below(key.as_key(), host, path) {
                lives.add(&entry, latest);
                keys.push(key);
            }
        }
        self.near.change_all();
        lives.purge(mode);
        if mode == Mode::Hard {
            for key in keys {
                self.keep_only(key.as_key(), |one| one.state(latest) != State::Gone);
            }
        }
        self.count_purged(lives.count())
    }

    /// How many objects a purge of this page and its [parts](crate::part) would find.
    pub fn count(&self, key: KeyRef<'_>) -> u64 {
        self.count_one(key) + self.count_one(key.of_part().as_key())
    }

    fn count_one(&self, key: KeyRef<'_>) -> u64 {
        let latest = self.tags.latest();
        let on_disk = self.disk.as_ref().map(|disk| disk.lives_of(key));
        let mut lives = Lives::of(on_disk.unwrap_or_default());
        if let Some(entry) = self.entries.get(key.as_bytes()) {
            lives.add(&entry, latest);
        }
        lives.count()
    }

    /// How many objects [`purge_prefix`](Self::purge_prefix) would find.
    pub fn count_prefix(&self, host: &[u8], path: &[u8]) -> u64 {
        let latest = self.tags.latest();
        let on_disk = self.disk.as_ref().map(|disk| disk.lives_below(host, path));
        let mut lives = Lives::of(on_disk.unwrap_or_default());
        for (key, entry) in &self.entries {
            if is_below(key.as_key(), host, path) {
                lives.add(&entry, latest);
            }
        }
        lives.count()
    }

    /// How many objects are `wanted`, by key and life, each counted once. It goes through the whole store.
    pub fn count_where(&self, wanted: &dyn Fn(KeyRef<'_>, &Life) -> bool) -> u64 {
        let latest = self.tags.latest();
        let on_disk = self.disk.as_ref().map(|disk| disk.lives_where(wanted));
        let mut lives = Lives::of(on_disk.unwrap_or_default());
        for (key, entry) in &self.entries {
            for stored in entry.live(latest) {
                if wanted(key.as_key(), stored.life()) {
                    lives.add_one(stored.life());
                }
            }
        }
        lives.count()
    }

    /// All objects of a key in memory that no purge took away.
    pub fn variants(&self, key: KeyRef<'_>) -> Vec<Arc<Stored>> {
        let latest = self.tags.latest();
        let entry = self.entries.get(key.as_bytes());
        entry.map_or_else(Vec::new, |entry| entry.live(latest).cloned().collect())
    }

    /// All objects of a key on the disk, read, and whether memory has them too. Blocks.
    pub fn variants_on_disk(&self, key: KeyRef<'_>) -> Vec<(Arc<Stored>, bool)> {
        let in_memory = self.variants(key);
        let on_disk = self.disk.iter().flat_map(|disk| {
            let found = disk.variants(key);
            found.into_iter().filter_map(|one| disk.read(&one))
        });
        on_disk
            .map(|stored| {
                let same = |one: &Arc<Stored>| Arc::ptr_eq(one.life(), stored.life());
                let known = in_memory.iter().any(same);
                (stored, known)
            })
            .collect()
    }

    /// The objects with the most uses, the most used first. For people who look: it goes through the
    /// whole store.
    pub fn top(&self, most: usize) -> Vec<Seen> {
        let latest = self.tags.latest();
        let mut top: Vec<Seen> = Vec::new();
        for (key, entry) in &self.entries {
            for stored in entry.live(latest) {
                top.push(Seen {
                    key: Arc::clone(&key),
                    stored: Arc::clone(stored),
                });
            }
            if top.len() > 2 * most + 1024 {
                most_used(&mut top, most);
            }
        }
        most_used(&mut top, most);
        top
    }

    /// Gives back the memory of what purges took away. `oldest` is the start of the oldest fetch
    /// under way ([`crate::Flights::oldest`]).
    pub fn sweep(&self, oldest: u64) {
        let latest = self.tags.latest();
        self.swept.store(latest, Ordering::Relaxed);
        for (key, entry) in &self.entries {
            if entry.live(latest).count() < entry.variants.len() {
                self.keep_only(key.as_key(), |one| one.state(latest) != State::Gone);
            }
        }
        self.entries.run_pending_tasks();
        if let Some(disk) = &self.disk {
            disk.sweep();
        }
        self.tags.forget_unused(oldest);
    }

    /// Forgets the tags of what was evicted or replaced, and [sweeps](Self::sweep) where a purge came
    /// since the last time. For a timer: without it, the index keeps every tag there ever was.
    pub fn tidy(&self, oldest: u64) {
        if self.swept.load(Ordering::Relaxed) != self.tags.latest() {
            self.sweep(oldest);
        } else {
            self.maintain();
            self.tags.forget_unused(oldest);
        }
    }

    /// Lets moka make room and bring its sums up to date. Cheap when there is little to do; for a
    /// timer, and before [`figures`](Self::figures) that must be exact.
    pub fn maintain(&self) {
        self.unsettled.store(0, Ordering::Relaxed);
        self.entries.run_pending_tasks();
    }

    /// Counters and sizes. The sizes lag a little behind.
    pub fn figures(&self) -> Figures {
        Figures {
            bytes: self.entries.weighted_size(),
            entries: self.entries.entry_count(),
            inserts: self.counters.inserts.load(Ordering::Relaxed),
            evictions: self.counters.evictions.load(Ordering::Relaxed),
            purges: self.counters.purges.load(Ordering::Relaxed),
            refused: self.counters.refused.load(Ordering::Relaxed),
        }
    }

    fn count_purged(&self, objects: u64) -> u64 {
        self.counters.purges.fetch_add(objects, Ordering::Relaxed);
        objects
    }

    /// moka makes room after a number of writes, whatever their size; with large objects that would
    /// be far too late.
    fn settle(&self, weight: u64) {
        if self.unsettled.fetch_add(weight, Ordering::Relaxed) + weight > self.slack {
            self.maintain();
        }
    }
}

/// What stands at a key from now on.
fn put(entry: Entry) -> Op<Arc<Entry>> {
    match entry.variants.is_empty() {
        true => Op::Remove,
        false => Op::Put(Arc::new(entry)),
    }
}

/// What it is that `entry` has nothing for a request.
fn missed<P>(entry: &Entry, latest: u64) -> Lookup<P> {
    match entry.live(latest).next() {
        None => Lookup::UriMiss,
        Some(_) => Lookup::VaryMiss,
    }
}

fn most_used(all: &mut Vec<Seen>, most: usize) {
    all.sort_by_key(|seen| std::cmp::Reverse(seen.stored.life().hits()));
    all.truncate(most);
}

/// Whether a key is of this host, and of a path that begins so.
pub(crate) fn is_below(key: KeyRef<'_>, host: &[u8], path: &[u8]) -> bool {
    let parts = key.parts();
    parts.is_some_and(|parts| parts.host == host && parts.path.starts_with(path))
}

#[cfg(test)]
mod tests;
