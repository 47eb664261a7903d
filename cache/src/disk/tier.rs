//! The disk tier: an index in memory over the [log](super::Log), and a thread that writes.
//!
//! The index knows the key, the variant and the [`Life`] of each object on disk, so that a look-up
//! reads nothing from the disk, and purges and counts are the same over both tiers. An object is in
//! the index from the moment that it is handed over, before it is written; whoever looks it up
//! meanwhile gets it from memory.
//!
//! What a purge does is written into the log as a note, and done again when the log is opened: in
//! the order of the bytes for keys and prefixes, by the number of the purge for tags. Where damage
//! may have swallowed a note, everything older is forgotten.
//!
//! Nothing here makes a request fail: what cannot be read is not there, what cannot be written stays
//! in memory, and both are counted.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use http::HeaderName;

use super::note::{self, Note};
use super::{Address, Log, OpenError, ReadError, Recovered, SegmentId};
use crate::fields::Fields;
use crate::key::{Key, KeyRef};
use crate::store::{MAX_VARIANTS, is_below};
use crate::stored::Stored;
use crate::tags::{Life, Mode, State, Tags};
use crate::vary::Variant;

/// Bytes that wait to be written, at most; what comes beyond them stays in memory alone.
const MOST_PENDING: u64 = 64 << 20;
/// Purges are made certain against a loss of power this often, while there are any.
const SYNC_EVERY: Duration = Duration::from_secs(1);

const SHARDS: usize = 64;

/// Where it is and how large it may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder; no other process may use it.
    pub folder: PathBuf,
    /// Bytes on disk.
    pub size: u64,
}

/// The tier. Share it behind an `Arc`.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    orders: Sender<Order>,
    writer: Mutex<Option<JoinHandle<()>>>,
    limit: u64,
}

#[derive(Debug)]
struct Shared {
    log: Log,
    shards: Vec<Shard>,
    hasher: ahash::RandomState,
    tags: Tags,
    pending: AtomicU64,
    counters: Counters,
    /// The last write failed: said once, and once when it works again.
    failing: AtomicBool,
}

type Shard = Mutex<HashMap<Key, Vec<Placed>, ahash::RandomState>>;

/// One variant of one key.
#[derive(Debug, Clone)]
struct Placed {
    place: Place,
    variant: Variant,
    date: SystemTime,
    life: Arc<Life>,
}

#[derive(Debug, Clone)]
enum Place {
    /// Handed over, and not written yet.
    Pending(Arc<Stored>),
    At(Address),
}

/// What the writing thread is told.
#[derive(Debug)]
enum Order {
    Write(Key, Arc<Stored>),
    Note(Vec<u8>),
    /// Everything before this is done when the other end hangs up.
    Flush(Sender<()>),
    Stop,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    write_errors: AtomicU64,
    not_written: AtomicU64,
    hits: AtomicU64,
    read_errors: AtomicU64,
}

/// Sizes now, and counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes that there may be.
    pub limit: u64,
    /// Objects in the index.
    pub objects: u64,
    /// Objects found when it was opened.
    pub recovered: u64,
    /// Objects written.
    pub written: u64,
    /// Writes that failed: a full disk, a folder that was removed.
    pub write_errors: u64,
    /// Objects not written, as the disk did not keep up or they are too large for it.
    pub not_written: u64,
    /// Objects read.
    pub hits: u64,
    /// Objects that could not be read as they were written, records that were found damaged at the
    /// start included.
    pub damaged: u64,
}

/// An object in the index, to be [read](Disk::read).
#[derive(Debug)]
pub struct Found {
    key: Key,
    placed: Placed,
}

impl Found {
    /// Its key.
    pub fn key(&self) -> KeyRef<'_> {
        self.key.as_key()
    }
}

impl Disk {
    /// Opens the tier and finds again what is there. `tags` is the index that the store uses.
    ///
    /// # Errors
    /// The folder cannot be had.
    pub fn open(settings: &Settings, tags: &Tags) -> Result<Self, OpenError> {
        let mut recovery = Recovery::new(tags);
        let log = Log::open(&settings.folder, settings.size, &mut |record| {
            recovery.take(record);
        })?;
        let shared = Arc::new(Shared::new(log, tags, recovery.into_index()));
        let (orders, inbox) = mpsc::channel();
        let working = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("cache-disk".to_owned())
            .spawn(move || working.work(&inbox))
            .map_err(|source| OpenError::Io {
                folder: settings.folder.clone(),
                source,
            })?;
        Ok(Self {
            shared,
            orders,
            writer: Mutex::new(Some(writer)),
            limit: settings.size,
        })
    }

