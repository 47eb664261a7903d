//! The threads that make variants, and what bounds them.
//!
//! Requests only ever leave a note in the queue; when that is full the note is dropped, and a
//! later request leaves it again. The same variant is made once at a time. How many pictures
//! are decoded at once is bounded by threads and by pixels, for pixels are memory. The threads
//! run at low priority: who is waiting has the original.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::choice::{Original, Variant};
use super::folder::Folder;
use super::index::{Fate, Index, Key};
use super::make::{MAX_FILE, MakeError, Opened};
use super::names::{Log, Names, identity};
use crate::files::{Facts, Files};
use crate::hash::Hash;

/// How many notes wait at most.
pub(super) const MAX_QUEUE: usize = 256;

/// The priority of the threads: a tenth of the share that those of requests get, so that a machine
/// that is busy all day still gets its pictures done.
const NICE: i32 = 10;

/// How many milliseconds nothing is made after the folder could not be written to.
const REST_MILLIS: u64 = 60_000;

/// A variant to be made.
pub(super) struct Job {
    pub(super) files: Arc<dyn Files>,
    pub(super) path: String,
    pub(super) original: Original,
    pub(super) identity: Hash,
    pub(super) variant: Variant,
}

impl Job {
    fn mark(&self) -> (Hash, Variant) {
        (self.identity, self.variant)
    }
}

/// Whether the folder takes what is made.
#[derive(Clone, Copy)]
enum Health {
    Well,
    /// A write failed since a request last looked.
    Hurt,
    RestsUntil(u64),
}

/// What requests and threads share, for moments and never while a file is read or written.
pub(super) struct State {
    pub(super) index: Index,
    pub(super) names: Names,
    queue: VecDeque<Job>,
    /// Waiting or being made.
    wanted: HashSet<(Hash, Variant)>,
    pixels_left: u64,
    health: Health,
    stopping: bool,
}

/// Everything that was counted since the start.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) made: AtomicU64,
    pub(super) useless: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// See the module.
pub(super) struct Pool {
    pub(super) folder: Folder,
    pub(super) tally: Tally,
    quality: u8,
    max_pixels: u64,
    state: Mutex<State>,
    log: Mutex<Log>,
    work: Condvar,
    room: Condvar,
}

