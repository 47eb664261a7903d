//! Tags of objects, and what a purge by tag makes of them.
//!
//! An origin names what a page is made of (`Surrogate-Key: p42 category-7`), and later purges every
//! page that names it. The index is exact: an object is bound to its tags before it can be found,
//! and [`Life`], which is the object's own part of the index, is told when a tier takes the object
//! in or lets go of it. So the number of objects under a tag is known at any time.
//!
//! **A purge walks nothing.** It changes the tag, and the objects notice: each compares, at its next
//! use, the number of the latest purge with the one that it last looked at. Only then are its tags
//! looked through. A hit after a purge reads as many counters as the object has tags, and every
//! further hit one. The memory of what was purged is given back by [`crate::Store::sweep`].
//!
//! **What is on its way** when a tag is purged may be older than the purge. A fetch knows the number
//! of the latest purge at its start, and is judged by that.
//!
//! Tags whose names begin with NUL are the cache's own: an object's host, all objects, and the URL
//! where several keys share one. No field value can hold that byte.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderName;

use crate::fields::Fields;

/// Tags that an object may have; one with more is not stored, since it could not be purged exactly.
pub const MAX_TAGS: usize = 1000;

/// Bytes of one tag; an object with a longer one is not stored.
pub const MAX_TAG_LENGTH: usize = 512;

/// What a tag costs beside its name: map entry, counters, allocations.
const TAG_OVERHEAD: usize = 160;

const SHARDS: usize = 64;

/// The fields that carry tags, unless others are configured.
pub const FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("xkey"),
];

/// What a purge does to what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is gone at once.
    Hard,
    /// It is stale from this moment on: it can be validated, served while it is fetched anew, and
    /// stand in for a failing origin, each for as long as it could be past its lifetime.
    Soft(SystemTime),
}

/// An object has too many tags, or one that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_TAGS} tags, or one of more than {MAX_TAG_LENGTH} bytes")]
pub struct TooManyTags;

/// The names in `fields`, each once: separated by spaces or commas, compared byte for byte.
///
/// # Errors
/// Beyond [`MAX_TAGS`] or [`MAX_TAG_LENGTH`].
pub fn read(fields: &dyn Fields, names: &[HeaderName]) -> Result<Vec<Box<[u8]>>, TooManyTags> {
    let mut tags: Vec<Box<[u8]>> = Vec::new();
    let mut too_many = false;
    for name in names {
        fields.each(name, &mut |line| {
            let parts = line.split(|byte| matches!(byte, b' ' | b'\t' | b','));
            for tag in parts.filter(|part| !part.is_empty()) {
                if tags.len() > 2 * MAX_TAGS {
                    // Perhaps they are the same again and again.
                    tags.sort_unstable();
                    tags.dedup();
                }
                too_many |= tags.len() > 2 * MAX_TAGS || tag.len() > MAX_TAG_LENGTH;
                if too_many {
                    return;
                }
                tags.push(tag.into());
            }
        });
    }
    tags.sort_unstable();
    tags.dedup();
    if too_many || tags.len() > MAX_TAGS {
        return Err(TooManyTags);
    }
    Ok(tags)
}

/// The index. Clones share it.
#[derive(Debug, Clone)]
pub struct Tags(Arc<Index>);

type Shard = Mutex<HashMap<Box<[u8]>, Arc<Tag>, ahash::RandomState>>;

#[derive(Debug)]
struct Index {
    shards: Vec<Shard>,
    hasher: ahash::RandomState,
    /// The number of the latest purge.
    latest: AtomicU64,
    /// Purges come one after the other, so that their numbers do.
    purging: Mutex<()>,
}

/// One tag between two hard purges.
#[derive(Debug)]
struct Tag {
    name: Box<[u8]>,
    objects: AtomicU64,
    /// The number of the purge that made it; what was fetched from before that is gone.
    born: u64,
    /// A hard purge took it out of the index, and with it all that is bound to it.
    dead: AtomicBool,
    /// The number and time of the latest soft purge; 0 when there was none.
    soft: AtomicU64,
    soft_at: AtomicU64,
}

/// A tag and how many objects have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The tag.
    pub name: String,
    /// Objects, each variant counted.
    pub objects: u64,
}

impl Default for Tags {
    fn default() -> Self {
        Self::new()
    }
}

impl Tags {
    /// An empty index.
    pub fn new() -> Self {
        Self(Arc::new(Index {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: ahash::RandomState::new(),
            latest: AtomicU64::new(0),
            purging: Mutex::default(),
        }))
    }

    /// The number of the latest purge: what a fetch takes with it when it begins.
    pub fn latest(&self) -> u64 {
        self.0.latest.load(Ordering::Acquire)
    }

    /// Continues the numbers of a store that was read back from disk.
    pub fn at_least(&self, number: u64) {
        self.0.latest.fetch_max(number, Ordering::AcqRel);
    }