    /// Whether the folder could be opened, and nothing else.
    ///
    /// # Errors
    /// It is there and is no folder that this process may use.
    pub fn check(folder: &Path) -> std::io::Result<()> {
        match std::fs::read_dir(folder) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes an object in, in place of the same variant. Does not wait for the disk.
    pub fn insert(&self, key: KeyRef<'_>, stored: &Arc<Stored>) {
        let length = stored.len();
        let shared = &*self.shared;
        let fits = shared.pending.load(Ordering::Relaxed) + length <= MOST_PENDING.max(length);
        if !fits || stored.state(shared.tags.latest()) == State::Gone {
            shared.counters.not_written.fetch_add(1, Ordering::Relaxed);
            // What stands there is older.
            let same = |one: &Placed| one.variant == *stored.head().variant();
            self.remove_where(key, same);
            return;
        }
        let placed = Placed {
            place: Place::Pending(Arc::clone(stored)),
            variant: stored.head().variant().clone(),
            date: stored.head().date(),
            life: Arc::clone(stored.life()),
        };
        shared.pending.fetch_add(length, Ordering::Relaxed);
        lock(shared.shard(key)).put(key.to_key(), placed);
        self.order(Order::Write(key.to_key(), Arc::clone(stored)));
    }

    /// Finds the variant that a request selects, as [`crate::Store::lookup`] does. Reads nothing from
    /// the disk.
    pub fn find(
        &self,
        key: KeyRef<'_>,
        request: &dyn Fields,
        extra: &[HeaderName],
    ) -> Option<Found> {
        let latest = self.shared.tags.latest();
        let shard = lock(self.shared.shard(key));
        let variants = shard.get(key.as_bytes())?;
        let fits = |one: &&Placed| {
            one.variant.spec().covers(extra)
                && one.variant.matches(request)
                && one.life.state(latest) != State::Gone
        };
        let best = variants
            .iter()
            .filter(fits)
            .max_by_key(|one| (one.variant.is_by_origin(), one.date))?;
        Some(Found {
            key: key.to_key(),
            placed: best.clone(),
        })
    }

    /// Reads what was found. Blocks. `None`: it is not there any more, or not as it was.
    pub fn read(&self, found: &Found) -> Option<Arc<Stored>> {
        let address = match &found.placed.place {
            Place::Pending(stored) => return Some(Arc::clone(stored)),
            Place::At(address) => *address,
        };
        let shared = &*self.shared;
        let stored = match shared.log.read(address) {
            Ok(object) if *object.key == *found.key.as_key().as_bytes() => {
                note::read_object(&object.meta).map(|read| {
                    let life = Arc::clone(&found.placed.life);
                    Arc::new(Stored::new(Arc::new(read.head), object.body, life))
                })
            }
            Ok(_) => None,
            Err(ReadError::Gone) => {
                shared.forget(&found.key, |one| one.is_at(address));
                return None;
            }
            Err(_) => None,
        };
        let counters = &shared.counters;
        if stored.is_some() {
            counters.hits.fetch_add(1, Ordering::Relaxed);
        } else {
            counters.read_errors.fetch_add(1, Ordering::Relaxed);
            shared.forget(&found.key, |one| one.is_at(address));
        }
        stored
    }

    /// All objects of a key.
    pub fn variants(&self, key: KeyRef<'_>) -> Vec<Found> {
        let latest = self.shared.tags.latest();
        let shard = lock(self.shared.shard(key));
        let known = shard.get(key.as_bytes()).map_or(&[][..], Vec::as_slice);
        let live = known
            .iter()
            .filter(|one| one.life.state(latest) != State::Gone);
        live.map(|one| Found {
            key: key.to_key(),
            placed: one.clone(),
        })
        .collect()
    }

    /// Removes what shares this life, if it is there.
    pub fn remove(&self, key: KeyRef<'_>, life: &Arc<Life>) {
        self.remove_where(key, |one| Arc::ptr_eq(&one.life, life));
    }

    fn remove_where(&self, key: KeyRef<'_>, gone: impl Fn(&Placed) -> bool) {
        // The variants that stay lose nothing by the note: it says which one goes.
        for placed in self.shared.forget(&key.to_key(), gone) {
            let note = Note::Variant {
                key: key.as_bytes(),
                variant: placed.variant.values(),
            };
            self.order(Order::Note(note.to_bytes()));
        }
    }

    /// Purges a key. Returns the lives that it found.
    pub fn purge(&self, key: KeyRef<'_>, mode: Mode) -> Vec<Arc<Life>> {
        let latest = self.shared.tags.latest();
        let lives: Vec<Arc<Life>> = {
            let mut shard = lock(self.shared.shard(key));
            let lives = shard.live(key, latest);
            if mode == Mode::Hard {
                shard.drop_key(key);
            }
            lives
        };
        for life in &lives {
            life.purge(mode);
        }
        if !lives.is_empty() {
            let note = Note::Key {
                key: key.as_bytes(),
                mode,
            };
            self.order(Order::Note(note.to_bytes()));
        }
        lives
    }

    /// Writes down a purge by tag that was done as number `number`.
    pub fn note_tag(&self, name: &[u8], mode: Mode, number: u64) {
        let note = Note::Tag { name, mode, number };
        self.order(Order::Note(note.to_bytes()));
    }

    /// Purges all objects of a host whose path begins with `path`. Returns the lives that it found.
    pub fn purge_prefix(&self, host: &[u8], path: &[u8], mode: Mode) -> Vec<Arc<Life>> {
        let lives = self.lives_below(host, path);
        for life in &lives {
            life.purge(mode);
        }
        if mode == Mode::Hard {
            self.sweep();
        }
        let note = Note::Prefix { host, path, mode };
        self.order(Order::Note(note.to_bytes()));
        lives
    }

    /// The lives of the objects of a key.
    pub fn lives_of(&self, key: KeyRef<'_>) -> Vec<Arc<Life>> {
        let latest = self.shared.tags.latest();
        lock(self.shared.shard(key)).live(key, latest)
    }

    /// The lives of all objects of a host whose path begins with `path`. Goes through the index, a
    /// shard at a time.
    pub fn lives_below(&self, host: &[u8], path: &[u8]) -> Vec<Arc<Life>> {
        let latest = self.shared.tags.latest();
        let mut lives = Vec::new();
        for shard in &self.shared.shards {
            for (key, variants) in lock(shard).iter() {
                if is_below(key.as_key(), host, path) {
                    let live = variants.iter().map(|one| &one.life);
                    lives.extend(
                        live.filter(|life| life.state(latest) != State::Gone)
                            .cloned(),
                    );
                }
            }
        }
        lives
    }

    /// Takes out of the index what purges took away.
    pub fn sweep(&self) {
        let latest = self.shared.tags.latest();
        self.shared
            .retain(|one| one.life.state(latest) != State::Gone);
    }

    /// Sizes and counters.
    pub fn figures(&self) -> Figures {
        let shared = &*self.shared;
        let stats = shared.log.stats();
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let objects = shared.shards.iter().map(|shard| {
            let shard = lock(shard);
            shard
                .values()
                .map(|variants| variants.len() as u64)
                .sum::<u64>()
        });
        Figures {
            bytes: stats.bytes,
            limit: self.limit,
            objects: objects.sum(),
            recovered: stats.recovered,
            written: value(&shared.counters.written),
            write_errors: value(&shared.counters.write_errors),
            not_written: value(&shared.counters.not_written),
            hits: value(&shared.counters.hits),
            damaged: value(&shared.counters.read_errors) + stats.skipped + stats.discarded_segments,
        }
    }

    /// Waits until everything that was handed over before is written, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let (done, wait) = mpsc::channel();
        self.order(Order::Flush(done));
        // It answers by hanging up.
        let _ = wait.recv_timeout(patience);
    }