impl Pool {
    /// Starts `workers` threads, which end when [`Pool::stop`] was called and what each is at
    /// is done.
    pub(super) fn start(
        folder: Folder,
        settings: &super::ImageSettings,
        index: Index,
    ) -> io::Result<Arc<Self>> {
        let (names, log) = Log::load(folder.names());
        let pool = Arc::new(Self {
            folder,
            tally: Tally::default(),
            quality: settings.quality,
            max_pixels: settings.max_pixels,
            state: Mutex::new(State {
                index,
                names,
                queue: VecDeque::new(),
                wanted: HashSet::new(),
                pixels_left: settings.max_pixels.saturating_mul(2),
                health: Health::Well,
                stopping: false,
            }),
            log: Mutex::new(log),
            work: Condvar::new(),
            room: Condvar::new(),
        });
        for _ in 0..settings.workers.get() {
            let worker = Arc::clone(&pool);
            let thread = thread::Builder::new().name("images".to_owned());
            if let Err(error) = thread.spawn(move || worker.run()) {
                pool.stop();
                return Err(error);
            }
        }
        Ok(pool)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a note, unless there is one already or no room.
    pub(super) fn ask(&self, job: Job, at: u64) {
        let mut state = self.state();
        match state.health {
            Health::Well => {}
            Health::Hurt => {
                state.health = Health::RestsUntil(at.saturating_add(REST_MILLIS));
                return;
            }
            Health::RestsUntil(until) if at < until => return,
            Health::RestsUntil(_) => state.health = Health::Well,
        }
        drop(state);
        self.push(job);
    }

    fn push(&self, job: Job) {
        let mut state = self.state();
        if state.wanted.contains(&job.mark()) {
            return;
        }
        if state.queue.len() >= MAX_QUEUE {
            self.tally.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.wanted.insert(job.mark());
        state.queue.push_back(job);
        drop(state);
        self.work.notify_one();
    }

    /// How many notes wait or are being worked on.
    pub(super) fn wanted(&self) -> usize {
        self.state().wanted.len()
    }

    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        state.queue.clear();
        drop(state);
        self.work.notify_all();
        self.room.notify_all();
    }

    fn run(&self) {
        // On Linux this means the calling thread alone. Where it is refused, all is as before.
        let _ = rustix::process::setpriority_process(None, NICE);
        while let Some(job) = self.next() {
            let done = catch_unwind(AssertUnwindSafe(|| self.work(&job)));
            if done.is_err() {
                tracing::error!(path = job.path, "making a picture's variant panicked");
            }
            self.state().wanted.remove(&job.mark());
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, job: &Job) {
        let (bytes, facts) = match job.files.read(&job.path, MAX_FILE) {
            Ok(read) => read,
            // The request that comes next is told by the site.
            Err(trouble) => {
                tracing::debug!(path = job.path, %trouble, "a picture cannot be read");
                return;
            }
        };
        let content = Hash::of(&bytes);
        self.name(&job.path, &facts, content);
        let key = Key {
            content,
            variant: job.variant,
        };
        if self.state().index.find(&key).is_some() {
            return;
        }
        let made = catch_unwind(AssertUnwindSafe(|| self.make(&bytes, job, &key)));
        match made.unwrap_or(Err(MakeError::Panicked)) {
            // Stopping, or another variant is meant.
            Ok(None) => {}
            Ok(Some(made)) if made.len() >= bytes.len() => {
                self.tally.useless.fetch_add(1, Ordering::Relaxed);
                self.keep(&key, Fate::Useless, &[]);
            }
            Ok(Some(made)) => {
                let fate = Fate::Made {
                    len: made.len() as u64,
                    tag: Hash::of(&made),
                };
                if self.keep(&key, fate, &made) {
                    self.tally.made.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                self.tally.failed.fetch_add(1, Ordering::Relaxed);
                tracing::info!(path = job.path, %error, "a picture is served as it is");
                self.keep(&key, Fate::Failed, &[]);
            }
        }
    }

    /// Makes what is asked for. Where the original is not that wide, notes this and leaves a
    /// note for the variant that is as wide as the original.
    fn make(&self, bytes: &[u8], job: &Job, key: &Key) -> Result<Option<Vec<u8>>, MakeError> {
        let opened = Opened::read(bytes, job.original, self.max_pixels)?;
        let variant = job.variant.within(opened.width());
        if variant != job.variant {
            if self.keep(key, Fate::Whole, &[]) && !variant.is_original() {
                self.push(Job {
                    files: Arc::clone(&job.files),
                    path: job.path.clone(),
                    variant,
                    ..*job
                });
            }
            return Ok(None);
        }
        let Some(_taken) = self.take(opened.pixels()) else {
            return Ok(None);
        };
        opened.make(variant, self.quality).map(Some)
    }

    /// Waits until so many pixels may be held; `None` when all is to end.
    fn take(&self, pixels: u64) -> Option<Taken<'_>> {
        let mut state = self.state();
        while state.pixels_left < pixels && !state.stopping {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopping {
            return None;
        }
        state.pixels_left -= pixels;
        Some(Taken { pool: self, pixels })
    }

    fn name(&self, path: &str, facts: &Facts, content: Hash) {
        let identity = identity(path, facts);
        let known = self.state().names.content(&identity);
        if known == Some(content) {
            return;
        }
        self.state().names.remember(identity, content);
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.append(&identity, &content);
    }

    /// Writes what came out, and says whether that went well.
    fn keep(&self, key: &Key, fate: Fate, bytes: &[u8]) -> bool {
        if let Err(error) = self.folder.write(key, fate, bytes) {
            let before = std::mem::replace(&mut self.state().health, Health::Hurt);
            if matches!(before, Health::Well) {
                tracing::warn!(%error, "variants of pictures cannot be kept; originals are served");
            }
            return false;
        }
        let gone = self.state().index.keep(*key, fate, true);
        for (key, fate) in gone {
            self.folder.remove(&key, fate);
        }
        true
    }
}

/// Pixels that are held, given back at the end.
struct Taken<'a> {
    pool: &'a Pool,
    pixels: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.pool.state().pixels_left += self.pixels;
        self.pool.room.notify_all();
    }
}