    /// Binds an object whose fetch began after the purge `since` to its tags.
    pub fn bind<'a>(&self, names: impl IntoIterator<Item = &'a [u8]>, since: u64) -> Life {
        let mut charge = 0;
        let tags = names
            .into_iter()
            .map(|name| {
                let mut shard = lock(self.shard(name));
                let tag = match shard.get(name) {
                    Some(tag) => tag.clone(),
                    None => {
                        let tag = Arc::new(Tag::new(name, 0));
                        shard.insert(name.into(), tag.clone());
                        tag
                    }
                };
                if tag.objects.fetch_add(1, Ordering::Relaxed) == 0 {
                    charge += TAG_OVERHEAD + 2 * name.len();
                }
                tag
            })
            .collect();
        Life {
            since,
            // Nothing was looked at yet.
            checked: AtomicU64::new(0),
            soft_at: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            hits: AtomicU32::new(0),
            holders: AtomicU32::new(0),
            counted: AtomicBool::new(true),
            charge: u32::try_from(charge).unwrap_or(u32::MAX),
            tags,
        }
    }

    /// Purges all objects with this tag. Returns how many there were, and the number of the purge.
    pub fn purge(&self, name: &[u8], mode: Mode) -> (u64, u64) {
        let _one = lock(&self.0.purging);
        let number = self.latest() + 1;
        let objects = self.carry_out(name, mode, number);
        self.0.latest.store(number, Ordering::Release);
        (objects, number)
    }

    /// Does once more what was done as number `number` before a restart.
    pub(crate) fn replay(&self, name: &[u8], mode: Mode, number: u64) {
        let _one = lock(&self.0.purging);
        self.carry_out(name, mode, number);
        self.0.latest.fetch_max(number, Ordering::AcqRel);
    }

    fn carry_out(&self, name: &[u8], mode: Mode, number: u64) -> u64 {
        let mut shard = lock(self.shard(name));
        match mode {
            Mode::Hard => {
                // Stays when there was none: what is on its way may carry it.
                let old = shard.insert(name.into(), Arc::new(Tag::new(name, number)));
                old.map_or(0, |old| {
                    old.dead.store(true, Ordering::Release);
                    old.objects.load(Ordering::Relaxed)
                })
            }
            Mode::Soft(now) => {
                let tag = shard
                    .entry(name.into())
                    .or_insert_with(|| Arc::new(Tag::new(name, 0)));
                tag.soft_at.store(millis(now), Ordering::Relaxed);
                tag.soft.store(number, Ordering::Release);
                tag.objects.load(Ordering::Relaxed)
            }
        }
    }

    /// How many objects have this tag.
    pub fn count(&self, name: &[u8]) -> u64 {
        lock(self.shard(name))
            .get(name)
            .map_or(0, |tag| tag.objects.load(Ordering::Relaxed))
    }

    /// The tags with the most objects, the largest first, and how many tags there are. For people
    /// who look: it goes through all of them, a shard at a time.
    pub fn top(&self, most: usize) -> (Vec<Count>, usize) {
        let mut all: Vec<(u64, Box<[u8]>)> = Vec::new();
        for shard in &self.0.shards {
            let shard = lock(shard);
            let named = shard.values().filter(|tag| !is_own(&tag.name));
            all.extend(named.filter_map(|tag| {
                let objects = tag.objects.load(Ordering::Relaxed);
                (objects > 0).then(|| (objects, tag.name.clone()))
            }));
        }
        let total = all.len();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.truncate(most);
        let top = all
            .into_iter()
            .map(|(objects, name)| Count {
                name: String::from_utf8_lossy(&name).into_owned(),
                objects,
            })
            .collect();
        (top, total)
    }

    /// Forgets tags that no object has. Those purged after `oldest`, the start of the oldest fetch
    /// under way, stay: it may bring one of their objects.
    pub fn forget_unused(&self, oldest: u64) {
        for shard in &self.0.shards {
            let mut shard = lock(shard);
            shard.retain(|_, tag| {
                let purged = tag.born.max(tag.soft.load(Ordering::Acquire));
                tag.objects.load(Ordering::Relaxed) > 0 || purged > oldest
            });
            if shard.capacity() > 2 * shard.len() + 64 {
                shard.shrink_to_fit();
            }
        }
    }

    /// Tags in the index, the cache's own and those that no object has any more included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, name: &[u8]) -> &Shard {
        let hash = self.0.hasher.hash_one(name);
        &self.0.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }
}

impl Tag {
    fn new(name: &[u8], born: u64) -> Self {
        Self {
            name: name.into(),
            objects: AtomicU64::new(0),
            born,
            dead: AtomicBool::new(false),
            soft: AtomicU64::new(0),
            soft_at: AtomicU64::new(0),
        }
    }
}

