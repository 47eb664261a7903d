//! Where finished objects stand: moka, bounded by bytes, one entry for each URL.
//!
//! An entry holds all variants of its URL, so purging the URL purges them all, and finding one costs
//! a single look-up. An entry is never changed in place: a new one takes its position, and whoever
//! reads the old one goes on reading it. A look-up takes no lock.
//!
//! moka decides what has to go (TinyLFU: a scan does not push out what is in demand) and counts
//! weights. It knows nothing of freshness, as its clock cannot be set; what is stale stays until
//! room is needed, since it can still be validated or stand in for a failing origin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderName;
use moka::notification::RemovalCause;
use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;

use crate::fields::Fields;
use crate::head::Stored;
use crate::key::{Key, KeyRef};
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
    counters: Arc<Counters>,
    /// Bytes inserted since moka last made room, and how many may be.
    unsettled: AtomicU64,
    slack: u64,
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
    /// URLs removed by a purge or an unsafe request.
    pub purges: u64,
    /// Objects that alone are too large for the store.
    pub refused: u64,
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
            })
            .build_with_hasher(ahash::RandomState::new());
        Self {
            entries,
            counters,
            unsettled: AtomicU64::new(0),
            slack: capacity / 64,
        }
    }

    /// Finds the variant that a request selects (RFC 9111 section 4.1). `extra` are the names that
    /// the route adds to Vary now; what was stored without them does not fit.
    pub fn lookup(&self, key: KeyRef<'_>, request: &dyn Fields, extra: &[HeaderName]) -> Lookup {
        let Some(entry) = self.entries.get(key.as_bytes()) else {
            return Lookup::UriMiss;
        };
        match entry.select(request, extra) {
            Some(stored) => Lookup::Found(Arc::clone(stored)),
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

    /// Puts an object in, in place of the same variant. Returns whether it can be held at all.
    pub fn insert(&self, key: KeyRef<'_>, stored: Arc<Stored>) -> bool {
        let weight = stored.weight() + key.as_bytes().len() as u64 + ENTRY_OVERHEAD;
        let capacity = self.entries.policy().max_capacity().unwrap_or(u64::MAX);
        if weight > capacity.min(u64::from(u32::MAX)) {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.entries.entry(key.to_key()).and_compute_with(|known| {
            Op::Put(Arc::new(Entry::with(
                known.as_ref().map(|known| &**known.value()),
                stored,
            )))
        });
        self.counters.inserts.fetch_add(1, Ordering::Relaxed);
        self.settle(weight);
        true
    }

    /// Puts `new` in the place of `old`, if that still stands there. Returns whether it did.
    pub fn replace(&self, key: KeyRef<'_>, old: &Arc<Stored>, new: Arc<Stored>) -> bool {
        let result = self.entries.entry(key.to_key()).and_compute_with(|known| {
            let Some(known) = known else { return Op::Nop };
            if !known.value().holds(old) {
                return Op::Nop;
            }
            Op::Put(Arc::new(Entry::with(
                Some(&known.value().without(old)),
                new,
            )))
        });
        let replaced = matches!(result, CompResult::ReplacedWith(_));
        if replaced {
            self.counters.inserts.fetch_add(1, Ordering::Relaxed);
        }
        replaced
    }

    /// Removes this one object, if it still stands there.
    pub fn remove(&self, key: KeyRef<'_>, stored: &Arc<Stored>) {
        self.entries.entry(key.to_key()).and_compute_with(|known| {
            let Some(known) = known else { return Op::Nop };
            let rest = known.value().without(stored);
            if rest.variants.is_empty() {
                Op::Remove
            } else {
                Op::Put(Arc::new(rest))
            }
        });
    }

    /// Removes a URL with all its variants and [parts](crate::part). Returns whether there was one.
    /// What is on its way at the same time needs [`crate::Flights::purge`].
    pub fn purge(&self, key: KeyRef<'_>) -> bool {
        let part = self.entries.remove(&key.of_part()).is_some();
        let found = self.entries.remove(key.as_bytes()).is_some() || part;
        if found {
            self.counters.purges.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// Removes everything.
    pub fn clear(&self) {
        self.entries.invalidate_all();
        self.entries.run_pending_tasks();
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

    /// moka makes room after a number of writes, whatever their size; with large objects that would
    /// be far too late.
    fn settle(&self, weight: u64) {
        if self.unsettled.fetch_add(weight, Ordering::Relaxed) + weight > self.slack {
            self.maintain();
        }
    }
}

impl Entry {
    /// The variants of `known` and one more; its equal goes, and the oldest if there are too many.
    fn with(known: Option<&Self>, stored: Arc<Stored>) -> Self {
        let mut variants: Vec<Arc<Stored>> = known
            .map(|known| known.variants.as_slice())
            .unwrap_or_default()
            .iter()
            .filter(|one| one.head().variant() != stored.head().variant())
            .cloned()
            .collect();
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
        variants.drain(..surplus);
        variants.shrink_to_fit();
        Self { variants }
    }

    fn without(&self, stored: &Arc<Stored>) -> Self {
        let variants = self
            .variants
            .iter()
            .filter(|one| !Arc::ptr_eq(one, stored))
            .cloned()
            .collect();
        Self { variants }
    }

    fn holds(&self, stored: &Arc<Stored>) -> bool {
        self.variants.iter().any(|one| Arc::ptr_eq(one, stored))
    }

    /// Of those that match, one with Vary before one without, then the latest by Date (RFC 9111
    /// sections 4 and 4.1), then the latest stored.
    fn select(&self, request: &dyn Fields, extra: &[HeaderName]) -> Option<&Arc<Stored>> {
        let fits = |stored: &&Arc<Stored>| {
            let variant = stored.head().variant();
            variant.spec().covers(extra) && variant.matches(request)
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
    use crate::testing::{date, fields, head_for};
    use bytes::Bytes;

    fn object(asked: &[&str], replied: &[&str], body: &str) -> Arc<Stored> {
        let head = Arc::new(head_for(asked, 200, replied));
        Arc::new(Stored::new(
            head,
            vec![Bytes::copy_from_slice(body.as_bytes())],
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
        assert!(store.purge(key("/a").as_key()) && !store.purge(key("/a").as_key()));
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
        assert!(store.purge(key("/").as_key()));
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
    fn a_renewed_object_takes_the_place_of_the_old_one_only_while_that_is_there() {
        let store = Store::new(1 << 20);
        let (old, new) = (object(&[], &[], "old"), object(&[], &[], "new"));
        store.insert(key("/").as_key(), Arc::clone(&old));
        assert!(store.replace(key("/").as_key(), &old, Arc::clone(&new)));
        assert_eq!(body(&store, "/", &[]).as_deref(), Some("new"));
        assert!(!store.replace(key("/").as_key(), &old, Arc::clone(&new)));
        store.purge(key("/").as_key());
        assert!(
            !store.replace(key("/").as_key(), &new, Arc::clone(&new)),
            "a purge is final"
        );
        assert_eq!(body(&store, "/", &[]), None);
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
}
