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

mod index;
mod recovery;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use http::HeaderName;

use self::index::{Index, Order, Place, Placed, Shared, lock};
use self::recovery::Recovery;
use super::note::{self, Note};
use super::{Log, OpenError, ReadError};
use crate::fields::Fields;
use crate::key::{Key, KeyRef};
use crate::store::is_below;
use crate::stored::Stored;
use crate::tags::{Life, Mode, State, Tags};

/// Bytes that wait to be written, at most; what comes beyond them stays in memory alone.
const MOST_PENDING: u64 = 64 << 20;
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
    /// Wakes the writing thread when the folder is ours again; none: it was never left.
    back: Mutex<Option<Sender<()>>>,
    limit: u64,
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

    pub(crate) fn life(&self) -> &Arc<Life> {
        &self.placed.life
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
            back: Mutex::default(),
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

    /// Purges a key. Returns the lives that it found. What was purged stays so after the kill of the
    /// process from here on, which takes a write to the disk.
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
            self.shared.note(&note.to_bytes());
        }
        lives
    }

    /// Writes down a purge by tag that was done as number `number`.
    pub fn note_tag(&self, name: &[u8], mode: Mode, number: u64) {
        let note = Note::Tag { name, mode, number };
        self.shared.note(&note.to_bytes());
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
        if !lives.is_empty() {
            let note = Note::Prefix { host, path, mode };
            self.shared.note(&note.to_bytes());
        }
        lives
    }

    /// The lives of the objects of a key.
    pub fn lives_of(&self, key: KeyRef<'_>) -> Vec<Arc<Life>> {
        let latest = self.shared.tags.latest();
        lock(self.shared.shard(key)).live(key, latest)
    }

    /// The lives of all objects of a host whose path begins with `path`.
    pub fn lives_below(&self, host: &[u8], path: &[u8]) -> Vec<Arc<Life>> {
        self.lives_where(&|key, _| is_below(key, host, path))
    }

    /// The lives of all objects that are `wanted`. Goes through the index, a shard at a time.
    pub fn lives_where(&self, wanted: &dyn Fn(KeyRef<'_>, &Life) -> bool) -> Vec<Arc<Life>> {
        let latest = self.shared.tags.latest();
        let mut lives = Vec::new();
        for shard in &self.shared.shards {
            for (key, variants) in lock(shard).iter() {
                let found = variants
                    .iter()
                    .map(|one| &one.life)
                    .filter(|life| wanted(key.as_key(), life) && life.state(latest) != State::Gone);
                lives.extend(found.cloned());
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

    /// Waits until everything that was handed over before is written, at most `patience`; whether it was.
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, wait) = mpsc::channel();
        self.order(Order::Flush(done));
        // It answers by hanging up.
        wait.recv_timeout(patience) != Err(mpsc::RecvTimeoutError::Timeout)
    }

    /// Writes what waits, at most for `patience`, and leaves the folder to another process. What is
    /// stored is still found and read here; what comes from now on waits in memory.
    ///
    /// # Errors
    /// It takes longer, or the system keeps the lock. Then nothing has changed.
    pub fn leave(&self, patience: Duration) -> std::io::Result<()> {
        if lock(&self.back).is_some() {
            return Ok(());
        }
        let (done, left) = mpsc::sync_channel(0);
        let (back, wait) = mpsc::channel();
        self.order(Order::Leave(done, wait));
        match left.recv_timeout(patience) {
            Ok(Ok(())) => {
                *lock(&self.back) = Some(back);
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let why = "what waits was not written in time";
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why))
            }
        }
    }

    /// Has the folder again after [`Disk::leave`], as if nothing had been.
    ///
    /// # Errors
    /// Another process has it. Then it can be tried again.
    pub fn take_back(&self) -> Result<(), OpenError> {
        let mut left = lock(&self.back);
        let Some(back) = left.take() else {
            return Ok(());
        };
        if let Err(error) = self.shared.take_back() {
            *left = Some(back);
            return Err(error);
        }
        // The thread waits for it.
        let _ = back.send(());
        Ok(())
    }

    fn order(&self, order: Order) {
        // The thread ends with this value only.
        let _ = self.orders.send(order);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(lock(&self.back).take());
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
