//! Looks at the signs, and says what changes.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::Load;
use super::level::{Marks, Sign, Signs};
use super::memory;
use crate::clock;
use crate::exchange::shedding::Level;
use crate::snapshot::Snapshot;

/// Between two looks at the signs.
const LOOK: Duration = Duration::from_millis(500);

/// Between two beats of a worker.
const BEAT: Duration = Duration::from_millis(200);

/// Beats whose least lag counts: all of a second.
const BEATS: usize = 5;

/// A worker may be silent for so long as two of its beats may be apart.
pub(super) const SILENCE_MILLIS: u64 = 400;

/// On a worker's event loop: measures how late that is. Never ends.
///
/// The least of several samples counts: one that is late may be so for one large job, a loop that is
/// always late has more to do than it can (a standing queue, Nichols and Jacobson, "Controlling queue
/// delay", 2012).
pub(crate) async fn beat(load: Arc<Load>, worker: usize) {
    let mut last = [Duration::ZERO; BEATS];
    let mut nth = 0;
    loop {
        let due = clock::now() + BEAT;
        sleep_until(due.into()).await;
        let now = clock::now();
        last[nth % BEATS] = now.saturating_duration_since(due);
        nth += 1;
        let least = last.iter().min().copied().unwrap_or_default();
        load.beats(worker, least, now);
    }
}

/// On the control thread: sets the level. Never ends.
pub(crate) async fn watch(load: Arc<Load>, snapshot: Arc<ArcSwap<Snapshot>>) {
    let mut every = interval(LOOK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let settings = snapshot.load().config.overload.clone();
        let now = clock::now();
        let signs = Signs {
            memory: memory::in_use().unwrap_or(0),
            lag: load.lag(now),
        };
        let marks = marks(&settings);
        if let Some((before, after)) = load.take(signs, &marks, now) {
            say(before, after, &signs, &marks);
        }
    }
}

fn marks(settings: &conf::Overload) -> Marks {
    let memory = settings.memory.and_then(|mark| match mark {
        conf::MemoryMark::Share(percent) => {
            let end = memory::there_is()?;
            Some((end / 100 * u64::from(percent), end))
        }
        // Without a limit behind it there is taken to be so much more.
        conf::MemoryMark::Bytes(bytes) => Some((bytes, bytes.saturating_add(bytes / 10 * 3))),
    });
    Marks {
        memory,
        lag: settings.lag,
    }
}

fn say(before: Level, after: Level, signs: &Signs, marks: &Marks) {
    let (from, to) = (before.as_str(), after.as_str());
    let memory = signs.memory;
    let lag = signs.lag.as_millis();
    match marks.why(signs, after).map(Sign::as_str) {
        Some(why) if after > before => {
            tracing::warn!(
                from,
                to,
                why,
                memory,
                lag_ms = lag,
                "overload: more is given up"
            );
        }
        _ if after == Level::Calm => {
            tracing::info!(from, to, memory, lag_ms = lag, "overload is over");
        }
        _ => tracing::info!(from, to, memory, lag_ms = lag, "overload: less is given up"),
    }
}
