//! The cells that are added to, one set for each worker.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::observe::attempts::UpstreamFailure;
use crate::observe::labels::{Hedge, Refused};
use crate::observe::record::{CacheResult, Class};
use crate::observe::shard::Sharded;

/// Only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up on one thread and perhaps down on another: only the sum of all cells means something.
#[derive(Debug, Default)]
pub(super) struct Level(AtomicI64);

impl Level {
    pub(super) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets in seconds. From a cached page (0.5 ms) to where
/// a client has long gone (30 s).
pub(super) const BOUNDS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// The same in microseconds.
const BOUNDS_MICROS: [u64; BOUNDS.len()] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];
/// One more than bounds: what is longer than all of them.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// Durations by bucket: two additions each.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [Counter; BUCKETS],
    micros: Counter,
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // From the small end: most requests are in the first buckets.
        let bucket = BOUNDS_MICROS
            .iter()
            .position(|&bound| micros <= bound)
            .unwrap_or(BUCKETS - 1);
        self.buckets[bucket].add(1);
        self.micros.add(micros);
    }
}

/// Several histograms added up.
#[derive(Debug, Default)]
pub(super) struct HistogramSum {
    /// Observations in each bucket, not cumulated.
    pub(super) buckets: [u64; BUCKETS],
    /// Sum of the observations in seconds.
    pub(super) seconds: f64,
}

impl HistogramSum {
    pub(super) fn add(&mut self, histogram: &Histogram) {
        for (sum, cell) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += cell.value();
        }
        self.seconds += histogram.micros.value() as f64 / 1e6;
    }
}

/// One listener and route, one worker: all that most requests add to.
#[derive(Debug, Default)]
pub(super) struct ExchangeCells {
    pub(super) classes: [Counter; Class::ALL.len()],
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    pub(super) duration: Histogram,
    pub(super) cache: [Counter; CacheResult::ALL.len()],
    pub(super) hinted: Counter,
}

/// How a connection that was passed on ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForwardEnd {
    /// Both sides had ended theirs.
    Ended,
    /// One of them broke it off.
    Broken,
    /// Nothing moved for its idle time.
    Idle,
}

impl ForwardEnd {
    /// Every end; the discriminant is the place in it.
    pub(super) const ALL: [Self; 3] = [Self::Ended, Self::Broken, Self::Idle];

    /// Label value.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Broken => "broken",
            Self::Idle => "idle",
        }
    }
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsHandshake {
    /// It succeeded.
    Ok,
    /// No common ground, or not TLS.
    Failed,
    /// It was not done within its time.
    Timeout,
}

impl TlsHandshake {
    /// Every end; the discriminant is the place in it.
    pub(super) const ALL: [Self; 3] = [Self::Ok, Self::Failed, Self::Timeout];

    /// Label value.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
        }
    }
}

/// One listener, one worker.
#[derive(Debug, Default)]
pub(super) struct ListenerCells {
    pub(super) requests_active: Level,
    pub(super) connections_active: Level,
    pub(super) connections: Counter,
    pub(super) handshakes: [Counter; TlsHandshake::ALL.len()],
    pub(super) forwarded: [Counter; ForwardEnd::ALL.len()],
    pub(super) refused: Reasons,
    pub(super) rejected: Reasons,
}

/// One upstream, one worker.
#[derive(Debug, Default)]
pub(super) struct UpstreamCells {
    pub(super) retries: Counter,
    pub(super) hedges: [Counter; Hedge::ALL.len()],
    pub(super) refused: [Counter; Refused::ALL.len()],
    pub(super) queue: Histogram,
    pub(super) first_byte: Histogram,
    pub(super) connect: Histogram,
}

/// One endpoint, one worker.
#[derive(Debug, Default)]
pub(super) struct EndpointCells {
    pub(super) classes: [Counter; Class::ALL.len()],
    pub(super) failures: [Counter; UpstreamFailure::ALL.len()],
}

