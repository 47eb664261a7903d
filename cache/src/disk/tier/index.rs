//! The index of the disk tier, and the thread that writes what it holds.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::super::note;
use super::super::{Address, AppendError, Log, OpenError, Refusal, SegmentId};
use crate::key::{Key, KeyRef};
use crate::store::MAX_VARIANTS;
use crate::stored::Stored;
use crate::tags::{Life, State, Tags};
use crate::vary::Variant;

/// Purges are made certain against a loss of power this often, while there are any.
const SYNC_EVERY: Duration = Duration::from_secs(1);

const SHARDS: usize = 64;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Log,
    pub(super) shards: Vec<Shard>,
    pub(super) hasher: ahash::RandomState,
    pub(super) tags: Tags,
    pub(super) pending: AtomicU64,
    pub(super) counters: Counters,
    /// Held while an object is looked at and appended, and while a note is: a note never comes before
    /// an object that it concerns and that was being written.
    pub(super) order: Mutex<Held>,
    /// A note was written that is not certain yet.
    pub(super) unsynced: AtomicBool,
    /// The last write failed: said once, and once when it works again.
    pub(super) failing: AtomicBool,
}

/// What is kept back while another process has the folder.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) is_left: bool,
    /// Notes, to be written once the folder is ours again.
    pub(super) notes: Vec<Vec<u8>>,
}

pub(super) type Shard = Mutex<HashMap<Key, Vec<Placed>, ahash::RandomState>>;

/// One variant of one key.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) place: Place,
    pub(super) variant: Variant,
    pub(super) date: SystemTime,
    pub(super) life: Arc<Life>,
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Handed over, and not written yet.
    Pending(Arc<Stored>),
    At(Address),
}

/// What the writing thread is told.
#[derive(Debug)]
pub(super) enum Order {
    Write(Key, Arc<Stored>),
    Note(Vec<u8>),
    /// Everything before this is done when the other end hangs up.
    Flush(Sender<()>),
    /// Leave the folder to another process, and do nothing until the other end says so or is gone.
    Leave(SyncSender<std::io::Result<()>>, Receiver<()>),
    Stop,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) written: AtomicU64,
    pub(super) write_errors: AtomicU64,
    pub(super) not_written: AtomicU64,
    pub(super) hits: AtomicU64,
    pub(super) read_errors: AtomicU64,
}

impl Shared {
    pub(super) fn new(log: Log, tags: &Tags, index: HashMap<Key, Vec<Placed>>) -> Self {
        let shared = Self {
            log,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: ahash::RandomState::new(),
            tags: tags.clone(),
            pending: AtomicU64::new(0),
            counters: Counters::default(),
            order: Mutex::default(),
            unsynced: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        };
        for (key, mut variants) in index {
            variants.retain(|one| one.life.hold());
            lock(shared.shard(key.as_key())).insert(key, variants);
        }
        shared
    }

    pub(super) fn shard(&self, key: KeyRef<'_>) -> &Shard {
        let hash = self.hasher.hash_one(key.as_bytes());
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }

    /// Takes variants of a key out of the index. Returns them.
    pub(super) fn forget(&self, key: &Key, gone: impl Fn(&Placed) -> bool) -> Vec<Placed> {
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

    pub(super) fn retain(&self, keep: impl Fn(&Placed) -> bool) {
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
    pub(super) fn work(&self, inbox: &Receiver<Order>) {
        loop {
            match inbox.recv_timeout(SYNC_EVERY) {
                Ok(Order::Write(key, stored)) => self.write(&key, &stored),
                Ok(Order::Note(bytes)) => self.note(&bytes),
                Ok(Order::Flush(done)) => drop(done),
                Ok(Order::Leave(done, back)) => {
                    let left = self.leave();
                    let is_left = left.is_ok();
                    // Nothing is kept in between: it is received, or nobody waits any more.
                    let is_heard = done.send(left).is_ok();
                    if is_left && !is_heard {
                        if let Err(error) = self.take_back() {
                            tracing::error!(%error, "the cache's disk tier is lost to another process");
                        }
                    } else if is_left && back.recv().is_err() {
                        // The process ends, and the folder is another's.
                        return;
                    }
                }
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.sync(),
            }
        }
        self.sync();
    }

    fn leave(&self) -> std::io::Result<()> {
        self.sync();
        let mut held = lock(&self.order);
        self.log.leave()?;
        held.is_left = true;
        Ok(())
    }

    /// Has the folder again. Notes of meanwhile come before what waits to be written, as they would
    /// have.
    pub(super) fn take_back(&self) -> Result<(), OpenError> {
        let mut held = lock(&self.order);
        let gone = self.log.take_back()?;
        held.is_left = false;
        let notes = std::mem::take(&mut held.notes);
        drop(held);
        self.evicted(&gone);
        for note in &notes {
            self.note(note);
        }
        Ok(())
    }

    fn sync(&self) {
        if self.unsynced.swap(false, Ordering::Relaxed) {
            // It is tried again with the next purge.
            let _ = self.log.sync();
        }
    }

    /// Appends a note. It outlives the kill of the process from here on.
    pub(super) fn note(&self, bytes: &[u8]) {
        let mut held = lock(&self.order);
        if held.is_left {
            held.notes.push(bytes.to_vec());
            return;
        }
        match self.log.note(bytes) {
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
        self.unsynced.store(true, Ordering::Relaxed);
    }

    fn write(&self, key: &Key, stored: &Arc<Stored>) {
        let _order = lock(&self.order);
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
                if matches!(error.refusal, Refusal::TooLarge { .. }) {
                    self.counters.not_written.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.failed(&error);
                }
                self.forget(key, is_it);
            }
        }
    }

    fn failed(&self, error: &AppendError) {
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
    pub(super) fn is_at(&self, address: Address) -> bool {
        matches!(self.place, Place::At(at) if at == address)
    }
}

/// What the maps of the shards can do.
pub(super) trait Index {
    fn put(&mut self, key: Key, placed: Placed);
    fn live(&self, key: KeyRef<'_>, latest: u64) -> Vec<Arc<Life>>;
    fn drop_key(&mut self, key: KeyRef<'_>);
}

impl<S: BuildHasher> Index for HashMap<Key, Vec<Placed>, S> {
    fn put(&mut self, key: Key, placed: Placed) {
        let held = placed.life.hold();
        let variants = self.entry(key).or_default();
        variants.retain(|one| {
            let other = one.variant != placed.variant;
            if !other {
                one.life.release();
            }
            other
        });
        if held {
            if variants.len() >= MAX_VARIANTS {
                variants.remove(0).life.release();
            }
            variants.push(placed);
        }
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
