//! More to do than can be done: how far it has gone, and what is given up.
//!
//! What is given up is chosen by the operator (`[overload]`, `priority` of routes); when, is decided
//! here from two signs: memory, whose end is the end of the process, and how late the event loops
//! are, which every visitor feels. A request's way asks for one number ([`Shedding`]), and the
//! control thread sets it ([`watch`]).

mod level;
mod memory;
mod watch;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch as channel;

pub(crate) use watch::{beat, watch};

use crate::exchange::shedding::{Level, Shedding};
use level::{Ladder, Signs};

/// How overloaded the process is. One for its whole life.
#[derive(Debug)]
pub(crate) struct Load {
    shedding: Arc<Shedding>,
    /// Told each time that idle connections are to be closed, and when the drain begins.
    calls: channel::Sender<u32>,
    /// Odd while they are being told; another number each time.
    told: AtomicU32,
    telling: Mutex<()>,
    ladder: Mutex<Ladder>,
    signs: Mutex<Signs>,
    workers: Box<[Worker]>,
    shed: [AtomicU64; 2],
    since: Instant,
}

/// How late a worker's event loop is.
#[derive(Debug, Default)]
struct Worker {
    /// The least of the last samples, in milliseconds.
    lag: AtomicU32,
    /// When there was one, in milliseconds since the start.
    seen: AtomicU64,
}

/// How load stands, for who looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) level: Level,
    pub(crate) signs: Signs,
    /// Requests given up: sheddable ones, normal ones.
    pub(crate) shed: [u64; 2],
}

impl Load {
    pub(crate) fn new(workers: usize, now: Instant) -> Self {
        Self {
            shedding: Arc::default(),
            calls: channel::Sender::new(0),
            told: AtomicU32::new(0),
            telling: Mutex::default(),
            ladder: Mutex::new(Ladder::new(now)),
            signs: Mutex::default(),
            workers: (0..workers).map(|_| Worker::default()).collect(),
            shed: Default::default(),
            since: now,
        }
    }

    /// What is in force.
    pub(crate) fn shedding(&self) -> &Arc<Shedding> {
        &self.shedding
    }

    /// Tells of each time that idle connections are to be closed, and of the drain.
    pub(crate) fn calls(&self) -> channel::Receiver<u32> {
        self.calls.subscribe()
    }

    /// Lets all connections look whether they are to end.
    pub(crate) fn call(&self) {
        let _alone = self.telling.lock();
        self.told.fetch_add(1, Ordering::SeqCst);
        self.calls.send_replace(self.shedding.called());
        self.told.fetch_add(1, Ordering::SeqCst);
    }

    /// How often connections were called; `None`: that is going on now, and who was told just before
    /// cannot know whether it was for the last time.
    pub(crate) fn told(&self) -> Option<u32> {
        let told = self.told.load(Ordering::SeqCst);
        told.is_multiple_of(2).then_some(told)
    }

    /// A request was given up.
    pub(crate) fn count(&self, priority: conf::Priority) {
        let place = usize::from(priority != conf::Priority::Sheddable);
        self.shed[place].fetch_add(1, Ordering::Relaxed);
    }

    /// How it stands.
    pub(crate) fn standing(&self) -> Standing {
        let signs = self.signs.lock();
        Standing {
            level: self.shedding.level(),
            signs: *signs.unwrap_or_else(PoisonError::into_inner),
            shed: [0, 1].map(|place: usize| self.shed[place].load(Ordering::Relaxed)),
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        let gone = now.saturating_duration_since(self.since);
        u64::try_from(gone.as_millis()).unwrap_or(u64::MAX)
    }

    /// A worker's loop came round, `lag` late at the least in the last while.
    fn beats(&self, worker: usize, lag: Duration, now: Instant) {
        if let Some(worker) = self.workers.get(worker) {
            let millis = u32::try_from(lag.as_millis()).unwrap_or(u32::MAX);
            worker.lag.store(millis, Ordering::Relaxed);
            worker.seen.store(self.millis(now), Ordering::Relaxed);
        }
    }

    /// The lag of the latest worker. One that has not been heard of is late by that.
    fn lag(&self, now: Instant) -> Duration {
        let now = self.millis(now);
        let late = |worker: &Worker| {
            let seen = worker.seen.load(Ordering::Relaxed);
            let silent = match seen {
                // It has not begun.
                0 => 0,
                seen => now
                    .saturating_sub(seen)
                    .saturating_sub(watch::SILENCE_MILLIS),
            };
            silent.max(worker.lag.load(Ordering::Relaxed).into())
        };
        let worst = self.workers.iter().map(late).max();
        Duration::from_millis(worst.unwrap_or(0))
    }

    /// Takes new signs; gives the level before and after where it changes.
    fn take(&self, signs: Signs, marks: &level::Marks, now: Instant) -> Option<(Level, Level)> {
        *self.signs.lock().unwrap_or_else(PoisonError::into_inner) = signs;
        let mut ladder = self.ladder.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.shedding.level();
        let after = ladder.step(&signs, marks, now);
        if self.shedding.set(after) {
            self.call();
        }
        (before != after).then_some((before, after))
    }
}