/// Distinct reasons counted on one listener; what comes beyond is `other`.
const MAX_REASONS: usize = 64;

/// Counts by reason. Reasons are names in the program text; that they come from
/// another module is why they are no enum here.
#[derive(Debug, Default)]
pub(super) struct Reasons(RwLock<Vec<(&'static str, Counter)>>);

impl Reasons {
    pub(super) fn add(&self, reason: &'static str) {
        {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, counter)) = known.iter().find(|(name, _)| *name == reason) {
                counter.add(1);
                return;
            }
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let reason = if known.len() < MAX_REASONS {
            reason
        } else {
            "other"
        };
        match known.iter().find(|(name, _)| *name == reason) {
            Some((_, counter)) => counter.add(1),
            None => known.push((reason, Counter(AtomicU64::new(1)))),
        }
    }

    pub(super) fn each(&self, mut see: impl FnMut(&'static str, u64)) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for (name, counter) in known.iter() {
            see(name, counter.value());
        }
    }
}

/// The sum of one counter over all workers.
pub(super) fn sum<T: Default>(cells: &Sharded<T>, counter: impl Fn(&T) -> &Counter) -> u64 {
    cells.each().map(|cells| counter(cells).value()).sum()
}

/// The sum of one histogram over all workers.
pub(super) fn sum_histogram<T: Default>(
    cells: &Sharded<T>,
    histogram: impl Fn(&T) -> &Histogram,
) -> HistogramSum {
    let mut sum = HistogramSum::default();
    for cells in cells.each() {
        sum.add(histogram(cells));
    }
    sum
}

/// The sum of one level over all workers; a torn read of two of them shows as 0, not below.
pub(super) fn level<T: Default>(cells: &Sharded<T>, level: impl Fn(&T) -> &Level) -> u64 {
    let sum: i64 = cells.each().map(|cells| level(cells).value()).sum();
    u64::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_of_bounds_are_the_same_and_rise() {
        for (seconds, micros) in BOUNDS.into_iter().zip(BOUNDS_MICROS) {
            assert_eq!(Duration::from_micros(micros).as_secs_f64(), seconds);
        }
        assert!(BOUNDS_MICROS.is_sorted());
    }

    #[test]
    fn a_duration_on_a_bound_is_within_it() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 30_000_000, 30_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut sum = HistogramSum::default();
        sum.add(&histogram);
        assert_eq!(sum.buckets[0], 2);
        assert_eq!(sum.buckets[1], 1);
        assert_eq!(sum.buckets[BUCKETS - 2], 1);
        assert_eq!(sum.buckets[BUCKETS - 1], 1);
        assert!((sum.seconds - 60.001_002).abs() < 1e-9, "{}", sum.seconds);
    }

    #[test]
    fn reasons_are_counted_by_name_and_bounded() {
        let reasons = Reasons::default();
        reasons.add("bad_host");
        reasons.add("bad_host");
        for _ in 0..2 * MAX_REASONS {
            let name: &'static str = Box::leak(format!("made_up_{:p}", &reasons).into_boxed_str());
            reasons.add(name);
        }
        for number in 0..2 * MAX_REASONS {
            reasons.add(Box::leak(format!("made_up_{number}").into_boxed_str()));
        }
        let mut seen = Vec::new();
        reasons.each(|name, count| seen.push((name, count)));
        assert_eq!(seen[0], ("bad_host", 2));
        assert_eq!(seen.len(), MAX_REASONS + 1, "the last of them is `other`");
        assert_eq!(seen.last().map(|(name, _)| *name), Some("other"));
    }

    #[test]
    fn a_level_is_right_whichever_thread_takes_it_down() {
        let cells: Sharded<ListenerCells> = Sharded::new(2);
        cells.here().connections_active.up();
        cells.here().connections_active.up();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                crate::observe::shard::enter_worker(0);
                cells.here().connections_active.down();
            });
        });
        assert_eq!(level(&cells, |cells| &cells.connections_active), 1);
    }
}
