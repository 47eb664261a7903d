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
//! A purge by tag, host or everything takes effect by the [tags](crate::tags) at once; the memory is
//! given back by [`Store::sweep`], which goes through all entries and holds up nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderName;
use moka::notification::RemovalCause;
use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;

use crate::fields::Fields;
use crate::key::{Key, KeyRef, Parts};
use crate::stored::Stored;
use crate::tags::{self, Life, Mode, State, Tags};
use crate::vary::Spec;

/// Variants that are kept of one URL; when one more comes, the oldest goes.
pub const MAX_VARIANTS: usize = 64;

/// What an entry costs in the index beside key and variants: bucket, counters and queues of moka, as
/// measured by the resident size of a process with 100,000 small objects.
const ENTRY_OVERHEAD: u64 = 380;

/// The store. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Store {
    entries: Cache<Key, Arc<Entry>, ahash::RandomState>,
    tags: Tags,
    counters: Arc<Counters>,
    /// Bytes inserted since moka last made room, and how many may be.
    unsettled: AtomicU64,
    slack: u64,
    /// The number of the latest purge that was swept out.
    swept: AtomicU64,
}

/// The variants of one URL, the oldest first.
#[derive(Debug)]
struct Entry {
    variants: Vec<Arc<Stored>>,
}

/// What was found for a request.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// The variant that fits. Whether it may be used is for [`crate::reuse`] to say.
    Found(Arc<Stored>),
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
        let entries = Cache::builder()
            .max_capacity(capacity)
            .weigher(|key: &Key, entry: &Arc<Entry>| entry.weight(key))
            .eviction_listener(move |_, entry: Arc<Entry>, cause| {
                if cause == RemovalCause::Size {
                    counted
                        .evictions
                        .fetch_add(entry.variants.len() as u64, Ordering::Relaxed);
                }
                // What takes the place of an entry says itself which variants it does not take over.
                if cause != RemovalCause::Replaced {
                    entry.variants.iter().for_each(|one| one.life().release());
                }
            })
            .build_with_hasher(ahash::RandomState::new());
        Self {
            entries,
            tags: Tags::new(),
            counters,
            unsettled: AtomicU64::new(0),
            slack: capacity / 64,
            swept: AtomicU64::new(0),
        }
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
            None if entry.live(self.tags.latest()).next().is_none() => Lookup::UriMiss,
            None => Lookup::VaryMiss,
        }
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
        let weight = stored.weight() + key.as_bytes().len() as u64 + ENTRY_OVERHEAD;
        let capacity = self.entries.policy().max_capacity().unwrap_or(u64::MAX);
        if weight > capacity.min(u64::from(u32::MAX)) {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let latest = self.tags.latest();
        if stored.state(latest) == State::Gone {
            return false;
        }
        self.entries.entry(key.to_key()).and_compute_with(|known| {
            Op::Put(Arc::new(Entry::with(
                known.as_ref().map(|known| &**known.value()),
                stored,
                latest,
            )))
        });
        self.counters.inserts.fetch_add(1, Ordering::Relaxed);
        self.settle(weight);
        true
    }

    /// Puts `new` in the place of `old`, if that still stands there. Returns whether it did.
    pub fn replace(&self, key: KeyRef<'_>, old: &Arc<Stored>, new: Arc<Stored>) -> bool {
        let latest = self.tags.latest();
        let result = self.entries.entry(key.to_key()).and_compute_with(|known| {
            let Some(known) = known else { return Op::Nop };
            let entry = known.value();
            let there = entry.variants.iter().any(|one| Arc::ptr_eq(one, old));
            if !there || old.state(latest) == State::Gone {
                return Op::Nop;
            }
            let rest = entry.filtered(|one| !Arc::ptr_eq(one, old));
            let entry = Entry::with(Some(&rest), new, latest);
            // Only now: they may share a life, whose tags must not be forgotten in between.
            old.life().release();
            Op::Put(Arc::new(entry))
        });
        let replaced = matches!(result, CompResult::ReplacedWith(_));
        if replaced {
            self.counters.inserts.fetch_add(1, Ordering::Relaxed);
        }
        replaced
    }

    /// Counts the weight of an object anew, after it gained a compressed representation.
    pub fn weigh(&self, key: KeyRef<'_>, stored: &Arc<Stored>) {
        self.entries
            .entry(key.to_key())
            .and_compute_with(|known| match known {
                Some(known)
                    if known
                        .value()
                        .variants
                        .iter()
                        .any(|one| Arc::ptr_eq(one, stored)) =>
                {
                    Op::Put(Arc::new(known.value().filtered(|_| true)))
                }
                _ => Op::Nop,
            });
    }

    /// Removes this one object, if it still stands there.
    pub fn remove(&self, key: KeyRef<'_>, stored: &Arc<Stored>) {
        self.keep_only(key, |one| !Arc::ptr_eq(one, stored));
    }

    fn keep_only(&self, key: KeyRef<'_>, keep: impl Fn(&Arc<Stored>) -> bool) {
        self.entries.entry(key.to_key()).and_compute_with(|known| {
            let Some(known) = known else { return Op::Nop };
            let rest = known.value().filtered(&keep);
            if rest.variants.len() == known.value().variants.len() {
                Op::Nop
            } else if rest.variants.is_empty() {
                Op::Remove
            } else {
                let gone = known.value().variants.iter().filter(|one| !keep(one));
                gone.for_each(|one| one.life().release());
                Op::Put(Arc::new(rest))
            }
        });
    }

    /// Purges a key with all its variants. Returns how many objects there were. What is on its way
    /// at the same time needs [`crate::Flights::purge`].
    pub fn purge(&self, key: KeyRef<'_>, mode: Mode) -> u64 {
        let entry = match mode {
            Mode::Hard => self.entries.remove(key.as_bytes()),
            Mode::Soft(_) => self.entries.get(key.as_bytes()),
        };
        let objects = entry.map_or(0, |entry| entry.purge(mode, self.tags.latest()));
        self.count_purged(objects)
    }

    /// Purges all objects with this tag. Returns how many there were.
    pub fn purge_tag(&self, name: &[u8], mode: Mode) -> u64 {
        self.count_purged(self.tags.purge(name, mode))
    }

    /// Purges all objects whose key is `wanted`. Returns how many there were. It goes through the
    /// whole store, and holds up nobody.
    pub fn purge_where(&self, wanted: &dyn Fn(&Parts<'_>) -> bool, mode: Mode) -> u64 {
        let latest = self.tags.latest();
        let mut objects = 0;
        for (key, entry) in &self.entries {
            if key.as_key().parts().is_some_and(|parts| wanted(&parts)) {
                objects += entry.purge(mode, latest);
                if mode == Mode::Hard {
                    self.keep_only(key.as_key(), |one| one.state(latest) != State::Gone);
                }
            }
        }
        self.count_purged(objects)
    }

    /// How many objects a purge of this key would find.
    pub fn count(&self, key: KeyRef<'_>) -> u64 {
        let latest = self.tags.latest();
        self.entries
            .get(key.as_bytes())
            .map_or(0, |entry| entry.live(latest).count() as u64)
    }

    /// How many objects [`purge_where`](Self::purge_where) would find.
    pub fn count_where(&self, wanted: &dyn Fn(&Parts<'_>) -> bool) -> u64 {
        let latest = self.tags.latest();
        self.entries
            .iter()
            .filter(|(key, _)| key.as_key().parts().is_some_and(|parts| wanted(&parts)))
            .map(|(_, entry)| entry.live(latest).count() as u64)
            .sum()
    }

    /// All objects of a key that no purge took away.
    pub fn variants(&self, key: KeyRef<'_>) -> Vec<Arc<Stored>> {
        let latest = self.tags.latest();
        let entry = self.entries.get(key.as_bytes());
        entry.map_or_else(Vec::new, |entry| entry.live(latest).cloned().collect())
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

fn most_used(all: &mut Vec<Seen>, most: usize) {
    all.sort_by_key(|seen| std::cmp::Reverse(seen.stored.life().hits()));
    all.truncate(most);
}

impl Entry {
    /// The variants of `known` and one more; its equal goes, what was purged, and the oldest if there
    /// are too many.
    fn with(known: Option<&Self>, stored: Arc<Stored>, latest: u64) -> Self {
        let known = known.map_or(&[][..], |known| known.variants.as_slice());
        let (mut variants, displaced): (Vec<_>, Vec<_>) = known.iter().cloned().partition(|one| {
            one.head().variant() != stored.head().variant() && one.state(latest) != State::Gone
        });
        stored.life().hold();
        variants.push(stored);
        let mut total: u64 = variants.iter().map(|one| one.weight()).sum();
        let mut surplus = variants.len().saturating_sub(MAX_VARIANTS);
        total -= variants[..surplus]
            .iter()
            .map(|one| one.weight())
            .sum::<u64>();
        // moka counts an entry in 32 bits.
        while total > u64::from(u32::MAX) / 2 && surplus + 1 < variants.len() {
            total -= variants[surplus].weight();
            surplus += 1;
        }
        let surplus = variants.drain(..surplus);
        displaced
            .into_iter()
            .chain(surplus)
            .for_each(|one| one.life().release());
        variants.shrink_to_fit();
        Self { variants }
    }

    fn filtered(&self, keep: impl Fn(&Arc<Stored>) -> bool) -> Self {
        let variants = self.variants.iter().filter(|one| keep(one)).cloned();
        Self {
            variants: variants.collect(),
        }
    }

    /// Those that no purge took away.
    fn live(&self, latest: u64) -> impl Iterator<Item = &Arc<Stored>> {
        self.variants
            .iter()
            .filter(move |one| one.state(latest) != State::Gone)
    }

    fn purge(&self, mode: Mode, latest: u64) -> u64 {
        self.live(latest)
            .map(|stored| stored.life().purge(mode))
            .count() as u64
    }

    /// Of those that match, one with Vary before one without, then the latest by Date (RFC 9111
    /// sections 4 and 4.1), then the latest stored.
    fn select(
        &self,
        request: &dyn Fields,
        extra: &[HeaderName],
        latest: u64,
    ) -> Option<&Arc<Stored>> {
        let fits = |stored: &&Arc<Stored>| {
            let variant = stored.head().variant();
            variant.spec().covers(extra)
                && variant.matches(request)
                && stored.state(latest) != State::Gone
        };
        match self.variants.as_slice() {
            [only] => Some(only).filter(fits),
            several => several.iter().filter(fits).max_by_key(|stored| {
                (stored.head().variant().is_by_origin(), stored.head().date())
            }),
        }
    }

    fn weight(&self, key: &Key) -> u32 {
        let variants: u64 = self.variants.iter().map(|one| one.weight()).sum();
        u32::try_from(variants + key.len() as u64 + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, date, fields, head_for};
    use bytes::Bytes;

    fn object(asked: &[&str], replied: &[&str], body: &str) -> Arc<Stored> {
        let head = Arc::new(head_for(asked, 200, replied));
        Arc::new(Stored::new(
            head,
            vec![Bytes::copy_from_slice(body.as_bytes())],
            Arc::default(),
        ))
    }

    fn key(path: &str) -> Key {
        Key::new("https", "shop.example", path, None)
    }

    fn body(store: &Store, path: &str, asked: &[&str]) -> Option<String> {
        match store.lookup(key(path).as_key(), &fields(asked), &[]) {
            Lookup::Found(stored) => Some(
                stored
                    .segments()
                    .iter()
                    .map(|part| String::from_utf8_lossy(part))
                    .collect(),
            ),
            Lookup::VaryMiss | Lookup::UriMiss => None,
        }
    }

    #[test]
    fn what_is_put_in_is_found_until_it_is_purged() {
        let store = Store::new(1 << 20);
        assert!(store.insert(key("/a").as_key(), object(&[], &[], "one")));
        assert_eq!(body(&store, "/a", &[]).as_deref(), Some("one"));
        assert_eq!(body(&store, "/b", &[]), None);
        assert_eq!(store.count(key("/a").as_key()), 1);
        assert_eq!(store.purge(key("/a").as_key(), Mode::Hard), 1);
        assert_eq!(store.purge(key("/a").as_key(), Mode::Hard), 0);
        assert_eq!(body(&store, "/a", &[]), None);
    }

    #[test]
    fn variants_stand_beside_each_other_and_are_purged_together() {
        let store = Store::new(1 << 20);
        for language in ["de", "en"] {
            let asked = format!("accept-language: {language}");
            store.insert(
                key("/").as_key(),
                object(&[&asked], &["vary: accept-language"], language),
            );
        }
        assert_eq!(
            body(&store, "/", &["accept-language: de"]).as_deref(),
            Some("de")
        );
        assert_eq!(
            body(&store, "/", &["accept-language: EN"]).as_deref(),
            Some("en")
        );
        let miss = store.lookup(key("/").as_key(), &fields(&[]), &[]);
        assert!(matches!(miss, Lookup::VaryMiss));
        store.insert(
            key("/").as_key(),
            object(&["accept-language: de"], &["vary: accept-language"], "neu"),
        );
        assert_eq!(
            body(&store, "/", &["accept-language: de"]).as_deref(),
            Some("neu")
        );
        assert_eq!(store.purge(key("/").as_key(), Mode::Hard), 2);
        assert_eq!(body(&store, "/", &["accept-language: en"]), None);
    }

    #[test]
    fn one_with_vary_goes_before_one_without_and_the_latest_before_the_others() {
        let store = Store::new(1 << 20);
        let dated = |seconds| format!("date: {}", date(seconds));
        store.insert(
            key("/").as_key(),
            object(&["x: 1"], &["vary: x", &dated(1)], "x"),
        );
        store.insert(
            key("/").as_key(),
            object(&["y: 1"], &["vary: y", &dated(2)], "y"),
        );
        store.insert(key("/").as_key(), object(&[], &[&dated(3)], "plain"));
        assert_eq!(body(&store, "/", &["x: 1", "y: 1"]).as_deref(), Some("y"));
        assert_eq!(body(&store, "/", &["x: 1"]).as_deref(), Some("x"));
        assert_eq!(body(&store, "/", &[]).as_deref(), Some("plain"));
    }

    #[test]
    fn what_was_stored_without_a_name_that_the_route_adds_does_not_fit() {
        let store = Store::new(1 << 20);
        store.insert(key("/").as_key(), object(&[], &[], "for all"));
        let extra = [HeaderName::from_static("accept-language")];
        let found = store.lookup(key("/").as_key(), &fields(&[]), &extra);
        assert!(matches!(found, Lookup::VaryMiss));
    }

    #[test]
    fn of_too_many_variants_the_oldest_goes() {
        let store = Store::new(1 << 24);
        for number in 0..=MAX_VARIANTS {
            let asked = format!("x: {number}");
            store.insert(key("/").as_key(), object(&[&asked], &["vary: x"], "."));
        }
        assert_eq!(body(&store, "/", &["x: 0"]), None);
        assert!(body(&store, "/", &["x: 1"]).is_some());
        assert!(body(&store, "/", &[&format!("x: {MAX_VARIANTS}")]).is_some());
    }

    #[test]
    fn the_store_is_bounded_by_bytes() {
        let store = Store::new(1 << 20);
        let large = "x".repeat(10_000);
        for number in 0..1000 {
            store.insert(
                key(&format!("/{number}")).as_key(),
                object(&[], &[], &large),
            );
            assert!(
                store.figures().bytes <= (1 << 20) + (1 << 15),
                "{}",
                store.figures().bytes
            );
        }
        store.maintain();
        let figures = store.figures();
        assert!(figures.bytes <= 1 << 20, "{figures:?}");
        assert!(figures.entries > 50 && figures.entries < 105, "{figures:?}");
        assert_eq!(figures.inserts, 1000);
        assert!(figures.evictions >= 1000 - 105, "{figures:?}");
    }

    #[test]
    fn what_alone_is_too_large_is_refused() {
        let store = Store::new(1000);
        assert!(!store.insert(key("/").as_key(), object(&[], &[], &"x".repeat(1000))));
        assert_eq!(store.figures().refused, 1);
    }

    #[test]
    fn one_variant_can_be_removed_alone() {
        let store = Store::new(1 << 20);
        let (one, two) = (
            object(&["x: 1"], &["vary: x"], "1"),
            object(&["x: 2"], &["vary: x"], "2"),
        );
        store.insert(key("/").as_key(), Arc::clone(&one));
        store.insert(key("/").as_key(), Arc::clone(&two));
        store.remove(key("/").as_key(), &one);
        assert_eq!(body(&store, "/", &["x: 1"]), None);
        assert!(body(&store, "/", &["x: 2"]).is_some());
        store.remove(key("/").as_key(), &two);
        let gone = store.lookup(key("/").as_key(), &fields(&[]), &[]);
        assert!(matches!(gone, Lookup::UriMiss));
    }

    #[test]
    fn the_hint_tells_apart_what_the_stored_vary_names() {
        let store = Store::new(1 << 20);
        let hint = |asked: &[&str]| store.hint(key("/").as_key(), &fields(asked), &[]);
        assert_eq!(
            hint(&["x: 1"]),
            hint(&["x: 2"]),
            "nothing known, nothing told apart"
        );
        store.insert(key("/").as_key(), object(&["x: 1"], &["vary: x"], "1"));
        assert_ne!(hint(&["x: 1"]), hint(&["x: 2"]));
        assert_eq!(hint(&["x: 1", "y: 1"]), hint(&["x: 1"]));
    }

    /// An object of `path` on a host, with these tags.
    fn tagged(store: &Store, host: &str, path: &str, names: &[&str]) -> Key {
        let key = Key::new("https", host, path, None);
        let names: Vec<Box<[u8]>> = names.iter().map(|name| name.as_bytes().into()).collect();
        let life = store.life(key.as_key(), &names, store.tags().latest(), false);
        let lines = ["cache-control: max-age=60"];
        let head = Arc::new(head_for(&[], 200, &lines));
        let stored = Stored::new(head, vec![Bytes::from_static(b"x")], life);
        assert!(store.insert(key.as_key(), Arc::new(stored)));
        key
    }

    fn found(store: &Store, key: &Key) -> Option<Arc<Stored>> {
        match store.lookup(key.as_key(), &fields(&[]), &[]) {
            Lookup::Found(stored) => Some(stored),
            Lookup::VaryMiss | Lookup::UriMiss => None,
        }
    }

    #[test]
    fn a_purge_by_tag_reaches_all_that_carry_it_and_no_others() {
        let store = Store::new(1 << 20);
        let one = tagged(&store, "shop.example", "/1", &["p1", "all-products"]);
        let two = tagged(&store, "shop.example", "/2", &["p2", "all-products"]);
        assert_eq!(store.tags().count(b"all-products"), 2);
        assert_eq!(store.purge_tag(b"p1", Mode::Hard), 1);
        assert!(found(&store, &one).is_none() && found(&store, &two).is_some());
        assert_eq!(store.purge_tag(b"all-products", Mode::Soft(at(5))), 1);
        let stale = found(&store, &two).expect("soft leaves it there");
        assert!(stale.freshness().is_fresh(at(4)) && !stale.freshness().is_fresh(at(5)));
        store.sweep(store.tags().latest());
        assert_eq!(store.figures().entries, 1);
        assert_eq!(
            store.tags().count(b"all-products"),
            1,
            "exact after the sweep"
        );
    }

    #[test]
    fn the_index_of_tags_is_as_bounded_as_the_store() {
        let store = Store::new(64 << 10);
        for number in 0..2000 {
            let host = format!("host-{number}.example");
            tagged(&store, &host, "/", &[&format!("tag-{number}")]);
        }
        store.tidy(store.tags().latest());
        let entries = usize::try_from(store.figures().entries).expect("few");
        assert!((1..500).contains(&entries), "{entries}");
        // Its own tag and that of its host for each, and one of all.
        assert_eq!(store.tags().len(), 2 * entries + 1);

        store.purge_tag(tags::ALL, Mode::Hard);
        store.tidy(store.tags().latest());
        assert_eq!((store.tags().len(), store.figures().entries), (0, 0));
    }

    #[test]
    fn a_host_a_prefix_and_everything_can_be_purged() {
        let store = Store::new(1 << 20);
        let shop: Vec<Key> = ["/a/1", "/a/2", "/b"]
            .iter()
            .map(|path| tagged(&store, "shop.example", path, &[]))
            .collect();
        let other = tagged(&store, "other.example", "/a/1", &[]);
        let below =
            |parts: &Parts<'_>| parts.host == b"shop.example" && parts.path.starts_with(b"/a/");
        assert_eq!(store.count_where(&below), 2);
        assert_eq!(store.purge_where(&below, Mode::Hard), 2);
        assert!(found(&store, &shop[0]).is_none() && found(&store, &shop[2]).is_some());
        assert_eq!(
            store.purge_tag(&tags::of_host(b"shop.example"), Mode::Hard),
            1
        );
        assert!(found(&store, &shop[2]).is_none() && found(&store, &other).is_some());
        assert_eq!(store.purge_tag(tags::ALL, Mode::Hard), 1);
        assert!(found(&store, &other).is_none());
    }

    #[test]
    fn a_url_of_several_keys_is_purged_as_one() {
        let store = Store::new(1 << 20);
        let mut keys = Vec::new();
        for currency in [&b"eur"[..], b"chf"] {
            let mut buffer = crate::KeyBuf::new();
            buffer.fill("https", "shop.example", "/p", Some("q"));
            let key = buffer.part(Some(currency)).as_key().to_key();
            let life = store.life(key.as_key(), &[], 0, true);
            let head = Arc::new(head_for(&[], 200, &[]));
            store.insert(key.as_key(), Arc::new(Stored::new(head, Vec::new(), life)));
            keys.push(key);
        }
        let url = Key::new("https", "shop.example", "/p", Some("q"));
        assert_eq!(
            store.purge_tag(&tags::of_url(url.as_key().as_bytes()), Mode::Hard),
            2
        );
        assert!(keys.iter().all(|key| found(&store, key).is_none()));
    }

    #[test]
    fn the_most_used_objects_come_first() {
        let store = Store::new(1 << 20);
        for (path, hits) in [("/rare", 1), ("/often", 9), ("/never", 0)] {
            let key = tagged(&store, "shop.example", path, &[]);
            let stored = found(&store, &key).expect("it was put in");
            (0..hits).for_each(|_| stored.life().hit());
        }
        let top = store.top(2);
        let paths: Vec<&[u8]> = top
            .iter()
            .map(|seen| seen.key.as_key().parts().expect("parts").path)
            .collect();
        assert_eq!(paths, [&b"/often"[..], b"/rare"]);
    }
}