    fn order(&self, order: Order) {
        // The thread ends with this value only.
        let _ = self.orders.send(order);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.order(Order::Stop);
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            // A panic of it was printed where it happened.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn new(log: Log, tags: &Tags, index: HashMap<Key, Vec<Placed>>) -> Self {
        let shared = Self {
            log,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: ahash::RandomState::new(),
            tags: tags.clone(),
            pending: AtomicU64::new(0),
            counters: Counters::default(),
            failing: AtomicBool::new(false),
        };
        for (key, variants) in index {
            for one in &variants {
                one.life.hold();
            }
            lock(shared.shard(key.as_key())).insert(key, variants);
        }
        shared
    }

    fn shard(&self, key: KeyRef<'_>) -> &Shard {
        let hash = self.hasher.hash_one(key.as_bytes());
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }

    /// Takes variants of a key out of the index. Returns them.
    fn forget(&self, key: &Key, gone: impl Fn(&Placed) -> bool) -> Vec<Placed> {
        let mut shard = lock(self.shard(key.as_key()));
        let Some(variants) = shard.get_mut(key) else {
            return Vec::new();
        };
        let (out, kept): (Vec<_>, Vec<_>) = variants.drain(..).partition(|one| gone(one));
        *variants = kept;
        if variants.is_empty() {
            shard.remove(key);
        }
        for one in &out {
            one.life.release();
        }
        out
    }

