//! Latencies by their logarithm, for percentiles.
//!
//! Four buckets for each doubling, from 64 us to about a minute: a percentile read from them is off
//! by at most a fifth, and straight lines within a bucket make that less. Each endpoint counts into
//! a histogram of its own, on its own cache lines; the sweep adds them up and lets them fade.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::convert::{floor_u32, floor_u64};

/// Latencies up to 2 to the power of this, in microseconds, are in the first bucket.
const FIRST_OCTAVE: u32 = 6;
const OCTAVES: u32 = 20;
const PARTS_BITS: u32 = 2;
const BUCKETS: usize = 1 + ((OCTAVES as usize) << PARTS_BITS);

/// Counts by bucket.
#[derive(Debug)]
pub(crate) struct Histogram([AtomicU32; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl Histogram {
    /// Counts one latency.
    pub(crate) fn count(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.0.get(bucket_of(micros)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Becomes the sum of `parts`.
    pub(crate) fn become_sum<'a>(&self, parts: impl Iterator<Item = &'a Self>) {
        let mut sums = [0_u32; BUCKETS];
        for part in parts {
            for (sum, bucket) in sums.iter_mut().zip(&part.0) {
                *sum = sum.saturating_add(bucket.load(Ordering::Relaxed));
            }
        }
        for (bucket, sum) in self.0.iter().zip(sums) {
            bucket.store(sum, Ordering::Relaxed);
        }
    }

    /// Leaves only `kept` (0 to 1) of every count.
    pub(crate) fn fade(&self, kept: f64) {
        for bucket in &self.0 {
            let count = bucket.load(Ordering::Relaxed);
            if count > 0 {
                // Rounded down, so that old counts end rather than stay at one.
                let gone = count - floor_u32(f64::from(count) * kept).min(count);
                bucket.fetch_sub(gone, Ordering::Relaxed);
            }
        }
    }

    /// The latency that `percent` of those counted do not exceed; `None` with fewer than `least` of
    /// them.
    pub(crate) fn percentile(&self, percent: u8, least: u64) -> Option<Duration> {
        let counts: [u32; BUCKETS] =
            std::array::from_fn(|bucket| self.0[bucket].load(Ordering::Relaxed));
        let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        if total < least.max(1) {
            return None;
        }
        let wanted = total as f64 * f64::from(percent.min(100)) / 100.0;
        let mut below = 0.0;
        for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = f64::from(*count);
            if below + count >= wanted {
                let (low, high) = (lower_bound(bucket), lower_bound(bucket + 1));
                let within = ((wanted - below) / count).clamp(0.0, 1.0);
                return Some(Duration::from_micros(floor_u64(
                    low + (high - low) * within,
                )));
            }
            below += count;
        }
        Some(Duration::from_micros(floor_u64(lower_bound(BUCKETS))))
    }
}

fn bucket_of(micros: u64) -> usize {
    let Some(octave) = micros
        .checked_ilog2()
        .and_then(|octave| octave.checked_sub(FIRST_OCTAVE))
    else {
        return 0;
    };
    let part = (micros >> (octave + FIRST_OCTAVE - PARTS_BITS)) & ((1 << PARTS_BITS) - 1);
    let bucket = 1 + ((octave as usize) << PARTS_BITS) + part as usize;
    bucket.min(BUCKETS - 1)
}

/// Where a bucket begins, in microseconds.
fn lower_bound(bucket: usize) -> f64 {
    let Some(at) = bucket.checked_sub(1) else {
        return 0.0;
    };
    let parts = 1_u32 << PARTS_BITS;
    let octave = (at >> PARTS_BITS) as f64 + f64::from(FIRST_OCTAVE);
    let part = (at % parts as usize) as f64 / f64::from(parts);
    octave.exp2() * (1.0 + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_in_the_bucket_whose_bounds_hold_it() {
        for micros in (0..30).flat_map(|power| [(1_u64 << power) - 1, 1 << power, 3 << power]) {
            let bucket = bucket_of(micros);
            let value = micros as f64;
            assert!(lower_bound(bucket) <= value, "{micros} in {bucket}");
            assert!(
                value < lower_bound(bucket + 1) || bucket == BUCKETS - 1,
                "{micros} in {bucket}"
            );
        }
    }

    #[test]
    fn percentiles_are_close_to_the_true_ones() {
        let histogram = Histogram::default();
        for millis in 1..=1_000 {
            histogram.count(Duration::from_millis(millis));
        }
        for percent in [1_u8, 10, 50, 90, 95, 99] {
            let found = histogram
                .percentile(percent, 100)
                .expect("a thousand samples")
                .as_secs_f64();
            let due = f64::from(percent) / 100.0;
            assert!((found / due - 1.0).abs() < 0.05, "p{percent}: {found}");
        }
    }

    #[test]
    fn few_samples_give_no_percentile() {
        let histogram = Histogram::default();
        histogram.count(Duration::from_millis(1));
        assert_eq!(histogram.percentile(50, 2), None);
        assert!(histogram.percentile(50, 1).is_some());
    }

    #[test]
    fn what_fades_ends() {
        let histogram = Histogram::default();
        (0..1_000).for_each(|_| histogram.count(Duration::from_millis(5)));
        (0..100).for_each(|_| histogram.fade(0.9));
        assert_eq!(histogram.percentile(50, 1), None);
    }
}