/// Whether an object may still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No purge concerns it.
    Live,
    /// A soft purge made it stale at this time.
    Outdated(SystemTime),
    /// A hard purge took it away.
    Gone,
}

/// No number of holders: there were some, and all have let go.
const LEFT: u32 = u32::MAX;

/// What happens to an object after it was stored. All tiers that hold the object share it.
#[derive(Debug, Default)]
pub struct Life {
    since: u64,
    checked: AtomicU64,
    /// Milliseconds since 1970; 0 when not.
    soft_at: AtomicU64,
    gone: AtomicBool,
    hits: AtomicU32,
    /// Entries and tiers that have it; [`LEFT`] once the last one has let go.
    holders: AtomicU32,
    /// Whether it is among the objects of its tags.
    counted: AtomicBool,
    charge: u32,
    tags: Box<[Arc<Tag>]>,
}

impl Life {
    /// Whether it may still be used, `latest` being [`Tags::latest`].
    pub fn state(&self, latest: u64) -> State {
        if self.checked.load(Ordering::Acquire) < latest {
            self.check(latest);
        }
        if self.gone.load(Ordering::Relaxed) {
            return State::Gone;
        }
        match self.soft_at.load(Ordering::Relaxed) {
            0 => State::Live,
            millis => State::Outdated(UNIX_EPOCH + Duration::from_millis(millis)),
        }
    }

    /// Purges this one object.
    pub fn purge(&self, mode: Mode) {
        match mode {
            Mode::Hard => self.end(),
            Mode::Soft(now) => self.outdate(millis(now)),
        }
    }

    /// A tier takes it in; whether it may. Once the last one has let go of it, its tags may be forgotten,
    /// and a purge would not find it.
    #[must_use]
    pub fn hold(&self) -> bool {
        let more = |holders| (holders != LEFT).then(|| holders + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.holders.fetch_update(set, fetch, more).is_ok()
    }

    /// A tier that [holds](Self::hold) it lets go of it. Not left to its drop, which whoever still reads it
    /// puts off, and the reclamation of moka.
    pub fn release(&self) {
        let fewer = |holders| match holders {
            1 => Some(LEFT),
            LEFT | 0 => None,
            more => Some(more - 1),
        };
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.holders.fetch_update(set, fetch, fewer) == Ok(1) {
            self.uncount();
        }
    }

    /// The number of the latest purge when its fetch began.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// When a soft purge made it stale, as far as is known without looking at its tags.
    pub fn soft_at(&self) -> Option<SystemTime> {
        match self.soft_at.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(UNIX_EPOCH + Duration::from_millis(millis)),
        }
    }

    /// Its tags, the cache's own included.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.tags.iter().map(|tag| &*tag.name)
    }

    /// The origin's tags.
    pub fn tags(&self) -> impl Iterator<Item = &[u8]> {
        self.names().filter(|name| !is_own(name))
    }

    /// Counts a use.
    pub fn hit(&self) {
        self.used(1);
    }

    /// Counts so many uses.
    pub(crate) fn used(&self, times: u32) {
        self.hits.fetch_add(times, Ordering::Relaxed);
    }

    /// Uses so far; wraps after 2^32.
    pub fn hits(&self) -> u32 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Bytes that it takes in memory: its own, and those of the tags that it was the first to have.
    pub fn weight(&self) -> usize {
        // The counters of the `Arc` that it stands in are 16 bytes.
        size_of::<Self>() + 16 + self.tags.len() * size_of::<Arc<Tag>>() + self.charge as usize
    }

    fn check(&self, latest: u64) {
        for tag in &self.tags {
            if tag.dead.load(Ordering::Acquire) || tag.born > self.since {
                self.end();
            }
            if tag.soft.load(Ordering::Acquire) > self.since {
                self.outdate(tag.soft_at.load(Ordering::Relaxed));
            }
        }
        self.checked.fetch_max(latest, Ordering::Release);
    }

    fn end(&self) {
        self.gone.store(true, Ordering::Release);
        self.uncount();
    }

    fn uncount(&self) {
        if self.counted.swap(false, Ordering::Relaxed) {
            for tag in &self.tags {
                tag.objects.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// The first soft purge counts: it is stale since then.
    fn outdate(&self, millis: u64) {
        let _ =
            self.soft_at
                .compare_exchange(0, millis.max(1), Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.uncount();
    }
}

/// The tag that every object has.
pub const ALL: &[u8] = b"\0all";

/// The tag of a host (in the spelling of the key).
pub fn of_host(host: &[u8]) -> Vec<u8> {
    [b"\0host:", host].concat()
}

/// The tag of a URL of which there are several keys; `url` are the key's bytes up to the query.
pub fn of_url(url: &[u8]) -> Vec<u8> {
    [b"\0url:", url].concat()
}

fn is_own(name: &[u8]) -> bool {
    name.first() == Some(&0)
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A panic of another thread leaves the map as whole as any early return would.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