    fn retain(&self, keep: impl Fn(&Placed) -> bool) {
        for shard in &self.shards {
            lock(shard).retain(|_, variants| {
                variants.retain(|one| {
                    let kept = keep(one);
                    if !kept {
                        one.life.release();
                    }
                    kept
                });
                !variants.is_empty()
            });
        }
    }

    /// The writing thread.
    fn work(&self, inbox: &mpsc::Receiver<Order>) {
        let mut unsynced = false;
        loop {
            let order = match unsynced {
                true => inbox.recv_timeout(SYNC_EVERY),
                false => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(Order::Write(key, stored)) => self.write(&key, &stored),
                Ok(Order::Note(bytes)) => {
                    match self.log.note(&bytes) {
                        Ok(evicted) => self.evicted(&evicted),
                        Err(error) => {
                            self.evicted(&error.evicted);
                            self.failed(&error);
                            // What cannot be written down would come back at the next start.
                            if let Err(error) = self.log.clear() {
                                self.failed(&error);
                            }
                            self.retain(|_| false);
                        }
                    }
                    unsynced = true;
                }
                Ok(Order::Flush(done)) => drop(done),
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    // It is tried again with the next purge.
                    let _ = self.log.sync();
                    unsynced = false;
                }
            }
        }
        if unsynced {
            let _ = self.log.sync();
        }
    }

    fn write(&self, key: &Key, stored: &Arc<Stored>) {
        self.pending.fetch_sub(stored.len(), Ordering::Relaxed);
        let is_it = |one: &Placed| matches!(&one.place, Place::Pending(pending) if Arc::ptr_eq(pending, stored));
        let wanted = {
            let shard = lock(self.shard(key.as_key()));
            shard
                .get(key)
                .is_some_and(|variants| variants.iter().any(is_it))
        };
        // Replaced or purged before its turn came.
        if !wanted || stored.state(self.tags.latest()) == State::Gone {
            self.forget(key, is_it);
            return;
        }
        let meta = note::write_object(stored);
        match self
            .log
            .append(key.as_key().as_bytes(), &meta, stored.segments())
        {
            Ok(appended) => {
                self.counters.written.fetch_add(1, Ordering::Relaxed);
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the cache's disk tier can be written again");
                }
                self.evicted(&appended.evicted);
                let mut shard = lock(self.shard(key.as_key()));
                if let Some(one) = shard
                    .get_mut(key)
                    .and_then(|variants| variants.iter_mut().find(|one| is_it(one)))
                {
                    one.place = Place::At(appended.address);
                }
            }
            Err(error) => {
                self.evicted(&error.evicted);
                if matches!(error.refusal, super::Refusal::TooLarge { .. }) {
                    self.counters.not_written.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.failed(&error);
                }
                self.forget(key, is_it);
            }
        }
    }

    fn failed(&self, error: &super::AppendError) {
        self.counters.write_errors.fetch_add(1, Ordering::Relaxed);
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the cache's disk tier cannot be written; pages stay in memory");
        }
    }

    fn evicted(&self, segments: &[SegmentId]) {
        if segments.is_empty() {
            return;
        }
        self.retain(|one| match &one.place {
            Place::At(address) => !segments.contains(&address.segment()),
            Place::Pending(_) => true,
        });
    }
}

