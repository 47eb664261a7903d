//! Requests, errors and latencies of the recent past, in a sliding window.
//!
//! The window is ten buckets, each for a tenth of its span. A bucket is one word that holds which
//! tenth it stands for besides its counts, so that counting, and beginning a bucket anew when its
//! time has come around, is one compare-and-exchange and needs nobody to clean up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::convert::low_half;
use crate::stamp::Stamp;

const BUCKETS: usize = 10;
const TENTHS: u64 = BUCKETS as u64;
/// Bits that say which tenth a bucket stands for. The number wraps; a bucket that was not written
/// for all of its 65,536 tenths is too rare to matter.
const TAG_BITS: u32 = 16;

/// Where the two counts of a word are.
#[derive(Clone, Copy)]
struct Layout {
    high: u32,
    low: u32,
}

/// Requests, errors.
const COUNTS: Layout = Layout { high: 24, low: 24 };
/// Requests with a latency, the sum of the latencies in microseconds.
const LATENCIES: Layout = Layout { high: 16, low: 32 };

/// What happened in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    /// How many latencies `micros` is the sum of. Very many in one bucket are counted as half as
    /// many of the same mean.
    pub(crate) timed: u64,
    pub(crate) micros: u64,
}

impl Sums {
    /// The mean latency, if there is any.
    pub(crate) fn mean(&self) -> Option<Duration> {
        self.micros
            .checked_div(self.timed)
            .map(Duration::from_micros)
    }
}

/// The window of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Window {
    counts: [AtomicU64; BUCKETS],
    latencies: [AtomicU64; BUCKETS],
}

impl Window {
    /// Counts a request.
    pub(crate) fn count(&self, error: bool, span: Duration, now: Stamp) {
        let tick = tick(span, now);
        add(
            bucket(&self.counts, tick),
            COUNTS,
            tick,
            1,
            u64::from(error),
        );
    }

    /// Counts a latency.
    pub(crate) fn time(&self, latency: Duration, span: Duration, now: Stamp) {
        let tick = tick(span, now);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        add(bucket(&self.latencies, tick), LATENCIES, tick, 1, micros);
    }

    /// What happened in the last `span`.
    pub(crate) fn sums(&self, span: Duration, now: Stamp) -> Sums {
        let tick = tick(span, now);
        let (requests, errors) = sum(&self.counts, COUNTS, tick);
        let (timed, micros) = sum(&self.latencies, LATENCIES, tick);
        Sums {
            requests,
            errors,
            timed,
            micros,
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for word in self.counts.iter().chain(&self.latencies) {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// The number of the current tenth.
fn tick(span: Duration, now: Stamp) -> u64 {
    let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    now.as_nanos() / (span / TENTHS).max(1)
}

fn bucket(buckets: &[AtomicU64; BUCKETS], tick: u64) -> &AtomicU64 {
    let at = low_half(tick % TENTHS) as usize;
    &buckets[at % BUCKETS]
}

fn tag(tick: u64) -> u64 {
    tick & mask(TAG_BITS)
}

fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

impl Layout {
    /// Tag, high and low count of a word.
    fn unpack(self, word: u64) -> (u64, u64, u64) {
        let high = word >> self.low & mask(self.high);
        (word >> (self.low + self.high), high, word & mask(self.low))
    }

    /// Halves both counts until they fit, which leaves their ratio.
    fn pack(self, tag: u64, mut high: u64, mut low: u64) -> u64 {
        while high > mask(self.high) || low > mask(self.low) {
            (high, low) = (high.div_ceil(2), low / 2);
            if high == 1 {
                low = low.min(mask(self.low));
            }
        }
        tag << (self.low + self.high) | high << self.low | low
    }
}

fn add(word: &AtomicU64, layout: Layout, tick: u64, high: u64, low: u64) {
    let added = |word| {
        let (was, before_high, before_low) = layout.unpack(word);
        let (before_high, before_low) = if was == tag(tick) {
            (before_high, before_low)
        } else {
            (0, 0)
        };
        let low = before_low.saturating_add(low);
        Some(layout.pack(tag(tick), before_high + high, low))
    };
    // It cannot fail: the closure always gives a word.
    let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
}

fn sum(buckets: &[AtomicU64; BUCKETS], layout: Layout, tick: u64) -> (u64, u64) {
    let mut sums = (0, 0);
    for word in buckets {
        let (was, high, low) = layout.unpack(word.load(Ordering::Relaxed));
        if tick.wrapping_sub(was) & mask(TAG_BITS) < TENTHS {
            sums = (sums.0 + high, sums.1 + low);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Stamp {
        Stamp::from_nanos(0).plus(Duration::from_millis(millis))
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let window = Window::default();
        window.count(true, SPAN, at(500));
        window.count(false, SPAN, at(5_500));
        let sums = |millis| {
            let sums = window.sums(SPAN, at(millis));
            (sums.requests, sums.errors)
        };
        assert_eq!(sums(5_600), (2, 1));
        assert_eq!(sums(9_900), (2, 1));
        assert_eq!(sums(10_000), (1, 0), "the first tenth is over");
        assert_eq!(sums(15_000), (0, 0));
    }

    #[test]
    fn a_bucket_begins_anew_when_it_comes_around() {
        let window = Window::default();
        (0..5).for_each(|_| window.count(true, SPAN, at(100)));
        window.count(false, SPAN, at(10_100));
        let sums = window.sums(SPAN, at(10_200));
        assert_eq!((sums.requests, sums.errors), (1, 0));
    }

    #[test]
    fn the_mean_is_over_latencies() {
        let window = Window::default();
        for millis in [10, 20, 60] {
            window.time(Duration::from_millis(millis), SPAN, at(millis * 50));
        }
        let sums = window.sums(SPAN, at(4_000));
        assert_eq!(sums.mean(), Some(Duration::from_millis(30)));
        assert_eq!(Window::default().sums(SPAN, at(0)).mean(), None);
    }

    #[test]
    fn counts_beyond_a_word_keep_their_mean() {
        let window = Window::default();
        for _ in 0..100_000 {
            window.time(Duration::from_secs(1), SPAN, at(0));
        }
        let mean = window.sums(SPAN, at(0)).mean().expect("there are some");
        assert!(
            (mean.as_secs_f64() - 1.0).abs() < 0.01,
            "{mean:?} instead of one second"
        );
    }

    #[test]
    fn a_latency_beyond_all_measure_is_counted_as_a_long_one() {
        let window = Window::default();
        window.time(Duration::MAX, SPAN, at(0));
        let mean = window.sums(SPAN, at(0)).mean();
        assert!(mean > Some(Duration::from_secs(1_000)), "{mean:?}");
    }

    #[test]
    fn threads_lose_no_count() {
        let window = Window::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|n| window.count(n % 2 == 0, SPAN, at(n / 2))));
            }
        });
        let sums = window.sums(SPAN, at(5_000));
        assert_eq!((sums.requests, sums.errors), (40_000, 20_000));
    }
}