impl Placed {
    fn is_at(&self, address: Address) -> bool {
        matches!(self.place, Place::At(at) if at == address)
    }
}

/// What the maps of the shards can do.
trait Index {
    fn put(&mut self, key: Key, placed: Placed);
    fn live(&self, key: KeyRef<'_>, latest: u64) -> Vec<Arc<Life>>;
    fn drop_key(&mut self, key: KeyRef<'_>);
}

impl<S: BuildHasher> Index for HashMap<Key, Vec<Placed>, S> {
    fn put(&mut self, key: Key, placed: Placed) {
        placed.life.hold();
        let variants = self.entry(key).or_default();
        variants.retain(|one| {
            let other = one.variant != placed.variant;
            if !other {
                one.life.release();
            }
            other
        });
        if variants.len() >= MAX_VARIANTS {
            variants.remove(0).life.release();
        }
        variants.push(placed);
        variants.shrink_to_fit();
    }

    fn live(&self, key: KeyRef<'_>, latest: u64) -> Vec<Arc<Life>> {
        let variants = self.get(key.as_bytes()).map_or(&[][..], Vec::as_slice);
        let lives = variants.iter().map(|one| &one.life);
        lives
            .filter(|life| life.state(latest) != State::Gone)
            .cloned()
            .collect()
    }

    fn drop_key(&mut self, key: KeyRef<'_>) {
        for one in self.remove(key.as_bytes()).into_iter().flatten() {
            one.life.release();
        }
    }
}

/// The index while the log is read back.
struct Recovery<'t> {
    tags: &'t Tags,
    index: HashMap<Key, Vec<Placed>>,
}

impl<'t> Recovery<'t> {
    fn new(tags: &'t Tags) -> Self {
        Self {
            tags,
            index: HashMap::new(),
        }
    }

    fn take(&mut self, record: Recovered<'_>) {
        match record {
            Recovered::Object {
                address, key, meta, ..
            } => self.object(address, key, meta),
            Recovered::Note(bytes) => match Note::read(bytes) {
                Some(note) => self.note(&note),
                None => self.index.clear(),
            },
            Recovered::Gap => self.index.clear(),
        }
    }

    fn object(&mut self, address: Address, key: &[u8], meta: &[u8]) {
        let (Some(key), Some(read)) = (Key::from_bytes(key), note::read_object(meta)) else {
            return;
        };
        self.tags.at_least(read.since);
        let names = read.tags.iter().copied();
        let life = self.tags.bind(names, read.since);
        if let Some(time) = read.soft_at {
            life.purge(Mode::Soft(time));
        }
        let placed = Placed {
            place: Place::At(address),
            variant: read.head.variant().clone(),
            date: read.head.date(),
            life: Arc::new(life),
        };
        let variants = self.index.entry(key).or_default();
        variants.retain(|one| one.variant != placed.variant);
        if variants.len() >= MAX_VARIANTS {
            variants.remove(0);
        }
        variants.push(placed);
    }

    fn note(&mut self, note: &Note<'_>) {
        match *note {
            Note::Key { key, mode } => {
                let Some(variants) = self.index.get_mut(key) else {
                    return;
                };
                variants.iter().for_each(|one| one.life.purge(mode));
                if mode == Mode::Hard {
                    self.index.remove(key);
                }
            }
            Note::Variant { key, variant } => {
                if let Some(variants) = self.index.get_mut(key) {
                    variants.retain(|one| one.variant.values() != variant);
                }
            }
            Note::Prefix { host, path, mode } => {
                for (key, variants) in &self.index {
                    if is_below(key.as_key(), host, path) {
                        variants.iter().for_each(|one| one.life.purge(mode));
                    }
                }
            }
            Note::Tag { name, mode, number } => self.tags.replay(name, mode, number),
        }
    }

    /// What no purge took away.
    fn into_index(mut self) -> HashMap<Key, Vec<Placed>> {
        let latest = self.tags.latest();
        self.index.retain(|_, variants| {
            variants.retain(|one| one.life.state(latest) != State::Gone);
            !variants.is_empty()
        });
        self.index
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
